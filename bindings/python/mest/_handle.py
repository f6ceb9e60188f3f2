# SPDX-License-Identifier: Apache-2.0
"""The life of a mest_model seen from Python: made, called by one thread at a time, closed."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any, Callable, Optional

from . import _abi
from ._environment import Environment, Memory
from ._lib import library
from .errors import StateError, error_of


class _Busy:
    """A class, since a generator's context takes several times as long to come and go."""

    __slots__ = ("_model",)

    def __init__(self, model: Handle) -> None:
        self._model = model

    def __enter__(self) -> int:
        model = self._model
        if not model._lock.acquire(blocking=False):
            raise StateError("the model is in use by another call; one model, one thread at a time")
        if model._handle is not None and model._process == os.getpid():
            return model._handle
        model._lock.release()
        if model._handle is None:
            raise StateError("the model is closed")
        raise StateError("the model was made before fork(); make one in this process")

    def __exit__(self, *_exception: Any) -> None:
        self._model._lock.release()


class Handle:
    """Owner of one mest_model; `Model` adds what can be done with it."""

    def __init__(self, settings: Any, description: Any, environment: Environment) -> None:
        self._lib = library()
        self._environment = environment
        self._lock = threading.Lock()  # held during every call
        self._ending = threading.RLock()  # keeps cancel() and close() apart
        self._process = os.getpid()
        handle = _abi.model()
        with environment.during():
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

    def _busy(self) -> _Busy:
        """`with model._busy() as handle`: nobody else calls meanwhile."""
        return _Busy(self)

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        """Calls the library; raises what a callback raised, or the status as an exception."""
        with self._busy() as handle:
            self._call_busy(handle, function, *arguments)

    def _call_busy(self, handle: int, function: Callable[..., int], *arguments: Any) -> None:
        """The same for who holds the model by `_busy` already."""
        with self._environment.during():
            status = function(handle, *arguments)
        if status != _abi.MEST_OK:
            raise error_of(status, self._lib.mest_last_error(handle).decode())

    def cancel(self) -> None:
        """Asks the running call, or the next long one, to stop with CancelledError.  From any
        thread.  The model stays usable."""
        with self._ending:
            if self._handle is not None:
                self._lib.mest_model_cancel(self._handle)

    def close(self) -> None:
        """Gives the memory back.  Later calls raise StateError; closing twice is fine."""
        if not self._lock.acquire(blocking=False):
            raise StateError("the model is in use by another call: cancel() it first")
        try:
            with self._ending:
                self._handle = None
                self._destroy()
        finally:
            self._lock.release()


def _destroy(lib: Any, handle: Optional[int], _environment: Environment) -> None:
    # The environment is an argument to stay alive until here: destroying calls its release().
    lib.mest_model_destroy(handle)
