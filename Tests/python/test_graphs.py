# SPDX-License-Identifier: Apache-2.0
"""Random networks against the double-precision reference: what fusion, shared buffers and
recomputation make of a graph must not be seen in any number.

A failure names its seed: Graph.random(seed).layers is the network.
"""

import ctypes

import numpy as np
import pytest
import reference
from graphs import Graph, dropout_masks, well_conditioned
from support import (
    close,
    expected_gradients,
    fingerprint,
    gradients,
    has,
    randomise,
    reference_of,
)
from test_memory import create_in

import mest
from mest import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Input,
    Linear,
    MaxPool,
    ReLU,
    _abi,
    _lib,
)

FORWARD, BACKWARD = 2e-5, 2e-4
TRAINING = dict(learning_rate=0.02, momentum=0.9, weight_decay=1e-3, density=0.5)


def model_of(graph, seed, **config):
    loss = "mse" if seed % 5 == 0 or graph.outputs < 2 else "cross_entropy"
    config = {"seed": seed, "batch": graph.batch, "loss": loss, **TRAINING, **config}
    return mest.Model(graph.layers, **config)


def data_of(graph, rng, count, loss):
    x = rng.normal(size=(count, *graph.shapes[0])).astype(np.float32)
    if loss == "mse":
        return x, rng.normal(size=(count, graph.outputs)).astype(np.float32)
    return x, rng.integers(0, graph.outputs, count)


def made(seed, **options):
    """A graph with the largest batch and the batches of two steps."""
    graph = Graph.random(seed, **options)
    rng = np.random.default_rng(seed + 10**6)
    graph.batch = graph.samples + int(
        rng.choice([0, 1, 2, 3, 17, 30])
    )  # blocks of lanes left empty
    counts = [graph.batch, graph.samples]
    rng.shuffle(counts)
    return graph, rng, counts


def statistics(model):
    return {
        (index, what): model.tensor(index, what)
        for index in range(1, len(model.layers))
        for what in ("running_mean", "running_var")
        if has(model, index, what)
    }


def state(model):
    """Bytes of every gradient and statistic."""
    return [a.tobytes() for a in (*gradients(model).values(), *statistics(model).values())]


def compare_step(model, graph, seed, number, x, y, frozen=0):
    """Outputs, loss, gradients, statistics of one step against the reference.  False, and nothing
    is done, where floats cannot follow."""
    known = reference_of(model, frozen)
    masks = dropout_masks(graph.layers, graph.shapes, seed, number, len(x))
    outputs = known.forward(x, training=True, masks=masks)
    if not well_conditioned(known):
        return False
    mse = model.config.loss == "mse"
    value, slope = (reference.mean_squared_error if mse else reference.cross_entropy)(outputs, y)
    found = known.backward(slope)

    inference = reference_of(model)
    close(model.predict(x), inference.forward(x), FORWARD, f"seed {seed}: outputs")
    before = statistics(model)
    report = model.step(x, y)
    close(report.loss, value, FORWARD, f"seed {seed}: loss")
    expected = expected_gradients(model, found)
    noise = None
    for place, gradient in gradients(model).items():
        what = f"seed {seed} step {number}: gradient {place}"
        floor = max(1e-6, 5e-2 * max(np.abs(e).max(initial=0) for e in expected.values()))
        if np.abs(gradient - expected[place]).max(initial=0) > BACKWARD * floor:
            noise = noise or gradient_noise(model, known, x, y, masks, expected)
            floor = max(floor, noise[place])
        close(gradient, expected[place], BACKWARD, what, floor)
    for (index, what), now in statistics(model).items():
        mean, var = known.cache[index]
        n = known.x[index][0][:, 0].size
        batch = mean if what == "running_mean" else var * (n / (n - 1) if n > 1 else 1)
        share = graph.layers[index].momentum if index >= frozen else 0.0
        then = (1 - share) * before[index, what] + share * batch
        close(now, then, FORWARD, f"seed {seed} step {number}: {what} of layer {index}", 1.0)
    return True


