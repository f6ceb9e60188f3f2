# SPDX-License-Identifier: Apache-2.0
"""The bytes of a delta.  Little-endian; a number in angle brackets has 7 bits a byte, the lowest first, and
bit 7 says that more follow (LEB128).

    8   "MESTDELT"
    2   version, 1
    2   0
    4   tensors that follow
    8   bytes of the file
    8   bytes of the whole result state, for comparison
    32  SHA-256 of the base state        (exact.digest says of what)
    32  SHA-256 of the result state
        for each tensor:
            <length> name in UTF-8, 1 byte: 1 sparse or 0 dense, <axes>, <size> of each axis
            numbers that changed: a set among the connections that stay, numbered in the order of the matrix
                (dense: among all numbers), and the exclusive or of the bits before and after, 4 a number
            sparse only:
            connections that leave: a set among the positions of the matrix, and their values, 4 each
            connections that come: the same
    4   CRC-32 of all bytes before

    a set: <members>, <of how many>, 1 byte: its form
        0  all of them; nothing follows
        1  <bytes> and so many bytes of gaps: for each member <how many are skipped before it>
        2  a bit for each of them, from the lowest bit of the first byte on
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptError, VersionError

_MAGIC, _VERSION = b"MESTDELT", 1
_HEAD = struct.Struct("<8sHHIQQ32s32s")
_ALL, _GAPS, _BITMAP = 0, 1, 2
_MOST = 2**48  # positions of a tensor; more is a mistake

Integers = NDArray[np.int64]
Bits = NDArray[np.uint32]


class Change(NamedTuple):
    """Of one tensor.  changed: which of the `universe` connections that stay, in their order (dense: of all
    numbers), with xor, of the bits before and after.  removed, added: positions in the matrix, with bits."""

    name: str
    shape: Tuple[int, ...]
    sparse: bool
    universe: int
    changed: Integers
    xor: Bits
    removed: Integers
    removed_bits: Bits
    added: Integers
    added_bits: Bits

    def reversed(self) -> "Change":
        return self._replace(
            removed=self.added, removed_bits=self.added_bits, added=self.removed, added_bits=self.removed_bits
        )


def encode(base: bytes, result: bytes, full_bytes: int, changes: Sequence[Change]) -> bytes:
    body = b"".join(map(_tensor, changes))
    size = _HEAD.size + len(body) + 4
    data = _HEAD.pack(_MAGIC, _VERSION, 0, len(changes), size, full_bytes, base, result) + body
    return data + struct.pack("<I", zlib.crc32(data))


def _tensor(change: Change) -> bytes:
    label = change.name.encode()
    head = [len(label)], [int(change.sparse), len(change.shape), *change.shape]
    parts = [_numbers(head[0]), label, _numbers(head[1])]
    sets = [(change.changed, change.universe, change.xor)]
    if change.sparse:
        positions = math.prod(change.shape)
        sets.append((change.removed, positions, change.removed_bits))
        sets.append((change.added, positions, change.added_bits))
    for members, universe, bits in sets:
        parts += [_set(members, universe), bits.astype("<u4").tobytes()]
    return b"".join(parts)


def _set(members: Integers, universe: int) -> bytes:
    """In the form that is smallest."""
    head = _numbers([members.size, universe])
    if members.size == universe:
        return head + bytes([_ALL])
    gaps = _numbers(np.diff(members, prepend=-1) - 1)
    if len(gaps) <= -(-universe // 8):
        return head + bytes([_GAPS]) + _numbers([len(gaps)]) + gaps
    flags = np.zeros(universe, bool)
    flags[members] = True
    return head + bytes([_BITMAP]) + np.packbits(flags, bitorder="little").tobytes()


def _numbers(values: Any) -> bytes:
    """Each as LEB128."""
    rest = np.asarray(values, np.uint64)
    lengths = np.ones(rest.size, np.int64)
    for size in range(1, 10):
        lengths += rest >= np.uint64(1 << 7 * size)
    ends = np.cumsum(lengths)
    data = np.zeros(int(ends[-1]) if ends.size else 0, np.uint8)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        more = np.where(lengths[has] > place + 1, 0x80, 0).astype(np.uint64)
        data[(ends - lengths)[has] + place] = rest[has] & np.uint64(0x7F) | more
        rest = rest >> np.uint64(7)
    return data.tobytes()


# ----------------------------------------------------------------------------------------- reading ---


def decode(data: bytes) -> Tuple[bytes, bytes, int, Tuple[Change, ...]]:
    """(base, result, full_bytes, changes).  CorruptError, VersionError."""
    if len(data) < _HEAD.size + 4 or data[:8] != _MAGIC:
        raise CorruptError("this is no delta, or one that is cut off")
    _, version, zero, count, size, full_bytes, base, result = _HEAD.unpack_from(data)
    if size != len(data) or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise CorruptError(f"the delta is damaged or cut off: {len(data)} of {size} bytes")
    if version > _VERSION:
        raise VersionError(f"the delta has version {version}, this mest reads up to {_VERSION}")
    reader = _Reader(data[_HEAD.size : -4])
    changes = []
    for _ in range(count):
        changes.append(reader.change())
    if version < 1 or zero or reader.at != len(reader.data) or len({c.name for c in changes}) != count:
        raise CorruptError("the delta is damaged: it does not end where it should")
    return base, result, full_bytes, tuple(changes)


class _Reader:
    """Goes through the tensors; whatever is not as documented is a CorruptError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise CorruptError("the delta is damaged: a tensor ends too early")
        self.at += size
        return part

    def number(self) -> int:
        value = 0
        for place in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise CorruptError("the delta is damaged: a number has no end")

    def change(self) -> Change:
        try:
            name = self.take(self.number()).decode()
        except UnicodeDecodeError as error:
            raise CorruptError("the delta is damaged: a name is no text") from error
        sparse, axes = self.number(), self.number()
        if sparse > 1 or axes > 64 or (sparse and axes != 2):
            raise CorruptError(f"the delta is damaged: {name} has no kind")
        shape = tuple(self.number() for _ in range(axes))
        positions = math.prod(shape)
        if positions > _MOST:
            raise CorruptError(f"the delta is damaged: {name} has the shape {shape}")
        changed, xor, universe = self.part(positions)
        sets: List[Any] = [np.zeros(0, np.int64), np.zeros(0, np.uint32)] * 2
        if sparse:
            removed, removed_bits, first = self.part(positions)
            added, added_bits, second = self.part(positions)
            sets = [removed, removed_bits, added, added_bits]
            if first != positions or second != positions:
                raise CorruptError(f"the delta is damaged: {name} has other positions than its shape")
        elif universe != positions:
            raise CorruptError(f"the delta is damaged: {name} has other numbers than its shape")
        return Change(name, shape, bool(sparse), universe, changed, xor, *sets)

    def part(self, most: int) -> Tuple[Integers, Bits, int]:
        """A set of at most `most`, with its bits."""
        count, universe, form = self.number(), self.number(), self.number()
        if count > universe or universe > most:
            raise CorruptError("the delta is damaged: a set is larger than what it is of")
        if 4 * count > len(self.data) - self.at:
            raise CorruptError("the delta is damaged: a set ends too early")
        members = self.members(count, universe, form)
        bits = np.frombuffer(self.take(4 * count), "<u4").astype(np.uint32)
        return members, bits, universe

    def members(self, count: int, universe: int, form: int) -> Integers:
        found = np.zeros(0, np.int64)
        if form == _ALL:
            found = np.arange(universe)
        elif form == _GAPS:
            gaps = _gaps(self.take(self.number()))
            # In floating point first: no sum of damaged numbers may wrap around into range.
            if gaps.size == count and float(gaps.sum(dtype=np.float64)) + count < 2 * _MOST:
                found = np.cumsum(gaps.astype(np.int64) + 1) - 1
        elif form == _BITMAP:
            packed = np.frombuffer(self.take(-(-universe // 8)), np.uint8)
            found = np.flatnonzero(np.unpackbits(packed, bitorder="little"))
        if found.size != count or (count and found[-1] >= universe):
            raise CorruptError("the delta is damaged: a set does not have its members")
        return found


def _gaps(data: bytes) -> NDArray[np.uint64]:
    """The numbers of a run of LEB128."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: ends.size]
    lengths = ends - starts + 1
    if (raw.size and (not ends.size or ends[-1] != raw.size - 1)) or lengths.max(initial=0) > 9:
        raise CorruptError("the delta is damaged: a number has no end")
    values = np.zeros(ends.size, np.uint64)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        values[has] |= (raw[starts[has] + place] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * place)
    return values
