# SPDX-License-Identifier: Apache-2.0
"""MestClassifier and MestRegressor: scikit-learn's conventions, and what they promise beyond."""

import copy
import hashlib
import pickle
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from support import fingerprint

pytest.importorskip("sklearn")

import joblib
from sklearn import datasets
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import mest
from mest import MestClassifier, MestRegressor
from mest.estimators import learning

DIGITS = datasets.load_digits(return_X_y=True)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 12)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)  # three classes
T = X[:, 0] * X[:, 1] + X[:, 2]


def small(**parameters):
    """12 features -> 20 sparse -> 3 classes, some epochs."""
    return MestClassifier(**{
        "hidden_layer_sizes": (20,), "density": 0.3, "epochs": 8, "random_state": 0, "n_jobs": 1, **parameters
    })  # fmt: skip


def regressor(**parameters):
    return MestRegressor(**{
        "hidden_layer_sizes": (20,), "density": 0.3, "epochs": 8, "random_state": 0, "n_jobs": 1, **parameters
    })  # fmt: skip


class BatchNormed:
    """A function of (inputs, outputs) whose name has no address in it: tests on several cores are told by their names."""

    def __call__(self, inputs, outputs):
        return [
            mest.Input(inputs), mest.Linear(16, density=0.5), mest.BatchNorm(), mest.ReLU(),
            mest.Linear(outputs, density=1.0),
        ]  # fmt: skip

    def __repr__(self):
        return "with_batch_norm"


with_batch_norm = BatchNormed()


def python(code, *arguments):
    """A new interpreter with the paths of this one; what it printed."""
    code = f"import sys\nsys.path[:0] = {sys.path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------- scikit-learn's checks ---


@parametrize_with_checks([
    MestClassifier(n_jobs=1),
    MestClassifier(network=with_batch_norm, early_stopping=True, epochs=20, n_jobs=1),
    MestRegressor(n_jobs=1),
    MestRegressor(hidden_layer_sizes=(30, 20), method="rigl", early_stopping=True, epochs=20, n_jobs=1),
])  # fmt: skip
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_it_is_what_scikit_learn_calls_one():
    assert is_classifier(MestClassifier()) and is_regressor(MestRegressor())
    assert clone(small(density=0.2)).get_params() == small(density=0.2).get_params()
    assert repr(MestClassifier(density=0.2)) == "MestClassifier(density=0.2)"
    with pytest.raises(NotFittedError):
        small().predict(X)
    for kind in (MestClassifier, MestRegressor):
        for name in kind().get_params():
            assert name in kind.__doc__, name


def test_mest_alone_does_not_load_it():
    assert python("import mest\nprint([m for m in sys.modules if 'sklearn' in m or 'estimators' in m])") == "[]\n"


WITHOUT = """
import pickle, warnings
import numpy as np
if "without" in sys.argv:
    sys.modules["sklearn"] = None
import mest
x = np.random.default_rng(0).normal(size=(90, 12))
y, t = np.where(x[:, 0] > 0, "yes", "no"), np.stack([x[:, 0] * 50 + 3, x[:, 1]], 1)
c = mest.MestClassifier(density=0.3, random_state=1, early_stopping=True, epochs=10, n_jobs=1)
assert repr(c).count("=") == 5 and c.get_params()["density"] == 0.3
assert c.set_params(epochs=12).fit(x, y) is c
r = mest.MestRegressor(density=0.3, random_state=1, epochs=12, n_jobs=1).fit(x, t)
print(c.predict(x)[:5], c.predict_proba(x)[:2], c.score(x, y), c.score(x, y, np.arange(90.0)))
print(r.predict(x)[:2], r.score(x, t), c.n_features_in_)
c = pickle.loads(pickle.dumps(c)).partial_fit(x, y)
print(c.predict_log_proba(x)[:2], c.best_validation_score_)
wrong = [
    lambda: c.predict(x[:, :3]), lambda: c.predict(x[0]), lambda: c.fit(x * np.nan, y), lambda: c.fit(x, y[:5]),
    lambda: mest.MestClassifier().fit(x, t[:, 0]), lambda: mest.MestClassifier().predict(x),
    lambda: c.set_params(nothing=1), lambda: r.fit(x, t * np.inf), lambda: c.fit(x, t), lambda: r.fit(x, y),
    lambda: c.predict(x[:0]),
]
for call in wrong:
    try:
        call()
    except ValueError:
        continue
    raise AssertionError("not refused")
print("sklearn" in sys.modules and sys.modules["sklearn"] is not None)
"""


