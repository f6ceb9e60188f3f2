#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a user of Python does: builds the wheel in a checkout, installs it where there is numpy and nothing else, no
# compiler either, runs the README's example, removes it.  On every Python from 3.9 to 3.13 that is here.
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset MEST_LIBRARY PYTHONPATH PYTHONDONTWRITEBYTECODE
export SOURCE_DATE_EPOCH=1700000000 PIP_DISABLE_PIP_VERSION_CHECK=1

skip() { skipped=$((skipped + 1)); say "skipped: $*"; }

# ------------------------------------------------------------------------------------ building --- */

build=$(cd "$root" && realpath "${BUILD:-.build}")
here=$work/checkout # as it is now, committed or not
mkdir -p "$here/.build"
git -C "$root" ls-files -z --cached --others --exclude-standard \
    | tar -C "$root" --null -T - --ignore-failed-read -cf - 2>/dev/null | tar -C "$here" -xf -
in_git() { git -C "$here" -c user.name=check -c user.email=check@localhost "$@"; }
in_git init -q && in_git add -A && in_git commit -q -m 'as it is now'
ln -s "$build/release" "$here/.build/release"
ln -s "$root/.venv" "$here/.venv"
untouched() { [ "$(in_git status --porcelain --ignored)" = "$(printf '!! %s\n' .build/ .venv "$@" | LC_ALL=C sort)" ] || { in_git status --ignored; false; }; }

name=mest-$version-py3-none-linux_$(uname -m).whl
make_wheel() { make -s -C "$root" wheel DIST="$work/dist" "$@" | tee "$work/said"; return "${PIPESTATUS[0]}"; }
try 'make wheel' make_wheel || { totals wheel $passed $failed; exit 1; }
one_wheel() { [ "$(tail -n 1 "$work/said")" = "$work/dist/$name" ] && [ "$(ls "$work/dist")" = "$name" ]; }
try "it is called $name, and make wheel says so" one_wheel
wheel=$work/dist/$name
try 'wheel in another folder' "$here/tools/wheel.sh" "$build/release/libmest.so"
try 'the same sources give the same bytes' cmp "$wheel" "$here/dist/$name"
try 'building leaves the wheel alone behind' untouched dist/

# ------------------------------------------------------------------------------- what is in it --- */

inside=$work/inside
try 'unpacking' "$root/.venv/bin/python" -m zipfile -e "$wheel" "$inside"
info=mest-$version.dist-info
(cd "$inside" && find . -type f -printf '%P\n') | LC_ALL=C sort >"$work/found"
{
    git -C "$here/bindings/python" ls-files mest
    say mest/libmest.so
    printf "$info/%s\n" METADATA RECORD WHEEL entry_points.txt licenses/LICENSE licenses/LICENSE-DATA.md top_level.txt
} | LC_ALL=C sort >"$work/expected"
try 'every file of the package, the library, the licence' diff "$work/expected" "$work/found"
try 'the licence is the repository'\''s' cmp "$root/LICENSE" "$inside/$info/licenses/LICENSE"
try 'the digits are' cmp "$root/examples/data/digits.csv.gz" "$inside/mest/digits.csv.gz"
no_paths() { ! grep -raoF -e "$root" -e "$work" -e "$HOME/" "$inside"; }
try 'no path of this machine' no_paths
stripped() { ! readelf -SW "$inside/mest/libmest.so" | grep -E '\.(symtab|debug_info)'; }
try 'the library is stripped' stripped
says() { # FILE LINE...
    local file=$inside/$info/$1 line
    shift
    for line in "$@"; do grep -qxF "$line" "$file" || { say "no line '$line' in"; cat "$file"; return 1; }; done
}
try 'metadata' says METADATA 'Name: mest' "Version: $version" 'Requires-Python: >=3.9' 'License-Expression: Apache-2.0 AND CC-BY-4.0' \
    'Requires-Dist: numpy>=1.22' 'License-File: LICENSE'
extras() { diff <(printf 'Provides-Extra: %s\n' all onnx plot progress safetensors sklearn test torch) \
    <(grep ^Provides-Extra "$inside/$info/METADATA" | LC_ALL=C sort); }
try 'extras' extras
needs() { [ "$(grep ^Requires-Dist "$inside/$info/METADATA" | grep -v 'extra ==')" = 'Requires-Dist: numpy>=1.22' ]; }
try 'numpy is all that it needs' needs
try 'tags' says WHEEL 'Root-Is-Purelib: false' "Tag: py3-none-linux_$(uname -m)"
try 'it brings the command mest' says entry_points.txt 'mest = mest.cli:main'

# ------------------------------------------------------------------------- for another machine --- */

if [ "$(uname -m)" = aarch64 ] || [ ! -e /usr/aarch64-linux-gnu/lib/libc.so ]; then
    skip 'a wheel for AArch64: no /usr/aarch64-linux-gnu/lib/libc.so'
else
    other=$work/dist/mest-$version-py3-none-linux_aarch64.whl
    for_aarch64() {
        make_wheel TARGET=aarch64-linux && "$root/.venv/bin/python" -m zipfile -e "$other" "$work/aarch64" \
            && readelf -h "$work/aarch64/mest/libmest.so" | grep -q 'Machine: *AArch64' \
            && [ -z "$(readelf -SW "$work/aarch64/mest/libmest.so" | grep symtab)" ] \
            && diff -r -x libmest.so "$inside/mest" "$work/aarch64/mest"
    }
    try 'a wheel for AArch64' for_aarch64
