# SPDX-License-Identifier: Apache-2.0
"""Peak memory of training: what the plan says, what the process takes, and PyTorch's.

    python benchmarks/memory.py [--network resnet32] [--batch 64] [--sparsity 90] [--save]

Every variant runs in a process of its own: growth of the peak of resident memory over the state before
the model, through three updates.  That state is after imports and a step of a tiny network, which brings
in code and caches: PyTorch's first step takes 200 MB of them whatever the network.  The times are a
second, interleaved measurement of one update (all micro-batches of it) in one process.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import common
from common import NotInThisBuild, median, ratio

MB = 1e6
UPDATES = 3


class Variant(NamedTuple):
    """library "mest" or "pytorch"; micro: micro-batches that make one update."""

    title: str
    library: str
    activations: str = "float32"
    recompute: str = "none"
    micro: int = 1
    layout: str = ""
    goal: Optional[float] = None  # times less than PyTorch
    slower: Optional[float] = None  # at most so many times the time of the variant as it is

    @property
    def plain(self) -> bool:
        return (self.library, self.recompute, self.micro) == ("mest", "none", 1)


VARIANTS = (
    Variant("PyTorch nchw", "pytorch", layout="nchw"),
    Variant("PyTorch channels_last", "pytorch", layout="channels_last"),
    Variant("fp32", "mest", goal=1.8),
    Variant("bf16", "mest", "bfloat16", goal=3.5),
    Variant("fp32, elementwise recomputed", "mest", recompute="elementwise"),
    Variant("bf16, elementwise recomputed", "mest", "bfloat16", "elementwise"),
    Variant("fp32, blocks recomputed", "mest", recompute="block", goal=3.5, slower=1.3),
    Variant("bf16, blocks recomputed", "mest", "bfloat16", "block", goal=7.0, slower=1.3),
    Variant("fp32, 4 micro-batches", "mest", micro=4, goal=6.0, slower=1.0),
    Variant("bf16, 4 micro-batches", "mest", "bfloat16", micro=4, goal=12.0, slower=1.0),
)


class Found(NamedTuple):
    variant: Variant
    resident: int = 0  # bytes of growth
    planned: int = 0
    samples: List[float] = []  # milliseconds an update
    missing: str = ""


# --------------------------------------------------------------------------- one process each ---


def make(variant: Variant, options: argparse.Namespace) -> Callable[[], Any]:
    """A call that does one whole update.  NotInThisBuild where the library refuses."""
    from networks import NETWORKS, TINY, model

    network = NETWORKS[options.network] if options.network != "tiny" else TINY
    if variant.library == "pytorch":
        import rivals

        return rivals.step(network, options.batch, options.threads, variant.layout)
    fields: Dict[str, Any] = {} if variant.recompute == "none" else {"recompute": variant.recompute}
    part = options.batch // variant.micro
    made = model(network, part, options.threads, options.sparsity, activations=variant.activations,
                 micro_batches=variant.micro, **fields)  # fmt: skip
    x, y = network.data(part)

    def update() -> None:
        for _ in range(variant.micro):
            made.step(x, y)

    update.planned = made.plan().total_bytes  # type: ignore[attr-defined]
    return update


def status(field: str) -> int:
    """Bytes of VmRSS or VmHWM."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(match.group(1)) if match else 0


def start() -> int:
    """Resets the peak where the kernel can, and returns where growth begins."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return status("VmRSS")
    except OSError:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak() -> int:
    return status("VmHWM") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def child(variant: Variant, options: argparse.Namespace) -> Dict[str, Any]:
    """Measures one variant in this process, which has done nothing else."""
    from mest import _lib

    _lib.library()
    try:
        make(variant._replace(micro=1), argparse.Namespace(**{**vars(options), "network": "tiny", "batch": 1}))()
        gc.collect()
        before = start()
        update = make(variant, options)
    except NotInThisBuild as error:
        return {"missing": f"not in this build: {error}"}
    for _ in range(UPDATES):
        update()
    return {"resident": peak() - before, "planned": getattr(update, "planned", 0)}


def measure(number: int, options: argparse.Namespace) -> Dict[str, Any]:
    """The same from outside."""
    words = [sys.executable, __file__, "--child", str(number)]
    for name in ("network", "batch", "threads", "sparsity"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
    result: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ------------------------------------------------------------------------------------ reporting ---


def goals(found: List[Found]) -> Dict[Variant, List[common.Goal]]:
    """Memory against the better PyTorch layout, and time against the same activations as they are."""
    rivals = [each.resident for each in found if each.variant.library == "pytorch" and each.resident]
    plain = {each.variant.activations: each.samples for each in found if each.variant.plain}
    reached = {}
    for each in found:
        variant = each.variant
        less = min(rivals) / each.resident if rivals and each.resident else None
        slower = ratio(each.samples, plain.get(variant.activations)) if variant.library == "mest" else None
        reached[variant] = [
            common.Goal(f"peak memory, {variant.title}: times less than PyTorch", less, variant.goal),
            common.Goal(f"time of an update, {variant.title}: to as it is", slower, variant.slower, most=True),
        ]
    return reached


def report(found: List[Found]) -> str:
    reached = goals(found)
    lines = [
        [each.variant.title, f"{each.planned / MB:.1f}" if each.planned else "", f"{each.resident / MB:.1f}",
         reached[each.variant][0].cell(), f"{median(each.samples):.1f}" if each.samples else "-",
         reached[each.variant][1].cell()]
        for each in found if not each.missing
    ]  # fmt: skip
    header = ["variant", ">planned MB", ">resident MB", ">less than PyTorch", ">ms an update", ">time to as it is"]
    missing = [f"- {each.variant.title}: {each.missing}" for each in found if each.missing]
    return "\n".join([common.table(header, lines), *(["", "Not measured:", "", *missing] if missing else [])])


def run(options: argparse.Namespace) -> List[Found]:
    found: Dict[Variant, Found] = {}
    for number, variant in enumerate(VARIANTS):
        if variant.library == "pytorch" and not options.torch:
            continue
        print(f"{variant.title} ...", file=sys.stderr, flush=True)
        found[variant] = Found(variant, **measure(number, options))
    if options.rounds:
        calls = {variant: make(variant, options) for variant, each in found.items() if not each.missing}
        for variant, samples in common.interleave(calls, options.rounds).items():
            found[variant] = found[variant]._replace(samples=samples)
    return list(found.values())


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sparsity", type=float, default=90)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(child(VARIANTS[options.child], options)))
        return
    options.torch = common.optional("torch") is not None
    found = run(options)
    text = report(found)
    print(text)
    notes = [
        f"{options.network}, batch {options.batch}, {options.sparsity:g} % sparse, {options.threads} threads",
        "MB are 10^6 bytes",
        f"4 micro-batches of {options.batch // 4}: batch norm's statistics are those of a micro-batch",
        "resident: growth of the process's peak over the state after imports and a step of a tiny network",
        *common.conditions(options),
    ]  # fmt: skip
    if options.save:
        records = [{**each._asdict(), "variant": each.variant._asdict()} for each in found]
        records += [goal.record() for both in goals(found).values() for goal in both if goal.wanted is not None]
        common.save("memory", "Peak memory of training", notes, text, records)


if __name__ == "__main__":
    main()
