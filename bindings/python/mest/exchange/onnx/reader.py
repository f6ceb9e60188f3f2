# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph as a `Network`: node by node, each value known by the layer that makes it.

ONNX moves values about by Transpose, Reshape, Squeeze; mest has (channels, height, width) and Flatten.  So
a value here is a layer and the order in which ONNX sees that layer's numbers, and what only moves numbers
changes the order and makes no layer.  A Linear behind it takes its columns in that order.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ... import _abi
from ...config import _WORDS
from ...errors import MestArgumentError, UnsupportedError
from ...layers import Conv2d, Flatten, Input, Layer, Linear
from ..graph import warn_of_softmax
from ..network import Network
from .file import File
from .limits import LAYERS
from .node import Node, batch_of

Array = NDArray[Any]


class Value(NamedTuple):
    """What a name of the graph stands for."""

    layer: Optional[Layer]  # that makes it; None: the graph's input, whose axes are not known yet
    shape: Tuple[int, int, int]  # of the layer
    dims: Tuple[int, ...]  # as ONNX sees it, without the batch axis
    order: Optional[NDArray[np.int32]] = None  # of dims: places in the layer's output; None: 0, 1, 2, ...
    pads: Tuple[Tuple[int, int], ...] = ()  # zeros around each of dims that the next layer has to add
    alone: bool = True  # nobody else reads the layer
    features: bool = False  # as the library has it: no picture of 1 x 1 pixels
    end: str = ""  # the Softmax that has been left out: only the output may follow


class Reader:
    """Layers and weights in the making.  `read` runs through the nodes."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.layers: List[Layer] = []
        self.weights: Dict[str, NDArray[np.float32]] = {}
        self.masks: Dict[str, NDArray[np.bool_]] = {}
        self.values: Dict[str, Union[Value, Array]] = {
            file.input: Value(None, (1, 1, 1), file.shape, alone=file.uses.get(file.input) == 1)
        }
        self._entered: Optional[Value] = None
        self._names: Set[str] = set()
        self._schemes, densities = (_table(file.metadata, "mest." + what) for what in ("scheme", "density"))
        # Of a network with sparse layers the others are dense for a reason.
        mixed = any(isinstance(value, float) and value < 1 for value in densities.values())
        self._dense = {name for name, value in densities.items() if value == 1 and mixed}

    def read(self, operations: Mapping[str, Callable[["Reader", Node], Union[Value, Array]]]) -> Network:
        for node in self.file.nodes:
            if node.op not in operations:
                raise node.unknown()
            for name in node.outputs[1:]:
                if name in self.file.uses:
                    raise node.refuse(f"its second output {name!r} is used; mest has the first alone")
            name = (node.outputs or ("",))[0]
            result = operations[node.op](self, node)
            if isinstance(result, Value):
                result = result._replace(alone=result.alone and self.file.uses.get(name) == 1)
            self.values[name] = result
        self._check_output(self.values.get(self.file.output))
        return Network(self.layers, self.weights, self.masks)

    def _check_output(self, value: Union[Value, Array, None]) -> None:
        what = f"the output {self.file.output!r}"
        if not isinstance(value, Value) or value.layer is None or not self.weights:
            raise UnsupportedError(f"{what} depends on no layer with weights")
        if value.pads or value.order is not None or value.shape[1:] != (1, 1):
            raise UnsupportedError(
                f"{what} has shape {batch_of(value.dims)}: a network ends in one value a class, as a Linear "
                "or a global average pooling makes them"
            )
        if value.end:
            warn_of_softmax(value.end, "network")

    # ------------------------------------------------------------------------------- inputs ---

    def constant(self, node: Node, index: int, what: str) -> Array:
        """An input that has to be known now."""
        name = node.input(index)
        if name in self.values:
            found = self.values[name]
        elif self.file.is_constant(name):
            found = self.file.constant(name)
        else:
            raise node.corrupt(f"it has no {what}")
        if isinstance(found, Value):
            raise node.refuse(f"its {what} is computed from the network's input; mest wants it constant")
        return found

    def optional(self, node: Node, index: int, what: str) -> Optional[Array]:
        return self.constant(node, index, what) if node.input(index) else None

    def floats(self, node: Node, index: int, what: str) -> NDArray[np.float32]:
        """A constant of finite numbers."""
        array = self.constant(node, index, what)
        if array.dtype != np.float32:
            raise node.corrupt(f"its {what} {node.input(index)!r} is of integers")
        if not np.isfinite(array).all():
            raise MestArgumentError(f"{node}: values of its {what} {node.input(index)!r} are not finite")
        return array

    def given(self, node: Node, index: int = 0) -> Union[Value, Array]:
        """An input of either kind."""
        name = node.input(index)
        if name in self.values:
            return self.values[name]
        return self.constant(node, index, "input")

    def value(self, node: Node, index: int = 0, pads: bool = False) -> Value:
        """An input that a layer reads.  pads: zeros around it are the caller's to add."""
        found = self.given(node, index)
        if not isinstance(found, Value):
            raise node.refuse("it computes with constants alone; simplify the file (onnxsim does)")
        if found.end:
            raise node.refuse(f"it follows {found.end}, which mest leaves to the loss: that is the end")
        if found.pads and not pads:
            raise node.refuse("it follows a Pad; mest's convolutions add zeros, other layers do not")
        return self._enter(node, found) if found.layer is None else found

    def picture(self, node: Node, pads: bool = False) -> Value:
        """A first input of (channels, height, width)."""
        value = self.value(node, pads=pads)
        if len(value.dims) != 3:
            raise node.refuse(f"it reads {batch_of(value.dims)}; mest has two axes of pixels")
        if value.order is not None or value.dims != value.shape:
            raise node.refuse(
                f"it reads {value.dims} of a layer that makes {value.shape} in another order: mest cannot "
                "turn pictures around within a network"
            )
        return value

    def _enter(self, node: Node, value: Value) -> Value:
        """The graph's input is read by a layer, which tells what its axes are: makes the Input."""
        if self._entered is None:
            dims, flat = value.dims, len(value.dims) == 1
            pixels = len(self.file.shape) == 3
            if flat and pixels:
                dims = self.file.shape
            if len(dims) not in (1, 3):
                raise node.refuse(f"the input, {batch_of(dims)}, has neither one axis nor three")
            shape = (dims[0], dims[1], dims[2]) if len(dims) == 3 else (dims[0], 1, 1)
            self.layers.append(Input(*shape))
            features = shape[1:] == (1, 1)
            order = None if flat else value.order
            self._entered = Value(self.layers[0], shape, shape, order, features=features)
        first = self._entered
        order = value.order
        if first.order is not None:  # places in the file's input, to places in Input's output
            self.file.limits.moved(first.dims)
            places = np.empty(first.order.size, np.int32)
            places[first.order.ravel()] = np.arange(places.size, dtype=np.int32)
            order = places.reshape(value.dims) if order is None else places[order]
        entered = first._replace(dims=value.dims, pads=value.pads, alone=value.alone)
        return self.arranged(entered, value.dims, order)

    # ------------------------------------------------------------------------------- layers ---

    def arranged(self, value: Value, dims: Tuple[int, ...], order: Optional[NDArray[np.int32]]) -> Value:
        """The same numbers seen as dims, in an order (of any shape); one axis of them is a Flatten."""
        if order is not None:
            self.file.limits.moved(dims)
            order = order.reshape(dims)
            if np.array_equal(order.ravel(), np.arange(order.size)):
                order = None
        value = value._replace(dims=dims, order=order)
        if len(dims) > 1 or value.layer is None or value.features:
            return value
        return self.emit(Flatten(), value, (dims[0], 1, 1), dims, order=order, features=True)

    def emit(
        self,
        layer: Layer,
        value: Value,
        shape: Tuple[int, int, int],
        dims: Tuple[int, ...],
        order: Optional[NDArray[np.int32]] = None,
        features: bool = False,
    ) -> Value:
        """Appends a layer that reads `value`."""
        if len(self.layers) >= LAYERS:
            raise UnsupportedError(f"the network has more than {LAYERS} layers: mest has no more")
        if value.layer is not self.layers[-1]:
            layer.from_ = value.layer
        self.layers.append(layer)
        return Value(layer, shape, dims, order, features=features)

    def name(self, layer: Layer, node: Node, *sources: str) -> str:
        """Names a layer after its weights in the file, or after the node."""
        wanted = next(filter(None, map(_readable, (*sources, node.name))), node.op.lower())
        name, number = _short(wanted, "~"), 1
        while name in self._names:
            number += 1
            cut = _short(wanted, f"~{number}~")
            name = cut if cut != wanted else _short(f"{wanted}_{number}", f"~{number}~")
        self._names.add(name)
        layer.name = name
        if isinstance(layer, (Linear, Conv2d)):  # what to_onnx has written
            scheme = self._schemes.get(name)
            layer.density = 1.0 if name in self._dense else layer.density
            layer.scheme = scheme if isinstance(scheme, str) and scheme in _WORDS["scheme"] else None
        return name


