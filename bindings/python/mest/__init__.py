# SPDX-License-Identifier: Apache-2.0
"""mest: neural networks that train sparse on the device (MEST, NeurIPS 2021).

    import mest
    from mest.datasets import digits

    data = digits()
    model = mest.Model(
        mest.mlp((1, 8, 8), [128], 10),
        density=0.1, method="em&s", epochs=20, samples=len(data.x_train),
    )
    print(model.plan())
    model.fit(data.x_train, data.y_train, validation=(data.x_test, data.y_test))

The work is done by libmest, a C library; see `mest.show_versions()` for the one in use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Dict, List

from . import _lib, errors
from .arrays import CopyWarning
from .config import Config
from .errors import (
    BudgetError,
    CallbackError,
    CancelledError,
    CorruptError,
    DivergedError,
    InternalError,
    MestArgumentError,
    MestError,
    MestIOError,
    MestMemoryError,
    ShapeError,
    StateError,
    UnsupportedError,
    VersionError,
)
from .layers import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Layer,
    Linear,
    MaxPool,
    ReLU,
)
from .networks import ds_cnn, mlp, resnet, vgg
from .plan import LayerPlan, Plan, plan

if TYPE_CHECKING:  # what _LAZY brings
    from . import datasets, plot, report
    from ._environment import Memory
    from ._tensors import TENSORS
    from ._versions import show_versions
    from .estimators.estimators import MestClassifier, MestRegressor
    from .exchange.c.source import CSource, to_c
    from .exchange.delta.delta import Delta, delta
    from .exchange.files import load_weights, read_weights, save_weights, write_weights
    from .exchange.network import Network, network_of
    from .exchange.onnx.convert import from_onnx, to_onnx
    from .exchange.pytorch.convert import from_torch, to_torch
    from .model import Model
    from .reports import (
        CSR,
        Checkpoint,
        EpochReport,
        Evaluation,
        ForgettingReport,
        LayerMutation,
        MutationReport,
        Progress,
        StepReport,
    )
    from .runs.reading import Run, read_run
    from .runs.recording import RunWriter, record
    from .training.callbacks import (
        Callback,
        Training,
        checkpoint_every,
        log_evaluation,
        mutation_log,
        record_evaluation,
    )
    from .training.history import EpochRecord, History, Savings
    from .training.stopping import early_stopping

__version__ = "0.1.0"

# Loaded when first asked for, so that `import mest` stays quick: name -> module; "": it is a module.
# A function of its module's name (plan) cannot be here: the loaded module would take its place.
_LAZY: Dict[str, str] = {
    "CSR": "reports",
    "CSource": "exchange.c.source",
    "Callback": "training.callbacks",
    "Checkpoint": "reports",
    "Delta": "exchange.delta.delta",
    "EpochRecord": "training.history",
    "EpochReport": "reports",
    "Evaluation": "reports",
    "ForgettingReport": "reports",
    "History": "training.history",
    "LayerMutation": "reports",
    "Memory": "_environment",
    "MestClassifier": "estimators.estimators",
    "MestRegressor": "estimators.estimators",
    "Model": "model",
    "MutationReport": "reports",
    "Network": "exchange.network",
    "Progress": "reports",
    "Run": "runs.reading",
    "RunWriter": "runs.recording",
    "Savings": "training.history",
    "StepReport": "reports",
    "TENSORS": "_tensors",
    "Training": "training.callbacks",
    "checkpoint_every": "training.callbacks",
    "datasets": "",
    "delta": "exchange.delta.delta",
    "early_stopping": "training.stopping",
    "from_onnx": "exchange.onnx.convert",
    "from_torch": "exchange.pytorch.convert",
    "load_weights": "exchange.files",
    "log_evaluation": "training.callbacks",
    "mutation_log": "training.callbacks",
    "network_of": "exchange.network",
    "plot": "",
    "read_run": "runs.reading",
    "read_weights": "exchange.files",
    "record": "runs.recording",
    "record_evaluation": "training.callbacks",
    "report": "",
    "save_weights": "exchange.files",
    "show_versions": "_versions",
    "to_c": "exchange.c.source",
    "to_onnx": "exchange.onnx.convert",
    "to_torch": "exchange.pytorch.convert",
    "write_weights": "exchange.files",
}

if not TYPE_CHECKING:  # a type checker would take it as "any name will do"

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f".{_LAZY[name] or name}", __name__)
        value = getattr(module, name) if _LAZY[name] else module
        globals()[name] = value
        return value


def __dir__() -> List[str]:
    return sorted({*globals(), *_LAZY})


_lib.check()

__all__ = [
    "Add", "AvgPool", "BatchNorm", "BudgetError", "CSR", "CSource", "Callback", "CallbackError",
    "CancelledError", "Checkpoint", "Config", "Conv2d", "CopyWarning", "CorruptError", "Delta",
    "DivergedError", "Dropout", "EpochRecord", "EpochReport", "Evaluation", "Flatten",
    "ForgettingReport", "GlobalAvgPool", "History", "Input", "InternalError", "Layer",
    "LayerMutation", "LayerPlan", "Linear", "MaxPool", "Memory", "MestArgumentError",
    "MestClassifier", "MestError", "MestIOError", "MestMemoryError", "MestRegressor", "Model",
    "MutationReport", "Network", "Plan", "Progress", "ReLU", "Run", "RunWriter", "Savings",
    "ShapeError", "StateError", "StepReport", "TENSORS", "Training", "UnsupportedError",
    "VersionError", "checkpoint_every", "datasets", "delta", "ds_cnn", "early_stopping", "errors",
    "from_onnx", "from_torch", "load_weights", "log_evaluation", "mlp", "mutation_log",
    "network_of", "plan", "plot", "read_run", "read_weights", "record", "record_evaluation",
    "report", "resnet", "save_weights", "show_versions", "to_c", "to_onnx", "to_torch", "vgg",
    "write_weights",
]  # fmt: skip
