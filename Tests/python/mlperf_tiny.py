# SPDX-License-Identifier: Apache-2.0
"""Two networks of the MLPerf Tiny benchmark as ONNX graphs, node for node as tf2onnx writes them.

Image classification is a ResNet with 8 layers on 32 x 32 pixels, keyword spotting a DS-CNN on 49 x 10 MFCCs;
both take (batch, height, width, channels), pad as TensorFlow's SAME does, which is more behind than in front
where a stride of 2 meets an even size, and end in a softmax.  Weights are random.

`python Tests/python/mlperf_tiny.py` in an environment with tensorflow-cpu, tf2onnx, onnxruntime, numpy and
this package builds both in Keras, converts them, and compares: the operations with those of the graphs here,
the outputs of mest with those of onnxruntime.  With tf_keras and TF_USE_LEGACY_KERAS=1 it does so with Keras
2, where tf2onnx puts batch norms into the convolutions.
"""

import numpy as np


class Graph:
    """A chain of nodes with names like tf2onnx's; `last` is what the next one reads."""

    def __init__(self, fused, seed=0):
        import onnx

        self.helper, self.arrays, self.float = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
        self.fused, self.rng = fused, np.random.default_rng(seed)
        self.nodes, self.initializers, self.counts, self.last = [], [], {}, "input_1"

    def weight(self, name, array):
        self.initializers.append(self.arrays.from_array(np.asarray(array), name))
        return name

    def node(self, op, name, inputs, **attributes):
        self.last = name + ":0"
        self.nodes.append(self.helper.make_node(op, inputs, [self.last], name=name, **attributes))
        return self.last

    def scope(self, kind):
        """model/conv2d, model/conv2d_1, ..."""
        number = self.counts.get(kind, 0)
        self.counts[kind] = number + 1
        return f"model/{kind}" + (f"_{number}" if number else "")

    def conv(self, outputs, inputs, kernel, stride, pads, group=1, norm=True):
        scope = self.scope("depthwise_conv2d" if group > 1 else "conv2d")
        size = np.prod(kernel) * inputs // group
        weight = self.rng.normal(0, 1.4 / np.sqrt(size), (outputs, inputs // group, *kernel))
        weight, bias = weight.astype(np.float32), self.rng.normal(0, 0.1, outputs).astype(np.float32)
        if norm:
            scale, shift = self.rng.uniform(0.5, 1.5, outputs), self.rng.normal(0, 0.3, outputs)
        if norm and self.fused:
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        source, name = self.last, scope + "/BiasAdd"
        if self.fused and norm:
            names = [name + "_weights_fused_bn", name + "_bias_fused_bn"]
        else:
            names = [scope + "/Conv2D/ReadVariableOp:0", scope + "/BiasAdd/ReadVariableOp:0"]
        arrays = [weight.astype(np.float32), bias.astype(np.float32)]
        inputs = [source, *map(self.weight, names, arrays)]
        self.node("Conv", name, inputs, dilations=[1, 1], strides=[stride] * 2, kernel_shape=list(kernel),
                  pads=pads, group=group)  # fmt: skip
        if norm and not self.fused:
            scope = self.scope("batch_normalization") + "/batchnorm"
            for op, values in (("Mul", scale), ("Add", shift)):
                constant = self.weight(
                    f"{scope}/{op.lower()}:0", values.astype(np.float32).reshape(1, -1, 1, 1)
                )
                self.node(op, f"{scope}/{op.lower()}_1", [self.last, constant])
        return self.last

    def relu(self):
        return self.node("Relu", self.scope("activation") + "/Relu", [self.last])

    def classifier(self, kernel, inputs, outputs):
        self.node(
            "AveragePool", "model/average_pooling2d/AvgPool", [self.last], strides=kernel, kernel_shape=kernel
        )
        shape = self.weight("const_fold_opt__100", np.array([-1, inputs]))
        self.node("Reshape", "model/flatten/Reshape", [self.last, shape])
        weight = self.rng.normal(0, 0.3, (inputs, outputs)).astype(np.float32)
        weight = self.weight("model/dense/MatMul/ReadVariableOp:0", weight)
        self.node("MatMul", "model/dense/MatMul", [self.last, weight])
        bias = self.rng.normal(0, 0.1, outputs).astype(np.float32)
        bias = self.weight("model/dense/BiasAdd/ReadVariableOp:0", bias)
        self.node("Add", "model/dense/BiasAdd", [self.last, bias])
        self.nodes.append(
            self.helper.make_node("Softmax", [self.last], ["Identity:0"], name="model/dense/Softmax")
        )

    def model(self, shape, classes):
        value = self.helper.make_tensor_value_info
        graph = self.helper.make_graph(
            self.nodes, "tf2onnx",
            [value("input_1", self.float, ["unk__1", *shape])],
            [value("Identity:0", self.float, ["unk__2", classes])],
            self.initializers,
        )  # fmt: skip
        opsets = [self.helper.make_opsetid("", 13), self.helper.make_opsetid("ai.onnx.ml", 2)]
        return self.helper.make_model(graph, opset_imports=opsets, ir_version=7, producer_name="tf2onnx")


def resnet8(fused=False):
    """Image classification: 16, 32, 64 channels, a block each, the second and third at half the size."""
    graph = Graph(fused)
    graph.node("Transpose", "model/conv2d/BiasAdd__6", ["input_1"], perm=[0, 3, 1, 2])
    graph.conv(16, 3, (3, 3), 1, [1] * 4)
    graph.relu()
    inputs = 16
    for outputs in (16, 32, 64):
        entry, stride = graph.last, 1 if outputs == inputs else 2
        shortcut = entry
        if stride == 2:
            shortcut = graph.conv(outputs, inputs, (1, 1), 2, [0] * 4, norm=False)
            graph.last = entry
        graph.conv(outputs, inputs, (3, 3), stride, [1] * 4 if stride == 1 else [0, 0, 1, 1])
        graph.relu()
        graph.conv(outputs, outputs, (3, 3), 1, [1] * 4)
        graph.node("Add", graph.scope("add") + "/add", [shortcut, graph.last])
        graph.relu()
        inputs = outputs
    graph.classifier([8, 8], 64, 10)
    return graph.model([32, 32, 3], 10)


def ds_cnn_s(fused=False):
    """Keyword spotting: 64 channels, 4 blocks of a depthwise and a pointwise convolution."""
    graph = Graph(fused)
    shape = graph.weight("new_shape__303", np.array([-1, 1, 49, 10]))
    graph.node("Reshape", "model/conv2d/BiasAdd__206", ["input_1", shape])
    graph.conv(64, 1, (10, 4), 2, [4, 1, 5, 1])
    graph.relu()
    for _ in range(4):
        graph.conv(64, 64, (3, 3), 1, [1] * 4, group=64)
        graph.relu()
        graph.conv(64, 64, (1, 1), 1, [0] * 4)
        graph.relu()
    graph.classifier([25, 5], 64, 12)
    return graph.model([49, 10, 1], 12)


# ------------------------------------------------------------- the same from Keras, for comparison ---


def in_keras(keras):
    """Both networks as the benchmark describes them, in the order of the functions above."""
    layers = keras.layers

    def conv(x, filters, kernel, stride=1, relu=True):
        x = layers.Conv2D(filters, kernel, strides=stride, padding="same")(x)
        x = layers.BatchNormalization()(x)
        return layers.Activation("relu")(x) if relu else x

    def end(entry, x, pool, classes):
        x = layers.Flatten()(layers.AveragePooling2D(pool)(x))
        return keras.Model(entry, layers.Dense(classes, activation="softmax")(x))

    entry = keras.Input((32, 32, 3))
    x = conv(entry, 16, 3)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        y = conv(conv(x, filters, 3, stride), filters, 3, relu=False)
        if stride == 2:
            x = layers.Conv2D(filters, 1, strides=2, padding="same")(x)
        x = layers.Activation("relu")(layers.add([x, y]))
    image = end(entry, x, 8, 10)

    entry = keras.Input((49, 10, 1))
    x = layers.Dropout(0.2)(conv(entry, 64, (10, 4), 2))
    for _ in range(4):
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = conv(layers.Activation("relu")(layers.BatchNormalization()(x)), 64, 1)
    return image, end(entry, layers.Dropout(0.4)(x), (25, 5), 12)


def trained(network, rng):
    """Biases and statistics that are not the 0 and 1 of a new network."""
    for layer in network.layers:
        weights = [rng.normal(0, 0.2, w.shape) if w.ndim == 1 else w for w in layer.get_weights()]
        if "batch_norm" in layer.name:
            weights[0], weights[3] = (rng.uniform(0.5, 1.5, weights[0].shape) for _ in range(2))
        layer.set_weights(weights)
    return network


def compare():
    import os

    import onnxruntime
    import tensorflow
    import tf2onnx

    import mest

    legacy = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
    rng = np.random.default_rng(0)
    for network, ours in zip(in_keras(tensorflow.keras), (resnet8, ds_cnn_s)):
        network = trained(network, rng)
        shape = network.input_shape[1:]
        signature = [tensorflow.TensorSpec((None, *shape), tensorflow.float32, name="input_1")]
        call = tensorflow.function(lambda x, network=network: network(x, training=False))
        model, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=13)

        def operations(model):
            pads = [[list(a.ints) for a in node.attribute if a.name == "pads"] for node in model.graph.node]
            return sorted(f"{node.op_type} {pad}" for node, pad in zip(model.graph.node, pads))

        same = operations(model) == operations(ours(fused=legacy))
        x = rng.normal(size=(8, *shape)).astype(np.float32)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        expected = session.run(None, {"input_1": x})[0]
        imported = mest.from_onnx(model, batch=8)
        found = imported.predict_proba(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        print(
            f"{ours.__name__}: keras {2 if legacy else 3}, {len(model.graph.node)} nodes, "
            f"operations as here: {same}, mest against onnxruntime: {np.abs(found - expected).max():.1e}"
        )
        assert same and np.abs(found - expected).max() < 1e-4


if __name__ == "__main__":
    compare()
