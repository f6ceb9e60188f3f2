# SPDX-License-Identifier: Apache-2.0
"""Which weights a scheme keeps: as many as the library plans, accepted by it, and none better left out."""

import numpy as np
import pytest
from cases import SCHEMES, units_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import mest
from mest import Conv2d, Flatten, GlobalAvgPool, Input, Linear
from mest.exchange import prune
from mest.exchange.state import csr_of

quick = hypothesis_settings(max_examples=25, deadline=None)

# mest.h, MEST_SCHEME_PATTERN: written once more, as pictures.
PATTERNS = """
    ... ... .xx xx. .x. ... .x. .x.
    .xx xx. .xx xx. xxx xxx .xx xx.
    .xx xx. ... ... ... .x. .x. .x.
"""


def pictures():
    rows = [line.split() for line in PATTERNS.split("\n") if line.strip()]
    return {tuple(np.flatnonzero([c == "x" for row in rows for c in row[n]])) for n in range(8)}


def layer_of(scheme, kernel, rows, inputs, density):
    """A model whose layer 1 has this weight, and the weight's shape."""
    if kernel == 1:
        layers = [Input(inputs), Linear(rows, density=density, scheme=scheme)]
        shape = (rows, inputs)
    else:
        layers = [Input(inputs, 4, 4), Conv2d(rows, kernel, density=density, scheme=scheme), GlobalAvgPool()]
        shape = (rows, inputs, kernel, kernel)
    return mest.Model([*layers, Flatten(), Linear(2, density=1.0)], batch=1), shape


@st.composite
def weights(draw, scheme):
    kernel = draw(st.sampled_from([1, 2, 3]))
    rows, inputs = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    most = {"nm24": 0.5, "pattern": 4 / 9}.get(scheme, 0.95)
    density = draw(st.floats(0.02, most))
    model, shape = layer_of(scheme, kernel, rows, inputs, density)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.normal(size=shape).astype(np.float32)
    if draw(st.booleans()):  # equal magnitudes, and zeros
        weight = np.round(weight)
    return model, weight


def norms_of_units(weight, scheme):
    """[(norm, pool, group, weights of it)]: straightforward; for patterns one for each pattern."""
    rows, inputs = weight.shape[:2]
    cube = np.square(weight.astype(float)).reshape(rows, inputs, -1)
    taps = cube.shape[2]
    if scheme == "pattern" and weight.shape[2:] != (3, 3):
        scheme = "fan_in"
    found = []

    def unit(pool, group, places):
        found.append((sum(cube[p] for p in places), pool, group, places))

    if scheme == "pattern":
        for r in range(rows):
            for c in range(inputs):
                best = max(pictures(), key=lambda taps: sum(cube[r, c, t] for t in taps))
                unit(r, None, [(r, c, t) for t in best])
        return found
    height, width = units_of(scheme)
    for r in range(0, rows, height):
        for c in range(0, inputs, width):
            for t in range(taps):
                block = [(i, j, t) for i in range(r, min(r + height, rows)) for j in range(c, min(c + width, inputs))]
                # A last block or run that is shorter is ranked by itself.
                short = len(block) < height * width and min(height, rows) * min(width, inputs) > len(block)
                pool = r if scheme == "fan_in" else ("last" if short else "all")
                group = (r, (c * taps + t) // 4) if scheme == "nm24" else None
                unit(pool, group, block)
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@quick
@given(st.data())
def test_kept_are_the_largest(scheme, data):
    model, weight = data.draw(weights(scheme))
    part = model.plan().layers[1]
    mask = prune.keep(weight, part.scheme, part.active)
    assert mask.shape == weight.shape and mask.dtype == bool
    # As many units as there is room for, which a static model fills, and the library takes them.
    form = prune.Form.of(weight.shape, scheme)
    assert prune.count_units(mask, form) * form.pools * part.unit == part.capacity
    if form.phantoms == 0:
        assert mask.sum() == part.active
    model.set_csr(1, *csr_of(weight, mask))
    assert model.connections()[1] == mask.sum()
    assert np.array_equal(model.csr(1).values, weight.reshape(len(weight), -1)[mask.reshape(len(weight), -1)])

    cube = mask.reshape(*weight.shape[:2], -1)
    kept, dropped, in_group = {}, {}, {}
    for norm, pool, group, places in norms_of_units(weight, scheme):
        states = {bool(cube[place]) for place in places}
        if scheme == "pattern" and len(states) == 2:  # another pattern that is as large
            r, c, _ = places[0]
            energy = np.square(weight.reshape(*weight.shape[:2], -1)[r, c].astype(float))
            chosen = tuple(np.flatnonzero(cube[r, c]))
            assert chosen in pictures() and energy[list(chosen)].sum() == pytest.approx(norm)
            states = {True}
        assert len(states) == 1, "a unit is there or not"
        (kept if states == {True} else dropped).setdefault(pool, []).append((norm, group))
        if states == {True} and group is not None:
            in_group.setdefault(group, []).append(norm)
    tiny = 1e-6
    for pool, found in dropped.items():
        least = min((norm for norm, _ in kept.get(pool, [])), default=np.inf)
        for norm, group in found:
            rivals = in_group.get(group, [])
            # In a full group of 2:4 it can only take the place of one of the two.
            bound = min(rivals) if len(rivals) == 2 else least
            assert norm <= bound + tiny


def test_by_hand():
    weight = np.array([[1, -9, 2, 3], [8, 7, -6, 5], [1, 1, 1, 4]], np.float32)
    kept = {scheme: weight * prune.keep(weight, scheme, count) for scheme, count in [
        ("unstructured", 4), ("fan_in", 3), ("nm24", 5), ("row4", 4), ("block4", 6),
    ]}  # fmt: skip
    assert kept["unstructured"].tolist() == [[0, -9, 0, 0], [8, 7, -6, 0], [0, 0, 0, 0]]
    assert kept["fan_in"].tolist() == [[0, -9, 0, 0], [8, 0, 0, 0], [0, 0, 0, 4]]
    assert kept["nm24"].tolist() == [[0, -9, 0, 3], [8, 7, 0, 0], [0, 0, 0, 4]]
    assert kept["row4"].tolist() == [[0, 0, 0, 0], [8, 7, -6, 5], [0, 0, 0, 0]]
    assert kept["block4"].tolist() == [[1, -9, 0, 0], [8, 7, 0, 0], [1, 1, 0, 0]]


def test_a_pattern_by_hand():
    kernel = np.array([[0, 3, 0], [1, 2, 9], [0, 3, 0]], np.float32)[None, None]
    mask = prune.keep(kernel, "pattern", 4)
    assert mask[0, 0].astype(int).tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 0]]
    code8 = np.zeros((1, 1, 3, 3), np.float32)
    code8[0, 0].flat[[5, 6, 7, 8]] = 1
    assert prune.keep(code8, "pattern", 4, code8_patterns=True)[code8 == 1].all()
    assert not prune.keep(code8, "pattern", 4)[code8 == 1].all()


