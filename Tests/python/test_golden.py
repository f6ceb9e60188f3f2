# SPDX-License-Identifier: Apache-2.0
"""The golden checks of the algorithm specification that can be seen through the API.

G1 drop and growth by hand, G5 and G6 counts and densities over 160 epochs, G7 forgetting, G8
learning rates, G10 the optimizer.  (G1's growth ranks need the random stream: they are tested in
Swift.  G13, properties: test_mutation.py.)
"""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dense_weight, positions

import mest
from mest import Input, Linear

# ----------------------------------------------------------------------------------------- G1 ---

START = ([0, 2, 4, 6], [0, 2, 1, 3, 0, 2], [0.5, -0.1, 0.3, -0.7, 0.05, 0.2], [1, 2, 3, 4, 5, 6])


def small(**config):
    """3 x 4 weights, 4 of 12 at the target and 6 at most: drop to sparsity 2/3, grow to 1/2."""
    layers = [Input(4), Linear(3, density=1 / 3, bias=False)]
    model = mest.Model(
        layers, batch=4, loss="mse", epochs=160, method="em&s", mutation_extra=1 / 6,
        learning_rate=0.0, momentum=config.pop("momentum", 0.0), weight_decay=0.0, **config,
    )  # fmt: skip
    model.begin_epoch()  # epoch 0 mutates by itself: what is set afterwards stays until mutate()
    model.set_csr(1, *START)
    return model


def give_gradient(model, gradient):
    """A step whose weight gradient is `gradient` (rows, columns): one sample for each input, and
    targets that are off by just as much as wanted."""
    rows, columns = gradient.shape
    targets = dense_weight(model, 1) - rows * columns / 2 * gradient
    model.step(np.eye(columns, dtype=np.float32), targets.T.astype(np.float32))


def survivors_and_grown(model, dropped):
    """Splits the connections after a mutation of START that dropped the given positions."""
    csr, momentum = model.csr(1), model.tensor(1, "weight_momentum")
    where = positions(csr, 4)
    old = [p for p in (0, 2, 5, 7, 8, 10) if p not in dropped]
    kept = {p: (v, m) for p, v, m in zip(where, csr.values, momentum) if p in old}
    grown = {p: (v, m) for p, v, m in zip(where, csr.values, momentum) if p not in old}
    return kept, grown


def test_g1_magnitude():
    model = small()
    report = model.mutate()
    assert (report.dropped, report.grown, report.active) == (2, 2, 6)
    kept, grown = survivors_and_grown(model, {8, 2})
    f = np.float32
    assert kept == {0: (f(0.5), 1), 5: (f(0.3), 3), 7: (f(-0.7), 4), 10: (f(0.2), 6)}
    assert len(grown) == 2 and set(grown.values()) == {(0, 0)}


def test_g1_gradient():
    """lambda 0.01, |gradients| 1 1 0 1 20 0: scores .51 .11 .30 .71 .25 .20."""
    model = small(importance_lambda=0.01)
    gradient = np.zeros((3, 4))
    gradient.ravel()[[0, 2, 5, 7, 8, 10]] = 1, 1, 0, 1, -20, 0
    give_gradient(model, gradient)
    np.testing.assert_allclose(model.tensor(1, "weight_gradient"), [1, 1, 0, 1, -20, 0], atol=1e-5)
    model.mutate()
    kept, grown = survivors_and_grown(model, {2, 10})
    assert sorted(kept) == [0, 5, 7, 8] and len(grown) == 2
    assert kept[8][0] == np.float32(0.05)


@pytest.mark.parametrize("seed", range(8))
def test_g1_growth_may_exclude_what_was_dropped(seed):
    model = small(exclude_dropped=True, seed=seed)
    model.mutate()
    _, grown = survivors_and_grown(model, {8, 2})
    assert len(grown) == 2 and not set(grown) & {8, 2}


def test_g1_growth_is_uniform():
    """Over many seeds each of the 8 free positions is taken about equally often."""
    times, seen = 400, np.zeros(12)
    for seed in range(times):
        model = small(seed=seed)
        model.mutate()
        seen[list(survivors_and_grown(model, {8, 2})[1])] += 1
    free = seen[[1, 2, 3, 4, 6, 8, 9, 11]]
    assert seen.sum() == free.sum() == 2 * times
    assert (np.abs(free - times / 4) < 5 * np.sqrt(times * 3 / 16)).all(), free


