# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced as a whole or not at all, whoever writes them."""

import os
import stat
import threading

import numpy as np
import pytest
from support import X, Y, tiny

import mest
from mest import _files


@pytest.fixture
def full(monkeypatch):
    """A disk that takes bytes and does not keep them."""

    def fsync(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


def names(folder):
    return sorted(os.listdir(folder))


def test_a_new_file_and_a_replaced_one(tmp_path):
    path = tmp_path / "a"
    _files.replace(path, b"first")
    assert path.read_bytes() == b"first"
    _files.replace(str(path), b"second")
    assert path.read_bytes() == b"second" and names(tmp_path) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_of_a_normal_new_file(tmp_path):
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            _files.replace(tmp_path / "a", b"")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_file_and_folder_reach_the_disk_in_this_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(number):
        done.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *two: (done.append("replace"), replace(*two)))
    _files.replace(tmp_path / "a", b"a")
    assert done == ["file", "replace", "folder"][: 2 + (os.name != "nt")]


def test_whatever_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    for error in (KeyboardInterrupt, OSError(28, "No space left on device"), ValueError("none")):
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            with _files.replacing(path, tmp_path / "b") as (one, two):
                one.write(b"new")
                two.write(b"new")
                raise error
        assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_errors_name_the_file_that_was_meant(tmp_path):
    with pytest.raises(FileNotFoundError) as found:
        _files.replace(tmp_path / "none" / "a", b"")
    assert found.value.filename == str(tmp_path / "none" / "a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as found:
        _files.replace(tmp_path / "folder", b"")
    assert found.value.filename == str(tmp_path / "folder") and found.value.filename2 is None
    assert names(tmp_path) == ["folder"]


def test_who_writes_at_the_same_time_does_not_mix(tmp_path):
    """Each has a temporary file of its own: what remains is what one of them wrote."""
    contents = [bytes([65 + i]) * 50_000 for i in range(4)]
    failed = []

    def write(content):
        try:
            for _ in range(20):
                _files.replace(tmp_path / "a", content)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and (tmp_path / "a").read_bytes() in contents and names(tmp_path) == ["a"]


def test_neighbours_of_that_name_are_left_alone(tmp_path):
    """What others have put beside it, "a.tmp" of a checkpoint say, is not ours."""
    model = tiny(samples=None)
    model.fit(X, Y, 1, progress=False, checkpoint=tmp_path / "c", callbacks=[mest.record(tmp_path / "run.jsonl")])
    others = ["run.html.tmp", "c.history.tmp", "c.best.tmp"]
    for name in others:
        (tmp_path / name).write_text("mine")
    mest.report.write(tmp_path / "run.jsonl", tmp_path / "run.html")
    stops = mest.early_stopping(5, monitor="loss")
    model.fit(X, Y, 1, progress=False, checkpoint=tmp_path / "c", callbacks=[stops])
    assert (tmp_path / "c.best").exists() and (tmp_path / "run.html").exists()
    assert all((tmp_path / name).read_text() == "mine" for name in others)


def test_a_full_disk_leaves_reports_and_trainings_as_they_were(tmp_path, full):
    (tmp_path / "run.jsonl").write_bytes(b"")
    model = tiny(samples=None)
    model.fit(X, Y, 1, progress=False, callbacks=[mest.record(tmp_path / "run.jsonl")])
    (tmp_path / "run.html").write_text("old")
    with pytest.raises(OSError, match="No space left"):
        mest.report.write(tmp_path / "run.jsonl", tmp_path / "run.html")
    with pytest.raises(OSError, match="No space left"):
        model.fit(X, Y, 1, progress=False, checkpoint=tmp_path / "c")
    with pytest.raises(OSError, match="No space left"):
        stops = mest.early_stopping(5, monitor="loss")
        model.fit(X, Y, 1, progress=False, checkpoint=tmp_path / "d", callbacks=[stops])
    assert (tmp_path / "run.html").read_text() == "old" and names(tmp_path) == ["run.html", "run.jsonl"]


def test_a_full_disk_leaves_c_sources_and_deltas_as_they_were(tmp_path, full):
    model, other = tiny(), tiny()
    other.step(X, Y)
    for name in ("net.h", "net.c", "a.delta"):
        (tmp_path / name).write_text("old")
    with pytest.raises(OSError, match="No space left"):
        mest.to_c(model, tmp_path, "net")
    with pytest.raises(OSError, match="No space left"):
        mest.delta(model, other).save(tmp_path / "a.delta")
    assert names(tmp_path) == ["a.delta", "net.c", "net.h"]
    assert all((tmp_path / name).read_text() == "old" for name in names(tmp_path))


def test_a_full_disk_leaves_an_onnx_file_as_it_was(tmp_path, full):
    pytest.importorskip("onnx")
    (tmp_path / "a.onnx").write_bytes(b"old")
    with pytest.raises(mest.MestIOError, match="cannot write .*a.onnx: No space left"):
        mest.to_onnx(tiny(), tmp_path / "a.onnx")
    assert names(tmp_path) == ["a.onnx"] and (tmp_path / "a.onnx").read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_safetensors_files_are_normal_files(tmp_path):
    pytest.importorskip("safetensors")
    mest.write_weights({"a": np.ones(3)}, tmp_path / "a.safetensors")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode
