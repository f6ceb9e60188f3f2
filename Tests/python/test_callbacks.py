# SPDX-License-Identifier: Apache-2.0
"""Callbacks of fit: when they are called, how they stop it, what early stopping brings back."""

import io
import logging
import os
import sys
import time
import warnings

import numpy as np
import pytest
from support import Terminal, fingerprint, tiny

import mest

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)


def learner(**config):
    return tiny(**{
        "samples": 60, "batch": 10, "epochs": 6, "method": "em&s", "mutation_every": 2, "mutation_epochs": (2, 4),
        **config,
    })  # fmt: skip


def fit(model, *callbacks, **more):
    return model.fit(*DATA, progress=False, callbacks=list(callbacks), **more)


class Oops(Exception):
    pass


class Diary(mest.Callback):
    """Notes every call."""

    def __init__(self, name=""):
        self.name, self.seen = name, []

    def note(self, *what):
        self.seen.append(what)

    def begin(self, model):
        self.note("begin", len(model.history))

    def mutation(self, model, report):
        self.note("mutation", report.epoch)

    def step(self, model, report):
        self.note("step", report.epoch)

    def epoch(self, model, record):
        assert model.history[-1] is record
        self.note("epoch", record.epoch)

    def saving(self, model, path):
        self.note("saving", path)

    def end(self, model, history, reason):
        assert history is model.history
        self.note("end", reason)


# ------------------------------------------------------------------------------------- the order ---


def test_when_they_are_called():
    diary = Diary()
    history = fit(learner(epochs=3, mutation_epochs=(1, 2)), diary)
    steps = [[("step", e)] * 6 for e in range(3)]
    assert diary.seen == [
        ("begin", 0), ("mutation", 0), *steps[0], ("epoch", 0), *steps[1], ("epoch", 1), ("mutation", 2),
        *steps[2], ("epoch", 2), ("end", "done"),
    ]  # fmt: skip
    assert history.column("mutated").tolist() == [True, False, True]


def test_mutations_in_steps_are_told():
    diary = Diary()
    history = fit(learner(method="rigl", mutation_updates=2, mutation_epochs=None, mutation_every=None), diary)
    moved = [what for what in diary.seen if what[0] == "mutation"]
    assert len(moved) > history.column("mutated").sum() > 2


def test_any_object_with_some_methods_and_functions():
    class Duck:
        def epoch(self, model, record):
            return record.epoch == 2

    class Counts:
        calls = 0

        def __call__(self, record):
            self.calls += 1

    counts, records = Counts(), []
    assert len(fit(learner(), Duck(), counts, records.append)) == 3
    assert counts.calls == 3 and [record.epoch for record in records] == [0, 1, 2]


@pytest.mark.parametrize("wrong", [3, "print", None, mest.Callback, {}])
def test_what_is_none_is_refused(wrong):
    model = learner()
    with pytest.raises(TypeError, match="callbacks has .*mest.Callback is wanted, or a function"):
        fit(model, wrong)
    assert model.step(DATA[0][:10], DATA[1][:10]).update == 1  # nothing was trained
    with pytest.raises(TypeError, match=r"a list is wanted, callbacks=\[...\]"):
        model.fit(*DATA, callbacks=print)


def test_what_they_are_told_of_the_training(tmp_path):
    one = mest.Callback()
    model = learner()
    fit(model, one, validation=DATA, checkpoint=tmp_path / "c", epochs=4)
    assert one.training == mest.Training(0, 4, 6, True, str(tmp_path / "c"), False)
    model.fit(*DATA, 1, callbacks=[one])
    assert one.training == mest.Training(4, 5, 6, False, None, True)
    resumed = learner()
    fit(resumed, one, checkpoint=tmp_path / "c")
    assert (one.training.first, one.training.end) == (4, 6) and len(resumed.history) == 6


# -------------------------------------------------------------------------------------- stopping ---


