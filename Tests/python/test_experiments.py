# SPDX-License-Identifier: Apache-2.0
"""The experiments: which trainings there are, what one logs, what the tables say of the logs."""

import os
import re
import sys
from pathlib import Path

import pytest

import mest
from mest import datasets

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks/experiments")]

import pictures  # noqa: E402
import report  # noqa: E402
import run as experiment  # noqa: E402
import runs  # noqa: E402
import training_logs  # noqa: E402


def test_comparisons_by_welch():
    # Variances 1 and 1, three seeds each: the error is sqrt(2 / 3), with 4 degrees of freedom 2.776 of it are asked for.
    found = report.compare([2.0, 3.0, 4.0], [0.0, 1.0, 2.0])
    assert found.error == pytest.approx((2 / 3) ** 0.5) and found.freedom == pytest.approx(4)
    assert found.verdict() == "not decided"
    assert report.compare([2.3, 3.3, 4.3], [0.0, 1.0, 2.0]).verdict() == "confirmed"
    assert report.compare([0.0, 1.0, 2.0], [2.3, 3.3, 4.3]).verdict() == "contradicted"
    # Two seeds against two: 12.706 errors of sqrt(1 / 2 + 0 / 2).
    assert report.compare([9.0, 10.0], [1.0, 1.0]).freedom == pytest.approx(1)
    assert report.compare([9.0, 10.0], [4.0, 4.0]).verdict() == "not decided"
    assert report.compare([9.0, 10.0], [1.0, 1.0]).verdict() == "confirmed"
    assert report.compare([90.0, 90.0], [90.0, 90.0]).verdict() == "not decided"
    assert report.compare([2.0], [0.0, 1.0]).verdict() == "one seed"
    assert report.compare([], [1.0]) is None


def test_a_training_that_does_not_exist_is_said(monkeypatch):
    for words in (["--one", "em-91-seed1"], ["--one", "em-90-*"], ["--only", "nothing*"]):
        monkeypatch.setattr(sys, "argv", ["run.py", "--scale", "digits", *words])
        with pytest.raises(SystemExit, match=f"no training of digits is called {re.escape(words[1])}"):
            experiment.main()


def test_deviation_is_said_with_its_seeds():
    assert report.mean_and_deviation([]) == "-"
    assert report.mean_and_deviation([91.234]) == "91.23"
    assert report.mean_and_deviation([1.0, 2.0, 3.0]) == "2.00 ± 1.00 (3)"


@pytest.mark.parametrize("scale", runs.SCALES)
def test_every_training_of_the_experiments_can_be_planned(scale):
    names = [run.name for run in runs.all_runs(scale)]
    assert len(set(names)) == len(names)
    for run in runs.all_runs(scale):
        assert runs.named(run.name, scale) == run
        plan = mest.plan(mest.resnet(**run.architecture()), mest.Config(**run.config(1000)))
        if run.method != "dense":
            sparse = [layer.density for layer in plan.layers if layer.sparse]
            assert sparse and max(sparse) < 0.5


def test_scales_know_their_test_samples():
    assert runs.SCALES["digits"].test_samples == len(datasets.digits().x_test)
    folder = os.environ.get("MEST_DATA")
    if folder:
        assert runs.SCALES["cifar10"].test_samples == len(datasets.cifar10(Path(folder) / "cifar-10").x_test)


def test_experiments_from_training_to_document(tmp_path, monkeypatch):
    """Two short trainings: what the logs say is what the table shows."""
    for module in (experiment, training_logs):
        monkeypatch.setattr(module, "HERE", tmp_path)
    kept = runs.of_method("digits", "em&s", 90, 1), runs.of_method("digits", "em&s", 90, 2)
    for run in kept:
        experiment.train(run)
    assert not list(tmp_path.rglob("*.part"))
    logs = report.Logs(runs.SCALES["digits"])
    found = logs.method("em&s", 90)
    assert [log.run["seed"] for log in found] == [1, 2] and [len(log.epochs) for log in found] == [20, 20]
    text = report.document(logs, pictures.Album(logs, tmp_path / "pictures", tmp_path / "results.md"))
    assert f"**{report.mean_and_deviation([log.accuracy for log in found])}**" in text
    assert found[0].accuracy > 90  # and it learns
    check_links(text, tmp_path, 3)


@pytest.mark.parametrize("scale", runs.SCALES)
def test_documents_are_what_the_logs_say(scale):
    """Character by character; the pictures are there.  If not: report.py --save."""
    logs, (target, folder) = report.Logs(runs.SCALES[scale]), report.place(runs.SCALES[scale])
    text = report.document(logs, pictures.Album(logs, folder, target, draws=False))
    assert target.read_text() == text
    check_links(text, target.parent, 7)


