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
from commands import fails, folder, run, saved  # noqa: F401
from mest.measure.variants import Alone, Shape, Variant
from mest.cli import _data, _options, _output, advise, main
from mest.datasets import digits

TRAIN = ("train", "digits", "--network", "mlp:16", "--density", "0.2", "--method", "ems", "--epochs", "2",
         "--mutation-every", "1", "--learning-rate", "0.05")  # fmt: skip


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


# -------------------------------------------------------------------------------------- train ---


def test_train_records_and_writes_weights(run):
    code, out, err = run(*TRAIN, "--record", "run.jsonl", "--checkpoint", "t.mest", "--out", "w.npz")
    assert code == 0, err
    assert out.count("epoch   ") == 2 and "validation accuracy" in out.splitlines()[-3]
    record = mest.read_run("run.jsonl")
    assert (
        record.run["command"]
        == "mest " + " ".join(TRAIN) + " --record run.jsonl --checkpoint t.mest --out w.npz"
    )
    assert (
        record.run["config"]["samples"] == 1347
        and len(record.epochs) == 2
        and record.most_forgotten["images"]
    )

    model = mest.Model(mest.mlp((1, 8, 8), [16], 10), density=0.2, method="em&s", epochs=2, mutation_every=1,
                       learning_rate=0.05, samples=1347)  # fmt: skip
    data = digits()
    history = model.fit(data.x_train, data.y_train, validation=(data.x_test, data.y_test), progress=False)
    assert history[-1].validation_loss == record.epochs[-1]["validation_loss"], (
        "the bits of the same training in Python"
    )
    with np.load("w.npz") as weights:
        expected = model.state_dict()
        assert set(weights.files) == set(expected)
        assert all(np.array_equal(weights[name], expected[name]) for name in expected)

    again = mest.Model(model.layers, model.config)
    assert again.load("t.mest").epochs == 2
    code, out, err = run(*TRAIN, "--checkpoint", "t.mest", "--quiet")  # all is done
    assert code == 0 and "nothing to train" in err


def test_train_goes_on_from_a_checkpoint(run):
    words = list(TRAIN)
    whole = json.loads(run(*words, "--json")[1])
    assert whole["epochs"] == 2 and whole["connections"] > 0 and not whole["stopped"]
    with mest.Model(mest.mlp((1, 8, 8), [16], 10), density=0.2, method="em&s", epochs=2, mutation_every=1,
                    learning_rate=0.05, samples=1347) as model:  # fmt: skip
        data = digits()
        model.fit(data.x_train, data.y_train, 1, progress=False, checkpoint="t.mest")
    rest = json.loads(run(*words, "--json", "--checkpoint", "t.mest")[1])
    assert rest["epochs"] == 1 and rest["last"]["loss"] == whole["last"]["loss"]


def iris(path, header=True):
    rng = np.random.default_rng(0)
    lines = ["length,width,species"] if header else []
    for name, centre in (("setosa", 1.0), ("virginica", 3.0)):
        lines += [f"{a:.3f},{b:.3f},{name}" for a, b in rng.normal(centre, 0.2, (20, 2))]
    path.write_text("\n".join(lines) + "\n")


def test_train_on_csv(run, folder):
    iris(folder / "iris.csv")
    code, out, err = run(
        "train",
        "iris.csv",
        "--network",
        "mlp:4",
        "--epochs",
        "6",
        "--batch",
        "8",
        "--standardise",
        "--out",
        "w.npz",
        "--validation",
        "0.25",
    )
    assert code == 0, err
    assert "classes: 0 setosa, 1 virginica" in out and "30 samples" in out
    with np.load("w.scaling.npz") as scaling:
        assert scaling["mean"].shape == (2,) and scaling["deviation"].shape == (2,)
    named = _data.load("iris.csv", "species")
    iris(folder / "plain.csv", header=False)
    assert np.array_equal(_data.load("plain.csv", "3").x, named.x) and named.names == ["setosa", "virginica"]


