# SPDX-License-Identifier: Apache-2.0
"""Writes the record of a training, run.jsonl: one JSON object a line, as training goes on.

What the lines are: docs/training.md; `read_run` checks and reads them.  A line is one write of the
system, so that a process that dies leaves at most its last line unfinished.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np
from numpy.typing import ArrayLike

from ..errors import MestArgumentError, MestError, MestIOError
from ..reports import MutationReport
from ..training.callbacks import Callback
from ..training.history import EpochRecord, History
from .fields import Record
from .lines import (
    beginning,
    connections,
    first_of,
    forgetting,
    importance,
    layers_of,
    mutation,
    now,
    packed,
    pictures,
    places_of,
    plain,
)
from .reading import Path, read_run, whole_lines

if TYPE_CHECKING:
    from ..model import Model

__all__ = ["RunWriter", "record"]

_CHOOSING = ("snip", "grasp")  # connections of before the choice are nobody's

# Models whose first epoch was stopped, and its number: they have trained, but the file that was there, which
# has been kept, is not theirs.
_nothing_yet: "weakref.WeakKeyDictionary[Model, int]" = weakref.WeakKeyDictionary()


def record(
    path: Path, *, images: Optional[ArrayLike] = None, most: int = 25, command: Optional[str] = None
) -> "RunWriter":
    """A callback that writes the record of a training to a file, for `read_run`, `mest.plot` and
    `mest report`: model.fit(x, y, callbacks=[mest.record("run.jsonl")]).

    images: (samples, height, width) or (samples, channels, height, width), a picture of each sample,
    mostly x itself: those of the `most` samples that were forgotten most often are kept, as a grid
    shows them.  Where training goes on in a model that has been resumed, or trained before, the
    file goes on, too; a new model begins it anew: what was there stays until the first epoch is complete,
    and where `fit` completes none, for good.  Until then the record is in path + ".tmp".
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
        self._model: Optional["Model"] = None  # while it is open
        self._beside: Optional[str] = None  # the file, where the one at path is still an earlier one
        self._outer: Optional[BaseException] = None  # that somebody handles while this trains
        self._moved: Dict[int, MutationReport] = {}  # by number, not yet written

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, _kind: object, error: Optional[BaseException], _traceback: object) -> None:
        if self._model is not None:  # nobody has said that it ended
            ended = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._replace()  # a loop has no other callbacks whose `begin` could refuse
            self._end(self._model, "done" if error is None else ended, error)

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
        layers = layers_of(model)
        goes_on = first > 0 and _nothing_yet.get(model) != model._epoch
        earlier = self._earlier(layers) if goes_on else None
        self._outer, self._beside = sys.exc_info()[1], None
        if earlier is None:
            self._open_anew()
            try:
                self._first = None if model.config.method in _CHOOSING else connections(model)
                self._write(beginning(model, layers, self.command), *self._first_connections())
            except BaseException:
                self._close()
                raise
        else:
            self._first = first_of(earlier)
            self._file = open(self.path, "r+b", buffering=0)
            self._file.truncate(sum(len(line) + 1 for line in earlier) - 1)  # no torn line
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"\n")
            self._write({"kind": "again", "epoch": first, "started": now()})
        self._model = model

    def mutation(self, model: "Model", report: MutationReport) -> None:
        self._moved[report.mutations] = report  # the same number again: its epoch is trained again
        if self._first is None and model.config.method in _CHOOSING:
            self._first = connections(model)
            self._write(*self._first_connections())

    def epoch(self, model: "Model", record: EpochRecord) -> None:
        self._replace()
        lines: List[Record] = []
        if record.epoch <= self._last:  # the model had returned to a good state
            lines.append({"kind": "again", "epoch": record.epoch, "started": now()})
        self._last = record.epoch
        lines.append(
            {"kind": "epoch", **dataclasses.asdict(record), "connections": model.connections()}
        )
        moved = [seen for seen in self._moved.values() if seen.epoch == record.epoch]
        self._moved.clear()
        if moved:
            lines.append(mutation(moved, self._survivors(model)))
        if model.config.samples:
            lines.append({"kind": "forgetting", "epoch": record.epoch, **forgetting(model)})
        self._write(*lines)

    def end(self, model: "Model", history: History, reason: str) -> None:
        error = sys.exc_info()[1] if reason in ("failed", "interrupted") else None
        self._end(model, reason, None if error is self._outer else error)

    def _end(self, model: "Model", reason: str, error: Optional[BaseException]) -> None:
        if self._file is None:
            return
        lines: List[Record] = []
        with suppress(MestError):  # of a model that was closed meanwhile, say
            lines.append(importance(model, model._epoch))
            if model.config.samples:
                lines.append(self._most_forgotten(model))
        message = "" if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
        seconds = time.perf_counter() - self._started
        end = {"kind": "end", "reason": reason, "seconds": seconds, "message": message}
        try:
            self._write(*lines, end)
        finally:
            if self._beside is not None and model._epoch >= 0:
                _nothing_yet[model] = model._epoch
            self._close()

    def _replace(self) -> None:
        """What was at path goes."""
        if self._beside is not None and self._file is not None:
            os.replace(self._beside, os.path.realpath(self.path))
            self._beside = None

    def _close(self) -> None:
        """A file that has no epoch does not replace an earlier one."""
        file, self._file, self._model, self._outer = self._file, None, None, None
        beside, self._beside = self._beside, None
        if file is not None:
            file.close()
        if beside is not None:
            with suppress(FileNotFoundError):
                os.unlink(beside)

    # --------------------------------------------------------------------------------- the file ---

    def _write(self, *records: Record) -> None:
        if self._file is None or not records:
            return
        text = "".join(json.dumps(plain(record), allow_nan=False) + "\n" for record in records)
        data = text.encode()
        if self._file.write(data) != len(data):  # what comes after would not be on a line of its own
            self._close()
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

    def _open_anew(self) -> None:
        """Opens the file, or one beside it where it has something."""
        _refuse_a_stranger(self.path)
        place = os.path.realpath(self.path)
        if os.path.isfile(place) and os.path.getsize(place):
            _refuse_a_stranger(place + ".tmp")
            self._beside = place + ".tmp"
        try:
            self._file = open(self._beside or self.path, "wb", buffering=0)
        except OSError as error:
            raise MestIOError(f"cannot write {self.path}: {error.strerror or error}") from error

    # ------------------------------------------------------------------------------ connections ---

    def _first_connections(self) -> List[Record]:
        """So that a training that is resumed still knows which were the first."""
        if not self._first:
            return []
        layers = [
            {"layer": index, "count": places.size, "places": packed(places)}
            for index, places in self._first.items()
        ]
        return [{"kind": "first_connections", "layers": layers}]

    def _survivors(self, model: "Model") -> Dict[int, Record]:
        found = {}
        for index, first in (self._first or {}).items():
            present = places_of(model, index)
            alive = int(np.isin(first, present, assume_unique=True).sum())
            found[index] = {"survivors": alive, "first": first.size}
        return found

    def _most_forgotten(self, model: "Model") -> Record:
        counts = model.forgetting().counts
        learned = np.where(counts == 255, 0, counts)  # 255: never learned
        ids = np.argsort(-learned.astype(np.int64), kind="stable")[: self.most]
        ids = ids[learned[ids] > 0]
        found: Record = {"kind": "most_forgotten", "ids": ids.tolist(), "counts": counts[ids].tolist()}
        if self.images is not None and ids.size:
            found["images"] = pictures(self.images[ids])
        return found


def _refuse_a_stranger(path: str) -> None:
    """A file that is about to be written anew has to be a record, not somebody's data."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        wanted = b'{"kind":"run"'
        start = file.readline(64).replace(b" ", b"")[: len(wanted)]
        if not wanted.startswith(start):
            raise MestArgumentError(f"{path} is there and no record of a training: name another file")
