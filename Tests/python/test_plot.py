# SPDX-License-Identifier: Apache-2.0
"""Pictures: what is drawn is what was measured.  Looks at the numbers of bars and lines, not at pixels."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import run_records

import mest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(path of the record, its run, the model)"""
    path = tmp_path_factory.mktemp("plot") / "run.jsonl"
    model = run_records.write(path)
    return path, mest.read_run(path), model


@pytest.fixture(autouse=True)
def closes():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def heights(ax, container=0):
    return [bar.get_height() for bar in ax.containers[container]]


def widths(ax):
    return [bar.get_width() for group in ax.containers for bar in group if bar.get_width()]


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label)


def texts(ax):
    return [item.get_text() for item in ax.texts]


def test_importing_mest_does_not_import_matplotlib():
    code = "import sys, mest; mest.plot.density; mest.report.write; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_matplotlib_it_says_what_to_install(monkeypatch, trained):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        mest.plot.density(trained[2])


def test_everything_is_drawn_on_the_given_axes(trained):
    from matplotlib.figure import Figure

    path, run, model = trained
    draws = [
        lambda ax: mest.plot.density(run, ax), lambda ax: mest.plot.churn(run, ax),
        lambda ax: mest.plot.churn(run, ax, by="layer"), lambda ax: mest.plot.survival(run, ax),
        lambda ax: mest.plot.survival(run, ax, by="layer"), lambda ax: mest.plot.importance(run, ax),
        lambda ax: mest.plot.forgetting(run, ax), lambda ax: mest.plot.forgotten(run, ax),
        lambda ax: mest.plot.most_forgotten(run, ax), lambda ax: mest.plot.memory(run, ax),
        lambda ax: mest.plot.comparison(run, ax), lambda ax: mest.plot.curves(run, ax),
        lambda ax: mest.plot.connections(model, "hidden", ax),
    ]  # fmt: skip
    for draw in draws:
        ax = Figure().subplots()
        assert draw(ax) is ax
        assert ax.get_title(loc="left"), "a picture has a title"
        ax.figure.canvas.draw()
    assert (
        mest.plot.churn(path).figure is not mest.plot.churn(str(path)).figure
    )  # new ones where none are given


# -------------------------------------------------------------------------------- connections ---


def test_density_of_each_layer(trained):
    _, run, model = trained
    parts = [(part, now) for part, now in zip(model.plan().layers, model.connections()) if part.rows]
    expected = [100 * now / (part.rows * part.columns) for part, now in parts]
    for source in (model, run):
        ax = mest.plot.density(source)
        assert widths(ax) == pytest.approx(expected)
        assert [tick.get_text() for tick in ax.get_yticklabels()] == [part.name for part, _ in parts]
    assert widths(mest.plot.density(model.plan())) == pytest.approx(
        [100 * p.density for p, _ in parts], rel=1e-3
    )
    assert widths(mest.plot.density({"a": 0.25, "b": 1.0})) == pytest.approx([25, 100])


def test_target_is_marked_where_density_is_another():
    model = mest.Model(
        [mest.Input(20), mest.Linear(30, name="a"), mest.Linear(4, density=1.0)],
        density=0.1,
        epochs=10,
        method="em&s",
        mutation_every=1,
    )
    assert not mest.plot.density(model).lines
    model.begin_epoch()  # grows above the target
    (mark,) = mest.plot.density(model).lines
    assert mark.get_xdata()[0] == pytest.approx(10)


def test_churn_is_what_moved(trained):
    _, run, _ = trained
    moved = [e for e in run.epochs if e["mutated"]]
    ax = mest.plot.churn(run)
    assert heights(ax, 0) == [e["grown"] for e in moved]
    assert heights(ax, 1) == [-e["dropped"] for e in moved]
    arrays = mest.plot.churn(([1, 3], [5, 6], [7, 8]))
    assert heights(arrays, 0) == [7, 8] and heights(arrays, 1) == [-5, -6]


