# SPDX-License-Identifier: Apache-2.0
"""Exported C compiled on this machine and called."""

import ctypes
import itertools
import shutil
import subprocess

import numpy as np

GCC = shutil.which("gcc")
STRICT = [
    "-std=c99", "-ffreestanding", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow",
    "-Wstrict-prototypes", "-Werror",
]  # fmt: skip


_numbers = itertools.count()  # a library of the same name would be the one that is loaded already


class Program:
    """NAME.c as a shared library."""

    def __init__(self, written, outputs, *flags):
        self.name, self.outputs = written.source.stem, outputs
        self.path = written.source.with_suffix(f".{next(_numbers)}.so")
        compile_c(written.source, self.path, "-shared", "-fPIC", *flags)
        self.library = ctypes.CDLL(str(self.path))

    def call(self, function, x, kind=np.float32, scratch=None):
        """One call a sample: (n, outputs)."""
        y = np.empty((len(x), self.outputs), kind)
        entry = getattr(self.library, f"{self.name}_{function}")
        before = [] if scratch is None else [address(scratch)]
        for source, target in zip(np.ascontiguousarray(x), y):
            entry(*before, address(source), address(target))
        return y

    def predict(self, x):
        return self.call("predict", x)


def address(array):
    return ctypes.c_void_p(array.ctypes.data)


def compile_c(source, target, *flags, compiler=GCC):
    done = subprocess.run(
        [compiler, *STRICT, "-O1", *flags, str(source), "-o", str(target)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


# A main that reads samples as raw floats and writes outputs so.
MAIN = """
#include <stdio.h>
#include "network.h"

int main(void)
{
    static float input[NETWORK_INPUTS], output[NETWORK_OUTPUTS];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        network_predict(input, output);
        if (fwrite(output, sizeof output, 1, stdout) != 1) return 1;
    }
    return 0;
}
"""


def run_sanitised(written, x, outputs):
    """The same in a process of its own with address and undefined-behaviour sanitisers."""
    main, program = written.source.with_name("main.c"), written.source.with_name("main")
    main.write_text(MAIN)
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_c(main, program, *flags, str(written.source))
    done = subprocess.run([str(program)], input=x.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.float32).reshape(len(x), outputs)


# A Cortex-M4F without an operating system, as QEMU has it: samples are constants, outputs go out as bits.
BOARD = r"""
#include "network.h"

int main(void);
void start(void);
extern uint32_t top[];
__attribute__((section(".vectors"), used)) void *const vectors[2] = {top, (void *)start};

static void host(int operation, const void *what)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = what;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void start(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* the FPU */
    __asm__ volatile("dsb\n isb");
    main();
    host(0x18, (const void *)0x20026);
}

static const float samples[][NETWORK_INPUTS] = {
%s};

int main(void)
{
    static union { float number[NETWORK_OUTPUTS]; uint32_t bits[NETWORK_OUTPUTS]; } output;
    for (unsigned n = 0; n < sizeof samples / sizeof samples[0]; n++) {
        network_predict(samples[n], output.number);
        for (int i = 0; i < NETWORK_OUTPUTS; i++) {
            char line[10];
            for (int digit = 0; digit < 8; digit++)
                line[digit] = "0123456789abcdef"[output.bits[i] >> (28 - 4 * digit) & 15];
            line[8] = '\n', line[9] = 0;
            host(4, line);
        }
    }
    return 0;
}
"""
LAYOUT = """
ENTRY(start)
MEMORY { flash (rx) : ORIGIN = 0x00000000, LENGTH = 4M ram (rwx) : ORIGIN = 0x20000000, LENGTH = 1M }
SECTIONS
{
    .text : { KEEP(*(.vectors)) *(.text .text.*) *(.rodata .rodata.*) } > flash
    .bss (NOLOAD) : { *(.bss .bss.* COMMON) } > ram
    top = ORIGIN(ram) + LENGTH(ram);
    /DISCARD/ : { *(.ARM.exidx*) }
}
"""


def run_on_cortex_m(written, x, outputs):
    """The same on an emulated Cortex-M4F."""
    folder = written.source.parent
    rows = ["    {" + ", ".join(f"{float(v).hex()}f" for v in row) + "},\n" for row in x]
    (folder / "board.c").write_text(BOARD % "".join(rows))
    (folder / "board.ld").write_text(LAYOUT)
    flags = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-O2", "-nostartfiles"]
    flags += [f"-T{folder / 'board.ld'}", "-w", str(written.source)]
    compile_c(folder / "board.c", folder / "board", *flags, compiler="arm-none-eabi-gcc")
    command = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting"]
    command += ["-kernel", str(folder / "board")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    words = (done.stdout + done.stderr).decode().split()
    return np.array([int(word, 16) for word in words], np.uint32).view(np.float32).reshape(len(x), outputs)
