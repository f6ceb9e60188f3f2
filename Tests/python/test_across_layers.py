# SPDX-License-Identifier: Apache-2.0
"""What decides over several layers at once: DSR, one threshold for all, lottery tickets.  Against plain dense
matrices, random small cases; a failure names its seed."""

import numpy as np
import pytest
from moves import Units, amount, least, ratio, rounded, times
from randoms import Random
from support import positions

import mest
from mest import Input, Linear


def three_layers(rng, least, most):
    """Sizes from the input on, and the layers, of random densities."""
    sizes = [int(n) for n in rng.integers(3, 14, 4)]
    linear = [Linear(size, density=float(rng.uniform(least, most)), bias=False) for size in sizes[1:]]
    return sizes, [Input(sizes[0]), *linear]


# ----------------------------------------------------------------------------------------- DSR ---


SHARE = 8


def shared_out(kept, capacity, total, random):
    """Who has how many afterwards: shares of what has been kept as long as there is room, cut at the whole numbers
    of a line that begins at random."""
    after = list(kept)
    while total > 0:
        open_ = [i for i in range(len(kept)) if after[i] < capacity[i]]
        if not open_:
            break
        base = sum(kept[i] for i in open_)
        begin = random.below(base)
        ends = begin + total * np.cumsum([kept[i] for i in open_])
        cuts = [begin // base, *(int(end) // base for end in ends)]
        for i, low, high in zip(open_, cuts, cuts[1:]):
            given = min(capacity[i] - after[i], high - low)
            after[i] += given
            total -= given
    return after


@pytest.mark.parametrize("part", range(10))
def test_dsr(part):
    """One threshold for all layers, doubled or halved; what leaves comes back where most has stayed."""
    for seed in range(part * 20, part * 20 + 20):
        rng = np.random.default_rng(seed)
        sizes, layers = three_layers(rng, 0.1, 0.7)
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
            after = shared_out([len(s) for s in stay], capacity, dropped, Random(seed, SHARE, 0, epoch))
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


def test_dsr_favours_no_layer():
    """Of 20 equal layers none gets what does not divide again and again."""
    layers = [Input(32), *(Linear(32, density=0.1) for _ in range(20))]
    model = mest.Model(layers, method="dsr", mutation_rate=0.05, epochs=80, loss="mse", batch=1, mutation_epochs=(50, 60))
    rng, grown = np.random.default_rng(5), np.zeros(20)
    model.begin_epoch()
    for _ in range(59):
        for i in range(1, 21):
            model.set_tensor(i, "weight", rng.normal(size=model.connections()[i]).astype(np.float32) * np.float32(0.02))
        model.begin_epoch()
        grown += [layer.grown for layer in model.mutation().layers]
    assert grown.sum() > 2000 and grown.max() < 2 * grown.mean()


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
    """All layers together keep what their shares add up to, the largest of the network; growth is by layer."""
    for seed in range(part * 15, part * 15 + 15):
        rng = np.random.default_rng(seed)
        sizes, layers = three_layers(rng, 0.2, 0.5)
        shares = dict(method=method, mutation_epochs=(4, 8), mutation_rate=0.2)
        model = mest.Model(
            layers, global_threshold=True, epochs=12, mutation_every=1, batch=2, loss="mse",
            learning_rate=0.0, weight_decay=0.0, seed=seed, **shares,
        )  # fmt: skip
        capacity = [p.capacity for p in model.plan().layers[1:]]
        model.begin_epoch()
        for epoch in range(1, 12):
            held_before, keep, after = [], [], []
            for i in (1, 2, 3):
                csr = model.csr(i)
                values = (rng.normal(size=len(csr.values)) * 10 ** rng.uniform(-1, 1)).astype(np.float32)
                values[rng.random(len(values)) < 0.2] = np.float32(0.25)
                model.set_csr(i, csr.indptr, csr.indices, values)
                held_before.append((positions(csr, sizes[i - 1]), values))
                units = Units("unstructured", sizes[i], sizes[i - 1])
                wanted = amount(units, dict(shares, density=layers[i].density), epoch, len(values))
                keep.append(wanted[0]), after.append(wanted[1])
            leaving = max(0, sum(len(v) for _, v in held_before) - sum(keep))
            report = model.begin_epoch()
            gone = least_of_all([v for _, v in held_before], leaving)
            assert report.dropped == sum(map(len, gone)), f"seed {seed} epoch {epoch}"
            for i, (where, values) in enumerate(held_before):
                csr = model.csr(i + 1)
                stays = {int(where[j]): values[j] for j in range(len(values)) if j not in gone[i]}
                now = dict(zip(positions(csr, sizes[i]).tolist(), csr.values))
                # What has left may have come back, at 0.
                assert {p: v for p, v in now.items() if p in stays} == stays, f"seed {seed} epoch {epoch}"
                assert all(v == 0 for p, v in now.items() if p not in stays)
                grows = after[i] > keep[i]
                assert len(now) == (max(len(stays), after[i]) if grows else len(stays)) <= capacity[i]
        if method in ("em&s", "gmp"):
            assert 0 <= sum(model.connections()[1:]) - sum(keep) <= 2, f"seed {seed}"  # a layer keeps one


@pytest.mark.parametrize("method", ["set", "dsr", "rigl", "gse", "srigl"])
def test_who_says_itself_who_leaves_has_no_global_threshold(method):
    more = dict(scheme="fan_in" if method == "srigl" else None, density=0.5, epochs=8, steps_per_epoch=2)
    with pytest.raises(mest.MestArgumentError, match=f"global_threshold=True: method {method.upper()} says itself"):
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
            layers, method="lottery", mutation_rate=rate, mutation_every=1, epochs=60, batch=2, loss="mse",
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
            leaving = max(0, sum(len(values) for _, values in before) - sum(keep))
            report = model.begin_epoch()
            if not prunes:
                assert not report.mutated, f"seed {seed} epoch {epoch}"
                continue
            gone = least_of_all([values for _, values in before], leaving)
            assert (report.dropped, report.grown) == (sum(map(len, gone)), 0), f"seed {seed} epoch {epoch}"
            assert 0 <= sum(model.connections()[1:]) - sum(keep) <= 2, f"seed {seed} epoch {epoch}"  # a layer keeps one
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
        (dict(method="em", global_threshold=True, scheme="fan_in"), mest.UnsupportedError, "global_threshold=True needs"),
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
    model = mest.Model([Input(8), Linear(8)], method="lottery", mutation_every=2, density=0.7, epochs=8)
    with pytest.raises(mest.MestError, match="LOTTERY"):
        model.mutate()
