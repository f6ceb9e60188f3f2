# SPDX-License-Identifier: Apache-2.0
"""A model as an ONNX graph.

Opset 13, IR version 7 (ONNX 1.8, end of 2020): the first whose Softmax is over one axis as today's is, with
all that mest's layers need and sparse initializers; later ones have nothing more for them and are read by
fewer runtimes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Set, Tuple

import numpy as np

from ... import __version__, _lib
from ...layers import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Layer,
    Linear,
    MaxPool,
    Pair,
    _resolve,
)
from ..network import Network, network_of
from .file import package

if TYPE_CHECKING:
    from ...model import Model
    from ...plan import LayerPlan

OPSET, IR_VERSION = 13, 7
_PLAIN = {"ReLU": "Relu", "GlobalAvgPool": "GlobalAveragePool"}


class Writer:
    """Nodes and initializers in the making.  Values are of rank 4, pictures, or of rank 2."""

    def __init__(self, network: Network, parts: Sequence["LayerPlan"], sparse: bool) -> None:
        self._onnx = package()
        self._network, self._parts, self._sparse = network, parts, sparse
        self._names: Set[str] = {"input", "logits", "outputs", "probabilities"}
        self.nodes: List[Any] = []
        self.dense: List[Any] = []
        self.sparse: List[Any] = []
        self._values: List[Tuple[str, int]] = []  # of each layer: name and rank
        self._other: Dict[Tuple[str, int], str] = {}  # the same value in another rank

    def write(self) -> str:
        """All layers; returns the name of the last one's value, which is of rank 2."""
        for index, layer in enumerate(self._network.layers):
            if isinstance(layer, Input):
                self._values.append(("input", self._rank(index)))
                continue
            source = index - 1 if layer.from_ is None else _resolve(self._network.layers, index, layer.from_)
            self._values.append(self._layer(index, layer, source))
        return self._ranked(len(self._values) - 1, 2)

    def _layer(self, index: int, layer: Layer, source: int) -> Tuple[str, int]:
        rank = self._values[source][1]
        attributes: Dict[str, Any] = {}
        weights: List[str] = []
        if isinstance(layer, Linear):
            op, rank, attributes = "Gemm", 2, {"transB": 1}
            weights = self._parameters(layer, ("weight", "bias"))
        elif isinstance(layer, Conv2d):
            op, rank = "Conv", 4
            attributes = {**_window(layer.kernel, layer.stride, layer.padding), "group": layer.groups}
            weights = self._parameters(layer, ("weight", "bias"))
        elif isinstance(layer, BatchNorm):
            op, attributes = "BatchNormalization", {"epsilon": layer.eps, "momentum": 1 - layer.momentum}
            self._plain_affine(layer, self._parts[index].channels)
            weights = self._parameters(layer, ("weight", "bias", "running_mean", "running_var"))
        elif isinstance(layer, MaxPool):
            stride = layer.kernel if layer.stride is None else layer.stride
            op, rank, attributes = "MaxPool", 4, {**_window(layer.kernel, stride, layer.padding)}
            if isinstance(layer, AvgPool):
                op, attributes["count_include_pad"] = "AveragePool", 1
        elif isinstance(layer, Add):
            with_ = _resolve(self._network.layers, index, layer.with_)
            rank = min(rank, self._values[with_][1])
            op, weights = "Add", [self._ranked(with_, rank)]
        elif isinstance(layer, Flatten):
            return self._ranked(source, 2), 2
        elif isinstance(layer, Dropout):
            rate = self._constant(self._parts[index].name + ".rate", np.float32(layer.rate))
            op, weights = "Dropout", [rate]
        else:
            op = _PLAIN[type(layer).__name__]
            rank = 4 if op == "GlobalAveragePool" else rank
        inputs = [self._ranked(source, rank), *weights]
        return self._node(op, self._parts[index].name, inputs, **attributes), rank

    def _rank(self, index: int) -> int:
        part = self._parts[index]
        return 4 if part.height * part.width > 1 else 2

    def _ranked(self, index: int, rank: int) -> str:
        """A layer's value in the rank that its reader wants."""
        name, has = self._values[index]
        if has == rank:
            return name
        if (name, rank) not in self._other:
            what = self._parts[index].name
            if rank == 2:
                made = self._node("Flatten", what + ".flat", [name], axis=1)
            else:
                axes = self._constant(what + ".axes", np.array([2, 3], np.int64))
                made = self._node("Unsqueeze", what + ".picture", [name, axes])
            self._other[name, rank] = made
        return self._other[name, rank]

    def _node(self, op: str, name: str, inputs: List[str], **attributes: Any) -> str:
        output = self._unique(name)
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _unique(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    # ------------------------------------------------------------------------------ weights ---

    def _plain_affine(self, layer: BatchNorm, channels: int) -> None:
        """ONNX has no BatchNormalization without scale and shift."""
        self._network.weights.setdefault(layer.name + ".weight", np.ones(channels, np.float32))
        self._network.weights.setdefault(layer.name + ".bias", np.zeros(channels, np.float32))

    def _parameters(self, layer: Layer, what: Sequence[str]) -> List[str]:
        keys = [f"{layer.name}.{word}" for word in what]
        return [self._initializer(key) for key in keys if key in self._network.weights]

    def _initializer(self, key: str) -> str:
        weight, mask = self._network.weights[key], self._network.masks.get(key)
        if not self._sparse or mask is None:
            return self._constant(key, weight)
        name, places = self._unique(key), np.flatnonzero(mask)
        helper, arrays = self._onnx.helper, package("onnx.numpy_helper")
        values = arrays.from_array(weight.ravel()[places], name)
        indices = arrays.from_array(places.astype(np.int64), name + ".indices")
        self.sparse.append(helper.make_sparse_tensor(values, indices, list(weight.shape)))
        return name

    def _constant(self, name: str, value: Any) -> str:
        name = self._unique(name)
        self.dense.append(package("onnx.numpy_helper").from_array(np.asarray(value), name))
        return name


def exported(model: "Model", sparse: bool, softmax: bool) -> Any:
    """The onnx.ModelProto of a model; see `mest.to_onnx`."""
    onnx, parts, network = package(), model.plan().layers, network_of(model)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    writer = Writer(network, parts, sparse)
    last = writer.write()
    classes = model.config.loss != "mse"
    output = "probabilities" if softmax else "logits" if classes else "outputs"
    if softmax:
        writer.nodes.append(helper.make_node("Softmax", [last], [output], name="softmax", axis=1))
    else:
        writer.nodes.append(helper.make_node("Identity", [last], [output], name=output))
    shape = ["batch", *parts[0].shape] if writer._rank(0) == 4 else ["batch", parts[0].channels]
    graph = helper.make_graph(
        writer.nodes,
        "mest",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info(output, kind, ["batch", parts[-1].channels])],
        initializer=writer.dense,
        sparse_initializer=writer.sparse,
    )
    made = helper.make_model(
        graph,
        producer_name="mest",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(made, _properties(model, network))
    return made


def _properties(model: "Model", network: Network) -> Dict[str, str]:
    """What ONNX has no place for; densities and schemes are read again by from_onnx."""
    densities, schemes = {}, {}
    for layer, part, active in zip(network.layers, model.plan().layers, model.connections()):
        if part.rows:
            densities[layer.name] = round(active / (part.rows * part.columns), 6) if part.sparse else 1
        if part.scheme is not None:
            schemes[layer.name] = part.scheme
    return {
        "mest.libmest": _lib.library().mest_version_string().decode(),
        "mest.density": json.dumps(densities),
        "mest.scheme": json.dumps(schemes),
    }


def _window(kernel: Pair, stride: Pair, padding: Pair) -> Dict[str, List[int]]:
    across, steps, zeros = (list(v) if isinstance(v, tuple) else [v, v] for v in (kernel, stride, padding))
    return {"kernel_shape": across, "strides": steps, "pads": zeros * 2}
