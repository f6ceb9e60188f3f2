# SPDX-License-Identifier: Apache-2.0
"""run.jsonl: what mest.record writes, and what read_run makes of files, good and bad."""

import json
import math

import numpy as np
import pytest
from support import positions, tiny

import mest

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)


def learner(**config):
    return tiny(**{"samples": 60, "batch": 10, "epochs": 6, "method": "em", "mutation_every": 2, **config})


def fit(model, *callbacks, **more):
    return model.fit(*DATA, progress=False, callbacks=list(callbacks), **more)


class Oops(Exception):
    pass


def test_all_of_a_run(tmp_path):
    path = tmp_path / "run.jsonl"
    model = learner()
    history = fit(model, mest.record(path), validation=DATA)
    run = mest.read_run(path)
    assert run.run["config"] == {**vars(model.config)} and run.run["mest"] == mest.__version__
    plan = model.plan()
    assert [layer["name"] for layer in run.run["layers"]] == [layer.name for layer in plan.layers]
    assert [layer["bytes"] for layer in run.run["layers"]] == [layer.bytes for layer in plan.layers]
    parts = "weight index gradient state forgetting batch workspace table recovery".split()
    assert run.run["plan"]["total_bytes"] == sum(run.run["plan"][f"{p}_bytes"] for p in parts) == plan.total_bytes
    for record, known in zip(run.epochs, history):
        assert {name: record[name] for name in vars(known)} == vars(known)
    assert [e["connections"][1] for e in run.epochs] == [16] * 6
    moved = [r for r in history if r.mutated]
    assert [(m["epoch"], m["dropped"], m["grown"]) for m in run.mutations] == [
        (r.epoch, r.dropped, r.grown) for r in moved
    ]
    assert [f["events_epoch"] for f in run.forgetting] == history.column("forgotten").tolist()
    assert len(run.forgetting[0]["histogram"]) == 64 and run.forgetting[-1]["seen"] == 60
    (layer,) = run.importance["layers"]
    assert layer["layer"] == 1 and sum(layer["counts"]) == 16 and len(layer["edges"]) == len(layer["counts"]) + 1
    assert layer["edges"][-1] == pytest.approx(np.abs(model.tensor(1)).max())
    counts = model.forgetting().counts
    ids = run.most_forgotten["ids"]
    assert run.most_forgotten["counts"] == counts[ids].tolist() == sorted(counts[ids], reverse=True)
    assert run.end["reason"] == "done" and run.end["message"] == "" and run.end["seconds"] > 0


def test_a_file_is_plain_json(tmp_path):
    """NaN, which JSON has not, is null; every line is an object that any reader takes."""
    fit(learner(samples=None), mest.record(tmp_path / "r"))
    lines = (tmp_path / "r").read_text().splitlines()

    def strict(_):
        raise AssertionError("not JSON")

    records = [json.loads(line, parse_constant=strict) for line in lines]
    assert records[0]["kind"] == "run" and records[-1]["kind"] == "end"
    epoch = next(r for r in records if r["kind"] == "epoch")
    assert epoch["validation_loss"] is None
    assert math.isnan(mest.read_run(tmp_path / "r").epochs[0]["validation_loss"])
    assert mest.read_run(tmp_path / "r").run["config"]["epochs"] == 6
    assert mest.read_run(tmp_path / "r").run["config"]["clip_norm"] is None  # null is no number here


@pytest.mark.parametrize("method", ["em", "em&s", "set", "rigl", "gmp", "snip"])
def test_survivors(tmp_path, method):
    """How many of the first connections are still there, counted by hand."""
    more = {"rigl": {"mutation_updates": 2, "mutation_every": None}, "snip": {"mutation_every": None}}
    model = learner(method=method, **more.get(method, {}))
    known = []

    def now():
        return set(positions(model.csr(1), 4).tolist())

    first = now()

    class Watch(mest.Callback):
        def mutation(self, model, report):
            if method == "snip":
                first.clear()
                first.update(now())

        def epoch(self, model, record):
            if record.mutated or method == "snip" and record.epoch == 0:
                known.append((len(first & now()), len(first)))

    history = fit(model, mest.record(tmp_path / "r"), Watch())
    run = mest.read_run(tmp_path / "r")
    found = [(m["layers"][0]["survivors"], m["layers"][0]["first"]) for m in run.mutations]
    assert found == known and len(found) >= 1
    assert [m["dropped"] for m in run.mutations] == [r.dropped for r in history if r.mutated]


