# SPDX-License-Identifier: Apache-2.0
"""A module of PyTorch as layers and weights: its torch.fx graph, read node by node while it runs on a few
samples, so that every shape is known and what cannot be a layer is refused where it stands."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from ...errors import UnsupportedError
from ...layers import Add, BatchNorm, Dropout, Flatten, GlobalAvgPool, Input, Layer, Linear, ReLU
from ..graph import living
from ..network import Network
from .layers import FUNCTIONS, METHODS, MODULES, Value, plain, type_of
from .refusals import LINE, instead_of, refusal
from .weights import short_names

torch: Any = import_module("torch")
fx: Any = import_module("torch.fx")

# Their outputs have pixels where their inputs have.
_SAME = (BatchNorm, ReLU, Dropout, Add)


def read(module: Any, samples: Any) -> Tuple[Network, Any, Optional[Callable[[Any], Any]]]:
    """The network; what comes out of the module for the samples, a batch of at least 2, as the reader has
    run it; and the softmax, as a function of arrays, that the module has at its end, and the network has not.

    module: in eval mode."""
    reader = Reader(module)
    answer = reader.run(samples)
    layers = living(reader.layers, answer.layer)
    names = {layer.name for layer in layers}
    weights = {key: array for key, array in reader.weights.items() if key.rpartition(".")[0] in names}
    masks = {key: mask for key, mask in reader.masks.items() if key in weights}
    return Network(layers, weights, masks), answer.tensor, reader.last


_TORCH, _HERE = (os.path.dirname(str(module.__file__)) + os.sep for module in (torch, sys.modules[__name__]))


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Remembers the lines of the module's code.  (record_stack_traces would load half of torch.)"""

    def create_node(self, *arguments: Any, **named: Any) -> Any:
        node = super().create_node(*arguments, **named)
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
            frame = frame.f_back
        if frame is not None and not frame.f_code.co_filename.startswith(_HERE):
            node.meta[LINE] = frame.f_code.co_filename, frame.f_lineno
        return node


