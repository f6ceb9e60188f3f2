# SPDX-License-Identifier: Apache-2.0
"""A trained model as the few steps that inference takes: what an exporter writes down.

Batch norm is folded into the convolution or linear layer before it and ReLU into the step before it,
where nobody else reads what lies between; dropout and flatten are nothing.  Then channels leave that no
connection reads (`thin`): those that schemes "filter" and "channel" lack, and any others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ...errors import MestArgumentError, UnsupportedError
from ...layers import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaxPool,
    Pair,
    ReLU,
    _resolve,
)
from ...model import Model
from ..state import Entry, read

Numbers = NDArray[np.float64]
Shape = Tuple[int, int, int]
Two = Tuple[int, int]
_NOTHING = np.zeros(0)

WEIGHTED = ("linear", "conv2d", "depthwise", "scale")  # output = weights on input, plus a bias
ELEMENTWISE = ("scale", "relu", "add")  # may write over what they read
_KEEPS_CHANNELS = ("depthwise", "scale", "relu", "max_pool", "avg_pool", "add")


@dataclass(frozen=True)
class Step:
    """One thing to compute.  sources, target: numbers of values.

    "linear", "conv2d"      weight (outputs, inputs, kernel_h, kernel_w), a linear layer's kernel is 1 x 1
    "depthwise", "scale"    weight (channels, 1, kernel_h, kernel_w); scale is batch norm on its own
    "relu", "max_pool", "avg_pool" (padding counts as zeros), "add"
    "view"                  the same numbers, told as (channels * height * width, 1, 1)
    relu: max(0, .) of the result.
    """

    op: str
    name: str
    sources: Tuple[int, ...]
    target: int
    relu: bool = False
    kernel: Two = (1, 1)
    stride: Two = (1, 1)
    padding: Two = (0, 0)
    weight: Numbers = field(default_factory=lambda: _NOTHING, repr=False)
    bias: Numbers = field(default_factory=lambda: _NOTHING, repr=False)


@dataclass(frozen=True)
class Program:
    """steps in order; shapes[v] of value v.  Value 0 is the input, that of the last step the output."""

    steps: Tuple[Step, ...]
    shapes: Tuple[Shape, ...]

    @property
    def output(self) -> int:
        return self.steps[-1].target


def program_of(model: Model) -> Program:
    """What `model.predict` computes, in float32 numbers.  UnsupportedError for a layer of a kind that is
    not known here, MestArgumentError where a batch norm divides by next to nothing."""
    lowered = _Lowering(model)
    for index in range(1, len(model.layers)):
        lowered.layer(index)
    return thin(Program(tuple(_in_float32(step) for step in lowered.steps), tuple(lowered.shapes)))


class _Lowering:
    def __init__(self, model: Model) -> None:
        self.model, self.layers, self.parts = model, model.layers, model.plan().layers
        self.steps: List[Step] = []
        self.shapes: List[Shape] = [self.parts[0].shape]
        self.value: List[int] = [0]  # of each layer
        self.made: Dict[int, int] = {}  # value -> the step that makes it
        self.read_by = [
            [] if i == 0 else [
                i - 1 if ref is None else _resolve(self.layers, i, ref)
                for ref in ((layer.from_, layer.with_) if isinstance(layer, Add) else (layer.from_,))
            ]
            for i, layer in enumerate(self.layers)
        ]  # fmt: skip
        self.readers = [0] * len(self.layers)  # of the numbers that a layer makes, whoever hands them on
        for i in range(1, len(self.layers)):
            for source in [] if self.hands_on(i) else self.read_by[i]:
                self.readers[self.maker(source)] += 1

    def hands_on(self, index: int) -> bool:
        """The output is the input, in value and shape."""
        layer, source = self.layers[index], self.parts[self.read_by[index][0]] if index else None
        return isinstance(layer, Dropout) or (
            isinstance(layer, Flatten) and source is not None and source.height * source.width == 1
        )

    def maker(self, index: int) -> int:
        """The layer whose output the output of this one is."""
        while self.hands_on(index):
            index = self.read_by[index][0]
        return index

    def layer(self, index: int) -> None:
        layer, shape = self.layers[index], self.parts[index].shape
        sources = tuple(self.value[source] for source in self.read_by[index])
        if self.hands_on(index):
            self.value.append(sources[0])
            return
        name = self.parts[index].name
        if isinstance(layer, BatchNorm):
            factor, shift = self.batch_norm(index, layer)
            if self.fold(index, lambda step: _folded(step, factor, shift)):
                return
            step = Step("scale", name, sources, 0, weight=factor.reshape(-1, 1, 1, 1), bias=shift)
        elif isinstance(layer, ReLU):
            if self.fold(index, lambda step: replace(step, relu=True), *WEIGHTED, "add"):
                return
            step = Step("relu", name, sources, 0)
        else:
            step = self.plain(index, layer, name, sources)
        self.value.append(len(self.shapes))
        self.made[self.value[-1]] = len(self.steps)
        self.steps.append(replace(step, target=self.value[-1]))
        self.shapes.append(shape)

    def fold(self, index: int, change: Any, *ops: str) -> bool:
        """Puts this layer into the step before it, if it may."""
        source = self.maker(self.read_by[index][0])
        at = self.made.get(self.value[source])
        if at is None or self.readers[source] > 1 or self.steps[at].relu:
            return False
        step = self.steps[at]
        changed = change(step) if step.op in (ops or WEIGHTED) else None
        if changed is None:
            return False
        self.steps[at] = changed
        self.value.append(self.value[source])
        return True

    def plain(self, index: int, layer: Layer, name: str, sources: Tuple[int, ...]) -> Step:
        if isinstance(layer, (Linear, Conv2d)):
            part = self.parts[index]
            kernel = _two(layer.kernel) if isinstance(layer, Conv2d) else (1, 1)
            weight = read(self.model, Entry("", index, "weight")).astype(np.float64)
            weight = weight.reshape(part.rows, -1, *kernel)
            bias = self.model.tensor(index, "bias") if layer.bias else np.zeros(part.rows)
            op = "linear" if isinstance(layer, Linear) else "depthwise" if layer.groups > 1 else "conv2d"
            step = Step(op, name, sources, 0, weight=weight, bias=bias.astype(np.float64), kernel=kernel)
            if isinstance(layer, Conv2d):
                step = replace(step, stride=_two(layer.stride), padding=_two(layer.padding))
            return step
        if isinstance(layer, MaxPool):  # AvgPool is one, too
            op = "avg_pool" if isinstance(layer, AvgPool) else "max_pool"
            stride: Pair = layer.kernel if layer.stride is None else layer.stride
            kernel, stride, padding = map(_two, (layer.kernel, stride, layer.padding))
            return Step(op, name, sources, 0, kernel=kernel, stride=stride, padding=padding)
        if isinstance(layer, GlobalAvgPool):
            part = self.parts[self.read_by[index][0]]
            return Step("avg_pool", name, sources, 0, kernel=(part.height, part.width))
        if isinstance(layer, Add):
            return Step("add", name, sources, 0)
        if isinstance(layer, Flatten):
            return Step("view", name, sources, 0)
        raise UnsupportedError(f"layer {index} is a {type(layer).__name__}, which cannot be exported")

    def batch_norm(self, index: int, layer: BatchNorm) -> Tuple[Numbers, Numbers]:
        """factor, shift: y = factor * x + shift."""
        read = {
            what: self.model.tensor(index, what).astype(np.float64)
            for what in ("running_mean", "running_var", *(("scale", "bias") if layer.affine else ()))
        }
        eps = float(np.float32(layer.eps))  # as the library has it
        factor = read.get("scale", 1.0) / np.sqrt(read["running_var"] + eps)
        return factor, read.get("bias", 0.0) - read["running_mean"] * factor


def _two(value: Pair) -> Two:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _folded(step: Step, factor: Numbers, shift: Numbers) -> Any:
    """step and batch norm behind it as one; None where floats have no numbers for it."""
    weight, bias = step.weight * factor.reshape(-1, 1, 1, 1), step.bias * factor + shift
    with np.errstate(over="ignore"):
        fine = all(np.isfinite(part.astype(np.float32)).all() for part in (weight, bias))
    return replace(step, weight=weight, bias=bias) if fine else None


def _in_float32(step: Step) -> Step:
    """The numbers rounded as a C program has them, here still in double precision."""
    parts: Dict[str, Any] = {}
    for what, numbers in (("weight", step.weight), ("bias", step.bias)):
        with np.errstate(over="ignore"):
            parts[what] = numbers.astype(np.float32).astype(np.float64)
        if not np.isfinite(parts[what]).all():
            raise MestArgumentError(
                f"{step.name}: its {what} is beyond what a float holds: a running variance near 0?"
            )
    return replace(step, **parts)


# ------------------------------------------------------------------------------------- thinning ---


def thin(program: Program) -> Program:
    """The same without channels that nobody reads.  Outputs are the same: what leaves was multiplied by
    nothing but zeros.  The network's input and output stay complete."""
    labels = _labels(program)
    needed = np.zeros(max(int(label.max()) for label in labels) + 1, bool)
    needed[labels[0]] = needed[labels[program.output]] = True
    while True:
        before = int(needed.sum())
        for step in reversed(program.steps):
            if step.op in ("linear", "conv2d"):
                read = step.weight[needed[labels[step.target]]].any((0, 2, 3))
                needed[labels[step.sources[0]][read]] = True
        for label in labels:  # a picture of no channels would be no array in C
            if not needed[label].any():
                needed[label[0]] = True
        if int(needed.sum()) == before:
            break
    keeps = [needed[label] for label in labels]
    steps = []
    for step in program.steps:
        if step.op in WEIGHTED:
            rows = keeps[step.target]
            weight = step.weight[rows]
            if step.op in ("linear", "conv2d"):
                weight = weight[:, keeps[step.sources[0]]]
            step = replace(step, weight=weight, bias=step.bias[rows])
        steps.append(step)
    shapes = tuple((int(kept.sum()), *shape[1:]) for kept, shape in zip(keeps, program.shapes))
    return Program(tuple(steps), shapes)


def _labels(program: Program) -> List[NDArray[np.int64]]:
    """For each value a label a channel: equal ones exist together or not at all."""
    labels: Dict[int, NDArray[np.int64]] = {0: np.arange(program.shapes[0][0])}
    parent: List[int] = list(range(program.shapes[0][0]))

    def root(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    for step in program.steps:
        source = labels[step.sources[0]]
        if step.op in _KEEPS_CHANNELS:
            for other in step.sources[1:]:
                for first, second in zip(source.tolist(), labels[other].tolist()):
                    parent[root(second)] = root(first)
        elif step.op == "view":
            _, height, width = program.shapes[step.sources[0]]
            source = np.repeat(source, height * width)
        else:
            count = program.shapes[step.target][0]
            source = np.arange(len(parent), len(parent) + count)
            parent.extend(source.tolist())
        labels[step.target] = source
    roots = np.array([root(label) for label in range(len(parent))])
    return [roots[labels[value]] for value in range(len(program.shapes))]
