#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Keeps what can trap, allocate or print out of the engine: a trap would end the host process.
# A line that must stay says why:  // lint: the reason
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0

forbid() { # WHY PATTERN
    local found
    # Comments do not count, nor do string literals.
    found=$(engine_sources | while read -r file; do
        sed -E -e '/\/\/ lint: /s/.*//' -e 's/"([^"\\]|\\.)*"/""/g' -e 's://.*::' "$file" \
            | grep -nE "$2" | sed "s|^|${file#"$root"/}:|"
    done)
    if [ -z "$found" ]; then passed=$((passed + 1))
    else failed=$((failed + 1)); say "FAILED: $1"; say "$found"; fi
}

forbid 'ends the process' '\b(fatalError|precondition|preconditionFailure|assert|assertionFailure|abort|exit) *\('
forbid 'traps on failure' '\b(try!|as!)'
forbid 'forced unwrap of an optional' '[A-Za-z0-9_)\]]!([^=]|$)'
forbid 'implicitly unwrapped optional' ': *[A-Z][A-Za-z0-9_<>.]*!( |=|$|,|\))'
forbid 'class or actor: heap and reference counts' '^ *(public |private |fileprivate |internal |final |open )*(class|actor) [A-Z]'
forbid 'array: heap' ': *\[[A-Z][A-Za-z0-9_<>.]*\]|\[[A-Z][A-Za-z0-9_<>.]*\]\(|\bArray<|\.append\('
forbid 'dictionary, set or string: heap' '\b(Dictionary|Set)<|: *String\b|\bString\('
forbid 'existential: heap' '\bany [A-Z]'
forbid 'prints' '\b(print|debugPrint|dump) *\('
forbid 'allocates' '\.allocate\(|\bmalloc\(|\bposix_memalign\(|withUnsafeTemporaryAllocation'
forbid 'rounds by libm' '\.rounded\((\)|\.)'
forbid 'undefined behaviour instead of a trap' '\bunsafeBitCast\b'
forbid 'imports what Embedded Swift has not' '^ *import (Foundation|Glibc|Darwin|Dispatch)\b'
forbid 'conversion that traps: see Foundation/Integers.swift' '\bU?Int(8|16|32|64)?\(([^tbe0-9MI-]|t[^r]|b[^i]|e[^x]|M[^E]|I[^n])'
# Integer arithmetic that traps on overflow looks like that of floats, which does not: the compiler's first output tells.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if engine "$work/engine.sil" -O -emit-silgen 2>"$work/log" && grep -q 'static Int\.&+ infix\|static Int\.== infix' "$work/engine.sil"; then
    found=$(awk '/^\/\/ / && !/^\/\/ Isolation/ { name = substr($0, 4) } /^sil / { inside = name }
        match($0, /function_ref static (U?Int(8|16|32|64)?|SignedNumeric|SignedInteger)(<>)?\.([-+*]=? infix|- prefix)|function_ref abs</) {
            print inside ": " substr($0, RSTART + 13, RLENGTH - 13) }' "$work/engine.sil" | LC_ALL=C sort -u)
    if [ -z "$found" ]; then passed=$((passed + 1))
    else failed=$((failed + 1)); say 'FAILED: integer arithmetic that traps: &+ &- &*, or multipliedReportingOverflow'; say "$found"; fi
else
    failed=$((failed + 1)); say 'FAILED: the engine does not compile'; tail -n 20 "$work/log"
fi
# Floors: an exported function stands in Exports only.
found=$(grep -rlE '^ *@c\b' "$root/Sources/Mest" | grep -v '/Exports/')
if [ -z "$found" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); say "FAILED: @c outside Exports: $found"; fi
# Every file says its licence in its first lines.
found=$(find "$root/Sources" "$root/Tests" "$root/tools" "$root/examples" "$root/bindings" "$root/include" -type f \
        \( -name '*.swift' -o -name '*.c' -o -name '*.h' -o -name '*.sh' -o -name '*.py' \) -exec grep -L 'SPDX-License-Identifier: Apache-2.0' {} + 2>/dev/null)
if [ -z "$found" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); say 'FAILED: no SPDX line:'; say "$found"; fi
totals lint $passed $failed
