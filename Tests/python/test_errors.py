# SPDX-License-Identifier: Apache-2.0
"""What is refused, by which exception, with which words, and that a refusal changes nothing."""

import ctypes
import dataclasses
import inspect
import platform
import re

import numpy as np
import pytest
from support import X, Y, fingerprint, tiny
from test_header import ROOT, constants
from test_limits import plan_status

import mest
from mest import Conv2d, Flatten, Input, Linear, ReLU, _abi, errors
from mest.layers import describe


def test_errors_are_built_in_kinds():
    pairs = [
        (mest.MestArgumentError, ValueError), (mest.ShapeError, ValueError),
        (mest.UnsupportedError, NotImplementedError), (mest.VersionError, RuntimeError),
        (mest.StateError, RuntimeError), (mest.DivergedError, ArithmeticError),
        (mest.MestMemoryError, MemoryError), (mest.BudgetError, MemoryError),
    ]  # fmt: skip
    for ours, builtin in pairs:
        assert issubclass(ours, mest.MestError) and issubclass(ours, builtin)
    statuses = {v for k, v in constants().items() if k.startswith("MEST_ERR_")}
    assert set(errors._KINDS) == statuses
    for status in statuses:
        error = errors.error_of(status, "words")
        assert error.status == status and str(error) == "words"
    assert type(errors.error_of(-77, "")) is mest.MestError


def test_messages_name_what_python_has():
    sources = "".join(path.read_text() for path in (ROOT / "Sources" / "Mest").rglob("*.swift"))
    texts = "".join(re.findall(r'"[^"\n]*"', sources))
    assert [name for name in errors._IN_PYTHON if name not in texts] == []
    with pytest.raises(mest.MestArgumentError, match=r"^schedule_by_update=True: set steps_per_epoch or samples$"):
        mest.plan([Input(2), Linear(2)], schedule="cosine", epochs=2, schedule_by_update=True)
    with tiny() as model:
        dense = next(i for i, layer in enumerate(model.plan().layers) if layer.kind == "linear" and not layer.sparse)
        with pytest.raises(mest.MestArgumentError, match=r"is not sparse; use Model\.tensor$"):
            model.csr(dense)
        model.cancel()
        with pytest.raises(mest.CancelledError, match=r"^cancelled by Model\.cancel$"):
            model.step(X, Y)


def test_messages_say_what_to_change(tmp_path):
    deep = [Input(16), *(layer for _ in range(3) for layer in (Linear(16), ReLU())), Linear(4)]
    with pytest.raises(mest.BudgetError, match=r"needs \d+: workspace .*, tables \d+\. Tables .* use fewer layers$"):
        mest.plan(deep, batch=1, budget_bytes=1000)
    with pytest.raises(mest.BudgetError, match=r"\. No smaller batch fits: lower the density, use fewer channels or"):
        mest.plan([Input(1000), Linear(1000), Linear(10)], batch=1, budget_bytes=1_000_000)
    with pytest.raises(mest.MestArgumentError, match=r"kernel 256 x 256, stride 1 x 1; use 1 to 255$"):
        mest.plan([Input(1, 4, 4), Conv2d(2, 256), *_HEAD])
    with tiny() as model, tiny(inference_only=True) as device:
        with pytest.raises(mest.MestArgumentError, match=r"values: value 1 is NaN; values must be finite$"):
            model.set_tensor("linear1", "bias", [0, np.nan, *[0] * 6])
        model.save(tmp_path / "c")
        with pytest.raises(mest.MestArgumentError, match=r"is 1 here, 0 in the .*mest\.delta\(this, that\)"):
            device.load(tmp_path / "c")


def test_a_message_is_one_line():
    layers = [Input(3, 4, 4), Conv2d(2, 9, name="a\nb\x7f\x1b[1m\u00e9"), *_HEAD]
    with pytest.raises(mest.ShapeError, match=r"^layer 1 \(a\?b\?\?\[1m\u00e9\)"):
        mest.plan(layers)


_HEAD = [Flatten(), Linear(2)]


