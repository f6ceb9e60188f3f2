# SPDX-License-Identifier: Apache-2.0
"""Which connections of a dense weight a scheme keeps: those of the largest magnitudes.

A scheme (mest.Linear tells them) moves units: a weight, a column of a block, a run of inputs, a kernel
with one of 8 patterns.  Kept are the units of the largest Euclidean norms, by which the library drops
them, too; of equal ones any, chosen by a fixed draw.  Weights are as PyTorch has them: (outputs, inputs)
or (outputs, inputs, kernel_h, kernel_w).

"filter" and "channel" are about channels that several layers share: see `mest.exchange.channels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import arrays
from ..config import code_of, word_of
from ..errors import MestArgumentError, UnsupportedError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

THIN = ("filter", "channel")

# The taps of a 3 x 3 kernel, row by row, that a pattern has: mest.h's 8, and those of code8_patterns.
_PATTERNS = (
    (4, 5, 7, 8), (3, 4, 6, 7), (1, 2, 4, 5), (0, 1, 3, 4), (1, 3, 4, 5), (3, 4, 5, 7), (1, 4, 5, 7),
    (1, 3, 4, 7),
)  # fmt: skip
_CODE8 = _PATTERNS[:4] + ((5, 6, 7, 8),) + _PATTERNS[5:]


def keep(weight: ArrayLike, scheme: str, count: int, *, code8_patterns: bool = False) -> Mask:
    """The mask, of weight's shape, of the `count` largest weights that `scheme` can have together.

    count: weights, as LayerPlan.active has it.  A scheme of larger units keeps the number of units that the
    library plans for it; where a last block or run lacks outputs or inputs, about that many weights.
    Errors: MestArgumentError (more than the scheme can have, values that are not finite),
    UnsupportedError ("filter", "channel").
    """
    array = finite(weight)
    form = Form.of(array.shape, scheme, code8_patterns)
    if not 0 < count <= array.size:
        raise MestArgumentError(f"count={count}: from 1 to the {array.size} weights there are")
    return largest(array, form, form.units_for(count))


class Form(NamedTuple):
    """A scheme over a weight of (rows, inputs, taps).

    height, width: outputs and inputs of a unit; pools: parts of the weight that each have as many units;
    positions: units there could be in one, most: units it may have; lines: as the library counts blocks
    of outputs or runs of inputs; phantoms: outputs or inputs that the last one lacks.
    """

    scheme: str
    rows: int
    inputs: int
    taps: int
    patterns: Tuple[Tuple[int, ...], ...]
    height: int = 1
    width: int = 1

    @classmethod
    def of(cls, shape: Tuple[int, ...], scheme: Optional[str], code8_patterns: bool = False) -> "Form":
        """For a weight of this shape; "pattern" elsewhere than in 3 x 3 kernels is "fan_in"."""
        word = word_of("scheme", code_of("scheme", scheme)) or "unstructured"
        if word in THIN:
            raise UnsupportedError(
                f'scheme "{word}" is about channels that layers share, not about one weight: '
                "mest.Network.to_model prunes all of them"
            )
        if len(shape) not in (2, 4):
            raise MestArgumentError(f"a weight has 2 or 4 axes, not the shape {shape}")
        if word == "pattern" and shape[2:] != (3, 3):
            word = "fan_in"
        size = int(word[-2:].lstrip("kw")) if word.startswith(("block", "row")) else 1
        sizes = (1, size) if word.startswith("row") else (size, 1)
        taps = int(np.prod(shape[2:], dtype=int))
        return cls(word, shape[0], shape[1], taps, _CODE8 if code8_patterns else _PATTERNS, *sizes)

    @property
    def weights(self) -> int:
        """Values that the library stores for a unit."""
        return 4 if self.scheme == "pattern" else self.height * self.width

    @property
    def span(self) -> int:
        """Weights that a unit is chosen from: 9 of a kernel, of which 4 exist."""
        return 9 if self.scheme == "pattern" else self.weights

    @property
    def pools(self) -> int:
        return self.rows if self.scheme in ("fan_in", "pattern") else 1

    @property
    def positions(self) -> int:
        if self.scheme == "pattern":
            return self.inputs
        if self.scheme == "fan_in":
            return self.inputs * self.taps
        return -(-self.rows // self.height) * -(-self.inputs // self.width) * self.taps

    @property
    def most(self) -> int:
        columns = self.inputs * self.taps
        if self.scheme == "nm24":
            return self.rows * (columns // 4 * 2 + min(2, columns % 4))
        return self.positions

    @property
    def lines(self) -> int:
        """Of them the last may lack some."""
        return -(-self.inputs // self.width) if self.width > 1 else -(-self.rows // self.height)

    @property
    def phantoms(self) -> int:
        return -self.inputs % self.width if self.width > 1 else -self.rows % self.height

    def units_for(self, count: int) -> int:
        """Units in a pool of which the library expects `count` weights, or next to it."""

        def weights(units: int) -> int:
            total = units * self.pools
            return total * self.weights - (total * self.phantoms + self.lines // 2) // self.lines

        of_unit = self.pools * (self.weights - self.phantoms / self.lines)
        guess = int(count / of_unit)
        near = range(max(1, guess - 1), max(1, min(guess + 2, self.most)) + 1)
        best = min(near, key=lambda units: abs(weights(units) - count))
        most = min(weights(self.most), self.rows * self.inputs * self.taps)
        if count > most and weights(best) < count:
            raise MestArgumentError(f'scheme "{self.scheme}" can have {most} of these weights, not {count}')
        return best

    def density(self, units: int) -> float:
        """What mest.Linear's density gives so many units in a pool, or next to it."""
        return min(1.0, max(1e-6, units / self.positions * self.weights / self.span))


