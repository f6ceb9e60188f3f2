# SPDX-License-Identifier: Apache-2.0
"""Dense against sparse on this machine: whole networks, and layers alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..layers import BatchNorm, Conv2d, GlobalAvgPool, Input, Layer, Linear
from ..model import Model
from ..plan import LayerPlan, Plan
from . import timing


class Variant(NamedTuple):
    """How many connections, and which may exist."""

    density: float = 1.0
    scheme: str = "unstructured"

    @property
    def name(self) -> str:
        if self.density >= 1:
            return "dense"
        return f"{100 * self.density:g} % {self.scheme}"


@dataclass
class Measured:
    """A network as one variant has it.  Bytes as the plan tells them: of weights, indices, gradients and
    state; of the whole block."""

    name: str
    density: float
    scheme: str
    parameters: int
    model_bytes: int
    total_bytes: int
    samples: List[float]  # milliseconds

    @property
    def microseconds(self) -> float:
        """The median."""
        return 1e3 * timing.median(self.samples)

    def record(self) -> Dict[str, Any]:
        """For JSON, and for mest.plot.comparison."""
        record = asdict(self)
        del record["samples"]
        return {**record, "microseconds": round(self.microseconds, 2)}


def noise(plan: Plan, batch: int, loss: str = "cross_entropy") -> Tuple[NDArray[np.float32], NDArray[Any]]:
    """One batch; values do not change the work."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, plan.inputs), dtype=np.float32)
    if loss == "mse":
        return x, rng.standard_normal((batch, plan.outputs), dtype=np.float32)
    return x, rng.integers(0, plan.outputs, batch).astype(np.int32)


def dense_against_sparse(
    describe: Callable[[], List[Layer]],
    variants: Sequence[Variant],
    *,
    batch: int = 32,
    rounds: int = 7,
    inference: bool = False,
    tally: Optional[timing.Tally] = None,
    **fields: Any,
) -> List[Measured]:
    """Times a training step (forward, backward, update) of each variant, or with inference a prediction,
    of one batch; the variants take turns.  fields: of Config.  Errors: those of Model."""
    models = {}
    for variant in variants:
        # The scheme of a dense network would be an error where it cannot have all connections.
        scheme = {"scheme": variant.scheme} if variant.density < 1 else {}
        models[variant] = Model(
            describe(), batch=batch, density=variant.density, inference_only=inference,
            **{"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "seed": 1, **fields, **scheme},
        )  # fmt: skip
    calls: Dict[Variant, Callable[[], Any]] = {}
    for variant, model in models.items():
        x, y = noise(model.plan(), batch, model.config.loss)
        calls[variant] = partial(model.predict, x) if inference else partial(model.step, x, y)
    times = timing.interleave(calls, rounds, tally=tally)
    found = []
    for variant, model in models.items():
        plan = model.plan()
        found.append(Measured(
            variant.name, variant.density, variant.scheme, plan.active, plan.sparse_bytes, plan.total_bytes,
            times[variant],
        ))  # fmt: skip
        model.close()
    return found


# ------------------------------------------------------------------------------- layers alone ---


class Shape(NamedTuple):
    """What a layer's time depends on."""

    channels: int
    height: int
    width: int
    layer: str  # as one would write it, without name and density

    @property
    def is_picture(self) -> bool:
        return self.height * self.width > 1 or self.layer.startswith("Conv2d")


@dataclass
class Alone:
    """One layer of a network, measured by itself.  times: microseconds of a training step that are the
    layer's, by variant; None: the library cannot have it."""

    names: List[str]  # of the network's layers that are like it
    shape: Shape
    layer: Layer
    times: Dict[Variant, Optional[float]]
    bytes: Dict[Variant, int]
    without: float = 0.0  # microseconds of the same step without the layer

    @property
    def resolution(self) -> float:
        """Microseconds, below which the layer's share of a step cannot be told from the rest's."""
        return max(10.0, 0.15 * self.without)

    @property
    def dense(self) -> float:
        found = self.times[Variant()]
        assert found is not None
        return found


def distinct(layers: Sequence[Layer], plans: Sequence[LayerPlan], sources: Sequence[int]) -> List[Alone]:
    """Layers that can be sparse, those that are alike once.  sources: the layer each takes its input from."""
    found: Dict[Shape, Alone] = {}
    for index, (layer, part) in enumerate(zip(layers, plans)):
        if not isinstance(layer, (Linear, Conv2d)) or part.kind.startswith("depthwise"):
            continue
        source = plans[sources[index]]
        plain = replace(layer, name="", density=None, scheme=None, from_=None)
        shape = Shape(source.channels, source.height, source.width, repr(plain))
        found.setdefault(shape, Alone([], shape, plain, {}, {})).names.append(part.name)
    return list(found.values())


def measure_alone(
    one: Alone, variants: Sequence[Variant], *, batch: int, rounds: int,
    tally: Optional[timing.Tally] = None, **fields: Any,
) -> None:  # fmt: skip
    """Fills in times and bytes of dense and of each variant.

    The layer stands behind a batch norm, so that its backward pass gives the gradient of its input as it
    does inside a network; what the same network takes without it is subtracted.
    """
    models: Dict[Optional[Variant], Model] = {}
    fields = {"learning_rate": 0.0, "momentum": 0.9, "seed": 1, "loss": "mse", "batch": batch, **fields}
    models[None] = Model(_around(one.shape, None), **fields)
    for variant in [Variant(), *variants]:
        scheme = variant.scheme if variant.density < 1 else None
        inner = replace(one.layer, density=variant.density, scheme=scheme)  # type: ignore[type-var]
        try:
            models[variant] = Model(_around(one.shape, inner), **fields)
        except (ValueError, NotImplementedError):  # the scheme does not fit this layer
            one.times[variant] = None
    calls: Dict[Optional[Variant], Callable[[], Any]] = {}
    for key, model in models.items():
        x, y = noise(model.plan(), batch, "mse")
        calls[key] = partial(model.step, x, y)
    found = timing.interleave(calls, rounds, tally=tally)
    without = timing.median(found[None])
    one.without = 1e3 * without
    for key, model in models.items():
        if key is not None:
            one.times[key] = max(0.0, 1e3 * (timing.median(found[key]) - without))
            one.bytes[key] = model.plan().layers[2].bytes
        model.close()


def _around(shape: Shape, layer: Optional[Layer]) -> List[Layer]:
    layers: List[Layer] = [Input(shape.channels, shape.height, shape.width), BatchNorm()]
    layers += [] if layer is None else [layer]
    return layers + ([GlobalAvgPool()] if shape.is_picture else [])
