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


def check_links(text, folder, least):
    linked = re.findall(r"\]\(([^)]*)\)", text)
    assert len(linked) >= least and all((folder / name).stat().st_size > 100 for name in linked)


def test_what_a_long_training_says(tmp_path, monkeypatch):
    for module in (experiment, training_logs):
        monkeypatch.setattr(module, "HERE", tmp_path)
    run = runs.named(runs.LONG, "cifar10")
    epochs = [
        dict(
            epoch=e, forgotten=100 if e % 5 == 0 else 90, mutated=e % 5 == 0, validation_accuracy=e / 200, samples=9,
            frozen=0, absent=0,
        )
        for e in range(160)
    ]  # fmt: skip
    begin = dict(config=run.config(50000), date="today", CPU="this", build="mest")
    end = dict(seconds=7.0, forgetting=dict(unforgettable=1, samples=4))
    logs = report.Logs(runs.SCALES["cifar10"])
    logs.found[run.name] = training_logs.Log(begin, epochs, end)
    path = experiment.log_path(run)
    path.parent.mkdir(parents=True)
    path.write_text("x" * 200)
    text = report.document(logs, pictures.Album(logs, tmp_path / "pictures", tmp_path / "results.md"))
    assert "100 samples an epoch that begins with a mutation, 90 in one that does not" in text
    assert "160 epochs, EM&S 90 %: 79.50 % after the last, 79.50 % the best" in text
    assert f"{len(runs.all_runs('cifar10')) - 1} trainings are still to come" in text
    check_links(text, tmp_path, 5)
