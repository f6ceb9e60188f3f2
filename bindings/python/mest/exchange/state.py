# SPDX-License-Identifier: Apache-2.0
"""The tensors of a model by PyTorch's names, out and in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from .. import _abi, arrays
from ..errors import MestArgumentError
from ..layers import BatchNorm, Conv2d, Linear
from . import channels, prune

if TYPE_CHECKING:
    from ..model import Model

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_COUNTER = "num_batches_tracked"  # of torch's BatchNorm; nothing here depends on it


class Keys(NamedTuple):
    """What did not match: tensors that the model has and the mapping has not, and the reverse."""

    missing: List[str]
    unexpected: List[str]


class Entry(NamedTuple):
    """A tensor of a model: its name outside, and where it is inside."""

    key: str
    layer: int
    what: str  # as in mest.TENSORS


def state_dict(model: "Model", *, masks: bool = False) -> Dict[str, Floats]:
    """Copies of all parameters and statistics: dense float32 arrays by torch's names, weights zero where
    no connection is.

        tensors = {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
        module.load_state_dict(tensors, strict=False)  # not strict: torch's num_batches_tracked

    masks: the weight of a sparse layer as torch.nn.utils.prune has it instead, "<layer>.weight_orig" and
    "<layer>.weight_mask", which also tells connections that are 0."""
    found: Dict[str, Floats] = {}
    for entry in entries(model):
        if masks and entry.what == "weight" and model.plan().layers[entry.layer].sparse:
            found[entry.key + "_orig"] = read(model, entry)
            found[entry.key + "_mask"] = mask_of(model, entry.layer).astype(np.float32)
        else:
            found[entry.key] = read(model, entry)
    return found


def load_state_dict(model: "Model", mapping: Mapping[str, Any], strict: bool = True) -> Keys:
    """Takes over arrays by their names: numpy's, or tensors of torch, dense or sparse, on any device.

    The weight of a convolution may also be the matrix (outputs, inputs * kernel_h * kernel_w).
    The connections of a sparse layer become those that are not zero, or those of "<weight>_mask", filled
    up to the smallest set that its scheme can have; LayerPlan.capacity has to suffice for them.  A layer
    that is dense here stays so.  Momentum begins at 0.
    strict: names have to be the same on both sides; torch's num_batches_tracked may be there.  False:
    what has no counterpart is left alone.  Returns what had none.

    Errors: MestArgumentError (names, shapes, values that are not finite, more connections than there is
    room for), UnsupportedError (connections that the scheme cannot have).  All is looked at before
    anything is set: the model is then as it was."""
    wanted = entries(model)
    given = {entry.key: _given(mapping, entry.key) for entry in wanted}
    keys = _compare(mapping, given)
    if strict and (keys.missing or keys.unexpected):
        raise MestArgumentError(_mismatch(keys))
    state = {key: pair[0] for key, pair in given.items() if pair is not None}
    masks = {key: pair[1] for key, pair in given.items() if pair is not None and pair[1] is not None}
    install(model, {key: as_array(value, key) for key, value in state.items()}, {
        key: as_array(value, key + "_mask") != 0 for key, value in masks.items()
    })
    return keys


def install(model: "Model", weights: Mapping[str, Floats], masks: Mapping[str, Mask]) -> None:
    """Sets the tensors that `weights` has, after all of them have been looked at."""
    plain: List[Tuple[Entry, Floats]] = []
    sparse: Dict[int, Tuple[Floats, Mask]] = {}
    parts = model.plan().layers
    for entry in entries(model):
        if entry.key not in weights:
            continue
        array, mask, shape = weights[entry.key], masks.get(entry.key), shape_of(model, entry)
        if len(shape) == 4 and array.shape == (shape[0], int(np.prod(shape[1:]))):
            array = array.reshape(shape)  # sparse matrices have two axes
        if array.shape != shape:
            raise MestArgumentError(f"{entry.key} has shape {array.shape}, the model's is {shape}")
        prune.finite(array, entry.key)
        if entry.what == "running_var" and array.size and array.min() < 0:
            raise MestArgumentError(f"{entry.key} has a negative value, which is no variance")
        if entry.what != "weight" or not parts[entry.layer].sparse:
            plain.append((entry, array))
            continue
        mask = mask.reshape(shape) if mask is not None and mask.size == array.size else mask
        if mask is not None and mask.shape != shape:
            raise MestArgumentError(f"{entry.key}_mask has shape {mask.shape}, the model's is {shape}")
        sparse[entry.layer] = array, (array != 0 if mask is None else mask)
    sets = _connections(model, sparse)
    # Nothing of the data can be refused from here on.
    for index, (array, mask) in sets.items():
        model.set_csr(index, *csr_of(array, mask))
    for entry, array in plain:
        model.set_tensor(entry.layer, entry.what, array)
        if entry.what in ("weight", "bias", "scale") and not model.config.inference_only:
            model.set_tensor(entry.layer, entry.what + "_momentum", np.zeros_like(array))


def entries(model: "Model") -> List[Entry]:
    """All parameters and statistics, in the order of the layers."""
    names, found = layer_names(model), []
    for index, layer in enumerate(model.layers):
        of: Dict[str, str] = {}
        if isinstance(layer, (Linear, Conv2d)):
            of = {"weight": "weight", "bias": "bias"} if layer.bias else {"weight": "weight"}
        elif isinstance(layer, BatchNorm):
            of = {"weight": "scale", "bias": "bias"} if layer.affine else {}
            of.update(running_mean="running_mean", running_var="running_var")
        found += [Entry(f"{names[index]}.{name}", index, what) for name, what in of.items()]
    return found


def layer_names(model: "Model") -> Dict[int, str]:
    """A name of its own for each layer with parameters, by its index: the plan's, where two have the
    same with the index behind."""
    parts = model.plan().layers
    indices = [i for i, layer in enumerate(model.layers) if isinstance(layer, (Linear, Conv2d, BatchNorm))]
    names: Dict[int, str] = {}
    for index in indices:
        name, number = parts[index].name, index
        while name in names.values():
            tail = f"_{number}"
            room = _abi.MEST_NAME_BYTES - 1 - len(tail)
            name = parts[index].name.encode()[:room].decode(errors="ignore") + tail
            number += len(parts)
        names[index] = name
    return names


def shape_of(model: "Model", entry: Entry) -> Tuple[int, ...]:
    part, layer = model.plan().layers[entry.layer], model.layers[entry.layer]
    if entry.what != "weight":
        return (part.channels,)
    if isinstance(layer, Conv2d):
        kernel = (layer.kernel, layer.kernel) if isinstance(layer.kernel, int) else tuple(layer.kernel)
        return (part.rows, part.columns // (kernel[0] * kernel[1]), *kernel)
    return part.rows, part.columns


def read(model: "Model", entry: Entry) -> Floats:
    """A copy of one tensor, dense."""
    if entry.what != "weight" or not model.plan().layers[entry.layer].sparse:
        return model.tensor(entry.layer, entry.what)
    shape = shape_of(model, entry)
    dense = np.zeros((shape[0], int(np.prod(shape[1:]))), np.float32)
    csr = model.csr(entry.layer)
    dense[_rows(csr.indptr), csr.indices] = csr.values
    return dense.reshape(shape)


def mask_of(model: "Model", layer: int) -> Mask:
    """Where the connections of a sparse layer are, in the shape of its weight."""
    shape, csr = shape_of(model, Entry("", layer, "weight")), model.csr(layer)
    mask = np.zeros((shape[0], int(np.prod(shape[1:]))), bool)
    mask[_rows(csr.indptr), csr.indices] = True
    return mask.reshape(shape)


def csr_of(array: Floats, mask: Mask) -> Tuple[NDArray[np.uint32], NDArray[np.uint16], Floats]:
    """The three arrays of `Model.set_csr` for the weights where mask is."""
    flat = mask.reshape(len(mask), -1)
    starts = np.zeros(len(flat) + 1, np.uint32)
    np.cumsum(flat.sum(1), out=starts[1:])
    return starts, np.nonzero(flat)[1].astype(np.uint16), array.reshape(flat.shape)[flat]


def as_array(value: Any, name: str) -> Floats:
    """float32 from an array, a tensor of torch (its methods are enough: torch is not imported) or a
    sparse matrix of scipy."""
    if hasattr(value, "detach"):
        value = value.detach()
        if "strided" not in str(getattr(value, "layout", "strided")):
            value = value.to_dense()
        value = value.cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    elif hasattr(value, "toarray"):
        value = value.toarray()
    return arrays.floats(value, name)


def _rows(indptr: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The row of every connection."""
    starts = indptr.astype(np.int64)
    return np.repeat(np.arange(len(starts) - 1), starts[1:] - starts[:-1])


def _given(mapping: Mapping[str, Any], key: str) -> Optional[Tuple[Any, Any]]:
    """The array of that name and its mask: as torch.nn.utils.prune has them, too."""
    for name in (key, key + "_orig"):
        if name in mapping:
            return mapping[name], mapping.get(key + "_mask")
    return None


def _compare(mapping: Mapping[str, Any], given: Mapping[str, Any]) -> Keys:
    missing = [key for key, pair in given.items() if pair is None]
    known = {name for key in given for name in (key, key + "_orig", key + "_mask")}
    return Keys(missing, [k for k in mapping if k not in known and not k.endswith(_COUNTER)])


def _mismatch(keys: Keys) -> str:
    def some(names: List[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    said = [f"the model has {some(keys.missing)}, which the mapping lacks"] if keys.missing else []
    if keys.unexpected:
        said.append(f"the mapping has {some(keys.unexpected)}, which the model lacks")
    return "; ".join(said) + ": rename them, name the layers so (Conv2d(..., name=...)), or strict=False"


def _connections(model: "Model", sparse: Dict[int, Tuple[Floats, Mask]]) -> Dict[int, Tuple[Floats, Mask]]:
    """The sets that schemes make of these, all of which the model has room for."""
    sets: Dict[int, Tuple[Floats, Mask]] = {}
    thin: Dict[int, Tuple[Floats, Mask]] = {}
    for index, (array, mask) in sparse.items():
        part = model.plan().layers[index]
        assert part.scheme is not None
        if part.scheme in prune.THIN:
            thin[index] = array, mask
            continue
        form = prune.Form.of(array.shape, part.scheme, model.config.code8_patterns)
        mask, units = prune.cover(mask, form, f"the weight of layer {part.name}")
        need = units * form.pools * form.weights
        if need > part.capacity:
            share = form.density(units)
            raise MestArgumentError(
                f"the weight of layer {part.name} has {np.count_nonzero(mask):,} connections, which need a "
                f"capacity of {need:,}; the layer's is {part.capacity:,}: give it density={share:.4g}, or "
                "prune the weight"
            )
        sets[index] = np.where(mask, array, np.float32(0)), mask
    return {**sets, **channels.fitting(model, thin)} if thin else sets
