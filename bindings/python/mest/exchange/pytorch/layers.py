# SPDX-License-Identifier: Apache-2.0
"""Modules and functions of PyTorch, and the layers that they are.

A handler appends what a node of the graph is to the reader's layers.  It gets the reader, the tensor that
the node gave, and the node's arguments; it returns the layer whose output that tensor is."""

from __future__ import annotations

import operator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Tuple, Union

from ...layers import Add, AvgPool, BatchNorm, Conv2d, Dropout, Flatten, GlobalAvgPool, Linear, MaxPool, ReLU
from ..graph import warn_of_softmax
from .refusals import instead_of
from .weights import bias_of, number_of, weight_of

if TYPE_CHECKING:
    from .reader import Reader

torch: Any = import_module("torch")
nn, F = torch.nn, torch.nn.functional

Pair = Union[int, Tuple[int, int]]


class Value(NamedTuple):
    """What a node of the graph gives: the output of a layer, and that for the samples."""

    layer: int
    tensor: Any


def _relu(reader: "Reader", found: Any, x: Value, inplace: Any = False) -> int:
    return reader.add(ReLU(), x)


def _dropout(
    reader: "Reader", found: Any, x: Value, p: float = 0.5, training: Any = True, inplace: Any = False
) -> int:
    if not 0 <= p < 1:
        raise reader.refusal(f"has p={p}", "from 0 on, below 1")
    return reader.add(Dropout(float(p)), x) if p else x.layer


def _same(reader: "Reader", found: Any, x: Value, *_: Any, **__: Any) -> int:
    """nn.Identity, x.contiguous()"""
    return x.layer


def plain(reader: "Reader", found: Any, *_: Any, **__: Any) -> int:
    """x.size(0), x.shape: no tensors, the run alone knows them."""
    raise reader.refusal("is not used as a shape", instead_of("getitem"))


def _add(reader: "Reader", found: Any, x: Any, other: Any, alpha: Any = 1) -> int:
    if not isinstance(x, Value) or not isinstance(other, Value):
        raise reader.refusal("adds a constant", "put it into the bias of the layer before")
    if alpha != 1:
        raise reader.refusal(f"has alpha={alpha}", "add without a factor")
    if x.tensor.shape != other.tensor.shape:
        shapes = f"{tuple(x.tensor.shape)} and {tuple(other.tensor.shape)}"
        raise reader.refusal(f"adds shapes {shapes}", "both have to be of one shape, without broadcasting")
    return reader.add(Add(with_=other.layer), x)


def _reshape(reader: "Reader", found: Any, x: Value, *_: Any, **__: Any) -> int:
    """flatten, view, reshape, squeeze: pixels to features, or nothing."""
    before, after = tuple(x.tensor.shape), tuple(found.shape)
    if before == after:
        return x.layer
    one_pixel = all(size == 1 for size in before[2:])
    if before[0] == after[0] and one_pixel and after[1:2] == before[1:2] and all(s == 1 for s in after[2:]):
        if reader.features[x.layer] or len(after) > 2:
            return x.layer
        return reader.add(Flatten(), x)
    if before[0] != after[0] or len(after) != 2 or len(before) != 4:
        raise reader.refusal(
            f"makes {after} of {before}",
            "of shapes the one change there is is from (n, channels, height, width) to (n, features): "
            "torch.flatten(x, 1)",
        )
    return reader.add(Flatten(), x)


def _mean(
    reader: "Reader", found: Any, x: Value, dim: Any = None, keepdim: Any = False, dtype: Any = None
) -> int:
    axes = sorted(d % x.tensor.ndim for d in ([dim] if isinstance(dim, int) else dim or ()))
    if axes != [2, 3] or x.tensor.ndim != 4:
        raise reader.refusal(f"is over the axes {dim}", "the mean over all pixels, (2, 3), is a layer")
    return reader.add(GlobalAvgPool(), x)


def _max_pool(
    reader: "Reader", found: Any, x: Value, kernel_size: Pair, stride: Any = None, padding: Pair = 0,
    dilation: Pair = 1, ceil_mode: Any = False, return_indices: Any = False,
) -> int:  # fmt: skip
    if _pair(dilation) != (1, 1):
        raise reader.refusal(f"has dilation={dilation}", "dilation=1")
    window = _window(reader, found, x, kernel_size, stride, padding)
    return reader.add(MaxPool(window[0], stride=window[1], padding=window[2]), x)


