# SPDX-License-Identifier: Apache-2.0
"""Checkpoints from Python: save and load, a fit that resumes by itself, and what is refused."""

import dataclasses
import os
import re

import numpy as np
import pytest
from conftest import ROOT
from support import X, Y, fingerprint, tiny

import mest
from mest import _abi

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)


def learner(**config):
    """4 -> 8 sparse -> 3 that mutates, forgets and leaves samples out; 8 epochs of 60 samples."""
    return tiny(**{
        "samples": 60, "batch": 8, "epochs": 8, "method": "em&s", "mutation_every": 1, "learning_rate": 0.1,
        "momentum": 0.9, "importance_lambda": 0.01, "phase1_epochs": 5, "remove_rule": "fraction",
        "remove_fraction": 0.3, **config,
    })  # fmt: skip


def comparable(history):
    """Records but for the time that an epoch took; nan is nan."""
    return [str(dataclasses.replace(record, seconds=0.0)) for record in history]


def jitter(x, rng):
    return x + rng.normal(0, 0.1, x.shape).astype(np.float32)


def fit(model, path=None, stop=None, **more):
    stops = [] if stop is None else [lambda record: record.epoch == stop]
    kept = {} if path is None else {"checkpoint": path}
    return model.fit(*DATA, progress=False, augment=jitter, callbacks=stops, **kept, **more)


def test_load_continues_where_save_was_called(tmp_path):
    path = tmp_path / "some where.mest"
    never = learner()
    for i in range(30):
        rows = np.arange(i * 8, i * 8 + 8) % 60
        if i == 17:
            saved = never.save(path)
            again = learner()
            loaded = again.load(path)
            assert loaded == saved and saved.sequence == 1 and saved.updates == 17
            assert saved.bytes == path.stat().st_size <= never.plan().checkpoint_bytes
        reports = [m.step(DATA[0][rows], DATA[1][rows], rows) for m in ([never, again] if i >= 17 else [never])]
        assert len(set(reports)) == 1
    assert fingerprint(again) == fingerprint(never)
    assert never.save(path).sequence == 2 and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("stop", range(8))
def test_fit_resumes_by_itself(tmp_path, stop, micro):
    never = learner(micro_batches=micro)
    whole = fit(never)
    first = fit(learner(micro_batches=micro), tmp_path / "c", stop=stop)
    assert len(first) == stop + 1
    resumed = learner(micro_batches=micro)
    history = fit(resumed, tmp_path / "c")
    assert comparable(history) == comparable(whole) and len(history) == 8
    assert fingerprint(resumed) == fingerprint(never)
    # Run once more, there is nothing left to do.
    again = learner(micro_batches=micro)
    assert comparable(fit(again, tmp_path / "c")) == comparable(whole)
    assert fingerprint(again) == fingerprint(never)


def test_epochs_count_those_of_the_checkpoint(tmp_path):
    fit(learner(), tmp_path / "c", epochs=3)
    history = fit(learner(), tmp_path / "c", epochs=5)
    assert history.column("epoch").tolist() == [0, 1, 2, 3, 4]
    model = learner()
    fit(model, tmp_path / "c", epochs=2)
    assert len(fit(model, tmp_path / "c", epochs=1)) == 1  # it has trained: nothing is loaded


def test_saves_only_as_often_as_asked(tmp_path, monkeypatch):
    saved = []
    save = mest.Model.save
    monkeypatch.setattr(mest.Model, "save", lambda self, path: saved.append(self._epoch) or save(self, path))
    fit(learner(), tmp_path / "a", checkpoint_every=3)
    assert saved == [2, 5, 7]
    saved.clear()
    fit(learner(), tmp_path / "b", checkpoint_seconds=1000)
    assert saved == [7]
    with pytest.raises(mest.MestArgumentError, match="checkpoint_every"):
        fit(learner(), tmp_path / "c", checkpoint_every=0)


def test_history_may_be_missing(tmp_path):
    fit(learner(), tmp_path / "c", stop=3)
    (tmp_path / "c.history").unlink()
    resumed = learner()
    assert fit(resumed, tmp_path / "c").column("epoch").tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("line", ["no record", '{"epoch": 1}', "3"])