def test_it_works_without_scikit_learn_to_the_same_numbers():
    with_it, without = python(WITHOUT, "with").splitlines(), python(WITHOUT, "without").splitlines()
    assert with_it[:-1] == without[:-1]
    assert (with_it[-1], without[-1]) == ("True", "False")


@pytest.mark.parametrize(
    "estimator",
    [small(), small(early_stopping=True), small(network=with_batch_norm), small(hidden_layer_sizes=(15, 15))],
)
def test_inside_of_others(estimator, tmp_path):
    scaled = make_pipeline(StandardScaler(), estimator)
    scores = cross_val_score(scaled, X, Y, cv=3)
    assert np.isfinite(scores).all()
    search = GridSearchCV(scaled, {f"{type(estimator).__name__.lower()}__density": [0.2, None]}, cv=2)
    search.fit(X, Y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))
    joblib.dump(search.best_estimator_, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict(X), search.predict(X))
    calibrated = CalibratedClassifierCV(estimator, cv=2).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(1), 1)


def residual():
    """For X; layers that refer to layers, whose references have to survive clones and pickles."""
    first = mest.Linear(12, density=0.5)
    return [mest.Input(12), first, mest.ReLU(), mest.Linear(12), mest.Add(with_=first), mest.Linear(3, density=1.0)]


def test_the_search_finds_the_same_in_other_processes():
    grid = [{"density": [0.1, 0.5], "random_state": [0, 1]}, {"network": [residual(), mest.mlp(12, [9], 3)]}]
    search = [GridSearchCV(small(), grid, n_jobs=n, cv=2).fit(X, Y).cv_results_ for n in (1, 2)]
    np.testing.assert_array_equal(search[0]["mean_test_score"], search[1]["mean_test_score"])
    assert len(search[0]["mean_test_score"]) == 6 and np.isfinite(search[0]["mean_test_score"]).all()


def test_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(12)])
    model = make_pipeline(StandardScaler(), small()).set_output(transform="pandas").fit(frame, pandas.Series(Y))
    assert model[-1].feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        model[-1].predict(frame[frame.columns[::-1]])


# ---------------------------------------------------------------------------------- it learns ---


def test_digits_with_defaults():
    x, x_test, y, y_test = train_test_split(*DIGITS, random_state=0)
    model = make_pipeline(StandardScaler(), MestClassifier(random_state=0, n_jobs=1)).fit(x, y)
    assert model.score(x_test, y_test) > 0.95
    fitted = model[-1]
    assert fitted.density_ == pytest.approx(0.125, abs=0.002)  # 8 of 64 inputs
    assert fitted.n_iter_ == len(fitted.history_) == len(fitted.loss_curve_) == 50
    assert fitted.history_.column("grown").sum() > 0
    unscaled = MestClassifier(random_state=0, n_jobs=1, epochs=20).fit(x * 100, y)
    assert unscaled.score(x_test * 100, y_test) > 0.9


def test_regression_with_defaults():
    x, y = datasets.make_friedman1(800, noise=1, random_state=0)
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    model = make_pipeline(StandardScaler(), MestRegressor(random_state=0, n_jobs=1)).fit(x, y)
    assert model.score(x_test, y_test) > 0.85


def test_few_features():
    """A tenth of two inputs would be none for most units."""
    x, y = datasets.make_moons(300, noise=0.2, random_state=0)
    model = MestClassifier(random_state=0, n_jobs=1).fit(x, y)
    assert model.score(x, y) > 0.93
    assert model.density_ == 1 and model.model_.config.method == "static"
    sparse = MestClassifier(density=0.5, random_state=0, n_jobs=1, epochs=2).fit(x, y)
    assert sparse.density_ == 0.5 and sparse.model_.config.method == "em&s"