def test_zeros_are_not_all_of_the_first_outputs():
    """Where fewer are not zero than are kept, the others are spread, as growth would."""
    mask = prune.keep(np.zeros((64, 64)), "unstructured", 1024)
    assert mask.sum() == 1024 and np.count_nonzero(mask.any(1)) > 60


@pytest.mark.parametrize("scheme", SCHEMES)
@quick
@given(st.data())
def test_cover_is_the_smallest_set(scheme, data):
    """Around what a scheme keeps it is that; around a part of it no more, and all of the part."""
    model, weight = data.draw(weights(scheme))
    part = model.plan().layers[1]
    form = prune.Form.of(weight.shape, scheme)
    whole = prune.keep(weight, scheme, part.active)
    same, units = prune.cover(whole, form)
    assert np.array_equal(same, whole) and units == prune.count_units(whole, form)
    some = whole & (np.random.default_rng(data.draw(st.integers(0, 99))).random(weight.shape) < 0.5)
    if some.any():
        mask, units = prune.cover(some, form)
        assert not (some & ~mask).any() and mask.sum() <= whole.sum()
        model.set_csr(1, *csr_of(weight, mask))
        if form.scheme not in ("fan_in", "pattern"):
            for _, _, _, places in norms_of_units(weight, scheme):
                cube = some.reshape(*weight.shape[:2], -1)
                there = any(cube[place] for place in places)
                assert all(mask.reshape(cube.shape)[place] == there for place in places)


def test_no_cover():
    three = np.array([[1, 1, 1, 0]], bool)
    with pytest.raises(mest.UnsupportedError, match="more than 2 connections in 4 neighbouring columns"):
        prune.cover(three, prune.Form.of(three.shape, "nm24"))
    corners = np.zeros((1, 1, 3, 3), bool)
    corners[0, 0, ::2, ::2] = True
    with pytest.raises(mest.UnsupportedError, match="in none of the 8 patterns"):
        prune.cover(corners, prune.Form.of(corners.shape, "pattern"))


def test_errors():
    weight = np.ones((4, 8))
    with pytest.raises(mest.MestArgumentError, match="count=0: from 1 to the 32"):
        prune.keep(weight, "unstructured", 0)
    with pytest.raises(mest.MestArgumentError, match='"nm24" can have 16 of these weights, not 17'):
        prune.keep(weight, "nm24", 17)
    with pytest.raises(mest.UnsupportedError, match="channels that layers share"):
        prune.keep(weight, "filter", 8)
    with pytest.raises(ValueError, match="scheme='block3'"):
        prune.keep(weight, "block3", 8)
    with pytest.raises(mest.MestArgumentError, match="not finite"):
        prune.keep(weight * np.nan, "fan_in", 8)
    with pytest.raises(mest.MestArgumentError, match="2 or 4 axes"):
        prune.keep(np.ones(5), "fan_in", 5)