def test_a_history_that_is_none_is_named(tmp_path, line):
    fit(learner(), tmp_path / "c", stop=3)
    (tmp_path / "c.history").write_text(line + "\n")
    with pytest.raises(mest.CorruptError, match=r"c\.history has a line that is no EpochRecord.*delete it"):
        fit(learner(), tmp_path / "c")


def test_a_checkpoint_that_cannot_be_is_refused_before_training(tmp_path):
    model = learner()
    with pytest.raises(mest.MestArgumentError, match="no such folder"):
        fit(model, tmp_path / "no" / "where")
    for call in (model.save, model.load):
        with pytest.raises(mest.MestArgumentError, match="zero byte"):
            call(f"{tmp_path}/a\0b")
    assert os.listdir(tmp_path) == [] and fingerprint(model) == fingerprint(learner())


def test_another_model_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "c"
    learner().save(path)
    for change, words in (
        ({"learning_rate": 0.2}, r"config.learning_rate is 0.2 here, 0.1 in the checkpoint; set it so, or load with strict=False$"),
        ({"method": "em"}, r"config.method is EM here, EMS in the checkpoint; set it so, or load"),
        ({"seed": 5}, r"config.seed"),
        ({"samples": 61}, r"config.samples is 61 here, 60"),
    ):
        model = learner(**change)
        before = fingerprint(model)
        with pytest.raises(mest.MestArgumentError, match=words):
            model.load(path)
        assert fingerprint(model) == before
    layers = [mest.Input(4), mest.Linear(9, density=0.5), mest.ReLU(), mest.Linear(3, density=1.0)]
    with pytest.raises(mest.MestArgumentError, match=r"layer 1 \(linear1\): channels is 9 here, 8"):
        mest.Model(layers, learner().config).load(path)
    with pytest.raises(mest.MestArgumentError, match=r"config.layers is 3 here, 4 in the checkpoint$"):
        mest.Model([layers[0], mest.Linear(8, density=0.5), mest.Linear(3)], learner().config).load(path)


def test_other_settings_may_differ_if_wanted(tmp_path):
    path = tmp_path / "c"
    model = learner()
    fit(model, epochs=2)
    model.save(path)
    slower = learner(learning_rate=0.01)
    slower.load(path, strict=False)
    assert fingerprint(slower) == fingerprint(model)
    assert slower.begin_epoch().learning_rate == pytest.approx(0.01)
    with pytest.raises(mest.MestArgumentError, match="samples"):
        learner(samples=61).load(path, strict=False)


@pytest.mark.parametrize(
    "other, message",
    [
        ({"scheme": "block4"}, "scheme is BLOCK4 here, UNSTRUCTURED in the checkpoint$"),
        ({"scheme": "filter"}, "scheme is FILTER here, UNSTRUCTURED in the checkpoint$"),
        ({"density": 0.25}, "room for 160 here, 320 in the checkpoint; its density has to be as it was$"),
    ],
)
def test_what_other_settings_cannot_be_is_no_damage(other, message, tmp_path):
    layers = mest.mlp((20,), [32], 3)
    mest.Model(layers, density=0.5).save(tmp_path / "c")
    model = mest.Model(layers, **{"density": 0.5, **other})
    before = fingerprint(model)
    with pytest.raises(mest.MestArgumentError, match=rf"layer 2 \(linear2\): {message}"):
        model.load(tmp_path / "c", strict=False)
    assert fingerprint(model) == before


def test_channels_without_room_are_no_damage(tmp_path):
    layers = [
        mest.Input(3, 6, 6), mest.Conv2d(16, 3, padding=1), mest.ReLU(), mest.Conv2d(16, 3), mest.GlobalAvgPool(),
        mest.Linear(4),
    ]  # fmt: skip
    mest.Model(layers, density=0.6, scheme="channel").save(tmp_path / "c")
    with pytest.raises(mest.MestArgumentError, match=r"room for \d+ here, \d+ in the checkpoint; its density"):
        mest.Model(layers, density=0.2, scheme="channel").load(tmp_path / "c", strict=False)


