# SPDX-License-Identifier: Apache-2.0
"""A `Program` run in numpy: in double precision, of the very numbers that are written as C constants."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .program import Numbers, Program, Step

_AT_ONCE = 2**22  # numbers of one picture set, so that temporaries stay small


def batches(program: Program, x: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """x, any shape of samples, in parts (n, channels, height, width) of bounded memory."""
    pictures = x.reshape(len(x), *program.shapes[0])
    largest = max(
        [1]
        + [
            int(np.prod(program.shapes[step.sources[0]])) * int(np.prod(step.kernel))
            for step in program.steps
        ]
    )
    size = max(1, min(256, _AT_ONCE // largest))
    for start in range(0, len(pictures), size):
        yield pictures[start : start + size]


def values_of(program: Program, x: Any, compute: Callable[[Step, Sequence[Any]], Any]) -> Dict[int, Any]:
    """Every value by its number; compute(step, its inputs) gives that of a step."""
    found = {0: x}
    for step in program.steps:
        inputs = [found[source] for source in step.sources]
        if step.op == "view":
            found[step.target] = inputs[0].reshape(len(x), -1, 1, 1)
        else:
            found[step.target] = compute(step, inputs)
    return found


def predict(program: Program, x: NDArray[np.float32]) -> Numbers:
    """(n, outputs) for n samples."""
    outputs = program.shapes[program.output][0]
    parts = [
        values_of(program, part.astype(np.float64), compute)[program.output]
        for part in batches(program, x)
    ]
    return np.concatenate([part.reshape(len(part), -1) for part in parts] or [np.zeros((0, outputs))])


def compute(step: Step, inputs: Sequence[Numbers]) -> Numbers:
    x = inputs[0]
    if step.weight.size:
        y = weigh(step, x, step.weight) + step.bias.reshape(1, -1, 1, 1)
    elif step.op == "add":
        y = x + inputs[1]
    elif step.op == "relu":
        y = np.maximum(x, 0)
    elif step.op == "max_pool":
        y = windows(step, x, -np.inf).max((4, 5))
    else:
        y = windows(step, x).mean((4, 5))
    result: Numbers = np.maximum(y, 0) if step.relu else y
    return result


def weigh(step: Step, x: Numbers, weight: Numbers) -> Numbers:
    """Weights on x (n, channels, h, w), without the bias.  Exact where all numbers are integers whose
    sums stay below 2**53."""
    if step.op == "linear":
        flat: Numbers = x.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T
        return flat.reshape(len(x), -1, 1, 1)
    seen = windows(step, x)
    if step.op == "conv2d":
        y = np.tensordot(seen, weight, ((1, 4, 5), (1, 2, 3)))  # (n, y, x, outputs)
        return np.moveaxis(y, 3, 1)
    each: Numbers = np.einsum("ncyxij,cij->ncyx", seen, weight[:, 0])
    return each


def windows(step: Step, x: Any, outside: float = 0.0) -> Any:
    """What each output sees: (n, channels, y, x, kernel_h, kernel_w)."""
    (top, left), (down, right) = step.padding, step.stride
    around = ((0, 0), (0, 0), (top, top), (left, left))
    padded = np.pad(x, around, constant_values=outside) if top or left else x
    return np.lib.stride_tricks.sliding_window_view(padded, step.kernel, (2, 3))[:, :, ::down, ::right]
