# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of the experiments, from the logs of the trainings alone.

    python benchmarks/experiments/report.py [--scale digits] [--train] [--save]

--save writes docs/results.md (digits: benchmarks/results/experiments.md) with its pictures.  --train trains
everything first.  What was not trained yet is "-" in the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(HERE)]

import common  # noqa: E402
import run  # noqa: E402
import runs  # noqa: E402
from runs import FURTHER, METHODS, SCHEMES, SPARSITIES, Scale  # noqa: E402

ALL_METHODS = {**METHODS, **FURTHER}
KIB = 1024
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Log:
    """One training, as run.py wrote it."""

    run: Dict[str, Any]
    epochs: List[Dict[str, Any]]
    end: Dict[str, Any]

    def column(self, name: str) -> List[Any]:
        return [epoch[name] for epoch in self.epochs]

    @property
    def accuracy(self) -> float:
        """Of the test set after the last epoch, percent."""
        return 100 * self.epochs[-1]["validation_accuracy"]

    @property
    def unforgettable(self) -> float:
        """Samples learned and never forgotten, percent of the training set."""
        return 100 * self.end["forgetting"]["unforgettable"] / self.end["forgetting"]["samples"]

    @property
    def work(self) -> float:
        """Multiply-adds of all epochs: forward once, backward twice, not of frozen layers."""
        macs = self.run["layer_macs"]
        return sum(e["samples"] * (sum(macs) + 2 * sum(macs[e["frozen"] :])) for e in self.epochs)

    @property
    def model_bytes(self) -> int:
        """Weights, index, gradients, optimizer state."""
        plan = self.run["plan"]
        return sum(plan[name + "_bytes"] for name in ("weight", "index", "gradient", "state"))


def read(path: Path) -> Log:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kinds: Dict[str, List[Any]] = {}
    for line in lines:
        kinds.setdefault(line["kind"], []).append(line)
    return Log(kinds["run"][0], kinds["epoch"], kinds["end"][0])


class Logs:
    """Those of one scale, by name."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.found = {path.stem: read(path) for path in sorted((HERE / "logs" / scale.name).glob("*.jsonl"))}

    def get(self, name: str) -> Optional[Log]:
        return self.found.get(name)

    def method(self, method: str, sparsity: int) -> List[Log]:
        """All seeds."""
        names = [runs.of_method(self.scale.name, method, sparsity, seed).name for seed in self.scale.seeds]
        return [self.found[name] for name in names if name in self.found]

    def scheme(self, scheme: str, sparsity: int) -> Optional[Log]:
        seed = self.scale.seeds[0]
        if scheme == "unstructured":
            return self.get(runs.of_method(self.scale.name, "em&s", sparsity, seed).name)
        return self.get(f"{scheme}-{sparsity}-seed{seed}")


# ------------------------------------------------------------------------------------- numbers ---


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    """Of several seeds, with their sample deviation and number."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f} ({len(values)})"


@dataclass(frozen=True)
class Comparison:
    """Mean of the better-to-be minus that of the other, with the standard error of the difference."""

    difference: float
    error: Optional[float]  # None: a single seed somewhere

    def verdict(self) -> str:
        """Two standard errors are asked for; one seed decides nothing."""
        if self.error is None:
            return "one seed"
        if abs(self.difference) < 2 * self.error:
            return "not decided"
        return "confirmed" if self.difference > 0 else "contradicted"

    def __str__(self) -> str:
        sign = "+" if self.difference >= 0 else MINUS
        error = "" if self.error is None else f" ± {self.error:.2f}"
        return f"{sign}{abs(self.difference):.2f}{error}: {self.verdict()}"


def compare(better: Sequence[float], other: Sequence[float]) -> Optional[Comparison]:
    if not better or not other:
        return None
    difference = statistics.mean(better) - statistics.mean(other)
    if min(len(better), len(other)) < 2:
        return Comparison(difference, None)
    error = sum(statistics.variance(values) / len(values) for values in (better, other)) ** 0.5
    return Comparison(difference, error)


def cell(value: Optional[Any]) -> str:
    return "-" if value is None else str(value)


# ------------------------------------------------------------------------------------- methods ---

CLAIMS = (("em&s", "em"), ("em&s", "set"), ("em&s", "static"), ("em", "set"), ("em", "static"))


def accuracy_table(logs: Logs) -> str:
    dense = [log.accuracy for log in logs.method("dense", 0)]
    rows = [["dense", *[mean_and_deviation(dense)] * len(SPARSITIES)]]
    for method, title in ALL_METHODS.items():
        if method != "dense":
            values = [[log.accuracy for log in logs.method(method, sparsity)] for sparsity in SPARSITIES]
            rows.append([title, *map(mean_and_deviation, values)])
    return common.table(["method", *(f">{sparsity} %" for sparsity in SPARSITIES)], rows)


