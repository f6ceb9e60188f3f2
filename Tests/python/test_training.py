# SPDX-License-Identifier: Apache-2.0
"""Optimizer, schedules, micro-batches and `fit`, against the reference and on the digits."""

import numpy as np
import pytest
import reference
from support import close, fingerprint, randomise, reference_of

import mest
from mest import BatchNorm, Conv2d, Flatten, Input, Linear, ReLU
from mest.datasets import digits, pad_crop_flip


def small_network():
    return [
        Input(2, 5, 5),
        Conv2d(4, 3, density=0.5),
        BatchNorm(),
        ReLU(),
        Flatten(),
        Linear(3, density=1.0),
    ]


def some_data(count, shape=(2, 5, 5), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *shape)).astype(np.float32), rng.integers(0, classes, count)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
        {"weight_decay": 0.3, "decay_bias": False},
        {"weight_decay": 0.3, "decay_norm": False},
        {"momentum": 0.5, "clip_norm": 0.05},
        {"momentum": 0.5, "clip_norm": 1e9},
    ],
)
def test_steps_follow_the_reference(settings):
    settings = {"momentum": 0.0, "weight_decay": 0.0, **settings}
    model = mest.Model(small_network(), batch=6, learning_rate=0.1, **settings)
    randomise(model, np.random.default_rng(1))
    known = reference_of(model)
    mask = known.parameters[1]["weight"] != 0
    state = {}
    for step in range(4):
        x, y = some_data(6, seed=step)
        report = model.step(x, y)
        _, slope = reference.cross_entropy(known.forward(x, True), y)
        found = known.backward(slope)
        found[1]["weight"] *= mask
        wanted = [
            (i, w)
            for i, p in enumerate(known.parameters)
            for w in ("weight", "bias", "scale")
            if w in p
        ]
        norm = np.sqrt(sum((found[i][w] ** 2).sum() for i, w in wanted))
        close(report.gradient_norm, norm, 1e-4, "norm before clipping")
        limit = settings.get("clip_norm")
        factor = min(1.0, limit / (norm + 1e-6)) if limit else 1.0
        for i, what in wanted:
            decay = settings["weight_decay"]
            norm_layer = isinstance(model.layers[i], BatchNorm)
            if norm_layer and not settings.get("decay_norm", True):
                decay = 0.0
            if not norm_layer and what == "bias" and not settings.get("decay_bias", True):
                decay = 0.0
            parameter = known.parameters[i][what]
            parameter[...], state[i, what] = reference.sgd(
                parameter, factor * found[i][what], state.get((i, what), 0.0), 0.1,
                settings["momentum"], decay, settings.get("nesterov", False),
            )  # fmt: skip
            if what == "weight" and i == 1:
                parameter *= mask
    after = reference_of(model)
    for i, parameters in enumerate(known.parameters):
        for what in parameters:
            if not what.startswith("running"):
                close(after.parameters[i][what], parameters[what], 1e-4, f"{i} {what}")


