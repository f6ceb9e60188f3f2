#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The Debian packages (docs/c.md): built, looked at by lintian, installed into an empty system, used there for the examples by
# pkg-config and by CMake, and removed.
set -uo pipefail
. "$(dirname "$0")/common.sh"

for tool in dpkg-buildpackage:dpkg-dev dh:debhelper; do
    have "${tool%:*}" || { say "deb, no ${tool#*:} here: 0 passed, 0 failed, 1 skipped"; exit 0; }
done

passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

try 'make deb' make -s -C "$root" deb || { totals deb $passed $failed; exit 1; }
debs=$(cd "$root/${BUILD:-.build}/deb" && pwd)
architecture=$(dpkg-architecture -qDEB_HOST_ARCH)
triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
library=$(echo "$debs"/libmest"$version_major"_"$version"-*_"$architecture".deb)
development=$(echo "$debs"/libmest-dev_"$version"-*_"$architecture".deb)

# Tags of lower rank ("info") are about flags of compilers that the packages' own tools did not run.
no_complaints() { LC_ALL=C lintian --allow-root --fail-on error,warning "$debs"/*.changes; }
if have lintian; then try 'lintian' no_complaints; else skipped=$((skipped + 1)); say 'skipped: lintian is not here'; fi

files_of() { dpkg-deb --fsys-tarfile "$1" | tar -tf - | sed -n 's|^\./||; /[^/]$/p' | sed "s|/$triplet/|/TRIPLET/|" | LC_ALL=C sort; }
documents() { printf "usr/share/doc/$1/%s\n" "${@:2}"; }
packaged() { # PACKAGE FILE...
    diff <(printf '%s\n' "${@:2}" | LC_ALL=C sort) <(files_of "$1")
}
try 'files of libmest0' packaged "$library" usr/lib/TRIPLET/libmest.so."$version_major" usr/lib/TRIPLET/libmest.so."$version" \
    $(documents "libmest$version_major" changelog.Debian.gz changelog.gz copyright)
try 'files of libmest-dev' packaged "$development" usr/include/mest.h usr/include/mest.hpp usr/lib/TRIPLET/libmest.a \
    usr/lib/TRIPLET/libmest.so usr/lib/TRIPLET/pkgconfig/mest.pc usr/lib/TRIPLET/cmake/mest/mestConfig.cmake \
    usr/lib/TRIPLET/cmake/mest/mestConfigVersion.cmake \
    $(documents libmest-dev README.md.gz c.md.gz changelog.Debian.gz changelog.gz copyright) \
    $(cd "$root/examples" && documents libmest-dev/examples c/*.c cpp/*.cpp {c,cpp}/{Makefile,CMakeLists.txt})

# A program compiled with this header may ask for what an earlier library does not have.
symbols_of() { dpkg-deb --ctrl-tarfile "$library" | tar -xOf - ./symbols; }
all_symbols() { diff <(grep -v '^#' "$root/Tests/c/symbols.txt") <(symbols_of | sed -n "s/^ \(mest_[a-z_0-9]*\)@MEST_$version_major $version\$/\1/p"); }
try 'every function in the symbols file, of this version' all_symbols

# An empty system.
system=$work/system
mkdir -p "$system/var/lib/dpkg/info" "$system/var/lib/dpkg/updates"
touch "$system/var/lib/dpkg/status" "$system/var/lib/dpkg/available"
as_root=
[ "$(id -u)" -eq 0 ] || as_root=fakeroot
there() { $as_root dpkg --root="$system" --force-depends --force-not-root --force-bad-path "$@"; }
if [ -n "$as_root" ] && ! have fakeroot; then
    say 'skipped: to install needs root, or fakeroot'
    totals deb $passed $failed $((skipped + 1))
    exit
fi
try 'install' there --install "$library" "$development" || { totals deb $passed $failed $skipped; exit 1; }
no_paths() { ! grep -raoF -e "$root" -e "$work" "$system/usr"; }
try 'no path of this machine in installed files' no_paths

gzip -dc "$root/examples/data/digits.csv.gz" >"$work/digits.csv" || failed=$((failed + 1))
digits() { LD_LIBRARY_PATH=$system/usr/lib/$triplet "$1" "$work/digits.csv"; }
export PKG_CONFIG_SYSROOT_DIR=$system PKG_CONFIG_LIBDIR=$system/usr/lib/$triplet/pkgconfig
plain() { [ "$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --cflags --libs mest | xargs)" = -lmest ]; }
try 'pkg-config of a system: the plain name' plain
for language in c cpp; do
    cp -r "$system/usr/share/doc/libmest-dev/examples/$language" "$work/$language"
    try "$language, pkg-config: build" make -s -C "$work/$language" train_digits &&
        try "$language, pkg-config: run" digits "$work/$language/train_digits"
    try "$language, CMake: configure" cmake -S "$work/$language" -B "$work/$language/build" -DCMAKE_PREFIX_PATH="$system/usr" &&
        try "$language, CMake: build" cmake --build "$work/$language/build" --target train_digits_static &&
        try "$language, CMake: run" digits "$work/$language/build/train_digits_static"
done

try 'remove' there --purge libmest-dev libmest"$version_major"
nothing_left() { [ -z "$(find "$system/usr" \( -type f -o -type l \) -print)" ]; }
try 'nothing is left' nothing_left
totals deb $passed $failed $skipped
