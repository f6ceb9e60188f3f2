# SPDX-License-Identifier: Apache-2.0
"""Readers of three image sets as float32 arrays, and the usual augmentation.

Nothing is downloaded: each reader takes the files as their authors publish them.
"""

from __future__ import annotations

import csv
import gzip
import lzma
import math
import struct
import zlib
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Folder = Union[str, Path]


class Dataset(NamedTuple):
    """x: (n, channels, height, width) float32, normalised; y: (n,) int32 classes."""

    x_train: Floats
    y_train: Labels
    x_test: Floats
    y_test: Labels


# Per channel, of pixels / 255 (digits: / 16).  CIFAR-10: the numbers of the MEST authors' code.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
DIGITS_MEAN, DIGITS_STD = (0.3053,), (0.3760,)


def digits(path: Optional[Folder] = None, seed: int = 0) -> Dataset:
    """1,797 handwritten digits, 1 x 8 x 8: 1,347 to train and 450 to test.

    The set has no split of its own; it is shuffled with `seed` and cut.
    path: digits.csv.gz, the file that scikit-learn carries; None: the one in this package.
    """
    if path is None:
        path = Path(__file__).with_name("digits.csv.gz")
    table = np.array(list(csv.reader(_unpacked(path).decode().splitlines())), dtype=np.float32)
    if table.ndim != 2 or table.shape[1] != 65:
        raise ValueError(f"{path}: not lines of 65 numbers; is the file complete?")
    x = _normalise(table[:, :64].reshape(-1, 1, 8, 8) / 16, DIGITS_MEAN, DIGITS_STD)
    y = table[:, 64].astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:1347], order[1347:]
    return Dataset(x[train], y[train], x[test], y[test])


def cifar10(folder: Folder) -> Dataset:
    """CIFAR-10, 3 x 32 x 32: 50,000 to train and 10,000 to test, in the authors' order.

    folder: data_batch_1 .. 5 and test_batch of the binary version, as .bin or .bin.xz.
    """
    train = [_cifar_batch(Path(folder), f"data_batch_{i}") for i in range(1, 6)]
    x_test, y_test = _cifar_batch(Path(folder), "test_batch")
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train))
    return Dataset(x_train, y_train, x_test, y_test)


def mnist(folder: Folder) -> Dataset:
    """MNIST, 1 x 28 x 28: 60,000 to train and 10,000 to test.  folder: the four .gz files."""
    arrays: List[Any] = []
    for part in ("train", "t10k"):
        images = _idx(Path(folder) / f"{part}-images-idx3-ubyte.gz")
        arrays.append(_normalise(images[:, None] / np.float32(255), MNIST_MEAN, MNIST_STD))
        arrays.append(_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz").astype(np.int32))
    return Dataset(*arrays)


def pad_crop_flip(
    pad: int = 4, flip: bool = True, fill: Optional[Sequence[float]] = None
) -> Callable[[Floats, np.random.Generator], Floats]:
    """Augmentation for `fit`: pads each image, crops it at a random place to its old size, and
    mirrors every second one.

    fill: value of the border by channel; None: 0.  Images padded before they are normalised, as
    usual, have black borders: fill = black(CIFAR10_MEAN, CIFAR10_STD).
    """

    def augment(x: Floats, rng: np.random.Generator) -> Floats:
        count, channels, height, width = x.shape
        padded = np.empty((count, channels, height + 2 * pad, width + 2 * pad), np.float32)
        padded[:] = np.reshape(np.zeros(1) if fill is None else fill, (1, -1, 1, 1))
        padded[:, :, pad : pad + height, pad : pad + width] = x
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (2, 3))
        top, left = rng.integers(0, 2 * pad + 1, (2, count))
        cropped = windows[np.arange(count), :, top, left]
        if flip:
            mirrored = rng.random(count) < 0.5
            cropped[mirrored] = cropped[mirrored, :, :, ::-1]
        return np.ascontiguousarray(cropped)

    return augment


def black(mean: Sequence[float], std: Sequence[float]) -> Sequence[float]:
    """What a black pixel becomes when normalised."""
    return [-m / s for m, s in zip(mean, std)]


def _normalise(x: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> Floats:
    shape = (1, -1, 1, 1)
    centred = x - np.reshape(np.array(mean, np.float32), shape)
    return np.ascontiguousarray(centred / np.reshape(np.array(std, np.float32), shape))


def _cifar_batch(folder: Path, name: str) -> Tuple[Floats, Labels]:
    plain, packed = folder / f"{name}.bin", folder / f"{name}.bin.xz"
    if not plain.exists() and not packed.exists():
        raise FileNotFoundError(f"neither {plain} nor {packed}")
    path = plain if plain.exists() else packed
    raw = _unpacked(path)
    if not raw or len(raw) % 3073:
        raise ValueError(f"{path}: {len(raw)} bytes are no records of 3073; is the file complete?")
    records = np.frombuffer(raw, np.uint8).reshape(-1, 3073)  # label, then red, green, blue
    if records[:, 0].max() > 9:
        raise ValueError(f"{path}: a label is {records[:, 0].max()}; is this CIFAR-10's binary version?")
    x = records[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255)
    return _normalise(x, CIFAR10_MEAN, CIFAR10_STD), records[:, 0].astype(np.int32)


def _unpacked(path: Folder) -> bytes:
    """A file's bytes, of .gz and .xz what is in them."""
    readers = {".gz": gzip.decompress, ".xz": lzma.decompress}
    raw = Path(path).read_bytes()
    try:
        return readers[Path(path).suffix](raw) if Path(path).suffix in readers else raw
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path}: {error}; is the file complete?") from error


def _idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file: 0, 0, type (8: bytes), axes, then the big-endian size of each axis."""
    raw = _unpacked(path)
    if len(raw) < 4:
        raise ValueError(f"{path}: {len(raw)} bytes; is the file complete?")
    kind, axes = raw[2], raw[3]
    if raw[:2] != b"\0\0" or kind != 8:
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = struct.unpack_from(f">{axes}I", raw, 4) if len(raw) >= 4 + 4 * axes else (-1,)
    if len(raw) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{path}: {len(raw)} bytes do not fit its header; is the file complete?")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