# ------------------------------------------------------------------------------------ G5 and G6 ---

#        N        initial  EM after  EM&S < 90  < 120  after   README < 90  < 120
COUNTS = {
    9_216: (922, 921, 1_382, 1_152, 922, 1_105, 1_013),
    18_432: (1_844, 1_843, 2_764, 2_304, 1_844, 2_211, 2_027),
    36_864: (3_687, 3_686, 5_529, 4_608, 3_687, 4_423, 4_055),
    73_728: (7_373, 7_372, 11_059, 9_216, 7_373, 8_847, 8_110),
    147_456: (14_746, 14_745, 22_118, 18_432, 14_746, 17_694, 16_220),
}
EM_DROP_TO = {9_216: (738, 830), 18_432: (1_475, 1_659), 36_864: (2_950, 3_318),
              73_728: (5_899, 6_636), 147_456: (11_797, 13_271)}  # fmt: skip


def through_160_epochs(**config):
    """Mutation reports by epoch of the ResNet-32 of the paper, nothing trained in between."""
    model = mest.Model(
        mest.resnet(32, 32, 10, (3, 8, 8)),
        batch=1, epochs=160, mutation_epochs=(90, 120), **config,
    )  # fmt: skip
    initial = [n for n, part in zip(model.connections(), model.plan().layers) if part.sparse]
    reports, densities = {}, []
    for epoch in range(160):
        begun = model.begin_epoch()
        assert begun.epoch == epoch
        assert begun.mutated == (begun.dropped + begun.grown > 0)  # "connections moved"
        if epoch % 5 == 0:
            reports[epoch] = model.mutation()
            assert (begun.dropped, begun.grown) == (reports[epoch].dropped, reports[epoch].grown)
            assert (reports[epoch].epoch, reports[epoch].mutations) == (epoch, len(reports))
        else:
            assert not begun.mutated
        densities.append(model.density())
    assert len(reports) == 32
    return initial, reports, densities


def boundary_phase(epoch):
    return reference.phase(epoch, (90, 120))


def test_g5_em():
    initial, reports, densities = through_160_epochs(density=0.1, method="em", round_compat=True)
    assert sum(initial) == 184_334
    for epoch, report in reports.items():
        assert report.active == 184_304
        for layer, first in zip(report.layers, initial):
            start, after = COUNTS[layer.positions][:2]
            assert (first, layer.active) == (start, after)
            before = start if epoch == 0 else after
            drop_to = (*EM_DROP_TO[layer.positions], after)[boundary_phase(epoch)]
            assert layer.dropped == before - drop_to, (epoch, layer)
            assert layer.grown == after - drop_to, (epoch, layer)
    one = {e: (r.layers[0].dropped, r.layers[0].grown) for e, r in reports.items()}
    assert one[0] == (184, 183) and one[5] == one[85] == (183, 183)
    assert one[90] == one[115] == (91, 91) and one[120] == one[155] == (0, 0)
    assert sum(r.dropped + r.grown > 0 for r in reports.values()) == 24
    np.testing.assert_allclose(densities, 0.1, atol=2e-4)


@pytest.mark.parametrize("extra, columns", [(0.05, (2, 3, 4)), (0.02, (5, 6, 4))])
def test_g5_ems(extra, columns):
    initial, reports, densities = through_160_epochs(
        density=0.1, method="em&s", mutation_extra=extra, round_compat=True
    )
    for epoch, report in reports.items():
        for layer in report.layers:
            counts = COUNTS[layer.positions]
            assert layer.active == counts[columns[boundary_phase(epoch)]], (epoch, layer)
            before = counts[0 if epoch == 0 else columns[boundary_phase(epoch - 5)]]
            assert layer.dropped == before - counts[0], (epoch, layer)
    assert sum(r.dropped + r.grown > 0 for r in reports.values()) == 25
    if extra == 0.05:
        assert [reports[e].active for e in (0, 90, 120)] == [276_466, 230_400, 184_334]
        one = {e: (r.layers[0].dropped, r.layers[0].grown) for e, r in reports.items()}
        assert one[0] == (0, 460) and one[5] == one[85] == (460, 460) and one[90] == (460, 230)
        assert one[95] == one[115] == (230, 230) and one[120] == (230, 0) and one[125] == (0, 0)
        # G6
        np.testing.assert_allclose(densities[:90], 0.15, atol=1e-4)
        np.testing.assert_allclose(densities[90:120], 0.125, atol=1e-4)
        np.testing.assert_allclose(densities[120:], 0.1, atol=1e-4)
        assert abs(np.mean(densities) - 0.1328125) < 1e-4


