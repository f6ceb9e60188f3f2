# SPDX-License-Identifier: Apache-2.0
"""The words a network is described with: a list of layers, the first an `Input`.

    layers = [Input(1, 8, 8), Conv2d(16, 3, padding=1), ReLU(), Flatten(), Linear(10, density=1.0)]

A layer takes the output of the one before it, or of the layer that `from_` refers to: by name, by
index in the list (negative counts back from this layer), or the layer object itself.  Numbers that
have two axes (kernel, stride, padding) are an int or a pair (vertical, horizontal).

Shapes are (channels, height, width); a flat sample is (features, 1, 1).
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from typing import Any, Callable, ClassVar, Iterable, Sequence, Tuple, Type, TypeVar, Union

from . import _abi
from .config import code_of
from .errors import ShapeError

Reference = Union[None, int, str, "Layer"]
Pair = Union[int, Tuple[int, int]]
L = TypeVar("L", bound="Layer")


def _keywords_after(last: str, hint: str = "") -> Callable[[Type[L]], Type[L]]:
    """All fields of a dataclass behind `last` by keyword only (dataclasses can since Python 3.10),
    so that numbers in the order of another library are refused instead of misread."""

    def change(kind: Type[L]) -> Type[L]:
        plain: Callable[..., None] = kind.__init__
        signature = inspect.signature(plain)
        names = list(signature.parameters)[1:]
        allowed = names[: names.index(last) + 1]

        @wraps(plain)
        def init(self: L, *values: Any, **named: Any) -> None:
            if len(values) > len(allowed):
                said = ", ".join(map(repr, values))
                raise TypeError(
                    f"{kind.__name__}({said}): only {' and '.join(allowed)} without a keyword; "
                    f"then {', '.join(names[len(allowed) :])} by keyword{hint}"
                )
            plain(self, *values, **named)

        parameters = [
            item if name in ("self", *allowed) else item.replace(kind=item.KEYWORD_ONLY)
            for name, item in signature.parameters.items()
        ]
        init.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        kind.__init__ = init  # type: ignore[method-assign, assignment]
        return kind

    return change


_INPUTS_KNOWN = ". The number of inputs is not given: it is that of the layer before"


class Layer:
    """What every layer has: a kind, a name for reports, and where its input comes from.

    The layers below are dataclasses without equality: a layer is itself, and two equal ReLUs in
    one list are two layers.
    """

    kind: ClassVar[int]
    name: str
    from_: Reference

    def _fill(self, struct: Any) -> None:
        """Writes this layer's own fields into a mest_layer.  ValueError for impossible ones."""

    def __sklearn_clone__(self: L) -> L:
        """scikit-learn clones a list item by item, and references would lead out of it.  Nothing
        changes a layer, so the clone is the layer itself."""
        return self

    def __repr__(self) -> str:
        """As one would write it: fields at their default are left out."""
        said = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Layer):  # a reference: its whole description would mislead
                value = value.name or type(value)
            if item.default is MISSING:
                said.append(repr(value))
            elif value != item.default:
                said.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(said)})"


@dataclass(eq=False, repr=False)
class Input(Layer):
    """Samples of shape (channels, height, width).  Exactly one, the first layer."""

    kind = _abi.MEST_LAYER_INPUT
    channels: int
    height: int = 1
    width: int = 1
    name: str = ""
    from_: Reference = None

    def _fill(self, struct: Any) -> None:
        struct.channels = _natural(self, "channels", self.channels)
        struct.height = _natural(self, "height", self.height)
        struct.width = _natural(self, "width", self.width)


@_keywords_after("features", _INPUTS_KNOWN)
@dataclass(eq=False, repr=False)
class Linear(Layer):
    """(n, 1, 1) -> (features, 1, 1).  density: share of the connections that exist, above 0 up to
    1; 1.0 is dense, None what Config.density and Config.distribution give.

    scheme: which connections may exist; None: Config.scheme.
      "unstructured"              any single weight
      "block4", "block8", "block16"  outputs in blocks; a column exists for all of a block or none
      "row4", "row8", "row16"     inputs in runs of neighbours, of a convolution input channels; for
                                  an output and a place in its kernel a run exists whole or not
      "nm24" or "2:4"             of columns 0 to 3, 4 to 7, ... at most 2 each; density up to 0.5
      "fan_in"                    the same number of connections for every output
      "pattern"                   4 of the 9 weights of 3 x 3 kernels, in 8 patterns, and the same
                                  number of kernels for every output; density up to 4/9; elsewhere
                                  "fan_in"
      "filter", "channel"         whole outputs, or whole input channels.  They are missing in all
                                  layers that have them, which are stored and computed as dense ones
                                  of fewer channels: sqrt(density) of them exist, see
                                  LayerPlan.alive.  So a layer has about sqrt(d_in * d_out) of its
                                  weights, the densities asked for its inputs and its outputs, which
                                  is not its own where layers differ, as under "erk".  Dense layers
                                  beside them follow; layers of other schemes cannot be.  A
                                  network's inputs and outputs are complete
    A column is an input, of a convolution an input channel and a place in the kernel.
    """

    kind = _abi.MEST_LAYER_LINEAR
    features: int
    density: Union[float, None] = None
    scheme: Union[str, None] = None
    bias: bool = True
    name: str = ""
    from_: Reference = None

    def _fill(self, struct: Any) -> None:
        struct.channels = _natural(self, "features", self.features)
        _fill_weights(self, struct)


