# SPDX-License-Identifier: Apache-2.0
"""Beside other libraries with threads, in every order: nobody dies or hangs, the bits are the same, libmest adds no
more threads than its model has and they sleep when idle; a fork's child can train."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("neighbours.py")


def here(name):
    if name == "intel":
        return any(Path(sys.prefix).rglob("libiomp5.so"))
    return importlib.util.find_spec(name) is not None


def run(*names):
    done = subprocess.run([sys.executable, PROGRAM, *names], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def alone():
    return run("mest")


def threads_of(build):
    return 1 if "serial" in build else 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("others", [("sklearn",), ("intel",), ("sklearn", "intel"), ("torch",), ("torch", "sklearn", "intel")])
def test_every_order(others, alone):
    missing = [name for name in others if not here(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    for order in itertools.permutations(("mest", *others)):
        found = run(*order)
        where = " ".join(order)
        assert found["first"]["mest"] == found["again"]["mest"] == found["child"] == alone["first"]["mest"], where
        assert found["first"].get("intel") == found["again"].get("intel"), where
        assert sum(found["added"]) <= 1 and found["added"][1:] == [0] * len(found["added"][1:]), (where, found["added"])
        # A third of a second: threads that look for work all the time would take it whole.
        assert found["idle"] < 0.1, (where, found["idle"])
