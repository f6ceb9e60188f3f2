# SPDX-License-Identifier: Apache-2.0
"""Layers alone: GFLOP/s of the C kernels and their share of what the processor can do at best.

    python benchmarks/layers.py [--batch 64] [--milliseconds 20] [--save]
    python benchmarks/layers.py --sparseprop FOLDER     the same layers there, beside ours

Compiles and runs two C programs: benchmarks/c/peak.c measures the machine, Tests/c/kernels/kernels_speed.c
the kernels (those of `make build`, where they are), without engine and package.  Needs Swift's clang (or
--compiler).

SparseProp's layers are timed as a user calls them: the module forward, autograd's gradients to x and w.
Ours are the kernels; they also do batch norm, ReLU and their gradients on the way.  Both take turns; of
each figure the best of all turns counts.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

import common

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {"1": "reference", "2": "avx2", "3": "avx512"}  # numbers of kernels_speed
SPARSEPROP = 5.0  # the goal: times faster than its convolutions
KERNEL_FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-DMESTK_THREADS"]  # as in Package.swift
LINE = re.compile(r"level (\S+), (\d+) threads?, (.*?)((?:\s+-?\d+\.\d+|\s+\|)+)\s*$")
CONV = re.compile(r"conv +(\d+)x *(\d+)x *(\d+) */(\d+)$")
FEATURES = 1024  # of the linear layer
FORMATS = ("float32", "bfloat16")  # figures left and right of "|"

Peak = Dict[Tuple[str, str, int], Tuple[float, str]]  # (what, level, threads) -> value, unit


class Speed(NamedTuple):
    """One line of kernels_speed: GFLOP/s forward and backward by sparsity."""

    level: str
    threads: int
    layer: str
    figures: Tuple[float, ...]
    activations: str = "float32"


def parse_peak(text: str) -> Peak:
    found: Peak = {}
    for line in text.splitlines():
        what, level, threads, value, unit = line.split()
        found[what, level, int(threads)] = float(value), unit
    return found


def parse_speed(text: str) -> Tuple[List[str], List[Speed], List[str]]:
    """(names of the sparsities, lines that are layers, other lines as they are)."""
    names: List[str] = []
    speeds, others = [], []
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            level, threads, layer, figures = match.groups()
            layer = " ".join(layer.split())
            for kind, part in zip(FORMATS, figures.split("|")):
                values = tuple(float(word) for word in part.split())
                speeds.append(Speed(LEVELS.get(level, level), int(threads), layer, values, kind))
        elif "GFLOP/s" in line:
            names = [f"{number} %" for number in re.findall(r"([\d.]+) %", line)]
        elif line.strip():
            others.append(line.strip())
    return names, speeds, others


def share(value: float, speed: Speed, peak: Peak) -> str:
    """GFLOP/s and their share of the peak of that instruction set and number of threads."""
    best = peak.get(("registers", speed.level, speed.threads), (0.0, ""))[0]
    return f"{value:.0f} ({value / best:.0%})" if best else f"{value:.0f}"


def layer_table(names: List[str], speeds: List[Speed], peak: Peak) -> str:
    header = ["level", ">threads", "layer", "activations"]
    header += [f">{side} {name}" for name in names for side in ("forward", "backward")]
    lines = [
        [speed.level, str(speed.threads), speed.layer, speed.activations,
         *(share(value, speed, peak) for value in speed.figures)]
        for speed in speeds
    ]  # fmt: skip
    width = max((len(line) for line in lines), default=len(header))
    header += [">"] * (width - len(header))  # a program newer than this parser
    return common.table(header, [line + [""] * (len(header) - len(line)) for line in lines])


def best(turns: List[List[Speed]]) -> List[Speed]:
    """Of each figure the highest."""
    return [
        speeds[0]._replace(figures=tuple(max(values) for values in zip(*(speed.figures for speed in speeds))))
        for speeds in zip(*turns)
    ]


def peak_table(peak: Peak) -> str:
    kinds = dict.fromkeys((what, level) for what, level, _ in peak)
    names = {
        "registers": "multiply-add, registers", "L1": "multiply-add, an operand from L1",
        "L2": "multiply-add, an operand from L2", "read": "memory, read", "copy": "memory, copy (read + written)",
    }  # fmt: skip
    lines = []
    for what, level in kinds:
        values = [peak.get((what, level, threads)) for threads in (1, 2)]
        unit = next(value[1] for value in values if value)
        lines.append([names.get(what, what), level, *(f"{value[0]:.1f}" if value else "-" for value in values), unit])
    return common.table(["at best", "level", ">1 thread", ">2 threads", "unit"], lines)


def clang() -> Optional[str]:
    """The one beside Swift's compiler, or any."""
    swift = shutil.which("swiftc")
    beside = Path(swift).resolve().parent / "clang" if swift else None
    return str(beside) if beside and beside.exists() else shutil.which("clang")


