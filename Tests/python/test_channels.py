# SPDX-License-Identifier: Apache-2.0
"""Schemes "filter" and "channel": whole channels exist or not, everywhere.

Three definitions are written down here and compared with the library on random networks, whose seeds the
failures name: which channels go together; that a network which lacks channels is the dense network of
those that exist; and what a mutation drops, grows and leaves, random numbers included.
"""

import copy
import itertools
import math
import re

import numpy as np
import pytest
import reference
from graphs import Graph
from moves import GROWTH, Channels, amount, initial, ratio, root, rounded
from randoms import Random, floyd
from support import PARAMETERS, close, fingerprint, has, positions, randomise, reference_of
from test_graphs import compare_step, data_of

import mest
from mest import (
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    ReLU,
)

# ----------------------------------------------------------------------------- random networks ---


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


# --------------------------------------------------------------------------------------- views ---


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


# ------------------------------------------------------------------------------------ mutation ---

TOPOLOGY, GROWN_VALUE, ADOPTED_VALUE = 1, 6, 7


def drawn(n, count, random):
    """Knuth's algorithm S."""
    ids = []
    for i in range(n):
        if random.below(n - i) < count - len(ids):
            ids.append(i)
    return ids


class Mutation:
    """One mutation of a model, on matrices as described, in the plainest way."""

    def __init__(self, model, number, config):
        self.layers, self.config, self.number = model.layers, config, number
        self.sources, self.shapes = reference.sources(model.layers), shapes_of(model)
        self.first, complete = groups_of(model.layers)
        self.complete = {g for g, whole in zip(self.first, complete) if whole}
        self.alive = channels_of(model)
        self.thin = [g for g in sorted(self.alive) if model.plan().layers[g].sparse and self.asks(g)]
        self.weight = {i: matrix(model, i)[0].copy() for i, l in enumerate(self.layers) if is_matrix(l)}
        self.state = {i: matrix(model, i, "weight_momentum")[0].copy() for i in self.weight}
        self.other = {
            (i, what): model.tensor(i, what)
            for i in range(1, len(self.layers))
            for what in (*PARAMETERS, "bias_momentum", "scale_momentum")
            if has(model, i, what)
        }

    def asks(self, group):
        return group not in self.complete and any(self.asked(group))

    def asked(self, group):
        """Whether filters, and whether channels of this group are asked for."""
        found = [False, False]
        for i, layer in enumerate(self.layers):
            if is_matrix(layer) and not depthwise(layer) and layer.density is None:
                filters = (layer.scheme or self.config["scheme"]) == "filter"
                if self.first[i if filters else self.sources[i][0]] == group:
                    found[0 if filters else 1] = True
        return found

    def run(self, epoch):
        for group in self.thin:
            self.mutate(group, epoch)
        return self

    def columns(self, i):
        """Positions of the columns of matrix i that exist."""
        if depthwise(self.layers[i]):
            return np.arange(self.weight[i].shape[1])
        group = self.first[self.sources[i][0]]
        return features(self.alive[group], self.weight[i].shape[1], self.shapes[group][0])

    def scores(self, group):
        filters, channels = self.asked(group)
        sums = np.zeros(self.shapes[group][0])
        one, momentum = np.float32(1), np.float32(self.config["momentum"])
        factor = np.float32(self.config.get("importance_lambda", 0)) * (one - momentum)
        for i, weight in self.weight.items():
            if depthwise(self.layers[i]):
                continue
            part = np.abs(weight) + factor * np.abs(self.state[i]) if factor else np.abs(weight)
            source = self.first[self.sources[i][0]]
            squares = part.astype(float).reshape(len(weight), self.shapes[source][0], -1) ** 2
            each = np.add.accumulate(squares, 2)[:, :, -1]
            if filters and self.first[i] == group:
                for c in self.alive[source]:
                    sums += each[:, c]
            if channels and source == group:
                for r in range(len(weight)):
                    sums += each[r]
        return np.sqrt(sums).astype(np.float32)

    def mutate(self, group, epoch):
        config, n, before = self.config, self.shapes[group][0], self.alive[group]
        keep, after = amount(Channels(n), config, epoch, len(before))
        scores = self.scores(group)
        order = sorted(before, key=lambda c: (scores[c], c))
        dropped = set(order[: max(0, len(before) - keep)])
        now = set(before) - dropped
        avoided = set(dropped) if config["exclude_dropped"] else set()
        random = Random(config["seed"], GROWTH, group, self.number)
        while len(now) < after:
            free = [c for c in range(n) if c not in now and c not in avoided]
            if not free:
                avoided = set()
                continue
            ranks = floyd(min(after - len(now), len(free)), len(free), random)
            now |= {free[rank] for rank in ranks}
        self.alive[group] = sorted(now)
        self.rebuild(group, set(before) - dropped, self.alive[group])

    def rebuild(self, group, survivors, alive):
        """What is not a survivor's is forgotten; then grown channels begin."""
        n = self.shapes[group][0]
        gone = sorted(set(range(n)) - survivors)
        grown = [c for c in alive if c not in survivors]
        for i, weight in self.weight.items():
            if not depthwise(self.layers[i]) and self.first[self.sources[i][0]] == group:
                at = features(gone, weight.shape[1], n) if gone else []
                weight[:, at] = self.state[i][:, at] = 0
            if self.first[i] == group:
                at = features(gone, len(weight), n) if gone else []
                weight[at] = self.state[i][at] = 0
                columns = self.columns(i)
                deviation = np.float32(0.1) * np.sqrt(np.float32(2) / np.float32(len(columns)))
                random = Random(self.config["seed"], GROWN_VALUE, i, self.number)
                for r in features(grown, len(weight), n) if grown else []:
                    weight[r, columns] = [deviation * random.normal() for _ in columns]
        for (i, what), values in self.other.items():
            if self.first[i] == group and gone:
                values[features(gone, values.size, n)] = 1 if what in ("scale", "running_var") else 0

    def compare(self, model, where):
        assert channels_of(model) == self.alive, where
        for i, weight in self.weight.items():
            values, exists = matrix(model, i)
            np.testing.assert_allclose(values, weight, rtol=2e-6, atol=0, err_msg=f"{where}: weights of {i}")
            np.testing.assert_array_equal(matrix(model, i, "weight_momentum")[0], self.state[i])
            group = self.first[i]
            rows = features(self.alive[group], len(weight), self.shapes[group][0])
            assert exists.sum() == len(rows) * len(self.columns(i)), where
        for (i, what), values in self.other.items():
            np.testing.assert_array_equal(model.tensor(i, what), values, f"{where}: {what} of {i}")