def test_it_is_the_model_that_one_would_write():
    """Nothing is done in between: the same bits, forgetting counts too."""
    estimator = small(config={"importance_lambda": 0.01, "label_smoothing": 0.1}).fit(X, Y)
    model = mest.Model(
        [mest.Input(12), mest.Linear(20, density=0.3), mest.ReLU(), mest.Linear(3, density=1.0)],
        batch=32, epochs=8, samples=90, density=0.3, method="em&s", learning_rate=0.1, momentum=0.9,
        weight_decay=1e-3, clip_norm=1.0, schedule="cosine", importance_lambda=0.01, label_smoothing=0.1,
    )  # fmt: skip
    model.fit(X, Y, progress=False)
    assert fingerprint(estimator.model_) == fingerprint(model)
    np.testing.assert_array_equal(estimator.forgetting_.counts, model.forgetting().counts)
    assert estimator.forgetting_.seen == 90 and estimator.forgetting_.events > 0
    assert estimator.plan_.total_bytes == model.plan().total_bytes and estimator.density_ == model.density()
    np.testing.assert_array_equal(estimator.decision_function(X), model.predict(X))
    np.testing.assert_allclose(estimator.predict_proba(X), model.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("labels", [["b", "a", "c"], [7, -1, 3], [2.0, 5.0, 3.0], np.array(["x", "yy", "z"], object)])
def test_labels_of_any_kind(labels):
    known = np.asarray(labels)[Y]
    model = small(epochs=20).fit(X, known)
    assert model.classes_.tolist() == sorted(set(labels))
    assert model.predict(X).dtype == model.classes_.dtype and model.score(X, known) > 0.7
    stream = small().partial_fit(X, known, classes=labels)
    assert set(stream.predict(X)) <= set(labels)
    with pytest.raises(ValueError, match="not among the classes"):
        stream.partial_fit(X[:1], np.asarray(["other"] if isinstance(labels[0], str) else [99]))


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_shapes_by_the_number_of_classes(classes):
    model = small().fit(X, Y % classes)
    assert model.predict_proba(X).shape == (90, classes)
    decision = model.decision_function(X)
    assert decision.shape == ((90, 3) if classes == 3 else (90,))
    if classes == 2:
        np.testing.assert_array_equal(decision > 0, model.predict(X) == 1)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(model.predict_proba(X)), rtol=1e-9, atol=1e-12)


def test_probabilities_that_are_nearly_certain():
    """Those of the other class stay in the logarithms, where float32 would have none."""
    model = small(epochs=40, weight_decay=0).fit(X, X[:, 0] > 0)
    far = X * 1000
    logarithms = model.predict_log_proba(far)
    assert logarithms.min() < -200 and model.predict_proba(far).astype(np.float32).max() == 1
    np.testing.assert_allclose(logarithms[:, 1] - logarithms[:, 0], model.decision_function(far))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_samples_than_a_batch(count):
    model = small().fit(X[:count], Y[:count])
    assert model.model_.config.batch == count and model.n_iter_ == 8
    assert regressor().fit(X[:count], T[:count]).predict(X).shape == (90,)


# -------------------------------------------------------------------------------- regression ---


def test_targets_may_have_any_size():
    plain = regressor().fit(X, T)
    for scale, shift in ((1e6, 0), (1e-6, 0), (3, 1e5)):
        other = regressor().fit(X, T * scale + shift)
        np.testing.assert_allclose(
            (other.predict(X) - shift) / scale, plain.predict(X), rtol=2e-3, atol=2e-3
        )
    assert plain.y_mean_ == pytest.approx(T.mean()) and plain.y_scale_ == pytest.approx(T.std())


def test_several_targets():
    both = np.stack([T, X[:, 3] * 100 + 5, np.full(90, 0.5)], 1)
    model = regressor(epochs=30).fit(X, both)
    assert model.predict(X).shape == (90, 3) and model.n_outputs_ == 3
    np.testing.assert_allclose(model.predict(X)[:, 2], 0.5, atol=0.2)  # a constant one is no division by 0
    assert model.score(X, both) > 0.3
    with pytest.raises(ValueError, match="2 targets, fitted were 3"):
        model.partial_fit(X, both[:, :2])
    with pytest.warns(DataConversionWarning):
        assert regressor().fit(X, T[:, None]).predict(X).shape == (90,)


def test_a_regressor_has_no_forgetting():
    model = regressor().fit(X, T)
    assert not hasattr(model, "forgetting_") and model.model_.config.samples is None


# ----------------------------------------------------------------------------------- networks ---


def test_images_as_rows():
    images, labels = DIGITS[0][:300] / 16, DIGITS[1][:300]
    layers = [
        mest.Input(1, 8, 8), mest.Conv2d(8, 3, padding=1, density=0.5), mest.ReLU(), mest.MaxPool(2),
        mest.Flatten(), mest.Linear(10, density=1.0),
    ]  # fmt: skip
    model = MestClassifier(network=layers, epochs=15, random_state=0, n_jobs=1).fit(images, labels)
    assert model.score(images, labels) > 0.9
    assert model.model_.csr(layers[1]).values.size == round(0.5 * 8 * 9)
    assert model.plan_.layers[1].kind == "conv2d"