def test_micro_batches_are_one_batch():
    """Gradients of k steps averaged: without batch norm the same update as one batch k times as
    large, up to rounding."""
    layers = [Input(12), Linear(20, density=0.3), ReLU(), Linear(3, density=1.0)]
    x, y = some_data(24, (12,))
    one = mest.Model(layers, batch=24, learning_rate=0.5)
    parts = mest.Model(layers, batch=8, micro_batches=3, learning_rate=0.5)
    for _ in range(3):
        one.step(x, y)
        reports = [parts.step(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
        assert [r.updated for r in reports] == [False, False, True]
        assert [r.gradient_norm > 0 for r in reports] == [False, False, True]
    assert reports[-1].update == 3
    for index in (1, 3):
        for what in ("weight", "bias", "weight_momentum"):
            close(parts.tensor(index, what), one.tensor(index, what), 1e-4)


def test_unfinished_micro_batches():
    model = mest.Model([Input(4), Linear(3, density=1.0)], batch=2, micro_batches=2, epochs=3)
    x, y = some_data(2, (4,))
    model.begin_epoch()
    model.step(x, y)
    before = model.tensor(1, "weight")
    model.begin_epoch()  # applies it, as the mean of the one micro-batch given
    assert np.any(model.tensor(1, "weight") != before)
    whole = mest.Model([Input(4), Linear(3, density=1.0)], batch=2, epochs=3)
    whole.step(x, y)
    close(model.tensor(1, "weight"), whole.tensor(1, "weight"), 1e-6)


def test_the_engine_counts_epochs_in_batches():
    """40 samples in batches of 8 are 5 batches: two updates of four and one micro-batch."""
    model = mest.Model(
        [Input(4), Linear(3, density=1.0)], batch=8, micro_batches=4, samples=40, epochs=9, learning_rate=0.1
    )
    x, y = some_data(8, (4,))
    reports = [model.step(x, y) for _ in range(15)]
    assert [r.epoch for r in reports] == [0] * 5 + [1] * 5 + [2] * 5
    assert [r.update for r in reports] == [0, 0, 0, 1, 2, 2, 2, 2, 3, 4, 4, 4, 4, 5, 6]


def test_who_begins_an_epoch_goes_on_doing_so():
    model = mest.Model([Input(4), Linear(3, density=1.0)], batch=8, samples=16, epochs=9)
    x, y = some_data(8, (4,))
    model.begin_epoch()
    assert [model.step(x, y).epoch for _ in range(7)] == [0] * 7


# ---------------------------------------------------------------------------------- schedules ---


def rates(steps=0, epochs=12, **settings):
    """Learning rates by epoch, or by update when `steps` an epoch are taken."""
    model = mest.Model(
        [Input(1), Linear(2, density=1.0)], batch=1, epochs=epochs, learning_rate=0.8, **settings
    )
    found = []
    for _ in range(epochs):
        found.append(model.begin_epoch().learning_rate)
        taken = [model.step([[0.0]], [0]).learning_rate for _ in range(steps)]
        if steps:
            assert taken[0] == found[-1]
            found[-1:] = taken
    return np.array(found)


def test_constant():
    np.testing.assert_allclose(rates(), 0.8, rtol=1e-6)


def test_step_schedule():
    expected = [0.8 * 0.5 ** (e // 3) for e in range(12)]
    np.testing.assert_allclose(
        rates(schedule="step", schedule_every=3, schedule_gamma=0.5), expected, rtol=1e-6
    )
    assert rates(schedule="step", schedule_every=6)[6] == pytest.approx(0.08)


def test_cosine_by_update():
    """Once per update instead of once per epoch: the same curve on a finer axis."""
    found = rates(
        steps=4,
        schedule="cosine",
        schedule_by_update=True,
        steps_per_epoch=4,
        learning_rate_min=0.01,
    )
    expected = [reference.cosine(u, 48, 0.8, 0.01) for u in range(48)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_warmup():
    """Rises linearly over the warm-up epochs, reaches the full rate, then the schedule."""
    found = rates(warmup_epochs=4)
    assert (np.diff(found[:5]) >= -1e-7).all() and found[0] < 0.8
    np.testing.assert_allclose(np.diff(found[:4]), np.diff(found[:4])[0], rtol=1e-4)
    np.testing.assert_allclose(found[4:], 0.8, rtol=1e-6)


def test_step_begins_epochs_by_itself():
    """With samples known: the events and reports are those of explicit epochs."""
    layers = [Input(4), Linear(30, density=0.2), Linear(3, density=1.0)]
    config = dict(batch=4, samples=10, epochs=4, method="em", mutation_every=2, schedule="cosine")
    explicit, implicit = mest.Model(layers, **config), mest.Model(layers, **config)
    x, y = some_data(10, (4,))
    for epoch in range(4):
        begun = explicit.begin_epoch()
        assert begun.steps == 3
        for step in range(3):
            rows = slice(4 * step, 4 * step + 4)
            first, second = explicit.step(x[rows], y[rows]), implicit.step(x[rows], y[rows])
            assert second.epoch == epoch and second.step_in_epoch == step + 1
            assert second.epoch_began == (step == 0)
            assert second.mutated == (step == 0 and begun.mutated)
            assert first.learning_rate == second.learning_rate
    assert fingerprint(explicit) == fingerprint(implicit)


# ---------------------------------------------------------------------------------------- fit ---


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_validation_data_is_looked_at_before_the_first_epoch(loss):
    x, y = some_data(20, (4,))
    if loss == "mse":
        y = np.eye(3, dtype=np.float32)[y]
    model = mest.Model([Input(4), Linear(3)], batch=8, epochs=2, loss=loss)
    holed, wrong = x.copy(), y.copy()
    holed[5, 2] = np.nan
    wrong[3] = 3 if loss == "cross_entropy" else np.inf
    for found, words in (
        ((x[:, :3], y), "validation array x has shape"),
        ((holed, y), "validation array x: value 2 of sample 5 is nan"),
        ((x, y[:19]), "validation array y has shape"),
        ((x, wrong), "validation array y.*3"),
    ):
        with pytest.raises(mest.MestError, match=words):
            model.fit(x, y, validation=found, progress=False)
    assert model.step(x[:8], y[:8]).update == 1  # nothing was trained


def test_fit_history():
    x, y = some_data(50, (4,))
    model = mest.Model(
        [Input(4), Linear(40, density=0.2), ReLU(), Linear(3, density=1.0)],
        batch=8, epochs=6, samples=50, method="em&s", mutation_every=2, mutation_epochs=(2, 4),
    )  # fmt: skip
    seen = []
    history = model.fit(
        x, y, validation=(x, y), progress=False, callbacks=[lambda r: seen.append(r.epoch)]
    )
    assert len(history) == 6 and seen == list(range(6))
    assert history.column("epoch").tolist() == list(range(6))
    # The last mutation (epoch 4) drops what was grown before and grows nothing.
    assert history.column("mutated").tolist() == [True, False] * 2 + [True, False]
    assert history.column("density").tolist()[::2] == pytest.approx([0.25, 0.225, 0.2], abs=0.004)
    assert (history.column("samples") == 50).all() and (history.column("seconds") > 0).all()
    assert history.column("forgotten").sum() == model.forgetting().events
    evaluation = model.evaluate(x, y)
    assert history[-1].validation_accuracy == evaluation.accuracy
    assert history[-1].validation_loss == evaluation.loss
    assert "validation" in str(history[-1])
    with pytest.raises(ValueError, match="accuracy"):
        history.column("acuracy")
    assert not history.column("removed").any() and "left" not in str(history)
    with pytest.warns(UserWarning, match="6 of 6 epochs are done; pass epochs=") as told:
        assert model.fit(x, y, progress=False) == []
    assert told[0].filename == __file__


@pytest.mark.parametrize("method", ["rigl", "gse", "snip", "grasp"])
def test_fit_history_has_what_steps_move(method):
    """These move connections in a step, not when an epoch begins."""
    x, y = some_data(48, (20,))
    more = {"mutation_updates": 6} if method in ("rigl", "gse") else {}  # of 6 updates an epoch
    model = mest.Model(
        [Input(20), Linear(40, density=0.2), ReLU(), Linear(3, density=1.0)],
        batch=8, epochs=4, samples=48, method=method, learning_rate=0.05, **more,
    )  # fmt: skip
    dropped, grown = [], []

    def look(record):
        last = model.mutation()
        moved = last.epoch == record.epoch and last.mutations > 0
        dropped.append(last.dropped * moved)
        grown.append(last.grown * moved)

    history = model.fit(x, y, progress=False, callbacks=[look])
    assert history.column("dropped").tolist() == dropped and dropped[0] > 0
    assert history.column("grown").tolist() == grown
    assert history.column("mutated").tolist() == [d > 0 for d in dropped]
    assert f"mutated -{dropped[0]} +{grown[0]}" in str(history[0])


@pytest.mark.parametrize("method", ["rigl", "gse"])
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_a_step_tells_of_moves_only_if_there_were_some(method, rate):
    """1 % of 20 connections are none."""
    x, y = some_data(8, (10,))
    model = mest.Model(
        [Input(10), Linear(10, density=0.2), ReLU(), Linear(3, density=1.0)],
        batch=8, epochs=4, samples=8, method=method, mutation_rate=rate, mutation_updates=1,
    )  # fmt: skip
    assert model.step(x, y).mutated == (rate == 0.3) == (model.mutation().dropped > 0)


def test_fit_is_repeatable_and_seeded():
    x, y = some_data(50, (4,))

    def trained(**config):
        model = mest.Model(mest.mlp(4, [20], 3), batch=8, epochs=3, density=0.5, **config)
        model.fit(x, y, progress=False, augment=lambda b, rng: b + rng.normal(size=b.shape) * 0.1)
        return fingerprint(model)

    assert trained(seed=1) == trained(seed=1) != trained(seed=2)


def test_fit_in_two_parts():
    """The order of an epoch depends on (seed, epoch) alone, so fit can be continued."""
    x, y = some_data(50, (4,))
    layers, config = (
        mest.mlp(4, [20], 3),
        dict(batch=8, epochs=4, density=0.5, method="em", mutation_every=1),
    )
    whole, parts = mest.Model(layers, **config), mest.Model(layers, **config)
    whole.fit(x, y, progress=False)
    parts.fit(x, y, 1, progress=False)
    assert len(parts.fit(x, y, progress=False)) == 3
    assert fingerprint(whole) == fingerprint(parts)


@pytest.mark.parametrize(
    "count, batch, micro", [(50, 8, 1), (50, 8, 2), (7, 3, 2), (64, 8, 4), (3, 8, 3)]
)
def test_fit_takes_every_sample_once(count, batch, micro):
    x, y = some_data(count, (4,))
    model = mest.Model(
        mest.mlp(4, [], 3), batch=batch, micro_batches=micro, epochs=2, samples=count
    )
    sizes = []
    model.fit(x, y, progress=False, augment=lambda b, _: sizes.append(len(b)) or b)
    assert sum(sizes) == 2 * count and max(sizes) <= batch and len(sizes) % micro == 0
    if micro == 1:
        assert sizes[-1] == (count % batch or batch)
    assert model.forgetting().seen == count


def test_fit_without_enough_for_micro_batches():
    x, y = some_data(2, (4,))
    with pytest.raises(ValueError, match="too few"):
        mest.Model(mest.mlp(4, [], 3), batch=8, micro_batches=3, epochs=1).fit(x, y, progress=False)


def test_fit_callback_stops_and_raises():
    x, y = some_data(20, (4,))
    model = mest.Model(mest.mlp(4, [], 3), batch=8, epochs=5)
    assert len(model.fit(x, y, progress=False, callbacks=[lambda r: r.epoch == 1])) == 2
    with pytest.raises(ZeroDivisionError):
        model.fit(x, y, progress=False, callbacks=[lambda r: 1 / 0])
    assert len(model.fit(x, y, progress=False)) == 2


def test_fit_prints_a_line_an_epoch(capsys):
    x, y = some_data(20, (4,))
    mest.Model(mest.mlp(4, [], 3), batch=8, epochs=3).fit(x, y)
    assert capsys.readouterr().out.count("\n") == 3


def test_fit_says_what_is_wrong():
    x, y = some_data(20, (4,))
    with pytest.raises(ValueError, match="epochs"):
        mest.Model(mest.mlp(4, [], 3), batch=8).fit(x, y, progress=False)
    with pytest.raises(ValueError, match="20 samples"):
        mest.Model(mest.mlp(4, [], 3), batch=8, epochs=1, samples=30).fit(x, y, progress=False)


def test_fit_looks_at_everything_first():
    """Samples are named in the caller's arrays, and no step is made."""
    x, y = some_data(40000, (4,))
    model = mest.Model(mest.mlp(4, [], 3), batch=8, epochs=1)
    before = fingerprint(model)
    for kind in (np.int32, np.int64):
        wrong = y.astype(kind)
        wrong[39001] = 3
        with pytest.raises(ValueError, match=r"y\[39001\] is 3; there are 3 classes"):
            model.fit(x, wrong, progress=False)
    x[39002, 1] = np.nan
    with pytest.raises(ValueError, match="x: value 1 of sample 39002 is nan"):
        model.fit(x, y, progress=False)
    with pytest.raises(ValueError, match="no samples"):
        model.fit(x[:0], y[:0], progress=False)
    assert fingerprint(model) == before and model.begin_epoch().epoch == 0

    regression = mest.Model(mest.mlp(4, [], 1), batch=8, epochs=1, loss="mse")
    with pytest.raises(ValueError, match="y: value 0 of sample 39002 is nan"):
        regression.fit(np.zeros((40000, 4), np.float32), x[:, 1], progress=False)


def test_samples_that_leave_are_told():
    x, y = some_data(40, (4,))
    model = mest.Model(
        mest.mlp(4, [30], 3), batch=8, epochs=4, samples=40, phase1_epochs=2,
        remove_rule="number", remove_number=30,
    )  # fmt: skip
    model.fit(x, y, 2, progress=False)
    assert str(model.forgetting()).startswith("40 of 40 samples seen")
    history = model.fit(x, y, progress=False)
    assert history.column("removed").tolist() == [30, 0]
    assert history.column("samples").tolist() == [10, 10]
    assert "samples 10 (30 left the training set)" in str(history[0])
    assert "left" not in str(history[1])
    assert str(model.forgetting()).startswith("phase 2: 10 of 10 samples seen")


def test_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    y = x @ rng.normal(size=(5, 2)).astype(np.float32)
    model = mest.Model(
        [Input(5), Linear(2, density=1.0)], batch=20, epochs=30, loss="mse", weight_decay=0.0
    )
    history = model.fit(x, y, validation=(x, y), progress=False)
    assert history[-1].validation_loss < 1e-6 and np.isnan(history[-1].accuracy)
    assert np.isnan(history[-1].validation_accuracy)
    evaluation = model.evaluate(x, y)
    assert np.isnan(evaluation.accuracy) and evaluation.correct == 0
    with pytest.raises(ValueError, match="probabilities"):
        model.predict_proba(x)


def test_inference_only():
    model = mest.Model(small_network(), batch=4, inference_only=True)
    training = mest.Model(small_network(), batch=4)
    x, y = some_data(4)
    assert (model.predict(x) == training.predict(x)).all()
    assert model.plan().total_bytes < training.plan().total_bytes
    assert model.plan().gradient_bytes == model.plan().state_bytes == 0
    with pytest.raises(mest.MestError):
        model.step(x, y)


# ------------------------------------------------------------------------------------- digits ---


@pytest.mark.parametrize("method", ["vanilla", "em", "em&s"])
def test_digits_mlp(method):
    data = digits()
    model = mest.Model(
        mest.mlp((1, 8, 8), [128], 10),
        density=0.1,
        method=method,
        mutation_every=2,
        epochs=16,
        samples=1347,
        batch=32,
        learning_rate=0.05,
        schedule="cosine",
    )
    history = model.fit(
        data.x_train, data.y_train, validation=(data.x_test, data.y_test), progress=False
    )
    assert history[-1].validation_accuracy > 0.94
    report = model.forgetting()
    assert report.seen == 1347 and report.unforgettable > 900


def test_digits_resnet():
    data = digits()
    model = mest.Model(
        mest.resnet(8, 16, 10, (1, 8, 8)),
        density=0.1,
        method="em&s",
        mutation_every=2,
        epochs=20,
        samples=1347,
        batch=32,
        learning_rate=0.05,
        schedule="cosine",
    )
    model.fit(data.x_train, data.y_train, progress=False, augment=pad_crop_flip(1, flip=False))
    assert model.evaluate(data.x_test, data.y_test).accuracy > 0.96
