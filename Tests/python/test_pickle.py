# SPDX-License-Identifier: Apache-2.0
"""Copies and pickles of a model: they continue to the same bits, here and in another process."""

import copy
import pickle
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from support import X, Y, fingerprint, tiny

import mest
from mest import _memory_io

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)


def pickled(model, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(model, protocol))


def through_bytes(model):
    return mest.Model.from_bytes(model.to_bytes(), model.layers, model.config)


COPIES = [copy.copy, copy.deepcopy, through_bytes, *(lambda m, p=p: pickled(m, p) for p in range(6))]


def learner(**config):
    """4 -> 8 sparse -> 3 that mutates, forgets and leaves samples out; 8 epochs of 60 samples."""
    return tiny(**{
        "samples": 60, "batch": 8, "epochs": 8, "method": "em&s", "mutation_every": 1, "momentum": 0.9,
        "importance_lambda": 0.01, "importance_gradient": "ema", "phase1_epochs": 5, "remove_rule": "fraction",
        "remove_fraction": 0.3, **config,
    })  # fmt: skip


def steps(model, first, last):
    """Steps of 8 samples; the model begins its epochs by itself."""
    reports = []
    for i in range(first, last):
        rows = np.arange(i * 8, i * 8 + 8) % 60
        reports.append(model.step(DATA[0][rows], DATA[1][rows], rows))
    return reports


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_continues_to_the_same_bits(copied):
    """In the middle of an epoch, after mutations."""
    model = learner(mutation_every=2)
    steps(model, 0, 21)  # 8 updates an epoch: mutated at epochs 0 and 2
    assert model.mutation().mutations == 2
    other = copied(model)
    assert other is not model and type(other) is mest.Model and other.config == model.config
    assert fingerprint(other) == fingerprint(model)
    assert other.mutation() == model.mutation() and str(other.forgetting()) == str(model.forgetting())
    assert steps(other, 21, 50) == steps(model, 21, 50)
    assert fingerprint(other) == fingerprint(model)
    np.testing.assert_array_equal(other.forgetting().counts, model.forgetting().counts)


def test_every_moment_will_do():
    never = learner(micro_batches=2)
    model = learner(micro_batches=2)
    for i in range(45):
        assert steps(model, i, i + 1) == steps(never, i, i + 1)
        model = pickled(model)
    assert fingerprint(model) == fingerprint(never)


def test_a_copy_is_its_own():
    model = learner()
    steps(model, 0, 3)
    before, other = fingerprint(model), copy.copy(model)
    steps(other, 3, 9)
    other.config.seed = 9
    assert fingerprint(model) == before != fingerprint(other) and model.config.seed == 0
    other.close()
    model.step(X, Y)


def test_fit_goes_on_after_a_copy():
    whole, model = learner(), learner()
    whole.fit(*DATA, progress=False)
    model.fit(*DATA, 3, progress=False)
    other = pickled(model)
    assert str(other.history) == str(model.history) and len(other.history) == 3
    assert [record.epoch for record in other.fit(*DATA, 2, progress=False)] == [3, 4]
    assert [record.epoch for record in pickled(other).fit(*DATA, progress=False)] == [5, 6, 7]
    assert [record.epoch for record in other.fit(*DATA, progress=False)] == [5, 6, 7]
    assert fingerprint(other) == fingerprint(whole)


def test_another_process_continues_to_the_same_bits(tmp_path):
    model = learner()
    steps(model, 0, 13)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = (
        "import pickle, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from support import fingerprint\n"
        "model = pickle.load(open(sys.argv[1], 'rb'))\n"
        "from test_pickle import steps\n"
        "steps(model, 13, 40)\n"
        "print(fingerprint(model))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pickle")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    steps(model, 13, 40)
    assert done.stdout.strip() == fingerprint(model)


