# SPDX-License-Identifier: Apache-2.0
"""Writes the record of a training, run.jsonl: one JSON object a line, as training goes on.

What the lines are: docs/training.md; `read_run` checks and reads them.  A line is one write of the
system, so that a process that dies leaves at most its last line unfinished.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arrays
from .callbacks import Callback
from .errors import CorruptError, MestArgumentError, MestError
from .history import EpochRecord, History
from .reports import MutationReport
from .run import FORMAT, Path, Record, Run, parse, read_run, whole_lines

if TYPE_CHECKING:
    from .model import Model

__all__ = ["Run", "RunWriter", "read_run", "record"]

_BINS = 40
_PLAN = (
    "weight_bytes index_bytes gradient_bytes state_bytes forgetting_bytes batch_bytes workspace_bytes "
    "table_bytes recovery_bytes total_bytes dense_bytes parameters active active_peak macs dense_macs threads"
).split()
_LAYER = (
    "name kind channels height width rows columns scheme sparse active capacity bytes activation_bytes macs"
).split()
_CHOOSING = ("snip", "grasp")  # connections of before the choice are nobody's


def record(
    path: Path, *, images: Optional[ArrayLike] = None, most: int = 25, command: Optional[str] = None
) -> "RunWriter":
    """A callback that writes the record of a training to a file, for `read_run`, `mest.plot` and
    `mest report`: model.fit(x, y, callbacks=[mest.record("run.jsonl")]).

    images: (samples, height, width) or (samples, channels, height, width), a picture of each sample,
    mostly x itself: those of the `most` samples that were forgotten most often are kept, as a grid
    shows them.  Where training goes on in a model that has been resumed, or trained before, the
    file goes on, too; a new model begins it anew.
    command: what somebody types to get this training, for the report.
    """
    return RunWriter(path, images=images, most=most, command=command)


class RunWriter(Callback):
    """The callback that `record` makes.  For a loop of your own it is a context manager:

        with RunWriter("run.jsonl") as log:
            log.begin(model)
            for ...:
                log.epoch(model, EpochRecord(...))

    Memory: 4 or 8 bytes for each sparse connection that the model begins with.
    Errors: OSError; MestArgumentError before training where the file is something else's, or of
    another network.
    """

    def __init__(
        self, path: Path, *, images: Optional[ArrayLike] = None, most: int = 25, command: Optional[str] = None
    ) -> None:
        if most < 0:
            raise MestArgumentError(f"most is {most}; use 0 on")
        self.path = os.fspath(path)
        self.images = None if images is None else np.asarray(images)
        if self.images is not None and self.images.ndim not in (3, 4):
            raise MestArgumentError(
                f"images has shape {self.images.shape}, (samples, height, width) or (samples, channels, "
                "height, width) is wanted"
            )
        self.most = most
        self.command = command
        self._file: Optional[Any] = None
        self._moved: Dict[int, MutationReport] = {}  # by number, not yet written

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:  # nobody has said that it ended
            self._close("failed" if sys.exc_info()[1] else "done")

    # ------------------------------------------------------------------------- while it trains ---

    def begin(self, model: "Model") -> None:
        if self.images is not None and len(self.images) != model.config.samples:
            raise MestArgumentError(
                f"images has {len(self.images)} pictures, Config.samples is {model.config.samples}"
            )
        self._started = time.perf_counter()
        self._moved.clear()
        first = model._epoch + 1
        self._last = first - 1
        layers = _layers(model)
        earlier = self._earlier(layers) if first else None
        if earlier is None:
            self._refuse_a_stranger()
            self._file = open(self.path, "wb", buffering=0)
            self._first = None if model.config.method in _CHOOSING else _connections(model)
            self._write(_beginning(model, layers, self.command), *self._first_connections())
        else:
            self._first = _first_of(earlier)
            self._file = open(self.path, "r+b", buffering=0)
            self._file.truncate(sum(len(line) + 1 for line in earlier) - 1)  # no torn line
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"\n")
            self._write({"kind": "again", "epoch": first, "started": _now()})

    def mutation(self, model: "Model", report: MutationReport) -> None:
        # Numbers that come again are of an epoch that is trained again.
        self._moved = {n: seen for n, seen in self._moved.items() if n < report.mutations}
        self._moved[report.mutations] = report
        if self._first is None and model.config.method in _CHOOSING:
            self._first = _connections(model)
            self._write(*self._first_connections())

    def epoch(self, model: "Model", record: EpochRecord) -> None:
        lines: List[Record] = []
        if record.epoch <= self._last:  # the model had returned to a good state
            lines.append({"kind": "again", "epoch": record.epoch, "started": _now()})
        self._last = record.epoch
        lines.append(
            {"kind": "epoch", **dataclasses.asdict(record), "connections": model.connections()}
        )
        moved = [seen for seen in self._moved.values() if seen.epoch == record.epoch]
        self._moved.clear()
        if moved:
            lines.append(_mutation(moved, self._survivors(model)))
        if model.config.samples:
            lines.append({"kind": "forgetting", "epoch": record.epoch, **_forgetting(model)})
        self._write(*lines)

    def end(self, model: "Model", history: History, reason: str) -> None:
        if self._file is None:
            return
        lines: List[Record] = []
        with suppress(MestError):  # of a model that was closed meanwhile, say
            lines.append(_importance(model, self._last))
            if model.config.samples:
                lines.append(self._most_forgotten(model))
        self._close(reason, lines)

    def _close(self, reason: str, lines: Iterable[Record] = ()) -> None:
        error = sys.exc_info()[1]
        message = "" if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
        seconds = time.perf_counter() - self._started
        end = {"kind": "end", "reason": reason, "seconds": seconds, "message": message}
        try:
            self._write(*lines, end)
        finally:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    # --------------------------------------------------------------------------------- the file ---

    def _write(self, *records: Record) -> None:
        if self._file is None or not records:
            return
        text = "".join(json.dumps(_plain(record), allow_nan=False) + "\n" for record in records)
        data = text.encode()
        if self._file.write(data) != len(data):  # what comes after would not be on a line of its own
            file, self._file = self._file, None
            file.close()
            raise OSError(f"{self.path}: no space left for the record of the training")

    def _earlier(self, layers: List[Record]) -> Optional[List[bytes]]:
        """Lines of the file that this training continues; None: there is none."""
        try:
            with open(self.path, "rb") as file:
                lines = whole_lines(file.read())
        except FileNotFoundError:
            return None
        if not lines:
            return None
        known = read_run(self.path).run["layers"]
        for mine, theirs in zip(layers, known):
            same = ("name", "kind", "rows", "columns", "scheme")
            if any(mine[name] != theirs.get(name) for name in same):
                break
        else:
            if len(layers) == len(known):
                return lines
        raise MestArgumentError(
            f"{self.path} is the record of another network, and this model has trained before: delete "
            "it or name another file"
        )

    def _refuse_a_stranger(self) -> None:
        """A file that is about to be written anew has to be a record, not somebody's data."""
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            wanted = b'{"kind":"run"'
            start = file.readline(64).replace(b" ", b"")[: len(wanted)]
            if not wanted.startswith(start):
                raise MestArgumentError(
                    f"{self.path} is there and no record of a training: name another file"
                )

    # ------------------------------------------------------------------------------ connections ---

    def _first_connections(self) -> List[Record]:
        """So that a training that is resumed still knows which were the first."""
        if not self._first:
            return []
        packed = [
            {"layer": index, "count": places.size, "places": _packed(places)}
            for index, places in self._first.items()
        ]
        return [{"kind": "first_connections", "layers": packed}]

    def _survivors(self, model: "Model") -> Dict[int, Record]:
        found = {}
        for index, first in (self._first or {}).items():
            now = _places(model, index)
            alive = int(np.isin(first, now, assume_unique=True).sum())
            found[index] = {"survivors": alive, "first": first.size}
        return found

    def _most_forgotten(self, model: "Model") -> Record:
        counts = model.forgetting().counts
        learned = np.where(counts == 255, 0, counts)  # 255: never learned
        ids = np.argsort(learned, kind="stable")[::-1][: self.most]
        ids = ids[learned[ids] > 0]
        found: Record = {"kind": "most_forgotten", "ids": ids.tolist(), "counts": counts[ids].tolist()}
        if self.images is not None and ids.size:
            found["images"] = _pictures(self.images[ids])
        return found


