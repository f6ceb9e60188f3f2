#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The kernels and the whole library built for AArch64 Linux and run in qemu: NEON gives the bits of the
# reference there, and AArch64 those of this machine and of Tests/c/hashes.txt.
#
# Compiler and linker are the Swift toolchain's; the C library, libgcc and qemu are Debian's, which
# tools/setup.sh test installs.  Embedded Swift has no module for aarch64 Linux: the engine is compiled
# for bare metal, whose calling convention is the same, and linked with kernels compiled for Linux.
set -uo pipefail
. "$(dirname "$0")/common.sh"

skip() { say "skipped: $*"; totals aarch64 0 0 1; exit 0; }

[ "$(uname -m)" != aarch64 ] || skip 'this machine is one: the other parts run there'
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || skip 'no qemu-aarch64 (Debian: qemu-user)'
libraries=/usr/aarch64-linux-gnu
[ -e $libraries/lib/libc.so ] || skip "no $libraries/lib/libc.so (Debian: libc6-dev-arm64-cross)"
compgen -G '/usr/lib/gcc-cross/aarch64-linux-gnu/*/libgcc.a' >/dev/null \
    || skip 'no libgcc for AArch64 (Debian: libgcc-12-dev-arm64-cross or another version)'

passed=0 failed=0
bin=$(toolchain_bin)
work=$root/${BUILD:-.build}/aarch64
[[ ${BUILD:-} != /* ]] || work=$BUILD/aarch64
mkdir -p "$work"
cd "$root" || exit 1

# one WHAT COMMAND...: a command that is one check.
one() {
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); say "FAILED: $what"; return 1; fi
}
compile() { "$bin/clang" --target=aarch64-linux-gnu -fuse-ld=lld "$@"; }
emulate() { timeout 900 "$qemu" -L $libraries "$@"; }
kernel_flags='-std=c11 -ffp-contract=off -fno-math-errno -Wall -Wextra -Werror -ISources/CMestKernels/include'

# ----------------------------------------------------------- every level against the reference --- */

fingerprint() { grep -o 'fingerprint [0-9a-f]*' "$1"; }

kernels() {
    # The fingerprint is the reference's: no vector path is needed here.
    "$bin/clang" -O2 $kernel_flags -D_GNU_SOURCE -DMESTK_NO_SIMD -fuse-ld=lld Tests/c/kernels/kernels_test.c \
        $(kernel_sources) -lm -o "$work/kernels-here" || return 1
    compile -O2 $kernel_flags -D_GNU_SOURCE Tests/c/kernels/kernels_test.c $(kernel_sources) -lm -o "$work/kernels" \
        || return 1
    "$work/kernels-here" >"$work/kernels-here.txt"
    emulate "$work/kernels" | tee "$work/kernels.txt"
    [ "${PIPESTATUS[0]}" -eq 0 ] || return 1
    diff <(fingerprint "$work/kernels-here.txt") <(fingerprint "$work/kernels.txt")
}

# ---------------------------------------------------------------------------------- the library --- */

library() {
    swiftc -target aarch64-none-none-elf -swift-version 6 -O -wmo -parse-as-library \
        -enable-experimental-feature Embedded -Xfrontend -no-allocations -Xfrontend -function-sections \
        -Xfrontend -disable-stack-protector -Xcc -ffreestanding -I Sources/CMest -I Sources/CMestKernels/include \
        -module-name Mest -c $(engine_sources) -o "$work/engine.o" || return 1
    compile -O3 $kernel_flags -fvisibility=hidden -Wno-pass-failed -fPIC -shared "$work/engine.o" $(kernel_sources) \
        -Wl,-soname,libmest.so."$version_major" -Wl,--version-script=packaging/mest.map -Wl,--no-undefined-version \
        -Wl,--gc-sections -Wl,-z,nodelete -Wl,-z,defs -o "$work/libmest.so" || return 1
    ln -sf libmest.so "$work/libmest.so.$version_major"
}

# The compiler could have taken the vectors apart: where 16 samples lie side by side, every multiply-add
# is one of four floats.
neon() {
    local family vectors scalars status=0
    "$bin/llvm-objdump" --disassemble --no-show-raw-insn "$work/libmest.so" >"$work/instructions"
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
    for name in determinism bad_input; do
        compile -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -g -Wall -Wextra -Wpedantic -Werror -Iinclude "Tests/c/$name.c" \
            -o "$work/$name" -L"$work" -lmest -lpthread -Wl,-rpath,"$work" || return 1
    done
}
hashes() { diff Tests/c/hashes.txt <(emulate "$work/determinism" --print); }

one 'kernels, and the bits of this machine' kernels
if one 'library and test programs' eval 'library && programs'; then
    one 'NEON instructions' neon
    one 'committed hashes' hashes
    for program in determinism bad_input; do
        emulate "$work/$program" >"$work/$program.txt"
        status=$?
        # Levels of other machines are skipped, once a network.
        grep -v '^skipped: AVX' "$work/$program.txt"
        grep -q '^[a-z_]*: [0-9]* passed' "$work/$program.txt" || one "$program ended with status $status" false
    done
fi
totals aarch64 $passed $failed
