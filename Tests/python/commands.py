# SPDX-License-Identifier: Apache-2.0
"""Commands called as somebody types them, each test in an empty folder: fixtures of their tests."""

import pytest
import run_records
from mest.cli import main

TRAIN = ("train", "digits", "--network", "mlp:16", "--density", "0.2", "--method", "ems", "--epochs", "2",
         "--mutation-every", "1", "--learning-rate", "0.05")  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """(exit code, stdout, stderr) of a command"""

    def call(*words):
        try:
            code = main(list(map(str, words)))
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def fails(result, said, code=1):
    """One clear line on stderr, nothing on stdout."""
    got, out, err = result
    assert got == code and out == "" and said in err, result
    if code == 1:
        assert err.count("\n") == 1 and err.startswith("mest ") and "Traceback" not in err


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model = run_records.write(folder / "run.jsonl")
    model.save(folder / "t.mest")
    model.save(folder / "t.mest")
    return folder, model