def residual():
    first = mest.Conv2d(4, 3, padding=1, name="first")
    norm = mest.BatchNorm(from_=first)
    return [
        mest.Input(1, 4, 4), first, norm, mest.Conv2d(4, 3, padding=1), mest.Add(with_=norm),
        mest.GlobalAvgPool(), mest.Linear(3, density=1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("copied", COPIES)
def test_references_between_layers_survive(copied):
    x = np.random.default_rng(1).normal(size=(8, 1, 4, 4)).astype(np.float32)
    for layers in (residual(), mest.resnet(8, 4, 3, input=(1, 4, 4))):
        model = mest.Model(layers, batch=8, density=0.3)
        model.step(x, np.arange(8) % 3)
        other = copied(model)
        assert list(map(repr, other.layers)) == list(map(repr, layers))
        assert fingerprint(other) == fingerprint(model)
        assert model.step(x, np.arange(8) % 3) == other.step(x, np.arange(8) % 3)
        np.testing.assert_array_equal(other.tensor(other.layers[1]), model.tensor(1))


def test_layers_alone():
    """Their references are to objects of the same pickle."""
    layers = pickled(residual())
    assert layers[2].from_ is layers[1] and layers[4].with_ is layers[2]
    assert str(mest.plan(layers, batch=2)) == str(mest.plan(residual(), batch=2))


def test_callbacks_stay_behind():
    seen = []
    model = tiny(on_progress=lambda progress: seen.append(progress) and None, on_log=lambda *_: None)
    model.step(X, Y)
    assert seen
    other = pickled(model)
    seen.clear()
    other.step(X, Y)
    assert not seen and fingerprint(other) != fingerprint(model)
    model.step(X, Y)
    assert seen and fingerprint(other) == fingerprint(model)


class Named(mest.Model):
    """A subclass, with an attribute of its own."""

    title = "none"


def test_subclasses_and_attributes_survive():
    model = Named([mest.Input(4), mest.Linear(3)], batch=4)
    model.title = "a title"
    other = pickled(model)
    assert type(other) is Named and other.title == "a title"
    assert isinstance(Named.from_bytes(model.to_bytes(), model.layers, model.config), Named)


class Private(mest.Model):
    """Attributes of its own that are nobody else's; one is there before the model is."""

    def __init__(self, *layers, **fields):
        self._before = [1]
        super().__init__(*layers, **fields)
        self._title, self.__hidden = "a title", {"a": 1}

    def hidden(self):
        return self.__hidden


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_private_attributes_survive(copied):
    model = Private([mest.Input(4), mest.Linear(3)], batch=4)
    model.step(X, Y)
    model._note = "mine"
    model._before.append(2)
    other = copied(model)
    assert (other._before, other._title, other.hidden(), other._note) == ([1, 2], "a title", {"a": 1}, "mine")
    assert other._environment.busy is not model._environment.busy and other._handle != model._handle and other._epoch == model._epoch
    assert fingerprint(other) == fingerprint(model)
    model.close()
    other.step(X, Y)


def test_a_models_own_attributes_are_known():
    """Those that a copy makes anew; whoever adds one says so there."""
    model = tiny(samples=60)
    model.fit(*DATA, 1, progress=False, validation=DATA)
    assert {name for name in vars(model) if name != "history"} == mest.model._MADE_ANEW


def test_inference_only():
    trained = tiny()
    trained.step(X, Y)
    model = tiny(inference_only=True)
    for what in ("weight", "bias"):
        model.set_tensor(3, what, trained.tensor(3, what))
    np.testing.assert_array_equal(pickled(model).predict(X), model.predict(X))


# ------------------------------------------------------------------------------------ bytes ---


def test_bytes_are_those_of_a_file(tmp_path):
    model = learner()
    steps(model, 0, 11)
    (tmp_path / "c").write_bytes(model.to_bytes())
    other = learner()
    assert other.load(tmp_path / "c").updates == 11
    assert steps(other, 11, 12) == steps(model, 11, 12)
    model.save(tmp_path / "d")
    other = learner()
    found = other.load_bytes(memoryview((tmp_path / "d").read_bytes()))
    assert found.updates == 12 and found.bytes == (tmp_path / "d").stat().st_size
    assert fingerprint(other) == fingerprint(model)
    assert len(model.to_bytes()) <= model.plan().checkpoint_bytes


def test_damage_is_found_and_changes_nothing():
    model, other = learner(), learner()
    steps(model, 0, 3)
    data, before = model.to_bytes(), fingerprint(other)
    torn = [b"", b"\0" * 2000, b"text", data[:-1], data[:500], data[:700] + b"?" + data[701:]]
    for damaged in torn:
        with pytest.raises(mest.CorruptError):
            other.load_bytes(damaged)
        assert fingerprint(other) == before
    assert other.load_bytes(bytearray(data)).updates == 3


def test_bytes_of_another_model_are_refused():
    data = learner().to_bytes()
    with pytest.raises(mest.MestArgumentError, match="learning_rate is 0.2.*strict=False"):
        mest.Model.from_bytes(data, tiny().layers, learner(learning_rate=0.2).config)
    slower = mest.Model.from_bytes(data, tiny().layers, learner(learning_rate=0.2).config, strict=False, batch=16)
    assert slower.config.batch == 16 and slower.config.learning_rate == 0.2
    with pytest.raises(mest.MestArgumentError, match="samples is 59 here, 60"):
        learner(samples=59).load_bytes(data, strict=False)
    with pytest.raises(mest.MestArgumentError, match="^the data has a checkpoint of .* another model"):
        tiny().load_bytes(data, strict=False)


def test_a_model_that_is_closed_or_at_work_is_not_copied():
    model = tiny()
    assert model.step_slice(X, Y) is None
    for copied in COPIES:
        with pytest.raises(mest.StateError):
            copied(model)
    while model.step_slice(X, Y) is None:
        pass
    assert fingerprint(pickled(model)) == fingerprint(model)
    model.close()
    with pytest.raises(mest.StateError, match="closed"):
        pickle.dumps(model)


@pytest.mark.parametrize("where, call", [("_write", "to_bytes"), ("_read", "load_bytes")])
def test_what_fails_in_a_callback_is_raised(monkeypatch, where, call):
    """Whatever it is, in whichever call: not swallowed by C, not printed."""
    model, data = learner(), learner().to_bytes()
    arguments = [data] if call == "load_bytes" else []

    class Failing(dict):
        def _fail(self, *_):
            raise RuntimeError("no more memory")

        get = __setitem__ = _fail

    plain = getattr(_memory_io.MemoryIO, where)

    def fails(self, *more):
        self._slots = Failing()
        return plain(self, *more)

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(_memory_io.MemoryIO, where, fails)
        with pytest.raises(RuntimeError, match="no more memory"):
            getattr(model, call)(*arguments)
    assert fingerprint(model) == fingerprint(learner())
    getattr(model, call)(*arguments)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts")
def test_ctrl_c_is_heard_when_the_copy_is_made(monkeypatch):
    """Python runs signal handlers when a callback begins, where ctypes would swallow what is raised."""
    model = learner()
    steps(model, 0, 3)
    data, before = model.to_bytes(), fingerprint(model)
    plain = _memory_io.MemoryIO._read

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_memory_io.MemoryIO, "_read", interrupted)
        for call in (model.to_bytes, lambda: model.load_bytes(data)):
            with pytest.raises(KeyboardInterrupt):
                call()
            assert fingerprint(model) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert model.to_bytes() and model.load_bytes(data).updates == 3