# -------------------------------------------------------------------------------------- records ---


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _machine() -> str:
    processor = platform.machine()
    with suppress(OSError, IndexError), open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = [line for line in file if line.startswith("model name")][0].split(":", 1)[1].strip()
    return f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} processors"


def _layers(model: "Model") -> List[Record]:
    return [
        {"index": index, **{name: getattr(layer, name) for name in _LAYER}}
        for index, layer in enumerate(model.plan().layers)
    ]


def _beginning(model: "Model", layers: List[Record], command: Optional[str]) -> Record:
    from . import __version__

    plan = model.plan()
    return {
        "kind": "run",
        "format": FORMAT,
        "mest": __version__,
        "libmest": model._lib.mest_version_string().decode(),
        "started": _now(),
        "machine": _machine(),
        **({} if command is None else {"command": command}),
        "config": dataclasses.asdict(model.config),
        "layers": layers,
        "plan": {name: getattr(plan, name) for name in _PLAN},
    }


def _mutation(reports: List[MutationReport], survivors: Dict[int, Record]) -> Record:
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


def _forgetting(model: "Model") -> Record:
    report = model.forgetting()
    names = (
        "samples seen learned never_learned unforgettable training phase events events_epoch presentations "
        "presentations_saved"
    ).split()
    return {"histogram": report.histogram, **{name: getattr(report, name) for name in names}}


