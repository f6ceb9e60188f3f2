# SPDX-License-Identifier: Apache-2.0
"""Weights in files: dense arrays by torch's names, as .npz (numpy) or .safetensors (pip install safetensors).

They hold what `Model.state_dict` gives, nothing of the training: `Model.save` keeps that.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import zipfile
import zlib
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Callable, Dict, Mapping, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _files
from ..errors import CorruptError, MestArgumentError, MestError, MestIOError, UnsupportedError
from .given import refuse_what_is_no_model
from .state import Keys, load_state_dict, state_dict

if TYPE_CHECKING:
    from ..model import Model

Path = Union[str, "os.PathLike[str]"]
WEIGHTS = (".npz", ".safetensors")


def save_weights(model: "Model", path: Path) -> None:
    """Writes all parameters and statistics, zeros where no connection is.

    path: ends in .npz, which `numpy.load` reads, or .safetensors.  The file is replaced as a whole or not
    at all.  Errors: MestArgumentError (another suffix), MestIOError (an OSError).
    """
    refuse_what_is_no_model(model, "save_weights")
    write_weights(state_dict(model), path)


def load_weights(model: "Model", path: Path, strict: bool = True) -> Keys:
    """Takes over the weights of a file: `Model.load_state_dict` of `read_weights`.

    Of sparse layers the connections become those that are not zero.  Files that torch has written will do,
    where names and shapes are the model's.  Errors: those of both; the model is then as it was."""
    return load_state_dict(model, read_weights(path), strict)


def read_weights(path: Path) -> Dict[str, NDArray[Any]]:
    """Arrays by name of a .npz or .safetensors file; bfloat16 becomes float32.

    Files need not be trusted: nothing in them is executed, and no array is larger than the file says that
    its contents are.  Errors: CorruptError (damaged, cut off, of another format, or not of real numbers),
    UnsupportedError (a type that numpy lacks), MestArgumentError (another suffix), MestIOError (an
    OSError)."""
    name = os.fspath(path)
    return read_npz(name) if _suffix(name) == ".npz" else _contents(name, _read_safetensors)


def read_npz(path: Path, kinds: str = "fiub") -> Dict[str, NDArray[Any]]:
    """A .npz file as `read_weights` reads it, whatever its name is.  kinds: of types that may be in it, as
    numpy's dtype.kind: with "U" and "S" words, too.  Errors: CorruptError, MestIOError."""
    return _contents(os.fspath(path), lambda data: _read_npz(data, kinds))


def _contents(name: str, read: Callable[[bytes], Dict[str, NDArray[Any]]]) -> Dict[str, NDArray[Any]]:
    try:
        with open(name, "rb") as file:
            data = file.read()
    except OSError as error:
        raise MestIOError(f"cannot read {name}: {error.strerror or error}") from error
    try:
        return read(data)
    except MestError:
        raise
    except _DAMAGED as error:
        raise CorruptError(f"{name} is no whole {os.path.splitext(name)[1].lower()} file: {error}") from error


def write_weights(arrays: Mapping[str, ArrayLike], path: Path) -> None:
    """Writes arrays as `save_weights` does, for who has changed them: `read_weights` gives them back."""
    name = os.fspath(path)
    plain = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    write = _write_npz if _suffix(name) == ".npz" else _write_safetensors
    with _files.replacing(name) as (file,):
        write(plain, file)


# What numpy and zipfile raise for bytes that are none of theirs.  (bz2 and lzma, which have more, are not
# called, and what Python's parser raises for a header is a ValueError here.)
_DAMAGED = (
    ValueError, EOFError, LookupError, ArithmeticError, RuntimeError, zipfile.BadZipFile, zlib.error,
    struct.error,
)  # fmt: skip

_KINDS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64,
    "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16,
    "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


def _suffix(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in WEIGHTS:
        raise MestArgumentError(f"{name!r}: weights are in files that end in .npz or .safetensors")
    return suffix


def _write_npz(arrays: Mapping[str, NDArray[Any]], file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # as numpy.savez does it
        for key, array in arrays.items():
            with archive.open(key + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_npz(data: bytes, kinds: str) -> Dict[str, NDArray[Any]]:
    found: Dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                raise ValueError(f"{info.filename!r} in it is no array")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{info.filename!r} in it is neither stored nor deflated")
            with archive.open(info) as member:
                found[info.filename[: -len(".npy")]] = _read_array(member, info, kinds)
    return found


def _read_array(member: IO[bytes], info: zipfile.ZipInfo, kinds: str) -> NDArray[Any]:
    """An array of an archive, whose header is believed when it is of the member's size."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{info.filename!r} in it is of version {version}")
    one = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, kind = read(member)
    except Exception as error:  # it goes through Python's parser, which raises MemoryError, too
        raise ValueError(f"{info.filename!r} in it has no header of an array: {error}") from error
    if kind.hasobject:
        raise ValueError(f"{info.filename!r} in it is of Python objects")
    if kind.kind not in kinds:
        raise ValueError(f"{info.filename!r} in it is of {kind}, not of real numbers")
    if any(size < 0 for size in shape) or math.prod(shape) * kind.itemsize != info.file_size - member.tell():
        raise ValueError(f"{info.filename!r} in it is {info.file_size:,} bytes, not of the shape {shape}")
    flat = np.frombuffer(bytearray(member.read()), kind)  # writable; the read checks the sum
    if kind.kind == "U" and (flat.view(kind.str[0] + "u4") > sys.maxunicode).any():
        raise ValueError(f"{info.filename!r} in it has letters that there are not")
    return flat.reshape(shape, order="F" if by_columns else "C")


def _write_safetensors(arrays: Mapping[str, NDArray[Any]], file: IO[bytes]) -> None:
    # Not save_file: the file that it puts in the place of ours would be for its owner alone.
    file.write(_safetensors("safetensors.numpy").save(arrays))


def _read_safetensors(data: bytes) -> Dict[str, NDArray[Any]]:
    package = _safetensors("safetensors")
    try:
        tensors = package.deserialize(data)
    except package.SafetensorError as error:
        raise ValueError(str(error)) from error
    found: Dict[str, NDArray[Any]] = {}
    for key, tensor in tensors:
        kind = tensor["dtype"]
        if kind not in _KINDS:
            raise UnsupportedError(f"{key} in the file is of type {kind}: store it as F32")
        array = np.frombuffer(bytearray(tensor["data"]), np.dtype(_KINDS[kind]).newbyteorder("<"))
        if kind == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        found[key] = array.reshape(tensor["shape"])
    return found


def _safetensors(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("files that end in .safetensors need: pip install safetensors") from error
