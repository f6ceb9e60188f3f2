# SPDX-License-Identifier: Apache-2.0
"""What each works alone, together: random networks, methods, schemes, freezing, sieving, micro-batches, recompute.

A model that never stops and one that is computed otherwise (threads, instructions, recompute), and that now and then
becomes another one, by a checkpoint, are the same after every operation; what is frozen stays, no layer ends without
connections.  A failure names its seed.
"""

import ctypes

import numpy as np
import pytest
from graphs import Graph
from support import fingerprint
from test_every_method import METHODS, ONLY, SCHEMES

import mest
from mest import BatchNorm, Input, Linear, ReLU, _abi

GLOBAL = ("vanilla", "em", "em&s", "gmp")


def random_layers(rng):
    if rng.random() < 0.5:
        return Graph.random(int(rng.integers(1 << 30)), samples=4).layers
    layers = [Input(int(rng.integers(3, 30)))]
    for _ in range(rng.integers(1, 5)):
        layers.append(Linear(int(rng.integers(2, 40)), density=rng.choice([None, 1.0, 0.4])))
        layers += [BatchNorm()] * int(rng.random() < 0.3) + [ReLU()] * int(rng.random() < 0.7)
    return [*layers, Linear(int(rng.integers(2, 5)), density=1.0)]


def random_config(rng):
    """Many, not all, are accepted."""
    method, epochs = str(rng.choice(METHODS)), int(rng.integers(4, 9))
    scheme = ONLY.get(method) or str(rng.choice(SCHEMES))
    batch = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 64]))
    config = dict(
        method=method, scheme=scheme, epochs=epochs, batch=batch, seed=int(rng.integers(99)), learning_rate=0.05,
        density=float(rng.choice([0.1, 0.3, 0.5, 0.8])), micro_batches=int(rng.choice([1, 1, 2, 3])),
        mutation_every=int(rng.integers(1, 3)), distribution=str(rng.choice(["uniform", "erk"])),
        activations=str(rng.choice(["float32", "bfloat16"])), mutation_rate=float(rng.choice([0.1, 0.5, 0.9])),
        exclude_dropped=bool(rng.random() < 0.3), round_compat=bool(rng.random() < 0.2),
        normalised=bool(rng.random() < 0.2),
        global_threshold=method in GLOBAL and scheme == "unstructured" and bool(rng.random() < 0.5),
    )  # fmt: skip

    def now_and_then(share, **more):
        if rng.random() < share:
            config.update(more)

    if method in ("rigl", "gse"):
        config["mutation_updates"] = int(rng.integers(1, 4))
    gradients = ["ema", "momentum"] + ["last"] * (method not in ("rigl", "gse"))
    now_and_then(0.4, importance_gradient=str(rng.choice(gradients)), importance_lambda=0.5)
    if method != "lottery":
        now_and_then(0.6, freeze_share=float(rng.choice([0.3, 0.5, 0.67, 0.9])), freeze_epochs=(1, 2))
    samples = int(rng.integers(2 * batch + 2, 4 * batch + 30))
    kept = dict(samples=samples, margins=bool(rng.random() < 0.3), given_order=True)
    now_and_then(0.7, **kept)
    if "samples" in config:
        now_and_then(0.3, phase1_epochs=2, remove_rule="fraction", remove_fraction=0.3, remove_class_cap=0.5)
        if "phase1_epochs" not in config:
            now_and_then(0.7, sieve_absent=float(rng.choice([0.1, 0.3, 0.6])), sieve_every=2, sieve_share=0.4)
    now_and_then(0.3 if "samples" in config else 1, steps_per_epoch=int(rng.integers(1, 4)))
    return config


