#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The library built for another machine's Linux, and its kernels alone, run in qemu: every level gives the bits of the
# reference there, and that machine those of Tests/c/hashes.txt and Tests/c/kernels/fingerprint.txt.
#
#   tools/emulate.sh aarch64    64-bit ARM: the level NEON
#   tools/emulate.sh armv7      32-bit ARM without NEON: the level FPU of microcontrollers, 32-bit sizes
#
# The library is that of tools/firmware.sh; the C library, libgcc and qemu are Debian's, which tools/setup.sh test
# installs.
set -uo pipefail
. "$(dirname "$0")/common.sh"

target=${1:-aarch64}
case $target in
    aarch64) linux=aarch64-linux-gnu package=arm64 emulator=qemu-aarch64 flags= ;;
    armv7) linux=arm-linux-gnueabihf package=armhf emulator=qemu-arm
           flags='-march=armv7-a -mfpu=vfpv4-d16 -mfloat-abi=hard' ;;
    *) fail "unknown target $target; use aarch64 or armv7" ;;
esac

skip() { say "skipped: $*"; totals "$target" 0 0 1; exit 0; }

[ "$(uname -m)" != "$target" ] || skip 'this machine is one: the other parts run there'
qemu=$(command -v $emulator || command -v $emulator-static) || skip "no $emulator (Debian: qemu-user)"
libraries=/usr/$linux
[ -e $libraries/lib/libc.so ] || skip "no $libraries/lib/libc.so (Debian: libc6-dev-$package-cross)"
compgen -G "/usr/lib/gcc-cross/$linux/*/libgcc.a" >/dev/null \
    || skip "no libgcc for $linux (Debian: libgcc-12-dev-$package-cross or another version)"

passed=0 failed=0
bin=$(toolchain_bin)
cd "$root" || exit 1
mkdir -p "${BUILD:-.build}/$target"
work=$(cd "${BUILD:-.build}/$target" && pwd)
built=$(dirname "$work")/firmware/$target-linux

# one WHAT COMMAND...: a command that is one check.
one() {
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); say "FAILED: $what"; return 1; fi
}
compile() { "$bin/clang" --target=$linux $flags -fuse-ld=lld "$@"; }
emulate() { timeout 900 "$qemu" -L $libraries "$@"; }
kernel_flags='-std=c11 -ffp-contract=off -fno-math-errno -Wno-pass-failed -ISources/CMestKernels/include'

# ----------------------------------------------------------- every level against the reference --- */

kernels() { # those of the library
    compile -O2 $kernel_flags -D_GNU_SOURCE -DMESTK_THREADS Tests/c/kernels/kernels_test.c "$built"/kernels/*.o -lpthread -lm \
        -o "$work/kernels" || return 1
    emulate "$work/kernels" | tee "$work/kernels.txt"
    [ "${PIPESTATUS[0]}" -eq 0 ] && diff Tests/c/kernels/fingerprint.txt <(grep -o 'fingerprint [0-9a-f]*' "$work/kernels.txt")
}

# ---------------------------------------------------------------------------------- the library --- */

library() { tools/firmware.sh "$target-linux"; }

# The compiler could have taken the vectors apart: where 16 samples lie side by side, every multiply-add
# is one of four floats.
neon() {
    local family vectors scalars status=0
    "$bin/llvm-objdump" --disassemble --no-show-raw-insn "$built/libmest.so" >"$work/instructions"
    for family in conv linear; do
        read -r vectors scalars < <(awk -v name="^<mestk_native_${family}_.*_16>" '
            /^[0-9a-f]+ </ { inside = $2 ~ name }
            inside && /\tfml[as]\t.*\.4s/ { vectors++ }
            inside && /\tfn?m(add|sub)\ts/ { scalars++ }
            END { print vectors + 0, scalars + 0 }' "$work/instructions")
        say "$family, 16 lanes: $vectors multiply-adds of four floats, $scalars of one"
        [ "$vectors" -gt 0 ] && [ "$scalars" -eq 0 ] || status=1
    done
    return $status
}

programs() {
    local name
    for name in determinism bad_input too_large checkpoint damage faults processes; do
        compile -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -g -Wall -Wextra -Wpedantic -Werror -Iinclude "Tests/c/$name.c" \
            -o "$work/$name" -L"$built" -lmest -lpthread -ldl -rdynamic -Wl,-rpath,"$built" || return 1
    done
}
hashes() { diff Tests/c/hashes.txt <(emulate "$work/determinism" --print); }
# The library with the kernels of microcontrollers, which take one sample a step.
one_lane() {
    LANES=1 tools/firmware.sh "$target-linux" || return 1
    diff <(grep 'one by one' Tests/c/hashes.txt) <(emulate -E LD_LIBRARY_PATH="$(dirname "$built")/1-lanes/$target-linux" \
        "$work/determinism" --print | grep 'one by one')
}

if one 'library and test programs' eval 'library && programs'; then
    one 'kernels, and their committed bits' kernels
    [ $target != aarch64 ] || one 'NEON instructions' neon
    one 'committed hashes' hashes
    [ $target != armv7 ] || one 'hashes of the build for one sample a step' one_lane
    checked="bad_input too_large checkpoint damage faults processes"
    [ $target != aarch64 ] || checked="determinism $checked" # the hashes say as much of one level's bits
    for program in $checked; do
        emulate "$work/$program" >"$work/$program.txt"
        status=$?
        # Levels of other machines are skipped, once a network.
        grep -v '^skipped: ' "$work/$program.txt"
        grep -q '^[a-z_]*: [0-9]* passed' "$work/$program.txt" || one "$program ended with status $status" false
    done
fi
totals "$target" $passed $failed
