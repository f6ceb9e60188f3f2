# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of a few nodes for tests, and what onnxruntime makes of them."""

import numpy as np

import mest


def weights(*shape, seed=0, scale=0.5):
    return np.random.default_rng([seed, *shape]).normal(0, scale, shape).astype(np.float32)


def node(op, inputs, outputs, name="", **attributes):
    """inputs and outputs: names with spaces between, "-" for one left out."""
    import onnx

    names = [["" if n == "-" else n for n in text.split()] for text in (inputs, outputs)]
    return onnx.helper.make_node(op, *names, name=name, **attributes)


def graph(nodes, shape, constants=None, output="y", outputs=None, opset=17, sparse=(), batch="n"):
    """A ModelProto with the input "x" of (batch, *shape)."""
    import onnx

    helper, arrays, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info(output, kind, outputs)],
        [arrays.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
        sparse_initializer=list(sparse),
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ending(nodes, channels, constants, classes=3):
    """Nodes that make pictures "p" into (n, classes) "y": a global average and a Gemm."""
    constants = {"fc.weight": weights(classes, channels), "fc.bias": weights(classes), **constants}
    tail = [
        node("GlobalAveragePool", "p", "g"), node("Flatten", "g", "f"),
        node("Gemm", "f fc.weight fc.bias", "y", transB=1),
    ]  # fmt: skip
    return [*nodes, *tail], constants


def run(model, x):
    """What onnxruntime says; model: a ModelProto or a path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    content = str(model) if not hasattr(model, "graph") else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def agree(model, x, seen=None, tolerance=1e-4, **config):
    """Imports a model; its outputs are those of onnxruntime.  seen: x as mest takes it.  Returns it."""
    network = mest.from_onnx(model, batch=len(x), **config)
    found, expected = network.predict(x if seen is None else np.ascontiguousarray(seen)), run(model, x)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3  # else anything agrees
    return network
