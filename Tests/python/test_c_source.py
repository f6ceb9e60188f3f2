# SPDX-License-Identifier: Apache-2.0
"""Models as C source: what it computes, how large it is, what is refused."""

import functools
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from c_programs import GCC, Program, compile_c, run_on_cortex_m, run_sanitised
from graphs import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from support import randomise, tiny

import mest
from mest import Add, BatchNorm, Conv2d, Dropout, Flatten, GlobalAvgPool, Input, Linear, MaxPool, ReLU
from mest.datasets import digits
from mest.exchange.c import buffers, text as c_text, emulate, quantise, sparse_code
from mest.exchange.c.program import program_of

needs_gcc = pytest.mark.skipif(GCC is None, reason="no gcc")
NETWORKS = {
    "mlp": (lambda: mest.mlp((1, 8, 8), [64], 10), 0.1),
    "resnet": (lambda: mest.resnet(8, 8, 10, input=(1, 8, 8)), 0.2),
    "ds_cnn": (lambda: mest.ds_cnn(10, 16, 2, input=(1, 8, 8)), 0.3),
}


@functools.lru_cache(None)
def trained(kind):
    layers, density = NETWORKS[kind]
    data = digits()
    model = mest.Model(
        layers(), density=density, method="em&s", mutation_every=1, epochs=6, batch=32,
        samples=len(data.x_train), learning_rate=0.05, threads=1,
    )  # fmt: skip
    model.fit(data.x_train, data.y_train, progress=False)
    return model


def random_model(layers, seed=0, **config):
    model = mest.Model(layers, threads=1, seed=seed, **{"batch": 4, "density": 0.3, **config})
    randomise(model, np.random.default_rng(seed))
    return model


def samples(model, count=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, model.plan().inputs)).astype(np.float32)


def same(actual, expected):
    """To 1e-5 of the largest output."""
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max()
    assert error <= 1e-5 * np.abs(expected).max(), f"{error} of {np.abs(expected).max()}"


def check(model, folder, x):
    """The C program gives what predict gives; in integers the very ones of the emulation."""
    expected = model.predict(x)
    same(Program(mest.to_c(model, folder), expected.shape[1]).predict(x), expected)
    written = mest.to_c(model, folder, int8=True, calibration=x)
    known = quantise.quantise(program_of(model), x)
    program = Program(written, expected.shape[1])
    assert np.array_equal(program.predict(x), quantise.predict(known, x))
    integers = quantise.to_integers(x, known.scales[0])
    assert np.array_equal(program.call("predict_int8", integers, np.int8), quantise.run(known, x))


# -------------------------------------------------------------------------------- what it computes ---


@needs_gcc
@pytest.mark.parametrize("seed", range(10))
def test_random_networks(seed, tmp_path):
    """Every layer, in graphs that fuse in all ways."""
    with random_model(Graph.random(seed).layers, seed) as model:
        check(model, tmp_path, samples(model))


EVERYTHING = [
    Input(3, 9, 7),
    Conv2d(6, (3, 2), stride=(2, 1), padding=(1, 0), name="first */ layer"),
    BatchNorm(),
    ReLU(name="trunk"),
    Conv2d(6, 3, padding=1, groups=6, name="deep"),
    BatchNorm(affine=False),
    Dropout(0.5),
    Add(with_="trunk"),
    BatchNorm(name="after the sum"),
    ReLU(),
    MaxPool(3, stride=2, padding=1),
    mest.AvgPool((2, 1), padding=(1, 0), stride=1),
    Conv2d(8, 1, density=0.5, bias=False),
    Flatten(),
    BatchNorm(),
    ReLU(),
    Linear(5, density=0.3),
    Dropout(0.1),
]


@needs_gcc
def test_every_layer_under_sanitisers(tmp_path):
    with random_model(EVERYTHING) as model:
        x = samples(model)
        check(model, tmp_path, x)
        for more in ({}, {"int8": True, "calibration": x}):
            written = mest.to_c(model, tmp_path, **more)
            found = run_sanitised(written, x, 5)
            assert np.array_equal(found, Program(written, 5).predict(x))


@needs_gcc
@pytest.mark.parametrize("scheme", ["block4", "row4", "nm24", "fan_in", "pattern", "filter", "channel"])
def test_schemes(scheme, tmp_path):
    layers = mest.resnet(8, 8, 10, input=(1, 8, 8))
    with random_model(layers, scheme=scheme, density=0.25) as model:
        x = samples(model)
        same(Program(mest.to_c(model, tmp_path), 10).predict(x), model.predict(x))


