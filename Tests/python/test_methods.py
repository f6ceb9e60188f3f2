# SPDX-License-Identifier: Apache-2.0
"""Methods that move connections, each against its definition on plain dense matrices: which connections
leave, which come, with what values and state.  Random small cases; a failure names its seed."""

import dataclasses

import numpy as np
import pytest
import reference
from moves import GROWTH, ratio, rounded, times
from randoms import Random, floyd
from support import positions, randomise, reference_of

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


def least(values, where, count):
    """The `count` of `where` (indices) that are nearest to 0; equals: the lower index."""
    order = sorted(where, key=lambda j: (abs(values[j]), j))
    return set(order[:count])


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


# ----------------------------------------------------------------------------------- RigL, GSE ---


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


@pytest.mark.parametrize("still", ["inputs", "nothing"])
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_gse_counts(density, still):
    """Every 1000 updates a fifth, as far as so many are found: where few are free the draws end before all of
    them are.  Of inputs that are all 0 every one is as likely, and of equal gradients the lower position comes."""
    layers = [Input(40), Linear(25, density=density, bias=False)]
    model = mest.Model(
        layers, method="gse", epochs=80, steps_per_epoch=25, batch=4, loss="mse", learning_rate=0.01, seed=7
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


# ----------------------------------------------------------------------------------------- DSR ---


def shared_out(kept, capacity, total):
    """Who has how many afterwards: shares of what has been kept, rounded down, as long as there is room;
    where all shares are 0 the first with room gets one."""
    after = list(kept)
    while total > 0:
        base = sum(k for k, a, c in zip(kept, after, capacity) if a < c)
        if base == 0:
            break
        shares = [min(c - a, total * k // base) for k, a, c in zip(kept, after, capacity)]
        if sum(shares) == 0:
            shares[[a < c for a, c in zip(after, capacity)].index(True)] = 1
        after = [a + s for a, s in zip(after, shares)]
        total -= sum(shares)
    return after


@pytest.mark.parametrize("part", range(10))
def test_dsr(part):
    """One threshold for all layers, doubled or halved; what leaves comes back where most has stayed."""
    for seed in range(part * 20, part * 20 + 20):
        rng = np.random.default_rng(seed)
        sizes = [int(n) for n in rng.integers(3, 14, 4)]
        layers = [Input(sizes[0])]
        for size in sizes[1:]:
            layers.append(Linear(size, density=float(rng.uniform(0.1, 0.7)), bias=False))
        rate = float(rng.uniform(0.05, 0.6))
        model = mest.Model(
            layers, method="dsr", mutation_rate=rate, exclude_dropped=bool(seed % 2), epochs=12,
            mutation_epochs=(3, 9), batch=2, loss="mse", learning_rate=0.0, weight_decay=0.0, seed=seed,
        )  # fmt: skip
        capacity = [part.capacity for part in model.plan().layers[1:]]
        total, threshold = sum(model.connections()), np.float32(1e-3)
        model.begin_epoch()
        for epoch in range(1, 12):
            held_before = []
            for i in (1, 2, 3):
                csr = model.csr(i)
                values = (rng.normal(size=len(csr.values)) * 10 ** rng.uniform(-4, -1)).astype(np.float32)
                momentum = rng.normal(size=len(values)).astype(np.float32)
                model.set_csr(i, csr.indptr, csr.indices, values, momentum)
                held_before.append((positions(csr, sizes[i - 1]), values, momentum))
            report = model.begin_epoch()
            if epoch >= 9:
                assert not report.mutated
                continue
            stay = []
            for where, values, _ in held_before:
                below = [j for j in range(len(values)) if abs(values[j]) < threshold]
                gone = least(values, below, min(len(below), len(values) - 1))
                stay.append([j for j in range(len(values)) if j not in gone])
            dropped = sum(len(v) for _, v, _ in held_before) - sum(map(len, stay))
            after = shared_out([len(s) for s in stay], capacity, dropped)
            for i, (where, values, momentum) in enumerate(held_before):
                csr = model.csr(i + 1)
                now = positions(csr, sizes[i]).tolist()
                assert len(now) == after[i] <= capacity[i], f"seed {seed} epoch {epoch} layer {i + 1}"
                old = {int(where[j]): j for j in stay[i]}
                assert set(old) <= set(now), f"seed {seed} epoch {epoch} layer {i + 1}"
                for p, value, m in zip(now, csr.values, model.tensor(i + 1, "weight_momentum")):
                    want = (values[old[p]], momentum[old[p]]) if p in old else (0, 0)
                    assert (value, m) == want, f"seed {seed} epoch {epoch} layer {i + 1}"
            assert sum(model.connections()) == total
            wanted = (ratio(rate) * total + 500_000_000) // 10**9
            if 10 * dropped > 11 * wanted:
                threshold *= np.float32(0.5)
            elif 10 * dropped < 9 * wanted:
                threshold *= np.float32(2)


def test_dsr_moves_connections_between_layers():
    """Where weights are small connections leave; memory for twice a layer's target is planned."""
    layers = [Input(30), Linear(30, density=0.2), Linear(30, density=0.2)]
    model = mest.Model(layers, method="dsr", mutation_rate=0.3, epochs=20, loss="mse", batch=1)
    assert [p.capacity for p in model.plan().layers[1:]] == [360, 360]
    model.begin_epoch()
    for _ in range(14):
        for i, scale in ((1, 1.0), (2, 0.01)):
            csr = model.csr(i)
            values = scale * np.linspace(0.5, 1, len(csr.values), dtype=np.float32)
            model.set_csr(i, csr.indptr, csr.indices, values)
        model.begin_epoch()
    first, second = model.connections()[1:]
    assert first + second == 360 and first > 300
    with pytest.raises(mest.UnsupportedError, match="DSR"):
        mest.plan(layers, method="dsr", scheme="block4", epochs=20)


# ------------------------------------------------------------- global threshold, lottery tickets ---


def least_of_all(parts, count):
    """Of each layer the connections that are among the `count` least of all; equals: layer by layer."""
    order = sorted(
        ((abs(v), i, j) for i, values in enumerate(parts) for j, v in enumerate(values)), key=lambda t: t
    )
    gone = [set() for _ in parts]
    for _, i, j in order[:count]:
        gone[i].add(j)
    for i, values in enumerate(parts):  # a layer keeps its largest
        if len(gone[i]) == len(values):
            gone[i].remove(max(range(len(values)), key=lambda j: (abs(values[j]), j)))
    return gone


@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("method", ["vanilla", "em", "em&s", "gmp"])
def test_global_threshold(part, method):
    for seed in range(part * 15, part * 15 + 15):
        rng = np.random.default_rng(seed)
        sizes = [int(n) for n in rng.integers(3, 14, 4)]
        layers = [Input(sizes[0])]
        for size in sizes[1:]:
            layers.append(Linear(size, density=float(rng.uniform(0.2, 0.5)), bias=False))
        model = mest.Model(
            layers, method=method, global_threshold=True, epochs=12, mutation_every=1, batch=2, loss="mse",
            learning_rate=0.0, weight_decay=0.0, seed=seed,
        )  # fmt: skip
        alone = mest.Model(layers, **{**vars(model.config), "global_threshold": False})
        capacity = [p.capacity for p in model.plan().layers[1:]]
        model.begin_epoch(), alone.begin_epoch()
        for epoch in range(1, 12):
            held_before = []
            for i in (1, 2, 3):
                csr = model.csr(i)
                values = (rng.normal(size=len(csr.values)) * 10 ** rng.uniform(-1, 1)).astype(np.float32)
                values[rng.random(len(values)) < 0.2] = np.float32(0.25)
                model.set_csr(i, csr.indptr, csr.indices, values)
                held_before.append((positions(csr, sizes[i - 1]), values))
            # By layer as many leave as of layers of these sizes: the same total.
            for i in (1, 2, 3):
                csr = model.csr(i)
                alone.set_csr(i, csr.indptr, csr.indices, csr.values)
            report, by_layer = model.begin_epoch(), alone.begin_epoch()
            gone = least_of_all([v for _, v in held_before], by_layer.dropped)
            assert report.dropped == sum(map(len, gone)), f"seed {seed} epoch {epoch}"
            for i, (where, values) in enumerate(held_before):
                csr = model.csr(i + 1)
                stays = {int(where[j]): values[j] for j in range(len(values)) if j not in gone[i]}
                now = dict(zip(positions(csr, sizes[i]).tolist(), csr.values))
                # What has left may have come back, at 0.
                assert {p: v for p, v in now.items() if p in stays} == stays, f"seed {seed} epoch {epoch}"
                assert all(v == 0 for p, v in now.items() if p not in stays)
                assert 1 <= len(now) <= capacity[i]
                if method == "gmp":
                    assert set(now) == set(stays)


@pytest.mark.parametrize("method", ["set", "dsr", "rigl", "gse", "srigl"])
def test_who_says_itself_who_leaves_has_no_global_threshold(method):
    more = dict(scheme="fan_in" if method == "srigl" else None, density=0.5, epochs=8, steps_per_epoch=2)
    with pytest.raises(mest.MestArgumentError, match=f"GLOBAL: method {method.upper()} says itself"):
        mest.plan([Input(8), Linear(8)], method=method, global_threshold=True, **more)


@pytest.mark.parametrize("part", range(5))
def test_lottery(part):
    """Random networks: each round has the largest of all layers, at the first values, without momentum."""
    for seed in range(part * 40, part * 40 + 40):
        rng = np.random.default_rng(seed)
        sizes = [int(n) for n in rng.integers(2, 12, 4)]
        layers, rate = [Input(sizes[0])], float(rng.uniform(0.05, 0.9))
        for size in sizes[1:]:
            layers.append(Linear(size, density=float(rng.uniform(0.1, 0.9)), bias=False))
        target = [ratio(layer.density) for layer in layers[1:]]
        model = mest.Model(
            layers, method="lottery", mutation_rate=rate, mutation_every=1, epochs=12, batch=2, loss="mse",
            threads=1 + seed % 4, exclude_dropped=bool(seed % 2), seed=seed,
        )  # fmt: skip
        model.begin_epoch()
        density, first = [10**9] * 3, []
        for i, columns in enumerate(sizes[:-1]):
            csr = model.csr(i + 1)
            first.append(dict(zip(positions(csr, columns).tolist(), csr.values)))
            assert len(first[i]) == columns * sizes[i + 1]
        for epoch in range(1, 12):
            before = []
            for i in (1, 2, 3):
                values = rng.normal(size=model.connections()[i]).astype(np.float32)
                values[rng.random(len(values)) < 0.2] = np.float32(0.25)
                model.set_tensor(i, "weight", values), model.set_tensor(i, "weight_momentum", values)
                before.append((positions(model.csr(i), sizes[i - 1]), values))
            prunes = any(d > t for d, t in zip(density, target))
            density = [max(t, times(d, 10**9 - ratio(rate))) if d > t else t for d, t in zip(density, target)]
            keep = [rounded(len(f), d) for f, d in zip(first, density)]
            leaving = sum(max(0, len(values) - n) for (_, values), n in zip(before, keep))
            report = model.begin_epoch()
            if not prunes:
                assert not report.mutated, f"seed {seed} epoch {epoch}"
                continue
            gone = least_of_all([values for _, values in before], leaving)
            assert (report.dropped, report.grown) == (sum(map(len, gone)), 0), f"seed {seed} epoch {epoch}"
            for i, (where, values) in enumerate(before):
                stay = [int(p) for j, p in enumerate(where) if j not in gone[i]]
                assert positions(model.csr(i + 1), sizes[i]).tolist() == stay, f"seed {seed} epoch {epoch}"
                assert model.csr(i + 1).values.tolist() == [first[i][p] for p in stay], f"seed {seed} epoch {epoch}"
                assert not model.tensor(i + 1, "weight_momentum").any()


def test_lottery_rounds_and_rewinding():
    """0.8, 0.64 ... of the connections, the largest of all layers, at their first values; everything else
    as in the beginning, and the learning rate too."""
    layers = [Input(1, 6, 6), mest.Conv2d(6, 3, padding=1), mest.BatchNorm(), mest.ReLU(),
              mest.GlobalAvgPool(), Linear(12), mest.ReLU(), Linear(3, density=1.0)]  # fmt: skip
    settings = dict(
        density=0.3, method="lottery", mutation_every=3, epochs=30, batch=8, steps_per_epoch=2,
        learning_rate=0.1, schedule="cosine", seed=3,
    )  # fmt: skip
    model = mest.Model(layers, **settings)
    assert model.density() == 1.0 and model.plan().active_peak > 3 * 0.3 * model.plan().active
    names = [(i, what) for i in range(len(layers)) for what in mest.TENSORS if "gradient" not in what]

    def all_of(model):
        found = {}
        for i, what in names:
            try:
                found[i, what] = model.tensor(i, what).ravel()
            except ValueError:
                pass
        return found

    first = all_of(model)
    first_at = {i: dict(zip(positions(model.csr(i), p.columns).tolist(), model.csr(i).values))
                for i, p in enumerate(model.plan().layers) if p.sparse}  # fmt: skip
    rng = np.random.default_rng(0)
    rates, share = [], 1.0
    for epoch in range(24):
        before = {i: (positions(model.csr(i), model.plan().layers[i].columns), np.array(model.csr(i).values))
                  for i in first_at}  # fmt: skip
        report = model.begin_epoch()
        rates.append(report.learning_rate)
        if epoch and epoch % 3 == 0 and share > 0.3:
            share = max(0.3, share * 0.8)
            assert report.mutated and report.grown == 0
            assert model.density() == pytest.approx(share, abs=0.01)
            gone = least_of_all([v for _, v in before.values()], report.dropped)
            for (i, (where, values)), left in zip(before.items(), gone):
                now = positions(model.csr(i), model.plan().layers[i].columns)
                assert set(now.tolist()) == {int(where[j]) for j in range(len(values)) if j not in left}
                assert [first_at[i][p] for p in now.tolist()] == model.csr(i).values.tolist()
            for key, values in all_of(model).items():
                if key[1] == "weight" and key[0] in first_at:
                    continue
                want = first[key] if key[1] != "weight_momentum" else np.zeros_like(values)
                assert np.array_equal(values, want), key
        else:
            assert not report.mutated
        for _ in range(2):
            model.step(rng.normal(size=(8, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, 8))
    assert rates == rates[:3] * 8 and rates[0] > rates[1] > rates[2]
    assert share == 0.3


@pytest.mark.parametrize(
    "config, error, words",
    [
        (dict(method="lottery"), mest.MestError, "mutation_every"),
        (dict(method="lottery", mutation_every=2, warmup_epochs=2), mest.MestError, "warmup_epochs"),
        (dict(method="lottery", mutation_every=2, scheme="block4"), mest.UnsupportedError, "LOTTERY"),
        (dict(method="em", global_threshold=True, scheme="fan_in"), mest.UnsupportedError, "GLOBAL"),
    ],
)
def test_what_needs_single_weights(config, error, words):
    with pytest.raises(error, match=words):
        mest.plan([Input(8), Linear(8)], **{**dict(density=0.5, epochs=8), **config})


@pytest.mark.parametrize("config", [dict(method="dsr"), dict(method="em", global_threshold=True)])
def test_scratch_of_what_may_all_leave_one_layer(config):
    """With exclude_dropped every position that leaves is noted, and all may leave the same layer."""
    layers = [Input(40), Linear(40, density=0.5, bias=False), Linear(4, density=0.5, bias=False)]
    plan = mest.plan(layers, epochs=8, exclude_dropped=True, **config)
    assert plan.mutation_bytes >= 4 * plan.layers[1].capacity
    model = mest.Model(layers, epochs=8, exclude_dropped=True, mutation_every=1, loss="mse", batch=1, **config)
    model.begin_epoch()
    for i, scale in ((1, 1e-9), (2, 1.0)):
        csr = model.csr(i)
        model.set_csr(i, csr.indptr, csr.indices, scale * np.linspace(0.5, 1, len(csr.values)))
    model.begin_epoch()
    for i in (1, 2):
        where = positions(model.csr(i), 40)
        assert len(set(where.tolist())) == len(where) > 0


def test_a_lottery_prunes_between_rounds_only():
    """A call of mutate would throw a round's training away."""
    model = mest.Model([Input(8), Linear(8)], method="lottery", mutation_every=2, density=0.5, epochs=8)
    with pytest.raises(mest.MestError, match="LOTTERY"):
        model.mutate()
