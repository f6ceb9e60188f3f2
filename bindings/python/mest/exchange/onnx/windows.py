# SPDX-License-Identifier: Apache-2.0
"""Windows that slide over an axis: how ONNX pads them, and the same in the words of mest.

mest adds the same number of zeros at both ends of an axis.  ONNX may add more at one end, as TensorFlow's
padding SAME does in front of a stride of 2: 32 pixels, kernel 3, stride 2 get one zero, at the end.  For a
convolution an exact equivalent exists: a kernel with zeros in front or behind, and as much padding as they
need.  Here: a kernel of 4 whose first weight is 0, and one zero at both ends.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .node import Node


class Window(NamedTuple):
    """Along one axis of `size` values: `outputs` places of a kernel that sees `before` and `after` zeros."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    outputs: int

    def symmetric(self) -> Optional[int]:
        """The padding that gives the same outputs, None where there is none."""
        fits = (self.size + 2 * self.before - self.kernel) // self.stride + 1 == self.outputs
        return self.before if fits and self.before < self.kernel else None

    def enlarged(self) -> Tuple[int, int, int]:
        """(padding, zeros in front of the kernel, zeros behind it) that give the same outputs, with as few
        zeros as that takes."""
        best = None
        for padding in range(self.before, self.before + self.after + self.kernel + self.stride):
            front = padding - self.before
            # Places of the enlarged kernel: (size + 2 padding - kernel - front - behind) // stride + 1.
            least = self.size + 2 * padding - self.kernel - front - self.outputs * self.stride + 1
            behind = max(0, least)
            places = (self.size + 2 * padding - self.kernel - front - behind) // self.stride + 1
            fits = places == self.outputs and padding < self.kernel + front + behind
            if fits and (best is None or front + behind < best[1] + best[2]):
                best = padding, front, behind
        assert best is not None  # padding before + after + kernel fits, and as a rule max(before, after)
        return best


def windows(node: Node, sizes: Sequence[int], kernel: Sequence[int], pads: Sequence[int]) -> List[Window]:
    """The windows of a Conv or a pool over (height, width).

    kernel: how far it reaches, dilation included; pads: (top, left, bottom, right) of a Pad before it.
    """
    strides, auto = node.integers("strides", (1, 1)), node.word("auto_pad", "NOTSET")
    own = node.integers("pads", (0, 0, 0, 0))
    if len(strides) != 2 or len(own) != 4 or min(strides) < 1 or max(strides) > 255:
        raise node.refuse(f"strides {strides} and pads {own}: two axes are wanted, strides of 1 to 255")
    if min(own) < 0:
        raise node.refuse(f"pads {own} are negative: cropping is not something that mest has")
    if max(own) > 2**16 or max(pads) > 2**16:
        raise node.refuse(f"pads {own}, and {list(pads)} by a Pad before it, are too large")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.corrupt(f"auto_pad is {auto!r}")
    up = node.integer("ceil_mode", 0) != 0
    found = []
    for axis, (size, reach, stride) in enumerate(zip(sizes, kernel, strides)):
        inner = size + pads[axis] + pads[axis + 2]
        before, after = (own[axis], own[axis + 2]) if auto == "NOTSET" else (0, 0)
        if auto.startswith("SAME"):
            total = max(0, (-(-inner // stride) - 1) * stride + reach - inner)
            before, after = total // 2, total - total // 2
            if auto == "SAME_LOWER":
                before, after = after, before
        room = inner + before + after - reach
        if room < 0:
            raise node.corrupt(f"a kernel over {reach} pixels does not fit {inner + before + after} of them")
        outputs = room // stride + 1
        if up and room % stride:
            outputs += outputs * stride < inner + before  # a last window that begins in padding is none
        found.append(Window(size, reach, stride, before + pads[axis], after + pads[axis + 2], outputs))
    return found


def spread(weight: NDArray[Any], dilations: Sequence[int], zeros: Sequence[Tuple[int, int]]) -> NDArray[Any]:
    """A kernel (outputs, inputs, height, width) with `dilations` - 1 zeros between its weights and `zeros`
    (in front, behind) around them."""
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations)]
    full = [front + length + behind for length, (front, behind) in zip(reach, zeros)]
    larger = np.zeros((*weight.shape[:2], *full), weight.dtype)
    down, across = (slice(front, front + length, d) for (front, _), length, d in zip(zeros, reach, dilations))
    larger[:, :, down, across] = weight
    return larger
