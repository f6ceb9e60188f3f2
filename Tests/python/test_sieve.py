# SPDX-License-Identifier: Apache-2.0
"""Circular sieving: who is in the training set, against a plain Python model of it; random cases by seed."""

import numpy as np
import pytest
from randoms import Random

import mest
from mest import Input, Linear

CLASSES = 3
F32 = np.float32


def tie(seed, i, sievings):
    """The seeded permutation of the ids: Forgetting/SampleOrder.swift."""
    x = i ^ Random(seed, 5, 0, sievings).state & 0xFFFFFFFF
    x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16


class Sieve:
    """The definition, one sample at a time."""

    def __init__(self, samples, seed, absent, every, share, keep=0, margins=False, order=None):
        self.n, self.every, self.share, self.keep, self.margins = samples, every, share, keep, margins
        self.absent = int(np.floor(round(absent * 1e6) * samples / 1e6 + 0.5))
        self.rank = None if order is None else {int(i): rank for rank, i in enumerate(order)}
        self.out = []  # first out first
        self.seed, self.sievings = seed, -1
        self.begin_counting()

    def begin_counting(self):
        self.sievings += 1
        self.ties = [tie(self.seed, i, self.sievings) for i in range(self.n)]
        self.count, self.last, self.learned, self.seen = ([0] * self.n for _ in range(4))
        self.margin = [[] for _ in range(self.n)]

    def answer(self, i, right, margin):
        self.count[i] += bool(self.last[i] and not right)
        self.last[i], self.seen[i] = right, 1
        self.learned[i] |= right
        self.margin[i].append(F32(margin))

    def key(self, i):
        if self.rank is not None:
            return self.rank.get(i, self.n), 0, self.ties[i]
        mean = 0
        if self.margins:
            total = F32(0)
            for margin in self.margin[i]:
                total = F32(total + margin)
            # 24 bits of it, falling; not seen comes last.
            mean = 0xFFFFFF
            if self.margin[i]:
                bits = int(F32(total / F32(len(self.margin[i]))).view(np.uint32))
                mean = (~(bits ^ (0xFFFFFFFF if bits >> 31 else 0x80000000)) & 0xFFFFFFFF) >> 8
        return self.count[i] if self.learned[i] else 255, mean, self.ties[i]

    def inside(self):
        return [i for i in range(self.n) if i not in set(self.out)]

    def begin_epoch(self, epoch):
        """(left, returned)"""
        if epoch % self.every:
            return 0, 0
        first = not self.out
        if not first and not any(self.learned) and self.rank is None:
            return 0, 0
        inside = self.inside()
        wanted = int(np.floor(round(self.share * 1e6) * len(inside) / 1e6 + 0.5))
        number = self.absent if first else min(len(self.out), wanted)
        leaving = sorted(inside, key=self.key)[self.keep :][:number]
        back = 0 if first else len(leaving)
        self.out = self.out[back:] + leaving
        self.begin_counting()
        return len(leaving), back


