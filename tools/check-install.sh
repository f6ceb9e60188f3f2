#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a user does: installs, finds the library by pkg-config and by CMake, builds the C and C++ examples against the
# shared and the static library, runs them, and removes it all.
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

to=$work/stage/opt/mest
installer() { make -s -C "$root" "$1" DESTDIR="$work/stage" PREFIX=/opt/mest; }
try 'make install' installer install || { totals install $passed $failed; exit 1; }
find "$work/stage" \( -type f -o -type l \) -printf '%P\n' | sed 's|^opt/mest/||' | LC_ALL=C sort >"$work/found"
printf '%s\n' include/mest.h include/mest.hpp lib/cmake/mest/mestConfig.cmake lib/cmake/mest/mestConfigVersion.cmake lib/libmest.a \
    lib/libmest.so "lib/libmest.so.$version_major" "lib/libmest.so.$version" lib/pkgconfig/mest.pc >"$work/expected"
try 'installed files' diff "$work/expected" "$work/found"
# Installed files belong on any machine: no path of this one.
no_paths() { ! grep -raoF -e "$root" -e "$work" -e "$HOME/" "$to"; }
try 'no path of this machine in installed files' no_paths

gzip -dc "$root/examples/data/digits.csv.gz" >"$work/digits.csv" 2>"$work/log" || {
    failed=$((failed + 1)); say 'FAILED: examples/data/digits.csv.gz'; cat "$work/log"; }

# Before anything is installed: a checkout that `make build` has built in.
mkdir -p "$work/checkout/examples" "$work/checkout/.build"
cp -r "$root/examples/c" "$root/examples/cpp" "$work/checkout/examples"
ln -s "$root/include" "$work/checkout/include"
ln -s "$(cd "$root" && realpath "${BUILD:-.build}/release")" "$work/checkout/.build/release"
in_checkout() { PKG_CONFIG_LIBDIR=/nonexistent make -s -C "$work/checkout/examples/$1" clean all "${@:2}"; }
for language in c cpp; do
    for archive in '' STATIC=1; do
        try "$language in a checkout $archive: build" in_checkout $language $archive &&
            try "$language in a checkout $archive: run" "$work/checkout/examples/$language/train_digits" "$work/digits.csv"
    done
done

export PKG_CONFIG_PATH=$to/lib/pkgconfig
try 'pkg-config version' test "$(pkg-config --modversion mest)" = "$version"
digits() { LD_LIBRARY_PATH=$to/lib "$1" "$work/digits.csv"; }
for language in c cpp; do
    for kind in shared static; do
        there=$work/$language-$kind
        cp -r "$root/examples/$language" "$there"
        variable=; [ $kind = shared ] || variable=STATIC=1
        try "$language, pkg-config, $kind: build" make -s -C "$there" clean all $variable &&
            try "$language, pkg-config, $kind: run" digits "$there/train_digits"
        if [ $kind = static ]; then
            no_shared() { ! readelf -d "$there/train_digits" | grep libmest; }
            try "$language: the static program does not need libmest.so" no_shared
        fi
    done
    there=$work/$language-cmake
    cp -r "$root/examples/$language" "$there"
    try "$language, CMake: configure" cmake -S "$there" -B "$there/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$to" &&
        try "$language, CMake: build" cmake --build "$there/build" && {
            try "$language, CMake, shared: run" digits "$there/build/train_digits"
            try "$language, CMake, static: run" digits "$there/build/train_digits_static"
        }
    same_output() { diff <(digits "$work/$language-shared/train_digits") <(digits "$work/$language-static/train_digits"); }
    try "$language: shared and static give the same output" same_output
done
# What the two programs say of the same training, word for word.
epochs_of() { digits "$work/$1-shared/train_digits" | grep -E '^(epoch|test|forgetting)'; }
same_training() { diff <(epochs_of c) <(epochs_of cpp) && [ "$(epochs_of cpp | wc -l)" -ge 20 ]; }
try 'C and C++ train to the same numbers' same_training
fully_static() {
    gcc -O2 -static -I"$to/include" "$root/examples/c/train_digits.c" $(pkg-config --variable=libdir mest)/libmest.a \
        $(pkg-config --static --libs-only-l mest | sed 's/-lmest//') -o "$work/fully_static" && digits "$work/fully_static"
}
try 'a program without any shared library' fully_static

wrong_version() { ! cmake -S "$work/wrong" -B "$work/wrong/build" -DCMAKE_PREFIX_PATH="$to"; }
mkdir "$work/wrong"
printf 'cmake_minimum_required(VERSION 3.13)\nproject(p C)\nfind_package(mest 99 REQUIRED)\n' >"$work/wrong/CMakeLists.txt"
try 'CMake: another version is refused' wrong_version

# docs/c.md as it stands: its programs under the names that their first lines say, its commands in one shell, the first
# of them in the checkout.
page=$work/page
mkdir "$page"
awk -v page="$page" '
    /^```[a-z]+$/ && !inside { inside = substr($0, 4); file = inside == "cmake" ? "CMakeLists.txt" : inside == "sh" ? "commands" : "?"; next }
    /^```$/ { if (inside == "sh") print "cd " page >(page "/commands"); inside = ""; next }
    file == "?" { file = match($0, /[a-z]+\.c(pp)?( \*\/)?$/) ? substr($0, RSTART, RLENGTH) : ""; sub(/ .*/, "", file) }
    inside && file { print >(page "/" file) }' "$root/docs/c.md"
sed -i "s|\$HOME|$page|g" "$page/commands"
as_written() { (cd "$root" && unset PKG_CONFIG_PATH && bash -euxo pipefail "$page/commands"); }
try 'docs/c.md: the files are there' test -s "$page/first.c" -a -s "$page/first.cpp" -a -s "$page/block.c" -a -s "$page/CMakeLists.txt"
try 'docs/c.md: its commands' as_written

try 'make uninstall' installer uninstall
nothing_left() { [ -z "$(find "$work/stage" -type f -o -type l)" ]; }
try 'nothing is left' nothing_left
totals install $passed $failed
