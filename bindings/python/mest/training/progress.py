# SPDX-License-Identifier: Apache-2.0
"""The bar of an epoch that is being trained."""

from __future__ import annotations

import importlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, List, Optional, Tuple

_SECONDS = 0.1  # between two drawings, as tqdm's own; a step in between costs a look at the clock


class Bar:
    """A tqdm bar, when there is a terminal to see it and tqdm is installed; else nothing.

    with Bar(epoch, steps, shown) as bar: bar.step(loss, accuracy)
    """

    def __init__(self, epoch: int, steps: Optional[int], shown: bool) -> None:
        self._bar: Optional[Any] = None
        if not shown or sys.stderr is None or not sys.stderr.isatty():
            return
        try:
            with _ctrl_c_waits():
                self._bar = importlib.import_module("tqdm").tqdm(
                    total=steps, desc=f"epoch {epoch}", leave=False, unit="step", mininterval=0, miniters=1
                )
        except ImportError:
            return
        except BaseException:
            self._close()
            raise
        self._steps, self._drawn = 0, time.perf_counter()  # steps since it was drawn

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def step(self, loss: float, accuracy: float) -> None:
        """Of the epoch so far, means."""
        if self._bar is None:
            return
        self._steps += 1
        now = time.perf_counter()
        if now - self._drawn < _SECONDS:
            return
        line = f"loss {loss:.4f}"
        if not math.isnan(accuracy):
            line += f", accuracy {accuracy:.4f}"
        with _ctrl_c_waits():
            self._bar.set_postfix_str(line, refresh=False)
            self._bar.update(self._steps)
        self._steps, self._drawn = 0, now

    def _close(self) -> None:
        if self._bar is not None:
            with _ctrl_c_waits():
                self._bar.close()
                self._bar = None  # collected here


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """A handler of Ctrl-C that is written in Python runs behind the block.  Interrupted in the middle tqdm would leave
    half a bar, which complains when it is collected, or its lock closed; what is raised while Python collects is lost,
    and becomes another exception while it makes a class (Python 3.11).
    """
    handler = signal.getsignal(signal.SIGINT)
    arrived: List[Tuple[int, Any]] = []
    try:
        if callable(handler):
            signal.signal(signal.SIGINT, lambda *what: arrived.append(what))
    except ValueError:  # not the main thread, which alone hears it
        handler = None
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)
            for what in arrived:
                handler(*what)