def claims_table(logs: Logs) -> str:
    rows = []
    for better, other in CLAIMS:
        found = [
            compare(*([log.accuracy for log in logs.method(method, sparsity)] for method in (better, other)))
            for sparsity in SPARSITIES
        ]
        rows.append([f"{METHODS[better]} above {METHODS[other]}", *map(cell, found)])
    return common.table(["points of accuracy", *(f">{sparsity} %" for sparsity in SPARSITIES)], rows)


def memory_table(logs: Logs, sparsity: int) -> str:
    """What each method needs, known before it runs."""
    rows = []
    for method, title in ALL_METHODS.items():
        found = logs.method(method, 0 if method == "dense" else sparsity)
        if not found:
            rows.append([title, *["-"] * 5])
            continue
        log, plan = found[0], found[0].run["plan"]
        rows.append([
            title, f"{plan['active_peak']:,}", f"{log.model_bytes / KIB:,.0f}",
            f"{100 * log.model_bytes / plan['dense_bytes']:.0f} %", f"{plan['mutation_bytes'] / KIB:,.1f}",
            f"{100 * log.end['explored']:.0f} %" if method != "dense" else "-",
        ])  # fmt: skip
    header = [f"method, {sparsity} %", ">connections, most", ">model KiB", ">of dense", ">mutation scratch KiB", ">explored"]
    return common.table(header, rows)


# ------------------------------------------------------------------------------------- schemes ---


def step_times(scale: Scale) -> Dict[Tuple[str, int], float]:
    """Milliseconds a step by (scheme, sparsity), from the benchmark of schemes: same network, quiet machine."""
    if scale.name != "cifar10" or not (common.RESULTS / "schemes.jsonl").exists():
        return {}
    found = {}
    for record in common.load("schemes")[1:]:
        variant = record.get("variant", {})
        if variant.get("library") == "mest" and variant["activations"] == "float32" and record["samples"]:
            found[variant["scheme"], round(variant["sparsity"])] = common.median(record["samples"])
    return found


def scheme_table(logs: Logs) -> str:
    times = step_times(logs.scale)
    rows = []
    for sparsity in SPARSITIES[:2]:
        reference = logs.scheme("unstructured", sparsity)
        for scheme, title in SCHEMES.items():
            log, ms = logs.scheme(scheme, sparsity), times.get((scheme, sparsity))
            gap = cell(compare([log.accuracy], [reference.accuracy])).split(":")[0] if log and reference else "-"
            rows.append([
                title, f"{sparsity} %", f"{log.accuracy:.2f}" if log else "-", gap, "-" if ms is None else f"{ms:.1f}",
                f"{log.model_bytes / KIB:,.0f}" if log else "-",
            ])  # fmt: skip
    return common.table(["scheme", ">sparsity", ">accuracy", ">than unstructured", ">ms a step", ">model KiB"], rows)


# ---------------------------------------------------------------------------------- forgetting ---


def unforgettable_table(logs: Logs) -> str:
    dense = [log.unforgettable for log in logs.method("dense", 0)]
    rows = [["dense", *[mean_and_deviation(dense, 1)] * len(SPARSITIES)]]
    for method, title in ALL_METHODS.items():
        if method != "dense":
            values = [[log.unforgettable for log in logs.method(method, sparsity)] for sparsity in SPARSITIES]
            rows.append([title, *(mean_and_deviation(found, 1) for found in values)])
    return common.table(["never forgotten, % of samples", *(f">{sparsity} %" for sparsity in SPARSITIES)], rows)


def phase_table(logs: Logs) -> str:
    whole = logs.method("em&s", 90)
    rows = [["all", "-", mean_and_deviation([log.accuracy for log in whole]), "-", "-"]]
    for run in runs.phases(logs.scale.name):
        log = logs.get(run.name)
        phase, count = run.options["phase1_epochs"], run.options["remove_count"]
        if log is None:
            rows.append([f"{phase}", f"at most {count}", "-", "-", "-"])
            continue
        removed, saved = log.epochs[-1]["absent"], log.end["forgetting"]["presentations_saved"]
        shown = saved + log.end["forgetting"]["presentations"]
        rows.append([f"{phase}", f"at most {count}", f"{log.accuracy:.2f}", f"{removed:,}", f"{100 * saved / shown:.1f} %"])
    header = [">phase 1, epochs", ">leave when forgotten", ">accuracy", ">samples that left", ">presentations saved"]
    return common.table(header, rows)


