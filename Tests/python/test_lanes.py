# SPDX-License-Identifier: Apache-2.0
"""Samples lie side by side in lanes; those that a batch does not fill change nothing."""

import numpy as np
import pytest
from cases import NETWORKS
from support import close, gradients, randomise

import mest
from mest import BatchNorm, Input, Linear, ReLU


def twin_steps(layers, count, batch, tolerance=1e-4, **config):
    """One step on the same samples: in part of a batch, and in a batch of just that size."""
    results = []
    for size in (batch, count):
        model = mest.Model(layers, batch=size, learning_rate=0.1, **config)
        randomise(model, np.random.default_rng(2))
        rng = np.random.default_rng(3)
        x = rng.normal(size=(count, *model.plan().layers[0].shape)).astype(np.float32)
        report = model.step(x, rng.integers(0, model.plan().outputs, count))
        results.append((report, gradients(model), model))
    (part, part_gradients, partial), (whole, whole_gradients, exact) = results
    assert part.loss == pytest.approx(whole.loss, rel=1e-5) and part.correct == whole.correct
    largest = max(np.abs(g).max() for g in whole_gradients.values())
    for key, gradient in whole_gradients.items():  # a bias before batch norm has none but rounding
        close(part_gradients[key], gradient, tolerance, str(key), floor=1e-2 * largest)
    for index, layer in enumerate(layers):
        if isinstance(layer, BatchNorm):
            for what in ("running_mean", "running_var"):
                known = exact.tensor(index, what)
                close(partial.tensor(index, what), known, 1e-4, f"{index} {what}")


@pytest.mark.parametrize("relu", [[ReLU], []], ids=["with ReLU", "without"])
def test_one_sample_through_many_batch_norms(relu):
    """A lane without a sample once grew 300-fold in every batch norm, until it was infinite."""
    layers = [Input(8)]
    for _ in range(20):
        layers += [Linear(12, density=0.5), BatchNorm(), *(kind() for kind in relu)]
    # One sample is its own mean, and one lane adds up in another order: rounding is left to compare.
    twin_steps([*layers, Linear(3, density=1.0)], 1, batch=8, tolerance=1e-2)


@pytest.mark.parametrize("count", [1, 2, 5, 11])
@pytest.mark.parametrize("name", ["batch norm", "batch norm, flat", "residual", "resnet 8", "mlp"])
def test_part_of_a_batch(name, count):
    if count == 1 and name == "batch norm, flat":
        count = 3  # one sample of one pixel is its own mean: only rounding is left to compare
    twin_steps(NETWORKS[name](), count, batch=16, tolerance=1e-3)
