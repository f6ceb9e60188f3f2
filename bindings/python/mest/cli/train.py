# SPDX-License-Identifier: Apache-2.0
"""mest train: a network on data, from the command line."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from importlib import import_module
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..errors import DivergedError
from ..exchange.files import save_weights, write_weights
from ..layers import Layer
from ..model import Model
from ..plot.style import size
from ..training.callbacks import Callback
from . import _data, _network
from ._options import add_config, add_json, command, config_of
from ._outcome import check, tell
from ._output import Failure

EXAMPLES = """Bytes of pictures are scaled to 0 .. 1, mnist: and cifar10: standardised as is usual; other
numbers stay as they are, but with --standardise.  Pictures are (samples, channels, height, width).  With
--loss mse labels are numbers, and --learning-rate is 0.01 and --clip-norm 1 where they are not given.
The forgetting of samples is counted (Config.samples is set).  Ctrl-C ends after the running
step; weights and record are written all the same, and with --checkpoint the same command goes on where
it stopped.

examples:
  mest train digits --network mlp:128,64 --density 0.1 --method ems --epochs 20 --record run.jsonl
  mest train cifar10:FOLDER --network resnet:20 --density 0.1 --method ems --schedule cosine --epochs 160 \\
      --augment --checkpoint training.mest --out weights.npz
  mest train iris.csv --label species --standardise --network mlp:32 --validation 0.3
  mest train house.npz --network mlp:64 --loss mse --standardise