def test_who_begins_may_say_that_nothing_is_left():
    class Enough(mest.Callback):
        def begin(self, model):
            return True

    diary, model = Diary(), learner()
    assert fit(model, Enough(), diary) == [] and diary.seen == [("begin", 0), ("end", "stopped")]
    assert model.begin_epoch().epoch == 0


@pytest.mark.parametrize("micro", [1, 4])
@pytest.mark.parametrize("how", ["stops", Oops, KeyboardInterrupt])
def test_a_stop_in_an_epoch(tmp_path, micro, how):
    """The epoch is no complete one: no record, no checkpoint, and nothing is left of a started update."""

    class Budget(mest.Callback):
        left = 6

        def step(self, model, report):
            self.left -= 1
            if not self.left and how != "stops":
                raise how
            return not self.left

    diary, model = Diary(), learner(micro_batches=micro, batch=5, method="static")
    if how == "stops":
        assert fit(model, diary, Budget(), checkpoint=tmp_path / "c") == []
    else:
        with pytest.raises(how):
            fit(model, diary, Budget(), checkpoint=tmp_path / "c")
    reason = {"stops": "stopped", Oops: "failed", KeyboardInterrupt: "interrupted"}[how]
    assert diary.seen[-1] == ("end", reason) and os.listdir(tmp_path) == [] and model.history == []
    before = fingerprint(model)
    model.set_tensor(1, "bias", model.tensor(1, "bias"))  # refused while an update is not complete
    assert model.begin_epoch().epoch == 1 and fingerprint(model) == before


def test_a_stop_in_an_epoch_resumes_to_the_same_bits(tmp_path):
    class Stop(mest.Callback):
        def step(self, model, report):
            return report.epoch == 2 and report.step_in_epoch == 4

    whole, stopped, resumed = learner(), learner(), learner()
    fit(whole)
    assert len(fit(stopped, Stop(), checkpoint=tmp_path / "c")) == 2
    assert len(fit(resumed, checkpoint=tmp_path / "c")) == 6
    assert fingerprint(resumed) == fingerprint(whole) != fingerprint(stopped)


# ------------------------------------------------------------------------------------ exceptions ---


@pytest.mark.parametrize("where", ["begin", "mutation", "step", "epoch", "saving", "end"])
def test_what_is_raised_reaches_the_caller(tmp_path, where):
    """Whatever it is: who has begun is told, the model stays usable."""
    broken = Diary()

    def oops(*_):
        raise Oops(where)

    setattr(broken, where, oops)
    first, last, model = Diary(), Diary(), learner()
    with pytest.raises(Oops, match=where):
        fit(model, first, broken, last, checkpoint=tmp_path / "c")
    assert first.seen[-1][0] == "end" and first.seen[-1][1] == ("done" if where == "end" else "failed")
    assert (last.seen == []) if where == "begin" else (last.seen[-1] == first.seen[-1])
    if where not in ("begin", "end"):
        assert broken.seen[-1] == ("end", "failed")
    assert len(fit(model, epochs=2)) == 2


def test_the_end_sees_the_exception_and_does_not_hide_it():
    class Sees(mest.Callback):
        def end(self, model, history, reason):
            self.seen = sys.exc_info()[1]
            raise OSError("disk full")

    sees, after = Sees(), Diary()
    with pytest.warns(UserWarning, match="failed at the end, too: OSError: disk full"), pytest.raises(Oops):
        fit(learner(), sees, after, lambda record: (_ for _ in ()).throw(Oops()))
    assert isinstance(sees.seen, Oops) and after.seen[-1] == ("end", "failed")


def test_ctrl_c_comes_before_other_exceptions():
    def oops(record):
        raise Oops

    def interrupt(record):
        raise KeyboardInterrupt

    diary = Diary()
    with pytest.raises(KeyboardInterrupt):
        fit(learner(), oops, interrupt, oops, diary)
    assert diary.seen[-2:] == [("epoch", 0), ("end", "interrupted")]  # it got the record all the same
    with pytest.raises(Oops):
        fit(learner(), oops, lambda record: 1 / 0)


