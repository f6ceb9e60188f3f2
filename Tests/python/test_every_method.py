# SPDX-License-Identifier: Apache-2.0
"""Every method under every scheme: the pairs that exist, each mutation against its definition (moves.py),
the bytes that it was planned for; the pairs that do not exist are refused.

What grows by gradients has its definition in test_gradient_growth.py, what moves between layers or rewinds in
test_across_layers.py, whole channels in test_channel_mutation.py.
"""

import ctypes

import numpy as np
import pytest
from moves import Layer, Units, initial
from support import positions
from test_memory import create_in

import mest
from mest import Conv2d, Flatten, Input, Linear, _abi, _lib, config

METHODS = config._WORDS["method"]
SCHEMES = [s for s in config._WORDS["scheme"] if s]
CHANNELS = ("filter", "channel")
ONLY = {**dict.fromkeys(("rigl", "gse", "dsr", "lottery", "snip", "grasp"), "unstructured"), "srigl": "fan_in"}
MOVE_ROWS = ("vanilla", "em", "em&s", "set", "gmp", "srigl")  # within a layer, between epochs


def exists(method, scheme):
    return ONLY.get(method, scheme) == scheme


PAIRS = [(m, s) for m in METHODS for s in SCHEMES if exists(m, s)]


def settings(method, **more):
    needs = {
        "lottery": dict(mutation_every=2, mutation_rate=0.5),
        "rigl": dict(mutation_updates=2), "gse": dict(mutation_updates=2),
    }  # fmt: skip
    return {**dict(method=method, epochs=8, steps_per_epoch=2, density=0.3), **needs.get(method, {}), **more}


