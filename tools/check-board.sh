#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs without an operating system, in QEMU: the bits of Tests/c/hashes.txt, faults that are reported, and the
# examples, reset at many places, with this machine's hash.
#
#   tools/check-board.sh            model and stack of the examples as committed, in Tests/firmware/sizes.txt?
#   tools/check-board.sh --write    commits today's
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root" || exit 1

passed=0 failed=0 skipped=0
mkdir -p "${BUILD:-.build}/board"
built=$(cd "${BUILD:-.build}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pass() { passed=$((passed + 1)); }
miss() { failed=$((failed + 1)); say "FAILED: $*"; }
equal() { if [ "$2" = "$3" ]; then pass; else miss "$1: $3 instead of $2"; fi; } # WHAT EXPECTED FOUND

# run BOARD PROGRAM VARIABLE=VALUE...
run() { make -s -C examples/firmware run BUILD="$built" BOARD="$1" PROGRAM="$2" "${@:3}"; }
test_program() { run "$1" "$2" SOURCE="$root/Tests/firmware/$2.c" "${@:3}"; }
hash_of() { sed -n 's/^hash //p'; }

# ------------------------------------------------------------------------------------- golden --- */

# golden BOARD LANES [PATTERN [WITHOUT]]: the lines of Tests/c/hashes.txt that have PATTERN, less those that have WITHOUT.
golden() {
    local found=$work/$1.$2.golden lines line
    lines=$(grep -n -- "${3:-}" Tests/c/hashes.txt | grep -v -- "${4:-no such name}" | cut -d: -f1 | paste -sd' ')
    for line in $lines; do sed -n "${line}p" Tests/c/hashes.txt; done >"$found.expected"
    test_program "$1" golden LANES="$2" RAM=4M STACK=2M ARGUMENTS="${3:+$lines}" SECONDS=900 >"$found" 2>&1
    if diff "$found.expected" "$found"; then pass; else miss "$1: golden hashes, $2 lanes (< committed, > found)"; fi
    say "$1, $2 lanes: $(grep -cxFf "$found.expected" "$found") hashes as committed"
}

# ------------------------------------------------------------------------------------- faults --- */

faults() { # BOARD
    local what
    for what in stack:': stack overflow$' trap: address:; do
        [ "$1 ${what%%:*}" != 'rv32imac address' ] || continue # QEMU has a bus there that answers
        test_program "$1" faults RAM=64K STACK=8K ARGUMENTS="${what%%:*}" >"$work/$1.fault" 2>&1
        equal "$1: status after ${what%%:*}" 2 $? # of make
        if grep -q "^fault: .*${what#*:}" "$work/$1.fault"; then pass; else miss "$1: no report of ${what%%:*}"; cat "$work/$1.fault"; fi
    done
    if test_program "$1" faults RAM=64K STACK=8K >"$work/$1.flash" 2>&1; then pass; else miss "$1: flash"; cat "$work/$1.flash"; fi
}

# ----------------------------------------------------------------------------------- examples --- */

# example BOARD PROGRAM EXPECTED "UPDATE..."...: the same hash when it is reset after these updates.
example() {
    local board=$1 program=$2 expected=$3 updates
    shift 3
    for updates in "$@"; do
        run "$board" "$program" ARGUMENTS="$updates" >"$work/$board.$program" 2>&1
        equal "$board: $program, reset after ${updates:-half}" "$expected" "$(hash_of <"$work/$board.$program")"
        [ "$updates" = 0 ] || grep -q '^start 2: resumed' "$work/$board.$program" || miss "$board: $program was not reset"
    done
    # What the program itself says at the end.
    sed -nE "s/^model ([0-9]+) stack ([0-9]+) of .*/$board $program-model \1\n$board $program-stack \2/p" "$work/$board.$program"
}

# The power goes whenever it likes, in a save too: QEMU is told to reset, the program is not.
power() { # BOARD PROGRAM EXPECTED
    local console=$work/$1.power start
    for start in 1 2 3 4 5 6; do
        for _ in {1..300}; do ! grep -qsE "^(start $start:|hash)" "$console" || break; sleep 0.1; done
        sleep 0.$((RANDOM % 6))
        say system_reset
    done | run "$1" "$2" ARGUMENTS=0 MONITOR=stdio CONSOLE="file,path=$console" >"$work/$1.monitor" 2>&1
    equal "$1: $2, power goes" "$3" "$(hash_of <"$console")"
    if grep -q '^start 3:' "$console"; then pass; else miss "$1: $2: power did not go"; fi
}

# --------------------------------------------------------------------------------------------- */

cross_gcc() { case $1 in cortex-m4f) say arm-none-eabi-gcc ;; rv32imac) say riscv64-unknown-elf-gcc ;; esac; }
emulator() { case $1 in cortex-m4f) say qemu-system-arm ;; rv32imac) say qemu-system-riscv32 ;; esac; }

