#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The Python package as a wheel that carries a library.  Prints its path.
#
#   tools/wheel.sh LIBRARY     into $DIST (dist); whichever Linux the library is for, the wheel is for it
#
# The same sources and library give the same bytes: dates are $SOURCE_DATE_EPOCH, else that of the last commit.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ -f "${1:-}" ] || fail "there is no library '${1:-}'"
MEST_LIBRARY=$(realpath "$1")
to=${DIST:-$root/dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=$(stat -c %Y "$root/include/mest.h")
fi
export MEST_LIBRARY SOURCE_DATE_EPOCH
# The strip of this machine knows no other's files, llvm-objcopy does.
! have swiftc || PATH=$PATH:$(toolchain_bin)
umask 022

"$root/.venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-cache-dir \
    --wheel-dir "$work" "$root/bindings/python" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail 'no wheel'; }
mkdir -p "$to"
for wheel in "$work"/*.whl; do
    mv "$wheel" "$to/"
    say "$to/$(basename "$wheel")"
done
