# SPDX-License-Identifier: Apache-2.0
"""Every layer, forward and backward, against the double-precision reference, over odd shapes."""

import copy
import itertools

import numpy as np
import pytest
import reference
from cases import NETWORKS, head, residual
from support import close, expected_gradients, gradients, randomise, reference_of

import mest
from mest import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Input,
    Linear,
    MaxPool,
    ReLU,
)

BATCHES = (1, 2, 5, 17, 33)
FORWARD, BACKWARD = 1e-5, 3e-5


def model_and_data(layers, batch, seed, **config):
    rng = np.random.default_rng(seed)
    config = {"learning_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0, "seed": seed, **config}
    model = mest.Model(layers, batch=batch, **config)
    randomise(model, rng)
    first = model.plan().layers[0]
    x = rng.normal(size=(batch, *first.shape)).astype(np.float32)
    if config.get("loss") == "mse":
        y = rng.normal(size=(batch, model.plan().outputs)).astype(np.float32)
    else:
        y = rng.integers(0, model.plan().outputs, batch)
    return model, x, y


def compare(model, x, y):
    """One step: outputs, loss, correct answers, every gradient and their norm."""
    known = reference_of(model)
    outputs = known.forward(x)
    close(model.predict(x), outputs, FORWARD, "outputs")
    mse = model.config.loss == "mse"
    if not mse:
        close(model.predict_proba(x), reference.softmax(outputs), FORWARD, "probabilities")

    smoothing = model.config.label_smoothing
    loss = reference.mean_squared_error if mse else reference.cross_entropy
    evaluation = model.evaluate(x, y)
    close(evaluation.loss, loss(outputs, y)[0], FORWARD, "evaluated loss")

    report = model.step(x, y)
    outputs = known.forward(x, training=True)
    value, slope = loss(outputs, y) if mse else loss(outputs, y, smoothing)
    close(report.loss, value, FORWARD, "loss")
    if not mse:
        ranked = np.sort(outputs, 1)
        if outputs.shape[1] == 1 or (ranked[:, -1] - ranked[:, -2]).min() > 1e-4:
            assert report.correct == (outputs.argmax(1) == y).sum()
    expected = compare_gradients(model, known.backward(slope))
    norm = np.sqrt(sum((e**2).sum() for e in expected.values()))
    close(report.gradient_norm, norm, BACKWARD, "gradient norm")


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, batch):
    if "batch norm" in name and batch == 1 and "flat" in name:
        pytest.skip("the variance of one value is 0: the gradient is rounding")
    model, x, y = model_and_data(NETWORKS[name](), batch, seed=batch)
    compare(model, x, y)


def compare_gradients(model, found):
    """Every gradient of the last step with those of the reference, which are returned."""
    expected = expected_gradients(model, found)
    # A bias in front of batch norm has no gradient: what is left there is rounding, which is small
    # only beside the other gradients.
    floor = 1e-2 * max(np.abs(e).max(initial=0) for e in expected.values())
    for place, gradient in gradients(model).items():
        close(gradient, expected[place], BACKWARD, f"gradient {place}", floor)
    return expected


GEOMETRIES = [
    (size, kernel, stride, padding)
    for size, kernel, stride, padding in itertools.product(
        ((5, 7), (1, 9), (6, 1), (3, 3), (8, 8), (11, 4)), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)
    )
    if min(size) + 2 * padding >= kernel > padding  # more padding than that is refused
]


@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("size, kernel, stride, padding", GEOMETRIES)
def test_convolution_geometry(size, kernel, stride, padding, density):
    conv = Conv2d(5, kernel, stride=stride, padding=padding, density=density)
    seed = hash((size, kernel, stride, padding)) % 1000
    model, x, y = model_and_data([Input(3, *size), conv, *head()], BATCHES[seed % 5], seed)
    compare(model, x, y)


@pytest.mark.parametrize("size, kernel, stride, padding", GEOMETRIES)
def test_depthwise_geometry(size, kernel, stride, padding):
    conv = Conv2d(3, kernel, stride=stride, padding=padding, groups=3)
    seed = hash((size, kernel, stride, padding)) % 1000
    model, x, y = model_and_data([Input(3, *size), conv, *head()], BATCHES[seed % 5], seed)
    compare(model, x, y)


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
@pytest.mark.parametrize(
    "size, kernel, stride, padding",
    [g for g in GEOMETRIES if 2 * g[3] <= g[1]],  # windows of padding alone have no largest value
)
def test_pool_geometry(size, kernel, stride, padding, kind):
    pool = kind(kernel, stride=stride, padding=padding)
    layers = [Input(3, *size), Conv2d(3, 1), pool, *head()]
    seed = hash((size, kernel, stride, padding)) % 1000
    model, x, y = model_and_data(layers, BATCHES[seed % 5], seed)
    compare(model, x, y)


