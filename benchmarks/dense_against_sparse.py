# SPDX-License-Identifier: Apache-2.0
"""Dense against sparse in this library alone, for everyone: needs numpy and mest.

    python benchmarks/dense_against_sparse.py [--batch 32] [--save]

A step is forward, backward and update; examples/c/dense_against_sparse.c is the same in C.
"""

from __future__ import annotations

from typing import List

import common
import networks
from common import median, ratio, times
from mest.measure.variants import Variant, dense_against_sparse

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
        variants = [Variant(round(1 - sparsity / 100, 6)) for sparsity in SPARSITIES]
        found = dense_against_sparse(
            network.layers, variants, batch=options.batch, rounds=options.rounds, threads=options.threads,
            tally=common.TALLY,
        )  # fmt: skip
        for sparsity, measured in zip(SPARSITIES, found):
            samples = measured.samples
            lines.append([
                network.title, f"{sparsity} %", f"{median(samples):.2f}", times(ratio(found[0].samples, samples)),
                f"{measured.model_bytes / 1024:,.0f}", f"{measured.total_bytes / 1024:,.0f}",
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
