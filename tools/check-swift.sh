#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a Swift developer does (docs/swift.md): the example with a system library that pkg-config finds, and packages
# that depend on this one, by path and by version, for its module CMest.
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

try() { # WHAT COMMAND
    local what=$1
    shift
    if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); return 0; fi
    failed=$((failed + 1)); say "FAILED: $what"; tail -n 30 "$work/log"; return 1
}

to=$work/stage/opt/mest
try 'make install' make -s -C "$root" install DESTDIR="$work/stage" PREFIX=/opt/mest || { totals swiftpm $passed $failed; exit 1; }
export LD_LIBRARY_PATH=$to/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

cp -r "$root/examples/swift" "$work/example"
example() { PKG_CONFIG_PATH=$to/lib/pkgconfig swift build -c release --package-path "$work/example"; }
digits() { gzip -dc "$root/examples/data/digits.csv.gz" | "$work/example/.build/release/digits"; }
try 'examples/swift: build' example && try 'examples/swift: run' digits

# The same package as one that is published: a repository with a version.
mkdir "$work/published"
cp -r "$root"/{Package.swift,Sources,include,packaging} "$work/published"
publish() {
    cd "$work/published" && git init --quiet && git add -A &&
        git -c user.name=test -c user.email=test@example.org commit --quiet -m all && git tag "$version"
}
try 'a repository with a version' publish

depend() { # FOLDER DEPENDENCY PACKAGE-NAME
    mkdir -p "$work/$1/Sources/program"
    cat >"$work/$1/Package.swift" <<END
// swift-tools-version: 6.1
import PackageDescription
let package = Package(name: "program", dependencies: [$2], targets: [
    .executableTarget(name: "program", dependencies: [.product(name: "CMest", package: "$3")],
                      linkerSettings: [.linkedLibrary("mest")]),
])
END
    printf 'import CMest\nprint(String(cString: mest_version_string()))\n' >"$work/$1/Sources/program/main.swift"
    swift build --package-path "$work/$1" -Xlinker "-L$to/lib"
}
says_version() { [ "$("$work/$1/.build/debug/program")" = "$version" ]; }
try 'CMest by path: build' depend path ".package(name: \"libmest\", path: \"$root\")" libmest &&
    try 'CMest by path: run' says_version path
try 'CMest by version: build' depend version ".package(url: \"file://$work/published\", from: \"$version\")" published &&
    try 'CMest by version: run' says_version version
totals swiftpm $passed $failed