def _importance(model: "Model", epoch: int) -> Record:
    """Histograms of |weight| of the sparse layers."""
    layers = []
    for index, layer in enumerate(model.plan().layers):
        if layer.sparse:
            size = np.abs(model.tensor(index))
            top = float(size.max()) if size.size else 0.0
            counts, edges = np.histogram(size, _BINS, (0.0, top or 1.0))
            layers.append({"layer": index, "edges": edges, "counts": counts})
    return {"kind": "importance", "epoch": epoch, "layers": layers}


def _pictures(images: NDArray[Any]) -> NDArray[Any]:
    """Between 0 and 1, each picture by its own least and largest value; one channel has no axis."""
    picked = images.astype(np.float64)
    axes = tuple(range(1, picked.ndim))
    low, high = picked.min(axes, keepdims=True), picked.max(axes, keepdims=True)
    scaled = (picked - low) / np.where(high > low, high - low, 1.0)
    scaled = scaled[:, 0] if scaled.ndim == 4 and scaled.shape[1] == 1 else scaled
    rounded: NDArray[Any] = np.round(scaled, 4)
    return rounded


def _plain(value: Any) -> Any:
    """What JSON has: numbers that are not finite are null."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ------------------------------------------------------------------------------ connection sets ---


def _places(model: "Model", index: int) -> NDArray[Any]:
    """row * columns + column of the connections of a layer."""
    layer, csr = model.plan().layers[index], model.csr(index)
    kind: Any = np.uint32 if layer.rows * layer.columns <= 2**32 else np.uint64
    lengths: NDArray[Any] = csr.indptr[1:] - csr.indptr[:-1]
    places: NDArray[Any] = np.repeat(np.arange(layer.rows, dtype=kind), lengths)
    places *= kind(layer.columns)
    places += csr.indices
    return places


def _connections(model: "Model") -> Dict[int, NDArray[Any]]:
    if model.config.method == "static":
        return {}
    return {i: _places(model, i) for i, layer in enumerate(model.plan().layers) if layer.sparse}


def _packed(places: NDArray[Any]) -> str:
    """Base64 of the deflated distances, 8 bytes each, low byte first."""
    import base64
    import zlib

    steps = np.diff(places.astype("<u8"), prepend=np.uint64(0))
    return base64.b64encode(zlib.compress(steps.astype("<u8").tobytes())).decode()


def _first_of(lines: List[bytes]) -> Optional[Dict[int, NDArray[Any]]]:
    """What `_first_connections` has written."""
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