class Reader:
    def __init__(self, module: Any) -> None:
        try:
            self.graph = _Tracer().trace(module)
        except Exception as error:  # torch.fx raises whatever the module's own code does with its proxies
            raise UnsupportedError(
                f"torch.fx cannot trace {type(module).__name__}: {error}. What forward does may not depend "
                "on values of its input (if, loops, len, int of a tensor). Instead: write that part without"
            ) from error
        self.module, self.names = module, short_names(module)
        self.layers: List[Layer] = []
        self.features: List[bool] = []  # of each layer: surely without pixels
        self.weights: Dict[str, Any] = {}
        self.masks: Dict[str, Any] = {}
        self.values: Dict[Any, Any] = {}  # of nodes: a Value, or what is no tensor
        self.used: Dict[int, str] = {}  # parameters, by id: where
        self.last: Optional[Callable[[Any], Any]] = None
        self.node: Any = None

    # ------------------------------------------------------------------------- the graph ---

    def run(self, samples: Any) -> Value:
        wanted = self._wanted()
        inputs = [node for node in self.graph.nodes if node.op == "placeholder" and node in wanted]
        for node in self.graph.nodes:
            if node not in wanted:
                continue
            self.node = node
            if node.op == "placeholder":
                if node is not inputs[0]:
                    raise self.refusal("is a second input", "one tensor: networks have one input")
                shape = samples.shape[1:]
                self.layers.append(Input(*shape))
                self.features.append(len(shape) == 1)
                self.values[node] = Value(0, samples)
            elif node.op == "output":
                found = self._taken(node.args[0])
                if not isinstance(found, Value):
                    raise self.refusal("returns more than one tensor", "return the one that the loss is of")
                if not inputs:
                    raise self.refusal("does not depend on the input", "return what is made of it")
                answer: Value = found
                return answer
            else:
                self.values[node] = self._value(node)
        raise AssertionError("a graph without an output")

    def _wanted(self) -> Set[Any]:
        """Nodes that the output depends on, and what changes one of them in place."""
        wanted: Set[Any] = set()
        for node in reversed(self.graph.nodes):
            in_place = self._changes(node) and any(source in wanted for source in node.all_input_nodes)
            if node.op == "output" or in_place or node in wanted:
                wanted.add(node)
                wanted.update(node.all_input_nodes)
        return wanted

    def _changes(self, node: Any) -> bool:
        """Whether a node changes its input."""
        if node.op == "call_module":
            return bool(getattr(self.module.get_submodule(node.target), "inplace", False))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        return bool(node.kwargs.get("inplace", False)) or (name.endswith("_") and not name.endswith("__"))

    def _taken(self, argument: Any) -> Any:
        """An argument of a node with values instead of nodes."""
        return fx.node.map_arg(argument, lambda node: self.values[node])

    def _value(self, node: Any) -> Any:
        if node.op == "get_attr":
            raise self.refusal("is a parameter used by itself", instead_of("get_attr"))
        args, kwargs = self._taken(node.args), dict(self._taken(node.kwargs))
        if "input" in kwargs:  # torch's name of the first argument
            args = (kwargs.pop("input"), *args)
        takes = [value for value in _flat((args, kwargs)) if isinstance(value, Value)]
        if not takes:
            return self._execute(node, args, kwargs)  # numbers of shapes
        if node.op == "call_module":
            module = self.module.get_submodule(node.target)
            handler: Optional[Callable[..., int]] = MODULES.get(type_of(module))
        elif node.op == "call_method":
            handler = METHODS.get(node.target)
        else:
            handler = FUNCTIONS.get(node.target)
        if handler is None:
            last = all(user.op == "output" for user in node.users)
            raise self.refusal("has no layer here", instead_of(self.what(), last))
        found = self._execute(node, args, kwargs)
        if not isinstance(found, torch.Tensor):
            if handler is plain:
                return found
            raise self.refusal("gives no tensor", instead_of(self.what()))
        if node.op == "call_module":
            args = (*args, module)
        try:
            layer = handler(self, found, *args, **kwargs)
        except TypeError as error:  # an argument that the handler does not know
            said = f"is called in a way that is not known here ({error})"
            raise self.refusal(said, "call it with tensors and numbers") from error
        if self._changes(node) and layer != takes[0].layer:  # others see the change
            for other, value in self.values.items():
                if isinstance(value, Value) and value.layer == takes[0].layer:
                    self.values[other] = Value(layer, value.tensor)
        return Value(layer, found)

    def _execute(self, node: Any, args: Any, kwargs: Any) -> Any:
        def tensor(value: Any) -> Any:
            return value.tensor if isinstance(value, Value) else value

        args, kwargs = _mapped(args, tensor), _mapped(kwargs, tensor)
        try:
            if node.op == "call_module":
                module = self.module.get_submodule(node.target)
                weight = getattr(module, "weight", None)
                if weight is not None and weight.layout != torch.strided:  # torch has no sparse convolution
                    dense = {"weight": weight.detach().to_dense()}
                    return torch.func.functional_call(module, dense, args, kwargs)
                return module(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return node.target(*args, **kwargs)
        except Exception as error:  # whatever torch or the module's code raises
            instead = "give an example_input that the module takes"
            raise self.refusal(f"fails on the example input ({error})", instead) from error

    # ---------------------------------------------------------------------------- layers ---

    def add(self, layer: Any, source: Value) -> int:
        """Appends a layer that reads `source`, which may be a layer before the last."""
        before = len(self.layers) - 1
        layer.from_ = None if source.layer == before else source.layer
        self.layers.append(layer)
        made = isinstance(layer, (Linear, GlobalAvgPool, Flatten))
        self.features.append(made or (isinstance(layer, _SAME) and self.features[source.layer]))
        return before + 1

    def name(self, module: Any) -> str:
        """The layer's name; refuses parameters that have been used before."""
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if id(tensor) in self.used:
                raise self.refusal(
                    f"shares parameters with {self.used[id(tensor)]}",
                    "each layer has its own: use another module, or copy it",
                )
            self.used[id(tensor)] = f"{self.node.target!r}"
        return self.names[self.node.target]

    def refusal(self, why: str, instead: str) -> UnsupportedError:
        """The error for the node in work."""
        return refusal(self.node, self.what(), why, instead)

    def what(self) -> str:
        """What the node calls, as users know it."""
        if self.node.op == "call_module":
            return str(type_of(self.module.get_submodule(self.node.target)).__name__)
        if self.node.op in ("get_attr", "placeholder", "output"):
            return str(self.node.op)
        return str(getattr(self.node.target, "__name__", self.node.target))


def _flat(items: Any) -> List[Any]:
    """All that is in nested arguments."""
    if isinstance(items, Mapping):
        items = list(items.values())
    if isinstance(items, (tuple, list)) and not isinstance(items, Value):
        return [each for item in items for each in _flat(item)]
    return [items]


def _mapped(items: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(items, Mapping):
        return {name: _mapped(item, change) for name, item in items.items()}
    if isinstance(items, (tuple, list)) and not isinstance(items, (Value, torch.Size)):
        return type(items)(_mapped(item, change) for item in items)
    return change(items)