def test_history_is_kept_where_fit_does_not_return():
    model = learner()

    def oops(record):
        if record.epoch == 2:
            raise Oops

    with pytest.raises(Oops):
        fit(model, oops)
    assert model.history.column("epoch").tolist() == [0, 1, 2]
    assert fit(model) is model.history


# ------------------------------------------------------------------------------- early stopping ---


def replay(values, **settings):
    """Early stopping over made-up losses."""
    model, stopper = learner(), mest.early_stopping(monitor="loss", **settings)
    stopper.training = mest.Training(0, 99, None, False, None, False)
    template = fit(learner(), epochs=1)[0]
    stopper.begin(model)
    for epoch, value in enumerate(values):
        record = type(template)(**{**vars(template), "epoch": epoch, "loss": value})
        if stopper.epoch(model, record):
            return epoch, stopper.best_epoch, stopper.best_value
    return None, stopper.best_epoch, stopper.best_value


def test_patience_and_min_delta():
    falling = [5, 4, 3, 3.5, 2.9, 3, 3, 3]
    assert replay(falling, patience=2) == (6, 4, 2.9)
    assert replay(falling, patience=1) == (3, 2, 3)
    assert replay(falling, patience=3, min_delta=0.2) == (5, 2, 3)
    assert replay(falling, patience=4) == (None, 4, 2.9)
    assert replay([float("nan")] * 3, patience=2) == (1, None, None)


def overfits(**config):
    """Validation is on other labels: its accuracy is best at some early epoch."""
    return learner(**{"epochs": 30, "learning_rate": 0.2, **config})


OTHER = DATA[0], np.random.default_rng(5).integers(0, 3, 60)


def test_the_best_epoch_is_what_remains():
    model, stopper = overfits(), mest.early_stopping(4)
    states = {}
    history = fit(model, stopper, lambda r: states.update({r.epoch: fingerprint(model)}), validation=OTHER)
    values = history.column("validation_accuracy")
    best = int(values.argmax())
    assert stopper.stopped and stopper.best_epoch == best and stopper.best_value == values[best]
    assert len(history) == best + 1 + 4 < 30
    assert fingerprint(model) == states[best] != states[history[-1].epoch]
    assert model.evaluate(*OTHER).accuracy == stopper.best_value
    # It goes on from there: counts and epochs are those of the best epoch.
    assert model.forgetting().presentations == 60 * (best + 1)
    assert fit(model, epochs=1)[0].epoch == best + 1


def test_the_best_epoch_remains_where_all_were_trained():
    model, stopper = overfits(epochs=7), mest.early_stopping(100)
    history = fit(model, stopper, validation=OTHER)
    assert len(history) == 7 and not stopper.stopped
    assert model.evaluate(*OTHER).accuracy == history.column("validation_accuracy").max()


def test_without_restoring_the_last_epoch_remains():
    model, stopper = overfits(), mest.early_stopping(4, restore_best=False)
    history = fit(model, stopper, validation=OTHER)
    assert stopper.stopped and model.begin_epoch().epoch == history[-1].epoch + 1


def test_what_cannot_be_monitored_is_refused_before_training():
    for settings, words in (
        ({"patience": 0}, "patience is 0"),
        ({"patience": 1, "min_delta": -1}, "min_delta"),
        ({"patience": 1, "monitor": "validation_los"}, "choose from"),
    ):
        with pytest.raises(ValueError, match=words):
            mest.early_stopping(**settings)
    model = learner()
    with pytest.raises(mest.MestArgumentError, match=r"give fit validation=\(x, y\)"):
        fit(model, mest.early_stopping(3))
    assert model.begin_epoch().epoch == 0
    squares = learner(loss="mse", samples=None)
    with pytest.raises(mest.MestArgumentError, match="no accuracy"):
        squares.fit(DATA[0], np.eye(3)[DATA[1]], callbacks=[mest.early_stopping(3)], progress=False)


