# SPDX-License-Identifier: Apache-2.0
"""`show_versions`: what a bug report needs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Iterator, Tuple

import numpy

from . import __version__, _lib

# Packages that a part of this one, or of what it works with, may use; missing ones are not named.
_OPTIONAL = (
    "tqdm", "matplotlib", "scikit-learn", "scipy", "pandas", "torch", "onnx", "onnxruntime", "safetensors",
)  # fmt: skip


def show_versions() -> None:
    """Prints what a bug report needs: package, library, Python, numpy, machine, and those optional
    packages that are installed.  Without a library it says where one was looked for."""
    for what, value in versions():
        print(f"{what:<12} " + value.replace("\n", "\n" + 13 * " "))


def versions() -> Iterator[Tuple[str, str]]:
    """What show_versions prints, line by line."""
    yield "mest", __version__
    yield "package", os.path.dirname(os.path.abspath(__file__))
    try:
        lib = _lib.library()
    except ImportError as error:
        yield "libmest", str(error)
    else:
        yield "libmest", f"{lib.mest_version_string().decode()} (ABI {lib.mest_abi_version()})"
        yield "loaded from", _lib.path()
        yield "build", lib.mest_build_info().decode()
    yield "Python", f"{platform.python_implementation()} {sys.version.split()[0]}"
    yield "numpy", numpy.__version__
    for package in _OPTIONAL:
        version = _installed(package)
        if version:
            yield package, version
    libc = " ".join(platform.libc_ver())
    yield "machine", f"{platform.system()} {platform.machine()}" + (f", {libc}" if libc.strip() else "")


def _installed(package: str) -> str:
    """Its version by its metadata: importing torch to ask would take seconds."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
