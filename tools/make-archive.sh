#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One object with engine and kernels in which only mest_* is visible, as libmest.a.
#
#   tools/make-archive.sh FROM.a TO.a
set -euo pipefail
. "$(dirname "$0")/common.sh"

from=$1
to=$2
[ "$to" -nt "$from" ] && exit 0
bin=$(toolchain_bin)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bin/ld.lld" -r --whole-archive "$from" -o "$work/all.o"
# What remains global: the API.  Without machine paths: no debug information.
"$bin/llvm-objcopy" --strip-debug --wildcard --keep-global-symbol='mest_*' \
    --remove-section='.swift*autolink*' "$work/all.o" "$work/mest.o"
rm -f "$to"
"$bin/llvm-ar" rcsD "$to" "$work/mest.o"
