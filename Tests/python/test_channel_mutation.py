# SPDX-License-Identifier: Apache-2.0
"""Mutation of whole channels against its definition, random numbers included, on random networks, whose seeds the
failures name."""

import numpy as np
import pytest
import reference
from moves import Channels, amount, initial
from randoms import GROWN_VALUE, GROWTH, TOPOLOGY, Random, floyd
from support import PARAMETERS, fingerprint, has
from test_graphs import data_of
from thin import channels_of, depthwise, features, groups_of, is_matrix, matrix, shapes_of, thin_graph

import mest


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
