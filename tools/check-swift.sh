#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a Swift developer does (docs/swift.md): the example with a system library that pkg-config finds, and packages
# that depend on this one, by path and by version, for its module CMest.
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The nth block of LANGUAGE of the page.
block() {
    awk -v fence="^\`\`\`$1\$" -v wanted="$2" '/^```$/ { inside = 0 } inside && n == wanted; $0 ~ fence { n++; inside = 1 }' \
        "$root/docs/swift.md"
}

# The page's commands, with a home and a copy of the example.
to=$work/mest
cp -r "$root/examples/swift" "$work/example"
block sh 1 | sed "s|\$HOME|$work|g; s|--package-path examples/swift|--package-path $work/example|" >"$work/commands"
as_written() { (cd "$root" && bash -euxo pipefail "$work/commands") && grep -q '^test: 2[5-9][0-9] of 297 correct$' "$work/log"; }
try 'docs/swift.md: its commands' as_written || { totals swiftpm $passed $failed; exit 1; }
export LD_LIBRARY_PATH=$to/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

# The same package as one that is published: a repository with a version.
mkdir "$work/published"
cp -r "$root"/{Package.swift,Sources,include,packaging} "$work/published"
publish() {
    cd "$work/published" && git init --quiet && git add -A &&
        git -c user.name=test -c user.email=test@example.org commit --quiet -m all && git tag "$version"
}
try 'a repository with a version' publish

# A package: FOLDER, then what stands between the parentheses of Package() behind its name.
package() {
    mkdir -p "$work/$1/Sources/program"
    printf '// swift-tools-version: 6.1\nimport PackageDescription\nlet package = Package(name: "program",\n%s\n)\n' "$2" \
        >"$work/$1/Package.swift"
    printf 'import CMest\nprint(String(cString: mest_version_string()))\n' >"$work/$1/Sources/program/main.swift"
}
build() { swift build --package-path "$work/$1" -Xlinker "-L$to/lib"; }
says_version() { [ "$("$work/$1/.build/debug/program")" = "$version" ]; }
header_only() { # FOLDER DEPENDENCY
    package "$1" "dependencies: [$2], targets: [$(block swift 3)]"
    try "CMest, $1: build" build "$1" && try "CMest, $1: run" says_version "$1"
}
is_example() { # of two lines, each
    [ "$(block swift 1 | while read -r line; do grep -cF -- "$line" "$root/examples/swift/Package.swift"; done | xargs)" = '1 1' ]
}
try 'docs/swift.md: its first block is the example' is_example
header_only path ".package(name: \"libmest\", path: \"$root\")"
mv "$work/published" "$work/libmest" # SwiftPM knows a package by its folder
header_only version ".package(url: \"file://$work/libmest\", from: \"$version\")"
# The library itself takes minutes to compile: here only whether the package is understood.
understood() { swift package --package-path "$work/whole" show-dependencies | grep -q libmest; }
package whole "$(block swift 2)"
try 'docs/swift.md: a dependency by path' understood
totals swiftpm $passed $failed
