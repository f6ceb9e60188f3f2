# SPDX-License-Identifier: Apache-2.0
"""Dense against sparse in this library alone, for everyone: needs numpy and mest.

    python benchmarks/dense_against_sparse.py [--batch 32] [--save]

A step is forward, backward and update; examples/c/dense_against_sparse.c is the same in C.
"""

from __future__ import annotations

from functools import partial
from typing import List

import common
import networks
from common import median, ratio, times

SPARSITIES = (0, 80, 90, 95)
SHOWN = ("mlp", "resnet20")


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    lines: List[List[str]] = []
    records = []
    for name in SHOWN:
        network = networks.NETWORKS[name]
        models = {s: networks.model(network, options.batch, options.threads, s) for s in SPARSITIES}
        x, y = network.data(options.batch)
        calls = {sparsity: partial(model.step, x, y) for sparsity, model in models.items()}
        found = common.interleave(calls, options.rounds)
        for sparsity, samples in found.items():
            plan = models[sparsity].plan()
            lines.append([
                network.title, f"{sparsity} %", f"{median(samples):.2f}", times(ratio(found[0], samples)),
                f"{plan.sparse_bytes / 1024:,.0f}", f"{plan.total_bytes / 1024:,.0f}",
            ])  # fmt: skip
            records.append({"network": network.title, "sparsity": sparsity, "samples": samples})
    header = ["network", ">sparsity", ">ms a step", ">than dense", ">model KiB", ">whole block KiB"]
    text = common.table(header, lines)
    print(text)
    notes = [f"batch {options.batch}, {options.threads} threads", *common.conditions(options)]
    if options.save:
        common.save("dense_against_sparse", "Dense against sparse, this library alone", notes, text, records)


if __name__ == "__main__":
    main()
