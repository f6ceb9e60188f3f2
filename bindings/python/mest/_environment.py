# SPDX-License-Identifier: Apache-2.0
"""What the library is given to work with: memory, a log, a progress callback.

An exception must not cross C.  Each callback stores it, tells the library to stop where it can, and
`during` raises it again after the call has returned.
"""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np

from . import _abi
from .reports import Progress

OnProgress = Callable[[Progress], Optional[bool]]
OnLog = Callable[[str, str], None]

_STAGES = {
    _abi.MEST_STAGE_STEP: "step",
    _abi.MEST_STAGE_MUTATE: "mutate",
    _abi.MEST_STAGE_PREDICT: "predict",
    _abi.MEST_STAGE_EVALUATE: "evaluate",
}
_logger = logging.getLogger("mest")
# The part of `signal` in C: around it `signal` makes enums, 10 us a call.
_signal: Any = importlib.import_module("_signal")


@dataclass
class Memory:
    """What the library asked its allocator for."""

    requests: int = 0  # calls so far
    current: int = 0  # bytes held now
    peak: int = 0  # most bytes held at once


class _During:
    """Any call may call back, to log if nothing else.  Python runs signal handlers when a callback
    starts, before any `try` in it, and ctypes swallows what is raised there: so for the time of the
    call Ctrl-C only sets a flag, which stops the call at its next report of progress, or is raised
    when it is over.
    """

    __slots__ = ("_environment", "_ours")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._ours = False

    def __enter__(self) -> None:
        environment = self._environment
        environment._failure, environment._interrupted = None, False
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and environment._may_replace(_signal.getsignal(signal.SIGINT))
        )
        if self._ours:
            _signal.signal(signal.SIGINT, environment._interrupt)

    def __exit__(self, *_exception: Any) -> None:
        environment = self._environment
        if self._ours:
            _signal.signal(signal.SIGINT, signal.default_int_handler)
        failure, environment._failure = environment._failure, None
        if environment._interrupted:
            raise KeyboardInterrupt
        if failure is not None:
            raise failure


class Environment:
    """One model's mest_env.  Knows nothing of the model, so that a forgotten model can be freed.

    The model's block is a numpy array: views of weights hold on to it, and stay readable memory
    even after the model is closed.
    """

    def __init__(self, on_progress: Optional[OnProgress], on_log: Optional[OnLog]) -> None:
        self.on_progress = on_progress
        self.on_log = on_log or _log
        self.memory = Memory()
        self.block: Optional[Any] = None
        self.busy = threading.Lock()  # held during every call
        self._failure: Optional[BaseException] = None
        self._interrupted = False
        # ctypes keeps these callback objects alive through the struct's fields.
        self.struct = _abi.mest_env(
            allocate=_abi.allocate_function(self._allocate),
            release=_abi.release_function(self._release),
            log=_abi.log_function(self._log),
        )
        if on_progress is not None:
            self.struct.progress = _abi.progress_function(self._progress)

    def during(self) -> _During:
        """Around one call of the library, with `busy` held: raises what a callback raised, and Ctrl-C."""
        return _During(self)

    def keep(self, failure: BaseException) -> None:
        """What a callback raised, to be raised when the call is over."""
        self._failure = failure

    # What the handler of another signal raises, an alarm's say, can end a call between two lines of
    # _During, and leave this handler behind.  `busy`, which C holds and gives back, tells.

    def _interrupt(self, number: int, frame: Any) -> None:
        if self.busy.locked():
            self._interrupted = True
            return
        _signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.default_int_handler(number, frame)

    def _may_replace(self, handler: Any) -> bool:
        """Python's own, or one that was left behind; not that of a call which this one is inside of."""
        if handler is signal.default_int_handler:
            return True
        owner = getattr(handler, "__self__", None)
        return isinstance(owner, Environment) and (owner is self or not owner.busy.locked())

    def _allocate(self, size: int, alignment: int, _user: Any) -> Optional[int]:
        try:
            block = np.empty(size + alignment - 1, np.uint8)
            self.block = block
            self.memory.requests += 1
            self.memory.current += size
            self.memory.peak = max(self.memory.peak, self.memory.current)
            return int(-(-block.ctypes.data // alignment) * alignment)
        except MemoryError:  # the library says it better: MestMemoryError with the size
            return None
        except BaseException as failure:
            self._failure = failure
            return None

    def _release(self, _block: Any, size: int, _user: Any) -> None:
        self.memory.current -= size
        self.block = None

    def _log(self, level: int, message: bytes, _user: Any) -> None:
        try:
            word = "warning" if level == _abi.MEST_LOG_WARNING else "info"
            self.on_log(word, message.decode(errors="replace"))
        except BaseException as failure:  # nothing to stop: raised when the call is over
            self._failure = failure

    def _progress(self, pointer: Any, _user: Any) -> int:
        try:
            if self._interrupted:
                return 1
            assert self.on_progress is not None
            at = pointer.contents
            stage = _STAGES.get(at.stage, str(at.stage))
            stop = self.on_progress(Progress(stage, at.done, at.total, at.epoch, at.loss))
            return int(bool(stop))
        except BaseException as failure:
            self._failure = failure
            return 1

    def view(self, kind: Any, address: Optional[int], count: int) -> Any:
        """Read-only numpy array over `count` numbers of the block at `address`."""
        block = self.block
        assert block is not None
        offset = (address or block.ctypes.data) - block.ctypes.data
        numbers: Any = np.frombuffer(block, kind, count, offset)
        numbers.flags.writeable = False
        return numbers


def _log(level: str, message: str) -> None:
    _logger.log(logging.WARNING if level == "warning" else logging.INFO, "%s", message)
