# SPDX-License-Identifier: Apache-2.0
"""What the fields of run.jsonl's records have to be, so that those who draw and tell need not look."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Callable, Dict, NamedTuple, Sequence

import numpy as np

from ..errors import CorruptError
from ..training.history import EpochRecord

Record = Dict[str, Any]

# Of a plan: bytes and counts.
PLAN = (
    "weight_bytes index_bytes gradient_bytes state_bytes forgetting_bytes batch_bytes workspace_bytes "
    "table_bytes recovery_bytes total_bytes dense_bytes parameters active active_peak macs dense_macs threads"
).split()

_EPOCH_FIELDS = [known.name for known in fields(EpochRecord)]
_MOST = 2.0**63  # numbers of that size are none that somebody has counted
_LARGEST = 1e300  # of what was measured; a sum of some is finite


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _picture(value: Any) -> bool:
    """[height][width] or [channels][height][width]."""
    try:
        pixels = np.asarray(value, float)
    except (TypeError, ValueError, OverflowError):
        return False
    return pixels.ndim in (2, 3) and pixels.size > 0 and bool((abs(pixels) <= _LARGEST).all())


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


class Check(NamedTuple):
    """What a field has to be; of a list of objects, or of an object, also what their fields have to be."""

    fits: Callable[[Any], bool]
    wanted: str
    needed: Dict[str, Any] = {}
    optional: Dict[str, Any] = {}


_A_WHOLE = Check(_whole, "a whole number from 0")
_A_COUNT = Check(lambda value: _whole(value) and value > 0, "a whole number from 1")
_A_NUMBER = Check(_or_null(_number), "a number or null")
_A_WORD = Check(lambda value: isinstance(value, str), "a word")
_A_NAME = Check(_or_null(lambda value: isinstance(value, str)), "a word or null")
_A_SIZE = Check(_or_null(_whole), "a whole number from 0, or null")
_WHETHER = Check(lambda value: isinstance(value, bool), "true or false")
_NUMBERS = Check(_list_of(_number), "a list of numbers")
_COUNTS = Check(_list_of(_whole), "a list of whole numbers from 0")
_PICTURES = Check(_or_null(_list_of(_picture)), "a list of pictures, [height][width] or one for each channel")


def _object(optional: Dict[str, Check]) -> Check:
    return Check(lambda value: isinstance(value, dict), "an object", {}, optional)


def _table(needed: Dict[str, Check], optional: Dict[str, Check]) -> Check:
    return Check(_list_of(lambda item: isinstance(item, dict)), "a list of objects", needed, optional)


def _each(names: Sequence[str], check: Check) -> Dict[str, Check]:
    return dict.fromkeys(names, check)


_LAYERS = _table({}, {
    "index": _A_WHOLE, "sparse": _WHETHER, **_each(("name", "kind", "scheme"), _A_NAME),
    **_each(("channels", "height", "width", "rows", "columns", "active", "capacity"), _A_WHOLE),
    **_each(("bytes", "activation_bytes", "macs"), _A_SIZE),
})  # fmt: skip
_WITH_WEIGHTS = {"columns": _A_COUNT, "active": _A_WHOLE}  # what a layer with rows has
_MOVED = _table(
    _each(("layer", "dropped", "grown", "active"), _A_WHOLE),
    {"positions": _A_WHOLE, **_each(("density", "explored"), _A_NUMBER),
     **_each(("survivors", "first"), _A_SIZE)},
)  # fmt: skip
_CONFIG = {"density": _A_NUMBER, "method": _A_NAME, "scheme": _A_NAME, "samples": _A_SIZE}

# Fields that a record must have, by kind; of others those that are there are checked, below.
_NEEDED: Dict[str, Dict[str, Check]] = {
    "run": {"config": _object(_CONFIG), "layers": _LAYERS, "plan": _object(_each(PLAN, _A_SIZE))},
    "again": {"epoch": _A_WHOLE},
    "epoch": {"epoch": _A_WHOLE, "loss": _A_NUMBER},
    "mutation": {"epoch": _A_WHOLE, "layers": _MOVED},
    "forgetting": {"epoch": _A_WHOLE, "histogram": _COUNTS},
    "importance": {"layers": _table({"layer": _A_WHOLE, "edges": _NUMBERS, "counts": _NUMBERS}, {})},
    "most_forgotten": {"ids": _COUNTS, "counts": _COUNTS},
    "end": {"reason": _A_WORD},
}
_OPTIONAL: Dict[str, Dict[str, Check]] = {
    "run": _each(("mest", "libmest", "started", "machine", "command"), _A_NAME),
    "epoch": {
        **_each([name for name in _EPOCH_FIELDS if name not in ("epoch", "mutated")], _A_NUMBER),
        "mutated": _WHETHER,
        "connections": _COUNTS,
    },
    "mutation": _each(("dropped", "grown", "active", "positions", "density", "explored"), _A_NUMBER),
    "forgetting": {
        **_each(("samples", "seen", "learned", "never_learned", "unforgettable"), _A_WHOLE),
        **_each(("training", "phase", "events", "events_epoch"), _A_NUMBER),
    },
    "most_forgotten": {"images": _PICTURES},
    "end": {"seconds": _A_NUMBER, "message": _A_NAME},
}
_WITH_NAN = ("epoch", "mutation", "forgetting")  # where null is a number that was not measured


def checked(record: Record, where: str) -> Record:
    """The record, nan for null.  CorruptError that names the field."""
    kind = record["kind"]
    _check(record, where, f"a record of kind {kind!r}", "", _NEEDED[kind], _OPTIONAL.get(kind, {}))
    if kind in _TOGETHER:
        _TOGETHER[kind](record, where)
    if kind == "epoch":
        record = {**dict.fromkeys(_EPOCH_FIELDS), "mutated": False, **record}
    return _nan(record) if kind in _WITH_NAN else record


def _check(
    record: Record, where: str, what: str, before: str, needed: Dict[str, Check], optional: Dict[str, Check]
) -> None:
    """before: what stands before its fields' names: those of the objects that it is in."""
    for name, check in {**optional, **needed}.items():
        if name not in record:
            if name in needed:
                raise CorruptError(f"{where}: {what} has to have {name!r}")
            continue
        value, place = record[name], before + name
        if not check.fits(value):
            found = json.dumps(value)
            found = found if len(found) <= 40 else found[:37] + "..."
            raise CorruptError(f"{where}: {place!r} has to be {check.wanted}, not {found}")
        if isinstance(value, dict):
            _check(value, where, repr(place), place + ".", check.needed, check.optional)
        elif check.needed or check.optional:
            for number, item in enumerate(value):
                one = f"{place}[{number}]"
                _check(item, where, repr(one), one + ".", check.needed, check.optional)


