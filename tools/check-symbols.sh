#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the library shows to the world is exactly what is written down.
#
#   tools/check-symbols.sh DIRECTORY      with libmest.so and libmest.a
set -uo pipefail
. "$(dirname "$0")/common.sh"

built=$1
passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

same() { # WHAT EXPECTED FOUND
    if diff "$2" "$3" >"$work/diff"; then passed=$((passed + 1))
    else failed=$((failed + 1)); say "FAILED: $1 (< expected, > found)"; cat "$work/diff"; fi
}
equal() { printf '%s\n' "$2" >"$work/a"; printf '%s\n' "$3" >"$work/b"; same "$1" "$work/a" "$work/b"; }

expected=$root/Tests/c/symbols.txt
grep -v '^#' "$expected" >"$work/expected"
LC_ALL=C sort -c "$work/expected" || failed=$((failed + 1))

# Functions that the header declares.
gcc -E -P "$root/include/mest.h" | tr '\n' ' ' | tr ';' '\n' | grep 'visibility("default")' \
    | grep -o 'mest_[a-z_0-9]* *(' | tr -d ' (' | LC_ALL=C sort -u >"$work/header"
same 'functions of mest.h' "$work/expected" "$work/header"

nm -D --defined-only "$built/libmest.so" | awk '$3 !~ /^MEST_/ { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort >"$work/so"
same 'symbols of libmest.so' "$work/expected" "$work/so"
nm -D --defined-only "$built/libmest.so" | grep -c "@@MEST_$version_major\$" >"$work/versioned"
equal 'symbols in the version node' "$(wc -l <"$work/expected")" "$(cat "$work/versioned")"
sed -n 's/^ *\(mest_[a-z_0-9]*\);/\1/p' "$root/packaging/mest.map" | LC_ALL=C sort >"$work/map"
same 'symbols of packaging/mest.map' "$work/expected" "$work/map"
nm --defined-only --extern-only "$built/libmest.a" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort >"$work/archive"
same 'symbols of libmest.a' "$work/expected" "$work/archive"

# Needed at run time: libc, and OpenMP's runtime when built with it.
readelf -d "$built/libmest.so" >"$work/dynamic"
allowed='libc.so.6 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1'
[ "${MEST_THREADS:-own}" != openmp ] || allowed="$allowed libomp.so.5"
unexpected=
for needed in $(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic"); do
    case " $allowed " in *" $needed "*) ;; *) unexpected="$unexpected $needed" ;; esac
done
equal 'libraries that libmest.so needs beyond the allowed' '' "$unexpected"
equal soname "libmest.so.$version_major" "$(sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p' "$work/dynamic")"
equal 'text relocations' '' "$(grep TEXTREL "$work/dynamic")"
equal 'executable stack' '' "$(readelf -lW "$built/libmest.so" | grep GNU_STACK | grep RWE)"
grep -q NODELETE "$work/dynamic" && found=yes || found=no
equal '-z nodelete' yes $found
equal 'libmest.so exits, aborts or prints' '' \
    "$(nm -D --undefined-only "$built/libmest.so" | grep -oE ' (abort|exit|_exit|printf|puts|putchar|fputs|fwrite|raise)(@.*)?$')"

# The version is the same wherever it stands.
equal 'version node' "MEST_$version_major" "$(sed -n 's/^\(MEST_[0-9]*\) {/\1/p' "$root/packaging/mest.map")"
equal 'soname of Package.swift' "libmest.so.$version_major" "$(grep -o 'libmest\.so\.[0-9]*' "$root/Package.swift" | tail -n 1)"
for language in c cpp; do
    equal "version of examples/$language/CMakeLists.txt" "${version%.*}" \
        "$(sed -n 's/^find_package(mest \([0-9.]*\).*/\1/p' "$root/examples/$language/CMakeLists.txt")"
done
equal 'version of the Debian packages' "$version" "$(sed -n '1s/^libmest (\(.*\)-.*/\1/p' "$root/packaging/debian/changelog")"
equal 'soname of the Debian packages' "libmest$version_major libmest.so.$version_major" \
    "$(sed -n 's/^Package: \(libmest[0-9]*\)$/\1/p' "$root/packaging/debian/control") $(sed -n '1s/ .*//p' "$root"/packaging/debian/libmest*.symbols.in)"
if [ -e "$root/bindings/python/pyproject.toml" ]; then
    if grep -q '^dynamic *=.*"version"' "$root/bindings/python/pyproject.toml"; then
        equal 'version of the Python package' "$version" \
            "$(sed -n "s/^__version__ *= *[\"']\([0-9.]*\)[\"'].*/\1/p" "$root/bindings/python/mest/__init__.py" "$root"/bindings/python/mest/_version.py 2>/dev/null | head -n 1)"
    else
        equal 'version of pyproject.toml' "$version" \
            "$(sed -n 's/^version *= *"\([0-9.]*\)".*/\1/p' "$root/bindings/python/pyproject.toml" | head -n 1)"
    fi
fi
totals symbols $passed $failed