def test_channels_that_do_not_exist_take_no_room(tmp_path):
    """A network of whole channels is written as the smaller dense network that it is."""

    def layers():
        return [
            Input(1, 8, 8), Conv2d(16, 3, padding=1), BatchNorm(), ReLU(),
            Conv2d(16, 3, padding=1, name="second"), GlobalAvgPool(), Linear(4, density=1.0),
        ]  # fmt: skip

    with random_model(layers(), scheme="filter", density=0.25) as thin:
        small = mest.to_c(thin, tmp_path, "small")
    with random_model(layers(), density=1.0) as full:
        large = mest.to_c(full, tmp_path, "large")
    second = {part.name: part for part in small.layers}["second"]
    assert second.storage == "dense" and second.weights == 8 * 8 * 9
    assert small.scratch_bytes * 2 == large.scratch_bytes == 2 * 16 * 64 * 4


def test_connections_that_nobody_reads_leave(tmp_path):
    """Output 1 of the first layer is read by weights of value zero alone."""
    layers = [Input(2), Linear(3, density=1.0, name="a"), ReLU(), Linear(2, density=1.0, name="b")]
    with random_model(layers) as model:
        weight = model.tensor("b")
        weight[:, 1] = 0
        model.set_tensor("b", "weight", weight)
        program = program_of(model)
        assert program.shapes == ((2, 1, 1), (2, 1, 1), (2, 1, 1))
        same(emulate.predict(program, samples(model)), model.predict(samples(model)))


def test_what_dropout_and_flatten_hand_on_may_have_other_readers():
    """Batch norm behind one of them must not change what the others read."""
    layers = [
        Input(4), Linear(4, density=1.0, name="a"), Dropout(0.5, name="b"), BatchNorm(from_="b"), Flatten(),
        ReLU(), Linear(3, density=1.0), Flatten(from_="a"), ReLU(name="c"), Linear(3, density=1.0, from_="c"),
        Add(with_=6),
    ]  # fmt: skip
    with random_model(layers) as model:
        program = program_of(model)
        assert [step.op for step in program.steps] == ["linear", "scale", "linear", "relu", "linear", "add"]
        same(emulate.predict(program, samples(model)), model.predict(samples(model)))


def test_networks_without_a_living_weight(tmp_path):
    layers = [Input(2), Linear(3, density=1.0, name="a"), ReLU(), Linear(2, density=1.0, name="b")]
    with random_model(layers) as model:
        for name in "ab":
            model.set_tensor(name, "weight", np.zeros_like(model.tensor(name)))
        check(model, tmp_path, samples(model)) if GCC else mest.to_c(model, tmp_path)


def test_batch_norm_that_floats_cannot_fold(tmp_path):
    """A scale beyond floats when multiplied into the weights stays a step of its own."""
    layers = [Input(4), Linear(3, density=1.0, name="a"), BatchNorm(name="norm"), Linear(2, density=1.0)]
    with random_model(layers) as model:
        model.set_tensor("a", "weight", np.full((3, 4), 1e-3, np.float32))
        model.set_tensor("norm", "running_var", np.full(3, 1e-3, np.float32))
        assert [step.op for step in program_of(model).steps] == ["linear", "linear"]
        model.set_tensor("a", "weight", np.full((3, 4), 3e38, np.float32))
        assert [step.op for step in program_of(model).steps] == ["linear", "scale", "linear"]
        model.set_tensor("norm", "scale", np.full(3, 3e38, np.float32))
        with pytest.raises(mest.MestArgumentError, match="norm: its weight is beyond"):
            program_of(model)


# ---------------------------------------------------------------------------------------- trained ---


@pytest.mark.parametrize("kind", NETWORKS)
def test_trained_networks_keep_their_accuracy_in_8_bits(kind, tmp_path):
    model, data = trained(kind), digits()
    test = data.x_test, data.y_test
    floats = mest.to_c(model, tmp_path, "floats", evaluation=test)
    whole = mest.to_c(model, tmp_path, "whole", int8=True, calibration=data.x_train[:300], evaluation=test)
    assert floats.accuracy_float == whole.accuracy_float == model.evaluate(*test).accuracy > 0.85
    assert floats.accuracy_int8 is None and floats.agreement == 1.0
    assert floats.max_error <= 1e-5 * floats.max_output
    assert whole.accuracy_int8 > whole.accuracy_float - 0.01 and whole.agreement > 0.98
    assert whole.max_error < 0.25 * whole.max_output  # of inputs beyond what calibration has seen
    assert whole.constant_bytes < 0.55 * floats.constant_bytes and whole.scratch_bytes < floats.scratch_bytes
    if GCC:
        x = data.x_test.reshape(len(data.x_test), -1)
        same(Program(floats, 10).predict(x), model.predict(x))
        found = Program(whole, 10).predict(x)
        assert float((found.argmax(1) == data.y_test).mean()) == whole.accuracy_int8
        assert float(np.abs(found - model.predict(x)).max()) == whole.max_error


