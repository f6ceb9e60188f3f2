# SPDX-License-Identifier: Apache-2.0
"""mest inspect: checkpoints without their model, files of weights, records."""

import json
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from commands import fails, folder, run, saved  # noqa: F401
from mest.cli import _checkpoint
from mest.exchange.files import write_weights


def test_inspect_a_checkpoint(run, saved):
    folder, model = saved
    code, out, err = run("inspect", folder / "t.mest", "--json")
    found = json.loads(out)
    assert code == 0 and found["newest"] == 0, err
    (slot,) = found["slots"]
    size = (folder / "t.mest").stat().st_size
    assert (slot["state"], slot["sequence"], slot["bytes"], slot["version"]) == ("whole", 2, size, "0.1.0")
    assert slot["position"]["epochs"] == 6 and slot["position"]["updates"] == 60
    assert slot["position"]["mutations"] == model.mutation().mutations and slot["config"]["method"] == "em&s"
    assert slot["config"]["seed"] == 3 and slot["config"]["samples"] == 300
    assert [part["kind"] for part in slot["layers"]] == [part.kind for part in model.plan().layers]
    sparse = [i for i, part in enumerate(model.plan().layers) if part.sparse]
    assert [slot["layers"][i]["units"] for i in sparse] == [model.connections()[i] for i in sparse]
    assert [slot["layers"][i]["scheme"] for i in sparse] == ["unstructured"] * 2
    assert sum(20 + section["bytes"] for section in slot["sections"]) + 40 == size
    assert slot["sections"][-1]["name"] == "end" and all(section["whole"] for section in slot["sections"])
    code, out, _ = run("inspect", folder / "t.mest", "--sections")
    assert "60 updates, 6 of 6 epochs begun" in out and out.count(" right\n") >= len(slot["sections"])


def test_every_damaged_byte_is_seen(saved):
    image = (saved[0] / "t.mest").read_bytes()
    for at in range(0, len(image), 97):
        damaged = bytearray(image)
        damaged[at] ^= 1
        assert _checkpoint.newest(_checkpoint.slots(bytes(damaged))) is None, at
    for length in (0, 7, 39, 41, 1000, len(image) - 1):
        assert _checkpoint.newest(_checkpoint.slots(image[:length])) is None, length
    assert _checkpoint.newest(_checkpoint.slots(image + b"more")) is None


def resealed(image, sequence):
    """The same checkpoint with another number, its CRCs made anew as Archive.swift makes them."""
    data = bytearray(image)
    struct.pack_into("<Q", data, 16, sequence)
    crc = zlib.crc32(data[:36])
    struct.pack_into("<I", data, 36, crc)
    at = 40
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at + 8)
        crc = zlib.crc32(data[at : at + 16 + size], crc)
        struct.pack_into("<I", data, at + 16 + size, crc)
        at += 20 + size
    return bytes(data)


def test_two_slots_of_flash(run, saved, folder):
    image = (saved[0] / "t.mest").read_bytes()
    room = -(-len(image) // 1024) * 1024 + 1024
    older = image.ljust(room, b"\xff")
    (folder / "flash.bin").write_bytes(older + resealed(image, 3).ljust(room, b"\xff"))
    code, out, _ = run("inspect", "flash.bin")
    assert code == 0 and "slot 0, at 0: whole\n" in out
    assert f"slot 1, at {room:,}: whole, the newest: a load takes it" in out
    torn = resealed(image, 3)[: len(image) // 2].ljust(room, b"\xff")
    (folder / "flash.bin").write_bytes(torn + older)
    code, out, _ = run("inspect", "flash.bin")
    assert code == 0 and "slot 0, at 0: damaged" in out and "slot 1" in out and "a load takes it" in out
    (folder / "flash.bin").write_bytes(torn)
    code, out, _ = run("inspect", "flash.bin")
    assert code == 1 and "damaged" in out


def test_inspect_says_what_is_wrong(run, saved, folder):
    image = bytearray((saved[0] / "t.mest").read_bytes())
    struct.pack_into("<I", image, 8, 7)
    struct.pack_into("<I", image, 36, zlib.crc32(image[:36]))
    (folder / "later.mest").write_bytes(image)
    code, out, _ = run("inspect", "later.mest")
    assert code == 1 and "of a later version (format 7" in out
    shutil.copy(saved[0] / "t.mest", "t.mest")
    (folder / "t.mest.tmp").write_bytes(b"")
    assert "t.mest.tmp is there" in run("inspect", "t.mest")[1]
    (folder / "noise").write_bytes(b"nothing of ours")
    fails(run("inspect", "noise"), "no checkpoint")
    fails(run("inspect", "none"), "none: No such file")
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    fails(run("inspect", "bad.npz"), "no whole .npz")
    for kind in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(folder / "l.npz", "w", kind) as archive:
            archive.writestr("a.npy", bytes(100))
        fails(run("inspect", "l.npz"), "neither stored nor deflated")


def test_inspect_weights_and_records(run, saved):
    folder, model = saved
    weights = model.state_dict()
    np.savez("w.npz", **weights)
    arrays = json.loads(run("inspect", "w.npz", "--json")[1])["arrays"]
    for name, array in weights.items():
        assert arrays[name]["shape"] == list(array.shape) and arrays[name]["not_zero"] == np.count_nonzero(
            array
        )
    assert "hidden.weight" in run("inspect", "w.npz")[1]
    code, out, _ = run("inspect", folder / "run.jsonl")
    assert code == 0 and "6 epochs" in out and "done" in out
    assert json.loads(run("inspect", folder / "run.jsonl", "--json")[1])["epochs"] == 6


def test_inspect_safetensors(run):  # noqa: F811
    pytest.importorskip("safetensors")
    write_weights({"a": np.array([0, 1], np.float32)}, "w.safetensors")
    assert json.loads(run("inspect", "w.safetensors", "--json")[1])["arrays"]["a"]["not_zero"] == 1
