# SPDX-License-Identifier: Apache-2.0
"""The plan is the truth: one request of exactly its size, nothing later, nothing outside."""

import ctypes

import numpy as np
import pytest
import reference
from cases import NETWORKS

import mest
from mest import Conv2d, Flatten, Input, Linear, ReLU, _abi, _lib
from mest.layers import describe

EXAMPLES = {
    "mlp": (lambda: mest.mlp((1, 8, 8), [128], 10), dict(batch=32, density=0.1)),
    "digits resnet": (lambda: mest.resnet(8, 16, 10, (1, 8, 8)), dict(batch=64, density=0.1)),
    "digits resnet, dense": (lambda: mest.resnet(8, 16, 10, (1, 8, 8)), dict(batch=64)),
    "resnet 20": (lambda: mest.resnet(20, 16), dict(batch=16, density=0.1)),
    "resnet 20, erk": (
        lambda: mest.resnet(20, 16),
        dict(batch=4, density=0.05, distribution="erk"),
    ),
}
TRAINING = dict(method="em&s", mutation_every=1, epochs=4, samples=100)


MUTATING = ("em&s", "snip", "grasp")


@pytest.mark.parametrize("method", MUTATING)
@pytest.mark.parametrize("name", EXAMPLES)
def test_one_request_and_nothing_after(name, method):
    network, config = EXAMPLES[name]
    config = {**config, **({**TRAINING, "method": method} if "density" in config else {"samples": 100})}
    plan = mest.plan(network(), **config)
    model = mest.Model(network(), **config)
    assert model.plan() == plan
    assert (model.memory.requests, model.memory.peak) == (1, plan.total_bytes)
    shape = plan.layers[0].shape
    x = np.random.default_rng(0).normal(size=(config["batch"], *shape)).astype(np.float32)
    y = np.zeros(config["batch"], int)
    for _ in range(3):
        model.begin_epoch()
        model.step(x, y, np.arange(len(x)))
    if config.get("method") == "em&s":
        model.mutate()
    (
        model.predict(x),
        model.evaluate(x, y),
        model.forgetting(),
        model.select("number", remove_number=1),
    )
    assert (model.memory.requests, model.memory.current) == (1, plan.total_bytes)
    model.close()
    assert model.memory.current == 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_plan_adds_up(name):
    network, config = EXAMPLES[name]
    plan = mest.plan(network(), **config)
    parts = ("table", "weight", "index", "gradient", "state", "forgetting", "batch", "workspace")
    assert plan.total_bytes == sum(getattr(plan, f"{part}_bytes") for part in parts)
    assert (
        plan.activation_bytes <= plan.workspace_bytes
        and plan.mutation_bytes <= plan.workspace_bytes
    )
    for what in ("weight", "index", "gradient", "state"):
        share = sum(getattr(layer, f"{what}_bytes") for layer in plan.layers)
        assert share == getattr(plan, f"{what}_bytes"), what
    assert plan.macs == sum(layer.macs for layer in plan.layers)
    assert plan.alignment == 64


def test_known_numbers():
    """ResNet-32 of the paper and ResNet-20: parameters, multiply-adds, sparse weights."""
    plan = mest.plan(mest.resnet(32, 32), batch=1, density=0.1)
    assert (plan.parameters, plan.dense_macs) == (1_860_522, 275_612_928)
    sparse = [layer for layer in plan.layers if layer.sparse]
    assert len(sparse) == 30 and sum(layer.rows * layer.columns for layer in sparse) == 1_843_200
    assert all(p.active == reference.count_exact(p.rows * p.columns, 0.1) for p in sparse)
    plan = mest.plan(mest.resnet(20, 16), batch=1)
    assert (plan.parameters, plan.dense_macs) == (272_474, 40_813_184)