@_keywords_after("kernel", _INPUTS_KNOWN)
@dataclass(eq=False, repr=False)
class Conv2d(Layer):
    """(in, h, w) -> (channels, (h + 2 * padding - kernel) // stride + 1, the same of w).
    density and scheme as in Linear.  groups: 1, or as many as input and output channels: depthwise,
    each channel on its own; its few weights stay dense whatever Config.density and Config.scheme
    say, and a density below 1 or a scheme of its own is refused."""

    kind = _abi.MEST_LAYER_CONV2D
    channels: int
    kernel: Pair
    stride: Pair = 1
    padding: Pair = 0
    density: Union[float, None] = None
    scheme: Union[str, None] = None
    bias: bool = True
    groups: int = 1
    name: str = ""
    from_: Reference = None

    def _fill(self, struct: Any) -> None:
        struct.channels = _natural(self, "channels", self.channels)
        struct.groups = _natural(self, "groups", self.groups)
        _fill_window(self, struct, self.kernel, self.stride, self.padding)
        _fill_weights(self, struct)


@dataclass(eq=False, repr=False)
class BatchNorm(Layer):
    """Normalises each channel over batch and pixels.  momentum: weight of the new batch in the
    running statistics; eps: added to the variance; affine: learns a scale and a shift."""

    kind = _abi.MEST_LAYER_BATCH_NORM
    momentum: float = 0.1
    eps: float = 1e-5
    affine: bool = True
    name: str = ""
    from_: Reference = None

    def _fill(self, struct: Any) -> None:
        # The library reads 0 as "the default"; here it can only be a mistake.
        if not 0 < self.momentum <= 1 or not self.eps > 0:
            raise ValueError(f"{self}: momentum is above 0 up to 1, eps above 0")
        struct.momentum, struct.epsilon = self.momentum, self.eps
        struct.flags = 0 if self.affine else _abi.MEST_FLAG_NO_AFFINE


@dataclass(eq=False, repr=False)
class ReLU(Layer):
    """max(x, 0)."""

    kind = _abi.MEST_LAYER_RELU
    name: str = ""
    from_: Reference = None


@_keywords_after("kernel")
@dataclass(eq=False, repr=False)
class MaxPool(Layer):
    """Largest value of each window; padding never wins.  stride None: the kernel."""

    kind = _abi.MEST_LAYER_MAX_POOL
    kernel: Pair
    stride: Union[Pair, None] = None
    padding: Pair = 0
    name: str = ""
    from_: Reference = None

    def _fill(self, struct: Any) -> None:
        stride = self.kernel if self.stride is None else self.stride
        _fill_window(self, struct, self.kernel, stride, self.padding)


@_keywords_after("kernel")
@dataclass(eq=False, repr=False)
class AvgPool(MaxPool):
    """Mean of each window; padding counts as zeros.  stride None: the kernel."""

    kind = _abi.MEST_LAYER_AVG_POOL


@dataclass(eq=False, repr=False)
class GlobalAvgPool(Layer):
    """Mean over all pixels: (channels, h, w) -> (channels, 1, 1)."""

    kind = _abi.MEST_LAYER_GLOBAL_AVG_POOL
    name: str = ""
    from_: Reference = None


@dataclass(eq=False, repr=False)
class Add(Layer):
    """from_ + with_, equal shapes: the residual connection.  from_ None: the layer before."""

    kind = _abi.MEST_LAYER_ADD
    from_: Reference = None
    with_: Reference = None
    name: str = ""


@dataclass(eq=False, repr=False)
class Flatten(Layer):
    """(channels, h, w) -> (channels * h * w, 1, 1), in that order."""

    kind = _abi.MEST_LAYER_FLATTEN
    name: str = ""
    from_: Reference = None


