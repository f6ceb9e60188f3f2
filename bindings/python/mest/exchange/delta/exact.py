# SPDX-License-Identifier: Apache-2.0
"""What `predict` needs of a model, as bits: connections and their values, biases, batch norm."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Dict, Iterable, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ...errors import MestArgumentError, MestError
from ...model import Model
from ...reports import CSR
from ..files import WEIGHTS, read_weights
from ..given import refuse_what_is_no_model
from ..state import entries

Bits = NDArray[np.uint32]
Positions = NDArray[np.int64]
Path = Union[str, "os.PathLike[str]"]
Source = Union[Model, Mapping[str, NDArray[np.float32]], Path]


class Tensor(NamedTuple):
    """bits: of float32 values.  positions: where a sparse weight has them, ascending, in the dense matrix
    of this shape, row by row; None: everywhere, in that order."""

    shape: Tuple[int, ...]
    bits: Bits
    positions: Optional[Positions] = None

    @property
    def bytes(self) -> int:
        """Values, and 2 for the column of a connection."""
        return self.bits.size * (4 if self.positions is None else 6)


State = Dict[str, Tensor]


def state_of(source: Source, like: Optional[Model] = None) -> State:
    """Of a model, of a mapping of names to float32 arrays, or of a file of either.  Copies.

    like: of the description that a checkpoint was saved with."""
    if isinstance(source, Model):
        return {name: _read(source, index, what) for name, index, what in entries(source)}
    if isinstance(source, (str, os.PathLike)):
        if os.path.splitext(os.fsdecode(source))[1].lower() in WEIGHTS:
            return state_of(read_weights(source))
        return _saved(source, like)
    if not isinstance(source, Mapping):
        also = ", a mapping of names to arrays, or the path of a checkpoint"
        refuse_what_is_no_model(source, "a delta", also)
    state = {}
    for name, values in source.items():
        array = np.asarray(values)
        if array.dtype != np.float32:
            raise MestArgumentError(f"{name!r} has dtype {array.dtype}, float32 is wanted")
        state[str(name)] = Tensor(array.shape, _bits(array))
    return state


def _saved(path: Path, like: Optional[Model]) -> State:
    if like is None:
        raise MestArgumentError(
            f"{os.fspath(path)}: a checkpoint does not say how its layers are called: give delta(..., "
            "like=model), a model of the layers and config that it was saved with"
        )
    with Model(like.layers, like.config) as saved:
        saved.load(path, strict=False)  # another learning rate, say, is no other state
        return state_of(saved)


def arrays_of(state: State) -> Dict[str, NDArray[np.float32]]:
    """A state of dense tensors as arrays."""
    return {name: tensor.bits.view(np.float32).reshape(tensor.shape) for name, tensor in state.items()}


def digest(state: State) -> bytes:
    """SHA-256 over names, shapes, connections and bits, whatever the order of the names."""
    total = hashlib.sha256(b"mest state 1")
    for name in sorted(state):
        tensor, label = state[name], name.encode()
        axes = len(tensor.shape)
        sparse = tensor.positions is not None
        head = struct.pack(f"<I?B{axes}Q", len(label), sparse, axes, *tensor.shape)
        total.update(head + label + struct.pack("<Q", tensor.bits.size))
        if tensor.positions is not None:
            total.update(tensor.positions.astype("<u8").tobytes())
        total.update(tensor.bits.astype("<u4").tobytes())
    return total.digest()


def set_state(model: Model, state: State, names: Iterable[str]) -> None:
    """Gives the model these tensors of a state.  Momentum stays with the connections that stay.

    If the library refuses one, or the model does not have them afterwards, all are as before and the
    error is raised."""
    wanted = set(names)
    if any(part.scheme in ("filter", "channel") for part in model.plan().layers):
        wanted = set(state)  # channels come and go in several layers at once
    # Connections first: with whole channels they decide which other numbers exist.
    places = sorted(
        (place for place in entries(model) if place.key in wanted),
        key=lambda place: state[place.key].positions is None,
    )
    before = {name: _read(model, index, what) for name, index, what in places}
    momenta = {name: _momentum(model, index, before[name]) for name, index, _ in places}
    try:
        for name, index, what in places:
            _write(model, index, what, state[name], _moved(before[name], momenta[name], state[name]))
        for name, index, what in places:
            if digest({name: _read(model, index, what)}) != digest({name: state[name]}):
                raise MestArgumentError(f"{name} cannot be what it is to be: is the model of another config?")
    except MestError:
        for name, index, what in places:
            _write(model, index, what, before[name], momenta[name])
        raise


# ------------------------------------------------------------------------------------- of a model ---


def _read(model: Model, index: int, what: str) -> Tensor:
    part = model.plan().layers[index]
    if what != "weight" or not part.sparse:
        values = model.tensor(index, what)
        return Tensor(values.shape, _bits(values))
    csr = model.csr(index)
    rows = np.repeat(np.arange(part.rows, dtype=np.int64), csr.indptr[1:] - csr.indptr[:-1])
    return Tensor((part.rows, part.columns), _bits(csr.values), rows * part.columns + csr.indices)


def _write(
    model: Model, index: int, what: str, tensor: Tensor, momentum: Optional[NDArray[np.float32]]
) -> None:
    values = tensor.bits.view(np.float32)
    if tensor.positions is None:
        model.set_tensor(index, what, values.reshape(tensor.shape))
        return
    rows, columns = tensor.shape
    counts = np.bincount(tensor.positions // columns, minlength=rows)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
    csr = CSR(indptr, (tensor.positions % columns).astype(np.uint16), values)
    model.set_csr(index, csr, momentum=momentum)


def _momentum(model: Model, index: int, tensor: Tensor) -> Optional[NDArray[np.float32]]:
    """Of the connections of a sparse weight, in their order."""
    if tensor.positions is None or model.config.inference_only:
        return None
    return model.tensor(index, "weight_momentum").ravel()


def _moved(
    before: Tensor, momentum: Optional[NDArray[np.float32]], after: Tensor
) -> Optional[NDArray[np.float32]]:
    """What each connection has now, 0 for those that are new."""
    if momentum is None or before.positions is None or after.positions is None:
        return None
    moved = np.zeros(after.bits.size, np.float32)
    _, old, new = np.intersect1d(before.positions, after.positions, True, return_indices=True)
    moved[new] = momentum[old]
    return moved


def _bits(values: NDArray[np.float32]) -> Bits:
    return np.ascontiguousarray(values).ravel().view(np.uint32).copy()
