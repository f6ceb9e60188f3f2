# SPDX-License-Identifier: Apache-2.0
"""Puts libmest.so into the wheel; all else about the package is in pyproject.toml.

The library is the file that MEST_LIBRARY names, else .build/release/libmest.so of the checkout, else
what `make build` makes there, which needs Swift.  Its ELF header says which machine the wheel is for.
Nothing is written beside the sources: what setuptools makes on its way goes to a temporary folder.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Tuple

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
BUILT = CHECKOUT / ".build" / "release" / "libmest.so"
MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine of an ELF header
SCRATCH = tempfile.TemporaryDirectory(prefix="mest-wheel-")


def library() -> Path:
    """The libmest.so for the wheel, built if need be."""
    chosen = os.environ.get("MEST_LIBRARY")
    if chosen:
        if not os.path.isfile(chosen):
            raise SetupError(f"MEST_LIBRARY is {os.path.abspath(chosen)}: there is no such file")
        return Path(chosen)
    if BUILT.is_file():
        return BUILT
    what_else = "or set MEST_LIBRARY to the full path of a libmest.so from elsewhere"
    if not (CHECKOUT / "Makefile").is_file():
        raise SetupError(f"{HERE} is not in a checkout of libmest: build in one, {what_else}")
    missing = [tool for tool in ("make", "swift") if not shutil.which(tool)]
    if missing:
        raise SetupError(
            f"{BUILT} is not there, and building it needs {' and '.join(missing)}, not found here. Install "
            f"Swift 6.3 (https://www.swift.org/install/linux) and make, {what_else}"
        )
    make = ["make", "build", "BUILD=.build", "MEST_THREADS=own"]
    if subprocess.run(make, cwd=CHECKOUT).returncode or not BUILT.is_file():
        raise SetupError(f"make build failed in {CHECKOUT}; see above. Mend that, {what_else}")
    return BUILT


def machine_of(file: Path) -> str:
    """The machine it is for, as wheels call it."""
    with open(file, "rb") as opened:
        header = opened.read(20)
    number = struct.unpack_from("<H", header, 18)[0] if len(header) == 20 else 0
    # 64 bits, little-endian, for a machine that is known.
    if header[:6] != b"\x7fELF\x02\x01" or number not in MACHINES:
        raise SetupError(f"{file} is no library for Linux on {' or '.join(MACHINES.values())}")
    return MACHINES[number]


def check(file: Path) -> None:
    """The wheel would refuse a library with another ABI when it is imported: better now.  One for
    another machine cannot be asked."""
    ours = (HERE / "mest" / "_abi.py").read_text(encoding="utf-8")
    needed = re.findall(r"^MEST_ABI_VERSION = (\d+)$", ours, re.MULTILINE)
    try:
        found = ctypes.CDLL(str(file.resolve())).mest_abi_version()
    except (OSError, AttributeError) as error:
        raise SetupError(f"{file} is no libmest: {error}") from None
    if needed != [str(found)]:
        wanted = ", ".join(needed)
        raise SetupError(f"{file} has ABI version {found}, this package needs {wanted}: build it anew")


def strip(file: Path, to: Path, machine: str) -> None:
    """A copy without what only a debugger and a linker of objects need: a fifth of the size.  The
    strip of one machine may not know the files of another; LLVM's does."""
    for command in (
        ["strip", "--strip-unneeded", "-o", str(to), str(file)],
        [f"{machine}-linux-gnu-strip", "--strip-unneeded", "-o", str(to), str(file)],
        ["llvm-objcopy", "--strip-unneeded", str(file), str(to)],
    ):
        if shutil.which(command[0]) and not subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            return
    print(f"no strip for {machine} here: the wheel carries {file} as it is")
    shutil.copyfile(file, to)


class WithLibrary(Distribution):
    machine = platform.machine()  # of an editable install, which carries no library

    def has_ext_modules(self) -> bool:
        """So that the wheel is not taken for one of any machine."""
        return True


class Build(build):
    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = SCRATCH.name


class EggInfo(egg_info):
    def initialize_options(self) -> None:
        super().initialize_options()
        self.egg_base = SCRATCH.name


class BuildPy(build_py):
    def run(self) -> None:
        if self.editable_mode:  # uses that of the checkout
            super().run()
            return
        file = library()
        self.distribution.machine = machine_of(file)
        if self.distribution.machine == platform.machine():
            check(file)
        super().run()
        to = Path(self.build_lib) / "mest" / "libmest.so"
        strip(file, to, self.distribution.machine)
        to.chmod(0o755)


class BdistWheel(bdist_wheel):
    def get_tag(self) -> Tuple[str, str, str]:
        """ctypes needs no ABI of a Python: one wheel for all."""
        return "py3", "none", f"linux_{self.distribution.machine}"


class Sdist(sdist):
    def run(self) -> Any:
        raise SetupError(
            "the package is not built from its own sources alone: make wheel in a checkout of libmest, "
            "or python -m build --wheel bindings/python"
        )


setup(
    distclass=WithLibrary,
    cmdclass={
        "build": Build,
        "build_py": BuildPy,
        "egg_info": EggInfo,
        "bdist_wheel": BdistWheel,
        "sdist": Sdist,
    },
)
