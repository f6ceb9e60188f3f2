# SPDX-License-Identifier: Apache-2.0
"""The record of a real training of a second, which tests of pictures, reports and commands read."""

import mest
from mest.datasets import digits

FIELDS = dict(
    density=0.2, method="em&s", mutation_every=1, epochs=6, batch=32, samples=300, learning_rate=0.02, seed=3
)


def network(name="conv <a> & b"):
    return [
        mest.Input(1, 8, 8),
        mest.Conv2d(8, 3, padding=1, name=name),
        mest.ReLU(),
        mest.MaxPool(2),
        mest.Flatten(),
        mest.Linear(24, name="hidden"),
        mest.ReLU(),
        mest.Linear(10, density=1.0, name="classifier"),
    ]


def write(path, name="conv <a> & b", **fields):
    """Trains, and records it in path; the model."""
    data = digits()
    x, y = data.x_train[:300], data.y_train[:300]
    model = mest.Model(network(name), **{**FIELDS, **fields})
    images = x if model.config.samples else None
    record = mest.record(path, images=images, most=12, command="mest train <digits> & more")
    model.fit(x, y, validation=(data.x_test, data.y_test), progress=False, callbacks=[record])
    return model
