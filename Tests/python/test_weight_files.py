# SPDX-License-Identifier: Apache-2.0
"""Weights in .npz and .safetensors files: whole or not at all, and clear words about files that are damaged."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
from support import fingerprint, randomise

import mest
from mest import BatchNorm, Conv2d, GlobalAvgPool, Input, Linear, ReLU


def picture(seed=0, density=0.3, scheme=None):
    layers = [
        Input(2, 5, 5), Conv2d(8, 3, name="conv", density=density, scheme=scheme), BatchNorm(name="norm"), ReLU(),
        GlobalAvgPool(), Linear(3, name="fc"),
    ]  # fmt: skip
    model = mest.Model(layers, batch=4, seed=seed, threads=1)
    randomise(model, np.random.default_rng(seed))
    return model


def samples():
    return np.random.default_rng(1).normal(size=(4, 2, 5, 5)).astype(np.float32)


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / ("weights" + request.param)


@pytest.mark.parametrize("scheme", ["unstructured", "block4", "pattern", "filter"])
def test_there_and_back(path, scheme):
    model, other = picture(0, scheme=scheme), picture(1, scheme=scheme)
    mest.save_weights(model, path)
    assert mest.load_weights(other, path) == ([], [])
    assert np.array_equal(model.predict(samples()), other.predict(samples()))
    assert model.connections() == other.connections()
    state = mest.read_weights(path)
    assert set(state) == {
        "conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "fc.weight",
        "fc.bias",
    }  # fmt: skip
    state["fc.bias"][:] = 0  # it is the reader's
    assert os.listdir(path.parent) == [path.name]
    before = path.read_bytes()
    mest.save_weights(model, str(path))
    assert path.read_bytes() == before  # the same weights, the same file
    assert mest.load_weights(other, os.fspath(path), strict=False) == ([], [])


def test_numpy_reads_npz(tmp_path):
    model = picture()
    mest.save_weights(model, tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as found:
        assert all(np.array_equal(found[key], array) for key, array in model.state_dict().items())
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "theirs.npz", **model.state_dict())
        mest.load_weights(picture(1), tmp_path / "theirs.npz")
    np.savez(tmp_path / "turned.npz", a=np.asfortranarray(np.arange(6.0).reshape(2, 3)), b=np.float16(2), c=np.zeros(0))
    found = mest.read_weights(tmp_path / "turned.npz")
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["b"] == 2 and found["c"].size == 0


def test_torch_and_safetensors(tmp_path):
    """Files of the package itself, of torch's numbers."""
    pytest.importorskip("safetensors")
    torch = pytest.importorskip("torch")
    from safetensors.numpy import load_file
    from safetensors.torch import save_file

    model, name = picture(), tmp_path / "w.safetensors"
    mest.save_weights(model, name)
    assert all(np.array_equal(a, model.state_dict()[key]) for key, a in load_file(name).items())
    for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        state = {key: torch.from_numpy(a).to(kind) for key, a in model.state_dict().items()}
        state["norm.num_batches_tracked"] = torch.tensor(5)
        save_file(state, name)
        other = picture(1)
        mest.load_weights(other, name)
        for key, array in other.state_dict().items():
            assert np.array_equal(array, state[key].float().numpy())
    save_file({"fc.bias": torch.zeros(3).to(torch.float8_e4m3fn)}, name)
    with pytest.raises(mest.UnsupportedError, match="fc.bias in the file is of type F8_E4M3: store it as F32"):
        mest.read_weights(name)


def test_weights_of_ones_own(path):
    arrays = {"a": np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::2], "b.c": np.zeros((0, 3), np.int32), "d": np.bool_(1)}
    mest.write_weights(arrays, path)
    found = mest.read_weights(path)
    assert all(np.array_equal(found[key], array) and found[key].dtype == array.dtype for key, array in arrays.items())


def test_a_refused_file_changes_nothing(path):
    model = picture()
    model.step(samples(), np.zeros(4, int))
    before = fingerprint(model)
    for change, kind, message in [
        (lambda s: s.pop("fc.bias"), mest.MestArgumentError, "the model has fc.bias"),
        (lambda s: s.update({"fc.bias": np.full(3, np.nan)}), mest.MestArgumentError, "not finite"),
        (lambda s: s.update({"conv.weight": np.ones((8, 2, 3, 3))}), mest.MestArgumentError, "need a capacity of 144"),
        (lambda s: s.update({"norm.running_var": -np.ones(8)}), mest.MestArgumentError, "no variance"),
    ]:
        state = picture(3).state_dict()
        change(state)
        mest.write_weights(state, path)
        with pytest.raises(kind, match=message):
            mest.load_weights(model, path)
        assert fingerprint(model) == before


def test_every_cut_is_noticed(path):
    mest.save_weights(picture(), path)
    whole = path.read_bytes()
    model = picture(1)
    before = fingerprint(model)
    cuts = {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}
    for cut in sorted(cuts | set(range(0, len(whole), 97))):
        path.write_bytes(whole[:cut])
        with pytest.raises(mest.CorruptError, match=r"weights\.\w+ is no whole \.\w+ file"):
            mest.load_weights(model, path)
    assert fingerprint(model) == before


