# SPDX-License-Identifier: Apache-2.0
"""Layers alone: GFLOP/s of the C kernels and their share of what the processor can do at best.

    python benchmarks/layers.py [--batch 64] [--milliseconds 60] [--save]

Compiles and runs two C programs: benchmarks/c/peak.c measures the machine, Tests/c/kernels/kernels_speed.c
the kernels, without engine and package.  Needs Swift's clang (or --compiler) and OpenMP's development files.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import common

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {"1": "reference", "2": "avx2", "3": "avx512"}  # numbers of kernels_speed
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-ffp-contract=off", "-fno-math-errno"]
LINE = re.compile(r"level (\S+), (\d+) threads?, (.*?)((?:\s+-?\d+\.\d+)+)\s*$")

Peak = Dict[Tuple[str, str, int], Tuple[float, str]]  # (what, level, threads) -> value, unit


class Speed(NamedTuple):
    """One line of kernels_speed: GFLOP/s forward and backward by sparsity."""

    level: str
    threads: int
    layer: str
    figures: Tuple[float, ...]


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
            values = tuple(float(word) for word in figures.split())
            speeds.append(Speed(LEVELS.get(level, level), int(threads), layer, values))
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
    header = ["level", ">threads", "layer"] + [f">{side} {name}" for name in names for side in ("forward", "backward")]
    lines = [
        [speed.level, str(speed.threads), speed.layer, *(share(value, speed, peak) for value in speed.figures)]
        for speed in speeds
    ]
    width = max((len(line) for line in lines), default=len(header))
    header += [">"] * (width - len(header))  # a program newer than this parser
    return common.table(header, [line + [""] * (len(header) - len(line)) for line in lines])


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


def build(compiler: str, folder: Path) -> Tuple[Path, Path]:
    """(peak, kernels_speed) as programs."""
    kernels = ROOT / "Sources" / "CMestKernels"
    speed = [
        str(ROOT / "Tests/c/kernels/kernels_speed.c"), *sorted(map(str, kernels.rglob("*.c"))),
        f"-I{kernels / 'include'}", "-Xclang", "-fopenmp", "-lomp5", "-lm",
    ]  # fmt: skip
    programs = folder / "peak", folder / "kernels_speed"
    subprocess.run([compiler, "-std=c11", "-O3", "-pthread", str(ROOT / "benchmarks/c/peak.c"), "-o", str(programs[0])],
                   check=True)  # fmt: skip
    subprocess.run([compiler, *FLAGS, *speed, "-o", str(programs[1])], check=True)
    return programs


def run(program: Path, *values: int) -> str:
    print(f"{program.name} ...", file=sys.stderr, flush=True)
    return subprocess.run([str(program), *map(str, values)], check=True, stdout=subprocess.PIPE, text=True).stdout


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--milliseconds", type=int, default=60, help="a figure")
    parser.add_argument("--all-levels", action="store_true", help="every instruction set, not the best alone")
    parser.add_argument("--compiler", default=clang(), help="a clang")
    options = parser.parse_args()
    if not options.compiler:
        parser.error("no clang found: --compiler")
    return options


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        try:
            peak_program, speed_program = build(options.compiler, Path(folder))
        except subprocess.CalledProcessError:
            raise SystemExit("the C programs could not be built here: the compiler said why above") from None
        bystanders = common.Bystanders()  # compilers are children too
        peak = parse_peak(run(peak_program, max(100, options.milliseconds)))
        levels = [level for _, level, _ in peak]
        slowest = 2 if options.all_levels or "avx512" not in levels else 3
        names, speeds, others = parse_speed(run(speed_program, options.batch, slowest, options.milliseconds))
        common.TALLY.kept += bystanders.disturbed()
    text = "\n\n".join(
        [peak_table(peak), f"Batch {options.batch}: GFLOP/s and share of the multiply-add peak from registers.",
         layer_table(names, speeds, peak), "\n".join(f"    {line}" for line in others)]
    )  # fmt: skip
    print(text)
    notes = ["the best of many runs; forward 2 FLOP a connection and pixel, backward 4, padding not counted",
             *common.conditions(options)[1:]]  # fmt: skip
    if options.save:
        records: List[Dict[str, Any]] = [
            {"peak": what, "level": level, "threads": threads, "value": value, "unit": unit}
            for (what, level, threads), (value, unit) in peak.items()
        ]
        common.save("layers", "Layers alone", notes, text, records + [speed._asdict() for speed in speeds])


if __name__ == "__main__":
    main()
