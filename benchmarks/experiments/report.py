# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of the experiments, from the logs of the trainings and the library's plans.

    python benchmarks/experiments/report.py [--scale digits] [--train] [--save]

--save writes docs/results.md (digits: benchmarks/results/experiments.md) with its pictures.  --train trains
everything first.  What was not trained yet is "-" in the tables.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Dict, Iterable, List, Sequence, Tuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(HERE)]

import common  # noqa: E402
import pictures  # noqa: E402
import run  # noqa: E402
import runs  # noqa: E402
from runs import ALL_METHODS, METHODS, PLANNED, SCHEMES, SPARSITIES  # noqa: E402
from training_logs import (  # noqa: E402
    KIB, PAPER, Logs, cell, compare, mean_and_deviation, model_bytes, paired, signed, step_times,
)  # fmt: skip


# ------------------------------------------------------------------------------------- methods ---

CHOOSERS = ("snip", "rigl", "grasp")  # by gradients, of which MEST asks none
ACCURACY_CLAIMS = (
    ("em&s", "em"),
    *((ours, other) for ours in ("em&s", "em") for other in ("set", "static", *CHOOSERS)),
)
UNFORGETTABLE_CLAIMS = (("em&s", "em"), ("em&s", "set"))
SECONDS_SAVED = (
    "Seconds saved: as if those that left had taken as long as those that stayed, epoch by epoch (`History.savings()`); "
    "the machine did other work too, more in some trainings than in others, so compare presentations."
)
BY_GRADIENT = ("rigl", "gse")  # what they explore is not known: gradients bring back the same connections


def method_table(logs: Logs, value: str, digits: int, title: str) -> str:
    """A row a method; the highest of the sparse ones in bold.  value: of Log."""
    found = {
        method: [[getattr(log, value) for log in logs.method(method, 0 if method == "dense" else s)] for s in SPARSITIES]
        for method in ALL_METHODS
    }
    sparse = [columns for method, columns in found.items() if method != "dense"]

    def mean(values: List[float]) -> float:
        return round(statistics.mean(values), digits)  # so that what looks equal is

    highest = [max((mean(rows[i]) for rows in sparse if rows[i]), default=None) for i in range(len(SPARSITIES))]

    def shown(method: str, i: int) -> str:
        values = found[method][i]
        text = mean_and_deviation(values, digits)
        return f"**{text}**" if method != "dense" and values and mean(values) == highest[i] else text

    rows = [[name, *(shown(method, i) for i in range(len(SPARSITIES)))] for method, name in ALL_METHODS.items()]
    return common.table([title, *(f">{sparsity} %" for sparsity in SPARSITIES)], rows)


def claims_table(logs: Logs, claims: Sequence[Tuple[str, str]], value: str, points: str) -> str:
    """Who should be above whom, and by how much."""
    rows = []
    for better, other in claims:
        found = [
            compare(*([getattr(log, value) for log in logs.method(method, s)] for method in (better, other)))
            for s in SPARSITIES
        ]
        rows.append([f"{ALL_METHODS[better]} above {ALL_METHODS[other]}", *map(cell, found)])
    return common.table([points, *(f">{sparsity} %" for sparsity in SPARSITIES)], rows)


def plainly(logs: Logs) -> str:
    """Who is above whom by the means alone, in words."""

    def mean(method: str, sparsity: int) -> float:
        return statistics.mean(log.accuracy for log in logs.method(method, sparsity))

    said = []
    for ours in ("em&s", "em"):
        for word, sign in (("above", 1), ("below", -1)):
            where: Dict[Tuple[int, ...], List[str]] = {}
            for other in CHOOSERS:
                both = [s for s in SPARSITIES if logs.method(ours, s) and logs.method(other, s)]
                if chosen := tuple(s for s in both if sign * (mean(ours, s) - mean(other, s)) > 0):
                    where.setdefault(chosen, []).append(ALL_METHODS[other])
            found = [f"{listed(names)} at {listed(map(str, sparsities))} %" for sparsities, names in where.items()]
            said += [f"{METHODS[ours]} is {word} {', '.join(found)}"] if found else []
    few = "" if all(len(logs.method(m, s)) > 1 for m in CHOOSERS for s in SPARSITIES) else ", most of them of one seed"
    return f"In plain words, by the means{few}, after {logs.scale.epochs} epochs: {'; '.join(said)}." if said else ""


def listed(words: Iterable[str]) -> str:
    """a, b and c"""
    *front, last = words
    return f"{', '.join(front)} and {last}" if front else last