def test_erk_of_the_paper_network():
    """Golden check G9: densities of the thirty 3x3 convolutions at 0.1 overall."""
    plan = mest.plan(mest.resnet(32, 32), batch=1, density=0.1, distribution="erk")
    found = {(p.rows, p.columns // 9): p.density for p in plan.layers if p.sparse}
    golden = {(32, 32): 0.306748, (64, 32): 0.223488, (64, 64): 0.146801,
              (128, 64): 0.108457, (128, 128): 0.071757}  # fmt: skip
    for shape, density in golden.items():
        assert found[shape] == pytest.approx(density, abs=1e-4), shape


def test_a_plan_tells_of_growth():
    layers = mest.mlp(64, [128], 10)
    said = "819 at the target; bytes are planned for 1,229"
    assert said in str(mest.plan(layers, density=0.1, method="em&s", epochs=20))
    for method in ("static", "em"):
        plan = mest.plan(layers, density=0.1, method=method, epochs=20)
        assert "at the target" not in str(plan)
    odd = mest.plan([mest.Input(24), mest.Linear(30, scheme="block8"), mest.ReLU(), mest.Linear(10)], density=0.3)
    assert "a last block or run of inputs is stored whole" in str(odd)


@pytest.mark.parametrize("method, economic, why", [
    ("static", True, ""), ("rigl", True, ""), ("em&s", True, "grows above"), ("dsr", True, "twice its target"),
    ("gmp", False, "initial_density"), ("lottery", False, "begin dense"),
])  # fmt: skip
def test_a_plan_tells_which_methods_are_not_memory_economic(method, economic, why):
    plan = mest.plan(mest.mlp(64, [128], 10), density=0.1, method=method, epochs=80, mutation_every=5, samples=100)
    assert (plan.method, plan.memory_economic) == (method, economic)
    assert ("not memory-economic" in str(plan)) == (not economic)
    assert why in str(plan)


@pytest.mark.parametrize("scheme", ["unstructured", "fan_in", "block4"])
def test_twice_the_target_is_economic_however_it_is_rounded(scheme):
    layers = [Input(17), Linear(34, scheme=scheme, density=0.1), Linear(3, density=1.0)]
    assert mest.plan(layers, method="em&s", mutation_extra=0.1, epochs=8).memory_economic
    assert not mest.plan(layers, method="em&s", mutation_extra=0.25, epochs=8).memory_economic


@pytest.mark.parametrize("scheme, image", [("row8", 3), ("row16", 3), ("block16", 20)])
def test_what_a_last_run_lacks_is_no_connection(scheme, image):
    """It is stored: capacity may be more than twice the connections though none beyond them can exist."""
    layers = [Input(image, 8, 8), Conv2d(8 if image == 3 else 1, 3, scheme=scheme, density=0.1), Flatten(), Linear(3)]
    layers[3].density = 1.0
    plan = mest.plan(layers)
    assert plan.layers[1].capacity > 2 * plan.layers[1].active
    assert plan.memory_economic and "for comparison" not in str(plan)


def test_snip_has_room_for_twice_its_targets_however_they_are_rounded():
    for size in range(2, 60):
        layers = [Input(size), Linear(7, density=0.1), Linear(5, density=0.35), Linear(3, density=1.0)]
        for compat in (False, True):
            assert mest.plan(layers, method="snip", round_compat=compat).memory_economic, (size, compat)


def test_sparse_is_sparse():
    """At 1 % of a large layer the whole block is far smaller than its dense weights alone."""
    layers = [Input(4000), Linear(4000, density=0.01), ReLU(), Linear(10, density=1.0)]
    plan = mest.plan(layers, batch=8, method="em&s", epochs=10)
    dense_weight = 4 * 4000 * 4000
    assert plan.total_bytes < 0.12 * dense_weight
    assert plan.dense_bytes >= 3 * dense_weight
    with mest.Model(layers, batch=8, method="em&s", epochs=10) as model:
        assert model.memory.peak == plan.total_bytes


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.2])
def test_memory_follows_connections(density):
    """Weights, gradients, state and both indices: at most 4+4+4 bytes and 2+2+4 of index each."""
    layers = [Input(1000), Linear(1000, density=density), Linear(2, density=1.0)]
    part = mest.plan(layers, batch=1).layers[1]
    count = round(density * 1_000_000)
    assert part.active == part.capacity == count
    per_connection = (part.bytes - 4 * 3 * 1000) / count
    assert 14 <= per_connection <= 21, per_connection


def test_budget():
    layers = EXAMPLES["resnet 20"][0]()
    need = mest.plan(layers, batch=16, density=0.1).total_bytes
    mest.plan(layers, batch=16, density=0.1, budget_bytes=need)
    for make in (mest.plan, mest.Model):
        with pytest.raises(mest.BudgetError) as caught:
            make(layers, batch=16, density=0.1, budget_bytes=need - 1)
        message = str(caught.value).replace(",", "").replace(" ", "")
        assert str(need) in message and str(need - 1) in message, caught.value
    with pytest.raises(mest.BudgetError) as caught:
        mest.plan(layers, batch=16, density=0.1, budget_bytes=need - 1)
    assert caught.value.plan.total_bytes == need


