# SPDX-License-Identifier: Apache-2.0
"""Inference: latency of one sample and throughput of a batch, against onnxruntime dense.

    python benchmarks/inference.py [--networks mlp resnet20 dscnn] [--batch 1 64] [--threads 1 2] [--save]

mest: `predict` of a model without training state.  onnxruntime (when it and onnx are installed): the
same network, dense, with its default optimisations (batch norm folded into the convolutions).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import common
from common import NotInThisBuild, median, ratio, times


class Row(NamedTuple):
    network: str
    batch: int
    threads: int
    library: str
    sparsity: float
    samples: List[float] = []  # milliseconds a call
    missing: str = ""


def onnx_call(network: Any, batch: int, threads: int) -> Callable[[], Any]:
    import onnx_model
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = onnx_model.model(network, batch)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = {"v0": network.data(batch)[0]}
    return lambda: session.run(None, x)


def mest_call(network: Any, batch: int, threads: int, sparsity: float, scheme: str) -> Callable[[], Any]:
    import networks

    model = networks.model(network, batch, threads, sparsity, scheme, inference_only=True)
    x = network.data(batch)[0]
    return lambda: model.predict(x)


def measure(name: str, batch: int, threads: int, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one interleaved run."""
    from networks import NETWORKS

    network = NETWORKS[name]
    rows: Dict[str, Row] = {}
    calls: Dict[str, Callable[[], Any]] = {}
    wanted = [("onnxruntime", 0.0, "")] if options.onnx else []
    for scheme in options.schemes:
        wanted += [(f"mest {scheme}", sparsity, scheme) for sparsity in options.sparsity]
    for library, sparsity, scheme in wanted:
        key = f"{library} {sparsity:g}"
        rows[key] = Row(network.title, batch, threads, library if sparsity else library.split()[0], sparsity)
        try:
            calls[key] = (
                mest_call(network, batch, threads, sparsity, scheme) if scheme else onnx_call(network, batch, threads)
            )
        except NotInThisBuild as error:
            rows[key] = rows[key]._replace(missing=f"not in this build: {error}")
    found = common.interleave(calls, options.rounds, pause=0.06)  # onnxruntime's threads spin for 35 ms
    return (row._replace(samples=found.get(key, [])) for key, row in rows.items())


def report(rows: List[Row]) -> str:
    lines = []
    for row in rows:
        if not row.samples:
            continue
        rival = [other.samples for other in rows if other[:4] == (*row[:3], "onnxruntime")]
        rate = 1e3 * row.batch / median(row.samples)
        lines.append([
            row.network, str(row.batch), str(row.threads), row.library, f"{row.sparsity:g} %",
            f"{median(row.samples):.3f}", f"{rate:,.0f}", times(ratio(common.fastest(rival), row.samples)),
        ])  # fmt: skip
    header = ["network", ">batch", ">threads", "library", ">sparsity", ">ms a call", ">samples a second",
              ">than onnxruntime"]  # fmt: skip
    missing = dict.fromkeys(f"- {row.network}, {row.library}: {row.missing}" for row in rows if row.missing)
    return "\n".join([common.table(header, lines), *(["", "Not measured:", "", *missing] if missing else [])])


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=["mlp", "resnet20", "dscnn"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0, 90, 95])
    parser.add_argument("--schemes", nargs="+", default=["unstructured"])
    options = parser.parse_args()
    options.onnx = all(common.optional(name) is not None for name in ("onnx", "onnxruntime"))
    rows: List[Row] = []
    for name in options.networks:
        for batch in options.batch:
            for threads in options.threads:
                print(f"{name}, batch {batch}, {threads} threads ...", file=sys.stderr, flush=True)
                rows += measure(name, batch, threads, options)
    text = report(rows)
    print(text)
    notes = [f"medians of {options.rounds} rounds, variants interleaved", *common.conditions(options)]
    if options.save:
        common.save("inference", "Inference", notes, text, (row._asdict() for row in rows))


if __name__ == "__main__":
    main()
