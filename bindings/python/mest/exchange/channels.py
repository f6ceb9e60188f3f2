# SPDX-License-Identifier: Apache-2.0
"""Schemes "filter" and "channel": which layers have channels in common, and which channels they keep.

The channels of a group (`graph.Groups`) exist in all layers that have them or nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import MestArgumentError
from ..layers import Conv2d, Layer, Linear
from ..plan import LayerPlan, plan
from .graph import Groups, copied, groups_of, is_matrix

if TYPE_CHECKING:
    from ..model import Model

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def largest(model: "Model", weights: Mapping[int, Floats]) -> Dict[int, Mask]:
    """Masks of all layers that lack channels: of each group those of the largest weights, as many as the
    model has now.  A channel's importance is as the library has it: the norm of its rows where "filter"
    asked, of its columns where "channel" did."""
    layers, parts = model.layers, model.plan().layers
    groups = groups_of(layers, parts)
    rows_asked, columns_asked = set(), set()
    for index, layer in enumerate(layers):
        if isinstance(layer, (Linear, Conv2d)) and _asks(model, index):
            if parts[index].scheme == "filter":
                rows_asked.add(groups.of[index])
            else:
                columns_asked.add(groups.of[groups.source[index]])
    alive: Dict[int, Mask] = {}
    for group in _thin(parts, groups):
        scores = np.zeros(_declared(parts, groups, group))
        number = 0
        for index, weight in weights.items():
            rows, columns = _sums(np.square(weight, dtype=np.float64), layers, groups, index)
            if groups.of[index] == group and is_matrix(layers[index]):
                scores += rows if group in rows_asked or group not in columns_asked else 0
                starts = model.csr(index).indptr
                number = int(np.count_nonzero(starts[1:] > starts[:-1]))
            if groups.of[groups.source[index]] == group and is_matrix(layers[index]):
                scores += columns if group in columns_asked else 0
        chosen = np.zeros(scores.shape, bool)
        chosen[np.argsort(-scores, kind="stable")[:number]] = True
        alive[group] = chosen
    return {index: _mask(weight.shape, layers, groups, index, alive) for index, weight in weights.items()}


def fitting(model: "Model", sets: Mapping[int, Tuple[Floats, Mask]]) -> Dict[int, Tuple[Floats, Mask]]:
    """Whole channels around these connections, as many in all layers of a group, for which there is room.

    A channel exists if a row or a column of it has a connection.  MestArgumentError otherwise."""
    layers, parts = model.layers, model.plan().layers
    groups = groups_of(layers, parts)
    room, masks = _room(layers, parts, groups), {index: mask for index, (_, mask) in sets.items()}
    alive: Dict[int, Mask] = {}
    for group in _thin(parts, groups):
        chosen = _support(layers, groups, group, _declared(parts, groups, group), masks)
        number = int(np.count_nonzero(chosen))
        name = parts[group].name
        if not number:
            raise MestArgumentError(f"the weights leave no channel of layer {name}: one has to exist")
        if number > room[group]:
            raise MestArgumentError(
                f"the weights have {number} channels of layer {name}, there is room for {room[group]}: make "
                "the model with a higher density, or prune the weights"
            )
        alive[group] = chosen
    found = {}
    for index, (array, _) in sets.items():
        mask = _mask(array.shape, layers, groups, index, alive)
        found[index] = np.where(mask, array, np.float32(0)), mask
    return found


def give_densities(layers: Sequence[Layer], weights: Mapping[str, Any], masks: Mapping[int, Mask]) -> None:
    """Gives the layers of `masks`, whose scheme is "filter" or "channel", the density at which the model has
    the channels that exist in the weights; 1 where that is all of them."""
    dense: List[Any] = copied(layers)
    for index in masks:
        dense[index].density, dense[index].scheme = 1.0, None
    parts = plan(dense).layers
    groups = groups_of(layers, parts)
    known = {
        i: masks.get(i, np.asarray(weights.get(f"{layer.name}.weight", ())) != 0)
        for i, layer in enumerate(layers)
        if isinstance(layer, (Linear, Conv2d))
    }
    for index in masks:
        layer: Any = layers[index]
        group = groups.of[index if layer.scheme == "filter" else groups.source[index]]
        declared = _declared(parts, groups, group)
        number = int(np.count_nonzero(_support(layers, groups, group, declared, known)))
        if group in groups.fixed or number in (0, declared):
            layer.density, layer.scheme = 1.0, None
        else:
            layer.density = max(1e-6, (number / declared) ** 2)


def _asks(model: "Model", index: int) -> bool:
    layer: Any = model.layers[index]
    density = model.config.density if layer.density is None else layer.density
    return model.plan().layers[index].sparse and density not in (None, 1)


def _thin(parts: Sequence[LayerPlan], groups: Groups) -> List[int]:
    """Groups that lack channels at the target."""
    return sorted({group for part, group in zip(parts, groups.of) if part.alive < part.channels})


def _declared(parts: Sequence[LayerPlan], groups: Groups, group: int) -> int:
    return parts[group].channels // groups.span[group]


def _sums(
    values: NDArray[np.float64], layers: Sequence[Layer], groups: Groups, index: int
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Over all that a channel has: by output, and by channel of the input's group."""
    span = groups.span[groups.source[index]]
    flat = values.reshape(values.shape[0], values.shape[1], -1)
    return flat.sum((1, 2)), flat.sum((0, 2)).reshape(-1, span).sum(1)


def _support(
    layers: Sequence[Layer], groups: Groups, group: int, declared: int, masks: Mapping[int, Mask]
) -> Mask:
    """Channels of which a row or a column has a connection."""
    alive = np.zeros(declared, bool)
    for index, mask in masks.items():
        if not is_matrix(layers[index]):
            continue
        rows, columns = _sums(mask.astype(np.float64), layers, groups, index)
        if groups.of[index] == group:
            alive |= rows > 0
        if groups.of[groups.source[index]] == group:
            alive |= columns > 0
    return alive


def _mask(
    shape: Tuple[int, ...], layers: Sequence[Layer], groups: Groups, index: int, alive: Mapping[int, Mask]
) -> Mask:
    """All weights between channels that exist."""
    mask = np.ones(shape, bool)
    rows = alive.get(groups.of[index])
    if rows is not None:
        mask[~np.repeat(rows, groups.span[index])] = False
    columns = alive.get(groups.of[groups.source[index]])
    if columns is not None and is_matrix(layers[index]):
        mask[:, ~np.repeat(columns, groups.span[groups.source[index]])] = False
    return mask


def _room(layers: Sequence[Layer], parts: Sequence[LayerPlan], groups: Groups) -> Dict[int, int]:
    """Channels of each group that there is room for, from the capacities: inputs are known before outputs."""
    room: Dict[int, int] = {}
    thin = _thin(parts, groups)
    for index, layer in enumerate(layers):
        group = groups.of[index]
        if not is_matrix(layer) or group in room:
            continue
        before = groups.source[index]
        complete = parts[before].channels
        taps = parts[index].columns // complete
        inputs = room[groups.of[before]] * groups.span[before] if groups.of[before] in thin else complete
        room[group] = parts[index].capacity // (inputs * taps)
    return room