def test_epochs_have_the_steps_of_the_model_that_loads(tmp_path):
    path = tmp_path / "c"
    model = tiny(steps_per_epoch=2)
    for _ in range(3):
        model.step(X, Y)
    model.save(path)
    longer = tiny(steps_per_epoch=4)
    longer.load(path, strict=False)
    assert [longer.step(X, Y).epoch for _ in range(8)] == [1, 1, 1, 2, 2, 2, 2, 3]
    smaller, larger = learner(batch=4), learner(batch=8)  # derived from the samples
    fit(larger, epochs=6, path=tmp_path / "d")
    smaller.load(tmp_path / "d", strict=False)
    assert smaller.begin_epoch().steps == -(-smaller.forgetting().training // 4)


def test_layers_freeze_as_the_model_that_loads_says(tmp_path):
    """One without freezing trains all of them, RigL's moves included."""
    path = tmp_path / "c"
    options = dict(method="rigl", mutation_updates=2, epochs=8, steps_per_epoch=2, density=0.3, batch=8)
    layers = mest.mlp((20,), [30, 30], 3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 20)).astype(np.float32), rng.integers(0, 3, 8)
    freezing = mest.Model(layers, freeze_share=0.5, freeze_epochs=(1, 2), **options)
    for _ in range(6):
        frozen = freezing.step(x, y).frozen
    freezing.save(path)
    assert frozen > 0
    free = mest.Model(layers, **options)
    free.load(path, strict=False)
    before = free.csr(2).indices.copy(), free.tensor(2, "weight")
    assert free.step(x, y).frozen == 0  # a move
    assert not np.array_equal(before[0], free.csr(2).indices)
    moved = free.tensor(2, "weight")
    free.step(x, y)
    assert not np.array_equal(moved, free.tensor(2, "weight"))


def test_errors_are_those_of_python_too(tmp_path):
    model = tiny()
    with pytest.raises(OSError, match="no such file"):
        model.load(tmp_path / "nothing")
    with pytest.raises(mest.MestIOError, match="it is a folder"):
        model.load(tmp_path)
    with pytest.raises(OSError, match="no such file or folder"):
        model.save(tmp_path / "no" / "where")
    (tmp_path / "text").write_text("not a checkpoint at all, but long enough to be one")
    with pytest.raises(mest.CorruptError, match="is no checkpoint"):
        model.load(tmp_path / "text")
    with pytest.raises(ValueError):
        model.load(tmp_path / "text")
    model.step(X, Y)
    model.close()
    with pytest.raises(mest.StateError):
        model.save(tmp_path / "c")


# ------------------------------------------------------------------------------ nothing forgotten ---

ENGINE = ROOT / "Sources" / "Mest"
TABLE = (ENGINE / "Checkpoint" / "Sections.swift").read_text()


def test_every_setting_is_compared():
    """Who adds a field to mest_config adds it to the table, or here, since it changes no bit."""
    bits_do_not_depend_on = {"struct_size", "abi_version", "threads", "simd", "budget_bytes", "recompute", "reserved"}
    fields = {name for name, *_ in _abi.mest_config._fields_}
    compared = set(re.findall(r'(?:same|setting)\("(\w+)', TABLE.split("func describe")[0]))
    assert compared - {"layers"} == fields - bits_do_not_depend_on


def test_every_number_of_the_state_is_saved():
    """Who adds to ModelState adds it to the table, or here, since it does not outlive a call, or a step in slices."""
    own = {"plan", "env", "kernels", "ownsBlock", "blocks", "batchInput", "savedAt", "step", "keeps"}
    state = (ENGINE / "Model" / "Model.swift").read_text()
    state = re.search(r"struct ModelState \{(.*?)\n    init", state, re.S)[1]
    saved = set(re.findall(r"&s\.(\w+)", TABLE))
    assert saved == set(re.findall(r"\bvar (\w+)", state)) - own


def test_every_array_of_the_block_is_saved():
    """Who adds a Place adds it to the table, or here, since it is derived or does not outlive a call."""
    one_call = {"candidates", "batchMean", "batchVariance", "constants", "sums", "backwardSums", "output", "scratch",
                "backwardScratch", "cut", "start", "gradientConstants"}  # fmt: skip
    derived = {"channelStart", "key", "position"}
    text = "".join((ENGINE / name).read_text() for name in ("Model/Node.swift", "Forgetting/Forgetting.swift"))
    places = set(re.findall(r"var (\w+) = Place\.none", text))
    assert len(places) > 20
    forgotten = {name for name in places - one_call - derived if not re.search(rf"\.{name}\b", TABLE)}
    assert not forgotten
