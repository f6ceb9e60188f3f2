#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a compiled program depends on: structs and prototypes of mest.h are those that are written down, structs have
# only grown since the first release, and a program compiled with its header runs with this library.
#
#   tools/check-abi.sh FOLDER      with libmest.so
#   tools/check-abi.sh --write     writes down those of mest.h as it is now
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root" || exit 1

passed=0 failed=0 skipped=0
written=Tests/abi
clang=$(toolchain_bin)/clang
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pass() { passed=$((passed + 1)); }
miss() { failed=$((failed + 1)); say "FAILED: $*"; }

structs() { sed -n 's/^} \(mest_[a-z_]*\);.*/\1/p' "$1/mest.h"; } # HEADER-FOLDER

# layouts HEADER-FOLDER TARGET: "struct offset field" of every field, and the struct's size.
layouts() {
    { say '#include "mest.h"'; structs "$1" | sed 's/\(.*\)/\1 of_\1;/'; } >"$work/all.c"
    "$clang" --target="$2" -ffreestanding -I"$1" -Xclang -fdump-record-layouts -c "$work/all.c" -o "$work/all.o" | awk '
        /Dumping AST Record Layout/ { inside = 1; name = ""; next }
        inside && name == "" && / struct mest_/ { name = $4; next }
        inside && /sizeof=/ { sub(/.*sizeof=/, ""); sub(/[,\]].*/, ""); print name, $0, "bytes"; inside = 0; next }
        inside && name != "" { offset = $1; $1 = $2 = ""; sub(/^ +/, ""); print name, offset, $0 }'
}

# One prototype a line.
prototypes() {
    "$clang" -E -P -I"$1" "$1/mest.h" | tr '\n' ' ' | tr ';' '\n' | grep 'visibility("default")' \
        | sed -E 's/__attribute__\(\([^)]*(\([^)]*\))?[^)]*\)\)//g; s/ +/ /g; s/^ //; s/ $//' | LC_ALL=C sort
}

# Every number that callers write.
constants() {
    "$clang" -E -dD -P -I"$1" "$1/mest.h" | grep -oE '(#define )?MEST_[A-Z0-9_]+ *=? *\(?-?[0-9]+u?\)?$|MEST_[A-Z0-9_]+ *= *-?[0-9]+' \
        | sed -E 's/#define //; s/ *=? +/ /; s/[()u]//g' | LC_ALL=C sort -u | grep -vE '^MEST_(H|API|VERSION_[A-Z]+)( |$)'
}

targets='x86_64-linux-gnu armv7em-none-none-eabi'
if [ "${1:-}" = --write ]; then
    for target in $targets; do layouts include "$target" >"$written/structs-${target%%-*}.txt"; done
    prototypes include >"$written/functions.txt"
    exit 0
fi
built=$1

for target in $targets; do
    name=structs-${target%%-*}.txt
    layouts include "$target" >"$work/now"
    if [ -s "$work/now" ] && diff "$written/$name" "$work/now"; then pass; else miss "$written/$name (< written, > mest.h)"; fi
    layouts "$written/first" "$target" | grep -v ' bytes$' >"$work/first"
    if LC_ALL=C comm -23 <(LC_ALL=C sort "$work/first") <(LC_ALL=C sort "$work/now") | grep .; then
        miss "$target: fields of the first release that have moved or gone"
    else
        pass
    fi
    if "$clang" --target="$target" -ffreestanding -Wpadded -Iinclude -c "$work/all.c" -o "$work/all.o" 2>&1 | grep 'alignment boundary'; then
        miss "$target: a struct ends with padding, which a new field would take"
    else
        pass
    fi
done
prototypes include >"$work/now"
if diff "$written/functions.txt" "$work/now"; then pass; else miss "$written/functions.txt (< written, > mest.h)"; fi
constants "$written/first" >"$work/constants"
if [ "$(wc -l <"$work/constants")" -gt 100 ] && ! LC_ALL=C comm -23 "$work/constants" <(constants include) | grep .; then pass
else miss 'constants of the first release that have changed'; fi
prototypes "$written/first" >"$work/first"
if LC_ALL=C comm -23 "$work/first" "$work/now" | grep .; then miss 'functions of the first release that have changed'; else pass; fi

# The same question to libabigail, of objects that have nothing but the types: the engine's debug information is Swift's.
if have abidiff; then
    for header in "$written/first" include; do
        { say '#include "mest.h"'
          prototypes "$header" | sed 's/$/ { __builtin_trap(); }/; s/^extern //'; } >"$work/stubs.c"
        "$clang" -g -w -I"$header" -shared -fPIC -fuse-ld=lld "$work/stubs.c" -o "$work/$(basename "$header").so" || miss "stubs of $header"
    done
    abidiff --no-added-syms "$work/first.so" "$work/include.so" >"$work/abidiff"
    # Bits: 1 and 2 errors, 4 some change, 8 an incompatible one.
    if [ $(($? & 11)) -eq 0 ]; then pass; else miss abidiff; cat "$work/abidiff"; fi
else
    skipped=1
fi

# A program of that time.
if gcc -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror -I"$written/first" "$written/program.c" -o "$work/program" -L"$built" \
        -lmest -Wl,-rpath,"$(cd "$built" && pwd)" && "$work/program"; then
    pass
else
    miss 'a program compiled with the first header'
fi
totals abi $passed $failed $skipped
