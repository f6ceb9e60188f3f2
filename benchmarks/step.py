# SPDX-License-Identifier: Apache-2.0
"""Whole training steps, dense against sparse, in the library itself.

    python benchmarks/step.py                     all networks, prints a table
    python benchmarks/step.py --save              also writes it to benchmarks/results/
    python benchmarks/step.py --networks mlp --batch 8 --threads 1 2

A step is forward, backward and update on one batch of random data (values do not change the work).
The variants of one network take turns within each round, so that whatever else the machine does
hits all of them; the table has the median over rounds and the ratio of medians to dense.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Dict, List, NamedTuple

import numpy as np

import mest

NETWORKS = {
    "mlp": ("MLP 784-1024-1024-10", lambda: mest.mlp(784, [1024, 1024], 10), (784,)),
    "resnet20": ("ResNet-20 16/32/64", lambda: mest.resnet(20, 16), (3, 32, 32)),
    "resnet32": ("ResNet-32 32/64/128", lambda: mest.resnet(32, 32), (3, 32, 32)),
}
DENSITIES = (1.0, 0.2, 0.1, 0.05, 0.02)


class Row(NamedTuple):
    network: str
    batch: int
    threads: int
    density: float
    milliseconds: float  # median of a step
    ratio: float  # of dense to this
    model_bytes: int  # weights, gradients, optimizer state, indices
    total_bytes: int  # the whole block


def cpu() -> str:
    """Name, family, model and usable cores; virtual machines often hide the full name."""
    facts: Dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name", platform.processor() or platform.machine())
    return f"{name}, family {facts.get('cpu family', '?')} model {facts.get('model', '?')}, {os.cpu_count()} cores"


def measure(network: str, batch: int, threads: int, rounds: int, rng: np.random.Generator) -> List[Row]:
    title, layers, shape = NETWORKS[network]
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    y = rng.integers(0, 10, batch).astype(np.int32)
    models = {
        density: mest.Model(
            layers(), batch=batch, threads=threads, density=density, learning_rate=0.01, momentum=0.9, seed=1
        )
        for density in DENSITIES
    }
    times: Dict[float, List[float]] = {density: [] for density in models}
    for number in range(rounds + 1):
        for density, model in models.items():
            begin = time.perf_counter()
            model.step(x, y)
            if number > 0:  # the first touches the memory
                times[density].append(1e3 * (time.perf_counter() - begin))
    medians = {density: statistics.median(sample) for density, sample in times.items()}
    rows = []
    for density, model in models.items():
        plan = model.plan()
        kept = plan.weight_bytes + plan.gradient_bytes + plan.state_bytes + plan.index_bytes
        rows.append(
            Row(title, batch, threads, density, medians[density], medians[1.0] / medians[density], kept, plan.total_bytes)
        )
        model.close()
    return rows


def table(rows: List[Row]) -> str:
    lines = [
        "| network | batch | threads | sparsity | ms a step | faster than dense | model KiB | whole block MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row.network} | {row.batch} | {row.threads} | {100 * (1 - row.density):.0f} % "
            f"| {row.milliseconds:.2f} | {row.ratio:.1f}x | {row.model_bytes / 1024:,.0f} | {row.total_bytes / 2**20:,.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, default=[64])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/step.md")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    rows: List[Row] = []
    for network in options.networks:
        for batch in options.batch:
            for threads in options.threads:
                print(f"{network}, batch {batch}, {threads} threads ...", file=sys.stderr, flush=True)
                rows += measure(network, batch, threads, options.rounds, rng)
    text = table(rows)
    print(text)
    if options.save:
        path = Path(__file__).parent / "results" / "step.md"
        command = " ".join(["python", "benchmarks/step.py", *sys.argv[1:]])
        path.write_text(
            f"# Training steps, dense against sparse\n\n"
            f"- command: `{command}`\n- date: {datetime.date.today()}\n- CPU: {cpu()}\n"
            f"- medians of {options.rounds} rounds, variants interleaved; static random connections\n\n{text}\n"
        )
        print(f"\nwritten to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