fi

# ---------------------------------------------------------------------------------- installing --- */

# example PAGE TO: the first Python block of a page, with fewer epochs; what is installed is what ran.
example() {
    awk '/^```python$/ { inside = 1; next } /^```$/ && inside { exit } inside' "$1" | sed 's/epochs=[0-9]*/epochs=2/'
    cat <<'END'
mest.show_versions()
import os, sys
from mest import _lib
assert model.evaluate(data.x_test, data.y_test).accuracy > 0.2
assert _lib.path() == os.path.join(os.path.dirname(mest.__file__), "libmest.so")
assert mest.__file__.startswith(sys.prefix)
END
}
example "$root/README.md" >"$work/example.py"
example "$root/bindings/python/README.md" >"$work/description.py" # what a package index shows

# bare COMMAND...: nothing of this machine's is found.
bare() { (cd "$work" && env -i PATH=/nonexistent HOME="$work" "$@"); }

# A Python of this version, on PATH or pyenv's.
python_of() { # 3.N
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$candidate" -c 'import venv' 2>/dev/null; then say "$candidate"; return 0; fi
    done
    return 1
}
pip_of() { "$root/.venv/bin/python" -m pip --python "$at/bin/python" "$@"; } # making a pip in each takes longer than all else

newest=
for minor in 9 10 11 12 13; do
    python=$(python_of 3.$minor) || { skip "Python 3.$minor is not here"; continue; }
    at=$work/python3.$minor
    numpy=numpy
    [ $minor -ne 9 ] || numpy=numpy==1.22.0 # the oldest that the metadata allow
    try "Python 3.$minor: a virtual environment" "$python" -m venv --without-pip "$at" || continue
    pip_of install --quiet --no-compile --only-binary :all: "$numpy" >"$work/log" 2>&1 \
        || { skip "no $numpy to be had for Python 3.$minor"; continue; }
    try "Python 3.$minor: install" pip_of install --quiet --no-index "$wheel" \
        && try "Python 3.$minor: the README's example" bare "$at/bin/python" "$work/example.py" \
        && try "Python 3.$minor: the command mest" bare "$at/bin/mest" versions
    newest=$at
done
if [ -n "$newest" ]; then
    at=$newest
    try 'what it requires is there' pip_of check
    try 'uninstall' pip_of uninstall --quiet --yes mest
    left() { find "$at" -iname '*mest*' -not -path '*/numpy/*'; }
    nothing_left() { [ -z "$(left)" ] || { left; false; }; }
    try 'nothing is left' nothing_left
fi

# ------------------------------------------------------------------------------ from a checkout --- */

# As in the README: pip fetches setuptools.  No compiler is needed where the library is built.
by_pip() { (cd "$here" && PATH=/nonexistent pip_of "$@"); }
if [ -z "$newest" ] || ! pip_of download --quiet --no-deps --dest "$work/setuptools" 'setuptools>=77' >"$work/log" 2>&1; then
    skip 'pip install ./bindings/python: no Python here with numpy, or no setuptools to be had'
else
    try 'pip install ./bindings/python' by_pip install --quiet ./bindings/python \
        && try 'the package'\''s description, installed from the checkout' bare "$at/bin/python" "$work/description.py"
    pip_of uninstall --quiet --yes mest >"$work/log" 2>&1
    try 'which leaves the checkout as it was' untouched dist/
    edited() {
        by_pip install --quiet -e ./bindings/python \
            && bare "$at/bin/python" -c 'import mest; mest.datasets.digits(); mest.show_versions()' | tee "$work/versions" \
            && grep -qF "$here/.build/release/libmest.so" "$work/versions"
    }
    try 'pip install -e ./bindings/python' edited
fi

# setup.py says what is missing.  Asked without a build environment: nothing is fetched.
refused() { # WORDS
    PATH=${few:-$PATH} "$root/.venv/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation -w "$work/none" "$here/bindings/python" \
        >"$work/refusal" 2>&1 && return 1
    grep -F "$1" "$work/refusal" || { cat "$work/refusal"; return 1; }
}
rm "$here/.build/release"
mkdir "$work/few" && ln -s "$(command -v make)" "$work/few/make"
no_swift() { few=$work/few refused 'building it needs swift, not found here'; }
try 'without library and Swift' no_swift
no_file() { MEST_LIBRARY=$work/nothing.so refused 'there is no such file'; }
try 'MEST_LIBRARY names nothing' no_file
no_library() { MEST_LIBRARY=$here/LICENSE refused 'is no library for Linux'; }
try 'MEST_LIBRARY is no library' no_library
other_version() {
    say 'unsigned mest_abi_version(void) { return 77; }' | gcc -shared -fPIC -x c - -o "$work/old.so" \
        && MEST_LIBRARY=$work/old.so refused 'has ABI version 77'
}
try 'MEST_LIBRARY is of another version' other_version
totals wheel $passed $failed $skipped
