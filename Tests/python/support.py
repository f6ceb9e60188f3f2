# SPDX-License-Identifier: Apache-2.0
"""What several test files need: models in known states, and comparisons that say where."""

import hashlib
import io

import numpy as np
from reference import Network

import mest
from mest import Input, Linear, ReLU

X, Y = np.ones((4, 4), np.float32), np.zeros(4, np.int32)  # a batch for `tiny`


class Terminal(io.StringIO):
    """For sys.stderr: there are progress bars."""

    def isatty(self):
        return True


def tiny(**config):
    """4 -> 8 sparse -> 3, batches of 4."""
    layers = [Input(4), Linear(8, density=0.5), ReLU(), Linear(3, density=1.0)]
    return mest.Model(layers, **{"batch": 4, **config})


PARAMETERS = ("bias", "scale", "running_mean", "running_var")


def has(model, index, what):
    try:
        return model.tensor(index, what).size > 0
    except mest.MestArgumentError:
        return False


def randomise(model, rng):
    """Biases, scales and statistics that are not the trivial 0 and 1 of a new model."""
    for index in range(1, len(model.layers)):
        for what in PARAMETERS:
            if has(model, index, what):
                size = model.tensor(index, what).size
                positive = what in ("scale", "running_var")
                values = rng.uniform(0.5, 1.5, size) if positive else rng.normal(0, 0.5, size)
                model.set_tensor(index, what, values.astype(np.float32))


def positions(csr, columns):
    """Row-major position of every connection in the weight matrix."""
    rows = np.repeat(np.arange(len(csr.indptr) - 1), np.diff(csr.indptr.astype(np.int64)))
    return rows * columns + csr.indices.astype(np.int64)


def dense_weight(model, index):
    """(rows, columns) float64, zero where nothing is connected."""
    part = model.plan().layers[index]
    matrix = np.zeros(part.rows * part.columns)
    if part.sparse:
        csr = model.csr(index)
        matrix[positions(csr, part.columns)] = csr.values
    else:
        matrix[:] = model.tensor(index, "weight").ravel()
    return matrix.reshape(part.rows, part.columns)


def reference_of(model, frozen=0):
    """The same network, with the model's present parameters, in double precision."""
    parameters = []
    for index, part in enumerate(model.plan().layers):
        found = {
            w: model.tensor(index, w).astype(float) for w in PARAMETERS if has(model, index, w)
        }
        if part.rows:
            found["weight"] = dense_weight(model, index)
        parameters.append(found)
    return Network(list(model.layers), parameters, frozen)


def gradients(model):
    """{(layer, tensor): gradient of the last step}; sparse weights in CSR order."""
    found = {}
    for index in range(1, len(model.layers)):
        for what in ("weight", "bias", "scale"):
            if has(model, index, what):
                found[index, what] = model.tensor(index, what + "_gradient").ravel()
    return found


def expected_gradients(model, found):
    """Those of the reference, at the same places."""
    expected = {}
    for index, what in gradients(model):
        gradient = found[index][what].ravel()
        part = model.plan().layers[index]
        if what == "weight" and part.sparse:
            gradient = gradient[positions(model.csr(index), part.columns)]
        expected[index, what] = gradient
    return expected


def close(actual, expected, tolerance, what="", floor=1e-6):
    """Largest difference, relative to the largest value (at least `floor`): what sums of floats
    may be off by."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} is not {expected.shape}"
    if expected.size:
        error = np.abs(actual - expected).max()
        scale = max(np.abs(expected).max(), floor)
        assert error <= tolerance * scale, f"{what}: off by {error / scale:.2e} of {scale:.2e}"


def fingerprint(model):
    """One hash over every parameter, connection and state of a model."""
    total = hashlib.sha256()
    for index, part in enumerate(model.plan().layers):
        if part.sparse:
            for array in model.csr(index):
                total.update(np.ascontiguousarray(array).tobytes())
        for what in mest.TENSORS:
            if not what.endswith("gradient") and has(model, index, what):
                total.update(model.tensor(index, what).tobytes())
    return total.hexdigest()
