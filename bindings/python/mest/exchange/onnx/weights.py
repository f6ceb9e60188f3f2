# SPDX-License-Identifier: Apache-2.0
"""ONNX operations that have weights, and arithmetic with constants, which becomes part of weights."""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from ...errors import MestArgumentError
from ...layers import BatchNorm, Conv2d, Linear, Pair
from .limits import KERNEL, WIDTH
from .node import Node, batch_of
from .reader import Reader, Value
from .windows import spread, windows

Floats = NDArray[np.float32]
_CHUNK = 2**16  # weights that are computed with in one go: no temporaries as large as all of them
Change = Callable[[NDArray[Any]], NDArray[Any]]


def conv(reader: Reader, node: Node) -> Value:
    """Conv2d.  What mest's cannot say, zeros at one end of an axis and dilation, zeros in its kernel do."""
    value, weight = reader.picture(node, pads=True), reader.floats(node, 1, "weight")
    inputs = value.shape[0]
    if weight.ndim != 4 or 0 in weight.shape:
        raise node.refuse(f"its weight has shape {weight.shape}; mest convolves over two axes")
    outputs, kernel, group = weight.shape[0], weight.shape[2:], node.integer("group", 1)
    fits = group > 0 and weight.shape[1] * group == inputs
    if not fits or node.integers("kernel_shape", kernel) != list(kernel):
        raise node.corrupt(
            f"a weight of shape {weight.shape} does not fit {inputs} channels in {group} groups"
        )
    if group > 1 and not group == inputs == outputs:
        raise node.refuse(
            f"{inputs} to {outputs} channels in {group} groups: mest has one group, or one for each of as "
            "many inputs and outputs (depthwise)"
        )
    dilations = node.integers("dilations", (1, 1))
    if len(dilations) != 2 or not all(1 <= d <= 255 for d in dilations):
        raise node.refuse(f"dilations {dilations}")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    around = value.pads or ((0, 0),) * 3
    if any(around[0]):
        raise node.refuse("a Pad before it adds channels; mest has no layer for that")
    sides = windows(node, value.shape[1:], reach, [around[1][0], around[2][0], around[1][1], around[2][1]])
    places = [side.enlarged() for side in sides]
    zeros = [(front, behind) for _, front, behind in places]
    size = [length + front + behind for length, (front, behind) in zip(reach, zeros)]
    if max(size) > KERNEL:
        raise node.refuse(
            f"as a kernel of {size[0]} x {size[1]} it is too large: mest has up to {KERNEL} x {KERNEL}"
        )
    taps = size[0] * size[1]
    if max(outputs, weight.shape[1]) * taps > WIDTH:
        raise node.refuse(
            f"{weight.shape[1]} inputs, {outputs} outputs and a kernel of {size[0]} x {size[1]} make a "
            f"weight wider than {WIDTH} (inputs * kernel, outputs * kernel), the most that mest has"
        )

    def larger(array: NDArray[Any]) -> NDArray[Any]:
        return spread(array, dilations, zeros)

    bias = _vector(reader, node, 2, "bias", outputs) if node.input(2) else None
    stride, padding = [side.stride for side in sides], [place[0] for place in places]
    layer = Conv2d(
        outputs, pair(size), stride=pair(stride), padding=pair(padding), bias=bias is not None, groups=group
    )
    shape = outputs, sides[0].outputs, sides[1].outputs
    if size == list(kernel):
        _install(reader, node, layer, weight, bias)
    else:
        reader.file.limits.absent(node, outputs * weight.shape[1] * taps)
        _install(reader, node, layer, weight, bias, larger)
        if weight.all() and group == 1:  # else the zeros around the kernel would tell of a pruned layer
            reader.masks.setdefault(layer.name + ".weight", np.ones((*weight.shape[:2], *size), bool))
    return reader.emit(layer, value, shape, shape)


