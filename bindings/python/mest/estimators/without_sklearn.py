# SPDX-License-Identifier: Apache-2.0
"""The names of `with_sklearn` where scikit-learn is not installed: parameters, scores, plain checks."""

from __future__ import annotations

import inspect
from typing import Any, Dict, Tuple, TypeVar

import numpy as np

from .. import arrays
from ..errors import MestArgumentError

E = TypeVar("E", bound="BaseEstimator")


class NotFittedError(ValueError, AttributeError):
    """fit has not been called."""


class BaseEstimator:
    """Parameters are the arguments of __init__, kept as attributes of the same names."""

    def get_params(self, deep: bool = True) -> Dict[str, Any]:
        """Every parameter and its value."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in sorted(names)}

    def set_params(self: E, **params: Any) -> E:
        """Changes parameters; ValueError for one that does not exist."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}: {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        plain = type(self)().get_params()
        said = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(plain[k])]
        return f"{type(self).__name__}({', '.join(said)})"


class ClassifierMixin:
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of right answers."""
        right = np.asarray(self.predict(X)) == np.asarray(y)  # type: ignore[attr-defined]
        return float(np.average(right, weights=sample_weight))


class RegressorMixin:
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2, of several outputs its mean."""
        return r2(np.asarray(y, float), self.predict(X), sample_weight)  # type: ignore[attr-defined]


def r2(y: Any, found: Any, weights: Any = None) -> float:
    """1 - squared error / variance, of several outputs its mean; of a constant 1 where found, else 0."""
    y, found = (np.reshape(part, (len(part), -1)) for part in (y, found))
    error = np.average((y - found) ** 2, 0, weights)
    variance = np.average((y - np.average(y, 0, weights)) ** 2, 0, weights)
    constant = variance == 0
    scores = 1 - error / np.where(constant, 1.0, variance)
    return float(np.where(constant, error == 0, scores).mean())


def check_is_fitted(estimator: Any, attribute: str) -> None:
    if not hasattr(estimator, attribute):
        raise NotFittedError(f"this {type(estimator).__name__} is not fitted: call fit first")


def check_classes(y: Any) -> None:
    if y.dtype.kind == "f" and np.any(y != np.floor(y)):
        raise ValueError("Unknown label type: y has numbers with fractions; for those: MestRegressor")


def column(y: Any, warn: bool = False) -> Any:
    array = np.asarray(y)
    if array.ndim != 1 and array.shape != (len(array), 1):
        raise ValueError(f"y has shape {array.shape}, (n,) is wanted")
    return array.ravel()


def samples(estimator: Any, x: Any) -> Any:
    return _samples(estimator, x, reset=False)


def samples_and_targets(estimator: Any, x: Any, y: Any, reset: bool, numbers: bool) -> Tuple[Any, Any]:
    found, known = _samples(estimator, x, reset), np.asarray(y)
    if numbers:
        known = known.astype(np.float64)
        if known.ndim not in (1, 2) or not np.isfinite(known).all():
            raise ValueError("y has to be numbers that are finite, (n,) or (n, outputs)")
    else:
        known = column(known)
    if len(known) != len(found):
        raise ValueError(f"X has {len(found)} samples, y {len(known)}")
    return found, known


def _samples(estimator: Any, x: Any, reset: bool) -> Any:
    array = np.asarray(x)
    if array.ndim != 2 or not array.size:
        raise MestArgumentError(f"X has shape {array.shape}, (samples, features) is wanted")
    if reset:
        estimator.n_features_in_ = array.shape[1]
    elif array.shape[1] != estimator.n_features_in_:
        raise MestArgumentError(
            f"X has {array.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    converted = arrays.floats(array, "X")
    arrays.finite(converted, "X")
    return converted
