# SPDX-License-Identifier: Apache-2.0
"""What looks on while `Model.fit` trains, `fit(callbacks=[...])`: `Callback`, and the usual ones."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Union

from ..errors import MestArgumentError
from ..reports import MutationReport, StepReport
from .history import EpochRecord, History
from .keeper import Interval, Path, place_of

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Training:
    """What one call of `fit` will do."""

    first: int  # epoch that it begins with; those before are done
    end: int  # epoch that it does not reach any more
    steps: Optional[int]  # batches an epoch; None: not known
    validation: bool  # records have validation_loss
    checkpoint: Optional[str]  # path of fit(checkpoint=...)
    progress: bool  # fit prints


class Callback:
    """Base class of objects that look on while `fit` trains.  Overwrite what is wanted; any other
    object with some of these methods will do, too, and so will a function of the EpochRecord.

        class GoodEnough(mest.Callback):
            def epoch(self, model, record):
                return record.loss < 0.01  # True: stop

        model.fit(x, y, callbacks=[GoodEnough(), print])

    In the order of the list: begin, then step by step and epoch by epoch, then end.  What a callback
    raises ends the training and reaches the caller of fit; the model stays usable, the others get the
    record of a complete epoch all the same, and all that have begun are told of the end.  `model` may
    be asked anything (predict, save, csr, ...), but not be trained.  `model.history` has the records so
    far.
    """

    training: Training  # set by fit before `begin`

    def begin(self, model: "Model") -> Optional[bool]:
        """Before the first epoch, all input is checked.  True: train nothing."""
        return None

    def mutation(self, model: "Model", report: MutationReport) -> None:
        """Connections have moved, as an epoch began or in a step."""

    def step(self, model: "Model", report: StepReport) -> Optional[bool]:
        """After each batch.  True: stop now; the epoch, which is not complete, gets no record."""
        return None

    def epoch(self, model: "Model", record: EpochRecord) -> Optional[bool]:
        """After each epoch and its validation.  True: stop."""
        return None

    def saving(self, model: "Model", path: str) -> None:
        """Before fit(checkpoint=path) saves: what this callback needs to be resumed goes into a file
        beside it, path + ".something"."""

    def end(self, model: "Model", history: History, reason: str) -> None:
        """After the last epoch.  reason: "done"; "stopped" by a callback; "interrupted" by Ctrl-C;
        "failed" with an exception, which is sys.exc_info()[1] here."""


AnyCallback = Union[Callback, Callable[[EpochRecord], Optional[bool]]]
To = Union[Callable[[str], Any], logging.Logger]


def _writer(to: To) -> Callable[[str], Any]:
    if isinstance(to, logging.Logger):
        return lambda line: to.info("%s", line)
    if not callable(to):
        raise TypeError(f"to={to!r}: a function of a line is wanted, print say, or a logging.Logger")
    return to


class LogEvaluation(Callback):
    """mest.log_evaluation(every=1, to=print): a line after every so many epochs, to a function of it or
    to a logging.Logger (as info).  fit(progress=False) leaves out those that fit prints itself."""

    def __init__(self, every: int = 1, to: To = print) -> None:
        if every < 1:
            raise MestArgumentError(f"every is {every}; use 1 on")
        self.every, self._to = every, _writer(to)

    def epoch(self, model: "Model", record: EpochRecord) -> None:
        if (record.epoch + 1) % self.every == 0:
            self._to(str(record))


class RecordEvaluation(Callback):
    """mest.record_evaluation(results): fills a dict of yours, results["validation_loss"][-1], with a list
    for each field of EpochRecord, an item an epoch.  What was in it is removed when training begins."""

    def __init__(self, results: Dict[str, List[Any]]) -> None:
        if not isinstance(results, dict):
            raise TypeError(f"record_evaluation({results!r}): a dict is wanted")
        self.results = results

    def begin(self, model: "Model") -> None:
        self.results.clear()
        self.results.update(model.history.to_dict())  # of the epochs of a training that was resumed

    def epoch(self, model: "Model", record: EpochRecord) -> None:
        epochs = self.results["epoch"]
        again = len(epochs)
        while again and epochs[again - 1] >= record.epoch:  # returned to a good state
            again -= 1
        for field in fields(EpochRecord):
            self.results[field.name][again:] = [getattr(record, field.name)]


class MutationLog(Callback):
    """mest.mutation_log(to=print, layers=False): a line whenever connections move; layers: one more for
    each sparse layer.  `reports` has the MutationReport of each, from the start of this fit.

    to: a function of a line, a logging.Logger, or None to keep the reports alone.
    """

    def __init__(self, to: Optional[To] = print, layers: bool = False) -> None:
        self._to, self.layers = None if to is None else _writer(to), layers
        self.reports: List[MutationReport] = []

    def begin(self, model: "Model") -> None:
        self.reports = []

    def mutation(self, model: "Model", report: MutationReport) -> None:
        while self.reports and self.reports[-1].mutations >= report.mutations:
            self.reports.pop()  # returned to a good state
        self.reports.append(report)
        if self._to is None:
            return
        self._to(
            f"epoch {report.epoch:>3}  mutation {report.mutations}: -{report.dropped:,} +{report.grown:,}, "
            f"{report.active:,} of {report.positions:,} connected ({report.density:.4f}), "
            f"{report.explored:.1%} explored"
        )
        for layer in report.layers if self.layers else ():
            name = model.plan().layers[layer.layer].name
            self._to(
                f"    {name:<12} -{layer.dropped:,} +{layer.grown:,}  density {layer.density:.4f}, "
                f"{layer.explored:.1%} explored"
            )


class CheckpointEvery(Callback):
    """mest.checkpoint_every(path, epochs=1, seconds=0): copies of the model, as Model.save writes them,
    after every `epochs`-th epoch, no sooner than `seconds` after the one before, and at the end.

    "{epoch}" in the path is the number of the epoch, "net-{epoch:03}.mest": all copies stay; else each
    replaces the one before.  These are for looking at, or going back; to go on where a process was
    stopped, fit(checkpoint=...), which keeps the history and resumes by itself.
    """

    def __init__(self, path: Path, epochs: int = 1, seconds: float = 0.0) -> None:
        self._interval = Interval(epochs, seconds, "epochs")
        self.path = os.fspath(path)
        self._place(0)

    def _place(self, epoch: int) -> str:
        name = self.path
        if "{epoch" in name:
            try:
                name = name.format(epoch=epoch)
            except (LookupError, ValueError) as error:
                raise MestArgumentError(
                    f'the path {self.path!r}: only "{{epoch}}" is replaced ({error!r})'
                ) from None
        return place_of(name, "checkpoint_every")

    def begin(self, model: "Model") -> None:
        self._saved = model._epoch
        if self._place(0) == self.training.checkpoint:
            raise MestArgumentError(
                f"{self.path} is fit's own checkpoint: leave checkpoint_every out, or give it another path"
            )

    def epoch(self, model: "Model", record: EpochRecord) -> None:
        if self._interval.due(record.epoch):
            self._save(model)

    def end(self, model: "Model", history: History, reason: str) -> None:
        if reason in ("done", "stopped") and history and self._saved != model._epoch:
            self._save(model)

    def _save(self, model: "Model") -> None:
        model.save(self._place(model._epoch))
        self._saved = model._epoch
        self._interval.done()


log_evaluation = LogEvaluation
record_evaluation = RecordEvaluation
mutation_log = MutationLog
checkpoint_every = CheckpointEvery
