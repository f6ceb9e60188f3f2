# SPDX-License-Identifier: Apache-2.0
"""The same network as an ONNX model with random weights.  Imports onnx: import this only when it is there."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
from networks import Network, sources
from onnx import TensorProto, helper, numpy_helper

import mest
from mest import Add, AvgPool, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Layer, Linear, MaxPool, ReLU

OPSET = 17


def _two(value: Union[int, Tuple[int, int]]) -> List[int]:
    return [value, value] if isinstance(value, int) else list(value)


class _Graph:
    """Nodes and weights of the model, one layer after the other; value i is the output of layer i."""

    def __init__(self) -> None:
        self.nodes: List[Any] = []
        self.weights: List[Any] = []
        self.rng = np.random.default_rng(0)

    def weight(self, *shape: int, around: float = 0.0) -> str:
        scale = 1 / np.sqrt(max(1, int(np.prod(shape[1:])))) if around == 0 else 0.0
        values = (around + scale * self.rng.standard_normal(shape)).astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: int, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, list(inputs), [f"v{output}"], **attributes))

    def window(self, layer: Any) -> Dict[str, List[int]]:
        stride = layer.kernel if layer.stride is None else layer.stride
        return {"kernel_shape": _two(layer.kernel), "strides": _two(stride), "pads": 2 * _two(layer.padding)}

    def add(self, i: int, layer: Layer, inputs: List[str], channels: int) -> None:
        """channels: of the first input."""
        if isinstance(layer, Conv2d):
            groups = getattr(layer, "groups", 1)
            found = [self.weight(layer.channels, channels // groups, *_two(layer.kernel))]
            found += [self.weight(layer.channels)] if layer.bias else []
            self.node("Conv", inputs + found, i, group=groups, **self.window(layer))
        elif isinstance(layer, Linear):
            found = [self.weight(layer.features, channels), *([self.weight(layer.features)] if layer.bias else [])]
            self.node("Gemm", inputs + found, i, transB=1)
        elif isinstance(layer, BatchNorm):
            found = [self.weight(channels, around=value) for value in (1.0, 0.1, 0.1, 1.0)]
            self.node("BatchNormalization", inputs + found, i, epsilon=layer.eps)
        elif isinstance(layer, GlobalAvgPool):
            self.nodes.append(helper.make_node("GlobalAveragePool", inputs, [f"pooled{i}"]))
            self.node("Flatten", [f"pooled{i}"], i)
        elif isinstance(layer, AvgPool):
            self.node("AveragePool", inputs, i, count_include_pad=1, **self.window(layer))
        elif isinstance(layer, MaxPool):
            self.node("MaxPool", inputs, i, **self.window(layer))
        else:
            kinds = {ReLU: "Relu", Add: "Add", Flatten: "Flatten"}
            self.node(kinds[type(layer)], inputs, i)


def model(network: Network, batch: int) -> bytes:
    """The serialized model, dense, for one batch size: "v0" in, the last value out."""
    layers = network.layers()
    channels = [layer.channels for layer in mest.plan(layers).layers]
    graph = _Graph()
    for i, (layer, source) in enumerate(zip(layers, sources(layers))):
        if i > 0:
            graph.add(i, layer, [f"v{j}" for j in source], channels[source[0]])
    made = helper.make_graph(
        graph.nodes, "network",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [batch, *network.shape])],
        [helper.make_tensor_value_info(f"v{len(layers) - 1}", TensorProto.FLOAT, [batch, network.classes])],
        graph.weights,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET)]
    data: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    return data