def test_references_between_layers_survive_a_clone():
    images, labels = DIGITS[0][:100] / 16, DIGITS[1][:100]
    estimator = MestClassifier(
        network=mest.resnet(8, 4, 10, input=(1, 8, 8)), epochs=2, random_state=0, n_jobs=1
    )
    scores = cross_val_score(estimator, images, labels, cv=2)
    assert scores.shape == (2,)
    copied = copy.deepcopy(clone(estimator)).fit(images, labels)
    assert fingerprint(copied.model_) == fingerprint(estimator.fit(images, labels).model_)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"network": mest.mlp(12, [5], 4)}, "4 outputs, the data 3 classes"),
        ({"network": mest.mlp(11, [5], 3)}, "11 inputs, the data 12 features"),
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes=0"),
        ({"hidden_layer_sizes": "100"}, "hidden_layer_sizes='100': an integer"),
        ({"density": "some"}, "density='some'"),
        ({"density": 0}, "density=0"),
        ({"method": "sets"}, "method='sets'"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"random_state": "a"}, "random_state='a'"),
        ({"random_state": -1}, "seed=-1"),
        ({"config": {"batch": 3}}, "config has 'batch', which batch_size decides"),
        ({"config": {"samples": 3}}, "config has 'samples', which the data decides"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"early_stopping": True, "validation_fraction": 0.999}, "90 samples are too few"),
    ],
)
def test_what_cannot_be_meant(parameters, words):
    with pytest.raises(ValueError, match=words):
        small(**parameters).fit(X, Y)


def test_unknown_fields_are_named():
    with pytest.raises(TypeError, match="did you mean mutation_rate"):
        small(config={"drop_fraction": 0.3}).fit(X, Y)
    with pytest.raises(TypeError, match="a dict of fields"):
        small(config=mest.Config()).fit(X, Y)


def test_a_budget_holds():
    needed = small().fit(X, Y).plan_.total_bytes
    assert small(config={"budget_bytes": needed}).fit(X, Y).plan_.total_bytes == needed
    with pytest.raises(mest.BudgetError):
        small(config={"budget_bytes": needed - 1}).fit(X, Y)


# ------------------------------------------------------------------------------ how it trains ---


def test_the_best_state_is_kept():
    model = small(early_stopping=True, validation_fraction=0.3, epochs=24, n_iter_no_change=4).fit(X, Y)
    out = np.setdiff1d(np.arange(90), model.training_rows_)
    assert len(out) == 27 and abs(np.bincount(Y[out]) - 0.3 * np.bincount(Y)).max() <= 1
    assert model.score(X[out], Y[out]) == model.best_validation_score_
    assert len(model.validation_scores_) == model.n_iter_
    rests = model.history_.column("density") <= model.density_
    assert model.best_validation_score_ == max(np.array(model.validation_scores_)[rests])
    assert not rests[0]  # EM&S had more connections then, whose score does not count
    assert len(model.forgetting_.counts) == 63


def test_it_stops_when_it_gets_no_better():
    model = small(early_stopping=True, method="static", epochs=200, n_iter_no_change=3, tol=1e-3).fit(X, Y)
    assert model.n_iter_ < 100
    best = np.maximum.accumulate(model.validation_scores_)
    assert all(score < best[-4] + 1e-3 for score in model.validation_scores_[-3:])
    found = regressor(early_stopping=True, method="static", epochs=200, n_iter_no_change=3).fit(X, T)
    out = np.setdiff1d(np.arange(90), found.training_rows_)
    assert found.n_iter_ < 200 and found.score(X[out], T[out]) == pytest.approx(found.best_validation_score_, abs=1e-6)


@pytest.mark.parametrize("later, best", [((0.6, 0.5), 2), ((0.2, 0.1), 1)])
def test_void_epochs_are_no_best_ones(later, best):
    """The best score is that of epoch 3, but then training returns to before epoch 2."""
    from mest.estimators.learning import Stopper

    model = mest.Model(mest.mlp(4, [8], 3), recover_epochs=2, batch=4)
    learner = SimpleNamespace(tol=1e-4, n_iter_no_change=3, epochs=20)
    scores = iter([0.3, 0.4, 0.5, 0.9, *later])
    stopper = Stopper(learner, model, lambda record: next(scores))
    for call, epoch in enumerate((0, 1, 2, 3, 2, 3)):
        model.set_tensor("linear1", "bias", np.full(8, call, np.float32))
        assert not stopper(SimpleNamespace(epoch=epoch))
    assert stopper.scores == [0.3, 0.4, *later] and stopper.best == max(stopper.scores)
    stopper.restore()
    assert model.tensor("linear1", "bias")[0] == {2: 4, 1: 1}[best]