@pytest.mark.parametrize(
    "layers, kind",
    [
        ([], mest.MestError),
        ([Linear(3)], mest.MestError),
        ([Input(3, 4, 4), Linear(3)], mest.ShapeError),
        ([Input(3, 4, 4), Conv2d(2, 9), Flatten(), Linear(2)], mest.ShapeError),
        (
            [Input(3), Linear(4, name="a"), Linear(5), mest.Add(with_="a"), Linear(2)],
            mest.ShapeError,
        ),
        ([Input(3, 4, 4), Conv2d(2, 3)], mest.ShapeError),
        ([Input(3), Linear(4), Linear(2, from_=0)], mest.MestError),  # layer 1 leads nowhere
        ([Input(3, 4, 4), Conv2d(2, 1, padding=1), Flatten(), Linear(2)], mest.MestArgumentError),
        ([Input(3), ReLU()], mest.ShapeError),  # nothing to train
        ([Input(6, 4, 4), Conv2d(6, 3, groups=2), *_HEAD], mest.UnsupportedError),
        ([Input(3, 4, 4), Conv2d(6, 3, groups=3), *_HEAD], mest.UnsupportedError),
        ([Input(6, 4, 4), Conv2d(6, 3, groups=6, density=0.5), *_HEAD], mest.UnsupportedError),
    ],
)
def test_descriptions_that_do_not_fit(layers, kind):
    for make in (mest.plan, mest.Model):
        with pytest.raises(kind) as caught:
            make(layers)
        assert str(caught.value)


@pytest.mark.parametrize(
    "layers, words",
    [
        ([Input(3), ReLU], "not a layer"),
        ([Input(3), Linear(0)], "features"),
        ([Input(-1), Linear(2)], "channels"),
        ([Input(3), Linear(2, density=0.0)], "density"),
        ([Input(3), Linear(2, density=1.5)], "density"),
        ([Input(3), Linear(2, name="x" * 24)], "23 bytes"),
        ([Input(3), Linear(2, from_="nobody")], "no layer"),
        ([Input(3), Linear(2, from_=1)], "does not come before"),
        ([Input(3), Linear(2, from_=-2)], "does not come before"),
        (
            [Input(3), Linear(2, name="a"), Linear(2, name="a"), Linear(2, from_="a")],
            "more than one",
        ),
        ([Input(3), mest.Add()], "with_"),
        ([Input(3), mest.BatchNorm(momentum=0)], "momentum"),
        ([Input(1, 4, 4), Conv2d(2, (3, 3, 3))], "kernel"),
        ([Input(1, 4, 4), Conv2d(2, 3, padding=-1)], "padding"),
        ([Input(1, 4, 4), Conv2d(2, 3, stride=0)], "stride"),
        ([Input(1, 4, 4), Conv2d(2, 3, groups=0)], "groups"),
    ],
)
def test_descriptions_that_cannot_be_meant(layers, words):
    with pytest.raises((ValueError, TypeError), match=words):
        mest.plan(layers)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("method", "emm", "'em&s'"),
        ("loss", "l2", "'mse'"),
        ("schedule", "cos", "'cosine'"),
        ("simd", "sse", "'avx2'"),
        ("distribution", "er", "'erk'"),
        ("batch", 0, "above 0"),
        ("batch", -1, "must be above 0$"),
        ("mutation_rate", 2, "must be above 0 and below 1"),
        ("batch", 2.5, "integer"),
        ("batch", 2**40, "below"),
        ("density", 0.0, "above 0"),
        ("mutation_rate", 0, "above 0"),
        ("learning_rate", -0.1, "at least"),
        ("mutation_epochs", 3, "two epochs"),
        ("mutation_epochs", (3,), "two epochs"),
        ("mutation_epochs", (3, 4, 5), "two epochs"),
        ("remove_rule", "all", "'fraction'"),
        ("importance_gradient", "first", "'ema'"),
    ],
)
def test_wrong_words(field, value, words):
    with pytest.raises(ValueError, match=words) as caught:
        tiny(**{field: value})
    assert field in str(caught.value)


