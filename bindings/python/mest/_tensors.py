# SPDX-License-Identifier: Apache-2.0
"""What is inside a model: weights, gradients, statistics, and the connections of sparse layers."""

from __future__ import annotations

import ctypes
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _abi, arrays
from ._environment import Environment
from ._handle import Handle
from .errors import MestArgumentError
from .layers import Conv2d, Layer, describe, listed
from .plan import plan_of
from .reports import CSR

LayerReference = Union[int, str, Layer]
Floats = NDArray[np.float32]

# In the order of the header's numbers 1, 2, 3, ...
TENSORS = (
    "weight", "weight_gradient", "weight_momentum",
    "bias", "bias_gradient", "bias_momentum",
    "scale", "scale_gradient", "scale_momentum",
    "running_mean", "running_var",
)  # fmt: skip


class Tensors(Handle):
    """The part of `Model` that reads and writes parameters."""

    def __init__(self, layers: Sequence[Layer], settings: Any, environment: Environment) -> None:
        self.layers = listed(layers)
        super().__init__(settings, describe(self.layers), environment)
        report, parts = _abi.mest_plan_report(), _abi.array(_abi.mest_layer_plan, len(self.layers))
        self._call(self._lib.mest_model_plan, ctypes.byref(report), parts)
        self._plan = plan_of(report, parts)

    def connections(self) -> List[int]:
        """Weights that exist now, by layer; 0 for layers without weights."""
        return [
            self._csr(i).count if layer.sparse else layer.active
            for i, layer in enumerate(self._plan.layers)
        ]

    def density(self) -> float:
        """Share of the positions in sparse layers that are connected now; 1.0 if all are dense."""
        active = positions = 0
        for layer, now in zip(self._plan.layers, self.connections()):
            if layer.sparse:
                active, positions = active + now, positions + layer.rows * layer.columns
        return active / positions if positions else 1.0

    def tensor(self, layer: LayerReference, what: str = "weight") -> Floats:
        """A copy of one tensor of a layer (index, name or layer object); `what` as in `TENSORS`.

        A dense weight has the shape of the layer, (outputs, inputs) or (outputs, inputs, kernel_h,
        kernel_w); the weight of a sparse layer is its connections in CSR order; others are 1-D.
        For BatchNorm "bias" is the shift.  MestArgumentError when the layer has no such tensor.
        """
        index, code, count = self._find(layer, what)
        values = np.empty(count, np.float32)
        self._call(self._lib.mest_model_tensor_get, index, code, arrays.address(values), count)
        return values.reshape(self._shape(index, what, count))

    def set_tensor(self, layer: LayerReference, what: str, values: ArrayLike) -> None:
        """Copies values, all finite, of the shape that `tensor` returns.  Not for gradients."""
        index, code, count = self._find(layer, what)
        array, shape = arrays.floats(values, what), self._shape(index, what, count)
        if array.shape != shape:
            raise MestArgumentError(f"{what} of {layer!r} has shape {shape}, not {array.shape}")
        self._call(self._lib.mest_model_tensor_set, index, code, arrays.address(array), count)

    def csr(self, layer: LayerReference) -> CSR:
        """Weights of a sparse layer as they lie in memory: read-only views, no copy.

        They keep the model's memory alive and show every update.  After the next mutation or
        `set_csr` they are stale: ask again.  Schemes whose connections come and go together (blocks,
        rows, "pattern", "filter", "channel") have another order in memory and give a read-only copy.
        MestArgumentError for a dense layer.
        """
        index = self._index(layer)
        found = self._csr(index)
        if found.buffer_bytes:
            return self._csr_copy(index, found.buffer_bytes)
        view = self._environment.view
        return CSR(
            view(np.uint32, found.row_start, found.rows + 1),
            view(np.uint16, found.column, found.count),
            view(np.float32, found.value, found.count),
        )

    def set_csr(
        self,
        layer: LayerReference,
        indptr: Union[CSR, ArrayLike],
        indices: Optional[ArrayLike] = None,
        values: Optional[ArrayLike] = None,
        momentum: Optional[ArrayLike] = None,
    ) -> None:
        """Replaces the connections of a sparse layer by a CSR, `set_csr(layer, other.csr(layer))`,
        or by its three arrays; momentum None: zeros.  Any number that the layer's capacity
        (LayerPlan.capacity) suffices for, where a last block of fewer outputs, or run of fewer
        inputs, counts as a whole one; the next mutation brings it to its target.
        UnsupportedError for connections that the layer's scheme cannot have.  "filter" and "channel": the
        channels of the set exist from then on in all layers that have them, and no others."""
        if isinstance(indptr, CSR):
            if indices is not None or values is not None:
                raise TypeError("set_csr: a CSR already holds indices and values")
            # Copies: they may be views of the very memory that is about to change.
            indptr, indices, values = (array.copy() for array in indptr)
        elif indices is None or values is None:
            raise TypeError("set_csr: indptr, indices and values are wanted, or one CSR")
        index = self._index(layer)
        part = self._plan.layers[index]
        starts = arrays.indices(indptr, np.uint32, 2**32, "indptr")
        columns = arrays.indices(indices, np.uint16, min(part.columns, 2**16) or 1, "indices")
        data = [arrays.floats(values, "values")]
        data += [] if momentum is None else [arrays.floats(momentum, "momentum")]
        if starts.size != part.rows + 1 or starts[-1] != columns.size:
            raise MestArgumentError(
                f"indptr has {starts.size} entries ending in {starts[-1:]}, wanted are "
                f"{part.rows + 1} ending in the number of indices, {columns.size}"
            )
        if any(array.shape != columns.shape for array in data):
            raise MestArgumentError(f"values and momentum have to be {columns.size}, as indices")
        csr = _abi.mest_csr(
            rows=part.rows,
            columns=part.columns,
            count=columns.size,
            row_start=arrays.address(starts),
            column=arrays.address(columns),
            value=arrays.address(data[0]),
            momentum=None if momentum is None else arrays.address(data[1]),
        )
        self._call(self._lib.mest_model_csr_set, index, ctypes.byref(csr))

    def _csr_copy(self, index: int, size: int) -> CSR:
        memory = np.empty(-(-size // 4), np.uint32)
        found = self._csr(index, memory)

        def part(kind: Any, address: int, count: int) -> Any:
            numbers: Any = np.frombuffer(memory, kind, count, address - memory.ctypes.data)
            numbers.flags.writeable = False
            return numbers

        return CSR(
            part(np.uint32, found.row_start, found.rows + 1),
            part(np.uint16, found.column, found.count),
            part(np.float32, found.value, found.count),
        )

    def _csr(self, index: int, memory: Optional[NDArray[np.uint32]] = None) -> Any:
        csr = _abi.mest_csr()
        if memory is not None:
            csr.buffer, csr.buffer_bytes = arrays.address(memory), memory.nbytes
        self._call(self._lib.mest_model_csr_get, index, ctypes.byref(csr))
        return csr

    def _index(self, layer: LayerReference) -> int:
        if isinstance(layer, Layer):
            found = [i for i, known in enumerate(self.layers) if known is layer]
        elif isinstance(layer, str):
            found = [i for i, known in enumerate(self._plan.layers) if known.name == layer]
        else:
            whole = isinstance(layer, (int, np.integer)) and 0 <= layer < len(self.layers)
            found = [int(layer)] if whole else []
        if len(found) != 1:
            names = ", ".join(part.name for part in self._plan.layers)
            raise MestArgumentError(f"{layer!r} is not one layer of this model; layers: {names}")
        return found[0]

    def _find(self, layer: LayerReference, what: str) -> Tuple[int, int, int]:
        """Index of the layer, the header's number of the tensor, and its size."""
        index = self._index(layer)
        code = 1 + arrays.one_word("what", what, TENSORS)
        count = ctypes.c_uint64()
        self._call(self._lib.mest_model_tensor_size, index, code, ctypes.byref(count))
        return index, code, count.value

    def _shape(self, index: int, what: str, count: int) -> Tuple[int, ...]:
        part, layer = self._plan.layers[index], self.layers[index]
        if part.sparse or not what.startswith("weight"):
            return (count,)
        if isinstance(layer, Conv2d):
            kernel = (layer.kernel, layer.kernel) if isinstance(layer.kernel, int) else layer.kernel
            return (part.rows, part.columns // (kernel[0] * kernel[1]), *kernel)
        return part.rows, part.columns