def network(scheme):
    kernel = 3 if scheme == "pattern" else 2
    return [Input(5, 4, 4), Conv2d(7, kernel, name="conv"), Flatten(), Linear(9), Linear(3, density=1.0)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_pairs(method, scheme):
    """Those that exist train; the others are refused by name."""
    make = dict(scheme=scheme, batch=4, learning_rate=0.05, **settings(method))
    if not exists(method, scheme):
        words = f"layer . .*: method {method.upper()} needs scheme {ONLY[method].upper()}, this layer's is"
        with pytest.raises(mest.UnsupportedError, match=words):
            mest.plan(network(scheme), **make)
        return
    model = mest.Model(network(scheme), **make)
    rng = np.random.default_rng(1)
    moved = 0
    for _ in range(8):
        model.begin_epoch()
        for _ in range(2):
            model.step(rng.normal(size=(4, 5, 4, 4)).astype(np.float32), rng.integers(0, 3, 4))
        report = model.mutation()
        moved += report.dropped
        assert all(n <= part.capacity for n, part in zip(model.connections(), model.plan().layers) if part.sparse)
    assert (moved > 0) == (method != "static")


# ------------------------------------------------------------------------------- definitions ---


def cases(method, scheme):
    """Sizes and settings of random layers, about one in three a convolution."""

    def make(seed):
        rng = np.random.default_rng([seed, METHODS.index(method), SCHEMES.index(scheme)])
        density = float(rng.uniform(0.05, 0.44 if scheme in ("pattern", "nm24") else 0.9))
        more = dict(
            method=method, density=density, mutation_rate=float(rng.uniform(0.05, 0.9)), mutation_every=1,
            epochs=9, mutation_epochs=(2, 5), exclude_dropped=bool(rng.random() < 0.5), momentum=0.9,
            mutation_decay=str(rng.choice(["staircase", "cosine"])),
            round_compat=bool(rng.random() < 0.2) and method != "set",  # SET rounds by sign
            threads=int(rng.integers(1, 5)),
        )  # fmt: skip
        if rng.random() < 0.5:
            more.update(importance_gradient="momentum", importance_lambda=float(rng.choice([0.5, 3.0])))
        if method == "em&s" and rng.random() < 0.5:
            more["mutation_extra"] = float(rng.uniform(0.01, 0.4))
        if method == "gmp":
            more["initial_density"] = float(min(1.0, density * rng.uniform(1, 3)))
        rows, inputs = int(rng.integers(1, 14)), int(rng.integers(1, 14))
        if scheme != "pattern" and rng.random() < 0.7:
            return rng, rows, inputs, [Input(inputs), Linear(rows, bias=False)], more
        inputs = 1 + inputs // 3
        kernel = 3 if scheme == "pattern" else (2, int(rng.integers(1, 4)))
        columns = inputs * (9 if scheme == "pattern" else 2 * kernel[1])
        return rng, rows, columns, [Input(inputs, 3, 3), Conv2d(rows, kernel, bias=False), Flatten()], more

    return make


def measured(model, columns, index=1):
    csr = model.csr(index)
    return positions(csr, columns), np.array(csr.values), np.array(model.tensor(index, "weight_momentum"))


ROWS = [(m, s) for m, s in PAIRS if m in MOVE_ROWS and s not in CHANNELS]


@pytest.mark.parametrize("method, scheme", ROWS)
def test_moves_as_defined(method, scheme):
    """The same connections leave and come, with the same values and state, whatever the threads; as many as
    the schedule says; nothing else changes."""
    moved = 0
    for seed in range(80):
        rng, rows, columns, layers, more = cases(method, scheme)(seed)
        model = mest.Model(layers, scheme=scheme, batch=2, loss="mse", seed=seed, **more)
        units = Units(scheme, rows, columns, taps=columns // layers[0].channels if len(layers) == 3 else 1)
        part = model.plan().layers[1]
        if not part.sparse:
            continue
        unexplored = 1 - model.connections()[1] / (rows * columns)
        start = len({units.of(int(p)) for p in positions(model.csr(1), columns)})
        assert start == initial(units, more) * units.pools, f"seed {seed}"
        for epoch in range(7):
            where = f"{method} {scheme} seed {seed} epoch {epoch}"
            csr = model.csr(1)
            values = rng.normal(size=len(csr.values)).astype(np.float32)
            values[rng.random(len(values)) < 0.2] = np.float32(0.25)  # equals
            momentum = rng.normal(size=len(values)).astype(np.float32)
            momentum[values == 0.25] = np.float32(0.5)
            model.set_tensor(1, "weight", values), model.set_tensor(1, "weight_momentum", momentum)
            layer = Layer(units, *measured(model, columns))
            before = model.mutation().mutations
            report = model.begin_epoch()
            if epoch == 0 and method in ("set", "srigl"):
                assert not report.mutated
                continue
            dropped, grown = layer.mutate(more, epoch, seed, 1, before + 1)
            assert (report.dropped, report.grown) == (dropped, grown), where
            for found, expected, what in zip(measured(model, columns), layer.flat(), ("where", "value", "momentum")):
                if method == "set" and what == "value":
                    np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=where)
                else:
                    assert found.tolist() == expected, f"{where}: {what}"
            told = model.mutation()
            assert (told.active, told.positions) == (layer.count(), rows * columns), where
            unexplored *= layer.factor
            assert told.explored == pytest.approx(1 - unexplored, abs=1e-5), where
            assert layer.count() <= part.capacity, where
            moved += dropped + grown
    assert moved > 500


@pytest.mark.parametrize(
    "method, together", [(m, False) for m in METHODS] + [(m, True) for m in ("vanilla", "em", "em&s", "gmp")]
)
def test_a_whole_training_ends_at_its_density(method, together):
    """Not below it either.  Layers of very different scales, so that one threshold for all empties some."""
    layers = [Input(12), Linear(30), Linear(20), Linear(16), Linear(3, density=1.0)]
    more = dict(scheme="fan_in") if method == "srigl" else {}
    config = settings(method, density=0.2, epochs=24, mutation_every=1, global_threshold=together, **more)
    model = mest.Model(layers, batch=8, learning_rate=0.05, **config)
    target = [layer.active for layer in model.plan().layers[1:4]]
    rng = np.random.default_rng(3)
    for epoch in range(24):
        model.begin_epoch()
        for i, scale in ((1, 1.0), (2, 0.1), (3, 0.01)):  # what has been learned: the last layer is the least important
            values = rng.normal(size=model.connections()[i]).astype(np.float32)
            model.set_tensor(i, "weight", scale * values)
        for _ in range(2):
            model.step(rng.normal(size=(8, 12)).astype(np.float32), rng.integers(0, 3, 8))
    found = model.connections()[1:4]
    assert abs(sum(found) - sum(target)) <= 3, (found, target)
    if not together and method not in ("dsr", "snip", "grasp", "lottery"):
        assert found == target


@pytest.mark.parametrize("method", [m for m in MOVE_ROWS if m != "srigl"])
def test_a_layer_of_one_unit_keeps_it(method):
    """By the published rounding of a single unit none would stay."""
    layers = [Input(8), Linear(1, scheme="row8"), Linear(9), Linear(3, density=1.0)]
    model = mest.Model(layers, round_compat=True, **{**settings(method), "mutation_every": 1, "density": 0.5})
    for _ in range(8):
        model.begin_epoch()
        assert model.connections()[1] == 8


# ------------------------------------------------------------------------------------- bytes ---


@pytest.mark.parametrize("method, scheme", PAIRS)
@pytest.mark.parametrize("exclude", [False, True])
def test_the_planned_bytes_are_enough_and_used(method, scheme, exclude):
    """In a block of just the planned size, with guard zones around it, and nothing asked for later.  Large
    matrices at batch 1: the scratch of the mutation, which lies at the end, is the larger part, and it is used to
    its last lines."""
    layers = [Input(90), Linear(70), Linear(60), Linear(3, density=1.0)]
    if method == "dsr":
        layers = [Input(60), Linear(60), Linear(60), Linear(60), Linear(3, density=1.0)]
    if scheme == "pattern":
        layers = [Input(12, 3, 3), Conv2d(70, 3, padding=1), Conv2d(20, 3), Flatten(), Linear(3, density=1.0)]
    make = dict(scheme=scheme, batch=1, exclude_dropped=exclude, learning_rate=0.05, mutation_rate=0.9, threads=2)
    make.update(settings(method))
    if method in ("em", "em&s", "vanilla"):
        make["mutation_every"] = 1
    plan = mest.plan(layers, **make)
    with mest.Model(layers, **make) as model:
        assert (model.memory.requests, model.memory.peak) == (1, plan.total_bytes)
    guard, total = 1 << 16, plan.total_bytes
    block = np.full(total + 2 * guard + plan.alignment, 0xA5, np.uint8)
    offset = guard + (-(block.ctypes.data + guard)) % plan.alignment
    status, handle, _keep = create_in(layers, make, block, offset, total)
    assert status == 0, _lib.library().mest_last_error(None)
    lib, rng = _lib.library(), np.random.default_rng(0)
    x, label = np.zeros(plan.inputs, np.float32), np.zeros(1, np.int32)
    batch = _abi.mest_batch(count=1, x=x.ctypes.data, labels=label.ctypes.data)
    for epoch in range(8):
        for layer, values in worst(method, epoch, handle, lib).items():
            assert lib.mest_model_tensor_set(handle, layer, _abi.MEST_TENSOR_WEIGHT, values.ctypes.data, len(values)) == 0
        assert lib.mest_model_begin_epoch(handle, None) == 0
        if method == "srigl" and epoch == 0:  # the largest share, of which no epoch asks for a mutation
            assert lib.mest_model_mutate(handle, None) == 0
        for _ in range(2):
            x[:] = rng.normal(size=plan.inputs)
            assert lib.mest_model_step(handle, ctypes.byref(batch), None) == 0
    lib.mest_model_destroy(handle)
    assert (block[:offset] == 0xA5).all() and (block[offset + total :] == 0xA5).all()
    assert (block[offset + total - 128 : offset + total] != 0xA5).any()


def worst(method, epoch, handle, lib):
    """Values by layer, with which a mutation needs the most: where learned ones never ask for it."""
    if method == "srigl" and epoch == 0:  # the largest weight of a row is among the largest of all
        return {i: np.tile(np.arange(n, dtype=np.float32) / 100, rows) for i, n, rows in ((1, 27, 70), (2, 21, 60))}
    if method != "dsr" or epoch not in (1, 2):
        return {}
    # First one layer of three gets all that the others lose, which is twice its target; then it loses nearly all
    # of that, and gets it back, since the others have kept still less.
    values = {}
    for layer in (1, 2, 3):
        count = ctypes.c_uint64()
        assert lib.mest_model_tensor_size(handle, layer, _abi.MEST_TENSOR_WEIGHT, ctypes.byref(count)) == 0
        values[layer] = np.full(count.value, 1e-7, np.float32)
    values[1][: None if epoch == 1 else 5] = 1
    return values