def mutating(seed):
    rng = np.random.default_rng(seed + 99)
    config = dict(
        method=str(rng.choice(["vanilla", "em", "em&s", "set", "gmp"])), mutation_every=1, epochs=8,
        mutation_epochs=(2, 4), mutation_rate=float(rng.choice([0.2, 0.6])),
        exclude_dropped=bool(rng.random() < 0.5),
    )  # fmt: skip
    if rng.random() < 0.5:
        config.update(importance_gradient="momentum", importance_lambda=2.0)
    if rng.random() < 0.3:
        config["mutation_extra"] = 0.3
    return config


@pytest.mark.parametrize("part", range(20))
def test_mutations_against_the_definition(part):
    """Channels dropped and grown, weights, momentum and statistics, through the phases of a schedule."""
    checked = moved = 0
    for seed in range(part, 400, 20):
        made = thin_graph(seed, **mutating(seed))
        if made is None:
            continue
        graph, config = made
        rng = np.random.default_rng(seed)
        model = mest.Model(graph.layers, **config)
        for group, ids in channels_of(model).items():
            if model.plan().layers[group].sparse and Mutation(model, 0, config).asks(group):
                n = shapes_of(model)[group][0]
                wanted = initial(Channels(n), config)
                assert ids == drawn(n, wanted, Random(seed, TOPOLOGY, group, 0)), f"seed {seed}"
        for epoch in range(6):
            where = f"seed {seed} epoch {epoch}"
            expected = Mutation(model, model.mutation().mutations + 1, config)
            if epoch or config["method"] != "set":
                expected.run(epoch)
            stored = [part.active if not part.sparse else n for part, n in zip(model.plan().layers, model.connections())]
            report = model.begin_epoch()
            expected.compare(model, where)
            mutation = model.mutation()
            assert mutation.active == sum(n for p, n in zip(model.plan().layers, model.connections()) if p.sparse)
            now = [part.active if not part.sparse else n for part, n in zip(model.plan().layers, model.connections())]
            assert sum(now) - sum(stored) == report.grown - report.dropped, where
            for part_, count in zip(model.plan().layers, now):
                assert count <= part_.capacity, where
            moved += report.dropped + report.grown > 0
            x, y = data_of(graph, rng, graph.samples, config["loss"])
            try:
                model.step(x, y)
            except mest.DivergedError:
                pass
            checked += 1
        model.close()
    assert checked >= 40 and moved >= 15


