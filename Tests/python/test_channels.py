# SPDX-License-Identifier: Apache-2.0
"""Schemes "filter" and "channel" as a user sees them: what couples, CSR views, what is set and refused."""

import itertools
import math
import re

import numpy as np
import pytest
from randoms import ADOPTED_VALUE, Random
from support import PARAMETERS, close, fingerprint, has, randomise, reference_of
from thin import channels_of, features, groups_of, matrix

import mest
from mest import Add, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Input, Linear, ReLU


def residual(**more):
    return [
        Input(3, 6, 5), Conv2d(8, 3, padding=1, name="first", **more), BatchNorm(), ReLU(name="trunk"),
        Conv2d(8, 3, padding=1), BatchNorm(), Add(with_="trunk"), ReLU(),
        Conv2d(8, 3, padding=1, groups=8), ReLU(), Flatten(), Linear(12), ReLU(), Linear(4),
    ]  # fmt: skip


def test_residual_connections_couple():
    model = mest.Model(residual(), density=0.25, scheme="filter", batch=4)
    ids = channels_of(model)
    first, _ = groups_of(model.layers)
    assert [first[i] for i in (1, 4, 8)] == [1, 1, 1] and len(ids[1]) == 4 and len(ids[11]) == 6
    parts = model.plan().layers
    assert [parts[i].alive for i in (1, 2, 6, 8, 10, 11, 13)] == [4, 4, 4, 4, 4 * 30, 6, 4]
    assert [parts[i].scheme for i in (1, 8, 13)] == ["filter"] * 3
    assert parts[4].density == 0.25 and parts[1].density == 0.5
    # Dense layers follow.
    dense = mest.plan(residual(density=1.0), density=0.25, scheme="filter")
    assert dense.layers[1].scheme == "filter" and dense.layers[1].density == 0.5
    ending = mest.plan([Input(4), Linear(16, density=0.25, scheme="filter"), Linear(3, density=1.0)])
    assert ending.layers[2].scheme == "channel" and ending.layers[2].active == 8 * 3


def test_what_does_not_exist_reads_as_new():
    """And makes the dense network of described size compute the same."""
    model = mest.Model(residual(), density=0.25, scheme="filter", batch=4, learning_rate=0.1)
    rng = np.random.default_rng(2)
    randomise(model, rng)
    x = rng.normal(size=(4, 3, 6, 5)).astype(np.float32)
    model.step(x, [0, 1, 2, 3])
    gone = sorted(set(range(8)) - set(channels_of(model)[1]))
    for index, what, absent in (
        (1, "bias", 0), (2, "scale", 1), (2, "bias", 0), (2, "running_mean", 0), (2, "running_var", 1),
        (2, "scale_gradient", 0), (2, "scale_momentum", 0), (1, "bias_momentum", 0),
    ):  # fmt: skip
        values = model.tensor(index, what)
        assert values.size == 8 and (values[gone] == absent).all()
        assert (np.delete(values, gone) != absent).all(), f"{what} of layer {index}: those that exist"
    model.set_tensor(2, "scale", np.arange(1, 9))
    assert (model.tensor(2, "scale")[gone] == 1).all()
    assert (np.delete(model.tensor(2, "scale") - np.arange(1, 9), gone) == 0).all()
    close(model.predict(x), reference_of(model).forward(x), 2e-5)


def test_csr_there_and_back():
    """Layer after layer a model takes over the channels of another, and all it computes."""
    config = dict(density=0.25, scheme="filter", batch=4, learning_rate=0.1, momentum=0.9)
    first, second = (mest.Model(residual(), seed=seed, **config) for seed in (1, 2))
    x = np.random.default_rng(3).normal(size=(4, 3, 6, 5)).astype(np.float32)
    first.step(x, [0, 1, 2, 3])
    assert channels_of(first) != channels_of(second)
    for index, part in enumerate(first.plan().layers):
        if part.rows:
            second.set_csr(index, first.csr(index), momentum=first.tensor(index, "weight_momentum"))
            channels_of_one(second)
    for index in range(1, len(first.layers)):
        for what in mest.TENSORS:
            if not what.startswith("weight") and not what.endswith("gradient") and has(first, index, what):
                second.set_tensor(index, what, first.tensor(index, what))
    assert channels_of(first) == channels_of(second)
    assert fingerprint(first) == fingerprint(second)
    assert first.predict(x).tobytes() == second.predict(x).tobytes()
    assert first.step(x, [0, 1, 2, 3]).loss == second.step(x, [0, 1, 2, 3]).loss
    assert fingerprint(first) == fingerprint(second)


