# SPDX-License-Identifier: Apache-2.0
"""What MestClassifier and MestRegressor have in common: parameters, network, training, streams."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ..config import Config, as_config
from ..layers import Input, Layer, Linear, ReLU, listed
from ..model import Model
from ..plan import plan
from ..training.history import EpochRecord, History
from .learning import Stopper, Turn, advice, inherit, seed_of, split, threads_of, whole

if TYPE_CHECKING or find_spec("sklearn") is None:
    from . import without_sklearn as sk
else:
    from . import with_sklearn as sk

Network = Union[None, Sequence[Layer], Callable[[int, int], Sequence[Layer]]]
Floats = NDArray[np.float32]
Pair = Tuple[Floats, NDArray[Any]]

# Of "auto": each hidden unit has this share of its inputs, and no fewer of them than this.
AUTO_DENSITY, AUTO_INPUTS = 0.1, 8
# An epoch of a stream has at least so many updates: connections must train before they are judged.
STREAM_UPDATES = 32

_OPTIMIZER = ("learning_rate", "momentum", "weight_decay", "clip_norm")
# Fields of Config that something else decides: what.
_DECIDED = {
    "batch": "batch_size", "seed": "random_state", "threads": "n_jobs", "samples": "the data",
    "loss": "the class",
    **{name: name for name in (*_OPTIMIZER, "epochs", "schedule", "density", "scheme", "method")},
}  # fmt: skip


class Learner(sk.BaseEstimator):
    """Parameters and attributes are described in `estimators`."""

    _loss: str
    model_: Model
    loss_curve_: List[float]

    def __init__(
        self,
        hidden_layer_sizes: Union[int, Sequence[int]] = (128,),
        *,
        network: Network = None,
        density: Union[None, str, float] = "auto",
        scheme: Optional[str] = None,
        method: str = "em&s",
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-3,
        clip_norm: Optional[float] = 1.0,
        schedule: str = "cosine",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        random_state: Any = None,
        n_jobs: Optional[int] = None,
        verbose: bool = False,
        config: Optional[Dict[str, Any]] = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.network = network
        self.density = density
        self.scheme = scheme
        self.method = method
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.config = config

    # ----------------------------------------------------------------------------- the model ---

    def _layers(self, inputs: int, outputs: int) -> List[Layer]:
        if self.network is not None:
            made = self.network(inputs, outputs) if callable(self.network) else self.network
            return list(listed(made, "network"))
        sizes = self.hidden_layer_sizes
        layers: List[Layer] = [Input(inputs)]
        for size in [sizes] if isinstance(sizes, (int, np.integer, str)) else sizes:
            width = whole("hidden_layer_sizes", size)
            layers += [Linear(width, density=self._share(inputs)), ReLU()]
            inputs = width
        return [*layers, Linear(outputs, density=1.0, name="output")]

    def _share(self, inputs: int) -> Optional[float]:
        """Density of a hidden layer; None: what Config.density and Config.distribution say."""
        return max(AUTO_DENSITY, min(1.0, AUTO_INPUTS / inputs)) if self.density == "auto" else None

    def _settings(self, seed: int, updates: int, **data: Any) -> Config:
        """updates: in an epoch, which some methods must know.  data: fields that follow from the
        training set."""
        if isinstance(self.density, str) and self.density != "auto":
            raise ValueError(f"density={self.density!r}: a number, None for dense, or 'auto'")
        more = self._more()
        for name in more:
            if name in _DECIDED:
                raise ValueError(f"config has {name!r}, which {_DECIDED[name]} decides")
        own = (*_OPTIMIZER, "epochs", "schedule", "scheme", "method")
        fields = {name: getattr(self, name) for name in own}
        density = AUTO_DENSITY if self.density == "auto" else self.density
        threads = threads_of(self.n_jobs)
        return as_config(None, {
            **fields, "density": density, "threads": threads, "seed": seed, "loss": self._loss,
            "steps_per_epoch": None if data.get("samples") else updates, **more, **data,
        })  # fmt: skip

    def _more(self) -> Dict[str, Any]:
        if not isinstance(self.config, (dict, type(None))):
            raise TypeError(f"config={self.config!r}: a dict of fields of mest.Config is wanted")
        return self.config or {}

    def _updates(self, count: int) -> int:
        """Of one pass over so many samples."""
        batch = min(whole("batch_size", self.batch_size), count)
        return -(-count // (batch * whole("micro_batches", self._more().get("micro_batches", 1))))

    def _model(self, inputs: int, outputs: int, settings: Config) -> Model:
        layers = self._layers(inputs, outputs)
        # Methods refuse a network in which nothing can move; here it is what was asked for.
        known = plan(layers, settings, method="static")
        for what, has, wanted in (("inputs", known.inputs, inputs), ("outputs", known.outputs, outputs)):
            if has != wanted:
                meaning = "features" if what == "inputs" else "classes" if self._loss != "mse" else "targets"
                raise ValueError(f"network has {has} {what}, the data {wanted} {meaning}")
        if not any(layer.sparse for layer in known.layers):
            settings = replace(settings, method="static")
        return Model(layers, settings)

    # ----------------------------------------------------------------------------- training ---

    def _fit(self, x: Floats, y: NDArray[Any], outputs: int) -> None:
        """A new model, trained for all epochs or until it gets no better."""
        ranked, seed = self._loss != "mse", seed_of(self.random_state)
        rows, held, stopper = np.arange(len(x)), None, None
        if self.early_stopping:
            rows, out = split(len(x), self.validation_fraction, y if ranked else None, seed)
            held, x, y = (x[out], y[out]), x[rows], y[rows]
        batch = min(whole("batch_size", self.batch_size), len(x))
        counted = len(x) if ranked else None
        settings = self._settings(seed, self._updates(len(x)), batch=batch, samples=counted)
        model = self._model(x.shape[1], outputs, settings)
        if self.warm_start and hasattr(self, "model_"):
            inherit(model, self.model_)
        if held is not None:
            known: Pair = held
            stopper = Stopper(self, model, lambda record: self._score(model, record, *known))
        with advice():
            callbacks = [] if stopper is None else [stopper]
            history = model.fit(x, y, validation=held, progress=bool(self.verbose), callbacks=callbacks)
        if stopper is not None:
            stopper.restore()
        self.history_ = history
        self.loss_curve_ = [record.loss for record in history]
        self.n_iter_ = len(history)
        self.training_rows_ = rows
        self.validation_scores_ = None if stopper is None else stopper.scores
        self.best_validation_score_ = None if stopper is None else stopper.best
        self._in_epoch, self._turn = STREAM_UPDATES, Turn()
        self._trained(model)

    def _partial_fit(self, x: Floats, y: NDArray[Any], outputs: int) -> None:
        """One pass over x, in batches, from where the model stands."""
        new = not hasattr(self, "model_")
        steady = {name: getattr(self, name) for name in _OPTIMIZER}
        steady.update(schedule="constant", batch=whole("batch_size", self.batch_size))
        with (Turn() if new else self._turn).lock, advice():
            if new:
                updates = max(STREAM_UPDATES, self._updates(len(x)))
                settings = replace(self._settings(seed_of(self.random_state), updates), **steady)
                model = self._model(x.shape[1], outputs, settings)
            else:
                model = self.model_
                settings = replace(model.config, **steady)
                if settings != model.config:  # after fit, or set_params
                    model = Model.from_bytes(model.to_bytes(), model.layers, settings, strict=False)
            calls, in_epoch = (0, STREAM_UPDATES) if new else (self.n_iter_, self._in_epoch)
            if in_epoch >= STREAM_UPDATES:
                model.begin_epoch()
            order = np.random.default_rng([settings.seed, calls]).permutation(len(x))
            loss = 0.0
            for start in range(0, len(x), settings.batch):
                rows = order[start : start + settings.batch]
                report = model.step(x[rows], y[rows])
                loss += report.loss * report.count
            if new:
                self.history_, self._turn, self.loss_curve_ = History(), Turn(), []
            self.loss_curve_.append(loss / len(x))
            self.n_iter_, self._in_epoch = calls + 1, report.step_in_epoch
            self._trained(model)
        if self.verbose:
            print(f"call {self.n_iter_:>3}  loss {self.loss_:.4f}  density {self.density_:.4f}", flush=True)

    def _trained(self, model: Model) -> None:
        """Attributes of any training."""
        self.loss_ = self.loss_curve_[-1]
        self.plan_ = model.plan()
        self.n_outputs_ = self.plan_.outputs
        self.density_ = model.density()
        self.model_ = model

    def _score(self, model: Model, record: EpochRecord, x: Floats, y: NDArray[Any]) -> float:
        """Of the validation set, which `record` has been measured on; larger is better."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------- use it ---

    def _outputs(self, x: Any) -> Floats:
        """The network's, (n, outputs), for any X that can be meant."""
        sk.check_is_fitted(self, "model_")
        inputs = sk.samples(self, x)
        with self._turn.lock:
            return self.model_.predict(inputs)