def test_report_says_all(tmp_path):
    data = digits()
    said = str(
        mest.to_c(
            trained("resnet"), tmp_path, int8=True, calibration=data.x_train[:50],
            evaluation=(data.x_test, data.y_test),
        )
    )  # fmt: skip
    wanted = ("conv1.1a .* sparse8, ", "classifier .* dense, 320 weights", "accuracy, int8", "largest error")
    for line in wanted:
        assert re.search(line, said), said


def test_mean_squared_error_has_no_accuracy(tmp_path):
    with tiny(loss="mse") as model:
        x = samples(model)
        written = mest.to_c(model, tmp_path, evaluation=(x, np.zeros((8, 3))))
        assert written.accuracy_float is None and written.agreement is None and written.max_error < 1e-5
        assert "accuracy" not in str(written)


# ---------------------------------------------------------------------------------------- the files ---


@needs_gcc
def test_scratch_is_as_large_as_the_header_says(tmp_path):
    with random_model(EVERYTHING) as model:
        x = samples(model)
        for more in ({}, {"int8": True, "calibration": x}):
            written = mest.to_c(model, tmp_path, **more)
            text = written.header.read_text()
            words = int(re.search(r"SCRATCH_WORDS (\d+)", text).group(1))
            assert written.scratch_bytes == 4 * words and f"{4 * words:,} bytes of scratch" in text
            program = Program(written, 5, "-DNETWORK_NO_STATIC_SCRATCH")
            assert not hasattr(program.library, "network_predict")
            scratch = np.full(words + 16, 0x5A5A5A5A, np.int32)
            found = program.call("predict_in", x, scratch=scratch[8 : words + 8])
            assert np.array_equal(found, Program(written, 5).predict(x))
            assert (scratch[:8] == 0x5A5A5A5A).all() and (scratch[-8:] == 0x5A5A5A5A).all()
            assert (scratch[8:-8] != 0x5A5A5A5A).mean() > 0.9  # and no larger than it needs


@needs_gcc
def test_only_what_is_needed_is_written(tmp_path):
    written = mest.to_c(trained("mlp"), tmp_path, "net")
    text = written.source.read_text()
    assert "linear_sparse8(" in text and not re.search("conv2d|span|pool|add|requantise", text)
    compile_c(written.source, tmp_path / "net.o", "-c")
    command = ["nm", str(tmp_path / "net.o")]
    names = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert set(re.findall(r" [TBDC] (\w+)", names)) == {"net_predict", "net_predict_in"}
    assert set(re.findall(r" U (\w+)", names)) <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


@needs_gcc
def test_header_and_source_of_two_exports_do_not_compile(tmp_path):
    written = mest.to_c(trained("mlp"), tmp_path)
    kept = written.header.read_text()
    mest.to_c(trained("ds_cnn"), tmp_path)
    written.header.write_text(kept)
    with pytest.raises(AssertionError, match="not of one export"):
        compile_c(written.source, tmp_path / "o", "-c")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_header_is_cxx_too(tmp_path):
    with tiny() as model:
        mest.to_c(model, tmp_path, int8=True, calibration=samples(model))
    (tmp_path / "a.cpp").write_text('#include "network.h"\nfloat y[NETWORK_OUTPUTS];\n')
    command = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "a.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True)


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no arm-none-eabi-gcc")
@pytest.mark.parametrize("int8", [False, True])
def test_sizes_on_a_cortex_m(int8, tmp_path):
    """Flash and RAM are what the report says, the stack is small."""
    data = digits()
    more = {"int8": True, "calibration": data.x_train[:50]} if int8 else {}
    written = mest.to_c(trained("resnet"), tmp_path, **more)
    target = tmp_path / "network.o"
    flags = ["-mcpu=cortex-m4", "-mthumb", "-O0", "-fstack-usage", "-c"]
    compile_c(written.source, target, *flags, compiler="arm-none-eabi-gcc")
    command = ["arm-none-eabi-size", "-A", str(target)]
    sizes = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {name: int(size) for name, size in re.findall(r"^\.(\w+)\s+(\d+)", sizes, flags=re.M)}
    constants = len(re.findall("^static const", written.source.read_text(), flags=re.M))
    assert written.constant_bytes <= found["rodata"] <= written.constant_bytes + 3 * constants
    assert found["bss"] == written.scratch_bytes and found["data"] == 0
    assert found["text"] < 8192
    frames = [int(line.split("\t")[1]) for line in (tmp_path / "network.su").read_text().splitlines()]
    assert sum(sorted(frames)[-4:]) < 1024


