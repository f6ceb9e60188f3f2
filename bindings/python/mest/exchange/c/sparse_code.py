# SPDX-License-Identifier: Apache-2.0
"""Weights as constants: dense, or values and steps between them, whichever takes fewer bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .program import Numbers

_NO_INTEGERS = np.zeros(0, np.int64)


class Stored(NamedTuple):
    """values: of a dense layer [output][kernel_h][kernel_w][input], bits 0.  Of a sparse one, in that
    order, those that are not zero; entries: how many an output has; steps, of `bits` bits: from each to the
    next, the first of an output from the beginning.  Where a step is longer than bits can say there are
    zeros in between."""

    bits: int
    values: NDArray[Any]
    entries: NDArray[np.int64] = _NO_INTEGERS
    steps: NDArray[np.int64] = _NO_INTEGERS


def stored(weight: Numbers, size: int) -> Stored:
    """weight (outputs, inputs, kernel_h, kernel_w); size: bytes of a value, 4: float32, 1: int8."""
    best = dense(weight, size)
    rows, least = best.values.reshape(len(weight), -1), best.values.size * size
    for bits in (8, 16):
        coded = coded_in(rows, bits)
        width = 2 if coded.entries.max() <= 65535 else 4
        total = coded.values.size * (size + bits // 8) + coded.entries.size * width
        if total < least:
            best, least = coded, total
    return best


def dense(weight: Numbers, size: int) -> Stored:
    return Stored(0, np.moveaxis(weight, 1, 3).ravel().astype(np.float32 if size == 4 else np.int8))


def coded_in(rows: NDArray[Any], bits: int) -> Stored:
    """A matrix with steps of 8 or 16 bits."""
    longest = 2**bits - 1
    row, column = np.nonzero(rows)
    gap = np.diff(column, prepend=0)
    first = np.diff(row, prepend=-1) > 0
    gap[first] = column[first]
    extra = np.maximum(-(-gap // longest) - 1, 0)
    last = np.cumsum(extra + 1) - 1
    steps = np.full(int(last[-1]) + 1 if len(last) else 0, longest, np.int64)
    steps[last] = gap - extra * longest
    values = np.zeros(len(steps), rows.dtype)
    values[last] = rows[row, column]
    entries = np.bincount(row, extra + 1, len(rows)).astype(np.int64)
    return Stored(bits, values, entries, steps)
