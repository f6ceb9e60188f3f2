# SPDX-License-Identifier: Apache-2.0
"""Writes the README's table from benchmarks/results/step.jsonl, between two comments.

    python benchmarks/step.py --save && python benchmarks/readme.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence

import common
from common import median, ratio, times
from step import Row, references

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- benchmark: begin (benchmarks/readme.py writes this) -->", "<!-- benchmark: end -->"
BATCH, THREADS = 64, 2
SHOWN = {(0, "unstructured"), (90, "unstructured")}  # the README is one screen


def table(rows: Sequence[Row]) -> str:
    """mest in fp32 at BATCH and THREADS, what is SHOWN of it; PyTorch's column where it was measured."""
    lines, shown = [], set()
    compared = any(row.variant.library == "pytorch" and row.samples for row in rows)
    for row in rows:
        variant, key = row.variant, (row.network, row.variant)
        if (variant.library, row.batch, variant.threads, variant.activations) != ("mest", BATCH, THREADS, "float32"):
            continue
        if not row.samples or (variant.sparsity, variant.scheme) not in SHOWN or key in shown:
            continue
        shown.add(key)
        dense, pytorch = references(rows, row)
        scheme = "" if variant.scheme == "unstructured" else f" {variant.scheme}"
        lines.append([
            row.network, f"{variant.sparsity:g} %{scheme}", f"{median(row.samples):.2f}",
            times(ratio(dense, row.samples)), *([times(ratio(pytorch, row.samples))] if compared else []),
            f"{row.model_bytes / 1024:,.0f} KiB", f"{row.total_bytes / 2**20:,.1f} MiB",
        ])  # fmt: skip
    header = [
        f"network, batch {BATCH}", ">sparsity", ">ms a step", ">faster than dense",
        *([">than PyTorch"] if compared else []), ">weights, gradients, state, indices", ">whole block",
    ]  # fmt: skip
    return common.table(header, lines)


def body(records: List[Dict[str, Any]]) -> str:
    """What stands between the comments."""
    source, rows = records[0], [Row.of(record) for record in records[1:]]
    said = f"Command: `{source['command']}`; {source['date']}, {source['CPU']}"
    if "compared with" in source:
        said += f"; PyTorch is {source['compared with']}, its better memory layout"
    said += "".join(f"; {note}" for note in source.get("notes", []) if "disturbed" in note)
    where = "all rows in [benchmarks/results/step.md](benchmarks/results/step.md)."
    return f"{said};\n{where}\n\n{table(rows)}"


def rewrite(text: str, new: str) -> str:
    """`text` with `new` between the two comments.  ValueError when they are not there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{BEGIN} and {END} are wanted once each, in this order")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{new}\n{END}{rest.split(END)[1]}"


def main() -> None:
    try:
        records = common.load("step")
    except FileNotFoundError:
        raise SystemExit("no benchmarks/results/step.jsonl: python benchmarks/step.py --save writes it") from None
    README.write_text(rewrite(README.read_text(), body(records)))
    print("README.md: table written")


if __name__ == "__main__":
    main()
