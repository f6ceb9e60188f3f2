# SPDX-License-Identifier: Apache-2.0
"""Parts of `Learner`: what parameters mean, a validation set, early stopping, a start from weights."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DivergedError, MestArgumentError
from ..model import Model
from ..training.best import BestState
from ..training.history import EpochRecord

if TYPE_CHECKING:
    from .learner import Learner

_MOST_THREADS = 4  # that the library takes by itself


class Turn:
    """A lock that is pickled as a new one: threads that share an estimator take turns at its model."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Turn, ()


def whole(name: str, value: Any) -> int:
    """A parameter that counts something."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}: an integer from 1 on is wanted")
    return int(value)


def seed_of(random_state: Any) -> int:
    """Config.seed of scikit-learn's random_state: a number is the seed itself, a generator is asked,
    None is numpy's global one."""
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if random_state is None or random_state is np.random:
        return int(np.random.randint(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    raise ValueError(f"random_state={random_state!r}: None, an integer or a RandomState is wanted")


def threads_of(n_jobs: Any) -> int:
    """Config.threads of scikit-learn's n_jobs.  None: as many as the library would take, but no more
    than OMP_NUM_THREADS, by which joblib keeps its workers from taking all processors each."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        processors = os.cpu_count() or 1
    if n_jobs is None:
        asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        limit = int(asked) if asked.isdigit() and int(asked) else _MOST_THREADS
        return min(processors, limit, _MOST_THREADS)
    if not isinstance(n_jobs, (int, np.integer)) or n_jobs == 0:
        raise ValueError(f"n_jobs={n_jobs!r}: None, a number of threads, or -1 for all processors")
    return min(256, int(n_jobs) if n_jobs > 0 else max(1, processors + 1 + int(n_jobs)))


def split(
    count: int, fraction: float, labels: Optional[NDArray[Any]], seed: int
) -> Tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, both ascending; of each class about the same share."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction={fraction!r}: a number between 0 and 1 is wanted")
    held = max(1, round(fraction * count))
    if held >= count:
        raise ValueError(f"{count} samples are too few for validation_fraction={fraction}")
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    out = np.zeros(count, bool)
    out[order[((np.arange(held) + 0.5) * count / held).astype(np.int64)]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


@contextmanager
def as_before(estimator: Any) -> Iterator[None]:
    """A call that fails leaves no attribute of an estimator changed."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextmanager
def advice() -> Iterator[None]:
    """Says what mostly helps training that diverges."""
    try:
        yield
    except DivergedError as error:
        error.args = (
            f"{error}. Features of very different sizes want a StandardScaler before this in a Pipeline; "
            "else lower learning_rate, or set clip_norm",
        )
        raise


def inherit(model: Model, other: Model) -> None:
    """Begins with the connections, weights and statistics of another of the same shape."""

    def shape(one: Model) -> List[Tuple[Any, ...]]:
        return [(part.kind, part.rows, part.columns, part.sparse) for part in one.plan().layers]

    if shape(model) != shape(other):
        raise ValueError("warm_start: the network is not the one that was fitted; set warm_start=False")
    for index, part in enumerate(model.plan().layers):
        if part.sparse:
            model.set_csr(index, other.csr(index))
        elif part.rows:
            model.set_tensor(index, "weight", other.tensor(index, "weight"))
        for what in ("bias", "scale", "running_mean", "running_var"):
            with suppress(MestArgumentError):  # a layer without it
                values = other.tensor(index, what)
                model.set_tensor(index, what, values)


class Stopper:
    """The callback of Model.fit that ends a training which gets no better, and keeps its best state.

    Not before the network is as sparse as it was asked to be: EM&S and others have more connections
    until then, and that state may be the best one.
    """

    def __init__(
        self, learner: "Learner", model: Model, score: Callable[[EpochRecord], float]
    ) -> None:
        self.scores: List[float] = []
        self.best = -np.inf
        self._learner, self._model, self._score = learner, model, score
        self._sparse = [i for i, layer in enumerate(model.plan().layers) if layer.sparse]
        self._target = sum(model.plan().layers[i].active for i in self._sparse)
        self._counted: List[bool] = []  # by epoch: it was sparse enough
        self._kept = BestState(model)
        self._idle = 0

    def __call__(self, record: EpochRecord) -> bool:
        if record.epoch < len(self.scores):  # training has returned to a good state
            self._go_back(record.epoch)
        self._kept.begun(record.epoch)
        connections = self._model.connections()
        above = sum(connections[i] for i in self._sparse) > self._target
        counts = not above or record.epoch + 1 >= self._learner.epochs
        if self._is_best(self._score(record), counts):
            self._kept.keep(record.epoch, self._model.to_bytes())
        return counts and self._idle >= self._learner.n_iter_no_change

    def _go_back(self, epoch: int) -> None:
        before = list(zip(self.scores[:epoch], self._counted[:epoch]))
        self.scores, self._counted, self.best, self._idle = [], [], -np.inf, 0
        for score, counts in before:
            self._is_best(score, counts)
        self._kept.back(epoch)

    def _is_best(self, score: float, counts: bool) -> bool:
        first = not any(self._counted)
        self.scores.append(score)
        self._counted.append(counts)
        if not counts:
            return False
        self._idle = 0 if not score < self.best + self._learner.tol else self._idle + 1
        if not (first or score > self.best):
            return False
        self.best = score
        return True

    def restore(self) -> None:
        if self._kept.state is not None:
            self._model.load_bytes(self._kept.state)
