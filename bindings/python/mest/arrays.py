# SPDX-License-Identifier: Apache-2.0
"""numpy arrays in the form the library reads, with messages that say what to change."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Sequence, Tuple, Type

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import MestArgumentError

_PACKAGE = __name__.split(".")[0]


class CopyWarning(UserWarning):
    """An array was converted and copied; pass C-contiguous float32 to avoid it."""


_FLOAT = np.dtype(np.float32)
_CHUNK = 2**16  # numbers looked at in one go, where a whole array is: no big temporaries


def warn_caller(message: str, kind: Type[Warning] = UserWarning) -> None:
    """A warning that points at the line outside this package that called it."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=level)


def as_numpy(values: ArrayLike) -> NDArray[Any]:
    """An array of what is one, or nearly: lists, tables, tensors of torch on any device (where it can
    be had without a copy it is)."""
    tensor: Any = values
    if hasattr(tensor, "detach") and hasattr(tensor, "cpu"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype).endswith("bfloat16"):  # numpy has none
            tensor = tensor.float()
    return np.asarray(tensor)


def samples(
    x: ArrayLike, shape: Tuple[int, int, int], warn: bool = False, what: str = "x"
) -> NDArray[np.float32]:
    """x as contiguous float32: (n, inputs) or (n, channels, height, width), without a copy when it
    already is.  warn: say so when an array had to be converted (lists are converted silently: who
    passes those does not count copies).  what: its name in messages."""
    array = as_numpy(x)
    flat = (shape[0] * shape[1] * shape[2],)
    if array.shape[1:] not in (flat, shape):
        wanted = f"(n, {flat[0]})"
        if shape[1:] != (1, 1):
            wanted += " or (n, {}, {}, {})".format(*shape)
        hint = "; one sample is x[None]" if array.shape in (flat, shape) else ""
        raise MestArgumentError(f"{what} has shape {array.shape}, the network takes {wanted}{hint}")
    converted = floats(array, what)
    if warn and converted is not array and isinstance(x, np.ndarray):
        layout = "" if array.flags.c_contiguous else "non-contiguous "
        warn_caller(
            f"{what} was copied ({converted.nbytes:,} bytes) from {layout}{array.dtype}: pass "
            "C-contiguous float32 to work without copies",
            CopyWarning,
        )
    return converted


def floats(values: ArrayLike, what: str) -> NDArray[np.float32]:
    """Contiguous, aligned, native float32; the same object when it already is."""
    array = as_numpy(values)
    if array.dtype == _FLOAT and array.flags.c_contiguous and array.flags.aligned:
        return array
    if array.dtype.kind not in "fiub":
        raise MestArgumentError(f"{what} has dtype {array.dtype}, numbers are wanted")
    return np.require(array, np.float32, ["C", "A"])


def finite(values: NDArray[np.float32], what: str) -> None:
    """MestArgumentError naming the first sample with a value that is not finite, in the library's
    words; for arrays that reach the library in parts."""
    rows = values.reshape(len(values), -1)
    step = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        fine = np.isfinite(rows[start : start + step])
        if not fine.all():
            row, place = np.argwhere(~fine)[0]
            raise MestArgumentError(
                f"{what}: value {place} of sample {start + row} is {rows[start + row, place]}; "
                "values must be finite"
            )


def labels(
    y: ArrayLike, count: int, classes: int, whole: bool = False, what: str = "y"
) -> NDArray[np.int32]:
    """y as int32 class numbers (count,), each in 0 .. classes-1.  whole: y reaches the library in
    parts, so int32 is looked at here too, to name the sample in y."""
    array = as_numpy(y)
    if array.shape != (count,):
        hint = "; labels are class numbers, not one-hot rows" if array.ndim == 2 else ""
        raise MestArgumentError(f"{what} has shape {array.shape}, not ({count},){hint}")
    numbers: NDArray[np.int32] = _integers(array, np.int32, classes, what, "classes", whole)
    return numbers


def targets(y: ArrayLike, count: int, outputs: int, what: str = "y") -> NDArray[np.float32]:
    """y as float32 (count, outputs); (count,) will do for one output."""
    array = as_numpy(y)
    if array.shape != (count, outputs) and not (outputs == 1 and array.shape == (count,)):
        raise MestArgumentError(f"{what} has shape {array.shape}, not ({count}, {outputs})")
    return floats(array, what)


def sample_ids(
    ids: ArrayLike, count: int, limit: int, what: str = "ids"
) -> NDArray[np.uint32]:
    """ids as uint32 (count,), each below `limit`, the config's samples."""
    if not limit:
        raise MestArgumentError(
            f"{what} are given, but Config.samples is not: nothing would be counted"
        )
    array = as_numpy(ids)
    if array.shape != (count,):
        raise MestArgumentError(f"{what} has shape {array.shape}, not ({count},)")
    numbers: NDArray[np.uint32] = _integers(array, np.uint32, limit, what, "samples")
    return numbers


def indices(values: ArrayLike, kind: Any, limit: int, what: str) -> Any:
    """Non-negative integers below `limit`, one axis, as dtype `kind`."""
    array = as_numpy(values)
    if array.ndim != 1:
        raise MestArgumentError(f"{what} has shape {array.shape}, one axis is wanted")
    return _integers(array, kind, limit, what, "positions")


def _integers(
    array: NDArray[Any], kind: Any, limit: int, what: str, of: str, look: bool = False
) -> Any:
    if not look and array.dtype == kind and array.flags.c_contiguous:
        return array  # the library looks at the values
    # Checked before the conversion: a cast would wrap -1 and 2**32 into range.
    if array.size and array.dtype.kind not in "iub":
        raise MestArgumentError(f"{what} has dtype {array.dtype}, integers are wanted")
    if array.size and not (array.min() >= 0 and array.max() < limit):
        first = np.flatnonzero((array < 0) | (array >= limit))[0]
        raise MestArgumentError(
            f"{what}[{first}] is {array[first]}; there are {limit} {of}, from 0"
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
