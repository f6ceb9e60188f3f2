# SPDX-License-Identifier: Apache-2.0
"""What of PyTorch has no layer here, and what to use instead."""

from __future__ import annotations

import linecache
from typing import Any, Dict, Optional

from ...errors import UnsupportedError

LINE = "mest_line"  # in a node's meta: (file, number)

_RELU = "the activation here is ReLU: train with nn.ReLU"
_AT_THE_END = (
    "leave it out, and apply it to what predict gives. Two classes are nn.Linear(..., 2) and the loss "
    '"cross_entropy", numbers an output each and the loss "mse"'
)
_SEQUENCE = (
    "nn.Conv2d of the kernel (1, k) over (n, channels, 1, length), or features of a window of the sequence: "
    "networks here have no recurrence, no attention and no embeddings"
)
_NORM = "nn.BatchNorm2d, or nn.BatchNorm1d for features"
_SUM = "of several tensors a sum can be taken: x + y"
_PAD = "padding of the convolution or pooling that follows"
_CONV = "nn.Conv2d; of sequences with the kernel (1, k) over (n, channels, 1, length)"
_POOL = "nn.MaxPool2d or nn.AvgPool2d, of sequences with the kernel (1, k)"

_INSTEAD: Dict[str, str] = {
    **dict.fromkeys(
        "ReLU6 relu6 LeakyReLU leaky_relu PReLU prelu ELU elu SELU CELU GELU gelu SiLU silu Mish Hardswish "
        "hardswish Hardtanh hardtanh Sigmoid sigmoid Hardsigmoid Tanh tanh Softplus clamp threshold".split(),
        _RELU,
    ),
    **dict.fromkeys(
        "LayerNorm GroupNorm InstanceNorm2d layer_norm group_norm batch_norm BatchNorm3d".split(), _NORM
    ),
    **dict.fromkeys(
        "RNN LSTM GRU RNNCell LSTMCell GRUCell Transformer TransformerEncoder TransformerDecoder "
        "TransformerEncoderLayer TransformerDecoderLayer MultiheadAttention Embedding EmbeddingBag "
        "scaled_dot_product_attention embedding".split(),
        _SEQUENCE,
    ),
    "SyncBatchNorm": "nn.BatchNorm2d, which has the same parameters",
    "LocalResponseNorm": _NORM,
    **dict.fromkeys("cat concat concatenate stack hstack".split(), _SUM),
    **dict.fromkeys("ZeroPad2d ConstantPad2d ReflectionPad2d ReplicationPad2d pad".split(), _PAD),
    **dict.fromkeys("Conv1d Conv3d conv1d".split(), _CONV),
    **dict.fromkeys("MaxPool1d AvgPool1d max_pool1d avg_pool1d AdaptiveAvgPool1d".split(), _POOL),
    **dict.fromkeys("Dropout1d Dropout2d dropout2d AlphaDropout FeatureAlphaDropout".split(), "nn.Dropout"),
    "conv2d": "the module nn.Conv2d, so that the weights have a name",
    "linear": "the module nn.Linear, so that the weights have a name",
    "get_attr": "a module that owns it: nn.Linear, nn.Conv2d, nn.BatchNorm2d",
    "mul": "a factor belongs into the weights of the layer before",
    "truediv": "a factor belongs into the weights of the layer before",
    "sub": "x + y, the sign in the weights of the layer before",
    "neg": "x + y, the sign in the weights of the layer before",
    "getitem": "a part of a tensor is no layer: a 1 x 1 convolution with a stride takes every other pixel",
    "mean": "x.mean((2, 3)), the mean over all pixels",
    "ConvTranspose2d": "nn.Conv2d: networks here do not enlarge pictures",
    "Upsample": "nn.Conv2d: networks here do not enlarge pictures",
    "interpolate": "nn.Conv2d: networks here do not enlarge pictures",
}


# Of these no layer takes samples of two axes or of four, so the shape of the input is not what is wrong.
_OTHER_AXES = "Conv1d Conv3d MaxPool1d AvgPool1d AdaptiveAvgPool1d BatchNorm3d".split()


def without_layers(module: Any) -> Optional[UnsupportedError]:
    """The error for a module with a part that has no layer here and wants an input of other axes."""
    for path, part in module.named_modules():
        kind = type(part).__name__
        known = type(part).__module__.startswith("torch.nn")
        if known and (kind in _OTHER_AXES or _INSTEAD.get(kind) is _SEQUENCE):
            return UnsupportedError(f"{path} ({kind}) has no layer here. Instead: {_INSTEAD[kind]}")
    return None


def instead_of(what: str, last: bool = False) -> str:
    """last: nothing in the module takes what it gives."""
    if last and _INSTEAD.get(what) is _RELU and what.lower() in ("sigmoid", "tanh"):
        return _AT_THE_END
    return _INSTEAD.get(
        what,
        "layers here are Linear, Conv2d, BatchNorm, ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1), x + y, "
        "Flatten and Dropout",
    )


def refusal(node: Any, what: str, why: str, instead: str) -> UnsupportedError:
    """The error for a node of a torch.fx graph: where it is, what does not go, what does."""
    path = str(node.target) if node.op == "call_module" else ""
    stack = list(node.meta.get("nn_module_stack") or {})
    if not path and stack:  # torch before 2.0 does not tell
        path = f"{stack[-1]}: " if stack[-1] else ""
    where = f"{path} ({what})" if node.op == "call_module" else f"{path}{what} ({node.name})"
    return UnsupportedError(f"{where} {why}. Instead: {instead}{_line(node)}")


def _line(node: Any) -> str:
    """The line of the module's code that made the node."""
    if LINE not in node.meta:
        return ""
    file, number = node.meta[LINE]
    return f'\n  File "{file}", line {number}: {linecache.getline(file, number).strip()}'
