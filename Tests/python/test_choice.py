# SPDX-License-Identifier: Apache-2.0
"""Which connections a network begins with: the largest of a dense draw (initial="magnitude"), those that SNIP and GraSP
choose by the first batch.  The dense network to compare with is the library's own of the same seed, whose first values are
those that are drawn, and whose gradients are those of the parts, to the bit."""

import dataclasses
import gzip

import numpy as np
import pytest
import reference
from conftest import ROOT
from graphs import Graph
from moves import ratio
from support import fingerprint, positions, reference_of

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


# ----------------------------------------------------------------------------------------- SNIP ---


def sparse_layers(model):
    return [i for i, part in enumerate(model.plan().layers) if part.sparse]


def connections(model):
    """Positions of every sparse layer."""
    layers = model.plan().layers
    return {i: positions(model.csr(i), layers[i].columns) for i in sparse_layers(model)}


def snip_capacity(targets, sizes):
    """Room for twice the targets: a layer's own, or the level that all have at least."""
    level = 0
    room = lambda level: [max(t, min(level, n)) for t, n in zip(targets, sizes)]  # noqa: E731
    low, high = 0, 2**31 - 1
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if sum(room(level)) <= 2 * sum(targets) else (low, level - 1)
    return room(low)


def largest(scores, capacity, total):
    """Of each layer at most `capacity`, at least one; of all together `total`; equals: the first."""
    best = []
    for layer, (score, room) in enumerate(zip(scores, capacity)):
        order = sorted(range(len(score)), key=lambda p: (-score[p], p))[:room]
        best += [(-score[p] if p != order[0] else -np.inf, layer, p) for p in order]
    kept = [[] for _ in scores]
    for _, layer, p in sorted(best)[:total]:
        kept[layer].append(p)
    return [sorted(k) for k in kept]


def samples_for(layers, count, rng):
    shape = [n for n in (layers[0].channels, layers[0].height, layers[0].width) if n]
    return rng.normal(size=(count, *shape)).astype(np.float32)


def snip_case(seed):
    """A random network of every layer, its config, and a batch."""
    rng = np.random.default_rng(seed)
    batch = int(rng.choice([1, 2, 4, 5, 8, 13, 16, 17]))
    graph = Graph.random(seed, samples=batch)
    config = dict(
        batch=batch, density=float(rng.uniform(0.05, 0.6)), seed=seed, threads=int(rng.integers(1, 4)),
        micro_batches=int(rng.choice([1, 1, 2])), label_smoothing=float(rng.choice([0.0, 0.1])),
        gradient_chunks=int(rng.choice([1, 3, 16])), loss=str(rng.choice(["mse", "cross_entropy"])),
        activations=str(rng.choice(["float32", "bfloat16"])), learning_rate=0.0,
        recompute=[None, "block", "elementwise"][int(rng.integers(3))],
    )  # fmt: skip
    x = samples_for(graph.layers, batch, rng)
    y = rng.integers(0, graph.outputs, batch)
    return graph.layers, config, x, y if config["loss"] == "cross_entropy" else rng.normal(size=(batch, graph.outputs))


@pytest.mark.parametrize("part", range(20))
def test_snip(part):
    """The connections are those of the largest |gradient * weight| of the dense network, to the last one."""
    for seed in range(part * 100, part * 100 + 100):
        layers, config, x, y = snip_case(seed)
        try:
            model = mest.Model(layers, method="snip", **config)
        except mest.MestError as error:
            assert "every layer is dense" in str(error) or "FLATTEN" in str(error), f"seed {seed}: {error}"
            continue
        twin = dense_twin(model.layers, **config)
        sparse, plan = sparse_layers(model), model.plan().layers
        drawn = {i: twin.tensor(i, "weight").ravel() for i in sparse}
        before = connections(model)
        capacity = snip_capacity([plan[i].active for i in sparse], [plan[i].rows * plan[i].columns for i in sparse])
        assert capacity == [plan[i].capacity for i in sparse], f"seed {seed}"
        twin.step(x, y)
        scores = [np.abs(twin.tensor(i, "weight_gradient").ravel() * drawn[i]) for i in sparse]
        report = model.step(x, y)
        want = largest(scores, capacity, sum(plan[i].active for i in sparse))
        now = connections(model)
        for i, kept in zip(sparse, want):
            assert now[i].tolist() == kept, f"seed {seed} layer {i}"
            assert model.csr(i).values.tolist() == drawn[i][kept].tolist(), f"seed {seed} layer {i}"
        told = model.mutation()
        gone = sum(len(set(before[i]) - set(now[i])) for i in sparse)
        come = sum(len(set(now[i]) - set(before[i])) for i in sparse)
        assert (told.dropped, told.grown, told.mutations) == (gone, come, 1), f"seed {seed}"
        assert report.mutated == (gone + come > 0), f"seed {seed}"


