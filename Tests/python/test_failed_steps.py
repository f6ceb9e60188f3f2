# SPDX-License-Identifier: Apache-2.0
"""A step that fails or is stopped: what stays as it was, what is dropped, what is told later."""

import numpy as np
import pytest
from support import close, fingerprint, gradients

import mest
from mest import BatchNorm, Conv2d, Flatten, Input, Linear, MaxPool, ReLU

NETWORK = [
    Input(2, 5, 5),
    Conv2d(4, 3, density=0.5),
    BatchNorm(),
    ReLU(),
    Flatten(),
    Linear(3, density=1.0),
]


def batch_of(model, seed=0, size=1.0):
    """Samples, and labels or targets of some size."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, *model.plan().layers[0].shape)).astype(np.float32)
    if model.config.loss == "mse":
        return x, (size * rng.normal(size=(4, 3))).astype(np.float32)
    return x, rng.integers(0, 3, 4)


def everything(model):
    """Parameters, state, statistics, connections and counts."""
    counted = model.forgetting() if model.config.samples else None
    if counted:
        counted = counted.events, counted.events_epoch, counted.seen, counted.counts.tobytes()
    return fingerprint(model), counted


def goes_on_like(model, twin):
    """Both take the same step, with the same result."""
    first, second = model.step(*batch_of(model, 9)), twin.step(*batch_of(twin, 9))
    assert (first.update, first.epoch, first.loss) == (second.update, second.epoch, second.loss)
    assert everything(model) == everything(twin)


def enormous_targets(model):
    return batch_of(model, 1, 1e30)


def enormous_inputs(model):
    x, y = batch_of(model, 1)
    return np.float32(1e30) * x, y


def too_large_for_a_variance(model):
    x, y = batch_of(model, 1)
    return np.float32(1e25) * x, y


@pytest.mark.parametrize(
    "loss, wrong",
    [
        ("mse", enormous_targets),
        ("mse", enormous_inputs),
        ("cross_entropy", enormous_inputs),
        ("mse", too_large_for_a_variance),
        ("cross_entropy", too_large_for_a_variance),
    ],
)
def test_divergence_changes_nothing(loss, wrong):
    counting = {"samples": 16} if loss == "cross_entropy" else {}
    model, twin = (mest.Model(NETWORK, batch=4, loss=loss, **counting) for _ in range(2))
    for each in (model, twin):
        each.step(*batch_of(each), **({"ids": range(4)} if counting else {}))
    before = everything(model)
    with pytest.raises(mest.DivergedError):
        model.step(*wrong(model), **({"ids": range(4, 8)} if counting else {}))
    assert everything(model) == before
    assert np.isfinite(model.tensor(2, "running_var")).all()
    assert not any(gradient.any() for gradient in gradients(model).values())
    goes_on_like(model, twin)


def test_infinite_statistics_are_not_kept():
    """The loss is finite all the same: max pooling passes over what is not a number."""
    layers = [Input(2, 5, 5), BatchNorm(), MaxPool(2), ReLU(), Flatten(), Linear(3, density=1.0)]
    model, twin = (mest.Model(layers, batch=4) for _ in range(2))
    before = everything(model)
    with pytest.raises(mest.DivergedError):
        model.step(*too_large_for_a_variance(model))
    assert everything(model) == before and np.isfinite(model.tensor(1, "running_var")).all()
    goes_on_like(model, twin)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_an_update_that_overflows_is_not_applied(momentum, nesterov):
    """Loss and gradients are finite; the weights that they would make are not."""
    model = mest.Model(
        NETWORK, batch=4, loss="mse", learning_rate=1e38, momentum=momentum, nesterov=nesterov
    )
    before = everything(model)
    with pytest.raises(mest.DivergedError):
        model.step(*batch_of(model, size=1e6))
    assert everything(model) == before
    assert not any(gradient.any() for gradient in gradients(model).values())


def test_a_weight_decay_that_overflows_is_not_applied():
    """The gradient is small; weight_decay * weight * learning_rate is not."""
    model = mest.Model(
        NETWORK, batch=4, loss="mse", learning_rate=100.0, weight_decay=1e38, momentum=0.0
    )
    before = everything(model)
    with pytest.raises(mest.DivergedError):
        model.step(*batch_of(model))
    assert everything(model) == before


def test_stopped_before_anything():
    stop = []
    config = dict(batch=4, samples=16, micro_batches=2)
    model = mest.Model(NETWORK, **config, on_progress=lambda _: bool(stop))
    twin = mest.Model(NETWORK, **config)
    for each in (model, twin):
        each.step(*batch_of(each), ids=range(4))
    before, first = everything(model), gradients(model)
    stop.append(1)
    with pytest.raises(mest.CallbackError):
        model.step(*batch_of(model, 1), ids=range(4, 8))
    assert everything(model) == before
    for key, gradient in gradients(model).items():
        assert (gradient == first[key]).all(), key
    stop.clear()
    goes_on_like(model, twin)  # the second micro-batch: the first is still there


def test_events_are_not_lost():
    """The epoch that a stopped step began is told by the next step, once."""
    stop = []
    model = mest.Model(
        [Input(4), Linear(20, density=0.3), Linear(3, density=1.0)],
        batch=4, samples=8, epochs=4, method="vanilla", mutation_every=1,
        on_progress=lambda now: bool(stop) and now.stage == "step",
    )  # fmt: skip
    for epoch in (0, 1):
        stop.append(1)
        for _ in range(2):
            with pytest.raises(mest.CallbackError):
                model.step(*batch_of(model))
        stop.clear()
        assert model.mutation().mutations == epoch + 1
        first, second = model.step(*batch_of(model)), model.step(*batch_of(model))
        assert (first.epoch, first.epoch_began, first.mutated) == (epoch, True, True)
        assert (second.epoch, second.epoch_began, second.mutated) == (epoch, False, False)
        assert model.mutation().mutations == epoch + 1


# ------------------------------------------------------------------------------ micro-batches ---


def test_beginning_an_epoch_applies_the_mean_of_those_given():
    layers = [Input(4), Linear(3, density=1.0)]
    models = [mest.Model(layers, batch=4, micro_batches=k, epochs=3) for k in (4, 3)]
    for model in models:
        model.begin_epoch()
        for seed in range(3):
            model.step(*batch_of(model, seed))
    before = models[0].tensor(1, "weight")
    assert models[0].begin_epoch().epoch == 1
    assert (models[0].tensor(1, "weight") != before).any()
    for what in ("weight", "weight_momentum", "bias"):
        close(models[0].tensor(1, what), models[1].tensor(1, what), 1e-5, what)
    assert models[0].step(*batch_of(models[0])).update == 1  # that was the update; this gathers


def test_beginning_an_epoch_drops_an_update_that_diverges():
    model = mest.Model(
        NETWORK, batch=4, micro_batches=2, epochs=3, loss="mse", learning_rate=1e38
    )
    model.begin_epoch()
    model.step(*batch_of(model, size=1e6))
    before = everything(model)
    with pytest.raises(mest.DivergedError):
        model.begin_epoch()
    assert everything(model) == before
    assert not any(gradient.any() for gradient in gradients(model).values())
    assert model.begin_epoch().epoch == 1
    assert everything(model) == before
    assert model.step(*batch_of(model)).update == 0
