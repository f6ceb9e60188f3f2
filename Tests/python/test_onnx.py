# SPDX-License-Identifier: Apache-2.0
"""`mest.to_onnx` and `mest.from_onnx` on whole networks: there and back, and MLPerf Tiny."""

import json

import mlperf_tiny
import numpy as np
import pytest
from onnx_graphs import run, weights
from support import randomise

import mest
from mest import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    MaxPool,
    ReLU,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

NETWORKS = {
    "mlp": mest.mlp((1, 6, 6), [24, 16], 5),
    "features": mest.mlp(12, [24], 3),
    "resnet": mest.resnet(8, 4, 5, input=(3, 8, 8)),
    "vgg": mest.vgg(11, 4, 5, input=(3, 16, 16)),
    "ds_cnn": mest.ds_cnn(5, 8, 2, input=(1, 13, 10)),
    "odd": [  # what the networks above do not have
        Input(2, 9, 7), Conv2d(6, (3, 2), stride=(2, 1), padding=(1, 0), name="first"),
        BatchNorm(affine=False, eps=1e-3), MaxPool(3, stride=1, padding=1), AvgPool(2, padding=1),
        ReLU(name="here"), Conv2d(6, 1, from_="here"), Add(with_="here"), Dropout(0.3), Flatten(),
        BatchNorm(momentum=0.2), Linear(8, bias=False), ReLU(), Linear(4),
    ],
    "a picture of one pixel": [
        Input(5), Conv2d(6, 1), ReLU(), GlobalAvgPool(), Linear(6), Conv2d(6, 1), Add(with_=-2), AvgPool(1),
    ],
}  # fmt: skip


def model_of(name, **config):
    model = mest.Model(NETWORKS[name], **{"batch": 4, "density": 0.3, "seed": 3, **config})
    randomise(model, np.random.default_rng(5))
    return model


def samples(model, count=4):
    return weights(count, *model.plan().layers[0].shape, seed=8, scale=1.0)


def as_onnx_takes(model, x):
    return x.reshape(len(x), -1) if x.shape[2:] == (1, 1) else x


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name, sparse, tmp_path):
    model, path = model_of(name), tmp_path / "model.onnx"
    made = mest.to_onnx(model, path, sparse=sparse)
    # Type inference knows no sparse weights of Conv and Gemm, the format does: see docs/onnx.md.
    onnx.checker.check_model(made, full_check=not sparse)
    x = samples(model)
    expected = model.predict(x)
    found = run(path, as_onnx_takes(model, x))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    again = mest.from_onnx(path, batch=4)
    np.testing.assert_allclose(again.predict(x), expected, atol=1e-6 * np.abs(expected).max())
    for layer, part, now in zip(model.plan().layers, again.plan().layers, again.connections()):
        if name in ("resnet", "vgg", "ds_cnn", "mlp", "features"):
            assert (layer.kind, layer.shape, layer.scheme) == (part.kind, part.shape, part.scheme)
            assert now == layer.active


