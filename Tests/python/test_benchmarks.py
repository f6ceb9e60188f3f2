# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own arithmetic, tables and parsers.  Nothing here depends on how fast anything is."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks/experiments")]

import bits  # noqa: E402
import common  # noqa: E402
import goals  # noqa: E402
import layers  # noqa: E402
import memory  # noqa: E402
import mutation  # noqa: E402
import networks  # noqa: E402
import products  # noqa: E402
import readme  # noqa: E402
import step  # noqa: E402
from step import Row, Variant  # noqa: E402


def row(library="mest", sparsity=0, samples=(1.0,), group="unstructured", batch=64, **fields):
    layout = "nchw" if library == "pytorch" else ""
    variant = Variant(library, 2, sparsity, **{"layout": layout, **fields})
    return Row("Net", batch, group, variant, list(samples), 1024, 2**20)


C_PROGRAMS = [*sorted(ROOT.glob("benchmarks/c/*.c")), ROOT / "Tests/c/kernels/kernels_speed.c"]


@pytest.mark.parametrize("source", C_PROGRAMS, ids=lambda path: path.name)
def test_c_programs_fit_the_kernels(source):
    """Otherwise built only where somebody measures."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    include = ROOT / "Sources/CMestKernels/include"
    subprocess.run([compiler, "-std=gnu11", "-fsyntax-only", f"-I{include}", str(source)], check=True)


# ------------------------------------------------------------------------------------- common ---


def test_table():
    assert common.table(["name", ">value"], [["a", "1"], ["b", "22"]]) == (
        "| name | value |\n|---|---:|\n| a | 1 |\n| b | 22 |"
    )


def test_ratio_of_medians():
    assert common.ratio([6.0, 100.0, 5.0], [2.0, 3.0, 3.0]) == 2.0
    assert common.ratio(None, [1.0]) is None and common.ratio([1.0], []) is None
    assert common.fastest([[5.0, 5.0], [], [1.0, 9.0, 3.0]]) == [1.0, 9.0, 3.0]
    assert common.fastest([[]]) is None
    assert (common.times(None), common.times(2.345), common.times(2.345, 2)) == ("-", "2.3x", "2.35x")


def test_variants_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = common.interleave(calls, rounds=3, pause=0, turn=0)
    assert {name: len(samples) for name, samples in found.items()} == {"a": 3, "b": 3}
    assert "".join(order) == "aaabbb" + "ababab"  # three calls each to warm up and to see how long one is


def test_short_calls_are_repeated_in_a_turn():
    calls = []
    found = common.interleave({"a": lambda: calls.append(1)}, rounds=2, pause=0, turn=10)
    assert len(found["a"]) == 2 * 200 and len(calls) == 3 + 2 * 201


def test_command_hides_paths():
    words = ["/home/somebody/benchmarks/step.py", "--sparseprop", "/home/somebody/build", "--save"]
    assert common.command(words) == "python benchmarks/step.py --sparseprop build --save"


def test_refusals():
    for call in (
        lambda: mest.Config(no_such_field=1),
        lambda: mest.ReLU(groups=2),
        lambda: mest.Config(method="sideways").to_struct(),
        lambda: mest.plan([mest.Input(3), mest.Conv2d(4, 9)]),
    ):
        with pytest.raises(common.NotInThisBuild), common.refusals():
            call()
    with pytest.raises(TypeError, match="unsupported operand"), common.refusals():
        1 + "1"
    with pytest.raises(mest.VersionError), common.refusals():
        raise mest.VersionError("of another header")


def test_results_are_kept_with_their_origin(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["/somewhere/step.py", "--save"])
    common.save("x", "Title", ["a note"], "the table", [{"samples": [1.23456, 2.0]}])
    assert common.load("x")[1:] == [{"samples": [1.2346, 2.0]}]
    source = common.load("x")[0]
    assert source["command"] == "python benchmarks/step.py --save" and source["notes"] == ["a note"]
    assert set(source) >= {"date", "CPU", "build"}
    text = (tmp_path / "results" / "x.md").read_text()
    assert text.startswith("# Title\n\n- command: ") and text.endswith("- a note\n\nthe table\n")


@pytest.mark.parametrize(
    "rounds, disturbed, tally",
    [
        (2, [False, False], common.Tally()),
        (2, [True, False, False], common.Tally(repeated=1)),
        (1, [True, True, True], common.Tally(repeated=2, kept=1)),  # patience is at its end
        (2, [True, True, False, True, True, True], common.Tally(repeated=4, kept=1)),
    ],
)
def test_disturbed_rounds_are_taken_again(monkeypatch, rounds, disturbed, tally):
    answers = iter(disturbed)
    monkeypatch.setattr(common.Bystanders, "disturbed", lambda self: next(answers))
    monkeypatch.setattr(common, "TALLY", common.Tally())
    calls = []
    found = common.interleave({"a": lambda: calls.append(1)}, rounds, pause=0, turn=0)
    assert len(found["a"]) == rounds and len(calls) == 3 + len(disturbed)
    assert common.TALLY == tally and next(answers, None) is None


def test_what_was_disturbed_is_not_saved(monkeypatch, capsys):
    monkeypatch.setattr(common, "TALLY", common.Tally(repeated=4, kept=1))
    for busy, saved in ((False, False), (True, True)):
        options = argparse.Namespace(save=True, busy=busy)
        assert common.conditions(options)[1].startswith("4 rounds taken again") and options.save is saved
        assert "warning: " in capsys.readouterr().err


def test_bystanders():
    bystanders = common.Bystanders()
    assert bystanders.share() is None  # too short to tell
    bystanders.begin = [0.0, 0.0, 0.0] if bystanders.begin else None
    assert bystanders.begin is None or 0 <= bystanders.share() <= 1


# ----------------------------------------------------------------------------------- networks ---


def test_sources():
    listed = mest.resnet(8, 4)
    found = networks.sources(listed)
    assert found[0] == () and found[1] == (0,)
    for i, layer in enumerate(listed):
        if isinstance(layer, mest.Add):
            assert len(found[i]) == 2 and found[i][0] == i - 1 and found[i][1] < i - 1
    assert sum(len(source) == 2 for source in found) == 3


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_networks_can_be_planned(name):
    network = networks.NETWORKS[name]
    try:
        described = network.layers()
    except common.NotInThisBuild as error:
        pytest.skip(str(error))
    plan = mest.plan(described, density=0.1, batch=2)
    x, y = network.data(2)
    assert plan.inputs == x[0].size and plan.outputs == network.classes > y.max()


# --------------------------------------------------------------------------------------- step ---


def test_a_whole_measurement(monkeypatch):
    tiny = networks.Network("tiny", lambda: mest.mlp(6, [5], 3), (6,), 3)
    monkeypatch.setitem(networks.NETWORKS, "mlp", tiny)
    monkeypatch.setattr(common, "PAUSE", 0)
    options = argparse.Namespace(
        networks=["mlp"], batch=[2], threads=[1], sparsity=[0, 50], schemes=["unstructured", "no such scheme"],
        activations=["float32"], rounds=1, torch=False,
    )  # fmt: skip
    rows = [found for name, batch, group, variants in step.groups(options)
            for found in step.measure(name, batch, group, variants, options)]  # fmt: skip
    assert [bool(found.samples) for found in rows] == [True, True, False]
    assert all(sample > 0 for found in rows for sample in found.samples)
    assert rows[2].missing.startswith("not in this build: ")
    assert [Row.of(json.loads(json.dumps(found.record()))) for found in rows] == rows
    lines = step.report(rows).splitlines()
    assert len([line for line in lines if line.startswith("| tiny")]) == 2  # dense once
    assert lines[-1].startswith("- not in this build") and "tiny mest no such scheme float32" in lines[-1]


def test_ratios_are_within_one_run():
    rows = [
        row("pytorch", samples=[8.0]), row("pytorch", samples=[6.0], layout="channels_last"), row(samples=[4.0]),
        row(sparsity=90, samples=[2.0]),
        row("pytorch", samples=[80.0], group="block4"), row(samples=[40.0], group="block4"),
        row(sparsity=90, samples=[2.0], scheme="block4", group="block4"),
    ]  # fmt: skip
    assert step.references(rows, rows[3]) == ([4.0], [6.0])
    assert step.references(rows, rows[6]) == ([40.0], [80.0])
    lines = step.report(rows).splitlines()[2:]
    assert len(lines) == 5  # the references of the second run are not shown again
    assert "| 2.00 | 2.0x | 3.0x |" in lines[3] and "| 2.00 | 20.0x | 40.0x |" in lines[4]


def test_two_of_four_is_measured_at_its_own_density_too():
    options = argparse.Namespace(
        networks=["mlp"], batch=[1], threads=[1], sparsity=[0, 90], schemes=["nm24"], activations=["float32"],
        torch=False,
    )  # fmt: skip
    assert [variant.sparsity for *_, variants in step.groups(options) for variant in variants] == [0, 50, 90]


# -------------------------------------------------------------------------------------- goals ---


def test_goals():
    assert goals.cell(None, 4.0) == "- (goal 4x)"
    assert goals.cell(3.999, 4.0) == "4.00x (goal 4x)"
    assert goals.cell(4.1, 4.0) == "**4.10x** (goal 4x)"
    assert all(len(wanted) == len(goals.COLUMNS) for wanted in goals.GOALS.values())

    rows = [row("pytorch", samples=[7.0], group="resnet32/8"), row(sparsity=90, group="resnet32/8")]
    lines = goals.main_table(goals.Runs(rows), "pytorch").splitlines()
    assert lines[3] == (
        "| 90 % unstructured | - (goal 5x) | - (goal 6.5x) | - (goal 6.5x) | - (goal 7.3x) | **7.00x** (goal 5x) |"
    )
    assert "- (goal 1.85x)" in goals.further_table(goals.Runs(rows))


def test_every_goal_is_measured():
    options = argparse.Namespace(torch=False)
    runs = {batch: goals.variants("resnet32", batch, options) for batch in (64, 16, 8)}
    for batch, kind in goals.COLUMNS:
        for sparsity, scheme in goals.GOALS:
            assert Variant("mest", 2, sparsity, scheme, kind) in runs[batch]
    assert all(len(set(found)) == len(found) for found in runs.values())
    options = argparse.Namespace(torch=False, sparseprop=None)
    rows = [
        Row("", batch, f"{name}/{batch}", variant, [1.0])
        for name, batch in goals.RUNS for variant in goals.variants(name, batch, options)
    ]  # fmt: skip
    rivals = [Variant("pytorch", threads) for threads in (1, 2)]
    ways = ("all sparse", "where faster")
    rivals += [Variant("sparseprop", threads, 90, layout=way) for threads in (1, 2) for way in ways]
    rows += [Row("", batch, f"{name}/{batch}", rival, [2.0]) for name, batch in goals.RUNS for rival in rivals]
    lines = goals.further_table(goals.Runs(rows)).splitlines()[2:]
    assert len(lines) == len(goals.FURTHER) and not any("| -" in line for line in lines)


def test_goals_of_other_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert goals.elsewhere() == ""
    found = common.Goal("share", 0.5, 1.0, "%", most=True)
    common.save("mutation", "Title", [], "", [{"samples": [1.0]}, found.record()])
    line = goals.elsewhere().splitlines()[2]
    assert line.startswith("| share | **0.5 %** (goal at most 1 %) | [mutation.md](mutation.md), 20")


# ------------------------------------------------------------------------------------- layers ---

SPEED = """threads, avx512 avx2 reference, here: avx512
batch 16, GFLOP/s forward backward at 80 % 0 % (dense): f32 | bf16
level 3, 1 threads, conv 128x 8x 8 /1   71.8  65.3   78.6  69.1  |   80.0  70.0   90.0  75.0
level 2, 2 threads, linear              94.8  39.7  228.8  48.5
  norm statistics 99.3  apply 183.8 GB/s
