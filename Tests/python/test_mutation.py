# SPDX-License-Identifier: Apache-2.0
"""Properties of mutation (golden check G13), importance scores, schedules."""

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import fingerprint, positions
from test_golden import give_gradient

import mest
from mest import Conv2d, Flatten, Input, Linear

networks = st.one_of(
    st.tuples(st.just("linear"), st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.just("conv"), st.integers(1, 12), st.integers(1, 12)),
)


def sparse_model(network, density, **config):
    kind, inputs, outputs = network
    if kind == "linear":
        layers = [Input(inputs), Linear(outputs, density=density), Linear(2, density=1.0)]
    else:
        layers = [
            Input(inputs, 4, 4),
            Conv2d(outputs, 3, density=density),
            Flatten(),
            Linear(2, density=1.0),
        ]
    return mest.Model(layers, batch=2, **config)


def state(model):
    """Connections of layer 1: {position: (value, momentum)}, checked for order on the way."""
    part, csr = model.plan().layers[1], model.csr(1)
    assert csr.indptr[0] == 0 and (np.diff(csr.indptr.astype(int)) >= 0).all()
    assert csr.indptr[-1] == len(csr.indices) == len(csr.values) == model.connections()[1]
    where = positions(csr, part.columns)
    assert (np.diff(where) > 0).all(), "columns ascending in each row, no position twice"
    assert not len(where) or (csr.indices < part.columns).all()
    return dict(
        zip(where.tolist(), zip(csr.values.tolist(), model.tensor(1, "weight_momentum").tolist()))
    )


def certain(size, density):
    """The count of a density, when float32 and float64 agree on it."""
    assume(abs(density * size - np.floor(density * size) - 0.5) > 1e-3)
    return reference.count_exact(size, density)


