# SPDX-License-Identifier: Apache-2.0
"""A `Program` in 8-bit integers, after training: the scheme of Jacob et al. 2018 (arXiv 1712.05877).

An activation is scale * (q - zero) with one scale and zero a tensor, from the smallest and largest value
that calibration data give it (0 always among them, so that padding and ReLU are exact).  A weight is
scale * q with a scale for each output, q in -127 .. 127.  Sums have 32 bits, which they never exceed:
`quantise` makes sure.  They come back to 8 bits by an integer multiplier of 31 bits and a shift.

`run` computes in numpy the very integers that the C program computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from . import emulate
from .program import WEIGHTED, Numbers, Program, Step

Integers = NDArray[np.int64]
_NONE = np.zeros(0, np.int64)
_MOST_BIAS = 2.0**29  # in 32 bits, beside a sum of products
_ADD_BITS = 21  # of the multipliers of an addition: 255 * 2**21 twice is below 2**31


class Scale(NamedTuple):
    """A number is scale * (q - zero), q in -128 .. 127.  scale: a float32."""

    scale: float
    zero: int


@dataclass(frozen=True)
class IntegerStep:
    """A step whose weight has integers; least: what ReLU leaves, or -128.  multiplier, shift: one for each
    output, one of a pool, of an addition two multipliers and a shift.  second_zero: of an addition."""

    step: Step
    in_zero: int
    out_zero: int
    least: int
    bias: Integers = field(default_factory=lambda: _NONE)
    multiplier: Integers = field(default_factory=lambda: _NONE)
    shift: Integers = field(default_factory=lambda: _NONE)
    second_zero: int = 0


@dataclass(frozen=True)
class IntegerProgram:
    program: Program
    steps: Tuple[IntegerStep, ...]
    scales: Tuple[Scale, ...]  # of each value

    @property
    def output(self) -> Scale:
        return self.scales[self.program.output]


def quantise(program: Program, calibration: NDArray[np.float32]) -> IntegerProgram:
    """calibration: at least one sample, any of the shapes that predict takes."""
    scales = [_scale(low, high) for low, high in _ranges(program, calibration)]
    for step in program.steps:
        if step.op in ("relu", "max_pool", "view"):  # choose among the numbers they get
            scales[step.target] = scales[step.sources[0]]
    steps = tuple(_step(step, scales) for step in program.steps)
    integers = Program(tuple(step.step for step in steps), program.shapes)
    return IntegerProgram(integers, steps, tuple(scales))


def _ranges(program: Program, x: NDArray[np.float32]) -> List[Tuple[float, float]]:
    """Smallest and largest number of each value, and 0."""
    ranges = [(0.0, 0.0)] * len(program.shapes)
    for part in emulate.batches(program, x):
        found = emulate.values_of(program, part.astype(np.float64), emulate.compute)
        for value, numbers in found.items():
            low, high = ranges[value]
            ranges[value] = min(low, float(numbers.min())), max(high, float(numbers.max()))
    return ranges


def _scale(low: float, high: float) -> Scale:
    scale = float(np.float32((high - low) / 255))
    if not 1e-30 < scale < 1e30:  # next to nothing is 0; of the inverse floats have a number, too
        return Scale(1.0 if scale < 1 else 1e30, 0)
    return Scale(scale, max(-128, min(127, int(np.rint(-128 - low / scale)))))


def _step(step: Step, scales: Sequence[Scale]) -> IntegerStep:
    source, target = scales[step.sources[0]], scales[step.target]
    least = target.zero if step.relu or step.op == "relu" else -128
    plain = IntegerStep(step, source.zero, target.zero, least)
    if step.op in WEIGHTED:
        weight, bias, scale = _weights(step, source.scale)
        multiplier, shift = multipliers(scale * (source.scale / target.scale))
        weighed = replace(step, weight=weight)
        return replace(plain, step=weighed, bias=bias, multiplier=multiplier, shift=shift)
    if step.op == "avg_pool":
        pixels = step.kernel[0] * step.kernel[1]
        multiplier, shift = multipliers(np.array([source.scale / (target.scale * pixels)]))
        return replace(plain, multiplier=multiplier, shift=shift)
    if step.op == "add":
        second = scales[step.sources[1]]
        both = np.array([source.scale, second.scale]) / target.scale
        shift = np.clip(_ADD_BITS - np.frexp(both.max())[1], 1, 30)
        multiplier = np.minimum(np.rint(both * 2.0**shift), 2**_ADD_BITS).astype(np.int64)
        shifts = np.array([shift], np.int64)
        return replace(plain, multiplier=multiplier, shift=shifts, second_zero=second.zero)
    return plain


def _weights(step: Step, in_scale: float) -> Tuple[Numbers, Integers, Numbers]:
    """Integer weights and biases, and the scale of each output."""
    rows = step.weight.reshape(len(step.weight), -1)
    scale = np.maximum(np.abs(rows).max(1) / 127, np.abs(step.bias) / (in_scale * _MOST_BIAS))
    scale[scale == 0] = 1.0
    while True:
        weight = np.clip(np.rint(rows / scale[:, None]), -127, 127)
        bias = np.rint(step.bias / (in_scale * scale))
        most = np.abs(weight).sum(1) * 255 + np.abs(bias)  # whatever the input is
        if (most < 2**31).all():
            return weight.reshape(step.weight.shape), bias.astype(np.int64), scale
        scale = scale * np.maximum(1.0, most / 2**31 * 1.01)


def multipliers(factors: Numbers) -> Tuple[Integers, Integers]:
    """(multiplier, shift): factor = multiplier / 2**shift, 0 <= multiplier < 2**31, 1 <= shift <= 62."""
    mantissa, exponent = np.frexp(factors)
    multiplier = np.minimum(np.rint(mantissa * 2.0**31), 2**31 - 1).astype(np.int64)
    shift = 31 - exponent.astype(np.int64)
    multiplier = np.where(shift > 62, multiplier >> np.minimum(np.maximum(shift - 62, 0), 62), multiplier)
    multiplier = np.where(shift < 1, 2**31 - 1, multiplier)
    return multiplier, np.clip(shift, 1, 62)


# ------------------------------------------------------------------------------- what C computes ---


def run(known: IntegerProgram, x: NDArray[np.float32]) -> NDArray[np.int8]:
    """(n, outputs): the integers that the C program gives for n samples of floats."""
    outputs, steps = known.program.shapes[known.program.output][0], {s.step.target: s for s in known.steps}
    parts = [np.zeros((0, outputs), np.int8)]
    for part in emulate.batches(known.program, x):
        found: Dict[int, Any] = emulate.values_of(
            known.program,
            to_integers(part, known.scales[0]).astype(np.float64),
            lambda step, inputs: _compute(steps[step.target], inputs),
        )
        parts.append(found[known.program.output].reshape(len(part), -1).astype(np.int8))
    return np.concatenate(parts)


def predict(known: IntegerProgram, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same as floats, as `NAME_predict` gives them."""
    whole = run(known, x).astype(np.int32) - known.output.zero
    return whole.astype(np.float32) * np.float32(known.output.scale)


