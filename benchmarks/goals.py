# SPDX-License-Identifier: Apache-2.0
"""The goals of the work on speed, and what this machine reaches: `step.py --goals`.

Ratios of medians of one interleaved run, against the better memory layout of PyTorch eager.
"""

from __future__ import annotations

import argparse
import sys
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import common
from common import ratio
from step import Row, Variant, competitors, measure, missing

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


class Further(NamedTuple):
    """One more promise: `reached` is `of` times faster than `than`."""

    what: str
    goal: float
    than: Callable[[Runs], Optional[Sequence[float]]]
    of: Callable[[Runs], Optional[Sequence[float]]]


def _mlp(batch: int, goal: float) -> Further:
    group = f"mlp/{batch}"
    return Further(
        f"MLP, 90 % unstructured, batch {batch}, 1 thread, than PyTorch", goal,
        lambda runs: runs.best(group, "pytorch", 1), lambda runs: runs.samples(group, Variant("mest", 1, 90)),
    )  # fmt: skip


FURTHER = (
    _mlp(128, 6.0), _mlp(16, 9.0), _mlp(1, 15.0),
    Further(
        "ResNet-32 dense, batch 64, than PyTorch", 0.8,
        lambda runs: runs.best("resnet32/64", "pytorch", 2),
        lambda runs: runs.samples("resnet32/64", Variant("mest", 2)),
    ),
    Further(
        "ResNet-32, 90 % pattern, batch 64, than block4", 1.0,
        lambda runs: runs.samples("resnet32/64", Variant("mest", 2, 90, "block4")),
        lambda runs: runs.samples("resnet32/64", Variant("mest", 2, 90, "pattern")),
    ),
    Further(
        "ResNet-32, 90 % unstructured, batch 64, two threads than one", 1.85,
        lambda runs: runs.samples("resnet32/64", Variant("mest", 1, 90)),
        lambda runs: runs.samples("resnet32/64", Variant("mest", 2, 90)),
    ),
)  # fmt: skip


def further_table(runs: Runs) -> str:
    lines = [[goal.what, cell(ratio(goal.than(runs), goal.of(runs)), goal.goal)] for goal in FURTHER]
    return common.table(["further goals", "reached"], lines)


def variants(name: str, batch: int, options: argparse.Namespace) -> List[Variant]:
    """What the goals of one network and batch need."""
    if name == "mlp":
        return competitors(name, 1, [90], options) + [Variant("mest", 1, 90)]
    kinds = [kind for size, kind in COLUMNS if size == batch]
    found = competitors(name, 2, [90, 95], options)
    found += [Variant("mest", 2, sparsity, scheme, kind) for kind in kinds for sparsity, scheme in GOALS]
    if batch == 64:
        found += [Variant("mest", 2), Variant("mest", 2, 90, "pattern"), Variant("mest", 1, 90)]
    return found


def run(options: argparse.Namespace) -> Tuple[List[Row], str]:
    """Measures and writes the tables of --goals."""
    rows: List[Row] = []
    for name, batch in (("resnet32", 64), ("resnet32", 16), ("resnet32", 8), ("mlp", 128), ("mlp", 16), ("mlp", 1)):
        print(f"{name}, batch {batch} ...", file=sys.stderr, flush=True)
        rows += measure(name, batch, f"{name}/{batch}", variants(name, batch, options), options)
    runs = Runs(rows)
    parts = ["Times faster than PyTorch eager, its better layout:", main_table(runs, "pytorch"), further_table(runs)]
    if options.compile:
        parts += ["Than torch.compile:", main_table(runs, "compile")]
    return rows, "\n".join(["\n\n".join(parts), *missing(rows)])
