# SPDX-License-Identifier: Apache-2.0
"""Golden check G13 for every scheme, through the API: counts, order, constraints, who survives and how, one seed one
result, bytes.  And odd shapes: every scheme holds or says why not.

What FILTER and CHANNEL do is compared with a second implementation in test_channel_mutation.py.
"""

import math

import numpy as np
import pytest
import reference
from cases import SCHEMES, units_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import fingerprint, positions
from test_schemes import check

import mest
from mest import Conv2d, Flatten, Input, Linear, ReLU

THIN = ("filter", "channel")
DENSEST = {"pattern": 4 / 9, "nm24": 0.5}
SPARSE = 2  # the layer that has the scheme, between two dense ones


def network(scheme, inputs, outputs, kernel, density):
    """kernel None: linear layers."""
    sparse = dict(density=density, scheme=scheme)
    if kernel is None:
        return [Input(3), Linear(inputs, density=1.0), Linear(outputs, **sparse), ReLU(), Linear(2, density=1.0)]
    side = max(3, kernel)
    return [
        Input(3, side, side), Conv2d(inputs, 1, density=1.0), Conv2d(outputs, kernel, **sparse), ReLU(), Flatten(),
        Linear(2, density=1.0),
    ]  # fmt: skip


def data_of(model, rng):
    x = rng.normal(size=(model.config.batch, *model.plan().layers[0].shape)).astype(np.float32)
    return x, rng.integers(0, 2, len(x))


def taps_of(model):
    layer = model.layers[SPARSE]
    return layer.kernel**2 if isinstance(layer, Conv2d) else 1


def state(model):
    """{position: (value, momentum)} of the sparse layer, in order on the way."""
    part, csr = model.plan().layers[SPARSE], model.csr(SPARSE)
    assert csr.indptr[0] == 0 and csr.indptr[-1] == len(csr.indices) == len(csr.values) == model.connections()[SPARSE]
    where = positions(csr, part.columns)
    assert (np.diff(where) > 0).all(), "columns ascend in each row, no position twice"
    assert not len(where) or csr.indices.max() < part.columns
    momentum = model.tensor(SPARSE, "weight_momentum")
    return dict(zip(where.tolist(), zip(csr.values.tolist(), momentum.tolist())))


def check_constraint(scheme, model, found):
    """What the scheme promises."""
    part, taps = model.plan().layers[SPARSE], taps_of(model)
    connected = np.zeros(part.rows * part.columns, int)
    connected[list(found)] = 1
    connected = connected.reshape(part.rows, part.columns)
    check(scheme, connected, taps)
    if part.scheme == "pattern":
        kernels = connected.reshape(part.rows, -1, 9)
        assert set(kernels[kernels.any(2)].sum(1)) <= {4}
    if scheme in THIN:
        rows, inputs = connected.any(1), connected.reshape(part.rows, -1, taps).any((0, 2))
        assert (connected == np.outer(rows, np.repeat(inputs, taps))).all() and rows.any()