# ------------------------------------------------------------------------ a block of the caller ---


def create_in(layers, config, block, offset, size):
    lib, handle = _lib.library(), _abi.model()
    description, settings = describe(layers), mest.Config(**config).to_struct()
    status = lib.mest_model_create_in(
        ctypes.byref(settings), description, len(layers), None,
        block.ctypes.data + offset, size, ctypes.byref(handle),
    )  # fmt: skip
    return status, handle, (settings, description)


def work(handle, plan, config):
    """Everything that writes: steps, mutation, prediction."""
    lib = _lib.library()
    count = config["batch"]
    x = np.random.default_rng(0).normal(size=(count, plan.inputs)).astype(np.float32)
    labels, ids = np.zeros(count, np.int32), np.arange(count, dtype=np.uint32)
    out = np.zeros((count, plan.outputs), np.float32)
    batch = _abi.mest_batch(
        count=count, x=x.ctypes.data, labels=labels.ctypes.data, ids=ids.ctypes.data
    )
    for _ in range(2):
        assert lib.mest_model_begin_epoch(handle, None) == 0
        assert lib.mest_model_step(handle, ctypes.byref(batch), None) == 0
    if config.get("method") == "em&s":
        assert lib.mest_model_mutate(handle, None) == 0
    assert lib.mest_model_predict(handle, x.ctypes.data, count, 0, out.ctypes.data, out.size) == 0


def single_weights(layers):
    return all(getattr(layer, "scheme", None) in (None, "unstructured") for layer in layers)


@pytest.mark.parametrize(
    "name, method",
    [(n, m) for n in NETWORKS for m in MUTATING if m == "em&s" or single_weights(NETWORKS[n]())],
)
def test_nothing_outside_the_block(name, method):
    """Guard zones around the block stay as painted, and the block is used to its end."""
    layers = NETWORKS[name]()
    config = dict(batch=5, density=0.4, epochs=4, samples=10, threads=2)
    if any(layer.sparse for layer in mest.plan(layers, **config).layers):
        config["method"] = method  # refused where every layer is dense
    plan = mest.plan(layers, **config)
    guard, total = 4096, plan.total_bytes
    touched = np.zeros(total, bool)
    for paint in (0xA5, 0x5A):  # a byte that happens to equal one paint differs from the other
        block = np.full(total + 2 * guard + plan.alignment, paint, np.uint8)
        offset = guard + (-(block.ctypes.data + guard)) % plan.alignment
        status, handle, _keep = create_in(layers, config, block, offset, total)
        assert status == 0, _lib.library().mest_last_error(None)
        work(handle, plan, config)
        _lib.library().mest_model_destroy(handle)
        assert (block[:offset] == paint).all() and (block[offset + total :] == paint).all()
        touched |= block[offset : offset + total] != paint
    assert np.flatnonzero(touched)[-1] >= total - 64


def test_create_in_refuses_what_does_not_fit():
    layers, config = mest.mlp(4, [8], 2), dict(batch=2)
    plan = mest.plan(layers, **config)
    block = np.zeros(plan.total_bytes + 2 * plan.alignment, np.uint8)
    offset = -block.ctypes.data % plan.alignment
    status, handle, _ = create_in(layers, config, block, offset, plan.total_bytes - 1)
    assert status == _abi.MEST_ERR_MEMORY and not handle.value
    status, handle, _ = create_in(layers, config, block, offset + 4, plan.total_bytes)
    assert status == _abi.MEST_ERR_ARGUMENT and not handle.value
    assert not block.any(), "a refused block is left alone"


def test_many_models_leak_nothing():
    """Resident memory does not grow over 200 lives of a 6 MB model."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    layers = [
        Input(8, 16, 16),
        Conv2d(32, 3, padding=1, density=0.5),
        Flatten(),
        Linear(2, density=0.01),
    ]
    for life in range(200):
        with mest.Model(layers, batch=16) as model:
            model.predict(np.zeros((16, 8, 16, 16), np.float32))
        if life == 20:
            before = resident()
    assert resident() - before < 8e6