def test_pictures_of_the_most_forgotten(tmp_path):
    x = RNG.normal(size=(60, 1, 2, 2)).astype(np.float32)
    layers = [mest.Input(1, 2, 2), mest.Flatten(), mest.Linear(30, density=0.5), mest.ReLU(), mest.Linear(3)]
    model = mest.Model(layers, batch=10, epochs=8, samples=60, learning_rate=0.5)
    model.fit(x, DATA[1], progress=False, callbacks=[mest.record(tmp_path / "r", images=x, most=4)])
    most = mest.read_run(tmp_path / "r").most_forgotten
    assert len(most["ids"]) == 4 and np.shape(most["images"]) == (4, 2, 2)
    for number, image in zip(most["ids"], np.array(most["images"])):
        assert image.min() == 0 and image.max() == 1
        assert (image.argsort(None) == x[number].argsort(None)).all()
    colours = np.zeros((60, 3, 2, 2))
    fit(learner(), mest.record(tmp_path / "c", images=colours, most=2))
    assert np.shape(mest.read_run(tmp_path / "c").most_forgotten["images"])[1:] == (3, 2, 2)
    with pytest.raises(mest.MestArgumentError, match="images has shape"):
        mest.record(tmp_path / "r", images=np.zeros((60, 4)))
    with pytest.raises(mest.MestArgumentError, match="59 pictures, Config.samples is 60"):
        fit(learner(), mest.record(tmp_path / "r", images=colours[1:]))


def test_a_resumed_run_goes_on(tmp_path):
    """The same records as of a run that was never stopped; what the checkpoint has not is replaced."""
    moves = {"mutation_every": 1, "mutation_epochs": (4, 6)}
    fit(learner(**moves), mest.record(tmp_path / "whole"))
    whole = mest.read_run(tmp_path / "whole")
    assert whole.mutations[-1]["epoch"] == 5

    def power(record):
        if record.epoch == 4:
            raise Oops("power")

    kept = {"checkpoint": tmp_path / "c", "checkpoint_every": 3}
    with pytest.raises(Oops):
        fit(learner(**moves), mest.record(tmp_path / "r"), power, **kept)
    broken = mest.read_run(tmp_path / "r")
    assert len(broken.epochs) == 5 and broken.end["reason"] == "failed" and broken.end["message"] == "Oops: power"
    with open(tmp_path / "r", "ab") as file:
        file.write(b'{"kind": "epo')
    fit(learner(**moves), mest.record(tmp_path / "r"), **kept)
    run = mest.read_run(tmp_path / "r")
    for mine, theirs in ((run.epochs, whole.epochs), (run.mutations, whole.mutations)):
        assert [repr({**m, "seconds": 0}) for m in mine] == [repr({**t, "seconds": 0}) for t in theirs]
    assert run.forgetting == whole.forgetting and run.importance == whole.importance
    assert run.most_forgotten == whole.most_forgotten and run.end["reason"] == "done"


def test_epochs_that_are_not_trained_again_are_gone(tmp_path):
    def power(record):
        if record.epoch == 4:
            raise Oops("power")

    with pytest.raises(Oops):
        fit(learner(), mest.record(tmp_path / "r"), power, checkpoint=tmp_path / "c", checkpoint_every=2)
    fit(learner(), mest.record(tmp_path / "r"), checkpoint=tmp_path / "c", epochs=4)
    assert [e["epoch"] for e in mest.read_run(tmp_path / "r").epochs] == [0, 1, 2, 3]


def test_epochs_after_a_good_state_are_gone(tmp_path):
    """A step diverges in epoch 5, training returns to epoch 3, and is stopped after that."""
    broken = []

    def diverge(batch, rng):
        if model.history and model.history[-1].epoch == 4 and not broken:
            broken.append(1)
            return np.full_like(batch, 3e38)
        return batch

    model = learner(epochs=8, recover_epochs=3)
    with pytest.warns(UserWarning, match="eturned"):
        fit(model, lambda r: bool(broken), mest.record(tmp_path / "r"), augment=diverge)
    run = mest.read_run(tmp_path / "r")
    for records in (run.epochs, run.forgetting):
        assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    assert [m["epoch"] for m in run.mutations] == [r.epoch for r in model.history if r.mutated]
    assert [m["dropped"] for m in run.mutations] == [r.dropped for r in model.history if r.mutated]