def test_messages_say_words_for_constants():
    """Who wrote a word, or MEST_SCHEME_NM24, is not answered with 6."""
    conv = [Input(4, 6, 6), Conv2d(4, 3, density=0.6), *_HEAD]
    for scheme, word in (("nm24", "NM24"), ("pattern", "PATTERN")):
        with pytest.raises(ValueError, match=f"scheme {word} has at most 0.[45]"):
            mest.plan(conv, scheme=scheme)
    blocks = mest.Model([Input(8), Linear(8, density=0.5, scheme="block4"), Linear(2)])
    with pytest.raises(mest.UnsupportedError, match="row 1 .*scheme BLOCK4 cannot hold"):
        blocks.set_csr(1, [0, *[1] * 8], [0], [1.0])
    with pytest.raises(ValueError, match="has no tensor RUNNING_VAR"):
        blocks.tensor(1, "running_var")
    described = describe([Input(4), Linear(2)])
    described[1].scheme = 13
    message = plan_status(described)[1]
    assert "scheme is 13" in message and message.endswith("use MEST_SCHEME_*")


@pytest.mark.parametrize("word", ["sse", "AVX2", " avx2", "avx2,neon", "3", "fpu"])
def test_wrong_word_in_the_environment(word, monkeypatch):
    monkeypatch.setenv("MEST_SIMD", word)
    for make in (tiny, lambda: mest.plan([Input(4), Linear(3)])):
        words = "MEST_SIMD.*auto, reference, avx2, avx512, neon"
        with pytest.raises(mest.MestArgumentError, match=words):
            make()
    tiny(simd="reference")


def test_environment_names_what_this_machine_lacks(monkeypatch):
    lacking = "avx2" if platform.machine() == "aarch64" else "neon"
    monkeypatch.setenv("MEST_SIMD", lacking)
    for make in (tiny, lambda: mest.plan([Input(4), Linear(3)])):
        with pytest.raises(mest.UnsupportedError, match=f"MEST_SIMD says {lacking}"):
            make()
    with pytest.raises(mest.UnsupportedError, match=f"simd is {lacking},"):
        tiny(simd=lacking)
    tiny(simd="reference")


@pytest.mark.parametrize(
    "field, meant",
    [
        ("lr", "learning_rate"), ("learnin_rate", "learning_rate"), ("sparsity", "density"),
        ("batch_size", "batch"), ("Momentum", "momentum"), ("mutation_epoch", "mutation_epochs"),
        ("zzz", "help"),
    ],
)  # fmt: skip
def test_unknown_field(field, meant):
    for make in (tiny, mest.Config):
        with pytest.raises(TypeError, match=f"no field '{field}'.*{meant}") as caught:
            make(**{field: 0.1})
        assert len(str(caught.value)) < 100


