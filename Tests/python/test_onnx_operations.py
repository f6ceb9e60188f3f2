# SPDX-License-Identifier: Apache-2.0
"""Each ONNX operation that `mest.from_onnx` reads, against onnxruntime."""

import warnings

import numpy as np
import pytest
from onnx_graphs import agree, ending, graph, node, run, weights

import mest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

N = 3  # samples


def pictures(*shape):
    return weights(N, *shape, seed=9, scale=1.0)


def conv_graph(size, kernel, channels=(3, 4), constants=None, nodes=(), opset=17, source="x", **attributes):
    """x through a convolution, and the ending."""
    inputs, outputs = channels
    group = attributes.get("group", 1)
    constants = {
        "c.weight": weights(outputs, inputs // group, *kernel),
        "c.bias": weights(outputs),
        **(constants or {}),
    }
    nodes = [*nodes, node("Conv", f"{source} c.weight c.bias", "p", name="/c/Conv", **attributes)]
    return graph(*_split(ending(nodes, outputs, constants), (inputs, *size)), opset=opset)


def _split(nodes_and_constants, shape):
    nodes, constants = nodes_and_constants
    return nodes, shape, constants


@pytest.mark.parametrize(
    "size, kernel, attributes, expected",  # expected: the kernel and padding that mest gets
    [
        ((8, 8), (3, 3), {}, (3, 0)),
        ((8, 8), (3, 3), {"pads": [1, 1, 1, 1]}, (3, 1)),
        ((9, 7), (5, 3), {"pads": [2, 1, 2, 1], "strides": [2, 1]}, ((5, 3), (2, 1))),
        ((8, 8), (3, 3), {"auto_pad": "SAME_UPPER"}, (3, 1)),
        ((8, 8), (3, 3), {"auto_pad": "VALID", "strides": [2, 2]}, (3, 0)),
        # One zero more behind: a kernel with a zero in front, and one zero on both sides.
        ((8, 8), (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (4, 1)),
        ((8, 8), (3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2]}, (4, 1)),
        # One more in front: nothing is read behind, so no zeros are needed in the kernel.
        ((8, 8), (3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (3, 1)),
        ((7, 7), (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (3, 1)),
        ((8, 8), (2, 2), {"auto_pad": "SAME_UPPER"}, (3, 1)),
        ((8, 8), (2, 2), {"auto_pad": "SAME_LOWER"}, (3, 1)),
        ((9, 8), (1, 1), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (1, 0)),
        ((12, 11), (10, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, None),
        ((6, 6), (1, 1), {"pads": [2, 1, 0, 2]}, None),  # padding wider than the kernel
        ((9, 9), (3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}, (5, 2)),
        ((9, 9), (2, 3), {"dilations": [3, 1], "pads": [0, 1, 1, 0], "strides": [2, 2]}, None),
    ],
)
def test_convolutions(size, kernel, attributes, expected):
    model = agree(conv_graph(size, kernel, **attributes), pictures(3, *size))
    if expected is not None:
        layer = model.layers[1]
        assert (layer.kernel, layer.padding) == expected
    assert model.plan().layers[1].scheme is None  # zeros around the kernel make no sparse layer


def test_zeros_around_a_kernel_cost_positions_until_a_density_drops_them():
    model = conv_graph((8, 8), (3, 3), pads=[0, 0, 1, 1], strides=[2, 2])
    assert mest.from_onnx(model).connections()[1] == 4 * 3 * 16  # 9 weights a kernel stand in 16 places
    sparse = mest.from_onnx(model, density={"c": 9 / 16})
    assert sparse.connections()[1] == 4 * 3 * 9
    x = pictures(3, 8, 8)
    assert np.array_equal(sparse.csr(1).values != 0, np.ones(108, bool))
    np.testing.assert_allclose(sparse.predict(x), mest.from_onnx(model).predict(x), atol=1e-6)


def test_a_pruned_convolution_stays_pruned_within_zeros():
    mask = np.random.default_rng(0).random((4, 3, 3, 3)) < 0.4
    constants = {"c.weight": weights(4, 3, 3, 3) * mask}
    model = agree(
        conv_graph((8, 8), (3, 3), constants=constants, pads=[0, 0, 1, 1], strides=[2, 2]), pictures(3, 8, 8)
    )
    assert model.connections()[1] == mask.sum()


@pytest.mark.parametrize("stride, pads", [(1, [1, 1, 1, 1]), (2, [0, 0, 1, 1])])
def test_depthwise(stride, pads):
    model = agree(
        conv_graph((8, 8), (3, 3), channels=(6, 6), group=6, strides=[stride] * 2, pads=pads),
        pictures(6, 8, 8),
    )
    assert model.layers[1].groups == 6


@pytest.mark.parametrize("opset", [10, 17, 18])
def test_pad_before_a_convolution(opset):
    if opset == 10:
        constants, pad = {}, node("Pad", "x", "q", pads=[0, 0, 1, 0, 0, 0, 0, 2])
    elif opset == 17:
        constants = {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "zero": np.float32(0)}
        pad = node("Pad", "x pads zero", "q")
    else:
        constants = {"pads": np.array([1, 0, 0, 2]), "axes": np.array([2, -1])}
        pad = node("Pad", "x pads - axes", "q")
    model = conv_graph(
        (8, 8), (3, 3), constants=constants, nodes=[pad], source="q", opset=opset, pads=[0, 1, 1, 0]
    )
    agree(model, pictures(3, 8, 8))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2]},  # strides are 1 unless said
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0]},  # what is added behind is not read
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [8, 8]},
    ],
)
def test_pools(op, attributes):
    if op == "AveragePool":
        attributes = {**attributes, "count_include_pad": 1}
    first = node("Conv", "x c.weight", "c", pads=[1, 1, 1, 1])
    nodes, constants = ending([first, node(op, "c", "p", **attributes)], 4, {"c.weight": weights(4, 3, 3, 3)})
    agree(graph(nodes, (3, 8, 8), constants), pictures(3, 8, 8))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ReduceMean", "c", "y", axes=[2, 3], keepdims=0)],
        [node("ReduceMean", "c", "m", axes=[-1, -2]), node("Squeeze", "m two", "y")],
        [
            node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
            node("ReduceMean", "t", "y", axes=[1, 2], keepdims=0),
        ],
        [node("GlobalAveragePool", "c", "m"), node("Reshape", "m shape", "y")],
        [node("GlobalMaxPool", "c", "m"), node("Flatten", "m", "y")],
    ],
    ids=["features", "squeezed", "channels last", "reshaped", "largest"],
)
def test_means_over_all_pixels(nodes):
    constants = {"w": weights(4, 3, 3, 3), "two": np.array([2, 3]), "shape": np.array([0, -1])}
    agree(graph([node("Conv", "x w", "c"), *nodes], (3, 6, 5), constants, opset=13), pictures(3, 6, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda w, b: ([node("Gemm", "x w b", "y", transB=1)], {"w": w, "b": b}),
        lambda w, b: ([node("Gemm", "x w b", "y", alpha=0.5, beta=2.0)], {"w": w.T, "b": b[None]}),
        lambda w, b: ([node("Gemm", "x w", "y", transB=1)], {"w": w}),
        lambda w, b: ([node("Gemm", "x w b", "y", transB=1)], {"w": w, "b": b[:1]}),
        lambda w, b: ([node("MatMul", "x w", "y")], {"w": w.T}),
        lambda w, b: ([node("MatMul", "x w", "m"), node("Add", "b m", "y")], {"w": w.T, "b": b}),
        lambda w, b: ([node("Transpose", "w", "t"), node("MatMul", "x t", "y")], {"w": w}),
        lambda w, b: (
            [node("Cast", "w", "f", to=1), node("Gemm", "x f b", "y")],
            {"w": w.T.astype(float), "b": b},
        ),
    ],
    ids=["transposed", "factors", "no bias", "one bias", "MatMul", "MatMul, Add", "weight turned", "double"],
)
def test_linear(make):
    nodes, constants = make(weights(5, 7), weights(5))
    agree(graph(nodes, (7,), constants), weights(N, 7, seed=2, scale=1.0))


