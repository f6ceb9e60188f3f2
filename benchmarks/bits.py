# SPDX-License-Identifier: Apache-2.0
"""What it costs that every machine, instruction set and number of threads gives the same bits.

    python benchmarks/bits.py [--networks resnet32 mlp] [--batch 64] [--save]

Needs Swift: builds the library a second time, in a temporary folder, with kernels whose sums the compiler may
order and contract as it likes (-ffast-math -ffp-contract=fast), and trains the same networks with both in
turns in one process.  A second freedom is a field of the configuration: weight gradients as one
partial sum a thread (gradient_chunks) instead of a number that shapes alone decide.

The loss after three steps tells whether the bits differ at all.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

import common
from common import median

ROOT = Path(__file__).resolve().parents[1]
EXACT = '"-ffp-contract=off", "-fno-math-errno"'
FREE = '"-ffp-contract=fast", "-ffast-math", "-Wno-nan-infinity-disabled"'
LIMIT = 5.0  # percent of a step, above which a mode without the promise would be worth having


class Variant(NamedTuple):
    title: str
    free: bool  # the second build
    chunks: bool  # one partial sum a thread


VARIANTS = (
    Variant("same bits", False, False),
    Variant("a partial sum a thread", False, True),
    Variant("free order of sums", True, False),
    Variant("both", True, True),
)


# ------------------------------------------------------------------------------ the second build ---


def build(folder: Path) -> Path:
    """libmest.so with free sums."""
    for name in ("Package.swift", "Sources", "include", "packaging"):
        source, copy = ROOT / name, folder / name
        shutil.copytree(source, copy, symlinks=True) if source.is_dir() else shutil.copy(source, copy)
    package = folder / "Package.swift"
    text = package.read_text()
    if text.count(EXACT) != 1:
        raise SystemExit(f"Package.swift has not {EXACT} once: this script must follow it")
    package.write_text(text.replace(EXACT, FREE))
    print("building with free sums, some minutes ...", file=sys.stderr, flush=True)
    words = ["swift", "build", "--quiet", "-c", "release", "--package-path", str(folder), "--product", "mest"]
    if subprocess.run(words, stdout=sys.stderr).returncode:
        raise SystemExit("the second build failed")
    return folder / ".build" / "release" / "libmest.so"


def networks_with(library: Optional[Path]) -> Any:
    """The module `networks` over a package of its own, with this library or the one that is meant anyway."""
    for name in list(sys.modules):
        if name == "networks" or name.split(".")[0] == "mest":
            del sys.modules[name]
    meant = os.environ.get("MEST_LIBRARY")
    if library:
        os.environ["MEST_LIBRARY"] = str(library)
    found = importlib.import_module("networks")
    importlib.import_module("mest")._lib.library()
    if library:
        os.environ.pop("MEST_LIBRARY")
        os.environ.update({"MEST_LIBRARY": meant} if meant else {})
    return found


# ------------------------------------------------------------------------------------- reporting ---


class Row(NamedTuple):
    network: str
    variant: Variant
    loss: str
    samples: List[float]


def gain(rows: List[Row], row: Row) -> float:
    """Percent of the step that the promise costs: what `row` saves of it."""
    promise = next(other for other in rows if (other.network, other.variant) == (row.network, VARIANTS[0]))
    return 100 * (1 - median(row.samples) / median(promise.samples))


def report(rows: List[Row]) -> str:
    lines = [
        [row.network, row.variant.title, f"{median(row.samples):.2f}",
         "" if row.variant == VARIANTS[0] else f"{gain(rows, row):+.1f} %", row.loss]
        for row in rows
    ]  # fmt: skip
    most = max(gain(rows, row) for row in rows)
    verdict = "no mode without it is needed" if most < LIMIT else "a mode without it is worth having"
    table = common.table(["network", "variant", ">ms a step", ">saved", ">loss after 3 steps"], lines)
    return f"{table}\n\nAt most {most:.1f} % of a step pay for the same bits (limit {LIMIT:g} %): {verdict}."


def measure(name: str, builds: Mapping[bool, Any], options: argparse.Namespace) -> List[Row]:
    """builds: the module networks, free or not."""
    calls: Dict[Variant, Callable[[], Any]] = {}
    losses = {}
    for variant in VARIANTS:
        networks = builds[variant.free]
        given = networks.NETWORKS[name]
        fields = {"gradient_chunks": options.threads} if variant.chunks else {}
        model = networks.model(given, options.batch, options.threads, options.sparsity, **fields)
        calls[variant] = partial(model.step, *given.data(options.batch))
        losses[variant] = [calls[variant]().loss for _ in range(3)][-1]
    found = common.interleave(calls, options.rounds)
    return [Row(given.title, variant, f"{losses[variant]:.9g}", found[variant]) for variant in VARIANTS]


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.set_defaults(rounds=15)
    parser.add_argument("--networks", nargs="+", default=["resnet32", "mlp"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sparsity", type=float, default=90)
    parser.add_argument("--library", type=Path, metavar="FILE", help="a second build that is already there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        free = options.library or build(Path(folder))
        builds = {True: networks_with(free), False: networks_with(None)}
        rows = [row for name in options.networks for row in measure(name, builds, options)]
    text = report(rows)
    print(text)
    notes = [
        f"batch {options.batch}, {options.sparsity:g} % sparse, {options.threads} threads; "
        f"medians of {options.rounds} rounds, interleaved in one process",
        *common.conditions(options),
    ]
    if options.save:
        records = ({**row._asdict(), "variant": row.variant._asdict()} for row in rows)
        common.save("bits", "The cost of the same bits", notes, text, records)


if __name__ == "__main__":
    main()
