# SPDX-License-Identifier: Apache-2.0
"""What `import mest` loads and checks, names that come late, `show_versions`."""

import contextlib
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import subprocess

import pytest
from conftest import ROOT
from test_header import run_python

import mest

# All that `import mest` loads of its own.  A module that joins them costs every program that imports
# the package; names of others go into _LAZY.
EAGER = {
    "mest", "mest._abi", "mest._lib", "mest.arrays", "mest.config", "mest.errors", "mest.layers",
    "mest.networks", "mest.plan",
}  # fmt: skip

# Slow to import, and not needed to describe a network.  (inspect is not here: dataclasses load it.)
SLOW = {
    "argparse", "asyncio", "concurrent", "csv", "difflib", "email", "fractions", "gzip", "html", "http",
    "importlib.metadata", "json", "logging", "lzma", "multiprocessing", "pathlib", "pdb", "platform",
    "random", "signal", "sqlite3", "statistics", "subprocess", "tempfile", "unittest", "urllib", "uuid",
    "xml", "zipfile",
    "IPython", "PIL", "matplotlib", "onnx", "onnxruntime", "pandas", "safetensors", "scipy", "sklearn",
    "torch", "tqdm",
}  # fmt: skip


def modules_of(code):
    """What `code` imports that numpy has not."""
    done = run_python(
        "import json, sys, numpy, numpy.typing\n"
        "ours = {'json'} | {name for name in sys.modules if name.startswith('json.')}\n"
        "before = set(sys.modules) - ours\n"
        "for name in ours: del sys.modules[name]\n"
        f"{code}\n"
        "after = set(sys.modules) - before\n"
        "import json; print(json.dumps(sorted(after)))"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_import_is_lean():
    new = modules_of("import mest")
    assert {name for name in new if name.split(".")[0] == "mest"} == EAGER
    assert not new & SLOW


def test_lean_is_measured():
    """The test above sees what it looks for."""
    assert {"json", "gzip", "mest.datasets"} <= modules_of("import mest, json; mest.datasets")


def test_every_name_is_there():
    """In a new interpreter, in any order: a module that is loaded late hides no function."""
    for names in (sorted(mest.__all__), sorted(mest.__all__, reverse=True)):
        done = run_python(
            "import mest, types\n"
            f"for name in {names}: getattr(mest, name)\n"
            "print(*(n for n in mest.__all__ if isinstance(getattr(mest, n), types.ModuleType)))\n"
            "assert set(mest.__all__) <= set(dir(mest))\n"
        )
        assert done.returncode == 0, done.stderr
        assert {"datasets", "errors"} <= set(done.stdout.split()) <= {"datasets", "errors", "plot", "report"}
    done = run_python("from mest import *; print(Model, plan, show_versions)")
    assert done.returncode == 0 and "function plan" in done.stdout, done.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match="'mest' has no attribute 'Modle'"):
        mest.Modle  # noqa: B018


def test_all_is_sorted_and_complete():
    assert mest.__all__ == sorted(set(mest.__all__))
    assert set(mest._LAZY) <= set(mest.__all__)


# ------------------------------------------------------------------------- versions and the library


def library(tmp_path, name, source):
    (tmp_path / f"{name}.c").write_text(source)
    made = str(tmp_path / f"{name}.so")
    subprocess.run(["gcc", "-shared", "-fPIC", str(tmp_path / f"{name}.c"), "-o", made], check=True)
    return made


def test_library_of_another_version_is_refused_at_import(tmp_path):
    old = library(tmp_path, "old", "unsigned mest_abi_version(void) { return 77; }")
    done = run_python("import mest", MEST_LIBRARY=old)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert "VersionError" in said and old in said
    assert "ABI version 77" in said and f"needs {mest._lib._abi.MEST_ABI_VERSION}" in said


@pytest.mark.parametrize("there", [False, True])
def test_import_without_a_library(tmp_path, there):
    """None, or a file that the loader refuses: the first use says what was tried."""
    place = tmp_path / "libmest.so"
    if there:
        place.write_bytes(b"not a library")
    done = run_python(
        "import mest\n"
        "print(mest.mlp(3, [4], 2))\n"
        "mest.show_versions()\n"
        "for _ in range(2):\n"
        "    try: mest.plan(mest.mlp(3, [4], 2))\n"
        "    except ImportError as error: print('said', error)\n",
        MEST_LIBRARY=str(place),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("said libmest was not found") == 2
    versions = done.stdout.split("said")[0]
    assert "numpy" in versions and "machine" in versions and str(place) in versions
    assert ("no such file" in versions) == (not there)


def test_names_in_docstrings_are_there():
    """What they send readers to: `mest.exchange.prune`, say."""
    said = {}
    for source in sorted(pathlib.Path(mest.__file__).parent.rglob("*.py")):
        for name in re.findall(r"`(mest(?:\.[a-zA-Z_]+)+)[`(]", source.read_text(encoding="utf-8")):
            said.setdefault(name, source.name)
    assert {"mest.exchange.prune", "mest.layers"} <= set(said)
    missing = []
    for name in said:
        with contextlib.suppress(ImportError, ValueError):  # ValueError: a parent that is no package
            if importlib.util.find_spec(name):
                continue
        parent, _, last = name.rpartition(".")
        if not hasattr(importlib.import_module(parent), last):
            missing.append((name, said[name]))
    assert not missing


def test_the_loop_is_no_way_to_other_names():
    """Its neighbours' names are imported from where they live."""
    assert importlib.import_module("mest.training.loop").__all__ == ["fit"]
    for source in pathlib.Path(mest.__file__).parent.rglob("*.py"):
        taken = re.findall(r"from [.\w]*\bloop import (.*)", source.read_text(encoding="utf-8"))
        assert set(taken) <= {"fit"}, source


def test_library_that_comes_after_the_import():
    done = run_python(
        "import os, mest\n"
        f"os.environ['MEST_LIBRARY'] = {mest._lib.path()!r}\n"
        "print(mest.plan(mest.mlp(3, [4], 2)).total_bytes)\n",
        MEST_LIBRARY=str(ROOT / "nothing.so"),
    )
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


def test_show_versions(capsys):
    mest.show_versions()
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["mest"] == mest.__version__ and "ABI" in lines["libmest"]
    assert mest._lib.path() in lines["loaded"] and lines["numpy"]
    # Optional packages by their metadata, without importing them.
    for package in ("tqdm", "matplotlib", "scikit-learn", "torch", "onnx", "safetensors"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = None
        assert lines.get(package) == version
    new = modules_of(
        "import mest, io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()): mest.show_versions()"
    )
    assert not new & {"torch", "matplotlib", "tqdm", "sklearn", "onnx", "onnxruntime", "scipy"}
