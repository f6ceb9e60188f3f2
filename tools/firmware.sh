#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# libmest.a and mest.h for machines without an operating system, libmest.so for another machine's Linux.
#
#   tools/firmware.sh [TARGET ...]     into $BUILD/firmware/TARGET; without a name: all but armv7-linux
#   LANES=1|16                         kernels for one sample a step, as is usual for microcontrollers, or for
#                                      batches, as elsewhere; what is unusual goes to $BUILD/firmware/LANES-lanes
#   tools/firmware.sh --flags TARGET   what clang takes for objects that go with the archive
#
# Compiler, linker and archiver are the Swift toolchain's.  What an archive asks of the program that links it
# is in Tests/c/freestanding.txt; docs/firmware.md tells how to link it.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

all='cortex-m0plus cortex-m4f cortex-m7 cortex-m55 rv32imac aarch64 aarch64-linux'

# describe TARGET: `engine` is the triple of the engine, which targets may share; `metal` what a C compiler
# for the bare machine takes.
describe() {
    # The Cortex-M with FPU share an engine: what is hot is in the kernels.
    local m4f='-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -fshort-enums'
    linux='' engine_for=$m4f
    case $1 in
        cortex-m0plus) engine=armv6m-none-none-eabi
            engine_for='-mcpu=cortex-m0plus -mthumb -mfloat-abi=soft -fshort-enums' metal="--target=$engine $engine_for" ;;
        cortex-m4f) engine=armv7em-none-none-eabi metal="--target=$engine $m4f" ;;
        cortex-m7) engine=armv7em-none-none-eabi
            metal="--target=$engine -mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-d16 -fshort-enums" ;;
        # Without its vectors of floats, which flush subnormal numbers to zero.
        cortex-m55) engine=armv7em-none-none-eabi
            metal='--target=armv8.1m.main-none-none-eabi -mcpu=cortex-m55+nomve.fp -mthumb -mfloat-abi=hard -fshort-enums' ;;
        rv32imac) engine=riscv32-none-none-eabi engine_for='-march=rv32imac -mabi=ilp32' metal="--target=$engine $engine_for" ;;
        aarch64) engine=aarch64-none-none-elf engine_for='' metal="--target=$engine" ;;
        # Embedded Swift has no module for these Linuxes: the engine is the bare machine's, whose calling
        # convention is the same, the kernels are compiled for Linux.
        aarch64-linux) engine=aarch64-none-none-elf engine_for='' linux=aarch64-linux-gnu metal="--target=$linux" ;;
        armv7-linux) engine=armv7-none-none-eabi engine_for='-march=armv7-a -mfpu=vfpv4-d16 -mfloat-abi=hard'
            linux=arm-linux-gnueabihf metal="--target=$linux $engine_for" ;;
        *) fail "unknown target $1; there are $all armv7-linux" ;;
    esac
    # Where flash is dear, size counts; elsewhere speed.
    case $1 in
        aarch64* | *-linux) swift_level=-O c_level=-O3 lanes=16 ;;
        *) swift_level=-Osize c_level=-Os lanes=1 ;;
    esac
    folder=$out/$1
    [ "${LANES:-$lanes}" = $lanes ] || { lanes=$LANES folder=$out/$lanes-lanes/$1; }
}

# Is FILE there and younger than all that it is made of?
fresh() { [ -e "$1" ] && [ -z "$(find Sources include packaging tools/common.sh tools/firmware.sh -newer "$1" -print -quit)" ]; }

# The engine, once for all targets that share it.
build_engine() {
    local object=$out/engine-$engine.o flag swift_flags=
    fresh "$object" && return
    for flag in $engine_for; do swift_flags="$swift_flags -Xcc $flag"; done
    # Swift 6.3.1 at -Osize: Store.rows reads self by `ldm r10!`, and its caller expects r10 unchanged.  Costs 1 %.
    case $engine in arm*) swift_flags="$swift_flags -Xllvm -arm-load-store-opt=false" ;; esac
    engine_object "$object.new" "$swift_level" -target "$engine" $swift_flags -Xcc -ffreestanding
    mv "$object.new" "$object"
}

# Those of several targets at once: each keeps one core busy for a minute.  One that fails is built again, and says so.
build_engines() { # TARGET...
    local target started=' '
    for target in "$@"; do
        describe "$target"
        [[ $started != *" $engine "* ]] || continue
        started="$started$engine "
        while [ "$(jobs -rp | wc -l)" -ge "$(getconf _NPROCESSORS_ONLN)" ]; do wait -n || true; done
        build_engine >/dev/null 2>&1 &
    done
    wait
}

# build_objects FLAGS...: the kernels file by file on all cores, the engine beside them.
build_objects() {
    local to=$folder/kernels engine_job
    build_engine &
    engine_job=$!
    rm -rf "$to" && mkdir -p "$to"
    kernel_sources | TO=$to xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c '"$@" -c {} -o "$TO/$(basename {} .c).o"' sh \
        "$bin/clang" $metal "$c_level" -std=c11 -ffp-contract=off -fno-math-errno -fvisibility=hidden -Wall -Wextra -Werror \
        -Wno-pass-failed "-DMESTK_MOST_LANES=$lanes" -ISources/CMestKernels/include "$@"
    wait $engine_job
}

build_archive() {
    local to=$folder
    build_objects -ffreestanding -ffunction-sections -fdata-sections
    # One object of what the API reaches, in which only the API is visible.  Its sections stay apart, so that a
    # program's linker leaves out what the program does not call.
    "$bin/ld.lld" -r --gc-sections $(sed -n 's/^ *\(mest_[a-z_0-9]*\);/-u \1/p' packaging/mest.map) \
        "$out/engine-$engine.o" "$to"/kernels/*.o -o "$to/all.o"
    "$bin/llvm-objcopy" --strip-debug --wildcard --keep-global-symbol='mest_*' --remove-section='.swift*autolink*' \
        "$to/all.o" "$to/mest.o"
    rm -f "$to/libmest.a" "$to/all.o"
    "$bin/llvm-ar" rcsD "$to/libmest.a" "$to/mest.o"
    cp include/mest.h "$to/mest.h"
}

build_shared() {
    local to=$folder
    build_objects -fPIC -DMESTK_THREADS
    "$bin/clang" $metal -fuse-ld=lld -shared "$out/engine-$engine.o" "$to"/kernels/*.o \
        -Wl,-soname,libmest.so."$version_major" -Wl,--version-script=packaging/mest.map -Wl,--no-undefined-version \
        -Wl,--gc-sections -Wl,-z,nodelete -Wl,-z,defs -o "$to/libmest.so.new"
    mv "$to/libmest.so.new" "$to/libmest.so"
    ln -sf libmest.so "$to/libmest.so.$version_major"
}

bin=$(toolchain_bin)
mkdir -p "${BUILD:-.build}/firmware"
out=$(cd "${BUILD:-.build}/firmware" && pwd)

if [ "${1:-}" = --flags ]; then
    describe "$2"
    say "$metal"
    exit
fi

[ $# -eq 1 ] || build_engines ${*:-$all}
for target in ${*:-$all}; do
    describe "$target"
    mkdir -p "$folder"
    if [ -n "$linux" ] && [ ! -e "/usr/$linux/lib/libc.so" ]; then
        say "skipped: $target, no /usr/$linux/lib/libc.so (Debian: libc6-dev-*-cross)"
        continue
    fi
    if [ -n "$linux" ]; then product=$folder/libmest.so build=build_shared
    else product=$folder/libmest.a build=build_archive; fi
    fresh "$product" && continue
    $build
    say "$product"
done
