# SPDX-License-Identifier: Apache-2.0
"""What changed between two states of one model: `delta`, `Delta`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path as _Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union, overload

import numpy as np
from numpy.typing import NDArray

from ... import _files
from ...errors import CorruptError, MestArgumentError, MestIOError, ShapeError
from ...model import Model
from .exact import Positions, Source, State, Tensor, arrays_of, digest, set_state, state_of
from .file import Change, decode, encode

Path = Union[str, "os.PathLike[str]"]
_NOWHERE = np.zeros(0, np.int64)
_NOTHING = np.zeros(0, np.uint32)


@dataclass(frozen=True, eq=False)
class Delta:
    """The difference of two states, `base` and `result`, that leads from either to the other, to the bit.

    Made by `mest.delta`.  A state is what predict needs: connections and their values, biases, and of batch
    norm scale, shift and statistics; no optimizer state, counts or position in training.
    base_hash, result_hash: SHA-256 of the states, 32 bytes.  full_bytes: of the whole result, 4 a number
    and 2 for the column of a connection.  changes: of each tensor that is not the same.
    """

    base_hash: bytes
    result_hash: bytes
    full_bytes: int
    changes: Tuple[Change, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Delta) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash((self.base_hash, self.result_hash))

    @property
    def file_bytes(self) -> int:
        """Size as a file."""
        return len(self.to_bytes())

    @property
    def changed(self) -> int:
        """Numbers that are others now."""
        return sum(change.changed.size for change in self.changes)

    @property
    def removed(self) -> int:
        """Connections of the base that the result lacks."""
        return sum(change.removed.size for change in self.changes)

    @property
    def added(self) -> int:
        """Connections of the result that the base lacks."""
        return sum(change.added.size for change in self.changes)

    def __str__(self) -> str:
        tensors = f"{len(self.changes)} tensor{'s' * (len(self.changes) != 1)}"
        return (
            f"delta {self.base_hash.hex()[:12]} -> {self.result_hash.hex()[:12]}: in {tensors} "
            f"{self.changed:,} numbers changed, {self.removed:,} connections gone, {self.added:,} new; "
            f"{self.file_bytes:,} bytes, the whole state has {self.full_bytes:,}"
        )

    # ---- there and back ----

    @overload
    def apply(self, target: Model) -> Model: ...
    @overload
    def apply(self, target: Mapping[str, NDArray[np.float32]]) -> Dict[str, NDArray[np.float32]]: ...
    def apply(self, target: Any) -> Any:
        """base -> result.  A model is changed and returned; of a mapping of arrays comes a new one.

        The base's hash is compared first, the result's afterwards.  Momentum stays with the connections that
        stay, new ones have none; nothing else of the training changes.
        Errors: MestArgumentError (target is not the base; the model has no room for the connections),
        CorruptError (the delta does not lead to its result).  The target is then as it was.
        """
        return _lead(self, target, "apply")

    @overload
    def revert(self, target: Model) -> Model: ...
    @overload
    def revert(self, target: Mapping[str, NDArray[np.float32]]) -> Dict[str, NDArray[np.float32]]: ...
    def revert(self, target: Any) -> Any:
        """result -> base: as `apply`, the other way."""
        changes = tuple(change.reversed() for change in self.changes)
        back = replace(self, base_hash=self.result_hash, result_hash=self.base_hash, changes=changes)
        return _lead(back, target, "revert")

    # ---- as a file ----

    def to_bytes(self) -> bytes:
        """The file as bytes: `mest.exchange.delta.file` documents them."""
        return encode(self.base_hash, self.result_hash, self.full_bytes, self.changes)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Delta":
        """Errors: CorruptError (cut off, garbled or none), VersionError (of a later version)."""
        return cls(*decode(data))

    def save(self, path: Path) -> None:
        """The file is replaced as a whole or not at all.  Errors: MestIOError (an OSError)."""
        _files.replace(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> "Delta":
        """Errors: as from_bytes, and MestIOError (an OSError)."""
        try:
            data = _Path(path).read_bytes()
        except OSError as error:
            raise MestIOError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
        return cls.from_bytes(data)


def delta(base: Source, new: Source, like: Optional[Model] = None) -> Delta:
    """What leads from base to new and back: two models of one description, or two mappings of names to
    float32 arrays (`state_dict`s; there a connection is a number, and connections of value 0 are not known).

        change = mest.delta("before.mest", model)
        change.save("update.delta")
        mest.Delta.load("update.delta").apply(old)  # predicts what model does, to the bit

    Paths stand for what was saved: a checkpoint (`Model.save`) for a model, .npz and .safetensors for arrays.
    like: where neither is a model that trains, one of the layers and config that a checkpoint was saved with.
    It stays as it is; a checkpoint takes the memory of one more for a moment.
    Errors: ShapeError (tensors of other names, shapes or kinds), MestArgumentError (not float32; no `like`; a
    checkpoint of another model), CorruptError, VersionError, MestIOError (an OSError).
    """
    if like is None:  # checkpoints are those of models that train, mostly
        models = [source for source in (new, base) if isinstance(source, Model)]
        like = min(models, key=lambda model: model.config.inference_only, default=None)
    before, after = state_of(base, like), state_of(new, like)
    if before.keys() != after.keys():
        names = ", ".join(sorted(before.keys() ^ after.keys()))
        raise ShapeError(f"base and new are not of one network: only one of them has {names}")
    changes = [_change(name, before[name], after[name]) for name in after]
    size = sum(tensor.bytes for tensor in after.values())
    return Delta(digest(before), digest(after), size, tuple(c for c in changes if c is not None))


def _change(name: str, before: Tensor, after: Tensor) -> Optional[Change]:
    sparse = before.positions is not None
    if before.shape != after.shape or sparse != (after.positions is not None):
        kinds = ["dense" if t.positions is None else "sparse" for t in (before, after)]
        raise ShapeError(
            f"base and new are not of one network: {name} is {kinds[0]} {before.shape} in base and "
            f"{kinds[1]} {after.shape} in new"
        )
    if before.positions is None or after.positions is None:
        xor = before.bits ^ after.bits
        at = np.flatnonzero(xor)
        gone = new = _NOWHERE
        gone_bits = new_bits = _NOTHING
        universe = xor.size
    else:
        stays, still = _among(before.positions, after.positions), _among(after.positions, before.positions)
        xor = before.bits[stays] ^ after.bits[still]
        at = np.flatnonzero(xor)
        gone, gone_bits = before.positions[~stays], before.bits[~stays]
        new, new_bits = after.positions[~still], after.bits[~still]
        universe = xor.size
    if not (at.size or gone.size or new.size):
        return None
    return Change(name, after.shape, sparse, universe, at, xor[at], gone, gone_bits, new, new_bits)


def _among(these: Positions, others: Positions) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isin(these, others, assume_unique=True)
    return found


def _lead(known: Delta, target: Any, verb: str) -> Any:
    if isinstance(target, (str, os.PathLike)):
        raise TypeError(f"{verb}: a file is not changed in place; give the model or the arrays that it is of")
    state = state_of(target)
    found = digest(state)
    if found != known.base_hash:
        if found == known.result_hash:
            raise MestArgumentError(f"{verb}: it is done already, this is the state that the delta leads to")
        raise MestArgumentError(
            f"{verb}: the delta is for state {known.base_hash.hex()[:12]}, this is {found.hex()[:12]}"
        )
    result = dict(state)
    for change in known.changes:
        if change.name not in state:
            raise CorruptError(f"the delta changes {change.name}, which its base does not have")
        result[change.name] = _changed(change, state[change.name])
    if digest(result) != known.result_hash:
        raise CorruptError("the delta does not lead to the state that it names")
    if isinstance(target, Model):
        set_state(target, result, [change.name for change in known.changes])
        return target
    return arrays_of(result)


def _changed(change: Change, tensor: Tensor) -> Tensor:
    sparse = tensor.positions is not None
    fits = change.shape == tensor.shape and change.sparse == sparse
    if tensor.positions is None:
        fits = fits and change.universe == tensor.bits.size
        stays = np.ones(tensor.bits.size, bool)
    else:
        stays = ~_among(tensor.positions, change.removed)
        fits = fits and change.universe == int(stays.sum()) == tensor.bits.size - change.removed.size
        fits = fits and not _among(change.added, tensor.positions).any()
        fits = fits and np.array_equal(tensor.bits[~stays], change.removed_bits)
    if not fits:
        raise CorruptError(f"the delta does not fit {change.name} of its base")
    bits = tensor.bits[stays]
    bits[change.changed] ^= change.xor
    if tensor.positions is None:
        return Tensor(tensor.shape, bits)
    positions = np.concatenate([tensor.positions[stays], change.added])
    order = np.argsort(positions, kind="stable")
    return Tensor(tensor.shape, np.concatenate([bits, change.added_bits])[order], positions[order])


__all__: List[str] = ["Change", "Delta", "State", "delta"]
