# SPDX-License-Identifier: Apache-2.0
"""An ONNX file, opened: nodes in their order, and weights as numpy arrays.

The file is not trusted.  Every size is checked against the bytes that are there before memory is asked
for, and data outside of the file is read from the file's own folder alone.
"""

from __future__ import annotations

import math
import os
from importlib import import_module
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptError, MestArgumentError, MestIOError, UnsupportedError
from .limits import AXES, Limits
from .node import Node, batch_of, text


def package(name: str = "onnx") -> Any:
    """The onnx package, or one of its modules."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("from_onnx and to_onnx need the onnx package: pip install onnx") from error


class File:
    """An opened model: `nodes` that lead to the output, in order, and constants by name.

    Errors: CorruptError for what is not, or not all of, an ONNX model; UnsupportedError for more than one
    input or output and for operations from elsewhere; MestArgumentError for what is no model at all;
    MestIOError where the file cannot be read.
    """

    def __init__(self, source: Any) -> None:
        self._onnx = package()
        model, self._folder = self._opened(source)
        graph = model.graph
        parts = (graph.node, graph.initializer, graph.sparse_initializer)
        self.limits = Limits(sum(item.ByteSize() for part in parts for item in part))
        self._beside: Set[str] = set()  # files that data has been read from
        self.metadata: Dict[str, str] = {text(item.key): text(item.value) for item in model.metadata_props}
        self._dense = {text(tensor.name): tensor for tensor in graph.initializer}
        self._sparse = {text(tensor.values.name): tensor for tensor in graph.sparse_initializer}
        self._read: Dict[str, NDArray[Any]] = {}
        self.masks: Dict[str, NDArray[np.bool_]] = {}  # of sparse initializers that have been read
        self.output = self._only("output", [text(value.name) for value in graph.output])
        self.nodes = self._needed([self._node(node) for node in graph.node], graph)
        self.batch = 0  # of a file that is for one size of batch; 0: any
        self.input, self.shape = self._entrance(graph)
        self.uses: Dict[str, int] = {self.output: 1}
        for node in self.nodes:
            for name in node.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1

    # ---------------------------------------------------------------------------- the graph ---

    def _opened(self, source: Any) -> Tuple[Any, Optional[str]]:
        """A ModelProto, and the folder of its external data where that is known."""
        source = getattr(source, "model_proto", source)  # torch.onnx.export gives an ONNXProgram
        if isinstance(source, self._onnx.ModelProto):
            return self._complete(source), None
        folder, content = None, source
        if isinstance(source, (str, os.PathLike)):
            path = os.fspath(source)
            folder = os.path.dirname(os.path.abspath(path))
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise MestIOError(f"cannot read {os.fsdecode(path)}: {error.strerror or error}") from error
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise MestArgumentError(
                f"{type(source).__name__} is no ONNX model: a path, an onnx.ModelProto or a file's bytes are"
            )
        model = self._onnx.ModelProto()
        try:
            model.ParseFromString(bytes(content))
        except Exception as error:  # protobuf's own kind, which differs between its versions
            raise CorruptError(f"no ONNX model, or damaged: {error}") from error
        return self._complete(model), folder

    def _complete(self, model: Any) -> Any:
        if not model.HasField("graph") or not model.graph.output:
            raise CorruptError("no ONNX model, or damaged: it has no graph, or the graph has no output")
        if model.functions:
            raise UnsupportedError(
                "the model has functions of its own: onnx.inliner.inline_local_functions(model) resolves them"
            )
        return model

    def _node(self, node: Any) -> Node:
        op, name = text(node.op_type), text(node.name)
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedError(
                f"node {name!r} ({op}) is of {node.domain!r}, not of ONNX itself: "
                "export the network without optimisations for one runtime"
            )
        attributes = {}
        for item in node.attribute:
            try:
                attributes[text(item.name)] = self._onnx.helper.get_attribute_value(item)
            except ValueError as error:
                raise CorruptError(f"node {name!r} ({op}): {error}") from error
        return Node(op, name, tuple(map(text, node.input)), tuple(map(text, node.output)), attributes)

    def _needed(self, nodes: Sequence[Node], graph: Any) -> List[Node]:
        """Those that the output depends on, after a look at their order."""
        known: Set[str] = {"", *self._dense, *self._sparse, *(text(value.name) for value in graph.input)}
        for node in nodes:
            for name in node.inputs:
                if name not in known:
                    raise node.corrupt(
                        f"its input {name!r} does not exist, or a later node makes it: an initializer is "
                        "missing, or the graph has a cycle or is not sorted"
                    )
            for name in filter(None, node.outputs):
                if name in known:
                    raise node.corrupt(f"{name!r} exists already: names are given once")
                known.add(name)
        if self.output not in known:
            raise CorruptError(f"no node makes the output {self.output!r}")
        wanted, kept = {self.output}, []
        for node in reversed(nodes):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                kept.append(node)
        return kept[::-1]

    def _entrance(self, graph: Any) -> Tuple[str, Tuple[int, ...]]:
        """The one input that is no weight, and its shape without the batch axis."""
        used = {name for node in self.nodes for name in node.inputs} | {self.output}
        values = [v for v in graph.input if v.name in used and not self.is_constant(v.name)]
        name = self._only("input", [value.name for value in values])
        kind = values[0].type.tensor_type
        if not kind.HasField("shape") or not kind.shape.dim:
            raise UnsupportedError(f"input {name!r} has no shape: export with a fixed number of pixels")
        self.batch = max(0, kind.shape.dim[0].dim_value)
        shape = []
        for dim in kind.shape.dim[1:]:
            if dim.WhichOneof("value") != "dim_value":
                raise UnsupportedError(
                    f"input {name!r}: an axis other than the first, the batch, is open ({dim.dim_param!r}): "
                    "fix it with onnx.tools.update_model_dims, or export with fixed sizes"
                )
            shape.append(dim.dim_value)
        if not shape or min(shape) < 1 or max(shape) > 65536 or math.prod(shape) > 2**28:
            raise UnsupportedError(
                f"input {name!r} has shape {batch_of(shape)}: axes of 1 to 65536 values are wanted, of 2^28 "
                "values in all"
            )
        return name, tuple(shape)

    @staticmethod
    def _only(what: str, names: List[str]) -> str:
        if len(names) != 1:
            raise UnsupportedError(f"the graph has the {what}s {names}: a mest network has one {what}")
        return names[0]

    # ------------------------------------------------------------------------------ weights ---

    def is_constant(self, name: str) -> bool:
        return name in self._dense or name in self._sparse

    def constant(self, name: str) -> NDArray[Any]:
        """An initializer as an array; it is read when it is first asked for."""
        if name not in self._read:
            if name in self._sparse:
                self._read[name], self.masks[name] = self.sparse_array(self._sparse[name])
            else:
                self._read[name] = self.array(self._dense[name])
        return self._read[name]

    def array(self, tensor: Any) -> NDArray[Any]:
        """A TensorProto of numbers: float32 or int64."""
        shape = self._shape_of(tensor.name, tensor.dims)
        kinds = self._onnx.TensorProto
        if tensor.data_type in (kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16):
            wanted: Any = np.float32
        elif tensor.data_type in (kinds.INT64, kinds.INT32, kinds.BOOL):
            wanted = np.int64
        else:
            raise UnsupportedError(
                f"tensor {tensor.name!r} is of type {tensor.data_type}: float, double, float16, bfloat16, "
                "int32 and int64 are read; of a quantised network export the float one"
            )
        if tensor.data_location == kinds.EXTERNAL:
            tensor = self._brought_in(tensor)
        try:
            array = package("onnx.numpy_helper").to_array(tensor)
        except Exception as error:  # of many kinds, by what is wrong
            raise CorruptError(f"tensor {tensor.name!r} of shape {shape} is damaged: {error}") from error
        if array.shape != shape:
            raise CorruptError(f"tensor {tensor.name!r} has {array.size} values for the shape {shape}")
        with np.errstate(over="ignore"):  # a double too large for a float is told by the layer it is for
            converted: NDArray[Any] = array.astype(wanted, copy=False)
        return converted

    def sparse_array(self, tensor: Any) -> Tuple[NDArray[Any], NDArray[np.bool_]]:
        """A SparseTensorProto as a dense array, and where it has values."""
        name = tensor.values.name
        shape = self._shape_of(name, tensor.dims)
        size = math.prod(shape)
        values, places = self.array(tensor.values), self.array(tensor.indices)
        if values.ndim != 1 or places.shape not in ((values.size,), (values.size, len(shape))):
            raise CorruptError(f"sparse tensor {name!r}: {values.shape} values have indices {places.shape}")
        limit = size if places.ndim == 1 else shape
        if not shape or places.dtype != np.int64 or np.any(places < 0) or np.any(places >= limit):
            raise CorruptError(f"sparse tensor {name!r} of shape {shape} has indices outside of it")
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), shape)
        self.limits.absent(f"sparse tensor {name!r} of shape {shape}", size * values.itemsize // 4)
        array, mask = np.zeros(size, values.dtype), np.zeros(size, bool)
        array[places], mask[places] = values, True
        if np.count_nonzero(mask) != values.size:
            raise CorruptError(f"sparse tensor {name!r} has an index more than once")
        return array.reshape(shape), mask.reshape(shape)

    @staticmethod
    def _shape_of(name: str, dims: Sequence[int]) -> Tuple[int, ...]:
        shape = tuple(dims)
        size = math.prod(axis or 1 for axis in shape)  # of 0 values, too, in axes of any length
        if min(shape, default=0) < 0 or size >= 2**31 or len(shape) > AXES:
            raise CorruptError(f"tensor {name!r} has the impossible shape {shape}")
        return shape

    def _brought_in(self, tensor: Any) -> Any:
        """The same tensor with its data inside, read from a file in the model's folder."""
        said = {text(item.key): text(item.value) for item in tensor.external_data}
        what = f"tensor {tensor.name!r} is in the file {said.get('location')!r}"
        if self._folder is None:
            raise MestArgumentError(f"{what}, of a folder that is not known: pass the model's path instead")
        folder, place = os.path.realpath(self._folder), said.get("location", "").replace("\0", "")
        path = os.path.realpath(os.path.join(folder, place))  # where links lead
        if os.path.commonpath([folder, path]) != folder:
            raise CorruptError(f"{what}, outside of the model's folder: it is not opened")
        try:
            offset, length = int(said.get("offset", 0)), int(said.get("length", -1))
        except ValueError as error:
            raise CorruptError(f"{what}, at a place that is no number: {error}") from error
        if not os.path.isfile(path):
            raise CorruptError(f"{what}, which is not beside the model")
        size = os.path.getsize(path)
        length = size - offset if length < 0 else length
        if not 0 <= offset <= offset + length <= size:
            raise CorruptError(f"{what}, {length} bytes at {offset} of {size}")
        self.limits.beside(0 if path in self._beside else size, length)
        self._beside.add(path)
        copy = self._onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.ClearField("external_data")
        copy.data_location = self._onnx.TensorProto.DEFAULT
        with open(path, "rb") as file:
            file.seek(offset)
            copy.raw_data = file.read(length)
        return copy