def test_churn_is_drawn_in_its_epochs():
    at = [0, 5, 10, 15]
    ax = mest.plot.churn((at, [9] * 4, [9] * 4))
    for bar, epoch in zip(ax.containers[0], at):
        assert bar.get_x() > epoch - 0.5 and bar.get_x() + bar.get_width() < epoch + 0.5
    assert -1 < ax.get_xlim()[0] < -0.4, "there is no epoch before 0"
    wide = mest.plot.churn((np.arange(0, 1000, 20), np.ones(50), np.ones(50))).containers[0]
    assert 5 < wide[0].get_width() < 20, "of a long run a bar is no hair"


def test_churn_by_layer(trained):
    _, run, _ = trained
    ax = mest.plot.churn(run, by="layer")
    values = ax.images[0].get_array()
    sparse = [part for part in run.run["layers"] if part["sparse"]]
    assert values.shape == (len(sparse), len(run.mutations))
    second = run.mutations[1]["layers"][0]
    before = second["active"] + second["dropped"] - second["grown"]
    assert values[0, 1] == pytest.approx(100 * second["dropped"] / before) and values[0, 1] > 0
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [part["name"] for part in sparse]


def test_survival_falls_from_all(trained):
    _, run, _ = trained
    line_ = mest.plot.survival(run).lines[0]
    shares = []
    for mutation in run.mutations:
        shares.append(
            sum(p["survivors"] for p in mutation["layers"]) / sum(p["first"] for p in mutation["layers"])
        )
    assert list(line_.get_ydata())[-len(shares) :] == pytest.approx([100 * share for share in shares])
    assert 0 < shares[-1] < 1, "the run has to move its first connections for this to mean something"
    later = mest.plot.survival(([4, 8], [0.9, 0.8])).lines[0]
    assert list(later.get_xdata()) == [0, 4, 8] and list(later.get_ydata()) == pytest.approx([100, 90, 80])
    at_once = mest.plot.survival(([0, 5], [0.81, 0.7])).lines[0]
    assert list(at_once.get_xdata()) == [0, 0, 5]
    assert list(at_once.get_ydata()) == pytest.approx([100, 81, 70])
    values = mest.plot.survival(run, by="layer").images[0].get_array()
    first = run.mutations[-1]["layers"][0]
    assert values[0, -1] == pytest.approx(100 * first["survivors"] / first["first"])


def test_the_label_of_survival_is_beside_the_line():
    for last in (0.79, 0.02):
        ax = mest.plot.survival(([0, 5, 10], [0.81, 0.8, last]))
        ax.figure.canvas.draw()
        (label,) = ax.texts
        box = label.get_window_extent()
        assert box.x0 > ax.transData.transform((10, 0))[0] and box.x1 < ax.get_window_extent().x1


@pytest.mark.parametrize("width", [3.5, 6])
def test_a_legend_leaves_the_title_free(trained, width):
    from matplotlib.figure import Figure

    for draw in (mest.plot.density, mest.plot.comparison):
        ax = Figure(figsize=(width, 3), layout="constrained").subplots()
        draw(trained[2], ax)
        ax.figure.canvas.draw()
        title, legend = ax._left_title.get_window_extent(), ax.get_legend().get_window_extent()
        assert not title.overlaps(legend) and legend.y0 >= ax.get_window_extent().y1 - 1


def test_numbers_have_no_exponents():
    from mest.plot.style import size
    from mest.plot.sizes import short

    for value, said in ((9999, "9,999"), (351000, "351 K"), (1.65e6, "1.65 M"), (999_700, "1 M"),
                        (4.2e8, "420 M"), (9.9e9, "9.9 G"), (4e12, "4,000 G")):  # fmt: skip
        assert short(value) == said
    for value, said in ((812, "812 B"), (12700, "12.4 KiB"), (999.8 * 1024, "1,000 KiB"),
                        (4e12, "3,725 GiB")):  # fmt: skip
        assert size(value) == said


