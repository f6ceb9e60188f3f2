# SPDX-License-Identifier: Apache-2.0
"""mest train, as somebody types it: data of every kind, what it writes, how it goes on and fails."""

import json

import mest
import numpy as np
import pytest
from mest.cli import _data, _output
from mest.datasets import digits

from commands import TRAIN, fails, folder, run, saved  # noqa: F401


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