def test_g5_at_95_percent():
    initial, reports, _ = through_160_epochs(density=0.05, method="em", round_compat=True)
    assert sum(initial) == 92_172 and initial[0] == 461
    assert all(r.active == 92_142 and r.layers[0].active == 460 for r in reports.values())
    _, reports, _ = through_160_epochs(
        density=0.05, method="em&s", mutation_extra=0.05, round_compat=True
    )
    assert [reports[e].active for e in (0, 90, 120)] == [184_304, 138_228, 92_172]
    assert [reports[e].layers[0].active for e in (0, 90, 120)] == [921, 691, 461]


def test_g5_reference_counts_agree():
    """The test suite's own formula gives the executed numbers: then it may judge other sizes."""
    for size, (start, after, *_) in COUNTS.items():
        dropped, grown = reference.compat_counts(size, start, 0.08, 0.1)
        assert start - dropped == EM_DROP_TO[size][0] and start - dropped + grown == after
        dropped, grown = reference.compat_counts(size, start, 0.1, 0.15)
        assert start - dropped + grown == COUNTS[size][2]


# ----------------------------------------------------------------------------------------- G7 ---

PATTERNS = ("11111111", "01111111", "00110100", "00000000",
            "10101010", "00000001", "10000000", "01011111")  # fmt: skip
FORGOTTEN = [0, 0, 2, 255, 4, 0, 1, 1]


def forgetful(**config):
    """A model that always answers 0: a label 0 is answered correctly, a label 1 wrongly."""
    layers = [Input(1), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=8, samples=8, learning_rate=0.0, epochs=10, **config)
    model.set_tensor(1, "weight", [[0.0], [0.0]])
    model.set_tensor(1, "bias", [1.0, 0.0])
    return model


def present(model, patterns, order=None):
    ids = np.arange(8) if order is None else np.asarray(order)
    for column in zip(*patterns):
        labels = np.array([c == "0" for c in column], int)
        report = model.step(np.zeros((8, 1), np.float32), labels[ids], ids)
        assert report.correct == column.count("1")
        yield model.forgetting()


def test_g7_forgetting():
    reports = list(present(forgetful(), PATTERNS, order=[3, 1, 4, 7, 5, 0, 2, 6]))
    last = reports[-1]
    assert last.counts.tolist() == FORGOTTEN
    assert (last.samples, last.seen, last.learned, last.never_learned) == (8, 8, 7, 1)
    assert (last.unforgettable, last.events, last.training, last.phase) == (3, 8, 8, 1)
    assert last.histogram[:6].tolist() == [3, 2, 1, 0, 1, 0] and last.histogram.sum() == 7
    correct = np.array([[c == "1" for c in pattern] for pattern in PATTERNS]).T
    for epoch, report in enumerate(reports):  # one presentation an epoch
        assert report.counts.tolist() == reference.forgetting(correct[: epoch + 1]).tolist()
        lost = correct[epoch - 1] & ~correct[epoch] if epoch else np.zeros(8)
        assert report.events_epoch == lost.sum()
        if epoch:  # 00110100 is forgotten at its presentations 5 and 7
            assert (reports[epoch].counts[2] > reports[epoch - 1].counts[2]) == (
                epoch in (4, 6)
            ) or epoch == 2


