#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# libmest.a and mest.h for machines without an operating system, libmest.so for another machine's Linux.
#
#   tools/firmware.sh [TARGET ...]     into $BUILD/firmware/TARGET; without a name: all but armv7-linux
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
        aarch64* | *-linux) swift_level=-O c_level=-O3 ;;
        *) swift_level=-Osize c_level=-Os ;;
    esac
}

# Is FILE there and younger than all that it is made of?
fresh() { [ -e "$1" ] && [ -z "$(find Sources include packaging tools -newer "$1" -print -quit)" ]; }

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

# build_kernels FOLDER FLAGS...: file by file on all cores.
build_kernels() {
    local to=$1
    shift
    rm -rf "$to" && mkdir -p "$to"
    kernel_sources | TO=$to xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c '"$@" -c {} -o "$TO/$(basename {} .c).o"' sh \
        "$bin/clang" $metal "$c_level" -std=c11 -ffp-contract=off -fno-math-errno -fvisibility=hidden -Wall -Wextra -Werror \
        -Wno-pass-failed -ISources/CMestKernels/include "$@"
}

build_archive() { # TARGET
    local to=$out/$1
    build_kernels "$to/kernels" -ffreestanding -ffunction-sections -fdata-sections
    # One object in which only the API is visible; its sections stay apart, so that a program's linker leaves out
    # what it does not call.
    "$bin/ld.lld" -r "$out/engine-$engine.o" "$to"/kernels/*.o -o "$to/all.o"
    "$bin/llvm-objcopy" --strip-debug --wildcard --keep-global-symbol='mest_*' --remove-section='.swift*autolink*' \
        "$to/all.o" "$to/mest.o"
    rm -f "$to/libmest.a"
    "$bin/llvm-ar" rcsD "$to/libmest.a" "$to/mest.o"
    cp include/mest.h "$to/mest.h"
}

build_shared() { # TARGET
    local to=$out/$1
    build_kernels "$to/kernels" -fPIC -DMESTK_THREADS
    "$bin/clang" $metal -fuse-ld=lld -shared "$out/engine-$engine.o" "$to"/kernels/*.o \
        -Wl,-soname,libmest.so."$version_major" -Wl,--version-script=packaging/mest.map -Wl,--no-undefined-version \
        -Wl,--gc-sections -Wl,-z,nodelete -Wl,-z,defs -o "$to/libmest.so.new"
    mv "$to/libmest.so.new" "$to/libmest.so"
    ln -sf libmest.so "$to/libmest.so.$version_major"
}

bin=$(toolchain_bin)
mkdir -p "${BUILD:-.build}/firmware"
out=$(cd "${BUILD:-.build}/firmware" && pwd)

for target in ${*:-$all}; do
    describe "$target"
    mkdir -p "$out/$target"
    if [ -n "$linux" ]; then product=$out/$target/libmest.so build=build_shared
    else product=$out/$target/libmest.a build=build_archive; fi
    fresh "$product" && continue
    build_engine
    $build "$target"
    say "$product"
done
