# SPDX-License-Identifier: Apache-2.0
"""The same training step in PyTorch and SparseProp.  Imports torch: import this only when it is there."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import common
import torch
import torch._dynamo
from networks import Network, sources
from torch.nn import functional as F

import mest
from mest import Add, AvgPool, BatchNorm, Conv2d, Flatten, GlobalAvgPool, Layer, Linear, MaxPool, ReLU

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class Net(torch.nn.Module):  # type: ignore[misc]
    """A list of mest layers as a module.  Adds and ReLUs work in place where nobody else reads, as a
    careful author would write them; a tensor is let go after its last use."""

    def __init__(self, layers: List[Layer]) -> None:
        super().__init__()
        shapes = [(layer.channels, layer.height, layer.width) for layer in mest.plan(layers).layers]
        self.sources = sources(layers)
        readers = [[i for i, source in enumerate(self.sources) if j in source] for j in range(len(layers))]
        self.last_reader = [max(found, default=0) for found in readers]
        parts = []
        for i, layer in enumerate(layers[1:], 1):
            first = self.sources[i][0]
            parts.append(_part(layer, shapes[first], alone=len(readers[first]) == 1))
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, x: Any) -> Any:
        values: List[Any] = [x]
        for i, part in enumerate(self.parts, 1):
            values.append(part(*(values[j] for j in self.sources[i])))
            for j in self.sources[i]:
                if self.last_reader[j] == i:
                    values[j] = None
        return values[-1]


class _Sum(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.alone = alone

    def forward(self, a: Any, b: Any) -> Any:
        return a.add_(b) if self.alone else a + b


def _part(layer: Layer, shape: Any, alone: bool) -> Any:
    """The module of one layer; shape: of its input; alone: nobody else reads that input."""
    nn = torch.nn
    if isinstance(layer, Conv2d):
        return nn.Conv2d(
            shape[0], layer.channels, layer.kernel, layer.stride, layer.padding,
            groups=getattr(layer, "groups", 1), bias=layer.bias,
        )  # fmt: skip
    if isinstance(layer, Linear):
        return nn.Linear(shape[0], layer.features, layer.bias)
    if isinstance(layer, BatchNorm):
        return nn.BatchNorm2d(shape[0], layer.eps, layer.momentum, layer.affine)
    if isinstance(layer, ReLU):
        return nn.ReLU(inplace=alone)
    if isinstance(layer, Add):
        return _Sum(alone)
    if isinstance(layer, GlobalAvgPool):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(layer, Flatten):
        return nn.Flatten()
    if isinstance(layer, AvgPool):
        return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding)
    if isinstance(layer, MaxPool):
        return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
    raise NotImplementedError(f"{layer} has no PyTorch counterpart here")


def layouts(network: Network) -> List[str]:
    """Those that make a difference."""
    return list(LAYOUTS) if len(network.shape) == 3 else ["nchw"]


def step(network: Network, batch: int, threads: int, layout: str, compiled: bool = False,
         sparsity: float = 0, sparseprop: Optional[str] = None) -> Callable[[], Any]:  # fmt: skip
    """One training step: forward, backward, SGD with momentum.  sparseprop: folder of that package; layout
    then says whether its modules replace all layers that are sparse, or those that are faster so."""
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    net = Net(network.layers())
    x, y = (torch.from_numpy(array) for array in network.data(batch))
    if len(network.shape) == 3:
        order = LAYOUTS.get(layout, torch.contiguous_format)
        net, x = net.to(memory_format=order), x.to(memory_format=order)
    if sparseprop is not None:
        net = _with_sparseprop(net, x, sparsity, sparseprop, or_dense=layout == "where faster")
    labels = y.long()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=sparseprop is None)
    run = _compiled(net) if compiled else net

    def one() -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        optimizer.zero_grad()
        F.cross_entropy(run(x), labels).backward()
        optimizer.step()

    return one


def _compiled(net: Any) -> Any:
    """For these shapes alone, and whole or not at all: what dynamo gives up it would run eagerly."""
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, 1000)  # every network here shares one forward()
    return torch.compile(net, fullgraph=True, dynamic=False)


# ------------------------------------------------------------------------------------ SparseProp ---


def sparseprop_modules(folder: str) -> Any:
    """Its classes; folder: where the package lies."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module("sparseprop.modules")
    except ImportError as error:
        raise SystemExit(f"--sparseprop: no usable package there ({error}); see benchmarks/README.md") from None


