# SPDX-License-Identifier: Apache-2.0
"""The library's random numbers in plain Python: Foundation/Random.swift and Sparse/Floyd.swift."""

import math

import numpy as np
from graphs import MASK, _mix


TOPOLOGY, GROWTH, GROWN_VALUE, ADOPTED_VALUE = 1, 3, 6, 7  # what numbers are for


class Random:
    """SplitMix64 behind a key of (seed, purpose, layer, number): Foundation/Random.swift."""

    def __init__(self, seed, purpose, layer, number):
        key = _mix(seed + 0x9E3779B97F4A7C15 & MASK)
        key = _mix(key + purpose * 0xD1B54A32D192ED03 & MASK)
        key = _mix(key + layer * 0xAEF17502108EF2D9 & MASK)
        self.state = _mix(key + number & MASK)

    def next(self):
        self.state = self.state + 0x9E3779B97F4A7C15 & MASK
        return _mix(self.state)

    def below(self, n):
        return self.next() * n >> 64

    def unit(self):
        return ((self.next() >> 11) + 0.5) / 2**53

    def normal(self):
        radius = math.sqrt(-2 * math.log(self.unit()))
        return np.float32(radius * math.cos(2 * math.pi * self.unit()))


def floyd(count, below, random):
    found = set()
    for j in range(below - count, below):
        t = random.below(j + 1)
        found.add(j if t in found else t)
    return sorted(found)
