# SPDX-License-Identifier: Apache-2.0
"""The goals of the work on speed, and what this machine reaches: `step.py --goals`.

Ratios of medians of one interleaved run, against the better memory layout of PyTorch eager; then what the
other benchmarks have saved about goals of their own.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import common
from common import ratio
from step import Row, Variant, competitors, measure, missing

OTHERS = ("layers", "products", "memory", "mutation")  # benchmarks with goals of their own

# ResNet-32 32/64/128 on two threads: (batch, activations) across, times faster than PyTorch.
COLUMNS = ((64, "float32"), (64, "bfloat16"), (16, "float32"), (16, "bfloat16"), (8, "float32"))
GOALS: Dict[Tuple[int, str], Tuple[float, ...]] = {
    (80, "unstructured"): (3.5, 4.0, 4.0, 4.3, 3.2),
    (90, "unstructured"): (5.0, 6.5, 6.5, 7.3, 5.0),
    (90, "block4"): (5.5, 7.5, 7.0, 8.0, 6.2),
    (95, "unstructured"): (7.5, 9.5, 9.0, 10.5, 7.5),
    (95, "block4"): (7.5, 10.5, 9.0, 12.0, 9.0),
    (98, "block4"): (9.5, 15.5, 12.0, 17.0, 12.0),
}


def cell(reached: Optional[float], goal: Optional[float]) -> str:
    return common.Goal("", reached, goal).cell()


class Runs:
    """Rows by batch and network, with the questions that goals ask."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def samples(self, group: str, variant: Variant) -> Optional[Sequence[float]]:
        return next((row.samples for row in self.rows if (row.group, row.variant) == (group, variant)), None)

    def best(self, group: str, library: str, threads: int) -> Optional[Sequence[float]]:
        wanted = (group, library, threads)
        return common.fastest(
            row.samples for row in self.rows if (row.group, row.variant.library, row.variant.threads) == wanted
        )


def main_table(runs: Runs, library: str) -> str:
    """The grid, against "pytorch" or "compile"."""
    header = ["ResNet-32 32/64/128"] + [
        f"batch {batch}, {'fp32' if kind == 'float32' else 'bf16'}" for batch, kind in COLUMNS
    ]
    lines = []
    for (sparsity, scheme), goals in GOALS.items():
        cells = [f"{sparsity} % {scheme}"]
        for (batch, kind), goal in zip(COLUMNS, goals):
            group = f"resnet32/{batch}"
            found = runs.samples(group, Variant("mest", 2, sparsity, scheme, kind))
            cells.append(cell(ratio(runs.best(group, library, 2), found), goal if library == "pytorch" else 1.0))
        lines.append(cells)
    return common.table(header, lines)


Samples = Optional[Sequence[float]]


class Further(NamedTuple):
    """One more promise: `of` is so many times faster than `than`.  goal None: for information."""

    what: str
    goal: Optional[float]
    than: Callable[[Runs], Samples]
    of: Callable[[Runs], Samples]


def _than(library: str, group: str, threads: int, layout: str = "") -> Callable[[Runs], Samples]:
    """PyTorch's better layout, or one of SparseProp's two ways, at 90 %."""
    if library == "SparseProp":
        return lambda runs: runs.samples(group, Variant("sparseprop", threads, 90, layout=layout or "all sparse"))
    return lambda runs: runs.best(group, "pytorch", threads)


def _ours(group: str, *variant: Any) -> Callable[[Runs], Samples]:
    return lambda runs: runs.samples(group, Variant("mest", *variant))


def _mlp(batch: int, goal: float, scheme: str = "unstructured", library: str = "PyTorch") -> Further:
    group = f"mlp/{batch}"
    return Further(f"MLP, 90 % {scheme}, batch {batch}, 1 thread, than {library}", goal, _than(library, group, 1),
                   _ours(group, 1, 90, scheme))  # fmt: skip


WIDE, THIN = "resnet32/64", "thin/64"
FURTHER = (
    _mlp(128, 6.0), _mlp(16, 9.0), _mlp(1, 15.0), _mlp(1, 15.0, "block16"),
    *(_mlp(batch, 1.0, library="SparseProp") for batch in (128, 16, 1)),
    Further("ResNet-32, 90 % unstructured, batch 64, than SparseProp, all layers sparse", 8.0,
            _than("SparseProp", WIDE, 2), _ours(WIDE, 2, 90)),
    Further("the same, than SparseProp where it is faster, else PyTorch's layer", None,
            _than("SparseProp", WIDE, 2, "where faster"), _ours(WIDE, 2, 90)),
    Further("ResNet-32 dense, batch 64, than PyTorch", 0.8, _than("PyTorch", WIDE, 2), _ours(WIDE, 2)),
    Further("channel sparsity: a thinner dense network, ResNet-32 10/20/40 with 10 % of the weights, batch 64, than "
            "PyTorch's", 0.8, _than("PyTorch", THIN, 2), _ours(THIN, 2)),
    Further("ResNet-32, 90 % pattern, batch 64, than block4", 1.0,
            _ours(WIDE, 2, 90, "block4"), _ours(WIDE, 2, 90, "pattern")),
    Further("ResNet-32, 90 % unstructured, batch 64, two threads than one", 1.85,
            _ours(WIDE, 1, 90), _ours(WIDE, 2, 90)),
)  # fmt: skip


def further_table(runs: Runs) -> str:
    lines = [[goal.what, cell(ratio(goal.than(runs), goal.of(runs)), goal.goal)] for goal in FURTHER]
    return common.table(["further goals", "reached"], lines)


def elsewhere() -> str:
    """The goals that other benchmarks have measured and saved."""
    lines = []
    for name in OTHERS:
        try:
            source, *records = common.load(name)
        except FileNotFoundError:
            continue
        for record in records:
            if "goal" in record:
                goal = common.Goal(**record["goal"])
                lines.append([goal.what, goal.cell(), f"[{name}.md]({name}.md), {source['date']}"])
    return common.table(["goals of other benchmarks", "reached", "from"], lines) if lines else ""


def variants(name: str, batch: int, options: argparse.Namespace) -> List[Variant]:
    """What the goals of one network and batch need."""
    if name == "mlp":
        schemes = ["unstructured", "block16"] if batch == 1 else ["unstructured"]
        return competitors(name, 1, [90], options) + [Variant("mest", 1, 90, scheme) for scheme in schemes]
    if name == "thin":
        return competitors(name, 2, [], options) + [Variant("mest", 2)]
    kinds = [kind for size, kind in COLUMNS if size == batch]
    found = competitors(name, 2, [90, 95] if batch == 64 else [], options)
    found += [Variant("mest", 2, sparsity, scheme, kind) for kind in kinds for sparsity, scheme in GOALS]
    if batch == 64:
        found += [Variant("mest", 2), Variant("mest", 2, 90, "pattern"), Variant("mest", 1, 90)]
    return found


RUNS = (("resnet32", 64), ("resnet32", 16), ("resnet32", 8), ("thin", 64), ("mlp", 128), ("mlp", 16), ("mlp", 1))


def run(options: argparse.Namespace) -> Tuple[List[Row], str]:
    """Measures and writes the tables of --goals."""
    rows: List[Row] = []
    for name, batch in RUNS:
        print(f"{name}, batch {batch} ...", file=sys.stderr, flush=True)
        rows += measure(name, batch, f"{name}/{batch}", variants(name, batch, options), options)
    runs = Runs(rows)
    parts = ["Times faster than PyTorch eager, its better layout:", main_table(runs, "pytorch"), further_table(runs)]
    if options.compile:
        parts += ["Than torch.compile:", main_table(runs, "compile")]
    parts += [found for found in [elsewhere()] if found]
    return rows, "\n".join(["\n\n".join(parts), *missing(rows)])