def test_importance_counts_every_connection(trained):
    _, run, model = trained
    active = sum(n for part, n in zip(model.plan().layers, model.connections()) if part.sparse)
    for source in (run, model):
        ax = mest.plot.importance(source)
        assert ax.patches[0].get_data().values.sum() == pytest.approx(active)
        assert len(ax.patches) == 3  # all, and two layers
    ax = mest.plot.importance(model, layer="hidden")
    index = [part.name for part in model.plan().layers].index("hidden")
    assert ax.patches[0].get_data().values.sum() == pytest.approx(model.connections()[index])
    counts = mest.plot.importance(np.array([-1.0, 0.5, 0.1, 1.0])).patches[0].get_data().values
    assert counts.sum() == 4 and counts[-1] == 2
    with pytest.raises(ValueError, match="classifier"):
        mest.plot.importance(model, layer="classifier")


def test_connections_are_black(trained):
    _, _, model = trained
    index = [part.name for part in model.plan().layers].index("hidden")
    part, csr = model.plan().layers[index], model.csr(index)
    picture = mest.plot.connections(model, "hidden").images[0].get_array()
    assert picture.shape == (part.rows, part.columns) and picture.sum() == len(csr.values)
    assert picture[0, csr.indices[0]] == 1
    assert mest.plot.connections(model, index, rows=4, columns=5).images[0].get_array().shape == (4, 5)


# ------------------------------------------------------------------------------------ samples ---


def test_forgetting_histogram(trained):
    _, run, model = trained
    histogram = model.forgetting().histogram
    last = int(np.flatnonzero(histogram).max())
    for source in (run, model, model.forgetting()):
        ax = mest.plot.forgetting(source)
        assert heights(ax, 0) == histogram[: last + 1].tolist()
        assert heights(ax, 1) == [model.forgetting().never_learned]
    assert heights(mest.plot.forgetting([5, 3, 0, 1])) == [5, 3, 0, 1]


def test_forgotten_marks_mutations_and_leaving():
    history = mest.History(
        record(e, forgotten=10 * e, mutated=e in (1, 3), removed=7 * (e == 3)) for e in range(5)
    )
    ax = mest.plot.forgotten(history)
    assert list(line(ax, "forgotten").get_ydata()) == [0, 10, 20, 30, 40]
    assert list(line(ax, "after a mutation").get_xdata()) == [1, 3]
    assert line(ax, "samples left").get_xdata()[0] == 2.5


def record(epoch, **fields):
    known = dict(
        loss=1.0,
        accuracy=0.5,
        validation_loss=1.5,
        validation_accuracy=0.25,
        learning_rate=0.1,
        density=0.1,
        mutated=False,
        dropped=0,
        grown=0,
        forgotten=0,
        samples=9,
        removed=0,
        absent=0,
        frozen=0,
        returned=0,
        seconds=1.0,
    )
    return mest.EpochRecord(epoch=epoch, **{**known, **fields})


def test_most_forgotten_are_those_of_the_largest_counts(trained):
    _, run, model = trained
    counts = model.forgetting().counts.astype(int)
    x = np.random.default_rng(0).random((len(counts), 1, 8, 8))
    ax = mest.plot.most_forgotten(model, x=x, most=5)
    ids = [int(text.split()[0][1:]) for text in texts(ax)]
    assert len(ids) == 5
    counts[counts == 255] = 0
    assert sorted(counts[ids]) == sorted(np.sort(counts)[-5:])
    drawn = np.asarray(ax.images[0].get_array())
    picture = x[ids[0], 0]
    assert drawn == pytest.approx((picture - picture.min()) / (picture.max() - picture.min()))
    assert len(mest.plot.most_forgotten(run).images) == len(run.most_forgotten["ids"])
    colour = mest.plot.most_forgotten(([4, 2], [9, 255]), x=np.random.default_rng(0).random((6, 3, 5, 4)))
    assert colour.images[0].get_array().shape == (5, 4, 3)
    assert texts(colour) == ["#4 9x", "#2 never learned"]


# -------------------------------------------------------------------------------------- sizes ---


