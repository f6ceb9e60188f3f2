# SPDX-License-Identifier: Apache-2.0
"""What `mest.from_onnx` has no layer for: the node is named, and what to do."""

import numpy as np
import pytest
from onnx_graphs import ending, graph, node, weights

import mest

onnx = pytest.importorskip("onnx")

LINEAR = {"w": weights(5, 7), "b": weights(5)}
PICTURE = {"w": weights(4, 3, 3, 3)}


@pytest.mark.parametrize(
    "nodes, shape, constants, words",
    [
        (
            [node("Gemm", "x w", "z", transB=1), node("Sigmoid", "z", "y", name="s")],
            (7,),
            LINEAR,
            r"'s' \(Sigmoid\)",
        ),
        (
            [node("Gemm", "x w", "z", transB=1), node("Erf", "z", "y")],
            (7,),
            LINEAR,
            r"'y' \(Erf\).*docs/onnx.md",
        ),
        (
            [node("Gemm", "x w", "z", transB=1), node("Clip", "z lo hi", "y")],
            (7,),
            {**LINEAR, "lo": np.float32(0), "hi": np.float32(6)},
            "ReLU6",
        ),
        (
            [
                node("QuantizeLinear", "x k", "q"),
                node("DequantizeLinear", "q k", "z"),
                node("Gemm", "z w", "y"),
            ],
            (7,),
            {**LINEAR, "k": np.float32(1)},
            "QuantizeLinear.*quantised",
        ),
        (
            [node("Softmax", "x", "s"), node("Gemm", "s w", "y", transB=1)],
            (7,),
            LINEAR,
            "follows node 's' .Softmax",
        ),
        ([node("Conv", "x w", "y")], (3, 6, 6), PICTURE, "output 'y' has shape .batch, 4, 4, 4."),
        ([node("Conv", "x w", "y", group=3)], (9, 6, 6), PICTURE, "9 to 4 channels in 3 groups"),
        ([node("Conv", "x w", "y")], (3, 6), PICTURE, r"reads \(batch, 3, 6\)|neither one axis nor three"),
        (
            [
                node("Conv", "x w", "c"),
                node("MaxPool", "c", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
            ],
            (3, 10, 10),
            PICTURE,
            "same at both ends",
        ),
        (
            [node("Conv", "x w", "c"), node("AveragePool", "c", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
            (3, 6, 6),
            PICTURE,
            "count_include_pad",
        ),
        (
            [
                node("Conv", "x w", "c"),
                node("MaxPool", "c", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
            ],
            (3, 7, 7),
            PICTURE,
            "ceil_mode",
        ),
        (
            [node("Conv", "x w", "c"), node("ReduceMean", "c", "y", axes=[1])],
            (3, 6, 6),
            PICTURE,
            "GlobalAvgPool",
        ),
        (
            [node("Conv", "x w", "c"), node("Concat", "c c", "y", axis=1)],
            (3, 6, 6),
            PICTURE,
            "Concat.*Add alone",
        ),
        ([node("Conv", "x w", "c"), node("Mul", "c c", "y")], (3, 6, 6), PICTURE, "Mul.*no such layer"),
        (
            [node("Conv", "x w", "c"), node("Add", "c k", "y")],
            (3, 6, 6),
            {**PICTURE, "k": weights(4, 4, 4)},
            "one number is wanted, or one a channel",
        ),
        (
            [node("Conv", "x w", "c"), node("Pad", "c pads", "q"), node("Relu", "q", "y")],
            (3, 6, 6),
            {**PICTURE, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
            "follows a Pad",
        ),
        (
            [
                node("Conv", "x w", "c"),
                node("Transpose", "c", "t", perm=[0, 1, 3, 2]),
                node("Conv", "t v", "y"),
            ],
            (3, 8, 8),
            {**PICTURE, "v": weights(2, 4, 2, 2)},
            "in another order",
        ),
        (
            [node("Conv", "x w", "c"), node("Reshape", "c s", "y")],
            (3, 6, 6),
            {**PICTURE, "s": np.array([16, -1])},
            "mixes samples|does not hold",
        ),
        ([node("Gemm", "x w", "y", transA=1)], (7,), LINEAR, "transA"),
        ([node("MatMul", "x x", "y")], (7,), LINEAR, "computed from the network's input"),
        (
            [node("Gemm", "x w", "y", transB=1, name="fc"), node("Relu", "y", "z")],
            (3, 7),
            LINEAR,
            "'fc' .Gemm",
        ),
        ([node("FusedConv", "x w", "y", domain="com.microsoft")], (3, 6, 6), PICTURE, "com.microsoft"),
        ([node("Relu", "x", "y")], (7,), {}, "no layer with weights"),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[:20],
)
def test_what_mest_has_no_layer_for_is_named(nodes, shape, constants, words):
    with pytest.raises(mest.UnsupportedError, match=words):
        mest.from_onnx(graph(nodes, shape, constants))


def test_an_open_size_and_two_outputs_are_refused():
    model = graph([node("Gemm", "x w", "y", transB=1)], (7,), LINEAR)
    model.graph.output.append(model.graph.output[0])
    with pytest.raises(mest.UnsupportedError, match="one output"):
        mest.from_onnx(model)
    nodes, constants = ending([node("Conv", "x w", "p")], 4, PICTURE)
    with pytest.raises(mest.UnsupportedError, match="'height'"):
        mest.from_onnx(graph(nodes, (3, "height", 6), constants))
