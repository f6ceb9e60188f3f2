# SPDX-License-Identifier: Apache-2.0
"""Trains what the experiments consist of and writes a log of each training.

    python benchmarks/experiments/run.py --list
    MEST_DATA=FOLDER python benchmarks/experiments/run.py [--jobs 2] [--only 'em*-95-*' or '[!l]*']
    python benchmarks/experiments/run.py --scale digits

Stop at any time, start again: a training goes on at its last checkpoint, one whose log is complete is not
repeated (--again does).  Each is one process of one thread; the bits of a result do not depend on threads, nor
on what else runs, nor on stops.  `report.py` makes the tables.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, NoReturn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import common  # noqa: E402
import runs  # noqa: E402


def log_path(run: runs.Run) -> Path:
    return HERE / "logs" / run.scale / f"{run.name}.jsonl"


def load(scale: str) -> Any:
    from mest import datasets

    if scale == "digits":
        return datasets.digits()
    folder = os.environ.get("MEST_DATA")
    if not folder:
        sys.exit("MEST_DATA must name the folder in which cifar-10 lies, binary batches")
    return datasets.cifar10(Path(folder) / "cifar-10")


def train(run: runs.Run) -> None:
    """One training, or the rest of one that was stopped; its log appears, whole, when it is done."""
    import mest
    from mest.datasets import CIFAR10_MEAN, CIFAR10_STD, black, pad_crop_flip

    data = load(run.scale)
    augment = pad_crop_flip(4, fill=black(CIFAR10_MEAN, CIFAR10_STD)) if runs.SCALES[run.scale].augmented else None
    config = run.config(len(data.x_train))
    path = log_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".mest")
    with mest.Model(mest.resnet(**run.architecture()), threads=1, **config) as model:
        history = model.fit(
            data.x_train, data.y_train, validation=(data.x_test, data.y_test), augment=augment, progress=False,
            callbacks=[lambda record: print(f"{run.name}: {record}", flush=True)], checkpoint=checkpoint,
            checkpoint_seconds=20,
        )  # fmt: skip
        begin = {
            **asdict(run), "architecture": run.architecture(), "config": config, **common.origin(),
            "commit": common.commit(),
            "command": f"python benchmarks/experiments/run.py --scale {run.scale} --one {run.name}",
            "plan": memory(model.plan()), "layer_macs": [layer.macs for layer in model.plan().layers],
        }  # fmt: skip
        end = {
            "seconds": sum(record.seconds for record in history), "explored": model.mutation().explored,
            "forgetting": forgetting(model),
        }  # fmt: skip
    measured = [*({"kind": "epoch", **asdict(epoch)} for epoch in history), {"kind": "end", **end}]
    records = [{"kind": "run", **begin}, *(common.rounded(record, 6) for record in measured)]
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in records))
    part.replace(path)
    for kept in path.parent.glob(f"{checkpoint.name}*"):
        kept.unlink()


def memory(plan: Any) -> Dict[str, int]:
    names = (
        "total_bytes table_bytes weight_bytes index_bytes gradient_bytes state_bytes forgetting_bytes batch_bytes "
        "workspace_bytes mutation_bytes dense_bytes parameters active active_peak macs dense_macs memory_economic"
    )
    return {name: getattr(plan, name) for name in names.split()}


def forgetting(model: Any) -> Dict[str, Any]:
    report = model.forgetting()
    names = "samples seen learned never_learned unforgettable training events presentations presentations_saved"
    found = {name: getattr(report, name) for name in names.split()}
    return {**found, "histogram": [int(n) for n in report.histogram]}


def train_all(chosen: List[runs.Run], jobs: int, again: bool = False) -> None:
    """Those without a log (again: all), `jobs` at a time, each in a process of its own."""
    missing = [run for run in chosen if again or not log_path(run).exists()]

    def start(run: runs.Run) -> int:
        command = [sys.executable, str(Path(__file__).resolve()), "--scale", run.scale, "--one", run.name]
        return subprocess.run(command).returncode

    with ThreadPoolExecutor(jobs) as pool:
        failed = [run.name for run, code in zip(missing, pool.map(start, missing)) if code]
    if failed:
        sys.exit("failed: " + ", ".join(failed))


def refuse(name: str, scale: str) -> NoReturn:
    sys.exit(f"no training of {scale} is called {name}; --list has the names")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=runs.SCALES, default="cifar10")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names to train")
    parser.add_argument("--again", action="store_true", help="also those that are done")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--list", action="store_true", help="names, and which are done")
    parser.add_argument("--one", metavar="NAME", help="this one, in this process, again")
    options = parser.parse_args()
    if options.one:
        one = runs.named(options.one, options.scale)
        if not one:
            refuse(options.one, options.scale)
        train(one)
        return
    chosen = [run for run in runs.all_runs(options.scale) if fnmatch.fnmatch(run.name, options.only)]
    if not chosen:
        refuse(options.only, options.scale)
    if options.list:
        done = [log_path(run).exists() for run in chosen]
        print("\n".join(f"{'done  ' if there else '      '}{run.name}" for run, there in zip(chosen, done)))
        print(f"{sum(done)} of {len(chosen)} done")
        return
    train_all(chosen, options.jobs, options.again)


if __name__ == "__main__":
    main()