def test_memory_adds_up_to_the_block(trained):
    _, run, model = trained
    for source in (model, run, model.plan()):
        ax = mest.plot.memory(source)
        assert sum(widths(ax)) * 1024 == pytest.approx(model.plan().total_bytes)
        assert f"{model.plan().total_bytes:,} bytes" in ax.get_title(loc="left")
    both = mest.plot.memory({"one": model, "two": model.plan()})
    assert [tick.get_text() for tick in both.get_yticklabels()] == ["one", "two"]


def test_comparison_is_a_share_of_dense(trained):
    _, _, model = trained
    plan = model.plan()
    ax = mest.plot.comparison(model, times={"dense": 2000.0, "sparse": 500.0})
    expected = [100, 100 * plan.active / plan.parameters, 100, 100 * plan.sparse_bytes / plan.dense_bytes,
                100, 100 * plan.macs / plan.dense_macs, 100, 25]  # fmt: skip
    assert sorted(widths(ax)) == pytest.approx(sorted(expected))
    assert any("500 µs, 25 %" in text for text in texts(ax))
    records = [{"name": n, "parameters": p, "model_bytes": b, "total_bytes": t, "microseconds": m}
               for n, p, b, t, m in (("dense", 100, 1200, 9000, 40.0), ("10 %", 10, 200, 8000, 10.0),
                                     ("5 %", 5, 100, 7900, 5.0))]  # fmt: skip
    ax = mest.plot.comparison(records)
    assert sorted(widths(ax)) == pytest.approx(
        sorted([100] * 4 + [10, 5, 100 / 6, 100 / 12, 800 / 9, 790 / 9, 25, 12.5])
    )


# ------------------------------------------------------------------------------------- curves ---


def test_curves(trained):
    _, run, _ = trained
    ax = mest.plot.curves(run)
    assert list(line(ax, "validation").get_ydata()) == pytest.approx(
        [100 * e["validation_accuracy"] for e in run.epochs]
    )
    assert list(line(ax, "training").get_ydata()) == pytest.approx([100 * e["accuracy"] for e in run.epochs])
    assert list(line(ax, "mutation").get_xdata()) == [e["epoch"] for e in run.epochs if e["mutated"]]
    assert list(mest.plot.curves(run, what="learning_rate").lines[0].get_ydata()) == [
        pytest.approx(e["learning_rate"]) for e in run.epochs
    ]
    of_the_model = line(mest.plot.curves(trained[2]), "validation")
    assert list(of_the_model.get_ydata()) == list(line(ax, "validation").get_ydata())
    nan = float("nan")
    alone = mest.History(
        record(e, accuracy=nan, validation_accuracy=nan, validation_loss=nan) for e in range(3)
    )
    ax = mest.plot.curves(alone)  # no accuracy: the loss
    assert ax.get_ylabel() == "loss" and [item.get_label() for item in ax.lines] == ["training"]
    both = mest.plot.curves({"a": run, "b": alone}, what="loss")
    assert {item.get_label() for item in both.lines} == {"a training", "a validation", "b training"}


def test_estimators_are_drawn_as_their_models():
    from mest.datasets import digits

    data = digits()
    x, y = data.x_train[:200].reshape(200, -1), data.y_train[:200]
    found = mest.MestClassifier(hidden_layer_sizes=(16,), density=0.2, method="static", epochs=2).fit(x, y)
    assert len(mest.plot.curves(found, what="loss").lines[0].get_xdata()) == 2
    assert widths(mest.plot.density(found))[0] == pytest.approx(20, rel=0.01)
    assert heights(mest.plot.forgetting(found), 0)[0] == found.model_.forgetting().histogram[0]
    assert f"{found.model_.plan().total_bytes:,}" in mest.plot.memory(found).get_title(loc="left")


def test_the_same_thing_has_the_same_colour(trained):
    _, run, model = trained
    ax = mest.plot.curves(run)
    assert line(ax, "mutation").get_color() == line(mest.plot.forgotten(run), "after a mutation").get_color()
    memory, sizes = mest.plot.memory(run), mest.plot.importance(model)
    weights = memory.containers[0][0].get_facecolor()[:3]
    assert sizes.patches[0].get_facecolor()[:3] == weights