def spared_table(logs: Logs) -> str:
    """Each against the same training whole, the same seed."""
    whole = logs.get(runs.of_method(logs.scale.name, "em&s", 90, logs.scale.seeds[0]).name)
    rows = [["-", f"{whole.accuracy:.2f}" if whole else "-", "-", "-", "-"]]
    for run_ in runs.spared(logs.scale.name):
        log = logs.get(run_.name)
        words = run_.name.split("-")[0]
        if log is None:
            rows.append([words, *["-"] * 4])
            continue
        counts = log.end["forgetting"]
        saved = counts["presentations_saved"] / (counts["presentations_saved"] + counts["presentations"])
        frozen = sum(log.run["layer_macs"][: log.epochs[-1]["frozen"]]) / sum(log.run["layer_macs"])
        untouched = log.run["config"]["samples"] * len(log.epochs) * 3 * sum(log.run["layer_macs"])
        rows.append([
            words, f"{log.accuracy:.2f}", f"{100 * saved:.1f} %", f"{100 * frozen:.0f} %",
            f"{100 * (1 - log.work / untouched):.0f} %",
        ])  # fmt: skip
    header = ["EM&S, 90 %", ">accuracy", ">presentations saved", ">multiply-adds frozen at the end", ">work saved"]
    return common.table(header, rows)


def forgetting_of_epochs(log: Log, first: int, last: int) -> Tuple[float, float]:
    """Mean number of samples forgotten an epoch: in epochs that began with a mutation, in the others."""
    chosen = [epoch for epoch in log.epochs if first <= epoch["epoch"] <= last]
    with_, without = ([e["forgotten"] for e in chosen if e["mutated"] is kind] for kind in (True, False))
    return statistics.mean(with_), statistics.mean(without)


# ------------------------------------------------------------------------------------ pictures ---


def pyplot() -> Any:
    if common.optional("matplotlib") is None:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_unforgettable(plt: Any, logs: Logs, path: Path) -> bool:
    """Figure 5(a) of the paper."""
    figure, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for method, title in ALL_METHODS.items():
        points = [(s, logs.method(method, s)) for s in SPARSITIES if logs.method(method, s)]
        if points:
            values = [statistics.mean(log.unforgettable for log in found) for _, found in points]
            axes.plot([s for s, _ in points], values, "o-", label=title)
    dense = logs.method("dense", 0)
    if dense:
        axes.axhline(statistics.mean(log.unforgettable for log in dense), color="k", ls=":", label="dense")
    axes.set(xlabel="sparsity, %", ylabel="never forgotten, % of samples", xticks=SPARSITIES)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    return True


def draw_forgotten(plt: Any, logs: Logs, path: Path) -> bool:
    """Figure 5(c): samples forgotten an epoch, mutations marked."""
    log = logs.get("long-resnet20")
    if log is None:
        return False
    chosen = [epoch for epoch in log.epochs if 50 <= epoch["epoch"] <= 80]
    figure, axes = plt.subplots(figsize=(6, 3.5), constrained_layout=True)
    axes.plot([e["epoch"] for e in chosen], [e["forgotten"] for e in chosen], ".-", label="EM&S, 90 %")
    moved = [e for e in chosen if e["mutated"]]
    axes.plot([e["epoch"] for e in moved], [e["forgotten"] for e in moved], "o", label="began with a mutation")
    axes.set(xlabel="epoch", ylabel="samples forgotten", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
    return True


def draw_schemes(plt: Any, logs: Logs, path: Path) -> bool:
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
            found = [(value(scheme, s, log), log.accuracy) for s in SPARSITIES[:2] if (log := logs.scheme(scheme, s))]
            points = [(x, y) for x, y in found if x is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], "o-", label=title)
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    panels[0][0].set(ylabel="test accuracy, %")
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=100)
    return True


def draw_long(plt: Any, logs: Logs, path: Path) -> bool:
    found = [(run.name, log) for run in runs.long(logs.scale.name) if (log := logs.get(run.name))]
    if not found:
        return False
    figure, axes = plt.subplots(figsize=(6, 3.5), constrained_layout=True)
    for name, log in found:
        axes.plot(log.column("epoch"), [100 * value for value in log.column("validation_accuracy")], label=name)
    axes.set(xlabel="epoch", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
    return True


# ------------------------------------------------------------------------------------ document ---


def origin(logs: Logs) -> List[str]:
    """Where the logs come from, and the commands."""
    every = list(logs.found.values())
    facts = {key: sorted({log.run[key] for log in every}) for key in ("date", "CPU", "build")}
    minutes = sum(log.end["cpu_seconds"] for log in every) / 60
    took = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.1f} minutes"
    flag = "" if logs.scale.name == "cifar10" else f" --scale {logs.scale.name}"
    data = "MEST_DATA=FOLDER " if logs.scale.name == "cifar10" else ""
    return [
        f"- trained by: `{data}python benchmarks/experiments/run.py{flag}`, {len(every)} trainings, {took} of "
        "one core; each training's log, with its own command, lies in "
        f"`benchmarks/experiments/logs/{logs.scale.name}/`",
        f"- tables and pictures by: `python benchmarks/experiments/report.py{flag} --save`",
        *(f"- {key}: {'; '.join(values)}" for key, values in facts.items()),
    ]


