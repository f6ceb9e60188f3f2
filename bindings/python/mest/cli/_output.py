# SPDX-License-Identifier: Apache-2.0
"""What commands print: tables for people, JSON for machines, remarks on stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Iterable, List, Sequence


class Failure(Exception):
    """What a person did wrong, in one line that says what to change."""


def say(line: str) -> None:
    """A remark; not part of the output that a pipe gets."""
    print(line, file=sys.stderr, flush=True)


def passing(line: str) -> None:
    """A remark that the next one overwrites; nothing where nobody looks on."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns whose heading begins with ">" are aligned to the right."""
    lines: List[Sequence[str]] = [[name.lstrip(">") for name in header], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    right = [name.startswith(">") for name in header]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)).rstrip()
        for line in lines
    )


def print_json(value: Any) -> None:
    """nan, which JSON has not, is null."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
