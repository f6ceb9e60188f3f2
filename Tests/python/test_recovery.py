# SPDX-License-Identifier: Apache-2.0
"""Returning to a good state after a step that diverged: what a checkpoint has, to the bit, a lower learning rate from
then on, and a limit."""

import numpy as np
import pytest
from support import fingerprint

import mest
from mest import BatchNorm, Input, Linear, ReLU

SAMPLES, BATCH = 24, 8
RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(SAMPLES, 6)).astype(np.float32)
Y = (np.arange(SAMPLES) % 3).astype(np.int32)
IDS = np.arange(SAMPLES, dtype=np.uint32)
HUGE = np.full((BATCH, 6), 3e38, np.float32)


def make(**config):
    layers = [Input(6), Linear(16, density=0.5), BatchNorm(), ReLU(), Linear(3, density=1.0)]
    fields = {"batch": BATCH, "samples": SAMPLES, "method": "set", "learning_rate": 0.1, "momentum": 0.9, "seed": 2}
    return mest.Model(layers, **{**fields, **config})


def train(model, first, last):
    """Steps first .. last - 1; three are an epoch."""
    for i in range(first, last):
        rows = slice(i % 3 * BATCH, i % 3 * BATCH + BATCH)
        report = model.step(X[rows], Y[rows], IDS[rows])
    return report


def diverge(model):
    with pytest.raises(mest.DivergedError) as found:
        model.step(HUGE, Y[:BATCH])
    return found.value


def everything(model):
    return fingerprint(model), model.forgetting().events, model.mutation().mutations


@pytest.mark.parametrize("every, steps, kept", [(1, 4, 3), (1, 3, 3), (1, 8, 6), (2, 4, 0), (2, 8, 6), (3, 8, 0), (3, 12, 9)])
def test_returns_to_the_last_good_state(every, steps, kept):
    """The state before the epoch that a good one was kept for: the one that begins with the step that diverges, too."""
    kept = kept if steps % 3 or every > 1 else steps
    model, other = make(recover_epochs=every), make()
    train(model, 0, steps)
    error = diverge(model)
    assert error.returned_to == kept // 3 and f"Returned to update {kept}, learning rate times 0.5" in str(error)
    if kept:
        train(other, 0, kept)
    assert everything(model) == everything(other)
    # The next step begins the epoch that the good state was kept for, by half the rate.
    report = train(model, kept, kept + 1)
    assert report.epoch == kept // 3 and report.update == kept + 1 and report.learning_rate == np.float32(0.05)


def test_goes_on_like_a_model_of_that_rate(tmp_path):
    model, other = make(recover_epochs=1, recover_rate=0.25), make()
    train(model, 0, 7)
    diverge(model)
    train(other, 0, 6)
    slower = make(learning_rate=0.025)
    other.save(tmp_path / "c")
    slower.load(tmp_path / "c", strict=False)
    train(model, 6, 12)
    train(slower, 6, 12)
    assert everything(model) == everything(slower)


def test_each_return_lowers_the_rate_and_they_end():
    model = make(recover_epochs=1)
    train(model, 0, 4)
    for n in range(16):
        assert diverge(model).returned_to == 1, n
        assert train(model, 3, 4).learning_rate == np.float32(0.1 * 0.5 ** (n + 1))
    before = everything(model)
    assert diverge(model).returned_to is None
    assert everything(model) == before


def test_not_without_the_option_and_not_for_other_errors():
    model = make()
    train(model, 0, 4)
    before = everything(model)
    assert diverge(model).returned_to is None and everything(model) == before
    model = make(recover_epochs=1)
    train(model, 0, 4)
    before = everything(model)
    model.cancel()
    with pytest.raises(mest.CancelledError):
        model.step(X[:BATCH], Y[:BATCH])
    with pytest.raises(mest.MestArgumentError):
        model.step(X[:BATCH], Y[:BATCH] + 5)
    assert everything(model) == before


def test_micro_batches_that_diverge_together():
    """The unfinished update, which the next epoch applies."""
    model = make(recover_epochs=1, micro_batches=2, batch=4, steps_per_epoch=2)
    model.begin_epoch()
    for i in range(4):
        model.step(X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4])
    model.begin_epoch()
    before = fingerprint(model)
    model.step(X[:4], Y[:4])
    with pytest.raises(mest.DivergedError) as found:
        model.step(HUGE[:4], Y[:4])
    assert found.value.returned_to == 1
    other = make(micro_batches=2, batch=4, steps_per_epoch=2)
    other.begin_epoch()
    for i in range(4):
        other.step(X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4])
    assert fingerprint(model) == fingerprint(other)
    model.begin_epoch()
    assert fingerprint(model) == before


