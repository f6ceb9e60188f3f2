# SPDX-License-Identifier: Apache-2.0
"""What a model will need before it exists: bytes, connections, multiply-adds."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, Type, TypeVar

from . import _abi
from ._lib import library
from .config import Config, as_config, word_of
from .errors import BudgetError, error_of
from .layers import Layer, describe, listed

T = TypeVar("T")

# By the header's numbers.
_OUTPUTS = ("stored", "in place", "fused", "recomputed")
_KINDS = {
    value: name[len("MEST_LAYER_") :].lower()
    for name, value in vars(_abi).items()
    if name.startswith("MEST_LAYER_")
}


# Methods that at some time have more connections than their target.
_ABOVE_TARGET = {
    "em&s": "EM&S grows above the target and comes down to it in the end",
    "gmp": "gradual pruning begins at initial_density",
    "dsr": "with DSR connections move between layers: each may have twice its target",
    "lottery": "lottery tickets begin dense",
    "snip": "SNIP may give each layer more than its target, all together twice",
    "grasp": "GraSP chooses among candidates at initial_density",
}


def from_struct(kind: Type[T], struct: Any, /, **more: Any) -> T:
    """A dataclass with the fields of the same names of a C struct; `more` are those it lacks."""
    for name in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        if name not in more:
            value = getattr(struct, name)
            more[name] = value.decode() if isinstance(value, bytes) else value
    return kind(**more)


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a plan.  Sizes in bytes, macs: multiply-adds of one sample forward.

    output: where the output is, and output_layer the index of the layer that this names (-1: none).
      "stored"      in memory of its own
      "in place"    in the memory of output_layer's, over it
      "fused"       nowhere: output_layer, and any other reader, computes the values while it reads
      "recomputed"  in memory of its own, given up in between: computed again before the backward
                    pass of output_layer
    """

    name: str
    kind: str  # MEST_LAYER_* in lower case: "conv2d"
    channels: int
    alive: int  # of channels, those that exist at the target: all, but for "filter" and "channel"
    height: int
    width: int
    rows: int  # of the weight matrix: outputs x (inputs * kernel); 0 without weights
    columns: int
    density: float  # active / (rows * columns), the nearest to what was asked; 1 when dense;
    # "filter", "channel": what both sides make of it, see Linear
    active: int  # connections at the target
    capacity: int  # connections there is room for; a last block takes the room of a whole one
    weight_bytes: int
    index_bytes: int
    gradient_bytes: int
    state_bytes: int
    activation_bytes: int  # its output; 0 when in place or fused; shared by life-time: no sum
    macs: int
    scheme: Optional[str]  # in effect, as in Config.scheme; None when not sparse
    unit: int  # weights that come and go together: a block's rows, 4 of a pattern, 1 otherwise;
    # 0: "filter", "channel"
    output: str
    output_layer: int
    output_format: str  # of the output, as in Config.activations; "" when fused

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Of the output: (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def sparse(self) -> bool:
        return self.scheme is not None

    @property
    def bytes(self) -> int:
        """Weights, indices, gradients and optimizer state."""
        return self.weight_bytes + self.index_bytes + self.gradient_bytes + self.state_bytes


@dataclass(frozen=True)
class Plan:
    """Every byte of a model, known beforehand: print it.  total_bytes is the one block that
    creating the model asks for, and the sum of the eight fields below it and of recovery_bytes."""

    layers: Tuple[LayerPlan, ...]
    alignment: int
    total_bytes: int
    table_bytes: int
    weight_bytes: int
    index_bytes: int
    gradient_bytes: int
    state_bytes: int
    forgetting_bytes: int
    batch_bytes: int
    workspace_bytes: int
    activation_bytes: int  # inside workspace
    mutation_bytes: int  # inside workspace
    dense_bytes: int  # weights, gradients and state of the same network, dense
    parameters: int  # of the dense network
    active: int  # that exist at the target density
    active_peak: int  # there is room for
    macs: int
    dense_macs: int
    inputs: int  # floats in one sample
    outputs: int
    lanes: int
    steps_per_epoch: int  # 0: unknown
    threads: int
    method: str  # "em&s"; what it needs beyond "static", a plan with that tells
    memory_economic: bool  # sparse layers never have more than twice the connections of their targets
    checkpoint_bytes: int  # the most that `Model.save` writes
    recovery_bytes: int  # the good state that recover_epochs keeps

    @property
    def sparse_bytes(self) -> int:
        """Weights, indices, gradients and state: what `dense_bytes` is for the dense network."""
        return self.weight_bytes + self.index_bytes + self.gradient_bytes + self.state_bytes

    def __str__(self) -> str:
        lines = [*layer_table(self.layers), *self._growth(), "", "memory of the model"]
        lines += self._memory()
        lines += ["", f"{'':<22}{'sparse':>14}{'dense':>16}{'share':>9}"]
        for what, sparse, dense in (
            ("parameters", self.active, self.parameters),
            ("model bytes", self.sparse_bytes, self.dense_bytes),
            ("multiply-adds", self.macs, self.dense_macs),
        ):
            share = sparse / dense if dense else 1.0
            lines.append(f"  {what:<20}{sparse:>14,}{dense:>16,}{share:>9.1%}")
        lines.append("  model bytes: weights, gradients, optimizer state and (sparse) indices")
        return "\n".join(lines)

    __repr__ = __str__

    def _growth(self) -> List[str]:
        """Why bytes are more than `active` needs, where they are."""
        target, peak = (
            sum(getattr(layer, what) for layer in self.layers if layer.sparse)
            for what in ("active", "capacity")
        )
        if peak <= target:
            return []
        why = _ABOVE_TARGET.get(self.method, "a last block or run of inputs is stored whole")
        lines = [
            f"sparse connections: {target:,} at the target; bytes are planned for {peak:,}:",
            why,
        ]
        if not self.memory_economic:
            lines.append("not memory-economic: for comparison, not for devices")
        return lines

    def _memory(self) -> List[str]:
        parts = [
            ("weights", self.weight_bytes),
            ("indices", self.index_bytes),
            ("gradients", self.gradient_bytes),
            ("optimizer state", self.state_bytes),
            ("forgetting counts", self.forgetting_bytes),
            ("batch", self.batch_bytes),
            ("activations, scratch", self.workspace_bytes),
            ("tables", self.table_bytes),
            ("total", self.total_bytes),
        ]
        return [f"  {what:<20}{size:>14,} bytes" for what, size in parts]


def layer_table(layers: Sequence[LayerPlan], active: Optional[Sequence[int]] = None) -> List[str]:
    """Lines of a table, 100 columns wide as a rule: layer, output shape, weight matrix, what of it
    exists and by which scheme, bytes, and where the output is.
    active: connections now, where they differ from the plan's target."""
    rows = [("", *"layer output weights density scheme active bytes activations as".split())]
    for index, layer in enumerate(layers):
        pixels = f"x{layer.height}x{layer.width}" if layer.height * layer.width > 1 else ""
        lacks = f"{layer.alive}/" if layer.alive < layer.channels else ""
        shape = f"{lacks}{layer.channels}{pixels}"
        matrix = density = scheme = count = ""
        if layer.rows:
            now = layer.active if active is None else active[index]
            matrix = f"{layer.rows}x{layer.columns}"
            density = f"{now / (layer.rows * layer.columns):.4g}" if layer.sparse else "1"
            scheme = layer.scheme or "dense"
            count = f"{now:,}"
        size = f"{layer.bytes:,}" if layer.bytes else ""
        exists = density, scheme, count, size
        rows.append((str(index), layer.name, shape, matrix, *exists, *_output(layer)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    # Words to the left, numbers to the right; the number of a layer and a format stand close.
    form = "{:>%d} {:<%d}  {:>%d}  {:>%d}  {:>%d}  {:<%d}  {:>%d}  {:>%d}  {:>%d} {}"
    form %= tuple(widths[:-1])
    lines = [form.format(*row).rstrip() for row in rows]
    if any(layer.alive < layer.channels for layer in layers):
        lines.append("n/m: n of m channels exist")
    if any(layer.output == "fused" for layer in layers):
        lines.append("fused into n: stored nowhere, layer n computes it while it reads it")
    if any(layer.output == "recomputed" for layer in layers):
        lines.append("*: given up after the forward pass, computed again in the backward pass")
    lines.append("activations share memory by life-time: their sum is more than the plan needs")
    return lines


def _output(layer: LayerPlan) -> Tuple[str, str]:
    """Where it is, and as what."""
    kind = {"float32": "f32", "bfloat16": "bf16", "": ""}[layer.output_format]
    if layer.output == "fused":
        return f"fused into {layer.output_layer}", kind
    if layer.output == "in place":
        return f"in place of {layer.output_layer}", kind
    return f"{layer.activation_bytes:,}", kind + "*" * (layer.output == "recomputed")


def plan(layers: Sequence[Layer], config: Optional[Config] = None, **fields: Any) -> Plan:
    """Plans a model without making it: arithmetic only, nothing is allocated.

    fields: changes to config.  Errors: those of Model.  A BudgetError carries the plan that did
    not fit as its `plan`.
    """
    layers = listed(layers)
    description = describe(layers)
    settings = as_config(config, fields).to_struct()
    report, parts = _abi.mest_plan_report(), _abi.array(_abi.mest_layer_plan, len(layers))
    lib = library()
    status = lib.mest_plan(
        ctypes.byref(settings), description, len(layers), ctypes.byref(report), parts
    )
    if status == _abi.MEST_OK:
        return plan_of(report, parts)
    error = error_of(status, lib.mest_last_error(None).decode())
    if isinstance(error, BudgetError):
        error.plan = plan_of(report, ())  # the header promises the totals, not the layers
    raise error


def plan_of(report: Any, parts: Any) -> Plan:
    """A Plan from the library's two reports."""
    return from_struct(
        Plan,
        report,
        layers=tuple(map(_layer_plan, parts)),
        method=word_of("method", report.method),
        memory_economic=bool(report.memory_economic),
    )


def _layer_plan(part: Any) -> LayerPlan:
    """Words for the header's numbers."""
    fused = part.output == _abi.MEST_OUTPUT_FUSED
    return from_struct(
        LayerPlan,
        part,
        kind=_KINDS[part.kind],
        scheme=word_of("scheme", part.scheme),
        output=_OUTPUTS[part.output],
        output_format="" if fused else word_of("activations", part.output_format),
    )
