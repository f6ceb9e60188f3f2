#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing and says nothing when nothing is.
#
#   tools/setup.sh build | demo | test | test-all | test-ready | test-system
#
# test-all: with PyTorch and ONNX; test-ready: the same where PyTorch can be had without CUDA, else without it;
# test-system: without Python's packages.
set -euo pipefail
. "$(dirname "$0")/common.sh"

purpose=${1:-build} heavy=
case $purpose in
    test-all | test-ready) heavy=$purpose purpose=test ;;
    test-system) purpose=test ;;
esac
python=${PYTHON:-python3}

# ---------------------------------------------------------------------------- Debian packages

packages() {
    [ "${MEST_THREADS:-own}" != openmp ] || say libomp-dev
    case $purpose in
        demo) say python3 python3-venv ;;
        test) say gcc g++ cmake make pkg-config valgrind binutils python3 python3-venv gzip xz-utils ;;
    esac
}

# A machine may have a tool from elsewhere; then its package is not asked for.
provided() {
    case $1 in
        libomp-dev) [ -e "$(gcc -print-file-name=libomp5.so 2>/dev/null)" ] || [ -n "$(ls /usr/lib/*/libomp5.so 2>/dev/null)" ] ;;
        python3) have "$python" ;;
        python3-venv) "$python" -c 'import venv, ensurepip' 2>/dev/null ;;
        binutils) have readelf && have nm ;;
        xz-utils) have xz ;;
        debhelper) have dh ;;
        dpkg-dev) have dpkg-buildpackage ;;
        abigail-tools) have abidiff ;;
        gcc-arm-none-eabi) have arm-none-eabi-gcc ;;
        gcc-riscv64-unknown-elf) have riscv64-unknown-elf-gcc ;;
        qemu-system-misc) have qemu-system-riscv32 ;;
        qemu-user) have qemu-aarch64 || have qemu-aarch64-static ;;
        libc6-dev-arm64-cross) [ -e /usr/aarch64-linux-gnu/lib/libc.so ] ;;
        libc6-dev-armhf-cross) [ -e /usr/arm-linux-gnueabihf/lib/libc.so ] ;;
        libgcc-*-dev-arm64-cross) compgen -G '/usr/lib/gcc-cross/aarch64-linux-gnu/*/libgcc.a' >/dev/null ;;
        libgcc-*-dev-armhf-cross) compgen -G '/usr/lib/gcc-cross/arm-linux-gnueabihf/*/libgcc.a' >/dev/null ;;
        *) have "$1" ;;
    esac
}

missing_of() {
    local package
    missing=()
    for package in "$@"; do provided "$package" || missing+=("$package"); done
}

root_do=
[ "$(id -u)" -eq 0 ] || root_do='sudo -n'
can_install() { have apt-get && { [ -z "$root_do" ] || sudo -n true 2>/dev/null; }; }
install_missing() { # what went wrong is in $log
    say "installing ${missing[*]}"
    log=$(mktemp)
    { $root_do apt-get update && DEBIAN_FRONTEND=noninteractive $root_do apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 && rm -f "$log"
}

missing_of $(packages)
if [ ${#missing[@]} -gt 0 ]; then
    can_install || fail "please install these packages, then run again: ${missing[*]}"
    install_missing || { tail -n 20 "$log" >&2; fail "apt-get could not install: ${missing[*]}"; }
fi

# What the tests can do without: they say what they skip.
if [ "$purpose" = test ]; then
    gcc_major=$(gcc -dumpversion | cut -d. -f1)
    optional=(abigail-tools debhelper doxygen dpkg-dev lintian libomp-dev gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm
        qemu-system-misc qemu-user libc6-dev-armhf-cross "libgcc-$gcc_major-dev-armhf-cross")
    [ "$(uname -m)" = aarch64 ] || optional+=(libc6-dev-arm64-cross "libgcc-$gcc_major-dev-arm64-cross")
    missing_of "${optional[@]}"
    if [ ${#missing[@]} -gt 0 ]; then
        { can_install && install_missing; } || say "without ${missing[*]} some parts are skipped: abidiff, references, emulated ARM, firmware, OpenMP, Debian packages"
    fi
fi

# ------------------------------------------------------------------------------------- Swift

get_swift='Swift 6.3 or newer is needed: https://www.swift.org/install/linux (then put swift on PATH)'
have swift || fail "no swift found. $get_swift"
found=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
[ "$(printf '%s\n' 6.3 "${found:-0}" | sort -V | head -n 1)" = 6.3 ] || fail "swift ${found:-of unknown version} found. $get_swift"

# ------------------------------------------------------------------------------------ Python

case ${1:-build} in build | test-system) exit 0 ;; esac
python_packages() { # FILE
    local wanted=$root/tools/$1 stamp log
    stamp=$root/.venv/.installed-${1%.txt}-$(cksum <"$wanted" | tr ' ' -)
    [ ! -e "$stamp" ] || return 0
    say "installing the Python packages of tools/$1 into .venv"
    log=$(mktemp)
    { [ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"; } >"$log" 2>&1 \
        && "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" >>"$log" 2>&1 \
        || { tail -n 20 "$log" >&2; fail "could not install the packages of tools/$1 into .venv"; }
    rm -f "$log" "$root/.venv/.installed-${1%.txt}"-*
    touch "$stamp"
}

python_packages requirements.txt
[ -n "$heavy" ] || exit 0
# PyTorch's own index has it without CUDA, a tenth of the size.  Where that cannot be reached, CUDA comes with it.
in_venv=$root/.venv/bin/python
has_torch() { "$in_venv" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'; }
has_torch || "$in_venv" -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps \
    --index-url https://download.pytorch.org/whl/cpu torch >/dev/null 2>&1 || true
if [ "$heavy" = test-all ] || has_torch; then
    python_packages requirements-all.txt
else
    grep -vx torch "$root/tools/requirements-all.txt" | "$in_venv" -m pip install --quiet --disable-pip-version-check -r /dev/stdin
fi