def memory_table(logs: Logs, sparsity: int) -> str:
    """What each method needs, by the plans of today's library, and what it explored."""
    import mest

    rows = []
    for method, title in {**ALL_METHODS, **{name: f"{said}, not trained" for name, said in PLANNED.items()}}.items():
        chosen = runs.of_method(logs.scale.name, method, 0 if method == "dense" else sparsity, logs.scale.seeds[0])
        log = logs.get(chosen.name)
        plan = run.memory(mest.plan(mest.resnet(**chosen.architecture()), threads=1, **chosen.config(1000)))
        known = log and method not in ("dense", *BY_GRADIENT)
        rows.append([
            title, f"{plan['active_peak']:,}", f"{model_bytes(plan) / KIB:,.0f}",
            f"{100 * model_bytes(plan) / plan['dense_bytes']:.0f} %", f"{plan['mutation_bytes'] / KIB:,.1f}",
            "-" if method == "dense" else "yes" if plan["memory_economic"] else "no",
            f"{100 * log.end['explored']:.0f} %" if known else "-",
        ])  # fmt: skip
    header = [
        f"method, {sparsity} %", ">parameters, most", ">model KiB", ">of dense", ">mutation scratch KiB",
        "memory-economic", ">explored",
    ]  # fmt: skip
    return common.table(header, rows)


def equal_memory_table(logs: Logs) -> str:
    """EM&S against what has the bytes, while it trains, that EM&S has at a higher sparsity."""
    rows = []
    for sparsity in SPARSITIES:
        ours = logs.method("em&s", sparsity)
        for method in METHODS:
            for lower in SPARSITIES:
                theirs = logs.method(method, lower) if lower < sparsity and method != "em&s" else []
                if ours and theirs and abs(theirs[0].model_bytes / ours[0].model_bytes - 1) < 0.05:
                    compared = compare([log.accuracy for log in ours], [log.accuracy for log in theirs])
                    rows.append([
                        f"EM&S {sparsity} %", f"{ours[0].model_bytes / KIB:,.0f}", f"{METHODS[method]} {lower} %",
                        f"{theirs[0].model_bytes / KIB:,.0f}", cell(compared),
                    ])  # fmt: skip
    return common.table(["this", ">model KiB", "above this", ">model KiB", ">points of accuracy"], rows)


# ------------------------------------------------------------------------------------- schemes ---


def scheme_table(logs: Logs) -> str:
    times = step_times(logs.scale)
    rows = []
    for sparsity in SPARSITIES[:2]:
        reference = logs.scheme("unstructured", sparsity)
        for scheme, title in SCHEMES.items():
            log, ms = logs.scheme(scheme, sparsity), times.get((scheme, sparsity))
            gap = cell(compare([log.accuracy], [reference.accuracy])).split(":")[0] if log and reference else "-"
            rows.append([
                title, f"{sparsity} %", f"{100 * (1 - log.epochs[-1]['density']):.1f} %" if log else "-",
                f"{log.accuracy:.2f}" if log else "-", gap, "-" if ms is None else f"{ms:.1f}",
                f"{log.model_bytes / KIB:,.0f}" if log else "-",
            ])  # fmt: skip
    header = ["scheme", ">sparsity asked for", ">had", ">accuracy", ">than unstructured", ">ms a step", ">model KiB"]
    return common.table(header, rows)


# ---------------------------------------------------------------------------------- forgetting ---


def monotone_text(logs: Logs) -> str:
    fewer = compared = 0
    for method in ALL_METHODS:
        found = [logs.method(method, s) for s in SPARSITIES]
        means = [statistics.mean(log.unforgettable for log in seeds) for seeds in found if seeds]
        if method != "dense" and len(means) == len(SPARSITIES):
            compared += 1
            fewer += means == sorted(means, reverse=True)
    return (
        f"The paper finds fewer of them the higher the sparsity (here: in {fewer} of {compared} methods), and more under "
        "the better method:"
    )


def phase_table(logs: Logs) -> str:
    """Each against the same training whole, the same seed."""
    whole = logs.scheme("unstructured", 90)
    rows = [["all", "-", f"{whole.accuracy:.2f}" if whole else "-", "-", "-", "-"]]
    for run_ in runs.phases(logs.scale.name):
        log = logs.get(run_.name)
        phase, count = run_.options["phase1_epochs"], run_.options["remove_count"]
        if log is None:
            rows.append([f"{phase}", f"at most {count}", *["-"] * 4])
            continue
        rows.append([
            f"{phase}", f"at most {count}", f"{log.accuracy:.2f}", f"{log.epochs[-1]['absent']:,}",
            f"{100 * log.share_saved:.1f} %", f"{log.seconds_saved:,.1f}",
        ])  # fmt: skip
    header = [
        ">phase 1, epochs", ">leave when forgotten", ">accuracy", ">samples that left", ">presentations saved",
        ">seconds saved",
    ]  # fmt: skip
    return common.table(header, rows)