def channels_of_one(model):
    assert channels_of(model)


def test_fewer_channels_can_be_set():
    """The next mutation brings them back to the target."""
    model = mest.Model(
        [Input(5), Linear(16, density=0.25, scheme="filter", bias=False), Linear(3, density=1.0)],
        batch=2, method="em", epochs=8,
    )  # fmt: skip
    model.begin_epoch()
    model.set_csr(1, np.repeat([0, 5, 10], [4, 7, 6]), np.tile(np.arange(5), 2), np.ones(10))
    assert channels_of(model)[1] == [3, 10] and model.connections() == [0, 10, 6]
    assert (matrix(model, 1)[0][[3, 10]] == 1).all()
    model.set_tensor(2, "weight", np.arange(1, 7))
    report = model.mutate()
    assert len(channels_of(model)[1]) == 8 and report.grown - report.dropped == 6 * 8
    assert report.density == (8 * 5 + 8 * 3) / (16 * 5 + 16 * 3)
    assert (matrix(model, 1)[0][[3, 10]] == 1).all()
    values = matrix(model, 2)[0]
    assert (values[:, [3, 10]] == [[1, 2], [3, 4], [5, 6]]).all()
    assert (np.delete(values, [3, 10], 1) == 0).all(), "grown"


@pytest.mark.parametrize("every", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_adopted_channels_differ(every):
    """Set one after the other: each draws its rows from a stream of its own, whoever came before."""
    model = mest.Model(
        [Input(4), Linear(16, bias=False), ReLU(), Linear(3)], density=0.25, scheme="filter", seed=3,
    )  # fmt: skip
    model.set_csr(3, [0, 1, 2, 3], [9] * 3, np.ones(3))
    for count in range(1, 5):
        ids = sorted(every[:count])
        model.set_csr(3, np.arange(4) * count, np.tile(ids, 3), np.ones(3 * count))
    values, exists = matrix(model, 1)
    assert np.flatnonzero(exists.any(1)).tolist() == [0, 1, 2, 3]
    deviation = np.float32(0.1) * np.sqrt(np.float32(2) / np.float32(4))
    for c in range(4):
        random = Random(3, ADOPTED_VALUE, 1, c)
        np.testing.assert_allclose(values[c], [deviation * random.normal() for _ in range(4)], rtol=2e-6)


@pytest.mark.parametrize(
    "starts, columns, error, words",
    [
        ([0] * 9, [], mest.UnsupportedError, "row 0 .*empty"),
        ([0, 1] + [1] * 7, [0], mest.UnsupportedError, "row 0 .*lacks channels, but all exist"),
        ([0, 3, 5] + [5] * 6, [0, 1, 2, 0, 1], mest.UnsupportedError, "row 1 .*other columns"),
        (np.minimum(np.arange(9), 5) * 3, [0, 1, 2] * 5, mest.MestArgumentError, "15 connections, which need"),
    ],
)
def test_connections_that_cannot_be(starts, columns, error, words):
    layers = [Input(3), Linear(8, density=0.25, scheme="filter"), Linear(2, density=1.0)]
    model = mest.Model(layers)
    before = fingerprint(model)
    with pytest.raises(error, match=words):
        model.set_csr(1, starts, np.array(columns, int), np.ones(len(columns)))
    assert fingerprint(model) == before


def test_parts_of_channels_cannot_be():
    """Of 3 x 3 kernels behind FLATTEN, and of a layer that reads what it makes."""
    layers = [Input(2, 3, 3), Conv2d(6, 1), Flatten(), Linear(2)]
    model = mest.Model(layers, density=0.25, scheme="filter")
    before = fingerprint(model)
    with pytest.raises(mest.UnsupportedError, match="a part of a channel"):
        model.set_csr(3, [0, 8, 16], np.tile(np.arange(8), 2), np.ones(16))
    with pytest.raises(mest.UnsupportedError, match="a part of a channel"):
        model.set_csr(3, [0, 9, 18], np.tile(np.arange(9) + 1, 2), np.ones(18))
    with pytest.raises(mest.UnsupportedError, match="lacks channels, but all exist"):
        model.set_csr(3, [0, 36, 36], np.arange(36), np.ones(36))
    assert fingerprint(model) == before
    model.set_csr(3, [0, 9, 18], np.tile(np.arange(9) + 9, 2), np.ones(18))
    assert channels_of(model)[1] == [1]
    model = mest.Model([Input(3), Linear(8), Linear(8), Linear(2)], density=0.25, scheme="filter")
    with pytest.raises(mest.MestArgumentError, match="layer 2 .*8 input channels, there is room for 4"):
        model.set_csr(2, np.minimum(np.arange(9), 1) * 8, np.arange(8), np.ones(8))


@pytest.mark.parametrize("wide", [1, 4])
def test_one_group_on_both_sides(wide):
    """A layer that reads what it makes has as inputs the channels that are its outputs, and no others."""
    own = [Input(3), Linear(6), Linear(6, name="own"), Add(with_=1), Linear(2)]
    if wide == 4:
        head = [Input(3, 2, 2), Conv2d(6, 1, name="all"), GlobalAvgPool(name="mean"), Flatten(from_="all")]
        own = [*head, Linear(6, name="own"), Add(with_="mean"), Linear(2)]
    model = mest.Model(own, density=0.25, scheme="filter")
    index = own.index(next(layer for layer in own if layer.name == "own"))
    assert model.plan().layers[index].columns == 6 * wide
    some = [list(ids) for count in (1, 2, 3) for ids in itertools.combinations(range(6), count)]
    for rows in some:
        starts = np.append(0, np.cumsum(np.isin(np.arange(6), rows))) * wide
        for inputs in some:
            columns = np.tile(features(inputs, 6 * wide, 6), len(rows))
            one = (index, starts * len(inputs), columns, np.ones(len(columns)))
            if rows == inputs:
                model.set_csr(*one)
                assert channels_of(model)[1] == rows
                continue
            lone = min(set(rows) ^ set(inputs))
            with pytest.raises(mest.UnsupportedError, match=f"row {lone} .*and its column are one channel"):
                model.set_csr(*one)


@pytest.mark.parametrize("index, wide", [(3, 4), (2, 9)])
def test_channels_from_parts_of_several_cannot_be(index, wide):
    """Columns that ascend and lie as those of a channel do, but are of two. Behind FLATTEN; 3 x 3 kernels."""
    layers = [Input(2, 2, 2), Conv2d(6, 1), Flatten(), Linear(2, density=1)]
    if wide == 9:
        layers.insert(2, Conv2d(2, 3, padding=1, density=1))
    model = mest.Model(layers, density=0.25, scheme="filter")
    assert model.plan().layers[index].columns == 6 * wide
    before = fingerprint(model)
    whole = np.arange(wide)
    jumps = whole + wide * (whole >= wide // 2)
    sets = [jumps, np.append(whole, whole + 2 * wide + wide * (whole == wide - 1)), np.append(jumps, whole + 3 * wide)]
    for columns in sets:
        starts = np.arange(3) * len(columns)
        with pytest.raises(mest.UnsupportedError, match=f"layer {index} .*row 0 .*has a part of a channel"):
            model.set_csr(index, starts, np.tile(columns, 2), np.ones(2 * len(columns)))
        assert fingerprint(model) == before
    columns = np.append(whole + wide, whole + 4 * wide)
    model.set_csr(index, np.arange(3) * len(columns), np.tile(columns, 2), np.arange(2 * len(columns)))
    assert model.csr(index).indices.reshape(2, -1).tolist() == [columns.tolist()] * 2


def test_what_is_refused():
    with pytest.raises(ValueError, match="layer 1 .linear1.: scheme FILTER asks for fewer outputs, but these"):
        mest.plan([Input(4), Linear(3)], density=0.5, scheme="filter")
    with pytest.raises(ValueError, match="layer 1 .*CHANNEL asks for fewer inputs, but these .* and no layer asks for fewer outputs; set"):
        mest.plan([Input(4), Linear(8, density=0.5, scheme="channel"), Linear(3, density=1.0)])
    with pytest.raises(ValueError, match="layer 4 .conv4.: density is 0.5, but layer 1 .first., which shares"):
        mest.plan(residual(density=0.25), density=0.5, scheme="filter")
    with pytest.raises(mest.UnsupportedError, match="layer 2 .*UNSTRUCTURED beside layer 1 .*which drops channels"):
        mest.plan([Input(4), Linear(8, density=0.5, scheme="filter"), Linear(3, density=0.5)])
    with pytest.raises(mest.UnsupportedError, match="layer 1 .*BLOCK4 beside layer 2"):
        mest.plan([Input(4), Linear(8, scheme="block4"), Linear(3, scheme="channel")], density=0.5)
    # Pixels of one operand, channels of the other.
    mixed = [Input(3, 2, 2), Conv2d(4, 1, name="c"), Flatten(), Linear(16), Add(with_=2), Linear(3)]
    with pytest.raises(ValueError, match="layer 1 .*FILTER asks for fewer outputs, but these"):
        mest.plan(mixed, density=0.5, scheme="filter")
    with pytest.raises(ValueError, match="scheme is set, but the layer is dense"):
        mest.plan([Input(4), Linear(8, scheme="filter"), Linear(3)])


def test_only_the_other_side():
    """Inputs and classes are complete: a layer that asks for them gets the rest."""
    plan = mest.plan([Input(9), Linear(16), Linear(16), Linear(5)], density=0.25, scheme="channel")
    assert [layer.alive for layer in plan.layers] == [9, 8, 8, 5]
    assert [layer.scheme for layer in plan.layers] == [None, "channel", "channel", "channel"]


@pytest.mark.parametrize("scheme", ["filter", "channel"])
def test_densities_that_differ(scheme):
    """Erdos-Renyi-Kernel: a layer's weights are what the two that ask for its channels leave, not its own share."""
    layers = [Input(9), Linear(64), Linear(48), Linear(20), Linear(10)]
    config = dict(density=0.2, distribution="erk")
    asked = [layer.density for layer in mest.plan(layers, **config).layers]
    found = mest.plan(layers, scheme=scheme, **config).layers
    assert [layer.scheme for layer in found[1:]] == [scheme] * 4
    assert found[0].alive == 9 and found[4].alive == 10
    for i in (1, 2, 3):
        share = asked[i if scheme == "filter" else i + 1]
        assert found[i].alive == pytest.approx(math.sqrt(share) * found[i].channels, abs=0.6)
    for i in (1, 2, 3, 4):
        assert found[i].active == found[i - 1].alive * found[i].alive
    total = sum(layer.active for layer in found) / sum(layer.rows * layer.columns for layer in found)
    assert total > 0.25


def test_one_group_of_channels_has_one_density():
    layers = [Input(8, 4, 4), Conv2d(16, 3, padding=1), Conv2d(16, 1), Add(1, 2), GlobalAvgPool(), Linear(3)]
    with pytest.raises(mest.MestArgumentError, match="which shares channels with it, has .*; use UNIFORM"):
        mest.plan(layers, scheme="filter", density=0.2, distribution="erk")
    layers[2] = Conv2d(16, 1, density=0.3)
    with pytest.raises(mest.MestArgumentError, match="has 0.2; give both the same"):
        mest.plan(layers, scheme="filter", density=0.2)


@pytest.mark.parametrize("density, channels", [(1e-6, 1), (0.01, 1), (0.25, 4), (0.9999, 8)])
def test_never_no_channel(density, channels):
    layers = [Input(5, 4, 4), Conv2d(8, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Linear(3)]
    for mode in ("vanilla", "em", "em&s"):
        for compat in (False, True):
            model = mest.Model(
                layers, density=density, scheme="filter", batch=2, method=mode, mutation_rate=0.9, epochs=8,
                mutation_every=1, round_compat=compat,
            )  # fmt: skip
            for _ in range(8):
                model.begin_epoch()
                assert 1 <= len(channels_of(model)[1]) <= 8
            if not compat:
                assert len(channels_of(model)[1]) == channels


def test_inference_only():
    config = dict(density=0.25, scheme="filter", batch=4, activations="bfloat16")
    model = mest.Model(residual(), **config)
    lean = mest.Model(residual(), inference_only=True, seed=5, **config)
    for index, part in enumerate(model.plan().layers):
        if part.rows:
            lean.set_csr(index, model.csr(index))
        for what in PARAMETERS:
            if has(model, index, what):
                lean.set_tensor(index, what, model.tensor(index, what))
    x = np.random.default_rng(1).normal(size=(9, 3, 6, 5)).astype(np.float32)
    assert lean.predict(x).tobytes() == model.predict(x).tobytes()


def test_shown():
    text = str(mest.plan(residual(), density=0.25, scheme="filter", batch=4))
    assert re.search(r"first +4/8x6x5 +8x27 +0.5 +filter +108 ", text)
    assert "n/m: n of m channels exist" in text
    assert re.search(r"flatten10 +120/240 ", text)
