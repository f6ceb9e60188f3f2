# SPDX-License-Identifier: Apache-2.0
"""RigL and GSE: connections grow where the gradient is largest, against the dense gradient of a twin.  Random small
cases; a failure names its seed."""

import dataclasses

import numpy as np
import pytest
import reference
from moves import least, ratio
from randoms import GROWTH, Random
from support import positions, randomise, reference_of

import mest
from mest import Input, Linear


def rigl_share(epoch, update, steps, last, rate):
    """f = rate / 2 (1 + cos(pi t / T)), in billionths as the library rounds it."""
    position = (epoch + update / steps) / last
    if position > 1:
        return 0
    half = np.float32(0.5 * (1 + np.cos(np.pi * position)))
    return ratio(np.float32(rate) * half)


def full_twin(model, layers, **config):
    """The same network with every connection of the sparse layers, those that do not exist at 0: its
    gradients are those of all positions, to the bit."""
    full = [dataclasses.replace(l, density=0.999999) if getattr(l, "density", None) else l for l in layers]
    twin = mest.Model(full, **{**config, "method": "static"})
    for i, part in enumerate(model.plan().layers):
        for what in mest.TENSORS:
            if "gradient" in what or "momentum" in what or (what == "weight" and part.sparse):
                continue
            try:
                twin.set_tensor(i, what, model.tensor(i, what))
            except ValueError:
                pass
        if part.sparse:
            values = np.zeros(part.rows * part.columns, np.float32)
            values[positions(model.csr(i), part.columns)] = model.csr(i).values
            starts = np.arange(part.rows + 1) * part.columns
            twin.set_csr(i, starts, np.tile(np.arange(part.columns), part.rows), values)
    return twin


def rigl_network(rng):
    channels, classes = int(rng.integers(2, 5)), 3
    d = lambda: float(rng.uniform(0.15, 0.6))  # noqa: E731
    if rng.random() < 0.4:
        return [Input(7), Linear(9, density=d()), mest.ReLU(), Linear(classes, density=d())]
    size = int(rng.integers(3, 7))
    return [
        Input(channels, size, size),
        mest.Conv2d(5, 3, padding=1, density=d()), mest.BatchNorm(), mest.ReLU(),
        mest.Conv2d(6, int(rng.integers(1, 4)), stride=int(rng.integers(1, 3)), density=d()), mest.ReLU(),
        mest.GlobalAvgPool(), Linear(classes, density=d()),
    ]  # fmt: skip


class Doubtful(Exception):
    """A number lies so near to a boundary that doubles and the library's floats may say different things."""


def lot(weights, random, near):
    """Draws an index as likely as its weight, all alike where all are 0: the first whose running sum reaches
    a share of the total."""
    sums = np.cumsum(weights)
    if sums[-1] == 0:
        sums = np.arange(1.0, len(weights) + 1)

    def draw():
        wanted = random.unit() * sums[-1]
        if sums[-1] != len(weights) and np.abs(sums[:-1] - wanted).min(initial=np.inf) < near * sums[-1]:
            raise Doubtful
        return int(np.searchsorted(sums, wanted))

    return draw


def sampled(network, index, part, where, random, near=4e-6):
    """GSE: as many positions as there are connections, none of them connected, by |dy| and |x|."""
    layer, x, dy = network.layers[index], network.x[index][0], network.gradients[index]
    if any(isinstance(l, mest.ReLU) and np.abs(network.x[i][0]).min() < 1e-5 for i, l in enumerate(network.layers)):
        raise Doubtful
    outputs = lot(np.abs(dy).sum((0, 2, 3)), random, near)
    if isinstance(layer, mest.Conv2d):
        geometry = map(reference.pair, (layer.kernel, layer.stride, layer.padding))
        inputs = lot(np.abs(reference.windows(x, *geometry)).sum((0, 2, 3)).ravel(), random, near)
    else:
        inputs = lot(np.abs(x).sum((0, 2, 3)), random, near)
    active, found = set(where.tolist()), set()
    wanted = min(len(active), part.rows * part.columns - len(active))
    for _ in range(4 * wanted):
        if len(found) == wanted:
            break
        p = outputs() * part.columns + inputs()
        if p not in active:
            found.add(p)
    return found


