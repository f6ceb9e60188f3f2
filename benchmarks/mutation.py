# SPDX-License-Identifier: Apache-2.0
"""What a mutation costs, and how time grows with the number of connections.

    python benchmarks/mutation.py [--save]

1. A mutation (EM&S) against an epoch of CIFAR-10, ResNet-32 32/64/128, at the paper's settings: batch
   64, 50,000 samples, a mutation every 5 epochs.
2. A step and a mutation of one sparse n -> n layer, 90 % sparse, with 10^3 to 10^7 connections, on a
   log-log picture (when matplotlib is installed) and as a table.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any, Dict, List, NamedTuple, Sequence

import common
from common import median

SAMPLES, EVERY = 50_000, 5  # CIFAR-10, epochs between mutations
GOAL = 1.0  # percent of the time


class Point(NamedTuple):
    connections: int
    step: List[float]  # milliseconds
    mutation: List[float]


def timed(network: Any, options: argparse.Namespace, batch: int) -> Point:
    """Steps and mutations of one model in turns."""
    import networks

    model = networks.model(
        network, batch, options.threads, options.sparsity,
        method="em&s", epochs=160, steps_per_epoch=-(-SAMPLES // batch),
    )  # fmt: skip
    x, y = network.data(batch)
    # A pause alone: a mutation has no threads to wake, and its cost is that of one after a step.
    found = common.interleave({"step": lambda: model.step(x, y), "mutation": model.mutate}, options.rounds)
    connections = sum(layer.active for layer in model.plan().layers if layer.sparse)
    model.close()
    return Point(connections, found["step"], found["mutation"])


def share(point: Point, steps: int) -> float:
    """Of the time of EVERY epochs and one mutation, that of the mutation."""
    mutation = median(point.mutation)
    return mutation / (mutation + EVERY * steps * median(point.step))


def goal(title: str, point: Point, batch: int) -> common.Goal:
    part = 100 * share(point, -(-SAMPLES // batch))
    return common.Goal(f"{title}, batch {batch}: a mutation's share of {EVERY} epochs", part, GOAL, "%", most=True)


def epoch_table(title: str, point: Point, batch: int) -> str:
    return common.table(
        ["network", ">ms a step", ">steps an epoch", ">ms a mutation", ">in steps", f">share at one in {EVERY} epochs"],
        [[title, f"{median(point.step):.1f}", f"{-(-SAMPLES // batch):,}", f"{median(point.mutation):.1f}",
          f"{median(point.mutation) / median(point.step):.2f}", goal(title, point, batch).cell()]],
    )  # fmt: skip


def side(connections: int, sparsity: float) -> int:
    """n of the n -> n layer."""
    return round(math.sqrt(connections / (1 - sparsity / 100)))


def scale(options: argparse.Namespace) -> List[Point]:
    import networks

    from mest import Input, Linear, ReLU

    points = []
    for exponent in range(2 * 3, 2 * options.most + 1):
        n = side(round(10 ** (exponent / 2)), options.sparsity)
        network = networks.Network(
            "", lambda n=n: [Input(n), Linear(n), ReLU(), Linear(10, density=1.0)], (n,)  # type: ignore[misc]
        )
        print(f"{n} -> {n} ...", file=sys.stderr, flush=True)
        points.append(timed(network, options, batch=16))
    return points


def exponents(points: Sequence[Point], what: str) -> List[float]:
    """Slope on log-log paper between neighbours: 1 is proportional."""
    values = [(math.log(point.connections), math.log(median(getattr(point, what)))) for point in points]
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(values, values[1:])]


def scale_table(points: Sequence[Point]) -> str:
    slopes = {what: ["-", *(f"{slope:.2f}" for slope in exponents(points, what))] for what in ("step", "mutation")}
    lines = [
        [f"{point.connections:,}", f"{median(point.step):.3f}", slopes["step"][i],
         f"{1e6 * median(point.step) / point.connections:.1f}", f"{median(point.mutation):.3f}", slopes["mutation"][i],
         f"{1e6 * median(point.mutation) / point.connections:.1f}"]
        for i, point in enumerate(points)
    ]  # fmt: skip
    header = [">connections", ">ms a step, batch 16", ">exponent", ">ns a connection", ">ms a mutation", ">exponent",
              ">ns a connection"]  # fmt: skip
    return common.table(header, lines)


def picture(points: Sequence[Point], title: str) -> None:
    """results/mutation.png."""
    if common.optional("matplotlib") is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5), constrained_layout=True)
    connections = [point.connections for point in points]
    for what, label in (("step", "training step, batch 16"), ("mutation", "mutation")):
        axes.loglog(connections, [median(getattr(point, what)) for point in points], "o-", label=label)
    last = median(points[-1].step)
    axes.loglog(connections, [last * c / connections[-1] for c in connections], "k:", label="proportional")
    axes.set(xlabel="connections", ylabel="ms", title=title)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    common.RESULTS.mkdir(exist_ok=True)
    figure.savefig(common.RESULTS / "mutation.png", dpi=100)


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sparsity", type=float, default=90)
    parser.add_argument("--most", type=int, default=7, help="powers of ten of connections")
    options = parser.parse_args()
    from networks import NETWORKS

    network = NETWORKS[options.network]
    whole = timed(network, options, options.batch)
    points = scale(options)
    text = f"{epoch_table(network.title, whole, options.batch)}\n\n{scale_table(points)}"
    print(text)
    notes = [f"medians of {options.rounds} rounds, {options.sparsity:g} % sparse, {options.threads} threads",
             *common.conditions(options)]  # fmt: skip
    if options.save:
        picture(points, f"{options.sparsity:g} % sparse, n to n, {options.threads} threads")
        records: List[Dict[str, Any]] = [{"network": network.title, "batch": options.batch, **whole._asdict()}]
        records.append(goal(network.title, whole, options.batch).record())
        common.save("mutation", "Mutation", notes, text, records + [point._asdict() for point in points])


if __name__ == "__main__":
    main()