@pytest.mark.parametrize("network", [None, with_batch_norm], ids=repr)
@pytest.mark.parametrize("scheme", [None, "block4", "fan_in"])
def test_a_warm_start_begins_with_what_was_learnt(network, scheme):
    model = small(network=network, scheme=scheme, warm_start=True, method="static").fit(X, Y)
    before, weights = model.predict_proba(X), fingerprint(model.model_)
    model.set_params(learning_rate=0, weight_decay=0, momentum=0, epochs=1)
    if network is None:  # BatchNorm's statistics move without a learning rate
        np.testing.assert_array_equal(model.fit(X[:50], Y[:50]).predict_proba(X), before)
    cold = small(network=network, scheme=scheme, method="static", epochs=1, learning_rate=0, random_state=5).fit(X, Y)
    assert not np.allclose(cold.predict_proba(X), before)
    model = small(network=network, scheme=scheme, warm_start=True).fit(X, Y)
    first = model.loss_curve_[0]
    assert model.fit(X, Y).loss_curve_[0] < first and fingerprint(model.model_) != weights
    with pytest.raises(ValueError, match="warm_start: y has the classes"):
        model.fit(X, Y + 1)
    model.set_params(hidden_layer_sizes=(9,), network=None)
    with pytest.raises(ValueError, match="warm_start: the network"):
        model.fit(X, Y)