def cut(weight: Any, sparsity: float) -> None:
    """Random zeros, as many as sparsity (in percent) says."""
    with torch.no_grad():
        kept = torch.randperm(weight.numel())[: int(weight.numel() * (100 - sparsity) / 100)]
        mask = torch.zeros(weight.numel())
        mask[kept] = 1
        weight.mul_(mask.view_as(weight))


def candidates(dense: Any, folder: str) -> List[Any]:
    """Its modules for one of PyTorch's: a convolution has two ways through memory."""
    modules = sparseprop_modules(folder)
    if isinstance(dense, torch.nn.Linear):
        return [modules.SparseLinear.from_dense(dense)]
    return [modules.SparseConv2d.from_dense(dense, vectorizing_over_on=over) for over in (False, True)]


def pieces(module: Any, x: Any, dy: Any) -> Tuple[Any, Any, Any]:
    """(y, dx, dw) of one layer; dw of a sparse module has its connections alone, in rows."""
    x = x.detach().requires_grad_()
    y = module(x)
    return (y.detach(), *torch.autograd.grad(y, [x, module.weight], dy))


def check(dense: Any, sparse: Any, x: Any, dy: Any) -> None:
    """SystemExit unless both compute the same."""
    y, dx, dw = pieces(dense, x, dy)
    wanted = {"y": y, "dx": dx, "dw": dw[dense.weight != 0]}
    for (what, right), found in zip(wanted.items(), pieces(sparse, x, dy)):
        if not torch.allclose(found, right, rtol=1e-3, atol=1e-4 * float(right.abs().max())):
            raise SystemExit(f"SparseProp: {what} of {sparse} is wrong: not compared")


def fastest_module(dense: Any, x: Any, folder: str, or_dense: bool) -> Any:
    """The best of its modules and, if wanted, the dense one: what its own `sparsify_if_faster` looks for,
    which times each once and cold.  Results are checked against the dense module."""
    dy = torch.randn_like(dense(x).detach())
    found = candidates(dense, folder)
    for module in found:
        check(dense, module, x, dy)
    found += [dense] if or_dense else []
    if len(found) == 1:
        return found[0]
    return min(found, key=lambda module: min(common.seconds(lambda: pieces(module, x, dy)) for _ in range(3)))


class SparsePropLayer:
    """One layer on its own; side 0: a linear one, else a 3x3 convolution."""

    def __init__(self, channels: int, filters: int, side: int, stride: int, batch: int, sparsity: float,
                 folder: str) -> None:  # fmt: skip
        torch.manual_seed(1)
        dense = (
            torch.nn.Conv2d(channels, filters, 3, stride, 1, bias=False) if side
            else torch.nn.Linear(channels, filters, bias=False)
        )  # fmt: skip
        cut(dense.weight, sparsity)
        self.x = torch.randn((batch, channels, side, side) if side else (batch, channels), requires_grad=True)
        self.dy = torch.randn_like(dense(self.x).detach())
        self.modules = candidates(dense, folder)
        for module in self.modules:
            check(dense, module, self.x, self.dy)

    def forward(self, module: Any) -> Any:
        return module(self.x)

    def backward(self, module: Any, y: Any) -> Any:
        return torch.autograd.grad(y, [self.x, module.weight], self.dy)

    def times(self, threads: int, repeat: int = 3) -> Tuple[float, float]:
        """Best milliseconds (forward, backward) of the faster module; of one thread its processor time."""
        torch.set_num_threads(threads)
        now = time.process_time if threads == 1 else time.perf_counter
        found = []
        for module in self.modules:
            samples = []
            for _ in range(repeat):
                begin = now()
                y = self.forward(module)
                middle = now()
                self.backward(module, y)
                samples.append((1e3 * (middle - begin), 1e3 * (now() - middle)))
            forward, backward = zip(*samples)
            found.append((min(forward), min(backward)))
        return min(found, key=sum)


def _with_sparseprop(net: Any, x: Any, sparsity: float, folder: str, or_dense: bool) -> Any:
    """Random zeros and SparseProp's modules in all but the first, the 1x1 and the last layers."""
    layers = [part for part in net.parts if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear))]
    inputs: Dict[Any, Any] = {}
    hooks = [
        layer.register_forward_hook(lambda module, found, _: inputs.update({module: found[0].detach().clone()}))
        for layer in layers
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    for i, part in enumerate(net.parts):
        if part not in layers[0 if isinstance(part, torch.nn.Linear) else 1 : -1]:
            continue
        if part.weight.dim() == 2 or part.weight.shape[-1] > 1:
            cut(part.weight, sparsity)
            net.parts[i] = fastest_module(part, inputs[part], folder, or_dense)
            net.parts[i + 1].inplace = False  # its outputs are views, which autograd does not let a ReLU change
    return net