def gradient_noise(model, known, x, y, masks, expected):
    """How far each gradient moves when everything that goes in moves by a few roundings, as a floor
    for `close`: batch norm of few or of equal values multiplies them."""
    loss = reference.mean_squared_error if model.config.loss == "mse" else reference.cross_entropy
    rng = np.random.default_rng(0)
    moved = dict.fromkeys(expected, 0.0)
    for _ in range(3):
        near = reference.Network(known.layers, [
            {what: values * (1 + 1e-6 * rng.normal(size=values.shape)) for what, values in found.items()}
            for found in known.parameters
        ], known.frozen)  # fmt: skip
        slope = loss(near.forward(x * (1 + 1e-6 * rng.normal(size=x.shape)), True, masks), y)[1]
        for place, gradient in expected_gradients(model, near.backward(slope)).items():
            moved[place] = max(moved[place], np.abs(gradient - expected[place]).max(initial=0))
    return {place: 10 * change / BACKWARD for place, change in moved.items()}


def check_against_reference(seed, **config):
    """Two steps; True if both could be compared."""
    graph, rng, counts = made(seed)
    model = model_of(graph, seed, **config)
    randomise(model, rng)
    number = 0
    for count in counts:
        for _ in range(8):
            x, y = data_of(graph, rng, count, model.config.loss)
            if compare_step(model, graph, seed, number, x, y):
                number += 1
                break
        else:
            return False
    return True


SEEDS, PARTS = 400, 20


@pytest.mark.parametrize("part", range(PARTS))
def test_against_the_reference(part):
    compared = sum(
        check_against_reference(
            seed, recompute=(None, "block", "elementwise")[seed % 3], threads=1 + seed % 2
        )
        for seed in range(part, SEEDS, PARTS)
    )
    assert compared >= SEEDS // PARTS * 0.6, "too few networks could be compared"


@pytest.mark.parametrize("part", range(10))
def test_the_reference_itself(part):
    """Its gradients of random networks against finite differences."""
    for seed in range(part, 60, 10):
        graph, rng, counts = made(seed)
        with model_of(graph, seed) as model:
            randomise(model, rng)
            known = reference_of(model)
        x, y = data_of(graph, rng, counts[0], model.config.loss)
        x = x.astype(float)
        masks = dropout_masks(graph.layers, graph.shapes, seed, 0, len(x))
        mse = model.config.loss == "mse"

        def loss():
            outputs = known.forward(x, True, masks)
            return (reference.mean_squared_error if mse else reference.cross_entropy)(outputs, y)

        slope = loss()[1]
        if not well_conditioned(known):
            continue
        found = known.backward(slope)
        tensors = [(x, known.input_gradient)] + [
            (values, found[index][what])
            for index, parameters in enumerate(known.parameters)
            for what, values in parameters.items()
            if what in found[index]
        ]
        for values, gradient in tensors:
            flat, direction = (
                values.reshape(-1),
                rng.normal(size=values.size) * (values.reshape(-1) != 0),
            )
            kept, h = flat.copy(), 1e-7 / max(1.0, np.abs(direction).max(initial=0))
            losses = []
            for sign in (1, -1):
                flat[:] = kept + sign * h * direction
                losses.append(loss()[0])
            flat[:] = kept
            measured, wanted = (
                (losses[0] - losses[1]) / (2 * h),
                np.asarray(gradient).reshape(-1) @ direction,
            )
            assert abs(measured - wanted) < 1e-5 * max(1, abs(wanted)), f"seed {seed}"


# ---------------------------------------------------------------------------------------- bits ---


def two_steps(graph, seed, batches, **config):
    """Everything to be seen of two steps; None where the machine lacks the instructions."""
    try:
        model = model_of(graph, seed, **config)
    except mest.UnsupportedError:
        return None
    with model:
        randomise(model, np.random.default_rng(seed))
        seen = []
        for x, y in batches:
            seen.append(model.step(x, y).loss)
            seen += state(model)
            seen.append(model.predict(x).tobytes())
        seen.append(fingerprint(model))
    return seen


def check_bits(seed, **config):
    graph, rng, counts = made(seed)
    loss = model_of(graph, seed).config.loss
    batches = [data_of(graph, rng, count, loss) for count in counts]
    plain = two_steps(graph, seed, batches, threads=1, **config)
    for other in (
        dict(simd="reference", threads=2),
        dict(simd="avx2", threads=3, recompute="block"),
        dict(simd="avx512", threads=2, recompute="block"),
        dict(threads=2, recompute="elementwise"),
        dict(threads=3),
    ):
        seen = two_steps(graph, seed, batches, **other, **config)
        assert seen is None or seen == plain, f"seed {seed}: {other}"


