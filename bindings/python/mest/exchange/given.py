# SPDX-License-Identifier: Apache-2.0
"""What functions of this package that take a model were given instead."""

from __future__ import annotations

from typing import Any

from ..model import Model


def refuse_what_is_no_model(given: Any, function: str, also: str = "") -> None:
    """TypeError that says where the model is.  also: what else the function takes."""
    if isinstance(given, Model):
        return
    kind, hint = type(given).__name__, ""
    if hasattr(given, "hidden_layer_sizes") and hasattr(given, "fit"):  # loads no estimators
        hint = "; of a fitted estimator that is its .model_"
    elif hasattr(given, "steps") and hasattr(given, "fit"):
        hint = "; of a fitted Pipeline that is pipeline[-1].model_"
    raise TypeError(f"{kind}: {function} takes a mest.Model{also}{hint}")
