# SPDX-License-Identifier: Apache-2.0
"""What sparse training gives on this machine: the same residual network dense and sparse.

    python examples/python/demo.py                                the digits in this repository
    python examples/python/demo.py --cifar FOLDER --depth 20      ResNet-20 on CIFAR-10

Trains both, prints accuracy, bytes planned and measured, milliseconds a step, what mutation did and
which samples were forgotten, and draws demo.png.
"""

import argparse
import time

import numpy as np

import mest
from mest import datasets


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cifar", metavar="FOLDER", help="binary batches of CIFAR-10")
    parser.add_argument("--depth", type=int, help="6 n + 2; default 8, CIFAR-10: 20")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--density", type=float, default=0.1, help="of the sparse one, below 1")
    parser.add_argument("--epochs", type=int, help="default 40, CIFAR-10: 20")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="demo.png", help="where the picture goes")
    return parser.parse_args()


def resident():
    """Bytes of this process in memory; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


class Run:
    """One network, trained and measured."""

    def __init__(self, title, network, config):
        self.title, before = title, resident()
        self.model = mest.Model(network, config)
        self.plan, self.before = self.model.plan(), before
        self.history = None
        self.growth = 0

    def train(self, data, augment):
        print(f"\n{self.title}")

        def measure(_):
            self.growth = max(self.growth, resident() - self.before)

        self.history = self.model.fit(
            data.x_train,
            data.y_train,
            validation=(data.x_test, data.y_test),
            augment=augment,
            callbacks=[measure],
        )
        self.test = self.model.evaluate(data.x_test, data.y_test)


def milliseconds(runs, data, batch, seconds=4.0):
    """Median time of a training step of each run, taken in turns so that both meet the same
    disturbances.  Times whole steps: forward, backward, update."""
    x, y = data.x_train[:batch], data.y_train[:batch]
    times = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 10:
        for run, taken in zip(runs, times):
            start = time.perf_counter()
            run.model.step(x, y)
            taken.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(taken)) for taken in times]


def report(dense, sparse, speed):
    """The table that the whole run was for."""
    rows = [
        ("test accuracy", f"{dense.test.accuracy:.2%}", f"{sparse.test.accuracy:.2%}"),
        ("parameters", f"{dense.plan.active:,}", f"{sparse.plan.active:,}"),
        (
            "weights, gradients, state, indices",
            f"{dense.plan.sparse_bytes:,} B",
            f"{sparse.plan.sparse_bytes:,} B",
        ),
        (
            "activations and scratch",
            f"{dense.plan.workspace_bytes:,} B",
            f"{sparse.plan.workspace_bytes:,} B",
        ),
        ("whole model, planned", f"{dense.plan.total_bytes:,} B", f"{sparse.plan.total_bytes:,} B"),
        (
            "... requested by the library, peak",
            *(f"{r.model.memory.peak:,} B" for r in (dense, sparse)),
        ),
        ("... growth of the process", *(f"{r.growth:,} B" for r in (dense, sparse))),
        ("multiply-adds a sample, forward", f"{dense.plan.macs:,}", f"{sparse.plan.macs:,}"),
        ("milliseconds a step", *(f"{ms:.2f}" for ms in speed)),
    ]
    print(f"\n{'':<38}{'dense':>16}{'sparse':>16}")
    for what, left, right in rows:
        print(f"{what:<38}{left:>16}{right:>16}")
    print(
        "The process also holds the batches of Python and the stacks of threads; freed memory is "
        "reused,\nso its growth may even be less than the model."
    )
    exact = all(r.model.memory.peak == r.plan.total_bytes for r in (dense, sparse))
    once = all(r.model.memory.requests == 1 for r in (dense, sparse))
    print(f"plan == requested: {exact}; one request each: {once}")

    mutated, last = [r for r in sparse.history if r.mutated], sparse.model.mutation()
    dropped, grown = (sum(getattr(r, what) for r in mutated) for what in ("dropped", "grown"))
    print(
        f"\nmutation moved connections at the start of {len(mutated)} epochs: {dropped:,} dropped, "
        f"{grown:,} grown;\n{last.explored:.0%} of all positions were tried, density "
        f"{mutated[0].density:.3f} -> {sparse.history[-1].density:.3f}"
    )
    for run in (dense, sparse):
        print(f"forgetting, {run.title}: {run.model.forgetting()}")


GREY, BLUE, ORANGE = "#7a7f87", "#1f5fa8", "#e07b1a"


def draw_learning(learning, dense, sparse):
    """Accuracy by epoch, trained and tested."""
    from matplotlib.ticker import PercentFormatter

    epochs = sparse.history.column("epoch")
    for run, colour in ((dense, GREY), (sparse, BLUE)):
        learning.plot(
            epochs, run.history.column("accuracy"), ":", color=colour, label=f"{run.title}, train"
        )
        learning.plot(epochs, run.history.column("validation_accuracy"), color=colour,
                      label=f"{run.title}, test {run.test.accuracy:.1%}")  # fmt: skip
    shown = ("accuracy", "validation_accuracy")
    curves = [run.history.column(name) for run in (dense, sparse) for name in shown]
    low = max(0.0, min(curve.min() for curve in curves) - 0.03)
    learning.set(title="Learning curve", xlabel="epoch", ylabel="accuracy", ylim=(low, 1.005))
    learning.yaxis.set_major_formatter(PercentFormatter(1))
    learning.legend(loc="lower right")


def draw_density(density, sparse):
    """Share of the positions in sparse layers that are connected."""
    from matplotlib.ticker import PercentFormatter

    epochs = sparse.history.column("epoch")
    connected = sparse.history.column("density")
    density.step(epochs, connected, where="post", color=BLUE)
    density.set(
        title="Density of the sparse layers",
        xlabel="epoch",
        ylabel="connections that exist",
        ylim=(0, 1.2 * connected.max()),
    )
    density.yaxis.set_major_formatter(PercentFormatter(1))


def draw_forgotten(forgotten, dense, sparse):
    """Samples forgotten in each epoch, mutations marked."""
    epochs = sparse.history.column("epoch")
    moved = epochs[sparse.history.column("mutated")]
    for index, epoch in enumerate(moved):
        forgotten.axvline(
            epoch, color=ORANGE, alpha=0.35, linewidth=1, label=None if index else "mutation"
        )
    for run, colour in ((dense, GREY), (sparse, BLUE)):
        forgotten.plot(epochs, run.history.column("forgotten"), color=colour, label=run.title)
    forgotten.set(title="Samples forgotten in each epoch", xlabel="epoch", ylabel="samples", ylim=0)
    forgotten.legend(loc="upper right")


def draw_histogram(histogram, dense, sparse):
    """Samples by how often they were forgotten."""
    reports = [(run, run.model.forgetting()) for run in (dense, sparse)]
    top = max(int(np.flatnonzero(r.histogram)[-1]) for _, r in reports) + 1
    ticks = list(range(0, top, max(1, top // 8)))
    places, names = np.arange(top, dtype=float), list(map(str, ticks))
    if any(found.never_learned for _, found in reports):
        places, ticks = np.append(places, top + 0.5), [*ticks, top + 0.5]
        names.append("never\nlearned")
    for (run, found), colour, shift in zip(reports, (GREY, BLUE), (-0.2, 0.2)):
        counts = np.append(found.histogram[:top], found.never_learned)[: len(places)]
        histogram.bar(places + shift, counts, 0.4, color=colour, label=run.title)
    histogram.set_xticks(ticks, names)
    histogram.set(
        title="How often samples were forgotten",
        xlabel="times forgotten",
        ylabel="samples",
        yscale="log",
    )
    histogram.legend(loc="upper right")


def draw(dense, sparse, density_wanted, title, path):
    """Four panels: accuracy, density, forgetting by epoch, forgetting by sample."""
    try:
        import matplotlib
    except ImportError:
        print("\nno picture: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
        }
    )
    figure, ((learning, density), (forgotten, histogram)) = pyplot.subplots(2, 2, figsize=(10, 6.6))
    draw_learning(learning, dense, sparse)
    draw_density(density, sparse)
    draw_forgotten(forgotten, dense, sparse)
    draw_histogram(histogram, dense, sparse)

    share = sparse.plan.active / dense.plan.active
    title = (
        f"{title}: dense, and sparse layers at {100 * density_wanted:.0f} %; "
        f"{100 * share:.0f} % of all parameters, the dense layers included"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"\npicture: {path}")


def main():
    options = arguments()
    if options.cifar:
        data = datasets.cifar10(options.cifar)
        depth, epochs, batch, rate = options.depth or 20, options.epochs or 20, 64, 0.1
        every = max(1, epochs // 32)  # 5 of the paper's 160
        fill = datasets.black(datasets.CIFAR10_MEAN, datasets.CIFAR10_STD)
        augment = datasets.pad_crop_flip(4, fill=fill)
        print("CIFAR-10: 50,000 images to train, 10,000 to test, the authors' split")
    else:
        data = datasets.digits()
        depth, epochs, every = options.depth or 8, options.epochs or 40, 3
        batch, rate = 32, 0.05
        fill = datasets.black(datasets.DIGITS_MEAN, datasets.DIGITS_STD)
        augment = datasets.pad_crop_flip(1, flip=False, fill=fill)  # a mirrored digit is no digit
        print("digits: 1,797 images of 8x8, shuffled with seed 0 and split: 1,347 train, 450 test")

    network = mest.resnet(depth, options.width, 10, data.x_train.shape[1:])
    common = mest.Config(
        seed=options.seed,
        threads=options.threads,
        batch=batch,
        epochs=epochs,
        samples=len(data.x_train),
        learning_rate=rate,
        schedule="cosine",
        learning_rate_min=4e-8,
    )
    thin = mest.config.as_config(
        common, dict(density=options.density, method="em&s", mutation_every=every)
    )
    print(f"\nplan of ResNet-{depth} at {options.density:.0%} density")
    print(mest.plan(network, thin))

    dense = Run("dense", network, common)
    dense.train(data, augment)
    sparse = Run(f"{1 - options.density:.0%} sparse", network, thin)
    sparse.train(data, augment)
    report(dense, sparse, milliseconds([dense, sparse], data, common.batch))
    title = f"ResNet-{depth} on {'CIFAR-10' if options.cifar else 'digits'}"
    draw(dense, sparse, options.density, title, options.out)


if __name__ == "__main__":
    main()
