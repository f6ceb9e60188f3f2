# SPDX-License-Identifier: Apache-2.0
"""A model as a module of PyTorch, and a model's weights into a module that exists."""

from __future__ import annotations

import keyword
import operator
import unicodedata
from importlib import import_module
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Sequence, Tuple

from ... import layers as kinds
from ...errors import MestArgumentError
from ...layers import Layer, _resolve
from ..network import network_of
from ..state import layer_names
from .weights import short_names

if TYPE_CHECKING:
    from ...model import Model


torch: Any = import_module("torch")
fx: Any = import_module("torch.fx")
prune: Any = import_module("torch.nn.utils.prune")
nn, F = torch.nn, torch.nn.functional


def module_of(model: "Model", masks: bool) -> Any:
    """torch.fx.GraphModule, in eval mode."""
    network, parts = network_of(model), model.plan().layers
    writer = _Writer(network.layers, [part.shape for part in parts])
    wanted = [layer.name or part.name for layer, part in zip(network.layers, parts)]
    names = _free(wanted, layer_names(model))
    module = writer.module(names)
    places = {network.layers[index].name: names[index] for index in layer_names(model)}

    def place(key: str) -> Tuple[str, str]:
        name, _, what = key.rpartition(".")
        return places[name], what

    tensors = {".".join(place(key)): torch.from_numpy(array) for key, array in network.weights.items()}
    module.load_state_dict(tensors, strict=False)  # not strict: num_batches_tracked
    if masks:
        for key, mask in network.masks.items():
            part = module.get_submodule(place(key)[0])
            prune.custom_from_mask(part, "weight", torch.from_numpy(mask))
    return module.eval()


def write_into(model: "Model", module: Any, masks: bool) -> Any:
    """`module` with the model's weights.  All is compared before anything is written."""
    network = network_of(model)
    paths = {name: path for path, name in short_names(module).items()}
    copies: List[Tuple[Any, Any]] = []
    masked: List[Tuple[Any, Any]] = []
    touched: List[Tuple[Any, str]] = []
    for key, array in network.weights.items():
        name, _, what = key.rpartition(".")
        if name not in paths:
            raise MestArgumentError(
                f"the module has no layer {name!r}; it has {', '.join(paths) or 'none with parameters'}"
            )
        part = module.get_submodule(paths[name])
        has_mask = hasattr(part, f"{what}_orig")
        target = getattr(part, f"{what}_orig" if has_mask else what, None)
        if target is None or tuple(target.shape) != array.shape:
            shape = None if target is None else tuple(target.shape)
            raise MestArgumentError(f"{key} of the module has shape {shape}, the model's {array.shape}")
        if target.layout != torch.strided:
            raise MestArgumentError(f"{key} of the module is a sparse tensor: make it dense")
        copies.append((target, array))
        touched += [(part, what)] if has_mask else []
        mask = network.masks.get(key)
        if has_mask:
            full = torch.ones(array.shape) if mask is None else torch.from_numpy(mask)
            copies.append((getattr(part, f"{what}_mask"), full.numpy()))
        elif masks and mask is not None:
            masked.append((part, mask))
    with torch.no_grad():
        for target, array in copies:
            target.copy_(torch.from_numpy(array))
    for part, mask in masked:
        prune.custom_from_mask(part, "weight", torch.from_numpy(mask).to(part.weight.device))
    for part, what in touched:  # what the next call computes, for who looks before
        setattr(part, what, getattr(part, f"{what}_orig").detach() * getattr(part, f"{what}_mask"))
    return module


