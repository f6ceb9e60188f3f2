# SPDX-License-Identifier: Apache-2.0
"""Where values lie while a `Program` runs: values that are never needed at once share memory."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence, Set

import numpy as np

from .program import ELEMENTWISE, Program


class Life(NamedTuple):
    size: int  # in any unit
    first: int  # the step that writes it
    last: int  # the last that reads it


class Buffers(NamedTuple):
    """of: the buffer of each value; offsets[b], in the unit of the sizes; total: what all take together.
    Buffers of the caller have no place: offset -1."""

    of: Dict[int, int]
    offsets: List[int]
    total: int


def buffers_of(program: Program, theirs: Sequence[int], placed: bool) -> Buffers:
    """theirs: values that lie in the caller's memory; placed: they have a place here nevertheless, for a
    caller who has none.  Sizes are numbers.

    A step that goes number by number writes over what it reads where nobody reads that later.
    """
    count = len(program.steps)
    last = {program.output: count}
    for at, step in enumerate(program.steps):
        last.update({source: max(at, last.get(source, 0)) for source in step.sources})
    of: Dict[int, int] = {0: 0}
    lives: List[Life] = [Life(_size(program, 0), -1, last.get(0, 0))]
    outside: Set[int] = {0} if 0 in theirs else set()
    for at, step in enumerate(program.steps):
        target, reused = step.target, None
        if step.op == "view":
            reused = of[step.sources[0]]
        elif step.op in ELEMENTWISE and target not in theirs:
            free = [of[v] for v in step.sources if of[v] not in outside and lives[of[v]].last == at]
            reused = free[0] if free else None
        if reused is None:
            reused = len(lives)
            lives.append(Life(_size(program, target), at, at))
        until = max(lives[reused].last, last[target])
        lives[reused] = lives[reused]._replace(last=until)
        of[target] = reused
        if target in theirs:  # a view of a value is that value
            outside.add(reused)
    inside = [number for number in range(len(lives)) if placed or number not in outside]
    offsets = [-1] * len(lives)
    for number, offset in zip(inside, place([lives[number] for number in inside])):
        offsets[number] = offset
    return Buffers(of, offsets, max([0] + [lives[n].size + offsets[n] for n in inside]))


def place(lives: Sequence[Life]) -> List[int]:
    """An offset for each so that no two that live at once overlap: the better of largest first and
    oldest first, each into the lowest gap that is wide enough."""
    best: List[int] = []
    for order in (
        sorted(range(len(lives)), key=lambda n: (-lives[n].size, lives[n].first)),
        sorted(range(len(lives)), key=lambda n: (lives[n].first, -lives[n].size)),
    ):
        offsets = [0] * len(lives)
        done: List[int] = []
        for number in order:
            life, offset = lives[number], 0
            beside = [n for n in done if lives[n].first <= life.last and life.first <= lives[n].last]
            for n in sorted(beside, key=lambda n: offsets[n]):
                if offset + life.size > offsets[n] and offset < offsets[n] + lives[n].size:
                    offset = offsets[n] + lives[n].size
            offsets[number] = offset
            done.append(number)
        if not best or _height(lives, offsets) < _height(lives, best):
            best = offsets
    return best


def _height(lives: Sequence[Life], offsets: Sequence[int]) -> int:
    return max([0] + [life.size + offset for life, offset in zip(lives, offsets)])


def _size(program: Program, value: int) -> int:
    return int(np.prod(program.shapes[value]))