"""


def test_speed_is_parsed():
    names, speeds, others = layers.parse_speed(SPEED)
    assert names == ["80 %", "0 %"]
    assert speeds == [
        layers.Speed("avx512", 1, "conv 128x 8x 8 /1", (71.8, 65.3, 78.6, 69.1)),
        layers.Speed("avx512", 1, "conv 128x 8x 8 /1", (80.0, 70.0, 90.0, 75.0), "bfloat16"),
        layers.Speed("avx2", 2, "linear", (94.8, 39.7, 228.8, 48.5)),
    ]
    assert others == ["threads, avx512 avx2 reference, here: avx512", "norm statistics 99.3  apply 183.8 GB/s"]


def test_share_of_peak():
    peak = layers.parse_peak("registers avx512 1 100.0 GFLOP/s\ncopy memcpy 2 40.5 GB/s\n")
    names, speeds, _ = layers.parse_speed(SPEED)
    lines = layers.layer_table(names, speeds, peak).splitlines()
    assert lines[2].endswith("| 72 (72%) | 65 (65%) | 79 (79%) | 69 (69%) |")
    assert lines[4].endswith("| 95 | 40 | 229 | 48 |")  # no peak known for that
    assert layers.peak_table(peak).splitlines()[2:] == [
        "| multiply-add, registers | avx512 | 100.0 | - | GFLOP/s |",
        "| memory, copy (read + written) | memcpy | - | 40.5 | GB/s |",
    ]


def test_more_figures_than_names():
    speeds = [layers.Speed("avx2", 1, "new", (1.0, 2.0, 3.0))]
    assert {line.count("|") for line in layers.layer_table(["80 %"], speeds, {}).splitlines()} == {8}


def test_the_best_of_several_turns():
    a, b = (layers.Speed("avx2", 1, "linear", figures) for figures in ((1.0, 4.0), (2.0, 3.0)))
    assert layers.best([[a], [b]]) == [a._replace(figures=(2.0, 4.0))]


def test_time_of_a_layer():
    speed = layers.Speed("avx2", 1, "conv 128x 8x 8 /1", (1.0, 2.0, 10.0, 20.0))
    assert layers.shape(speed.layer, 16) == (128, 128, 8, 1) and layers.shape("linear", 16) == (1024, 1024, 0, 1)
    gflop = 2e-9 * 128 * 128 * 9 * 64 * 16 * 0.1
    assert layers.milliseconds(speed, 16, 90, 1) == pytest.approx((100 * gflop, 100 * gflop))
    pair = layers.Pair(speed.layer, 1, 90, (1.0, 2.0), (8.0, 10.0))
    assert pair.goal().cell() == "**6.00x** (goal 5x)" and pair.goal().record()["goal"]["reached"] == 6.0
    assert pair._replace(layer="linear", theirs=(1.0, 1.0)).goal().cell() == "0.67x (goal 1x)"


def test_products_are_compared():
    rows = [
        products.Row(1, "mest", {"forward": [0.001], "dx and dw": [0.003]}),
        products.Row(1, "MKL", {"forward": [0.002], "dx": [0.002], "dw": [0.004]}),
    ]
    assert products.report(rows).splitlines()[2:] == [
        "| 1 | mest | 1.0 |  |  | 3.0 | 4.0 |  |", "| 1 | MKL | 2.0 | 2.0 | 4.0 |  | 8.0 | **2.00x** (goal 1x) |",
    ]  # fmt: skip
    wanted = products.problem(2, 90).answers()
    products.check("right", wanted, wanted)
    with pytest.raises(SystemExit, match="wrong: dx is wrong"):
        products.check("wrong", wanted, {**wanted, "dx": -wanted["dx"]})


def test_goals_have_units():
    assert common.Goal("", 1.25, 1.3, most=True).cell() == "**1.25x** (goal at most 1.3x)"
    assert common.Goal("", 0.0041, 1, "%", most=True).cell() == "**0.0041 %** (goal at most 1 %)"
    assert common.Goal("", 2.0, None).cell() == "2.00x" and common.Goal("", None, None).cell() == "-"


# --------------------------------------------------------------------------- memory, mutation ---


def test_memory_report():
    pytorch, plain = memory.VARIANTS[1], memory.VARIANTS[2]
    blocks = next(variant for variant in memory.VARIANTS if variant.recompute == "block")
    found = [
        memory.Found(memory.VARIANTS[0], resident=500_000_000),
        memory.Found(pytorch, resident=400_000_000, samples=[20.0]),
        memory.Found(plain, 200_000_000, 199_500_000, [10.0]),
        memory.Found(blocks, 100_000_000, 99_000_000, [13.0]),
        memory.Found(memory.VARIANTS[3], missing="not in this build: no bf16"),
    ]
    lines = memory.report(found).splitlines()
    assert lines[4] == "| fp32 | 199.5 | 200.0 | **2.00x** (goal 1.8x) | 10.0 | 1.00x |"
    assert lines[5] == "| fp32, blocks recomputed | 99.0 | 100.0 | **4.00x** (goal 3.5x) | 13.0 | **1.30x** (goal at most 1.3x) |"
    assert lines[-1] == "- bf16: not in this build: no bf16"


def test_cost_of_mutation():
    points = [mutation.Point(100, [1.0], [2.0]), mutation.Point(10_000, [10.0], [200.0])]
    assert mutation.exponents(points, "step") == pytest.approx([0.5])
    assert mutation.exponents(points, "mutation") == pytest.approx([1.0])
    assert mutation.share(points[0], steps=4) == pytest.approx(2 / (2 + 5 * 4))
    assert mutation.side(1000, 90) == 100
    share = mutation.goal("Net", mutation.Point(100, [100.0], [2.0]), batch=25_000)
    assert share.cell() == "**0.2 %** (goal at most 1 %)"
    assert len(mutation.scale_table(points).splitlines()) == 4


# --------------------------------------------------------------------------------------- bits ---


def test_cost_of_bits():
    rows = [bits.Row("Net", variant, "1", [ms]) for variant, ms in zip(bits.VARIANTS, (100.0, 99.0, 97.5, 101.0))]
    lines = bits.report(rows).splitlines()
    assert lines[4] == "| Net | free order of sums | 97.50 | +2.5 % | 1 |" and "-1.0 %" in lines[5]
    assert lines[-1].startswith("At most 2.5 % of a step") and lines[-1].endswith("no mode without it is needed.")
    assert (bits.ROOT / "Package.swift").read_text().count(bits.EXACT) == 1


# ------------------------------------------------------------------------------------- readme ---


def test_readme_is_rewritten():
    rows = [row("pytorch", samples=[6.0]), row(samples=[4.0]), row(sparsity=90, samples=[2.0])]
    rows.append(row(sparsity=90, batch=8))
    source = {"command": "python x", "date": "2026-01-01", "CPU": "fast", "compared with": "torch 9"}
    source["notes"] = ["x", "1 disturbed"]
    new = readme.body([source, *(json.loads(json.dumps(found.record())) for found in rows)])
    assert new.splitlines()[0].endswith("; PyTorch is torch 9, its better memory layout; 1 disturbed;")
    assert new.splitlines()[-2:] == [
        "| Net | 0 % | 4.00 | 1.0x | 1.5x | 1 KiB | 1.0 MiB |",
        "| Net | 90 % | 2.00 | 2.0x | 3.0x | 1 KiB | 1.0 MiB |",
    ]
    assert "than PyTorch" not in readme.table(rows[1:])
    text = readme.rewrite(f"a\n{readme.BEGIN}\nold\n{readme.END}\nz\n", new)
    assert text == f"a\n{readme.BEGIN}\n{new}\n{readme.END}\nz\n" and readme.rewrite(text, new) == text


def test_readme_has_its_place():
    text = readme.README.read_text()
    assert readme.rewrite(text, "x").count(readme.BEGIN) == 1
    for wrong in ("", f"{readme.END} {readme.BEGIN}", f"{readme.BEGIN} {readme.END} {readme.END}"):
        with pytest.raises(ValueError, match="once each"):
            readme.rewrite(wrong, "x")


def test_the_readme_shows_what_was_measured():
    """Its table is made from results/step.jsonl; where there is only step.md, each line is one of that."""
    text = readme.README.read_text()
    if (common.RESULTS / "step.jsonl").exists():
        assert readme.rewrite(text, readme.body(common.load("step"))) == text
        return
    measured = {
        (network, sparsity, ms, faster, f"{model} KiB", f"{block} MiB")
        for network, batch, threads, sparsity, ms, faster, model, block in cells((common.RESULTS / "step.md").read_text(), 8)
        if (batch, threads) == (str(readme.BATCH), str(readme.THREADS))
    }
    shown = cells(text.split(readme.BEGIN)[1].split(readme.END)[0], 6)
    assert shown and set(shown) <= measured


def cells(text, columns):
    """The rows of the tables in a text that have so many columns, without head and rule."""
    rows = [tuple(map(str.strip, line.split("|")[1:-1])) for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows[2:] if len(row) == columns]