def test_changed_bytes(path):
    """Any byte: refused, or weights of the right shapes; never anything else.  A .npz has sums."""
    state = {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), np.float32)}
    mest.write_weights(state, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            found = mest.read_weights(path)
        except (mest.CorruptError, mest.UnsupportedError):
            continue
        assert all(isinstance(array, np.ndarray) and array.size <= 16 for array in found.values())


def npz(path, name="a.npy", header=None, data=b"", kind=zipfile.ZIP_STORED):
    body = io.BytesIO()
    if header is not None:
        text = (header if isinstance(header, str) else repr(header)).encode() + b"\n"
        body.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    body.write(data)
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr(name, body.getvalue())


def test_hostile_npz(tmp_path):
    path = tmp_path / "w.npz"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(path, a=np.array([Evil()], object))
    with pytest.raises(mest.CorruptError, match="of Python objects"):
        mest.read_weights(path)
    assert not (tmp_path / "executed").exists()
    plain = {"descr": "<f4", "fortran_order": False}
    for build, message in [
        (lambda: npz(path, header={**plain, "shape": (2**40,)}, data=b"1234"), "not of the shape"),
        (lambda: npz(path, header={**plain, "shape": (-4,)}, data=b""), "not of the shape"),
        (lambda: npz(path, header={**plain, "shape": (-1, -1)}, data=b"1234"), "not of the shape"),
        (lambda: npz(path, header={**plain, "shape": (1,)}, data=b"12345"), "not of the shape"),
        (lambda: npz(path, header={"descr": "<f4"}), "no whole"),
        (lambda: npz(path, data=b"no array"), "no whole"),
        (lambda: npz(path, name="a.pkl", data=b"cos\nsystem\n"), "'a.pkl' in it is no array"),
        (lambda: path.write_bytes(b"PK\x03\x04" + bytes(100)), "no whole"),
        (lambda: np.save(path.open("wb"), np.ones(3)), "no whole"),
    ]:
        build()
        with pytest.raises(mest.CorruptError, match=message):
            mest.read_weights(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_of_other_compressions(tmp_path, kind):
    """numpy writes none; whole or damaged, they are refused before anything is unpacked."""
    path = tmp_path / "w.npz"
    npz(path, header={"descr": "<f4", "fortran_order": False, "shape": (1000,)}, data=bytes(4000), kind=kind)
    whole = path.read_bytes()
    for place in (None, *range(35, len(whole) - 80, 3)):
        broken = bytearray(whole)
        if place is not None:
            broken[place] ^= 0x55
        path.write_bytes(bytes(broken))
        with pytest.raises(mest.CorruptError, match="neither stored nor deflated|no whole"):
            mest.read_weights(path)


def test_damaged_deflated_npz(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).integers(0, 9, 400), b=np.ones((3, 4), np.float32))
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        path.write_bytes(bytes(broken))
        try:
            found = mest.read_weights(path)
        except mest.CorruptError:
            continue
        assert all(array.size in (400, 12) for array in found.values())


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4'\n  'shape': 1L\n }", "{'descr': 1L", " {'a': 1L}\n   b", "{[]: 1}", "-" * 9000 + "1",
        "1+" * 3000 + "1", "{'descr': (), 'fortran_order': False, 'shape': (1,)}", "[" * 5000, "'" * 3, "\\",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2**80)}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {2**80})}}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**63}, 0)}}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(0,) * 200}}}",
    ],
)  # fmt: skip
def test_headers_that_are_none(tmp_path, header):
    """Whatever Python's parser raises for them."""
    npz(tmp_path / "w.npz", header=header, data=b"1234")
    with pytest.raises(mest.CorruptError, match="w.npz is no whole .npz file"):
        mest.read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "array",
    [
        np.array(["some", "words"]), np.array([b"some", b"bytes"]), np.zeros(3, [("a", "<f4"), ("b", "<i4")]),
        np.array(["2026-01-01"], "datetime64[D]"), np.zeros(2, "timedelta64[s]"), np.zeros(2, np.complex64),
        np.zeros(2, "V8"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_numbers(tmp_path, array):
    np.savez(tmp_path / "w.npz", a=array)
    with pytest.raises(mest.CorruptError, match="'a.npy' in it is of .*, not of real numbers"):
        mest.read_weights(tmp_path / "w.npz")


def test_hostile_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "w.safetensors"
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

    def write(header, data=b"1234", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)

    for build in [
        lambda: write({"a": entry}, length=2**62),
        lambda: write({"a": {**entry, "shape": [2**40, 2**40]}}),
        lambda: write({"a": {**entry, "data_offsets": [0, 2**50]}}),
        lambda: write({"a": {**entry, "data_offsets": [4, 0]}}),
        lambda: write({"a": {**entry, "dtype": "F31"}}),
        lambda: write(b"{"),
        lambda: write(b"\xff\xfe{}"),
        lambda: write({"a": entry, "b": entry}),
        lambda: path.write_bytes(b""),
    ]:
        build()
        with pytest.raises(mest.CorruptError, match="no whole .safetensors file"):
            mest.read_weights(path)


def test_paths(tmp_path):
    model = picture()
    for call in (lambda name: mest.save_weights(model, name), lambda name: mest.load_weights(model, name)):
        with pytest.raises(mest.MestArgumentError, match="end in .npz or .safetensors"):
            call(tmp_path / "weights.pt")
    with pytest.raises(mest.MestIOError, match="cannot read .*none.npz: No such file"):
        mest.load_weights(model, tmp_path / "none.npz")
    with pytest.raises(OSError, match="cannot write .*none"):
        mest.save_weights(model, tmp_path / "none" / "weights.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(mest.MestIOError, match="cannot read"):
        mest.load_weights(model, tmp_path / "folder.npz")
    with pytest.raises(mest.MestIOError, match="cannot write"):
        mest.save_weights(model, tmp_path / "folder.npz")
    assert sorted(os.listdir(tmp_path)) == ["folder.npz"]


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    model = picture()
    mest.save_weights(model, path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(mest.MestIOError, match="cannot write .*: No space left on device"):
        mest.save_weights(picture(2), path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_without_safetensors(tmp_path, monkeypatch):
    import sys

    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        mest.save_weights(picture(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(ImportError, match="pip install safetensors"):
        mest.read_weights(tmp_path / "w.safetensors")