def run(seed, **more):
    """A random training against the definition, epoch by epoch; the library's model at the end."""
    rng = np.random.default_rng(seed)
    samples = int(rng.integers(2, 90))
    absent = float(F32(rng.choice([0.1, 0.25, 0.5, 0.9])))
    if not 0 < np.floor(absent * samples + 0.5) < samples:
        absent = 0.5
    every, share = int(rng.integers(1, 4)), float(F32(rng.choice([0.05, 0.1, 0.3, 0.9])))
    margins, keep = bool(rng.integers(2)), int(rng.choice([0, 0, 1, 5]))
    order = rng.permutation(samples)[: int(rng.integers(1, samples + 1))] if rng.integers(4) == 0 else None
    model = mest.Model(
        [Input(CLASSES), Linear(CLASSES, bias=False)], batch=16, samples=samples, seed=seed, learning_rate=0.0,
        weight_decay=0.0, sieve_absent=absent, sieve_every=every, sieve_share=share, keep_lowest=keep,
        margins=margins, given_order=order is not None, **more,
    )  # fmt: skip
    model.set_tensor(1, "weight", np.eye(CLASSES, dtype=F32))
    if order is not None:
        model.set_order(order)
    known = Sieve(samples, seed, absent, every, share, keep, margins, order)
    labels, saved = rng.integers(0, CLASSES, samples), 0
    luck = float(rng.choice([0.0, 0.5, 2.0]))  # how easy samples are
    for epoch in range(12):
        where = f"seed {seed}, epoch {epoch}"
        begun, expected = model.begin_epoch(), known.begin_epoch(epoch)
        inside = known.inside()
        assert (begun.left, begun.returned) == expected, where
        assert begun.sieved == (expected[0] > 0) and not begun.removed, where
        assert model.select().tolist() == inside, where
        assert (begun.samples, begun.steps) == (len(inside), -(-len(inside) // 16)), where
        saved += samples - len(inside)
        report = model.forgetting()
        assert (report.training, report.presentations_saved, report.phase) == (len(inside), saved, 1), where
        assert report.events == sum(known.count) and report.seen == sum(known.seen), where
        presented = rng.permutation(inside)[: int(rng.integers(0, len(inside) + 1))] if epoch == 5 else inside
        x = rng.normal(size=(samples, CLASSES)).astype(F32)
        x[np.arange(samples), labels] += F32(luck)
        if epoch == 7:
            x[np.arange(samples), labels] = -9  # nobody knows anything any more
        for i in range(0, len(presented), 16):
            rows = np.asarray(presented[i : i + 16])
            model.step(x[rows], labels[rows], rows)
            for j in rows:
                right = x[j, labels[j]]
                others = np.delete(x[j], labels[j]).max()
                known.answer(j, int(x[j].argmax() == labels[j]), right - others)
        assert model.order().tolist() == known.out + sorted(inside, key=known.key), where
        counted = model.forgetting().counts
        for i in range(samples):
            assert counted[i] == (255 if known.seen[i] and not known.learned[i] else known.count[i]), where
    return model


@pytest.mark.parametrize("part", range(10))
def test_against_the_definition(part):
    for seed in range(part, 200, 10):
        run(seed).close()


def test_everybody_takes_a_turn():
    """Circular: of samples that are all as easy, all have been out and come back in the end."""
    model = mest.Model(
        [Input(2), Linear(2)], batch=40, samples=40, sieve_absent=0.25, sieve_every=1, sieve_share=0.2,
        learning_rate=0.0, weight_decay=0.0,
    )  # fmt: skip
    out, seen_out = [], set()
    for epoch in range(40):
        model.begin_epoch()
        inside = model.select()
        out.append(set(range(40)) - set(inside.tolist()))
        seen_out |= out[-1]
        x = np.ones((len(inside), 2), F32)
        model.step(x, model.predict(x).argmax(1), inside)
    assert all(len(o) == 10 for o in out) and seen_out == set(range(40))
    assert model.forgetting().presentations_saved == 400


def test_an_order_taken_while_samples_are_out():
    """It names all; who is out leaves first in the next run, and the order is the queue's: who comes back first."""
    settings = dict(batch=8, samples=40, sieve_absent=0.5, sieve_every=1, sieve_share=0.2, learning_rate=0.0)
    first = mest.Model([Input(2), Linear(2)], **settings)
    for _ in range(5):
        first.begin_epoch()
        ids = first.select()
        for i in range(0, len(ids), 8):
            x = np.ones((len(ids[i : i + 8]), 2), F32)
            first.step(x, first.predict(x).argmax(1), ids[i : i + 8])
    order, inside = first.order(), set(first.select().tolist())
    assert sorted(order) == list(range(40)) and not inside & set(order[:20].tolist())
    first.begin_epoch()  # a fifth of those inside
    assert set(first.select()) - inside == set(order[:4].tolist())
    second = mest.Model([Input(2), Linear(2)], given_order=True, **settings)
    second.set_order(order)
    second.begin_epoch()
    assert set(second.select()) == inside


def test_the_first_part_is_random():
    """Another one for every seed, and not the first ids."""
    first = set()
    for seed in range(5):
        model = mest.Model([Input(2), Linear(2)], batch=8, samples=40, sieve_absent=0.5, seed=seed)
        model.begin_epoch()
        first.add(tuple(model.select()))
    assert len(first) == 5 and tuple(range(20)) not in first


def test_steps_that_begin_epochs():
    """The same without begin_epoch; seen in the step's events."""
    a, b = (
        mest.Model([Input(2), Linear(2)], batch=8, samples=16, sieve_absent=0.5, sieve_every=2, sieve_share=0.5)
        for _ in range(2)
    )
    x, y = np.ones((8, 2), F32), np.zeros(8, int)
    for epoch in range(6):
        begun = a.begin_epoch()
        ids = a.select()
        report = b.step(x, y, ids)  # one step is an epoch
        a.step(x, y, ids)
        assert report.sieved == begun.sieved == (epoch % 2 == 0 and begun.left > 0)
        assert (b.select() == ids).all()
    assert a.forgetting().presentations_saved == b.forgetting().presentations_saved == 48


def test_nothing_counted():
    lines = []
    model = mest.Model(
        [Input(2), Linear(2)], batch=8, samples=16, sieve_absent=0.5, sieve_every=1,
        on_log=lambda level, line: lines.append((level, line)),
    )  # fmt: skip
    for epoch in range(3):
        begun = model.begin_epoch()
        assert (begun.left, begun.returned, begun.sieved, begun.samples) == (8 * (epoch == 0), 0, epoch == 0, 8)
        model.step(np.ones((8, 2), F32), np.zeros(8, int))
    warnings = [line for level, line in lines if level == "warning"]
    assert len(warnings) == 2 and "ids" in warnings[0]


def test_memory():
    """4 bytes for each that is out, and a bit a sample."""
    layers = [Input(4), Linear(4)]
    plain = mest.plan(layers, samples=6400).forgetting_bytes
    for absent in (0.25, 0.5):
        more = mest.plan(layers, samples=6400, sieve_absent=absent).forgetting_bytes
        assert more == plain + 6400 * absent * 4 + 832  # 800 bytes of bits, on 64
    assert mest.plan(layers, samples=6400, remove_rule="count", phase1_epochs=2).forgetting_bytes == plain + 832


def test_fit_tells():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(F32), rng.integers(0, 3, 40)
    model = mest.Model(
        [Input(4), Linear(3)], batch=8, samples=40, epochs=6, sieve_absent=0.25, sieve_every=2, sieve_share=0.1
    )
    history = model.fit(x, y, progress=False)
    assert history.column("samples").tolist() == [30] * 6
    assert history.column("removed").tolist() == [10, 0, 3, 0, 3, 0]
    assert history.column("returned").tolist() == [0, 0, 3, 0, 3, 0]
    assert "3 came back" in str(history[2]) and "came back" not in str(history[0])
    report = model.forgetting()
    assert f"since the last sieving: {report.seen} of {report.training} samples seen" in str(report)
    assert history.savings().presentations == 60


def test_freezing_and_sieving_keep_the_accuracy():
    """Digits, EM&S at 80 %: with both, a quarter of the samples out, accuracy stays within two points."""
    from mest.datasets import digits

    data = digits()
    reached, presented = {}, {}
    for name, more in (
        ("neither", {}),
        ("both", dict(freeze_share=0.5, sieve_absent=0.25, sieve_every=3, sieve_share=0.2)),
    ):
        found = []
        for seed in range(2):
            model = mest.Model(
                mest.mlp((1, 8, 8), [96, 64], 10), batch=32, epochs=20, samples=len(data.x_train), density=0.2,
                method="em&s", mutation_every=2, learning_rate=0.1, momentum=0.9, schedule="cosine", seed=seed, **more,
            )  # fmt: skip
            history = model.fit(data.x_train, data.y_train, progress=False)
            found.append(model.evaluate(data.x_test, data.y_test).accuracy)
        reached[name], presented[name] = np.mean(found), model.forgetting().presentations
        assert (history[-1].frozen > 0) == (name == "both")
    print(reached, presented)
    assert reached["neither"] > 0.93 and reached["both"] > reached["neither"] - 0.02, reached
    assert presented["both"] < 0.76 * presented["neither"]
