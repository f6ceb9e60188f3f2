#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The archives of tools/firmware.sh: what they show and what they need, whether a program links, and their size.
#
#   tools/check-firmware.sh            as committed?
#   tools/check-firmware.sh --write    commits today's sizes
#
# Tests/firmware/sizes.txt has lines "target measure bytes": code, constants, data and bss of the whole archive and
# of the program of docs/firmware.md.  More than 2 % beyond one of them fails, and the functions that grew are told:
# those of at least 512 bytes are in Tests/firmware/functions.txt.
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root" || exit 1

passed=0 failed=0 skipped=0
targets='cortex-m0plus cortex-m4f cortex-m7 cortex-m55 rv32imac aarch64'
bin=$(toolchain_bin)
built=${BUILD:-.build}/firmware
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pass() { passed=$((passed + 1)); }
miss() { failed=$((failed + 1)); say "FAILED: $*"; }

# The first block of LANGUAGE after LINE in docs/firmware.md.
documented() { # LINE LANGUAGE
    awk -v line="$1" -v fence="^\`\`\`$2\$" '$0 ~ line { after = 1 } /^```$/ && inside { exit } inside; after && $0 ~ fence { inside = 1 }' \
        docs/firmware.md
}

# A compiler for TARGET and its flags, as docs/firmware.md has them.
compiler_for() {
    local flags
    flags=$(sed -n "s/^| \`$1\` .*| \`\(.*\)\` | [0-9,]* |\$/\1/p" docs/firmware.md)
    case $1 in
        cortex-*) say "arm-none-eabi-gcc $flags" ;;
        rv32imac) say "riscv64-unknown-elf-gcc $flags" ;;
        aarch64) say "$bin/clang $flags -fuse-ld=lld -static" ;;
    esac
}

