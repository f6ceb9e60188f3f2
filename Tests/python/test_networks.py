# SPDX-License-Identifier: Apache-2.0
"""The networks that come with the package, against what their papers say of them, and depthwise
convolutions in a plan."""

import numpy as np
import pytest

import mest
from mest import Add, BatchNorm, Conv2d, GlobalAvgPool, Input, Linear, ReLU


def weights(layers, **config):
    """{name: (rows, columns, density)} of the layers that have weights."""
    parts = mest.plan(layers, batch=8, **config).layers
    return {p.name: (p.rows, p.columns, p.density) for p in parts if p.rows}


def test_ds_cnn_is_that_of_the_benchmark():
    """22.6 k weights in 9 convolutions and a classifier, 2.7 M multiply-adds, 25 x 5 pixels."""
    plan = mest.plan(mest.ds_cnn(), batch=8)
    assert [p.shape for p in plan.layers][1:4] == [(64, 25, 5)] * 3
    assert plan.outputs == 12
    convolutions = 40 * 64 + 4 * (9 * 64 + 64 * 64)
    assert plan.parameters == convolutions + 64 * 12 + 12 + 9 * 2 * 64
    assert plan.macs == convolutions * 25 * 5 + 64 * 12


def test_ds_cnn_of_other_shapes():
    found = weights(mest.ds_cnn(40, width=16, blocks=2, input=(1, 30, 13)), density=0.1)
    assert found["depthwise1"] == (16, 9, 1.0) and found["conv1"] == (16, 40, 1.0)
    assert found["pointwise2"] == (16, 16, 26 / 256) and found["classifier"][0] == 40


