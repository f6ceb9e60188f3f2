# SPDX-License-Identifier: Apache-2.0
"""The training loop behind `Model.fit`: epochs, steps, callbacks, a history."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple

from numpy.typing import ArrayLike, NDArray

from .. import arrays
from ..errors import DivergedError, MestArgumentError, MestError
from ..reports import Evaluation
from . import iterables
from .batches import Augment, Floats, Source, source
from .callbacks import AnyCallback, Training
from .history import EpochRecord, History
from .hooks import Hooks
from .keeper import Keeper
from .progress import Bar

if TYPE_CHECKING:
    from ..model import Model

__all__ = ["fit"]


def fit(
    model: "Model",
    x: Any,
    y: Optional[ArrayLike],
    epochs: Optional[int],
    validation: Any,
    augment: Optional[Augment],
    shuffle: bool,
    progress: bool,
    callbacks: Sequence[AnyCallback],
    keeper: Optional[Keeper] = None,
) -> History:
    """See Model.fit."""
    if epochs is not None and epochs < 0:
        raise MestArgumentError(f"epochs is {epochs}; use 0 on")
    if isinstance(y, int):
        raise MestArgumentError(f"y is {y}: fit(batches, epochs={y}) names the number of epochs")
    hooks = Hooks(model, callbacks)
    data = source(model, x, y, augment, shuffle)
    history = History() if keeper is None else keeper.resume()
    epochs = _epochs_to_train(model, epochs, keeper is not None and keeper.resumed)
    steps = data.check(epochs)
    checked = None if validation is None else _Validation(model, validation, epochs)
    first = model._epoch + 1
    path = None if keeper is None else keeper.path
    training = Training(first, first + epochs, steps, checked is not None, path, progress)
    model.history = history
    try:
        stops = hooks.begin(training)
        loop = _Loop(model, data, checked, hooks, progress)
        reason = "stopped" if stops else loop.run(history, training, keeper)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        hooks.end_failed(history, "interrupted" if interrupted else "failed")
        raise
    hooks.end(history, reason)
    return history


def _epochs_to_train(model: "Model", epochs: Optional[int], resumed: bool) -> int:
    done = model._epoch + 1
    if epochs is not None:
        return max(0, epochs - done if resumed else epochs)
    if model.config.epochs is None:
        raise ValueError("epochs is not given, neither here nor in the config")
    if done >= model.config.epochs and not resumed:
        arrays.warn_caller(
            f"{done} of {model.config.epochs} epochs are done; pass epochs= to train on"
        )
    return max(0, model.config.epochs - done)


class _Validation:
    """What is evaluated after each epoch.  Arrays are looked at before the first one, and converted
    once."""

    def __init__(self, model: "Model", given: Any, epochs: int) -> None:
        self.model, self.batches = model, given
        self.arrays: Optional[Tuple[Floats, NDArray[Any]]] = None
        if iterables.is_pair(given):
            x = model._samples(given[0], "the validation array x")
            arrays.finite(x, "the validation array x")
            y = model._answers(given[1], len(x), whole=True, what="the validation array y")
            self.arrays = x, y
            return
        iterables.passes(given, "the validation batches")
        if isinstance(given, Iterator) and epochs > 1:
            raise MestArgumentError(
                "the validation batches are an iterator, which can be gone through once: pass a list, a "
                "DataLoader, or a function that makes a new iterator"
            )

    def evaluate(self, epoch: int) -> Evaluation:
        if self.arrays is not None:
            return self.model.evaluate(*self.arrays)
        return iterables.evaluate(self.model, self.batches, "validation batch", epoch)


class _Loop:
    """Trains epoch by epoch."""

    def __init__(
        self, model: "Model", data: Source, validation: Optional[_Validation], hooks: Hooks, progress: bool
    ) -> None:
        self.model, self.data, self.validation = model, data, validation
        self.hooks, self.progress = hooks, progress

    def run(self, history: History, training: Training, keeper: Optional[Keeper]) -> str:
        """The epochs that are wanted; why it ended."""
        model, last = self.model, training.end - 1
        while model._epoch < last:
            try:
                record = self._epoch()
            except DivergedError as error:
                if error.returned_to is None:
                    raise
                arrays.warn_caller(str(error))
                history[:] = [kept for kept in history if kept.epoch <= model._epoch]
                continue
            if record is None:
                return "stopped"
            line = [partial(print, record, flush=True)] if self.progress else []
            stops = self.hooks.epoch(record, [partial(history.append, record), *line])
            if keeper is not None:
                keeper.keep(history, stops or model._epoch == last, self.hooks.saving)
            if stops:
                return "stopped"
        return "done"

    def _epoch(self) -> Optional[EpochRecord]:
        """One epoch; None: stopped before its end."""
        model, hooks = self.model, self.hooks
        start = time.perf_counter()
        self.data.open(model._epoch + 1)
        begun = model.begin_epoch()
        if begun.mutated:
            hooks.mutation()
        feed = self.data.epoch(begun)
        ranked = model.config.loss != "mse"
        loss, correct, count = 0.0, 0, 0
        dropped, grown = begun.dropped, begun.grown
        gathered: Optional[Tuple[Any, Any]] = None  # a sample of an update that is not complete
        try:
            with Bar(begun.epoch, feed.steps, self.progress) as bar:
                for x, y, ids in feed.batches:
                    gathered = x[:1], y[:1]
                    report = self._step(x, y, ids)
                    if report.updated:
                        gathered = None
                    loss += report.loss * report.count
                    correct += report.correct
                    count += report.count
                    bar.step(loss / count, correct / count if ranked else float("nan"))
                    if report.mutated:  # by this step: what the epoch began with is in its own report
                        moved = hooks.mutation()
                        dropped, grown = dropped + moved.dropped, grown + moved.grown
                    if hooks.step(report):
                        self._drop(gathered)
                        return None
        except BaseException as error:
            if not isinstance(error, DivergedError):  # which has dropped them
                self._drop(gathered)
            raise
        seconds = time.perf_counter() - start
        nan = float("nan")
        evaluation = self.validation.evaluate(begun.epoch) if self.validation else None
        return EpochRecord(
            epoch=begun.epoch,
            loss=loss / max(count, 1),
            accuracy=correct / max(count, 1) if ranked else nan,
            validation_loss=evaluation.loss if evaluation else nan,
            validation_accuracy=evaluation.accuracy if evaluation else nan,
            learning_rate=begun.learning_rate,
            density=model.density(),
            mutated=dropped > 0 or grown > 0,
            dropped=dropped,
            grown=grown,
            forgotten=model.forgetting().events_epoch if self.data.counted else 0,
            samples=count if feed.samples is None else feed.samples,
            removed=begun.left,
            absent=feed.absent,
            frozen=begun.frozen,
            returned=begun.returned,
            seconds=seconds,
        )

    def _step(self, x: Floats, y: NDArray[Any], ids: Any) -> Any:
        try:
            return self.model.step(x, y, ids)
        except MestArgumentError as error:
            error.args = (self.data.name + str(error),)
            raise

    def _drop(self, gathered: Optional[Tuple[Any, Any]]) -> None:
        """Drops an update whose micro-batches are not complete: it would keep connections from being
        set, and be applied when the next epoch begins."""
        if gathered is None or self.model.config.micro_batches == 1:
            return
        try:
            self._drop_step(*gathered)
        except KeyboardInterrupt:  # one more; no step must be left in work
            self._drop_step(*gathered)
            raise

    def _drop_step(self, x: Any, y: Any) -> None:
        with suppress(MestError):  # a step that is cancelled in the middle drops what was gathered
            self.model.step_slice(x, y, quantum=1)
            self.model.cancel()
            self.model.step_slice(x, y)
