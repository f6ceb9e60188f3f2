# SPDX-License-Identifier: Apache-2.0
"""A trained model as C source for firmware: `to_c`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import _files, arrays
from ...errors import MestArgumentError, MestIOError
from ...model import Model
from ..given import refuse_what_is_no_model
from . import emulate, quantise
from .program import Program, program_of
from .text import Part, Text, write

# A file of ours in the include path must not hide one of these.
_HEADERS = (
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdarg stdbool "
    "stddef stdint stdio stdlib string tgmath time wchar wctype"
).split()

Folder = Union[str, "os.PathLike[str]"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CSource:
    """What `to_c` has written.  Sizes in bytes; print it.

    constant_bytes: in flash, all but the code (the description of a layer as 32-bit targets have it).
    scratch_bytes: of RAM, besides the stack and the caller's input and output.
    With evaluation=(x, y), for outputs that the C program computes, not promises:
      accuracy_float  of model.predict; None for loss "mse", as the next two
      accuracy_int8   of the integer program; None without int8
      agreement       share of the samples that the C program gives the class that model.predict does
      max_error       largest difference from an output of model.predict
      max_output      largest output of model.predict, to compare it with
    """

    header: Path
    source: Path
    int8: bool
    constant_bytes: int
    scratch_bytes: int
    layers: Tuple[Part, ...]
    accuracy_float: Optional[float] = None
    accuracy_int8: Optional[float] = None
    agreement: Optional[float] = None
    max_error: Optional[float] = None
    max_output: Optional[float] = None

    def __str__(self) -> str:
        lines = [f"{self.source}: {'8-bit integers' if self.int8 else 'single precision'}"]
        for part in self.layers:
            weights = f"{part.storage}, {part.weights:,} weights" if part.storage else ""
            lines.append(f"  {part.name:<20} {part.kind:<10} {part.bytes:>9,} bytes  {weights}".rstrip())
        lines.append(f"  constants {self.constant_bytes:,} bytes, scratch {self.scratch_bytes:,} bytes")
        for what, share in (
            ("accuracy, model", self.accuracy_float),
            ("accuracy, int8", self.accuracy_int8),
            ("same class", self.agreement),
        ):
            if share is not None:
                lines.append(f"  {what:<16} {share:.2%}")
        if self.max_error is not None:
            error = f"{self.max_error:.3g} of outputs up to {self.max_output:.3g}"
            lines.append(f"  {'largest error':<16} {error}")
        return "\n".join(lines)


def to_c(
    model: Model,
    folder: Folder,
    name: str = "network",
    *,
    int8: bool = False,
    calibration: Optional[ArrayLike] = None,
    evaluation: Optional[Tuple[ArrayLike, ArrayLike]] = None,
) -> CSource:
    """Writes NAME.h and NAME.c: the network as constants and the smallest program that runs it, in
    freestanding C99 without heap, libm or libmest.

        mest.to_c(model, "firmware/src", "digits")  # void digits_predict(const float *input, float *output)

    Batch norm is folded into the layer before it and ReLU fused where nobody else reads what is between;
    channels that no connection reads are left out.  A layer's weights are stored dense or as values with
    8- or 16-bit steps between them, whichever is smaller.  Values share scratch memory by life-time.

    Outputs are those of model.predict but for the order of additions, 1e-5 of the largest one at most in
    the project's tests; of a model that keeps activations as bfloat16 predict itself is coarser.

    int8: weights and activations in 8-bit integers, rounded after training (`mest.exchange.c.quantise` says
    how).  calibration: samples as predict takes them, some hundred as they will really be: they give the
    range of every activation.  Needed for int8 and only there.
    evaluation: (x, y) to measure on: see CSource.  The C program's outputs are computed in numpy, to the bit
    for int8, so no compiler is needed here.

    folder: is made if its parent exists.  Files of the same names are replaced, each as a whole; if they
    do not fit together, because the process was stopped between the two, the compiler says so.
    name: a C identifier, and no header's of the C library.

    Memory: the weights as dense matrices in double precision, some times.
    Errors: MestArgumentError (a ValueError: the name, calibration or evaluation), StateError (a closed
    model), MestIOError (an OSError: the folder), TypeError (no model).
    """
    refuse_what_is_no_model(model, "to_c")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name or ""):
        raise MestArgumentError(f"name={name!r}: letters, digits and _ are wanted, a letter first: my_net")
    if name.lower() in _HEADERS:
        raise MestArgumentError(f"name={name!r}: {name}.h would hide the C library's; take {name}_net say")
    if int8 and calibration is None:
        raise MestArgumentError("int8=True needs calibration: samples as they will be, x_train[:500] say")
    if not int8 and calibration is not None:
        raise MestArgumentError("calibration is for int8=True: floats have no ranges to find")
    program = program_of(model)
    integers = None
    if int8:
        integers = quantise.quantise(program, _samples(model, calibration, "calibration"))
    measured = {} if evaluation is None else _measured(model, program, integers, evaluation)
    from ... import __version__

    text = write(name, integers.program if integers else program, integers, __version__)
    target = _folder(folder)
    header, source = target / f"{name}.h", target / f"{name}.c"
    with _files.replacing(header, source) as files:
        for file, content in zip(files, (text.header, text.source)):
            file.write(content.encode("ascii"))
    return CSource(header, source, int8, text.constant_bytes, text.scratch_bytes, text.parts, **measured)


def _samples(model: Model, x: Optional[ArrayLike], what: str) -> Floats:
    samples = arrays.samples(np.asarray(x), model.plan().layers[0].shape, what=what)
    if not len(samples):
        raise MestArgumentError(f"{what} has no samples")
    arrays.finite(samples, what)
    return samples


def _measured(
    model: Model,
    program: Program,
    integers: Optional[quantise.IntegerProgram],
    evaluation: Tuple[ArrayLike, ArrayLike],
) -> Dict[str, Optional[float]]:
    x, y = evaluation
    samples = _samples(model, x, "evaluation")
    wanted = model.predict(samples)
    found = emulate.predict(program, samples) if integers is None else quantise.predict(integers, samples)
    measured: Dict[str, Optional[float]] = {
        "max_error": float(np.abs(found - wanted).max()), "max_output": float(np.abs(wanted).max())
    }  # fmt: skip
    if model.config.loss != "mse":
        labels = arrays.labels(y, len(samples), wanted.shape[1], whole=True, what="evaluation's y")
        classes = found.argmax(1)
        measured["accuracy_float"] = float((wanted.argmax(1) == labels).mean())
        measured["agreement"] = float((classes == wanted.argmax(1)).mean())
        if integers is not None:
            measured["accuracy_int8"] = float((classes == labels).mean())
    return measured


def _folder(folder: Folder) -> Path:
    target = Path(folder)
    if not target.is_dir():
        if target.exists():
            raise MestIOError(f"{target} is not a folder")
        try:
            target.mkdir()
        except FileNotFoundError as error:
            raise MestIOError(f"cannot make {target}: there is no folder {target.parent}") from error
        except OSError as error:
            raise MestIOError(f"cannot make {target}: {error.strerror or error}") from error
    return target


__all__ = ["CSource", "Part", "Text", "to_c"]