class Pools:
    """Units as the header describes them: how many can be, and where each one's weights are."""

    def __init__(self, model):
        part, taps = model.plan().layers[SPARSE], taps_of(model)
        rows, inputs = part.rows, part.columns // taps
        high, wide = units_of(part.scheme)
        self.count, self.size, self.share, self.taps = 1, -(-rows // high) * -(-inputs // wide) * taps, 1.0, taps
        self.most = self.size
        self.shape, self.blocks, self.pattern = (rows, inputs, taps), (high, wide), part.scheme == "pattern"
        if part.scheme == "fan_in":
            self.count, self.size = rows, part.columns
        if self.pattern:
            self.count, self.size, self.share = rows, inputs, 9 / 4
        if part.scheme == "nm24":
            self.most = rows * (part.columns // 4 * 2 + min(2, part.columns % 4))
        self.most = min(self.most, self.size)

    def units(self, found):
        """{(pool, unit): (how many weights, square of its norm)}."""
        rows, inputs, taps = self.shape
        squares = {}
        for position, (value, _) in found.items():
            row, column = divmod(position, inputs * taps)
            channel, tap = divmod(column, taps)
            key = (row // self.blocks[0], channel // self.blocks[1], 0 if self.pattern else tap)
            pool = row if self.count > 1 else 0
            squares.setdefault((pool, key), []).append(value * value)
        return {unit: (len(each), sum(each)) for unit, each in squares.items()}

    def target(self, density):
        """Units of a pool, unless the density is just between two numbers."""
        exact = min(1.0, density * self.share) * self.size
        assume(abs(exact - np.floor(exact) - 0.5) > 1e-3)
        return min(self.most, reference.count_exact(self.size, min(1.0, density * self.share)))

    def after(self, mode, density, epoch, extra):
        """(units kept at most, units at the end) in a pool, by mutation_rate 0.2 on phases (3, 6)."""
        low, high = reference.mutation_densities(mode, density, epoch, (3, 6), extra=extra)
        keep, after = self.target(low), self.target(high)
        if self.count > 1 and keep >= after and high > low:  # at least one of a row moves
            keep, after = (keep, min(self.most, keep + 1)) if mode == "em&s" else (max(1, after - 1), after)
        return keep, after


@pytest.mark.parametrize("scheme", SCHEMES + THIN)
@settings(max_examples=18, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, None, 1, 2, 3])),
    density=st.floats(0.02, 0.6), mode=st.sampled_from(["vanilla", "em", "em&s"]),
    exclude=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_g13(scheme, shape, density, mode, exclude, seed):
    inputs, outputs, kernel = shape
    if kernel:
        inputs, outputs = 1 + inputs // 2, 1 + outputs // 2
    density = float(np.float32(min(density, 0.9 * DENSEST.get(scheme, 1))))
    extra = min(0.05, density / 2)
    config = dict(
        batch=2, method=mode, mutation_every=1, epochs=8, mutation_epochs=(3, 6), mutation_extra=extra,
        exclude_dropped=exclude, seed=seed, learning_rate=0.05, momentum=0.9,
    )  # fmt: skip
    layers = network(scheme, inputs, outputs, kernel, density)
    model, twin = mest.Model(layers, **config), mest.Model(layers, **config)
    part, pools = model.plan().layers[SPARSE], None if scheme in THIN else Pools(model)
    rng = np.random.default_rng(seed)
    found = state(model)
    if pools:
        assert len(pools.units(found)) == pools.count * pools.target(density), "the target, before the first mutation"
    for epoch in range(8):
        before = found
        report = model.begin_epoch()
        twin.begin_epoch()
        found = state(model)
        check_constraint(scheme, model, found)
        assert fingerprint(model) == fingerprint(twin), "one seed, one result"
        assert len(found) == model.connections()[SPARSE] <= part.capacity
        moved = model.mutation()
        assert (moved.dropped, moved.grown) == (report.dropped, report.grown)
        if scheme not in THIN:
            assert report.grown - report.dropped == len(found) - len(before)
        for position, vm in found.items():
            old = before.get(position)
            grown = vm[1] == 0.0 if scheme in THIN else vm == (0.0, 0.0)
            assert vm == old or grown, "survivors keep value and momentum, grown ones begin at 0"
            assert not (scheme == "channel" and old is None and vm[0] != 0.0)
        if pools:
            keep, after = pools.after(mode, density, epoch, extra)
            old, new = pools.units(before), pools.units(found)
            assert len(new) == pools.count * after, "as many units as the schedule says"
            # Of units whose norms differ: those that left were no larger than those that stayed, in each pool those of
            # as many weights; of all the same share leaves, within one.
            for pool in range(pools.count):
                of_pool = {u: found for (p, u), found in old.items() if p == pool}
                leave = max(0, len(of_pool) - keep)
                small = sum(size < part.unit for size, _ in of_pool.values())
                for size in {size for size, _ in of_pool.values()}:
                    had = {u: square for u, (own, square) in of_pool.items() if own == size}
                    of_small = leave * small / len(of_pool)
                    most = math.ceil(of_small) if size < part.unit else leave - math.floor(of_small)
                    least = sorted(had.values())[:most]
                    stays = {u for u, square in had.items() if least and square > least[-1] * (1 + 1e-5)}
                    assert not least or stays <= {u for p, u in new if p == pool}
        model_x, model_y = data_of(model, rng)
        for each in (model, twin):
            each.step(model_x, model_y)
        found = state(model)
    model.close(), twin.close()


def odd_shapes():
    """Every size of outputs and of inputs from 1 to 20, each met with another one."""
    order = np.random.default_rng(7).permutation(20)
    return [(size + 1, int(order[size]) + 1) for size in range(20)]


@pytest.mark.parametrize("kernel", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("scheme", SCHEMES + THIN)
def test_odd_shapes(scheme, kernel):
    """Sizes that no unit divides are planned, trained, moved, and come back through CSR."""
    for outputs, inputs in odd_shapes():
        layers = network(scheme, inputs, outputs, kernel, 0.4)
        config = dict(batch=2, method="em", mutation_every=1, epochs=8, learning_rate=0.05, momentum=0.9)
        plan = mest.plan(layers, **config)
        model, other = mest.Model(layers, seed=1, **config), mest.Model(layers, seed=2, **config)
        assert plan.total_bytes == model.plan().total_bytes
        rng = np.random.default_rng(outputs)
        for _ in range(2):
            model.begin_epoch()
            report = model.step(*data_of(model, rng))
            assert np.isfinite(report.loss)
            check_constraint(scheme, model, state(model))
        model.mutate()
        found = state(model)
        check_constraint(scheme, model, found)
        assert len(found) >= 1
        other.set_csr(SPARSE, model.csr(SPARSE), momentum=model.tensor(SPARSE, "weight_momentum"))
        assert state(other) == found, "there and back"
        other.step(*data_of(other, rng))
        model.close(), other.close()


@pytest.mark.parametrize("scheme", SCHEMES + THIN)
def test_nothing_has_the_size_of_the_matrix(scheme):
    """16 M positions of which 1 in 1000 exists, mutation included: less than a fifth of a dense gradient.
    FILTER keeps 3 of 100 outputs, whole."""
    layers = [Input(64), Linear(4096, density=1.0), Linear(4096, density=0.001, scheme=scheme), Linear(2, density=1.0)]
    plan = mest.plan(layers, batch=1, method="em&s", epochs=8, exclude_dropped=True)
    dense = 4096 * 64 * 3 * 4  # of the first layer, with gradient and momentum
    assert plan.total_bytes - dense < 0.2 * 4096 * 4096 * 4