def test_in_slices():
    model, other = make(recover_epochs=1), make()
    train(model, 0, 4)
    with pytest.raises(mest.DivergedError) as found:
        while model.step_slice(HUGE, Y[:BATCH]) is None:
            pass
    assert found.value.returned_to == 1
    train(other, 0, 3)
    assert everything(model) == everything(other)


def test_checkpoints_keep_the_rate_and_the_number(tmp_path):
    model = make(recover_epochs=1)
    train(model, 0, 4)
    diverge(model)
    train(model, 3, 5)
    model.save(tmp_path / "c")
    resumed = make(recover_epochs=1)
    resumed.load(tmp_path / "c")
    assert train(resumed, 5, 7) == train(model, 5, 7)
    assert everything(resumed) == everything(model)
    # What was kept before loading is no state of this training.
    fresh = make(recover_epochs=1)
    train(fresh, 0, 1)
    fresh.load(tmp_path / "c")
    before = everything(fresh)
    assert diverge(fresh).returned_to is None and everything(fresh) == before


def test_the_plan_has_it():
    plain, keeps = make().plan(), make(recover_epochs=1).plan()
    assert plain.recovery_bytes == 0
    assert keeps.checkpoint_bytes <= keeps.recovery_bytes < keeps.checkpoint_bytes + 64
    assert keeps.total_bytes == plain.total_bytes + keeps.recovery_bytes


def test_fit_goes_on_by_itself():
    """An epoch in which a batch diverges once is trained again, from its beginning."""
    model = make(recover_epochs=1, epochs=5)
    calls = []

    def augment(x, rng):
        calls.append(1)
        return HUGE if len(calls) == 8 else x

    with pytest.warns(UserWarning, match="Returned to update 6"):
        history = model.fit(X, Y, augment=augment)
    assert [record.epoch for record in history] == [0, 1, 2, 3, 4]
    assert [record.learning_rate for record in history] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.05])


def test_fit_with_micro_batches_begins_with_the_first_epoch_again():
    model = make(recover_epochs=1, epochs=3, micro_batches=2, batch=4)
    calls = []

    def augment(x, rng):
        calls.append(1)
        return HUGE[: len(x)] if len(calls) == 2 else x

    with pytest.warns(UserWarning, match="Returned to update 0"):
        history = model.fit(X, Y, augment=augment)
    assert [record.epoch for record in history] == [0, 1, 2]


@pytest.mark.parametrize("begins", [False, True])
def test_the_next_step_begins_the_epoch(begins):
    """Also where the caller has begun the others."""
    model, other = make(recover_epochs=1), make()
    for epoch in range(2):
        if begins:
            model.begin_epoch(), other.begin_epoch()
        train(model, 3 * epoch, 3 * epoch + 3), train(other, 3 * epoch, 3 * epoch + 3)
    if begins:
        model.begin_epoch()
    assert diverge(model).returned_to == 2
    report = train(model, 6, 7)
    assert report.epoch == 2 and report.step_in_epoch == 1 and report.epoch_began


def test_an_unfinished_update_that_begin_epoch_applies():
    """Its gradient is finite for each micro-batch and not for both."""
    model = make(recover_epochs=1, micro_batches=3, batch=4, steps_per_epoch=1, learning_rate=1e38, momentum=0)
    model.begin_epoch()
    model.step(X[:4], Y[:4])
    with pytest.raises(mest.DivergedError) as found:
        model.begin_epoch()
    assert found.value.returned_to == 0 and model.begin_epoch().epoch == 0


def test_a_rate_that_is_next_to_nothing(tmp_path):
    model = make(recover_epochs=1, recover_rate=1e-30)
    train(model, 0, 4)
    for _ in range(3):
        assert diverge(model).returned_to == 1
    model.save(tmp_path / "c")
    other = make(recover_epochs=1, recover_rate=1e-30)
    other.load(tmp_path / "c")
    assert train(other, 3, 4) == train(model, 3, 4)


def test_fit_gives_up():
    model = make(recover_epochs=1, epochs=5)
    with pytest.warns(UserWarning), pytest.raises(mest.DivergedError):
        model.fit(X, Y, augment=lambda x, rng: HUGE)


@pytest.mark.parametrize("method", ["em&s", "rigl", "dsr", "snip", "grasp", "gmp", "gse", "lottery"])
def test_every_method(method):
    config = dict(method=method, epochs=8, mutation_every=1, recover_epochs=2)
    model, other = make(**config), make(**{**config, "recover_epochs": None})
    train(model, 0, 10)
    assert diverge(model).returned_to == 2
    train(other, 0, 6)
    assert everything(model) == everything(other)
    train(model, 6, 12)


@pytest.mark.parametrize("fields", [{"recover_rate": 0.5}, {"recover_epochs": 0}, {"recover_epochs": 1, "recover_rate": 1.5}])
def test_refuses(fields):
    with pytest.raises(ValueError, match="recover"):
        make(**fields)