def long_text(logs: Logs) -> List[str]:
    lines = []
    for run in runs.long(logs.scale.name):
        log = logs.get(run.name)
        if log is None:
            continue
        settled = [e for e in log.epochs if e["epoch"] >= 0.75 * log.run["config"]["epochs"]]
        best = max(100 * e["validation_accuracy"] for e in settled)
        lines.append(
            f"- {run.name}: {len(log.epochs)} epochs, EM&S 90 %: {log.accuracy:.2f} % after the last, "
            f"{best:.2f} % the best once the target density was reached"
        )
    return lines


def document(logs: Logs, pictures: Optional[Path], link: Callable[[Path], str]) -> str:
    """pictures: the folder to draw them in; None: the document has none."""
    scale, plt = logs.scale, pyplot() if pictures else None
    network = scale.network

    def picture(name: str, draw: Callable[[Any, Logs, Path], bool], says: str) -> List[str]:
        if pictures is None or plt is None:
            return []
        pictures.mkdir(parents=True, exist_ok=True)
        path = pictures / f"{scale.name}-{name}.png"
        return [f"![{says}]({link(path)})", ""] if draw(plt, logs, path) else []

    what = {"cifar10": "CIFAR-10", "digits": "8 x 8 digits"}[scale.name]
    text = [
        f"# Experiments on {what}", "",
        f"ResNet-{network['depth']}, {network['width']}/{2 * network['width']}/{4 * network['width']} channels, "
        f"{scale.epochs} epochs unless said otherwise; the recipe stands in `benchmarks/experiments/runs.py`. The MEST "
        "authors train 160 epochs: all schedules are scaled to the length here. Accuracy is that of the test set after "
        "the last epoch, in percent; ± is the deviation of the seeds, their number in brackets.", "",
        *origin(logs), "",
        "## Methods", "",
        "Unstructured, the same density in every sparse layer.", "",
        accuracy_table(logs), "",
        "What the paper claims, here: the difference of the means and its standard error; confirmed or contradicted "
        "where it is more than two of them.", "",
        claims_table(logs), "",
        "What each needs, as the plan says before anything is allocated (no method has a dense tensor; the dense "
        "network's weights, gradients and momentum are the 100 %):", "",
        memory_table(logs, 90), "",
        "## Schemes", "",
        *(["Under EM&S, one seed. Milliseconds: `make bench BENCHMARKS=schemes`, batch 64, two threads.", ""]
          if scale.name == "cifar10" else ["Under EM&S, one seed.", ""]),
        scheme_table(logs), "",
        *picture("schemes", draw_schemes, "accuracy against time and bytes"),
        "## Forgetting", "",
        "Samples that were learned and then never answered wrongly again in training:", "",
        unforgettable_table(logs), "",
        *picture("unforgettable", draw_unforgettable, "unforgettable samples against sparsity"),
        "Two-phase training, EM&S 90 %: samples forgotten at most so often leave the training set after phase 1.", "",
        phase_table(logs), "",
        "## Less work", "",
        "Front layers freeze, a fifth of the samples takes turns outside of the training set, both (`freeze_share`, "
        "`sieve_absent`). Work: multiply-adds, forward once, backward twice.", "",
        spared_table(logs), "",
    ]  # fmt: skip
    log = logs.get("long-resnet20")
    if log is not None:
        mutated, quiet = forgetting_of_epochs(log, 50, 80)
        text += [
            "Forgotten in epochs 50 to 80 of a long training: "
            f"{mutated:,.0f} samples an epoch that begins with a mutation, {quiet:,.0f} in one that does not.", "",
            *picture("forgotten", draw_forgotten, "samples forgotten by epoch"),
        ]  # fmt: skip
    if long_text(logs):
        text += ["## Long trainings", "", *long_text(logs), "", *picture("long", draw_long, "test accuracy by epoch")]
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=runs.SCALES, default="cifar10")
    parser.add_argument("--train", action="store_true", help="everything, again, before the report")
    parser.add_argument("--save", action="store_true", help="write the document and its pictures")
    options = parser.parse_args()
    scale = runs.SCALES[options.scale]
    if options.train:
        run.train_all(runs.all_runs(scale.name), os.cpu_count() or 1, again=True)
    logs = Logs(scale)
    if not logs.found:
        sys.exit(f"no logs of {options.scale} yet: run.py trains")
    target = ROOT / "docs" / "results.md" if scale.name == "cifar10" else common.RESULTS / "experiments.md"
    pictures = target.parent / "pictures" if scale.name == "cifar10" else target.parent
    text = document(logs, pictures if options.save else None, lambda path: path.relative_to(target.parent).as_posix())
    print(text)
    if options.save:
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
        print(f"written to {target.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