def chooser(method, seed=0, **config):
    """Convolutions with batch norm, a residual connection, dropout; linear layers."""
    layers = [
        Input(2, 6, 5),
        Conv2d(6, 3, padding=1, bias=False), mest.BatchNorm(), ReLU(name="trunk"),
        Conv2d(6, 3, padding=1), mest.BatchNorm(), mest.Add(with_="trunk"), ReLU(),
        mest.MaxPool(2), mest.Flatten(), Linear(12), ReLU(), mest.Dropout(0.3), Linear(3, density=1.0),
    ]  # fmt: skip
    return mest.Model(layers, **{"batch": 5, "density": 0.2, "method": method, "seed": seed, **config})


def batch_for(model, seed=0, size=1.0):
    rng = np.random.default_rng(seed)
    return np.float32(size) * samples_for(model.layers, 5, rng), rng.integers(0, 3, 5)


@pytest.mark.parametrize("method", ["snip", "grasp"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_then_trains_as_if_given(method, micro_batches):
    """The steps are those of a model that was given the same connections: statistics, dropout, counters."""
    for seed in range(20):
        model, given = (chooser(method, seed, learning_rate=0.1, micro_batches=micro_batches) for _ in range(2))
        probe = chooser(method, seed, learning_rate=0.0, micro_batches=micro_batches)
        probe.step(*batch_for(probe, seed))
        for i in sparse_layers(model):
            given.set_csr(i, *[a.copy() for a in probe.csr(i)])
        for step in range(7):
            first, second = (m.step(*batch_for(m, seed + step)) for m in (model, given))
            assert (first.loss, first.update, first.updated) == (second.loss, second.update, second.updated)
            assert first.mutated == (step == 0) and not second.mutated, f"seed {seed} step {step}"
            assert fingerprint(model) == fingerprint(given), f"seed {seed} step {step}"
        assert (model.mutation().mutations, given.mutation().mutations) == (1, 0)


def same_as(model, twin):
    """Fingerprints, and the first steps to come."""
    assert fingerprint(model) == fingerprint(twin)
    for seed in range(2):
        assert model.step(*batch_for(model, seed)) == twin.step(*batch_for(twin, seed))
    assert fingerprint(model) == fingerprint(twin)


@pytest.mark.parametrize("method", ["snip", "grasp"])
@pytest.mark.parametrize("size", [1e25, 3e30, 3e38])
def test_what_is_not_finite_chooses_nothing(method, size):
    model, twin = chooser(method), chooser(method)
    with pytest.raises(mest.DivergedError):
        model.step(*batch_for(model, size=size / 5))
    assert model.mutation().mutations == 0 and model.begin_epoch().epoch == 1
    twin.begin_epoch(), twin.begin_epoch()
    same_as(model, twin)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_cancelled_anywhere(method):
    """Whoever stops the first step at any of its layers finds the model as it was, or the choice made."""
    reference_model = chooser(method)
    before = fingerprint(reference_model)
    stopped = []

    def stop(progress):
        stopped.append(progress.stage)
        return progress.stage == "mutate"

    model = chooser(method, on_progress=stop)
    with pytest.raises(mest.MestError):
        model.step(*batch_for(model))
    assert "mutate" in stopped and fingerprint(model) == before


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_who_sets_connections_has_chosen(method):
    for touch in ("csr", "momentum", "weight"):
        model = chooser(method)
        i = sparse_layers(model)[0]
        if touch == "csr":
            model.set_csr(i, *[a.copy() for a in model.csr(i)])
        else:
            what = "weight" if touch == "weight" else "weight_momentum"
            model.set_tensor(i, what, model.tensor(i, what))
        assert model.step(*batch_for(model)).mutated == (touch == "weight")


@pytest.mark.parametrize("method", ["snip", "grasp"])
@pytest.mark.parametrize("scheme", ["block4", "pattern", "2:4", "fan_in", "filter"])
def test_chooses_single_weights(method, scheme):
    layers = [Input(8, 6, 6), Conv2d(8, 3, density=0.4), Conv2d(8, 3), mest.GlobalAvgPool(), Linear(3)]
    with pytest.raises(mest.UnsupportedError, match=method.upper()):
        mest.plan(layers, scheme=scheme, method=method)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_chooses_once(method):
    model = chooser(method, epochs=8)
    with pytest.raises(ValueError, match="first Model.step"):
        model.mutate()
    assert [model.begin_epoch().mutated for _ in range(4)] == [False] * 4
    assert model.step(*batch_for(model)).mutated
    kept = connections(model)
    for _ in range(4):
        assert not model.begin_epoch().mutated and not model.step(*batch_for(model)).mutated
    assert all((kept[i] == now).all() for i, now in connections(model).items())
    told = model.mutation()
    assert told.explored == pytest.approx(told.density) and told.active == sum(map(len, kept.values()))
    with pytest.raises(ValueError, match="every layer is dense"):
        mest.plan([Input(8), Linear(8)], method=method)


def test_snip_needs_no_dense_tensor():
    """What the plan adds to that of static connections: room for as many again, and scratch of their order."""
    layers = [Input(1024), Linear(1024, density=0.05), ReLU(), Linear(8, density=1.0)]
    static, snip = (mest.plan(layers, batch=16, method=method) for method in ("static", "snip"))
    connections = 1024 * 1024 // 20
    extra = snip.total_bytes - static.total_bytes
    assert snip.layers[1].capacity == 2 * static.layers[1].capacity  # one layer: room for twice its target
    assert extra < 20 * connections + (32 + 4 * 4) * connections + 100_000  # candidates; value, gradient of a part
    assert extra < 4 * 1024 * 1024  # one dense tensor


def test_snip_room():
    """Small layers may become dense, the largest has the rest; twice the targets in all."""
    layers = [Input(10), Linear(20), Linear(200), Linear(300), Linear(2)]
    plan = mest.plan(layers, density=0.1, batch=1, method="snip").layers[1:]
    assert [p.active for p in plan] == [20, 400, 6000, 60]
    assert [p.capacity for p in plan] == snip_capacity([20, 400, 6000, 60], [200, 4000, 60000, 600])
    assert [p.capacity for p in plan] == [200, 4000, 2 * 6480 - 4800, 600]


# ---------------------------------------------------------------------------------------- GraSP ---

REACH = 1 / 16  # norm of the step along g, of that of the weights


def hessian_scores(model, gradient):
    """w * (g+ - g-) in floats, from gradient({layer: values}) of the same network."""
    sparse = sparse_layers(model)
    w = {i: np.array(model.csr(i).values) for i in sparse}
    g = gradient(w)
    norm = lambda of: sum((of[i].astype(float) ** 2).sum() for i in sparse)  # noqa: E731
    length = np.float32(REACH * np.sqrt(norm(w) / norm(g))) if norm(g) else np.float32(0)
    ahead = {i: w[i] + length * g[i] for i in sparse}
    behind = {i: w[i] - (ahead[i] - w[i]) for i in sparse}
    forth, back = gradient(ahead), gradient(behind)
    return [-(back[i] - forth[i]) * w[i] for i in sparse]


@pytest.mark.parametrize("part", range(20))
def test_grasp(part):
    """Those stay whose score, from three steps of the same network, is largest; values as they were, statistics too."""
    for seed in range(part * 50, part * 50 + 50):
        layers, config, x, y = snip_case(seed)
        rng = np.random.default_rng(seed)
        config = {**config, "loss": "mse"}  # there is no temperature
        superset = float(rng.choice([0.0, 0.7, 0.9, 1.0])) or None
        try:
            model = mest.Model(layers, method="grasp", initial_density=superset, **config)
        except mest.MestError as error:
            assert "every layer is dense" in str(error) or "initial_density" in str(error), f"seed {seed}: {error}"
            continue
        y = rng.normal(size=(len(x), model.plan().outputs))
        sparse, plan = sparse_layers(model), model.plan().layers
        before, values = connections(model), {i: np.array(model.csr(i).values) for i in sparse_layers(model)}
        for i in sparse:
            asked = ratio(layers[i].density or config["density"])
            share = max(asked, ratio(superset) if superset else min(10**9, 4 * asked))
            count = (share * plan[i].rows * plan[i].columns + 5 * 10**8) // 10**9
            assert len(before[i]) == max(1, count), f"seed {seed}"

        def gradient(weights):
            twin = mest.Model(layers, method="grasp", initial_density=superset, **config)
            for i, values in weights.items():
                csr = model.csr(i)
                twin.set_csr(i, csr.indptr, csr.indices, values)
            twin.step(x, y)
            return {i: twin.tensor(i, "weight_gradient").ravel() for i in weights}

        scores = hessian_scores(model, gradient)
        model.step(x, y)
        total = sum(plan[i].active for i in sparse)
        now = connections(model)
        assert sum(map(len, now.values())) == total and min(map(len, now.values())) >= 1, f"seed {seed}"
        want = largest(scores, [len(s) for s in scores], total)
        ranked = np.sort(np.concatenate(scores))
        for i, score, kept in zip(sparse, scores, want):
            got = np.flatnonzero(np.isin(before[i], now[i]))
            assert len(got) == len(now[i]), f"seed {seed}"
            assert model.csr(i).values.tolist() == values[i][got].tolist(), f"seed {seed} layer {i}"
            # The length of the step is a sum of doubles in another order, which may move last bits.
            wrong = np.setxor1d(got, kept)
            if len(wrong):
                cut = ranked[-total]
                assert np.abs(score[wrong] - cut).max() <= 1e-4 * np.abs(ranked).max(), f"seed {seed} layer {i}"


def soft_gradient(network, x, y, temperature=200):
    z = network.forward(x, training=True) / temperature
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return network.backward(p / len(y) / temperature)


@pytest.mark.parametrize("seed", range(10))
def test_grasp_by_cross_entropy(seed):
    """With the labels' loss the outputs are divided by 200: against double precision, the same step."""
    rng = np.random.default_rng(seed)
    layers = [Input(12), Linear(30), ReLU(), Linear(20), ReLU(), Linear(5, density=1.0)]
    model = mest.Model(layers, method="grasp", density=0.15, batch=32, seed=seed, learning_rate=0.0)
    x, y = rng.normal(size=(32, 12)).astype(np.float32), rng.integers(0, 5, 32)
    network, sparse = reference_of(model), sparse_layers(model)
    before = connections(model)

    def gradient(weights):
        for i, values in weights.items():
            network.parameters[i]["weight"].ravel()[before[i]] = values
        found = soft_gradient(network, x[:, :, None, None], y)
        return {i: found[i]["weight"].ravel()[before[i]] for i in weights}

    scores = hessian_scores(model, gradient)
    model.step(x, y)
    want = largest(scores, [len(s) for s in scores], sum(model.plan().layers[i].active for i in sparse))
    now = connections(model)
    same = sum(len(np.intersect1d(before[i][kept], now[i])) for i, kept in zip(sparse, want))
    assert same >= 0.97 * sum(map(len, want)), f"{same} of {sum(map(len, want))}"


def test_grasp_plans_its_candidates():
    layers = [Input(100), Linear(100, density=0.1), ReLU(), Linear(10, density=0.5)]
    plan = mest.plan(layers, method="grasp")
    assert [plan.layers[i].active for i in (1, 3)] == [1000, 500]
    assert [plan.layers[i].capacity for i in (1, 3)] == [4000, 1000]
    plan = mest.plan(layers, method="grasp", initial_density=0.6)
    assert [plan.layers[i].capacity for i in (1, 3)] == [6000, 600]
    with pytest.raises(ValueError, match="initial_density"):
        mest.plan(layers, method="grasp", initial_density=0.4)
    static = mest.plan([Input(100), Linear(100, density=0.6), ReLU(), Linear(10, density=0.6)])
    assert static.total_bytes == plan.total_bytes  # no other memory


# ------------------------------------------------------------------------------------- accuracy ---


def digits():
    with gzip.open(ROOT / "examples" / "data" / "digits.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    return table[:, :64] / 16, table[:, 64].astype(int)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_learns_the_digits_as_well_as_random_connections(method):
    """At 3 % of a network of three layers; means of three seeds."""
    x, y = digits()
    accuracy = {}
    for each in (method, "static"):
        right = []
        for seed in range(3):
            model = mest.Model(
                mest.mlp(64, [128, 64], 10), density=0.03, method=each, seed=seed, batch=100, epochs=10,
                samples=1400, learning_rate=0.1, schedule="cosine",
            )  # fmt: skip
            for epoch in range(10):
                order = np.random.default_rng(epoch).permutation(1400)
                for first in range(0, 1400, 100):
                    some = order[first : first + 100]
                    model.step(x[some], y[some])
            right.append(model.evaluate(x[1400:], y[1400:]).accuracy)
        accuracy[each] = np.mean(right)
    assert accuracy[method] >= accuracy["static"] - 0.02, accuracy
