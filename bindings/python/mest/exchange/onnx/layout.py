# SPDX-License-Identifier: Apache-2.0
"""ONNX operations that compute nothing: they move values about, or make the shapes to move them by."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray

from .node import Node, batch_of
from .reader import Array, Reader, Value

BATCH = -1  # what Shape says of the batch axis: Reshape takes it for "what is left"


def identity(reader: Reader, node: Node) -> Union[Value, Array]:
    return reader.given(node)


def cast(reader: Reader, node: Node) -> Union[Value, Array]:
    """Between kinds of floats, or of the integers of a shape."""
    found, to = reader.given(node), node.integer("to", 1)
    floats = to in (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16 of onnx.TensorProto
    if not floats and to not in (6, 7):  # INT32, INT64
        raise node.refuse(f"it casts to type {to}; mest computes with floats")
    if isinstance(found, Value):
        if not floats:
            raise node.refuse("it makes integers of the network's values")
        return found
    kind = np.dtype(np.float32 if floats else np.int64)
    if kind != found.dtype:
        reader.file.limits.computed(node, found.size, kind.itemsize)
    with np.errstate(invalid="ignore"):
        return found.astype(kind, copy=False)


def constant(reader: Reader, node: Node) -> Array:
    for name, value in node.attributes.items():
        if name == "value":
            return reader.file.array(value)
        if name == "sparse_value":
            return reader.file.sparse_array(value)[0]
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise node.refuse("it holds no number")


def shape(reader: Reader, node: Node) -> Array:
    found = reader.given(node)
    dims = (BATCH, *found.dims) if isinstance(found, Value) else found.shape
    start, end = node.integer("start", 0), node.integer("end", len(dims))
    return np.array(dims[start:end], np.int64)


def transpose(reader: Reader, node: Node) -> Union[Value, Array]:
    found = reader.given(node)
    rank = len(found.dims) + 1 if isinstance(found, Value) else found.ndim
    perm = node.integers("perm", range(rank)[::-1])
    if sorted(perm) != list(range(rank)):
        raise node.corrupt(f"perm {perm} is none of {rank} axes")
    if not isinstance(found, Value):
        turned: Array = found.transpose(perm)
        return turned
    if perm[0] != 0:
        raise node.refuse(f"perm {perm} moves the batch axis")
    axes = [axis - 1 for axis in perm[1:]]
    places = found.order
    if places is None:
        reader.file.limits.moved(found.dims)
        places = np.arange(int(np.prod(found.dims)), dtype=np.int32).reshape(found.dims)
    if found.pads:
        found = found._replace(pads=tuple(found.pads[axis] for axis in axes))
    return reader.arranged(found, tuple(found.dims[axis] for axis in axes), places.transpose(axes))


def reshape(reader: Reader, node: Node) -> Union[Value, Array]:
    found, wanted = reader.given(node), _whole(reader, node, 1, "shape")
    if not isinstance(found, Value):
        kept = zip(wanted, (*found.shape, *[0] * len(wanted)))
        lengths = [old if new == 0 and not node.integer("allowzero", 0) else new for new, old in kept]
        return _shaped(reader, node, found, lengths)
    if len(wanted) < 2 or wanted[0] not in (BATCH, 0, reader.file.batch):
        raise node.refuse(f"shape {wanted} mixes samples: the first axis has to stay the batch")
    size, rest = int(np.prod(found.dims)), []
    for axis, length in enumerate(wanted[1:]):
        rest.append(found.dims[axis] if length == 0 and axis < len(found.dims) else length)
    if rest.count(-1) == 1:
        known = -int(np.prod(rest))
        rest[rest.index(-1)] = size // known if known > 0 else -1
    if min(rest) < 1 or int(np.prod([float(v) for v in rest])) != size:
        raise node.refuse(f"shape {wanted} mixes samples, or does not hold the {size} values of one")
    return _seen(reader, node, found, rest)


def flatten(reader: Reader, node: Node) -> Union[Value, Array]:
    found, axis = reader.given(node), node.integer("axis", 1)
    if not isinstance(found, Value):
        return _shaped(reader, node, found, [math.prod(found.shape[:axis]), math.prod(found.shape[axis:])])
    if axis not in (1, -len(found.dims)):
        raise node.refuse(f"axis {axis}: all axes but the batch, from 1 on, can become one")
    return _seen(reader, node, found, [int(np.prod(found.dims))])


def squeeze(reader: Reader, node: Node) -> Union[Value, Array]:
    found = reader.given(node)
    axes = axes_of(reader, node, found)
    if not isinstance(found, Value):
        return _arithmetic(node, lambda: found.squeeze(None if axes is None else tuple(axes)))
    if axes is None:
        raise node.refuse("without axes it would take the batch of one sample for an axis, too")
    if any(axis < 1 or found.dims[axis - 1] != 1 for axis in axes):
        raise node.refuse(f"axes {axes} of {batch_of(found.dims)} are not all of length 1")
    return _seen(reader, node, found, [n for axis, n in enumerate(found.dims, 1) if axis not in axes])


def unsqueeze(reader: Reader, node: Node) -> Union[Value, Array]:
    found = reader.given(node)
    rank = len(found.dims) + 1 if isinstance(found, Value) else found.ndim
    said = _whole(reader, node, 1, "axes") if node.input(1) else node.integers("axes", ())
    axes = sorted(axis + rank + len(said) if axis < 0 else axis for axis in said)
    if len(set(axes)) != len(axes) or (axes and not 0 <= axes[0] <= axes[-1] < rank + len(axes)):
        raise node.corrupt(f"axes {said} cannot be added to {rank}")
    dims = list(found.dims if isinstance(found, Value) else found.shape)
    if not isinstance(found, Value):
        for axis in axes:
            dims.insert(axis, 1)
        return _shaped(reader, node, found, dims)
    if axes and axes[0] == 0:
        raise node.refuse("it moves the batch axis")
    for axis in axes:
        dims.insert(axis - 1, 1)
    return _seen(reader, node, found, dims)


def pad(reader: Reader, node: Node) -> Value:
    """Zeros that the convolution behind it adds; see Value.pads."""
    found = reader.given(node)
    if not isinstance(found, Value):
        raise node.refuse("it pads a constant; simplify the file (onnxsim does)")
    rank = len(found.dims) + 1
    said = _whole(reader, node, 1, "pads") if node.input(1) else node.integers("pads", ())
    axes = [axis % rank for axis in _whole(reader, node, 3, "axes")] if node.input(3) else list(range(rank))
    if len(said) != 2 * len(axes):
        raise node.corrupt(f"pads {said} are not two for each of the axes {axes}")
    value = reader.optional(node, 2, "value")
    filler = node.number("value", 0.0) if value is None else float(value.ravel()[0]) if value.size else 0.0
    if any(said) and (node.word("mode", "constant") != "constant" or filler != 0):
        raise node.refuse("mest pads with zeros alone")
    both = [(0, 0)] * rank
    for axis, before, after in zip(axes, said[: len(axes)], said[len(axes) :]):
        both[axis] = before, after
    if min(said, default=0) < 0 or max(said, default=0) > 2**16 or any(both[0]):
        raise node.refuse(f"pads {said} crop, are too large, or add samples")
    old = found.pads or [(0, 0)] * len(found.dims)
    pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(old, both[1:]))
    return found._replace(pads=pads if any(map(any, pads)) else ())


def gather(reader: Reader, node: Node) -> Array:
    data, indices = reader.constant(node, 0, "input"), reader.constant(node, 1, "indices")
    axis = node.integer("axis", 0)
    if not -data.ndim <= axis < data.ndim:
        raise node.corrupt(f"axis {axis} of a constant of shape {data.shape}")
    axis %= data.ndim
    size = math.prod((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))
    reader.file.limits.computed(node, size, data.itemsize)
    return _arithmetic(node, lambda: np.asarray(data.take(indices, axis)))


def concat(reader: Reader, node: Node) -> Array:
    for index in range(len(node.inputs)):
        if isinstance(reader.given(node, index), Value):
            raise node.unknown()
    parts = [reader.constant(node, index, "input") for index in range(len(node.inputs))]
    reader.file.limits.computed(node, sum(part.size for part in parts))
    return _arithmetic(node, lambda: np.concatenate(parts, node.integer("axis", 0)))


def cut(reader: Reader, node: Node) -> Array:
    """Slice."""
    data = reader.constant(node, 0, "input")
    said: List[Optional[List[int]]] = []
    for index, name in enumerate(("starts", "ends", "axes", "steps"), 1):
        if node.input(index):
            said.append(_whole(reader, node, index, name))
        else:
            said.append(node.integers(name, ()) if name in node.attributes else None)
    starts, ends = said[0] or [], said[1] or []
    axes, steps = said[2] or list(range(len(starts))), said[3] or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        if not -data.ndim <= axis < data.ndim or step < 1:
            raise node.refuse(f"axis {axis} or step {step} of a slice of shape {data.shape}")
        data = data[(slice(None),) * (axis % data.ndim) + (slice(start, end, step),)]
    return data


def _shaped(reader: Reader, node: Node, found: Array, dims: Sequence[int]) -> Array:
    """A constant with other axes: a copy where it has been turned."""
    if not found.flags.c_contiguous:
        reader.file.limits.computed(node, found.size, found.itemsize)
    return _arithmetic(node, lambda: found.reshape(dims))


def _seen(reader: Reader, node: Node, value: Value, dims: Sequence[int]) -> Value:
    """The same order of values with other axes."""
    if value.pads:
        raise node.refuse("it follows a Pad; mest's convolutions add zeros, other layers do not")
    return reader.arranged(value, tuple(dims), value.order)


def _whole(reader: Reader, node: Node, index: int, what: str) -> List[int]:
    """A constant input of integers."""
    array = reader.constant(node, index, what)
    if array.dtype != np.int64 or array.ndim > 1 or array.size > 64:
        raise node.corrupt(f"its {what} {node.input(index)!r} is no list of integers")
    return [int(v) for v in array.ravel()]


def axes_of(reader: Reader, node: Node, found: Union[Value, Array]) -> Optional[List[int]]:
    """Axes, counted from the front, that an attribute (older files) or the second input names."""
    rank = len(found.dims) + 1 if isinstance(found, Value) else found.ndim
    if node.input(1):
        said = _whole(reader, node, 1, "axes")
    elif "axes" in node.attributes:
        said = node.integers("axes", ())
    else:
        return None
    if any(not -rank <= axis < rank for axis in said):
        raise node.corrupt(f"axes {said} of {rank}")
    return [axis % rank for axis in said]


def _arithmetic(node: Node, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    try:
        return compute()
    except (IndexError, TypeError, ValueError) as error:
        raise node.corrupt(f"its constants do not fit together: {error}") from error


LAYOUT: Dict[str, Callable[[Reader, Node], Union[Value, Array]]] = {
    "Cast": cast,
    "Concat": concat,
    "Constant": constant,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": identity,
    "Pad": pad,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": cut,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
