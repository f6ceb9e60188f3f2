# SPDX-License-Identifier: Apache-2.0
"""From a module of PyTorch to a `Model`, and back.  PyTorch is imported when one of them is called."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from ...config import Config
from ...errors import UnsupportedError
from ...layers import Conv2d, Linear
from ..graph import copied
from ..network import Network
from .refusals import without_layers

if TYPE_CHECKING:
    from ...model import Model
    from ..build import Densities, Schemes

# Of the largest output: what sums in another order may differ by; the latter in half precision.
_CLOSE, _CLOSE_HALF = 1e-3, 0.1


def from_torch(
    module: Any,
    example_input: Any,
    *,
    density: "Densities" = None,
    scheme: "Schemes" = None,
    config: Optional[Config] = None,
    **fields: Any,
) -> "Model":
    """A Model with the layers and weights of a torch.nn.Module.

        model = mest.from_torch(net, torch.zeros(1, 3, 32, 32), density={"layer*": 0.1}, method="em&s")

    module: what torch.fx can trace, of Linear, Conv2d (groups 1 or depthwise), BatchNorm1d and 2d, ReLU,
    MaxPool2d, AvgPool2d, adaptive pools with windows of one size, sums of two tensors, Flatten, Dropout,
    Identity, as modules or functions.  It is left as it was.  A softmax or log_softmax at the end is
    left out, with a warning.
    example_input: a batch, (n, channels, height, width) or (n, features); its shape counts.
    density, scheme: as in `Network.to_model`: None keeps what the module has, all of a dense weight, the
    masks of torch.nn.utils.prune, the places of a sparse tensor; otherwise the largest weights stay.
    config, fields: of the Model: method="em&s", epochs=20, learning_rate=0.05, ...

    Layers have the names of the module's, those of more than 23 bytes their ends behind "~".
    What the network computes is compared with the module before anything is pruned.

    Errors: UnsupportedError, with the module's path and line and what to use instead; those of Model and of
    `Network.to_model`.  Memory: a dense copy of the weights besides the model, while it is made.
    """
    network = network_from_torch(module, example_input)
    return network.to_model(config, density=density, scheme=scheme, **fields)


def network_from_torch(module: Any, example_input: Any) -> Network:
    """The layers and weights that `from_torch` makes a Model of, to look at and to change."""
    torch = _torch()
    from .reader import read

    module = _plain(torch, module)
    states = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in states:
            part.training = False
        with torch.no_grad():
            samples = _samples(torch, module, example_input)
            if any(map(torch.nn.parameter.is_lazy, module.parameters())):
                with contextlib.suppress(Exception):  # the reader says it better
                    module(samples.clone())  # gives lazy modules their parameters
            network, answer, last = read(module, samples.clone())
            # Otherwise it is the reader's: torch has no convolution with sparse weights.
            if all(parameter.layout == torch.strided for parameter in module.parameters()):
                answer = module(samples.clone())
    finally:
        for part, training in states:
            part.training = training
    close = _CLOSE if samples.dtype in (torch.float32, torch.float64) else _CLOSE_HALF
    _compare(network, _floats(samples), _floats(answer), close, last)
    return network


def to_torch(model: "Model", *, masks: bool = False, into: Any = None) -> Any:
    """A torch.nn.Module, in eval mode, with the outputs of `model.predict`: a torch.fx.GraphModule of
    torch's own layers, whose names are the model's, or like them where a module of torch cannot have such a
    name ("forward", or "a.b" beside "a").  Or a module that exists, with the model's weights.

    masks: sparse weights with the masks of torch.nn.utils.prune, so that what is not connected stays 0
    in torch's training, too; else dense weights with zeros.
    into: a module with the layers that the model has, the one that it came from: gets the weights, on the
    device where it is, and is returned; weights that have masks keep having them.  It may have other
    layers, too, which stay as they are.

    Errors: MestArgumentError where `into` has other layers or shapes; it is then as it was.
    """
    from ..given import refuse_what_is_no_model

    refuse_what_is_no_model(model, "to_torch")
    _torch()
    from .writer import module_of, write_into

    return module_of(model, masks) if into is None else write_into(model, into, masks)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise ImportError("this needs PyTorch: pip install torch") from error


def _plain(torch: Any, module: Any) -> Any:
    """Without wrappers of training; a single layer as a network of one."""
    nn = torch.nn
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError("torch.fx cannot trace a ScriptModule: give the module it was made of")
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_torch: a torch.nn.Module is wanted, not {type(module).__name__}")
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        module = module.module
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    leaf = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
    return nn.Sequential(module) if leaf else module


def _samples(torch: Any, module: Any, example_input: Any) -> Any:
    """A batch of at least two, so that no axis of 1 is taken for it, the second half random."""
    example = example_input
    if not isinstance(example, torch.Tensor):
        if isinstance(example, (tuple, list)) and any(isinstance(item, torch.Tensor) for item in example):
            raise UnsupportedError(f"example_input: {len(example)} tensors, but networks have one input")
        example = torch.from_numpy(np.asarray(example, np.float32))
    if example.ndim not in (2, 4) or 0 in example.shape:
        unknown = without_layers(module)
        if unknown is not None:
            raise unknown
        raise UnsupportedError(
            f"example_input has shape {tuple(example.shape)}: a batch (n, channels, height, width) or "
            "(n, features) is wanted; of one picture x that is x[None]"
        )
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    example = example[:2].to(device=first.device, dtype=first.dtype)
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([example, noise.to(device=first.device, dtype=first.dtype)])


def _floats(tensor: Any) -> Any:
    return tensor.detach().float().cpu().numpy()


def _compare(network: Network, samples: Any, wanted: Any, close: float, last: Any) -> None:
    """UnsupportedError where the layers do not compute what the module does: hooks, or code that torch.fx
    does not see."""
    if not np.isfinite(samples).all() or not np.isfinite(wanted).all():
        return
    layers = copied(network.layers)
    for layer in layers:
        if isinstance(layer, (Linear, Conv2d)):
            layer.density, layer.scheme = 1.0, None
    dense = Network(layers, network.weights)
    with dense.to_model(batch=len(samples), inference_only=True) as model:
        found = model.predict(samples)
    if last is not None:
        found = last(found)
    wanted = wanted.reshape(len(wanted), -1)
    error = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    largest = float(np.abs(wanted).max())
    if error > close * max(largest, 1e-3):
        raise UnsupportedError(
            f"the layers that were read give other outputs than the module, by up to {error:.3g} of "
            f"{largest:.3g}: what hooks do, and what forward does to a tensor in place while others still "
            "use it, is not seen. Instead: write that part without"
        )
