# SPDX-License-Identifier: Apache-2.0
"""How activations are stored and which are kept: bf16, recomputation, and what both save."""

import ctypes

import numpy as np
import pytest
import reference
from graphs import Graph, dropout_masks
from support import close, expected_gradients, gradients, randomise, reference_of
from test_graphs import check_bits, conv, data_of, ending, made, model_of, two_steps

import mest
from mest import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    MaxPool,
    ReLU,
    _abi,
    _lib,
)
from mest.datasets import digits
from mest.layers import describe

BF16 = dict(activations="bfloat16")


def rounded(x):
    """To the upper half of a float: the nearest, halfway cases away from zero."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


# ------------------------------------------------------------------------------------ rounding ---


def stored(x):
    """What is read again of values written as a picture."""
    n = x[0].size
    model = mest.Model([Input(*x.shape[1:]), Flatten(), Linear(n, density=1.0)], batch=len(x), **BF16)
    model.set_tensor(2, "weight", np.eye(n, dtype=np.float32))
    return model.predict(x).reshape(x.shape)


def test_rounding():
    """Halfway cases, neighbours of them, tiny and large values, both signs."""
    rng = np.random.default_rng(0)
    upper = rng.integers(0x0080, 0x7F00, 400).astype(np.uint32) << 16
    lower = rng.choice([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], 400).astype(np.uint32)
    sign = rng.integers(0, 2, 400).astype(np.uint32) << 31
    # Every second sample is of usual size: rows of the product are sums, which large values would hide.
    x = (upper | lower | sign).view(np.float32)
    for value in x:
        got = stored(np.array([value, 0, 0, 0], np.float32).reshape(1, 1, 2, 2))
        assert got.ravel()[0] == rounded(value), value
    halves = np.float32([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, -1 - 3 * 2**-8]).reshape(1, 1, 2, 2)
    assert stored(halves).ravel().tolist() == [1 + 2**-7, 1 + 2**-6, -1 - 2**-7, -1 - 2**-6]


class Stored(reference.Network):
    """conv - batch norm - ReLU - conv - pool as it is stored: the input, the outputs of the convolutions
    (the first less the running mean), and the gradients of their inputs."""

    def step(self, x, y):
        first, norm, second, last = (self.parameters[i] for i in (1, 2, 4, 6))
        layers, n = self.layers, len(x)
        x = rounded(x).astype(float)
        a = rounded(self._forward(1, layers[1], [x], True) - reference.channel(norm["running_mean"])).astype(float)
        mean, var = a.mean((0, 2, 3), keepdims=True), a.var((0, 2, 3), keepdims=True)
        hat = (a - mean) / np.sqrt(var + layers[2].eps)
        h = np.maximum(hat * reference.channel(norm["scale"]) + reference.channel(norm["bias"]), 0)
        b = rounded(self._forward(4, layers[4], [h], True)).astype(float)
        features = b.mean((2, 3))
        loss, slope = reference.cross_entropy(features @ last["weight"].T + last["bias"], y)

        found = {(6, "weight"): slope.T @ features, (6, "bias"): slope.sum(0)}
        db = (slope @ last["weight"])[:, :, None, None] / np.prod(b.shape[2:]) + 0 * b
        db = rounded(db).astype(float)
        weight = second["weight"].reshape(b.shape[1], h.shape[1], 3, 3)
        geometry = (3, 3), (1, 1), (1, 1)
        found[4, "weight"] = np.einsum("ncyxij,noyx->ocij", reference.windows(h, *geometry), db)
        dh = reference.unwindow(np.einsum("noyx,ocij->ncyxij", db, weight), h.shape, *geometry)
        dh = rounded(dh * (h > 0)).astype(float)
        found[2, "bias"], found[2, "scale"] = dh.sum((0, 2, 3)), (dh * hat).sum((0, 2, 3))
        m = n * np.prod(a.shape[2:])
        da = dh - found[2, "bias"][:, None, None] / m - hat * found[2, "scale"][:, None, None] / m
        da *= reference.channel(norm["scale"]) / np.sqrt(var + layers[2].eps)
        found[1, "weight"] = np.einsum("ncyxij,noyx->ocij", reference.windows(x, *geometry), da)
        return loss, {place: gradient.ravel() for place, gradient in found.items()}


def test_what_is_stored_is_rounded_and_nothing_else():
    """The gradients are those of a model that rounds in the same places; they are ten times farther from
    those without rounding."""
    layers = [Input(3, 8, 8), conv(6), BatchNorm(), ReLU(), conv(5), GlobalAvgPool(), Linear(4, density=1.0)]
    model = mest.Model(layers, batch=16, learning_rate=0.0, **BF16)
    rng = np.random.default_rng(0)
    randomise(model, rng)
    x, y = rng.normal(size=(16, 3, 8, 8)).astype(np.float32), rng.integers(0, 4, 16)
    known = reference_of(model)
    loss, found = Stored(known.layers, known.parameters).step(x, y)
    exact = expected_gradients(model, known.backward(reference.cross_entropy(known.forward(x, True), y)[1]))
    close(model.step(x, y).loss, loss, 1e-5)

    def distance(a, b):
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    for place, gradient in gradients(model).items():
        # A few values lie so close to a halfway case that floats and doubles round differently.
        near, far = distance(gradient, found[place]), distance(gradient, exact[place])
        assert near < 1e-4 and near < far / 5, (place, near, far)


# ------------------------------------------------------------------------------- random networks ---


@pytest.mark.parametrize("part", range(5))
def test_same_bits(part):
    for seed in range(part, 60, 5):
        check_bits(seed + 1000, **BF16)


@pytest.mark.parametrize("part", range(5))
def test_close_to_the_reference(part):
    """Rounding to 8 bits, ReLUs that it switches included: the loss and the whole gradient."""
    angles = []
    for seed in range(part, 100, 5):
        graph, rng, counts = made(seed, samples=8)
        model = model_of(graph, seed, **BF16)
        randomise(model, rng)
        x, y = data_of(graph, rng, graph.batch, model.config.loss)
        known = reference_of(model)
        outputs = known.forward(x, True, dropout_masks(graph.layers, graph.shapes, seed, 0, len(x)))
        mse = model.config.loss == "mse"
        loss, slope = (reference.mean_squared_error if mse else reference.cross_entropy)(outputs, y)
        if any(cache is not None and (cache[1] < 0.05).any() for cache in known.cache):
            continue  # batch norm multiplies what is rounded
        expected = expected_gradients(model, known.backward(slope))
        close(model.step(x, y).loss, loss, 0.03, f"seed {seed}: loss", 1.0)
        actual = np.concatenate(list(gradients(model).values()))
        wanted = np.concatenate(list(expected.values()))
        angles.append(actual @ wanted / np.linalg.norm(actual) / np.linalg.norm(wanted))
        assert angles[-1] > 0.97, f"seed {seed}: {angles[-1]}"
    assert len(angles) >= 8 and np.median(angles) > 0.999


PICTURES = {
    "a picture of one pixel at the end": [Input(2, 4, 4), Conv2d(3, 4, density=1.0)],
    "a pooled one": [Input(3, 4, 4), conv(), AvgPool(4)],
    "a sum of a picture and of features": [
        Input(3, 4, 4), Conv2d(3, 4, density=1.0), GlobalAvgPool(from_=0), Add(with_=1), Flatten(),
        Linear(2, density=1.0),
    ],
    "the same the other way round": [
        Input(3, 4, 4), Conv2d(3, 4, density=1.0), GlobalAvgPool(from_=0), Add(from_=1, with_=2), Flatten(),
        Linear(2, density=1.0),
    ],
    "a linear layer on a picture": [Input(3, 4, 4), Conv2d(3, 4, density=1.0), Linear(2, density=1.0)],
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_one_pixel_is_no_feature(name):
    """In float32 they are the same; as bf16 they are stored differently, and FLATTEN goes between."""
    layers = PICTURES[name]

    with mest.Model(layers, batch=2) as model:
        x = np.random.default_rng(0).normal(size=(2, *model.plan().layers[0].shape)).astype(np.float32)
        close(model.predict(x), reference_of(model).forward(x), 1e-5)
    with pytest.raises(mest.ShapeError, match="bf16.*FLATTEN"):
        mest.plan(layers, batch=2, **BF16)


def test_flatten_of_one_pixel():
    layers = [Input(3, 4, 4), Conv2d(3, 4, density=1.0), Flatten(), GlobalAvgPool(from_=0), Add(with_=2)]
    model = mest.Model(layers, batch=2, **BF16)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    close(model.predict(x), reference_of(model).forward(x), 0.02)
    model.step(x, [0, 1])