@pytest.mark.parametrize("scale", runs.SCALES)
def test_memory_of_methods_is_what_they_had(scale):
    """The library's plans of today are those of the trainings; what was not trained is planned."""
    logs = report.Logs(runs.SCALES[scale])
    for sparsity in runs.SPARSITIES:
        lines = [line.strip("| ").split(" | ") for line in report.memory_table(logs, sparsity).splitlines()[2:]]
        rows = {title: row for title, *row in lines}
        for method, title in runs.ALL_METHODS.items():
            log = logs.method(method, 0 if method == "dense" else sparsity)[0]
            had = [f"{log.run['plan']['active_peak']:,}", f"{log.model_bytes / 1024:,.0f}"]
            assert rows[title][:2] == had, (title, sparsity)
        assert [title for title, row in rows.items() if row[4] == "no"] == [
            "GraSP", "gradual magnitude pruning, not trained", "lottery tickets, not trained",
        ]  # fmt: skip


def test_seconds_saved_are_those_of_the_history():
    logs = report.Logs(runs.SCALES["digits"])
    for run in (*runs.phases("digits"), *runs.spared("digits")):
        log = logs.get(run.name)
        records = [{key: value for key, value in epoch.items() if key != "kind"} for epoch in log.epochs]
        history = mest.History(mest.EpochRecord(**record) for record in records)
        assert log.seconds_saved == pytest.approx(history.savings().seconds)
        assert (log.seconds_saved > 0) == (run.name != "freezing-seed1")
        assert f" {log.seconds_saved:,.1f} |" in report.phase_table(logs) + report.spared_table(logs)


def made_up(method, seed, accuracy, dropped=()):
    """A log of one training, of which nothing is known but this."""
    run = runs.of_method("cifar10", method, 90, seed)
    epochs = [dict(validation_accuracy=accuracy / 100, dropped=n) for n in dropped or (0,)]
    return run.name, training_logs.Log(dict(config=run.config(50000)), epochs, {})


def test_what_is_better_in_plain_words():
    logs = report.Logs(runs.SCALES["cifar10"])
    accuracies = ("em", 1, 80), ("em", 2, 82), ("em&s", 1, 85), ("snip", 1, 80), ("rigl", 1, 82), ("grasp", 1, 84)
    logs.found = dict(made_up(*log) for log in accuracies)
    assert report.plainly(logs).endswith(
        "after 20 epochs: MEST EM&S is above SNIP, RigL and GraSP at 90 %; MEST EM is above SNIP at 90 %; "
        "MEST EM is below RigL and GraSP at 90 %."
    )
    rows = report.claims_table(logs, report.ACCURACY_CLAIMS, "accuracy", "points")
    assert "| MEST EM above GraSP | −3.00: one seed | - | - |" in rows


def test_how_long_dsr_warms_up():
    logs = report.Logs(runs.SCALES["cifar10"])
    logs.found = dict([made_up("dsr", 1, 80, (0, 1, 2, 4, 8, 16, 9, 11, 0))])
    assert report.updates(logs) == 782
    assert report.warm_up(logs).endswith("rises from 0.001 in the first of its moves, 4 of 7 at 90 %")


def check_links(text, folder, least):
    linked = re.findall(r"\]\(([^)]*)\)", text)
    assert len(linked) >= least and all((folder / name).stat().st_size > 100 for name in linked)


def test_what_a_long_training_says(tmp_path, monkeypatch):
    for module in (experiment, training_logs):
        monkeypatch.setattr(module, "HERE", tmp_path)
    run = runs.long("cifar10")
    epochs = [
        dict(
            epoch=e, forgotten=1000 - 10 * e + (100 + e) * (e % 5 == 0), mutated=e % 5 == 0, validation_accuracy=e / 200,
            samples=9, frozen=0, absent=0,
        )
        for e in range(160)
    ]  # fmt: skip
    begin = dict(name=run.name, config=run.config(50000), date="today", CPU="this", build="mest")
    end = dict(seconds=7.0, forgetting=dict(unforgettable=1, samples=4))
    logs = report.Logs(runs.SCALES["cifar10"])
    logs.found[run.name] = training_logs.Log(begin, epochs, end)
    path = experiment.log_path(run)
    path.parent.mkdir(parents=True)
    path.write_text("x" * 200)
    text = report.document(logs, pictures.Album(logs, tmp_path / "pictures", tmp_path / "results.md"))
    assert "5 pairs: +155.0, +160.0, +165.0, +170.0, +175.0 samples; mean +165.0 ± 3.5, +47.1 %: contradicted" in text
    assert "160 epochs, EM&S 90 %: 79.50 % after the last, 79.50 % the best" in text
    assert f"{len(runs.all_runs('cifar10')) - 1} trainings are still to come" in text
    check_links(text, tmp_path, 5)
