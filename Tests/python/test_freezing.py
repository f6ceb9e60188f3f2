# SPDX-License-Identifier: Apache-2.0
"""Freezing: front layers compute what prediction does, change no more, and send no gradient on.

A failure names its seed: Graph.random(seed).layers is the network.
"""

import numpy as np
import pytest
from support import close, fingerprint, gradients, has, randomise
from test_graphs import check_bits, compare_step, data_of, made, model_of, traces

import mest
from mest import (
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    ReLU,
)

SHARES = (0.2, 0.4, 0.6, 0.8, 0.99)


def expected_frozen(plan, share, first, last, epoch):
    """From the plan alone: up to the last layer with anything to train before the work is too much."""
    if epoch < first:
        return 0
    limit = share * min(1, (epoch - first + 1) / (last - first + 1)) * plan.macs
    done, end = 0, 0
    for index, part in enumerate(plan.layers):
        if part.rows or part.kind == "batch_norm":
            done += part.macs
            if done > limit * (1 + 1e-9):
                break
            end = index + 1 if done else 0
    return end


def share_of(graph, seed):
    """A share of the network's work that some layer fits into; None where there is none."""
    parts = [part for part in mest.plan(graph.layers, density=0.5).layers if part.macs]
    least = parts[0].macs / sum(part.macs for part in parts) + 1e-3
    return None if least >= 1 else max(least, SHARES[seed // 10 % len(SHARES)])


def frozen_now(seed, **config):
    """A random network in its second epoch, in which a part of it is frozen: (model, graph, rng, counts, n)."""
    graph, rng, counts = made(seed)
    share = share_of(graph, seed)
    if share is None:
        pytest.skip("one layer is all")
    model = model_of(graph, seed, freeze_share=share, freeze_epochs=(1, 1), **config)
    randomise(model, rng)
    assert model.begin_epoch().frozen == 0
    frozen = model.begin_epoch().frozen
    assert frozen == expected_frozen(model.plan(), np.float32(share), 1, 1, 1), f"seed {seed}"
    return model, graph, rng, counts, frozen


def check_against_reference(seed, **config):
    """Two steps; whether they could be compared, which they cannot where floats do not follow."""
    if share_of(made(seed)[0], seed) is None:
        return False
    model, graph, rng, counts, frozen = frozen_now(seed, **config)
    number = 0
    for count in counts:
        for _ in range(8):
            x, y = data_of(graph, rng, count, model.config.loss)
            if compare_step(model, graph, seed, number, x, y, frozen):
                number += 1
                break
        else:
            return False
    return frozen > 0


@pytest.mark.parametrize("part", range(20))
def test_against_the_reference(part):
    compared = sum(
        check_against_reference(
            seed, recompute=(None, "block", "elementwise")[seed % 3], threads=1 + seed % 2
        )
        for seed in range(part, 400, 20)
    )
    assert compared >= 8, "too few networks could be compared"


@pytest.mark.parametrize("part", range(10))
def test_same_bits(part):
    """For every instruction set, number of threads and way to recompute; float32 and bf16.  The second of the two
    steps is in the epoch in which layers freeze."""
    for seed in range(part, 120, 10):
        share = share_of(made(seed)[0], seed)
        if share is not None:
            check_bits(
                seed, activations=("float32", "bfloat16")[seed // 10 % 2],
                steps_per_epoch=1, freeze_share=share, freeze_epochs=(1, 1),
            )  # fmt: skip


@pytest.mark.parametrize("part", range(5))
def test_nothing_is_read_that_was_not_written(part):
    for seed in range(part, 80, 5):
        graph, rng, counts = made(seed)
        share = share_of(graph, seed)
        if share is None:
            continue
        batches = [data_of(graph, rng, count, "cross_entropy") for count in counts + counts]
        config = dict(
            recompute=(None, "block", "elementwise")[seed % 3], activations=("float32", "bfloat16")[seed % 2],
            steps_per_epoch=1, freeze_share=share, freeze_epochs=(1, 2),
        )  # fmt: skip
        zeros, *others = (traces(graph, seed, batches, paint, **config) for paint in (0, 0xFF, 0x7E))
        assert all(other == zeros for other in others), f"seed {seed}"


# ------------------------------------------------------------------------ what a frozen layer is ---


def tensors(model, layers):
    """Bytes of all that layers have: values, momentum, statistics, connections."""
    plan, found = model.plan(), {}
    for index in layers:
        if plan.layers[index].sparse:
            found[index, "csr"] = [np.array(a).tobytes() for a in model.csr(index)]
        for what in mest.TENSORS:
            if not what.endswith("gradient") and has(model, index, what):
                found[index, what] = model.tensor(index, what).tobytes()
    return found


def tail_alone(front, tail, model, x):
    """A model of the layers behind, and the output of those in front of them as its input."""
    before = mest.Model([*front, Flatten()], batch=model.config.batch, inference_only=True)
    after = mest.Model(
        [Input(*model.plan().layers[len(front) - 1].shape), *tail], batch=model.config.batch,
        learning_rate=0.05, weight_decay=1e-3, clip_norm=0.5, nesterov=True,
    )  # fmt: skip
    for other, shift in ((before, 0), (after, len(front) - 1)):
        for index in range(1, len(other.layers)):
            for what in ("weight", "bias", "scale", "running_mean", "running_var"):
                if has(other, index, what):
                    other.set_tensor(index, what, model.tensor(index + shift, what))
    features = before.predict(x).reshape(len(x), *model.plan().layers[len(front) - 1].shape)
    return after, features


FRONTS = {
    "linear": (
        [Input(20), Linear(16, density=1.0), ReLU(), Linear(12, density=1.0), BatchNorm(), ReLU()],
        [Linear(9, density=1.0), ReLU(), Linear(4, density=1.0)],
    ),
    "convolutions": (
        [Input(3, 9, 8), Conv2d(6, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv2d(6, 3), BatchNorm(), ReLU()],
        [Conv2d(8, 3, padding=1), BatchNorm(), ReLU(), Conv2d(8, 3), GlobalAvgPool(), Linear(4, density=1.0)],
    ),
    "depthwise": (
        [Input(3, 9, 8), Conv2d(6, 3, padding=1), ReLU(), Conv2d(6, 3, groups=6, bias=False), BatchNorm(), ReLU()],
        [Conv2d(5, 1), BatchNorm(), ReLU(), GlobalAvgPool(), Linear(4, density=1.0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("batch", [1, 7, 16])
def test_the_rest_trains_as_if_it_were_alone(name, batch):
    """Bit for bit: clipping, momentum and decay see the layers that train and no others."""
    front, tail = FRONTS[name]
    rng = np.random.default_rng(batch)
    model = mest.Model(
        [*front, *tail], batch=batch, learning_rate=0.05, weight_decay=1e-3, clip_norm=0.5, nesterov=True,
        freeze_share=0.999, freeze_epochs=(1, 1), seed=3,
    )  # fmt: skip
    # The share of work that ends just behind the front.
    work = sum(part.macs for part in model.plan().layers[: len(front)]) / model.plan().macs
    model = mest.Model(model.layers, mest.Config(**{**vars(model.config), "freeze_share": work + 1e-6}))
    randomise(model, rng)
    model.begin_epoch()
    assert model.begin_epoch().frozen == len(front) - 1  # ReLU has nothing to freeze
    x = rng.normal(size=(batch, *model.plan().layers[0].shape)).astype(np.float32)
    y = rng.integers(0, 4, batch)
    after, features = tail_alone(front, tail, model, x)
    for _ in range(3):
        a, b = model.step(x, y), after.step(features, y)
        assert (a.loss, a.gradient_norm) == (b.loss, b.gradient_norm)
    for index in range(1, len(after.layers)):
        for what in mest.TENSORS:
            if has(after, index, what):
                theirs = model.tensor(index + len(front) - 1, what)
                assert after.tensor(index, what).tobytes() == theirs.tobytes(), (index, what)


METHODS = {
    "static": {}, "vanilla": {}, "em": {}, "em&s": {}, "em&s global": dict(method="em&s", global_threshold=True),
    "set": {}, "gmp": {}, "dsr": {}, "rigl": dict(mutation_updates=2, mutation_epochs=(3, 7)),
    "em&s block4": dict(method="em&s", scheme="block4"), "em fan_in": dict(method="em", scheme="fan_in"),
    "em&s fan_in": dict(method="em&s", scheme="fan_in"), "set pattern": dict(method="set", scheme="pattern"),
    "em&s filter": dict(method="em&s", scheme="filter"), "vanilla channel": dict(method="vanilla", scheme="channel"),
    "gmp filter": dict(method="gmp", scheme="filter"),
    "em by average": dict(method="em", importance_gradient="ema", importance_lambda=0.1),
    "em&s by gradient": dict(method="em&s", importance_lambda=0.01, exclude_dropped=True),
    "em&s rounded as published": dict(method="em&s", round_compat=True),
}  # fmt: skip


def network():
    return [
        Input(3, 9, 8), Conv2d(8, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv2d(12, 3, padding=1),
        BatchNorm(), ReLU(), Conv2d(12, 3, padding=1, bias=False), BatchNorm(), Add(with_=6), ReLU(),
        Conv2d(16, 3, stride=2), ReLU(), GlobalAvgPool(), Linear(20), ReLU(), Linear(4, density=1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_what_is_frozen_changes_no_more(name):
    """Whatever the method; the others go on moving; what freezes is at its target."""
    config = {"method": name, **METHODS[name]}
    model = mest.Model(
        network(), **{"batch": 8, "epochs": 10, "steps_per_epoch": 4, "density": 0.3, "mutation_every": 1,
                      "freeze_share": 0.8, "freeze_epochs": (2, 6), "learning_rate": 0.05, **config},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    plan = model.plan()
    frozen, before, moved, counts = 0, {}, 0, []
    settles = config["method"] in ("em&s", "gmp")
    for epoch in range(10):
        begun = model.begin_epoch()
        assert begun.frozen == expected_frozen(plan, np.float32(0.8), 2, 6, epoch)
        assert tensors(model, range(frozen)) == before, f"epoch {epoch}"
        shown = {part.layer: part for part in model.mutation().layers}
        for index in range(begun.frozen):
            part = plan.layers[index]
            if part.sparse and settles and index >= frozen and "global" not in name and part.unit:
                # Rounded as published a layer may have one fewer.
                assert part.active - shown[index].active in ((0, 1) if "published" in name else (0,)), (epoch, index)
                assert shown[index].grown == 0
            if part.sparse and index < frozen and begun.mutated:
                assert (shown[index].dropped, shown[index].grown) == (0, 0)
        moved += begun.dropped + begun.grown
        frozen = begun.frozen
        counts.append(frozen)
        before = tensors(model, range(frozen))
        for _ in range(4):
            x = rng.normal(size=(8, 3, 9, 8)).astype(np.float32)
            report = model.step(x, rng.integers(0, 4, 8))
            assert report.frozen == frozen
        for (index, what), gradient in gradients(model).items():
            assert index >= frozen or not gradient.any(), (index, what)
        assert tensors(model, range(frozen)) == before, f"epoch {epoch}"
    assert counts == sorted(counts) and len(set(counts)) >= 3, "layers freeze one after the other"
    assert name in ("static", "rigl") or moved > 0


def test_only_layers_that_freeze_come_down():
    """In an epoch without a mutation: the others have what they had."""
    model = mest.Model(
        network(), batch=8, epochs=40, density=0.3, method="em&s", mutation_every=20,
        freeze_share=0.6, freeze_epochs=(3, 3),
    )  # fmt: skip
    plan = model.plan()
    for _ in range(3):
        model.begin_epoch()
    grown = {part.layer: part.active for part in model.mutation().layers}
    rest = tensors(model, range(5, len(model.layers)))
    begun = model.begin_epoch()
    assert (begun.frozen, begun.grown, begun.mutated) == (6, 0, True)
    for part in model.mutation().layers:
        target = plan.layers[part.layer].active
        assert grown[part.layer] > target
        assert part.active == (target if part.layer < 6 else grown[part.layer])
    assert begun.dropped == sum(grown[i] - plan.layers[i].active for i in (1, 4))
    after = tensors(model, range(5, len(model.layers)))
    assert after == rest
    report = model.mutate()  # by hand: the frozen ones rest
    assert all((part.dropped, part.grown) == (0, 0) for part in report.layers if part.layer < 6)
    assert report.dropped > 0


def test_batch_norm_and_dropout():
    """Frozen: running statistics and no dropout.  Dropout in front of the first layer that trains goes on."""
    layers = [
        Input(6), Linear(8, density=1.0), BatchNorm(), Dropout(0.5), Linear(8, density=1.0), ReLU(), Dropout(0.5),
        Linear(3, density=1.0),
    ]  # fmt: skip
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    y = np.zeros(8, int)
    for share, frozen in ((0.5, 3), (0.95, 5)):
        model = mest.Model(
            layers, batch=8, learning_rate=0.0, weight_decay=0.0, freeze_share=share, freeze_epochs=(1, 1)
        )
        model.begin_epoch()
        assert model.begin_epoch().frozen == frozen
        before = model.tensor(2, "running_mean"), model.tensor(2, "running_var")
        losses = {model.step(x, y).loss for _ in range(4)}
        assert len(losses) > 1
        for then, what in zip(before, ("running_mean", "running_var")):
            assert (model.tensor(2, what) == then).all()
    calm = [*layers[:6], Linear(3, density=1.0)]  # nothing random is left behind what is frozen
    model = mest.Model(
        calm, batch=8, learning_rate=0.0, weight_decay=0.0, freeze_share=0.9, freeze_epochs=(1, 1)
    )
    model.begin_epoch()
    assert model.begin_epoch().frozen == 5
    loss = model.step(x, y).loss
    assert loss == model.step(x, y).loss == pytest.approx(model.evaluate(x, y).loss, abs=1e-6)


def test_a_failed_step_changes_nothing():
    model, graph, rng, counts, frozen = frozen_now(61, clip_norm=1.0)
    assert frozen > 1
    x, y = data_of(graph, rng, graph.batch, model.config.loss)
    model.step(x, y)
    before = fingerprint(model)
    with pytest.raises(mest.DivergedError):
        model.step(np.float32(1e30) * x, y)
    assert fingerprint(model) == before
    assert not any(gradient.any() for gradient in gradients(model).values())
    model.step(x, y)
    assert fingerprint(model) != before


def test_micro_batches():
    """Two halves are one batch, with layers frozen; an unfinished update is applied before they freeze."""
    layers = [Input(6), Linear(8, density=1.0), ReLU(), Linear(8, density=1.0), ReLU(), Linear(3, density=1.0)]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 6)).astype(np.float32), rng.integers(0, 3, 8)
    models = [
        mest.Model(layers, batch=8 // k, micro_batches=k, freeze_share=0.5, freeze_epochs=(1, 1)) for k in (1, 2)
    ]
    for model in models:
        model.begin_epoch()
    models[1].step(x[:4], y[:4])
    first = models[1].tensor(1, "weight")
    assert models[1].begin_epoch().frozen == 2
    assert (models[1].tensor(1, "weight") != first).any()
    models[0].begin_epoch()
    for what in ("weight", "bias", "weight_momentum", "bias_momentum"):
        for index in (1, 3, 5):
            models[1].set_tensor(index, what, models[0].tensor(index, what))
    for _ in range(3):
        models[0].step(x, y)
        for half in (slice(4), slice(4, 8)):
            models[1].step(x[half], y[half])
    for index in (1, 3, 5):
        close(models[1].tensor(index, "weight"), models[0].tensor(index, "weight"), 1e-5)


def test_rigl_of_frozen_layers_updates():
    """When nothing that is sparse trains, no update gives way to a move."""
    layers = [Input(6), Linear(20, density=0.5), ReLU(), Linear(3, density=1.0)]
    model = mest.Model(
        layers, batch=8, epochs=8, steps_per_epoch=2, method="rigl", mutation_updates=1, mutation_epochs=(1, 6),
        freeze_share=0.9, freeze_epochs=(1, 1),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    for step in range(4):
        before = model.tensor(3, "weight")
        report = model.step(x, np.zeros(8, int))
        assert (before != model.tensor(3, "weight")).any() == (step >= 2)
        assert report.mutated == (step < 2) or step == 0


@pytest.mark.parametrize("method", ["rigl", "gse"])
def test_frozen_layers_report_no_moves(method):
    """What they moved last, before they froze, is not reported with every later move."""
    layers = [Input(20), Linear(40, density=0.3), ReLU(), Linear(40, density=0.3), ReLU(), Linear(3, density=1.0)]
    model = mest.Model(
        layers, batch=8, epochs=8, steps_per_epoch=6, method=method, mutation_updates=2, learning_rate=0.05,
        freeze_share=0.5, freeze_epochs=(3, 3),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 20)).astype(np.float32), rng.integers(0, 3, 8)
    moved = set()
    for _ in range(30):
        report = model.step(x, y)
        if report.mutated:
            front, back = model.mutation().layers
            assert (front.dropped > 0) == (report.frozen == 0) and back.dropped > 0
            moved.add(report.frozen)
    assert len(moved) == 2


@pytest.mark.parametrize("epochs", range(2, 12))
@pytest.mark.parametrize("share", [0.3, 2 / 3, 0.9])
def test_when_layers_freeze(epochs, share):
    """The defaults, and the schedule of pieces, from the numbers of the plan; Model.fit tells it."""
    model = mest.Model(mest.mlp((8,), [16] * 8, 3), batch=4, epochs=epochs, freeze_share=share)
    first = max(1, epochs // 4)
    last = max(first, epochs * 5 // 8)
    rng = np.random.default_rng(0)
    history = model.fit(rng.normal(size=(4, 8)).astype(np.float32), rng.integers(0, 3, 4), progress=False)
    expected = [expected_frozen(model.plan(), np.float32(share), first, last, e) for e in range(epochs)]
    assert history.column("frozen").tolist() == expected
    assert expected[-1] > 0 and f"frozen {expected[-1]}" in str(history[-1]) and "frozen" not in str(history[0])


def test_memory_stays():
    """The plan is that of the whole training."""
    for options in ({}, dict(method="em&s", epochs=8)):
        plain = mest.plan(network(), density=0.3, **options)
        assert mest.plan(network(), density=0.3, freeze_share=0.5, freeze_epochs=(2, 4), **options) == plain


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_nothing_freezes_before_connections_are_chosen(method):
    """Epochs may begin without a step: the choice still scores all layers, and the next epoch freezes."""
    options = dict(method=method, batch=8, density=0.3, steps_per_epoch=2, freeze_share=0.6, freeze_epochs=(1, 2))
    late, early = (mest.Model(mest.mlp((20,), [30, 30, 20], 3), **options) for _ in range(2))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 20)).astype(np.float32), rng.integers(0, 3, 8)
    assert [late.begin_epoch().frozen for _ in range(4)] == [0] * 4
    assert early.begin_epoch().frozen == 0
    assert late.step(x, y).loss == early.step(x, y).loss
    assert fingerprint(late) == fingerprint(early) and min(filter(None, late.connections())) > 0
    assert late.begin_epoch().frozen > 0
