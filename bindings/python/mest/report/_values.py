# SPDX-License-Identifier: Apache-2.0
"""Values of a record as a page shows them; null and nan are nothing."""

from __future__ import annotations

import math
from typing import Any, Callable

from . import _svg
from ._page import figure

Run = Any  # mest.Run


def known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def number(value: Any, form: str = ".4f") -> str:
    return format(value, form) if known(value) else ""


def count(value: Any) -> str:
    return f"{value:,.0f}" if known(value) else ""


def percent(value: Any) -> str:
    return f"{100 * value:.2f} %" if known(value) else ""


def drawn(draw: Callable[[Any], Any], alt: str, caption: str, height: float = 2.8) -> str:
    """A figure, or nothing where the run has not what it shows, or nothing to draw with is installed."""
    if not _svg.available():
        return ""
    try:
        return figure(_svg.picture(draw, alt, height=height), caption)
    except ValueError:  # what plots say when a run lacks something
        return ""
