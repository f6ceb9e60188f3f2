# SPDX-License-Identifier: Apache-2.0
"""Whole training steps: mest dense and sparse, PyTorch, SparseProp.

    python benchmarks/step.py                     three networks, batch 64; a few minutes
    python benchmarks/step.py --networks mlp --batch 1 8 --threads 1 2 --schemes unstructured block4
    python benchmarks/step.py --full              everything; hours
    python benchmarks/step.py --goals             what the project has promised itself, and how far it is
    python benchmarks/step.py --compile --sparseprop FOLDER     further competitors
    python benchmarks/step.py --save              also writes benchmarks/results/step.md and .jsonl

A step is forward, backward and update on one batch of random data (values do not change the work).
The variants of one network take turns within each round (see common.py), so that whatever else the
machine does hits all of them; the table has medians and ratios of medians.  PyTorch is measured in
both memory layouts; ratios are against the better one.  What a build lacks is listed below the table.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import common
from common import NotInThisBuild, fastest, median, ratio, times

SPARSITIES = (0, 80, 90, 95)
SCHEMES = ("unstructured", "block4", "block8", "block16", "pattern", "nm24", "fan_in", "filter", "channel",
           "row4", "row8", "row16")
ALL: Dict[str, List[Any]] = {
    "networks": ["mlp", "resnet20", "resnet32", "vgg", "dscnn"], "batch": [1, 8, 16, 64], "threads": [1, 2],
    "sparsity": [0, 80, 90, 95, 98], "schemes": list(SCHEMES), "activations": ["float32", "bfloat16"],
}  # fmt: skip


class Variant(NamedTuple):
    """One competitor.  layout: PyTorch's; the other fields that do not apply keep their default."""

    library: str  # "mest", "pytorch", "compile", "sparseprop"
    threads: int
    sparsity: float = 0
    scheme: str = "unstructured"
    activations: str = "float32"
    layout: str = ""

    @property
    def name(self) -> str:
        return f"{self.library} {self.layout}".strip()


@dataclass
class Row:
    """What was found about one variant in one interleaved run, that of `group`."""

    network: str
    batch: int
    group: str
    variant: Variant
    samples: List[float] = field(default_factory=list)  # milliseconds
    model_bytes: int = 0  # weights, gradients, optimizer state, indices
    total_bytes: int = 0  # the whole block
    missing: str = ""  # why there are no samples

    def record(self) -> Dict[str, Any]:
        return {**asdict(self), "variant": self.variant._asdict()}

    @staticmethod
    def of(record: Dict[str, Any]) -> "Row":
        return Row(**{**record, "variant": Variant(**record["variant"])})


def measure(name: str, batch: int, group: str, variants: Sequence[Variant], options: argparse.Namespace) -> List[Row]:
    """Times the variants of one network interleaved; those that a build lacks get a reason instead."""
    from networks import NETWORKS

    network = NETWORKS[name]
    rows = {variant: Row(network.title, batch, group, variant) for variant in variants}
    calls, models = {}, []
    for variant, row in rows.items():
        try:
            if variant.library == "mest":
                model = _mest(network, batch, row)
                models.append(model)
                x, y = network.data(batch)
                calls[variant] = partial(model.step, x, y)
            else:
                calls[variant] = _rival(network, batch, variant, options)
        except NotInThisBuild as error:
            row.missing = f"not in this build: {error}"
    for variant, samples in common.interleave(calls, options.rounds).items():
        rows[variant].samples = samples
    for model in models:
        model.close()
    return list(rows.values())


def _mest(network: Any, batch: int, row: Row) -> Any:
    import networks

    _, threads, sparsity, scheme, activations, _ = row.variant
    model = networks.model(network, batch, threads, sparsity, scheme, activations)
    plan = model.plan()
    row.model_bytes, row.total_bytes = plan.sparse_bytes, plan.total_bytes
    return model


def _rival(network: Any, batch: int, variant: Variant, options: argparse.Namespace) -> Any:
    import rivals

    folder = options.sparseprop if variant.library == "sparseprop" else None
    compiled = variant.library == "compile"
    return rivals.step(network, batch, variant.threads, variant.layout, compiled, variant.sparsity, folder)


# ------------------------------------------------------------------------------ what to measure ---


def competitors(name: str, threads: int, sparsities: Sequence[float], options: argparse.Namespace) -> List[Variant]:
    """The other libraries' variants of a group; none without PyTorch."""
    if not options.torch:
        return []
    import rivals
    from networks import NETWORKS

    layouts = rivals.layouts(NETWORKS[name])
    found = [Variant("pytorch", threads, layout=layout) for layout in layouts]
    if options.compile:
        found += [Variant("compile", threads, layout=layout) for layout in layouts]
    if options.sparseprop:
        found += [
            Variant("sparseprop", threads, sparsity, layout=layout)
            for sparsity in sparsities if sparsity >= 80  # what it is meant for
            for layout in (("all sparse", "where faster") if len(layouts) > 1 else ("all sparse",))
        ]  # fmt: skip
    return found