class Returns:
    """Early stopping on a training whose step diverges in epoch 5, so that it returns to before epoch 3; from then on
    batches are noise if that is said."""

    def __init__(self, then="learns", callbacks=(), **settings):
        self.model = learner(epochs=8, recover_epochs=3, learning_rate=0.05, method="static")
        self.stopper = mest.early_stopping(**{"patience": 100, "monitor": "loss", **settings})
        self.then, self.broken, self.losses, self.states = then, False, {}, {}
        with pytest.warns(UserWarning, match="eturned"):
            self.model.fit(
                *DATA, progress=False, augment=self.augment, callbacks=[self.note, self.stopper, *callbacks]
            )

    def augment(self, batch, rng):
        if len(self.losses) == 5 and not self.broken:
            self.broken = True
            return np.full_like(batch, 3e38)
        return rng.normal(size=batch.shape) * 9 if self.broken and self.then == "noise" else batch

    def note(self, record):
        self.losses.setdefault(record.epoch, []).append(record.loss)
        self.states[record.epoch] = fingerprint(self.model)


@pytest.mark.parametrize("then", ["learns", "noise"])
def test_a_best_epoch_that_is_void_is_not_brought_back(then):
    """Also where none that was trained again is as good: then that of before the good state is the best."""
    found = Returns(then)
    assert [len(found.losses[e]) for e in range(6)] == [1, 1, 1, 2, 2, 1] and found.losses[4][0] < found.losses[2][0]
    losses = found.model.history.column("loss")
    best = int(losses.argmin())
    assert (best == 2) == (then == "noise")
    assert (found.stopper.best_epoch, found.stopper.best_value) == (best, losses[best])
    assert fingerprint(found.model) == found.states[best]


def test_patience_does_not_count_void_epochs():
    """Epoch 0 is the best by so much that all others wait: of 0 .. 4 four have, of 0 .. 2 two."""
    found = Returns(patience=6, min_delta=100)
    assert found.stopper.stopped and found.stopper.best_epoch == 0
    assert found.model.history.column("epoch").tolist() == list(range(7))


def test_a_stop_after_a_return_does_not_bring_a_void_epoch_back():
    class Stop(mest.Callback):
        steps = 0

        def step(self, model, report):
            self.steps += 1
            return self.steps == 31  # the first after the return

    found = Returns(callbacks=[Stop()])
    assert found.model.history.column("epoch").tolist() == [0, 1, 2] and found.stopper.best_epoch == 2
    assert fingerprint(found.model) == found.states[2]