def _avg_pool(
    reader: "Reader", found: Any, x: Value, kernel_size: Pair, stride: Any = None, padding: Pair = 0,
    ceil_mode: Any = False, count_include_pad: Any = True, divisor_override: Any = None,
) -> int:  # fmt: skip
    kernel, steps, pad = _window(reader, found, x, kernel_size, stride, padding)
    if not count_include_pad and pad != (0, 0):
        raise reader.refusal("has count_include_pad=False", "True, or padding=0")
    if divisor_override not in (None, kernel[0] * kernel[1]):
        raise reader.refusal(f"has divisor_override={divisor_override}", "None, the mean of the window")
    if kernel == tuple(x.tensor.shape[2:]) and pad == (0, 0):
        return reader.add(GlobalAvgPool(), x)
    return reader.add(AvgPool(kernel, stride=steps, padding=pad), x)


def _adaptive(reader: "Reader", found: Any, x: Value, kind: Any) -> int:
    """Adaptive pooling whose windows are all of one size."""
    before, after = tuple(x.tensor.shape[2:]), tuple(found.shape[2:])
    if kind is AvgPool and after == (1, 1):
        return reader.add(GlobalAvgPool(), x)
    if before == after:
        return x.layer
    if any(b % a for b, a in zip(before, after)):
        raise reader.refusal(f"makes {after} pixels of {before}", "a divisor of them: windows of one size")
    kernel = before[0] // after[0], before[1] // after[1]
    return reader.add(kind(kernel), x)


def _adaptive_avg(reader: "Reader", found: Any, x: Value, output_size: Any) -> int:
    return _adaptive(reader, found, x, AvgPool)


def _adaptive_max(
    reader: "Reader", found: Any, x: Value, output_size: Any, return_indices: Any = False
) -> int:
    return _adaptive(reader, found, x, MaxPool)


def _softmax(reader: "Reader", found: Any, x: Value, dim: Any = None, *_: Any, **__: Any) -> int:
    users = [user for user in reader.node.users if user.op != "output"]
    if users or x.tensor.ndim != 2 or dim not in (None, 1, -1):
        raise reader.refusal("is inside the network", "a softmax over the outputs can be the last step")
    warn_of_softmax(reader.what(), "module")
    logarithm = "log" in reader.what().lower()

    def last(array: Any) -> Any:
        tensor = torch.from_numpy(array)
        return (tensor.log_softmax(1) if logarithm else tensor.softmax(1)).numpy()

    reader.last = last
    return x.layer


def _window(
    reader: "Reader", found: Any, x: Value, kernel: Pair, stride: Any, padding: Pair
) -> Tuple[Tuple[int, int], Tuple[int, int], Tuple[int, int]]:
    """Kernel, stride, padding."""
    size, pad = _pair(kernel), _pair(padding)
    steps = size if stride is None or stride == [] else _pair(stride)
    pixels = x.tensor.shape[2:]
    floor = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(pixels, size, steps, pad))
    if x.tensor.ndim != 4 or floor != tuple(found.shape[2:]):
        raise reader.refusal("has ceil_mode=True, which adds a window at the edge", "ceil_mode=False")
    return size, steps, pad


def _pair(value: Any) -> Tuple[int, int]:
    if isinstance(value, int):
        return value, value
    items = [int(item) for item in value]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


# ------------------------------------------------------------------------------------- modules ---


def _linear(reader: "Reader", found: Any, x: Value, module: Any) -> int:
    if x.tensor.ndim != 2:
        shape = tuple(x.tensor.shape)
        raise reader.refusal(f"takes the shape {shape}", "(n, features): torch.flatten(x, 1) before it")
    name = reader.name(module)
    _take(reader, module, name)
    return reader.add(Linear(module.out_features, bias=module.bias is not None, name=name), x)


def _conv(reader: "Reader", found: Any, x: Value, module: Any) -> int:
    kernel, padding = _pair(module.kernel_size), module.padding
    if _pair(module.dilation) != (1, 1):
        raise reader.refusal(f"has dilation={module.dilation}", "dilation=1 and a larger kernel")
    if padding == "same":
        if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
            raise reader.refusal('has padding="same" and an even kernel', "an odd kernel: both sides alike")
        padding = kernel[0] // 2, kernel[1] // 2
    padding = (0, 0) if padding == "valid" else _pair(padding)
    if module.padding_mode != "zeros" and padding != (0, 0):
        raise reader.refusal(f"has padding_mode={module.padding_mode!r}", 'padding_mode="zeros"')
    inputs, outputs, groups = module.in_channels, module.out_channels, module.groups
    if groups != 1 and not groups == inputs == outputs:
        raise reader.refusal(
            f"has groups={groups} for {inputs} and {outputs} channels", "1, or as many as both (depthwise)"
        )
    if x.tensor.ndim != 4:
        shape = tuple(x.tensor.shape)
        raise reader.refusal(f"takes the shape {shape}", "batches: (n, channels, height, width)")
    name = reader.name(module)
    _take(reader, module, name)
    layer = Conv2d(
        outputs, kernel, stride=_pair(module.stride), padding=padding, bias=module.bias is not None,
        groups=groups, name=name,
    )  # fmt: skip
    return reader.add(layer, x)


