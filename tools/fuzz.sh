#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzing with libFuzzer, every access checked: descriptions, checkpoints, sequences of calls.
#
#   tools/fuzz.sh [SECONDS]      each target for so long (60), from the committed corpus; what is new stays in
#                                $BUILD/fuzz/TARGET, what fails in $BUILD/fuzz/TARGET-failed-*
#   tools/fuzz.sh keep           of all that the fewest inputs with the same coverage, as the committed corpus
#
# `make test` runs the corpus, Tests/fuzz/corpus/TARGET.tar.gz, in its part address.
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root" || exit 1

what=${1:-60}
targets='description checkpoint calls'
corpus=Tests/fuzz/corpus
bin=$(toolchain_bin)
mkdir -p "${BUILD:-.build}/fuzz"
work=$(cd "${BUILD:-.build}/fuzz" && pwd)
checks=address,undefined

# The fuzzer sees the branches of engine and kernels, and what the engine compares; looking at that in the kernels takes three
# times as long.  The reference level alone: the checks make the vector kernels take minutes to compile, and `make test`
# runs them under the same checks.
build() {
    engine_object "$work/engine.o" -O -sanitize=address,fuzzer || return 1
    export work
    kernel_sources | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c '"$@" -c {} -o "$work/$(basename {} .c).o"' sh \
        "$bin/clang" -std=c11 -D_GNU_SOURCE -DMESTK_NO_SIMD -O1 -g -ffp-contract=off -fno-math-errno -Wno-pass-failed \
        -fsanitize=$checks -fsanitize-coverage=inline-8bit-counters,pc-table -fno-sanitize-recover=undefined -ISources/CMestKernels/include || return 1
    local target
    for target in $targets; do
        "$bin/clang" -std=c11 -D_POSIX_C_SOURCE=200809L -O1 -g -Wall -Wextra -Werror -Wno-unused-function -Iinclude \
            -fsanitize=$checks,fuzzer -fno-sanitize-recover=undefined -fuse-ld=lld "Tests/fuzz/$target.c" "$work"/*.o \
            -lm -o "$work/$target-fuzzer" || return 1
    done
    "$bin/clang" -std=c11 -D_POSIX_C_SOURCE=200809L -Wno-unused-function -Iinclude -fsanitize=$checks -fuse-ld=lld \
        Tests/fuzz/seeds.c "$work"/*.o -lm -fsanitize=fuzzer-no-link -o "$work/seeds" || return 1
    mkdir -p "$work/checkpoint" && "$work/seeds" "$work/checkpoint"
}

export ASAN_OPTIONS=detect_stack_use_after_return=0:allocator_may_return_null=1
options='-timeout=60 -rss_limit_mb=2000 -max_len=8192 -print_final_stats=0 -verbosity=0'
passed=0 failed=0
build || { totals fuzz 0 1; exit 1; }
for target in $targets; do
    inputs=$work/$target
    mkdir -p "$inputs"
    [ ! -e "$corpus/$target.tar.gz" ] || tar -xzf "$corpus/$target.tar.gz" -C "$inputs" || exit 1
    before=$(find "$inputs" -type f | wc -l)
    if [ "$what" = keep ]; then
        rm -rf "$work/kept" && mkdir "$work/kept"
        "$work/$target-fuzzer" $options -merge=1 "$work/kept" "$inputs" >"$work/$target.log" 2>&1 \
            && tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/kept" -c . | gzip -9n >"$corpus/$target.tar.gz"
        status=$?
        say "$target: $(find "$work/kept" -type f | wc -l) of $before inputs kept"
    else
        "$work/$target-fuzzer" $options -max_total_time="$what" -artifact_prefix="$work/$target-failed-" "$inputs" \
            >"$work/$target.log" 2>&1
        status=$?
        say "$target: $before inputs, $(($(find "$inputs" -type f | wc -l) - before)) new"
    fi
    if [ $status -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); tail -n 60 "$work/$target.log"; fi
done
totals fuzz $passed $failed
