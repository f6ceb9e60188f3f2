# SPDX-License-Identifier: Apache-2.0
"""The networks that are timed, as lists of mest layers: every library builds its own from these."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np
from numpy.typing import NDArray

try:
    import mest
except ImportError as error:
    raise SystemExit("mest is not installed: `make build && pip install -e bindings/python`, or `make bench`") from error
from common import refusals
from mest import Add, Layer

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


class Network(NamedTuple):
    title: str
    describe: Callable[[], List[Layer]]
    shape: Tuple[int, ...]  # of one sample
    classes: int = 10

    def layers(self) -> List[Layer]:
        """NotInThisBuild when the package lacks one of them."""
        with refusals():
            return self.describe()

    def data(self, batch: int) -> Tuple[Floats, Labels]:
        """One batch of noise: values do not change the work."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, *self.shape), dtype=np.float32)
        return x, rng.integers(0, self.classes, batch).astype(np.int32)


NETWORKS: Dict[str, Network] = {
    "mlp": Network("MLP 784-1024-1024-10", lambda: mest.mlp(784, [1024, 1024], 10), (784,)),
    "resnet20": Network("ResNet-20 16/32/64", lambda: mest.resnet(20, 16), (3, 32, 32)),
    "resnet32": Network("ResNet-32 32/64/128", lambda: mest.resnet(32, 32), (3, 32, 32)),
    "thin": Network("ResNet-32 10/20/40", lambda: mest.resnet(32, 10), (3, 32, 32)),  # 10 % of resnet32's weights
    "vgg": Network("VGG-11", lambda: mest.vgg(11), (3, 32, 32)),
    "dscnn": Network("DS-CNN-S, keywords", mest.ds_cnn, (1, 49, 10), 12),
}

TINY = Network("ResNet-8, 4 channels", lambda: mest.resnet(8, 4), (3, 32, 32))


def sources(layers: List[Layer]) -> List[Tuple[int, ...]]:
    """Indices of the layers that each takes its input from; these networks refer by object."""
    where = {id(layer): index for index, layer in enumerate(layers)}

    def index_of(reference: Any, default: int) -> int:
        return default if reference is None else where[id(reference)]

    found: List[Tuple[int, ...]] = [()]
    for i, layer in enumerate(layers[1:], 1):
        first = index_of(layer.from_, i - 1)
        found.append((first, index_of(layer.with_, i - 1)) if isinstance(layer, Add) else (first,))
    return found


def model(network: Network, batch: int, threads: int, sparsity: float = 0, scheme: str = "unstructured",
          activations: str = "float32", **fields: Any) -> mest.Model:  # fmt: skip
    """sparsity in percent.  Fields that a build may not know are passed only when they say something.
    NotInThisBuild when the library refuses."""
    if scheme != "unstructured":
        fields["scheme"] = scheme
    if activations != "float32":
        fields["activations"] = activations
    with refusals():
        return mest.Model(
            network.layers(), batch=batch, threads=threads, density=round(1 - sparsity / 100, 6),
            **{"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "seed": 1, **fields},
        )  # fmt: skip
