# SPDX-License-Identifier: Apache-2.0
"""The record of a training that `mest.record` has written, run.jsonl, read and checked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from ..errors import CorruptError, VersionError
from ..training.history import EpochRecord

Path = Union[str, "os.PathLike[str]"]
Record = Dict[str, Any]

FORMAT = 1

_EPOCH_FIELDS = [known.name for known in fields(EpochRecord)]


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
    Errors: CorruptError (a ValueError) naming the line, VersionError (of a later mest), OSError.
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
            _drop(run, _check(record, where)["epoch"])
        elif kind in _PLACES:
            _place(run, kind, _check(record, where))
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
    return _check(record, where)


# ------------------------------------------------------------------------------------ fields ---


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _mappings(value: Any) -> bool:
    return isinstance(value, list) and all(map(_mapping, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


Check = Tuple[Callable[[Any], bool], str]
_A_WHOLE: Check = _whole, "a whole number from 0"
_A_NUMBER: Check = _number, "a number or null"
_A_LIST: Check = _numbers, "a list of numbers"
_A_TABLE: Check = _mappings, "a list of objects"
_AN_OBJECT: Check = _mapping, "an object"

# Fields that a record must have, by kind; of others those that are there are checked, below.
_NEEDED: Dict[str, Dict[str, Check]] = {
    "run": {"config": _AN_OBJECT, "layers": _A_TABLE, "plan": _AN_OBJECT},
    "again": {"epoch": _A_WHOLE},
    "epoch": {"epoch": _A_WHOLE, "loss": _A_NUMBER},
    "mutation": {"epoch": _A_WHOLE, "layers": _A_TABLE},
    "forgetting": {"epoch": _A_WHOLE, "histogram": _A_LIST},
    "importance": {"layers": _A_TABLE},
    "most_forgotten": {"ids": _A_LIST, "counts": _A_LIST},
    "end": {"reason": (_text, "a word")},
}
_OPTIONAL: Dict[str, Dict[str, Check]] = {
    "epoch": {
        **{name: _A_NUMBER for name in _EPOCH_FIELDS if name not in ("epoch", "mutated")},
        "mutated": (lambda value: isinstance(value, bool), "true or false"),
        "connections": _A_LIST,
    },
    "mutation": {
        name: _A_NUMBER for name in ("dropped", "grown", "active", "positions", "density", "explored")
    },
    "forgetting": {
        name: _A_NUMBER
        for name in (
            "samples", "seen", "learned", "never_learned", "unforgettable", "training", "phase", "events",
            "events_epoch",
        )
    },
}  # fmt: skip
_WITH_NAN = ("epoch", "mutation", "forgetting")  # where null is a number that was not measured


def _check(record: Record, where: str) -> Record:
    kind = record["kind"]
    needed, optional = _NEEDED[kind], _OPTIONAL.get(kind, {})
    for name, (fits, wanted) in {**optional, **needed}.items():
        if name in needed and name not in record:
            raise CorruptError(f"{where}: a record of kind {kind!r} has to have {name!r}")
        if name in record and not fits(record[name]):
            found = json.dumps(record[name])
            found = found if len(found) <= 40 else found[:37] + "..."
            raise CorruptError(f"{where}: {name!r} has to be {wanted}, not {found}")
    if kind == "most_forgotten" and len(record["ids"]) != len(record["counts"]):
        count = len(record["ids"]), len(record["counts"])
        raise CorruptError(f"{where}: {count[0]} ids have {count[1]} counts")
    if kind == "epoch":
        record = {**dict.fromkeys(_EPOCH_FIELDS), "mutated": False, **record}
    return _nan(record) if kind in _WITH_NAN else record


def _nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_nan(item) for item in value]
    return float("nan") if value is None else value


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
