# SPDX-License-Identifier: Apache-2.0
"""What stands in the lines of run.jsonl."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError
from ..reports import MutationReport
from .fields import PLAN, Record
from .reading import FORMAT, parse

if TYPE_CHECKING:
    from ..model import Model

_BINS = 40
_LAYER = (
    "name kind channels height width rows columns scheme sparse active capacity bytes activation_bytes macs"
).split()


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def machine() -> str:
    processor = platform.machine()
    with suppress(OSError, IndexError), open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = [line for line in file if line.startswith("model name")][0].split(":", 1)[1].strip()
    return f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} processors"


def layers_of(model: "Model") -> List[Record]:
    return [
        {"index": index, **{name: getattr(layer, name) for name in _LAYER}}
        for index, layer in enumerate(model.plan().layers)
    ]


def beginning(model: "Model", layers: List[Record], command: Optional[str]) -> Record:
    from .. import __version__

    plan = model.plan()
    return {
        "kind": "run",
        "format": FORMAT,
        "mest": __version__,
        "libmest": model._lib.mest_version_string().decode(),
        "started": now(),
        "machine": machine(),
        **({} if command is None else {"command": command}),
        "config": dataclasses.asdict(model.config),
        "layers": layers,
        "plan": {name: getattr(plan, name) for name in PLAN},
    }


def mutation(reports: List[MutationReport], survivors: Dict[int, Record]) -> Record:
    """All of an epoch in one: what was dropped and grown adds up, the rest is of the last."""
    last = reports[-1]
    layers = []
    for place, layer in enumerate(last.layers):
        moved = {
            name: sum(getattr(report.layers[place], name) for report in reports)
            for name in ("dropped", "grown")
        }
        kept = survivors.get(layer.layer, {"survivors": None, "first": None})
        layers.append({**dataclasses.asdict(layer), **moved, **kept})
    return {
        "kind": "mutation",
        "epoch": last.epoch,
        "dropped": sum(report.dropped for report in reports),
        "grown": sum(report.grown for report in reports),
        **{name: getattr(last, name) for name in ("active", "positions", "density", "explored")},
        "layers": layers,
    }


def forgetting(model: "Model") -> Record:
    report = model.forgetting()
    names = (
        "samples seen learned never_learned unforgettable training phase events events_epoch presentations "
        "presentations_saved"
    ).split()
    return {"histogram": report.histogram, **{name: getattr(report, name) for name in names}}


def importance(model: "Model", epoch: int) -> Record:
    """Histograms of |weight| of the sparse layers."""
    layers = []
    for index, layer in enumerate(model.plan().layers):
        if layer.sparse:
            size = np.abs(model.tensor(index))
            top = float(size.max()) if size.size else 0.0
            counts, edges = np.histogram(size, _BINS, (0.0, top or 1.0))
            layers.append({"layer": index, "edges": edges, "counts": counts})
    return {"kind": "importance", "epoch": epoch, "layers": layers}


def pictures(images: NDArray[Any]) -> NDArray[Any]:
    """Between 0 and 1, each picture by its own least and largest value; one channel has no axis."""
    picked = images.astype(np.float64)
    axes = tuple(range(1, picked.ndim))
    low, high = picked.min(axes, keepdims=True), picked.max(axes, keepdims=True)
    scaled = (picked - low) / np.where(high > low, high - low, 1.0)
    scaled = scaled[:, 0] if scaled.ndim == 4 and scaled.shape[1] == 1 else scaled
    rounded: NDArray[Any] = np.round(scaled, 4)
    return rounded


def plain(value: Any) -> Any:
    """What JSON has: numbers that are not finite are null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ------------------------------------------------------------------------------ connection sets ---


def places_of(model: "Model", index: int) -> NDArray[Any]:
    """row * columns + column of the connections of a layer."""
    layer, csr = model.plan().layers[index], model.csr(index)
    kind: Any = np.uint32 if layer.rows * layer.columns <= 2**32 else np.uint64
    lengths: NDArray[Any] = csr.indptr[1:] - csr.indptr[:-1]
    places: NDArray[Any] = np.repeat(np.arange(layer.rows, dtype=kind), lengths)
    places *= kind(layer.columns)
    places += csr.indices
    return places


def connections(model: "Model") -> Dict[int, NDArray[Any]]:
    if model.config.method == "static":
        return {}
    return {i: places_of(model, i) for i, layer in enumerate(model.plan().layers) if layer.sparse}


def packed(places: NDArray[Any]) -> str:
    """Base64 of the deflated distances, 8 bytes each, low byte first."""
    import base64
    import zlib

    steps = np.diff(places.astype("<u8"), prepend=np.uint64(0))
    return base64.b64encode(zlib.compress(steps.astype("<u8").tobytes())).decode()


def first_of(lines: List[bytes]) -> Optional[Dict[int, NDArray[Any]]]:
    """What `RunWriter._first_connections` has written."""
    import base64
    import zlib

    for line in lines:
        if line.startswith(b'{"kind": "first_connections"'):
            try:
                return {
                    layer["layer"]: np.cumsum(
                        np.frombuffer(zlib.decompress(base64.b64decode(layer["places"])), "<u8")
                    )
                    for layer in parse(line, "first connections")["layers"]
                }
            except (KeyError, TypeError, ValueError, zlib.error) as error:
                raise CorruptError(f"the first connections in the record are damaged: {error}") from error
    return None
