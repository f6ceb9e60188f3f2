# SPDX-License-Identifier: Apache-2.0
"""mest advise: which scheme and density would pay in each layer, by measurement on this machine."""

from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..layers import _resolve
from ..measure import timing
from ..measure.variants import Alone, Variant, distinct, measure_alone
from ..plan import plan
from ..plot.style import size
from ._network import add_shape, of_options
from ._options import add_json, add_timing, command, densities, schemes
from ._output import Failure, passing, print_json, table
from .bench import warn

PAYS = 1.1  # times faster than dense: less is within what measurements scatter

EXAMPLES = """Each distinct layer is timed alone, dense and with each scheme and density, in a training
step (forward, gradients of weights and input, update); the variants take turns.  What accuracy a density
costs, a training tells: the advice is the largest density at which the best scheme is at least 1.1 times
faster than dense.

examples:
  mest advise --network resnet:20
  mest advise --network mlp:512,256 --input 64 --outputs 10 --densities 0.3,0.1 --schemes unstructured,block4
"""


def add(commands: Any) -> None:
    made = command(commands, "advise", run, "Where sparsity pays on this machine, layer by layer.", EXAMPLES)
    add_shape(made)
    made.add_argument("--densities", type=densities, default=[0.2, 0.1, 0.05], metavar="X,X",
                      help="shares of connections; default 0.2,0.1,0.05")  # fmt: skip
    made.add_argument(
        "--schemes",
        type=schemes,
        default=["unstructured", "block4", "row4"],
        metavar="WORD,WORD",
        help="default unstructured,block4,row4",
    )
    add_timing(made, rounds=5)
    add_json(made)


def run(options: argparse.Namespace) -> None:
    wide = [scheme for scheme in options.schemes if scheme in ("filter", "channel")]
    if wide:
        raise Failure(
            f"--schemes {wide[0]}: whole channels leave all layers at once, so no layer can be measured "
            "alone; mest bench measures the network"
        )
    layers = of_options(options)()
    plans = plan(layers, batch=options.batch).layers
    sources = [0] + [i - 1 if layer.from_ is None else _resolve(layers, i, layer.from_)
                     for i, layer in enumerate(layers) if i]  # fmt: skip
    alone = [one for one in distinct(layers, plans, sources) if getattr(one.layer, "groups", 1) == 1]
    if not alone:
        raise Failure("this network has no layer that can be sparse")
    variants = [Variant(d, s) for d in options.densities for s in options.schemes]
    tally = timing.Tally()
    fields = {} if options.threads is None else {"threads": options.threads}
    for number, one in enumerate(alone, 1):
        passing(f"{number} of {len(alone)}: {one.names[0]}")
        measure_alone(one, variants, batch=options.batch, rounds=options.rounds, tally=tally, **fields)
    passing("")
    if options.json:
        print_json([_record(one) for one in alone])
    else:
        print(
            f"{options.network}, batch {options.batch}: microseconds of a training step "
            "in each distinct layer, alone"
        )
        print(rendered(alone, options.densities))
    warn(tally)


def best(one: Alone, density: float) -> Optional[Variant]:
    """The fastest scheme at a density; None where none fits the layer."""
    times = {v: t for v, t in one.times.items() if v.density == density and t is not None}
    return min(times, key=lambda variant: times[variant]) if times else None


def advice(one: Alone) -> Tuple[Optional[Variant], str]:
    """What to take, None: dense; and why."""
    if one.dense < one.resolution:
        return None, "dense: too small to matter"
    found = [
        v
        for d in sorted({v.density for v in one.times if v.density < 1}, reverse=True)
        if (v := best(one, d))
    ]
    if not found:
        return None, "dense: no scheme asked for fits it"
    for variant in found:
        times = faster(one, variant)
        if times >= PAYS:
            share = one.bytes[variant] / one.bytes[Variant()]
            return variant, f"{variant.name} pays: {times:.1f}x faster, {share:.0%} of the bytes"
    return None, "dense is better: nothing asked for is faster"


def faster(one: Alone, variant: Variant) -> float:
    """Times faster than dense; what cannot be told from the step's other work counts as a part of that."""
    time = one.times[variant]
    assert time is not None
    return one.dense / max(time, 0.1 * one.resolution)


def rendered(alone: List[Alone], asked: List[float]) -> str:
    rows = []
    for one in alone:
        names = one.names[0] + (f" and {len(one.names) - 1} more" if len(one.names) > 1 else "")
        shape = (
            "x".join(str(n) for n in (one.shape.channels, one.shape.height, one.shape.width) if n > 1) or "1"
        )
        cells = []
        for density in asked:
            variant = best(one, density)
            cells.append("-" if variant is None else f"{_time(one.times[variant])} {variant.scheme}")
        rows.append([names, shape, one.shape.layer, _time(one.dense), *cells, advice(one)[1]])
    header = ["layer", ">input", "as", ">dense", *(f">best at {100 * d:g} %" for d in asked), "advice"]
    (dense, before), (taken, after) = together(alone, _dense), together(alone, _advised)
    lines = [
        table(header, rows),
        f"these layers together: {_time(dense)} µs dense, {_time(taken)} µs as advised "
        f"({dense / max(taken, 1e-9):.1f}x); {size(before)} dense, {size(after)} as advised",
    ]
    if all(advice(one)[0] is None for one in alone):
        lines.append(
            "dense is better in every layer: with these schemes and densities sparsity saves no time here"
        )
    return "\n".join(lines)


def _time(microseconds: Optional[float]) -> str:
    """Microseconds; of small layers parts of one."""
    value = microseconds or 0.0
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.05 else "<0.1"


def together(alone: List[Alone], choice: Callable[[Alone], Variant]) -> Tuple[float, int]:
    """Microseconds and bytes of all layers, each as often as the network has it."""
    time = sum(len(one.names) * (one.times[choice(one)] or 0.0) for one in alone)
    return time, sum(len(one.names) * one.bytes[choice(one)] for one in alone)


def _dense(_: Alone) -> Variant:
    return Variant()


def _advised(one: Alone) -> Variant:
    return advice(one)[0] or Variant()


def _record(one: Alone) -> Dict[str, Any]:
    variant, why = advice(one)
    return {
        "layers": one.names,
        "as": one.shape.layer,
        "input": [one.shape.channels, one.shape.height, one.shape.width],
        "measured": [
            {**v._asdict(), "microseconds": time, "bytes": one.bytes.get(v)} for v, time in one.times.items()
        ],
        "advice": {"variant": None if variant is None else variant._asdict(), "why": why},
    }