@pytest.mark.parametrize("batch", BATCHES)
def test_empty_rows(batch):
    """Outputs without a connection give their bias; inputs without one get no gradient."""
    layers = [Input(3, 5, 5), Conv2d(6, 3, padding=1, density=0.2), ReLU(), Flatten(),
              Linear(20, density=0.05), Linear(4, density=1.0)]  # fmt: skip
    model, x, y = model_and_data(layers, batch, seed=batch)
    model.set_csr(1, [0, 0, 3, 3, 3, 4, 4], [0, 13, 26, 5], [0.5, -1.0, 2.0, 0.25])
    model.set_csr(4, [0] * 20 + [2], [7, 149], [1.5, -0.5])
    compare(model, x, y)


@pytest.mark.parametrize("batch", (1, 5, 33))
def test_no_connection_at_all(batch):
    layers = [Input(6), Linear(5, density=0.3), ReLU(), Linear(3, density=1.0)]
    model, x, y = model_and_data(layers, batch, seed=1)
    model.set_csr(1, [0] * 6, [], [])
    compare(model, x, y)


@pytest.mark.parametrize("batch", BATCHES)
def test_mse(batch):
    layers = [Input(2, 4, 4), Conv2d(5, 3, density=0.5), ReLU(), *head(3)]
    compare(*model_and_data(layers, batch, seed=3, loss="mse"))


def test_label_smoothing():
    compare(*model_and_data(mest.mlp(12, [20], 5), 17, seed=4, label_smoothing=0.1))


def test_fewer_samples_than_the_batch():
    model, x, y = model_and_data(residual(), 33, seed=5)
    for count in (1, 7, 16, 32):
        known = reference_of(model)
        report = model.step(x[:count], y[:count])
        value, slope = reference.cross_entropy(known.forward(x[:count], True), y[:count])
        close(report.loss, value, FORWARD, "loss")
        compare_gradients(model, known.backward(slope))


def test_running_statistics():
    """Running mean and variance move by `momentum` towards those of the batch.  The variance that
    is remembered is the unbiased one, as in PyTorch."""
    layers = [Input(3, 4, 5), BatchNorm(momentum=0.25), *head()]
    model, x, y = model_and_data(layers, 6, seed=6)
    mean, var = model.tensor(1, "running_mean"), model.tensor(1, "running_var")
    model.step(x, y)
    close(model.tensor(1, "running_mean"), 0.75 * mean + 0.25 * x.mean((0, 2, 3)), 1e-5)
    close(model.tensor(1, "running_var"), 0.75 * var + 0.25 * x.var((0, 2, 3), ddof=1), 1e-5)


def test_predict_more_than_a_batch():
    model, x, _ = model_and_data(residual(), 5, seed=7)
    many = np.random.default_rng(0).normal(size=(23, *x.shape[1:])).astype(np.float32)
    one_by_one = np.concatenate([model.predict(many[i : i + 1]) for i in range(23)])
    close(model.predict(many), one_by_one, FORWARD)


# ------------------------------------------------------------------------------------ dropout ---


def dropout_factors(model, x):
    """Factors that Dropout applied in one step, seen from both sides.

    Between two identity layers and under a squared error against 0, the weight gradients have
    (2/k) (factor * x)^2 on their diagonals: after the layer from the forward pass, before it from
    the backward pass."""
    k = x.shape[1]
    for index in (1, 3):
        model.set_tensor(index, "weight", np.eye(k, dtype=np.float32))
    model.step(x, np.zeros_like(x))
    scale = np.where((x**2).sum(0) > 0, (x**2).sum(0), 1) * 2 / k / len(x)
    return [np.sqrt(np.diag(model.tensor(i, "weight_gradient")) / scale) for i in (1, 3)]


