# SPDX-License-Identifier: Apache-2.0
"""What `fit` trains on: arrays, cut into batches here, or any iterable of batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import arrays
from ..errors import MestArgumentError
from ..reports import EpochReport
from .iterables import is_array, length, passes, triple

if TYPE_CHECKING:
    from ..model import Model

Floats = NDArray[np.float32]
Augment = Callable[[Floats, "np.random.Generator"], Floats]
Ids = NDArray[np.uint32]
Batch = Tuple[Floats, NDArray[Any], Optional[Ids]]


class Feed(NamedTuple):
    """The batches of one epoch."""

    batches: Iterable[Batch]
    steps: Optional[int]  # how many; None: not known
    samples: Optional[int]  # in the training set; None: as many as come
    absent: int  # samples that have left it


class ArraySource:
    """The training set as arrays, checked once."""

    def __init__(
        self,
        model: "Model",
        x: ArrayLike,
        y: ArrayLike,
        augment: Optional[Augment],
        shuffle: bool,
    ) -> None:
        config = model.config
        self.model = model
        self.x = model._samples(x, "the training array x")
        count = len(self.x)
        if count == 0:
            raise MestArgumentError("x holds no samples: there is nothing to train on")
        self.y = model._answers(y, count, whole=True)
        arrays.finite(self.x, "x")
        if config.samples not in (None, count):
            raise MestArgumentError(f"x has {count} samples, Config.samples is {config.samples}")
        self.counted = config.samples is not None
        self.augment, self.shuffle = augment, shuffle
        self.name = ""  # of a batch in messages: samples are named in x and y

    def check(self, epochs: int) -> Optional[int]:
        """How many batches an epoch has, as far as it is known; nothing here cannot be repeated."""
        return len(self._cut(np.arange(len(self.x), dtype=np.uint32), self._updates()))

    def open(self, epoch: int) -> None:
        """Before an epoch begins: arrays are there."""

    def _updates(self) -> int:
        return self.model.config.steps_per_epoch or 0

    def _cut(self, order: Ids, updates: int) -> List[Ids]:
        """Cuts an epoch's order into batches; updates: how many the epoch has, 0 for all.

        The last batch may be smaller.  Where micro-batches gather, an unfinished update would be
        lost, so there all batches have nearly equal sizes and their number is a whole multiple.
        """
        batch, micro = self.model.config.batch, self.model.config.micro_batches
        if micro == 1:
            parts = [order[i : i + batch] for i in range(0, len(order), batch)]
        else:
            count = -(-len(order) // (batch * micro)) * micro
            if count > len(order):
                raise ValueError(f"{len(order)} samples are too few for {micro} micro-batches")
            parts = list(np.array_split(order, count)) if count else []
        return parts[: updates * micro] if updates else parts

    def epoch(self, begun: EpochReport) -> Feed:
        rng = generator(self.model, begun.epoch)
        count = len(self.x)
        order = self.model.select() if self.counted else np.arange(count, dtype=np.uint32)
        if self.shuffle:
            rng.shuffle(order)
        parts = self._cut(order, begun.steps)
        return Feed(self._take(parts, rng), len(parts), len(order), count - len(order))

    def _take(self, parts: List[Ids], rng: np.random.Generator) -> Iterator[Batch]:
        for rows in parts:
            batch = _augmented(self.x[rows], self.augment, rng)
            yield batch, self.y[rows], rows if self.counted else None


class BatchSource:
    """Any iterable of (x, y) or (x, y, ids), gone through once an epoch."""

    def __init__(self, model: "Model", batches: Any, augment: Optional[Augment]) -> None:
        self.model, self.augment = model, augment
        self.make = passes(batches, "the batches")
        self.once = isinstance(batches, Iterator)
        self.length = length(batches)
        self.counted = model.config.samples is not None
        self._pass: Optional[Iterator[Any]] = None
        self._taken = 0  # batches of this epoch
        self._told = False  # that they are not as many as was expected

    @property
    def name(self) -> str:
        return f"batch {self._taken - 1}: "

    def _limit(self) -> Optional[int]:
        """Batches an epoch, where the config says it: more belong to the next one."""
        config = self.model.config
        return config.steps_per_epoch * config.micro_batches if config.steps_per_epoch else None

    def check(self, epochs: int) -> Optional[int]:
        """How many batches an epoch has, as far as it is known.  MestArgumentError where the epochs
        cannot be had, or schedules expect others."""
        config, plan, limit = self.model.config, self.model.plan(), self._limit()
        if self.once:
            if epochs > 1 and limit is None:
                raise MestArgumentError(
                    f"{epochs} epochs are wanted, and the batches are an iterator, which gives one: pass a "
                    "list, a DataLoader, or a function that makes a new iterator for each epoch; or set "
                    "steps_per_epoch to take so many updates of it for each"
                )
            return limit
        if self.length is None:
            return limit
        updates = -(-self.length // config.micro_batches)
        if limit is not None and self.length < limit:
            raise MestArgumentError(
                f"Config.steps_per_epoch is {config.steps_per_epoch}, but the batches of an epoch are "
                f"{self.length}, {updates} updates: set steps_per_epoch={updates}"
            )
        if limit is None and self._counts_updates and updates != plan.steps_per_epoch:
            raise MestArgumentError(self._other_number(self.length))
        return self.length if limit is None else limit

    @property
    def _counts_updates(self) -> bool:
        """What is done when depends on how many updates an epoch has."""
        config = self.model.config
        return config.schedule_by_update or config.method in ("rigl", "gse")

    def _other_number(self, batches: int) -> str:
        config = self.model.config
        updates = -(-batches // config.micro_batches)
        why = "schedule_by_update" if config.schedule_by_update else f"method {config.method!r}"
        source = "steps_per_epoch says" if config.steps_per_epoch else "samples and batch make"
        return (
            f"the batches of an epoch are {batches}, {updates} updates; {why} expects the "
            f"{self.model.plan().steps_per_epoch} that {source}: set steps_per_epoch={updates}"
        )

    def _look_at_the_number(self) -> None:
        """After an epoch of batches that could not be counted before."""
        updates = -(-self._taken // self.model.config.micro_batches)
        unknown = self.length is None and self._counts_updates and not self._told
        if unknown and updates != self.model.plan().steps_per_epoch:
            self._told = True
            arrays.warn_caller(self._other_number(self._taken))

    def open(self, epoch: int) -> None:
        """Fetches the first batch: an epoch that has none does not begin."""
        self._taken = 0
        if self._pass is None or not self.once:
            self._pass = iter(self.make(epoch))
        try:
            first = next(self._pass)
        except StopIteration:
            raise MestArgumentError(
                f"there are no batches for epoch {epoch}: an iterator is used up after one pass; pass a "
                "list, a DataLoader, or a function that makes a new iterator for each epoch"
            ) from None
        self._first = first

    def epoch(self, begun: EpochReport) -> Feed:
        config, limit = self.model.config, self._limit()
        training = config.samples or 0
        staying: Optional[NDArray[np.bool_]] = None
        if self.counted and begun.samples < training:
            staying = np.zeros(training, np.bool_)
            staying[self.model.select()] = True
        batches = self._batches(limit, staying, generator(self.model, begun.epoch))
        if config.micro_batches > 1:
            batches = _grouped(batches, config.micro_batches)
        steps = self.length if limit is None and not self.once else limit
        if not self.counted:
            return Feed(batches, steps, None, 0)
        return Feed(batches, steps, begun.samples, training - begun.samples)

    def _batches(
        self, limit: Optional[int], staying: Optional[NDArray[np.bool_]], rng: np.random.Generator
    ) -> Iterator[Batch]:
        assert self._pass is not None
        yield from self._checked(self._first, staying, rng)
        del self._first
        rest = self._pass if limit is None else islice(self._pass, limit - 1)
        for item in rest:
            yield from self._checked(item, staying, rng)
        self._look_at_the_number()

    def _checked(
        self, item: Any, staying: Optional[NDArray[np.bool_]], rng: np.random.Generator
    ) -> Iterator[Batch]:
        self._taken += 1
        name = self.name
        given, answers, numbers = triple(item, name)
        x = self.model._samples(given, f"{name}x")
        count = len(x)
        if count > self.model.config.batch:
            raise MestArgumentError(
                f"{name}has {count} samples, Config.batch, for which memory is planned, is "
                f"{self.model.config.batch}: make batches smaller or Config.batch larger"
            )
        y = self.model._answers(answers, count, what=f"{name}y")
        ids = None
        if numbers is not None:
            ids = arrays.sample_ids(numbers, count, self.model.config.samples or 0, f"{name}ids")
            if staying is not None:
                keep = staying[ids]
                x, y, ids = x[keep], y[keep], ids[keep]
        if len(x):
            yield _augmented(x, self.augment, rng), y, ids


Source = Union[ArraySource, BatchSource]


def source(
    model: "Model", x: Any, y: Optional[ArrayLike], augment: Optional[Augment], shuffle: bool
) -> Source:
    """fit(x, y) or fit(batches)."""
    if y is not None:
        if not is_array(x) and not isinstance(x, Sequence):
            raise MestArgumentError(
                f"x is a {type(x).__name__} and y is given: fit(x, y) takes arrays; an iterable of batches "
                "brings its answers along, fit(batches) of (x, y) or (x, y, ids)"
            )
        return ArraySource(model, x, y, augment, shuffle)
    return BatchSource(model, x, augment)


def generator(model: "Model", epoch: int) -> np.random.Generator:
    """Depends on (seed, epoch) alone: an epoch can be repeated without those before it."""
    return np.random.default_rng([model.config.seed, epoch])


def _augmented(batch: Floats, augment: Optional[Augment], rng: np.random.Generator) -> Floats:
    return batch if augment is None else np.require(augment(batch, rng), np.float32, ["C"])


def _grouped(batches: Iterator[Batch], micro: int) -> Iterator[Batch]:
    """An update takes `micro` batches.  What is left in the end is cut into as many smaller ones, so
    that the last update is whole, too; of fewer samples than that the next epoch begins with it."""
    group: List[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == micro:
            yield from group
            group = []
    if sum(len(x) for x, _, _ in group) < micro:
        yield from group
        return
    x, y = (np.concatenate([batch[part] for batch in group]) for part in (0, 1))
    known = [batch[2] for batch in group if batch[2] is not None]
    numbers = np.concatenate(known) if len(known) == len(group) else None
    for rows in np.array_split(np.arange(len(x)), micro):
        yield x[rows], y[rows], None if numbers is None else numbers[rows]