@pytest.mark.parametrize("part", range(10))
def test_same_bits(part):
    """For every instruction set, number of threads, and whether blocks are computed again."""
    for seed in range(part, 120, 10):
        check_bits(seed)


def twin(graph, seed, model, **config):
    """A new model with the parameters and the state of another."""
    other = model_of(graph, seed, **config)
    for index in range(1, len(graph.layers)):
        for what in ("weight", "bias", "scale", "running_mean", "running_var"):
            for tensor in (what, what + "_momentum") if what[0] != "r" else (what,):
                if has(model, index, tensor):
                    other.set_tensor(index, tensor, model.tensor(index, tensor))
    return other


@pytest.mark.parametrize("activations", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", range(5))
def test_steps_leave_nothing_behind(part, activations):
    """The second step of a model, after another batch and a prediction, is the first of its twin."""
    for seed in range(part, 100, 5):
        config = dict(activations=activations, recompute=(None, "block", "elementwise")[seed % 3])
        graph, rng, counts = made(seed, dropout=False)
        with model_of(graph, seed, **config) as model:
            randomise(model, rng)
            x, y = data_of(graph, rng, counts[0], model.config.loss)
            model.step(x, y)
            with twin(graph, seed, model, **config) as other:
                model.predict(x[:1])
                x, y = data_of(graph, rng, counts[1], model.config.loss)
                assert model.step(x, y).loss == other.step(x, y).loss, f"seed {seed}"
                assert state(model) == state(other), f"seed {seed}"
                assert fingerprint(model) == fingerprint(other), f"seed {seed}"


@pytest.mark.parametrize("activations", ["float32", "bfloat16"])
def test_inference_only(activations):
    """A model that cannot train stores other things and gives the same bits."""
    for seed in range(60):
        graph, rng, counts = made(seed)
        with model_of(graph, seed, activations=activations) as model:
            randomise(model, rng)
            x, _ = data_of(graph, rng, 2 * graph.batch + 1, model.config.loss)
            wanted = model.predict(x)
            more = dict(activations=activations, inference_only=True, recompute="block")
            with model_of(graph, seed, **more) as lean:
                for index in range(1, len(graph.layers)):
                    for what in ("weight", "bias", "scale", "running_mean", "running_var"):
                        if has(model, index, what):
                            lean.set_tensor(index, what, model.tensor(index, what))
                assert lean.predict(x).tobytes() == wanted.tobytes(), f"seed {seed}"
                assert lean.plan().workspace_bytes <= model.plan().workspace_bytes, f"seed {seed}"


# ------------------------------------------------------- networks that were computed wrongly once ---


def conv(channels=3, kernel=3, bias=False, **more):
    return Conv2d(channels, kernel, padding=kernel // 2, bias=bias, density=1.0, **more)


def ending(features=3):
    return [GlobalAvgPool(), Linear(features, density=1.0)]


FOUND = {
    # Both are computed by who reads them, their sum is stored: it needs the sum of their shifts.
    "sum of two batch norms, read by a pool": lambda: [
        Input(3, 6, 5), conv(name="a"), BatchNorm(name="a norm"), conv(from_="a"), BatchNorm(),
        Add(with_="a norm"), *ending(),
    ],
    "sum of two batch norms, read twice": lambda: [
        Input(3, 6, 5), conv(name="a"), BatchNorm(), conv(from_=0), BatchNorm(), Add(with_=2),
        conv(), Add(with_=5), ReLU(), *ending(),
    ],
    # No gradient reaches this batch norm, so it has no sums.
    "batch norm of the input, added": lambda: [
        Input(3, 6, 5), BatchNorm(affine=False), conv(from_=0), BatchNorm(), Add(from_=1, with_=3),
        ReLU(), conv(), *ending(),
    ],
    "batch norm of the input, added without a convolution behind": lambda: [
        Input(3, 6, 5), BatchNorm(affine=False), conv(from_=0), Add(from_=1, with_=2), ReLU(), *ending(),
    ],
    # Recomputation: outputs that backward does not need ...
    "convolutions between average pools": lambda: [
        Input(3, 9, 8), conv(6), AvgPool(2), conv(6), AvgPool(2), conv(6), AvgPool(2), *ending(),
    ],
    "convolutions between average pools, in a block": lambda: [
        Input(3, 9, 8), conv(4), MaxPool(3, stride=1, padding=1), conv(4), AvgPool(3, stride=1, padding=1),
        conv(4), Add(from_=2, with_=5), MaxPool(2), conv(8), ReLU(), conv(8), *ending(),
    ],
    "pre-activated blocks, the sum in the other order": lambda: [
        Input(3, 9, 8), conv(8), MaxPool(3, stride=1, padding=1),
        conv(8), ReLU(), conv(8), Add(from_=2, with_=5),
        conv(8), ReLU(), conv(8), Add(from_=6, with_=9),
        conv(8), ReLU(), conv(8), Add(from_=10, with_=13),
        conv(8), ReLU(), conv(8), Add(from_=14, with_=17), *ending(),
    ],
    # ... or that dropout has already changed in place ...
    "dropout at the start of a block": lambda: [
        Input(3, 9, 8), conv(4), MaxPool(2), Dropout(0.5), conv(8), BatchNorm(), ReLU(), conv(8), ReLU(),
        MaxPool(2), Dropout(0.5), conv(8), ReLU(), conv(8), *ending(),
    ],
    # ... and a batch norm at the end of a block whose sums a convolution takes before its backward.
    "batch norm read by a convolution and a pool": lambda: [
        Input(3, 9, 8), conv(6), MaxPool(3, stride=1, padding=1), conv(6), BatchNorm(), conv(6),
        MaxPool(3, stride=1, padding=1, from_=4), Add(from_=5, with_=6), ReLU(), conv(6), *ending(),
    ],
}  # fmt: skip


@pytest.mark.parametrize("recompute", [None, "block", "elementwise"])
@pytest.mark.parametrize("name", FOUND)
def test_found(name, recompute):
    graph, rng = Graph(None, 7, True, FOUND[name]()), np.random.default_rng(7)
    graph.batch = 9
    graph.shapes = [part.shape for part in mest.plan(graph.layers, batch=graph.batch).layers]
    model = model_of(graph, 7, recompute=recompute)
    randomise(model, rng)
    for number, count in enumerate((9, 7)):
        tries = (data_of(graph, rng, count, "cross_entropy") for _ in range(20))
        assert any(compare_step(model, graph, 7, number, x, y) for x, y in tries)


def traces(graph, seed, batches, paint, **config):
    """Bits of two steps and of a prediction in a block that held `paint`; guard zones are checked."""
    lib, guard = _lib.library(), 256
    config = {"seed": seed, "batch": graph.batch, **TRAINING, **config}
    plan = mest.plan(graph.layers, **config)
    block = np.full(plan.total_bytes + 2 * guard + plan.alignment, paint, np.uint8)
    offset = guard + (-(block.ctypes.data + guard)) % plan.alignment
    status, handle, _keep = create_in(graph.layers, config, block, offset, plan.total_bytes)
    assert status == 0, lib.mest_last_error(None)
    seen = []
    for x, y in batches:
        labels, report = np.ascontiguousarray(y, np.int32), _abi.mest_step_report()
        batch = _abi.mest_batch(count=len(x), x=x.ctypes.data, labels=labels.ctypes.data)
        assert lib.mest_model_step(handle, ctypes.byref(batch), ctypes.byref(report)) == 0
        out = np.zeros((len(x), graph.outputs), np.float32)
        assert (
            lib.mest_model_predict(handle, x.ctypes.data, len(x), 0, out.ctypes.data, out.size) == 0
        )
        seen += [report.loss, report.gradient_norm, out.tobytes()]
    lib.mest_model_destroy(handle)
    assert (block[:offset] == paint).all() and (block[offset + plan.total_bytes :] == paint).all()
    return seen


@pytest.mark.parametrize("activations", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", range(5))
def test_nothing_is_read_that_was_not_written(part, activations):
    """Blocks full of zeros, of NaN and of large numbers give the same bits."""
    for seed in range(part, 100, 5):
        config = dict(
            activations=activations, recompute=(None, "block", "elementwise")[seed // 3 % 3], threads=1 + seed % 3
        )
        graph, rng, counts = made(seed)
        batches = [data_of(graph, rng, count, "cross_entropy") for count in counts]
        zeros, *others = (
            traces(graph, seed, batches, paint, **config) for paint in (0, 0xFF, 0x7E)
        )
        assert all(other == zeros for other in others), f"seed {seed}"
