# SPDX-License-Identifier: Apache-2.0
"""Schemes: which connections may exist, how many there are, and both ways through CSR.

What the products give is compared in test_layers.py; units inside the engine in Tests/MestTests.
"""

import numpy as np
import pytest
from cases import SCHEMES, conv_of_scheme, of_scheme, units_of
from support import fingerprint, positions

import mest
from mest import Conv2d, Flatten, GlobalAvgPool, Input, Linear, ReLU

SHAPES = [(40, 64), (30, 41), (7, 3), (1, 9), (17, 5)]


def model_of(scheme, rows, columns, density=0.3, **config):
    layers = [Input(columns), Linear(rows, density=density), Linear(2, density=1.0)]
    return mest.Model(layers, batch=2, scheme=scheme, **config)


def matrix(model, index=1):
    """1 where connected."""
    part, csr = model.plan().layers[index], model.csr(index)
    found = np.zeros(part.rows * part.columns, int)
    found[positions(csr, part.columns)] = 1
    return found.reshape(part.rows, part.columns)


def check(scheme, connected, taps=1):
    rows, columns = connected.shape
    height, width = units_of(scheme)
    for first in range(0, rows, height):
        assert (connected[first : first + height] == connected[first]).all()
    by_input = connected.reshape(rows, -1, taps)
    for first in range(0, columns // taps, width):
        assert (by_input[:, first : first + width] == by_input[:, first : first + 1]).all()
    if scheme == "nm24":
        padded = np.pad(connected, ((0, 0), (0, -columns % 4)))
        assert padded.reshape(rows, -1, 4).sum(2).max() <= 2
    if scheme in ("fan_in", "pattern"):
        assert len(set(connected.sum(1))) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mode", ["vanilla", "em", "em&s"])
def test_constraint_through_training(scheme, shape, mode):
    config = dict(method=mode, mutation_every=1, epochs=8, mutation_epochs=(3, 6), seed=3)
    model = model_of(scheme, *shape, **config)
    twin = model_of(scheme, *shape, **config)
    rng = np.random.default_rng(1)
    for epoch in range(8):
        for each in (model, twin):
            each.begin_epoch()
        check(scheme, matrix(model))
        report = model.mutation()
        assert report.active == matrix(model).sum() == model.connections()[1]
        assert report.density == pytest.approx(model.density())
        x, y = rng.normal(size=(2, shape[1])).astype(np.float32), rng.integers(0, 2, 2)
        for each in (model, twin):
            each.step(x, y)
    assert fingerprint(model) == fingerprint(twin)
    part = model.plan().layers[1]
    assert model.connections()[1] <= part.capacity


@pytest.mark.parametrize("scheme", SCHEMES)
def test_counts(scheme):
    """Of 48 x 48 = 2304 positions at 0.25: 576, whatever the unit; the plan says so too."""
    model = model_of(scheme, 48, 48, density=0.25)
    part = model.plan().layers[1]
    assert part.active == model.connections()[1] == matrix(model).sum() == part.capacity == 576
    assert part.scheme == ("fan_in" if scheme == "pattern" else scheme) and part.kind == "linear"
    assert part.unit == max(units_of(scheme))
    assert part.macs == 576


@pytest.mark.parametrize(
    "layer, connections",
    [
        (Linear(6, density=0.1, scheme="fan_in"), 6 * 1),  # of 9 inputs one, not 0.9
        (Linear(6, density=0.4, scheme="fan_in"), 6 * 4),
        (Conv2d(6, 3, density=0.1, scheme="pattern"), 6 * 4 * 2),  # of 9 kernels 2, not 2.025
        (Conv2d(6, 3, density=0.01, scheme="pattern"), 6 * 4),
        (Conv2d(6, 3, density=0.1), 49),  # of 486 not 48.6
        (Linear(6, density=1.0), 54),
    ],
)
def test_the_plan_tells_the_real_density(layer, connections):
    picture = isinstance(layer, Conv2d)
    layers = [Input(9, 3 * picture or 1, 3 * picture or 1), layer, Flatten(), Linear(2, density=1.0)]
    model = mest.Model(layers, density=0.5)
    part = model.plan().layers[1]
    assert part.active == model.connections()[1] == connections
    assert part.density == pytest.approx(connections / (part.rows * part.columns), rel=1e-6)


@pytest.mark.parametrize("height", [4, 8, 16])
def test_a_last_block_of_fewer_rows(height):
    """Counted are the rows there are: 17 = 4 * 4 + 1."""
    model = model_of(f"block{height}", 17, 20, density=0.5, method="vanilla")
    part = model.plan().layers[1]
    blocks = -(-17 // height)
    assert part.capacity == blocks * 20 // 2 * height
    assert model.tensor(1).size == model.connections()[1] == matrix(model).sum() < part.capacity
    assert abs(part.active - model.connections()[1]) <= 20 * height
    for _ in range(5):
        report = model.mutate()
        assert report.active == matrix(model).sum() <= 17 * 20
    assert report.positions == 340


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme.startswith(("block", "row"))])
def test_a_remainder_loses_its_share(scheme, exclude):
    """Of 18 rows or inputs in units of 4, 8, 16 the last is of two, whose norms are below those of all others."""
    rows, columns = (18, 200) if scheme.startswith("block") else (200, 18)
    model = model_of(scheme, rows, columns, density=0.5, method="vanilla", exclude_dropped=exclude)
    where = positions(model.csr(1), columns)
    last = where // columns >= 16 if rows == 18 else where % columns >= 16
    model.set_tensor(1, "weight", np.random.default_rng(7).uniform(1, 1.1, len(where)).astype(np.float32))
    units = [last.sum() // 2, (~last).sum() // max(units_of(scheme))]
    model.mutate()
    assert model.mutation().dropped > 0
    after, value = positions(model.csr(1), columns), model.tensor(1)
    stayed = set(after[value != 0])
    gone = [(len(set(where[part]) - stayed)) / size for part, size in ((last, 2), (~last, max(units_of(scheme))))]
    assert gone[0] / units[0] == pytest.approx(0.2, abs=0.01)
    assert gone[1] / units[1] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("scheme, rows, columns", [("block16", 17, 400), ("block4", 10, 400), ("row8", 400, 10)])
def test_pruning_leaves_a_remainder_its_share(scheme, rows, columns):
    """GMP down to a tenth: the last block or run has a tenth of its own as well, and the layer the weights planned."""
    model = model_of(scheme, rows, columns, density=0.1, method="gmp", epochs=10, seed=rows)
    rng = np.random.default_rng(rows)
    model.set_tensor(1, "weight", rng.normal(size=model.connections()[1]).astype(np.float32))
    for _ in range(10):
        model.begin_epoch()
        model.step(rng.normal(size=(2, columns)).astype(np.float32), rng.integers(0, 2, 2))
    connected = matrix(model)
    last = connected[-1] if rows < columns else connected[:, -1]
    assert last.mean() == pytest.approx(0.1, abs=0.02)
    assert connected.mean() == pytest.approx(0.1, abs=0.005)


def averaged(scheme, lines, columns, body):
    """Mean density of a remainder of one row, the last of so many blocks, and of all others, of ten seeds."""
    rows, found = (lines - 1) * int(scheme[5:]) + 1, []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        connected = body(rows, columns, seed, rng)
        found.append((connected[-1].mean(), connected[:-1].mean()))
    return np.mean(found, axis=0)


def redraw(model, rng):
    model.set_tensor(1, "weight", rng.normal(size=model.connections()[1]).astype(np.float32))


@pytest.mark.parametrize("lines, columns, epochs", [(17, 27, 160), (33, 27, 500), (2, 20, 160)])
def test_a_remainder_is_pruned_in_small_steps_too(lines, columns, epochs):
    """Of what is less than one unit a mutation, so many leave on average: nothing is lost to rounding."""

    def pruned(rows, columns, seed, rng):
        model = model_of("block16", rows, columns, density=0.1, method="gmp", epochs=epochs, seed=seed)
        redraw(model, rng)
        for _ in range(epochs):
            model.begin_epoch()
        return matrix(model)

    last, others = averaged("block16", lines, columns, pruned)
    assert last == pytest.approx(0.1, abs=0.06)
    assert others == pytest.approx(0.1, abs=0.03)


def test_a_remainder_moves_in_small_steps_too():
    """A tenth leaves each time, of 44 units four; the remainder has one or two of them."""

    def moved(rows, columns, seed, rng):
        model = model_of("block16", rows, columns, density=0.05, method="vanilla", mutation_rate=0.1, seed=seed)
        found = []
        for _ in range(150):
            redraw(model, rng)
            model.mutate()
            found.append(matrix(model))
        return np.mean(found[50:], axis=0)

    last, others = averaged("block16", 33, 27, moved)
    assert last == pytest.approx(0.05, abs=0.02)
    assert others == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_a_last_run_of_fewer_inputs(width):
    """Counted are the inputs there are: 17 = 4 * 4 + 1, in a convolution for every place in the kernel."""
    layers = [Input(17, 4, 4), Conv2d(20, 3, density=0.5), Flatten(), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=2, scheme=f"row{width}", method="vanilla", epochs=8)
    part = model.plan().layers[1]
    runs = -(-17 // width)
    assert part.capacity == runs * 9 * 20 // 2 * width
    assert model.tensor(1).size == model.connections()[1] == matrix(model).sum() < part.capacity
    assert abs(part.active - model.connections()[1]) <= 9 * 20 * width
    for _ in range(5):
        report = model.mutate()
        assert report.active == matrix(model).sum() <= 17 * 9 * 20
        check(f"row{width}", matrix(model), 9)
    assert report.positions == 17 * 9 * 20
    # All of the last run: a set of fewer connections than the capacity that takes more room than it.
    last = np.arange((runs - 1) * width * 9, 17 * 9)
    starts, columns = np.arange(21) * len(last), np.tile(last, 20)
    if 20 * 9 * width <= part.capacity:
        model.set_csr(1, starts, columns, np.ones(len(columns)))
        assert model.connections()[1] == len(columns)
    else:
        with pytest.raises(mest.MestArgumentError, match=f"need a capacity of {20 * 9 * width} "):
            model.set_csr(1, starts, columns, np.ones(len(columns)))


def pointwise(scheme):
    sparse = dict(density=0.3, scheme=scheme)
    return [Input(21, 5, 6), Conv2d(30, 1, **sparse), ReLU(), Conv2d(9, 1, stride=2, **sparse), GlobalAvgPool(),
            Linear(4, density=1.0)]  # fmt: skip


@pytest.mark.parametrize("kind", [of_scheme, pointwise])
@pytest.mark.parametrize("batch", [1, 3, 8, 20, 64])
@pytest.mark.parametrize("scheme", ["row4", "row8", "row16"])
def test_rows_have_the_bits_of_single_weights(scheme, batch, kind):
    """Where kernels have one place: the sums are those of the same connections one by one, in their order."""
    config = dict(batch=batch, learning_rate=0.1, momentum=0.9)
    rows = mest.Model(kind(scheme), seed=2, **config)
    single = kind("unstructured")
    for layer in single:  # room for what the others have
        if getattr(layer, "density", None) not in (None, 1.0):
            layer.density = min(0.999, 1.5 * layer.density)
    single = mest.Model(single, seed=2, **config)
    for index, part in enumerate(rows.plan().layers):
        if part.sparse:
            single.set_csr(index, rows.csr(index))
            single.set_tensor(index, "weight_momentum", rows.tensor(index, "weight_momentum"))
        elif part.rows:
            single.set_tensor(index, "weight", rows.tensor(index, "weight"))
    assert fingerprint(rows) == fingerprint(single)
    rng = np.random.default_rng(5)
    for _ in range(3):
        x = rng.normal(size=(batch, *rows.plan().layers[0].shape)).astype(np.float32)
        y = rng.integers(0, 4, batch)
        assert rows.step(x, y).loss == single.step(x, y).loss
    assert fingerprint(rows) == fingerprint(single)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_csr_there_and_back(scheme):
    first, second = (model_of(scheme, 30, 41, seed=seed) for seed in (1, 2))
    values = np.arange(1, first.connections()[1] + 1, dtype=np.float32)
    first.set_tensor(1, "weight", values)
    csr = first.csr(1)
    assert (csr.values == values).all() and (first.tensor(1) == values).all()
    with pytest.raises(ValueError):
        csr.values[0] = 1.0
    second.set_csr(1, csr, momentum=-values)
    again = second.csr(1)
    for a, b in zip(csr, again):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(second.tensor(1, "weight_momentum"), -values)
    x = np.random.default_rng(3).normal(size=(2, 41)).astype(np.float32)
    second.set_tensor(2, "weight", first.tensor(2))
    np.testing.assert_array_equal(first.predict(x), second.predict(x))


def filled(scheme, rows, columns, units):
    """A CSR of `units` columns for every row that the scheme can have."""
    each = np.arange(units) // 2 * 4 + np.arange(units) % 2 if scheme == "nm24" else np.arange(units)
    return np.arange(rows + 1) * units, np.tile(each, rows), np.ones(rows * units)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_capacity_that_a_set_needs(scheme):
    """Its count; of blocks that of whole ones: 18 rows are stored as 20, 24, 32."""
    rows, columns = 18, 64
    height, width = units_of(scheme)
    stored, more = -(-rows // height) * height, 16 + width
    model = model_of(scheme, rows, columns, density=0.25)
    capacity = model.plan().layers[1].capacity
    assert capacity == stored * 16
    model.set_csr(1, *filled(scheme, rows, columns, 16))
    before = fingerprint(model)
    words = f"layer 1 .*has {rows * more} connections, which need a capacity of {stored * more} .* is {capacity}:"
    with pytest.raises(mest.MestArgumentError, match=words):
        model.set_csr(1, *filled(scheme, rows, columns, more))
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "scheme, rows",
    [
        ("block4", [[1], [1], [1], [2], [], []]),
        ("block8", [[1], [1], [1], [1], [1], [1, 2]]),
        ("fan_in", [[1], [1], [1], [1], [1], [1, 2]]),
        ("pattern", [[1], [1], [1], [1], [1], []]),
        ("nm24", [[1, 2, 3], [], [], [], [], []]),
        ("row4", [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2], [], [], []]),
        ("row4", [[0, 1, 2, 3], [1, 2, 3, 4], [], [], [], []]),
        ("row4", [[0, 1, 3, 4], [], [], [], [], []]),
        ("row8", [[4, 5, 6, 7], [], [], [], [], []]),
    ],
)
def test_connections_that_a_scheme_cannot_have(scheme, rows):
    model = model_of(scheme, 6, 8, density=0.5)
    before = fingerprint(model)
    starts = np.cumsum([0, *map(len, rows)])
    columns = np.concatenate([np.array(row, int) for row in rows])
    with pytest.raises(mest.UnsupportedError, match="row .*scheme"):
        model.set_csr(1, starts, columns, np.ones(len(columns)))
    assert fingerprint(model) == before


def test_two_of_four_is_exact_at_one_half():
    model = model_of("2:4", 9, 40, density=0.5, method="vanilla")
    for _ in range(4):
        assert (matrix(model).reshape(9, 10, 4).sum(2) == 2).all()
        model.mutate()
    part = mest.plan([Input(6), Linear(5, density=0.5)], scheme="nm24").layers[1]
    assert part.active == 15


@pytest.mark.parametrize("scheme, density", [("nm24", 0.6), ("nm24", 0.51)])
def test_densities_that_a_scheme_cannot_have(scheme, density):
    with pytest.raises(ValueError, match="density is .*at most 0.5"):
        model_of(scheme, 8, 8, density=density)


def test_nothing_above_the_densest():
    """2:4 at one half has no room to grow above it: EM&S would never move anything."""
    layers = [mest.Input(16), mest.Linear(8), mest.Linear(4, density=1.0)]
    with pytest.raises(mest.MestArgumentError, match="method EMS grows above the density.*use EM, or a lower density"):
        mest.plan(layers, scheme="2:4", density=0.5, method="em&s", epochs=8)
    mest.plan(layers, scheme="2:4", density=0.5, method="em", epochs=8)
    mest.plan(layers, scheme="2:4", density=0.4, method="em&s", epochs=8)


@pytest.mark.parametrize("scheme", ["fan_in", "pattern"])
@pytest.mark.parametrize("mode", [dict(method="em", mutation_rate=1e-4), dict(method="em&s", mutation_extra=1e-4)])
def test_every_output_moves_at_least_one(scheme, mode):
    """However small the share, of two or more; with one there is nothing to move but for EM&S."""
    layers = [Input(9, 4, 4), Conv2d(5, 3, density=0.2), Flatten(), Linear(2, density=1.0)]
    unit = 4 if scheme == "pattern" else 1
    model = mest.Model(layers, scheme=scheme, epochs=8, **mode)
    before = model.connections()[1]
    model.begin_epoch()
    moved = model.mutation()
    grows = "mutation_extra" in mode  # EM&S grows first, and drops at its next mutation
    assert (moved.dropped, moved.grown) == (0 if grows else 5 * unit, 5 * unit)
    again = model.mutate()
    assert (again.dropped, again.grown) == (5 * unit, 5 * unit)
    assert model.connections()[1] == before + (5 * unit if grows else 0) <= model.plan().layers[1].capacity
    layers[1] = Conv2d(5, 3, density=0.01)
    alone = mest.Model(layers, scheme=scheme, epochs=8, **mode)
    alone.begin_epoch()
    assert alone.mutation().grown == (5 * unit if grows else 0)


@pytest.mark.parametrize("scheme", ["fan_in", "pattern"])
def test_no_output_of_a_pool_is_empty(scheme):
    layers = [Input(9, 4, 4), Conv2d(5, 3, density=0.01), Flatten(), Linear(2, density=1.0)]
    found = {fingerprint(mest.Model(layers, scheme=scheme, allow_empty_rows=empty)) for empty in (False, True)}
    assert len(found) == 1


def test_growth_stops_where_the_scheme_is_full():
    model = model_of("nm24", 8, 40, density=0.48, method="em&s", epochs=8)
    model.begin_epoch()
    assert model.density() == pytest.approx(0.5)


def test_erk_stays_below_what_schemes_can_have():
    layers = [Input(64), Linear(8), Linear(256), Linear(4, scheme="unstructured")]
    plan = mest.plan(layers, density=0.45, distribution="erk", scheme="nm24")
    first, middle, last = plan.layers[1:]
    assert max(first.density, middle.density) <= 0.5 < last.density
    whole = sum(layer.rows * layer.columns for layer in plan.layers[1:])
    assert sum(layer.active for layer in plan.layers[1:]) == pytest.approx(0.45 * whole, abs=3)


def test_a_scheme_needs_a_sparse_layer():
    with pytest.raises(ValueError, match="scheme is set, but every layer is dense"):
        mest.Model([Input(4), Linear(3)], scheme="block4")
    with pytest.raises(ValueError, match="scheme is set, but the layer is dense"):
        mest.Model([Input(4), Linear(3, scheme="block4")])
    with pytest.raises(ValueError, match="scheme='blocks'.*'block4'"):
        mest.Model([Input(4), Linear(3, density=0.5, scheme="blocks")])


def test_depthwise_convolutions_are_dense():
    """A scheme of their own is refused with the right advice; the config's passes them by."""
    depthwise = dict(groups=6, name="depthwise")
    layers = [Input(6, 5, 5), Conv2d(6, 3, scheme="fan_in", **depthwise), Flatten(), Linear(2)]
    for density in (0.5, None):
        with pytest.raises(mest.UnsupportedError, match="FAN_IN, but a depthwise .* dense; leave scheme unset"):
            mest.plan(layers, density=density)
    layers[1] = Conv2d(6, 3, **depthwise)
    assert [part.sparse for part in mest.plan(layers, density=0.5, scheme="fan_in").layers][1::2] == [False, True]


def test_layers_name_their_own():
    layers = [Input(8), Linear(8, scheme="fan_in"), Linear(8), Linear(2, density=1.0)]
    plan = mest.plan(layers, density=0.5, scheme="block8")
    assert [layer.scheme for layer in plan.layers] == [None, "fan_in", "block8", None]


@pytest.mark.parametrize("scheme", ["unstructured", "nm24", "fan_in", "block4", "block16", "row4", "row16"])
def test_memory(scheme):
    """Bytes a unit: 12 a weight, 8 of index, also of 2:4 and of constant fan-in."""
    part = model_of(scheme, 64, 64, density=0.5).plan().layers[1]
    units = 64 * 64 // 2 // part.unit
    assert part.weight_bytes - 256 == part.gradient_bytes - 256 == part.state_bytes - 256 == 8192
    # Starts of rows or blocks of them, of inputs or runs of them, to whole lines.
    starts = sum(-(-(64 // side + 1) * 4 // 64) * 64 for side in units_of(scheme))
    assert part.index_bytes == 8 * units + starts


def test_memory_of_patterns():
    """One more byte a kernel: its pattern."""
    layers = [Input(64, 4, 4), Conv2d(64, 3), Flatten(), Linear(4, density=1.0)]
    part = mest.plan(layers, scheme="pattern", density=0.2).layers[1]
    units = part.active // 4
    assert part.weight_bytes - 256 == part.gradient_bytes - 256 == part.state_bytes - 256 == 4 * part.active
    assert part.index_bytes == 9 * units + 2 * 320  # 65 starts each of rows and of inputs, to whole lines


@pytest.mark.parametrize("kind", [of_scheme, conv_of_scheme])
@pytest.mark.parametrize("batch", [1, 2, 7, 20])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_bits_at_every_level(scheme, batch, kind):
    found = set()
    for simd in ("reference", "avx2", "avx512"):
        for threads in (1, 3):
            try:
                model = mest.Model(
                    kind(scheme), batch=batch, simd=simd, threads=threads, learning_rate=0.1
                )
            except mest.UnsupportedError:
                continue
            rng = np.random.default_rng(5)
            for _ in range(3):
                x = rng.normal(size=(batch, *model.plan().layers[0].shape)).astype(np.float32)
                model.step(x, rng.integers(0, 4, batch))
            found.add(fingerprint(model))
    assert len(found) == 1


@pytest.mark.parametrize("kernel", [1, 3, (2, 3)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_convolutions(scheme, kernel):
    layers = [Input(6, 5, 5), Conv2d(7, kernel, density=0.3), Flatten(), Linear(2, density=1.0)]
    model = mest.Model(layers, scheme=scheme, batch=4, method="em", epochs=8, learning_rate=0.1)
    x = np.random.default_rng(1).normal(size=(4, 6, 5, 5)).astype(np.float32)
    for _ in range(4):
        model.step(x, [0, 1, 0, 1])
        model.mutate()
        check(scheme, matrix(model), int(np.prod(kernel)) ** (1 if isinstance(kernel, tuple) else 2))
    unit = max(units_of(scheme))
    assert model.plan().layers[1].unit == (4 if scheme == "pattern" and kernel == 3 else unit)


CORNERS_AND_TS = {(4, 5, 7, 8), (3, 4, 6, 7), (1, 2, 4, 5), (0, 1, 3, 4), (3, 4, 5, 7), (1, 4, 5, 7),
                  (1, 3, 4, 7)}  # fmt: skip


@pytest.mark.parametrize("code8", [False, True])
def test_patterns(code8):
    """All 8 occur, and no other; kernels are as many in every filter; a csr comes back."""
    layers = [Input(24, 6, 6), Conv2d(32, 3, density=0.2, name="c"), Flatten(), Linear(2)]
    settings = dict(scheme="pattern", code8_patterns=code8, density=0.4, batch=4, method="vanilla")
    model, other = mest.Model(layers, **settings), mest.Model(layers, seed=5, **settings)
    known = CORNERS_AND_TS | {(5, 6, 7, 8) if code8 else (1, 3, 4, 5)}
    for _ in range(4):
        connected = matrix(model).reshape(32, 24, 9)
        kernels = connected[connected.any(2)]
        assert {tuple(np.flatnonzero(kernel)) for kernel in kernels} == known
        assert set(connected.any(2).sum(1)) == {11}  # 24 * 0.2 * 9 / 4, rounded
        model.mutate()
    other.set_csr(1, model.csr(1))
    for a, b in zip(model.csr(1), other.csr(1)):
        np.testing.assert_array_equal(a, b)
    starts = np.arange(33) * 4
    taps = np.tile([0, 2, 6, 8], 32)
    with pytest.raises(mest.UnsupportedError, match="none of the patterns"):
        model.set_csr(1, starts, taps, np.ones(128))
    with pytest.raises(ValueError, match="at most 0.444444"):
        mest.plan([Input(4, 6, 6), Conv2d(4, 3), Flatten()], scheme="pattern", density=0.45)


def test_golden_g5_counts():
    """Blocks and patterns of the 30 convolutions of ResNet-32, as the authors' code rounds them."""
    settings = dict(epochs=160, round_compat=True, density=0.1, batch=1)
    for shape, em in [((32, 32), 896), ((64, 32), 1792), ((64, 64), 3584), ((128, 64), 7168)]:
        layers = [Input(shape[1], 3, 3), Conv2d(shape[0], 3), Flatten(), Linear(2, density=1.0)]
        model = mest.Model(layers, scheme="pattern", method="em", **settings)
        for _ in range(121):
            model.begin_epoch()
        assert model.connections()[1] == em
    layers = [Input(32, 3, 3), Conv2d(32, 3), Flatten(), Linear(2, density=1.0)]
    model = mest.Model(layers, scheme="block4", method="em&s", **settings)
    reached = [model.connections()[1]]
    for epoch in range(121):
        model.begin_epoch()
        if epoch in (0, 90, 120):
            reached.append(model.connections()[1])
    assert reached == [924, 1380, 1152, 924]
