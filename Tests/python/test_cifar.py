# SPDX-License-Identifier: Apache-2.0
"""An epoch of ResNet-20 on two batches of CIFAR-10, 90 % sparse, EM&S: from Python and from C the same bits.

Needs the data (MEST_DATA) and a C compiler.  examples/c/train_cifar.c is the C side; this file
describes the same network, order and configuration through the Python package.
"""

import lzma
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mest
from mest import Add, BatchNorm, Conv2d, GlobalAvgPool, Input, Linear, ReLU, _lib

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MEST_DATA", "")) / "cifar-10"
BATCHES = [DATA / f"data_batch_{i}.bin.xz" for i in (1, 2)]
BATCH = 128

pytestmark = pytest.mark.skipif(
    not os.environ.get("MEST_DATA") or not all(path.exists() for path in BATCHES) or not shutil.which("cc"),
    reason="needs MEST_DATA with CIFAR-10, and a C compiler",
)


def network():
    """The layers of train_cifar.c, in its order."""
    layers = [Input(3, 32, 32)]

    def conv(channels, kernel, stride, source=None):
        layers.extend([
            Conv2d(channels, kernel, stride=stride, padding=kernel // 2, bias=False, from_=source), BatchNorm(),
        ])  # fmt: skip

    conv(16, 3, 1)
    layers.append(ReLU())
    for stage in range(3):
        for block in range(3):
            stride = 2 if stage and not block else 1
            source = around = layers[-1]
            conv(16 << stage, 3, stride)
            layers.append(ReLU())
            conv(16 << stage, 3, 1)
            through = layers[-1]
            if stride != 1:
                conv(16 << stage, 1, stride, source)
                around = layers[-1]
            layers.extend([Add(from_=through, with_=around), ReLU()])
    return layers + [GlobalAvgPool(), Linear(10, density=1.0)]


def fnv(model):
    """FNV-1a over every tensor but gradients, by layer, then by the tensor's number."""
    value = 0xCBF29CE484222325
    for layer in range(len(model.layers)):
        for what in mest.TENSORS:
            if what.endswith("gradient"):
                continue
            try:
                data = model.tensor(layer, what).tobytes()
            except mest.MestArgumentError:
                continue
            for byte in data:
                value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def test_one_epoch_from_c_and_from_python(tmp_path):
    files = []
    for path in BATCHES:
        files.append(tmp_path / path.stem)
        files[-1].write_bytes(lzma.decompress(path.read_bytes()))

    # Under the name that the program will look for.
    library = Path(shutil.copy(_lib.path(), tmp_path / "libmest.so.0"))
    program = tmp_path / "train_cifar"
    subprocess.run(
        ["cc", "-O2", f"-I{REPOSITORY / 'include'}", str(REPOSITORY / "examples/c/train_cifar.c"), "-o", str(program),
         str(library), f"-Wl,-rpath,{library.parent}"],
        check=True,
    )  # fmt: skip
    ran = subprocess.run([str(program), *map(str, files)], check=True, capture_output=True, text=True)
    assert "157 steps, 20000 samples" in ran.stdout
    from_c = ran.stdout.split("hash ")[1].strip()

    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in files])
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(1, 3, 1, 1)
    deviation = np.array([0.2470, 0.2435, 0.2616], np.float32).reshape(1, 3, 1, 1)
    model = mest.Model(
        network(), seed=1, batch=BATCH, learning_rate=0.1, momentum=0.9, weight_decay=1e-4, epochs=160,
        samples=20000, density=0.1, distribution="erk", method="em&s", importance_lambda=0.01,
    )  # fmt: skip
    for start in range(0, len(records), BATCH):
        part = records[start : start + BATCH]
        x = part[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255)
        model.step((x - mean) / deviation, part[:, 0].astype(np.int32))
    assert f"{fnv(model):016x}" == from_c
