#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mest.h alone must compile without a warning in every language it promises, with each compiler.
set -uo pipefail
. "$(dirname "$0")/common.sh"

passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#include <mest.h>\nint main(void) { return 0; }\n' >"$work/only.c"
printf '#include <mest.h>\nint main() { mest_config config = MEST_CONFIG_INIT; return config.batch != 0; }\n' >"$work/only.cpp"

try() {
    if "$@" >"$work/log" 2>&1; then passed=$((passed + 1))
    else failed=$((failed + 1)); say "FAILED: $*"; cat "$work/log"; fi
}

common="-Wall -Wextra -Wpedantic -Werror -I$root/include -fsyntax-only"
clang=$(toolchain_bin)/clang
for cc in gcc "$clang"; do
    for standard in c99 c11 c17; do try "$cc" -std=$standard $common -Wstrict-prototypes "$work/only.c"; done
    for standard in c++11 c++20; do try "$cc" -x c++ -std=$standard $common "$work/only.cpp"; done
done
# Firmware compilers, with their short enums.
try "$clang" --target=armv7em-none-none-eabi -fshort-enums -ffreestanding -std=c99 $common "$work/only.c"
try "$clang" --target=riscv32-none-none-eabi -ffreestanding -std=c99 $common "$work/only.c"
if have arm-none-eabi-gcc; then try arm-none-eabi-gcc -ffreestanding -std=c99 $common "$work/only.c"
else skipped=1; fi

# No C enum, long, bool or bit-field in the ABI.
if grep -nE 'enum [a-z_]+|\blong\b|\bbool\b|\bint [a-z_]+ *:' "$root/include/mest.h" | grep -vE '^[0-9]+: *(\*|/\*)' >"$work/log"; then
    failed=$((failed + 1)); say 'FAILED: types whose size depends on the compiler:'; cat "$work/log"
else
    passed=$((passed + 1))
fi
totals header $passed $failed $skipped
