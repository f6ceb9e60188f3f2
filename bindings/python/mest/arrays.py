# SPDX-License-Identifier: Apache-2.0
"""numpy arrays in the form the library reads, with messages that say what to change."""

from __future__ import annotations

import warnings
from typing import Any, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import MestArgumentError


class CopyWarning(UserWarning):
    """An array was converted and copied; pass C-contiguous float32 to avoid it."""


def samples(x: ArrayLike, shape: Tuple[int, int, int], warn: bool = False) -> NDArray[np.float32]:
    """x as contiguous float32: (n, inputs) or (n, channels, height, width), without a copy when it
    already is.  warn: say so when an array had to be converted (lists are converted silently: who
    passes those does not count copies)."""
    array = np.asarray(x)
    flat = (shape[0] * shape[1] * shape[2],)
    if array.shape[1:] not in (flat, shape):
        wanted = f"(n, {flat[0]})"
        if shape[1:] != (1, 1):
            wanted += " or (n, {}, {}, {})".format(*shape)
        hint = "; one sample is x[None]" if array.shape in (flat, shape) else ""
        raise MestArgumentError(f"x has shape {array.shape}, the network takes {wanted}{hint}")
    converted = floats(array, "x")
    if warn and converted is not array and isinstance(x, np.ndarray):
        layout = "" if array.flags.c_contiguous else "non-contiguous "
        warnings.warn(
            f"x was copied ({converted.nbytes:,} bytes) from {layout}{array.dtype}: pass "
            "C-contiguous float32 to train without copies (said once)",
            CopyWarning,
            stacklevel=4,
        )
    return converted


def floats(values: ArrayLike, what: str) -> NDArray[np.float32]:
    """Contiguous, aligned, native float32; the same object when it already is."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise MestArgumentError(f"{what} has dtype {array.dtype}, numbers are wanted")
    return np.require(array, np.float32, ["C", "A"])


def labels(y: ArrayLike, count: int, classes: int) -> NDArray[np.int32]:
    """y as int32 class numbers (count,), each in 0 .. classes-1."""
    array = np.asarray(y)
    if array.shape != (count,):
        hint = "; labels are class numbers, not one-hot rows" if array.ndim == 2 else ""
        raise MestArgumentError(f"y has shape {array.shape}, not ({count},){hint}")
    numbers: NDArray[np.int32] = _integers(array, np.int32, classes, "y", "classes")
    return numbers


def targets(y: ArrayLike, count: int, outputs: int) -> NDArray[np.float32]:
    """y as float32 (count, outputs); (count,) will do for one output."""
    array = np.asarray(y)
    if array.shape != (count, outputs) and not (outputs == 1 and array.shape == (count,)):
        raise MestArgumentError(f"y has shape {array.shape}, not ({count}, {outputs})")
    return floats(array, "y")


def sample_ids(ids: ArrayLike, count: int, limit: int) -> NDArray[np.uint32]:
    """ids as uint32 (count,), each below `limit`, the config's samples."""
    if not limit:
        raise MestArgumentError(
            "ids are given, but Config.samples is not: nothing would be counted"
        )
    array = np.asarray(ids)
    if array.shape != (count,):
        raise MestArgumentError(f"ids has shape {array.shape}, not ({count},)")
    numbers: NDArray[np.uint32] = _integers(array, np.uint32, limit, "ids", "samples")
    return numbers


def indices(values: ArrayLike, kind: Any, limit: int, what: str) -> Any:
    """Non-negative integers below `limit`, one axis, as dtype `kind`."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise MestArgumentError(f"{what} has shape {array.shape}, one axis is wanted")
    return _integers(array, kind, limit, what, "positions")


def _integers(array: NDArray[Any], kind: Any, limit: int, what: str, of: str) -> Any:
    if array.dtype == kind and array.flags.c_contiguous:
        return array  # the library looks at the values
    # Checked before the conversion: a cast would wrap -1 and 2**32 into range.
    if array.size and array.dtype.kind not in "iub":
        raise MestArgumentError(f"{what} has dtype {array.dtype}, integers are wanted")
    if array.size and not (array.min() >= 0 and array.max() < limit):
        raise MestArgumentError(
            f"{what} holds {array.min()} to {array.max()}; there are {limit} {of}, from 0"
        )
    return np.require(array, kind, ["C", "A"])


def address(array: NDArray[Any]) -> int:
    """Where the numbers lie; array.ctypes.data says the same after building an object."""
    where: int = array.__array_interface__["data"][0]
    return where


def one_word(field: str, word: str, words: Sequence[str]) -> int:
    """Position of `word` in `words`.  ValueError listing them otherwise."""
    if word not in words:
        raise ValueError(f"{field}={word!r}: choose from {', '.join(map(repr, words))}")
    return words.index(word)