def to_integers(x: NDArray[np.float32], scale: Scale) -> NDArray[np.int8]:
    """Floats as the C program rounds them: in single precision, halves away from zero."""
    q = x * (np.float32(1) / np.float32(scale.scale))
    q = np.clip(q, np.float32(-128 - scale.zero), np.float32(127 - scale.zero))
    whole = np.where(q < 0, q - np.float32(0.5), q + np.float32(0.5)).astype(np.int32) + scale.zero
    narrow: NDArray[np.int8] = whole.astype(np.int8)
    return narrow


def _compute(known: IntegerStep, inputs: Sequence[Numbers]) -> Numbers:
    step, x = known.step, inputs[0]
    if step.op == "relu":
        return np.maximum(x, known.in_zero)
    if step.op == "max_pool":
        most: Numbers = emulate.windows(step, x, -np.inf).max((4, 5))
        return most
    centred = x - known.in_zero
    if step.op == "add":
        first, second = known.multiplier
        sums = first * centred + second * (inputs[1] - known.second_zero)
        return _requantise(known, sums, np.ones(1, np.int64))
    if step.op == "avg_pool":
        return _requantise(known, emulate.windows(step, centred).sum((4, 5)), known.multiplier)
    sums = emulate.weigh(step, centred, step.weight) + known.bias.reshape(1, -1, 1, 1)
    return _requantise(known, sums, known.multiplier)


def _requantise(known: IntegerStep, sums: Numbers, multiplier: Integers) -> Numbers:
    product = sums.astype(np.int64) * multiplier.reshape(1, -1, 1, 1)
    shift = known.shift.reshape(1, -1, 1, 1)
    half = np.int64(1) << (shift - 1)
    q = np.where(product < 0, -((half - product) >> shift), (product + half) >> shift)
    clipped: Numbers = np.clip(q + known.out_zero, known.least, 127).astype(np.float64)
    return clipped
