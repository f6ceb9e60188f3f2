# SPDX-License-Identifier: Apache-2.0
"""One mutation of one layer in the plainest way: which units leave, which come, with what values and state.

Written from the definitions (mest.h, Foundation/Random.swift, Sparse/Floyd.swift): a layer is a dictionary
of units, everything is listed and sorted, nothing is streamed.  The numbers that growth draws are the
library's own, so that what comes can be compared too.
"""

import math
from dataclasses import dataclass

import numpy as np
from randoms import GROWTH, Random, floyd

ONE = 10**9
PATTERNS = [(4, 5, 7, 8), (3, 4, 6, 7), (1, 2, 4, 5), (0, 1, 3, 4), (1, 3, 4, 5), (3, 4, 5, 7), (1, 4, 5, 7),
            (1, 3, 4, 7)]  # fmt: skip


# ----------------------------------------------------------------------------- exact shares ---


def ratio(value):
    """Billionths of a float; from 0.001 on whole millionths."""
    value = float(np.float32(value))
    return int(value * 1e9 + 0.5) if value < 0.001 else int(value * 1e6 + 0.5) * 1000


def times(a, b):
    return (a * b + ONE // 2) // ONE


def rounded(n, share):
    return max(1, (share * n + ONE // 2) // ONE)


def root(a):
    return int(math.sqrt(a * 1e9) + 0.5)


def half_cosine(position):
    return np.float32(0.5 * (1 + math.cos(math.pi * position)))


def least(values, where, count):
    """The `count` of `where` (indices) that are nearest to 0; equals: the lower index."""
    order = sorted(where, key=lambda j: (abs(values[j]), j))
    return set(order[:count])


# ------------------------------------------------------------------------------------ units ---


@dataclass
class Units:
    """What a scheme counts in, of a matrix of rows x columns."""

    scheme: str
    rows: int
    columns: int
    taps: int = 1  # columns of an input

    @property
    def height(self):
        return int(self.scheme[5:]) if self.scheme.startswith("block") else 1

    @property
    def length(self):
        """Inputs of a run, which have the same tap."""
        return int(self.scheme[3:]) if self.scheme.startswith("row") else 1

    @property
    def weights(self):
        return 4 if self.scheme == "pattern" else self.height * self.length

    @property
    def ragged(self):
        """Whether the last block or run is of fewer."""
        return self.rows % self.height > 0 or self.columns // self.taps % self.length > 0

    @property
    def unit_columns(self):
        return -(-self.columns // self.taps // self.length) * self.taps

    @property
    def span(self):
        return 9 if self.scheme == "pattern" else 1

    @property
    def pools(self):
        return self.rows if self.scheme in ("fan_in", "pattern") else 1

    @property
    def positions(self):
        """In a pool."""
        return -(-self.rows // self.height) * self.unit_columns // self.span // self.pools

    @property
    def most(self):
        if self.scheme == "nm24":
            return self.rows * (self.columns // 4 * 2 + min(2, self.columns % 4))
        return self.positions

    @property
    def densest(self):
        return {"nm24": ONE // 2, "pattern": 444_444_444}.get(self.scheme, ONE)

    def density(self, of_weights):
        return of_weights if self.span == 1 else min(ONE, of_weights * self.span // self.weights)

    def of(self, position):
        if self.scheme == "pattern":
            return position // 9
        row, column = divmod(position, self.columns)
        input, tap = divmod(column, self.taps)
        return row // self.height * self.unit_columns + input // self.length * self.taps + tap

    def spots(self, unit, pattern=None):
        """The positions of a unit's weights."""
        if self.scheme == "pattern":
            return tuple(unit * 9 + tap for tap in PATTERNS[pattern])
        block, column = divmod(unit, self.unit_columns)
        run, tap = divmod(column, self.taps)
        rows = range(block * self.height, min((block + 1) * self.height, self.rows))
        inputs = range(run * self.length, min((run + 1) * self.length, self.columns // self.taps))
        return tuple(row * self.columns + input * self.taps + tap for row in rows for input in inputs)


@dataclass
class Channels:
    """A group of n channels under "filter" or "channel"."""

    positions: int
    pools = 1
    densest = ONE

    @property
    def most(self):
        return self.positions

    def density(self, of_weights):
        return root(of_weights)


# --------------------------------------------------------------------------------- schedule ---


def decay(config, epoch):
    first, last = config["mutation_epochs"]
    if config["method"] not in ("em", "em&s"):
        return ONE
    if epoch >= last:
        return 0
    if config.get("mutation_decay") == "cosine":
        return ratio(half_cosine(epoch / last))
    return ONE // 2 if epoch >= first else ONE


def initial_density(units, config):
    target = ratio(config["density"])
    if config["method"] != "gmp":
        return target
    return max(target, min(ratio(config.get("initial_density", 1.0)), units.densest))


def levels(units, config, epoch):
    """Densities of weights that a mutation drops to and grows to."""
    target, method = ratio(config["density"]), config["method"]
    if method == "gmp":
        last = config["mutation_epochs"][1]
        if epoch >= last:
            return target, target
        above = initial_density(units, config) - target
        now = target + times(above, ratio(np.float32(((last - epoch) / last) ** 3)))
        return now, now
    share = decay(config, epoch)
    if method == "em&s":
        room = max(0, units.densest - target)
        usual = 50_000_000 if target >= 50_000_000 else target // 2
        extra = ratio(config["mutation_extra"]) if config.get("mutation_extra") else usual
        return target, target + times(min(room, extra), share)
    return target - times(times(ratio(config["mutation_rate"]), share), target), target


def kept(units, share, compat):
    n = units.positions
    if not compat:
        return min(units.most, rounded(n, share))
    if units.pools > 1:
        return min(units.most, n - (ONE - share) * n // ONE)
    return min(units.most, max(1, n - (ONE - share) * (n - 1) // ONE - 1))  # of a single unit 0 as published


def initial(units, config):
    return max(1, kept(units, units.density(initial_density(units, config)), config.get("round_compat")))


def amount(units, config, epoch, active):
    """(units of a pool that stay at most, that there are afterwards)."""
    compat, n = config.get("round_compat"), units.positions
    low, high = levels(units, config, epoch)
    keep = kept(units, units.density(low), compat)
    if low == high:
        return keep, min(active, keep) if compat else keep
    share = units.density(high)
    if compat:
        survivors = min(active, keep)
        grown = max(0, ((n - survivors) * ONE - (ONE - share) * n) // ONE)
        return keep, min(survivors + grown, units.most)
    after = min(units.most, rounded(n, share))
    if (units.pools > 1 or isinstance(units, Channels)) and keep >= after:
        if config["method"] == "em&s":
            after = min(units.most, keep + 1)
        else:
            keep = max(1, after - 1)
    return keep, max(min(active, keep), after)


# --------------------------------------------------------------------------------- mutation ---


class Layer:
    """{unit: {position: (value, momentum)}} and what of all positions was never active, as expected."""

    def __init__(self, units, where, values, momentum):
        self.units, self.held = units, {}
        for position, value, m in zip(where, values, momentum):
            self.held.setdefault(units.of(int(position)), {})[int(position)] = (value, m)
        self.factor = 1.0

    def flat(self):
        """(positions, values, momentum), ascending."""
        every = {p: vm for unit in self.held.values() for p, vm in unit.items()}
        order = sorted(every)
        return order, [every[p][0] for p in order], [every[p][1] for p in order]

    def count(self):
        return sum(len(weights) for weights in self.held.values())

    def importance(self, unit, config):
        factor = np.float32(config.get("importance_lambda", 0)) * (np.float32(1) - np.float32(config["momentum"]))
        parts = [
            np.abs(np.float32(v)) + (factor * np.abs(np.float32(m)) if factor else np.float32(0))
            for _, (v, m) in sorted(self.held[unit].items())
        ]
        if self.units.weights == 1:
            return parts[0]
        return np.float32(math.sqrt(sum(float(p) * float(p) for p in parts)))

    def least(self, units, count, config, random=None):
        """Of some units the `count` least important; of equals the lower.  Units of fewer weights among themselves."""
        order = lambda some: sorted(some, key=lambda u: (self.importance(u, config), u))  # noqa: E731
        if not self.units.ragged or not count:
            return order(units)[:count]
        small = [u for u in units if len(self.held[u]) < self.units.weights]
        others = [u for u in units if len(self.held[u]) == self.units.weights]
        of_small = (count * len(small) + random.below(len(units))) // len(units)
        return order(small)[:of_small] + order(others)[: count - of_small]

    def leaving(self, config, epoch, random):
        """(units that leave, units of a pool there are to be afterwards)."""
        units, method = self.units, config["method"]
        pools = [[u for u in self.held if u // units.positions == p] for p in range(units.pools)]
        if method == "srigl":
            last = config["mutation_epochs"][1]
            share = 0 if epoch > last else ratio(np.float32(config["mutation_rate"]) * half_cosine(epoch / last))
            best = {max(pool, key=lambda u: (self.importance(u, config), u)) for pool in pools}
            gone = self.least(self.held, share * len(self.held) // ONE, config)
            return [u for u in gone if u not in best], initial(units, config)
        keep, after = amount(units, config, epoch, len(self.held) // units.pools)
        if method == "set" and units.weights == units.pools == 1:
            share = ratio(config["mutation_rate"])
            value = {u: next(iter(weights.values()))[0] for u, weights in self.held.items()}
            signs = [[u for u in value if value[u] >= 0], [u for u in value if value[u] < 0]]
            of = lambda part: sorted(part, key=lambda u: (abs(value[u]), u))[: share * len(part) // ONE]  # noqa: E731
            return [u for part in signs for u in of(part)], after
        return [u for pool in pools for u in self.least(pool, max(0, len(pool) - keep), config, random)], after

    def mutate(self, config, epoch, seed, layer, number):
        """Returns (connections dropped, grown)."""
        before = self.count()
        random = Random(seed, GROWTH, layer, number)
        gone, after = self.leaving(config, epoch, random)
        for unit in gone:
            del self.held[unit]
        survived = self.count()
        avoided = set(gone) if config.get("exclude_dropped") else set()
        while True:
            came = self.round(after, avoided, random, config)
            if not came and not avoided:
                return before - survived, self.count() - survived
            if not came:
                avoided = set()

    def round(self, after, avoided, random, config):
        units = self.units
        came, free_in_all = [], 0
        for p in range(units.pools):
            pool = range(p * units.positions, (p + 1) * units.positions)
            active = [u for u in self.held if u in pool]
            free = [u for u in pool if u not in self.held and u not in avoided]
            count = max(0, min(after - len(active), len(free), units.most - len(active)))
            if units.scheme == "nm24":
                ranks = floyd(count, units.most - len(active), random) if count else []
                came += self.in_groups(ranks, avoided, random)
            elif count:
                came += [free[rank] for rank in floyd(count, len(free), random)]
            free_in_all += len(free)
        signed = config["method"] == "set" and units.weights == units.pools == 1
        for unit in sorted(came):
            pattern = random.below(8) if units.scheme == "pattern" else None
            value = np.float32(0.1) * random.normal() if signed else np.float32(0)
            self.held[unit] = {p: (value, np.float32(0)) for p in units.spots(unit, pattern)}
        if came:
            share = 1 if units.span == 1 else units.weights / units.span
            self.factor *= 1 - share * len(came) / free_in_all
        return came

    def in_groups(self, ranks, avoided, random):
        """2:4: a group of columns gets as many as its slots were drawn, those just dropped last."""
        came, slots = [], 0
        for row in range(self.units.rows):
            for first in range(0, self.units.columns, 4):
                at = row * self.units.columns
                here = range(at + first, at + min(first + 4, self.units.columns))
                slots_before = slots
                slots += min(2, len(here)) - sum(p in self.held for p in here)
                count = sum(slots_before <= rank < slots for rank in ranks)
                if not count:
                    continue
                fresh = [p for p in here if p not in self.held and p not in avoided]
                some = pick(min(count, len(fresh)), fresh, random)
                others = [p for p in here if p not in self.held and p in avoided]
                came += some + pick(count - len(some), others, random)
        return came


def pick(count, of, random):
    """Knuth's algorithm S."""
    picked = []
    for i, item in enumerate(of):
        if len(picked) < count and random.below(len(of) - i) < count - len(picked):
            picked.append(item)
    return picked
