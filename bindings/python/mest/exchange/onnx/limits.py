# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file may make this package take memory for: some times what it brings, and little else.

A node of 20 bytes can ask for as much as a person likes: 28 Concats that double a constant make 2^28 numbers
of one, a dilation makes zeros between weights.  So sizes are asked for here before memory is.
"""

from __future__ import annotations

import math
from typing import Sequence, Union

from ...errors import UnsupportedError
from .node import Node

# mest.h's: layers of a network, inputs * kernel and outputs * kernel of a weight, kernel.
LAYERS, WIDTH, KERNEL = 1024, 65536, 255

AXES = 32  # of numpy before 2.0

# Of computed constants, in all: shapes are a few numbers, and weights are cast or turned some times.
_COMPUTED, _TIMES = 2**20, 4

# Numbers that a file may ask for without bringing them, in all, as places of sparse tensors or zeros within
# kernels.  Far above what networks have for which sparse files make sense; 2^28 floats are a GiB.
_ABSENT = 2**28

# Values of one sample that are moved about: their order is a table, and is compared.
_MOVED = 2**26

Who = Union[Node, str]


class Limits:
    """What may still be asked for.  Methods raise UnsupportedError, and take what they are asked for."""

    def __init__(self, size: int) -> None:
        """size: bytes of the file."""
        self._brought = self._beside = 0
        self._computed = _COMPUTED
        self._absent = _ABSENT
        self._installed = 0
        self.brings(size)

    def brings(self, size: int) -> None:
        """Bytes that are there, of the file or one beside it."""
        self._brought += size
        self._computed += _TIMES * size

    def beside(self, size: int, length: int) -> None:
        """length bytes are read beside the file, of files whose new ones have size bytes: as often as other
        data, where that is more than there is."""
        self.brings(size)
        self._beside += length - size
        if self._beside > 0:
            self.absent("the data beside the file, which is read more than once,", self._beside // 4)
            self._beside = 0

    def computed(self, node: Node, count: int, width: int = 8) -> None:
        """A constant of `count` numbers of `width` bytes, that a node computes."""
        self._computed -= count * width
        if self._computed < 0:
            raise node.refuse(
                f"with it the constants that the graph computes, {count} numbers here, take more than a MiB "
                f"and {_TIMES} times what the file holds; simplify the file (onnxsim does)"
            )

    def absent(self, who: Who, count: int) -> None:
        """`count` numbers of 4 bytes that the file does not bring."""
        if count > self._absent:
            raise UnsupportedError(
                f"{who}: with {count} numbers here the network asks for more than 2^28 places of sparse "
                "tensors, zeros within kernels and other numbers that the file does not hold"
            )
        self._absent -= count

    def moved(self, dims: Sequence[int]) -> None:
        """An order of the values of a sample."""
        size = math.prod(dims)
        if size > _MOVED or len(dims) > AXES:
            raise UnsupportedError(
                f"the graph moves {size} values of a sample about, seen as {len(dims)} axes: up to 2^26 and "
                f"{AXES} are taken"
            )
        self.absent("the order of values that are moved about", size)

    def installed(self, node: Node, count: int) -> None:
        """Weights of a layer: each number of the file once, if in 2 bytes; more are asked for."""
        left = max(0, self._brought // 2 - self._installed)
        self._installed += count
        if count > left:
            self.absent(node, count - left)
