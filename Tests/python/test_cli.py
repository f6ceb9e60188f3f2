# SPDX-License-Identifier: Apache-2.0
"""The commands, as somebody types them: what they print, what they write, how they fail."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import mest
import numpy as np
import pytest
from mest.cli import _options, main

from commands import TRAIN, fails, folder, run, saved  # noqa: F401

# ------------------------------------------------------------------------------------ options ---


def test_every_field_of_the_config_is_an_option(run):
    assert list(_options.missing_fields()) == []
    _, usual, _ = run("train", "--help")
    code, everything, _ = run("plan", "--help-all")
    assert code == 0 and "examples:" in usual
    for field in dataclasses.fields(mest.Config):
        option = "--" + field.name.replace("_", "-")
        if field.name != "inference_only":
            assert option in everything, option
        assert (f"{option} " in usual) == (field.name in _options.USUAL), option
    words = " ".join(everything.split())
    assert (
        "if its gradient wins" in words
        and "[0, 1); 1 - s on the label" not in words.split("--momentum")[1][:30]
    )


def test_options_become_fields():
    parser = main.__globals__["parser"]()
    options = parser.parse_args([
        "plan", "--density", "0.1", "--method", "EMS", "--threads", "none", "--nesterov", "--no-decay-bias",
        "--mutation-epochs", "3,5", "--scheme", "2:4", "--seed", "7", "--weight-decay", "1e-3",
    ])  # fmt: skip
    assert _options.config_of(options) == {
        "density": 0.1, "method": "em&s", "threads": None, "nesterov": True, "decay_bias": False,
        "mutation_epochs": (3, 5), "scheme": "nm24", "seed": 7, "weight_decay": 1e-3,
    }  # fmt: skip


@pytest.mark.parametrize("words, said", [
    (["plan", "--lr", "0.1"], "did you mean --learning-rate?"),
    (["plan", "--densty", "0.1"], "did you mean --density?"),
    (["plan", "--method", "rigel"], "choose from"),
    (["plan", "--mutation-epochs", "9"], "two epochs"),
    (["plan", "--batch", "many"], "invalid integer value: 'many'"),
    (["bench", "--densities", "0.1,1"], "below 1"),
    (["bench", "--rounds", "0"], "1 or more"),
    (["bake"], "invalid choice"),
    (["bench", "--density", "0.1"], "did you mean --densities?"),
    (["bench", "--scheme", "row4"], "did you mean --schemes?"),
    (["train", "digits", "--samples", "9"], "counts the forgetting of all samples"),
    (["train", "digits", "--standardize"], "did you mean --standardise?"),
    (["train", "digits", "--output", "w.npz"], "did you mean --out?"),
    (["train", "digits", "--batch-size", "9"], "did you mean --batch?"),
    (["plan", "--netwrok", "mlp"], "did you mean --network?"),
    (["plan", "--nework", "mlp"], "did you mean --network?"),
    (["plan", "--optimizer", "adam"], "did you mean --momentum, --nesterov, --weight-decay: the"),
    (["report", "run.jsonl", "--out", "r.html"], "did you mean --output?"),
    ([], "COMMAND"),
])  # fmt: skip
def test_wrong_usage(run, words, said):
    fails(run(*words), said, code=2)


# --------------------------------------------------------------------------------------- plan ---


def test_plan_is_the_library_s(run):
    code, out, _ = run("plan", "--network", "resnet:8,4", "--density", "0.1", "--json")
    expected = mest.plan(mest.resnet(8, 4), density=0.1)
    found = json.loads(out)
    assert (
        code == 0
        and found["total_bytes"] == expected.total_bytes
        and len(found["layers"]) == len(expected.layers)
    )
    assert found["sparse_bytes"] == expected.sparse_bytes
    assert run("plan", "--network", "resnet:8,4", "--density", "0.1")[1] == f"{expected}\n"


@pytest.mark.parametrize("spec, more, expected", [
    ("mlp", [], mest.mlp(784, [128], 10)),
    ("mlp:7,5", ["--input", "1,4,4", "--outputs", "3"], mest.mlp((1, 4, 4), [7, 5], 3)),
    ("vgg:11,4", ["--input", "1,16,16"], mest.vgg(11, 4, 10, (1, 16, 16))),
    ("ds_cnn:8,1", [], mest.ds_cnn(12, 8, 1)),
    ("ds-cnn", ["--outputs", "4"], mest.ds_cnn(4)),
])  # fmt: skip
def test_networks_by_a_word(run, spec, more, expected):
    code, out, err = run("plan", "--network", spec, *more)
    assert (code, out) == (0, f"{mest.plan(expected)}\n"), err


def test_a_network_of_a_file(run, folder):
    (folder / "net.py").write_text(
        "import mest\n\nlayers = mest.mlp(6, [5], 3)\nnumber = 3\n\n"
        "def make(input, outputs=2):\n    return mest.mlp(input[0], [4], outputs)\n\n"
        "def bad():\n    return [mest.Linear(missing)]\n"
    )
    assert run("plan", "--network", "net.py:layers")[1] == f"{mest.plan(mest.mlp(6, [5], 3))}\n"
    assert run("plan", "--network", "net.py:make", "--input", "9")[1] == f"{mest.plan(mest.mlp(9, [4], 2))}\n"
    fails(run("plan", "--network", "net.py:make"), "say --input")
    fails(run("plan", "--network", "net.py:bad"), "net.py, line 10: NameError: name 'missing'")
    fails(run("plan", "--network", "net.py:nothing"), "it has layers, make, bad")
    fails(run("plan", "--network", "net.py:number"), "not a list of layers")
    fails(run("plan", "--network", "net.py"), "which name")
    fails(run("plan", "--network", "none.py:layers"), "no such file")


@pytest.mark.parametrize("words, said", [
    (["--network", "lenet"], "choose mlp"),
    (["--network", "mlp:many"], "integers"),
    (["--network", "resnet:20", "--input", "64"], "wants pictures"),
    (["--network", "resnet:21"], "6 n + 2"),
    (["--network", "resnet:20,16,3"], "depth, width"),
    (["--input", "3,32"], "channels,height,width"),
    (["--density", "0.1", "--scheme", "pattern", "--method", "rigl", "--epochs", "3"], "rigl".upper()),
    (["--density", "2"], "density"),
    (["--budget-bytes", "10"], "bytes"),
])  # fmt: skip
def test_what_cannot_be_planned(run, words, said):
    fails(run("plan", *words), said)


# ---------------------------------------------------------------------------- report, versions ---


def test_report(run, saved, monkeypatch):
    pytest.importorskip("matplotlib")
    from mest.report import _svg

    monkeypatch.setattr(_svg, "picture", lambda draw, alt, **size: "<svg></svg>")
    shutil.copy(saved[0] / "run.jsonl", "run.jsonl")
    assert run("report", "run.jsonl") == (0, "run.html\n", "")
    assert "em&amp;s" in open("run.html", encoding="utf-8").read()
    assert run("report", "run.jsonl", "-o", "other.html", "--title", "Mine")[0] == 0
    assert "<h1>Mine</h1>" in open("other.html", encoding="utf-8").read()
    fails(run("report", "none.jsonl"), "none.jsonl: No such file")
    open("bad.jsonl", "w").write("{}\n")
    fails(run("report", "bad.jsonl"), "kind")
    monkeypatch.setattr(_svg, "available", lambda: False)
    assert "pip install matplotlib" in run("report", "run.jsonl")[2]


def test_versions(run):
    code, out, _ = run("versions", "--json")
    assert code == 0 and json.loads(out)["mest"].startswith(mest.__version__) and "numpy" in json.loads(out)
    assert run("versions")[1].startswith("mest  ")
    assert run("--version") == (0, f"mest {mest.__version__}\n", "")


# --------------------------------------------------------------------------- as a process ---


def process(*words, **more):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mest", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **more,
    )


def test_pipes_get_no_progress_bars_and_may_close():
    done = process("plan", "--network", "resnet:110")
    done.stdout.close()
    _, err = done.stderr.read(), done.wait()
    assert "Traceback" not in _ and err == 0
    trained = process(*TRAIN)
    out, err = trained.communicate()
    assert trained.returncode == 0 and err == "" and "\r" not in out


def test_tracebacks_are_there_for_who_asks(monkeypatch):
    monkeypatch.setenv("MEST_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["inspect", "none"])


def test_ctrl_c_keeps_what_was_learned():
    words = [
        *TRAIN[: TRAIN.index("--epochs")],
        "--epochs",
        "100000",
        "--record",
        "run.jsonl",
        "--out",
        "w.npz",
    ]
    training = process(*words, start_new_session=True)
    for line in training.stdout:
        if line.startswith("epoch"):
            break
    os.kill(training.pid, signal.SIGINT)
    begun = time.monotonic()
    out, err = training.communicate(timeout=60)
    assert training.returncode == 130 and "Traceback" not in err and "stopped after epoch" in out, (out, err)
    assert time.monotonic() - begun < 60
    assert mest.read_run("run.jsonl").end["reason"] == "interrupted"
    with np.load("w.npz") as weights:
        assert "classifier.weight" in weights.files