def spared_table(logs: Logs) -> str:
    """Each against the same training whole, the same seed."""
    whole = logs.scheme("unstructured", 90)
    rows = [["-", f"{whole.accuracy:.2f}" if whole else "-", *["-"] * 4]]
    for run_ in runs.spared(logs.scale.name):
        log = logs.get(run_.name)
        words = run_.name.split("-")[0]
        if log is None:
            rows.append([words, *["-"] * 5])
            continue
        frozen = sum(log.run["layer_macs"][: log.epochs[-1]["frozen"]]) / sum(log.run["layer_macs"])
        untouched = log.run["config"]["samples"] * len(log.epochs) * 3 * sum(log.run["layer_macs"])
        rows.append([
            words, f"{log.accuracy:.2f}", f"{100 * log.share_saved:.1f} %", f"{log.seconds_saved:,.1f}", f"{100 * frozen:.0f} %",
            f"{100 * (1 - log.work / untouched):.0f} %",
        ])  # fmt: skip
    header = [
        "EM&S, 90 %", ">accuracy", ">presentations saved", ">seconds saved by them", ">multiply-adds frozen at the end",
        ">work saved",
    ]  # fmt: skip
    return common.table(header, rows)


def forgotten_lines(logs: Logs) -> List[str]:
    """Samples forgotten an epoch: where connections moved before it against its two neighbours."""
    name = runs.long(logs.scale.name).name
    log = logs.get(name)
    if log is None:
        return []
    chosen = [epoch for epoch in log.epochs if epoch["epoch"] in runs.FIGURE_5C]
    trios = [trio for trio in zip(chosen, chosen[1:], chosen[2:]) if trio[1]["mutated"]]
    more = [now["forgotten"] - (before["forgotten"] + after["forgotten"]) / 2 for before, now, after in trios]
    found, usual = paired(more), statistics.mean(now["forgotten"] for _, now, _ in trios) - statistics.mean(more)
    verdict = "not contradicted" if found.verdict() == "not decided" else "contradicted"
    share = f", {signed(100 * found.difference / usual, 1)} %" if usual else ""
    return [
        f"Forgotten in epochs 50 to 80 of {name}, below: the paper finds no difference between epochs that begin with a "
        "mutation and others. Here such an epoch against the mean of the epochs before and after it, "
        f"{len(more)} pairs: {', '.join(signed(n, 1) for n in more)} samples; mean {signed(found.difference, 1)} ± "
        f"{found.error:,.1f}{share}: {verdict} (paired t-test at 95 %).", "",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ document ---


def command(logs: Logs, script: str) -> str:
    data = "MEST_DATA=FOLDER " if logs.scale.name == "cifar10" and script == "run.py" else ""
    scale = "" if logs.scale.name == "cifar10" else f" --scale {logs.scale.name}"
    return f"{data}python benchmarks/experiments/{script}{scale}"


def origin(logs: Logs) -> List[str]:
    """Where the logs come from, and the commands."""
    every = list(logs.found.values())
    facts = {key: sorted({log.run.get(key, "not recorded") for log in every}) for key in ("date", "CPU", "build", "commit")}
    minutes = sum(log.end["seconds"] for log in every) / 60
    took = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.1f} minutes"
    missing = len(runs.all_runs(logs.scale.name)) - len(every)
    still = [f"- **not complete**: {missing} trainings are still to come, `-` below"] if missing else []
    return [
        *still,
        f"- trained by: `{command(logs, 'run.py')}`, {len(every)} trainings, {took} one "
        "after the other; each training's log, with its own command, lies in "
        f"`benchmarks/experiments/logs/{logs.scale.name}/`",
        f"- tables and pictures by: `{command(logs, 'report.py')} --save`",
        *(f"- {key}: {'; '.join(values)}" for key, values in facts.items()),
    ]


def long_text(logs: Logs) -> str:
    log = logs.get(runs.long(logs.scale.name).name)
    if log is None:
        return ""
    settled = [e for e in log.epochs if e["epoch"] >= 0.75 * log.run["config"]["epochs"]]
    best = max(100 * e["validation_accuracy"] for e in settled)
    theirs = f"; the paper has {PAPER} %" if logs.scale.name == "cifar10" else ""
    return (
        f"{log.run['name']}: {len(log.epochs)} epochs, EM&S 90 %: {log.accuracy:.2f} % after the last, "
        f"{best:.2f} % the best once the target density was reached{theirs}."
    )


