# SPDX-License-Identifier: Apache-2.0
"""The record of a training that `mest.record` has written, run.jsonl, read and checked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import List, Optional, Union

from ..errors import CorruptError, VersionError
from .fields import Record, checked

Path = Union[str, "os.PathLike[str]"]

FORMAT = 1


@dataclass
class Run:
    """A training as its file tells it; records are dicts with the names of the file, nan for null.

    run: how it began: "mest", "libmest", "started", "machine", "config", "layers", "plan".
    epochs: the fields of EpochRecord, and "connections" by layer.
    mutations: what moved, one an epoch in which something did, with "layers".
    forgetting: counts after each epoch, where config.samples is set.
    importance, most_forgotten, end: of the end; None when the file has none, as while training runs.
    """

    path: str
    run: Record
    epochs: List[Record] = field(default_factory=list)
    mutations: List[Record] = field(default_factory=list)
    forgetting: List[Record] = field(default_factory=list)
    importance: Optional[Record] = None
    most_forgotten: Optional[Record] = None
    end: Optional[Record] = None


def read_run(path: Path) -> Run:
    """Reads what `mest.record` has written, also while it is being written.

    A last line that is cut off is left out, unknown kinds of records and fields are ignored.  Of
    epochs that were trained again, after a resumption or a return to a good state, the last counts.
    Errors: CorruptError (a ValueError) naming line and field, VersionError (of a later mest), OSError.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        content = file.read()
    run: Optional[Run] = None
    for number, line in enumerate(whole_lines(content), 1):
        where = f"{name}, line {number}"
        record = parse(line, where)
        kind = record.get("kind")
        if run is None:
            run = Run(name, _first(record, where))
        elif kind == "again":
            _drop(run, checked(record, where)["epoch"])
        elif isinstance(kind, str) and kind in _PLACES:
            _place(run, kind, checked(record, where))
    if run is None:
        raise CorruptError(f"{name} has no record: a run begins with a line of kind 'run'")
    return run


def whole_lines(content: bytes) -> List[bytes]:
    """Lines that are complete; of one that was being written no part."""
    *lines, rest = content.split(b"\n")
    try:
        return [*lines, rest] if isinstance(json.loads(rest), dict) else lines
    except ValueError:
        return lines


def parse(line: bytes, where: str) -> Record:
    """The object of a line."""
    try:
        record = json.loads(line)
    except ValueError as error:  # UnicodeDecodeError, too
        raise CorruptError(f"{where} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise CorruptError(f"{where} is no JSON object, but {str(record)[:40]!r}")
    return record


def _first(record: Record, where: str) -> Record:
    if record.get("kind") != "run":
        raise CorruptError(f"{where}: kind is {record.get('kind')!r}, the first has to be 'run'")
    number = record.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise VersionError(f"{where}: format {number} is of a later mest; this one reads {FORMAT}")
    if number != FORMAT:
        raise CorruptError(f"{where}: format is {number!r}, not {FORMAT}")
    return checked(record, where)


# ------------------------------------------------------------------------------------- order ---

_PLACES = {
    "epoch": "epochs", "mutation": "mutations", "forgetting": "forgetting", "importance": "importance",
    "most_forgotten": "most_forgotten", "end": "end",
}  # fmt: skip


def _place(run: Run, kind: str, record: Record) -> None:
    if kind == "epoch":  # training has gone on
        run.end = None
    place = getattr(run, _PLACES[kind])
    if not isinstance(place, list):
        setattr(run, _PLACES[kind], record)
        return
    # Nearly always the next one; what is trained again comes in the place of what was there.
    while place and place[-1]["epoch"] >= record["epoch"]:
        place.pop()
    place.append(record)


def _drop(run: Run, epoch: int) -> None:
    """Epochs from this one on are trained again."""
    for place in (run.epochs, run.mutations, run.forgetting):
        while place and place[-1]["epoch"] >= epoch:
            place.pop()
    run.importance = run.most_forgotten = run.end = None
