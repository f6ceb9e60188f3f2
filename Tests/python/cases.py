# SPDX-License-Identifier: Apache-2.0
"""One small network for each kind of layer and each way of being connected."""

import mest
from mest import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    MaxPool,
    ReLU,
)


def head(outputs=4):
    return [Flatten(), Linear(outputs, density=1.0)]


def steady(layers):
    """A channel that sees only one other may be nearly constant; its variance is then rounding,
    which eps covers."""
    for layer in layers:
        if isinstance(layer, BatchNorm):
            layer.eps = 0.1
    return layers


def residual():
    first = Conv2d(6, 3, padding=1, density=0.4, name="first")
    return [
        Input(3, 5, 7),
        first,
        BatchNorm(),
        ReLU(name="trunk"),
        Conv2d(6, 3, padding=1, density=0.3, bias=False),
        BatchNorm(),
        Add(with_="trunk"),
        ReLU(),
        Conv2d(4, 1, stride=2, density=1.0, bias=False, from_=-1, name="side"),
        BatchNorm(),
        Conv2d(4, 3, stride=2, padding=1, density=0.3, from_=7),
        BatchNorm(eps=1e-3),
        Add(with_=9),
        ReLU(),
        GlobalAvgPool(),
        Linear(4, density=1.0),
    ]


def depthwise():
    """Between batch norms, strided, and as the inner layer of a residual block."""
    return [
        Input(3, 9, 7),
        Conv2d(6, 1, density=0.6, bias=False),
        BatchNorm(),
        ReLU(name="trunk"),
        Conv2d(6, 3, padding=1, groups=6, bias=False),
        BatchNorm(),
        ReLU(),
        Conv2d(6, 1, density=0.5, bias=False),
        BatchNorm(),
        Add(with_="trunk"),
        ReLU(),
        Conv2d(6, (3, 5), stride=2, padding=(1, 2), groups=6, bias=False),
        BatchNorm(),
        ReLU(),
        Conv2d(5, 1, density=0.7),
        GlobalAvgPool(),
        Linear(4, density=1.0),
    ]


SCHEMES = (
    "unstructured", "block4", "block8", "block16", "pattern", "nm24", "fan_in", "row4", "row8", "row16",
)  # fmt: skip


def units_of(scheme):
    """(outputs, inputs) that come and go together; of patterns: see the tests of them."""
    if scheme.startswith("block"):
        return int(scheme[5:]), 1
    return (1, int(scheme[3:])) if scheme.startswith("row") else (1, 1)


def of_scheme(scheme):
    """Outputs and inputs that are no multiples of a block or of 4; the first layer has no dx."""
    return [
        Input(41),
        Linear(30, density=0.3, scheme=scheme),
        ReLU(),
        Linear(37, density=0.25, scheme=scheme, bias=False),
        Add(with_=-1),
        Linear(6, density=0.4, scheme=scheme),
        Linear(4, density=1.0),
    ]


def conv_of_scheme(scheme):
    """Stride 1 with whole and cut tiles, stride 2, a kernel that has no patterns; an odd last block."""
    return [
        Input(5, 9, 7),
        Conv2d(13, 3, padding=1, density=0.3, scheme=scheme),
        BatchNorm(),
        ReLU(),
        Conv2d(10, 3, stride=2, padding=1, density=0.4, scheme=scheme, bias=False),
        ReLU(),
        Conv2d(6, (2, 3), density=0.4, scheme=scheme),
        *head(),
    ]


