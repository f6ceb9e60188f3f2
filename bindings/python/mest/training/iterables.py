# SPDX-License-Identifier: Apache-2.0
"""Iterables of batches as people have them: lists, generators, functions that make them, torch's
DataLoader; and what `evaluate` and `predict` do with them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np

from ..errors import MestArgumentError
from ..reports import Evaluation

if TYPE_CHECKING:
    from ..model import Floats, Model

Batches = Union[Iterable[Any], Callable[..., Iterable[Any]]]

_PAIR = "(x, y) or (x, y, ids)"


def passes(batches: Any, what: str) -> Callable[[int], Iterable[Any]]:
    """A function of the epoch that gives its batches.

    batches: what can be gone through, or a function that makes it; one that has a parameter without a
    default is given the number of the epoch.
    """
    if is_array(batches) or isinstance(batches, (str, bytes, dict)):
        raise MestArgumentError(
            f"{what} are a {type(batches).__name__}: pass x and y, or an iterable of batches {_PAIR}"
        )
    if isinstance(batches, Iterable) or hasattr(batches, "__getitem__"):
        return lambda epoch: batches
    if not callable(batches):
        raise MestArgumentError(
            f"{what} are a {type(batches).__name__}; an iterable of batches {_PAIR} is wanted, or a function "
            "that makes one"
        )
    return lambda epoch: _made(batches, epoch, what)


def _made(make: Callable[..., Any], epoch: int, what: str) -> Iterable[Any]:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # of C
        parameters = ()  # type: ignore[assignment]
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = any(p.default is p.empty and p.kind in places for p in parameters)
    made = make(epoch) if takes else make()
    if is_array(made) or not isinstance(made, Iterable):
        raise MestArgumentError(
            f"{what}: the function has returned a {type(made).__name__}, not an iterable of batches {_PAIR}"
        )
    return made


def length(batches: Any) -> Optional[int]:
    """How many batches, where that is known."""
    try:
        return len(batches)
    except TypeError:
        return None


def is_array(value: Any) -> bool:
    """An array, a tensor, a table: anything with a shape."""
    return hasattr(value, "shape") or hasattr(value, "__array__")


def triple(item: Any, name: str) -> Tuple[Any, Any, Any]:
    """(x, y, ids or None) of what an iterable gave."""
    if is_array(item) or not isinstance(item, (tuple, list)) or not 2 <= len(item) <= 3:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise MestArgumentError(f"{name}{_PAIR} is wanted, not a {type(item).__name__}{size}")
    return item[0], item[1], item[2] if len(item) == 3 else None


def is_pair(validation: Any) -> bool:
    """Arrays (x, y), not an iterable of batches: a tuple, or a list that begins with an array."""
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        return False
    return isinstance(validation, tuple) or is_array(validation[0])


def _numbered(batches: Any, kind: str = "batch", epoch: int = 0) -> Iterator[Tuple[str, Any]]:
    for number, item in enumerate(passes(batches, f"the {kind}es")(epoch)):
        yield f"{kind} {number}: ", item


def evaluate(model: "Model", batches: Any, kind: str = "batch", epoch: int = 0) -> Evaluation:
    """Over all batches, of any size."""
    loss, correct, count = 0.0, 0, 0
    for name, item in _numbered(batches, kind, epoch):
        x, y, _ = triple(item, name)
        found = _named(name, lambda: model.evaluate(x, y))  # noqa: B023
        if found.count:
            loss += found.loss * found.count
            correct, count = correct + found.correct, count + found.count
    ranked = model.config.loss != "mse"
    return Evaluation(loss / count if count else float("nan"), correct, count, ranked)


def predict(model: "Model", batches: Any, one: Callable[[Any], "Floats"]) -> "Floats":
    """Outputs for all batches, x or what `evaluate` takes; one: for x."""
    found: List["Floats"] = []
    for name, item in _numbered(batches):
        x = item if is_array(item) or not isinstance(item, (tuple, list)) else triple(item, name)[0]
        found.append(_named(name, lambda: one(x)))  # noqa: B023
    return np.concatenate(found) if found else np.empty((0, model.plan().outputs), np.float32)


def _named(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except MestArgumentError as error:
        error.args = (name + str(error),)
        raise


def are_batches(model: "Model", x: Any) -> bool:
    """What `predict` was given is no array: an iterable of batches, or a function that makes one."""
    if is_array(x):
        return False
    if not isinstance(x, (list, tuple)):
        return isinstance(x, Iterable) or callable(x)
    if not x:
        return False
    shape = model.plan().layers[0].shape
    sample = (shape, (shape[0] * shape[1] * shape[2],))
    first = x[0]
    if isinstance(first, (list, tuple)) and first and is_array(first[0]):
        first = first[0]
    found = tuple(getattr(first, "shape", ()))
    return found[1:] in sample