@settings(max_examples=60, deadline=None)
@given(
    network=networks,
    density=st.floats(0.02, 0.6),
    mode=st.sampled_from(["vanilla", "em", "em&s"]),
    epochs=st.integers(1, 8),
    exclude=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_g13_invariants(network, density, mode, epochs, exclude, seed):
    density = float(np.float32(density))
    config = dict(method=mode, mutation_every=1, epochs=8, mutation_epochs=(3, 6),
                  mutation_extra=0.05, exclude_dropped=exclude, seed=seed)  # fmt: skip
    config["mutation_extra"] = min(0.05, density / 2)
    model, twin = sparse_model(network, density, **config), sparse_model(network, density, **config)
    part = model.plan().layers[1]
    size = part.rows * part.columns
    assume(part.sparse)
    target = certain(size, density)
    assert part.active == target == model.connections()[1]
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        before = state(model)
        momentum = rng.normal(size=len(before)).astype(np.float32)
        for each in (model, twin):
            each.set_tensor(1, "weight_momentum", momentum)
        before = state(model)
        begun = model.begin_epoch()
        twin.begin_epoch()
        after = state(model)
        drop, grow = reference.mutation_densities(
            mode, density, epoch, (3, 6), extra=config["mutation_extra"]
        )
        low, high = certain(size, drop), certain(size, grow)
        values = np.array([v for v, _ in before.values()])
        dropped = reference.dropped_positions(values, list(before), max(0, len(before) - low))
        survivors = {p: vm for p, vm in before.items() if p not in dropped}
        # What was dropped a moment ago may be excluded: then there can be too little room to grow.
        room = size - len(before) if exclude else size - len(survivors)
        wanted = max(0, high - len(survivors)) if grow > drop else 0
        assert len(after) == len(survivors) + min(wanted, room)
        assert len(after) <= part.capacity
        assert begun.dropped == len(dropped)
        assert begun.grown == len(after) - len(survivors)
        for position, kept in survivors.items():
            assert after[position] == kept, "survivors keep value and momentum, bit for bit"
        for position in set(after) - set(survivors):
            assert after[position] == (0.0, 0.0), "grown connections start at 0"
            assert not (exclude and position in dropped)
        assert fingerprint(model) == fingerprint(twin), "one seed, one result"


@settings(max_examples=40, deadline=None)
@given(network=networks, density=st.floats(0.01, 0.9), seed=st.integers(0, 2**32))
def test_initial_connections(network, density, seed):
    """As many as the density says, every output with at least one where there are enough."""
    density = float(np.float32(density))
    model = sparse_model(network, density, seed=seed)
    part = model.plan().layers[1]
    assume(part.sparse)
    connections = state(model)
    assert len(connections) == certain(part.rows * part.columns, density)
    rows = {p // part.columns for p in connections}
    assert len(rows) == part.rows or len(connections) < part.rows
    assert all(m == 0 for _, m in connections.values())
    assert fingerprint(model) == fingerprint(sparse_model(network, density, seed=seed))


@pytest.mark.parametrize("extra", [0, 1, 7])
@pytest.mark.parametrize(
    "network",
    [("linear", 40, 30), ("linear", 3, 60), ("linear", 60, 3), ("conv", 2, 12), ("conv", 12, 2)],
)
def test_no_output_starts_empty(network, extra):
    """Also where there are just as many connections as outputs; allow_empty_rows: there may be."""
    kind, inputs, outputs = network
    columns = inputs * (9 if kind == "conv" else 1)
    density = (outputs + extra) / (outputs * columns)
    filled = set()
    for seed in range(8):
        model = sparse_model(network, density, seed=seed)
        rows = np.diff(model.csr(1).indptr.astype(int))
        assert rows.min() >= 1 and rows.sum() == outputs + extra, seed
        model = sparse_model(network, density, seed=seed, allow_empty_rows=True)
        rows = np.diff(model.csr(1).indptr.astype(int))
        assert rows.sum() == outputs + extra
        filled.add(rows.min() >= 1)
    assert False in filled or outputs < 12


def test_initial_scale():
    """He initialisation by the connections a row has: variance 2 / fan."""
    layers = [Input(500), Linear(400, density=0.1), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=1)
    csr = model.csr(1)
    fan = np.repeat(np.diff(csr.indptr.astype(int)), np.diff(csr.indptr.astype(int)))
    assert np.var(csr.values * np.sqrt(fan)) == pytest.approx(2, rel=0.05)
    assert abs(np.mean(csr.values * np.sqrt(fan))) < 0.05


def test_seeds_differ():
    first, second = (sparse_model(("linear", 40, 40), 0.1, seed=s) for s in (1, 2))
    assert set(state(first)) != set(state(second))


def test_layers_differ():
    layers = [Input(50), Linear(50, density=0.2), Linear(50, density=0.2), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=1, method="em", epochs=10)
    assert model.csr(1).indices.tolist() != model.csr(2).indices.tolist()


# --------------------------------------------------------------------------------- importance ---


def scored(**config):
    """12 connections of 6 x 8 with known weights and momentum; a mutation drops 4 of them."""
    layers = [Input(8), Linear(6, density=0.25, bias=False)]
    model = mest.Model(
        layers, batch=8, loss="mse", method="vanilla", mutation_rate=1 / 3, epochs=10,
        learning_rate=0.0, weight_decay=0.0, exclude_dropped=True, **config,
    )  # fmt: skip
    rng = np.random.default_rng(5)
    where = np.sort(rng.choice(48, 12, replace=False))
    values, momentum = (rng.normal(0, 1, 12).astype(np.float32) for _ in range(2))
    starts = np.searchsorted(where // 8, np.arange(7))
    model.begin_epoch()  # epoch 0 mutates by itself
    model.set_csr(1, starts, where % 8, values, momentum)
    return model, where, values, momentum


def survivors_after_mutation(model, where):
    model.mutate()
    return set(positions(model.csr(1), 8).tolist()) & set(where.tolist())


def four_least(scores, where):
    return set(where.tolist()) - reference.dropped_positions(scores, where, 4)


def test_importance_by_momentum():
    model, where, values, momentum = scored(
        importance_gradient="momentum", importance_lambda=5.0, momentum=0.9
    )
    scores = np.abs(values) + 5.0 * 0.1 * np.abs(momentum)
    assert survivors_after_mutation(model, where) == four_least(scores, where)


def test_importance_normalised():
    model, where, values, momentum = scored(
        importance_gradient="momentum", importance_lambda=0.7, momentum=0.9, normalised=True
    )
    w, g = np.abs(values), np.abs(momentum)
    scores = w / w.mean() + 0.7 * g / g.mean()
    assert survivors_after_mutation(model, where) == four_least(scores, where)


@pytest.mark.parametrize("kind", ["last", "ema"])
def test_importance_by_gradient(kind):
    model, where, values, _ = scored(
        importance_gradient=kind, importance_lambda=2.0, importance_beta=0.8, momentum=0.0
    )
    rng = np.random.default_rng(6)
    average = np.zeros(48)
    for _ in range(3):
        gradient = rng.normal(0, 1, (6, 8))
        give_gradient(model, gradient)
        average = 0.8 * average + 0.2 * np.abs(gradient.ravel())
    g = np.abs(gradient.ravel()) if kind == "last" else average
    scores = np.abs(values) + 2.0 * g[where]
    assert survivors_after_mutation(model, where) == four_least(scores, where)


# ------------------------------------------------------------------------------------- phases ---


def test_default_boundaries():
    """9/16 and 3/4 of the epochs: 90 and 120 of 160."""
    model = sparse_model(("linear", 40, 50), 0.1, method="em&s", mutation_every=1, epochs=160)
    densities = [(model.begin_epoch(), model.density())[1] for _ in range(160)]
    steps = np.flatnonzero(np.diff(densities)) + 1
    assert steps.tolist() == [90, 120]


def test_cosine_decay():
    """From the full extra density to none at the second boundary, never rising."""
    model = sparse_model(
        ("linear", 100, 100), 0.1, method="em&s", mutation_decay="cosine", mutation_every=1,
        epochs=40, mutation_epochs=(10, 30),
    )  # fmt: skip
    densities = np.array([(model.begin_epoch(), model.density())[1] for _ in range(40)])
    expected = [0.1 + 0.05 * (1 + np.cos(np.pi * min(e / 30, 1))) / 2 for e in range(40)]
    np.testing.assert_allclose(densities, expected, atol=2e-4)


def test_extra_is_at_most_half_the_target():
    model = sparse_model(("linear", 100, 100), 0.02, method="em&s", epochs=10)
    model.begin_epoch()
    assert model.density() == pytest.approx(0.03, abs=1e-4)
    assert model.plan().active_peak - model.plan().active == 100


def test_static_mask():
    model = sparse_model(("linear", 30, 30), 0.1, epochs=10)
    before = state(model)
    assert not any(model.begin_epoch().mutated for _ in range(10))
    assert state(model) == before
    with pytest.raises(ValueError):
        model.mutate()


def test_set_csr_is_brought_to_the_target():
    """Any number of connections may be set; the next mutation restores the count."""
    model = sparse_model(("linear", 20, 10), 0.2, method="em", epochs=10)
    model.set_csr(1, [0, 1] + [1] * 9, [3], [2.0], [1.0])
    assert model.connections()[1] == 1
    model.mutate()
    assert model.connections()[1] == 40 and state(model)[3] == (2.0, 1.0)


@pytest.mark.parametrize("mode", ["em", "em&s"])
def test_set_csr_is_brought_to_the_target_when_settled(mode):
    """Past mutation_epochs[1] nothing is dropped, and what is missing still grows."""
    model = sparse_model(
        ("linear", 50, 40), 0.5, method=mode, mutation_every=1, epochs=9, mutation_epochs=(1, 2)
    )
    for _ in range(4):
        model.begin_epoch()
    for mutate in (model.mutate, model.begin_epoch):
        model.set_csr(1, [0, 1] + [1] * 39, [3], [2.0], [1.0])
        report = mutate()
        assert (report.dropped, report.grown) == (0, 999)
        assert model.connections()[1] == 1000 and state(model)[3] == (2.0, 1.0)
        assert (mutate().dropped, model.connections()[1]) == (0, 1000)


@pytest.mark.parametrize("network", [("linear", 20, 30), ("linear", 7, 5), ("conv", 5, 8)])
def test_excluding_where_little_else_is_free(network):
    """EM at 0.95 drops 0.19, later half of it; 0.05 others are free: dropped ones come back."""
    model = sparse_model(
        network, 0.95, method="em", mutation_every=1, epochs=16, exclude_dropped=True
    )
    part = model.plan().layers[1]
    free = part.rows * part.columns - part.active
    before = set(state(model))
    for _ in range(12):
        begun = model.begin_epoch()
        after = set(state(model))
        assert len(after) == part.active and begun.dropped == begun.grown
        assert begun.grown > free and len(after - before) == free, "others are taken first"
        before = after


def test_very_few_connections():
    """Shares of a density of 2e-6 are not rounded away."""
    layers = [Input(8192), Linear(8192, density=2e-6), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=1, method="em", mutation_every=1, epochs=16)
    active = model.plan().layers[1].active
    assert active == model.connections()[1] == 134
    for epoch in range(12):
        begun = model.begin_epoch()
        share = 0.2 if epoch < 9 else 0.1
        assert begun.dropped == begun.grown == pytest.approx(share * active, abs=1)
        assert model.connections()[1] == active


def test_mutation_report():
    layers = [Input(30), Linear(40, density=0.1), Linear(20, density=0.2), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=1, method="vanilla", mutation_rate=0.5, epochs=10)
    assert model.mutation().mutations == 0
    report = model.mutate()
    assert (report.mutations, len(report.layers)) == (1, 2)
    assert [part.layer for part in report.layers] == [1, 2]
    assert [part.positions for part in report.layers] == [1200, 800]
    assert [part.dropped for part in report.layers] == [60, 80]
    for what in ("dropped", "grown", "active", "positions"):
        assert getattr(report, what) == sum(getattr(part, what) for part in report.layers)
    assert report.density == pytest.approx(model.density()) == pytest.approx(280 / 2000)
    explored = [report.explored] + [model.mutate().explored for _ in range(20)]
    assert 0.14 < explored[0] < 0.30 and (np.diff(explored) > 0).all() and explored[-1] <= 1
