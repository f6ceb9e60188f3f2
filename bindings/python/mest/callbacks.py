# SPDX-License-Identifier: Apache-2.0
"""What looks on while `Model.fit` trains, `fit(callbacks=[...])`: `Callback`, and the usual ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Union

from .history import EpochRecord, History
from .reports import MutationReport, StepReport

if TYPE_CHECKING:
    from .model import Model


@dataclass(frozen=True)
class Training:
    """What one call of `fit` will do."""

    first: int  # epoch that it begins with; those before are done
    end: int  # epoch that it does not reach any more
    steps: Optional[int]  # batches an epoch; None: not known
    validation: bool  # records have validation_loss
    checkpoint: Optional[str]  # path, where fit resumes from it


class Callback:
    """Base class of objects that look on while `fit` trains.  Overwrite what is wanted; any other
    object with some of these methods will do, too, and so will a function of the EpochRecord.

        class Slower(mest.Callback):
            def epoch(self, model, record):
                return record.loss < 0.01  # True: stop

        model.fit(x, y, callbacks=[Slower(), print])

    In the order of the list: begin, then step by step and epoch by epoch, then end.  What a callback
    raises ends the training and reaches the caller of fit; the model stays usable, and every callback
    that has begun is told of the end.  `model` may be asked anything between its calls (predict,
    save, csr, ...), but not be trained.  `model.history` has the records so far.
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