def test_growth_does_not_change_what_is_computed():
    layers = mest.resnet(8, 4, 8, (3, 9, 7))
    for mode in ("filter", "channel"):
        config = dict(method="em&s", epochs=8, mutation_extra=0.4, density=0.2, scheme=mode, batch=8)
        model = mest.Model(layers, learning_rate=0.1, seed=3, **config)
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(8, 3, 9, 7)).astype(np.float32), rng.integers(0, 4, 8)
        before = model.predict(x)
        report = model.begin_epoch()
        assert report.grown > 0 and report.dropped == 0
        np.testing.assert_allclose(model.predict(x), before, rtol=1e-5, atol=1e-6)
        alive = channels_of(model)
        start = model.tensor(1).copy()
        for _ in range(4):
            model.step(x, y)
        changed = model.tensor(1) != start
        assert changed.reshape(len(alive[1]), -1).any(1).all(), "grown channels learn"


@pytest.mark.parametrize("batch", [1, 2, 7, 20])
@pytest.mark.parametrize("scheme", ["filter", "channel"])
def test_same_bits_at_every_level(scheme, batch):
    found = set()
    for simd, threads in (("reference", 1), ("avx2", 2), ("avx512", 3), ("auto", 4)):
        try:
            model = mest.Model(
                mest.resnet(8, 4, 8, (2, 9, 7)), density=0.3, scheme=scheme, batch=batch, simd=simd, threads=threads,
                method="em", epochs=8, mutation_every=1, learning_rate=0.05, importance_lambda=0.1,
                normalised=True, importance_gradient="ema",
            )  # fmt: skip
        except mest.UnsupportedError:
            continue
        rng = np.random.default_rng(5)
        for _ in range(3):
            model.begin_epoch()
            x = rng.normal(size=(batch, 2, 9, 7)).astype(np.float32)
            model.step(x, rng.integers(0, 4, batch))
        found.add(fingerprint(model))
    assert len(found) == 1


# ---------------------------------------------------------------------------------- the outside ---


def residual(**more):
    return [
        Input(3, 6, 5), Conv2d(8, 3, padding=1, name="first", **more), BatchNorm(), ReLU(name="trunk"),
        Conv2d(8, 3, padding=1), BatchNorm(), Add(with_="trunk"), ReLU(),
        Conv2d(8, 3, padding=1, groups=8), ReLU(), Flatten(), Linear(12), ReLU(), Linear(4),
    ]  # fmt: skip


def test_residual_connections_couple():
    model = mest.Model(residual(), density=0.25, scheme="filter", batch=4)
    ids = channels_of(model)
    first, _ = groups_of(model.layers)
    assert [first[i] for i in (1, 4, 8)] == [1, 1, 1] and len(ids[1]) == 4 and len(ids[11]) == 6
    parts = model.plan().layers
    assert [parts[i].alive for i in (1, 2, 6, 8, 10, 11, 13)] == [4, 4, 4, 4, 4 * 30, 6, 4]
    assert [parts[i].scheme for i in (1, 8, 13)] == ["filter"] * 3
    assert parts[4].density == 0.25 and parts[1].density == 0.5
    # Dense layers follow.
    dense = mest.plan(residual(density=1.0), density=0.25, scheme="filter")
    assert dense.layers[1].scheme == "filter" and dense.layers[1].density == 0.5
    ending = mest.plan([Input(4), Linear(16, density=0.25, scheme="filter"), Linear(3, density=1.0)])
    assert ending.layers[2].scheme == "channel" and ending.layers[2].active == 8 * 3