for program in digits keywords keywords_norm; do
    run host "$program" ARGUMENTS=0 >"$work/host.$program" 2>&1 || { miss "host: $program"; cat "$work/host.$program"; }
    say "host: $program: hash $(hash_of <"$work/host.$program")"
    example host "$program" "$(hash_of <"$work/host.$program")" '' '1 15 16 40' >"$work/said"
    grep '^FAILED' "$work/said"
done

check_board() { # BOARD; what it finds is in $work/BOARD.log
    passed=0 failed=0
    # What archives have, one sample a step; all networks where floats are not software, which takes ten times as long.
    case $1 in
        rv32imac) golden "$1" 1 ', one by one' 'convolutions\|runs' ;;
        *) golden "$1" 1 ', one by one' && golden "$1" 16 ;;
    esac
    faults "$1"
    expected() { hash_of <"$work/host.$1"; }
    # An update before, at and after a save, several starts; where it takes long less.
    if [ "$1" = rv32imac ]; then example "$1" digits "$(expected digits)" '60 61 300'
    else
        example "$1" digits "$(expected digits)" 0 1 50 '51 52 53 300' ''
        power "$1" digits "$(expected digits)"
        example "$1" keywords "$(expected keywords)" '21 33'
        example "$1" keywords_norm "$(expected keywords_norm)" ''
    fi
    totals "$1" $passed $failed
}

boards=
for board in cortex-m4f rv32imac; do
    if have "$(cross_gcc $board)" && have "$(emulator $board)"; then boards="$boards $board"
    else say "skipped: $board, no $(cross_gcc $board) or $(emulator $board)"; skipped=$((skipped + 1)); fi
done
# One beside the other; archives first, since both are one script's.
for board in $boards; do BUILD=$built tools/firmware.sh $board; done
for board in $boards; do check_board $board >"$work/$board.log" 2>&1 & done
wait
for board in $boards; do
    cat "$work/$board.log"
    grep -q "^$board: [0-9]* passed, 0 failed" "$work/$board.log" || miss "$board"
done
grep -hsE '^[a-z0-9]+(-[a-z0-9]+)* [a-z_]+-(model|stack) [0-9]+$' "$work"/*.log >"$work/sizes"

kept=Tests/firmware/sizes.txt
of_boards="^($(say $boards | tr ' ' '|')) [a-z_]+-(model|stack) "
if [ -z "$boards" ]; then :
elif [ "${1:-}" = --write ]; then
    { grep -vE "$of_boards" $kept; cat "$work/sizes"; } >"$work/new" && cp "$work/new" $kept
elif [ "$(head -n 1 $kept)" != "# $("$(toolchain_bin)/clang" --version | head -n 1)" ]; then
    skipped=$((skipped + 1)); say "skipped: stacks, which are those of $(head -n 1 $kept)"
else
    equal 'what is measured' "$(grep -E "$of_boards" $kept | cut -d' ' -f1,2 | sort)" "$(cut -d' ' -f1,2 "$work/sizes" | sort)"
    while read -r target measure bytes; do
        was=$(awk -v target="$target" -v measure="$measure" '$1 == target && $2 == measure { print $3 }' $kept)
        if [ $((bytes * 100)) -gt $((${was:-0} * 102)) ]; then miss "$target $measure: $bytes bytes, ${was:-none} committed"; else pass; fi
    done <"$work/sizes"
fi
totals board $passed $failed $skipped
