# SPDX-License-Identifier: Apache-2.0
"""Readers and augmentation: on the digits in the repository, on files made here, and on the real
sets when MEST_DATA names the folder that holds them."""

import gzip
import lzma
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mest.datasets import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    MNIST_MEAN,
    MNIST_STD,
    black,
    cifar10,
    digits,
    mnist,
    pad_crop_flip,
)

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "data" / "digits.csv.gz"


def test_digits_file():
    data = digits()
    assert data.x_train.shape == (1347, 1, 8, 8) and data.x_test.shape == (450, 1, 8, 8)
    assert data.x_train.dtype == np.float32 and set(data.y_train) == set(range(10))
    counts = np.bincount(np.concatenate([data.y_train, data.y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_augmentation():
    x = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4) + 1
    augment = pad_crop_flip(2, fill=(-1, -2, -3))
    seen = [augment(x, np.random.default_rng(seed)) for seed in range(50)]
    assert all(a.shape == x.shape and a.dtype == np.float32 for a in seen)
    assert (augment(x, np.random.default_rng(7)) == seen[7]).all()
    for crop in seen:
        for c in range(3):
            values = crop[0, c]
            inside = np.isin(values, x[0, c])
            assert (values[~inside] == -1 - c).all() and inside.any()
    assert any((a[0] == x[0]).all() for a in seen) or any(
        (a[0] == x[0, :, :, ::-1]).all() for a in seen
    )


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_files(tmp_path, packed):
    """Label, then red, green and blue planes, 3,073 bytes a record."""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (6, 4, 3073)).astype(np.uint8)
    records[:, :, 0] %= 10
    for part, name in zip(records, [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        if packed:
            (tmp_path / f"{name}.bin.xz").write_bytes(lzma.compress(part.tobytes()))
        else:
            (tmp_path / f"{name}.bin").write_bytes(part.tobytes())
    data = cifar10(tmp_path)
    assert data.x_train.shape == (20, 3, 32, 32) and data.x_test.shape == (4, 3, 32, 32)
    assert data.y_train.tolist() == records[:5, :, 0].ravel().tolist()
    pixel = records[2, 1, 1 + 1024 + 32 * 5 + 7]  # green, row 5, column 7 of sample 9
    expected = (pixel / 255 - CIFAR10_MEAN[1]) / CIFAR10_STD[1]
    assert data.x_train[9, 1, 5, 7] == pytest.approx(expected, abs=1e-5)
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in (data.x_train, data.x_test))


def test_mnist_files(tmp_path):
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", np.array([7, 3], np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            with gzip.open(tmp_path / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
    data = mnist(tmp_path)
    assert data.x_train.shape == (2, 1, 28, 28) and data.y_test.tolist() == [7, 3]
    expected = (images[1, 2, 3] / 255 - MNIST_MEAN[0]) / MNIST_STD[0]
    assert data.x_test[1, 0, 2, 3] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("left", [0, 3, 40, 5000])
def test_truncated_files(tmp_path, packed, left):
    """Whatever is cut off, the message names the file and asks whether it is complete."""
    record = bytes(3073)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        data = lzma.compress(3 * record) if packed else 3 * record
        (tmp_path / (name + (".bin.xz" if packed else ".bin"))).write_bytes(data[: min(left, len(data) - 1)])
    images = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 9, 28, 28) + bytes(9 * 784), mtime=0)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(images[: min(left, len(images) - 1)])
    digits_file = tmp_path / "digits.csv.gz"
    digits_file.write_bytes(DIGITS.read_bytes()[:left])
    for read, name in ((cifar10, "data_batch_1"), (mnist, "train-images")):
        with pytest.raises(ValueError, match=rf"{name}.*is the file complete"):
            read(tmp_path)
    with pytest.raises(ValueError, match="digits.*is the file complete"):
        digits(digits_file)


def test_missing_files(tmp_path):
    for read in (cifar10, mnist, lambda folder: digits(folder / "digits.csv.gz")):
        with pytest.raises(FileNotFoundError):
            read(tmp_path)


def test_black():
    assert black((0.5,), (0.25,)) == [-2.0]


@pytest.mark.skipif(not os.environ.get("MEST_DATA"), reason="needs MEST_DATA")
def test_real_sets():
    folder = Path(os.environ["MEST_DATA"])
    data = cifar10(folder / "cifar-10")
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    assert np.abs(data.x_train.mean((0, 2, 3))).max() < 1e-3
    data = mnist(folder / "mnist")
    assert data.x_train.shape == (60_000, 1, 28, 28) and data.x_test.shape == (10_000, 1, 28, 28)
    assert abs(data.x_train.mean()) < 1e-3 and abs(data.x_train.std() - 1) < 1e-3
