# SPDX-License-Identifier: Apache-2.0
"""Well-known networks as lists of layers: print one, change it, pass it to `Model`."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple, Union

from .layers import (
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Input,
    Layer,
    Linear,
    MaxPool,
    Pair,
    ReLU,
)


def mlp(
    inputs: Union[int, Tuple[int, int, int]], hidden: Sequence[int], outputs: int
) -> List[Layer]:
    """Linear layers with ReLU between them; the last is dense.

    inputs: features, or the shape (channels, height, width) of images to flatten.  hidden: a list of widths.
    """
    if isinstance(hidden, (int, str)):
        raise TypeError(f"hidden={hidden!r}: a list of widths is wanted, hidden=[{hidden}]")
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


def vgg(
    depth: int = 16,
    width: int = 64,
    classes: int = 10,
    input: Tuple[int, int, int] = (3, 32, 32),
) -> List[Layer]:
    """The plain network of Simonyan & Zisserman (2015) as it is used on small images: 3x3
    convolutions with batch norm and ReLU, max pooling, one linear layer.

    depth: 11, 13, 16 or 19 as in their table 1.  Five stages of width, 2, 4, 8 and 8 width
    channels, each but the last followed by a pooling that halves the resolution; a global average
    ends it.  The convolutions take Config.density; the first and the classifier are dense.
    """
    stages = {11: "11222", 13: "22222", 16: "22333", 19: "22444"}.get(depth)
    if stages is None:
        raise ValueError(f"depth {depth}: must be 11, 13, 16 or 19")
    if min(input[1:]) < 16:
        raise ValueError(f"input {input}: at least 16 pixels, since they are halved four times")
    layers: List[Layer] = [Input(*input)]
    for stage, count in enumerate(map(int, stages)):
        if stage > 0:
            layers.append(MaxPool(2))
        for index in range(count):
            layers += _conv(
                width * min(2**stage, 8), 3, padding=1, name=f"conv{stage + 1}.{index + 1}",
                density=None if len(layers) > 1 else 1.0,
            )  # fmt: skip
    return layers + [GlobalAvgPool(), Linear(classes, density=1.0, name="classifier")]


def ds_cnn(
    classes: int = 12,
    width: int = 64,
    blocks: int = 4,
    input: Tuple[int, int, int] = (1, 49, 10),
) -> List[Layer]:
    """The depthwise separable network for keyword spotting of Zhang et al. (2017, "Hello Edge"),
    the reference model of the MLPerf Tiny benchmark as it stands here: DS-CNN-S.

    input: (1, frames, coefficients); 49 x 10 are the MFCCs of one second.  A convolution of 10 x 4
    with stride 2, then blocks of a depthwise 3x3 and a pointwise 1x1 convolution, all with batch
    norm and ReLU; a global average, one linear layer.  The pointwise convolutions take
    Config.density; the others are dense.
    """
    if blocks < 0:
        raise ValueError(f"blocks {blocks}: must not be negative")
    layers: List[Layer] = [Input(*input)]
    layers += _conv(width, (10, 4), stride=2, padding=(5, 1), density=1.0, name="conv1")
    for block in range(1, blocks + 1):
        layers += _conv(width, 3, padding=1, groups=width, name=f"depthwise{block}")
        layers += _conv(width, 1, name=f"pointwise{block}")
    return layers + [GlobalAvgPool(), Linear(classes, density=1.0, name="classifier")]


def _conv(channels: int, kernel: Pair, **other: Any) -> List[Layer]:
    """relu(bn(conv(x))); the bias is batch norm's."""
    return [Conv2d(channels, kernel, bias=False, **other), BatchNorm(), ReLU()]


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
