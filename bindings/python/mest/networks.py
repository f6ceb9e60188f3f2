# SPDX-License-Identifier: Apache-2.0
"""Well-known networks as lists of layers: print one, change it, pass it to `Model`."""

from __future__ import annotations

from typing import List, Sequence, Tuple, Union

from .layers import (
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Input,
    Layer,
    Linear,
    ReLU,
)


def mlp(
    inputs: Union[int, Tuple[int, int, int]], hidden: Sequence[int], outputs: int
) -> List[Layer]:
    """Linear layers with ReLU between them; the last is dense.

    inputs: features, or the shape (channels, height, width) of images to flatten.
    """
    layers: List[Layer]
    layers = [Input(inputs)] if isinstance(inputs, int) else [Input(*inputs), Flatten()]
    for width in hidden:
        layers += [Linear(width), ReLU()]
    return layers + [Linear(outputs, density=1.0, name="classifier")]


def resnet(
    depth: int = 20,
    width: int = 16,
    classes: int = 10,
    input: Tuple[int, int, int] = (3, 32, 32),
) -> List[Layer]:
    """The residual network for small images that MEST is measured on (He et al. 2016, 4.2).

    depth = 6 n + 2: three stages of n basic blocks with width, 2 width and 4 width channels, the
    second and third at half the resolution.  ResNet-20 is (20, 16); MEST's "ResNet-32" is (32, 32).
    The 3x3 convolutions inside the blocks take Config.density; the first convolution, the 1x1
    projections and the classifier are dense, as in the authors' code.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth {depth}: must be 6 n + 2, that is 8, 14, 20, 26, 32, ...")
    layers: List[Layer] = [
        Input(*input),
        Conv2d(width, 3, padding=1, density=1.0, bias=False, name="conv1"),
        BatchNorm(),
        ReLU(),
    ]
    channels = width
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            wider = width * 2**stage
            layers += _basic_block(channels, wider, stride, layers[-1], f"{stage + 1}.{block + 1}")
            channels = wider
    return layers + [GlobalAvgPool(), Linear(classes, density=1.0, name="classifier")]


def _basic_block(channels: int, wider: int, stride: int, source: Layer, label: str) -> List[Layer]:
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut is x itself, or a strided 1x1
    convolution with batch norm where the shape changes."""
    shortcut: List[Layer] = []
    if stride != 1 or channels != wider:
        shortcut = [
            Conv2d(
                wider, 1, stride=stride, density=1.0, bias=False,
                name=f"shortcut{label}", from_=source,
            ),
            BatchNorm(),
        ]  # fmt: skip
    main: List[Layer] = [
        Conv2d(wider, 3, stride=stride, padding=1, bias=False, name=f"conv{label}a", from_=source),
        BatchNorm(),
        ReLU(),
        Conv2d(wider, 3, padding=1, bias=False, name=f"conv{label}b"),
        BatchNorm(),
    ]
    return shortcut + main + [Add(with_=shortcut[-1] if shortcut else source), ReLU()]