def test_learning_rate_none():
    """The library's default, 0, would train nothing; an explicit 0 is meant."""
    for make in (tiny, lambda **config: mest.plan([Input(4), Linear(3)], **config)):
        with pytest.raises(ValueError, match="0.1 for example"):
            make(learning_rate=None)
        make(learning_rate=None, inference_only=True)
        make(learning_rate=0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Linear(784, 128), r"Linear\(784, 128\).*only features.*layer before"),
        (lambda: Conv2d(3, 16, 3), r"Conv2d\(3, 16, 3\).*only channels and kernel.*stride"),
        (lambda: mest.MaxPool(2, 2), "only kernel"),
        (lambda: mest.AvgPool(2, 2), "AvgPool.*only kernel"),
        (lambda: Linear(3, inputs=4), "inputs"),
    ],
)
def test_numbers_in_the_order_of_others(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_signatures_show_keywords():
    assert str(inspect.signature(Linear)).startswith("(features: 'int', *, density")
    assert repr(Conv2d(channels=4, kernel=3, stride=2)) == "Conv2d(4, 3, stride=2)"


EVERY_SETTING = dict(
    seed=1, batch=2, micro_batches=3, threads=4, simd="avx2", budget_bytes=5, gradient_chunks=6,
    inference_only=True, activations="bfloat16", recompute="block", loss="mse", label_smoothing=0.25,
    learning_rate=0.5, momentum=0.75, weight_decay=0.125, clip_norm=7, nesterov=True, decay_bias=False,
    decay_norm=False, epochs=8, steps_per_epoch=9, schedule="cosine", schedule_by_update=True, schedule_every=10,
    schedule_gamma=0.5, learning_rate_min=0.25, warmup_epochs=11, density=0.5, scheme="2:4", code8_patterns=True,
    distribution="erk", allow_empty_rows=True, initial="magnitude", method="EM&S", mutation_decay="cosine",
    mutation_every=12, mutation_updates=20, mutation_epochs=(13, 14), mutation_rate=0.5, mutation_extra=0.25,
    initial_density=0.5, exclude_dropped=True, round_compat=True, normalised=True, global_threshold=True,
    importance_gradient="momentum", importance_lambda=0.5, importance_beta=0.25, samples=15, phase1_epochs=16,
    remove_rule="fraction", remove_count=17, remove_number=18, remove_fraction=0.5, keep_lowest=19,
    remove_class_cap=0.75, margins=True, given_order=True, freeze_share=0.5, freeze_epochs=(21, 22),
    sieve_absent=0.5, sieve_every=23, sieve_share=0.25, recover_epochs=24, recover_rate=0.25,
)  # fmt: skip


def test_every_config_field_arrives():
    """Each field of mest_config can be set by some word or number of Config."""
    struct = mest.Config(**EVERY_SETTING).to_struct()
    assert set(EVERY_SETTING) == set(vars(mest.Config()))
    for name, _ in _abi.mest_config._fields_:
        value = getattr(struct, name)
        if name == "reserved":
            continue
        assert any(value) if isinstance(value, ctypes.Array) else value != 0, name
        if name in EVERY_SETTING and not isinstance(EVERY_SETTING[name], (str, tuple)):
            assert value == EVERY_SETTING[name], name
    assert list(struct.freeze_epochs) == [21, 22]
    assert (struct.optimizer_flags, struct.mutation_flags, list(struct.mutation_epochs)) == (7, 15, [13, 14])
    assert mest.Config(method="ems").to_struct().method == _abi.MEST_METHOD_EMS


def test_every_field_is_documented_with_its_default():
    documented = dict(re.findall(r"^ {6}(\w+) = (\S+)  ", mest.Config.__doc__, flags=re.M))
    assert documented == {f.name: repr(f.default) for f in dataclasses.fields(mest.Config)}


# As its documentation says: values at the edge of what a field may be, and beyond.
_MOVES = dict(method="em&s", epochs=8)
_LEAVE = dict(samples=99, epochs=8, phase1_epochs=2)
_RANGES = [
    ("seed", (0, 2**64 - 1), (-1, 2**64), {}),
    ("batch", (1, 65536), (0, 65537), dict(inference_only=True)),
    ("micro_batches", (1, 65536), (0, 65537), {}),
    ("threads", (1, 256), (-1, 257), {}),
    ("gradient_chunks", (1, 64), (0, 65), {}),
    ("label_smoothing", (0.0, 0.99), (-0.1, 1.0), {}),
    ("learning_rate", (0, 1e6), (-0.1, None), {}),
    ("momentum", (0, 0.999), (-0.1, 1), {}),
    ("weight_decay", (0, 10), (-0.1,), {}),
    ("clip_norm", (1e-3, 1e6), (-1,), {}),
    ("epochs", (1, 2**31 - 1), (-1, 2**31), {}),
    ("steps_per_epoch", (1, 2**31 - 1), (-1, 2**31), {}),
    ("schedule_every", (1, 2**31 - 1), (-1, 2**31, None), dict(schedule="step")),
    ("schedule_gamma", (1e-6, 2), (0, -1), dict(schedule="step", schedule_every=1)),
    ("learning_rate_min", (0, 1), (-0.1,), dict(schedule="cosine", epochs=8)),
    ("density", (1e-6, 0.9), (0, 1.1, 9e-7), {}),
    ("mutation_every", (1, 2**31 - 1), (0, 2**31), _MOVES),
    ("mutation_epochs", ((1, 1), (3, 7)), ((3, 2), (3, 8)), _MOVES),
    ("mutation_rate", (1e-6, 0.999), (0, 1), dict(method="em", epochs=8)),
    ("mutation_rate", (0.001, 0.999), (9e-4,), dict(method="lottery", mutation_every=1, epochs=5000)),
    ("mutation_extra", (1e-6, 0.999), (0, 1), _MOVES),
    ("mutation_updates", (1, 2**31 - 1), (0, 2**32), dict(method="rigl", epochs=8, samples=99)),
    ("initial_density", (0.5, 1), (0, 1.1, 0.4), dict(method="gmp", epochs=8)),
    ("importance_lambda", (0, 100), (-0.1,), _MOVES),
    ("importance_beta", (0.001, 0.999), (0, 1), dict(importance_gradient="ema", **_MOVES)),
    ("phase1_epochs", (1, 7), (8, None), {**_LEAVE, "remove_rule": "count"}),
    ("remove_number", (1, 98), (0, -1, 99), {**_LEAVE, "remove_rule": "number"}),
    ("remove_class_cap", (1e-6, 0.999), (0, 1), {**_LEAVE, "remove_rule": "count"}),
    ("remove_fraction", (1e-3, 0.999), (0, 1), {**_LEAVE, "remove_rule": "fraction"}),
    ("sieve_absent", (0.01, 0.99), (0, 1), dict(samples=99)),
    ("sieve_every", (1, 2**31 - 1), (0, 2**31), dict(samples=99, sieve_absent=0.5)),
    ("sieve_share", (1e-6, 0.999), (0, 1), dict(samples=99, sieve_absent=0.5)),
    ("freeze_share", (0.9, 0.999), (0, 1, 0.1), dict(epochs=8)),
    ("freeze_epochs", ((1, 1), (3, 7)), ((3, 2), (3, 8), (3,)), dict(epochs=8, freeze_share=0.9)),
]


@pytest.mark.parametrize("field, fine, wrong, more", _RANGES, ids=[row[0] for row in _RANGES])
def test_ranges_of_the_config(field, fine, wrong, more):
    layers = [Input(4), Linear(8), Linear(2, density=1.0)]
    for value in fine:
        mest.plan(layers, **{"density": 0.5, **more, field: value})
    for value in wrong:
        with pytest.raises((ValueError, mest.MestError)):
            mest.plan(layers, **{"density": 0.5, **more, field: value})


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(epochs=float("nan")), "epochs=nan"),
        (dict(epochs=float("inf")), "epochs=inf"),
        (dict(epochs=1.5), "epochs=1.5: an integer"),
        (dict(density=np.ones(2)), "density=.*: a number is wanted"),
        (dict(config={"density": 0.5}), "a mest.Config is wanted"),
        (dict(drop_fraction=0.3), "did you mean mutation_rate"),
    ],
)
def test_wrong_kinds_of_values_name_the_field(fields, words):
    with pytest.raises((TypeError, ValueError), match=words):
        mest.plan([Input(4), Linear(2)], **fields)


