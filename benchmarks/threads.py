# SPDX-License-Identifier: Apache-2.0
"""The library's own threads against OpenMP's: the same kernels, the same chunks.

    python benchmarks/threads.py [--networks mlp resnet20 resnet32] [--batch 1 8 64] [--save]

Needs libomp: `make build MEST_THREADS=openmp` is run first, unless --library names such a build.  Both train the same
networks in turns, in one process.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import List, NamedTuple

import common
from bits import ROOT, networks_with
from common import median


class Row(NamedTuple):
    network: str
    batch: int
    own: List[float]
    openmp: List[float]


def build() -> Path:
    if subprocess.run(["make", "-s", "-C", str(ROOT), "build", "MEST_THREADS=openmp"], stdout=sys.stderr).returncode:
        raise SystemExit("the build with OpenMP failed")
    return ROOT / ".build" / "openmp" / "release" / "libmest.so"


def report(rows: List[Row]) -> str:
    lines = [
        [row.network, str(row.batch), f"{median(row.own):.3f}", f"{median(row.openmp):.3f}",
         f"{median(row.own) / median(row.openmp):.2f}"]
        for row in rows
    ]  # fmt: skip
    return common.table(["network", ">batch", ">own, ms a step", ">OpenMP, ms", ">of its time"], lines)


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.set_defaults(rounds=15)
    parser.add_argument("--networks", nargs="+", default=["mlp", "resnet20", "resnet32"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sparsity", type=float, default=90)
    parser.add_argument("--library", type=Path, metavar="FILE", help="a build with OpenMP that is already there")
    options = parser.parse_args()
    builds = {"openmp": networks_with(options.library or build()), "own": networks_with(None)}
    rows = []
    for name in options.networks:
        for batch in options.batch:
            calls = {}
            for kind, networks in builds.items():
                given = networks.NETWORKS[name]
                model = networks.model(given, batch, options.threads, options.sparsity)
                calls[kind] = partial(model.step, *given.data(batch))
            found = common.interleave(calls, options.rounds)
            rows.append(Row(given.title, batch, found["own"], found["openmp"]))
    text = report(rows)
    print(text)
    notes = [
        f"{options.sparsity:g} % sparse, {options.threads} threads; medians of {options.rounds} rounds, interleaved in one process",
        *common.conditions(options),
    ]
    if options.save:
        common.save("threads", "Own threads against OpenMP's", notes, text, (row._asdict() for row in rows))


if __name__ == "__main__":
    main()
