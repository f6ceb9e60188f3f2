# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: where things are, and one way to speak.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The version is written once, in mest.h.
version_part() { sed -n "s/^#define MEST_VERSION_$1 *\([0-9]*\).*/\1/p" "$root/include/mest.h"; }
version_major=$(version_part MAJOR)
version=$version_major.$(version_part MINOR).$(version_part PATCH)

# clang, ld.lld and the llvm tools that belong to the Swift compiler in use.
toolchain_bin() {
    local resources
    resources=$(${SWIFTC:-swiftc} -print-target-info | sed -n 's/.*"runtimeResourcePath": *"\(.*\)".*/\1/p')
    [ -n "$resources" ] || fail "no Swift compiler found: run make setup"
    (cd "$resources/../../bin" && pwd)
}

# Every engine source, in a fixed order.
engine_sources() { find "$root/Sources/Mest" -name '*.swift' | LC_ALL=C sort; }
# Compiles it as Package.swift does: embedded, no heap.  engine OUT -O|-Osize|-Onone FLAGS...
engine() {
    local out=$1
    shift
    "${SWIFTC:-swiftc}" -swift-version 6 -wmo -parse-as-library -enable-experimental-feature Embedded \
        -Xfrontend -no-allocations -Xfrontend -function-sections -Xfrontend -disable-stack-protector \
        -I "$root/Sources/CMest" -I "$root/Sources/CMestKernels/include" -module-name Mest "$@" $(engine_sources) -o "$out"
}
engine_object() { engine "$@" -c; }
kernel_sources() { find "$root/Sources/CMestKernels" -name '*.c' | LC_ALL=C sort; }

# A check of a script with $work, $passed and $failed.  What the command prints is in $work/log, and shown where it fails.
try() { # WHAT COMMAND
    local what=$1
    shift
    if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); return 0; fi
    failed=$((failed + 1)); say "FAILED: $what"; tail -n 30 "$work/log"; return 1
}

# The line that a part of the tests ends with.
totals() { printf '%s: %d passed, %d failed, %d skipped\n' "$1" "$2" "$3" "${4:-0}"; [ "$3" -eq 0 ]; }
