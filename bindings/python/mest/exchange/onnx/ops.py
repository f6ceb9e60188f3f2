# SPDX-License-Identifier: Apache-2.0
"""ONNX operations without weights as layers, and the table of all operations."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Optional, Union

import numpy as np
from numpy.typing import NDArray

from ...layers import Add, AvgPool, Dropout, GlobalAvgPool, MaxPool, ReLU
from .layout import LAYOUT, axes_of
from .node import Node, batch_of
from .reader import Array, Reader, Value
from .weights import affine, batch_norm, conv, decimal, gemm, matmul, pair
from .windows import windows


def relu(reader: Reader, node: Node) -> Value:
    value = reader.value(node)
    return reader.emit(ReLU(), value, value.shape, value.dims, value.order, value.features)


def clip(reader: Reader, node: Node) -> Value:
    """Clip from 0 up is ReLU."""
    low, high = _bound(reader, node, 1, "min", -math.inf), _bound(reader, node, 2, "max", math.inf)
    if low != 0 or high < 3e38:
        raise node.refuse(
            f"it keeps values from {low:g} to {high:g} (ReLU6: up to 6); mest has ReLU, from 0 up"
        )
    return relu(reader, node)


def _bound(reader: Reader, node: Node, index: int, name: str, default: float) -> float:
    """An attribute in older files, an input in later ones."""
    given = reader.optional(node, index, name)
    if given is not None and given.size == 1:
        return float(given.ravel()[0])
    return node.number(name, 0.0) if name in node.attributes else default


def dropout(reader: Reader, node: Node) -> Value:
    value, given = reader.value(node), reader.optional(node, 1, "ratio")
    rate = node.number("ratio", 0.5) if given is None or not given.size else float(given.ravel()[0])
    if not 0 <= rate < 1:
        raise node.refuse(f"ratio {rate} is not from 0 up to 1")
    if not rate:
        return value
    return reader.emit(Dropout(decimal(rate)), value, value.shape, value.dims, value.order, value.features)


def max_pool(reader: Reader, node: Node) -> Value:
    return _pool(reader, node, MaxPool)


def average_pool(reader: Reader, node: Node) -> Value:
    return _pool(reader, node, AvgPool)


def _pool(reader: Reader, node: Node, kind: Any) -> Value:
    value = reader.picture(node)
    kernel = node.integers("kernel_shape", ())
    fits = len(kernel) == 2 and all(1 <= k <= 255 for k in kernel)
    if not fits or node.integers("dilations", (1, 1)) != [1, 1]:
        raise node.refuse(f"kernel {kernel}: two axes of 1 to 255 are wanted, without dilation")
    sides = windows(node, value.shape[1:], kernel, (0, 0, 0, 0))
    padding = [side.symmetric() for side in sides]
    if None in padding:
        raise node.refuse(
            f"its pads {[(side.before, side.after) for side in sides]} (in front, behind) are not the same "
            "at both ends, or ceil_mode adds a window: mest's pools cannot; use a size the stride divides"
        )
    if any(padding) and kind is AvgPool and not node.integer("count_include_pad", 0):
        raise node.refuse(
            "count_include_pad=0: mest's AvgPool counts padding as zeros; use it so, or without pads"
        )
    stride = pair([side.stride for side in sides])
    layer = kind(pair(kernel), stride=stride, padding=pair([p or 0 for p in padding]))
    if layer.stride == layer.kernel:
        layer.stride = None
    shape = value.shape[0], sides[0].outputs, sides[1].outputs
    return reader.emit(layer, value, shape, shape)


def global_average(reader: Reader, node: Node) -> Value:
    value = reader.picture(node)
    shape = value.shape[0], 1, 1
    return reader.emit(GlobalAvgPool(), value, shape, shape, features=True)


def global_max(reader: Reader, node: Node) -> Value:
    """MaxPool over all pixels."""
    value = reader.picture(node)
    if max(value.shape[1:]) > 255:
        raise node.refuse(f"{value.shape[1]} x {value.shape[2]} pixels: mest's windows have up to 255 x 255")
    shape = value.shape[0], 1, 1
    return reader.emit(MaxPool(pair(value.shape[1:])), value, shape, shape)


def reduce_mean(reader: Reader, node: Node) -> Value:
    """GlobalAvgPool, where it is the mean over all pixels."""
    value, keep = reader.value(node), node.integer("keepdims", 1)
    axes = axes_of(reader, node, value) or []
    kept = [axis for axis in range(1, 4) if axis not in axes]
    order = value.order
    if order is not None and order.ndim == 3 and len(kept) == 1:  # (height, width, channels)
        order = np.moveaxis(order, kept[0] - 1, 0)
        order = None if np.array_equal(order.ravel(), np.arange(order.size)) else order
    fits = len(value.dims) == 3 and len(axes) == 2 and 0 not in axes and len(kept) == 1
    if not fits or order is not None or value.dims[kept[0] - 1] != value.shape[0]:
        raise node.refuse(f"a mean over the axes {axes}; mest has that over all pixels, GlobalAvgPool")
    channels = value.shape[0]
    dims = tuple(channels if axis in kept else 1 for axis in range(1, 4)) if keep else (channels,)
    return reader.emit(GlobalAvgPool(), value, (channels, 1, 1), dims, features=True)


def softmax(reader: Reader, node: Node) -> Value:
    """Left out at the end of a network: mest's loss has it, and predict_proba."""
    value = reader.value(node)
    axis = node.integer("axis", -1)
    if axis not in (1, -len(value.dims)):
        raise node.refuse(
            f"axis {axis} of {batch_of(value.dims)}: mest's loss has it over the classes, axis 1"
        )
    return value._replace(end=str(node))


