# SPDX-License-Identifier: Apache-2.0
"""Fields that a kind of layer does not have, and sizes at the edge of what numbers can hold."""

import ctypes
import re

import numpy as np
import pytest

import mest
from mest import BatchNorm, Conv2d, GlobalAvgPool, Input, Linear, _abi, _lib

# One layer of every kind: index, and its fields.
EVERY_KIND = [
    ("INPUT", dict(channels=2, height=8, width=8)),
    ("CONV2D", dict(channels=4, kernel_h=3, pad_h=1, pad_w=1)),
    ("BATCH_NORM", {}),
    ("RELU", {}),
    ("ADD", {"with": 1}),
    ("MAX_POOL", dict(kernel_h=2)),
    ("AVG_POOL", dict(kernel_h=2)),
    ("DROPOUT", dict(rate=0.25)),
    ("FLATTEN", {}),
    ("GLOBAL_AVG_POOL", {}),
    ("LINEAR", dict(channels=3)),
]
MATRIX, WINDOW = ("LINEAR", "CONV2D"), ("CONV2D", "MAX_POOL", "AVG_POOL")

# field: (a value, the kinds that have it)
FIELDS = {
    "with": (2, ("ADD",)),
    "channels": (3, ("INPUT", *MATRIX)),
    "height": (7, ("INPUT",)),
    "width": (7, ("INPUT",)),
    **{f: (2, WINDOW) for f in ("kernel_h", "kernel_w")},
    **{f: (1, WINDOW) for f in ("stride_h", "stride_w", "pad_h", "pad_w")},
    **{f: (2, ("CONV2D",)) for f in ("dilation_h", "dilation_w", "groups")},
    "flags": (1, (*MATRIX, "BATCH_NORM")),
    "scheme": (1, MATRIX),
    "density": (0.5, MATRIX),
    "momentum": (0.5, ("BATCH_NORM",)),
    "epsilon": (0.5, ("BATCH_NORM",)),
    "rate": (0.5, ("DROPOUT",)),
}


def plan_status(description, **config):
    """Status and message of mest_plan, past the checks of the package."""
    settings = mest.Config(**{"batch": 4, **config}).to_struct()
    report = _abi.mest_plan_report()
    status = _lib.library().mest_plan(
        ctypes.byref(settings), description, len(description), ctypes.byref(report), None
    )
    return status, _lib.library().mest_last_error(None).decode()


def every_kind():
    layers = _abi.array(_abi.mest_layer, len(EVERY_KIND))
    for layer, (kind, fields) in zip(layers, EVERY_KIND):
        layer.kind = getattr(_abi, "MEST_LAYER_" + kind)
        for name, value in fields.items():
            setattr(layer, name, value)
    return layers


def test_the_description_of_every_kind():
    assert plan_status(every_kind())[0] == _abi.MEST_OK
    kinds = {value for name, value in vars(_abi).items() if name.startswith("MEST_LAYER_")}
    assert {layer.kind for layer in every_kind()} == kinds
    other = {"struct_size", "kind", "from", "name"}
    assert {name for name, _ in _abi.mest_layer._fields_} == other | set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("index", range(len(EVERY_KIND)), ids=[kind for kind, _ in EVERY_KIND])
def test_fields_belong_to_kinds(index, field):
    value, owners = FIELDS[field]
    kind = EVERY_KIND[index][0]
    layers = every_kind()
    setattr(layers[index], field, 2 if (kind, field) == ("BATCH_NORM", "flags") else value)
    status, message = plan_status(layers)
    if kind not in owners:
        assert status == _abi.MEST_ERR_ARGUMENT, message
        assert field.split("_")[0] in message and str(index) in message
        assert message.endswith(f"which {kind} does not have")
    elif field in ("dilation_h", "dilation_w", "groups"):  # only in a later version
        assert status == _abi.MEST_ERR_UNSUPPORTED
    else:
        assert status == _abi.MEST_OK, message


@pytest.mark.parametrize("field", ["dilation_h", "dilation_w", "groups"])
def test_fields_that_may_be_1_belong_to_kinds_too(field):
    for index, (kind, _) in enumerate(EVERY_KIND):
        layers = every_kind()
        setattr(layers[index], field, 1)
        wanted = _abi.MEST_OK if kind == "CONV2D" else _abi.MEST_ERR_ARGUMENT
        assert plan_status(layers)[0] == wanted, kind


