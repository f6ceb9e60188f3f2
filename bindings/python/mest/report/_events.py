# SPDX-License-Identifier: Apache-2.0
"""The sections of a report on what happened while it trained: mutations and forgetting."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Mapping, Sequence

import numpy as np

from .. import plot
from ..plot.samples import NEVER_LEARNED, picture_of
from ..plot.source import Layer, column, layers_of
from . import _svg
from ._page import figures, folded, table, text
from ._values import Run, count, drawn, known, percent

# ----------------------------------------------------------------------------------- mutations ---


def mutations(run: Run) -> str:
    moved = run.mutations
    weights = layers_of(run)
    pictures, lead = [], ""
    high = max(2.2, 0.9 + 0.2 * sum(layer.sparse for layer in weights))
    if moved:
        dropped, grown = (int(np.nansum(column(moved, name))) for name in ("dropped", "grown"))
        said = f"{len(moved)} mutations dropped {dropped:,} and grew {grown:,} connections"
        explored = moved[-1].get("explored")
        more = (
            f" {percent(explored)} of all positions have been connected at some time."
            if known(explored)
            else ""
        )
        lead = f"<p>{text(said)}.{text(more)}</p>"
        pictures += [
            drawn(lambda ax: plot.churn(run, ax), f"Churn by epoch: {said}", f"{said}."),
            drawn(
                lambda ax: plot.survival(run, ax),
                "First connections that still exist, by epoch",
                "How many of the first connections still exist.",
            ),
            drawn(
                lambda ax: plot.churn(run, ax, by="layer"),
                "Heat map: dropped connections by layer and mutation",
                "Where connections were dropped.",
                high,
            ),
            drawn(
                lambda ax: plot.survival(run, ax, by="layer"),
                "Heat map: first connections that still exist, by layer and mutation",
                "Where the first connections survived.",
                high,
            ),
        ]
    if weights:
        said = "Share of the weight matrix that exists in the end, by layer"
        pictures.append(drawn(lambda ax: plot.density(run, ax), f"{said}: {_densities(weights)}",
                              f"{said}.", max(1.6, 0.7 + 0.22 * len(weights))))  # fmt: skip
    if run.importance:
        pictures.append(drawn(lambda ax: plot.importance(run, ax), "Histogram of |weight| of the connections",
                              "How large the connections' weights are in the end."))  # fmt: skip
    return lead + figures(pictures) + _mutation_table(moved)


def _densities(weights: Sequence[Layer]) -> str:
    shown = [f"{layer.name} {100 * layer.density:.3g} %" for layer in weights[:12]]
    return ", ".join(shown) + (", ..." if len(weights) > 12 else "")


def _mutation_table(moved: Sequence[Mapping[str, Any]]) -> str:
    if not moved:
        return ""
    rows = [
        [m.get("epoch"), *(count(m.get(name)) for name in ("dropped", "grown", "active")),
         percent(m.get("density")), percent(m.get("explored"))]
        for m in moved
    ]  # fmt: skip
    header = [">epoch", ">dropped", ">grown", ">connections after it", ">density", ">ever connected"]
    return folded(f"All {len(moved)} mutations as a table", table(header, rows, "Mutations"))


# ---------------------------------------------------------------------------------- forgetting ---


def forgetting(run: Run) -> str:
    if not run.forgetting:
        return ""
    last = run.forgetting[-1]
    kept, learned, never = (last.get(name, 0) for name in ("unforgettable", "learned", "never_learned"))
    said = (
        f"{count(kept)} of {count(last.get('samples', 0))} samples were learned and never forgotten, "
        f"{count(learned - kept)} were forgotten at least once, {count(never)} were never learned"
    )
    events = int(np.nansum(column(run.epochs, "forgotten")))
    parts = [
        drawn(lambda ax: plot.forgetting(run, ax), f"Histogram of forgetting: {said}", f"{said}."),
        drawn(lambda ax: plot.forgotten(run, ax), f"Samples forgotten by epoch, {events:,} in all",
              "Answered rightly at one presentation and wrongly at the next."),
    ]  # fmt: skip
    return f"<p>{text(said)}.</p>" + figures(parts) + _most_forgotten(run)


def _most_forgotten(run: Run) -> str:
    found = run.most_forgotten or {}
    ids, counts, images = found.get("ids") or [], found.get("counts") or [], found.get("images")
    if not ids:
        return ""
    items = []
    for place, (sample, forgotten) in enumerate(zip(ids, counts)):
        times = "never learned" if forgotten == NEVER_LEARNED else f"{forgotten} times"
        shown = ""
        if images is not None and place < len(images) and _svg.available():
            with suppress(ValueError):  # two channels, say, are no picture
                address = _svg.png(picture_of(images[place]))
                shown = f'<img src="{address}" alt="sample {text(sample)}" loading="lazy">'
        items.append(f"<li>{shown}#{text(sample)}<br>{text(times)}</li>")
    return (
        '<figure><ul class="images">'
        + "".join(items)
        + "</ul><figcaption>Samples forgotten most often: number and count.</figcaption></figure>"
    )
