# SPDX-License-Identifier: Apache-2.0
"""Which trainings the experiments consist of: names and settings, nothing that runs.

One training may serve several experiments: the forgetting counts are those of the runs that compare methods.
The recipe is the MEST authors' (SGD, momentum 0.9, weight decay 1e-4, batch 64, rate 0.1 along a cosine, pad,
crop and flip), all that they say in epochs scaled from their 160 to `epochs`: a mutation every 5 of 160 epochs,
but not more often than once an epoch; decay at 9/16 and 3/4.  As published are RigL, which moves every 100 updates,
and GSE, every 1000, both at least once an epoch, and SET, after every epoch.  DSR (every 100 to 800 updates) and
SRigL (every 100) move between epochs here.  Every sparse layer has the same density, but with SNIP, GraSP and DSR,
which share the same number of connections out themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

# Method as the library names it -> as the tables do, in their order.
METHODS: Mapping[str, str] = {
    "dense": "dense",
    "static": "static",
    "set": "SET",
    "rigl": "RigL",
    "snip": "SNIP",
    "dsr": "DSR",
    "vanilla": "MEST vanilla",
    "em": "MEST EM",
    "em&s": "MEST EM&S",
}
SCHEMES: Mapping[str, str] = {
    "unstructured": "unstructured",
    "block4": "block 4x1",
    "block8": "block 8x1",
    "block16": "block 16x1",
    "row4": "row 1x4",
    "pattern": "pattern 4 of 9",
    "nm24": "at most 2 of 4",
    "fan_in": "constant fan-in",
    "channel": "channel",
}
FURTHER: Mapping[str, str] = {"gse": "GSE", "grasp": "GraSP", "srigl": "SRigL, random growth"}
ALL_METHODS = {**METHODS, **FURTHER}
PLANNED: Mapping[str, str] = {"gmp": "gradual magnitude pruning", "lottery": "lottery tickets"}  # not trained
FIGURE_5C = range(50, 81)  # epochs of the long training
SEEDED = ("set", "em", "em&s")  # compared with three seeds at 90 and 95 %
SPARSITIES = (90, 95, 98)


@dataclass(frozen=True)
class Scale:
    """A data set with a network and a length."""

    name: str
    network: Mapping[str, Any]  # of mest.resnet
    epochs: int
    recipe: Mapping[str, Any]  # of mest.Config
    seeds: Sequence[int]
    phases: Sequence[int]  # lengths of phase 1, in epochs
    augmented: bool
    test_samples: int


_RECIPE = dict(momentum=0.9, weight_decay=1e-4, schedule="cosine", learning_rate_min=4e-8)

SCALES = {
    "cifar10": Scale(
        "cifar10", dict(depth=20, width=16, classes=10, input=(3, 32, 32)), 20,
        dict(_RECIPE, batch=64, learning_rate=0.1), (1, 2, 3), (4, 8, 12), True, 10000,
    ),
    "digits": Scale(
        "digits", dict(depth=8, width=16, classes=10, input=(1, 8, 8)), 20,
        dict(_RECIPE, batch=32, learning_rate=0.1), (1, 2, 3, 4, 5), (4, 8, 12), False, 450,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    name: str  # of its log
    scale: str
    method: str
    sparsity: int  # percent, of the sparse layers
    seed: int
    scheme: str = "unstructured"
    epochs: int = 0  # 0: the scale's
    network: Mapping[str, Any] = field(default_factory=dict)  # what differs from the scale's
    options: Mapping[str, Any] = field(default_factory=dict)  # of mest.Config, beyond the recipe

    @property
    def length(self) -> int:
        return self.epochs or SCALES[self.scale].epochs

    def architecture(self) -> Dict[str, Any]:
        """Arguments of mest.resnet."""
        return {**SCALES[self.scale].network, **self.network}

    def config(self, samples: int) -> Dict[str, Any]:
        """Arguments of mest.Config."""
        config = dict(SCALES[self.scale].recipe, epochs=self.length, samples=samples, seed=self.seed)
        if self.method != "dense":
            config.update(method=self.method, density=(100 - self.sparsity) / 100, scheme=self.scheme)
        if self.method in ("vanilla", "em", "em&s"):
            config.update(mutation_every=max(1, round(self.length * 5 / 160)))
        if self.method == "lottery":  # a round is a whole training; of 20 the sparsest is reached before the last
            config.update(mutation_every=self.length, epochs=20 * self.length)
        return {**config, **self.options}


def slug(method: str) -> str:
    return method.replace("&", "")


def of_method(scale: str, method: str, sparsity: int, seed: int) -> Run:
    scheme = "fan_in" if method == "srigl" else "unstructured"
    return Run(f"{slug(method)}-{sparsity}-seed{seed}", scale, method, sparsity, seed, scheme)


def methods(scale: str) -> List[Run]:
    """Methods at three sparsities; those that are compared closely with all seeds."""
    seeds = SCALES[scale].seeds
    runs = []
    for seed in seeds:
        for sparsity in SPARSITIES:
            for method in METHODS:
                if method == "dense":
                    continue
                if seed == seeds[0] or scale == "digits" or (method in SEEDED and sparsity < 98):
                    runs.append(of_method(scale, method, sparsity, seed))
        runs.append(of_method(scale, "dense", 0, seed))
    return runs


def further(scale: str) -> List[Run]:
    """Methods that the paper does not compare, one seed."""
    seed = SCALES[scale].seeds[0]
    return [of_method(scale, method, sparsity, seed) for sparsity in SPARSITIES for method in FURTHER]


def schemes(scale: str) -> List[Run]:
    """Schemes under EM&S; the unstructured one is among the methods."""
    seed = SCALES[scale].seeds[0]
    return [
        Run(f"{scheme}-{sparsity}-seed{seed}", scale, "em&s", sparsity, seed, scheme)
        for sparsity in SPARSITIES[:2]
        for scheme in SCHEMES
        if scheme != "unstructured"
    ]


def phases(scale: str) -> List[Run]:
    """Two-phase training under EM&S at 90 %: who has been forgotten at most `count` times leaves."""
    seed = SCALES[scale].seeds[0]
    return [
        Run(
            f"phase{length}-count{count}-seed{seed}", scale, "em&s", 90, seed,
            options=dict(phase1_epochs=length, remove_rule="count", remove_count=count),
        )
        for length in SCALES[scale].phases
        for count in (0, 1)
    ]  # fmt: skip


def spared(scale: str) -> List[Run]:
    """Less work under EM&S at 90 %, as SpFDE spares it: front layers freeze, samples take turns, both."""
    seed, length = SCALES[scale].seeds[0], SCALES[scale].epochs
    freezing = dict(freeze_share=2 / 3)
    sieving = dict(sieve_absent=0.2, sieve_every=max(1, length // 8))
    options = {"freezing": freezing, "sieving": sieving, "both": {**freezing, **sieving}}
    return [Run(f"{name}-seed{seed}", scale, "em&s", 90, seed, options=chosen) for name, chosen in options.items()]


def long(scale: str) -> Run:
    """As many epochs as the authors train, of CIFAR-10 with their network, which takes hours: figure 5(c) is of it."""
    network = {"cifar10": dict(depth=32, width=32), "digits": {}}[scale]
    depth = network.get("depth", SCALES[scale].network["depth"])
    return Run(f"long-resnet{depth}", scale, "em&s", 90, 1, epochs=160, network=network)


def all_runs(scale: str) -> List[Run]:
    return [*methods(scale), *schemes(scale), *phases(scale), *spared(scale), *further(scale), long(scale)]


def named(name: str, scale: str) -> Optional[Run]:
    return next((run for run in all_runs(scale) if run.name == name), None)
