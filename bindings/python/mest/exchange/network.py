# SPDX-License-Identifier: Apache-2.0
"""A network outside of a model: its layers, and its weights as named dense arrays.

Names and shapes are PyTorch's: "<layer>.weight" of (outputs, inputs) or (outputs, inputs / groups, kernel_h,
kernel_w), zero where no connection is, "<layer>.bias", and of BatchNorm also "<layer>.running_mean" and
"<layer>.running_var".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional

from ..config import Config
from ..layers import Conv2d, Layer, Linear
from .graph import copied
from .state import Floats, Keys, Mask, entries, layer_names, load_state_dict, mask_of, read, state_dict

if TYPE_CHECKING:
    from ..model import Model
    from .build import Densities, Schemes

__all__ = ["Keys", "Network", "copied", "load_state_dict", "network_of", "state_dict"]


class Network(NamedTuple):
    """Layers and weights, to look at, to change, and to make a `Model` of.

    layers: as in `mest.layers`; each that has parameters has a name of its own.
    weights: dense float32 arrays by their names; BatchNorm without affine has its statistics alone.
    masks: by the name of a weight, True where a connection is, for those where zeros cannot tell: a
    connection may be 0 (grown ones begin so).  Others are connected where they are not zero.
    """

    layers: List[Layer]
    weights: Dict[str, Floats]
    masks: Mapping[str, Mask] = {}

    def to_model(
        self,
        config: Optional[Config] = None,
        *,
        density: "Densities" = None,
        scheme: "Schemes" = None,
        **fields: Any,
    ) -> "Model":
        """A Model with these weights.

        density: share of each layer's connections that stay, those of the largest magnitudes under the
        scheme (`mest.exchange.prune`); a number is for all layers but those with density=1.0, a mapping
        for the layers that it names.  None: config.density.  Where that is None too, connections are what
        is not zero, or what masks say: a pruned network stays as it is, and a layer without zeros, or of
        zeros alone, is dense.
        scheme: of the same layers; None: config.scheme, or else the layer's own.  What is not zero becomes
        the smallest set that the scheme can have.
        fields: of the config; on_progress, on_log.

        Depthwise convolutions are dense.  Errors: those of Model; MestArgumentError for arrays that are
        missing, superfluous, of another shape or not finite; UnsupportedError for connections that the
        scheme cannot have, and for methods that choose by first random values.
        """
        from .build import build

        return build(self, config, density, scheme, fields)


def network_of(model: "Model") -> Network:
    """A copy of a model's layers and weights, independent of it.

    Layers that are sparse have their scheme and no density, so that `to_model` keeps the connections;
    the others have density=1.0.  Memory: dense arrays, and a byte a weight of sparse layers."""
    layers, parts = copied(model.layers), model.plan().layers
    for index, name in layer_names(model).items():
        layers[index].name = name
    for layer, part in zip(layers, parts):
        if isinstance(layer, (Linear, Conv2d)):
            density = model.config.density if layer.density is None else layer.density
            asks = part.sparse and density not in (None, 1)  # others follow those that drop channels
            layer.density, layer.scheme = (None, part.scheme) if asks else (1.0, None)
    weights, masks = {}, {}
    for entry in entries(model):
        weights[entry.key] = read(model, entry)
        if entry.what == "weight" and parts[entry.layer].sparse:
            masks[entry.key] = mask_of(model, entry.layer)
    return Network(layers, weights, masks)