def relative(path: Path, document: Path) -> str:
    """For a link."""
    return Path(os.path.relpath(path, document.parent)).as_posix()


def every_table(logs: Logs, document: Path) -> str:
    """One line a training: the rest stands in its log."""
    rows = []
    for run_ in runs.all_runs(logs.scale.name):
        log = logs.get(run_.name)
        if log is None:
            continue
        rows.append([
            f"[{run_.name}]({relative(run.log_path(run_), document)})", f"{len(log.epochs)}", f"{log.accuracy:.2f}",
            f"{log.unforgettable:.1f}" if log.counts_once else "-", f"{log.end['seconds']:,.1f}",
        ])  # fmt: skip
    return common.table(["NAME", ">epochs", ">accuracy", ">never forgotten, %", ">seconds"], rows)


def updates(logs: Logs) -> int:
    """Of an epoch."""
    config = next(iter(logs.found.values())).run["config"]
    return -(-config["samples"] // config["batch"])


def warm_up(logs: Logs) -> str:
    """What an epoch between DSR's moves does to a threshold that doubles from 0.001."""
    said = []
    for sparsity in SPARSITIES:
        for log in logs.method("dsr", sparsity)[:1]:
            moves = [n for n in log.column("dropped") if n]
            rising = next((i for i, (n, after) in enumerate(zip(moves, moves[1:])) if after < n), len(moves))
            said.append(f"{rising} of {len(moves)} at {sparsity} %")
    return f": its threshold still rises from 0.001 in the first of its moves, {listed(said)}" if said else ""


def recipe_text(logs: Logs) -> str:
    scale = logs.scale
    network = scale.network
    return (
        f"ResNet-{network['depth']}, {network['width']}/{2 * network['width']}/{4 * network['width']} channels, "
        f"{scale.epochs} epochs unless said otherwise; the recipe stands in `benchmarks/experiments/runs.py`. The MEST "
        "authors train 160 epochs: what they say in epochs, the learning rate and MEST's mutations, is scaled to the "
        f"length here, an epoch of {updates(logs)} updates. As published: RigL moves every 100 updates, GSE every 1000, "
        "both at least once an epoch; SET after every epoch. Not as published: SRigL moves after every epoch instead of "
        f"every 100 updates, and so does DSR instead of every 100 to 800{warm_up(logs)}. Accuracy is that of the "
        f"{scale.test_samples:,} test samples after the last epoch, in percent (a sample is "
        f"{100 / scale.test_samples:.2f} points); ± is the deviation of the seeds, their number in brackets; bold: "
        "the highest mean of the sparse methods."
    )


def methods_section(logs: Logs, album: pictures.Album) -> List[str]:
    return [
        "## Methods", "",
        "Unstructured, the same density in every sparse layer. SNIP, GraSP and DSR share the same number of connections "
        "out themselves; SRigL has as many in every row (scheme `fan_in`). SET is as its authors have it: 30 % leave after "
        "every epoch to the last, also when the learning rate lets new ones, which begin at N(0, 0.1²), learn no more. In "
        "MEST EM 20 % leave, the share falls to 0, and new ones begin at 0.", "",
        method_table(logs, "accuracy", 2, "accuracy"), "",
        *album.picture("methods", pictures.methods, "accuracy against sparsity"),
        "What the paper claims, and MEST against what chooses by gradients, here: the difference of the means and its "
        "standard error; confirmed or contradicted where Welch's t-test says so at 95 %, each cell by itself: of twenty "
        "cells without any difference one would.", "",
        claims_table(logs, ACCURACY_CLAIMS, "accuracy", "points of accuracy"), "",
        plainly(logs), "",
        "## Memory", "",
        "What each needs, as the plan says before anything is allocated (no method has a dense tensor; the dense "
        "network's weights, gradients and momentum are the 100 %). Memory-economic: never more than twice the connections "
        "of the target. Explored: the share of positions that have ever been connected (SNIP, GraSP: since they chose), "
        "as random growth lets expect it.", "",
        *(line for sparsity in SPARSITIES for line in (memory_table(logs, sparsity), "")),
        "EM&S pays for its growth: it needs, while it trains, the bytes of a denser network, though what it ends with is "
        "as sparse as said. At equal bytes, of which the paper says nothing; the verdict is on \"above\":", "",
        equal_memory_table(logs), "",
        *album.picture("memory", pictures.memory, "accuracy against the bytes of the model in training"),
    ]  # fmt: skip


def schemes_section(logs: Logs, album: pictures.Album) -> List[str]:
    timed = "Milliseconds, at the target density: `make bench BENCHMARKS=schemes`, batch 64, two threads. "
    return [
        "## Schemes", "",
        f"Under EM&S, one seed. {timed if logs.scale.name == 'cifar10' else ''}Where channels that layers share must all "
        "exist, a network has less sparsity than was asked for. At most 2 of 4 and constant fan-in have the bytes of single "
        "weights: they are stored the same way, for one kernel, and a code for 2 of 4 would pay near 50 % alone "
        f"([ARCHITECTURE.md]({relative(ROOT / 'ARCHITECTURE.md', album.document)}), 19).", "",
        scheme_table(logs), "",
        *album.picture("schemes", pictures.schemes, "accuracy against time and bytes"),
    ]  # fmt: skip


def forgetting_section(logs: Logs, album: pictures.Album) -> List[str]:
    return [
        "## Forgetting", "",
        "Samples that were learned and then never answered wrongly again in training:", "",
        method_table(logs, "unforgettable", 1, "never forgotten, % of samples"), "",
        monotone_text(logs), "",
        claims_table(logs, UNFORGETTABLE_CLAIMS, "unforgettable", "points"), "",
        *album.picture("unforgettable", pictures.unforgettable, "unforgettable samples against sparsity"),
        "Two-phase training, EM&S 90 %, one seed: samples forgotten at most so often leave the training set after "
        f"phase 1. {SECONDS_SAVED}", "",
        phase_table(logs), "",
        *album.picture("phases", pictures.phases, "accuracy against the length of phase 1"),
        *forgotten_lines(logs), *album.picture("forgotten", pictures.forgotten, "samples forgotten by epoch"),
    ]  # fmt: skip


def spared_section(logs: Logs) -> List[str]:
    return [
        "## Less work", "",
        "Front layers freeze, a fifth of the samples takes turns outside of the training set, both (`freeze_share`, "
        "`sieve_absent`); one seed. Work: multiply-adds, forward once, backward twice. Seconds saved: as above, by absent "
        "samples alone.", "",
        spared_table(logs), "",
    ]  # fmt: skip


def long_section(logs: Logs, album: pictures.Album) -> List[str]:
    text = long_text(logs)
    picture = album.picture("long", pictures.long, "test accuracy by epoch")
    return ["## A long training", "", text, "", *picture] if text else []


def every_section(logs: Logs, album: pictures.Album) -> List[str]:
    if logs.scale.name == "digits":  # far too many
        return []
    return [
        "## Every training", "",
        f"One of them again: `{command(logs, 'run.py')} --one NAME`. Seconds are wall-clock time of one thread on a "
        "machine that did other work too. Where samples leave the training set forgetting is counted anew: `-`.", "",
        every_table(logs, album.document),
    ]  # fmt: skip


def document(logs: Logs, album: pictures.Album) -> str:
    what = {"cifar10": "CIFAR-10", "digits": "8 x 8 digits"}[logs.scale.name]
    text = [
        f"# Experiments on {what}", "", recipe_text(logs), "", *origin(logs), "",
        *methods_section(logs, album), *schemes_section(logs, album), *forgetting_section(logs, album),
        *spared_section(logs), *long_section(logs, album), *every_section(logs, album),
    ]  # fmt: skip
    return "\n".join(text).rstrip() + "\n"


def place(scale: runs.Scale) -> Tuple[Path, Path]:
    """Of the document and of its pictures."""
    if scale.name == "cifar10":
        return ROOT / "docs/results.md", ROOT / "docs/pictures"
    return common.RESULTS / "experiments.md", common.RESULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=runs.SCALES, default="cifar10")
    parser.add_argument("--train", action="store_true", help="everything, again, before the report")
    parser.add_argument("--save", action="store_true", help="write the document and its pictures: needs matplotlib")
    options = parser.parse_args()
    if options.save and common.optional("matplotlib") is None:
        sys.exit("--save needs matplotlib: without it the document would lose its pictures")
    scale = runs.SCALES[options.scale]
    if options.train:
        run.train_all(runs.all_runs(scale.name), os.cpu_count() or 1, again=True)
    logs = Logs(scale)
    if not logs.found:
        sys.exit(f"no logs of {options.scale} yet: run.py trains")
    target, folder = place(scale)
    text = document(logs, pictures.Album(logs, folder, target, draws=options.save))
    print(text)
    if options.save:
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
        print(f"written to {target.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