def dropout_model(k, rate, batch=1, seed=0):
    layers = [
        Input(k),
        Linear(k, density=1.0, bias=False),
        Dropout(rate),
        Linear(k, density=1.0, bias=False),
    ]
    return mest.Model(layers, batch=batch, seed=seed, loss="mse", learning_rate=0.0, momentum=0.0)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout(rate):
    k = 400
    model, x = dropout_model(k, rate), np.full((1, k), 1.5, np.float32)
    kept = []
    for _ in range(20):
        backward, forward = dropout_factors(model, x)
        close(backward, forward, 1e-5, "the same mask both ways")
        off = forward < 1e-3
        close(forward[~off], np.full((~off).sum(), 1 / (1 - rate)), 1e-5, "scale")
        kept.append(~off)
    kept = np.array(kept)
    spread = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) <= 4 * spread
    if rate:
        agreement = (kept[1:] == kept[:-1]).mean()  # of masks of consecutive steps
        assert abs(agreement - (rate**2 + (1 - rate) ** 2)) < 0.05
    close(model.predict(x), x, 1e-6, "no dropout in inference")


def test_dropout_is_seeded():
    x = np.ones((1, 100), np.float32)
    first, again, other = (
        dropout_factors(dropout_model(100, 0.5, seed=s), x)[1] for s in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()


def test_dropout_of_samples_differs():
    """Sample i uses features 50 i .. 50 i + 49 only, so its mask can be read from those."""
    x = np.kron(np.eye(4), np.ones((1, 50))).astype(np.float32)
    factors = dropout_factors(dropout_model(200, 0.5, batch=4), x)[1].reshape(4, 50)
    assert len({row.tobytes() for row in factors > 0}) == 4


# --------------------------------------------------------------------- the reference is right ---


@pytest.mark.parametrize("name", NETWORKS)
def test_reference_against_finite_differences(name):
    """Of the loss by every parameter tensor and the input, in double precision."""
    rng = np.random.default_rng(0)
    layers = NETWORKS[name]()
    known = reference.Network(layers, _random_parameters(layers, rng))
    first = layers[0]
    x = rng.normal(size=(3, first.channels, first.height, first.width))
    labels = rng.integers(0, known.forward(x, True).shape[1], 3)

    def loss():
        return reference.cross_entropy(known.forward(x, True), labels, 0.1)

    found = known.backward(loss()[1])
    tensors = [(x, known.input_gradient)]
    for index, parameters in enumerate(known.parameters):
        tensors += [
            (parameters[w], found[index][w]) for w in ("weight", "bias", "scale") if w in parameters
        ]
    for values, gradient in tensors:
        flat, slope = values.reshape(-1), np.asarray(gradient).reshape(-1)
        for i in rng.choice(flat.size, min(flat.size, 6), replace=False):
            kept, step = flat[i], 1e-6
            flat[i] = kept + step
            above = loss()[0]
            flat[i] = kept - step
            below = loss()[0]
            flat[i] = kept
            assert abs((above - below) / (2 * step) - slope[i]) < 1e-5 * max(1, abs(slope[i]))


def _random_parameters(layers, rng):
    """Parameters of the right shapes: found by running the reference layer by layer."""
    parameters, shapes = [], []
    for index, (layer, read) in enumerate(zip(layers, reference.sources(layers))):
        found = {}
        if index == 0:
            shapes.append((layer.channels, layer.height, layer.width))
            parameters.append(found)
            continue
        c, h, w = shapes[read[0]]
        if isinstance(layer, Linear):
            found = {
                "weight": rng.normal(size=(layer.features, c * h * w)),
                "bias": rng.normal(size=layer.features),
            }
        elif isinstance(layer, Conv2d):
            kernel = reference.pair(layer.kernel)
            inputs = c // layer.groups
            found = {"weight": rng.normal(size=(layer.channels, inputs * kernel[0] * kernel[1])),
                     "bias": rng.normal(size=layer.channels)}  # fmt: skip
        elif isinstance(layer, BatchNorm):
            found = {"scale": rng.uniform(0.5, 1.5, c), "bias": rng.normal(size=c)}
        parameters.append(found)
        if isinstance(layer, Add):
            shapes.append((c, h, w))
        else:
            part = reference.Network([Input(c, h, w), _detached(layer)], [{}, found])
            part.forward(np.zeros((2, c, h, w)), training=True)
            shapes.append(part.y[1].shape[1:])
    return parameters


def _detached(layer):
    alone = copy.copy(layer)
    alone.from_ = None
    return alone
