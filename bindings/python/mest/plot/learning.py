# SPDX-License-Identifier: Apache-2.0
"""Learning curves."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

import numpy as np

from .source import column, epochs_of
from .style import COLOURS, CYCLE, Axes, axes_of, dress, legend, plain, whole_epochs

# Field of the validation beside that of the training, title, axis, factor.
_WHAT = {
    "accuracy": ("validation_accuracy", "Accuracy, by epoch", "accuracy, %", 100.0),
    "loss": ("validation_loss", "Loss, by epoch", "loss", 1.0),
    "learning_rate": (None, "Learning rate, by epoch", "learning rate", 1.0),
    "density": (None, "Density of the sparse layers, by epoch", "density, %", 100.0),
    "seconds": (None, "Time of an epoch", "seconds", 1.0),
}


def curves(source: Any, ax: Optional[Axes] = None, *, what: Optional[str] = None) -> Axes:
    """A learning curve: training dashed, validation whole; ticks above the axis are mutations.

    source: a Run or its path, a History, or a dict {name: one of them} to compare some.
    what: "accuracy", "loss", "learning_rate", "density" or "seconds"; None: accuracy where it is known,
    else loss.
    """
    runs = source if isinstance(source, Mapping) else {"": source}
    records = {name: epochs_of(one) for name, one in runs.items()}
    if what is None:
        known = any(np.isfinite(column(r, "accuracy")).any() for r in records.values())
        what = "accuracy" if known else "loss"
    if what not in _WHAT:
        raise ValueError(f"what={what!r}: choose from {', '.join(map(repr, _WHAT))}")
    ax = axes_of(ax)
    for index, (name, epochs) in enumerate(records.items()):
        _draw(ax, name, epochs, what, CYCLE[index % len(CYCLE)] if len(records) > 1 else None)
    _, title, label, _ = _WHAT[what]
    dress(ax, title, "epoch", label)
    if what in ("loss", "seconds", "density", "learning_rate"):
        ax.set_ylim(bottom=0)
    if len(records) == 1:
        mutated = column(next(iter(records.values())), "mutated") > 0
        if mutated.any():
            at = column(next(iter(records.values())), "epoch")[mutated]
            ax.plot(
                at,
                np.full(len(at), 0.015),
                "|",
                color=COLOURS["mutation"],
                markersize=7,
                label="mutation",
                transform=ax.get_xaxis_transform(),
                clip_on=False,
            )
    whole_epochs(ax)
    legend(ax)
    return ax


def _draw(ax: Axes, name: str, epochs: Any, what: str, colour: Optional[str]) -> None:
    beside, _, _, factor = _WHAT[what]
    at = column(epochs, "epoch")
    both = [("training", what, "--")] + ([("validation", beside, "-")] if beside else [])
    drawn: Dict[str, Any] = {kind: factor * column(epochs, field) for kind, field, _ in both}
    for kind, _, line in both:
        values = drawn[kind]
        if not np.isfinite(values).any():
            continue
        alone = beside is None or sum(np.isfinite(v).any() for v in drawn.values()) == 1
        label = " ".join(word for word in (name, "" if beside is None else kind) if word)
        ax.plot(
            at,
            values,
            "-" if alone else line,
            color=colour or COLOURS[kind if beside else "validation"],
            linewidth=1.6,
            marker="." if len(at) < 30 else None,
            markersize=5,
            label=plain(label) or None,
        )
