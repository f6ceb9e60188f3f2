# SPDX-License-Identifier: Apache-2.0
"""Two-phase training: samples that are never forgotten leave, and what stays as it was."""

import dataclasses

import numpy as np
import pytest

import mest
import reference as mest_reference
from mest import Input, Linear


def two_phase(**config):
    layers = [Input(4), Linear(3, density=1.0)]
    return mest.Model(layers, batch=8, samples=40, epochs=6, phase1_epochs=3, **config)


def run_epoch(model, x, y):
    begun, ids = model.begin_epoch(), model.select()
    for i in range(0, len(ids), 8):
        model.step(x[ids[i : i + 8]], y[ids[i : i + 8]], ids[i : i + 8])
    return begun, ids


@pytest.mark.parametrize(
    "rule",
    [
        {"remove_rule": "number", "remove_number": 13},
        {"remove_rule": "number", "remove_number": 13, "keep_lowest": 5},
        {"remove_rule": "fraction", "remove_fraction": 0.25},
        {"remove_rule": "count", "remove_count": 0},
    ],
)
def test_two_phases(rule):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    model = two_phase(learning_rate=1.0, **rule)
    for _ in range(3):
        begun, ids = run_epoch(model, x, y)
        assert (begun.samples, begun.steps, begun.removed, len(ids)) == (40, 5, False, 40)
    rule = dict(rule)
    expected = model.select(rule.pop("remove_rule"), **rule)
    assert 0 < len(expected) < 40
    for epoch in range(3, 6):
        begun, ids = run_epoch(model, x, y)
        assert begun.removed == (epoch == 3) and begun.samples == len(expected)
        assert ids.tolist() == expected.tolist() and begun.steps == -(-len(expected) // 8)
        report = model.forgetting()
        assert (report.phase, report.training) == (2, len(expected))


def test_fit_leaves_removed_samples_out():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    model = two_phase(remove_rule="number", remove_number=10)
    history = model.fit(x, y, progress=False)
    assert history.column("samples").tolist() == [40] * 3 + [30] * 3


def answers(model, correct):
    """One epoch of answers that are all correct, or all wrong: no weight moves, labels do."""
    x = np.ones((40, 4), np.float32)
    said = int(np.argmax(model.predict(x[:1])))
    labels = np.full(40, said if correct else (said + 1) % 3)
    for i in range(0, 40, 8):
        model.step(x[i : i + 8], labels[i : i + 8], range(i, i + 8))


@pytest.mark.parametrize(
    "rule, counted, words",
    [
        (dict(remove_rule="number", remove_number=13), False, "ids"),
        (dict(remove_rule="count", remove_count=0), True, "no sample"),
        (dict(remove_rule="count", remove_count=1), True, "every sample"),
        (dict(remove_rule="number", remove_number=5, keep_lowest=40), True, "no sample"),
        (dict(remove_rule="fraction", remove_fraction=0.001), True, "no sample"),
    ],
)
@pytest.mark.parametrize("who_begins", ["caller", "step"])
def test_phase_1_goes_on(rule, counted, words, who_begins):
    """Nothing to go by, nobody to take, or nobody to stay: a warning, and no phase 2."""
    lines, events = [], []
    layers = [Input(4), Linear(3, density=1.0)]
    model = mest.Model(
        layers, batch=8, samples=40, epochs=6, phase1_epochs=3, learning_rate=0.0, **rule,
        on_log=lambda level, line: lines.append((level, line)),
    )  # fmt: skip
    for epoch in range(5):
        if who_begins == "caller":
            begun = model.begin_epoch()
            events.append(begun.removed)
            assert (begun.samples, begun.steps) == (40, 5)
        if counted:
            answers(model, correct=epoch == 0)  # every sample is forgotten once
        else:
            x = np.ones((8, 4), np.float32)
            events += [model.step(x, np.zeros(8, int)).removed for _ in range(5)]
    warnings = [line for level, line in lines if level == "warning"]
    assert len(warnings) == 1 and words in warnings[0] and not any(events)
    report = model.forgetting()
    assert (report.phase, report.training) == (1, 40)
    assert report.events == (40 if counted else 0) and len(model.select()) == 40


@pytest.mark.parametrize("given, later", [(None, 4), (5, 5), (7, 7), (2, 2)])
def test_counts_and_epochs_in_phase_2(given, later):
    """Counting starts anew.  Epochs get shorter, unless their length was given, be it the same."""
    model = two_phase(
        remove_rule="number", remove_number=10, learning_rate=0.0, steps_per_epoch=given
    )
    for epoch in range(3):
        assert model.begin_epoch().steps == (given or 5)
        answers(model, correct=epoch % 2 == 0)  # forgotten in epoch 1
    assert model.forgetting().events == 40
    begun = model.begin_epoch()
    assert (begun.removed, begun.samples, begun.steps) == (True, 30, later)
    report = model.forgetting()
    assert (report.phase, report.events, report.events_epoch, report.seen) == (2, 0, 0, 0)
    assert not report.counts.any()
    answers(model, correct=True)
    assert model.forgetting().events == 0
    answers(model, correct=False)
    assert (model.forgetting().events, model.forgetting().events_epoch) == (40, 40)
    assert model.begin_epoch().steps == later
    assert (model.forgetting().events, model.forgetting().events_epoch) == (40, 0)


# ------------------------------------------------------------------- order, margins, cap, savings ---


def remembering(samples=60, classes=3, seed=0, **config):
    """A model of one linear layer that is presented random answers, and what was presented:
    x (t, samples, classes) are its outputs, y (samples,) the labels."""
    rng = np.random.default_rng(seed)
    model = mest.Model(
        [Input(classes), Linear(classes, bias=False)],
        batch=samples, samples=samples, learning_rate=0.0, weight_decay=0.0, seed=seed, **config,
    )  # fmt: skip
    model.set_tensor(1, "weight", np.eye(classes, dtype=np.float32))
    x = rng.normal(size=(rng.integers(1, 6), samples, classes)).astype(np.float32)
    y = rng.integers(0, classes, samples)
    for part in x:
        model.step(part, y, np.arange(samples))
    return model, x, y


def counts_and_margins(x, y):
    right = np.take_along_axis(x, y[None, :, None], 2)[..., 0]
    others = np.where(np.arange(x.shape[2]) == y[:, None], -np.inf, x).max(2)
    counts = mest_reference.forgetting(x.argmax(2) == y)
    return counts.astype(int), (right - others).mean(0)


@pytest.mark.parametrize("seed", range(30))
def test_order_is_by_count_then_margin(seed):
    model, x, y = remembering(seed=seed, margins=True)
    counts, margins = counts_and_margins(x, y)
    order = model.order()
    assert sorted(order) == list(range(60)), f"seed {seed}"
    for a, b in zip(order, order[1:]):  # 16 significant bits of the margin are looked at
        assert (counts[a], -margins[a]) <= (counts[b], -margins[b] + 1e-4), f"seed {seed}"
    for number in (0, 1, 17, 59, 60):
        kept = model.select("number", remove_number=number)
        assert kept.tolist() == sorted(order[number:]), f"seed {seed}"
    assert model.forgetting().presentations == 60 * len(x)


def test_samples_not_seen_leave_last():
    """A sample that was not presented may be hard: with margins it stays longer than any other."""
    for margins in (False, True):
        model = mest.Model([Input(3), Linear(3)], batch=8, samples=40, margins=margins)
        for _ in range(2):
            x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
            model.step(x, (model.predict(x).argmax(1) + 1) % 3, np.arange(8))  # all wrong
        order = model.order().tolist()
        if margins:
            assert sorted(order[:8]) == list(range(8))
        else:
            assert sorted(order[:8]) != list(range(8))  # one bucket, in an order of the seed


def test_equals_leave_in_an_order_of_the_seed():
    orders = []
    for seed in range(4):
        model = mest.Model([Input(2), Linear(2)], batch=8, samples=500, seed=seed)
        assert sorted(model.order()) == list(range(500))
        orders.append(model.order().tolist())
    assert len({tuple(order) for order in orders}) == 4 and sorted(orders[0]) not in orders
    again = mest.Model([Input(2), Linear(2)], batch=8, samples=500, seed=0)
    assert again.order().tolist() == orders[0]


def greedy(order, y, n, cap, first=0):
    """Who leaves, one by one: reference for the cap."""
    room = {c: int(np.floor(cap * np.sum(y == c) + 1e-9)) for c in set(y)}
    gone = []
    for i in order[first:]:
        if len(gone) < n and room[y[i]] > 0:
            room[y[i]] -= 1
            gone.append(i)
    return gone


@pytest.mark.parametrize("seed", range(30))
def test_no_class_gives_more_than_its_share(seed):
    rng = np.random.default_rng(seed)
    cap = float(np.float32(rng.choice([0.1, 0.25, 0.5, 0.9])))
    model, x, y = remembering(seed=seed, margins=bool(seed % 2), remove_class_cap=cap)
    order, counts = model.order(), counts_and_margins(x, y)[0]
    keep = int(rng.integers(0, 60))
    for n in (0, 1, 7, 30, 60):
        gone = greedy(order, y, n, cap, keep)
        kept = model.select("number", remove_number=n, keep_lowest=keep)
        assert kept.tolist() == sorted(set(range(60)) - set(gone)), f"seed {seed} n {n}"
    few = [i for i in greedy(order, y, 60, cap) if counts[i] <= 1]
    kept = model.select("count", remove_count=1)
    assert kept.tolist() == sorted(set(range(60)) - set(few)), f"seed {seed}"


def test_a_sample_of_unknown_class_stays():
    model = mest.Model([Input(3), Linear(3)], batch=8, samples=20, remove_class_cap=0.5)
    model.step(np.ones((8, 3), np.float32), np.zeros(8, int), np.arange(8))
    kept = model.select("number", remove_number=20)
    assert len(kept) == 16 and set(range(8, 20)) <= set(kept)


def test_an_order_of_an_earlier_run():
    first, _, _ = remembering(seed=3, margins=True)
    order = first.order()
    second, _, _ = remembering(seed=4, given_order=True)
    own = second.order()
    second.set_order(order)
    assert second.order().tolist() == order.tolist()
    assert second.select("number", remove_number=20).tolist() == sorted(order[20:])
    with pytest.raises(mest.MestError, match="COUNT"):
        second.select("count", remove_count=1)
    second.set_order(order[:5])  # who is not named leaves last
    assert second.order()[:5].tolist() == order[:5].tolist()
    for wrong in ([1, 2, 1], [60], np.array([3, 60], np.uint32)):
        with pytest.raises(ValueError):
            second.set_order(wrong)
        assert second.order()[:5].tolist() == order[:5].tolist()
    second.set_order(None)
    assert second.order().tolist() == own.tolist()
    with pytest.raises(mest.StateError, match="no room for an order: set given_order=True"):
        first.set_order(order)


def test_two_phases_by_a_given_order():
    """Nothing needs to be counted; rule "count" is refused."""
    settings = dict(batch=8, samples=40, epochs=6, phase1_epochs=2, given_order=True)
    layers = [Input(4), Linear(3)]
    model = mest.Model(layers, remove_rule="number", remove_number=15, **settings)
    order = np.random.default_rng(0).permutation(40)
    model.set_order(order)
    samples = [model.begin_epoch().samples for _ in range(6)]
    assert samples == [40, 40, 25, 25, 25, 25]
    assert model.select().tolist() == sorted(order[15:])
    assert model.forgetting().presentations_saved == 4 * 15
    counted = mest.Model(layers, remove_rule="count", **settings)
    with pytest.raises(mest.MestError, match="COUNT"):
        counted.set_order(order)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("given", [False, True])
def test_an_order_taken_after_samples_have_left(tmp_path, seed, given):
    """Who has left comes first and leaves again, also when fewer do; the counts of the others go on."""
    rng = np.random.default_rng(seed)
    number, x = int(rng.integers(1, 60)), rng.normal(size=(6, 60, 3)).astype(np.float32)
    y = rng.integers(0, 3, 60)
    settings = dict(
        batch=60, samples=60, epochs=6, phase1_epochs=3, learning_rate=0.0, weight_decay=0.0, seed=seed,
        remove_rule="number", margins=bool(seed % 2),
    )  # fmt: skip
    layers = [Input(3), Linear(3, bias=False)]
    model = mest.Model(layers, remove_number=number, given_order=given, **settings)
    model.set_tensor(1, "weight", np.eye(3, dtype=np.float32))
    if given:
        model.set_order(rng.permutation(60))
    for epoch in range(6):
        before = model.order()  # of phase 1, in epoch 3
        model.begin_epoch()
        ids = model.select()
        if epoch == 3:
            gone = before[:number].tolist()
        assert sorted(model.order()) == list(range(60)), f"seed {seed} epoch {epoch}"
        model.step(x[epoch, ids], y[ids], ids)
    np.save(tmp_path / "order.npy", model.order())
    order = np.load(tmp_path / "order.npy")
    assert order[:number].tolist() == gone, f"seed {seed}"
    assert order[number:].tolist() == [i for i in model.order() if i in set(model.select())]
    if not given:
        counts = model.forgetting().counts[order[number:]]
        assert not np.any(np.diff(counts.astype(int)) < 0) and not model.forgetting().counts[gone].any()
    for fewer in {number, max(1, number // 2)}:
        later = mest.Model(layers, remove_number=fewer, given_order=True, **settings)
        later.set_order(order)
        for _ in range(4):
            later.begin_epoch()
        assert later.select().tolist() == sorted(order[fewer:]), f"seed {seed}"


def test_an_order_by_file_after_fit(tmp_path):
    """Of a whole two-phase training: those that left leave in the next one, and nobody else."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    first = two_phase(remove_rule="number", remove_number=15)
    first.fit(x, y, progress=False)
    np.save(tmp_path / "order.npy", first.order())
    second = two_phase(remove_rule="number", remove_number=15, given_order=True, seed=7)
    second.set_order(np.load(tmp_path / "order.npy"))
    second.fit(x, y, progress=False)
    assert second.select().tolist() == first.select().tolist()


def test_savings():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    model = two_phase(remove_rule="number", remove_number=10)
    history = model.fit(x, y, progress=False)
    saved, report = history.savings(), model.forgetting()
    assert (saved.samples, saved.presentations) == (10, 30)
    assert (report.presentations, report.presentations_saved) == (3 * 40 + 3 * 30, 30)
    late = history.column("seconds")[3:].sum()
    assert saved.seconds == pytest.approx(late / 3)
    assert "30 presentations" in str(saved)
    assert mest.History().savings().presentations == 0


def test_savings_of_an_epoch_without_samples():
    """Nothing was presented, so nothing tells how long the others would have taken."""
    empty = mest.EpochRecord(**{**dict.fromkeys(mest.EpochRecord.__dataclass_fields__, 0), "absent": 3, "seconds": 2.0})
    whole = dataclasses.replace(empty, absent=1, samples=2)
    assert mest.History([empty, whole]).savings() == mest.Savings(samples=3, presentations=4, seconds=1.0)


def test_memory_of_margins_cap_and_order():
    """What the header says: 6, 2 and 4 bytes a sample, 16 a class."""
    layers = [Input(4), Linear(4)]
    plain = mest.plan(layers, samples=6400).forgetting_bytes
    for extra, more in (
        (dict(margins=True), 6 * 6400),
        (dict(given_order=True), 4 * 6400),
        (dict(remove_class_cap=0.5), 2 * 6400 + 64),
    ):
        assert mest.plan(layers, samples=6400, **extra).forgetting_bytes == plain + more
