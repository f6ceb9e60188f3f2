# SPDX-License-Identifier: Apache-2.0
"""Early stopping: training ends when it has stopped to help, and the best epoch is what remains."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, List, Optional

from .. import _files, arrays
from ..errors import MestArgumentError, StateError
from .best import BestState
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
    state takes at most Plan.checkpoint_bytes of memory, with config.recover_epochs twice that; with
    fit(checkpoint=path) it is kept in path + ".best", too, which Model.load reads, and a training that
    is resumed, or run again when it has ended, ends as if it had never been stopped; path +
    ".best.json" tells which epoch's state that is.  Where training returns to a good state, epochs
    that are trained again do not count.

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
        self._best: Optional[BestState] = None
        self._seen: List[EpochRecord] = []
        self._record: Optional[EpochRecord] = None  # of the best epoch
        self._waited = 0

    def begin(self, model: "Model") -> bool:
        if self.monitor.endswith("accuracy") and model.config.loss == "mse":
            raise MestArgumentError('loss "mse" has no accuracy: use monitor="validation_loss"')
        if self.monitor.startswith("validation") and not self.training.validation:
            raise MestArgumentError(
                f'monitor is "{self.monitor}": give fit validation=(x, y), or use monitor="loss"'
            )
        self.stopped, self._kept, self._best = False, True, BestState(model)
        self._count(list(model.history))  # of a training that is resumed
        found = self._find_best() if self.restore_best else None
        if found is not None and self.best_epoch is not None:
            self._best.keep(self.best_epoch, found)
        self.stopped = self._waited >= self.patience
        return self.stopped

    def epoch(self, model: "Model", record: EpochRecord) -> bool:
        assert self._best is not None
        self._go_back(record.epoch)
        self._best.begun(record.epoch)
        self._seen.append(record)
        if self._is_best(record) and self.restore_best:
            self._best.keep(record.epoch, model.to_bytes())
            self._kept = False
        self.stopped = self._waited >= self.patience
        return self.stopped

    def _go_back(self, epoch: int) -> None:
        """Training has returned to a good state if this epoch has been before."""
        if self._best is None or not self._seen or self._seen[-1].epoch < epoch:
            return
        self._count([record for record in self._seen if record.epoch < epoch])
        self._best.back(epoch)
        self._kept = False  # the file may have the state of an epoch that is void

    def _count(self, records: List[EpochRecord]) -> None:
        """Begins anew with these."""
        self._seen, self._record, self._waited = records, None, 0
        self.best_epoch = self.best_value = None
        for record in records:
            self._is_best(record)

    @property
    def _state(self) -> Optional[bytes]:
        return None if self._best is None else self._best.state

    def _is_best(self, record: EpochRecord) -> bool:
        value, best = getattr(record, self.monitor), self.best_value
        gain = 0.0
        if best is not None:
            gain = value - best if self.monitor.endswith("accuracy") else best - value
        if not math.isnan(value) and (best is None or gain > self.min_delta):
            self.best_epoch, self.best_value, self._waited = record.epoch, value, 0
            self._record = record
            return True
        self._waited += 1
        return False

    def saving(self, model: "Model", path: str) -> None:
        if self._state is not None and not self._kept:
            _files.replace(path + ".best", self._state)
            self._kept = True
            _files.replace(path + ".best.json", self._note(self._state).encode())

    def _note(self, state: bytes) -> str:
        """What tells that a file is this state of this training, not of an epoch of the same number that
        was void, or of another training.  Records have times, by which they differ."""
        record = None if self._record is None else asdict(self._record)
        return json.dumps({"sha256": hashlib.sha256(state).hexdigest(), "record": record}) + "\n"

    def _find_best(self) -> Optional[bytes]:
        """The best state of before the training was stopped, if the file has it."""
        path = f"{self.training.checkpoint}.best"
        with suppress(FileNotFoundError, UnicodeDecodeError), open(path, "rb") as file:
            with open(path + ".json", encoding="utf-8") as note:
                state = file.read()
                return state if note.read() == self._note(state) else None
        return None

    def end(self, model: "Model", history: History, reason: str) -> None:
        self._go_back(history[-1].epoch + 1 if history else 0)  # no epoch was complete since
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
        if self._best is not None:
            self._best.forget()


early_stopping = EarlyStopping