def test_a_second_fit_goes_on_and_a_new_model_begins_anew(tmp_path):
    model = learner()
    fit(model, mest.record(tmp_path / "r"), epochs=2)
    fit(model, mest.record(tmp_path / "r"))
    run = mest.read_run(tmp_path / "r")
    assert [e["epoch"] for e in run.epochs] == list(range(6)) and run.mutations[-1]["layers"][0]["first"] == 16
    fit(learner(), mest.record(tmp_path / "r"), epochs=1)
    assert len(mest.read_run(tmp_path / "r").epochs) == 1


def test_files_of_others_are_not_touched(tmp_path):
    (tmp_path / "data.csv").write_text("precious\n")
    model = learner()
    with pytest.raises(mest.MestArgumentError, match="no record of a training: name another"):
        fit(model, mest.record(tmp_path / "data.csv"))
    assert (tmp_path / "data.csv").read_text() == "precious\n" and model.begin_epoch().epoch == 0
    fit(learner(), mest.record(tmp_path / "r"), epochs=1)
    before = (tmp_path / "r").read_text()
    other = mest.Model(mest.mlp(4, [5], 3), batch=10, epochs=2)
    fit(other, epochs=1)
    with pytest.raises(mest.MestArgumentError, match="the record of another network"):
        fit(other, mest.record(tmp_path / "r"))
    assert (tmp_path / "r").read_text() == before
    with pytest.raises(mest.MestIOError, match="cannot write .*r: No such file or directory"):
        fit(learner(), mest.record(tmp_path / "no" / "r"))


def test_as_a_context_manager(tmp_path):
    record = fit(learner(), epochs=1)[0]
    model = learner()
    with mest.RunWriter(tmp_path / "r") as log:
        log.begin(model)
        log.epoch(model, record)
    assert mest.read_run(tmp_path / "r").end["reason"] == "done"
    with pytest.raises(Oops), mest.RunWriter(tmp_path / "r") as log:
        log.begin(model)
        raise Oops("here")
    end = mest.read_run(tmp_path / "r").end
    assert (end["reason"], end["message"]) == ("failed", "Oops: here")


def test_an_exception_that_somebody_handles_is_not_this_training_s(tmp_path):
    """fit, or a loop, within somebody's except: what is handled there did not end it."""
    try:
        raise LookupError("not here, train it")
    except LookupError:
        fit(learner(), mest.record(tmp_path / "done"))
        with pytest.raises(Oops):
            fit(learner(), lambda record: (_ for _ in ()).throw(Oops("in it")), mest.record(tmp_path / "failed"))
        log = mest.RunWriter(tmp_path / "loop")
        log.begin(learner())
        log.end(learner(), mest.History(), "failed")
        told = mest.read_run(tmp_path / "loop").end
        assert (told["reason"], told["message"]) == ("failed", "")
        with mest.RunWriter(tmp_path / "with") as log:
            log.begin(learner())
    ends = [mest.read_run(tmp_path / name).end for name in ("done", "failed", "with")]
    assert [(end["reason"], end["message"]) for end in ends] == [("done", ""), ("failed", "Oops: in it"), ("done", "")]
    with pytest.raises(KeyboardInterrupt), mest.RunWriter(tmp_path / "stopped") as log:
        log.begin(learner())
        raise KeyboardInterrupt
    assert mest.read_run(tmp_path / "stopped").end["reason"] == "interrupted"


class Breaks:
    """Raises at one moment of the first epoch."""

    def __init__(self, where, what=Oops):
        def raises(*_):
            raise what

        setattr(self, where, raises)