"""
EPOCHS = 20


def add(commands: Any) -> None:
    made = command(commands, "train", run, "Trains a network, sparse if --density says so.", EXAMPLES)
    made.add_argument("data", metavar="DATA", help=_data.HELP)
    made.add_argument(
        "--network", default="mlp:128", metavar="SPEC", help=f"{_network.HELP}; default mlp:128"
    )
    made.add_argument(
        "--label", metavar="COLUMN", help="of a CSV file, name or number from 1; default: the last"
    )
    made.add_argument(
        "--validation",
        metavar="SHARE|FILE",
        help="0.2: this share of the samples is held out; or a file "
        "of them; default: the data's own test set, if it has one, else 0.2; 0: none",
    )
    made.add_argument(
        "--standardise",
        action="store_true",
        help="features get mean 0 and deviation 1; with --out what "
        "was subtracted and divided by goes into FILE.scaling.npz",
    )
    made.add_argument("--shape", metavar="C,H,W", help="what a sample is: rows of features are pictures")
    made.add_argument("--augment", action="store_true", help="pictures are shifted by up to 1/8 and mirrored")
    made.add_argument("--record", metavar="RUN.jsonl", help="what happens, for mest report and mest.plot")
    made.add_argument(
        "--checkpoint", metavar="FILE.mest", help="saved after each epoch; goes on from it if it is there"
    )
    made.add_argument(
        "--other-settings",
        action="store_true",
        help="goes on from a checkpoint though --epochs, --learning-rate and the like are others now",
    )
    made.add_argument(
        "--out", metavar="FILE.npz", help="the weights when training ends, dense arrays by names"
    )
    made.add_argument("--quiet", action="store_true", help="no line for each epoch")
    add_json(made)
    add_config(made, without=["samples", "inference_only"])


def run(options: argparse.Namespace) -> int:
    _writable(options)
    fields = {"epochs": EPOCHS, **config_of(options)}
    if fields.get("loss") == "mse":  # whose gradients have no bound, unlike those of classes
        fields = {"clip_norm": 1.0, "learning_rate": 0.01, **fields}
    data, scaling = _prepared(options, fields)
    ranked = fields.get("loss") != "mse"
    outputs = data.y.shape[1] if not ranked else _classes(data)
    layers = _network.network(options.network, data.shape, outputs, option="--shape")
    if ranked:
        fields["samples"] = len(data.x)
    if options.other_settings:
        _settle(layers, fields, options.checkpoint)
    with Model(layers, **fields) as model:
        _check(model, data, outputs)
        return _train(model, data, scaling, options)


def _settle(layers: List[Layer], fields: Dict[str, Any], checkpoint: Optional[str]) -> None:
    """Saves a checkpoint again with the settings of now, which resuming then finds in it."""
    if checkpoint is None:
        raise Failure("--other-settings is about a checkpoint: say --checkpoint FILE.mest")
    if os.path.exists(checkpoint):
        with Model(layers, **fields) as model:
            model.load(checkpoint, strict=False)
            model.save(checkpoint)


def _writable(options: argparse.Namespace) -> None:
    """Said before hours of training: a folder that is not there."""
    for what in ("record", "checkpoint", "out"):
        path = getattr(options, what)
        if path is not None and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise Failure(f"--{what} {path}: there is no such folder")
    if options.out is not None and not options.out.endswith((".npz", ".safetensors")):
        raise Failure(f"--out {options.out}: .npz or .safetensors is wanted")
    if options.out is not None and options.out.endswith(".safetensors"):
        _needs_safetensors()


# ----------------------------------------------------------------------------------------- data ---

Scaling = Optional[Tuple[Any, Any]]


def _prepared(options: argparse.Namespace, fields: Dict[str, Any]) -> Tuple[_data.Data, Scaling]:
    regression = fields.get("loss") == "mse"
    data = _data.load(options.data, options.label, regression)
    data = _split(data, options, regression, fields.get("seed", 0))
    if options.shape is not None:
        data.x = _shaped(data.x, options.shape)
        data.x_test = None if data.x_test is None else _shaped(data.x_test, options.shape)
    else:
        _channels_first(data.x, options.data)
    if options.augment and data.x.ndim != 4:
        raise Failure("--augment is for pictures; --shape makes pictures of rows")
    if not options.standardise:
        return data, None
    data, mean, deviation = _data.standardised(data)
    return data, (mean, deviation)


def _shaped(x: Any, wanted: str) -> Any:
    """Rows of features as pictures; pictures that are of this shape already stay as they are."""
    shape = _network.shape_of(wanted, "--shape")
    if x.shape[1:] != shape and (x.ndim != 2 or x.shape[1] != shape[0] * shape[1] * shape[2]):
        raise Failure(f"--shape {wanted}: a sample is {_x(x.shape[1:])} numbers")
    return x.reshape(-1, *shape)


def _channels_first(x: Any, path: str) -> None:
    """Colours on the last axis would be taken for the columns of narrow pictures."""
    if x.ndim != 4 or x.shape[3] not in (1, 3, 4) or x.shape[1] in (1, 3, 4) or x.shape[2:] == (1, 1):
        return
    raise Failure(
        f"{path}: x is {x.shape}, (samples, channels, height, width) is wanted. Channels last? Then save "
        f"x.transpose(0, 3, 1, 2); else say --shape {','.join(map(str, x.shape[1:]))}"
    )


def _split(data: _data.Data, options: argparse.Namespace, regression: bool, seed: int) -> _data.Data:
    """What is validated on."""
    wanted = options.validation
    if wanted is None:
        return data if data.x_test is not None else _data.held_out(data, 0.2, seed)
    try:
        share = float(wanted)
    except ValueError:
        other = _data.load(wanted, options.label, regression)
        if data.names != other.names:
            raise Failure(f"{wanted} has other classes than {options.data}") from None
        return _data.Data(data.x, data.y, other.x, other.y, data.names)
    if not 0 <= share < 1:
        raise Failure(f"--validation {wanted}: a share from 0 to below 1, or a file")
    return _data.held_out(data, share, seed) if share else _data.Data(data.x, data.y, names=data.names)


def _classes(data: _data.Data) -> int:
    if data.names is not None:
        return len(data.names)
    tests = [] if data.y_test is None else [data.y_test]
    return max(2, int(max(y.max() for y in [data.y, *tests])) + 1)


def _check(model: Model, data: _data.Data, outputs: int) -> None:
    plan = model.plan()
    if plan.layers[0].shape != data.shape and not (data.x.ndim == 2 and plan.inputs == data.shape[0]):
        raise Failure(
            f"the network takes {_x(plan.layers[0].shape)}, the data's samples are {_x(data.shape)}"
        )
    if plan.outputs != outputs:
        raise Failure(f"the network has {plan.outputs} outputs, the data {outputs} classes or targets")


def _x(shape: Tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# ------------------------------------------------------------------------------------- training ---


def _train(model: Model, data: _data.Data, scaling: Scaling, options: argparse.Namespace) -> int:
    plan, talks = model.plan(), not options.quiet and not options.json
    if talks:
        print(
            f"{options.network} on {options.data}: {len(data.x):,} samples, {plan.parameters:,} "
            f"positions for weights, {plan.active:,} connected, {size(plan.total_bytes)} in one block",
            flush=True,
        )
        if data.names is not None:
            print("classes: " + ", ".join(f"{i} {name}" for i, name in enumerate(data.names)))
    validation: Any = None if data.x_test is None else (data.x_test, data.y_test)
    begin, start, stopped, diverged = time.perf_counter(), _Start(), False, True
    try:
        model.fit(
            data.x, data.y, validation=validation, progress=talks, checkpoint=options.checkpoint,
            callbacks=[start, *_recording(data, options)], augment=_augmentation(options, data),
        )  # fmt: skip
        check(model, data)
        diverged = False
    except KeyboardInterrupt:
        stopped, diverged = True, False
    except DivergedError as error:
        kept = "" if options.out is None else f"; {options.out} is not written"
        raise Failure(f"{error}{kept}") from error
    except BaseException:
        diverged = False
        raise
    finally:  # also after a failure: what was learned is not lost
        if (model.history or start.first) and options.out is not None and not diverged:
            _write_weights(model, options.out, scaling)
    epochs = [record for record in model.history if record.epoch >= start.first]
    tell(model, data, epochs, time.perf_counter() - begin, stopped, options)
    return 130 if stopped else 0


class _Start(Callback):
    """Remembers with which epoch training begins: those before are of the checkpoint."""

    first = 0

    def begin(self, model: Model) -> None:
        self.first = self.training.first


def _recording(data: _data.Data, options: argparse.Namespace) -> List[Callback]:
    if options.record is None:
        return []
    from ..runs.recording import record

    pictures = data.x.ndim == 4 and data.x.shape[1] in (1, 3) and data.y.ndim == 1
    command_ = shlex.join(["mest", *options.words])
    return [record(options.record, images=data.x if pictures else None, command=command_)]


def _augmentation(options: argparse.Namespace, data: _data.Data) -> Optional[Callable[..., Any]]:
    if not options.augment:
        return None
    from ..datasets import pad_crop_flip

    return pad_crop_flip(max(1, data.x.shape[2] // 8))


def _write_weights(model: Model, path: str, scaling: Scaling) -> None:
    save_weights(model, path)
    if scaling is not None:
        beside = os.path.splitext(path)[0] + ".scaling.npz"
        write_weights({"mean": scaling[0], "deviation": scaling[1]}, beside)


def _needs_safetensors() -> None:
    try:
        import_module("safetensors.numpy")
    except ImportError as error:
        raise ImportError("--out FILE.safetensors wants safetensors: pip install safetensors") from error
