#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everything that is checked, part by part; the last line has the totals of all.
#
#   tools/run-tests.sh            all parts
#   tools/run-tests.sh NAME ...   the parts named; what they come after, in the list at the end, has been run before
#
# A part is a shell function below.  It prints lines "...: N passed, N failed[, N skipped]", which are
# added up; what it prints else is shown when it fails.  Logs stay in $BUILD/tests.
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

build=${BUILD:-.build}
export BUILD=$build MEST_THREADS=own
mkdir -p "$build/tests"
logs=$(cd "$build/tests" && pwd)
bin=$(toolchain_bin)
passed=0 failed=0 skipped=0
started=$SECONDS
wanted=" $* "

# ------------------------------------------------------------------------------- collecting --- */

declare -a queue=()
declare -A command=() after=() since=() job=() # job: names by process

# part NAME COMMAND [after NAME...]: to be run.
part() {
    [ "$wanted" = '  ' ] || [[ $wanted == *" $1 "* ]] || return 0
    queue+=("$1") command[$1]=$2 after[$1]=${*:4}
}

# Runs them, one a core: most leave the other cores idle for a while.
run_parts() {
    local cores name process status
    for name in $wanted; do [ -n "${command[$name]:-}" ] || fail "no part is called $name"; done
    cores=$(getconf _NPROCESSORS_ONLN)
    while [ ${#queue[@]} -gt 0 ] || [ ${#job[@]} -gt 0 ]; do
        if [ ${#job[@]} -lt "$cores" ] && name=$(ready); then
            begin "$name"
        else
            wait -n -p process "${!job[@]}"
            status=$?
            # One that a signal ended while this did something else is not waited for any more.
            [ -n "${process:-}" ] || for process in "${!job[@]}"; do kill -0 "$process" 2>/dev/null || break; done
            finish "$process" "$status"
        fi
    done
}

# The first in the queue that waits for none.
ready() {
    local name other
    for name in "${queue[@]}"; do
        for other in ${after[$name]}; do
            [[ " ${queue[*]} ${job[*]} " != *" $other "* ]] || continue 2
        done
        say "$name"
        return 0
    done
    return 1
}

begin() {
    local name left=()
    for name in "${queue[@]}"; do [ "$name" = "$1" ] || left+=("$name"); done
    queue=("${left[@]}")
    since[$1]=$SECONDS
    ${command[$1]} >"$logs/$1.log" 2>&1 &
    job[$!]=$1
}

finish() { # PROCESS STATUS
    local name=${job[$1]} log p f s
    log=$logs/$name.log
    unset "job[$1]"
    read -r p f s < <(sed -nE 's/^.+: ([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p' "$log" \
        | awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }')
    # A part that dies without saying so has failed all the same.
    if [ "$2" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; say "FAILED: $name ended with status $2" >>"$log"; fi
    if [ $((p + f + s)) -eq 0 ]; then f=1; say "FAILED: $name checked nothing" >>"$log"; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-12s %5d passed %4d failed %4d skipped  %4d s\n' "$name" "$p" "$f" "$s" $((SECONDS - since[$name]))
    [ "$f" -eq 0 ] || sed 's/^/    /' "$log" | tail -n 120
}

# one WHAT COMMAND...: a command that is one check.
one() {
    local what=$1
    shift
    if "$@"; then say "$what: 1 passed, 0 failed"; else say "$what: 0 passed, 1 failed"; return 1; fi
}

# ------------------------------------------------------------------------------------ parts --- */

library() { one 'make build' make -s build; }
serial() { one 'make build, no threads' make -s build MEST_THREADS=none; }

symbols() {
    tools/check-symbols.sh "$build/release"
    local status=$?
    MEST_THREADS=none tools/check-symbols.sh "$build/serial/release" && return $status
}

swift_tests() {
    MEST_HOSTED=1 swift test --scratch-path "$build/hosted" 2>&1 | tee "$logs/swift.txt"
    local status=${PIPESTATUS[0]}
    # The line about the whole run looks like one about a test.
    swift_number() { grep -E "^. Test .* $1" "$logs/swift.txt" | grep -vc '^. Test run '; }
    say "swift: $(swift_number 'passed after') passed, $(swift_number 'failed after') failed, $(swift_number skipped) skipped"
    return "$status"
}

kernel_flags='-std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -ISources/CMestKernels/include'

# kernel_test OUT RANDOM-CONVOLUTIONS FLAGS...: the kernels and their test, file by file on all cores; vector levels with
# the flags in $VECTOR_FLAGS as well.
kernel_test() {
    local out=$1 cases=$2
    shift 2
    mkdir -p "$out"
    { kernel_sources; say "$root/Tests/c/kernels/kernels_test.c"; } \
        | OUT=$out xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c 'case {} in */avx*) set -- "$@" $VECTOR_FLAGS ;; esac
            "$@" -c {} -o "$OUT/$(basename {} .c).o"' sh "$bin/clang" $kernel_flags "$@" || return 1
    "$bin/clang" "$@" -fuse-ld=lld "$out"/*.o -lpthread -lm -o "$out/kernels_test" && "$out/kernels_test" "$cases"
}

# The kernels alone, as they are in the library, against definitions in double; once more as a machine with a scalar FPU
# has them (Cortex-M4F), here with this one's multiply-add.
kernels() {
    local status=0 fma= objects
    objects=$(kernel_sources | sed -E "s|.*/(.*)|$build/release/CMestKernels.build/\1.o|")
    "$bin/clang" $kernel_flags -O2 -DMESTK_THREADS -fuse-ld=lld Tests/c/kernels/kernels_test.c $objects -lpthread -lm \
        -o "$build/kernels_test" && "$build/kernels_test" | tee "$logs/kernels.txt"
    [ "${PIPESTATUS[0]}" -eq 0 ] || status=1
    one 'their committed bits' diff Tests/c/kernels/fingerprint.txt <(grep -o 'fingerprint [0-9a-f]*' "$logs/kernels.txt") || status=1
    [ "$(uname -m)" != x86_64 ] || fma=-mfma
    if [ -z "$fma" ] || grep -qw fma /proc/cpuinfo; then
        kernel_test "$build/kernels-fpu" 60 -O2 $fma -DMESTK_NO_SIMD || status=1
    else
        say 'kernels, scalar FPU: 0 passed, 0 failed, 1 skipped'
    fi
    return $status
}

# The same with every check of AddressSanitizer and UBSan.  Optimised, the vector levels would take longer to
# compile than they take here to run.
checked() {
    VECTOR_FLAGS=-O0 kernel_test "$build/kernels-checked" 60 -O1 -g -Wno-pass-failed -fsanitize=address,undefined \
        -fno-sanitize-recover=undefined
}

c_flags='-std=c11 -D_POSIX_C_SOURCE=200809L -g -Wall -Wextra -Wpedantic -Werror'

# c_programs OUT LIBRARY-FOLDER COMPILER...: Tests/c/*.c against the shared library there.
c_programs() {
    local out=$1 from=$2 source status=0
    shift 2
    mkdir -p "$out"
    for source in Tests/c/*.c; do
        "$@" $c_flags -Iinclude "$source" -o "$out/$(basename "$source" .c)" -L"$from" -lmest -lpthread -ldl \
            -rdynamic -Wl,-rpath,"$(cd "$from" && pwd)" || status=1
    done
    return $status
}

run_c() { # OUT "PROGRAM ARGUMENT..."...
    local out=$1 program status=0
    shift
    for program in "$@"; do
        timeout 600 "$out"/$program || { status=$?; say "$program ended with status $status"; }
    done
    return $status
}

c_tests() {
    c_programs "$build/c" "$build/release" gcc -O2 \
        && run_c "$build/c" bad_input too_large memory stack determinism checkpoint damage faults killed two_savers cancel slices threads \
            processes soak random_input
}

# cpp_programs OUT NAME COMPILER...: Tests/cpp/*.cpp against the shared library, and run.
cpp_programs() {
    local out=$1 name=$2 source program status=0
    shift 2
    mkdir -p "$out"
    for source in Tests/cpp/*.cpp; do
        program=$out/$(basename "$source" .cpp)
        local flags='-std=c++20 -g -Wall -Wextra -Wpedantic -Werror'
        [[ $source != */no_exceptions.cpp ]] || flags="$flags -fno-exceptions -fno-rtti"
        "$@" $flags -Iinclude "$source" -o "$program" -L"$build/release" -lmest -Wl,-rpath,"$(cd "$build/release" && pwd)" \
            || { say "FAILED: $name: $source does not compile"; status=1; continue; }
        timeout 600 "$program" || { status=$?; say "$name: $program ended with status $status"; }
    done
    return $status
}

# mest.hpp: alone without a warning, and in programs; what it needs it says.
cpp_tests() {
    local status=0 compiler standard
    say '#include <mest.hpp>' >"$logs/only.cpp"
    for compiler in g++ "$bin/clang++"; do
        for standard in c++20 c++23; do
            one "mest.hpp, $standard, $(basename "$compiler")" "$compiler" -std=$standard -fsyntax-only -Wall -Wextra -Wpedantic \
                -Wconversion -Wshadow -Werror -Iinclude "$logs/only.cpp" || status=1
        done
    done
    too_old() { ! g++ -std=c++17 -fsyntax-only -Iinclude "$logs/only.cpp" 2>"$logs/old.txt" && grep -q 'needs C++20' "$logs/old.txt"; }
    one 'mest.hpp, c++17: refused, says why' too_old || status=1
    cpp_programs "$build/cpp" g++ g++ -O2 || status=1
    cpp_programs "$build/cpp-clang" clang "$bin/clang++" -O1 -fuse-ld=lld -fsanitize=address,undefined \
        -fno-sanitize-recover=undefined || status=1
    return $status
}

# Without threads: the same tests, and the same bits as with them.
c_serial() {
    c_programs "$build/c-serial" "$build/serial/release" gcc -O2 || return 1
    run_c "$build/c-serial" bad_input memory checkpoint damage faults cancel slices threads
    local status=$?
    "$build/c/determinism" --print >"$logs/hashes" && "$build/c-serial/determinism" --print >"$logs/hashes-serial" || status=1
    one 'same bits without threads' diff "$logs/hashes" "$logs/hashes-serial" || status=1
    return $status
}

# OpenMP's threads in place of the library's own.
openmp() {
    if ! echo 'int main(void) { return 0; }' | "$bin/clang" -x c - -lomp5 -o "$logs/openmp"; then
        say 'openmp, no libomp here: 0 passed, 0 failed, 1 skipped'
        return 0
    fi
    one 'make build, OpenMP' make -s build MEST_THREADS=openmp || return 1
    MEST_THREADS=openmp tools/check-symbols.sh "$build/openmp/release"
    local status=$?
    c_programs "$build/c-openmp" "$build/openmp/release" gcc -O2 || return 1
    run_c "$build/c-openmp" memory determinism cancel threads || status=1
    one 'same bits with OpenMP' diff Tests/c/hashes.txt <("$build/c-openmp/determinism" --print) || status=1
    return $status
}

# The committed hashes: whoever changes the bits says so by changing the file.
golden() { one 'committed hashes' diff Tests/c/hashes.txt <("$build/c/determinism" --print); }

# An address is checked by a call, not in place: the vector kernels compile in half the time.
checks_called='-mllvm -asan-instrumentation-with-call-threshold=0'

sanitized() { # SCRATCH FLAGS-OF-SWIFT-BUILD...
    local scratch=$1
    shift
    MEST_SANITIZED=1 swift build --quiet -c release --scratch-path "$scratch" --product mest "$@" || return 1
    ln -sf libmest.so "$scratch/release/libmest.so.$version_major"
}

address() {
    sanitized "$build/asan" --sanitize=address -Xcc -fsanitize=undefined -Xcc -fno-sanitize-recover=undefined \
        $(printf -- '-Xcc %s ' $checks_called) || return 1
    c_programs "$build/c-asan" "$build/asan/release" "$bin/clang" -O1 -fuse-ld=lld -fsanitize=address,undefined \
        -fno-sanitize-recover=undefined || return 1
    export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1
    run_c "$build/c-asan" bad_input too_large memory determinism checkpoint damage faults "killed 100" two_savers cancel slices \
        threads processes "soak 60000" "random_input 500 50000"
    local status=$?
    replay "$build/c-asan" "$build/asan/release" "$bin/clang" -O1 -fuse-ld=lld -fsanitize=address,undefined \
        -fno-sanitize-recover=undefined || status=1
    return $status
}

# replay OUT LIBRARY-FOLDER COMPILER...: what fuzzing has found so far (tools/fuzz.sh), every input once.
replay() {
    local out=$1 from=$2 target status=0
    shift 2
    for target in description checkpoint calls; do
        mkdir -p "$out/$target-inputs" && tar -xzf "Tests/fuzz/corpus/$target.tar.gz" -C "$out/$target-inputs" || status=1
        "$@" $c_flags -Wno-unused-function -Iinclude "Tests/fuzz/$target.c" Tests/fuzz/replay.c -o "$out/replay_$target" \
            -L"$from" -lmest -lpthread -Wl,-rpath,"$(cd "$from" && pwd)" || status=1
        (cd "$out/$target-inputs" && timeout 600 ../"replay_$target" ./*) || { status=$?; say "replay_$target ended with status $status"; }
    done
    return $status
}

thread() {
    sanitized "$build/tsan" --sanitize=thread || return 1
    local runtime
    runtime=$bin/../lib/swift/linux
    c_programs "$build/c-tsan" "$build/tsan/release" "$bin/clang" -O1 -fuse-ld=lld -fsanitize=thread \
        -L"$runtime" -ldispatch -lBlocksRuntime -Wl,-rpath,"$runtime" || return 1
    run_c "$build/c-tsan" determinism cancel threads slices processes
}

# The example, wrong arguments and failing requests under valgrind, which knows neither DWARF 5 nor AVX-512: the library
# without threads, whose stacks it would call leaks, and without debug information.
valgrind_example() {
    local from=$build/valgrind
    mkdir -p "$from" && strip --strip-debug -o "$from/libmest.so" "$build/serial/release/libmest.so" || return 1
    ln -sf libmest.so "$from/libmest.so.$version_major"
    c_programs "$build/c-valgrind" "$from" gcc -gdwarf-4 -O1 || return 1
    gcc -std=c11 -gdwarf-4 -O1 -Iinclude examples/c/train_digits.c -o "$build/c-valgrind/train_digits" \
        -L"$from" -lmest -Wl,-rpath,"$(cd "$from" && pwd)" || return 1
    gzip -dc examples/data/digits.csv.gz | head -n 400 >"$logs/digits.csv"
    local status=0 check="valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=all"
    one 'valgrind: example' valgrind_status "$check" "$build/c-valgrind/train_digits" "$logs/digits.csv" || status=1
    one 'valgrind: bad_input' valgrind_status "$check" "$build/c-valgrind/bad_input" || status=1
    one 'valgrind: faults' valgrind_status "$check" "$build/c-valgrind/faults" || status=1
    return $status
}
# 99 is valgrind's; the program's own status does not count here.
valgrind_status() { $1 "${@:2}" >"$logs/valgrind.txt" 2>&1; [ $? -ne 99 ] || { tail -n 60 "$logs/valgrind.txt"; return 1; }; }

python_tests() {
    MEST_LIBRARY=$(cd "$build/release" && pwd)/libmest.so PYTHONPATH=$root/bindings/python \
        .venv/bin/python -m pytest -q --no-header -p no:cacheprovider -n "$(getconf _NPROCESSORS_ONLN)" Tests/python 2>&1 | tee "$logs/pytest.txt"
    local status=${PIPESTATUS[0]}
    number() { tail -n 1 "$logs/pytest.txt" | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' || say 0; }
    say "pytest: $(number passed) passed, $(($(number failed) + $(number errors?))) failed, $(number skipped) skipped"
    return "$status"
}

# The README's first command, and that it says what it promises.
demo() { one 'make demo' says_all 'make -s demo' accuracy 'bytes' mutat forg; }
says_all() { # COMMAND WORD...
    local said word
    said=$($1 2>&1) || { say "$said"; return 1; }
    for word in "${@:2}"; do grep -qi "$word" <<<"$said" || { say "$said" "says nothing of: $word"; return 1; }; done
}

# Pages for people, of which Tests/python/test_reference.py sees that nothing is left out.
reference() {
    if ! have doxygen; then say 'reference, no doxygen here: 0 passed, 0 failed, 1 skipped'; return 0; fi
    MEST_LIBRARY=$(cd "$build/release" && pwd)/libmest.so one 'make reference' tools/make-reference.sh "$build/reference"
}

types() { one mypy .venv/bin/python -m mypy --strict bindings/python/mest; }

# What is quick and says most comes first; what takes long before what takes little, so that no core waits at the end.
# Those of `make build` come one after another: it replaces its archives.
part lint     tools/lint-engine.sh
part header   tools/check-header.sh
part library  library
part serial   serial
part abi      "tools/check-abi.sh $build/release" after library
part symbols  symbols after library serial
part c        c_tests after library
part swift    swift_tests
part firmware tools/check-firmware.sh
part address  address
part thread   thread
part board    tools/check-board.sh after firmware
part aarch64  'tools/emulate.sh aarch64' after firmware
part armv7    'tools/emulate.sh armv7'
part python   python_tests after library
part kernels  kernels after library
part checked  checked
part openmp   openmp
part valgrind valgrind_example after serial
part c-serial c_serial after c serial
part cpp      cpp_tests after library
part golden   golden after c
part install  tools/check-install.sh after library symbols
part wheel    tools/check-wheel.sh after install aarch64
part deb      tools/check-deb.sh after wheel
part swiftpm  tools/check-swift.sh after deb
part demo     demo after swiftpm
part reference reference after library
part types    types

run_parts
say "all parts in $((SECONDS - started)) s"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
