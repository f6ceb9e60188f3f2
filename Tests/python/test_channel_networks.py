# SPDX-License-Identifier: Apache-2.0
"""Schemes "filter" and "channel": whole channels exist or not, everywhere.

Two definitions are written down here and compared with the library on random networks, whose seeds the failures
name: which channels go together; and that a network which lacks channels is the dense network of those that exist.
"""

import copy

import numpy as np
import pytest
import reference
from moves import ratio, root, rounded
from support import has, randomise
from test_graphs import compare_step, data_of
from thin import channels_of, depthwise, features, groups_of, is_matrix, matrix, shapes_of, thin_graph

import mest
from mest import BatchNorm, Linear

# --------------------------------------------------------------------------------------- plans ---


@pytest.mark.parametrize("part", range(10))
def test_groups_and_counts(part):
    """Who lacks channels, how many there are, and that every tensor is stored without the others."""
    thin = 0
    for seed in range(part, 300, 10):
        made = thin_graph(seed)
        if made is None:
            continue
        graph, settings = made
        first, complete = groups_of(graph.layers)
        sources = reference.sources(graph.layers)
        asked = set()
        for index, layer in enumerate(graph.layers):
            if is_matrix(layer) and not depthwise(layer) and layer.density is None:
                ofrows = (layer.scheme or settings["scheme"]) == "filter"
                asked.add(first[index] if ofrows else first[sources[index][0]])
        asked -= {f for f, whole in zip(first, complete) if whole}
        with mest.Model(graph.layers, **settings) as model:
            shapes, parts, ids = shapes_of(model), model.plan().layers, channels_of(model)
            assert shapes == [tuple(shape) for shape in graph.shapes], "described sizes"
            share = root(ratio(settings["density"]))
            for group, alive in ids.items():
                whole = shapes[group][0]
                assert len(alive) == (rounded(whole, share) if group in asked else whole), f"seed {seed}"
            for index, (part_, layer) in enumerate(zip(parts, graph.layers)):
                lacks = first[index] in asked
                count = part_.channels // shapes[first[index]][0] * len(ids[first[index]])
                assert part_.alive == (count if lacks else part_.channels), f"seed {seed} layer {index}"
                if is_matrix(layer):
                    columns = lacks if depthwise(layer) else lacks or first[sources[index][0]] in asked
                    assert part_.sparse == columns
                    stored = matrix(model, index)[1].sum()
                    assert part_.active == part_.capacity == stored == model.tensor(index).size
                    assert part_.density == pytest.approx(stored / (part_.rows * part_.columns))
                    assert part_.unit == (0 if columns else 1)
                if isinstance(layer, BatchNorm) and layer.affine:
                    line = -(-count * 4 // 64) * 64
                    assert part_.weight_bytes == 4 * line and part_.gradient_bytes == 2 * line
            index_bytes = sum(-(-2 * len(ids[group]) // 64) * 64 for group in asked)
            assert model.plan().index_bytes == index_bytes == sum(p.index_bytes for p in parts)
            thin += bool(asked)
    assert thin >= 10


# ----------------------------------------------------------------- the network of fewer channels ---


def without(model, **settings):
    """The dense model of the channels that exist, with the same parameters; and what of every
    described tensor it has."""
    first, _ = groups_of(model.layers)
    shapes, ids, layers = shapes_of(model), channels_of(model), []
    for index, layer in enumerate(model.layers):
        layer = copy.copy(layer)
        if is_matrix(layer):
            count = len(ids[first[index]]) * shapes[index][0] // shapes[first[index]][0]
            layer.density, layer.scheme = 1.0, None
            if isinstance(layer, Linear):
                layer.features = count
            else:
                if depthwise(layer) and count == 1:
                    return None, {}  # nobody could tell it from an ordinary convolution
                layer.channels, layer.groups = count, count if depthwise(layer) else 1
        layers.append(layer)
    kept = {}
    for index in range(1, len(layers)):
        group = first[index]
        if group in ids:
            kept[index] = features(ids[group], shapes[index][0], shapes[group][0])
    settings = {k: v for k, v in settings.items() if k not in ("density", "scheme")}
    return mest.Model(layers, **settings), kept


def copy_parameters(model, dense, kept, state=True):
    for index in range(1, len(model.layers)):
        for what in ("weight", "bias", "scale", "running_mean", "running_var"):
            for tensor in (what, what + "_momentum") if state and what[0] != "r" else (what,):
                if has(dense, index, tensor):
                    shape = dense.tensor(index, tensor).shape
                    dense.set_tensor(index, tensor, present(model, kept, index, tensor).reshape(shape))


def present(model, kept, index, what):
    values = model.tensor(index, what).ravel()
    if what.startswith("weight") or index not in kept:
        return values
    return values[kept[index]]


def compare_parameters(model, dense, kept, where):
    for index in range(1, len(model.layers)):
        for what in mest.TENSORS:
            if has(dense, index, what):
                ours, theirs = present(model, kept, index, what), dense.tensor(index, what).ravel()
                assert ours.tobytes() == theirs.tobytes(), f"{where}: {what} of layer {index}"


@pytest.mark.parametrize("part", range(10))
def test_same_bits_as_the_dense_network_of_fewer_channels(part):
    """Steps and predictions, also after a mutation; gradients against plain numpy."""
    compared = 0
    for seed in range(part, 200, 10):
        more = dict(method="em&s", epochs=8, mutation_every=1) if seed % 2 else {}
        more.update(recompute=(None, "block", "elementwise")[seed % 3], threads=1 + seed % 2)
        more["activations"] = "bfloat16" if seed % 7 == 0 else "float32"
        made = thin_graph(seed, **more)
        if made is None:
            continue
        graph, settings = made
        rng = np.random.default_rng(seed)
        with mest.Model(graph.layers, **settings) as model:
            if seed % 2:
                model.begin_epoch()
                model.mutate()
            randomise(model, rng)
            dense, kept = without(model, **{**settings, "method": "static"})
            if dense is None:
                continue
            copy_parameters(model, dense, kept)
            where = f"seed {seed}"
            fewer = copy.copy(graph)
            fewer.layers, fewer.shapes = dense.layers, shapes_of(dense)
            for number in range(3):
                x, y = data_of(graph, rng, graph.samples, settings["loss"])
                assert model.predict(x).tobytes() == dense.predict(x).tobytes(), where
                comparable = number == 0 and settings["activations"] == "float32"
                if comparable and compare_step(dense, fewer, seed, number, x, y):
                    compared += 1
                else:
                    dense.step(x, y)
                model.step(x, y)
                compare_parameters(model, dense, kept, where)
            assert model.plan().workspace_bytes >= dense.plan().workspace_bytes
            assert seed % 2 or model.plan().gradient_bytes == dense.plan().gradient_bytes
            dense.close()
    assert compared >= 2
