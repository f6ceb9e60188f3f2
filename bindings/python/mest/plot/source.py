# SPDX-License-Identifier: Apache-2.0
"""What pictures are drawn from: a model, a plan, a run or a history, all brought to the same form."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]


class Layer(NamedTuple):
    """A layer that has a weight matrix."""

    place: int  # in the description
    name: str
    kind: str
    rows: int
    columns: int
    active: int  # connections now, or as planned
    target: int  # connections as planned
    sparse: bool
    bytes: int

    @property
    def density(self) -> float:
        return self.active / (self.rows * self.columns)


def opened(source: Any) -> Any:
    """A run for the path of its record, the model of an estimator; anything else as it is."""
    if isinstance(source, (str, os.PathLike)):
        from ..runs.reading import read_run

        return read_run(source)
    return getattr(source, "model_", source)


def is_run(source: Any) -> bool:
    return isinstance(getattr(source, "run", None), Mapping) and hasattr(source, "epochs")


def plan_of(source: Any) -> Any:
    """The Plan of a Model, a Plan itself; None where there is none."""
    if hasattr(source, "total_bytes") and hasattr(source, "layers"):
        return source
    plan = getattr(source, "plan", None)
    return plan() if callable(plan) else None


def plan_numbers(source: Any) -> Dict[str, Any]:
    """The totals of a plan by their names, of a Plan, a Model, a Run or a mapping."""
    source = opened(source)
    if is_run(source):
        return dict(source.run.get("plan") or {})
    if isinstance(source, Mapping):
        return dict(source)
    plan = plan_of(source)
    if plan is None:
        raise wrong(source, "a Plan, a Model or a Run")
    known = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    known["sparse_bytes"] = plan.sparse_bytes
    known.pop("layers")
    return known


def layers_of(source: Any) -> List[Layer]:
    """Layers with weights: of a Model with the connections of now, of a Run with its last ones."""
    source = opened(source)
    if is_run(source):
        parts = [dict(part) for part in source.run.get("layers") or []]
        last = next((e["connections"] for e in reversed(source.epochs) if e.get("connections")), None)
        return [
            _layer(i, part, part["active"] if last is None or i >= len(last) else last[i])
            for i, part in enumerate(parts) if part.get("rows")
        ]  # fmt: skip
    plan = plan_of(source)
    if plan is None:
        raise wrong(source, "a Model, a Plan or a Run")
    now = source.connections() if hasattr(source, "connections") else [part.active for part in plan.layers]
    return [
        Layer(i, part.name, part.kind, part.rows, part.columns, now[i], part.active, part.sparse, part.bytes)
        for i, part in enumerate(plan.layers) if part.rows
    ]  # fmt: skip


def _layer(index: int, part: Mapping[str, Any], active: int) -> Layer:
    return Layer(
        part.get("index", index), part.get("name") or f"layer {index}", part.get("kind", ""), part["rows"],
        part["columns"], active, part["active"], bool(part.get("sparse")), part.get("bytes", 0),
    )  # fmt: skip


def epochs_of(source: Any) -> List[Dict[str, Any]]:
    """Records of epochs as dicts; null of a record file is nan."""
    source = opened(source)
    records = source.epochs if is_run(source) else getattr(source, "history", source)  # a Model has one
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise wrong(source, "a Run, a History or a Model that fit has trained")
    found = [dataclasses.asdict(r) if dataclasses.is_dataclass(r) else dict(r) for r in records]  # type: ignore
    if not found:
        raise ValueError("there is no epoch to draw yet")
    return found


def column(records: Sequence[Mapping[str, Any]], name: str) -> Numbers:
    """One number of all records; nan where it is missing or null."""
    values = [record.get(name) for record in records]
    return np.array([np.nan if value is None else value for value in values], float)


def mutations_of(source: Any) -> List[Dict[str, Any]]:
    """The mutations of a run that moved anything."""
    source = opened(source)
    if not is_run(source):
        raise wrong(source, "a Run: mest.read_run(path), of fit(callbacks=[mest.record(path)])")
    if not source.mutations:
        raise ValueError("no mutation in this run: its connections are static")
    return list(source.mutations)


def layer_names(run: Any) -> Dict[int, str]:
    return {i: part.get("name") or f"layer {i}" for i, part in enumerate(run.run.get("layers") or [])}


def by_layer(source: Any, value: Any) -> Tuple[List[str], List[int], Numbers]:
    """(names, epochs, [layers][mutations]) of value(part), a part being a layer's in a mutation; nan
    where a layer took no part."""
    source = opened(source)
    mutations = mutations_of(source)
    indices = sorted({part["layer"] for m in mutations for part in m.get("layers") or []})
    if not indices:
        raise ValueError("this run's mutations do not tell their layers")
    names = layer_names(source)
    table = np.full((len(indices), len(mutations)), np.nan)
    for column_, mutation in enumerate(mutations):
        for part in mutation.get("layers") or []:
            table[indices.index(part["layer"]), column_] = value(part)
    return [names.get(i, f"layer {i}") for i in indices], [m["epoch"] for m in mutations], table


def numbers(source: Any, axes: Optional[int] = None) -> bool:
    """Whether a list or an array is one of numbers (a History is a list, too), of so many axes."""
    array = np.asarray(source)
    return array.dtype.kind in "fiub" and axes in (None, array.ndim)


def wrong(source: Any, wanted: str) -> TypeError:
    return TypeError(f"{type(source).__name__}: this is made from {wanted}")
