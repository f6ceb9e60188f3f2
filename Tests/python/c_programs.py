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
