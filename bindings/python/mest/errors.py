# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as exceptions.

Every failure of the library is a `MestError` and, where Python has a word for it, that built-in
too: `except ValueError` and `except MemoryError` work as anywhere else.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Type

from . import _abi


class MestError(Exception):
    """Any failure reported by the library.  `status` is the code of mest.h."""

    status: int = 0


class MestArgumentError(MestError, ValueError):
    """A value passed in is wrong: size, range, NaN."""

    status = _abi.MEST_ERR_ARGUMENT


class ShapeError(MestError, ValueError):
    """Layers do not fit together."""

    status = _abi.MEST_ERR_SHAPE


class UnsupportedError(MestError, NotImplementedError):
    """Valid, but this version or this machine cannot do it."""

    status = _abi.MEST_ERR_UNSUPPORTED


class VersionError(MestError, RuntimeError):
    """Library and bindings were built from different headers, or a checkpoint is of a later version."""

    status = _abi.MEST_ERR_VERSION


class StateError(MestError, RuntimeError):
    """Not now: the model is closed, in use by another thread, or in the middle of something."""

    status = _abi.MEST_ERR_STATE


class CancelledError(MestError):
    """`Model.cancel` was called.  The model stays usable."""

    status = _abi.MEST_ERR_CANCELLED


class CallbackError(MestError):
    """`on_progress` asked to stop.  The model stays usable."""

    status = _abi.MEST_ERR_CALLBACK


class DivergedError(MestError, ArithmeticError):
    """Loss or gradient is not finite; the update was not applied.  `returned_to` is the epoch that
    training goes on with, None where it did not return to a good state (recover_epochs)."""

    status = _abi.MEST_ERR_DIVERGED
    returned_to: Optional[int] = None


class MestMemoryError(MestError, MemoryError):
    """The block of memory could not be had."""

    status = _abi.MEST_ERR_MEMORY


class BudgetError(MestError, MemoryError):
    """The plan needs more than `budget_bytes`.  `plan` tells how much, when it is known."""

    status = _abi.MEST_ERR_BUDGET
    plan: Optional[Any] = None


class CorruptError(MestError, ValueError):
    """A checkpoint is damaged, cut off, or none.  The model is as it was."""

    status = _abi.MEST_ERR_CORRUPT


class MestIOError(MestError, OSError):
    """Reading or writing a checkpoint failed."""

    status = _abi.MEST_ERR_IO


class InternalError(MestError):
    """A defect of the library: please report it."""

    status = _abi.MEST_ERR_INTERNAL


_KINDS: Dict[int, Type[MestError]] = {
    kind.status: kind
    for kind in (
        MestArgumentError,
        ShapeError,
        UnsupportedError,
        VersionError,
        StateError,
        CancelledError,
        CallbackError,
        DivergedError,
        MestMemoryError,
        BudgetError,
        CorruptError,
        MestIOError,
        InternalError,
    )
}


# What the library's messages advise, in Python.
_IN_PYTHON = {
    "load it into one that trains, and copy: mest_model_csr_get(), mest_model_tensor_get()": "load it into one "
    "that trains, then mest.delta(this, that).apply(this)",
    ", or memory of your own, by env.allocate or mest_model_create_in()": "",
    "MEST_FORGETTING_ORDER in config.forgetting_flags": "given_order=True",
    "MEST_LOAD_OTHER_SETTINGS": "strict=False",
    "MEST_MUTATION_GLOBAL": "global_threshold=True",
    "MEST_SCHEDULE_BY_UPDATE": "schedule_by_update=True",
    "the method decays: set epochs (at least 2) or mutation_epochs": "this method moves fewer connections "
    "epoch by epoch, so that one epoch is none: set epochs to 2 or more, or mutation_epochs",
    "mest_model_cancel": "Model.cancel",
    "mest_model_step()": "Model.step",
    "mest_model_tensor_get": "Model.tensor",
}


def error_of(status: int, message: str) -> MestError:
    """The exception for a status of the library; a status from the future is a plain MestError."""
    for theirs, ours in _IN_PYTHON.items():
        message = message.replace(theirs, ours)
    error = _KINDS.get(status, MestError)(message)
    error.status = status
    return error
