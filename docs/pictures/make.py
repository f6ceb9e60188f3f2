# SPDX-License-Identifier: Apache-2.0
"""The pictures of docs/concepts.md and docs/reports.md, drawn by mest.plot from models that are made here.

    python docs/pictures/make.py [--out FOLDER] [--epochs 20]

Takes some seconds; the same bytes each time for the same matplotlib.  The screenshot of a report is made
where a Chromium is installed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Tuple

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402

import mest  # noqa: E402
from mest.datasets import digits  # noqa: E402
from mest.plot.style import COLOURS  # noqa: E402

# One picture a scheme: its layer, and what the title says of it.
SCHEMES = {
    "unstructured": "any single weight",
    "block4": "4 outputs at once",
    "block8": "8 outputs at once",
    "row4": "4 neighbouring inputs",
    "nm24": "2 of each 4 inputs",
    "fan_in": "as many for each output",
    "pattern": "4 of a kernel's 9",
    "filter": "whole channels",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"svg.hashsalt": "mest", "svg.fonttype": "none", "font.size": 9})

    save(schemes(), options.out / "schemes.svg")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "run.jsonl"
        before, after = train(record, options.epochs)
        save(moves(before, after), options.out / "moves.svg")
        save(mutation(record), options.out / "mutation.svg")
        save(forgetting(record), options.out / "forgetting.svg")
        save(mest.plot.most_forgotten(record, most=16).figure, options.out / "most-forgotten.svg")
        screenshot(record, Path(folder), options.out / "report.png")


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # Lines that matplotlib ends with a space.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    print(path.name)


def schemes() -> Any:
    """The weight matrix of a layer of each scheme, black where a connection is."""
    figure, panels = plt.subplots(2, 4, figsize=(9, 5.2), layout="constrained")
    for ax, (scheme, what) in zip(panels.flat, SCHEMES.items()):
        mest.plot.connections(
            model_of(scheme), "shown", ax, rows=32, columns=36 if scheme == "pattern" else 32
        )
        ax.set_title(f"{scheme}: {what}", fontsize=9, loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def model_of(scheme: str) -> mest.Model:
    """A network whose layer "shown" has a quarter of its connections (nm24: half), in 32 outputs."""
    if scheme == "pattern":
        layers = [
            mest.Input(8, 8, 8),
            mest.Conv2d(32, 3, padding=1, scheme=scheme, density=0.22, name="shown"),
        ]
        return mest.Model([*layers, mest.GlobalAvgPool(), mest.Linear(10, density=1.0)], seed=1)
    density = 0.5 if scheme == "nm24" else 0.25
    sparse = dict(scheme=scheme, density=density)
    layers = [mest.Input(32), mest.Linear(32, **sparse), mest.Linear(32, **sparse, name="shown")]
    return mest.Model([*layers, mest.Linear(32, **sparse), mest.Linear(10, density=1.0)], seed=1)


def train(record: Path, epochs: int) -> Tuple[np.ndarray, np.ndarray]:
    """The digits with EM&S; which connections of one layer there were before and after a mutation."""
    data = digits()
    model = mest.Model(
        mest.mlp((1, 8, 8), [128, 64], 10),
        density=0.1,
        method="em&s",
        epochs=epochs,
        mutation_every=1,
        batch=32,
        samples=len(data.x_train),
        learning_rate=0.03,
        schedule="cosine",
        seed=1,
    )
    masks = []
    model.fit(
        data.x_train, data.y_train, validation=(data.x_test, data.y_test), progress=False,
        callbacks=[mest.record(record, images=data.x_train), lambda _: masks.append(mask(model, 4))],
    )  # fmt: skip
    return masks[1], masks[2]


def mask(model: mest.Model, layer: int) -> np.ndarray:
    """[outputs][inputs], True where a connection is."""
    part, csr = model.plan().layers[layer], model.csr(layer)
    found = np.zeros((part.rows, part.columns), bool)
    found[np.repeat(np.arange(part.rows), np.diff(csr.indptr.astype(int))), csr.indices] = True
    return found


def moves(before: np.ndarray, after: np.ndarray) -> Any:
    """What one mutation did to a weight matrix."""
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    picture = np.ones((*before.shape, 3))
    for where, colour, name in (
        (before & after, "black", "stayed"), (before & ~after, COLOURS["dropped"], "dropped"),
        (after & ~before, COLOURS["grown"], "grown"),
    ):  # fmt: skip
        picture[where] = to_rgb(colour)
        ax.plot([], [], "s", color=colour, label=f"{where.sum():,} {name}")
    ax.imshow(picture, interpolation="nearest")
    ax.set(xlabel="inputs", ylabel="outputs")
    ax.set_title("One mutation of a layer with 64 outputs and 128 inputs", fontsize=10, loc="left")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    return figure


def mutation(record: Path) -> Any:
    figure, panels = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    mest.plot.churn(record, panels[0])
    mest.plot.survival(record, panels[1])
    mest.plot.curves(record, panels[2], what="density")
    return figure


def forgetting(record: Path) -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    mest.plot.forgotten(record, panels[0])
    mest.plot.forgetting(record, panels[1])
    return figure


def screenshot(record: Path, folder: Path, path: Path) -> None:
    """The top of the report as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"{path.name}: no Chromium here")
        return
    mest.report.write(record, folder / "run.html", title="Digits, EM&S, density 0.1")
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1120,1380",
            f"--screenshot={path}",
            (folder / "run.html").as_uri(),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=120,
    )
    print(path.name)


if __name__ == "__main__":
    main()