def gemm(reader: Reader, node: Node) -> Value:
    """Linear: alpha x W + beta C."""
    if node.integer("transA", 0):
        raise node.refuse("transA mixes samples")
    turned = not node.integer("transB", 0)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    value = reader.value(node)
    weight = _matrix(reader, node, value, turned)
    bias = None
    if node.input(2) and beta:
        row = _row(node, reader.floats(node, 2, "bias"), weight.shape[1 if turned else 0])
        bias = _single(node, row * np.float64(beta))
    return _linear(reader, node, value, weight, bias, turned, alpha)


def matmul(reader: Reader, node: Node) -> Value:
    """Linear without bias; an Add behind it becomes that."""
    value = reader.value(node)
    return _linear(reader, node, value, _matrix(reader, node, value, True), None)


def _matrix(reader: Reader, node: Node, value: Value, turned: bool) -> Floats:
    """A weight that fits the value it is for; turned: (inputs, outputs)."""
    weight = reader.floats(node, 1, "weight")
    columns = weight.shape[0 if turned else 1] if weight.ndim == 2 else -1
    if value.dims != (columns,):
        raise node.refuse(
            f"{batch_of(value.dims)} times a matrix of shape {weight.shape}: mest's Linear takes "
            "(batch, inputs), with the weight in the second place"
        )
    if not 1 <= weight.shape[1 if turned else 0] <= WIDTH:
        raise node.refuse(f"its weight has shape {weight.shape}: mest's Linear has 1 to {WIDTH} outputs")
    return weight


def _linear(
    reader: Reader, node: Node, value: Value, weight: Floats, bias: Optional[Floats],
    turned: bool = True, alpha: float = 1.0,
) -> Value:  # fmt: skip
    def own(array: NDArray[Any]) -> NDArray[Any]:
        array = array.T if turned else array
        if value.order is not None:  # columns in the order in which the layer before has them
            ordered = np.empty_like(array)
            ordered[:, value.order] = array
            array = ordered
        if alpha == 1 or array.dtype != np.float32:
            return array
        return _times(node, array, np.full(len(array), alpha))

    outputs = weight.shape[1 if turned else 0]
    layer = Linear(outputs, bias=bias is not None)
    _install(reader, node, layer, weight, bias, own)
    return reader.emit(layer, value, (outputs, 1, 1), (outputs,), features=True)


def _install(
    reader: Reader, node: Node, layer: Union[Conv2d, Linear], weight: Floats, bias: Optional[Floats],
    change: Change = np.asarray,
) -> None:  # fmt: skip
    """Names a layer and stores its weights, as ONNX has them; change: what makes them mest's."""
    reader.file.limits.installed(node, weight.size + (0 if bias is None else bias.size))
    name = reader.name(layer, node, *(node.input(i) for i in (1, 2)))
    reader.weights[name + ".weight"] = np.ascontiguousarray(change(weight))
    if bias is not None:
        reader.weights[name + ".bias"] = bias
    mask = reader.file.masks.get(node.input(1))
    if mask is not None and not (isinstance(layer, Conv2d) and layer.groups > 1):
        reader.masks[name + ".weight"] = np.ascontiguousarray(change(mask))


def batch_norm(reader: Reader, node: Node) -> Value:
    value = reader.value(node)
    channels = value.dims[0]
    places = value.order
    if value.shape[0] != channels or (places is not None and places.ndim != 1):
        raise node.refuse(f"its {channels} channels are not those of the layer before, {value.shape}")
    if not node.integer("spatial", 1):
        raise node.refuse("spatial=0: mest normalises channels")
    scale, shift, mean, variance = (
        _vector(reader, node, index, what, channels)
        for index, what in enumerate(("scale", "bias", "mean", "variance"), 1)
    )
    momentum, eps = 1 - node.number("momentum", 0.9), node.number("epsilon", 1e-5)
    if variance.min() < 0 or not 0 <= eps < 1e6:
        raise node.corrupt("its variance, or epsilon, is negative")
    momentum = round(momentum, 7) if 0 < momentum <= 1 else 0.1
    reader.file.limits.installed(node, 4 * channels)
    layer = BatchNorm(momentum=momentum, eps=decimal(max(eps, 1e-30)))
    name = reader.name(layer, node, node.input(1), node.input(2), node.input(3))
    vectors = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    for what, vector in vectors.items():
        reader.weights[f"{name}.{what}"] = _ordered(vector, places)
    return reader.emit(layer, value, value.shape, value.dims, places, value.features)


