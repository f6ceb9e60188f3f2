# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's base classes and checks of input; `without_sklearn` has the same names."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Tuple

import numpy as np

# Not import statements: mypy has no types of it, and would then be strict about all that is made of it.
_base: Any = import_module("sklearn.base")
_validation: Any = import_module("sklearn.utils.validation")

BaseEstimator: Any = _base.BaseEstimator
ClassifierMixin: Any = _base.ClassifierMixin
RegressorMixin: Any = _base.RegressorMixin
NotFittedError: Any = import_module("sklearn.exceptions").NotFittedError
check_is_fitted: Any = _validation.check_is_fitted
check_classes: Any = import_module("sklearn.utils.multiclass").check_classification_targets
column: Any = _validation.column_or_1d

# float32 in C order: what the library reads.  Too large for it is said, too.
_X = {"dtype": np.float32, "order": "C"}


def samples(estimator: Any, x: Any) -> Any:
    """X of a call after `fit`: (n, n_features_in_) float32."""
    return _validate(estimator, x, reset=False, **_X)


def samples_and_targets(estimator: Any, x: Any, y: Any, reset: bool, numbers: bool) -> Tuple[Any, Any]:
    """X as float32 and y as an array; reset: these say what n_features_in_ is.  numbers: y is of
    numbers, one or several a sample, not of labels."""
    found: Tuple[Any, Any] = _validate(
        estimator, x, y, reset=reset, multi_output=numbers, y_numeric=numbers, **_X
    )
    return found


def _validate(estimator: Any, *arrays: Any, **how: Any) -> Any:
    if hasattr(_validation, "validate_data"):  # since scikit-learn 1.6
        return _validation.validate_data(estimator, *arrays, **how)
    return estimator._validate_data(*arrays, **how)
