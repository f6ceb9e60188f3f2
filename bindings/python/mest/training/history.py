# SPDX-License-Identifier: Apache-2.0
"""What `Model.fit` tells of a training: one record an epoch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, List

import numpy as np
from numpy.typing import NDArray

from .. import arrays


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.  nan: not measured (accuracy of "mse", validation without data)."""

    epoch: int
    loss: float  # mean over the samples, as trained: dropout, augmentation, before each update
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float  # of its first update
    density: float  # of the sparse layers
    mutated: bool
    dropped: int  # connections, at the beginning of this epoch and in its steps
    grown: int
    forgotten: int  # samples answered wrongly that were right before
    samples: int  # in the training set
    removed: int  # samples that left it at the beginning of this epoch
    absent: int  # samples that have left it, then or before
    frozen: int  # layers of the description, from the first on, that were frozen
    returned: int  # samples that came back to the training set at the beginning of this epoch
    seconds: float  # of training, without validation

    def __str__(self) -> str:
        line = f"epoch {self.epoch:>3}  loss {self.loss:.4f}"
        if not np.isnan(self.accuracy):
            line += f"  accuracy {self.accuracy:.4f}"
        if not np.isnan(self.validation_accuracy):
            line += f"  validation {self.validation_accuracy:.4f}"
        elif not np.isnan(self.validation_loss):
            line += f"  validation loss {self.validation_loss:.4f}"
        line += f"  lr {self.learning_rate:.2e}  density {self.density:.4f}"
        if self.mutated:
            line += f"  mutated -{self.dropped} +{self.grown}"
        if self.removed:
            back = f", {self.returned:,} came back" if self.returned else ""
            line += f"  samples {self.samples:,} ({self.removed:,} left the training set{back})"
        if self.frozen:
            line += f"  frozen {self.frozen}"
        return line + f"  {self.seconds:.2f} s"


@dataclass(frozen=True)
class Savings:
    """What training on fewer samples saved.  seconds: as if those that left had taken as long to
    present as the ones that stayed, epoch by epoch; epochs without samples tell nothing of that."""

    samples: int  # that had left in the end
    presentations: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.samples:,} samples left the training set: {self.presentations:,} presentations "
            f"and {self.seconds:.1f} s saved"
        )


class History(List[EpochRecord]):
    """Records of `fit`, one an epoch: history[-1].loss, history.column("density")."""

    def column(self, name: str) -> NDArray[Any]:
        """One field of all epochs as an array."""
        known = [field.name for field in fields(EpochRecord)]
        arrays.one_word("name", name, known)
        return np.array([getattr(record, name) for record in self])

    def to_dict(self) -> Dict[str, List[Any]]:
        """All fields as lists by name, an item an epoch: for JSON, or pandas.DataFrame(...)."""
        names = [field.name for field in fields(EpochRecord)]
        return {name: [getattr(record, name) for record in self] for name in names}

    def savings(self) -> "Savings":
        """What these epochs saved because samples had left the training set."""
        return Savings(
            samples=max((record.absent for record in self), default=0),
            presentations=sum(record.absent for record in self),
            seconds=sum(
                record.seconds * record.absent / record.samples for record in self if record.samples
            ),
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self))