def affine(reader: Reader, node: Node, index: int, scale: Any, shift: Any) -> Value:
    """scale x + shift of every channel: put into the weights of the layer before, where nobody else reads
    that; otherwise a depthwise convolution of 1 x 1, which is the same."""
    value = reader.value(node, index)
    channels, places = value.dims[0], value.order
    if value.shape[0] != channels or (places is not None and places.ndim != 1):
        raise node.refuse(f"it computes with constants on {value.dims} of a layer that makes {value.shape}")
    vectors = []
    for constant in (scale, shift):
        array = np.asarray(constant, float)
        rank = len(value.dims) + 1
        aligned = (1,) * (rank - array.ndim) + array.shape
        if len(aligned) != rank or array.size != aligned[1] or aligned[1] not in (1, channels):
            raise node.refuse(f"a constant of shape {array.shape}: one number is wanted, or one a channel")
        vectors.append(_ordered(np.broadcast_to(array.ravel(), channels), places))
    factor, offset = vectors
    layer = value.layer
    if not value.alone or not isinstance(layer, (Conv2d, Linear, BatchNorm)):
        reader.file.limits.absent(node, 2 * channels)
        layer = Conv2d(channels, 1, groups=channels, density=1.0)
        name = reader.name(layer, node)
        reader.weights[name + ".weight"] = _single(node, factor).reshape(-1, 1, 1, 1)
        reader.weights[name + ".bias"] = _single(node, offset)
        return reader.emit(layer, value, value.shape, value.dims, places, value.features)
    key = layer.name + ".weight"
    reader.weights[key] = _times(node, reader.weights[key], factor)
    if isinstance(layer, BatchNorm) or layer.bias or offset.any():
        bias = reader.weights.get(layer.name + ".bias", np.zeros(channels)).astype(float)
        reader.weights[layer.name + ".bias"] = _single(node, bias * factor + offset)
        if not isinstance(layer, BatchNorm):
            layer.bias = True
    return value


def _times(node: Node, weight: Floats, factor: NDArray[np.float64]) -> Floats:
    """A weight with a factor for each of its rows, computed as doubles, some rows at a time."""
    product = np.empty(weight.shape, np.float32)
    rows = max(1, _CHUNK * len(weight) // weight.size)
    for start in range(0, len(weight), rows):
        part = weight[start : start + rows]
        factors = factor[start : start + rows].reshape(-1, *[1] * (weight.ndim - 1))
        product[start : start + rows] = _single(node, part * factors)
    return product


def _single(node: Node, array: NDArray[np.float64]) -> Floats:
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise MestArgumentError(f"{node}: with its constant the weights before it are too large for a float")
    return single


def _vector(reader: Reader, node: Node, index: int, what: str, count: int) -> Floats:
    array = reader.floats(node, index, what)
    if array.shape != (count,):
        raise node.corrupt(f"its {what} {node.input(index)!r} has shape {array.shape}, not ({count},)")
    return array


def _row(node: Node, array: Floats, count: int) -> Floats:
    """(count,) of what Gemm may add to every sample."""
    if array.size not in (1, count) or array.shape[-1:] not in ((), (1,), (count,)) or array.ndim > 2:
        raise node.refuse(f"it adds {array.shape}; mest adds one number an output")
    return np.array(np.broadcast_to(array.ravel(), count))


def _ordered(vector: NDArray[Any], places: Optional[NDArray[np.int32]]) -> NDArray[Any]:
    """One number a feature, in the layer's order."""
    if places is None:
        return np.array(vector)
    ordered = np.empty_like(vector)
    ordered[places] = vector
    return ordered


def pair(numbers: Sequence[int]) -> Pair:
    """As a person writes it: one number for two equal ones."""
    return numbers[0] if numbers[0] == numbers[1] else (numbers[0], numbers[1])


def decimal(number: float) -> float:
    """The decimal that became this float32: 1e-05 rather than 9.999999747378752e-06."""
    return float(np.format_float_scientific(np.float32(number)))
