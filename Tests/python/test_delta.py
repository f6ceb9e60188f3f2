# SPDX-License-Identifier: Apache-2.0
"""Deltas: there and back to the bit, and nothing changed by what is wrong."""

import math
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import fingerprint, randomise, tiny

import mest
from mest import BatchNorm, Conv2d, GlobalAvgPool, Input, Linear, ReLU
from mest.exchange.delta import file as delta_file
from mest.exchange.delta.exact import digest, state_of

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(64, 3 * 5 * 4)).astype(np.float32), RNG.integers(0, 4, 64)
SCHEMES = ["unstructured", "block4", "row4", "pattern", "nm24", "fan_in", "filter", "channel"]


def learner(scheme="unstructured", seed=0, **config):
    """Convolutions, batch norm, sparse and dense layers; moves connections every epoch."""
    layers = [
        Input(3, 5, 4), Conv2d(8, 3, padding=1, name="first"), BatchNorm(), ReLU(),
        Conv2d(8, 3, padding=1, bias=False, name="second"), BatchNorm(affine=False), ReLU(),
        GlobalAvgPool(), Linear(8, name="third"), ReLU(), Linear(4, density=1.0, name="last"),
    ]  # fmt: skip
    settings = {
        "density": 0.3, "method": "vanilla", "mutation_every": 1, "epochs": 50, "batch": 16, "samples": 64,
        "learning_rate": 0.05, "threads": 1, "seed": seed, "scheme": scheme, **config,
    }  # fmt: skip
    return mest.Model(layers, **settings)


def copy_of(model, tmp_path, **config):
    """Another model in the same state."""
    model.save(tmp_path / "copy.mest")
    other = learner(model.config.scheme, model.config.seed, **config)
    other.load(tmp_path / "copy.mest")
    return other


def train(model, epochs=2):
    model.fit(*DATA, epochs, progress=False)


def bits(model):
    """What predict gives, to the bit."""
    return model.predict(DATA[0]).tobytes()


# ---------------------------------------------------------------------------------- there and back ---


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_device_becomes_the_new_model_and_the_old_one_again(scheme, tmp_path):
    """Trained on, connections moved; the device has the delta as a file."""
    with learner(scheme) as new:
        train(new)
        with copy_of(new, tmp_path) as old, copy_of(new, tmp_path) as device:
            before, state = bits(new), digest(state_of(new))
            train(new)
            change = mest.delta(old, new)
            assert change.changed and change.removed and change.added
            change.save(tmp_path / "update.delta")
            read = mest.Delta.load(tmp_path / "update.delta")
            assert read == change != mest.delta(new, old) and hash(read) == hash(change)
            assert os.path.getsize(tmp_path / "update.delta") == change.file_bytes
            assert read.apply(device) is device
            assert bits(device) == bits(new) != before and digest(state_of(device)) == change.result_hash
            assert read.revert(device) is device
            assert bits(device) == before and digest(state_of(device)) == state == change.base_hash
            assert read.apply(device) is device and bits(device) == bits(new)


def test_a_device_that_only_predicts(tmp_path):
    with learner() as model, learner(inference_only=True) as device:
        mest.delta(device, model).apply(device)
        assert bits(device) == bits(model)
        with copy_of(model, tmp_path) as old:
            train(model)
            mest.delta(old, model).apply(device)
            assert bits(device) == bits(model)


def test_training_goes_on_with_the_momentum_of_what_stays(tmp_path):
    """An empty delta, and one of weights alone, leave the optimizer as it was."""
    with learner(method="static") as model:
        train(model)
        with copy_of(model, tmp_path, method="static") as other:
            assert mest.delta(model, other).changes == ()
            csr = other.csr("third")
            values = csr.values.copy()
            values[0] += 1
            momentum = other.tensor("third", "weight_momentum")
            other.set_csr("third", csr.indptr.copy(), csr.indices.copy(), values, momentum)
            change = mest.delta(model, other)
            assert (change.changed, change.removed, change.added) == (1, 0, 0)
            change.apply(model)
            assert fingerprint(model) == fingerprint(other)
            train(model)
            train(other)
            assert fingerprint(model) == fingerprint(other)


