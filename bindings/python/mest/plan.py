# SPDX-License-Identifier: Apache-2.0
"""What a model will need before it exists: bytes, connections, multiply-adds."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, Type, TypeVar

from . import _abi
from ._lib import library
from .config import Config, as_config
from .errors import BudgetError, error_of
from .layers import Layer, describe

T = TypeVar("T")


def from_struct(kind: Type[T], struct: Any, **more: Any) -> T:
    """A dataclass with the fields of the same names of a C struct; `more` are those it lacks."""
    for name in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        if name not in more:
            value = getattr(struct, name)
            more[name] = value.decode() if isinstance(value, bytes) else value
    return kind(**more)


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a plan.  Sizes in bytes, macs: multiply-adds of one sample forward."""

    name: str
    kind: int
    channels: int
    height: int
    width: int
    rows: int  # of the weight matrix: outputs x (inputs * kernel); 0 without weights
    columns: int
    density: float  # active / (rows * columns), the nearest to what was asked; 1 when dense
    active: int  # connections at the target
    capacity: int  # connections there is room for; a last block of fewer outputs takes a whole one's
    weight_bytes: int
    index_bytes: int
    gradient_bytes: int
    state_bytes: int
    activation_bytes: int  # its output; 0 when computed in place
    macs: int
    scheme: int  # MEST_SCHEME_* in effect, 0 when not sparse
    unit: int  # weights that come and go together

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Of the output: (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def sparse(self) -> bool:
        return self.index_bytes > 0

    @property
    def bytes(self) -> int:
        """Weights, indices, gradients and optimizer state."""
        return self.weight_bytes + self.index_bytes + self.gradient_bytes + self.state_bytes


@dataclass(frozen=True)
class Plan:
    """Every byte of a model, known beforehand: print it.  total_bytes is the one block that
    creating the model asks for, and the sum of the eight fields below it."""

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
    active_peak: int  # that exist at most
    macs: int
    dense_macs: int
    inputs: int  # floats in one sample
    outputs: int
    lanes: int
    steps_per_epoch: int  # 0: unknown
    threads: int

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
        return [
            f"     sparse connections: {target:,} at the target, at most {peak:,} while EM&S grows "
            "(bytes are planned for the latter)"
        ]

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
    """Lines of a table: layer, output shape, weight matrix, density, connections, bytes.
    active: connections now, where they differ from the plan's target."""
    lines = [
        f"{'':>3}  {'layer':<18}{'output':>14}{'weights':>13}{'density':>9}"
        f"{'active':>11}{'bytes':>12}{'activations':>13}"
    ]
    for index, layer in enumerate(layers):
        shape = "x".join(
            map(str, layer.shape if layer.height * layer.width > 1 else [layer.channels])
        )
        matrix = density = count = ""
        if layer.rows:
            now = layer.active if active is None else active[index]
            matrix = f"{layer.rows}x{layer.columns}"
            density = f"{now / (layer.rows * layer.columns):.4g}" if layer.sparse else "dense"
            count = f"{now:,}"
        size = f"{layer.bytes:,}" if layer.bytes else ""
        activation = f"{layer.activation_bytes:,}" if layer.activation_bytes else "in place"
        lines.append(
            f"{index:>3}  {layer.name:<18}{shape:>14}{matrix:>13}{density:>9}"
            f"{count:>11}{size:>12}{activation:>13}"
        )
    return lines


def plan(layers: Sequence[Layer], config: Optional[Config] = None, **fields: Any) -> Plan:
    """Plans a model without making it: arithmetic only, nothing is allocated.

    fields: changes to config.  Errors: those of Model.  A BudgetError carries the plan that did
    not fit as its `plan`.
    """
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
    return from_struct(Plan, report, layers=tuple(from_struct(LayerPlan, part) for part in parts))
