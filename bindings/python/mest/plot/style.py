# SPDX-License-Identifier: Apache-2.0
"""What all pictures share: colours, axes, numbers as people read them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Optional, Sequence, Tuple

Axes = Any  # matplotlib.axes.Axes, which is not imported with the package

# Okabe and Ito's palette, which people with any kind of colour vision tell apart.  A thing has the same
# colour in every picture.
COLOURS = {
    "weights": "#0072b2",
    "indices": "#56b4e9",
    "gradients": "#e69f00",
    "optimizer state": "#d55e00",
    "activations, scratch": "#009e73",
    "batch": "#cc79a7",
    "forgetting counts": "#f0e442",
    "recovery": "#7a5195",
    "tables": "#8c8c8c",
    "sparse": "#0072b2",
    "dense": "#8c8c8c",
    "training": "#e69f00",
    "validation": "#0072b2",
    "grown": "#009e73",
    "dropped": "#d55e00",
    "mutation": "#d55e00",
    "surviving": "#0072b2",
    "forgotten": "#cc79a7",
    "never forgotten": "#009e73",
    "never learned": "#8c8c8c",
    "left": "#7a5195",
}
# For lines that stand for runs or layers, not for things.
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c8c8c")
HEAT = "cividis"  # a colour map made for the colour-blind
SMALL = 8.5  # points


def pyplot() -> Any:
    """matplotlib.pyplot.  ImportError that says how to get it."""
    try:
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError("mest.plot draws with matplotlib: pip install matplotlib") from error


def axes_of(ax: Optional[Axes], width: float = 6.0, height: float = 3.5) -> Axes:
    """ax, or new axes in a figure of their own of so many inches."""
    if ax is not None:
        if not hasattr(ax, "plot"):
            hint = ": give axes of it, figure.subplots()" if hasattr(ax, "subplots") else ""
            raise TypeError(f"ax is a {type(ax).__name__}, matplotlib's Axes are wanted{hint}")
        return ax
    _, ax = pyplot().subplots(figsize=(width, height), layout="constrained")
    return ax


def dress(ax: Axes, title: str, x: str = "", y: str = "", grid: str = "y") -> Axes:
    """Title, what is on the axes, a quiet frame.  grid: "x", "y", "both" or ""."""
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.tick_params(labelsize=SMALL)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if grid:
        ax.grid(axis=grid, alpha=0.3, linewidth=0.6)
        ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, **more: Any) -> None:
    """A small one without a frame, if there is anything to name."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(**{"fontsize": SMALL, "frameon": False, **more})


def legend_above(ax: Axes) -> None:
    """A legend in a line of its own between the title and the axes, where no bar is."""
    legend(ax, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.1)
    ax.set_title(ax.get_title(loc="left"), fontsize=10, loc="left", pad=2.6 * SMALL)


def plain(name: str) -> str:
    """A layer's name as it is: a pair of dollar signs would be set as mathematics."""
    return name.replace("$", r"\$")


def whole_epochs(ax: Axes) -> None:
    """Ticks of the x axis at whole numbers."""
    ax.xaxis.set_major_locator(import_module("matplotlib.ticker").MaxNLocator(integer=True, nbins=8))


def size(count: float) -> str:
    """Bytes: "812 B", "12.4 KiB", "3.1 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{three_digits(count)} {unit}"
        count /= 1024
    return f"{three_digits(count)} GiB"


def three_digits(value: float) -> str:
    """1.23, 12.3, 123, 1,234: never 1.23e+03."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def size_unit(most: float) -> Tuple[int, str]:
    """(bytes, name) of the unit in which numbers up to `most` bytes are short."""
    for bytes_, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if most >= bytes_:
            return bytes_, name
    return 1, "bytes"


def heat(ax: Axes, values: Any, rows: Sequence[str], columns: Sequence[int], title: str, unit: str,
         most: float) -> Axes:  # fmt: skip
    """Rows of layers, columns of epochs; a bar tells what the colours mean.  values: 0 .. most."""
    picture = ax.imshow(values, cmap=HEAT, aspect="auto", interpolation="nearest", vmin=0, vmax=most)
    dress(ax, title, "epoch of the mutation", grid="")
    few = max(1, -(-len(columns) // 10))
    ax.set_xticks(range(0, len(columns), few), [str(c) for c in columns[::few]])
    named = max(1, -(-len(rows) // 30))
    ax.set_yticks(range(0, len(rows), named), [plain(row) for row in rows[::named]])
    bar = ax.figure.colorbar(picture, ax=ax, fraction=0.04, pad=0.02)
    bar.set_label(unit, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    return ax