def affine(op, order, constant, last=True, channels=4):
    """conv, then arithmetic with a constant; last=False: the convolution has a second reader."""
    arithmetic = node(op, "c k" if order else "k c", "a")
    nodes = [node("Conv", "x w", "c"), arithmetic]
    nodes += [node("Relu", "a", "p")] if last else [node("Relu", "a", "r"), node("Add", "r c", "p")]
    return graph(
        *_split(ending(nodes, channels, {"w": weights(channels, 3, 3, 3), "k": constant}), (3, 6, 6))
    )


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    "op, order", [("Mul", 1), ("Add", 0), ("Sub", 1), ("Sub", 0), ("Div", 1)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1), (), (1,)])
def test_arithmetic_with_constants_goes_into_weights(op, order, shape, last):
    model = agree(affine(op, order, weights(*shape, scale=1.0) + np.float32(2), last), pictures(3, 6, 6))
    kinds = [type(layer).__name__ for layer in model.layers[1:4]]
    # Where others read the convolution as it was, a depthwise 1 x 1 convolution does it.
    assert kinds == (["Conv2d", "ReLU", "GlobalAvgPool"] if last else ["Conv2d", "Conv2d", "ReLU"])


def test_pixels_are_scaled_by_a_depthwise_convolution():
    constants = {"mean": weights(1, 3, 1, 1), "std": np.float32(0.3), "w": weights(3, 3, 3, 3)}
    nodes = [
        node("Sub", "x mean", "s"),
        node("Div", "s std", "d"),
        node("Conv", "d w", "p", pads=[1, 1, 1, 1]),
    ]
    model = agree(graph(*_split(ending(nodes, 3, constants), (3, 6, 6))), pictures(3, 6, 6))
    assert repr(model.layers[1]) == "Conv2d(3, 1, density=1.0, groups=3, name='sub')"
    assert isinstance(model.layers[2], mest.Conv2d) and model.layers[2].groups == 1


