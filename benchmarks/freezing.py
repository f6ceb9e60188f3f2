# SPDX-License-Identifier: Apache-2.0
"""What a training step costs when front layers are frozen, against the same step without.

    python benchmarks/freezing.py [--batch 64] [--save]

Frozen layers are computed forward and no more; of their multiply-adds that saves two of three parts.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Dict, List, Tuple

import common
import networks
from common import median, ratio

import mest

SHARES = (0.0, 1 / 3, 1 / 2, 2 / 3)
SHOWN = ("resnet20", "resnet32")
SPARSITY = 90


def frozen(network: networks.Network, options: argparse.Namespace, share: float) -> Tuple[mest.Model, int]:
    """A model in an epoch in which this share is frozen, and how many layers that are."""
    freezing = {"freeze_share": share, "freeze_epochs": (1, 1)} if share else {}
    model = networks.model(network, options.batch, options.threads, SPARSITY, **freezing)
    model.begin_epoch()
    return model, model.begin_epoch().frozen


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    lines: List[List[str]] = []
    records = []
    for name in SHOWN:
        network = networks.NETWORKS[name]
        models: Dict[float, Tuple[mest.Model, int]] = {s: frozen(network, options, s) for s in SHARES}
        x, y = network.data(options.batch)
        calls = {share: partial(model.step, x, y) for share, (model, _) in models.items()}
        found = common.interleave(calls, options.rounds)
        for share, samples in found.items():
            model, layers = models[share]
            plan = model.plan()
            work = sum(part.macs for part in plan.layers[:layers]) / plan.macs
            part = 1 / ratio(found[0.0], samples)
            lines.append([
                network.title, f"{share:.2f}", f"{layers} of {len(plan.layers)}", f"{work:.2f}",
                f"{median(samples):.2f}", f"{part:.2f}", f"{1 - 2 / 3 * work:.2f}",
            ])  # fmt: skip
            records.append({"network": network.title, "share": share, "frozen": layers, "samples": samples})
    header = ["network", ">freeze_share", ">layers", ">of the work", ">ms a step", ">of a whole one", ">1 - 2/3 work"]
    text = common.table(header, lines)
    print(text)
    notes = [f"{SPARSITY} % sparsity, batch {options.batch}, {options.threads} threads", *common.conditions(options)]
    if options.save:
        common.save("freezing", "Steps with frozen front layers", notes, text, records)


if __name__ == "__main__":
    main()
