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
    """An array was converted and copied; pass C-contiguous float32 to avoid it.  Of unsigned bytes it says
    that numbers up to 255 want to be scaled first."""


_FLOAT = np.dtype(np.float32)
_COLOURS = (1, 3, 4)  # channels of grey, colour, and colour with transparency
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
        hint = _shape_hint(array.shape, shape)
        raise MestArgumentError(f"{what} has shape {array.shape}, the network takes {wanted}{hint}")
    converted = floats(array, what)
    if warn and converted is not array:
        _announce(array, converted.nbytes, what, isinstance(x, np.ndarray))
    return converted


def _shape_hint(found: Tuple[int, ...], shape: Tuple[int, int, int]) -> str:
    """What mostly lies behind samples of another shape."""
    channels, pixels = shape[0], shape[1:]
    if found in (shape, (shape[0] * shape[1] * shape[2],)):
        return "; one sample is x[None]"
    # Nobody has 32 channels of 32 x 3 pixels, so this also tells of pictures of another size.
    last = len(found) == 4 and (found[3] == channels or (found[3] in _COLOURS and found[1] not in _COLOURS))
    if last and pixels != (1, 1):
        return "; channels come first here: x.transpose(0, 3, 1, 2)"
    if len(found) == 3 and found == (*pixels, channels):
        return "; channels come first here, and one sample is x.transpose(2, 0, 1)[None]"
    if len(found) == 3 and channels == 1 and found[1:] == pixels:
        return "; the axis of the one channel is missing: x[:, None]"
    return ""


def is_bytes(array: NDArray[Any]) -> bool:
    """Unsigned bytes that use their range, as pictures do: no 0 and 1 alone."""
    return bool(array.dtype == np.uint8 and array.size and array.max() > 1)


def _announce(array: NDArray[Any], size: int, what: str, counts: bool) -> None:
    """Warns of the copy, where the caller counts them, and of bytes, in which networks hardly learn."""
    said = []
    if counts:
        layout = "" if array.flags.c_contiguous else "non-contiguous "
        said.append(
            f"{what} was copied ({size:,} bytes) from {layout}{array.dtype}: pass "
            "C-contiguous float32 to work without copies"
        )
    if is_bytes(array):
        values = "they are" if said else f"{what} is uint8,"
        said.append(
            f"{values} numbers up to {array.max()}, and networks learn from numbers around 1: scale them, "
            "x.astype(np.float32) / 255, or subtract the mean and divide by the deviation"
        )
    if said:
        warn_caller("; ".join(said), CopyWarning)


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
        hint = "; labels are one axis: y.ravel()" if array.shape == (count, 1) else ""
        if array.ndim == 2 and not hint:
            hint = "; labels are class numbers, not one-hot rows: y.argmax(1)"
        raise MestArgumentError(f"{what} has shape {array.shape}, not ({count},){hint}")
    if array.size and array.dtype.kind not in "iub":
        hint = ""
        if array.dtype.kind in "OUST":
            hint = ": names, y = np.unique(y, return_inverse=True) makes them, or mest.MestClassifier"
        elif array.dtype.kind == "f":
            hint = ': y.astype(np.int32), or for numbers to predict loss="mse"'
        raise MestArgumentError(f"{what} has dtype {array.dtype}, class numbers (integers) are wanted{hint}")
    hint = ""
    if classes == 1:  # the usual habit elsewhere for two
        whole = True
        hint = "one output is one class; for two give the network 2 outputs, for numbers loss=\"mse\""
    numbers: NDArray[np.int32] = _integers(array, np.int32, classes, what, "classes", whole, hint)
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
    array: NDArray[Any], kind: Any, limit: int, what: str, of: str, look: bool = False, hint: str = ""
) -> Any:
    if not look and array.dtype == kind and array.flags.c_contiguous:
        return array  # the library looks at the values
    # Checked before the conversion: a cast would wrap -1 and 2**32 into range.
    if array.size and array.dtype.kind not in "iub":
        raise MestArgumentError(f"{what} has dtype {array.dtype}, integers are wanted")
    if array.size and not (array.min() >= 0 and array.max() < limit):
        first = np.flatnonzero((array < 0) | (array >= limit))[0]
        there = f"there are {limit} {of}, from 0"
        raise MestArgumentError(f"{what}[{first}] is {array[first]}; {hint or there}")
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