def test_wrong_density_of_a_layer():
    with pytest.raises(ValueError, match=r"Linear\(2, density='a'\): density is the share"):
        mest.plan([Input(4), Linear(2, density="a")])


def test_words_may_be_written_otherwise():
    model = mest.Model([Input(4), Linear(2)], loss="MSE", method="Static", batch=4)
    assert (model.config.loss, model.config.method) == ("mse", "static")
    model.step(X, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="mse"):
        model.predict_proba(X)


@pytest.mark.parametrize(
    "shape, found, words",
    [
        ((3, 32, 32), (2, 32, 32, 3), r"\(2, 32, 32, 3\).*channels come first here: x.transpose\(0, 3, 1, 2\)"),
        ((1, 8, 8), (2, 8, 8, 1), r"x.transpose\(0, 3, 1, 2\)"),
        ((3, 32, 32), (2, 28, 28, 3), r"x.transpose\(0, 3, 1, 2\)"),
        ((3, 32, 32), (2, 32, 32, 4), r"x.transpose\(0, 3, 1, 2\)"),
        ((5, 8, 6), (2, 8, 6, 5), r"x.transpose\(0, 3, 1, 2\)"),
        ((3, 32, 32), (32, 32, 3), r"x.transpose\(2, 0, 1\)\[None\]"),
        ((1, 8, 6), (2, 8, 6), r"x\[:, None\]"),
        ((3, 8, 8), (3, 8, 8), r"x\[None\]"),
        ((3, 32, 32), (2, 1, 32, 32), r"\(n, 3, 32, 32\)$"),
        ((3, 32, 32), (2, 3, 28, 4), r"\(n, 3, 32, 32\)$"),
    ],
)
def test_pictures_of_another_shape_are_told_what_mostly_lies_behind(shape, found, words):
    model = mest.Model([Input(*shape), mest.GlobalAvgPool(), Linear(2)], batch=4, epochs=1)
    with pytest.raises(mest.MestArgumentError, match=words):
        model.fit(np.zeros(found, np.float32), np.zeros(found[0], int), progress=False)


