# SPDX-License-Identifier: Apache-2.0
"""The training loop behind `Model.fit`: epochs, batches, a line of progress, a history."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Callable, Iterable, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arrays
from .errors import CorruptError, DivergedError, MestArgumentError, MestError
from .history import EpochRecord, History
from .reports import EpochReport

if TYPE_CHECKING:
    from .model import Model

Floats = NDArray[np.float32]
Augment = Callable[[Floats, "np.random.Generator"], Floats]
Ids = NDArray[np.uint32]


def fit(
    model: "Model",
    x: ArrayLike,
    y: ArrayLike,
    epochs: Optional[int],
    validation: Optional[Tuple[ArrayLike, ArrayLike]],
    augment: Optional[Augment],
    shuffle: bool,
    progress: bool,
    callback: Optional[Callable[[EpochRecord], Optional[bool]]],
    keeper: Optional["Keeper"] = None,
) -> History:
    """See Model.fit."""
    if epochs is not None and epochs < 0:
        raise MestArgumentError(f"epochs is {epochs}; use 0 on")
    data = _Data(model, x, y, augment, shuffle)
    history = History() if keeper is None else keeper.resume()
    resumed = model._epoch + 1 if keeper is not None and keeper.resumed else 0
    if epochs is not None:
        epochs -= resumed
    else:
        if model.config.epochs is None:
            raise ValueError("epochs is not given, neither here nor in the config")
        done = model._epoch + 1
        epochs = model.config.epochs - done
        if epochs <= 0 and not resumed:
            arrays.warn_caller(
                f"{done} of {model.config.epochs} epochs are done; pass epochs= to train on"
            )
    if validation is not None:  # looked at before the first epoch, converted once
        seen = model._samples(validation[0], "the validation array x")
        arrays.finite(seen, "the validation array x")
        known = model._answers(validation[1], len(seen), whole=True, what="the validation array y")
        validation = seen, known
    last = model._epoch + epochs
    while model._epoch < last:
        try:
            record = _train_epoch(model, data, validation, progress)
        except DivergedError as error:
            if error.returned_to is None:
                raise
            arrays.warn_caller(str(error))
            history[:] = [kept for kept in history if kept.epoch <= model._epoch]
            continue
        history.append(record)
        if progress:
            print(record, flush=True)
        stops = callback is not None and bool(callback(record))
        if keeper is not None:
            keeper.keep(history, last=stops or model._epoch == last)
        if stops:
            break
    return history


class Keeper:
    """Saves a training in a file after epochs, and resumes it."""

    def __init__(
        self, model: "Model", path: Union[str, "os.PathLike[str]"], every: int, seconds: float
    ) -> None:
        if every < 1:
            raise MestArgumentError(f"checkpoint_every is {every}; use 1 on")
        self.model, self.every, self.seconds = model, every, seconds
        self.path = os.path.abspath(path)
        if not os.path.isdir(os.path.dirname(self.path)):  # said before an epoch is trained
            raise MestArgumentError(f"checkpoint {path!r}: there is no such folder")
        self.resumed = False
        self._saved = time.monotonic()

    @property
    def _records(self) -> str:
        return self.path + ".history"

    def resume(self) -> History:
        """Loads the file into a model that is new; what the epochs in it were like."""
        history = History()
        if self.model._epoch >= 0 or not os.path.exists(self.path):
            return history
        try:
            self.model.load(self.path)
        except MestArgumentError as error:  # of another model
            raise MestArgumentError(
                f"{self.path}: {error}. To begin anew, delete it or name another file"
            ) from error
        self.resumed = True
        try:
            with suppress(FileNotFoundError), open(self._records, encoding="utf-8") as lines:
                records = [EpochRecord(**json.loads(line)) for line in lines]
                history.extend(record for record in records if record.epoch <= self.model._epoch)
        except (TypeError, ValueError) as error:
            raise CorruptError(
                f"{self._records} has a line that is no EpochRecord ({error}); delete it to resume "
                "without the records of earlier epochs"
            ) from error
        return history

    def keep(self, history: History, last: bool) -> None:
        now = time.monotonic()
        due = (history[-1].epoch + 1) % self.every == 0 and now - self._saved >= self.seconds
        if not (due or last):
            return
        # The records first: those of epochs that the checkpoint has not are left out when resuming.
        temporary = self._records + ".tmp"
        with open(temporary, "w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(asdict(record)) + "\n" for record in history)
        os.replace(temporary, self._records)
        self.model.save(self.path)
        self._saved = now


class _Data:
    """The training set, checked once; batches of an epoch."""

    def __init__(
        self,
        model: "Model",
        x: ArrayLike,
        y: ArrayLike,
        augment: Optional[Augment],
        shuffle: bool,
    ) -> None:
        config = model.config
        self.x = model._samples(x, "the training array x")
        count = len(self.x)
        if count == 0:
            raise MestArgumentError("x holds no samples: there is nothing to train on")
        self.y = model._answers(y, count, whole=True)
        arrays.finite(self.x, "x")
        if config.samples not in (None, count):
            raise MestArgumentError(f"x has {count} samples, Config.samples is {config.samples}")
        self.counted = config.samples is not None
        self.seed, self.batch, self.micro = config.seed, config.batch, config.micro_batches
        self.augment, self.shuffle = augment, shuffle

    def generator(self, epoch: int) -> np.random.Generator:
        """Depends on (seed, epoch) alone: an epoch can be repeated without those before it."""
        return np.random.default_rng([self.seed, epoch])

    def batches(self, order: Ids, updates: int) -> List[Ids]:
        """Cuts an epoch's order into batches; updates: how many the epoch has, 0 for all.

        The last batch may be smaller.  Where micro-batches gather, an unfinished update would be
        lost, so there all batches have nearly equal sizes and their number is a whole multiple.
        """
        if self.micro == 1:
            parts = [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
        else:
            count = -(-len(order) // (self.batch * self.micro)) * self.micro
            if count > len(order):
                raise ValueError(f"{len(order)} samples are too few for {self.micro} micro-batches")
            parts = list(np.array_split(order, count)) if count else []
        return parts[: updates * self.micro] if updates else parts

    def take(self, rows: Ids, rng: np.random.Generator) -> Tuple[Floats, NDArray[Any]]:
        batch = self.x[rows]
        if self.augment is not None:
            batch = np.require(self.augment(batch, rng), np.float32, ["C"])
        return batch, self.y[rows]


def _train_epoch(
    model: "Model",
    data: _Data,
    validation: Optional[Tuple[ArrayLike, ArrayLike]],
    progress: bool,
) -> EpochRecord:
    start = time.perf_counter()
    begun = model.begin_epoch()
    rng = data.generator(begun.epoch)
    order = model.select() if data.counted else np.arange(len(data.x), dtype=np.uint32)
    if data.shuffle:
        rng.shuffle(order)
    loss, correct, count = 0.0, 0, 0
    dropped, grown = begun.dropped, begun.grown
    try:
        for rows in _bar(data.batches(order, begun.steps), begun, progress):
            x, y = data.take(rows, rng)
            report = model.step(x, y, rows if data.counted else None)
            loss += report.loss * report.count
            correct += report.correct
            count += report.count
            if report.mutated:  # by this step: what the epoch began with is in its own report
                moved = model.mutation()
                dropped, grown = dropped + moved.dropped, grown + moved.grown
    except BaseException as error:
        if data.micro > 1 and not isinstance(error, DivergedError):  # which has dropped them
            _drop_gathered(model, data)
        raise
    seconds = time.perf_counter() - start
    nan = float("nan")
    ranked = model.config.loss != "mse"
    evaluation = None if validation is None else model.evaluate(*validation)
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
        forgotten=model.forgetting().events_epoch if data.counted else 0,
        samples=len(order),
        removed=begun.left,
        absent=len(data.x) - len(order),
        frozen=begun.frozen,
        returned=begun.returned,
        seconds=seconds,
    )


def _drop_gathered(model: "Model", data: _Data) -> None:
    # Gradients of an unfinished update would keep the next epoch from beginning; the library drops
    # them when a step fails, and a cancelled step is one that surely does.
    with suppress(MestError):
        model.cancel()
        model.step(data.x[:1], data.y[:1])


def _bar(batches: List[Ids], begun: EpochReport, progress: bool) -> Iterable[Ids]:
    """The batches behind a tqdm bar, when there is somebody to see it."""
    if progress and sys.stderr.isatty():
        with suppress(ImportError):
            tqdm = importlib.import_module("tqdm").tqdm
            bar: Iterable[Ids] = tqdm(batches, f"epoch {begun.epoch}", leave=False, unit="step")
            return bar
    return batches