# ------------------------------------------------------------------ fields that go together ---


def _run(record: Record, where: str) -> None:
    for number, layer in enumerate(record["layers"]):
        if layer.get("rows"):
            one = f"layers[{number}]"
            _check(layer, where, f"{one!r}, which has rows,", one + ".", _WITH_WEIGHTS, {})


def _mutation(record: Record, where: str) -> None:
    for number, layer in enumerate(record["layers"]):
        one = f"layers[{number}]"
        if layer.get("first"):
            _check(layer, where, f"{one!r}, which has first,", one + ".", {"survivors": _A_WHOLE}, {})


def _importance(record: Record, where: str) -> None:
    for number, layer in enumerate(record["layers"]):
        edges, counts = layer["edges"], layer["counts"]
        if len(edges) != len(counts) + 1:
            raise CorruptError(
                f"{where}: 'layers[{number}].edges' has to have one number more than 'counts', which has "
                f"{len(counts)}, not {len(edges)}"
            )


def _most_forgotten(record: Record, where: str) -> None:
    count = len(record["ids"]), len(record["counts"])
    if count[0] != count[1]:
        raise CorruptError(f"{where}: {count[0]} ids have {count[1]} counts")


_TOGETHER: Dict[str, Callable[[Record, str], None]] = {
    "run": _run, "mutation": _mutation, "importance": _importance, "most_forgotten": _most_forgotten,
}  # fmt: skip


def _nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_nan(item) for item in value]
    return float("nan") if value is None else value
