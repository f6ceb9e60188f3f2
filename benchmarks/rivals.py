# SPDX-License-Identifier: Apache-2.0
"""The same training step in PyTorch and SparseProp.  Imports torch: import this only when it is there."""

from __future__ import annotations

import importlib
import io
import sys
from contextlib import redirect_stdout
from typing import Any, Callable, List, Optional

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
    """One training step: forward, backward, SGD with momentum.  sparseprop: folder of that package,
    whose modules then replace those that are faster so."""
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    net = Net(network.layers())
    x, y = (torch.from_numpy(array) for array in network.data(batch))
    if len(network.shape) == 3:
        net, x = net.to(memory_format=LAYOUTS[layout]), x.to(memory_format=LAYOUTS[layout])
    if sparseprop is not None:
        net = _with_sparseprop(net, tuple(x.shape), sparsity, sparseprop)
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


def _with_sparseprop(net: Any, shape: Any, sparsity: float, folder: str) -> Any:
    """Random zeros in all but the first, the 1x1 and the last weights, then their module swap."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        swap = importlib.import_module("sparseprop.utils").swap_modules_with_sparse
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"--sparseprop: no usable sparseprop package there ({error}). It is the folder that holds the "
            "package `sparseprop`, built for this Python and PyTorch (its README says how)"
        ) from None
    weights = [p for p in net.parameters() if p.dim() > 1]
    with torch.no_grad():
        for weight in weights[0 if weights[0].dim() == 2 else 1 : -1]:
            if weight.dim() == 2 or weight.shape[-1] > 1:
                weight.mul_(torch.rand_like(weight) >= sparsity / 100)
    with redirect_stdout(io.StringIO()):  # it tells about every module
        return swap(net, shape, inplace=True)
