# SPDX-License-Identifier: Apache-2.0
"""The file behind `fit(checkpoint=...)`: saved after epochs, resumed from."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Callable, Union

from .. import _files
from ..errors import CorruptError, MestArgumentError
from .history import EpochRecord, History

if TYPE_CHECKING:
    from ..model import Model

Path = Union[str, "os.PathLike[str]"]


class Interval:
    """After every so many epochs, but not sooner than some seconds after the time before."""

    def __init__(self, epochs: int, seconds: float, what: str) -> None:
        if epochs < 1:
            raise MestArgumentError(f"{what} is {epochs}; use 1 on")
        self.epochs, self.seconds = epochs, seconds
        self.done()

    def due(self, epoch: int) -> bool:
        return (epoch + 1) % self.epochs == 0 and time.monotonic() - self._last >= self.seconds

    def done(self) -> None:
        self._last = time.monotonic()


def place_of(path: Path, what: str) -> str:
    """The absolute path, said before an epoch is trained if there can be no such file."""
    place = os.path.abspath(os.fspath(path))
    if not os.path.isdir(os.path.dirname(place)):
        raise MestArgumentError(f"{what} {os.fspath(path)!r}: there is no such folder")
    return place


class Keeper:
    """Saves a training in a file after epochs, and resumes it."""

    def __init__(self, model: "Model", path: Path, every: int, seconds: float) -> None:
        self._interval = Interval(every, seconds, "checkpoint_every")
        self.model, self.path = model, place_of(path, "checkpoint")
        self.resumed = False

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
            raise MestArgumentError(f"{error}. To begin anew, delete it or name another file") from error
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

    def keep(self, history: History, last: bool, saving: Callable[[str], None]) -> None:
        """Saves when it is time, or `last`.  saving(path): before."""
        if not (last or self._interval.due(history[-1].epoch)):
            return
        saving(self.path)
        # The records first: those of epochs that the checkpoint has not are left out when resuming.
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in history)
        _files.replace(self._records, lines.encode())
        self.model.save(self.path)
        self._interval.done()