@pytest.mark.parametrize("where, what", [("begin", Oops), ("step", Oops), ("step", KeyboardInterrupt)])
def test_a_good_record_stays_until_the_next_has_an_epoch(tmp_path, where, what):
    path = tmp_path / "r"
    fit(learner(), mest.record(path))
    good = path.read_bytes()
    model = learner()
    with pytest.raises(what):
        fit(model, mest.record(path), Breaks(where, what))
    assert path.read_bytes() == good and [p.name for p in tmp_path.iterdir()] == ["r"]
    # The same model goes on: the record that has been kept is not its own.
    fit(model, mest.record(path), epochs=2)
    first = 0 if where == "begin" else 1
    assert [e["epoch"] for e in mest.read_run(path).epochs] == [first, first + 1]
    fit(model, mest.record(path), epochs=1)
    run = mest.read_run(path)
    assert [e["epoch"] for e in run.epochs] == [first, first + 1, first + 2]
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_a_new_record_is_beside_until_it_has_an_epoch(tmp_path):
    (tmp_path / "real").write_text("")
    path = tmp_path / "r"
    path.symlink_to("real")
    fit(learner(), mest.record(path))  # nothing was in it
    assert len(mest.read_run(tmp_path / "real").epochs) == 6
    seen = []

    class Look(mest.Callback):
        def step(self, model, report):
            seen.append((report.epoch, len(mest.read_run(path).epochs), (tmp_path / "real.tmp").exists()))

    fit(learner(), mest.record(path), Look(), epochs=2)
    assert set(seen) == {(0, 6, True), (1, 1, False)} and path.is_symlink()
    (tmp_path / "real.tmp").write_text("precious")
    with pytest.raises(mest.MestArgumentError, match="real.tmp is there and no record"):
        fit(learner(), mest.record(path))
    assert (tmp_path / "real.tmp").read_text() == "precious" and len(mest.read_run(path).epochs) == 2


def test_a_full_disk_is_said_and_training_is_not_lost(tmp_path):
    model, log = learner(), mest.record(tmp_path / "r")

    class Full(mest.Callback):
        def epoch(self, model, record):
            if record.epoch == 1:
                file = log._file
                log._file = type("Half", (), {"write": lambda _, data: file.write(data[:20]), "close": file.close})()

    with pytest.raises(OSError, match="no space left"):
        fit(model, Full(), log)
    assert len(mest.read_run(tmp_path / "r").epochs) == 1  # the torn line is ignored
    assert len(fit(model)) == 4


# --------------------------------------------------------------------------------------- reading ---


RUN = {"kind": "run", "format": 1, "config": {}, "layers": [], "plan": {}}
EPOCH = {"kind": "epoch", "epoch": 0, "loss": 1.0}
MUTATION, MOVED = {"kind": "mutation", "epoch": 0}, {"layer": 1, "dropped": 1, "grown": 1, "active": 9}


def written(path, *records, end="\n"):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + end)
    return path


def test_what_is_unknown_is_ignored_and_what_is_torn(tmp_path):
    path = written(tmp_path / "r", RUN, {"kind": "weather"}, {"kind": []}, {**EPOCH, "new": 3}, '{"kind": "epo', end="")
    run = mest.read_run(path)
    assert len(run.epochs) == 1 and run.epochs[0]["new"] == 3 and run.end is None and run.importance is None
    assert math.isnan(run.epochs[0]["validation_loss"]) and run.epochs[0]["mutated"] is False
    whole = written(tmp_path / "s", RUN, EPOCH, end="")  # its last line is complete
    assert len(mest.read_run(whole).epochs) == 1


def test_later_records_replace_earlier_ones(tmp_path):
    epochs = [{**EPOCH, "epoch": e, "loss": n} for n, e in enumerate((0, 1, 2, 1, 2))]
    end = {"kind": "end", "reason": "failed"}
    run = mest.read_run(written(tmp_path / "r", RUN, *epochs[:3], end, *epochs[3:]))
    assert [(e["epoch"], e["loss"]) for e in run.epochs] == [(0, 0), (1, 3), (2, 4)] and run.end is None
    again, ends = {"kind": "again", "epoch": 1}, [{"kind": "importance", "layers": []}, end]
    run = mest.read_run(written(tmp_path / "s", RUN, *epochs[:3], *ends, again))
    assert len(run.epochs) == 1 and run.end is None and run.importance is None


