# SPDX-License-Identifier: Apache-2.0
"""fit, evaluate and predict on any iterable of batches."""

import numpy as np
import pytest
from support import fingerprint, tiny

import mest

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)
IDS = np.arange(60)


def learner(**config):
    return tiny(**{"samples": 60, "batch": 8, "epochs": 4, "method": "em", "mutation_every": 1, **config})


def cut(order, size=8, ids=True):
    """A list of batches."""
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    return [(DATA[0][p], DATA[1][p], p) if ids else (DATA[0][p], DATA[1][p]) for p in parts]


def comparable(history):
    return [{**vars(record), "seconds": 0} for record in history]


def same(one, other):
    """Histories but for time; nan is nan."""
    np.testing.assert_equal(comparable(one), comparable(other))


class Stream:
    """An iterable without a length."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


# ------------------------------------------------------------------------------------- the same bits ---


@pytest.mark.parametrize("kind", ["list", "stream", "function", "function of the epoch"])
def test_the_bits_are_those_of_arrays(kind):
    def shuffled(epoch):
        order = np.arange(60, dtype=np.uint32)
        np.random.default_rng([0, epoch]).shuffle(order)  # as fit does with seed 0
        return cut(order)

    arrays, batches = learner(), learner()
    shuffle = kind == "function of the epoch"
    known = arrays.fit(*DATA, shuffle=shuffle, validation=DATA, progress=False)
    given = {
        "list": cut(IDS),
        "stream": Stream(cut(IDS)),
        "function": lambda: iter(cut(IDS)),
        "function of the epoch": shuffled,
    }[kind]
    found = batches.fit(given, validation=DATA, progress=False)
    same(found, known)
    assert fingerprint(batches) == fingerprint(arrays) and len(found) == 4


def test_augmentation_draws_the_same_numbers():
    def jitter(x, rng):
        return x + rng.normal(0, 0.1, x.shape)

    arrays, batches = learner(), learner()
    # Arrays draw their order first, from the same generator.
    arrays.fit(*DATA, shuffle=False, augment=jitter, progress=False)
    batches.fit(cut(IDS), augment=jitter, progress=False)
    assert fingerprint(batches) == fingerprint(arrays)


def test_micro_batches():
    """A whole number of updates: what is left in the end is cut into smaller ones."""
    arrays, batches = (learner(batch=5, micro_batches=4) for _ in range(2))
    arrays.fit(*DATA, shuffle=False, progress=False)  # 12 batches of 5, 3 updates
    seen = []

    class Watch(mest.Callback):
        def step(self, model, report):
            seen.append((report.count, report.updated))

    batches.fit(cut(IDS, 5), progress=False, callbacks=[Watch()])
    assert fingerprint(batches) == fingerprint(arrays)
    assert [updated for _, updated in seen[:12]] == [False, False, False, True] * 3
    seen.clear()
    left = learner(batch=5, micro_batches=4)
    left.fit(cut(IDS, 5)[:9], epochs=1, progress=False, callbacks=[Watch()])
    assert [count for count, _ in seen] == [5] * 8 + [2, 1, 1, 1] and seen[-1][1]
    assert left.forgetting().seen == 45
    few = learner(batch=5, micro_batches=4)
    few.fit([*cut(IDS, 5)[:8], (DATA[0][:2], DATA[1][:2], IDS[:2])], epochs=2, progress=False)  # 2 samples: no 4 parts
    assert few.forgetting().presentations == 2 * 42


def test_batches_without_ids_count_nothing():
    model = learner()
    history = model.fit(cut(IDS, ids=False), progress=False)
    assert model.forgetting().seen == 0 and history[0].samples == 60
    uncounted = learner(samples=None)
    assert [r.samples for r in uncounted.fit(cut(IDS[:20], 5, ids=False), progress=False)] == [20] * 4
    assert uncounted.history[0].absent == 0
    with pytest.raises(mest.MestArgumentError, match="batch 0: ids are given, but Config.samples is not"):
        learner(samples=None).fit(cut(IDS), progress=False)


def test_samples_that_left_are_taken_out_of_their_batches():
    presented = []

    def note(x, rng):
        presented.append(len(x))
        return x

    model = learner(phase1_epochs=2, remove_rule="number", remove_number=45)
    history = model.fit(cut(IDS), augment=note, progress=False)
    assert history.column("samples").tolist() == [60, 60, 15, 15]
    assert history.column("absent").tolist() == [0, 0, 45, 45]
    assert sum(presented) == 2 * 60 + 2 * 15
    assert model.forgetting().presentations == 150 and model.forgetting().training == 15


def test_checkpoints_resume(tmp_path):
    def batches(epoch):
        return cut(np.random.default_rng(epoch).permutation(60))

    whole, resumed = learner(), learner()
    known = whole.fit(batches, progress=False)
    learner().fit(batches, epochs=2, progress=False, checkpoint=tmp_path / "c")
    found = resumed.fit(batches, progress=False, checkpoint=tmp_path / "c")
    same(found, known)
    assert fingerprint(resumed) == fingerprint(whole)


# ---------------------------------------------------------------------------------------- iterators ---


def test_a_generator_gives_one_epoch():
    model = learner()
    assert len(model.fit((b for b in cut(IDS)), epochs=1, progress=False)) == 1
    with pytest.raises(mest.MestArgumentError, match="4 epochs are wanted, and the batches are an iterator, which"):
        learner().fit((b for b in cut(IDS)), progress=False)
    used = iter(cut(IDS))
    model.fit(used, epochs=1, progress=False)
    with pytest.raises(mest.MestArgumentError, match="no batches for epoch 2: an iterator is used up"):
        model.fit(used, epochs=1, progress=False)
    assert len(model.fit(cut(IDS), epochs=1, progress=False)) == 1  # nothing was lost


def test_an_iterator_with_steps_per_epoch_goes_on():
    def endless():
        while True:
            yield from cut(IDS, ids=False)

    model = learner(steps_per_epoch=5, samples=None)
    history = model.fit(endless(), progress=False)
    assert len(history) == 4 and (history.column("samples") == np.array([40, 36, 40, 36])).all()
    parts = learner(steps_per_epoch=5, samples=None)
    stream = iter(cut(np.tile(IDS, 3), ids=False))  # 23 batches for 20
    parts.fit(stream, progress=False)
    assert len(list(stream)) == 23 - 20
    with pytest.raises(mest.MestArgumentError, match="no batches for epoch 2"):
        learner(steps_per_epoch=4, samples=None).fit(iter(cut(IDS, ids=False)), progress=False)


def test_what_a_function_returns_is_looked_at():
    once = iter(cut(IDS))
    with pytest.raises(mest.MestArgumentError, match="no batches for epoch 1"):
        learner().fit(lambda: once, progress=False)
    with pytest.raises(mest.MestArgumentError, match="the function has returned a NoneType"):
        learner().fit(lambda: None, progress=False)

    def optional(start=0):
        return cut(IDS[start:])

    assert learner().fit(optional, epochs=1, progress=False)[0].samples == 60


def test_what_an_iterable_raises_is_raised():
    """The epoch is not complete; the model goes on with the next."""

    def breaks():
        yield from cut(IDS)[:4] + cut(IDS)[:3]
        raise OSError("the disk is gone")

    for micro in (1, 2):
        model = learner(micro_batches=micro, batch=8, method="static")
        with pytest.raises(OSError, match="the disk is gone"):
            model.fit(breaks, progress=False)
        before = fingerprint(model)
        copy = learner(micro_batches=micro, batch=8, method="static")
        copy.load_bytes(model.to_bytes())
        copy.begin_epoch()
        assert fingerprint(copy) == before  # no part of an update was left
        assert model.history == [] and model.fit(cut(IDS), epochs=1, progress=False)[0].epoch == 1


# ------------------------------------------------------------------------------- what is wrong with it ---


@pytest.mark.parametrize(
    "batches, words",
    [
        (DATA[0], "the batches are a ndarray: pass x and y"),
        (7, "the batches are a int; an iterable of batches"),
        ("data", "the batches are a str"),
        ({"x": 1}, "the batches are a dict"),
        ([], "no batches for epoch 0"),
        ([DATA[0][:8]], r"batch 0: \(x, y\) or \(x, y, ids\) is wanted, not a ndarray"),
        ([(DATA[0][:8],)], "batch 0: .* not a tuple of 1"),
        ([*cut(IDS)[:2], (DATA[0][:8, :3], DATA[1][:8])], "batch 2: x has shape"),
        ([*cut(IDS)[:2], (DATA[0][:8], DATA[1][:7])], "batch 2: y has shape"),
        ([*cut(IDS)[:2], (DATA[0][:8], DATA[1][:8] + 1)], r"batch 2: y\[.*there are 3 classes"),
        ([*cut(IDS)[:2], (DATA[0][:8] * np.nan, DATA[1][:8])], "batch 2: .*NaN"),
        ([*cut(IDS)[:2], (DATA[0][:8], DATA[1][:8], IDS[:8] + 60)], r"batch 2: ids\[0\] is 60"),
        (cut(IDS, 10), "batch 0: has 10 samples, Config.batch, for which memory is planned, is 8: make"),
    ],
)
def test_errors_name_the_batch(batches, words):
    model = learner()
    with pytest.raises(mest.MestArgumentError, match=words):
        model.fit(batches, progress=False)
    assert model.fit(cut(IDS), epochs=1, progress=False)[0].samples == 60


def test_epochs_by_place_are_no_labels():
    with pytest.raises(mest.MestArgumentError, match=r"fit\(batches, epochs=3\)"):
        learner().fit(cut(IDS), 3)


def test_schedules_know_the_steps():
    batches = cut(IDS, 5)  # 12, and samples and batch make 8
    by_update = {"schedule": "cosine", "schedule_by_update": True}
    with pytest.raises(mest.MestArgumentError, match="12 updates; schedule_by_update expects the 8 .*epoch=12"):
        learner(**by_update).fit(batches, progress=False)
    with pytest.raises(mest.MestArgumentError, match="method 'rigl' expects the 8"):
        learner(method="rigl", mutation_every=None).fit(batches, progress=False)
    model, rates = learner(**by_update, steps_per_epoch=12), []

    class Watch(mest.Callback):
        def step(self, model, report):
            rates.append(report.learning_rate)

    model.fit(batches, progress=False, callbacks=[Watch()])
    assert len(rates) == 48 and (np.diff(rates) < 0).all()
    with pytest.raises(mest.MestArgumentError, match="is 13, but .* 12, 12 updates: set steps_per_epoch=12"):
        learner(steps_per_epoch=13).fit(batches, progress=False)
    assert learner(steps_per_epoch=10).fit(batches, epochs=1, progress=False)[0].loss > 0  # the first ten
    assert learner(steps_per_epoch=10).fit(Stream(batches), epochs=1, progress=False)[0].loss > 0


# ----------------------------------------------------------------------------- evaluate and predict ---


KINDS = {"list": list, "stream": Stream, "iterator": iter, "function": lambda batches: lambda: iter(batches)}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", [8, 25, 60])
def test_evaluate_and_predict(make, size):
    model = learner()
    model.fit(*DATA, 2, progress=False)
    known = model.evaluate(*DATA)
    found = model.evaluate(make(cut(IDS, size)))
    assert (found.correct, found.count) == (known.correct, 60) and found.loss == pytest.approx(known.loss)
    pairs, inputs = cut(IDS, size, ids=False), [x for x, _, _ in cut(IDS, size)]
    for batches in (pairs, cut(IDS, size), inputs):
        assert np.array_equal(model.predict(make(batches)), model.predict(DATA[0]))
        assert np.array_equal(model.predict_proba(make(batches)), model.predict_proba(DATA[0]))


def test_predict_still_takes_lists_of_samples():
    model = learner()
    known = model.predict(DATA[0][:5])
    for x in (DATA[0][:5].tolist(), list(DATA[0][:5]), tuple(DATA[0][:5].reshape(5, 4, 1, 1))):
        assert np.array_equal(model.predict(x), known)
    assert model.predict(iter(())).shape == (0, 3)
    pictures = mest.Model([mest.Input(2, 3, 3), mest.Flatten(), mest.Linear(3)], batch=4)
    x = RNG.normal(size=(6, 2, 3, 3)).astype(np.float32)
    assert np.array_equal(pictures.predict(list(x)), pictures.predict(x))
    assert np.array_equal(pictures.predict([x[:4], x[4:]]), pictures.predict(x))


def test_errors_of_evaluate_and_predict_name_the_batch():
    model = learner()
    with pytest.raises(mest.MestArgumentError, match="batch 1: x has shape"):
        model.evaluate([cut(IDS)[0], (DATA[0][:8, :2], DATA[1][:8])])
    with pytest.raises(mest.MestArgumentError, match="batch 1: x has shape"):
        model.predict(iter([DATA[0][:8], DATA[0][:8, :2]]))
    with pytest.raises(mest.MestArgumentError, match="the batches are a ndarray: pass x and y"):
        model.evaluate(DATA[0])
    assert np.isnan(model.evaluate([]).loss)


def test_validation_in_batches():
    known = learner().fit(*DATA, validation=DATA, progress=False)
    for validation in (cut(IDS), Stream(cut(IDS, 30, ids=False)), lambda: iter(cut(IDS)), list(DATA)):
        found = learner().fit(*DATA, validation=validation, progress=False)
        assert found.column("validation_accuracy").tolist() == known.column("validation_accuracy").tolist()
        assert found.column("validation_loss") == pytest.approx(known.column("validation_loss"))
    model = learner()
    with pytest.raises(mest.MestArgumentError, match="the validation batches are an iterator"):
        model.fit(*DATA, validation=iter(cut(IDS)), progress=False)
    with pytest.raises(mest.MestArgumentError, match="the validation batches are a int"):
        model.fit(*DATA, validation=3, progress=False)
    assert model.begin_epoch().epoch == 0
    with pytest.raises(mest.MestArgumentError, match="validation batch 1: x has shape"):
        model.fit(*DATA, validation=[cut(IDS)[0], (DATA[0][:8, :2], DATA[1][:8])], progress=False)


# -------------------------------------------------------------------------------------------- torch ---


def test_a_data_loader():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.from_numpy(DATA[0]), torch.from_numpy(DATA[1])
    assert y.dtype == torch.int64
    arrays, loaded = learner(), learner()
    arrays.fit(*DATA, shuffle=False, validation=DATA, progress=False)
    loader = DataLoader(TensorDataset(x, y, torch.arange(60)), batch_size=8)
    loaded.fit(loader, validation=DataLoader(TensorDataset(x, y), batch_size=30), progress=False)
    assert fingerprint(loaded) == fingerprint(arrays)
    accuracies = [model.history.column("validation_accuracy").tolist() for model in (loaded, arrays)]
    assert accuracies[0] == accuracies[1]
    assert loaded.evaluate(loader).correct == arrays.evaluate(x, y).correct == arrays.evaluate(*DATA).correct
    assert np.array_equal(loaded.predict(loader), arrays.predict(x))
    assert np.array_equal(loaded.predict(DataLoader(x, batch_size=7)), arrays.predict(DATA[0]))
    with pytest.raises(mest.MestArgumentError, match="batch 0: has 16 samples, Config.batch"):
        learner().fit(DataLoader(TensorDataset(x, y), batch_size=16), progress=False)
    with pytest.raises(mest.MestArgumentError, match="one sample is x"):
        learner().fit(TensorDataset(x, y), progress=False)


def test_data_loaders_of_every_kind():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, IterableDataset, TensorDataset

    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield from zip(DATA[0], DATA[1])

    model = learner(samples=None, steps_per_epoch=6)
    history = model.fit(DataLoader(Endless(), batch_size=8), epochs=3, progress=False)
    assert history.column("samples").tolist() == [48] * 3
    shuffled = learner()
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.from_numpy(DATA[0]), torch.from_numpy(DATA[1]), torch.arange(60))
    shuffled.fit(DataLoader(data, batch_size=8, shuffle=True, generator=generator), progress=False)
    assert shuffled.forgetting().presentations == 240


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16", "needs a gradient", "permuted"])
def test_tensors_of_every_kind(kind):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(np.round(DATA[0]))
    tensor = {
        "float64": lambda: x.double(),
        "float16": lambda: x.half(),
        "bfloat16": lambda: x.bfloat16(),
        "needs a gradient": lambda: x.clone().requires_grad_(),
        "permuted": lambda: x.t().contiguous().t(),
    }[kind]()
    known, found = learner(), learner()
    known.fit(np.round(DATA[0]), DATA[1], progress=False)
    found.fit(tensor, torch.from_numpy(DATA[1]), progress=False)
    assert fingerprint(found) == fingerprint(known)
    found.step(tensor[:8], torch.from_numpy(DATA[1][:8]), torch.arange(8))


# -------------------------------------------------------------------------- numbers that do not fit ---


@pytest.mark.parametrize("fields", [dict(method="rigl", mutation_every=None), dict(schedule_by_update=True)])
def test_functions_of_other_numbers_of_batches_are_told_of_once(fields):
    batches = cut(IDS, 6)
    with pytest.warns(UserWarning, match="are 10, 10 updates.*expects the 8.*steps_per_epoch=10") as told:
        history = learner(**fields).fit(lambda: iter(batches), progress=False)
    assert len(history) == 4 and [warned.filename for warned in told] == [__file__]
    with pytest.warns(UserWarning, match="are 1, 1 updates.*the 8 that samples and batch make: set .*=1"):
        learner(**fields).fit(Stream(batches[:1]), progress=False)
    with pytest.warns(UserWarning, match="are 10, 10 updates.*the 20 that steps_per_epoch says"):
        learner(**fields, steps_per_epoch=20).fit(lambda: iter(batches), progress=False)


def test_functions_of_the_number_expected_are_not_warned_of(recwarn):
    learner(method="rigl", mutation_every=None).fit(lambda: iter(cut(IDS)), progress=False)
    learner(method="em").fit(lambda: iter(cut(IDS, 6)), progress=False)  # which counts epochs alone
    learner(method="rigl", mutation_every=None, steps_per_epoch=5).fit(lambda: iter(cut(IDS)), progress=False)
    learner(method="rigl", mutation_every=None, micro_batches=3).fit(lambda: iter(cut(IDS)), progress=False)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["iterator", "stream", "function"])
def test_batches_bring_their_answers(kind):
    model = learner()
    before = fingerprint(model)
    with pytest.raises(mest.MestArgumentError, match=r"x is a .* and y is given.*fit\(batches\)"):
        model.fit(KINDS[kind](cut(IDS)), DATA[1], progress=False)
    assert fingerprint(model) == before