def test_what_does_not_exist_reads_as_new():
    """And makes the dense network of described size compute the same."""
    model = mest.Model(residual(), density=0.25, scheme="filter", batch=4, learning_rate=0.1)
    rng = np.random.default_rng(2)
    randomise(model, rng)
    x = rng.normal(size=(4, 3, 6, 5)).astype(np.float32)
    model.step(x, [0, 1, 2, 3])
    gone = sorted(set(range(8)) - set(channels_of(model)[1]))
    for index, what, absent in (
        (1, "bias", 0), (2, "scale", 1), (2, "bias", 0), (2, "running_mean", 0), (2, "running_var", 1),
        (2, "scale_gradient", 0), (2, "scale_momentum", 0), (1, "bias_momentum", 0),
    ):  # fmt: skip
        values = model.tensor(index, what)
        assert values.size == 8 and (values[gone] == absent).all()
        assert (np.delete(values, gone) != absent).all(), f"{what} of layer {index}: those that exist"
    model.set_tensor(2, "scale", np.arange(1, 9))
    assert (model.tensor(2, "scale")[gone] == 1).all()
    assert (np.delete(model.tensor(2, "scale") - np.arange(1, 9), gone) == 0).all()
    close(model.predict(x), reference_of(model).forward(x), 2e-5)


def test_csr_there_and_back():
    """Layer after layer a model takes over the channels of another, and all it computes."""
    config = dict(density=0.25, scheme="filter", batch=4, learning_rate=0.1, momentum=0.9)
    first, second = (mest.Model(residual(), seed=seed, **config) for seed in (1, 2))
    x = np.random.default_rng(3).normal(size=(4, 3, 6, 5)).astype(np.float32)
    first.step(x, [0, 1, 2, 3])
    assert channels_of(first) != channels_of(second)
    for index, part in enumerate(first.plan().layers):
        if part.rows:
            second.set_csr(index, first.csr(index), momentum=first.tensor(index, "weight_momentum"))
            channels_of_one(second)
    for index in range(1, len(first.layers)):
        for what in mest.TENSORS:
            if not what.startswith("weight") and not what.endswith("gradient") and has(first, index, what):
                second.set_tensor(index, what, first.tensor(index, what))
    assert channels_of(first) == channels_of(second)
    assert fingerprint(first) == fingerprint(second)
    assert first.predict(x).tobytes() == second.predict(x).tobytes()
    assert first.step(x, [0, 1, 2, 3]).loss == second.step(x, [0, 1, 2, 3]).loss
    assert fingerprint(first) == fingerprint(second)


def channels_of_one(model):
    assert channels_of(model)


def test_fewer_channels_can_be_set():
    """The next mutation brings them back to the target."""
    model = mest.Model(
        [Input(5), Linear(16, density=0.25, scheme="filter", bias=False), Linear(3, density=1.0)],
        batch=2, method="em", epochs=8,
    )  # fmt: skip
    model.begin_epoch()
    model.set_csr(1, np.repeat([0, 5, 10], [4, 7, 6]), np.tile(np.arange(5), 2), np.ones(10))
    assert channels_of(model)[1] == [3, 10] and model.connections() == [0, 10, 6]
    assert (matrix(model, 1)[0][[3, 10]] == 1).all()
    model.set_tensor(2, "weight", np.arange(1, 7))
    report = model.mutate()
    assert len(channels_of(model)[1]) == 8 and report.grown - report.dropped == 6 * 8
    assert report.density == (8 * 5 + 8 * 3) / (16 * 5 + 16 * 3)
    assert (matrix(model, 1)[0][[3, 10]] == 1).all()
    values = matrix(model, 2)[0]
    assert (values[:, [3, 10]] == [[1, 2], [3, 4], [5, 6]]).all()
    assert (np.delete(values, [3, 10], 1) == 0).all(), "grown"