def add(reader: Reader, node: Node) -> Value:
    """Of two layers, the residual Add; with constants, see `affine`."""
    if len(node.inputs) != 2:
        raise node.refuse(f"{len(node.inputs)} operands: mest adds two layers")
    fixed = _fixed(reader, node)
    if fixed is not None:
        return affine(reader, node, 1 - fixed, 1.0, reader.floats(node, fixed, "operand"))
    one, other = reader.value(node, 0), reader.value(node, 1)
    if other.layer is reader.layers[-1]:
        one, other = other, one
    same = one.dims == other.dims and one.shape == other.shape
    if not same or not _equal(one.order, other.order):
        shapes = f"{one.dims} and {other.dims} of {one.shape} and {other.shape}"
        raise node.refuse(f"it adds {shapes}: mest adds equal shapes")
    layer = Add(with_=other.layer)
    return reader.emit(layer, one, one.shape, one.dims, one.order, one.features and other.features)


def subtract(reader: Reader, node: Node) -> Value:
    fixed = _fixed(reader, node)
    if fixed is None:
        raise node.unknown()
    operand = reader.floats(node, fixed, "operand")
    return affine(reader, node, 1 - fixed, *((1.0, -operand) if fixed == 1 else (-1.0, operand)))


def multiply(reader: Reader, node: Node) -> Value:
    fixed = _fixed(reader, node)
    if fixed is None:
        raise node.unknown()
    return affine(reader, node, 1 - fixed, reader.floats(node, fixed, "operand"), 0.0)


def divide(reader: Reader, node: Node) -> Value:
    operand = reader.floats(node, 1, "operand") if _fixed(reader, node) == 1 else np.zeros(1, np.float32)
    if not operand.all():
        raise node.refuse("it divides by values of the network, or by zero")
    return affine(reader, node, 0, 1 / operand.astype(float), 0.0)


def _fixed(reader: Reader, node: Node) -> Optional[int]:
    """Which of two operands is a constant."""
    return next((i for i in (1, 0) if not isinstance(reader.given(node, i), Value)), None)


def _equal(one: Optional[NDArray[np.int32]], other: Optional[NDArray[np.int32]]) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


OPERATIONS: Dict[str, Callable[[Reader, Node], Union[Value, Array]]] = {
    **LAYOUT,
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Conv": conv,
    "Div": divide,
    "Dropout": dropout,
    "Gemm": gemm,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "LogSoftmax": softmax,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": multiply,
    "ReduceMean": reduce_mean,
    "Relu": relu,
    "Softmax": softmax,
    "Sub": subtract,
    "Sum": add,
}
