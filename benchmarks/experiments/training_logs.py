# SPDX-License-Identifier: Apache-2.0
"""What the trainings have logged, and what several of them say together."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import common  # noqa: E402
import runs  # noqa: E402
from runs import Scale  # noqa: E402

KIB = 1024
PAPER = 93.27  # percent: EM&S 90 %, unstructured, ResNet-32, CIFAR-10 (arXiv 2110.14032, table 1)
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)  # Student's t, by degrees of freedom from 1 on
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Log:
    """One training, as run.py wrote it."""

    run: Dict[str, Any]
    epochs: List[Dict[str, Any]]
    end: Dict[str, Any]

    def column(self, name: str) -> List[Any]:
        return [epoch[name] for epoch in self.epochs]

    @property
    def accuracy(self) -> float:
        """Of the test set after the last epoch, percent."""
        return 100 * self.epochs[-1]["validation_accuracy"]

    @property
    def counts_once(self) -> bool:
        """Whether forgetting was counted over the whole training and all samples: where samples leave it begins anew."""
        return not any(epoch["absent"] for epoch in self.epochs)

    @property
    def unforgettable(self) -> float:
        """Samples learned and never forgotten, percent of the training set."""
        return 100 * self.end["forgetting"]["unforgettable"] / self.end["forgetting"]["samples"]

    @property
    def work(self) -> float:
        """Multiply-adds of all epochs: forward once, backward twice, not of frozen layers."""
        macs = self.run["layer_macs"]
        return sum(e["samples"] * (sum(macs) + 2 * sum(macs[e["frozen"] :])) for e in self.epochs)

    @property
    def model_bytes(self) -> int:
        return model_bytes(self.run["plan"])

    @property
    def share_saved(self) -> float:
        """Of all presentations, because samples had left."""
        counts = self.end["forgetting"]
        return counts["presentations_saved"] / (counts["presentations_saved"] + counts["presentations"])

    @property
    def seconds_saved(self) -> float:
        """Because samples had left: mest.History.savings()."""
        return sum(e["seconds"] * e["absent"] / e["samples"] for e in self.epochs)


def model_bytes(plan: Mapping[str, int]) -> int:
    """Weights, index, gradients, optimizer state."""
    return sum(plan[name + "_bytes"] for name in ("weight", "index", "gradient", "state"))


def read(path: Path) -> Log:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kinds: Dict[str, List[Any]] = {}
    for line in lines:
        kinds.setdefault(line["kind"], []).append(line)
    return Log(kinds["run"][0], kinds["epoch"], kinds["end"][0])


class Logs:
    """Those of one scale, by name."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.found = {path.stem: read(path) for path in sorted((HERE / "logs" / scale.name).glob("*.jsonl"))}

    def get(self, name: str) -> Optional[Log]:
        return self.found.get(name)

    def method(self, method: str, sparsity: int) -> List[Log]:
        """All seeds."""
        names = [runs.of_method(self.scale.name, method, sparsity, seed).name for seed in self.scale.seeds]
        return [self.found[name] for name in names if name in self.found]

    def scheme(self, scheme: str, sparsity: int) -> Optional[Log]:
        """EM&S with the first seed."""
        seed = self.scale.seeds[0]
        if scheme == "unstructured":
            return self.get(runs.of_method(self.scale.name, "em&s", sparsity, seed).name)
        return self.get(f"{scheme}-{sparsity}-seed{seed}")


def step_times(scale: Scale) -> Dict[Tuple[str, int], float]:
    """Milliseconds a step by (scheme, sparsity), from the benchmark of schemes: same network, quiet machine."""
    if scale.name != "cifar10" or not (common.RESULTS / "schemes.jsonl").exists():
        return {}
    found = {}
    for record in common.load("schemes")[1:]:
        variant = record.get("variant", {})
        if variant.get("library") == "mest" and variant["activations"] == "float32" and record["samples"]:
            found[variant["scheme"], round(variant["sparsity"])] = common.median(record["samples"])
    return found


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    """Of several seeds, with their sample deviation and number."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f} ({len(values)})"


def signed(value: float, digits: int = 0) -> str:
    return f"{'+' if value >= 0 else MINUS}{abs(value):,.{digits}f}"


@dataclass(frozen=True)
class Comparison:
    """Mean of the better-to-be minus that of the other, with the standard error of the difference."""

    difference: float
    error: Optional[float]  # None: a single seed somewhere
    freedom: float = 0  # degrees of freedom

    def verdict(self) -> str:
        """Welch's t-test at 95 %, two-sided; one seed decides nothing."""
        if self.error is None:
            return "one seed"
        if abs(self.difference) <= T_975[min(max(int(self.freedom), 1), len(T_975)) - 1] * self.error:
            return "not decided"
        return "confirmed" if self.difference > 0 else "contradicted"

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.2f}"
        return f"{signed(self.difference, 2)}{error}: {self.verdict()}"


def compare(better: Sequence[float], other: Sequence[float]) -> Optional[Comparison]:
    if not better or not other:
        return None
    difference = statistics.mean(better) - statistics.mean(other)
    if min(len(better), len(other)) < 2:
        return Comparison(difference, None)
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (better, other)]
    square = sum(part for part, _ in parts)
    spread = sum(part**2 / n for part, n in parts)
    return Comparison(difference, square**0.5, square**2 / spread if spread else 1)


def paired(differences: Sequence[float]) -> Comparison:
    """Pairs whose first is better-to-be by so much."""
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return Comparison(statistics.mean(differences), error, len(differences) - 1)


def cell(value: Optional[Any]) -> str:
    return "-" if value is None else str(value)