def groups(options: argparse.Namespace) -> Iterator[Tuple[str, int, str, List[Variant]]]:
    """(network, batch, group, variants): each is one interleaved run, with its own references."""
    for name in options.networks:
        for batch in options.batch:
            for threads in options.threads:
                sparsities = [s for s in options.sparsity if s > 0]
                variants = [Variant("mest", threads, activations=kind) for kind in options.activations]
                variants = variants if 0 in options.sparsity else []
                for scheme in options.schemes:
                    variants += [
                        Variant("mest", threads, sparsity, scheme, kind)
                        for kind in options.activations
                        for sparsity in ([50.0, *sparsities] if scheme == "nm24" else sparsities)  # 2:4 is 50 %
                    ]
                yield name, batch, "all", competitors(name, threads, sparsities, options) + variants


# ------------------------------------------------------------------------------------- reporting ---


def references(rows: Sequence[Row], row: Row) -> Tuple[Optional[Sequence[float]], Optional[Sequence[float]]]:
    """Samples of mest dense and of the better PyTorch layout in the run that `row` belongs to."""
    run = [
        other for other in rows
        if (other.network, other.batch, other.group, other.variant.threads)
        == (row.network, row.batch, row.group, row.variant.threads)
    ]  # fmt: skip
    dense = Variant("mest", row.variant.threads)
    return (
        fastest(other.samples for other in run if other.variant == dense),
        fastest(other.samples for other in run if other.variant.library == "pytorch"),
    )


def report(rows: Sequence[Row]) -> str:
    """The table and what is missing.  References that were measured once per scheme are shown once."""
    lines, shown = [], set()
    for row in rows:
        key = (row.network, row.batch, row.variant)
        if row.samples and key not in shown:
            lines.append(_line(row, *references(rows, row)))
        shown.add(key)
    header = [
        "network", ">batch", ">threads", "library", ">sparsity", "scheme", "activations", ">ms a step",
        ">than mest dense", ">than PyTorch", ">model KiB", ">block MiB",
    ]  # fmt: skip
    return "\n".join([common.table(header, lines), *missing(rows)])


def _line(row: Row, dense: Optional[Sequence[float]], pytorch: Optional[Sequence[float]]) -> List[str]:
    variant = row.variant
    return [
        row.network, str(row.batch), str(variant.threads), variant.name, f"{variant.sparsity:g} %",
        variant.scheme if variant.sparsity and variant.library == "mest" else "", variant.activations,
        f"{median(row.samples):.2f}", times(ratio(dense, row.samples)), times(ratio(pytorch, row.samples)),
        f"{row.model_bytes / 1024:,.0f}" if row.model_bytes else "",
        f"{row.total_bytes / 2**20:,.1f}" if row.total_bytes else "",
    ]  # fmt: skip


def missing(rows: Sequence[Row]) -> List[str]:
    """Lines that say what was not measured and why; one for all variants with one reason."""
    reasons: Dict[str, List[str]] = {}
    for row in rows:
        if row.missing:
            what = f"{row.network} {row.variant.name} {row.variant.scheme} {row.variant.activations}"
            reasons.setdefault(row.missing, []).append(what)
    lines = [f"- {reason}: {', '.join(dict.fromkeys(what))}" for reason, what in reasons.items()]
    return ["", "Not measured:", "", *lines] if lines else []


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=ALL["networks"], default=["mlp", "resnet20", "resnet32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[64])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--sparsity", nargs="+", type=float, default=list(SPARSITIES), help="percent")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=["unstructured", "block4"])
    parser.add_argument("--activations", nargs="+", choices=ALL["activations"], default=["float32"])
    parser.add_argument("--full", action="store_true", help="every network, batch, scheme ...; hours")
    parser.add_argument("--name", default="step", help="of the results")
    parser.add_argument("--goals", action="store_true", help="the table of goals instead")
    parser.add_argument("--no-torch", action="store_true", help="do not compare with PyTorch")
    parser.add_argument("--compile", action="store_true", help="compare with torch.compile too; slow to start")
    common.sparseprop_option(parser)
    options = parser.parse_args()
    if options.full:
        vars(options).update(ALL)
    options.torch = not options.no_torch and common.optional("torch") is not None
    if (options.compile or options.sparseprop) and not options.torch:
        parser.error("--compile and --sparseprop compare with PyTorch, which is not here")
    if options.goals and not options.torch:
        print("the goals are measured against PyTorch, which is not here", file=sys.stderr)
        sys.exit(0)
    return options


def main() -> None:
    common.quiet_threads()
    options = arguments()
    name = options.name
    title = "Training steps"
    if options.goals:
        import goals

        name, title = "goals", "Training steps against the goals"
        rows, text = goals.run(options)
    else:
        rows = []
        for network, batch, group, variants in groups(options):
            print(f"{network}, batch {batch}, {variants[0].threads} threads, {group} ...", file=sys.stderr, flush=True)
            rows += measure(network, batch, group, variants, options)
        text = report(rows)
    print(text)
    conditions = common.conditions(options)
    if options.save:
        notes = [
            f"medians of {options.rounds} rounds, variants of a group interleaved; static random connections",
            *conditions,
        ]
        common.save(name, title, notes, text, (row.record() for row in rows))


if __name__ == "__main__":
    main()