def test_random_states():
    first = small().fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(small().fit(X, Y).predict_proba(X), first)
    for other in (1, None, np.random.RandomState(0), np.random.default_rng(0)):
        assert not np.array_equal(small(random_state=other).fit(X, Y).predict_proba(X), first)
    drawn = [small(random_state=np.random.RandomState(3)).fit(X, Y).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    assert small(random_state=7).fit(X, Y).model_.config.seed == 7


def test_threads(monkeypatch):
    monkeypatch.setattr(learning.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [learning.threads_of(n) for n in (None, 1, 3, -1, -2, 1000)] == [4, 1, 3, 8, 7, 256]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert learning.threads_of(None) == 2 and learning.threads_of(3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "nonsense")
    assert learning.threads_of(None) == 4
    one, two = (small(n_jobs=n).fit(X, Y) for n in (1, 2))
    assert (one.model_.config.threads, two.model_.config.threads) == (1, 2)
    assert fingerprint(one.model_) == fingerprint(two.model_)


def test_verbose(capsys):
    small(verbose=True).fit(X, Y).partial_fit(X, Y)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 9 and said[0].startswith("epoch   0") and said[8].startswith("call   9  loss 0.")
    small().fit(X, Y).partial_fit(X, Y)
    assert capsys.readouterr().out == ""


def test_nothing_is_said_about_copies():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(early_stopping=True).fit(X.astype(float)[:, ::-1], Y).predict(np.asfortranarray(X))
        regressor().fit(X.tolist(), T.tolist()).predict(X.tolist())


@pytest.mark.parametrize("make, y", [(small, Y), (regressor, T)])
def test_a_fit_that_fails_leaves_all_as_it_was(make, y):
    model = make().fit(X, y)
    before, known = model.predict(X), dict(vars(model))
    wild = {"learning_rate": 1e30, "clip_norm": None}
    for calls in (model.fit, model.partial_fit):
        model.set_params(**wild)
        with pytest.raises(mest.DivergedError, match="StandardScaler"):
            calls(np.hstack([X * 1e15, X])[:, : 12 if calls == model.partial_fit else 24], y)
        model.set_params(learning_rate=0.1, clip_norm=1.0)
        assert vars(model) == known
        np.testing.assert_array_equal(model.predict(X), before)
    unfitted = make(**wild)
    with pytest.raises(mest.DivergedError):
        unfitted.partial_fit(X * 1e15, y, **({"classes": [0, 1, 2]} if make is small else {}))
    with pytest.raises(NotFittedError):
        unfitted.predict(X)


# ------------------------------------------------------------------------------------ streams ---


def test_a_stream_needs_no_more_memory():
    """Whatever comes, and however much at once."""
    model = small(epochs=4)
    sizes = [1, 7, 90, 40, 3] * 14  # 8 updates each time
    for size in sizes:
        model.partial_fit(X[:size], Y[:size], classes=[0, 1, 2])
        model.predict(X[:size])
    assert model.model_.memory.requests == 1 and model.model_.config.batch == 32
    assert model.model_.memory.peak == model.plan_.total_bytes
    assert model.n_iter_ == len(sizes) == len(model.loss_curve_)
    assert model.loss_curve_[-3] < model.loss_curve_[2]
    assert model.density_ == pytest.approx(0.3, abs=0.01)  # EM&S rests after 3/4 of 4 epochs
    assert model.history_ == [] and not hasattr(model, "forgetting_")


def test_an_epoch_of_a_stream_has_some_updates():
    """Connections are not dropped before they could learn something."""
    model = small(method="vanilla", config={"mutation_every": 1})
    for calls in range(1, 71):
        model.partial_fit(X[:8], Y[:8], classes=[0, 1, 2])
        assert model.model_.mutation().mutations == 1 + (calls - 1) // 32
    whole = small(method="vanilla", config={"mutation_every": 1}, batch_size=2)
    for calls in range(1, 4):  # 45 updates each
        whole.partial_fit(X, Y, classes=[0, 1, 2])
        assert whole.model_.mutation().mutations == calls


@pytest.mark.parametrize("method", ["em&s", "vanilla", "static", "rigl", "gse", "set", "snip"])
def test_streams_by_method(method):
    model, found = small(method=method), regressor(method=method)
    for _ in range(12):
        model.partial_fit(X, Y, classes=[0, 1, 2])
        found.partial_fit(X, T)
    assert model.loss_ < 0.8 * model.loss_curve_[0] and found.loss_ < 0.8 * found.loss_curve_[0]


def test_a_stream_goes_on_from_a_fit():
    """At a constant rate, where "cosine" had ended at 0; connections rest."""
    model = small(epochs=10).fit(X[:60], Y[:60])
    weights, density = fingerprint(model.model_), model.density_
    model.set_params(learning_rate=0.0, momentum=0.0)
    assert fingerprint(model.partial_fit(X, Y).model_) != weights  # momentum gone
    before = model.predict_proba(X)
    np.testing.assert_array_equal(model.partial_fit(X, Y).predict_proba(X), before)
    model.set_params(learning_rate=0.05, batch_size=16)
    for _ in range(10):
        model.partial_fit(X, Y)
    assert model.loss_ < model.loss_curve_[10] and model.density_ == density
    assert model.model_.config.batch == 16 and model.n_iter_ == 22
    assert len(model.forgetting_.counts) == 60  # of the fit


def test_classes_are_said_once():
    with pytest.raises(ValueError, match="classes must be passed"):
        small().partial_fit(X, Y)
    model = small().partial_fit(X[:2], Y[:2], classes=[2, 1, 0])
    model.partial_fit(X, Y).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not the same"):
        model.partial_fit(X, Y, classes=[0, 1])


# ------------------------------------------------------------------------------------- copies ---


@pytest.mark.parametrize("make, y", [(small, Y), (regressor, T)])
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_goes_on_to_the_same_bits(make, y, copied):
    streams = {"classes": [0, 1, 2]} if make is small else {}
    for model in (make().fit(X, y), make(verbose=False).partial_fit(X, y, **streams)):
        other = copied(model)
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        if copied is not copy.copy:  # which shares the model, as it shares every attribute
            other.partial_fit(X, y).partial_fit(X[:20], y[:20])
            model.partial_fit(X, y).partial_fit(X[:20], y[:20])
        assert fingerprint(other.model_) == fingerprint(model.model_)


def test_another_process_predicts_the_same(tmp_path):
    model = small().fit(X, Y)
    (tmp_path / "model").write_bytes(pickle.dumps((model, X, Y)))
    code = (
        "import pickle, hashlib\n"
        "model, x, y = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(hashlib.sha1(model.partial_fit(x, y).decision_function(x).tobytes()).hexdigest())\n"
    )
    expected = hashlib.sha1(model.partial_fit(X, Y).decision_function(X).tobytes()).hexdigest()
    assert python(code, str(tmp_path / "model")).strip() == expected


def test_threads_share_an_estimator():
    """mest.Model refuses a second call; here they take turns."""
    model, wrong = small().fit(X, Y), []
    expected = model.predict_proba(X)

    def use():
        try:
            for _ in range(50):
                np.testing.assert_array_equal(model.predict_proba(X), expected)
        except BaseException as error:
            wrong.append(error)

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not wrong


def test_what_is_no_network():
    with pytest.raises(TypeError, match="network='resnet:8': a list of layers is wanted"):
        small(network="resnet:8").fit(X, Y)
