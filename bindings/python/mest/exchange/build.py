# SPDX-License-Identifier: Apache-2.0
"""A `Model` from layers and dense weights: which layers are sparse, how dense, and with what."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from .. import arrays
from ..config import Config, as_config
from ..errors import MestArgumentError, UnsupportedError
from ..layers import Conv2d, Layer, Linear
from ..plan import plan
from . import channels, prune
from .graph import copied
from .state import Mask, entries, install, mask_of, shape_of

if TYPE_CHECKING:
    from ..model import Model
    from .network import Network

Densities = Union[None, float, Mapping[str, float]]
Schemes = Union[None, str, Mapping[str, str]]
Matrix = Union[Linear, Conv2d]

# They choose connections by random first values, or go back to those: not with weights that are brought in.
_CHOOSE = ("snip", "grasp", "lottery")
_STEPS = 50


def build(
    network: "Network", config: Optional[Config], density: Densities, scheme: Schemes, fields: Dict[str, Any]
) -> "Model":
    """Network.to_model."""
    from ..model import Model

    hooks = {name: fields.pop(name) for name in ("on_progress", "on_log") if name in fields}
    settings = as_config(config, fields)
    if settings.method in _CHOOSE:
        raise UnsupportedError(
            f'method "{settings.method}" works on random first weights and would not use those that are '
            'brought in: choose "em&s", "em", "rigl", "gmp", ... or "static"'
        )
    density = settings.density if density is None else density
    scheme = settings.scheme if scheme is None else scheme
    layers = copied(network.layers)
    wanted = _asked(layers, density, scheme)
    settings.density = settings.scheme = None
    masks = _keep_what_is(network, layers, settings)
    if not wanted:  # those that follow layers which lack channels have them, too
        masks = {**network.masks, **masks}
    if isinstance(density, (int, float)) and settings.distribution == "erk":
        # The library shares a density out among layers that name none.
        settings.density = float(density)
        for layer in wanted:
            layer.density = None
    model = Model(layers, settings, **hooks)
    try:
        _check_names(model, network)
        masks.update(_keep_largest(model, network.weights, masks))
        install(model, network.weights, masks)
    except BaseException:
        model.close()
        raise
    return model


def _asked(layers: List[Layer], density: Densities, scheme: Schemes) -> List[Matrix]:
    """Gives layers the density and scheme that were asked for; returns those that have a density below 1."""
    matrices: Dict[int, Matrix] = {
        index: layer for index, layer in enumerate(layers) if isinstance(layer, (Linear, Conv2d))
    }
    densities, schemes = _by_layer(density, matrices, "density"), _by_layer(scheme, matrices, "scheme")
    wanted: List[Matrix] = []
    for index, layer in matrices.items():
        layer.density = densities.get(index, layer.density)
        layer.scheme = schemes.get(index, layer.scheme)
        if isinstance(layer, Conv2d) and layer.groups != 1:
            if isinstance(density, Mapping) and density.get(layer.name, 1) != 1:
                raise UnsupportedError(f"density of layer {layer.name!r}: a depthwise convolution is dense")
            layer.density = 1.0
        if layer.density == 1:
            layer.scheme = None
        elif layer.density is not None:
            wanted.append(layer)
    return wanted


def _by_layer(asked: Any, layers: Mapping[int, Matrix], what: str) -> Dict[int, Any]:
    """What is asked of each layer, by its index."""
    if asked is None:
        return {}
    if not isinstance(asked, Mapping):
        return {index: asked for index, layer in layers.items() if layer.density != 1}
    found: Dict[int, Any] = {}
    for name, value in asked.items():
        exact = [i for i, layer in layers.items() if layer.name == name]
        matching = exact or [i for i, layer in layers.items() if fnmatch.fnmatchcase(layer.name, name)]
        if not matching:
            names = ", ".join(layer.name for layer in layers.values())
            raise MestArgumentError(f"{what}: no Linear or Conv2d has the name {name!r}; there are {names}")
        found.update((i, value) for i in matching if exact or i not in found)
    return found


def _keep_what_is(network: "Network", layers: List[Layer], settings: Config) -> Dict[str, Mask]:
    """Gives the other layers the density that their connections have, and returns these by name."""
    masks: Dict[str, Mask] = {}
    forms: Dict[int, Tuple[prune.Form, int]] = {}
    thin: Dict[int, Mask] = {}
    for index, layer in enumerate(layers):
        if not isinstance(layer, (Linear, Conv2d)) or layer.density is not None:
            continue
        key = f"{layer.name}.weight"
        mask = network.masks.get(key)
        if mask is None:
            mask = np.asarray(network.weights.get(key, ())) != 0
        if mask.all() or not mask.any():
            layer.density, layer.scheme = 1.0, None
        elif layer.scheme in prune.THIN:
            thin[index] = mask
        else:
            form = prune.Form.of(mask.shape, layer.scheme, settings.code8_patterns)
            masks[key], units = prune.cover(mask, form, key)
            layer.density, layer.scheme = form.density(units), form.scheme
            forms[index] = form, units
    if thin:
        channels.give_densities(layers, network.weights, thin)
    _make_room(layers, settings, forms)
    return masks


def _make_room(layers: List[Layer], settings: Config, forms: Mapping[int, Tuple[prune.Form, int]]) -> None:
    """Raises densities by as little as their rounding needs, until all connections have room."""
    for _ in range(_STEPS):
        short = []
        parts = plan(layers, settings).layers if forms else ()
        for index, (form, units) in forms.items():
            layer: Any = layers[index]
            if layer.density < 1 and parts[index].capacity < units * form.pools * form.weights:
                short.append(layer)
        if not short:
            break
        for layer in short:
            layer.density = min(1.0, layer.density + max(1e-6 * layer.density, 1e-9))
            if layer.density > 1 - 1e-6:  # the library would round it up
                layer.density = 1.0
    for index in forms:
        layer = layers[index]
        if layer.density == 1:
            layer.scheme = None


def _keep_largest(model: "Model", weights: Mapping[str, Any], known: Mapping[str, Mask]) -> Dict[str, Mask]:
    """Of sparse layers whose connections are not known the largest weights, in the number of connections
    that the new model has: with "gmp" those of the beginning."""
    masks: Dict[str, Mask] = {}
    thin: Dict[int, NDArray[np.float32]] = {}
    for entry in entries(model):
        part = model.plan().layers[entry.layer]
        if entry.what != "weight" or not part.sparse or entry.key in known:
            continue
        weight = arrays.floats(weights[entry.key], entry.key)
        if part.scheme in prune.THIN:
            thin[entry.layer] = weight
            continue
        form = prune.Form.of(weight.shape, part.scheme, model.config.code8_patterns)
        units = prune.count_units(mask_of(model, entry.layer), form)
        masks[entry.key] = prune.largest(prune.finite(weight, entry.key), form, units)
    keys = {entry.layer: entry.key for entry in entries(model) if entry.what == "weight"}
    if thin:
        masks.update((keys[index], mask) for index, mask in channels.largest(model, thin).items())
    return masks


def _check_names(model: "Model", network: "Network") -> None:
    keys = [entry.key for entry in entries(model)]
    missing = [key for key in keys if key not in network.weights]
    more = [key for key in (*network.weights, *network.masks) if key not in keys]
    if missing or more:
        said = f"the layers have {', '.join(missing)}, which weights lack; " if missing else ""
        said += f"weights have {', '.join(more)}, which no layer has; " if more else ""
        raise MestArgumentError(f"{said}weights are named <layer's name>.weight, .bias, ...")
    for entry in entries(model):
        shape, found = shape_of(model, entry), np.shape(network.weights[entry.key])
        if shape != found:
            raise MestArgumentError(f"{entry.key} has shape {found}, the layer wants {shape}")