def _norm(reader: "Reader", found: Any, x: Value, module: Any) -> int:
    if module.running_mean is None:
        raise reader.refusal("has track_running_stats=False", "True: prediction takes the running statistics")
    if not module.momentum:
        raise reader.refusal(f"has momentum={module.momentum}", "a momentum above 0, 0.1 say")
    if x.tensor.ndim != (2 if isinstance(module, nn.BatchNorm1d) else 4):
        shape = tuple(x.tensor.shape)
        raise reader.refusal(f"takes the shape {shape}", "(n, features), or (n, channels, height, width)")
    name = reader.name(module)
    affine = module.weight is not None
    for what in ("weight", "bias") if affine else ():
        reader.weights[f"{name}.{what}"] = number_of(getattr(module, what), f"{name}.{what}")
    for what in ("running_mean", "running_var"):
        reader.weights[f"{name}.{what}"] = number_of(getattr(module, what), f"{name}.{what}")
    layer = BatchNorm(momentum=float(module.momentum), eps=float(module.eps), affine=affine, name=name)
    return reader.add(layer, x)


def _take(reader: "Reader", module: Any, name: str) -> None:
    """Weight, its mask, bias."""
    key = f"{name}.weight"
    weight, mask = weight_of(module, key)
    reader.weights[key] = weight
    if mask is not None:
        reader.masks[key] = mask
    bias = bias_of(module, f"{name}.bias")
    if bias is not None:
        reader.weights[f"{name}.bias"] = bias


def _by_attributes(handler: Callable[..., int], *attributes: str) -> Callable[..., int]:
    """The handler of a function for the module that has its arguments as attributes."""

    def handle(reader: "Reader", found: Any, x: Value, module: Any) -> int:
        return handler(reader, found, x, **{name: getattr(module, name) for name in attributes})

    return handle


_POOL = ("kernel_size", "stride", "padding", "ceil_mode")
MODULES: Dict[Any, Callable[..., int]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: _by_attributes(_relu),
    nn.Dropout: _by_attributes(_dropout, "p"),
    nn.Identity: _same,
    nn.Flatten: _reshape,
    nn.MaxPool2d: _by_attributes(_max_pool, *_POOL, "dilation"),
    nn.AvgPool2d: _by_attributes(_avg_pool, *_POOL, "count_include_pad", "divisor_override"),
    nn.AdaptiveAvgPool2d: _adaptive_avg,
    nn.AdaptiveMaxPool2d: _adaptive_max,
    nn.Softmax: _by_attributes(_softmax, "dim"),
    nn.LogSoftmax: _by_attributes(_softmax, "dim"),
}
FUNCTIONS: Dict[Any, Callable[..., int]] = {
    F.relu: _relu, F.relu_: _relu, torch.relu: _relu, torch.relu_: _relu,
    F.dropout: _dropout, torch.dropout: _dropout,
    torch.add: _add, operator.add: _add, operator.iadd: _add,
    torch.flatten: _reshape, torch.reshape: _reshape, torch.squeeze: _reshape,
    torch.mean: _mean,
    F.max_pool2d: _max_pool, torch.max_pool2d: _max_pool,
    F.avg_pool2d: _avg_pool,
    F.adaptive_avg_pool2d: _adaptive_avg, F.adaptive_max_pool2d: _adaptive_max,
    F.softmax: _softmax, torch.softmax: _softmax, F.log_softmax: _softmax, torch.log_softmax: _softmax,
    getattr: plain,
}  # fmt: skip
METHODS: Dict[str, Callable[..., int]] = {
    "relu": _relu, "relu_": _relu, "add": _add, "add_": _add, "mean": _mean, "contiguous": _same,
    "flatten": _reshape, "reshape": _reshape, "view": _reshape, "squeeze": _reshape,
    "softmax": _softmax, "log_softmax": _softmax, "size": plain, "dim": plain,
}  # fmt: skip


def type_of(module: Any) -> Any:
    """Its class; of a module with torch.nn.utils.parametrize the one it was."""
    kind = type(module)
    return kind.__mro__[1] if nn.utils.parametrize.is_parametrized(module) else kind