def test_momentum_of_connections_that_move(tmp_path):
    with learner() as new:
        train(new)
        with copy_of(new, tmp_path) as old:
            train(new, 1)
            places = {int(c): m for c, m in zip(positions(old), old.tensor("third", "weight_momentum"))}
            mest.delta(old, new).apply(old)
            now = old.tensor("third", "weight_momentum")
            assert [places.get(int(c), 0.0) for c in positions(old)] == now.tolist()
            assert np.count_nonzero(now) and np.count_nonzero(now == 0)


def positions(model):
    return state_of(model)["third.weight"].positions


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_two_states(seed):
    """Any connections and any finite values: negative zero, subnormal numbers, connections of value 0."""
    rng = np.random.default_rng(seed)
    special = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-40, 3.4e38, 1.0], np.float32)
    with tiny() as base, tiny() as new:
        for model in (base, new) if rng.random() < 0.8 else (new,):
            randomise(model, rng)
            room = model.plan().layers[1].capacity
            chosen = np.sort(rng.choice(32, int(rng.integers(1, room + 1)), replace=False))
            indptr = np.searchsorted(chosen, np.arange(0, 33, 4))
            values = np.where(rng.random(chosen.size) < 0.5, rng.choice(special, chosen.size), rng.normal())
            model.set_csr(1, indptr, chosen % 4, values.astype(np.float32))
        states = digest(state_of(base)), digest(state_of(new))
        change = mest.Delta.from_bytes(mest.delta(base, new).to_bytes())
        x = rng.normal(size=(5, 4)).astype(np.float32)
        wanted = base.predict(x).tobytes(), new.predict(x).tobytes()
        change.apply(base)
        assert digest(state_of(base)) == states[1] and base.predict(x).tobytes() == wanted[1]
        change.revert(new)
        assert digest(state_of(new)) == states[0] and new.predict(x).tobytes() == wanted[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_two_mappings(seed):
    """Arrays of any shape and any bits, NaN included."""
    rng = np.random.default_rng(seed)
    shapes = [(), (0,), (7,), (3, 4), (2, 3, 2, 2), (1000,)]
    draw = lambda shape: np.asarray(rng.integers(0, 2**32, shape, np.uint32)).view(np.float32)  # noqa: E731
    base = {str(number): draw(shape) for number, shape in enumerate(shapes)}
    new = {}
    for name, values in base.items():
        mask = (rng.random(values.shape) < rng.choice([0, 0.01, 0.5, 1])).astype(np.uint32)
        other = np.asarray(values.view(np.uint32) ^ rng.integers(0, 2**32, values.shape, np.uint32) * mask)
        new[name] = other.astype(np.uint32).view(np.float32)
    kept = {name: values.tobytes() for name, values in base.items()}
    change = mest.Delta.from_bytes(mest.delta(base, new).to_bytes())
    for made, wanted in ((change.apply(base), new), (change.revert(new), base)):
        assert list(made) == list(wanted)
        assert all(made[name].shape == wanted[name].shape for name in made)
        assert all(made[name].tobytes() == wanted[name].tobytes() for name in made)
    assert {name: values.tobytes() for name, values in base.items()} == kept


def test_checkpoints_stand_for_their_models(tmp_path):
    model = learner()
    train(model)
    model.save(tmp_path / "old.mest")
    old = copy_of(model, tmp_path)
    train(model)
    model.save(tmp_path / "new.mest")
    before, expected = fingerprint(model), mest.delta(old, model)
    paths = str(tmp_path / "old.mest"), tmp_path / "new.mest"
    assert mest.delta(paths[0], model) == mest.delta(old, paths[1]) == expected
    assert mest.delta(*paths, like=model) == mest.delta(*paths, like=learner(learning_rate=0.5)) == expected
    assert fingerprint(model) == before
    assert expected.apply(old) is old and mest.delta(old, paths[1]).changes == ()


def test_files_of_weights_stand_for_their_arrays(tmp_path):
    model = learner()
    names = tmp_path / "old.npz", tmp_path / "new.NPZ"
    states = []
    for name in names:
        train(model)
        mest.save_weights(model, name)
        states.append(model.state_dict())
    assert mest.delta(*names) == mest.delta(*states) == mest.delta(states[0], names[1])


def test_checkpoints_that_will_not_do(tmp_path):
    model = learner()
    path = tmp_path / "one.mest"
    model.save(path)
    with pytest.raises(mest.MestArgumentError, match="like=model"):
        mest.delta(path, path)
    with pytest.raises(TypeError, match="not changed in place"):
        mest.delta(model, model).apply(path)
    with pytest.raises(mest.MestArgumentError, match="one.mest.*scheme"):
        mest.delta(path, learner("block4"))
    with pytest.raises(mest.MestIOError, match="none.mest"):
        mest.delta(tmp_path / "none.mest", model)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(mest.CorruptError, match="one.mest"):
        mest.delta(path, model)
    mest.save_weights(model, tmp_path / "one.npz")
    with pytest.raises(mest.ShapeError, match="dense"):  # arrays do not tell connections from zeros
        mest.delta(tmp_path / "one.npz", model)


def test_layers_of_one_name():
    layers = lambda: [Input(4), Linear(3, density=0.5, name="a"), Linear(2, density=1.0, name="a")]  # noqa: E731
    with mest.Model(layers()) as base, mest.Model(layers(), seed=1) as new:
        change = mest.delta(base, new)
        assert [item.name for item in change.changes] == ["a.weight", "a_2.weight"]
        change.apply(base)
        assert digest(state_of(base)) == digest(state_of(new))


def test_sizes(tmp_path):
    """Small changes are small; everything new is little more than the state."""
    with learner() as base, learner() as near, learner(seed=1) as far:
        starts, columns, values = (array.copy() for array in near.csr("first"))
        near.set_csr("first", starts, columns, np.where(values > 0.5, 9, values))
        randomise(far, np.random.default_rng(0))
        count = int((values > 0.5).sum())
        small, large = mest.delta(base, near), mest.delta(base, far)
        assert 0 < small.changed == count and small.file_bytes < 160 + 5 * count
        assert small.full_bytes == large.full_bytes == sum(
            6 * layer.active if layer.sparse else 4 * layer.active for layer in base.plan().layers
        ) + 4 * sum(base.tensor(i, what).size for i, what in [
            (1, "bias"), (2, "scale"), (2, "bias"), (2, "running_mean"), (2, "running_var"),
            (5, "running_mean"), (5, "running_var"), (8, "bias"), (10, "bias"),
        ])  # fmt: skip
        assert large.file_bytes < 2 * large.full_bytes
        assert f"{count} numbers changed, 0 connections gone, 0 new" in str(small)
        assert f"the whole state has {small.full_bytes:,}" in str(small)


def test_hash_knows_everything_that_predict_reads():
    with learner() as model:
        seen = {digest(state_of(model))}
        tensors = [("first", "bias"), (2, "scale"), (2, "bias"), (5, "running_mean"), (2, "running_var")]
        for layer, what in tensors:
            values = model.tensor(layer, what)
            values[-1] = np.nextafter(values[-1], np.float32(2))
            model.set_tensor(layer, what, values)
            seen.add(digest(state_of(model)))
        starts, columns, values = (array.copy() for array in model.csr("third"))
        moved = columns.copy()
        moved[: starts[1]] = 7 - columns[: starts[1]][::-1]  # the first row, mirrored
        assert (moved != columns).any()
        for indices, numbers in ((columns, values * 0), (columns, values * 0 * -1), (moved, values * 0)):
            model.set_csr("third", starts, indices, numbers)
            seen.add(digest(state_of(model)))
        assert len(seen) == 9


# ------------------------------------------------------------------------------------------ refused ---


def test_another_state_is_refused(tmp_path):
    with learner() as base, learner(seed=1) as new, learner(seed=2) as other:
        change = mest.delta(base, new)
        before = fingerprint(other), fingerprint(new), fingerprint(base)
        with pytest.raises(mest.MestArgumentError, match="apply: the delta is for state"):
            change.apply(other)
        with pytest.raises(mest.MestArgumentError, match="apply: it is done already"):
            change.apply(new)
        with pytest.raises(mest.MestArgumentError, match="revert: it is done already"):
            change.revert(base)
        assert (fingerprint(other), fingerprint(new), fingerprint(base)) == before


def test_networks_that_differ():
    with learner() as model, tiny() as other, learner(density=1.0, method="static") as dense:
        with pytest.raises(mest.ShapeError, match="only one of them has .*first.weight"):
            mest.delta(model, other)
        with pytest.raises(mest.ShapeError, match=r"first.weight is sparse \(8, 27\) in base and dense"):
            mest.delta(model, dense)
        a = np.zeros(3, np.float32)
        with pytest.raises(mest.ShapeError, match=r"a is dense \(3,\) in base and dense \(2,\) in new"):
            mest.delta({"a": a}, {"a": a[:2]})
        with pytest.raises(mest.MestArgumentError, match="'a' has dtype float64"):
            mest.delta({"a": a}, {"a": a.astype(float)})
        with pytest.raises(TypeError, match="int: a delta takes a mest.Model, .*, or the path of a checkpoint$"):
            mest.delta(3, model)
    with pytest.raises(mest.StateError, match="closed"):
        mest.delta(model, model)


def test_a_model_without_room_stays_as_it_was():
    """More connections than its capacity: found while the second of two layers is set."""

    def network(density, **config):
        second = Linear(8, density=density, name="b")
        layers = [Input(8), Linear(8, density=0.5, name="a"), second, Linear(2, density=1.0)]
        return mest.Model(layers, **config)

    with network(0.25) as small, network(0.25) as base, network(0.75, seed=1) as new:
        change = mest.delta(base, new)
        before = fingerprint(small)
        with pytest.raises(mest.MestArgumentError, match="capacity"):
            change.apply(small)
        assert fingerprint(small) == before


def test_a_delta_that_lies_changes_nothing():
    """Whole by its CRC, but leading elsewhere."""
    with tiny() as base, tiny(seed=1) as new:
        change = mest.delta(base, new)
        before = fingerprint(base)
        first = change.changes[0]
        wrong = [
            first._replace(added_bits=first.added_bits ^ 1),
            first._replace(removed_bits=first.removed_bits ^ 1),
            first._replace(removed=first.added, removed_bits=first.added_bits),
            first._replace(added=first.removed, added_bits=first.removed_bits),
            first._replace(universe=first.universe - 1),
            first._replace(name="other.weight"),
            first._replace(shape=(4, 8)),
            first._replace(shape=(2, 16)),
        ]
        for item in wrong:
            lie = mest.Delta(change.base_hash, change.result_hash, 0, (item, *change.changes[1:]))
            with pytest.raises(mest.CorruptError):
                lie.apply(base)
            assert fingerprint(base) == before


def test_garbled_and_cut_off_at_every_byte():
    with tiny() as base, tiny(seed=1) as new:
        data = mest.delta(base, new).to_bytes()
    for size in range(len(data)):
        with pytest.raises(mest.CorruptError):
            mest.Delta.from_bytes(data[:size])
    for at in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            garbled = bytearray(data)
            garbled[at] ^= flip
            with pytest.raises(mest.CorruptError):
                mest.Delta.from_bytes(bytes(garbled))
    for other in (b"", b"MESTDELT", data + b"\0", data * 2, b"\0" * 200):
        with pytest.raises(mest.CorruptError):
            mest.Delta.from_bytes(other)


def test_garbled_under_a_good_crc():
    """Whoever makes such a file on purpose gets a CorruptError as well, or a delta with hashes that fit."""
    rng = np.random.default_rng(0)
    refused = 0
    with tiny() as base, tiny(seed=1) as new:
        whole, before = mest.delta(base, new).to_bytes()[:-4], fingerprint(base)
        for number in range(600):
            raw = bytearray(whole)
            for _ in range(int(rng.integers(1, 4))):
                value = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
                raw[int(rng.integers(96, len(raw)))] = int(value)
            if number % 3 == 0:
                del raw[int(rng.integers(97, len(raw))) :]
                struct.pack_into("<Q", raw, 16, len(raw) + 4)
            try:
                read = mest.Delta.from_bytes(bytes(raw) + struct.pack("<I", zlib.crc32(raw)))
                read.apply(base)
            except mest.CorruptError:
                refused += 1
            else:
                assert digest(state_of(base)) == read.result_hash
                read.revert(base)
            assert number % 50 or fingerprint(base) == before
        assert fingerprint(base) == before and refused > 550


def test_a_later_version():
    with tiny() as base, tiny(seed=1) as new:
        raw = bytearray(mest.delta(base, new).to_bytes()[:-4])
    raw[8] = 2
    with pytest.raises(mest.VersionError, match="version 2, this mest reads up to 1"):
        mest.Delta.from_bytes(bytes(raw) + struct.pack("<I", zlib.crc32(raw)))


def test_saving_replaces_the_file_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "update.delta"
    with tiny() as base, tiny(seed=1) as new:
        change, none = mest.delta(base, new), mest.delta(base, base)
    none.save(path)
    kept = path.read_bytes()

    def fails(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(os, "fsync", fails)
        change.save(path)
    assert path.read_bytes() == kept and os.listdir(tmp_path) == ["update.delta"]
    change.save(path)
    assert mest.Delta.load(path).result_hash == change.result_hash
    with pytest.raises(mest.MestIOError, match="cannot read .*none: No such file"):
        mest.Delta.load(tmp_path / "none")
    with pytest.raises(mest.MestIOError, match=r"cannot write .*where: No such file or directory$"):
        change.save(tmp_path / "no" / "where")
    with pytest.raises(TypeError, match=r"a delta takes a mest.Model, a mapping.* \.model_$"):
        mest.delta(mest.MestClassifier(), mest.MestClassifier())


# --------------------------------------------------------------------------------------- the format ---


def test_the_format_by_hand():
    """Every byte of a small delta, as the documentation has it."""
    def change(removed, added):
        return delta_file.Change(
            "w", (2, 3), True, 2, np.array([1]), np.array([5], np.uint32),
            np.array(removed), np.array([0x3F800000] * len(removed), np.uint32),
            np.array(added), np.array([0x40000000] * len(added), np.uint32),
        )  # fmt: skip

    data = delta_file.encode(b"b" * 32, b"r" * 32, 99, [change([4], [0, 5])])
    head = b"MESTDELT" + struct.pack("<HHIQQ", 1, 0, 1, len(data), 99) + b"b" * 32 + b"r" * 32
    body = b"\x01w" + b"\x01\x02\x02\x03"
    body += b"\x01\x02\x01\x01\x01" + struct.pack("<I", 5)  # 1 of 2, as 1 byte of gaps: one is skipped
    body += b"\x01\x06\x01\x01\x04" + struct.pack("<f", 1)  # 1 of 6: four are skipped
    body += b"\x02\x06\x02\x21" + struct.pack("<2f", 2, 2)  # 2 of 6 as bits: 100001
    assert data == head + body + struct.pack("<I", zlib.crc32(head + body))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sets_in_every_form(seed):
    rng = np.random.default_rng(seed)
    universe = int(rng.choice([0, 1, 8, 9, 1000, 40000]))
    members = np.flatnonzero(rng.random(universe) < rng.choice([0, 0.001, 0.03, 0.5, 1]))
    data = delta_file._set(members, universe)
    reader = delta_file._Reader(data)
    count, size, form = reader.number(), reader.number(), reader.number()
    assert np.array_equal(reader.members(count, size, form), members) and reader.at == len(data)
    assert len(data) <= 12 + math.ceil(universe / 8)


def test_numbers_of_any_size():
    values = [0, 1, 127, 128, 2**14 - 1, 2**14, 2**32, 2**47, 2**62]
    assert delta_file._gaps(delta_file._numbers(values)).tolist() == values
    reader = delta_file._Reader(delta_file._numbers(values))
    assert [reader.number() for _ in values] == values
