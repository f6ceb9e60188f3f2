# SPDX-License-Identifier: Apache-2.0
"""Early stopping: training ends when it has stopped to help, and the best epoch is what remains."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from .. import _files, arrays
from ..errors import MestArgumentError, MestError, StateError
from .callbacks import Callback
from .history import EpochRecord, History

if TYPE_CHECKING:
    from ..model import Model

_MONITORS = ("validation_accuracy", "validation_loss", "accuracy", "loss")


class EarlyStopping(Callback):
    """mest.early_stopping(patience): ends `fit` after so many epochs in which `monitor` was not better
    than ever before by more than `min_delta`, and brings the best epoch back.

    monitor: "validation_accuracy", "validation_loss", "accuracy" or "loss", of the EpochRecord.
    restore_best: at the end, also when all epochs were trained, the model is what it was after the
    best epoch, whole: weights, connections, momentum, forgetting counts, and the number of epochs
    done, so that another fit goes on from there.  The history keeps the epochs after it.  After
    Ctrl-C or an exception the model is left as it is; `restore(model)` does it then.  The best
    state takes at most Plan.checkpoint_bytes of memory; with fit(checkpoint=path) it is kept in
    path + ".best", too, which Model.load reads, and a training that is resumed, or run again when
    it has ended, ends as if it had never been stopped.

    best_epoch, best_value: so far, None before the first.  stopped: whether it was this callback that
    ended the training.
    """

    best_epoch: Optional[int] = None
    best_value: Optional[float] = None
    stopped = False

    def __init__(
        self,
        patience: int,
        min_delta: float = 0.0,
        monitor: str = "validation_accuracy",
        restore_best: bool = True,
    ) -> None:
        if patience < 1:
            raise MestArgumentError(f"patience is {patience}; use 1 on")
        if not min_delta >= 0:
            raise MestArgumentError(f"min_delta is {min_delta}; use 0 on")
        arrays.one_word("monitor", monitor, _MONITORS)
        self.patience, self.min_delta, self.monitor = patience, min_delta, monitor
        self.restore_best = restore_best
        self._state: Optional[bytes] = None
        self._waited = 0

    def begin(self, model: "Model") -> bool:
        if self.monitor.endswith("accuracy") and model.config.loss == "mse":
            raise MestArgumentError('loss "mse" has no accuracy: use monitor="validation_loss"')
        if self.monitor.startswith("validation") and not self.training.validation:
            raise MestArgumentError(
                f'monitor is "{self.monitor}": give fit validation=(x, y), or use monitor="loss"'
            )
        self.best_epoch = self.best_value = self._state = None
        self._waited, self.stopped, self._kept = 0, False, True
        for record in model.history:  # of a training that is resumed
            self._is_best(record)
        if self.restore_best and self.best_epoch is not None:
            self._state = self._find_best(model)
        self.stopped = self._waited >= self.patience
        return self.stopped

    def epoch(self, model: "Model", record: EpochRecord) -> bool:
        if self._is_best(record) and self.restore_best:
            self._state, self._kept = model.to_bytes(), False
        self.stopped = self._waited >= self.patience
        return self.stopped

    def _is_best(self, record: EpochRecord) -> bool:
        value, best = getattr(record, self.monitor), self.best_value
        gain = 0.0
        if best is not None:
            gain = value - best if self.monitor.endswith("accuracy") else best - value
        if not math.isnan(value) and (best is None or gain > self.min_delta):
            self.best_epoch, self.best_value, self._waited = record.epoch, value, 0
            return True
        self._waited += 1
        return False

    def saving(self, model: "Model", path: str) -> None:
        if self._state is not None and not self._kept:
            _files.replace(path + ".best", self._state)
            self._kept = True

    def _find_best(self, model: "Model") -> Optional[bytes]:
        """The best state of before the training was stopped, if the file has it."""
        data = b""
        with suppress(FileNotFoundError), open(f"{self.training.checkpoint}.best", "rb") as file:
            data = file.read()
        now = model.to_bytes()
        try:
            found = model.load_bytes(data, strict=False).epochs - 1
        except MestError:  # damaged, or of another training
            return None
        finally:
            model.load_bytes(now)
        return data if found == self.best_epoch else None

    def end(self, model: "Model", history: History, reason: str) -> None:
        if self.best_epoch is None or reason not in ("done", "stopped"):
            return
        if self.restore_best and self._state is None:
            arrays.warn_caller(
                f"the best epoch, {self.best_epoch}, was before this training was resumed and its state is "
                "gone: the model stays as it is"
            )
        elif self.restore_best:
            self.restore(model)
        if self.training.progress:
            left = "; the model is that of then" if self._restored(model) else ""
            why = f"no better for {self.patience} epochs: " if self.stopped else ""
            print(
                f"{why}{self.monitor} was best in epoch {self.best_epoch}: {self.best_value:.4f}{left}",
                flush=True,
            )

    def _restored(self, model: "Model") -> bool:
        return self.restore_best and model._epoch == self.best_epoch

    def restore(self, model: "Model") -> None:
        """Brings the best epoch back, as the end of a training does.  StateError: there is none."""
        if self._state is None:
            raise StateError("no best state is kept: none was trained, or it was restored already")
        model.load_bytes(self._state)
        self._state = None


early_stopping = EarlyStopping