@pytest.mark.parametrize("stop", [0, 3, 6, "after"])
def test_early_stopping_is_resumed(tmp_path, stop):
    """Stopped by a failure after an epoch, or run once more: all ends as if nothing had been."""
    whole, known = overfits(), mest.early_stopping(4)
    history = fit(whole, known, validation=OTHER)
    assert len(history) >= 8

    def power(record):
        if record.epoch == stop:
            raise Oops

    path = tmp_path / "c"
    first = overfits()
    try:
        fit(first, mest.early_stopping(4), power, validation=OTHER, checkpoint=path)
    except Oops:
        pass
    resumed, stopper = overfits(), mest.early_stopping(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = fit(resumed, stopper, validation=OTHER, checkpoint=path)
    assert again.column("loss").tolist() == history.column("loss").tolist()
    assert (stopper.best_epoch, stopper.stopped) == (known.best_epoch, True)
    assert fingerprint(resumed) == fingerprint(whole)
    best = overfits()
    best.load(f"{path}.best")
    assert fingerprint(best) == fingerprint(whole)


def test_a_best_state_that_is_gone_is_said(tmp_path):
    path = tmp_path / "c"
    fit(overfits(), mest.early_stopping(4), validation=OTHER, checkpoint=path)
    known, stopper = overfits(learning_rate=0.1), mest.early_stopping(4)
    fit(overfits(), stopper, validation=OTHER)
    fit(known, epochs=stopper.best_epoch + 1)  # of as many epochs, but another training's
    for best in (None, b"damaged", path.read_bytes(), known.to_bytes()):  # the third: of another epoch
        os.unlink(f"{path}.best")
        if best is not None:
            (tmp_path / "c.best").write_bytes(best)
        model, last = overfits(), overfits()
        with pytest.warns(UserWarning, match="its state is gone: the model stays"):
            fit(model, mest.early_stopping(4), validation=OTHER, checkpoint=path)
        last.load(path)
        assert fingerprint(model) == fingerprint(last)
        (tmp_path / "c.best").touch()


def test_the_best_after_an_exception():
    model, stopper = overfits(), mest.early_stopping(30)

    def oops(record):
        if record.epoch == 9:
            raise Oops

    with pytest.raises(Oops):
        fit(model, stopper, oops, validation=OTHER)
    assert model.evaluate(*OTHER).accuracy == model.history[-1].validation_accuracy
    stopper.restore(model)
    assert model.evaluate(*OTHER).accuracy == stopper.best_value == max(
        record.validation_accuracy for record in model.history
    )
    with pytest.raises(mest.StateError, match="no best state"):
        stopper.restore(model)


def test_what_early_stopping_prints(capsys):
    stopper = mest.early_stopping(4)
    overfits().fit(*DATA, validation=OTHER, callbacks=[stopper])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"no better for 4 epochs: validation_accuracy was best in epoch {stopper.best_epoch}: "
        f"{stopper.best_value:.4f}; the model is that of then"
    )
    fit(overfits(), stopper, validation=OTHER)
    assert capsys.readouterr().out == ""


# ----------------------------------------------------------------------------- logs and copies ---


def test_log_evaluation(capsys, caplog):
    lines = []
    history = fit(learner(), mest.log_evaluation(2, lines.append), mest.log_evaluation(3))
    assert lines == [str(history[i]) for i in (1, 3, 5)]
    assert capsys.readouterr().out.splitlines() == [str(history[2]), str(history[5])]
    with caplog.at_level("INFO", logger="training"):
        history = fit(learner(), mest.log_evaluation(5, logging.getLogger("training")))
    assert [record.message for record in caplog.records] == [str(history[4])]
    with pytest.raises(TypeError, match="to="):
        mest.log_evaluation(to="file")
    with pytest.raises(ValueError, match="every is 0"):
        mest.log_evaluation(0)


def slowly(batch, rng):
    time.sleep(0.06)  # tqdm shows no more than ten states a second
    return batch