@dataclass(eq=False, repr=False)
class Dropout(Layer):
    """In training zeroes each value with probability `rate` and scales the others by
    1 / (1 - rate); does nothing in inference."""

    kind = _abi.MEST_LAYER_DROPOUT
    rate: float = 0.5
    name: str = ""
    from_: Reference = None

    def _fill(self, struct: Any) -> None:
        struct.rate = self.rate


def listed(layers: Any, what: str = "layers") -> Tuple[Layer, ...]:
    """What was given as a list of layers, if it can be one.  TypeError otherwise."""
    if isinstance(layers, (str, bytes, Layer)) or not isinstance(layers, Iterable):
        raise TypeError(
            f"{what}={layers!r}: a list of layers is wanted, [Input(...), ...], or what "
            "mest.mlp(64, [128], 10), mest.resnet(20), mest.vgg(16) or mest.ds_cnn() returns"
        )
    return tuple(layers)


def describe(layers: Sequence[Layer]) -> Any:
    """The array of mest_layer for a list of layers, references resolved to indices.

    ValueError for a reference that is not an earlier layer, or a name that is too long.  Whether
    shapes fit together is the library's to say.
    """
    structs = _abi.array(_abi.mest_layer, len(layers))
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {index} is {layer!r}, not a layer: ReLU() rather than ReLU?")
        struct = structs[index]
        struct.kind = layer.kind
        name = layer.name.encode()
        if len(name) >= _abi.MEST_NAME_BYTES:
            raise ValueError(f"name {layer.name!r}: at most {_abi.MEST_NAME_BYTES - 1} bytes")
        struct.name = name
        if layer.from_ is not None:
            setattr(struct, "from", _code(_resolve(layers, index, layer.from_)))
        if isinstance(layer, Add):
            if layer.with_ is None:
                raise ValueError(f"layer {index}: Add needs with_, the second operand")
            setattr(struct, "with", _code(_resolve(layers, index, layer.with_)))
        layer._fill(struct)
    if layers and not isinstance(layers[0], Input):
        raise ShapeError(
            f"layer 0 is {layers[0]!r}: the first is Input, which says what a sample is: Input(features) or "
            "Input(channels, height, width)"
        )
    return structs


def _resolve(layers: Sequence[Layer], index: int, reference: Reference) -> int:
    """Index of the layer that `reference`, found in layer `index`, means."""
    if isinstance(reference, Layer):
        found = [i for i, layer in enumerate(layers) if layer is reference]
    elif isinstance(reference, str):
        found = [i for i, layer in enumerate(layers) if layer.name == reference]
    else:
        assert reference is not None
        found = [reference if reference >= 0 else index + reference]
    if len(found) != 1:
        count = "no layer" if not found else "more than one layer"
        raise ValueError(f"layer {index} refers to {reference!r}: {count} of this list is that")
    if not 0 <= found[0] < index:
        raise ValueError(f"layer {index} refers to {reference!r}, which does not come before it")
    return found[0]


def _code(index: int) -> int:
    """mest_layer.from counts from 1, because 0 there is "the layer before"."""
    return _abi.MEST_FROM_INPUT if index == 0 else index


def _natural(layer: Layer, what: str, value: int) -> int:
    # ctypes would store -1 as 4294967295 without a word.
    if not isinstance(value, int) or not 0 < value < 2**32:
        raise ValueError(f"{layer}: {what} is a positive integer")
    return value


def _pair(layer: Layer, what: str, value: Pair, least: int) -> Tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and least <= v < 2**32 for v in pair):
        raise ValueError(f"{layer}: {what} is an integer of at least {least}, or two of them")
    return pair[0], pair[1]


def _fill_weights(layer: Union[Linear, Conv2d], struct: Any) -> None:
    if layer.density is not None:
        if not hasattr(layer.density, "__float__") or not 0 < layer.density <= 1:
            raise ValueError(f"{layer}: density is the share of connections, above 0 up to 1")
        struct.density = layer.density
    struct.scheme = code_of("scheme", layer.scheme)
    struct.flags = 0 if layer.bias else _abi.MEST_FLAG_NO_BIAS


def _fill_window(layer: Layer, struct: Any, kernel: Pair, stride: Pair, padding: Pair) -> None:
    struct.kernel_h, struct.kernel_w = _pair(layer, "kernel", kernel, 1)
    struct.stride_h, struct.stride_w = _pair(layer, "stride", stride, 1)
    struct.pad_h, struct.pad_w = _pair(layer, "padding", padding, 0)
