# SPDX-License-Identifier: Apache-2.0
"""mest bench and mest advise, as somebody types them."""

import json

import mest
import pytest
from mest.cli import advise
from mest.measure.variants import Alone, Shape, Variant

from commands import fails, folder, run, saved  # noqa: F401


@pytest.fixture
def quick(monkeypatch):
    from mest.measure import timing

    monkeypatch.setattr(timing.Bystanders, "disturbed", lambda self: False)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(timing.interleave, "__defaults__", (0.0, 0.001, None))


def test_bench(run, quick):
    words = ["bench", "--network", "mlp:32", "--input", "16", "--densities", "0.1,0.5", "--schemes",
             "unstructured,block4", "--batch", "4", "--rounds", "2"]  # fmt: skip
    code, out, err = run(*words, "--json")
    found = json.loads(out)
    assert code == 0 and [r["name"] for r in found] == [
        "dense", "50 % unstructured", "10 % unstructured", "50 % block4", "10 % block4"
    ], err  # fmt: skip
    plan = mest.plan(mest.mlp(16, [32], 10), density=0.1, batch=4)
    assert found[2]["model_bytes"] == plan.sparse_bytes and found[2]["parameters"] == plan.active
    assert all(record["microseconds"] > 0 for record in found)
    code, out, _ = run(*words, "--inference")
    lines = out.splitlines()
    assert (
        code == 0
        and len([line for line in lines if "x " in line]) == 5
        and "prediction of 4 samples" in lines[0]
    )
    assert mest.plot.comparison(found).get_title(loc="left") == "Dense against sparse"
    fails(run("bench", "--network", "mlp:32", "--schemes", "nm24", "--densities", "0.9"), "density")


def test_advise_measures_distinct_layers_once(run, quick):
    code, out, err = run(
        "advise",
        "--network",
        "resnet:8,4",
        "--input",
        "3,8,8",
        "--densities",
        "0.1",
        "--schemes",
        "unstructured,pattern",
        "--batch",
        "2",
        "--rounds",
        "1",
        "--json",
    )
    found = json.loads(out)
    assert code == 0, err
    names = [name for one in found for name in one["layers"]]
    plan = mest.plan(mest.resnet(8, 4, input=(3, 8, 8)), density=0.1)
    assert sorted(names) == sorted(part.name for part in plan.layers if part.kind in ("conv2d", "linear"))
    assert ["conv1.1a", "conv1.1b"] in [one["layers"] for one in found]
    for one in found:
        assert {v["density"] for v in one["measured"]} == {1.0, 0.1} and one["advice"]["why"]
    code, out, err = run("advise", "--network", "mlp:8", "--input", "4", "--rounds", "1", "--batch", "2")
    assert code == 0 and "advice" in out.splitlines()[1] and "these layers together" in out, err
    fails(run("advise", "--schemes", "filter"), "mest bench measures the network")


def alone(dense, **times):
    shape = Shape(64, 1, 1, "Linear(8)")
    variants = {
        Variant(): dense,
        Variant(0.2): times["a"],
        Variant(0.2, "block4"): times["b"],
        Variant(0.1): times["c"],
        Variant(0.1, "block4"): None,
    }
    return Alone(
        ["x", "y"], shape, mest.Linear(8), variants, {v: round(1000 * v.density) for v in variants}
    )


def test_advice_is_the_largest_density_that_pays():
    assert advise.advice(alone(100.0, a=90, b=50, c=20))[0] == Variant(0.2, "block4")
    assert advise.advice(alone(100.0, a=95, b=99, c=20))[0] == Variant(0.1)
    none, why = advise.advice(alone(100.0, a=120, b=99, c=95))
    assert none is None and "dense is better" in why
    assert advise.advice(alone(3.0, a=1, b=1, c=1)) == (None, "dense: too small to matter")
    assert "0.4" in advise.rendered([alone(0.4, a=0.3, b=0.2, c=0.01)], [0.2, 0.1]).splitlines()[1]
    text = advise.rendered([alone(100.0, a=120, b=99, c=95)], [0.2, 0.1])
    assert "dense is better in every layer" in text and "x and 1 more" in text
    assert "200 µs dense, 100 µs as advised (2.0x)" in advise.rendered(
        [alone(100.0, a=90, b=50, c=20)], [0.2, 0.1]
    )