class _Writer:
    """Layers as the nodes of a graph.  A tensor has 4 axes or, without pixels, 2: where torch wants the
    other, a reshape comes between."""

    def __init__(self, layers: Sequence[Layer], shapes: Sequence[Tuple[int, int, int]]) -> None:
        self.layers, self.shapes = layers, shapes
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.nodes: List[Any] = []  # of every layer
        self.flat: List[bool] = []  # whether it has 2 axes

    def module(self, names: Sequence[str]) -> Any:
        for index, layer in enumerate(self.layers):
            self._write(index, layer, names[index])
        self.graph.output(self._features(len(self.layers) - 1))
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "MestNetwork")

    def _write(self, index: int, layer: Any, name: str) -> None:
        if isinstance(layer, kinds.Input):
            self._append(self.graph.placeholder("x"), self.shapes[0][1:] == (1, 1))
            return
        source = index - 1 if layer.from_ is None else _resolve(self.layers, index, layer.from_)
        channels = self.shapes[source][0]
        flat = self.flat[source]
        if isinstance(layer, kinds.Flatten):
            self._append(self._features(source), True)
        elif isinstance(layer, kinds.Add):
            other = _resolve(self.layers, index, layer.with_)
            flat = flat or self.flat[other]
            ends = (source, other)
            nodes = tuple(self._features(end) if flat else self.nodes[end] for end in ends)
            self._append(self.graph.call_function(operator.add, nodes), flat)
        elif isinstance(layer, kinds.Linear):
            module = nn.Linear(channels, layer.features, bias=layer.bias)
            self._append(self._call(name, module, self._features(source)), True)
        elif isinstance(layer, kinds.Conv2d):
            module = nn.Conv2d(
                channels, layer.channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups,
                bias=layer.bias,
            )  # fmt: skip
            self._append(self._call(name, module, self._picture(source)), False)
        elif isinstance(layer, kinds.BatchNorm):
            norm = nn.BatchNorm1d if flat else nn.BatchNorm2d
            module = norm(channels, layer.eps, layer.momentum, layer.affine)
            self._append(self._call(name, module, self.nodes[source]), flat)
        elif isinstance(layer, kinds.ReLU):
            self._append(self._call(name, nn.ReLU(), self.nodes[source]), flat)
        elif isinstance(layer, kinds.Dropout):
            self._append(self._call(name, nn.Dropout(layer.rate), self.nodes[source]), flat)
        elif isinstance(layer, kinds.GlobalAvgPool):
            pooled = self._call(name, nn.AdaptiveAvgPool2d(1), self._picture(source))
            self._append(self.graph.call_function(torch.flatten, (pooled, 1)), True)
        else:
            assert isinstance(layer, kinds.MaxPool)  # and AvgPool
            self._append(self._pool(name, layer, self._picture(source)), False)

    def _append(self, node: Any, flat: bool) -> None:
        self.nodes.append(node)
        self.flat.append(flat)

    def _call(self, name: str, module: Any, node: Any) -> Any:
        """Puts the module where its dotted name says."""
        parent = self.root
        *path, last = name.split(".")
        for step in path:
            if not isinstance(getattr(parent, step, None), nn.Module):
                parent.add_module(step, nn.Module())
            parent = getattr(parent, step)
        parent.add_module(last, module)
        return self.graph.call_module(name, (node,))

    def _pool(self, name: str, layer: Any, node: Any) -> Any:
        mean = isinstance(layer, kinds.AvgPool)
        kernel, padding = _pair(layer.kernel), _pair(layer.padding)
        stride = kernel if layer.stride is None else _pair(layer.stride)
        if any(2 * p > k for p, k in zip(padding, kernel)):  # more than torch's pools pad
            edges = (padding[1], padding[1], padding[0], padding[0])
            value = 0.0 if mean else float("-inf")
            node, padding = self.graph.call_function(F.pad, (node, edges), {"value": value}), (0, 0)
        pool = (nn.AvgPool2d if mean else nn.MaxPool2d)(kernel, stride, padding)
        return self._call(name, pool, node)

    def _features(self, index: int) -> Any:
        node = self.nodes[index]
        return node if self.flat[index] else self.graph.call_function(torch.flatten, (node, 1))

    def _picture(self, index: int) -> Any:
        shape = (-1, *self.shapes[index])
        node = self.nodes[index]
        return self.graph.call_function(torch.reshape, (node, shape)) if self.flat[index] else node


# What a module has already, and what the code that torch.fx writes calls otherwise.
_TAKEN = {*dir(fx.GraphModule(nn.Module(), fx.Graph())), "self", "torch"}


def _free(wanted: Sequence[str], first: Iterable[int]) -> List[str]:
    """The layers' names, made different and such that modules can have them: what is not taken stays.

    first: layers that choose before the others."""
    found: Dict[int, str] = {}
    for index in [*first, *range(len(wanted))]:
        if index in found:
            continue
        name = unicodedata.normalize("NFKC", wanted[index])  # as Python reads names
        name = ".".join(_step(step) for step in name.split(".") if step) or "layer"
        taken = set(found.values())
        while (
            name in taken
            or any(name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in taken)
            or (name != wanted[index] and name in wanted)
        ):
            inside = any(name.startswith(f"{other}.") for other in taken)  # of a layer, which has no parts
            name = name.replace(".", "_") if inside else f"{name}_{index}"
        found[index] = name
    return [found[index] for index in range(len(wanted))]


def _step(text: str) -> str:
    """A part of a dotted name, such that it can be an attribute and stand in the code of torch.fx."""
    text = "".join("_" if each in "\"\\" or not each.isprintable() else each for each in text)
    while text in _TAKEN or keyword.iskeyword(text):
        text += "_"
    return text


def _pair(value: Any) -> Tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
