# SPDX-License-Identifier: Apache-2.0
"""Times that can be compared: variants take turns, and rounds that other processes disturbed are taken
again.

Two libraries with threads of their own disturb each other in one process, so a pause before each turn
lets the threads of the one before fall asleep, and short calls are timed several in a row after one that
wakes their own.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Hashable, Iterable, List, Mapping, Optional, Sequence, Tuple, TypeVar

PAUSE = 0.02  # seconds before a turn
TURN = 0.03  # seconds of timed work in a turn, at least one call
BUSY = 0.1  # share of the processors that others may use
SHORT = 0.3  # seconds of all cores, below which that share cannot be told
PATIENCE = 2  # how often all rounds may be taken again

K = TypeVar("K", bound=Hashable)
Call = Callable[[], Any]


@dataclass
class Tally:
    """Rounds that others disturbed: taken again, or kept because patience was at its end."""

    repeated: int = 0
    kept: int = 0


def interleave(
    calls: Mapping[K, Call],
    rounds: int,
    pause: float = PAUSE,
    turn: float = TURN,
    tally: Optional[Tally] = None,
) -> Dict[K, List[float]]:
    """Milliseconds of every timed call, by variant; within a round each variant has one turn.
    tally: counts the rounds that were disturbed."""
    tally = Tally() if tally is None else tally
    repeats = {}
    for key, call in calls.items():
        call()  # the first touches memory
        time.sleep(pause)
        call()
        repeats[key] = max(1, min(200, int(turn / max(seconds(call), 1e-6))))
    times: Dict[K, List[float]] = {key: [] for key in calls}
    patience = PATIENCE * rounds
    for _ in range(rounds):
        found, disturbed = _round(calls, repeats, pause)
        while disturbed and patience > 0:
            patience, tally.repeated = patience - 1, tally.repeated + 1
            found, disturbed = _round(calls, repeats, pause)
        tally.kept += disturbed
        for key, samples in found.items():
            times[key] += samples
    return times


def _round(
    calls: Mapping[K, Call], repeats: Mapping[K, int], pause: float
) -> Tuple[Dict[K, List[float]], bool]:
    """A turn of each, and whether other processes were busy meanwhile."""
    bystanders = Bystanders()
    found = {}
    for key, call in calls.items():
        time.sleep(pause)
        if repeats[key] > 1:
            call()
        found[key] = [1e3 * seconds(call) for _ in range(repeats[key])]
    return found, bystanders.disturbed()


def seconds(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def ratio(reference: Optional[Sequence[float]], samples: Optional[Sequence[float]]) -> Optional[float]:
    """How many times faster than the reference; None when one of them was not measured."""
    return median(reference) / median(samples) if reference and samples else None


def fastest(many: Iterable[Sequence[float]]) -> Optional[Sequence[float]]:
    """The samples with the least median, the better of several layouts for example."""
    return min((samples for samples in many if samples), key=median, default=None)


class Bystanders:
    """How much of the processors' time others used since this object was made."""

    def __init__(self) -> None:
        self.begin = self._now()

    @staticmethod
    def _now() -> Optional[List[float]]:
        """Seconds of all cores: busy, in all, and of this process and its finished children; None where
        /proc does not tell."""
        try:
            fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        tick = os.sysconf("SC_CLK_TCK")
        idle = fields[3] + fields[4]
        return [(sum(fields) - idle) / tick, sum(fields) / tick, sum(os.times()[:4])]

    def share(self) -> Optional[float]:
        """0 to 1; None when it is not known, or the time was too short to tell."""
        now = self._now()
        if now is None or self.begin is None:
            return None
        busy, whole, own = (b - a for a, b in zip(self.begin, now))
        return max(0.0, busy - own) / whole if whole > SHORT else None

    def disturbed(self) -> bool:
        return (self.share() or 0.0) > BUSY