@pytest.mark.parametrize("scheme", ["block4", "row4", "nm24", "fan_in", "pattern", "filter"])
def test_schemes_and_connections_that_are_zero_come_back(scheme):
    model = model_of("resnet", scheme=scheme, density=0.25)
    for index, part in enumerate(model.plan().layers):
        if part.sparse:
            csr = model.csr(index)
            values = csr.values.copy()
            values[: len(values) // 3] = 0  # as connections are that have grown
            model.set_csr(index, csr.indptr.copy(), csr.indices.copy(), values)
    again = mest.from_onnx(mest.to_onnx(model, sparse=True), batch=4)
    assert [part.scheme for part in again.plan().layers] == [part.scheme for part in model.plan().layers]
    x = samples(model)
    np.testing.assert_allclose(again.predict(x), model.predict(x), atol=1e-5)
    if scheme != "filter":  # its channels are stored and written dense
        for index, part in enumerate(model.plan().layers):
            if part.sparse:
                assert all(map(np.array_equal, again.csr(index), model.csr(index)))


def test_what_the_file_says():
    model = model_of("mlp")
    made = mest.to_onnx(model)
    assert (made.producer_name, made.producer_version) == ("mest", mest.__version__)
    assert made.opset_import[0].version == 13 and made.ir_version == 7
    said = {item.key: item.value for item in made.metadata_props}
    names = [part.name for part in model.plan().layers if part.rows]
    densities = json.loads(said["mest.density"])
    assert list(densities) == names and densities["classifier"] == 1
    assert densities[names[0]] == pytest.approx(0.3, abs=1e-3)
    assert json.loads(said["mest.scheme"])[names[0]] == "unstructured"
    shape = made.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param == "batch" and [d.dim_value for d in shape[1:]] == [1, 6, 6]
    assert not made.graph.sparse_initializer
    sparse = mest.to_onnx(model, sparse=True).graph
    assert [tensor.values.name for tensor in sparse.sparse_initializer] == [
        name + ".weight" for name in names[:2]
    ]
    assert sparse.sparse_initializer[0].values.dims[0] == model.connections()[2]


def test_softmax_is_the_callers_choice():
    model = model_of("mlp")
    x = samples(model)
    made = mest.to_onnx(model, softmax=True)
    assert made.graph.output[0].name == "probabilities"
    np.testing.assert_allclose(run(made, x), model.predict_proba(x), atol=1e-5)
    with pytest.warns(UserWarning, match=r"\(Softmax\) at the end of the network is left out"):
        again = mest.from_onnx(made)
    np.testing.assert_allclose(again.predict(x), model.predict(x), atol=1e-5)
    regression = model_of("features", loss="mse")
    assert mest.to_onnx(regression).graph.output[0].name == "outputs"
    with pytest.raises(mest.MestArgumentError, match="no probabilities"):
        mest.to_onnx(regression, softmax=True)


def test_a_file_is_pruned_and_trained():
    """A dense network from a file, pruned to a tenth, learns on."""
    model = model_of("mlp", density=None)
    sparse = mest.from_onnx(
        mest.to_onnx(model), density={"linear*": 0.1}, scheme="block4", batch=32, method="em&s", epochs=4
    )
    parts = sparse.plan().layers
    assert [part.scheme for part in parts if part.rows] == ["block4", "block4", None]
    weight = model.tensor(2)
    blocks = np.square(weight).reshape(-1, 4, weight.shape[1]).sum(1)
    kept = np.zeros_like(blocks, bool)
    csr = sparse.csr(2)
    kept[np.repeat(np.arange(len(weight)), np.diff(csr.indptr.astype(int))) // 4, csr.indices] = True
    assert blocks[kept].min() >= blocks[~kept].max()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 1, 6, 6)).astype(np.float32)
    y = (x.reshape(256, -1)[:, :5]).argmax(1)
    history = sparse.fit(x, y, 4, progress=False)
    assert history[-1].loss < history[0].loss


# ------------------------------------------------------------------------------- MLPerf Tiny ---


@pytest.mark.parametrize("fused", [False, True], ids=["Keras 3", "Keras 2"])
@pytest.mark.parametrize("network", [mlperf_tiny.resnet8, mlperf_tiny.ds_cnn_s])
def test_mlperf_tiny_as_tf2onnx_writes_it(network, fused):
    model = network(fused)
    onnx.checker.check_model(model, full_check=True)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = weights(2, *shape, seed=4, scale=1.0)
    with pytest.warns(UserWarning, match=r"\(Softmax\) at the end of the network is left out"):
        imported = mest.from_onnx(model, batch=2)
    found = imported.predict_proba(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    expected = run(model, x)
    assert np.abs(found - expected).max() < 1e-4 and expected.std() > 0.05
    convolutions = [layer for layer in imported.layers if isinstance(layer, Conv2d)]
    # Strides of 2 pad one zero more behind: kernels of 4 for 3, of 11 for 10, whose first row is 0.
    if network is mlperf_tiny.resnet8:
        assert [layer.kernel for layer in convolutions] == [3, 3, 3, 1, 4, 3, 1, 4, 3]
    else:
        assert (convolutions[0].kernel, convolutions[0].padding) == ((11, 4), (5, 1))
    back = mest.to_onnx(imported, softmax=True)
    assert np.abs(run(back, x.transpose(0, 3, 1, 2)) - expected).max() < 1e-4


def test_estimators_are_told_where_their_model_is():
    with pytest.raises(TypeError, match=r"MestClassifier: to_onnx takes a mest.Model; .* is its \.model_$"):
        mest.to_onnx(mest.MestClassifier())
