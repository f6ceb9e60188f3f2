# SPDX-License-Identifier: Apache-2.0
"""The bar of an epoch that is being trained."""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any, Optional


class Bar:
    """A tqdm bar, when there is a terminal to see it and tqdm is installed; else nothing.

    with Bar(epoch, steps, shown) as bar: bar.step(loss, accuracy)
    """

    def __init__(self, epoch: int, steps: Optional[int], shown: bool) -> None:
        self._bar: Optional[Any] = None
        if not shown or sys.stderr is None or not sys.stderr.isatty():
            return
        try:
            tqdm = importlib.import_module("tqdm").tqdm
        except ImportError:
            return
        self._bar = tqdm(total=steps, desc=f"epoch {epoch}", leave=False, unit="step")

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, loss: float, accuracy: float) -> None:
        """Of the epoch so far, means."""
        if self._bar is not None:
            line = f"loss {loss:.4f}"
            if not math.isnan(accuracy):
                line += f", accuracy {accuracy:.4f}"
            self._bar.set_postfix_str(line, refresh=False)
            self._bar.update()
