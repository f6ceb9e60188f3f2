# SPDX-License-Identifier: Apache-2.0
"""What mest train says when it ends, and whether what was trained is worth anything."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
from typing import List

import numpy as np

from ..errors import DivergedError
from ..model import Model
from ..plan import Plan
from ..plot.style import size
from ..training.history import EpochRecord
from . import _data
from ._output import print_json, say

# Times the loss of answering 0 always: no training that gets anywhere ends there.
EXPLODED = 10.0


def check(model: Model, data: _data.Data) -> None:
    """DivergedError where training ended with losses that are no result, though every step was finite."""
    if not model.history:
        return
    last = model.history[-1]
    losses = {"loss": last.loss}
    if data.x_test is not None:
        losses["validation loss"] = last.validation_loss
    for name, loss in losses.items():
        if not math.isfinite(loss) or (model.config.loss == "mse" and loss > EXPLODED * _usual(data)):
            raise DivergedError(
                f"{name} is {loss:.3g} after epoch {last.epoch}: training diverged. Take a lower "
                "--learning-rate, or --clip-norm 1; --standardise helps where features are large"
            )


def _usual(data: _data.Data) -> float:
    """The loss of answering 0 always, of one output the mean square; 1 at least, for targets near 0."""
    return max(1.0, float(np.mean(np.square(data.y, dtype=np.float64))))


def tell(
    model: Model, data: _data.Data, epochs: List[EpochRecord], seconds: float, stopped: bool,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """What came out.  epochs: those of this command; where all were done before, the last one is told."""
    plan, last = model.plan(), model.history[-1] if model.history else None
    done = not epochs and not stopped
    if options.json:
        print_json(
            {
                "network": options.network,
                "data": options.data,
                "epochs": len(epochs),
                "seconds": round(seconds, 3),
                "stopped": stopped,
                "last": None if last is None else dataclasses.asdict(last),
                "density": model.density(),
                "connections": sum(model.connections()),
                "parameters": plan.parameters,
                "model_bytes": plan.sparse_bytes,
                "dense_bytes": plan.dense_bytes,
                "total_bytes": plan.total_bytes,
                "classes": data.names,
                "record": options.record,
                "checkpoint": options.checkpoint,
                "out": options.out,
            }
        )
        return
    if not epochs:
        early = "stopped before the first epoch was complete"
        say("all epochs are done: nothing to train" if done else early)
    if last is not None:
        _quality(last, plan, "done" if not stopped else "stopped", "" if done else f", {seconds:.1f} s")
    if options.record is not None and epochs:
        print(f"record: {options.record} (mest report {shlex.quote(options.record)})")
    if options.checkpoint is not None and stopped:
        print("the same command goes on from the checkpoint")
    if options.out is not None and last is not None:
        print(f"weights: {options.out}")
    sys.stdout.flush()


def _quality(last: EpochRecord, plan: Plan, how: str, time: str) -> None:
    quality = f"loss {last.loss:.4g}"
    if not np.isnan(last.validation_accuracy):
        quality = f"validation accuracy {last.validation_accuracy:.2%}"
    elif not np.isnan(last.validation_loss):
        quality = f"validation loss {last.validation_loss:.4g}"
    print(
        f"{how} after epoch {last.epoch}{time}: {quality}; "
        f"{size(plan.sparse_bytes)} of weights, gradients, state and indices, dense {size(plan.dense_bytes)}"
    )
