# SPDX-License-Identifier: Apache-2.0
"""mest bench: dense against sparse on this machine, bytes and microseconds."""

from __future__ import annotations

import argparse
from typing import Any, List

from ..measure import timing
from ..measure.variants import Measured, Variant, dense_against_sparse
from ..plot.style import size
from ._network import add_shape, of_options
from ._options import add_json, add_timing, command, densities, schemes
from ._output import print_json, say, table

EXAMPLES = """The variants take turns, medians are shown, rounds that other processes disturbed are taken
again.

examples:
  mest bench --network resnet:20 --densities 0.2,0.1,0.05
  mest bench --network mlp:1024,1024 --schemes unstructured,block4,row4 --threads 2
  mest bench --network ds_cnn --inference --batch 1 --json
"""


def add(commands: Any) -> None:
    made = command(
        commands, "bench", run, "Dense against sparse on this machine: bytes and microseconds.", EXAMPLES
    )
    add_shape(made)
    made.add_argument("--densities", type=densities, default=[0.2, 0.1, 0.05], metavar="X,X",
                      help="shares of connections; default 0.2,0.1,0.05")  # fmt: skip
    made.add_argument("--schemes", type=schemes, default=["unstructured"], metavar="WORD,WORD",
                      help="default unstructured")  # fmt: skip
    made.add_argument("--inference", action="store_true", help="predictions instead of training steps")
    made.add_argument("--activations", default="float32", choices=["float32", "bfloat16"])
    add_timing(made, rounds=7)
    add_json(made)


def run(options: argparse.Namespace) -> None:
    variants = [Variant(), *(Variant(d, s) for s in options.schemes for d in options.densities)]
    tally = timing.Tally()
    found = dense_against_sparse(
        of_options(options), variants, batch=options.batch, rounds=options.rounds, threads=options.threads,
        inference=options.inference, tally=tally, activations=options.activations,
    )  # fmt: skip
    if options.json:
        print_json([measured.record() for measured in found])
    else:
        what = "prediction" if options.inference else "training step"
        print(f"{options.network}: a {what} of {options.batch} samples")
        print(rendered(found))
    warn(tally)


def rendered(found: List[Measured]) -> str:
    dense = found[0]
    header = ["", ">µs", ">than dense", ">parameters", ">model bytes", ">of dense", ">all bytes"]
    rows = [
        [
            one.name,
            f"{one.microseconds:,.1f}",
            f"{dense.microseconds / one.microseconds:.2f}x",
            f"{one.parameters:,}",
            size(one.model_bytes),
            f"{one.model_bytes / dense.model_bytes:.1%}",
            size(one.total_bytes),
        ]
        for one in found
    ]
    lines = [
        table(header, rows),
        "model bytes: weights, indices, gradients, optimizer state; all bytes: the block",
    ]
    slower = [one.name for one in found[1:] if one.microseconds >= dense.microseconds]
    if slower:
        lines.append(f"dense is faster here than {', '.join(slower)}")
    return "\n".join(lines)


def warn(tally: timing.Tally) -> None:
    if tally.kept:
        say(
            f"warning: other processes were busy in {tally.kept} rounds; times are too long, "
            "ratios may be off"
        )
