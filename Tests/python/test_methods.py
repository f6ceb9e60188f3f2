# SPDX-License-Identifier: Apache-2.0
"""Methods that move connections, each against its definition on plain dense matrices: which connections
leave, which come, with what values and state.  Random small cases; a failure names its seed."""

import numpy as np
import pytest
import reference
from moves import least, ratio
from randoms import GROWTH, Random, floyd
from support import positions

import mest
from mest import Input, Linear


def case(seed, **config):
    """A layer with random connections, values and momentum, an epoch before its mutation."""
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(2, 12)), int(rng.integers(2, 12))
    model = mest.Model(
        [Input(columns), Linear(rows, density=float(rng.uniform(0.2, 0.8)), bias=False)],
        batch=4, loss="mse", learning_rate=0.0, weight_decay=0.0, seed=seed, epochs=8, **config,
    )  # fmt: skip
    model.begin_epoch()
    csr = model.csr(1)
    values = rng.normal(size=len(csr.values)).astype(np.float32)
    values[rng.random(len(values)) < 0.1] = 0.0
    values[rng.random(len(values)) < 0.2] = np.float32(0.25)  # equals
    momentum = rng.normal(size=len(values)).astype(np.float32)
    model.set_csr(1, csr.indptr, csr.indices, values, momentum)
    return model, rows, columns, values, momentum


def held(model, columns):
    csr = model.csr(1)
    momentum = model.tensor(1, "weight_momentum")
    return positions(csr, columns), np.array(csr.values), np.array(momentum)


def grown(active, size, count, avoid, random):
    """`count` positions that are neither active nor avoided, as Floyd's method draws them."""
    free = [p for p in range(size) if p not in active and p not in avoid]
    return [free[rank] for rank in floyd(count, len(free), random)]


