# SPDX-License-Identifier: Apache-2.0
"""The pictures of the experiments.  Each function draws one; None: there is nothing to draw yet."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import common  # noqa: E402
import runs  # noqa: E402
from runs import ALL_METHODS, SCHEMES, SPARSITIES  # noqa: E402
from training_logs import KIB, PAPER, Log, Logs, step_times  # noqa: E402

MARKS = {90: "o", 95: "s"}
Draw = Callable[[Any, Logs], Optional[Any]]  # pyplot, logs -> figure


class Album:
    """Links the pictures of a folder, and draws them before if it is to."""

    def __init__(self, logs: Logs, folder: Path, document: Path, draws: bool = True) -> None:
        self.logs, self.folder, self.document = logs, folder, document
        self.plt = pyplot() if draws else None

    def picture(self, name: str, draw: Draw, says: str) -> List[str]:
        """Lines of Markdown."""
        path = self.folder / f"{self.logs.scale.name}-{name}.png"
        figure = draw(self.plt, self.logs) if self.plt else None
        if figure:
            self.folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=100)
            self.plt.close(figure)
        there = figure or (not self.plt and path.exists())
        return [f"![{says}]({path.relative_to(self.document.parent).as_posix()})", ""] if there else []


def pyplot() -> Any:
    if common.optional("matplotlib") is None:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def methods(plt: Any, logs: Logs) -> Optional[Any]:
    """Accuracy against sparsity, bars where there are several seeds."""
    return against_sparsity(plt, logs, "accuracy", "test accuracy, %")


def unforgettable(plt: Any, logs: Logs) -> Optional[Any]:
    """Figure 5(a) of the paper."""
    return against_sparsity(plt, logs, "unforgettable", "never forgotten, % of samples")


def against_sparsity(plt: Any, logs: Logs, value: str, label: str) -> Optional[Any]:
    """value: of Log."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5), constrained_layout=True)
    colours = plt.get_cmap("tab20").colors
    shown = [method for method in ALL_METHODS if method != "dense"]
    for index, method in enumerate(shown):
        points = {s: [getattr(log, value) for log in logs.method(method, s)] for s in SPARSITIES}
        points = {s: values for s, values in points.items() if values}
        if points:
            axes.errorbar(
                [s + 0.06 * (index - len(shown) / 2) for s in points],  # side by side, so that bars are seen
                [statistics.mean(values) for values in points.values()],
                [statistics.stdev(values) if len(values) > 1 else 0 for values in points.values()],
                fmt="o-", markersize=4, linewidth=2 if "MEST" in ALL_METHODS[method] else 1, capsize=2, color=colours[index],
                label=ALL_METHODS[method],
            )  # fmt: skip
    dense = [getattr(log, value) for log in logs.method("dense", 0)]
    if dense:
        axes.axhline(statistics.mean(dense), color="k", ls=":", label="dense")
    axes.set(xlabel="sparsity, %", ylabel=label, xticks=SPARSITIES)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def memory(plt: Any, logs: Logs) -> Optional[Any]:
    """Accuracy against the bytes of the model while it trains, a point a sparsity."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5), constrained_layout=True)
    if dense := logs.method("dense", 0):
        accuracy = statistics.mean(log.accuracy for log in dense)
        axes.plot(dense[0].model_bytes / KIB, accuracy, "k*", markersize=9, label="dense")
    colours = plt.get_cmap("tab20").colors
    for colour, method in zip(colours, [method for method in ALL_METHODS if method != "dense"]):
        found = [seeds for s in SPARSITIES if (seeds := logs.method(method, s))]
        if not found:
            continue
        axes.plot(
            [seeds[0].model_bytes / KIB for seeds in found],
            [statistics.mean(log.accuracy for log in seeds) for seeds in found],
            "o-", markersize=4, linewidth=2 if "MEST" in ALL_METHODS[method] else 1, color=colour,
            label=ALL_METHODS[method],
        )  # fmt: skip
    axes.set(xlabel="weights, indices, gradients, optimizer state: KiB", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def schemes(plt: Any, logs: Logs) -> Optional[Any]:
    """Figure 6: accuracy against bytes, and against time where it was measured."""
    times = step_times(logs.scale)
    against: Dict[str, Callable[[str, int, Log], Optional[float]]] = {
        "model with gradients and state, KiB": lambda scheme, sparsity, log: log.model_bytes / KIB
    }
    if times:
        against["ms a training step"] = lambda scheme, sparsity, log: times.get((scheme, sparsity))
    figure, panels = plt.subplots(
        1, len(against), figsize=(1 + 4.5 * len(against), 4), sharey=True, squeeze=False, constrained_layout=True
    )
    for axes, (label, value) in zip(panels[0], against.items()):
        for scheme, title in SCHEMES.items():
            found = [(s, value(scheme, s, log), log.accuracy) for s in SPARSITIES[:2] if (log := logs.scheme(scheme, s))]
            points = [point for point in found if point[1] is not None]
            if points:
                (line,) = axes.plot([x for _, x, _ in points], [y for _, _, y in points], label=title)
            for s, x, y in points:
                axes.plot(x, y, MARKS[s], color=line.get_color(), markerfacecolor="w" if s == 95 else None)
        for s in SPARSITIES[:2]:
            axes.plot([], [], MARKS[s], color="k", markerfacecolor="w" if s == 95 else None, label=f"{s} %")
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    panels[0][0].set(ylabel="test accuracy, %")
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def phases(plt: Any, logs: Logs) -> Optional[Any]:
    """Figure 5(b): accuracy against the length of phase 1."""
    found: Dict[int, Dict[int, float]] = {}
    for run in runs.phases(logs.scale.name):
        if log := logs.get(run.name):
            found.setdefault(run.options["remove_count"], {})[run.options["phase1_epochs"]] = log.accuracy
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(6, 3.5), constrained_layout=True)
    for count, points in sorted(found.items()):
        label = "leave: never forgotten" if count == 0 else f"leave: forgotten {count} time at most"
        axes.plot(list(points), list(points.values()), "o-", label=label)
    whole = logs.scheme("unstructured", 90)
    if whole:
        axes.axhline(whole.accuracy, color="k", ls=":", label="all stay")
    axes.set(xlabel="phase 1, epochs", ylabel="test accuracy, %", xticks=logs.scale.phases)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def forgotten(plt: Any, logs: Logs) -> Optional[Any]:
    """Figure 5(c): samples forgotten an epoch, mutations marked."""
    log = logs.get(runs.long(logs.scale.name).name)
    if log is None:
        return None
    chosen = [epoch for epoch in log.epochs if epoch["epoch"] in runs.FIGURE_5C]
    figure, axes = plt.subplots(figsize=(6, 3.5), constrained_layout=True)
    axes.plot([e["epoch"] for e in chosen], [e["forgotten"] for e in chosen], ".-", label="EM&S, 90 %")
    moved = [e for e in chosen if e["mutated"]]
    axes.plot([e["epoch"] for e in moved], [e["forgotten"] for e in moved], "o", label="began with a mutation")
    axes.set(xlabel="epoch", ylabel="samples forgotten", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def long(plt: Any, logs: Logs) -> Optional[Any]:
    """Accuracy by epoch of the long training."""
    log = logs.get(runs.long(logs.scale.name).name)
    if log is None:
        return None
    figure, axes = plt.subplots(figsize=(6, 3.5), constrained_layout=True)
    accuracies = [100 * value for value in log.column("validation_accuracy")]
    axes.plot(log.column("epoch"), accuracies, label="EM&S, 90 %")
    if logs.scale.name == "cifar10":
        axes.axhline(PAPER, color="k", ls=":", label=f"the paper: {PAPER} %")
    axes.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(min(accuracies[10:]) - 1, None))  # where it is decided
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
