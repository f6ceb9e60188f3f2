# SPDX-License-Identifier: Apache-2.0
"""What a model tells about its work: the report structs of mest.h as small dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Tuple

import numpy as np
from numpy.typing import NDArray

from . import _abi


class _Events:
    events: int

    @property
    def epoch_began(self) -> bool:
        return bool(self.events & _abi.MEST_EVENT_EPOCH)

    @property
    def mutated(self) -> bool:
        """Connections moved: when the epoch began, with "rigl", "gse", "snip", "grasp" in a step."""
        return bool(self.events & _abi.MEST_EVENT_MUTATED)

    @property
    def removed(self) -> bool:
        """Samples left the training set: phase 2 begins."""
        return bool(self.events & _abi.MEST_EVENT_REMOVED)

    @property
    def sieved(self) -> bool:
        """Samples left the training set by sieving, others came back."""
        return bool(self.events & _abi.MEST_EVENT_SIEVED)


@dataclass(frozen=True)
class StepReport(_Events):
    """One training step."""

    update: int  # updates applied so far
    epoch: int
    step_in_epoch: int
    loss: float  # mean over the samples of this call
    learning_rate: float
    gradient_norm: float  # before clipping; 0 when no update was applied
    correct: int  # cross-entropy: samples whose largest output is their label
    count: int  # samples of this call
    frozen: int  # layers of the description, from the first on, that are frozen
    events: int

    @property
    def updated(self) -> bool:
        """Weights changed: False while micro-batches gather."""
        return bool(self.events & _abi.MEST_EVENT_UPDATED)


@dataclass(frozen=True)
class EpochReport(_Events):
    """The beginning of an epoch."""

    epoch: int
    steps: int  # updates this epoch will have; 0: unknown
    samples: int  # in the training set now
    dropped: int  # connections, all layers
    grown: int
    learning_rate: float
    frozen: int  # layers, from the first on
    left: int  # samples that left the training set now
    returned: int  # samples that came back to it
    events: int


@dataclass(frozen=True)
class LayerMutation:
    """What a mutation did to one sparse layer."""

    layer: int
    dropped: int
    grown: int
    active: int
    positions: int
    density: float
    explored: float


@dataclass(frozen=True)
class MutationReport:
    """What a mutation did.

    explored: share of positions that have ever been connected ("snip", "grasp": since they chose),
    as random growth lets expect it; of "rigl" and "gse" fewer have been than this says, since
    gradients bring back the same ones.
    """

    mutations: int  # so far
    epoch: int
    dropped: int
    grown: int
    active: int
    positions: int
    density: float
    explored: float
    layers: Tuple[LayerMutation, ...]


@dataclass(frozen=True)
class ForgettingReport:
    """Which samples were answered correctly and then wrongly at their next presentation.

    counts: (samples,) uint8, forgettings of each sample, 255 for seen and never correct, 0
    for those out of the training set.
    histogram: (64,) uint32, learned samples by count; the last bin is that or more.
    """

    samples: int
    seen: int
    learned: int
    never_learned: int
    unforgettable: int  # learned and never forgotten
    training: int  # still in the training set
    phase: int
    events: int
    events_epoch: int
    presentations: int  # samples of training steps, each as often as it was given
    presentations_saved: int  # of samples that had left, in the epochs begun since
    counts: NDArray[np.uint8]
    histogram: NDArray[np.uint32]

    def __str__(self) -> str:
        anew = self.training < self.samples  # since samples left, over those that stayed
        when = "phase 2: " if self.phase == 2 else "since the last sieving: " if anew else ""
        return (
            f"{when}{self.seen:,} of {self.training if anew else self.samples:,} samples seen: "
            f"{self.unforgettable:,} learned and "
            f"never forgotten, {self.learned - self.unforgettable:,} forgotten at least once "
            f"({self.events:,} times in all), {self.never_learned:,} never learned"
        )


@dataclass(frozen=True)
class Evaluation:
    """Loss (without label smoothing) and correct answers over `count` samples."""

    loss: float
    correct: int  # 0 for loss "mse"
    count: int
    ranked: bool = True  # outputs are classes: loss "cross_entropy"

    @property
    def accuracy(self) -> float:
        """Share of correct answers; nan for loss "mse" and for no samples."""
        return self.correct / self.count if self.ranked and self.count else float("nan")


@dataclass(frozen=True)
class Progress:
    """Where a running call is.  stage: "step", "mutate", "predict" or "evaluate"."""

    stage: str
    done: int
    total: int  # 0: unknown
    epoch: int
    loss: float


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was saved or loaded."""

    sequence: int  # its number: one more than that of the file it replaced
    bytes: int
    bytes_written: int  # by all saves of this training, resumed ones included
    updates: int  # applied so far
    epochs: int  # begun so far
    step_in_epoch: int  # updates applied in this epoch
    batches_in_epoch: int  # steps given in this epoch


class CSR(NamedTuple):
    """Weights of a sparse layer, compressed sparse rows of [outputs][inputs * kernel]:

        scipy.sparse.csr_matrix((csr.values, csr.indices, csr.indptr), shape)

    indptr: (rows + 1,) uint32; indices: (n,) uint16, ascending in a row; values: (n,) float32.
    """

    indptr: NDArray[np.uint32]
    indices: NDArray[np.uint16]
    values: NDArray[np.float32]
