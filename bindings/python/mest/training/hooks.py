# SPDX-License-Identifier: Apache-2.0
"""The callbacks of one `fit`: who wants to hear what, in what order, and who has begun."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from ..arrays import warn_caller
from ..reports import MutationReport, StepReport
from .callbacks import AnyCallback, Callback, Training
from .history import EpochRecord, History

if TYPE_CHECKING:
    from ..model import Model

_NAMES = ("begin", "mutation", "step", "epoch", "saving", "end")


class Hooks:
    """Methods of all callbacks by name, those that were not overwritten left out.  TypeError for
    what is no callback."""

    def __init__(self, model: "Model", callbacks: Sequence[AnyCallback]) -> None:
        if not isinstance(callbacks, (list, tuple)):
            raise TypeError(f"callbacks={callbacks!r}: a list is wanted, callbacks=[...]")
        self._model = model
        self._callbacks = [(one, _methods(one)) for one in callbacks]
        self._ends: List[Callable[..., Any]] = []  # of those that have begun
        self._mutation = self._all("mutation")
        self._step = self._all("step")

    def _all(self, name: str) -> List[Callable[..., Any]]:
        return [methods[name] for _, methods in self._callbacks if name in methods]

    def begin(self, training: Training) -> bool:
        stops = False
        for one, methods in self._callbacks:
            if isinstance(one, Callback):
                one.training = training
            if "begin" in methods:
                stops |= bool(methods["begin"](self._model))
            if "end" in methods:
                self._ends.append(methods["end"])
        return stops

    def mutation(self) -> MutationReport:
        report = self._model.mutation()
        for tell in self._mutation:
            tell(self._model, report)
        return report

    def step(self, report: StepReport) -> bool:
        stops = False
        for tell in self._step:
            stops |= bool(tell(self._model, report))
        return stops

    def epoch(self, record: EpochRecord, first: List[Callable[[], Any]]) -> bool:
        """An epoch is complete: all get its record, whatever one of them raises, after `first` was done."""
        answers: List[Any] = []
        tells = [partial(tell, self._model, record) for tell in self._all("epoch")]
        _all_of([*first, *tells], answers)
        return any(map(bool, answers))

    def saving(self, path: str) -> None:
        for tell in self._all("saving"):
            tell(self._model, path)

    def end(self, history: History, reason: str) -> None:
        """Every one is told, whatever those before it raise."""
        ends, self._ends = self._ends, []
        _all_of([partial(tell, self._model, history, reason) for tell in ends], [])

    def end_failed(self, history: History, reason: str) -> None:
        """While an exception is on its way to the caller, who shall see that one."""
        try:
            self.end(history, reason)
        except Exception as also:
            warn_caller(f"a callback failed at the end, too: {type(also).__name__}: {also}")


def _all_of(calls: List[Callable[[], Any]], answers: List[Any]) -> None:
    """Calls every one, wherever Ctrl-C comes; then raises it, or else what was raised first."""
    failure: Optional[BaseException] = None
    waiting = iter(calls)
    call = next(waiting, None)
    while call is not None:
        try:
            while call is not None:
                calling, call = call, next(waiting, None)
                answers.append(calling())
        except BaseException as error:
            if failure is None or isinstance(failure, Exception) and not isinstance(error, Exception):
                failure = error
    if failure is not None:
        raise failure


def _methods(one: Any) -> Dict[str, Callable[..., Any]]:
    if not isinstance(one, type):
        found = {
            name: getattr(one, name)
            for name in _NAMES
            if callable(getattr(one, name, None))
            and getattr(type(one), name, None) is not getattr(Callback, name)
        }
        if found or isinstance(one, Callback):
            return found
        if callable(one):
            return {"epoch": partial(_of_record, one)}
    raise TypeError(
        f"callbacks has {one!r}: an object with methods of mest.Callback is wanted, or a function of "
        "the EpochRecord"
    )


def _of_record(function: Callable[[EpochRecord], Any], _model: Any, record: EpochRecord) -> Any:
    return function(record)
