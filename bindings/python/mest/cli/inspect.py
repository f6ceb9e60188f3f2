# SPDX-License-Identifier: Apache-2.0
"""mest inspect: what is in a checkpoint, a file of weights, a record of a run."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any, Dict, List

import numpy as np

from ..exchange.files import WEIGHTS, read_weights
from ..plot.style import size
from ..runs.reading import read_run
from . import _checkpoint
from ._options import add_json, command
from ._output import Failure, print_json, table

EXAMPLES = """A checkpoint is read without its model: a file of Model.save, or an image of the two slots of
flash.  The exit code is 1 where no whole checkpoint is in it.

examples:
  mest inspect training.mest
  mest inspect flash.bin --sections
  mest inspect weights.npz
  mest inspect run.jsonl --json
"""


def add(commands: Any) -> None:
    made = command(
        commands, "inspect", run, "What is in a checkpoint, a file of weights, or a run's record.", EXAMPLES
    )
    made.add_argument("file", metavar="FILE", help=".mest checkpoint, .npz, .safetensors, run.jsonl")
    made.add_argument("--sections", action="store_true", help="of a checkpoint, each section with its size")
    add_json(made)


def run(options: argparse.Namespace) -> int:
    if os.path.splitext(options.file)[1].lower() in WEIGHTS:
        return _weights(options, {name: _array(array) for name, array in read_weights(options.file).items()})
    with open(options.file, "rb") as file:
        image = file.read()
    if image.lstrip()[:1] == b"{":
        return _run(options)
    found = _checkpoint.slots(image)
    if all(slot.state == "damaged" and not slot.version for slot in found):
        raise Failure(f"{options.file} is no checkpoint, no .npz, no .safetensors and no record of a run")
    return _slots(options, found)


# ---------------------------------------------------------------------------------- checkpoints ---


def _slots(options: argparse.Namespace, found: List[_checkpoint.Slot]) -> int:
    newest = _checkpoint.newest(found)
    if options.json:
        print_json({
            "file": options.file, "kind": "checkpoint",
            "newest": None if newest is None else found.index(newest),
            "slots": [dataclasses.asdict(slot) for slot in found],
        })  # fmt: skip
        return 0 if newest else 1
    for number, slot in enumerate(found):
        name = f"slot {number}, at {slot.offset:,}" if len(found) > 1 else options.file
        mark = ", the newest: a load takes it" if slot is newest and len(found) > 1 else ""
        print(f"{name}: {slot.state}{f' ({slot.why})' if slot.why else ''}{mark}")
        if slot.version:
            print(
                f"  checkpoint {slot.sequence:,}, {slot.bytes:,} bytes, format {slot.format}, saved by "
                f"libmest {slot.version}, header CRC {'right' if slot.header_whole else 'wrong'}"
            )
        if slot.position:
            print("  " + _position(slot))
        if slot.sections:
            right = sum(section.whole for section in slot.sections)
            print(f"  {len(slot.sections)} sections, CRC of {right} right")
            print(_indented(_sections(slot) if options.sections else _summary(slot)))
        if slot.layers and slot is (newest or slot):
            print(_indented(_layers(slot)))
    if os.path.exists(options.file + ".tmp"):
        print(f"{options.file}.tmp is there: a save that was interrupted, which no load reads")
    return 0 if newest else 1


def _position(slot: _checkpoint.Slot) -> str:
    at, config = slot.position, slot.config
    of = f" of {config['epochs']:,}" if config.get("epochs") else ""
    said = f"{at['updates']:,} updates, {at['epochs']:,}{of} epochs begun, "
    said += f"{at['step_in_epoch']:,} updates in this one"
    if config.get("samples"):
        said += f", {at.get('training_samples', 0):,} of {config['samples']:,} samples in the training set"
    if at.get("mutations"):
        said += f", {at['mutations']:,} mutations"
    return f"{said}; method {config.get('method')}, seed {config.get('seed')}"


def _summary(slot: _checkpoint.Slot) -> str:
    """Sections of a kind together."""
    kinds: Dict[str, List[int]] = {}
    for section in slot.sections:
        kinds.setdefault(section.name, []).append(section.bytes)
    rows = [[name, str(len(sizes)), f"{sum(sizes):,}"] for name, sizes in kinds.items() if name != "end"]
    return table(["section", ">how many", ">bytes"], rows)


def _sections(slot: _checkpoint.Slot) -> str:
    rows = [
        [section.name, "" if section.layer is None else str(section.layer), f"{section.bytes:,}",
         "right" if section.whole else "WRONG"]
        for section in slot.sections
    ]  # fmt: skip
    return table(["section", ">layer", ">bytes", "CRC"], rows)


def _layers(slot: _checkpoint.Slot) -> str:
    rows = [
        [str(part["layer"]), part["kind"], f"{part['channels']}x{part['height']}x{part['width']}",
         part["scheme"] or "", f"{part['density']:.4g}" if part["scheme"] else "",
         f"{part['units'] or part['alive']:,}" if part["scheme"] else ""]
        for part in slot.layers
    ]  # fmt: skip
    what = "exist: connections, or blocks, runs, kernels, channels of schemes that have those"
    return table([">", "layer", "output", "scheme", ">density", ">exist"], rows) + f"\n{what}"


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


# ---------------------------------------------------------------------------------------- others ---


def _array(array: Any) -> Dict[str, Any]:
    return {"shape": list(array.shape), "type": str(array.dtype), "bytes": int(array.nbytes),
            "not_zero": int(np.count_nonzero(array))}  # fmt: skip


def _weights(options: argparse.Namespace, arrays: Dict[str, Dict[str, Any]]) -> int:
    if options.json:
        print_json({"file": options.file, "kind": "weights", "arrays": arrays})
        return 0
    rows = []
    for name, part in arrays.items():
        count = int(np.prod(part["shape"], dtype=np.int64))
        share = f"{part['not_zero'] / count:.2%}" if count else ""
        rows.append(
            [
                name,
                "x".join(map(str, part["shape"])),
                part["type"],
                f"{part['bytes']:,}",
                f"{part['not_zero']:,}",
                share,
            ]
        )
    print(table(["array", "shape", "type", ">bytes", ">not zero", ">share"], rows))
    print(f"{len(arrays)} arrays, {size(sum(part['bytes'] for part in arrays.values()))}")
    return 0


def _run(options: argparse.Namespace) -> int:
    run = read_run(options.file)
    config, plan = run.run.get("config") or {}, run.run.get("plan") or {}
    ended = None if run.end is None else run.end.get("reason")
    last = run.epochs[-1] if run.epochs else {}
    if options.json:
        print_json({
            "file": options.file, "kind": "run", "started": run.run.get("started"), "epochs": len(run.epochs),
            "mutations": len(run.mutations), "end": ended, "last": last, "config": config, "plan": plan,
        })  # fmt: skip
        return 0
    print(f"{options.file}: a run of {run.run.get('started')}, mest {run.run.get('mest')}; "
          f"{ended or 'not ended: training is running, or was killed'}")  # fmt: skip
    print(
        f"  method {config.get('method')}, density {config.get('density')}, scheme {config.get('scheme')}, "
        f"{len(run.run.get('layers') or [])} layers, {size(plan.get('total_bytes') or 0)} in one block"
    )
    if last:
        shown = {
            name: last.get(name) for name in ("loss", "accuracy", "validation_loss", "validation_accuracy")
        }
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items()
                         if value is not None and value == value)  # fmt: skip
        print(
            f"  {len(run.epochs)} epochs, {len(run.mutations)} mutations; epoch {last.get('epoch')}: {told}"
        )
    print(f"  mest report {options.file} makes a page of it")
    return 0