def kernels() -> List[str]:
    """What a program that calls kernels wants: the objects of `make build`, else the sources."""
    folder = ROOT / "Sources/CMestKernels"
    archive = ROOT / os.environ.get("BUILD", ".build") / "release" / "libmest-static.a"
    found = [str(archive)] if archive.exists() else [*KERNEL_FLAGS, *sorted(map(str, folder.rglob("*.c")))]
    return ["-D_GNU_SOURCE", f"-I{folder / 'include'}", *found, "-lpthread", "-lm"]


def compile_c(compiler: str, source: str, output: Path, *flags: str) -> Path:
    """One file and what it wants."""
    try:
        subprocess.run([compiler, "-std=c11", "-O3", str(ROOT / source), *flags, "-o", str(output)], check=True)
    except subprocess.CalledProcessError:
        raise SystemExit(f"{source} could not be built here: the compiler said why above") from None
    return output


def build(compiler: str, folder: Path) -> Tuple[Path, Path]:
    """(peak, kernels_speed) as programs."""
    return (
        compile_c(compiler, "benchmarks/c/peak.c", folder / "peak", "-pthread"),
        compile_c(compiler, "Tests/c/kernels/kernels_speed.c", folder / "kernels_speed", *kernels()),
    )


def run(program: Path, *values: int) -> str:
    print(f"{program.name} ...", file=sys.stderr, flush=True)
    return subprocess.run([str(program), *map(str, values)], check=True, stdout=subprocess.PIPE, text=True).stdout


# ----------------------------------------------------------------------------------- SparseProp ---


class Pair(NamedTuple):
    """One layer, fp32, milliseconds forward and backward; ours and SparseProp's."""

    layer: str
    threads: int
    sparsity: float
    ours: Tuple[float, float]
    theirs: Tuple[float, float]

    def goal(self) -> common.Goal:
        wanted = SPARSEPROP if CONV.match(self.layer) else 1.0
        what = f"{self.layer}, {self.sparsity:g} %, {self.threads} threads, than SparseProp"
        return common.Goal(what, sum(self.theirs) / sum(self.ours), wanted)


def shape(layer: str, batch: int) -> Tuple[int, int, int, int]:
    """(channels, filters, side, stride) of a layer that kernels_speed names; a linear one has side 0."""
    found = CONV.match(layer)
    if not found:
        return FEATURES, FEATURES, 0, 1
    channels, side, _, stride = map(int, found.groups())
    return channels, channels * stride, side, stride


