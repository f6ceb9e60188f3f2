# SPDX-License-Identifier: Apache-2.0
"""Samples: which were forgotten, how often, and when."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _abi
from .source import column, epochs_of, is_run, numbers, opened, wrong
from .style import COLOURS, SMALL, Axes, axes_of, dress, legend, whole_epochs

NEVER_LEARNED = _abi.MEST_NEVER_LEARNED


def forgetting(source: Any, ax: Optional[Axes] = None) -> Axes:
    """How many samples were never forgotten, forgotten once, twice, ..., and never learned.

    source: a Model or its ForgettingReport, a Run or its path (after its last epoch), or a histogram,
    an array of which item k counts the samples forgotten k times.
    """
    histogram, never = _histogram(opened(source))
    if not histogram.sum() + never:
        raise ValueError("no sample has been seen yet: set samples, and train")
    last = int(np.flatnonzero(histogram).max(initial=0))
    shown = histogram[: last + 1]
    ax = axes_of(ax)
    colours = [COLOURS["never forgotten"]] + [COLOURS["forgotten"]] * last
    bars = ax.bar(range(last + 1), shown, 0.8, color=colours)
    labels = [str(k) if k < 63 else "63+" for k in range(last + 1)]
    every = max(1, -(-(last + 1) // 16))
    ticks: List[float] = list(range(0, last + 1, every))
    words = labels[::every]
    if never:
        bars = [*bars, *ax.bar(last + 1.5, never, 0.8, color=COLOURS["never learned"])]
        ticks, words = [*ticks, last + 1.5], [*words, "never\nlearned"]
    ax.set_xticks(ticks, words)
    heights = [bar.get_height() for bar in bars]
    if max(heights) > 100 * min(h for h in heights if h):
        ax.set_yscale("log")
        ax.set_ylim(0.7, 2.5 * max(heights))
    else:
        ax.set_ylim(0, 1.12 * max(heights))
    if len(bars) <= 14:
        ax.bar_label(ax.containers[0], [f"{h:,.0f}" for h in shown], fontsize=SMALL - 1, padding=1)
        if never:
            ax.bar_label(ax.containers[1], [f"{never:,}"], fontsize=SMALL - 1, padding=1)
    return dress(ax, "How often samples were forgotten", "times forgotten", "samples")


def _histogram(source: Any) -> Tuple[NDArray[np.int64], int]:
    """Learned samples by their count, and how many were never learned."""
    if is_run(source):
        if not source.forgetting:
            raise ValueError("this run did not count forgetting: set samples in its config")
        last = source.forgetting[-1]
        return np.asarray(last["histogram"], np.int64), int(last.get("never_learned") or 0)
    if callable(getattr(source, "forgetting", None)):
        source = source.forgetting()
    if hasattr(source, "histogram"):
        return np.asarray(source.histogram, np.int64), int(source.never_learned)
    if not isinstance(source, (np.ndarray, list, tuple)) or not numbers(source, 1):
        raise wrong(source, "a Model, a ForgettingReport, a Run or a histogram")
    return np.asarray(source, np.int64), 0


def forgotten(source: Any, ax: Optional[Axes] = None) -> Axes:
    """Samples forgotten in each epoch; epochs that began with a mutation are marked, and those at whose
    beginning samples left the training set.

    source: a Run or its path, a History, or two arrays (epochs, forgotten).
    """
    if isinstance(source, tuple):
        at, counts = (np.asarray(values, float) for values in source)
        mutated = left = np.zeros(len(at))
    else:
        records = epochs_of(source)
        at, counts, mutated, left = (column(records, n) for n in ("epoch", "forgotten", "mutated", "removed"))
    ax = axes_of(ax)
    ax.plot(at, counts, color=COLOURS["forgotten"], marker=".", markersize=4, label="forgotten")
    moved = mutated > 0
    if moved.any():
        ax.plot(
            at[moved], counts[moved], "o", color=COLOURS["mutation"], markersize=5, label="after a mutation"
        )
    for number, epoch in enumerate(at[left > 0]):
        ax.axvline(epoch - 0.5, color=COLOURS["left"], linestyle="--", linewidth=1,
                   label=None if number else "samples left")  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    dress(ax, "Samples forgotten, by epoch", "epoch", "samples")
    whole_epochs(ax)
    legend(ax)
    return ax


def most_forgotten(source: Any, ax: Optional[Axes] = None, *, x: Optional[ArrayLike] = None,
                   most: int = 24, columns: int = 8) -> Axes:  # fmt: skip
    """The samples that were forgotten most often, as pictures, with their numbers and counts.

    source: a Run or its path (that recorded images), a Model or its ForgettingReport with x, or two
    arrays (ids, counts) with x.  x: (n, channels, height, width) or (n, height, width), row i sample i;
    1 or 3 channels; each picture is drawn from its darkest to its brightest value.
    """
    ids, counts, images = _most(opened(source), x, most)
    columns = max(1, min(columns, len(ids)))
    rows = -(-len(ids) // columns)
    ax = axes_of(ax, 0.75 * columns, 0.95 * rows + 0.4)
    for place, (sample, count, image) in enumerate(zip(ids, counts, images)):
        row, at = divmod(place, columns)
        left, top = 1.12 * at, 1.32 * row
        ax.imshow(
            image, cmap="gray", vmin=0, vmax=1, extent=(left, left + 1, top + 1, top), interpolation="nearest"
        )
        times = "never learned" if count == NEVER_LEARNED else f"{count}x"
        ax.text(left + 0.5, top + 1.04, f"#{sample} {times}", ha="center", va="top", fontsize=SMALL - 2)
    ax.set_xlim(-0.05, 1.12 * columns)
    ax.set_ylim(1.32 * rows, -0.1)
    ax.set_aspect("equal")
    dress(ax, "Samples forgotten most often", grid="")
    ax.axis("off")
    return ax


def _most(source: Any, x: Optional[ArrayLike], most: int) -> Tuple[List[int], List[int], List[NDArray[Any]]]:
    images: Optional[Sequence[Any]] = None
    if is_run(source):
        found = source.most_forgotten or {}
        ids, counts, images = found.get("ids") or [], found.get("counts") or [], found.get("images")
    elif isinstance(source, tuple) and len(source) == 2:
        ids, counts = source
    else:
        report = source.forgetting() if callable(getattr(source, "forgetting", None)) else source
        if not hasattr(report, "counts"):
            raise wrong(source, "a Model, a ForgettingReport, a Run or arrays (ids, counts)")
        learned = np.where(report.counts == NEVER_LEARNED, 0, report.counts)
        order = np.lexsort((np.arange(learned.size), -learned.astype(int)))
        ids = order[learned[order] > 0]
        counts = report.counts[ids]
    ids, counts = [int(i) for i in ids][:most], [int(c) for c in counts][:most]
    if not ids:
        raise ValueError("no sample was forgotten")
    if images is None or x is not None:
        if x is None:
            raise ValueError("there are no images: give x, (n, channels, height, width)")
        images = list(np.asarray(x)[ids])
    return ids, counts, [picture_of(image) for image in images[:most]]


def picture_of(image: ArrayLike) -> NDArray[Any]:
    """(height, width) or (height, width, 3) from 0 to 1 of a sample of one or three channels."""
    values = np.asarray(image, float)
    if values.ndim == 3:
        values = values[0] if values.shape[0] == 1 else np.moveaxis(values[:3], 0, -1)
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] == 3):
        raise ValueError(f"a sample of shape {np.shape(image)} is no picture of 1 or 3 channels")
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