def test_the_input_comes_from_nowhere():
    layers = every_kind()
    setattr(layers[0], "from", -1)
    status, message = plan_status(layers)
    assert status == _abi.MEST_ERR_ARGUMENT and "from" in message


# -------------------------------------------------------------------------------------- sizes ---


@pytest.mark.parametrize("value", [2**31, 2**32 - 1])
@pytest.mark.parametrize(
    "field",
    ["samples", "epochs", "steps_per_epoch", "warmup_epochs", "schedule_every", "mutation_every"],
)
def test_counts_fit_31_bits(field, value):
    """Also where int has 32 bits."""
    for make in (mest.plan, mest.Model):
        with pytest.raises(mest.MestArgumentError, match=field):
            make([Input(4), Linear(3)], batch=4, **{field: value})
    if field != "warmup_epochs":
        mest.plan([Input(4), Linear(3)], batch=4, **{field: 2**31 - 1})


@pytest.mark.parametrize("value", [2**31, 2**32 - 1])
def test_mutation_epochs_fit_31_bits(value):
    for epochs in ((value, value), (1, value)):
        with pytest.raises(mest.MestArgumentError, match="mutation_epochs"):
            mest.plan([Input(4), Linear(3)], method="em", epochs=4, mutation_epochs=epochs)


@pytest.mark.parametrize("count", [0, 2**31, 2**32 - 1])
def test_evaluate_any_number_but_these(count):
    model = mest.Model([Input(4), Linear(3)], batch=4)
    x, y = np.ones((4, 4), np.float32), np.zeros(4, np.int32)
    batch = _abi.mest_batch(count=count, x=x.ctypes.data, labels=y.ctypes.data)
    evaluation = _abi.mest_evaluation()
    with pytest.raises(mest.MestArgumentError, match="count"):
        model._call(
            _lib.library().mest_model_evaluate, ctypes.byref(batch), ctypes.byref(evaluation)
        )
    assert model.evaluate(x, y).count == 4


@pytest.mark.parametrize("kind", [Linear, lambda n, density: Conv2d(n, 1, density=density)])
def test_matrices_have_fewer_than_2_31_positions(kind):
    for density in (1.0, 1e-6):
        layers = [Input(65536), kind(40000, density=density), Linear(2, density=1.0)]
        with pytest.raises(mest.UnsupportedError, match="2600|2621440000|2\\^31"):
            mest.plan(layers, batch=1)


def test_a_block_of_any_size_will_do():
    """bytes is size_t: its largest value is no negative number."""
    layers = every_kind()
    settings = mest.Config(batch=4).to_struct()
    report, handle = _abi.mest_plan_report(), _abi.model()
    lib, arguments = _lib.library(), (ctypes.byref(settings), layers, len(layers))
    assert lib.mest_plan(*arguments, ctypes.byref(report), None) == _abi.MEST_OK
    block = np.empty(report.total_bytes + report.alignment, np.uint8)
    start = -(-block.ctypes.data // report.alignment) * report.alignment
    for size in (report.total_bytes, 2**63 - 1, 2**63, 2**64 - 1):
        status = lib.mest_model_create_in(*arguments, None, start, size, ctypes.byref(handle))
        assert status == _abi.MEST_OK, lib.mest_last_error(None)
        lib.mest_model_destroy(handle)


def far_too_large():
    """2^28 values a sample, 65536 samples, 32 layers that keep them: 2^51 bytes."""
    layers = [Input(1, 16384, 16384), *[BatchNorm() for _ in range(32)]]
    return [*layers, GlobalAvgPool(), Linear(2, density=1.0)]


def test_a_plan_may_be_larger_than_memory():
    plan = mest.plan(far_too_large(), batch=65536)
    assert plan.total_bytes > 2**48
    with pytest.raises(mest.MestMemoryError):
        mest.Model(far_too_large(), batch=65536)


@pytest.mark.parametrize("budget", [2**20, 2**40])
def test_a_budget_far_below_the_plan(budget):
    with pytest.raises(mest.BudgetError, match="batch") as caught:
        mest.plan(far_too_large(), batch=65536, budget_bytes=budget)
    assert caught.value.plan.total_bytes > 2**48
    proposed = re.search(r"Batch (\d+) needs (\d+)", str(caught.value))
    assert (proposed is None) == (budget == 2**20)
    if proposed:
        batch, needs = map(int, proposed.groups())
        assert mest.plan(far_too_large(), batch=batch).total_bytes == needs <= budget