def operate(model, kind, seed):
    """One operation, a function of the seed alone: its answer, errors included."""
    rng, config, plan = np.random.default_rng(seed), model.config, model.plan()
    try:
        if kind in ("step", "not finite"):
            count = int(rng.integers(1, config.batch + 1)) if rng.random() < 0.3 else config.batch
            x = rng.normal(size=(count, plan.inputs)).astype(np.float32)
            if kind == "not finite":
                x *= np.float32(3e38 / np.abs(x).max())
            ids = rng.integers(0, config.samples, count) if config.samples else None
            return model.step(x, rng.integers(0, plan.outputs, count), ids)
        if kind == "order" and config.samples:
            return model.set_order(rng.permutation(config.samples)[: rng.integers(1, config.samples + 1)])
        return {"epoch": model.begin_epoch, "mutate": model.mutate}.get(kind, model.mutation)()
    except mest.MestError as error:
        return str(error)


def state(model):
    """All that can be seen."""
    seen = [fingerprint(model), repr(model.mutation())]
    if model.config.samples:
        told = model.forgetting()
        seen += [repr(told), told.counts.tobytes(), model.order().tobytes(), model.select().tobytes()]
    return seen


def fixed(model, layers):
    return [model.tensor(i, "weight").tolist() for i in range(layers) if model.plan().layers[i].rows]


def lose(model, path):
    """A load whose second reading finds other bytes than the first."""
    data, ends = path.read_bytes(), []

    def read(slot, offset, to, count, _user):
        known = data[offset : offset + count] if slot == 0 else b""
        ends.extend([offset] * (len(known) > 0 and offset + count >= len(data)))
        if len(ends) == 2:
            known = bytes([known[0] ^ 1]) + known[1:]
        ctypes.memmove(to, known + bytes(count - len(known)), count)
        return 0

    io = _abi.mest_io(struct_size=ctypes.sizeof(_abi.mest_io), read=_abi.read_function(read))
    io.write, io.sync = _abi.write_function(lambda *_: 1), _abi.sync_function(lambda *_: 1)
    return model._lib.mest_model_load(model._handle, ctypes.byref(io), 0, None)


def trial(seed, path):
    """None where the library refuses the description."""
    rng = np.random.default_rng(seed)
    layers, config = random_layers(rng), random_config(rng)
    otherwise = dict(
        threads=2, simd=str(rng.choice(["auto", "reference"])),
        recompute=str(rng.choice(["none", "block", "elementwise"])),
    )  # fmt: skip
    try:
        never = mest.Model(layers, threads=1, on_log=lambda *_: None, **config)
    except mest.MestError:
        return None

    def another():
        return mest.Model(layers, on_log=lambda *_: None, **config, **otherwise)

    other, frozen, begins = another(), 0, rng.random() < 0.4
    new = state(never)
    for number in range(20):
        where = f"seed {seed} operation {number} of {config}"
        kinds = ["step"] * 12 + ["mutate", "order", "not finite", "epoch"] + ["epoch"] * 4 * begins
        operation = str(rng.choice(kinds)), int(rng.integers(1 << 60))
        before = fixed(never, frozen)
        answer = operate(never, *operation)
        assert repr(answer) == repr(operate(other, *operation)), where
        now = state(never)
        assert now == state(other), where
        assert before == fixed(never, frozen), where
        frozen = getattr(answer, "frozen", frozen)
        for connections, part in zip(never.connections(), never.plan().layers):
            assert not part.sparse or 0 < connections <= part.capacity, where
        if rng.random() < 0.7:
            continue
        assert never.save(path).bytes <= never.plan().checkpoint_bytes, where
        if rng.random() < 0.4:
            other = another()
        for _ in range(rng.integers(0, 6)):  # it goes astray
            operate(other, str(rng.choice(["step", "step", "epoch", "mutate"])), int(rng.integers(1 << 60)))
        if rng.random() < 0.3 and lose(other, path) == _abi.MEST_ERR_IO:
            assert state(other) == new, where
        other.load(path)
        assert now == state(other), where
    return frozen


@pytest.mark.parametrize("part", range(4))
def test_random_combinations(part, tmp_path):
    ended = [trial(seed, tmp_path / "c") for seed in range(part * 45, part * 45 + 45)]
    accepted = [frozen for frozen in ended if frozen is not None]
    assert len(accepted) > 20 and sum(frozen > 0 for frozen in accepted) > 5