@pytest.mark.parametrize("depth, convolutions", [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_vgg(depth, convolutions):
    found = weights(mest.vgg(depth, width=4), density=0.5)
    assert len(found) == convolutions + 1
    assert found["conv1.1"] == (4, 27, 1.0) and found["conv5.2"] == (32, 288, 0.5)


def test_vgg_16_has_the_known_size():
    """Without biases, which batch norm has: 14.7 M in the convolutions, 5130 in the classifier."""
    plan = mest.plan(mest.vgg(16), batch=8)
    assert sum(p.rows * p.columns for p in plan.layers) == 14_710_464 + 5120


@pytest.mark.parametrize("make", [lambda: mest.vgg(12), lambda: mest.vgg(input=(3, 8, 8)),
                                  lambda: mest.ds_cnn(blocks=-1)])  # fmt: skip
def test_networks_that_do_not_exist(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
def test_depthwise_takes_no_part_in_the_distribution(distribution):
    layers = [Input(3, 8, 8), Conv2d(32, 3), ReLU(), Conv2d(32, 5, groups=32), ReLU(),
              Conv2d(32, 1), GlobalAvgPool(), Linear(4)]  # fmt: skip
    plan = mest.plan(layers, batch=8, density=0.2, distribution=distribution)
    part = plan.layers[3]
    assert (part.rows, part.columns, part.density, part.active) == (32, 25, 1.0, 800)
    assert part.index_bytes == 0 and part.macs == 800 * 2 * 2 and part.kind == plan.layers[1].kind
    others = [p for p in plan.layers if p.rows and p is not part]
    share = sum(p.active for p in others) / sum(p.rows * p.columns for p in others)
    assert abs(share - 0.2) < 0.01


def test_separable_blocks_are_stored_once():
    """Batch norm and ReLU around a depthwise convolution take no memory of their own."""
    plan = mest.plan(mest.ds_cnn(), batch=16)
    stored = [p.name for p in plan.layers if p.activation_bytes]
    convolutions = [p.name for p in plan.layers if p.rows]
    assert set(convolutions) <= set(stored)
    # Besides them only the input, the last ReLU (the pooling reads it) and the pooling.
    assert len(stored) == len(convolutions) + 3


def test_a_channel_sees_only_itself():
    model = mest.Model([Input(4, 5, 5), Conv2d(4, 3, padding=1, groups=4, bias=False),
                        GlobalAvgPool(), Linear(4, density=1.0, bias=False)], batch=2)  # fmt: skip
    model.set_tensor(3, "weight", np.eye(4, dtype=np.float32))
    x = np.zeros((4, 4, 5, 5), np.float32)
    x[np.arange(4), np.arange(4)] = 1
    assert (np.abs(model.predict(x)) > 0).tolist() == np.eye(4, dtype=bool).tolist()


def test_groups_of_one_channel_are_an_ordinary_convolution():
    layers = [Input(1, 5, 5), Conv2d(1, 3, density=0.5), BatchNorm(), GlobalAvgPool(), Linear(2)]
    assert weights(layers)["conv1"] == (1, 9, pytest.approx(5 / 9))


def test_mutation_leaves_depthwise_weights_alone():
    rng = np.random.default_rng(0)
    model = mest.Model(
        mest.ds_cnn(3, width=8, blocks=1, input=(1, 20, 10)),
        density=0.3, method="em&s", mutation_every=1, batch=8, epochs=4, samples=32,
    )  # fmt: skip
    x, y = rng.normal(size=(32, 1, 20, 10)).astype(np.float32), rng.integers(0, 3, 32)
    model.fit(x, y, progress=False)
    assert [part.layer for part in model.mutation().layers] == [7]  # the pointwise one
    assert model.tensor(4, "weight").size == 72


# -------------------------------------------------------------------------------- shown plans ---


def outputs(plan):
    return [(part.output, part.output_layer, part.output_format) for part in plan.layers]


def test_where_outputs_are():
    layers = [Input(3, 8, 8), Conv2d(4, 3, padding=1, bias=False), BatchNorm(), ReLU(),
              Conv2d(4, 3, padding=1, bias=False), BatchNorm(), Add(with_=1), ReLU(),
              GlobalAvgPool(), Linear(9), ReLU(), Linear(2)]  # fmt: skip
    f32, bf16 = ("stored", -1, "float32"), ("stored", -1, "bfloat16")
    assert outputs(mest.plan(layers, batch=4, activations="bfloat16")) == [
        bf16, bf16, ("fused", 4, ""), ("fused", 4, ""),
        bf16, ("fused", 7, ""), ("fused", 7, ""), bf16,
        f32, f32, ("in place", 9, "float32"), f32,
    ]  # fmt: skip
    for part in mest.plan(layers).layers:
        assert (part.activation_bytes == 0) == (part.output in ("fused", "in place"))


def test_recomputed_outputs_name_who_needs_them():
    """Those of a block, before the backward of its end or of who takes its sums."""
    plan = mest.plan(mest.resnet(8, 8, 10), batch=16, recompute="block")
    again = [(i, part) for i, part in enumerate(plan.layers) if part.output == "recomputed"]
    assert again and all(part.output_layer > i and part.activation_bytes for i, part in again)
    assert "recomputed" not in {part.output for part in mest.plan(mest.resnet(8, 8, 10)).layers}


def test_elementwise_recomputation_gives_up_every_other_block():
    layers = mest.resnet(20, 16, 10)
    kept, plan = (mest.plan(layers, batch=16, recompute=way) for way in (None, "elementwise"))
    stored = [i for i, part in enumerate(kept.layers) if part.kind == "relu" and part.output == "stored"]
    again = [i for i, part in enumerate(plan.layers) if part.output == "recomputed"]
    assert set(again) < set(stored) and len(again) >= (len(stored) - 1) // 2
    assert not any(a in again and b in again for a, b in zip(stored[1:], stored[2:]) if b - a == 7)
    assert plan.activation_bytes < 0.87 * kept.activation_bytes


@pytest.mark.parametrize("scheme", [None, "block4", "pattern", "nm24", "fan_in", "filter", "channel"])
@pytest.mark.parametrize(
    "layers",
    [mest.resnet(20, 16, 10), mest.mlp(784, [1024, 1024], 10), mest.ds_cnn(), mest.vgg()],
    ids=["resnet20", "mlp", "ds_cnn", "vgg"],
)
def test_a_shown_plan_fits_100_columns(layers, scheme):
    settings = dict(method="em&s", epochs=9, activations="bfloat16", recompute="block")
    plan = mest.plan(layers, batch=64, density=0.1, scheme=scheme, **settings)
    lines = str(plan).splitlines()
    assert max(map(len, lines)) <= 100
    for i, part in enumerate(plan.layers):
        line = lines[1 + i].split()
        assert line[:2] == [str(i), part.name] and (part.scheme or "dense" * (part.rows > 0)) in lines[1 + i]
        if part.output == "fused":
            assert line[-3:] == ["fused", "into", str(part.output_layer)]
        elif part.output == "in place":
            assert line[-4:-1] == ["place", "of", str(part.output_layer)]
        else:
            assert f"{part.activation_bytes:,}" in line
    assert any("stored nowhere" in line for line in lines) == any(p.output == "fused" for p in plan.layers)
    assert any("computed again" in line for line in lines) == any(p.output == "recomputed" for p in plan.layers)