@needs_gcc
@pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")), reason="no emulated Cortex-M"
)
def test_bits_on_a_cortex_m(tmp_path):
    """A microcontroller computes what this machine does, to the bit."""
    with random_model(EVERYTHING) as model:
        x = samples(model, 3)
        for more in ({}, {"int8": True, "calibration": x}):
            written = mest.to_c(model, tmp_path, **more)
            assert np.array_equal(run_on_cortex_m(written, x, 5), Program(written, 5).predict(x))


def test_files_are_replaced_as_a_whole(tmp_path, monkeypatch):
    with tiny() as model, tiny(seed=1) as other:
        written = mest.to_c(model, tmp_path / "made")
        assert sorted(os.listdir(tmp_path / "made")) == ["network.c", "network.h"]
        before = written.source.read_bytes(), written.header.read_bytes()

        def fails(*_):
            raise OSError("no")

        monkeypatch.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="no"):
            mest.to_c(other, tmp_path / "made")
        assert (written.source.read_bytes(), written.header.read_bytes()) == before
        assert sorted(os.listdir(tmp_path / "made")) == ["network.c", "network.h"]


def test_equal_models_give_equal_files(tmp_path):
    texts = []
    for _ in range(2):
        with tiny() as model:
            written = mest.to_c(model, tmp_path, int8=True, calibration=samples(model))
            texts.append((written.header.read_text(), written.source.read_text()))
    assert texts[0] == texts[1]


# ------------------------------------------------------------------------------------------ refused ---


X4 = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"name": "2nd"}, "name='2nd'"),
        ({"name": "a-b"}, "name='a-b'"),
        ({"name": ""}, "name=''"),
        ({"name": "math"}, "math.h would hide"),
        ({"name": "über"}, "are wanted, a letter first"),
        ({"name": "x" * 64}, "are wanted, a letter first"),
        ({"int8": True}, "int8=True needs calibration"),
        ({"calibration": X4}, "calibration is for int8=True"),
        ({"int8": True, "calibration": X4[:, :3]}, r"calibration has shape \(2, 3\)"),
        ({"int8": True, "calibration": X4[:0]}, "calibration has no samples"),
        ({"int8": True, "calibration": X4 * np.nan}, "calibration: value 0 of sample 0 is nan"),
        ({"evaluation": (X4, [0])}, "evaluation's y has shape"),
        ({"evaluation": (X4, [0, 3])}, "there are 3 classes"),
        ({"evaluation": (X4[0], [0])}, "evaluation has shape"),
    ],
)
def test_what_cannot_be_meant_writes_nothing(more, message, tmp_path):
    with tiny() as model, pytest.raises(mest.MestArgumentError, match=message):
        mest.to_c(model, tmp_path, **more)
    assert not os.listdir(tmp_path)


def test_closed_models_and_bad_folders(tmp_path):
    model = tiny()
    with pytest.raises(mest.MestIOError, match="cannot make .*where: there is no folder .*no$"):
        mest.to_c(model, tmp_path / "no" / "where")
    (tmp_path / "file").write_text("")
    with pytest.raises(mest.MestIOError, match="is not a folder"):
        mest.to_c(model, tmp_path / "file")
    model.close()
    with pytest.raises(mest.StateError, match="closed"):
        mest.to_c(model, tmp_path)
    with pytest.raises(TypeError, match="list: to_c takes a mest.Model$"):
        mest.to_c([Input(4)], tmp_path)
    with pytest.raises(TypeError, match=r"MestRegressor: to_c takes .*fitted estimator that is its \.model_$"):
        mest.to_c(mest.MestRegressor(), tmp_path)
    assert os.listdir(tmp_path) == ["file"]


