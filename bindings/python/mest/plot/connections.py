# SPDX-License-Identifier: Apache-2.0
"""Connections: where they are, how many, how large, and how they move."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from .source import (
    Layer,
    by_layer,
    column,
    epochs_of,
    is_run,
    layer_names,
    layers_of,
    mutations_of,
    numbers,
    opened,
    plan_of,
    wrong,
)  # fmt: skip
from .style import (
    COLOURS,
    CYCLE,
    SMALL,
    Axes,
    axes_of,
    dress,
    heat,
    legend,
    legend_above,
    plain,
    whole_epochs,
)

BINS = 40


def density(source: Any, ax: Optional[Axes] = None) -> Axes:
    """Share of the connections that exist, a bar a layer.

    source: a Model (as it is now), a Plan (as it begins), a Run or its path (as it ended), or a dict
    {name: density}.  A tick across a bar is the layer's target, where it has another density now.
    """
    if isinstance(source, Mapping):
        layers = [Layer(i, k, "", 1000000, 1, round(1e6 * v), round(1e6 * v), v < 1, 0)
                  for i, (k, v) in enumerate(source.items())]  # fmt: skip
    else:
        layers = layers_of(source)
    if not layers:
        raise ValueError("no layer has weights")
    ax = axes_of(ax, 6, max(1.6, 0.7 + 0.24 * len(layers)))
    for row, layer in enumerate(layers):
        what = "sparse" if layer.sparse else "dense"
        ax.barh(row, 100 * layer.density, color=COLOURS[what], height=0.7)
        ax.annotate(f"{100 * layer.density:.3g} %", (100 * layer.density, row), (3, 0), va="center",
                    textcoords="offset points", fontsize=SMALL - 1)  # fmt: skip
        if layer.sparse and abs(layer.active - layer.target) > 0.005 * layer.target:
            target = 100 * layer.target / (layer.rows * layer.columns)
            ax.plot([target, target], [row - 0.42, row + 0.42], color="black", linewidth=1.5)
    ax.set_yticks(range(len(layers)), [plain(layer.name) for layer in layers])
    ax.set_ylim(len(layers) - 0.4, -0.6)  # the first layer above
    ax.set_xlim(0, 1.14 * max(100 * layer.density for layer in layers))
    for what in ("sparse", "dense"):
        if any(layer.sparse is (what == "sparse") for layer in layers):
            ax.barh(0, 0, color=COLOURS[what], label=what)
    dress(ax, "Connections that exist, by layer", "density, % of the weight matrix", grid="x")
    legend_above(ax)
    return ax


def churn(source: Any, ax: Optional[Axes] = None, *, by: Optional[str] = None) -> Axes:
    """How many connections were dropped (down) and grown (up) in each epoch that moved any.

    source: a Run or its path, a History, or three arrays (epochs, dropped, grown).
    by="layer", of a Run: a heat map of the share of its connections that each layer dropped.
    """
    if by is not None:
        _known(by)
        names, epochs, table = by_layer(source, _dropped_share)
        ax = axes_of(ax, 6, max(2.2, 0.9 + 0.22 * len(names)))
        most = float(np.nanmax(table, initial=0)) or 1.0
        return heat(
            ax, table, names, epochs, "Connections dropped, by layer", "% of the layer's connections", most
        )
    if isinstance(source, tuple):
        at, dropped, grown = (np.asarray(values, float) for values in source)
    else:
        records = [record for record in epochs_of(source) if record.get("mutated")]
        if not records:
            raise ValueError("no epoch moved connections: the method is static")
        at, dropped, grown = (column(records, name) for name in ("epoch", "dropped", "grown"))
    ax = axes_of(ax)
    # An epoch wide, so that it is seen when it was; wider only where that would be a hair.
    span = float(np.ptp(at)) if len(at) > 1 else 0.0
    apart = float(np.diff(np.sort(at)).min()) if span else 1.0
    width = 0.8 * max(1.0, min(apart, span / 80))
    ax.bar(at, grown, width, color=COLOURS["grown"], label="grown")
    ax.bar(at, -dropped, width, color=COLOURS["dropped"], label="dropped")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    dress(ax, "Mask churn: connections that moved", "epoch", "connections")
    whole_epochs(ax)
    ax.set_xlim(left=max(ax.get_xlim()[0], -0.75 * width))  # there is no epoch before 0
    ax.set_ylim(-1.05 * max(dropped.max(), 1), 1.3 * max(grown.max(), 1))  # the legend is above the bars
    legend(ax, loc="upper right", ncols=2)
    return ax


def _dropped_share(part: Mapping[str, Any]) -> float:
    before = part["active"] + part["dropped"] - part["grown"]
    return 100 * part["dropped"] / before if before else 0.0


def _known(by: str) -> None:
    if by != "layer":
        raise ValueError(f"by={by!r}: None or 'layer'")


def survival(source: Any, ax: Optional[Axes] = None, *, by: Optional[str] = None) -> Axes:
    """How many of the first connections still exist after each mutation.

    source: a Run or its path, or two arrays (epochs, share from 0 to 1).
    by="layer", of a Run: a heat map.
    """
    if by is not None:
        _known(by)
        names, epochs, table = by_layer(source, _survived)
        if not np.isfinite(table).any():
            raise ValueError("this run's mutations do not tell how many connections survived")
        ax = axes_of(ax, 6, max(2.2, 0.9 + 0.22 * len(names)))
        return heat(ax, table, names, epochs, "First connections that still exist, by layer", "%", 100)
    if isinstance(source, tuple):
        at, share = (np.asarray(values, float) for values in source)
    else:
        told = [m for m in mutations_of(source) if _survivors(m.get("layers") or []) is not None]
        if not told:
            raise ValueError("this run's mutations do not tell how many connections survived")
        at = column(told, "epoch")
        share = np.array([_survivors(m["layers"]) for m in told], float)
    ax = axes_of(ax)
    if len(at):  # all of them, until the first mutation, which epoch 0 may begin with
        at, share = np.insert(at, 0, min(0, at[0])), np.insert(share, 0, 1.0)
    ax.step(at, 100 * share, where="post", color=COLOURS["surviving"], marker="o", markersize=3.5)
    if len(at):
        ax.annotate(f"{100 * share[-1]:.3g} %", (at[-1], 100 * share[-1]), (5, 0), va="center",
                    textcoords="offset points", fontsize=SMALL)  # fmt: skip
        ax.set_xlim(right=at[-1] + 0.15 * max(1.0, at[-1] - at[0]))  # where no line is
    ax.set_ylim(0, 105)
    dress(ax, "Mask survival: first connections that still exist", "epoch", "% of the first connections")
    whole_epochs(ax)
    return ax


def _survived(part: Mapping[str, Any]) -> float:
    share = _survivors([dict(part)])
    return float("nan") if share is None else 100 * share


def _survivors(parts: List[Dict[str, Any]]) -> Optional[float]:
    """Share of the first connections of all layers; None where it is not known."""
    known = [part for part in parts if part.get("first") and part["first"] == part["first"]]
    first = sum(part["first"] for part in known)
    return sum(part["survivors"] for part in known) / first if first else None


def importance(source: Any, ax: Optional[Axes] = None, *, layer: Any = None) -> Axes:
    """How large the weights of the connections are: a histogram of |weight| of the sparse layers.

    source: a Model (now), a Run or its path (at the end), or an array of weights.
    layer: one layer alone, by its name or index; None: all, and up to six of them one by one.
    """
    histograms = _histograms(source, layer)
    ax = axes_of(ax)
    most = max(float(edges[-1]) for _, edges, _ in histograms)
    common = np.linspace(0, most or 1.0, BINS + 1)
    counts = [_rebinned(edges, held, common) for _, edges, held in histograms]
    together = np.sum(counts, axis=0)
    only = histograms[0][0] if len(histograms) == 1 else "all layers"
    ax.stairs(together, common, fill=True, color=COLOURS["weights"], alpha=0.5, label=plain(only))
    if 1 < len(histograms) <= 6:
        for colour, (name, _, _), part in zip(CYCLE, histograms, counts):
            ax.stairs(part, common, color=colour, linewidth=1.4, label=plain(name))
    ax.set_xlim(0, most or 1.0)
    dress(ax, "Importance of the connections", "|weight|", "connections")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(ax)
    return ax


Histogram = Tuple[str, NDArray[Any], NDArray[Any]]  # name, edges [n + 1], counts [n]


def _histograms(source: Any, layer: Any) -> List[Histogram]:
    source = opened(source)
    if is_run(source):
        parts = (source.importance or {}).get("layers") or []
        names = layer_names(source)
        found = [(names.get(p["layer"], f"layer {p['layer']}"), np.asarray(p["edges"], float),
                  np.asarray(p["counts"], float)) for p in parts
                 if layer in (None, p["layer"], names.get(p["layer"]))]  # fmt: skip
        missing = "this run has no importance: it is recorded when training ends"
    elif hasattr(source, "csr"):
        chosen = [(i, part) for i, part in enumerate(plan_of(source).layers)
                  if part.sparse and layer in (None, i, part.name)]  # fmt: skip
        found = [_histogram(part.name, source.csr(i).values) for i, part in chosen]
        missing = "this model has no sparse layer"
    elif isinstance(source, (np.ndarray, list, tuple)) and numbers(source):
        found, missing = [_histogram("weights", np.ravel(np.asarray(source, float)))], ""
    else:
        raise wrong(source, "a Model, a Run or an array of weights")
    found = [item for item in found if item[2].size]
    if not found:
        raise ValueError(
            missing if layer is None else f"layer={layer!r}: no sparse layer is that, or {missing}"
        )
    return found


def _histogram(name: str, values: NDArray[Any]) -> Histogram:
    counts, edges = np.histogram(np.abs(values), BINS, (0, float(np.abs(values).max(initial=0)) or 1.0))
    return name, edges, counts.astype(float)


def _rebinned(edges: NDArray[Any], counts: NDArray[Any], common: NDArray[Any]) -> NDArray[Any]:
    """Counts over other edges, as if those of a bin lay evenly in it."""
    below = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(np.interp(common, edges, below))


def connections(model: Any, layer: Any, ax: Optional[Axes] = None, *, rows: Optional[int] = None,
                columns: Optional[int] = None) -> Axes:  # fmt: skip
    """Which weights of a sparse layer exist: its matrix, black where a connection is.

    model: a Model; layer: a name or index, as Model.csr takes it.  rows, columns: only the first so many.
    """
    index = model._index(layer)
    part, csr = model.plan().layers[index], model.csr(index)
    picture = np.zeros((part.rows, part.columns), np.uint8)
    lines = np.repeat(np.arange(part.rows), np.diff(csr.indptr.astype(np.int64)))
    picture[lines, csr.indices] = 1
    picture = picture[:rows, :columns]
    shape = picture.shape
    ax = axes_of(ax, 4.5, 4.5 * min(2.0, max(0.25, shape[0] / shape[1])) + 0.5)
    ax.imshow(picture, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    share = len(csr.values) / (part.rows * part.columns)
    dress(ax, f"{plain(part.name)}: {part.scheme}, {100 * share:.3g} %", "inputs", "outputs", grid="")
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)
    return ax