def test_g7_order():
    """Least forgotten first, never learned last; ties in a fixed order."""
    model = forgetful()
    list(present(model, PATTERNS))
    everybody = set(range(8))
    removed = []
    for number in range(1, 9):
        gone = everybody - set(model.select("number", remove_number=number).tolist())
        assert len(gone) == number
        removed += list(gone - set(removed))
    assert [FORGOTTEN[i] for i in removed] == [0, 0, 0, 1, 1, 2, 4, 255]
    assert model.select().tolist() == list(range(8))
    assert model.select("count", remove_count=0).tolist() == [2, 3, 4, 6, 7]
    assert model.select("count", remove_count=1).tolist() == [2, 3, 4]
    assert model.select("count", remove_count=254).tolist() == [3]  # never learned stays
    assert model.select("fraction", remove_fraction=0.5).tolist() == sorted(
        everybody - set(removed[:4])
    )
    kept = model.select("number", remove_number=3, keep_lowest=2).tolist()
    assert kept == sorted(everybody - set(removed[2:5]))
    again = forgetful()
    list(present(again, PATTERNS))
    assert again.select("number", remove_number=2).tolist() == sorted(everybody - set(removed[:2]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("01"), min_size=8, max_size=8), min_size=1, max_size=12))
def test_g7_any_history(rows):
    """rows[t][i]: whether sample i is answered correctly at presentation t."""
    model, answers = forgetful(), np.array(rows) == "1"
    for right in answers:
        model.step(np.zeros((8, 1), np.float32), (~right).astype(int), np.arange(8))
    report, expected = model.forgetting(), reference.forgetting(answers)
    assert report.counts.tolist() == expected.tolist()
    learned = expected[expected != 255]
    assert report.histogram[:9].tolist() == np.bincount(learned, minlength=9)[:9].tolist()
    assert (report.unforgettable, report.never_learned) == ((learned == 0).sum(), 8 - len(learned))


def test_g7_counts_saturate():
    """At 254: 255 means never learned."""
    model = forgetful()
    for _ in range(300):
        for right in (0, 1):
            model.step(np.zeros((8, 1), np.float32), np.full(8, right), np.arange(8))
    report = model.forgetting()
    assert report.counts.tolist() == [254] * 8 and report.histogram[63] == 8


# -------------------------------------------------------------------------------- G8 and G10 ---


def test_g8_cosine():
    layers = [Input(2), Linear(2, density=1.0)]
    model = mest.Model(layers, batch=1, epochs=160, learning_rate=0.1, schedule="cosine",
                       learning_rate_min=4e-8)  # fmt: skip
    rates = np.array([model.begin_epoch().learning_rate for _ in range(160)])
    expected = [reference.cosine(e, 160, 0.1, 4e-8) for e in range(160)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    golden = {0: 0.1, 1: 0.0999904, 40: 0.0853553, 80: 0.05000002, 90: 0.0402455, 120: 0.0146447,
              159: 9.678e-6}  # fmt: skip
    for epoch, rate in golden.items():
        assert rates[epoch] == pytest.approx(rate, rel=1e-4)


def one_weight(w, m, gradient, **config):
    """A step of y = w x with x = 1 and the target that gives this gradient: 2 (w - target)."""
    model = mest.Model(
        [Input(1), Linear(1, density=1.0, bias=False)],
        **{
            **dict(batch=1, loss="mse", learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
            **config,
        },
    )
    model.set_tensor(1, "weight", [[w]])
    model.set_tensor(1, "weight_momentum", [[m]])
    model.step([[1.0]], [[w - gradient / 2]])
    return model.tensor(1, "weight_momentum").item(), model.tensor(1, "weight").item()


def test_g10_optimizer():
    assert one_weight(0.5, 0.1, 0.2) == pytest.approx((0.29005, 0.470995), rel=1e-6)
    assert one_weight(0.0, 0.0, -0.3) == pytest.approx((-0.3, 0.03), rel=1e-6)


def test_g10_nesterov():
    weight, momentum = reference.sgd(0.5, 0.2, 0.1, 0.1, 0.9, 1e-4, nesterov=True)
    assert one_weight(0.5, 0.1, 0.2, nesterov=True) == pytest.approx((momentum, weight), rel=1e-6)