def milliseconds(speed: Speed, batch: int, sparsity: float, column: int) -> Tuple[float, float]:
    """Of the forward and backward figures of one sparsity."""
    channels, filters, side, stride = shape(speed.layer, batch)
    pixels, taps = ((side // stride) ** 2, 9) if side else (1, 1)
    gflop = 2e-9 * channels * filters * taps * (1 - sparsity / 100) * pixels * batch
    forward, backward = speed.figures[2 * column : 2 * column + 2]
    return 1e3 * gflop / forward, 2e3 * gflop / backward


class Rivals:
    """SparseProp's modules of every layer, and the best times of each."""

    def __init__(self, speeds: List[Speed], names: List[str], options: argparse.Namespace) -> None:
        import rivals

        self.layers: Dict[Tuple[str, float], Any] = {}
        for layer in dict.fromkeys(speed.layer for speed in speeds):
            for name in names:
                sparsity = float(name.split()[0])
                if sparsity >= 80:
                    channels, filters, side, stride = shape(layer, options.batch)
                    self.layers[layer, sparsity] = rivals.SparsePropLayer(
                        channels, filters, side, stride, options.batch, sparsity, options.sparseprop
                    )
        self.times: Dict[Tuple[str, int, float], Tuple[float, float]] = {}

    def turn(self, threads: Iterable[int]) -> None:
        for count in threads:
            print(f"SparseProp, {count} threads ...", file=sys.stderr, flush=True)
            for (layer, sparsity), module in self.layers.items():
                forward, backward = module.times(count)
                known = self.times.get((layer, count, sparsity), (forward, backward))
                self.times[layer, count, sparsity] = min(forward, known[0]), min(backward, known[1])

    def pairs(self, speeds: List[Speed], names: List[str], batch: int) -> List[Pair]:
        """Beside the fastest of our instruction sets."""
        found = []
        for (layer, threads, sparsity), theirs in self.times.items():
            column = [float(name.split()[0]) for name in names].index(sparsity)
            ours = [
                milliseconds(speed, batch, sparsity, column) for speed in speeds
                if (speed.layer, speed.threads, speed.activations) == (layer, threads, "float32")
            ]  # fmt: skip
            found.append(Pair(layer, threads, sparsity, min(ours, key=sum), theirs))
        return found


def pair_table(pairs: List[Pair]) -> str:
    lines = [
        [pair.layer, str(pair.threads), f"{pair.sparsity:g} %", *(f"{value:.3f}" for value in pair.ours + pair.theirs),
         pair.goal().cell()]
        for pair in pairs
    ]  # fmt: skip
    header = ["layer, fp32", ">threads", ">sparsity", ">ms forward", ">backward", ">SparseProp forward", ">backward",
              ">times faster"]  # fmt: skip
    return common.table(header, lines)


# ----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--milliseconds", type=int, default=20, help="a figure and round")
    parser.add_argument("--all-levels", action="store_true", help="every instruction set, not the best alone")
    parser.add_argument("--compiler", default=clang(), help="a clang")
    common.sparseprop_option(parser)
    options = parser.parse_args()
    if not options.compiler:
        parser.error("no clang found: --compiler")
    if options.sparseprop and common.optional("torch") is None:
        parser.error("--sparseprop needs PyTorch, which is not here")
    return options


def main() -> None:
    common.quiet_threads()
    options = arguments()
    rivals: Optional[Rivals] = None
    with tempfile.TemporaryDirectory() as folder:
        peak_program, speed_program = build(options.compiler, Path(folder))
        bystanders = common.Bystanders()  # compilers are children too
        peak = parse_peak(run(peak_program, 100))
        levels = [level for _, level, _ in peak]
        slowest = 2 if options.all_levels or "avx512" not in levels else 3
        turns: List[List[Speed]] = []
        for _ in range(options.rounds):
            names, speeds, others = parse_speed(run(speed_program, options.batch, slowest, options.milliseconds))
            turns.append(speeds)
            if options.sparseprop:
                rivals = rivals or Rivals(speeds, names, options)
                rivals.turn(sorted({speed.threads for speed in speeds}))
        common.TALLY.kept += bystanders.disturbed()
    speeds = best(turns)
    pairs = rivals.pairs(speeds, names, options.batch) if rivals else []
    text = "\n\n".join(
        [peak_table(peak), f"Batch {options.batch}: GFLOP/s and share of the multiply-add peak from registers.",
         layer_table(names, speeds, peak), *([pair_table(pairs)] if pairs else []),
         "\n".join(f"    {line}" for line in others)]
    )  # fmt: skip
    print(text)
    notes = [f"the best of {options.rounds} turns; processor time for one thread",
             "forward 2 FLOP a connection and pixel, backward 4, padding not counted",
             *common.conditions(options)[1:]]  # fmt: skip
    if options.save:
        records: List[Dict[str, Any]] = [
            {"peak": what, "level": level, "threads": threads, "value": value, "unit": unit}
            for (what, level, threads), (value, unit) in peak.items()
        ]
        records += [speed._asdict() for speed in speeds]
        records += [{**pair._asdict(), **pair.goal().record()} for pair in pairs]
        common.save("layers", "Layers alone", notes, text, records)


if __name__ == "__main__":
    main()
