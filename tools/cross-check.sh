#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The same engine and kernels must compile for microcontrollers, and ask nothing of the world there
# but what Tests/c/freestanding.txt allows.
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0
bin=$(toolchain_bin)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
grep -v '^#' "$root/Tests/c/freestanding.txt" >"$work/allowed"

check_target() { # TRIPLE "FLAGS OF CLANG"
    local triple=$1 flags=$2 out=$work/$1 swift_flags='' flag
    mkdir -p "$out"
    for flag in $flags; do swift_flags="$swift_flags -Xcc $flag"; done
    if engine_object "$out/engine.o" -O -target "$triple" $swift_flags -Xcc -ffreestanding >"$out/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); say "FAILED: engine for $triple"; grep -E 'error' "$out/log" | head -n 20
    fi

    local source object broken=
    for source in $(kernel_sources); do
        object=$out/$(basename "$source" .c).o
        "$bin/clang" --target="$triple" $flags -std=c11 -O2 -ffreestanding -ffunction-sections -fdata-sections \
            -ffp-contract=off -fno-math-errno -fvisibility=hidden -Wall -Wextra -Werror -Wno-pass-failed \
            -I "$root/Sources/CMestKernels/include" -c "$source" -o "$object" >"$out/log" 2>&1 || {
            broken=1; say "FAILED: ${source#"$root"/} for $triple"; grep -E 'error' "$out/log" | head -n 5; }
    done
    if [ -z "$broken" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi

    # Bound together, what is still undefined?
    if "$bin/ld.lld" -r "$out"/*.o -o "$out/all.o" 2>"$out/log"; then
        "$bin/llvm-nm" --undefined-only "$out/all.o" | awk '{ print $2 }' | LC_ALL=C sort -u >"$out/undefined"
        if grep -vxFf "$work/allowed" "$out/undefined" >"$out/unexpected"; then
            failed=$((failed + 1)); say "FAILED: $triple needs:" $(cat "$out/unexpected")
        else
            passed=$((passed + 1))
        fi
        local code=0 size name
        while read -r _ name size _; do
            case $name in .text*|.rodata*) code=$((code + 16#$size)) ;; esac
        done < <("$bin/llvm-objdump" --section-headers "$out/all.o" | grep '^ *[0-9]')
        say "$triple: $code bytes of code and constants"
    else
        failed=$((failed + 1)); say "FAILED: $triple does not link"; head -n 10 "$out/log"
    fi
}

check_target armv7em-none-none-eabi '-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -fshort-enums'
check_target riscv32-none-none-eabi '-march=rv32imac -mabi=ilp32'
totals cross $passed $failed