def test_the_bar_shows_loss_and_accuracy(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", Terminal())
    history = learner().fit(*DATA, epochs=1, augment=slowly)
    shown = sys.stderr.getvalue()
    assert "epoch 0:   0%" in shown and "| 0/6 [" in shown and ", loss 1." in shown and ", accuracy 0." in shown
    assert capsys.readouterr().out == f"{history[0]}\n" and shown.endswith("\r")  # the bar is gone
    monkeypatch.setattr("sys.stderr", Terminal())
    squares = learner(loss="mse", samples=None)
    squares.fit([(DATA[0][:8], np.eye(3)[DATA[1][:8]])] * 3, epochs=1, augment=slowly)
    assert ", loss" in sys.stderr.getvalue() and "accuracy" not in sys.stderr.getvalue()


@pytest.mark.parametrize("without", ["terminal", "tqdm", "stderr"])
def test_lines_alone_where_there_can_be_no_bar(monkeypatch, capsys, without):
    if without == "tqdm":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr("sys.stderr", {"terminal": io.StringIO(), "tqdm": Terminal(), "stderr": None}[without])
    history = learner().fit(*DATA, epochs=2)
    assert capsys.readouterr().out == f"{history}\n" and (without == "stderr" or sys.stderr.getvalue() == "")


def test_record_evaluation(tmp_path):
    results = {"old": [1]}
    history = fit(learner(), mest.record_evaluation(results), validation=DATA, checkpoint=tmp_path / "c", epochs=4)
    assert results == history.to_dict() and len(results["validation_loss"]) == 4
    again = {}
    whole = fit(learner(), mest.record_evaluation(again), validation=DATA, checkpoint=tmp_path / "c")
    assert again == whole.to_dict() and again["epoch"] == list(range(6))
    with pytest.raises(TypeError, match="a dict"):
        mest.record_evaluation([])


def test_mutation_log(capsys):
    log = mest.mutation_log(layers=True)
    history = fit(learner(), log)
    lines = capsys.readouterr().out.splitlines()
    moved = [record for record in history if record.mutated]
    assert len(lines) == 2 * len(moved) == 2 * len(log.reports) > 2
    for line, record in zip(lines[::2], moved):
        assert line.startswith(f"epoch {record.epoch:>3}  mutation")
        assert f": -{record.dropped} +{record.grown}, " in line
    assert lines[1].split()[:3] == ["linear1", f"-{moved[0].dropped}", f"+{moved[0].grown}"]
    quiet = mest.mutation_log(None)
    fit(learner(), quiet)
    assert quiet.reports == log.reports and capsys.readouterr().out == ""


def test_checkpoint_every(tmp_path):
    model, states = learner(epochs=5), {}
    fit(
        model, lambda r: states.update({r.epoch: fingerprint(model)}),
        mest.checkpoint_every(tmp_path / "at-{epoch:02}.mest", 2), mest.checkpoint_every(tmp_path / "last.mest"),
        mest.checkpoint_every(tmp_path / "slow.mest", seconds=1000),
    )  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == [
        "at-01.mest", "at-03.mest", "at-04.mest", "last.mest", "slow.mest"
    ]  # fmt: skip
    for name, epoch in (("at-01", 1), ("at-03", 3), ("at-04", 4), ("last", 4), ("slow", 4)):
        kept = learner(epochs=5)
        kept.load(tmp_path / f"{name}.mest")
        assert fingerprint(kept) == states[epoch]


def test_checkpoint_every_says_what_is_wrong(tmp_path):
    with pytest.raises(mest.MestArgumentError, match="epochs is 0"):
        mest.checkpoint_every(tmp_path / "c", 0)
    with pytest.raises(mest.MestArgumentError, match="no such folder"):
        mest.checkpoint_every(tmp_path / "no" / "c")
    with pytest.raises(mest.MestArgumentError, match="only .*epoch.* is replaced"):
        mest.checkpoint_every(tmp_path / "{epoch}-{loss}")
    model = learner()
    with pytest.raises(mest.MestArgumentError, match="fit's own checkpoint"):
        fit(model, mest.checkpoint_every(tmp_path / "c"), checkpoint=tmp_path / "c")
    assert model.begin_epoch().epoch == 0


def test_returning_to_a_good_state_is_followed():
    """Records of epochs that are trained again come in the place of the first ones."""
    results, log = {}, mest.mutation_log(None)
    x = DATA[0].copy()
    model = tiny(samples=60, batch=10, epochs=8, method="em", mutation_every=1, recover_epochs=2, learning_rate=0.1)
    broken = []

    def diverge(batch, rng):  # once, in epoch 3
        if len(results.get("epoch", ())) == 3 and not broken:
            broken.append(1)
            return np.full_like(batch, 3e38)
        return batch

    with pytest.warns(UserWarning):
        history = model.fit(
            x, DATA[1], progress=False, augment=diverge, callbacks=[mest.record_evaluation(results), log]
        )
    assert broken and results == history.to_dict() and results["epoch"] == list(range(8))
    numbers = [report.mutations for report in log.reports]
    assert numbers == sorted(set(numbers))