# Bytes of each kind in an object or a program.
sizes() { # TARGET PREFIX FILE
    "$bin/llvm-objdump" --section-headers "$3" | while read -r _ name size _; do
        case $name in
            .text*) say code $((16#$size)) ;;
            .rodata* | .ARM.ex*) say constants $((16#$size)) ;;
            .data* | .sdata*) say data $((16#$size)) ;;
            .bss* | .sbss*) say bss $((16#$size)) ;;
        esac
    done | awk -v target="$1" -v prefix="$2" '{ sum[$1] += $2 } END {
        split("code constants data bss", kinds)
        for (i = 1; i <= 4; i++) print target, prefix "-" kinds[i], sum[kinds[i]] + 0 }'
}

# "bytes name" of every function and table.
functions() { # FILE
    "$bin/llvm-nm" --print-size --radix=d "$1" | awk '$3 ~ /^[tTrRdDbB]$/ { print $2 + 0, $4 }' | "$bin/swift-demangle" --simplified \
        | awk '{ bytes = $1; sub(/^[0-9]+ /, ""); sum[$0] += bytes } END { for (name in sum) print sum[name], name }' | LC_ALL=C sort -k2
}

check() { # TARGET
    local target=$1 archive=$built/$1/libmest.a compiler
    "$bin/llvm-nm" --undefined-only "$archive" | awk 'NF == 2 { print $2 }' | LC_ALL=C sort -u >"$work/undefined"
    if grep -vxFf "$work/allowed" "$work/undefined" >"$work/unexpected"; then miss "$target needs:" $(cat "$work/unexpected"); else pass; fi
    "$bin/llvm-nm" --defined-only --extern-only "$archive" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort >"$work/shown"
    if diff "$work/api" "$work/shown" >"$work/diff"; then pass; else miss "symbols of $target (< expected, > found)"; cat "$work/diff"; fi

    compiler=$(compiler_for "$target")
    if ! have "${compiler%% *}"; then
        skipped=$((skipped + 1)); say "skipped: linking for $target, no ${compiler%% *}"
    elif $compiler -std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib -T Tests/firmware/board.ld -I"$built/$target" \
        "$work/main.c" Tests/firmware/board.c "$archive" $([ "$target" = aarch64 ] || say -lgcc) -Wl,--gc-sections -o "$work/program" 2>"$work/log"; then pass
    else miss "$target does not link"; head -n 10 "$work/log"; fi

    # The toolchain's linker, and no library but this one: sizes depend on nothing else.
    "$bin/clang" $("$root/tools/firmware.sh" --flags "$target") -std=c11 -Os -ffreestanding -ffunction-sections -fdata-sections \
        -I"$built/$target" -c "$work/main.c" -o "$work/main.o" \
        && "$bin/ld.lld" --gc-sections --entry=main --unresolved-symbols=ignore-all "$work/main.o" "$archive" -o "$work/image" || return 1
    sizes "$target" archive "$built/$target/mest.o" >>"$work/sizes"
    sizes "$target" image "$work/image" >>"$work/sizes"
    functions "$built/$target/mest.o" | sed "s/^/$target /" >>"$work/functions"
}

# Those that somewhere have 512 bytes, a column a target.
table() {
    say "$targets function"
    awk -v targets="$targets" '
        { target = $1; bytes = $2; sub(/^[^ ]+ [^ ]+ /, ""); of[$0, target] = bytes; if (bytes > most[$0]) most[$0] = bytes }
        END {
            n = split(targets, column)
            for (name in most) {
                if (most[name] < 512) for (i = 1; i <= n; i++) rest[i] += of[name, column[i]]
                else { for (i = 1; i <= n; i++) printf "%d ", of[name, column[i]]; print name }
            }
            for (i = 1; i <= n; i++) printf "%d ", rest[i]
            print "~ all smaller ones"
        }' "$work/functions" | LC_ALL=C sort -k$(($(wc -w <<<"$targets") + 1))
}

documented '^## A program' c >"$work/main.c"
tools/firmware.sh $targets || miss 'tools/firmware.sh'
grep -v '^#' Tests/c/freestanding.txt >"$work/allowed"
grep -v '^#' Tests/c/symbols.txt >"$work/api"
for target in $targets; do check "$target" || miss "the program for $target"; done

# The project files of docs/firmware.md, as they stand there.
project() {
    local to=$work/project
    mkdir -p "$to"
    cp -r "$built/cortex-m4f" "$to/libmest" && cp Tests/firmware/board.* "$work/main.c" "$to" || return 1
    documented '^## Plain Makefile' make >"$to/Makefile"
    documented '^## CMake' cmake >"$to/CMakeLists.txt"
    documented '^with a toolchain file' cmake >"$to/cortex-m4f.cmake"
    make -C "$to" && cmake -S "$to" -B "$to/build" -DCMAKE_TOOLCHAIN_FILE="$to/cortex-m4f.cmake" && cmake --build "$to/build" \
        && [ -s "$to/firmware.elf" ] && [ -s "$to/build/firmware.elf" ]
}
if ! have arm-none-eabi-gcc || ! have cmake; then skipped=$((skipped + 1)); say 'skipped: project files, no arm-none-eabi-gcc or cmake'
elif project >"$work/log" 2>&1; then pass
else miss 'the project files of docs/firmware.md'; tail -n 20 "$work/log"; fi

compiler="# $("$bin/clang" --version | head -n 1)"
kept=Tests/firmware/sizes.txt
if [ "${1:-}" = --write ]; then
    boards=$(grep -sE -- '-(model|stack) ' $kept)  # of tools/check-board.sh
    { say "$compiler"; cat "$work/sizes"; [ -z "$boards" ] || say "$boards"; } >"$work/new" && mv "$work/new" $kept
    table >Tests/firmware/functions.txt
elif [ "$(head -n 1 $kept)" != "$compiler" ]; then
    skipped=$((skipped + 1)); say "skipped: sizes, which are those of $(head -n 1 $kept)"
else
    while read -r target measure bytes; do
        was=$(awk -v target="$target" -v measure="$measure" '$1 == target && $2 == measure { print $3 }' $kept)
        if [ $((bytes * 100)) -gt $((${was:-0} * 102)) ]; then
            miss "$target $measure: $bytes bytes, ${was:-none} committed; what grew, by bytes:"
            table | awk -v target="$target" '
                FNR == 1 { for (i = 1; i <= NF; i++) if ($i == target) at = i; columns = NF - 1; next }
                { bytes = $at; name = $0; for (i = 1; i <= columns; i++) sub(/^[^ ]+ /, "", name) }
                FILENAME != "-" { was[name] = bytes; next }
                bytes > was[name] { print "   ", bytes - was[name], "more:", name, "(" bytes ")" }' Tests/firmware/functions.txt - \
                | sort -k1,1nr | head -n 30
        else
            pass
            [ $((bytes * 102)) -ge $((was * 100)) ] || say "$target $measure: $bytes bytes, $was committed: tools/check-firmware.sh --write keeps that"
        fi
    done <"$work/sizes"
fi

# The flash that docs/firmware.md tells, in thousands of bytes.
for target in $targets; do
    told=$(awk -F ' *[|] *' -v target="\`$target\`" '$2 == target { gsub(",", "", $5); print $5 * 1000 }' docs/firmware.md)
    bytes=$(awk -v target="$target" '$1 == target && /image-(code|constants)/ { sum += $3 } END { print sum + 0 }' $kept)
    if [ $((${told:-0} * 98)) -le $((bytes * 100)) ] && [ $((${told:-0} * 102)) -ge $((bytes * 100)) ]; then pass
    else miss "docs/firmware.md: $target takes ${told:-no} bytes of flash, $kept has $bytes"; fi
done
totals firmware $passed $failed $skipped
