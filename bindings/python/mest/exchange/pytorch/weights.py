# SPDX-License-Identifier: Apache-2.0
"""The parameters of PyTorch's modules as arrays, and the names of their layers."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ... import _abi
from ..state import Floats, Mask, as_array

torch: Any = import_module("torch")
nn = torch.nn

_NAMED = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)


def short_names(module: Any) -> Dict[str, str]:
    """A layer's name for the path of every module with parameters that can be one: the path itself, or,
    where it is too long for mest.h, its end behind "~", with a number where two would be the same."""
    paths = [p for p, part in module.named_modules(remove_duplicate=False) if isinstance(part, _NAMED)]
    most = _abi.MEST_NAME_BYTES - 1
    names = {path: path for path in paths if len(path.encode()) <= most}
    for path in paths:
        if path in names:
            continue
        number, mark = 1, "~"
        while path not in names:
            end = path.encode()[len(mark) - most :].decode(errors="ignore")
            if mark + end not in names.values():
                names[path] = mark + end
            number += 1
            mark = f"~{number}~"
    return names


def weight_of(module: Any, name: str) -> Tuple[Floats, Optional[Mask]]:
    """A weight and, where there is one with zeros, its mask: that of torch.nn.utils.prune, or the places
    that a sparse tensor stores."""
    if hasattr(module, "weight_orig") and hasattr(module, "weight_mask"):
        # As the module's next call will compute it: `weight` is from the last one.
        mask = as_array(module.weight_mask, name + "_mask") != 0
        weight = as_array(module.weight_orig, name) * mask
        return weight, None if mask.all() else mask
    tensor = module.weight.detach()
    array = number_of(tensor, name)
    if tensor.layout == torch.strided:
        return array, None
    mask = array != 0
    if tensor.layout == torch.sparse_csr and tensor.ndim == 2:
        starts, columns = tensor.crow_indices().cpu().numpy(), tensor.col_indices().cpu().numpy()
        mask[np.repeat(np.arange(len(starts) - 1), starts[1:] - starts[:-1]), columns] = True
    elif tensor.layout == torch.sparse_coo:
        mask[tuple(tensor.coalesce().indices().cpu().numpy())] = True
    return array, None if mask.all() else mask


def bias_of(module: Any, name: str) -> Optional[Floats]:
    if hasattr(module, "bias_orig") and hasattr(module, "bias_mask"):
        return as_array(module.bias_orig, name) * as_array(module.bias_mask, name)
    return None if module.bias is None else number_of(module.bias, name)


def number_of(tensor: Any, name: str) -> Floats:
    """A float32 copy."""
    return as_array(tensor, name).copy()