def _table(metadata: Mapping[str, str], key: str) -> Dict[str, Any]:
    try:
        table = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


# What exporters add to names: numbers of outputs, what a tensor is of its layer, operations, whole networks.
_ADDED = re.compile(r"(:\d+|_output_\d+|_(weights|bias)_fused_bn)$")
_NO_NAME = re.compile(r"(onnx::\w+|const\w*|\d+|val_\d+|getitem(_\d+)?|node_\w+|\w*__\d+)$", re.I)
_OF_A_LAYER = re.compile(r"(^|[._/])(weight|bias|gamma|beta|kernel|running_mean)$")
_NOT_OF_THE_LAYER = re.compile(
    r"(functional|model|sequential|StatefulPartitionedCall|ReadVariableOp|Cast|Squeeze|Reshape|Transpose"
    r"|transpose|Conv2D|convolution|depthwise|BiasAdd|MatMul|Conv|Gemm|FusedBatchNormV3|BatchNormalization"
    r"|batchnorm|Add|Mul|mul|add|sub)(_\d+)*$"
)


def _readable(name: str) -> str:
    """The part of a tensor's or node's name that a person gave, "" if there is none:
    "layer1.0.conv1.weight" and "/layer1/layer1.0/conv1/Conv" are layer1.0.conv1,
    "model/conv2d_1/convolution/ReadVariableOp:0" is conv2d_1."""
    name = "".join(c if c.isprintable() else "_" for c in name)
    name = _ADDED.sub("", name)
    if _NO_NAME.match(name):
        return ""
    name = _OF_A_LAYER.sub("", name)
    parts: List[str] = []
    for part in name.split("/"):
        if part and not _NOT_OF_THE_LAYER.match(part):
            if parts and part.startswith(parts[-1] + "."):
                parts.pop()
            parts.append(part)
    return ".".join(parts)


def _short(name: str, mark: str) -> str:
    """A name that is too long for mest.h as its end behind a mark, as `from_torch` has it."""
    most = _abi.MEST_NAME_BYTES - 1
    if len(name.encode()) <= most:
        return name
    return mark + name.encode()[len(mark) - most :].decode(errors="ignore")