def test_dollars_in_names_are_no_mathematics():
    model = mest.Model(
        [mest.Input(9), mest.Linear(4, name="$\\frac{$", density=0.5), mest.Linear(3, density=1.0)]
    )
    ax = mest.plot.density(model)
    ax.figure.canvas.draw()  # mathematics would be parsed here
    mest.plot.importance(model).figure.canvas.draw()


def test_the_pictures_of_the_documentation(tmp_path, monkeypatch):
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("make_pictures", root / "docs" / "pictures" / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setattr(sys, "argv", ["make.py", "--out", str(tmp_path), "--epochs", "3"])
    monkeypatch.setattr(make.shutil, "which", lambda name: None)  # no browser
    with matplotlib.rc_context():
        make.main()
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in (root / "docs" / "pictures").glob("*.svg"))
    for path in tmp_path.iterdir():
        ElementTree.parse(path)


# ------------------------------------------------------------------------------------- errors ---


def test_what_cannot_be_drawn_says_why(trained, tmp_path):
    from matplotlib.figure import Figure

    path, run, model = trained
    dense = mest.Model([mest.Input(4), mest.Linear(3)])
    for draw, kind, said in (
        (lambda: mest.plot.churn(mest.History([record(0)])), ValueError, "static"),
        (lambda: mest.plot.churn(model.plan()), TypeError, "a History or a Model"),
        (lambda: mest.plot.churn(run, by="epoch"), ValueError, "'layer'"),
        (lambda: mest.plot.survival(model), TypeError, "read_run"),
        (lambda: mest.plot.curves(mest.History()), ValueError, "no epoch"),
        (lambda: mest.plot.curves(run, what="acc"), ValueError, "accuracy"),
        (lambda: mest.plot.importance(dense), ValueError, "no sparse layer"),
        (lambda: mest.plot.most_forgotten(model), ValueError, "give x"),
        (lambda: mest.plot.most_forgotten(([], []), x=[]), ValueError, "no sample was forgotten"),
        (lambda: mest.plot.forgetting([0, 0]), ValueError, "no sample has been seen"),
        (lambda: mest.plot.memory(7), TypeError, "Plan"),
        (lambda: mest.plot.comparison([{"name": "dense"}]), ValueError, "two records"),
        (lambda: mest.plot.importance(mest.History([record(0)])), TypeError, "History: this is"),
        (lambda: mest.plot.forgetting(mest.History([record(0)])), TypeError, "History: this is"),
        (lambda: mest.plot.comparison(mest.History([record(0)] * 2)), TypeError, "this is made"),
        (lambda: mest.plot.comparison(mest.History()), ValueError, "two records"),
        (lambda: mest.plot.curves(run, Figure()), TypeError, r"figure\.subplots\(\)"),
        (lambda: mest.plot.connections(dense, 1), mest.MestArgumentError, "dense|sparse"),
        (lambda: mest.plot.density(tmp_path / "none.jsonl"), FileNotFoundError, "none.jsonl"),
    ):
        with pytest.raises(kind, match=said):
            draw()


def test_records_without_what_was_not_measured(trained, tmp_path):
    """A run that is being written: no mutation yet, no importance, null where there was no validation."""
    lines = [json.loads(line) for line in trained[0].read_text().splitlines()]
    for item in lines:
        if item["kind"] == "epoch":
            item.update(validation_accuracy=None, validation_loss=None)
        if item["kind"] == "mutation":
            for part in item["layers"]:
                part.update(survivors=None, first=None)
    kept = [item for item in lines if item["kind"] in ("run", "epoch", "mutation")]
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(map(json.dumps, kept)) + "\n")
    assert [item.get_label() for item in mest.plot.curves(path).lines] == ["training", "mutation"]
    for draw, said in ((mest.plot.survival, "survived"), (mest.plot.importance, "when training ends"),
                       (mest.plot.forgetting, "set samples")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            draw(path)