@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("exclude", [False, True])
def test_set(part, exclude):
    """Of the positive weights and of the negative ones the share nearest to 0 leaves; as many come at
    random with N(0, 0.1^2) and no momentum."""
    for seed in range(part * 40, part * 40 + 40):
        share = float(np.random.default_rng(seed).uniform(0.05, 0.9))
        model, rows, columns, values, momentum = case(
            seed, method="set", mutation_rate=share, exclude_dropped=exclude
        )
        before, _, _ = held(model, columns)
        negative = [j for j in range(len(values)) if values[j] < 0]
        other = [j for j in range(len(values)) if values[j] >= 0]
        gone = set()
        for part_of in (other, negative):
            gone |= least(values, part_of, ratio(share) * len(part_of) // 10**9)
        kept = {int(before[j]): j for j in range(len(values)) if j not in gone}
        left = {int(before[j]) for j in gone}
        assert model.begin_epoch().dropped == len(gone), f"seed {seed}"
        random = Random(seed, GROWTH, 1, 1)
        room = rows * columns - len(kept)
        avoid = left if exclude and room - len(left) > 0 else set()
        new = {}
        while len(new) < len(gone):  # what was just dropped comes back when nothing else is free
            free = rows * columns - len(kept) - len(new) - len(avoid)
            count = min(len(gone) - len(new), free)
            if count == 0:
                avoid = set()
                continue
            for p in grown({*kept, *new}, rows * columns, count, avoid, random):
                new[p] = None
            for p in sorted(p for p in new if new[p] is None):
                new[p] = np.float32(0.1) * random.normal()
        where, now, state = held(model, columns)
        assert where.tolist() == sorted([*kept, *new]), f"seed {seed}"
        for p, value, m in zip(where.tolist(), now, state):
            if p in kept:
                assert (value, m) == (values[kept[p]], momentum[kept[p]]), f"seed {seed}"
            else:
                assert abs(value - new[p]) < 1e-6 and m == 0, f"seed {seed}"


def test_set_moves_after_every_epoch_but_the_last():
    model = mest.Model([Input(20), Linear(20, density=0.2)], method="set", epochs=6)
    moved = [model.begin_epoch().mutated for _ in range(6)]
    assert moved == [False] + [True] * 5
    assert model.density() == pytest.approx(0.2)


def test_gmp_follows_the_cubic():
    """Golden check G8: 0.5 to 0.9 sparse over 80 epochs; and every epoch between."""
    model = mest.Model(
        [Input(100), Linear(100, density=0.1)], method="gmp", initial_density=0.5, epochs=160,
        mutation_epochs=(40, 80),
    )  # fmt: skip
    sparse = []
    for epoch in range(100):
        model.begin_epoch()
        sparse.append(1 - model.density())
        want = 0.1 + 0.4 * (1 - min(epoch / 80, 1)) ** 3
        assert model.density() == pytest.approx(want, abs=1e-4), epoch
    np.testing.assert_allclose(
        [sparse[e] for e in (0, 20, 40, 60, 80)], [0.5, 0.73125, 0.85, 0.89375, 0.9], atol=1e-4
    )


@pytest.mark.parametrize("part", range(5))
def test_gmp_drops_the_least_and_grows_nothing(part):
    for seed in range(part * 40, part * 40 + 40):
        model, rows, columns, values, momentum = case(seed, method="gmp", initial_density=0.9)
        before, _, _ = held(model, columns)
        target = model.plan().layers[1].density
        for epoch in range(1, 8):
            report = model.begin_epoch()
            assert report.grown == 0, f"seed {seed}"
            where, now, state = held(model, columns)
            gone = least(values, range(len(values)), len(values) - len(where))
            kept = [j for j in range(len(values)) if j not in gone]
            assert where.tolist() == before[kept].tolist(), f"seed {seed} epoch {epoch}"
            assert now.tolist() == values[kept].tolist() and state.tolist() == momentum[kept].tolist()
        assert len(where) == reference.count_exact(rows * columns, target)


def test_gmp_plans_what_it_begins_with():
    layers = [Input(100), Linear(100, density=0.1)]
    plan = mest.plan(layers, method="gmp", initial_density=0.5, epochs=8)
    assert (plan.active, plan.active_peak) == (1000 + 100, 5000 + 100)
    assert mest.plan(layers, method="gmp", epochs=8).active_peak == 10_000 + 100
    with pytest.raises(ValueError, match="initial_density"):
        mest.plan(layers, method="gmp", initial_density=0.05, epochs=8)


@pytest.mark.parametrize("scheme", ["unstructured", "block4", "pattern", "2:4", "fan_in", "filter"])
@pytest.mark.parametrize("method", ["set", "gmp"])
def test_methods_keep_every_schemes_rules(scheme, method):
    """The schemes' invariants hold and training goes on under every method."""
    kernel = 3 if scheme == "pattern" else 1
    density = 0.4 if scheme == "2:4" else 0.3
    model = mest.Model(
        [Input(8, 6, 6), mest.Conv2d(16, kernel, padding=kernel // 2), mest.BatchNorm(), mest.ReLU(),
         mest.GlobalAvgPool(), Linear(3, density=1.0)],
        density=density, scheme=scheme, method=method, epochs=6, batch=8, learning_rate=0.05,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8, 6, 6)).astype(np.float32), rng.integers(0, 3, 8)
    for epoch in range(6):
        model.begin_epoch()
        assert np.isfinite(model.step(x, y).loss)
        csr = model.csr(1)
        assert len(csr.values) <= model.plan().layers[1].capacity
        for r in range(len(csr.indptr) - 1):
            columns = csr.indices[csr.indptr[r] : csr.indptr[r + 1]].astype(int)
            assert (np.diff(columns) > 0).all()
            if scheme == "2:4":
                assert (np.bincount(columns // 4, minlength=2) <= 2).all()
        if scheme in ("fan_in", "pattern"):
            assert len(set(np.diff(csr.indptr))) == 1