def test_train_on_npz(run, folder):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), rng.integers(0, 3, 40)
    np.savez(folder / "set.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    data = _data.load("set.npz")
    assert data.shape == (1, 8, 8) and data.x.max() <= 1 and len(data.x_test) == 7
    code, out, err = run(
        "train", "set.npz", "--network", "resnet:8,2", "--epochs", "1", "--batch", "8", "--augment", "--json"
    )
    assert code == 0 and json.loads(out)["last"]["validation_accuracy"] is not None, err
    np.savez(folder / "house.npz", x=rng.normal(size=(20, 3)), y=rng.normal(size=20))
    code, out, err = run("train", "house.npz", "--loss", "mse", "--network", "mlp:4", "--epochs", "1",
                         "--learning-rate", "0.01", "--validation", "0", "--json")  # fmt: skip
    assert code == 0 and json.loads(out)["last"]["validation_loss"] is None, err


def test_words_as_labels_of_npz(folder):
    x = np.zeros((4, 2))
    for words in (["cat", "dog", "cat", "eel"], np.array([b"cat", b"dog", b"cat", b"eel"])):
        np.savez_compressed(folder / "words.npz", X=x, y=words)
        data = _data.load("words.npz")
        assert data.y.tolist() == [0, 1, 0, 2] and len(data.names) == 3 and "dog" in data.names[1]


def test_damaged_npz_is_said_in_a_line(run, folder):
    """Each byte of a deflated file: an error in one line, or data."""
    rng = np.random.default_rng(0)
    np.savez_compressed(folder / "good.npz", x=rng.integers(0, 9, (40, 4)), y=np.array(["no", "yes"] * 20))
    whole = (folder / "good.npz").read_bytes()
    seen = set()
    for place in range(0, len(whole), 2):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        (folder / "bad.npz").write_bytes(bytes(broken))
        try:
            _data.load("bad.npz")
        except (_output.Failure, mest.MestError) as error:
            seen.add(str(error))
    assert len(seen) > 3 and all("bad.npz" in said for said in seen), seen
    (folder / "bad.npz").write_bytes(whole[:120] + b"??" + whole[122:])
    fails(run("train", "bad.npz", "--epochs", "1"), "bad.npz is no whole .npz file")
    np.savez(folder / "objects.npz", x=np.zeros((2, 2)), y=np.array([{}, []], object))
    fails(run("train", "objects.npz", "--epochs", "1"), "of Python objects")
    np.savez(folder / "wrong.npz", x=np.zeros((2, 2)), y=np.frombuffer(b"\xff" * 8, "<U1"))
    fails(run("train", "wrong.npz", "--epochs", "1"), "wrong.npz")


def test_data_that_cannot_be_meant(run, folder):
    def write(name, text):
        (folder / name).write_text(text)
        return name

    np.savez(folder / "odd.npz", a=np.zeros(3))
    np.savez(folder / "short.npz", x=np.zeros((4, 2)), y=np.zeros(3, int))
    np.savez(folder / "floats.npz", x=np.zeros((4, 2)), y=np.arange(4) / 3)
    np.savez(folder / "ok.npz", x=np.zeros((40, 2)), y=np.arange(40) % 2)
    write("cut.npz", "PK\x03\x04")
    for data, said in (
        ("none.csv", "No such file"), ("data.txt", "choose digits"), ("mnist", "mnist:FOLDER"),
        ("cifar10:nowhere", "nowhere"), ("odd.npz", "has a; wanted are x and y"),
        ("short.npz", "4 samples and 3 labels"), ("floats.npz", "--loss mse"), ("cut.npz", "no whole .npz"),
        (write("empty.csv", ""), "empty"), (write("one.csv", "1\n2\n"), "two columns"),
        (write("word.csv", "1,2\nx,3\n"), "line 2: 'x' is no number"),
        (write("hole.csv", "a,b,y\n1,2,0\n3,,1\n"), "line 3: column 2 (b) is empty"),
        (write("label.csv", "a,y\n1,0\n3,\n"), "line 3: the label, column 2, is empty"),
        (write("semi.csv", "a;y\n1,5;0\n"), "separated by ';'; commas are wanted"),
        ("mnist:nowhere", "there is no folder nowhere"), ("mnist:.", "train-labels-idx1-ubyte.gz, t10k"),
        ("cifar10:.", "wanted in the folder are data_batch_1"),
        (write("ragged.csv", "1,2,3\n1,2\n"), "line 2"),
    ):  # fmt: skip
        fails(run("train", data, "--epochs", "1"), said)
    for words, said in (
        (["ok.npz", "--record", "no/where.jsonl"], "no such folder"), (["ok.npz", "--out", "w.bin"], ".npz"),
        (["ok.npz", "--validation", "2"], "below 1"),
        (["ok.npz", "--validation", "0.001"], "some have to be"),
        (["ok.npz", "--network", "resnet:8"], "wants pictures"), (["ok.npz", "--augment"], "pictures"),
        (["ok.npz", "--shape", "1,2,2"], "--shape 1,2,2"),
        (["word.csv", "--label", "7"], "has no column '7'"),
        (["ok.npz", "--learning-rate", "-1"], "learning_rate"),
    ):  # fmt: skip
        fails(run("train", *words), said)
    assert not (folder / "no").exists()


def test_channels_last_are_told_and_not_trained_on(run, folder):
    x, y = np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2
    np.savez(folder / "hwc.npz", x=x, y=y)
    words = ["--network", "resnet:8,2", "--epochs", "1", "--batch", "20", "--json"]
    fails(run("train", "hwc.npz", *words), "x.transpose(0, 3, 1, 2); else say --shape 8,8,3")
    assert run("train", "hwc.npz", *words, "--shape", "8,8,3")[0] == 0, "who means it, says it"
    np.savez(folder / "chw.npz", x=x.transpose(0, 3, 1, 2), y=y)
    assert run("train", "chw.npz", *words)[0] == 0


def test_shape_of_pictures_that_have_it(run, folder):
    np.savez(folder / "p.npz", x=np.zeros((40, 8, 8)), y=np.arange(40) % 2)
    words = ["train", "p.npz", "--network", "resnet:8,2", "--epochs", "1", "--batch", "20", "--shape"]
    code, out, err = run(*words, "1,8,8")
    assert code == 0 and "32 samples" in out, err
    fails(run(*words, "1,4,16"), "--shape 1,4,16: a sample is 1x8x8 numbers")
    fails(run(*words, "8x8"), "--shape '8x8': integers")
    iris(folder / "iris.csv")
    fails(run("train", "iris.csv", "--network", "resnet:8"), "say --shape channels,height,width")


def regression(path):
    x = np.random.default_rng(0).normal(size=(300, 3))
    lines = ["a,b,c,y"] + [",".join(f"{v:.4f}" for v in [*row, row.sum()]) for row in x]
    path.write_text("\n".join(lines) + "\n")
    return ["train", path.name, "--label", "y", "--loss", "mse", "--batch", "32"]


def test_regression_learns_without_more_words(run, folder):
    words = regression(folder / "reg.csv")
    found = json.loads(run(*words, "--epochs", "10", "--json")[1])
    assert found["last"]["validation_loss"] < 0.1, "3 is that of answering 0 always"


def test_a_diverged_training_is_an_error_and_writes_no_weights(run, folder):
    words = [*regression(folder / "reg.csv"), "--clip-norm", "none", "--out", "w.npz", "--quiet"]
    fails(run(*words, "--learning-rate", "0.1", "--epochs", "20"), "Take a lower --learning-rate")
    assert not (folder / "w.npz").exists()


def test_losses_that_are_no_result(run, folder):
    """Every step was finite, and the loss far above that of answering 0."""
    words = [*regression(folder / "reg.csv"), "--clip-norm", "none", "--out", "w.npz", "--quiet"]
    words += ["--network", "mlp:8", "--learning-rate", "0.4", "--epochs", "1", "--checkpoint", "t.mest"]
    for _ in range(2):  # a checkpoint of it says so again
        fails(run(*words), "training diverged")
        assert not (folder / "w.npz").exists()


def test_train_longer_than_the_checkpoint_was_made_for(run):
    words = [word if word != "2" else "4" for word in TRAIN]
    code, _, err = run(*TRAIN, "--checkpoint", "t.mest", "--quiet")
    assert code == 0, err
    fails(run(*words, "--checkpoint", "t.mest", "--quiet"), "--other-settings")
    found = json.loads(run(*words, "--checkpoint", "t.mest", "--other-settings", "--json")[1])
    assert found["epochs"] == 2 and found["last"]["epoch"] == 3
    with open("t.mest.history", encoding="utf-8") as lines:
        assert len(lines.readlines()) == 4, "the records of the first two are kept"
    fails(run(*words, "--other-settings"), "say --checkpoint")


def test_a_finished_training_tells_its_result_again(run, folder):
    words = [*TRAIN, "--checkpoint", "t.mest", "--out", "w.npz"]
    first = run(*words, "--quiet")[1].splitlines()
    (folder / "w.npz").unlink()
    code, out, err = run(*words, "--quiet")
    assert code == 0 and "nothing to train" in err and (folder / "w.npz").exists()
    again = out.splitlines()
    assert again[0].startswith("done after epoch 1: validation accuracy")
    assert again[0].split(": ")[1] == first[0].split(": ")[1] and again[-1] == "weights: w.npz"


@pytest.mark.parametrize("words, code", [
    (["--density", "10%"], 2), (["--densty", "0.1"], 2), (["--density", "0"], 1),
    (["--network", "resnet20"], 1), (["--input", "28x28"], 1), (["--epochs", "0"], 1),
])  # fmt: skip
def test_exit_codes_are_those_of_the_documentation(run, words, code):
    assert run("plan", *words)[0] == code


def test_a_method_that_decays_wants_epochs(run):
    fails(run("plan", "--density", "0.1", "--method", "em", "--epochs", "1"), "say --epochs 2 or more")
    with pytest.raises(mest.MestArgumentError, match="set epochs to 2 or more, or mutation_epochs"):
        mest.plan(mest.mlp(9, [8], 3), density=0.1, method="em", epochs=1)


# ----------------------------------------------------------------------------- bench and advise ---


@pytest.fixture
def quick(monkeypatch):
    from mest.measure import timing

    monkeypatch.setattr(timing.Bystanders, "disturbed", lambda self: False)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(timing.interleave, "__defaults__", (0.0, 0.001, None))


def test_bench(run, quick):
    words = ["bench", "--network", "mlp:32", "--input", "16", "--densities", "0.1,0.5", "--schemes",
             "unstructured,block4", "--batch", "4", "--rounds", "2"]  # fmt: skip
    code, out, err = run(*words, "--json")
    found = json.loads(out)
    assert code == 0 and [r["name"] for r in found] == [
        "dense", "50 % unstructured", "10 % unstructured", "50 % block4", "10 % block4"
    ], err  # fmt: skip
    plan = mest.plan(mest.mlp(16, [32], 10), density=0.1, batch=4)
    assert found[2]["model_bytes"] == plan.sparse_bytes and found[2]["parameters"] == plan.active
    assert all(record["microseconds"] > 0 for record in found)
    code, out, _ = run(*words, "--inference")
    lines = out.splitlines()
    assert (
        code == 0
        and len([line for line in lines if "x " in line]) == 5
        and "prediction of 4 samples" in lines[0]
    )
    assert mest.plot.comparison(found).get_title(loc="left") == "Dense against sparse"
    fails(run("bench", "--network", "mlp:32", "--schemes", "nm24", "--densities", "0.9"), "density")


def test_advise_measures_distinct_layers_once(run, quick):
    code, out, err = run(
        "advise",
        "--network",
        "resnet:8,4",
        "--input",
        "3,8,8",
        "--densities",
        "0.1",
        "--schemes",
        "unstructured,pattern",
        "--batch",
        "2",
        "--rounds",
        "1",
        "--json",
    )
    found = json.loads(out)
    assert code == 0, err
    names = [name for one in found for name in one["layers"]]
    plan = mest.plan(mest.resnet(8, 4, input=(3, 8, 8)), density=0.1)
    assert sorted(names) == sorted(part.name for part in plan.layers if part.kind in ("conv2d", "linear"))
    assert ["conv1.1a", "conv1.1b"] in [one["layers"] for one in found]
    for one in found:
        assert {v["density"] for v in one["measured"]} == {1.0, 0.1} and one["advice"]["why"]
    code, out, err = run("advise", "--network", "mlp:8", "--input", "4", "--rounds", "1", "--batch", "2")
    assert code == 0 and "advice" in out.splitlines()[1] and "these layers together" in out, err
    fails(run("advise", "--schemes", "filter"), "mest bench measures the network")


def alone(dense, **times):
    shape = Shape(64, 1, 1, "Linear(8)")
    variants = {
        Variant(): dense,
        Variant(0.2): times["a"],
        Variant(0.2, "block4"): times["b"],
        Variant(0.1): times["c"],
        Variant(0.1, "block4"): None,
    }
    return Alone(
        ["x", "y"], shape, mest.Linear(8), variants, {v: round(1000 * v.density) for v in variants}
    )


def test_advice_is_the_largest_density_that_pays():
    assert advise.advice(alone(100.0, a=90, b=50, c=20))[0] == Variant(0.2, "block4")
    assert advise.advice(alone(100.0, a=95, b=99, c=20))[0] == Variant(0.1)
    none, why = advise.advice(alone(100.0, a=120, b=99, c=95))
    assert none is None and "dense is better" in why
    assert advise.advice(alone(3.0, a=1, b=1, c=1)) == (None, "dense: too small to matter")
    assert "0.4" in advise.rendered([alone(0.4, a=0.3, b=0.2, c=0.01)], [0.2, 0.1]).splitlines()[1]
    text = advise.rendered([alone(100.0, a=120, b=99, c=95)], [0.2, 0.1])
    assert "dense is better in every layer" in text and "x and 1 more" in text
    assert "200 µs dense, 100 µs as advised (2.0x)" in advise.rendered(
        [alone(100.0, a=90, b=50, c=20)], [0.2, 0.1]
    )


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