NETWORKS = {
    **{"conv " + scheme: lambda scheme=scheme: conv_of_scheme(scheme) for scheme in SCHEMES},
    **{"linear " + scheme: lambda scheme=scheme: of_scheme(scheme) for scheme in SCHEMES},
    "linear dense": lambda: [Input(7), Linear(3, density=1.0)],
    "linear dense, no bias": lambda: [Input(7), Linear(3, density=1.0, bias=False)],
    "linear sparse": lambda: [Input(40), Linear(30, density=0.1), Linear(4, density=0.5)],
    "linear, one connection": lambda: [Input(9), Linear(5, density=1e-4), Linear(4, density=1.0)],
    "linear, sparse but full": lambda: [
        Input(9),
        Linear(5, density=0.9999),
        Linear(4, density=1.0),
    ],
    "linear, one output": lambda: [
        Input(65),
        Linear(33, density=0.3),
        ReLU(),
        Linear(1, density=1.0),
    ],
    "mlp": lambda: mest.mlp((2, 3, 5), [50, 20], 4),
    "conv then linear": lambda: [Input(1, 8, 8), Conv2d(4, 3), ReLU(), *head()],
    "conv, one connection": lambda: [Input(2, 5, 5), Conv2d(4, 3, density=1e-4), *head()],
    "conv, sparse but full": lambda: [
        Input(3, 5, 7),
        Conv2d(4, 3, padding=1, density=0.9999),
        *head(),
    ],
    "conv, uneven window": lambda: [
        Input(2, 6, 9),
        Conv2d(5, (2, 3), stride=(1, 2), padding=(0, 1), density=0.5),
        *head(),
    ],
    "depthwise alone": lambda: [Input(5, 5, 7), Conv2d(5, 3, padding=1, groups=5), *head()],
    "depthwise, uneven window": lambda: [
        Input(3, 6, 9),
        Conv2d(4, 1),
        ReLU(),
        Conv2d(4, (2, 3), stride=(1, 2), padding=(0, 1), groups=4),
        ReLU(),
        *head(),
    ],
    "depthwise, then batch norm": lambda: [
        Input(4, 5, 6),
        BatchNorm(),
        Conv2d(4, 3, padding=1, groups=4),
        BatchNorm(affine=False),
        *head(),
    ],
    "depthwise, twice read": lambda: [
        Input(2, 6, 5),
        Conv2d(4, 3, bias=False),
        BatchNorm(name="both"),
        Conv2d(4, 3, padding=1, groups=4, bias=False),
        Add(with_="both"),
        ReLU(),
        *head(),
    ],
    "depthwise separable": lambda: steady(depthwise()),
    "batch norm": lambda: [
        Input(3, 5, 7),
        BatchNorm(),
        Conv2d(4, 3, density=1.0),
        BatchNorm(),
        *head(),
    ],
    "batch norm, plain": lambda: [
        Input(3, 4, 4),
        Conv2d(4, 1, density=1.0),
        BatchNorm(affine=False),
        *head(),
    ],
    "batch norm, flat": lambda: [
        Input(12),
        Linear(8, density=0.5),
        BatchNorm(eps=1e-2),
        ReLU(),
        Linear(4, density=1.0),
    ],
    "relu first": lambda: [Input(3, 3, 3), ReLU(), *head()],
    "max pool": lambda: [Input(3, 7, 5), Conv2d(4, 1), MaxPool(2), *head()],
    "max pool, overlapping": lambda: [
        Input(2, 7, 9),
        Conv2d(3, 1),
        MaxPool(3, stride=2, padding=1),
        *head(),
    ],
    "average pool": lambda: [Input(3, 7, 5), Conv2d(4, 1), AvgPool(2), *head()],
    "average pool, padded": lambda: [
        Input(2, 7, 9),
        Conv2d(3, 1),
        AvgPool(3, stride=2, padding=1),
        *head(),
    ],
    "global average": lambda: [
        Input(3, 5, 6),
        Conv2d(4, 3),
        GlobalAvgPool(),
        Linear(3, density=1.0),
    ],
    "add of two branches": lambda: [
        Input(6),
        Linear(8, density=0.5, name="a"),
        Linear(8, density=1.0, from_=0, name="b"),
        Add("a", "b"),
        ReLU(),
        Linear(3, density=1.0),
    ],
    "add to itself": lambda: [
        Input(6),
        Linear(5, density=1.0, name="a"),
        Add("a", "a"),
        Linear(3, density=1.0),
    ],
    "add the input": lambda: [
        Input(3, 3, 3),
        Conv2d(3, 3, padding=1, density=0.5),
        Add(with_=0),
        *head(),
    ],
    "residual": residual,
    "resnet 8": lambda: mest.resnet(8, 4, 5, (2, 9, 7)),
    "ds-cnn": lambda: steady(mest.ds_cnn(4, width=6, blocks=2, input=(1, 21, 10))),
    "vgg 11": lambda: steady(mest.vgg(11, 2, 4, (3, 32, 33))),
}
