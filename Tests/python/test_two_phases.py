# SPDX-License-Identifier: Apache-2.0
"""Two-phase training: samples that are never forgotten leave, and what stays as it was."""

import numpy as np
import pytest

import mest
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
        (dict(remove_rule="number", remove_number=40), True, "every sample"),
        (dict(remove_rule="number", remove_number=2**32 - 1), True, "every sample"),
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