@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("method", ["rigl", "gse"])
def test_growth_by_gradient(method, part):
    """Among everything that does not stay the largest gradients come (GSE: among a sample of what is not
    connected); who comes back keeps value and momentum.  No weight moves in that step."""
    compared = doubtful = 0
    for seed in range(part * 20, part * 20 + 20):
        rng = np.random.default_rng(seed)
        layers = rigl_network(rng)
        batch = int(rng.choice([3, 4, 7, 8, 13]))  # of one sample a linear layer's sums depend on the connections
        rate = float(rng.uniform(0.1, 0.9))
        config = dict(
            batch=batch, epochs=4, steps_per_epoch=4, mutation_epochs=(1, 3), method=method,
            mutation_updates=3, mutation_rate=rate, learning_rate=0.1, seed=seed, threads=1 + seed % 4,
            activations=str(rng.choice(["float32", "bfloat16"])) if method == "rigl" else "float32",
            recompute=[None, "block", "elementwise"][int(rng.integers(3))],
        )  # fmt: skip
        model = mest.Model(layers, **config)
        randomise(model, rng)
        shape = [n for n in (layers[0].channels, layers[0].height, layers[0].width)]
        for update in range(14):
            x = rng.normal(size=(batch, *(n for n in shape if n))).astype(np.float32)
            x = x.reshape(batch, -1) if isinstance(layers[1], Linear) else x
            y = rng.integers(0, 3, batch)
            moves = update % 3 == 0 and update < 12  # then the share is 0
            if not moves:
                assert not model.step(x, y).mutated, f"seed {seed} update {update}"
                continue
            sparse = [i for i, p in enumerate(model.plan().layers) if p.sparse]
            before = {
                i: (positions(model.csr(i), p.columns), np.array(model.csr(i).values),
                    model.tensor(i, "weight_momentum"))
                for i, p in enumerate(model.plan().layers) if p.sparse
            }  # fmt: skip
            twin = full_twin(model, layers, **config)
            if update == 0:
                twin.begin_epoch()
            loss = twin.step(x, y).loss
            exact = reference_of(model)
            exact.backward(reference.cross_entropy(exact.forward(as_picture(x), training=True), y)[1])
            number = model.mutation().mutations + 1
            report = model.step(x, y)
            share = rigl_share(update // 4, update % 4, 4, 3, rate)
            assert report.loss == loss, f"seed {seed} update {update}"
            for i in sparse:
                where, values, momentum = before[i]
                plan = model.plan().layers[i]
                count = share * len(where) // 10**9
                gone = least(values, range(len(where)), count)
                stay = {int(where[j]) for j in range(len(where)) if j not in gone}
                gradient = np.abs(twin.tensor(i, "weight_gradient"))
                rest = [p for p in range(plan.rows * plan.columns) if p not in stay]
                if method == "gse" and count:
                    try:
                        rest = sampled(exact, i, plan, where, Random(seed, GROWTH, i, number))
                    except Doubtful:
                        doubtful += 1
                        continue
                    gone = least(values, range(len(where)), min(count, len(rest)))
                    stay = {int(where[j]) for j in range(len(where)) if j not in gone}
                come = set(sorted(rest, key=lambda p: (-gradient[p], p))[:count])
                compared += bool(count)
                csr = model.csr(i)
                now = positions(csr, plan.columns)
                assert set(now.tolist()) == stay | come, f"seed {seed} update {update} layer {i}"
                old = {int(p): j for j, p in enumerate(where)}
                for p, value, m in zip(now.tolist(), csr.values, model.tensor(i, "weight_momentum")):
                    want = (values[old[p]], momentum[old[p]]) if p in old else (0, 0)
                    assert (value, m) == want, f"seed {seed} update {update} layer {i}"
    assert compared > 80 and doubtful < compared // 8


def as_picture(x):
    return x if x.ndim == 4 else x[:, :, None, None]


@pytest.mark.parametrize("seed", range(40))
def test_rigl_by_one_sample(seed):
    """The same at batch 1, where the last bits are others: who comes has at least the gradient of the
    last who would."""
    rng = np.random.default_rng(seed)
    layers = [Input(12), Linear(10, density=0.3), mest.ReLU(), Linear(4, density=0.4)]
    config = dict(batch=1, epochs=4, steps_per_epoch=4, method="rigl", learning_rate=0.1, seed=seed)
    model = mest.Model(layers, mutation_rate=0.6, **config)
    before = {i: (positions(model.csr(i), p), np.array(model.csr(i).values)) for i, p in ((1, 12), (3, 10))}
    twin = full_twin(model, layers, **config)
    x, y = rng.normal(size=(1, 12)).astype(np.float32), rng.integers(0, 4, 1)
    twin.step(x, y)
    assert model.step(x, y).mutated
    for i, columns in ((1, 12), (3, 10)):
        where, values = before[i]
        count = ratio(0.6) * len(where) // 10**9
        gone = least(values, range(len(where)), count)
        stay = {int(where[j]) for j in range(len(where)) if j not in gone}
        gradient = np.abs(twin.tensor(i, "weight_gradient"))
        last = sorted(gradient[p] for p in range(len(gradient)) if p not in stay)[-count]
        now = set(positions(model.csr(i), columns).tolist())
        assert stay <= now and len(now) == len(where)
        assert all(gradient[p] >= last * (1 - 1e-4) for p in now - stay)


def test_rigl_schedule():
    """Golden check G8: alpha 0.3 over 1000 updates."""
    layers = [Input(100), Linear(100, density=0.5)]
    model = mest.Model(
        layers, method="rigl", epochs=12, steps_per_epoch=100, mutation_epochs=(5, 10), batch=4, loss="mse",
        learning_rate=0.0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    moved = {}
    for update in range(1101):
        report = model.step(rng.normal(size=(4, 100)).astype(np.float32), np.zeros((4, 100), np.float32))
        if report.mutated:
            moved[update] = model.mutation()
    assert list(moved) == list(range(0, 1000, 100))  # at 1000 nothing would move
    want = {0: 0.3, 100: 0.292658, 500: 0.15, 900: 0.007342}
    for update, share in want.items():
        # Who was to leave and has a large gradient stays.
        assert moved[update].dropped == moved[update].grown <= share * 5000
    assert moved[0].grown > 0.2 * 5000


@pytest.mark.parametrize("method, steps, every", [("rigl", 60, 60), ("rigl", 150, 100), ("gse", 60, 60)])
def test_updates_between_mutations(method, steps, every):
    """The published number, but at least one mutation an epoch: a short training moves too."""
    layers = [Input(8), Linear(8, density=0.5)]
    model = mest.Model(layers, method=method, epochs=8, steps_per_epoch=steps, batch=1, loss="mse")
    x, target = np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)
    moved = [update for update in range(151) if model.step(x, target).mutated]
    assert moved == list(range(0, 151, every))


@pytest.mark.parametrize("still", ["inputs", "nothing"])
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_gse_counts(density, still):
    """Every 1000 updates a fifth, as far as so many are found: where few are free the draws end before all of
    them are.  Of inputs that are all 0 every one is as likely, and of equal gradients the lower position comes."""
    layers = [Input(40), Linear(25, density=density, bias=False)]
    model = mest.Model(
        layers, method="gse", epochs=3, steps_per_epoch=1200, batch=4, loss="mse", learning_rate=0.01, seed=7
    )
    rng = np.random.default_rng(1)
    for update in range(1001):
        x = rng.normal(size=(4, 40)).astype(np.float32)
        if still == "inputs":
            x[:] = 0
        where = positions(model.csr(1), 40)
        if update == 0:
            exact = reference_of(model)
            target = rng.normal(size=(4, 25)).astype(np.float32)
            exact.backward(reference.mean_squared_error(exact.forward(as_picture(x), training=True), target)[1])
            found = sampled(exact, 1, model.plan().layers[1], where, Random(7, GROWTH, 1, 1), 4e-7)
        report = model.step(x, target)
        assert report.mutated == (update % 1000 == 0)
        now = positions(model.csr(1), 40)
        assert len(now) == len(where) == density * 1000
        if update == 0:
            moved = min(len(where) // 5, len(found))
            assert model.mutation().dropped == model.mutation().grown == moved
            came = set(now.tolist()) - set(where.tolist())
            assert came <= found and len(came) == moved
            assert still == "nothing" or came == set(sorted(found)[:moved])
            assert (density > 0.1) == (len(found) < min(len(where), 1000 - len(where)))
            assert model.mutation().explored == pytest.approx(density + moved / 1000)


def test_gse_draws_where_the_gradient_can_be_large():
    """An output whose gradient and an input whose value are always 0 get nothing."""
    layers = [Input(30), Linear(30, density=0.2, bias=False)]
    model = mest.Model(layers, method="gse", mutation_rate=0.9, epochs=8, steps_per_epoch=10, batch=4, loss="mse")
    x = np.random.default_rng(0).normal(size=(4, 30)).astype(np.float32)
    x[:, 10:] = 0
    target = model.predict(x)
    target[:, :20] += 1
    before = set(positions(model.csr(1), 30).tolist())
    model.step(x, target)
    came = set(positions(model.csr(1), 30).tolist()) - before
    assert len(came) > 100 and all(p // 30 < 20 and p % 30 < 10 for p in came)


@pytest.mark.parametrize("method", ["rigl", "gse"])
def test_growth_by_gradient_needs_no_dense_gradient(method):
    """What the plan adds: 16 bytes a connection that moves, and scratch of the order of the connections."""
    layers = [Input(1024), Linear(1024, density=0.05)]
    common = dict(batch=1, epochs=8, steps_per_epoch=10)
    static = mest.plan(layers, **common)
    moving = mest.plan(layers, method=method, mutation_rate=0.3, **common)
    connections = 1024 * 1024 // 20
    extra = moving.total_bytes - static.total_bytes
    assert extra < 16 * 0.3 * connections + 20 * connections + 16 * 2048 * (method == "gse")
    assert extra < 4 * 1024 * 1024 / 2  # half of a dense gradient


@pytest.mark.parametrize(
    "config, error, words",
    [
        (dict(scheme="block4"), mest.UnsupportedError, "BLOCK4"),
        (dict(steps_per_epoch=None), mest.MestError, "steps_per_epoch"),
        (dict(epochs=None), mest.MestError, "epochs"),
        (dict(mutation_updates=0), ValueError, "mutation_updates"),
        # The gradient changes between the choice of who leaves and the move.
        (dict(importance_lambda=0.5), mest.MestError, "importance_gradient"),
    ],
)
@pytest.mark.parametrize("method", ["rigl", "gse"])
def test_growth_by_gradient_refuses(method, config, error, words):
    settings = dict(method=method, density=0.5, epochs=8, steps_per_epoch=10)
    with pytest.raises(error, match=words):
        mest.plan([Input(8), Linear(8)], **{**settings, **config})


@pytest.mark.parametrize("method", ["rigl", "gse"])
def test_growth_by_gradient_moves_within_a_step_only(method):
    model = mest.Model([Input(8), Linear(8)], method=method, density=0.5, epochs=8, steps_per_epoch=10)
    with pytest.raises(mest.MestError, match=method.upper()):
        model.mutate()
    assert not model.begin_epoch().mutated