def batch_norm(channels, prefix="bn"):
    return {
        f"{prefix}.weight": weights(channels, seed=1) + 1, f"{prefix}.bias": weights(channels, seed=2),
        f"{prefix}.running_mean": weights(channels, seed=3),
        f"{prefix}.running_var": weights(channels, seed=4) ** 2 + 0.1,
    }  # fmt: skip


def test_batch_norm():
    names = "bn.weight bn.bias bn.running_mean bn.running_var"
    nodes = [
        node("Conv", "x w", "c"), node("BatchNormalization", f"c {names}", "b", epsilon=1e-3, momentum=0.99),
        node("Relu", "b", "r"), node("Dropout", "r ratio", "p"),
    ]  # fmt: skip
    constants = {"w": weights(4, 3, 3, 3), "ratio": np.float32(0.25), **batch_norm(4)}
    model = agree(graph(*_split(ending(nodes, 4, constants), (3, 6, 6))), pictures(3, 6, 6))
    assert repr(model.layers[2]) == "BatchNorm(momentum=0.01, eps=0.001, name='bn')"
    assert repr(model.layers[4]) == "Dropout(rate=0.25)"


@pytest.mark.parametrize("after", ["Gemm", "BatchNormalization", "Add"])
def test_a_picture_flattened_with_channels_last(after):
    """As TensorFlow flattens: the layer behind takes its inputs in the order that mest has them."""
    nodes = [
        node("Conv", "x w", "c"), node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t shape", "f"),
    ]  # fmt: skip
    constants = {"w": weights(4, 2, 3, 3), "shape": np.array([-1, 24]), "m": weights(3, 24)}
    if after == "BatchNormalization":
        nodes.append(node("BatchNormalization", "f bn.weight bn.bias bn.running_mean bn.running_var", "g"))
        constants.update(batch_norm(24))
    elif after == "Add":
        nodes.append(node("Add", "f k", "g"))
        constants["k"] = weights(24)
    nodes.append(node("Gemm", "g m" if after != "Gemm" else "f m", "y", transB=1))
    agree(graph(nodes, (2, 5, 4), constants), pictures(2, 5, 4))


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_input_as_tensorflow_has_it(channels_last):
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "p")]
    if channels_last:  # and a second reader of the input, in the same order
        nodes.insert(1, node("Transpose", "x", "t2", perm=[0, 3, 1, 2]))
        nodes[2:] = [node("Conv", "t w", "c"), node("Conv", "t2 w", "d"), node("Add", "c d", "p")]
    constants = {"w": weights(4, 3, 3, 3)}
    x = pictures(6, 5, 3)
    model = agree(graph(*_split(ending(nodes, 4, constants), (6, 5, 3))), x, x.transpose(0, 3, 1, 2))
    assert model.layers[0].channels == 3


def test_shapes_that_are_computed():
    """view(x.size(0), -1), as exporters that trace write it."""
    nodes = [
        node("Conv", "x w", "c"), node("Shape", "c", "s"), node("Gather", "s zero", "b"),
        node("Unsqueeze", "b zeros", "u"), node("Concat", "u rest", "shape", axis=0),
        node("Reshape", "c shape", "f"),
        node("Gemm", "f m", "y", transB=1),
    ]  # fmt: skip
    constants = {
        "w": weights(4, 2, 3, 3),
        "m": weights(3, 24),
        "zero": np.array(0),
        "zeros": np.array([0]),
        "rest": np.array([-1]),
    }
    agree(graph(nodes, (2, 5, 4), constants), pictures(2, 5, 4))


