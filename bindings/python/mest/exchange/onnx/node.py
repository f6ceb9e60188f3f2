# SPDX-License-Identifier: Apache-2.0
"""One operation of an ONNX graph, with its attributes by kind and errors that name it."""

from __future__ import annotations

import math
from typing import Any, List, Mapping, NamedTuple, Sequence, Tuple

from ...errors import CorruptError, UnsupportedError

_HINTS = {
    "Sigmoid": "cut it off and train with loss cross_entropy over two outputs, or with mse",
    "LeakyRelu": "mest has ReLU alone",
    "HardSwish": "mest has ReLU alone",
    "Gelu": "mest has ReLU alone",
    "Elu": "mest has ReLU alone",
    "PRelu": "mest has ReLU alone",
    "Concat": "mest joins branches by Add alone",
    "ConvTranspose": "mest has no transposed convolution",
    "GRU": "mest has no recurrent layers",
    "LSTM": "mest has no recurrent layers",
}
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuant")


def text(value: Any) -> str:
    """A string of a file; protobuf gives bytes for what is none."""
    if not isinstance(value, str):
        raise CorruptError(f"damaged: {value!r} is no text")
    return value


def batch_of(dims: Sequence[int]) -> str:
    """A shape for messages: (batch, 3, 32, 32)."""
    return f"(batch, {', '.join(map(str, dims))})"


class Node(NamedTuple):
    """One operation of a graph.  Messages call it by its name, or else by its first output."""

    op: str
    name: str
    inputs: Tuple[str, ...]  # "": left out
    outputs: Tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node {self.name or (self.outputs or ('',))[0]!r} ({self.op})"

    def input(self, index: int) -> str:
        """Name of an input, "" where the node has none there."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.corrupt(f"attribute {name} is {value!r}, an integer is wanted")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.attributes.get(name, default)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.corrupt(f"attribute {name} is {value!r}, a number is wanted")
        return float(value)

    def integers(self, name: str, default: Sequence[int]) -> List[int]:
        value = self.attributes.get(name, list(default))
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise self.corrupt(f"attribute {name} is {value!r}, integers are wanted")
        return list(value)

    def word(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def refuse(self, why: str) -> UnsupportedError:
        return UnsupportedError(f"{self}: {why}")

    def corrupt(self, why: str) -> CorruptError:
        return CorruptError(f"{self}: {why}")

    def unknown(self) -> UnsupportedError:
        """For an operation that mest does not have."""
        if self.op in _QUANTISED or self.op.startswith(("QLinear", "MatMulInteger", "ConvInteger")):
            return self.refuse("the network is quantised; export the float network, which is what trains")
        hint = _HINTS.get(self.op, "docs/onnx.md lists what can be read")
        return self.refuse(f"mest has no such layer; {hint}")
