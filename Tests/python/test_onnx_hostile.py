# SPDX-License-Identifier: Apache-2.0
"""ONNX files that are damaged, or that somebody made to do harm: refused in words, never more."""

import os
import random
import tracemalloc

import numpy as np
import pytest
from onnx_graphs import agree, ending, graph, node, weights

import mest
from mest import CorruptError, MestArgumentError, MestError, UnsupportedError

onnx = pytest.importorskip("onnx")


def small():
    """A convolution, a batch norm, a Linear."""
    nodes = [
        node("Conv", "x c.weight", "c", pads=[0, 0, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c s b m v", "n"), node("Relu", "n", "r"), node("Reshape", "r shape", "f"),
        node("Gemm", "f fc.weight fc.bias", "y", transB=1),
    ]  # fmt: skip
    constants = {"c.weight": weights(4, 2, 3, 3), "shape": np.array([0, -1]), "fc.weight": weights(3, 64)}
    constants.update(
        {"fc.bias": weights(3), "s": weights(4), "b": weights(4), "m": weights(4), "v": weights(4) ** 2}
    )
    return graph(nodes, (2, 8, 8), constants)


def tensor(model, name):
    return next(item for item in model.graph.initializer if item.name == name)


def refused(source, kinds=(CorruptError, UnsupportedError, MestArgumentError), match=None):
    with pytest.raises(kinds, match=match):
        mest.from_onnx(source)


def test_the_network_itself_is_fine():
    mest.from_onnx(small().SerializeToString()).close()


@pytest.mark.parametrize("content", [b"", b"\0", b"not a model", b"\xff" * 100, np.random.default_rng(0).bytes(1000)])
def test_no_model(content, tmp_path):
    refused(content, CorruptError)
    (tmp_path / "model.onnx").write_bytes(content)
    refused(tmp_path / "model.onnx", CorruptError)


@pytest.mark.parametrize("source", [None, 3, [1, 2], {"graph": 1}, object()])
def test_no_source(source):
    refused(source, MestArgumentError, "is no ONNX model")


def test_no_file(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(mest.MestIOError, match="cannot read"):
            mest.from_onnx(path)
    model = mest.from_onnx(small())
    (tmp_path / "kept").write_bytes(b"before")
    for path in (tmp_path / "none" / "model.onnx", tmp_path):
        with pytest.raises(mest.MestIOError, match="cannot write"):
            mest.to_onnx(model, path)
    assert os.listdir(tmp_path) == ["kept"]


def test_cut_off_anywhere():
    """protobuf takes some beginnings of a file for whole ones; what is missing is missed then."""
    content = small().SerializeToString()
    for length in range(0, len(content) - 1, 7):
        refused(content[:length])


def test_changed_anywhere():
    """Bytes changed at random: the same network, another one, or a refusal."""
    content, draw, refusals = small().SerializeToString(), random.Random(1), 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            mest.from_onnx(damaged).close()
        except (MestError, MemoryError):
            refusals += 1
    assert 100 < refusals < 400


def test_a_graph_that_is_not_one():
    for change, words in (
        (lambda g: g.initializer.remove(g.initializer[0]), "'c.weight' does not exist"),
        (lambda g: g.node.insert(0, g.node.pop()), "not sorted"),
        (lambda g: g.node[0].input.__setitem__(0, "r"), "cycle"),
        (lambda g: g.node[4].output.__setitem__(0, "c"), "exists already"),
        (lambda g: g.output[0].__setattr__("name", "nowhere"), "no node makes"),
        (lambda g: g.output.pop(), "no output"),
        (lambda g: g.input.pop(), "does not exist"),
        (lambda g: g.input[0].type.tensor_type.ClearField("shape"), "no shape"),
        (lambda g: g.node[0].output.pop(), "does not exist"),
        (lambda g: g.node[0].input.pop(), "no weight"),
        (lambda g: g.node[2].input.pop(), "has the inputs ..:"),
        (
            lambda g: g.node[0].attribute[0].__setattr__("type", onnx.AttributeProto.FLOAT),
            "integers are wanted",
        ),
        (lambda g: g.node[0].attribute[0].ints.pop(), "two axes"),
        (lambda g: g.node[0].attribute[0].ints.__setitem__(0, 2**40), "too large"),
        (lambda g: g.node[0].attribute[1].ints.__setitem__(0, -1), "strides"),
    ):
        model = small()
        change(model.graph)
        refused(model, match=words)


def test_weights_that_lie_about_their_shape():
    for name, dims, words in (
        ("c.weight", [4, 2, 3, 4], "damaged|does not fit|values for"),
        ("c.weight", [2**20, 2**20, 2**20, 2**20], "impossible"),
        ("c.weight", [-1, 2, 3, 3], "impossible"),
        ("c.weight", [72], "shape"),
        ("c.weight", [0, 2, 3, 3], "damaged|values for"),
        ("s", [2, 2], "shape"),
        ("fc.weight", [3, 2**29], "damaged|values for"),
        ("fc.weight", [64, 3], "times a matrix"),
        ("fc.weight", [6, 32], "times a matrix"),
        ("fc.weight", [192], "times a matrix"),
        ("fc.bias", [1, 3, 1], "adds"),
        ("shape", [2, 1], "no list"),
    ):
        model = small()
        item = tensor(model, name)
        del item.dims[:]
        item.dims.extend(dims)
        refused(model, match=words)
    for name, kind, words in (
        ("c.weight", 99, "type 99"),
        ("c.weight", 8, "type 8"),
        ("c.weight", 6, "integers"),
    ):
        model = small()
        tensor(model, name).data_type = kind
        refused(model, match=words)


def test_values_that_are_not_finite():
    for name, value in (("c.weight", np.nan), ("fc.bias", np.inf), ("v", np.nan)):
        model = small()
        item = tensor(model, name)
        array = onnx.numpy_helper.to_array(item).copy()
        array.flat[1] = value
        item.CopyFrom(onnx.numpy_helper.from_array(array, name))
        refused(model, MestArgumentError, "not finite")
    model = small()
    tensor(model, "v").CopyFrom(onnx.numpy_helper.from_array(np.full(4, -1, np.float32), "v"))
    refused(model, CorruptError, "negative")


def test_sizes_that_nobody_has():
    """Refused by arithmetic, before memory is asked for."""
    dims = (2**20, 2, 3), (65536, 65536), (65536,) * 5, (0, 8, 8), (-3,)
    for shape in dims:
        refused(
            graph([node("Gemm", "x w", "y", transB=1)], shape, {"w": weights(3, 7)}),
            UnsupportedError,
            "axes of 1 to",
        )
    names = (
        onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"),
        onnx.numpy_helper.from_array(np.array([0]), "i"),
    )
    sparse = onnx.helper.make_sparse_tensor(*names, [40_000, 40_000])
    refused(graph([node("Gemm", "x w", "y")], (40_000,), sparse=[sparse]), UnsupportedError, "2.28 places")
    shape = {"w": weights(3, 7), "shape": np.array([0, 2**40, 2**40])}
    nodes = [node("Reshape", "x shape", "r"), node("Gemm", "r w", "y", transB=1)]
    refused(graph(nodes, (7,), shape), UnsupportedError, "does not hold")
    pads = {"w": weights(4, 3, 3, 3), "pads": np.array([0, 0, 2**40, 0, 0, 0, 0, 0])}
    nodes = [node("Pad", "x pads", "q"), node("Conv", "q w", "y")]
    refused(graph(nodes, (3, 8, 8), pads), UnsupportedError, "too large")
    pads["pads"] = np.array([0, 0, 2**15, 0, 0, 0, 0, 2**15])
    refused(graph(nodes, (3, 8, 8), pads), UnsupportedError, "too large")


def test_sparse_weights_with_places_that_do_not_exist():
    values = onnx.numpy_helper.from_array(weights(3), "w")
    for places, words in (
        ([0, 1, 21], "outside"), ([0, 1, -1], "outside"), ([0, 1, 1], "more than once"), ([0, 1], "indices"),
        ([[0, 0], [0, 7], [1, 1]], "outside"), ([0.0, 1.0, 2.0], "outside"), ([[0, 0, 0]] * 3, "indices"),
    ):  # fmt: skip
        indices = onnx.numpy_helper.from_array(np.array(places), "i")
        sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=[3, 7])
        refused(graph([node("Gemm", "x w", "y", transB=1)], (7,), sparse=[sparse]), match=words)


# ------------------------------------------------------------------------- data beside the file ---


def external(model, name, location, **more):
    item = tensor(model, name)
    content = item.raw_data
    item.ClearField("raw_data")
    item.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        item.external_data.add(key=key, value=str(value))
    return content


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def test_data_beside_the_file(tmp_path):
    pytest.importorskip("onnxruntime")
    model = small()
    plain = mest.from_onnx(small())
    content = external(model, "fc.weight", "deep/weights.bin", offset=4, length=3 * 64 * 4)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights.bin").write_bytes(b"abcd" + content)
    network = agree(saved(model, tmp_path / "model.onnx"), weights(3, 2, 8, 8))
    assert np.array_equal(network.tensor("fc"), plain.tensor("fc"))
    refused(model, MestArgumentError, "pass the model's path")


def test_data_elsewhere_is_not_opened(tmp_path):
    inside, outside = tmp_path / "models", tmp_path / "secret.bin"
    inside.mkdir()
    for location in ("../secret.bin", str(outside), "a/../../secret.bin", "link", "linked/secret.bin", ".."):
        model = small()
        outside.write_bytes(external(model, "fc.weight", location))
        for link, target in (("link", outside), ("linked", tmp_path)):
            if not (inside / link).is_symlink():
                (inside / link).symlink_to(target)
        refused(saved(model, inside / "model.onnx"), CorruptError, "outside of the model's folder")


def test_data_that_is_not_there(tmp_path):
    (tmp_path / "few.bin").write_bytes(b"1234")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for location, more, words in (
        ("none.bin", {}, "not beside"), ("pipe", {}, "not beside"),
        ("", {}, "not beside"), (".", {}, "not beside"),
        ("few.bin", {}, "damaged"), ("few.bin", {"length": 10**12}, "1000000000000 bytes at 0 of 4"),
        ("few.bin", {"offset": -4}, "at -4"), ("few.bin", {"offset": 5}, "at 5 of 4"),
        ("few.bin", {"offset": "five"}, "no number"), ("few\0.bin", {}, "not beside|damaged"),
    ):  # fmt: skip
        model = small()
        external(model, "fc.weight", location, **more)
        refused(saved(model, tmp_path / "model.onnx"), CorruptError, words)


def test_metadata_is_not_trusted():
    for said in ("{", "[1]", '{"w": "x"}', '{"w": {}}', "[" * 100_000, '{"w": -1}'):
        model = graph([node("Gemm", "x w", "y", transB=1)], (7,), {"w": weights(3, 7)})
        onnx.helper.set_model_props(model, {"mest.density": said, "mest.scheme": said})
        assert mest.from_onnx(model).layers[1].density == 1


def test_depth_and_length():
    """Many nodes: refused by the library's limit, or read, in time and without recursion."""
    nodes = [node("Relu" if i % 2 else "Identity", f"v{i}" if i else "x", f"v{i + 1}") for i in range(5000)]
    nodes.append(node("Gemm", "v5000 w", "y", transB=1))
    with pytest.raises(MestError):
        mest.from_onnx(graph(nodes, (7,), {"w": weights(3, 7)}))


def test_a_function_and_a_subgraph_are_refused():
    model = small()
    model.functions.add(name="f", domain="mine")
    refused(model, UnsupportedError, "inline_local_functions")
    branch = onnx.helper.make_graph([], "b", [], [])
    model = graph([onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)], (7,))
    refused(model, UnsupportedError, "If.*no such layer")


def test_ending_is_used():
    nodes, constants = ending([node("Conv", "x w", "p")], 4, {"w": weights(4, 2, 3, 3)})
    mest.from_onnx(graph(nodes, (2, 8, 8), constants)).close()


# ------------------------------------------------------------- small files that ask for much memory ---


def most_memory(source, match):
    """Bytes that were asked for until the file was refused."""
    onnx.numpy_helper, onnx.helper  # modules that are loaded when they are first used are not the file's
    tracemalloc.start()
    try:
        refused(source, UnsupportedError, match)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def doubled(times, op="Concat"):
    """A constant that is joined with itself, again and again, and then a shape."""
    nodes = [node(op, f"d{i} d{i}", f"d{i + 1}", axis=0) for i in range(times)]
    nodes += [node("Reshape", f"x d{times}", "r"), node("Gemm", "r w", "y", transB=1)]
    return graph(nodes, (7,), {"w": weights(3, 7), "d0": np.array([1])})


def test_constants_that_grow():
    """28 Concats, each of a constant with itself: 1.3 kB that would make 2^28 numbers, and as many again."""
    assert len(doubled(28).SerializeToString()) < 1400
    assert most_memory(doubled(28), "node 'd17' .Concat.*constants that the graph computes") < 4e6
    rows = np.zeros(4096, np.int64)
    nodes = [
        node("Unsqueeze", "i", "u", axes=[1]), node("Gather", "u i", "g", axis=0),
        node("Gather", "g i", "h", axis=1), node("Add", "x h", "y"),
    ]  # fmt: skip
    assert most_memory(graph(nodes, (7,), {"i": rows}, opset=11), "Gather.*constants that") < 4e6
    many = [node("Concat", " ".join(["i"] * 4096), "c", axis=0), node("Add", "x c", "y")]
    assert most_memory(graph(many, (7,), {"i": rows}), "Concat.*constants that") < 4e6


@pytest.mark.parametrize("op", ["Cast", "Reshape"])
def test_constants_that_are_copied_many_times(op):
    """Each is no larger than the file's own, and all of them stay."""
    nodes = [node("Transpose", "w", "t", perm=[1, 0])]
    for i in range(200):
        inputs = "t" if op == "Cast" else "t shape"
        nodes.append(node(op, inputs, f"c{i}", **({"to": 7} if op == "Cast" else {})))
    nodes += [node("Concat", " ".join(f"c{i}" for i in range(200)), "c", axis=0), node("Add", "x c", "y")]
    constants = {"w": weights(256, 256), "shape": np.array([-1])}
    assert most_memory(graph(nodes, (7,), constants), f"{op}.*constants that") < 6e6


def test_constants_as_large_as_the_file():
    """Weights that are turned, cast and put together are no more than the file's own, whatever their size."""
    pytest.importorskip("onnxruntime")
    nodes = [
        node("Concat", "a b", "c", axis=1), node("Transpose", "c", "t", perm=[1, 0]),
        node("Reshape", "t shape", "r"), node("Gather", "r i", "g", axis=0), node("MatMul", "x g", "y"),
    ]  # fmt: skip
    constants = {"a": weights(300, 1000), "b": weights(300, 500), "shape": np.array([1500, 300])}
    constants["i"] = np.arange(1500)[::-1].copy()
    agree(graph(nodes, (1500,), constants), weights(2, 1500))


def test_kernels_that_a_dilation_makes_large():
    """262 kB would be 2^14 kernels of 255 x 255, 4 GB: wider than weights can be.  Those that can be are
    counted, all of them together."""
    nodes = [node("Conv", "x w", "y", dilations=[254, 254])]
    model = graph(nodes, (1, 255, 255), {"w": weights(2**14, 1, 2, 2)})
    assert most_memory(model, "wider than 65536") < 4e6
    model = graph(nodes, (2**12, 255, 255), {"w": weights(1, 2**12, 2, 2)})
    assert most_memory(model, "wider than 65536") < 4e6


def test_sparse_tensors_count_together(monkeypatch):
    """Places of sparse tensors and zeros within kernels: as many as one of them may have, not each."""
    monkeypatch.setattr("mest.exchange.onnx.limits._ABSENT", 3 * 49 + 9)

    def made(layers, dilation=1):
        sparse = [
            onnx.helper.make_sparse_tensor(
                onnx.numpy_helper.from_array(weights(3), f"w{i}"),
                onnx.numpy_helper.from_array(np.array([0, 8, 16]), "i"), [7, 7],
            )
            for i in range(layers)
        ]  # fmt: skip
        nodes = [node("Gemm", f"v{i} w{i}", f"v{i + 1}") for i in range(1, layers)]
        nodes = [node("Gemm", "f w0", "v1"), *nodes[:-1], node("Gemm", f"v{layers - 1} w{layers - 1}", "y")]
        nodes = [node("Conv", "x k", "c", dilations=[dilation, dilation]), node("Flatten", "c", "f"), *nodes]
        size = 2 * dilation + 1
        return graph(nodes, (1, size, size + 6), {"k": weights(1, 1, 3, 3)}, sparse=sparse)

    mest.from_onnx(made(3)).close()
    refused(made(4), UnsupportedError, "sparse tensor 'w3'.*2.28 places")
    refused(made(3, dilation=2), UnsupportedError, "sparse tensor 'w2'.*2.28 places")


def test_values_that_are_moved_about():
    """An order takes 4 bytes a value of a sample, and a file can ask for any number of them."""
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Flatten", "t", "f"), node("Gemm", "f w", "y")]
    model = graph(nodes, (4, 2**13, 2**13), {"w": weights(3, 7)})
    assert most_memory(model, "moves 268435456 values") < 4e6
    model = graph([node("Transpose", "x", "y", perm=[0, *range(70, 0, -1)])], (1,) * 70)
    refused(model, UnsupportedError, "as 70 axes")


def test_a_weight_that_many_layers_share(monkeypatch):
    """mest's layers have weights of their own."""
    monkeypatch.setattr("mest.exchange.onnx.limits._ABSENT", 10_000)
    nodes = [node("Gemm", f"v{i}" if i else "x", f"v{i + 1}") for i in range(40)]
    for item in nodes:
        item.input.append("w")
    nodes[-1].output[0] = "y"
    few = [*nodes[:2], node("Identity", "v2", "y")]
    mest.from_onnx(graph(few, (32,), {"w": weights(32, 32)})).close()
    refused(graph(nodes, (32,), {"w": weights(32, 32)}), UnsupportedError, "v1.' .Gemm.*does not hold")


def test_an_output_nobody_can_make():
    """A matrix of no values has any number of columns; a bias of one number would be given to each."""
    for inputs, columns in ((0, 2**30), (7, 0)):
        constants = {"w": np.zeros((inputs, columns), np.float32), "b": weights(1)}
        model = graph([node("Gemm", "x w b", "y")], (7,), constants)
        refused(model, (UnsupportedError, CorruptError), "times a matrix|1 to 65536 outputs")
    refused(graph([node("Gemm", "x w", "y")], (7,), {"w": np.zeros((0, 2**40), np.float32)}), match="impossible")


def test_axes_nobody_has():
    constants = {"w": weights(3, 7), "a": np.arange(60), "e": np.zeros((0, 3), np.float32)}
    nodes = [
        node("Unsqueeze", "w a", "u"), node("Unsqueeze", "u a", "v"), node("Add", "x v", "y"),
    ]  # fmt: skip
    refused(graph(nodes, (7,), constants), CorruptError, "do not fit together")
    refused(graph([node("Flatten", "e", "f"), node("Add", "x f", "y")], (7,), constants))


def test_more_layers_than_mest_has():
    nodes = [node("Relu", f"v{i}" if i else "x", f"v{i + 1}") for i in range(1200)]
    nodes.append(node("Gemm", "v1200 w", "y", transB=1))
    refused(graph(nodes, (7,), {"w": weights(3, 7)}), UnsupportedError, "more than 1024 layers")


def test_data_beside_the_file_that_is_read_many_times(tmp_path, monkeypatch):
    monkeypatch.setattr("mest.exchange.onnx.limits._ABSENT", 10_000)
    for count in (2, 60):
        constants = {f"w{i}": weights(32, 32) for i in range(count)}
        nodes = [node("Gemm", f"v{i} w{i}" if i else "x w0", f"v{i + 1}") for i in range(count)]
        nodes[-1].output[0] = "y"
        model = graph(nodes, (32,), constants)
        for name in constants:
            (tmp_path / "weights.bin").write_bytes(external(model, name, "weights.bin"))
        path = saved(model, tmp_path / "model.onnx")
        if count == 2:
            mest.from_onnx(path).close()
        else:
            refused(path, UnsupportedError, "read more than once")