# -------------------------------------------------------------------------------------------- parts ---


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_values_that_live_at_once_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    lives = []
    for _ in range(int(rng.integers(1, 14))):
        first = int(rng.integers(0, 10))
        lives.append(buffers.Life(int(rng.integers(1, 50)), first, first + int(rng.integers(0, 6))))
    offsets = buffers.place(lives)
    for i, (a, at) in enumerate(zip(lives, offsets)):
        for b, beside in list(zip(lives, offsets))[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert at + a.size <= beside or beside + b.size <= at, (lives, offsets)
    least = max(sum(life.size for life in lives if life.first <= t <= life.last) for t in range(16))
    assert least <= max(at + life.size for life, at in zip(lives, offsets)) <= 2 * least


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16]))
def test_sparse_code_is_the_matrix(seed, bits):
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 6)), int(rng.choice([1, 7, 255, 256, 257, 1500]))
    some = rng.random((rows, columns)) < rng.choice([0, 0.003, 0.5])
    matrix = rng.integers(-3, 4, (rows, columns)) * some
    code = sparse_code.coded_in(matrix.astype(np.int8), bits)
    assert not code.steps.size or 0 <= code.steps.min() and code.steps.max() < 2**bits
    found, at = np.zeros_like(matrix), 0
    for row, count in enumerate(code.entries):
        place = np.cumsum(code.steps[at : at + count])
        np.add.at(found[row], place, code.values[at : at + count])
        at += count
    assert np.array_equal(found, matrix) and at == len(code.values) == len(code.steps)


def test_weights_are_stored_as_is_smallest():
    def bits(density, columns, size):
        rng = np.random.default_rng(0)
        weight = np.where(rng.random((8, columns, 1, 1)) < density, 1.0, 0.0)
        return sparse_code.stored(weight, size).bits

    assert [bits(d, 1000, 4) for d in (1.0, 0.9, 0.5, 0.05)] == [0, 0, 8, 8]
    assert [bits(d, 1000, 1) for d in (0.6, 0.4, 0.05)] == [0, 8, 8]
    assert bits(0.0003, 60000, 4) == 16  # steps of 3,000: 12 zeros between would be more


@needs_gcc
@pytest.mark.parametrize("bits", [8, 16])
def test_every_layer_with_steps_of(bits, tmp_path, monkeypatch):
    """Whatever is smallest; linear layers and convolutions read 8 and 16 bits."""

    def stored(weight, size):
        rows = sparse_code.dense(weight, size).values.reshape(len(weight), -1)
        return sparse_code.coded_in(rows, bits)

    monkeypatch.setattr(c_text, "stored", stored)
    layers = [Input(1, 9, 9), Conv2d(400, 1), *EVERYTHING[1:]]
    with random_model(layers, density=0.05) as model:
        model.set_tensor("deep", "weight", model.tensor("deep") * (np.arange(9).reshape(3, 3) % 4 == 0))
        written = mest.to_c(model, tmp_path)
        assert {f"sparse{bits}", "dense"} == {part.storage for part in written.layers if part.storage}
        check(model, tmp_path, samples(model, 3))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-25, 1e8))
def test_multipliers_are_the_factor(factor):
    (multiplier,), (shift,) = quantise.multipliers(np.array([factor]))
    assert 0 <= multiplier < 2**31 and 1 <= shift <= 62
    assert abs(float(multiplier) / 2.0 ** int(shift) - factor) <= max(factor * 2**-30, 2**-62)


@needs_gcc
def test_sums_never_leave_32_bits(tmp_path):
    """Biases far larger than what weights add, weights next to nothing, and inputs beyond calibration."""
    layers = [Input(64), Linear(16, density=1.0, name="a"), ReLU(), Linear(3, density=1.0)]
    with random_model(layers) as model:
        for bias, weight in ((1e6, 1e-6), (1e-20, 1e-20), (1e30, 1.0), (-1e6, 1e-30)):
            model.set_tensor("a", "bias", np.full(16, bias, np.float32))
            model.set_tensor("a", "weight", np.full((16, 64), weight, np.float32))
            x = samples(model)
            known = quantise.quantise(program_of(model), x)
            most = np.abs(known.steps[0].step.weight).sum((1, 2, 3)) * 255 + np.abs(known.steps[0].bias)
            assert (most < 2**31).all()
            program = Program(mest.to_c(model, tmp_path, int8=True, calibration=x), 3)
            beyond = np.concatenate([x * 100, -x * 1e30, x * 0])
            assert np.array_equal(program.predict(beyond), quantise.predict(known, beyond))
