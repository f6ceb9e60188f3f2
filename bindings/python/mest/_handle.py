# SPDX-License-Identifier: Apache-2.0
"""The life of a mest_model seen from Python: made, called by one thread at a time, closed."""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, Callable, Optional

from . import _abi
from ._environment import Environment, Memory
from ._lib import library
from .errors import StateError, error_of


class Handle:
    """Owner of one mest_model; `Model` adds what can be done with it."""

    def __init__(self, settings: Any, description: Any, environment: Environment) -> None:
        self._lib = library()
        self._environment = environment
        self._ending = threading.RLock()  # keeps cancel() and close() apart
        handle = _abi.model()
        with environment.busy, environment.during():
            status = self._lib.mest_model_create(
                ctypes.byref(settings),
                description,
                len(description),
                ctypes.byref(environment.struct),
                ctypes.byref(handle),
            )
            self._handle: Optional[int] = handle.value
            # Runs at interpreter exit too, before modules are torn down; __del__ may come after.
            self._destroy = weakref.finalize(self, _destroy, self._lib, handle.value, environment)
        if status != _abi.MEST_OK:
            raise error_of(status, self._lib.mest_last_error(None).decode())

    @property
    def memory(self) -> Memory:
        """What the library asked for: requests, bytes held now, most bytes ever held."""
        return self._environment.memory

    @property
    def closed(self) -> bool:
        return self._handle is None

    def _idle(self) -> threading.Lock:
        """`with model._idle(): ... model._open()`: nobody else calls meanwhile.

        The lock itself is the context: Python handles no signal between entering one that is
        written in C and the first line under `with`, so that Ctrl-C cannot leave it locked.  Of two
        threads that come at the same moment the second waits.
        """
        if self._environment.busy.locked():
            raise StateError("the model is in use by another call; one model, one thread at a time")
        return self._environment.busy

    def _open(self) -> int:
        """The handle, for who is under `_idle`."""
        if self._handle is None:
            raise StateError("the model is closed")
        return self._handle

    def _call(self, function: Callable[..., int], *arguments: Any) -> bool:
        """Calls the library; raises what a callback raised, or the status as an exception.  Whether
        it is done: only slices of a step may not be."""
        with self._idle():
            return self._call_idle(self._open(), function, *arguments)

    def _call_idle(self, handle: int, function: Callable[..., int], *arguments: Any) -> bool:
        """The same under `_idle`, where several calls belong together."""
        with self._environment.during():
            status = function(handle, *arguments)
        if status < 0:
            raise error_of(status, self._lib.mest_last_error(handle).decode())
        return status == _abi.MEST_OK

    def cancel(self) -> None:
        """Asks the running call, or the next long one, to stop with CancelledError.  From any
        thread.  The model stays usable."""
        with self._ending:
            if self._handle is not None:
                self._lib.mest_model_cancel(self._handle)

    def close(self) -> None:
        """Gives the memory back.  Later calls raise StateError; closing twice is fine."""
        busy = self._environment.busy
        if busy.locked():
            raise StateError("the model is in use by another call: cancel() it first")
        with busy, self._ending, self._environment.during():
            self._handle = None
            self._destroy()


def _destroy(lib: Any, handle: Optional[int], _environment: Environment) -> None:
    # The environment is an argument to stay alive until here: destroying calls its release().
    lib.mest_model_destroy(handle)
