# SPDX-License-Identifier: Apache-2.0
"""ONNX in and out: `from_onnx`, `to_onnx`.  docs/onnx.md has the table of operations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional, Union

from ... import _files
from ...config import Config
from ...errors import MestArgumentError, MestIOError

if TYPE_CHECKING:
    from ...model import Model
    from ..build import Densities, Schemes

Path = Union[str, "os.PathLike[str]"]


def from_onnx(
    model: Any,
    *,
    density: "Densities" = None,
    scheme: "Schemes" = None,
    config: Optional[Config] = None,
    **fields: Any,
) -> "Model":
    """A Model with the layers and weights of an ONNX file, ready to train on.

        model = mest.from_onnx("network.onnx", density=0.1, method="em&s", epochs=20, samples=50_000)

    model: a path, an onnx.ModelProto, what torch.onnx.export returned, or a file's bytes.
    density, scheme: what stays of each layer's weights, as in Network.to_model; None: all that is not zero.
    config, fields: of the Model.

    The network has to have one input (batch, features) or (batch, channels, height, width), its sizes fixed
    but for the batch, and one output, (batch, classes).  Pictures that the file takes as (batch, height,
    width, channels), as TensorFlow does, the Model takes as (batch, channels, height, width).  A Softmax or
    LogSoftmax at the end is left out, with a warning: predict gives logits, predict_proba applies it.
    Outputs are those of the file but for rounding, unless a density drops weights.

    Convolutions that pad one end more than the other, or have a dilation, get the kernel with zeros that is
    the same: see docs/onnx.md for what that costs.

    Errors: UnsupportedError naming the node that mest has no layer for; CorruptError for a file that is
    damaged or lies about its contents; MestArgumentError; MestIOError (an OSError); those of Model.  The
    file is not trusted: data beside it is read from its own folder alone.
    Memory: the file, its weights as float32, and the model; what a file asks for without holding it is
    limited before it is made, see docs/onnx.md.
    """
    from .file import File
    from .ops import OPERATIONS
    from .reader import Reader

    network = Reader(File(model)).read(OPERATIONS)
    return network.to_model(config, density=density, scheme=scheme, **fields)


def to_onnx(
    model: "Model", path: Optional[Path] = None, *, sparse: bool = False, softmax: bool = False
) -> Any:
    """The model in inference mode as an onnx.ModelProto, also written to `path` when that is given, a file
    that is replaced as a whole or not at all.

    Input: "input", (batch, channels, height, width), or (batch, features); output: "logits" (for loss "mse"
    "outputs"), (batch, classes), or with softmax=True "probabilities".  The batch axis is open.

    sparse: weights of sparse layers as sparse_initializer, values and int64 indices: 12 bytes a connection
    instead of 4 a position, smaller below a density of 1/3.  onnxruntime reads them and computes dense; what
    others do docs/onnx.md tells.  Otherwise weights are dense, with zeros.
    Densities and schemes go along as metadata; from_onnx reads them.

    Memory: a dense copy of the weights, and the ModelProto.
    Errors: MestArgumentError for softmax=True with loss "mse"; MestIOError (an OSError).
    """
    from ..given import refuse_what_is_no_model
    from .writer import exported

    refuse_what_is_no_model(model, "to_onnx")
    if softmax and model.config.loss == "mse":
        raise MestArgumentError('softmax=True: loss "mse" has no probabilities')
    made = exported(model, sparse, softmax)
    if path is not None:
        _write(os.fspath(path), made.SerializeToString())
    return made


def _write(name: str, content: bytes) -> None:
    """A file as a whole or not at all."""
    try:
        _files.replace(name, content)
    except OSError as error:
        raise MestIOError(f"cannot write {name}: {error.strerror or error}") from error