def norms(weight: NDArray[Any], form: Form) -> NDArray[np.float64]:
    """Squared Euclidean norms of all units, (blocks of outputs, runs of inputs, taps); of patterns
    (outputs, inputs, 1), of the best pattern of each kernel."""
    squares = _squares(weight, form)
    if form.scheme == "pattern":
        best: NDArray[np.float64] = _by_pattern(squares, form).max(2, keepdims=True)
        return best
    for axis, size in ((0, form.height), (1, form.width)):
        if size > 1:
            squares = np.add.reduceat(squares, np.arange(0, squares.shape[axis], size), axis)
    return squares


def largest(weight: NDArray[Any], form: Form, units: int) -> Mask:
    """The mask of the `units` units in every pool that have the largest norms.

    Of a last block or run that lacks some outputs or inputs the norms are smaller: of its units the
    same share is kept as of all others, as the library does it."""
    scores = norms(weight, form)
    if form.scheme == "nm24":
        chosen = _most(np.where(_best_two(scores), scores, -1.0), units)
    elif form.pools > 1 or form.scheme in ("fan_in", "pattern"):
        chosen = _most_of_each_row(scores, units)
    elif form.phantoms:
        chosen = np.empty(scores.shape, bool)
        axis = 1 if form.width > 1 else 0
        last, others = (slice(None),) * axis + (slice(-1, None),), (slice(None),) * axis + (slice(-1),)
        most_others, most_last = scores[others].size, scores[last].size
        of_last = (units + form.lines // 2) // form.lines
        of_last = min(max(of_last, units - most_others), most_last, units)
        chosen[last] = _most(scores[last], of_last)
        chosen[others] = _most(scores[others], units - of_last)
    else:
        chosen = _most(scores, units)
    return spread(chosen, weight, form)


def spread(chosen: Mask, weight: NDArray[Any], form: Form) -> Mask:
    """Weights of the chosen units, in weight's shape."""
    if form.scheme == "pattern":
        taps = np.zeros((len(form.patterns), form.taps), bool)
        for number, pattern in enumerate(form.patterns):
            taps[number, list(pattern)] = True
        best: Mask = taps[_by_pattern(_squares(weight, form), form).argmax(2)] & chosen
        return best.reshape(weight.shape)
    wide: Mask = chosen.repeat(form.height, 0)[: form.rows].repeat(form.width, 1)[:, : form.inputs]
    return wide.reshape(weight.shape)


def cover(mask: Mask, form: Form, what: str = "the weight") -> Tuple[Mask, int]:
    """The smallest mask around `mask` that the scheme can have, and its units in a pool.

    A unit exists where one of its weights does; outputs with fewer units than others get more.
    UnsupportedError where there is none: three in a group of "nm24", a kernel in no pattern.
    """
    present = norms(mask, form)
    shaped = mask.reshape(form.rows, form.inputs, form.taps)
    if form.scheme == "nm24" and (shaped & ~_best_two(present)).any():
        raise UnsupportedError(
            f'{what} has more than 2 connections in 4 neighbouring columns, which scheme "nm24" cannot '
            "have: give a density, to keep the largest, or another scheme"
        )
    if form.scheme == "pattern" and (shaped.sum(2) > present[:, :, 0]).any():
        raise UnsupportedError(
            f'{what} has a 3 x 3 kernel that is in none of the 8 patterns of scheme "pattern": give a '
            "density, to keep the best ones, or another scheme"
        )
    if form.scheme in ("fan_in", "pattern"):
        units = int((present > 0).reshape(form.rows, -1).sum(1).max())
        return largest(mask, form, units), units
    return spread(present > 0, mask, form), int(np.count_nonzero(present))


def count_units(mask: Mask, form: Form) -> int:
    """Units in a pool of a mask that the scheme can have."""
    return int(np.count_nonzero(norms(mask, form))) // form.pools


def finite(values: ArrayLike, what: str = "the weight") -> Floats:
    """float32, all finite: MestArgumentError otherwise."""
    array = arrays.floats(values, what)
    if not np.isfinite(array).all():
        raise MestArgumentError(f"{what} has values that are not finite")
    return array


def _squares(weight: NDArray[Any], form: Form) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.square(weight, dtype=np.float64)
    return squares.reshape(form.rows, form.inputs, form.taps)


def _by_pattern(squares: NDArray[np.float64], form: Form) -> NDArray[np.float64]:
    """(outputs, inputs, 8): what each pattern would keep of each kernel."""
    return np.stack([squares[:, :, list(taps)].sum(2) for taps in form.patterns], 2)


def _best_two(scores: NDArray[np.float64]) -> Mask:
    """The two largest of columns 0 to 3, 4 to 7, ... of every row."""
    rows = scores.reshape(len(scores), -1)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)), constant_values=-1.0)
    groups = padded.reshape(len(rows), -1, 4)
    rank = np.argsort(np.argsort(-groups, 2, kind="stable"), 2)
    best: Mask = (rank < 2).reshape(padded.shape)[:, : rows.shape[1]]
    return best.reshape(scores.shape)


def _most(scores: NDArray[np.float64], count: int) -> Mask:
    """`count` of the largest.  Of those that are equal any: a draw, since the first ones would all
    belong to a few outputs."""
    flat = scores.ravel()
    if count >= flat.size:
        return np.ones(scores.shape, bool)
    if count <= 0:
        return np.zeros(scores.shape, bool)
    edge = np.partition(flat, flat.size - count)[flat.size - count]
    chosen = flat > edge
    equal = np.flatnonzero(flat == edge)
    missing = count - int(np.count_nonzero(chosen))
    chosen[np.random.default_rng(0).permutation(equal)[:missing]] = True
    shaped: Mask = chosen.reshape(scores.shape)
    return shaped


def _most_of_each_row(scores: NDArray[np.float64], count: int) -> Mask:
    rows = scores.reshape(len(scores), -1)
    tie = np.random.default_rng(0).random(rows.shape)
    order = np.lexsort((tie, -rows), axis=1)[:, :count]
    chosen = np.zeros(rows.shape, bool)
    np.put_along_axis(chosen, order, True, 1)
    return chosen.reshape(scores.shape)