@pytest.mark.parametrize(
    "line, words",
    [
        ("nonsense", "no JSON"),
        ("[1]", "no JSON object"),
        ({"kind": "epoch", "loss": 1}, "has to have 'epoch'"),
        ({"kind": "epoch", "epoch": 1}, "has to have 'loss'"),
        ({**EPOCH, "epoch": -1}, "'epoch' has to be a whole number from 0, not -1"),
        ({**EPOCH, "epoch": True}, "'epoch' has to be"),
        ({**EPOCH, "loss": "low"}, "'loss' has to be a number or null, not \"low\""),
        ({**EPOCH, "mutated": 1}, "'mutated' has to be true or false"),
        ({**EPOCH, "connections": [1, "x"]}, "'connections' has to be a list of whole numbers from 0"),
        ({"kind": "mutation", "epoch": 0, "layers": [3]}, "'layers' has to be a list of objects"),
        ({"kind": "forgetting", "epoch": 0, "histogram": 5}, "'histogram' has to be a list"),
        ({"kind": "most_forgotten", "ids": [1], "counts": [1, 2]}, "1 ids have 2 counts"),
        ({"kind": "importance"}, "has to have 'layers'"),
        ({"kind": "importance", "layers": [{"layer": 1, "counts": [2]}]}, r"'layers\[0\]' has to have 'edges'"),
        ({"kind": "importance", "layers": [{"layer": 1, "edges": [0], "counts": [2]}]}, "one number more than 'counts'"),
        ({"kind": "importance", "layers": [{"layer": [], "edges": [0], "counts": []}]}, "'layers.0..layer' has to be"),
        ({"kind": "mutation", "epoch": 0, "layers": [{"layer": 1}]}, r"'layers\[0\]' has to have 'dropped'"),
        ({**MUTATION, "layers": [{**MOVED, "first": 5}]}, "which has first, has to have 'survivors'"),
        ({**MUTATION, "layers": [MOVED, {**MOVED, "grown": None}]}, "'layers.1..grown' has to be a whole number"),
        ({"kind": "most_forgotten", "ids": ["x"], "counts": [1]}, "'ids' has to be a list of whole numbers"),
        ({"kind": "most_forgotten", "ids": [1], "counts": [1], "images": [[[1], [1, 2]]]}, "'images' has to be"),
        ({"kind": "forgetting", "epoch": 0, "histogram": [1], "learned": "x"}, "'learned' has to be"),
        ({**EPOCH, "dropped": 10**400}, "'dropped' has to be a number"),
        ('{"kind": "epoch", "epoch": 1, "loss": Infinity}', "'loss' has to be a number"),
        ({"kind": "end", "reason": "done", "message": 3}, "'message' has to be a word"),
        ({"kind": "end"}, "has to have 'reason'"),
        ({"kind": "again"}, "has to have 'epoch'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    with pytest.raises(mest.CorruptError, match=f"r, line 3(:| is) .*{words}"):
        mest.read_run(written(tmp_path / "r", RUN, EPOCH, line, EPOCH))


@pytest.mark.parametrize(
    "first, error, words",
    [
        ("", mest.CorruptError, "line 1 is no JSON"),
        (EPOCH, mest.CorruptError, "line 1: kind is 'epoch', the first has to be 'run'"),
        ({**RUN, "format": 2}, mest.VersionError, "format 2 is of a later mest"),
        ({**RUN, "format": "1"}, mest.CorruptError, "format is '1'"),
        ({"kind": "run", "format": 1}, mest.CorruptError, "has to have 'config'"),
        ({**RUN, "config": {"density": "x"}}, mest.CorruptError, "line 1: 'config.density' has to be a number"),
        ({**RUN, "plan": {"total_bytes": "x"}}, mest.CorruptError, "'plan.total_bytes' has to be"),
        ({**RUN, "layers": [{"rows": "x"}]}, mest.CorruptError, r"'layers\[0\].rows' has to be a whole number"),
        ({**RUN, "layers": [{}, {"rows": 2, "columns": 0}]}, mest.CorruptError, "'layers.1..columns' has to be"),
        ({**RUN, "layers": [{"rows": 2, "columns": 3}]}, mest.CorruptError, "which has rows, has to have 'active'"),
        ({**RUN, "command": 3}, mest.CorruptError, "'command' has to be a word or null"),
    ],
)
def test_the_first_line_says_what_it_is(tmp_path, first, error, words):
    with pytest.raises(error, match=words):
        mest.read_run(written(tmp_path / "r", first, EPOCH))
    (tmp_path / "empty").write_text("")
    with pytest.raises(mest.CorruptError, match="has no record"):
        mest.read_run(tmp_path / "empty")
    with pytest.raises(OSError):
        mest.read_run(tmp_path / "none")


def test_any_cut_of_a_file_is_read(tmp_path):
    """As a process leaves it that dies at any byte."""
    fit(learner(epochs=2, mutation_epochs=(1, 1)), mest.record(tmp_path / "r"))
    content = (tmp_path / "r").read_bytes()
    first = content.index(b"\n")
    for size in range(first, len(content), 97):
        (tmp_path / "cut").write_bytes(content[:size])
        run = mest.read_run(tmp_path / "cut")
        assert len(run.epochs) <= 2 and run.run["format"] == 1
