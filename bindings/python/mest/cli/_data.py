# SPDX-License-Identifier: Apache-2.0
"""Data by a word on the command line: digits, mnist:FOLDER, cifar10:FOLDER, FILE.npz, FILE.csv."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from .. import datasets
from ..exchange.files import read_npz
from ._output import Failure

HELP = (
    "digits, mnist:FOLDER, cifar10:FOLDER, FILE.npz (x and y, or x_train, y_train, x_test, y_test) or "
    "FILE.csv (a sample a line, one column the label)"
)


@dataclass
class Data:
    """x: (n, features) or (n, channels, height, width); y: classes, or for "mse" numbers."""

    x: NDArray[np.float32]
    y: NDArray[Any]
    x_test: Optional[NDArray[np.float32]] = None
    y_test: Optional[NDArray[Any]] = None
    names: Optional[List[str]] = None  # of classes, where they are not 0, 1, 2, ...

    @property
    def shape(self) -> Tuple[int, int, int]:
        found = self.x.shape[1:]
        return (found[0], 1, 1) if len(found) == 1 else (found[0], found[1], found[2])


_FILES = {
    "mnist": "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz",
    "cifar10": "data_batch_1 to 5 and test_batch, .bin or .bin.xz",
}


def load(spec: str, label: Optional[str] = None, regression: bool = False) -> Data:
    """Reads all of it."""
    kind, _, folder = spec.partition(":")
    if kind in ("digits", "mnist", "cifar10") and not os.path.exists(spec):
        if kind != "digits" and not folder:
            raise Failure(f"{kind}: where is it? {kind}:FOLDER")
        read: Any = getattr(datasets, kind)
        if folder and not os.path.isdir(folder):
            raise Failure(f"{spec}: there is no folder {folder}")
        try:
            found = read(folder) if folder else read()
        except FileNotFoundError as error:
            missing = error.filename or str(error)
            raise Failure(f"{spec}: {missing} is missing; wanted in the folder are {_FILES[kind]}") from None
        return Data(*found)
    ending = os.path.splitext(spec)[1].lower()
    if ending not in (".npz", ".csv"):
        raise Failure(f"{spec}: choose {HELP}")
    return _npz(spec, regression) if ending == ".npz" else _csv(spec, label, regression)


# ----------------------------------------------------------------------------------------- npz ---

_X, _Y = ("x_train", "x", "data", "features"), ("y_train", "y", "labels", "target", "targets")
_X_TEST, _Y_TEST = ("x_test", "x_val", "x_validation"), ("y_test", "y_val", "y_validation")


def _npz(path: str, regression: bool) -> Data:
    arrays = {name.lower(): array for name, array in read_npz(path, "fiubUS").items()}
    x, y = _one(arrays, _X), _one(arrays, _Y)
    if x is None or y is None:
        raise Failure(
            f"{path} has {', '.join(arrays) or 'no arrays'}; wanted are x and y, or x_train, "
            "y_train, x_test, y_test"
        )
    x_test, y_test = _one(arrays, _X_TEST), _one(arrays, _Y_TEST)
    if (x_test is None) != (y_test is None):
        raise Failure(f"{path} has test samples without labels, or labels without samples")
    tests = [] if x_test is None or y_test is None else [(x_test, y_test)]
    sets = [(_samples(a, path), np.asarray(b)) for a, b in [(x, y), *tests]]
    for samples, labels in sets:
        if len(samples) != len(labels):
            raise Failure(f"{path} has {len(samples)} samples and {len(labels)} labels")
    known, names = _labels([labels for _, labels in sets], path, regression)
    test = sets[1][0] if tests else None
    return Data(sets[0][0], known[0], test, known[1] if tests else None, names)


def _one(arrays: Dict[str, Any], names: Tuple[str, ...]) -> Any:
    return next((arrays[name] for name in names if name in arrays), None)


def _samples(x: Any, path: str) -> NDArray[np.float32]:
    """Pictures without a channel get one; bytes become 0 to 1."""
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 3, 4):
        raise Failure(
            f"{path}: x is {x.dtype} of shape {x.shape}; numbers (n, features), (n, height, width) or (n, "
            "channels, height, width) are wanted"
        )
    scaled = x / np.float32(255) if x.dtype == np.uint8 else x
    return np.ascontiguousarray(scaled[:, None] if x.ndim == 3 else scaled, np.float32)


def _labels(
    sets: List[NDArray[Any]], path: str, regression: bool
) -> Tuple[List[NDArray[Any]], Optional[List[str]]]:
    """As the library takes them: numbers of classes from 0 on, with names where they had others."""
    if regression:
        try:
            targets = [np.asarray(y, np.float32) for y in sets]
        except ValueError:
            raise Failure(f"{path}: labels are words, and --loss mse wants numbers") from None
        return [y[:, None] if y.ndim == 1 else y for y in targets], None
    if any(y.ndim != 1 for y in sets):
        raise Failure(f"{path}: labels have shape {sets[0].shape}; one a sample is wanted, or say --loss mse")
    everything = np.unique(np.concatenate(sets))
    whole = everything.dtype.kind in "fiub" and bool(np.all(everything == np.floor(everything.astype(float))))
    if whole and everything.min() >= 0 and everything.max() < max(2 * len(everything), 2):
        return [y.astype(np.int32) for y in sets], None
    if everything.dtype.kind == "f" and not whole:
        raise Failure(
            f"{path}: labels are fractions like {everything[0]:g}; for numbers instead of classes say "
            "--loss mse"
        )
    return [np.searchsorted(everything, y).astype(np.int32) for y in sets], [str(name) for name in everything]


# ----------------------------------------------------------------------------------------- csv ---


def _csv(path: str, label: Optional[str], regression: bool) -> Data:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except UnicodeDecodeError:
        raise Failure(f"{path} is not text in UTF-8") from None
    if not lines:
        raise Failure(f"{path} is empty")
    header: Optional[List[str]] = None
    if not any(_is_number(word) for word in lines[0]):
        header, lines = [word.strip() for word in lines[0]], lines[1:]
    width = len(header or lines[0]) if lines else 0
    mark = next((mark for mark in ";\t|" if width == 1 and mark in (header or lines[0])[0]), None)
    if mark is not None:
        raise Failure(f"{path}: columns are separated by {mark!r}; commas are wanted, and points in numbers")
    if width < 2 or not lines:
        raise Failure(f"{path}: lines of two columns at least are wanted, features and a label")
    column = _column(path, label, header, width)
    for number, line in enumerate(lines, 1 + (header is not None)):
        if len(line) != width:
            raise Failure(f"{path}, line {number}: {len(line)} columns, others have {width}")
    features = np.empty((len(lines), width - 1), np.float32)
    for number, line in enumerate(lines, 1 + (header is not None)):
        words = line[:column] + line[column + 1 :]
        try:
            features[number - 1 - (header is not None)] = [float(word) for word in words]
        except ValueError:
            at, bad = next((i, word) for i, word in enumerate(words) if not _is_number(word))
            at += at >= column
            if not bad.strip():
                name = f" ({header[at]})" if header else ""
                raise Failure(
                    f"{path}, line {number}: column {at + 1}{name} is empty, a missing value: fill it in, or "
                    "leave the line out"
                ) from None
            raise Failure(
                f"{path}, line {number}: {bad!r} is no number; the label is column {column + 1}, and "
                "--label names another"
            ) from None
    said = [line[column].strip() for line in lines]
    if "" in said:
        at = said.index("") + 1 + (header is not None)
        raise Failure(f"{path}, line {at}: the label, column {column + 1}, is empty; leave the line out")
    y: Any = np.array([float(word) for word in said] if all(map(_is_number, said)) else said)
    known, names = _labels([y], path, regression)
    return Data(features, known[0], names=names)


def _column(path: str, label: Optional[str], header: Optional[List[str]], width: int) -> int:
    """Of the label: the last where nothing is said."""
    if label is None:
        return width - 1
    if header is not None and label in header:
        return header.index(label)
    if label.isdigit() and 1 <= int(label) <= width:
        return int(label) - 1
    known = ", ".join(header) if header else f"1 to {width}"
    raise Failure(f"{path} has no column {label!r}; it has {known}")


def _is_number(word: str) -> bool:
    try:
        float(word)
        return True
    except ValueError:
        return False


# ----------------------------------------------------------------------------------------------------


def held_out(data: Data, share: float, seed: int) -> Data:
    """The same with a random share of the samples to test on."""
    count = round(share * len(data.x))
    if not 0 < count < len(data.x):
        raise Failure(
            f"--validation {share:g} of {len(data.x)} samples are {count}: some have to be on either side"
        )
    order = np.random.default_rng(seed).permutation(len(data.x))
    test, train = order[:count], order[count:]
    return Data(data.x[train], data.y[train], data.x[test], data.y[test], data.names)


def standardised(data: Data) -> Tuple[Data, NDArray[np.float32], NDArray[np.float32]]:
    """Each feature (of pictures each channel) with mean 0 and deviation 1 in the training set; (data, mean,
    deviation)."""
    axes = (0,) if data.x.ndim == 2 else (0, 2, 3)
    mean = data.x.mean(axes, dtype=np.float64, keepdims=True).astype(np.float32)
    deviation = data.x.std(axes, dtype=np.float64, keepdims=True).astype(np.float32)
    deviation[deviation == 0] = 1
    x_test = None if data.x_test is None else (data.x_test - mean) / deviation
    changed = Data((data.x - mean) / deviation, data.y, x_test, data.y_test, data.names)
    return changed, mean[0], deviation[0]