@pytest.mark.parametrize("shape", [[1, 24], [1, -1], [-1, 24], [0, 24]])
def test_a_batch_of_one(shape):
    nodes = [node("Conv", "x w", "c"), node("Reshape", "c shape", "f"), node("Gemm", "f m", "y", transB=1)]
    constants = {"w": weights(4, 2, 3, 3), "m": weights(3, 24), "shape": np.array(shape)}
    agree(graph(nodes, (2, 5, 4), constants, batch=1), pictures(2, 5, 4)[:1])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_at_the_end_is_the_loss(op):
    constants = {"w": weights(5, 7), "b": weights(5)}
    nodes = [node("Gemm", "x w b", "z", transB=1), node(op, "z", "s", axis=-1), node("Identity", "s", "y")]
    model = graph(nodes, (7,), constants)
    x = weights(N, 7, seed=2)
    words = rf"node 's' \({op}\) at the end of the network is left out: predict gives what goes into it"
    with pytest.warns(UserWarning, match=words) as caught:
        network = mest.from_onnx(model)
    assert [warning.filename for warning in caught] == [__file__]
    found = network.predict_proba(x)
    np.testing.assert_allclose(np.log(found) if op == "LogSoftmax" else found, run(model, x), atol=1e-5)


def test_without_a_softmax_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mest.from_onnx(graph([node("Gemm", "x w", "y", transB=1)], (7,), {"w": weights(5, 7)}))
        nodes = [node("Gemm", "x w", "z", transB=1), node("Softmax", "z", "s"), node("Relu", "s", "y")]
        with pytest.raises(mest.UnsupportedError, match="follows"):  # an error, and nothing that was left out
            mest.from_onnx(graph(nodes, (7,), {"w": weights(5, 7)}))


def test_relu_by_other_names():
    for limit in ({}, {"max": 3.4e38}):
        nodes = [node("Conv", "x w", "c"), node("Clip", "c", "p", min=0.0, **limit)]
        model = graph(*_split(ending(nodes, 4, {"w": weights(4, 3, 3, 3)}), (3, 6, 6)), opset=9)
        assert isinstance(mest.from_onnx(model).layers[2], mest.ReLU)
    nodes = [node("Conv", "x w", "c"), node("Clip", "c low", "p")]
    agree(
        graph(*_split(ending(nodes, 4, {"w": weights(4, 3, 3, 3), "low": np.float32(0)}), (3, 6, 6))),
        pictures(3, 6, 6),
    )


def test_what_does_not_lead_to_the_output_is_not_looked_at():
    nodes = [node("Erf", "x", "unused"), node("Gemm", "x w", "y", transB=1)]
    assert len(mest.from_onnx(graph(nodes, (7,), {"w": weights(5, 7)})).layers) == 2


def test_names_are_those_of_the_file():
    from mest.exchange.onnx.reader import _readable, _short

    for said, name in (
        ("layer1.0.conv1.weight", "layer1.0.conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/5/Transpose_output_0", "5"),
        ("1.weight", "1"),
        ("weight", ""),
        ("onnx::Conv_37", ""),
        ("35", ""),
        ("const_fold_opt__168", ""),
        ("Conv__295_weights_fused_bn", ""),
        ("model/conv2d_1/BiasAdd_weights_fused_bn", "conv2d_1"),
        ("functional_1/conv2d_1_2/convolution/ReadVariableOp:0", "conv2d_1_2"),
        ("a\nb\0c.weight", "a_b_c"),
    ):
        assert _readable(said) == name, said
    assert _short("denseblock1.layer1.conv", "~") == "denseblock1.layer1.conv"
    assert _short("features.denseblock1.denselayer1.conv1", "~") == "~ock1.denselayer1.conv1"
    assert _short("é" * 20, "~") == "~" + "é" * 11
    nodes = [node("Gemm", "x w", "z", transB=1), node("Gemm", "z v", "y", transB=1)]
    constants = {"w": weights(7, 7), "v": weights(7, 7)}
    long = "a_layer_with_a_name_that_is_too_long.weight"
    for old, new in (("w", long), ("v", long[1:])):
        constants[new] = constants.pop(old)
        for item in nodes:
            item.input[:] = [new if name == old else name for name in item.input]
    names = [layer.name for layer in mest.from_onnx(graph(nodes, (7,), constants)).layers[1:]]
    assert len(set(names)) == 2 and all(len(name.encode()) <= 23 for name in names)
