#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Debian packages of what `make build` has built, in $BUILD/deb: libmest0 (the shared library) and libmest-dev (all else).
#
#   make deb                       DEBFULLNAME and DEBEMAIL, where set, are the maintainer's
#
# The recipe is packaging/debian, read by debhelper; this script lays out the small source tree that it wants.
set -euo pipefail
. "$(dirname "$0")/common.sh"

for tool in dpkg-buildpackage:dpkg-dev dh:debhelper; do
    have "${tool%:*}" || fail "${tool%:*} is missing: apt-get install ${tool#*:}"
done
log_version=$(dpkg-parsechangelog -l "$root/packaging/debian/changelog" -S Version)
[ "${log_version%-*}" = "$version" ] || \
    fail "mest.h is of version $version, the newest entry of packaging/debian/changelog of $log_version: add an entry"

out=$(cd "$root" && mkdir -p "${BUILD:-.build}/deb" && cd "${BUILD:-.build}/deb" && pwd)
tree=$out/libmest-$version
rm -rf "$out"/*
mkdir -p "$tree/docs" "$tree/examples/c" "$tree/examples/cpp"
cp -r "$root/packaging/debian" "$tree/debian"
sed "s/@VERSION@/$version/" "$tree/debian/libmest0.symbols.in" >"$tree/debian/libmest0.symbols"
rm "$tree/debian/libmest0.symbols.in"
cp "$root/README.md" "$root/CHANGELOG.md" "$tree"
cp "$root/docs/c.md" "$tree/docs"
for language in c cpp; do
    cp "$root/examples/$language"/{*."$language",Makefile,CMakeLists.txt} "$tree/examples/$language"
done
if [ -n "${DEBEMAIL:-}" ]; then
    sed -i "s/^Maintainer: .*/Maintainer: ${DEBFULLNAME:-$DEBEMAIL} <$DEBEMAIL>/" "$tree/debian/control"
fi

log=$out/build.log
if ! (cd "$tree" && ROOT=$root BUILT=yes dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes) >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    fail "dpkg-buildpackage failed; all of it is in $log"
fi
rm -rf "$tree"
(cd "$out" && ls ./*.deb | sed "s|^\.|$out|")
