# SPDX-License-Identifier: Apache-2.0
"""The graph that a list of layers is: copies of it, and which layers have channels in common."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, NamedTuple, Sequence, Set

from ..arrays import warn_caller
from ..layers import Add, Conv2d, Flatten, Layer, Linear, _resolve
from ..plan import LayerPlan


def copied(layers: Sequence[Layer]) -> List[Layer]:
    """Copies of the layers of a list, whose references are indices of the list."""
    copies = []
    for index, layer in enumerate(layers):
        changes: Dict[str, Any] = {}
        if layer.from_ is not None:
            changes["from_"] = _resolve(layers, index, layer.from_)
        if isinstance(layer, Add) and layer.with_ is not None:
            changes["with_"] = _resolve(layers, index, layer.with_)
        copies.append(dataclasses.replace(layer, **changes))  # type: ignore[type-var]
    return copies


def warn_of_softmax(what: str, whole: str) -> None:
    """Says that a softmax at the end of a network that is read has no layer.  whole: what it ends."""
    warn_caller(
        f"{what} at the end of the {whole} is left out: predict gives what goes into it, "
        'predict_proba the softmax, and the loss "cross_entropy" has it'
    )


def living(layers: Sequence[Layer], last: int) -> List[Layer]:
    """The layers that lead to layer `last`, which then is the last one."""
    links: List[Dict[str, int]] = [{}]
    for index, layer in enumerate(layers[1:], 1):
        links.append({"from_": index - 1 if layer.from_ is None else _resolve(layers, index, layer.from_)})
        if isinstance(layer, Add) and layer.with_ is not None:
            links[index]["with_"] = _resolve(layers, index, layer.with_)
    leads = {last}
    for index in range(last, 0, -1):
        if index in leads:
            leads.update(links[index].values())
    new = {old: number for number, old in enumerate(sorted(leads))}
    found: List[Layer] = []
    for old, number in new.items():
        ends: Dict[str, Any] = {name: new[index] for name, index in links[old].items()}
        if ends.get("from_") == number - 1:
            ends["from_"] = None
        found.append(dataclasses.replace(layers[old], **ends))  # type: ignore[type-var]
    return found


class Groups(NamedTuple):
    """Channels that exist together: a group is what one Linear or Conv2d makes and all that is computed
    from it channel by channel; an addition makes one group of two (mest.h, below the schemes).

    Of every layer's output: the group, the index of its first layer, and how many neighbouring channels
    of this output are one of the group."""

    of: List[int]
    span: List[int]
    source: List[int]  # index of the layer that each reads
    fixed: Set[int]  # those that are complete always


def groups_of(layers: Sequence[Layer], parts: Sequence[LayerPlan]) -> Groups:
    of, span, fixed = [0], [1], {0}
    source = [i - 1 if x.from_ is None else _resolve(layers, i, x.from_) for i, x in enumerate(layers)]
    for index, layer in enumerate(layers[1:], 1):
        before = source[index]
        if is_matrix(layer):
            of.append(index)
            span.append(1)
            continue
        pixels = parts[before].height * parts[before].width if isinstance(layer, Flatten) else 1
        of.append(of[before])
        span.append(span[before] * pixels)
        if isinstance(layer, Add):
            assert layer.with_ is not None
            other = _resolve(layers, index, layer.with_)
            first, second = sorted((of[index], of[other]))
            if second in fixed or span[index] != span[other]:
                fixed.add(first)
            of = [first if group == second else group for group in of]
    fixed.add(of[-1])
    return Groups(of, span, source, fixed)


def is_matrix(layer: Layer) -> bool:
    """Makes channels of its own: no depthwise convolution."""
    return isinstance(layer, Linear) or (isinstance(layer, Conv2d) and layer.groups == 1)
