# SPDX-License-Identifier: Apache-2.0
"""How large exported C is, and what 8 bits cost: the table of docs/c-export.md.

    python benchmarks/c_export.py

Networks are trained on the digits of this repository, in seconds; the keyword network is not trained: its
sizes depend on its connections alone.  Code is what arm-none-eabi-gcc makes of it for a Cortex-M4 with
FPU, "-" where that is not installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bindings" / "python"))

import numpy as np  # noqa: E402

import mest  # noqa: E402
from mest.datasets import digits  # noqa: E402

COMPILER = "arm-none-eabi-gcc"
FLAGS = "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -std=c99 -Os -ffreestanding".split()
NETWORKS = {
    "MLP 64-128-10": lambda: mest.mlp((1, 8, 8), [128], 10),
    "ResNet-8, width 16": lambda: mest.resnet(8, 16, 10, input=(1, 8, 8)),
    "DS-CNN, 2 blocks of 32": lambda: mest.ds_cnn(10, 32, 2, input=(1, 8, 8)),
    "DS-CNN-S, keywords": mest.ds_cnn,
}


def code_bytes(written: mest.CSource) -> str:
    if shutil.which(COMPILER) is None:
        return "-"
    target = written.source.with_suffix(".o")
    subprocess.run([COMPILER, *FLAGS, "-c", str(written.source), "-o", str(target)], check=True)
    command = ["arm-none-eabi-size", "-A", str(target)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    sizes = re.findall(r"^\.text\S*\s+(\d+)", said, flags=re.MULTILINE)
    return f"{sum(map(int, sizes)):,}"


def main() -> None:
    data, rng = digits(), np.random.default_rng(0)
    print("| network | weights | numbers | flash: constants | flash: code | RAM: scratch | accuracy |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for title, layers in NETWORKS.items():
        trains = "keywords" not in title
        x = data.x_train if trains else rng.normal(size=(50, 1, 49, 10)).astype(np.float32)
        for density in (None, 0.1):
            with mest.Model(
                layers(), density=density, method="em&s" if density else "static", mutation_every=1,
                epochs=20, batch=32, learning_rate=0.05, samples=len(x), schedule="cosine",
            ) as model, tempfile.TemporaryDirectory() as folder:  # fmt: skip
                if trains:
                    model.fit(data.x_train, data.y_train, progress=False)
                for int8 in (False, True):
                    written = mest.to_c(
                        model, folder, int8=int8, calibration=x[:500] if int8 else None,
                        evaluation=(data.x_test, data.y_test) if trains else None,
                    )  # fmt: skip
                    reached = written.accuracy_int8 if int8 else written.accuracy_float
                    print(
                        f"| {title} | {sum(model.connections()):,} | {'int8' if int8 else 'float'} "
                        f"| {written.constant_bytes:,} | {code_bytes(written)} | {written.scratch_bytes:,} "
                        f"| {'' if reached is None else f'{reached:.2%}'} |"
                    )


if __name__ == "__main__":
    main()