@pytest.mark.parametrize(
    "layers, kind, words",
    [
        ("resnet20", TypeError, r"layers='resnet20': a list of layers .* mest.resnet\(20\)"),
        (Linear(3), TypeError, r"layers=Linear\(3\): a list"),
        (5, TypeError, "layers=5: a list"),
        ([Linear(3)], mest.ShapeError, r"layer 0 is Linear\(3\): the first is Input.*Input\(features\)"),
        ([Linear(3), ReLU()], mest.ShapeError, "the first is Input"),
    ],
)
def test_what_is_no_list_from_an_input(layers, kind, words):
    for make in (mest.plan, mest.Model):
        with pytest.raises(kind, match=words):
            make(layers)


def test_widths_of_an_mlp_are_a_list():
    with pytest.raises(TypeError, match=r"hidden=128: a list .*\[128\]"):
        mest.mlp(784, 128, 10)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_one_output_and_two_classes(dtype):
    model = mest.Model([Input(4), Linear(1)], batch=4, epochs=1)
    with pytest.raises(mest.MestArgumentError, match=r"y\[1\] is 1; one output is one class; .* 2 outputs"):
        model.fit(X, np.array([0, 1, 0, 1], dtype), progress=False)


@pytest.mark.parametrize("fields", [dict(remove_number=-1), dict(keep_lowest=-1), dict(remove_number=0.5)])
def test_wrong_selections(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        tiny(samples=9).select("number", **fields)


def test_fit_of_fewer_than_no_epochs():
    with pytest.raises(ValueError, match="epochs is -1"):
        tiny().fit(X, Y, -1, progress=False)


@pytest.mark.parametrize(
    "x, y, words",
    [
        (np.ones((4, 5)), Y, r"shape \(4, 5\).*\(n, 4\)"),
        (np.ones(4), Y, r"x\[None\]"),
        (np.full((4, 4), "a"), Y, "numbers are wanted"),
        (X, Y[:3], r"\(4,\)"),
        (X, np.eye(4, 3), r"one-hot rows: y.argmax\(1\)"),
        (X, Y[:, None], r"one axis: y.ravel\(\)"),
        (X, np.array(list("abca")), r"np.unique\(y, return_inverse=True\).*mest.MestClassifier"),
        (X, np.array(list("abca"), object), r"np.unique\(y, return_inverse=True\)"),
        (X, np.zeros(4), r"y.astype\(np.int32\)"),
        (X, np.array([0, 1, 2, 3]), "3 classes"),
        (X, np.array([0, -1, 2, 0]), "3 classes"),
        (X, np.array([0, 2**32, 0, 0]), "3 classes"),
        (X, np.zeros(4), "integers"),
        (
            np.ones((5, 4), np.float32),
            np.zeros(5, int),
            "batch|count|samples",
        ),  # more than the batch
        (np.full((4, 4), np.nan, np.float32), Y, "finite"),
        (np.full((4, 4), np.inf, np.float32), Y, "finite"),
        (np.ones((0, 4), np.float32), Y[:0], "count|batch|samples"),
    ],
)
def test_wrong_data(x, y, words):
    model = tiny()
    before = fingerprint(model)
    with pytest.raises(mest.MestArgumentError, match=words):
        model.step(x, y)
    assert fingerprint(model) == before
    model.step(X, Y)


def test_wrong_data_in_parts():
    """Long arrays reach the library in parts; the sample named is that of the caller."""
    model = tiny()
    x, y = np.ones((200, 4), np.float32), np.zeros(200, np.int32)
    x[150, 2], y[160] = np.inf, 7
    with pytest.raises(mest.MestArgumentError, match="value 2 of sample 150 is inf"):
        model.predict(x)
    with pytest.raises(mest.MestArgumentError, match=r"y\[160\] is 7; there are 3 classes"):
        model.evaluate(x, y)
    with pytest.raises(mest.MestArgumentError, match="sample 150"):
        model.evaluate(x, np.zeros(200, np.int32))


def test_wrong_ids():
    with pytest.raises(ValueError, match="samples"):
        tiny().step(X, Y, ids=np.arange(4))
    model = tiny(samples=10)
    for ids in ([0, 1, 2, 10], [0, 1, 2, -1], [0, 1], [0.0, 1.0, 2.0, 3.0]):
        with pytest.raises(ValueError):
            model.step(X, Y, ids=ids)
    model.step(X, Y, ids=[9, 8, 0, 1])
    with pytest.raises(mest.StateError):
        tiny().forgetting()


def test_wrong_tensors():
    model = tiny()
    for layer, what in (
        (0, "weight"),
        (2, "bias"),
        (1, "scale"),
        (9, "weight"),
        (1.0, "weight"),
        (None, "weight"),
        (-1, "weight"),
        ("x", "weight"),
    ):
        with pytest.raises(mest.MestArgumentError):
            model.tensor(layer, what)
    with pytest.raises(ValueError, match="running_mean"):
        model.tensor(1, "wait")
    with pytest.raises(mest.MestArgumentError):
        model.set_tensor(1, "weight_gradient", np.zeros(16))
    with pytest.raises(mest.MestArgumentError, match="shape"):
        model.set_tensor(3, "weight", np.zeros(24))
    with pytest.raises(mest.MestArgumentError):
        model.set_tensor(3, "bias", [np.nan, 0, 0])
    with pytest.raises(mest.MestArgumentError):
        model.csr(3)


@pytest.mark.parametrize(
    "indptr, indices",
    [
        ([0] * 8, []), ([0] * 9, [1]), ([0] + [1] * 8, [4]), ([0] + [2] * 8, [1, 1]),
        ([0] + [2] * 8, [2, 1]), ([1] + [2] * 8, [1, 2]), ([0, 2, 1] + [3] * 6, [0, 1, 2]),
        ([0, 4, 8, 12, 16, 20, 20, 20, 20], [0, 1, 2, 3] * 5),  # above the capacity of 16
    ],
)  # fmt: skip
def test_wrong_csr(indptr, indices):
    model = tiny()
    before = fingerprint(model)
    with pytest.raises(mest.MestArgumentError):
        model.set_csr(1, indptr, indices, np.ones(len(indices)))
    assert fingerprint(model) == before


def test_divergence_leaves_the_model():
    model = mest.Model([Input(2), Linear(2, density=1.0)], batch=1, loss="mse", learning_rate=0.01)
    model.step([[1.0, 1.0]], [[3.0, 4.0]])
    before = fingerprint(model)
    with pytest.raises(ArithmeticError):
        for _ in range(5):
            before = fingerprint(model)
            model.step([[1e30, 1e30]], [[3.0, 4.0]])
    assert fingerprint(model) == before


def test_loading_names_the_file(tmp_path):
    path, model = tmp_path / "short.mest", tiny()
    path.write_bytes(b"hello")
    with pytest.raises(mest.CorruptError, match=r"short\.mest: the file ends after 5 bytes"):
        model.load(path)
    mest.Model(mest.mlp(5, [4], 2), batch=4).save(path)
    with pytest.raises(mest.MestArgumentError, match=r"^\S*short\.mest: "):
        model.load(path)
    with pytest.raises(mest.MestIOError, match=r"none\.mest"):
        model.load(tmp_path / "none.mest")
