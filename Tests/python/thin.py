# SPDX-License-Identifier: Apache-2.0
"""Networks that lack channels: random ones, which channels go together, and tensors as lists of what exists."""

import re

import numpy as np
import reference
from graphs import Graph
from support import positions

import mest
from mest import Add, Conv2d, Linear


def thin_graph(seed, **config):
    """(graph, settings) of a random network with channels to drop; None where it has none."""
    graph = Graph.random(seed)
    rng = np.random.default_rng(seed + 7)
    for layer in graph.layers:
        if is_matrix(layer) and not depthwise(layer):
            layer.density = None if rng.random() < 0.8 else 1.0
            layer.scheme = None if layer.density else rng.choice([None, "filter", "channel"])
    settings = dict(
        seed=seed, batch=graph.samples, density=float(rng.uniform(0.05, 0.9)),
        scheme=str(rng.choice(["filter", "channel"])), learning_rate=0.02, momentum=0.9,
        loss="mse" if graph.outputs < 2 or seed % 5 == 0 else "cross_entropy", **config,
    )  # fmt: skip
    while True:
        try:
            mest.plan(graph.layers, **settings)
            return graph, settings
        except ValueError as error:
            if "every layer is dense" in str(error):
                return None
            index = re.match(r"layer (\d+) .*scheme .* asks for fewer (\w+), but these reach", str(error))
            index, side = int(index[1]), index[2]
            outputs, inputs = can_lack(graph.layers, index)
            assert not (outputs if side == "outputs" else inputs), f"seed {seed}: {error}"
            graph.layers[index].density, graph.layers[index].scheme = 1.0, None


def is_matrix(layer):
    return isinstance(layer, (Linear, Conv2d))


def depthwise(layer):
    return isinstance(layer, Conv2d) and layer.groups > 1


def groups_of(layers):
    """(the first layer of the group of each layer's output, whether the group is complete)."""
    sources, first = reference.sources(layers), []
    for index, layer in enumerate(layers):
        begins = index == 0 or is_matrix(layer) and not depthwise(layer)
        first.append(index if begins else first[sources[index][0]])
        if isinstance(layer, Add):
            pair = sorted(first[s] for s in sources[index])
            first = [pair[0] if f == pair[1] else f for f in first]
    complete = {first[0], first[-1]}
    return first, [f in complete for f in first]


def can_lack(layers, index):
    """Whether outputs, and whether inputs of a matrix can lack channels."""
    _, complete = groups_of(layers)
    return not complete[index], not complete[reference.sources(layers)[index][0]]


def shapes_of(model):
    return [part.shape for part in model.plan().layers]


def matrix(model, index, what="values"):
    """(values, exists) of a weight matrix as described."""
    part = model.plan().layers[index]
    values = np.zeros(part.rows * part.columns, np.float32)
    exists = np.zeros(values.size, bool)
    if part.sparse:
        csr = model.csr(index)
        at = positions(csr, part.columns)
        exists[at] = True
        values[at] = csr.values if what == "values" else model.tensor(index, what)
    else:
        exists[:], values[:] = True, model.tensor(index, "weight" if what == "values" else what).ravel()
    return values.reshape(part.rows, part.columns), exists.reshape(part.rows, part.columns)


def channels_of(model):
    """{first layer of a group: its channels that exist}, read off every matrix: all must agree."""
    layers, shapes, found = model.layers, shapes_of(model), {}
    first, _ = groups_of(layers)
    sources = reference.sources(layers)
    for index, layer in enumerate(layers):
        if not is_matrix(layer):
            continue
        _, exists = matrix(model, index)
        rows, columns = exists.any(1), exists.any(0)
        assert (exists == np.outer(rows, columns)).all(), f"layer {index}: a part of a channel"
        views = [(first[index], rows)]
        if not depthwise(layer):
            views.append((first[sources[index][0]], columns))
        for group, view in views:
            each = view.reshape(shapes[group][0], -1)
            assert (each.all(1) == each.any(1)).all(), f"layer {index}: a part of a channel"
            ids = np.flatnonzero(each.any(1)).tolist()
            assert ids, f"layer {index}: no channel is left"
            assert found.setdefault(group, ids) == ids, f"layer {index} differs from its group"
    return found


def features(ids, count, channels):
    """Positions of the values of these channels among `count` values."""
    each = count // channels
    return np.add.outer(np.array(ids) * each, np.arange(each)).ravel()
