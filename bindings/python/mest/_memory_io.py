# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in memory: a mest_io whose two slots are bytes, for copies and pickles of a model.

An exception must not cross C: each function keeps it for `during` of the environment, which raises it
when the call is over, and tells the library that the device has failed.
"""

from __future__ import annotations

import ctypes
from typing import Any, Dict, Union

from . import _abi
from ._environment import Environment

Bytes = Union[bytes, bytearray, memoryview]


class MemoryIO:
    """`struct` is for mest_model_save and mest_model_load; slot 0 begins with `data`."""

    def __init__(self, environment: Environment, data: Bytes = b"") -> None:
        self._environment = environment
        # A view of what is read: nothing is copied.  Written slots are bytearrays of their own.
        self._slots: Dict[int, Union[memoryview, bytearray]] = {0: memoryview(data).cast("B")}
        # ctypes keeps the callback objects alive through the struct's fields.
        self.struct = _abi.mest_io(
            read=_abi.read_function(self._read),
            write=_abi.write_function(self._write),
            sync=_abi.sync_function(self._sync),
        )

    def slot(self, number: int) -> bytes:
        """What was written."""
        return bytes(self._slots[number])

    def _read(self, slot: int, offset: int, target: int, count: int, _user: Any) -> int:
        try:
            found = bytes(self._slots.get(slot, b"")[offset : offset + count])
            ctypes.memmove(target, found, len(found))
            ctypes.memset(target + len(found), 0, count - len(found))  # what was never written
            return 0
        except BaseException as failure:
            return self._failed(failure)

    def _write(self, slot: int, offset: int, source: int, count: int, _user: Any) -> int:
        try:
            if offset == 0:
                self._slots[slot] = bytearray()
            written = self._slots[slot]
            assert isinstance(written, bytearray) and len(written) == offset
            written += ctypes.string_at(source, count)
            return 0
        except BaseException as failure:
            return self._failed(failure)

    def _sync(self, _slot: int, _user: Any) -> int:
        return 0

    def _failed(self, failure: BaseException) -> int:
        self._environment.keep(failure)
        return 1
