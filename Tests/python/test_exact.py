# SPDX-License-Identifier: Apache-2.0
"""One seed, one result: the same bits for every number of threads and every instruction set."""

import numpy as np
import pytest
from support import fingerprint

import mest
from mest import Dropout, Flatten, Input, Linear, ReLU, _lib
from mest.datasets import digits

SIMD = ("reference", "avx2", "avx512", "neon")


def trained(layers, x, y, **config):
    """Fingerprint, losses and outputs after a few epochs with mutation; None where the machine
    lacks the instructions."""
    config = dict(
        density=0.2, method="em&s", mutation_every=1, epochs=3, samples=len(x), batch=24,
        importance_lambda=0.01, **config,
    )  # fmt: skip
    try:
        model = mest.Model(layers, **config)
    except mest.UnsupportedError:
        return None
    history = model.fit(x, y, progress=False)
    outputs = model.predict(x[:40])
    return fingerprint(model), history.column("loss").tolist(), outputs.tobytes()


def cases():
    yield (
        "mlp",
        lambda: [Input(30), Linear(70), ReLU(), Dropout(0.2), Linear(5, density=1.0)],
        (30,),
    )
    yield "resnet", lambda: mest.resnet(8, 8, 5, (2, 9, 7)), (2, 9, 7)
    yield "ds-cnn", lambda: mest.ds_cnn(5, 20, 2, (1, 21, 10)), (1, 21, 10)
    yield (
        "depthwise",
        lambda: [
            Input(3, 9, 11),
            mest.Conv2d(9, 1),
            ReLU(),
            mest.Conv2d(9, (5, 3), stride=(2, 1), padding=(2, 1), groups=9),
            mest.BatchNorm(),
            ReLU(),
            mest.Conv2d(9, 3, groups=9, bias=False),
            mest.BatchNorm(),
            mest.Conv2d(7, 1),
            Flatten(),
            Linear(5, density=1.0),
        ],
        (3, 9, 11),
    )
    yield (
        "pools",
        lambda: [
            Input(3, 9, 11),
            mest.Conv2d(9, 3, padding=1),
            mest.MaxPool(3, stride=2, padding=1),
            mest.BatchNorm(),
            ReLU(),
            mest.Conv2d(7, (2, 3), stride=(2, 1)),
            mest.AvgPool(2),
            Flatten(),
            Linear(5, density=1.0),
        ],
        (3, 9, 11),
    )


@pytest.fixture(params=list(cases()), ids=lambda case: case[0])
def case(request):
    _, layers, shape = request.param
    rng = np.random.default_rng(1)
    return layers, rng.normal(size=(100, *shape)).astype(np.float32), rng.integers(0, 5, 100)


def test_threads(case):
    layers, x, y = case
    results = [trained(layers(), x, y, threads=threads) for threads in (1, 2, 3, 4)]
    assert results[0] is not None and all(r == results[0] for r in results)


def test_instruction_sets(case):
    layers, x, y = case
    results = {simd: trained(layers(), x, y, simd=simd, threads=2) for simd in SIMD}
    results["auto"] = trained(layers(), x, y, simd="auto", threads=2)
    known = {simd: result for simd, result in results.items() if result is not None}
    assert "reference" in known and len(set(map(repr, known.values()))) == 1, {
        simd: result[0] for simd, result in known.items()
    }


@pytest.mark.parametrize("simd", SIMD)
def test_instruction_set_of_the_environment(case, simd, monkeypatch):
    """MEST_SIMD says what AUTO means, and nothing where the program says it."""
    layers, x, y = case
    usual = trained(layers(), x, y)
    explicit = trained(layers(), x, y, simd=simd)
    monkeypatch.setenv("MEST_SIMD", simd)
    assert trained(layers(), x, y) == explicit in (None, usual)
    assert trained(layers(), x, y, simd="reference") == usual
    here = f"{simd}, as MEST_SIMD says" if explicit else "nothing, MEST_SIMD is refused"
    assert f"here: {here}" in _lib.library().mest_build_info().decode()


@pytest.mark.parametrize("word", ["auto", ""])
def test_environment_that_names_no_instruction_set(case, word, monkeypatch):
    layers, x, y = case
    monkeypatch.delenv("MEST_SIMD", raising=False)
    usual, build = trained(layers(), x, y), _lib.library().mest_build_info()
    monkeypatch.setenv("MEST_SIMD", word)
    assert trained(layers(), x, y) == usual
    assert _lib.library().mest_build_info() == build and b"MEST_SIMD" not in build


@pytest.mark.parametrize("batch", [1, 3, 5, 9, 17])
def test_instruction_sets_at_every_number_of_lanes(case, batch):
    """Batches of 1, 4, 8 and 16 lanes take different paths through the kernels."""
    layers, x, y = case
    hashes = set()
    for simd in SIMD:
        try:
            model = mest.Model(layers(), density=0.2, batch=batch, simd=simd)
        except mest.UnsupportedError:
            continue
        for start in range(0, 3 * batch, batch):
            model.step(x[start : start + batch], y[start : start + batch])
        hashes.add(fingerprint(model))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"micro_batches": 2},
        {"clip_norm": 0.5, "nesterov": True},
        {"label_smoothing": 0.1, "importance_gradient": "ema"},
        {"gradient_chunks": 1},
        {"gradient_chunks": 64},
    ],
    ids=str,
)
def test_settings(settings, case):
    layers, x, y = case
    results = [
        trained(layers(), x, y, threads=threads, simd=simd, **settings)
        for threads, simd in ((1, "reference"), (2, "auto"), (4, "auto"))
    ]
    assert all(r == results[0] for r in results)


def test_runs(case):
    layers, x, y = case
    first, again, other = (trained(layers(), x, y, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_seed_of_64_bits(case):
    layers, x, y = case
    assert trained(layers(), x, y, seed=1) != trained(layers(), x, y, seed=1 + 2**32)


def test_mse_is_exact_too(case):
    layers, x, y = case
    targets = np.eye(5, dtype=np.float32)[y]
    results = [
        trained(layers(), x, targets, loss="mse", learning_rate=0.01, threads=t, simd=s)
        for t, s in ((1, "reference"), (3, "auto"))
    ]
    assert results[0] == results[1]


def test_digits_across_threads_and_paths():
    data = digits()
    results = [
        trained(
            mest.resnet(8, 8, 10, (1, 8, 8)),
            data.x_train[:300],
            data.y_train[:300],
            threads=t,
            simd=s,
        )
        for t, s in ((1, "auto"), (2, "auto"), (2, "reference"))
    ]
    assert results[0] == results[1] == results[2]