@pytest.mark.parametrize("every", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_adopted_channels_differ(every):
    """Set one after the other: each draws its rows from a stream of its own, whoever came before."""
    model = mest.Model(
        [Input(4), Linear(16, bias=False), ReLU(), Linear(3)], density=0.25, scheme="filter", seed=3,
    )  # fmt: skip
    model.set_csr(3, [0, 1, 2, 3], [9] * 3, np.ones(3))
    for count in range(1, 5):
        ids = sorted(every[:count])
        model.set_csr(3, np.arange(4) * count, np.tile(ids, 3), np.ones(3 * count))
    values, exists = matrix(model, 1)
    assert np.flatnonzero(exists.any(1)).tolist() == [0, 1, 2, 3]
    deviation = np.float32(0.1) * np.sqrt(np.float32(2) / np.float32(4))
    for c in range(4):
        random = Random(3, ADOPTED_VALUE, 1, c)
        np.testing.assert_allclose(values[c], [deviation * random.normal() for _ in range(4)], rtol=2e-6)


@pytest.mark.parametrize(
    "starts, columns, error, words",
    [
        ([0] * 9, [], mest.UnsupportedError, "row 0 .*empty"),
        ([0, 1] + [1] * 7, [0], mest.UnsupportedError, "row 0 .*lacks channels, but all exist"),
        ([0, 3, 5] + [5] * 6, [0, 1, 2, 0, 1], mest.UnsupportedError, "row 1 .*other columns"),
        (np.minimum(np.arange(9), 5) * 3, [0, 1, 2] * 5, mest.MestArgumentError, "15 connections, which need"),
    ],
)
def test_connections_that_cannot_be(starts, columns, error, words):
    layers = [Input(3), Linear(8, density=0.25, scheme="filter"), Linear(2, density=1.0)]
    model = mest.Model(layers)
    before = fingerprint(model)
    with pytest.raises(error, match=words):
        model.set_csr(1, starts, np.array(columns, int), np.ones(len(columns)))
    assert fingerprint(model) == before


def test_parts_of_channels_cannot_be():
    """Of 3 x 3 kernels behind FLATTEN, and of a layer that reads what it makes."""
    layers = [Input(2, 3, 3), Conv2d(6, 1), Flatten(), Linear(2)]
    model = mest.Model(layers, density=0.25, scheme="filter")
    before = fingerprint(model)
    with pytest.raises(mest.UnsupportedError, match="a part of a channel"):
        model.set_csr(3, [0, 8, 16], np.tile(np.arange(8), 2), np.ones(16))
    with pytest.raises(mest.UnsupportedError, match="a part of a channel"):
        model.set_csr(3, [0, 9, 18], np.tile(np.arange(9) + 1, 2), np.ones(18))
    with pytest.raises(mest.UnsupportedError, match="lacks channels, but all exist"):
        model.set_csr(3, [0, 36, 36], np.arange(36), np.ones(36))
    assert fingerprint(model) == before
    model.set_csr(3, [0, 9, 18], np.tile(np.arange(9) + 9, 2), np.ones(18))
    assert channels_of(model)[1] == [1]
    model = mest.Model([Input(3), Linear(8), Linear(8), Linear(2)], density=0.25, scheme="filter")
    with pytest.raises(mest.MestArgumentError, match="layer 2 .*8 input channels, there is room for 4"):
        model.set_csr(2, np.minimum(np.arange(9), 1) * 8, np.arange(8), np.ones(8))


@pytest.mark.parametrize("wide", [1, 4])
def test_one_group_on_both_sides(wide):
    """A layer that reads what it makes has as inputs the channels that are its outputs, and no others."""
    own = [Input(3), Linear(6), Linear(6, name="own"), Add(with_=1), Linear(2)]
    if wide == 4:
        head = [Input(3, 2, 2), Conv2d(6, 1, name="all"), GlobalAvgPool(name="mean"), Flatten(from_="all")]
        own = [*head, Linear(6, name="own"), Add(with_="mean"), Linear(2)]
    model = mest.Model(own, density=0.25, scheme="filter")
    index = own.index(next(layer for layer in own if layer.name == "own"))
    assert model.plan().layers[index].columns == 6 * wide
    some = [list(ids) for count in (1, 2, 3) for ids in itertools.combinations(range(6), count)]
    for rows in some:
        starts = np.append(0, np.cumsum(np.isin(np.arange(6), rows))) * wide
        for inputs in some:
            columns = np.tile(features(inputs, 6 * wide, 6), len(rows))
            one = (index, starts * len(inputs), columns, np.ones(len(columns)))
            if rows == inputs:
                model.set_csr(*one)
                assert channels_of(model)[1] == rows
                continue
            lone = min(set(rows) ^ set(inputs))
            with pytest.raises(mest.UnsupportedError, match=f"row {lone} .*and its column are one channel"):
                model.set_csr(*one)


@pytest.mark.parametrize("index, wide", [(3, 4), (2, 9)])
def test_channels_from_parts_of_several_cannot_be(index, wide):
    """Columns that ascend and lie as those of a channel do, but are of two. Behind FLATTEN; 3 x 3 kernels."""
    layers = [Input(2, 2, 2), Conv2d(6, 1), Flatten(), Linear(2, density=1)]
    if wide == 9:
        layers.insert(2, Conv2d(2, 3, padding=1, density=1))
    model = mest.Model(layers, density=0.25, scheme="filter")
    assert model.plan().layers[index].columns == 6 * wide
    before = fingerprint(model)
    whole = np.arange(wide)
    jumps = whole + wide * (whole >= wide // 2)
    sets = [jumps, np.append(whole, whole + 2 * wide + wide * (whole == wide - 1)), np.append(jumps, whole + 3 * wide)]
    for columns in sets:
        starts = np.arange(3) * len(columns)
        with pytest.raises(mest.UnsupportedError, match=f"layer {index} .*row 0 .*has a part of a channel"):
            model.set_csr(index, starts, np.tile(columns, 2), np.ones(2 * len(columns)))
        assert fingerprint(model) == before
    columns = np.append(whole + wide, whole + 4 * wide)
    model.set_csr(index, np.arange(3) * len(columns), np.tile(columns, 2), np.arange(2 * len(columns)))
    assert model.csr(index).indices.reshape(2, -1).tolist() == [columns.tolist()] * 2


def test_what_is_refused():
    with pytest.raises(ValueError, match="layer 1 .linear1.: scheme FILTER asks for fewer outputs, but these"):
        mest.plan([Input(4), Linear(3)], density=0.5, scheme="filter")
    with pytest.raises(ValueError, match="layer 1 .*CHANNEL asks for fewer inputs, but these .* and no layer asks for fewer outputs; set"):
        mest.plan([Input(4), Linear(8, density=0.5, scheme="channel"), Linear(3, density=1.0)])
    with pytest.raises(ValueError, match="layer 4 .conv4.: density is 0.5, but layer 1 .first., which shares"):
        mest.plan(residual(density=0.25), density=0.5, scheme="filter")
    with pytest.raises(mest.UnsupportedError, match="layer 2 .*UNSTRUCTURED beside layer 1 .*which drops channels"):
        mest.plan([Input(4), Linear(8, density=0.5, scheme="filter"), Linear(3, density=0.5)])
    with pytest.raises(mest.UnsupportedError, match="layer 1 .*BLOCK4 beside layer 2"):
        mest.plan([Input(4), Linear(8, scheme="block4"), Linear(3, scheme="channel")], density=0.5)
    # Pixels of one operand, channels of the other.
    mixed = [Input(3, 2, 2), Conv2d(4, 1, name="c"), Flatten(), Linear(16), Add(with_=2), Linear(3)]
    with pytest.raises(ValueError, match="layer 1 .*FILTER asks for fewer outputs, but these"):
        mest.plan(mixed, density=0.5, scheme="filter")
    with pytest.raises(ValueError, match="scheme is set, but the layer is dense"):
        mest.plan([Input(4), Linear(8, scheme="filter"), Linear(3)])


def test_only_the_other_side():
    """Inputs and classes are complete: a layer that asks for them gets the rest."""
    plan = mest.plan([Input(9), Linear(16), Linear(16), Linear(5)], density=0.25, scheme="channel")
    assert [layer.alive for layer in plan.layers] == [9, 8, 8, 5]
    assert [layer.scheme for layer in plan.layers] == [None, "channel", "channel", "channel"]


@pytest.mark.parametrize("scheme", ["filter", "channel"])
def test_densities_that_differ(scheme):
    """Erdos-Renyi-Kernel: a layer's weights are what the two that ask for its channels leave, not its own share."""
    layers = [Input(9), Linear(64), Linear(48), Linear(20), Linear(10)]
    config = dict(density=0.2, distribution="erk")
    asked = [layer.density for layer in mest.plan(layers, **config).layers]
    found = mest.plan(layers, scheme=scheme, **config).layers
    assert [layer.scheme for layer in found[1:]] == [scheme] * 4
    assert found[0].alive == 9 and found[4].alive == 10
    for i in (1, 2, 3):
        share = asked[i if scheme == "filter" else i + 1]
        assert found[i].alive == pytest.approx(math.sqrt(share) * found[i].channels, abs=0.6)
    for i in (1, 2, 3, 4):
        assert found[i].active == found[i - 1].alive * found[i].alive
    total = sum(layer.active for layer in found) / sum(layer.rows * layer.columns for layer in found)
    assert total > 0.25


def test_one_group_of_channels_has_one_density():
    layers = [Input(8, 4, 4), Conv2d(16, 3, padding=1), Conv2d(16, 1), Add(1, 2), GlobalAvgPool(), Linear(3)]
    with pytest.raises(mest.MestArgumentError, match="which shares channels with it, has .*; use UNIFORM"):
        mest.plan(layers, scheme="filter", density=0.2, distribution="erk")
    layers[2] = Conv2d(16, 1, density=0.3)
    with pytest.raises(mest.MestArgumentError, match="has 0.2; give both the same"):
        mest.plan(layers, scheme="filter", density=0.2)


@pytest.mark.parametrize("density, channels", [(1e-6, 1), (0.01, 1), (0.25, 4), (0.9999, 8)])
def test_never_no_channel(density, channels):
    layers = [Input(5, 4, 4), Conv2d(8, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Linear(3)]
    for mode in ("vanilla", "em", "em&s"):
        for compat in (False, True):
            model = mest.Model(
                layers, density=density, scheme="filter", batch=2, method=mode, mutation_rate=0.9, epochs=8,
                mutation_every=1, round_compat=compat,
            )  # fmt: skip
            for _ in range(8):
                model.begin_epoch()
                assert 1 <= len(channels_of(model)[1]) <= 8
            if not compat:
                assert len(channels_of(model)[1]) == channels


def test_inference_only():
    config = dict(density=0.25, scheme="filter", batch=4, activations="bfloat16")
    model = mest.Model(residual(), **config)
    lean = mest.Model(residual(), inference_only=True, seed=5, **config)
    for index, part in enumerate(model.plan().layers):
        if part.rows:
            lean.set_csr(index, model.csr(index))
        for what in PARAMETERS:
            if has(model, index, what):
                lean.set_tensor(index, what, model.tensor(index, what))
    x = np.random.default_rng(1).normal(size=(9, 3, 6, 5)).astype(np.float32)
    assert lean.predict(x).tobytes() == model.predict(x).tobytes()


def test_shown():
    text = str(mest.plan(residual(), density=0.25, scheme="filter", batch=4))
    assert re.search(r"first +4/8x6x5 +8x27 +0.5 +filter +108 ", text)
    assert "n/m: n of m channels exist" in text
    assert re.search(r"flatten10 +120/240 ", text)
