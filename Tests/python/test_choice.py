# SPDX-License-Identifier: Apache-2.0
"""Which connections a network begins with: the largest of a dense draw (initial="magnitude").  The dense network is
the library's own of the same seed, whose first values are those that are drawn."""

import dataclasses

import numpy as np
import pytest
import reference
from support import positions

import mest
from mest import Conv2d, Input, Linear, ReLU


def dense_twin(layers, **config):
    """The dense network that the connections are drawn from."""
    dense = [dataclasses.replace(l, density=1.0) if getattr(l, "density", None) else l for l in layers]
    static = dict(method="static", initial="random", density=None, initial_density=None)
    return mest.Model(dense, **{**config, **static})


# ------------------------------------------------------------------------- largest values of a draw ---


@pytest.mark.parametrize("part", range(10))
def test_magnitude(part):
    """Of every sparse layer the largest values of the dense draw, as they were drawn, equals by position."""
    for seed in range(part * 100, part * 100 + 100):
        rng = np.random.default_rng(seed)
        d = lambda: float(rng.uniform(0.01, 0.95))  # noqa: E731
        kernel = int(rng.integers(1, 4))
        layers = [
            Input(int(rng.integers(1, 6)), 4, 4), Conv2d(int(rng.integers(1, 9)), kernel, density=d()),
            mest.GlobalAvgPool(), Linear(int(rng.integers(1, 12)), density=d()), ReLU(), Linear(3, density=d()),
        ]  # fmt: skip
        config = dict(seed=seed, batch=2, round_compat=bool(seed % 2), inference_only=bool(rng.random() < 0.3))
        model = mest.Model(layers, initial="magnitude", **config)
        twin = dense_twin(layers, **config)
        for i in (1, 3, 5):
            drawn = twin.tensor(i, "weight").ravel()
            csr, plan = model.csr(i), model.plan().layers[i]
            count = len(csr.values)
            assert count == plan.capacity and (seed % 2 or count == reference.count_exact(len(drawn), layers[i].density))
            largest = sorted(sorted(range(len(drawn)), key=lambda p: (-abs(drawn[p]), p))[:count])
            assert positions(csr, plan.columns).tolist() == largest, f"seed {seed} layer {i}"
            assert csr.values.tolist() == drawn[largest].tolist(), f"seed {seed} layer {i}"


def test_magnitude_takes_what_the_plan_says():
    """The largest layer's candidates, in the workspace: nothing where activations need as much."""
    layers = [Input(256), Linear(256, density=0.1), Linear(8)]
    plans = [mest.plan(layers, batch=1, initial=initial) for initial in ("random", "magnitude")]
    assert plans[0].mutation_bytes == 0
    assert plans[1].mutation_bytes == -(-16 * plans[1].layers[1].active // 64) * 64
    assert plans[1].total_bytes - plans[0].total_bytes == plans[1].workspace_bytes - plans[0].workspace_bytes
    with mest.Model(layers, batch=1, initial="magnitude") as model:
        assert model.memory.peak == plans[1].total_bytes


@pytest.mark.parametrize("scheme", ["block4", "pattern", "2:4", "fan_in", "filter"])
def test_magnitude_refuses_other_schemes(scheme):
    layers = [Input(8, 6, 6), Conv2d(8, 3, density=0.4), Conv2d(8, 3), mest.GlobalAvgPool(), Linear(3)]
    with pytest.raises(mest.UnsupportedError, match="MAGNITUDE"):
        mest.plan(layers, scheme=scheme, initial="magnitude")


def test_magnitude_needs_a_sparse_layer():
    with pytest.raises(ValueError, match="every layer is dense"):
        mest.plan([Input(8), Linear(8)], initial="magnitude")
