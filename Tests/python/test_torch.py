# SPDX-License-Identifier: Apache-2.0
"""Modules of PyTorch to models and back: the same outputs, masks kept, the same training."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from cases import SCHEMES  # noqa: E402
from cases import residual as a_residual_network  # noqa: E402
from support import randomise  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch_networks import NETWORKS, TOLERANCE, answers, mlp, same, train_a_little, trained  # noqa: E402

import mest  # noqa: E402
from mest.exchange.pytorch.convert import network_from_torch  # noqa: E402

torch.set_num_threads(1)


# ---------------------------------------------------------------------------------- there and back ---


@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways(name):
    """Batches of 1 and 7; after training here; and what comes back is read again."""
    module, x = trained(name)
    model = mest.from_torch(module, x[:1], batch=7, threads=1, learning_rate=0.01)
    same(model.predict(x.numpy()), answers(module, x))
    same(model.predict(x[:1].numpy()), answers(module, x[:1]))
    back = mest.to_torch(model)
    same(answers(back, x), answers(module, x))
    assert set(back.state_dict()) == set(module.state_dict())
    for key, tensor in module.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(back.state_dict()[key], tensor)
    module.load_state_dict(back.state_dict())

    train_a_little(model, x)
    assert np.abs(model.predict(x.numpy()) - answers(module, x)).max() > 10 * TOLERANCE
    back = mest.to_torch(model)
    assert not back.training
    for count in (1, 7):
        same(answers(back, x[:count]), model.predict(x[:count].numpy()))
    again = mest.from_torch(back, x[:2], batch=7, threads=1)
    assert np.array_equal(again.predict(x.numpy()), model.predict(x.numpy()))
    assert [type(a) for a in again.layers] == [type(b) for b in model.layers]


@pytest.mark.parametrize("scheme", [*SCHEMES, "filter", "channel"])
def test_every_scheme(scheme):
    module, x = trained("mobilenet")
    model = mest.from_torch(
        module, x[:1], density={"expand": 0.4, "project": 0.4, "blocks.1.3": 0.4}, scheme=scheme, batch=7, threads=1,
        learning_rate=0.01, method="vanilla", epochs=3, mutation_every=1,
    )  # fmt: skip
    names = {part.name: part for part in model.plan().layers}
    assert names["expand"].sparse and names["expand"].scheme in (scheme, "fan_in", "filter", "channel")
    for _ in range(2):
        model.begin_epoch()
        train_a_little(model, x, 1)
    for masks in (False, True):
        back = mest.to_torch(model, masks=masks)
        same(answers(back, x), model.predict(x.numpy()))
    mask = back.get_submodule("expand").weight_mask
    assert int(mask.sum()) == model.connections()[list(names).index("expand")]
    again = mest.from_torch(back, x[:1], scheme=scheme, batch=7, threads=1)
    assert np.abs(again.predict(x.numpy()) - model.predict(x.numpy())).max() < 1e-5
    if scheme not in ("filter", "channel"):
        assert again.connections() == model.connections()


def test_other_networks_than_torchs():
    """What only mest writes so: pools padded widely, convolutions of features, sums of pictures and features."""
    layers = [
        mest.Input(3, 9, 7), mest.Conv2d(6, 1, name="a"), mest.MaxPool(3, stride=2, padding=2),
        mest.AvgPool((3, 2), stride=1, padding=(2, 1)), mest.BatchNorm(), mest.GlobalAvgPool(name="features"),
        mest.Conv2d(8, 1), mest.BatchNorm(affine=False), mest.ReLU(), mest.Linear(8), mest.Add(with_=8),
        mest.ReLU(), mest.Dropout(0.2), mest.Flatten(), mest.Linear(4, bias=False),
    ]  # fmt: skip
    for description in (layers, a_residual_network(), mest.resnet(8, 4), mest.vgg(11, 4, input=(3, 16, 16)), mest.ds_cnn(width=8)):
        model = mest.Model(description, batch=3, threads=1)
        randomise(model, np.random.default_rng(0))
        x = torch.randn(3, *model.plan().layers[0].shape)
        back = mest.to_torch(model)
        same(answers(back, x), model.predict(x.numpy()))
        if description is not layers:  # where F.pad stands before a pool
            same(mest.from_torch(back, x, batch=3, threads=1).predict(x.numpy()), model.predict(x.numpy()))


def test_the_module_is_left_as_it_was():
    module, x = trained("mobilenet")
    module.train()
    module.blocks[0].eval()
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    mest.from_torch(module, x[:1], batch=2)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers
    assert all(part.grad is None for part in module.parameters())


def test_dropout_is_there_in_training():
    module, x = trained("mobilenet")
    layers = network_from_torch(module, x[:1]).layers
    assert [layer.rate for layer in layers if isinstance(layer, mest.Dropout)] == [0.2]


def test_config_and_fields():
    model = mest.from_torch(mlp(), torch.zeros(1, 20), config=mest.Config(batch=3), learning_rate=0.3, loss="mse")
    assert (model.config.batch, model.config.learning_rate, model.config.loss) == (3, 0.3, "mse")
    with pytest.raises(TypeError, match="did you mean learning_rate"):
        mest.from_torch(mlp(), torch.zeros(1, 20), lr=0.3)


def test_example_inputs():
    module, x = trained("vgg")
    for example in (x[:1], x, x[:1].numpy(), x[:1].numpy().astype(np.float64)):
        same(mest.from_torch(module, example, batch=7).predict(x.numpy()), answers(module, x))
    for example, message in [
        (x[0], r"x\[None\]"), (torch.zeros(0, 3, 32, 32), "a batch"), ((x, x), "2 tensors, but networks have one input"),
    ]:  # fmt: skip
        with pytest.raises(mest.UnsupportedError, match=message):
            mest.from_torch(module, example)
    with pytest.raises(mest.UnsupportedError, match=r"features.0 \(Conv2d\) fails on the example input"):
        mest.from_torch(module, torch.zeros(1, 4, 32, 32))


class Inside(nn.Module):
    """A part of torch's behind a Linear, whatever it computes."""

    def __init__(self, part):
        super().__init__()
        self.first, self.part = nn.Linear(6, 6), part

    def forward(self, x):
        return self.part(self.first(x))


@pytest.mark.parametrize(
    "module, shape, words",
    [
        (nn.LSTM(6, 4), (2, 5, 6), r"0 \(LSTM\) has no layer here.*recurrence"),
        (Inside(nn.GRU(6, 4, batch_first=True)), (2, 5, 6), r"part \(GRU\).*recurrence"),
        (nn.Transformer(8, 2, 1, 1, 8), (2, 5, 8), r"0 \(Transformer\).*attention"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), (5,), r"0 \(Embedding\).*embeddings"),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), (2, 3, 9), r"0 \(Conv1d\).*kernel \(1, k\)"),
        (Inside(nn.LSTM(6, 4)), (2, 6), r"part \(LSTM\) has no layer here.*recurrence"),
        (nn.Linear(6, 4), (2, 5, 6), "example_input has shape"),
    ],
)
def test_kinds_that_are_not_there_are_named_whatever_their_input(module, shape, words):
    with pytest.raises(mest.UnsupportedError, match=words):
        mest.from_torch(module, torch.zeros(shape))


def test_a_sigmoid_at_the_end_is_left_out_not_replaced():
    for module in (nn.Sequential(nn.Linear(6, 1), nn.Sigmoid()), Inside(nn.Sigmoid()), Inside(nn.Tanh())):
        with pytest.raises(mest.UnsupportedError, match="leave it out, and apply it to what predict gives") as told:
            mest.from_torch(module, torch.zeros(2, 6))
        assert "train with nn.ReLU" not in str(told.value)
    with pytest.raises(mest.UnsupportedError, match="train with nn.ReLU"):
        mest.from_torch(nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 1)), torch.zeros(2, 6))


def test_estimators_are_told_where_their_model_is():
    for call in (mest.to_torch, lambda given: mest.save_weights(given, "never.npz")):
        with pytest.raises(TypeError, match=r"MestClassifier: .* takes a mest.Model; .* is its \.model_$"):
            call(mest.MestClassifier())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_modules_of_other_numbers(kind):
    module, x = trained("mlp")
    expected = answers(module, x)
    found = mest.from_torch(module.to(kind), x[:1], batch=7).predict(x.numpy())
    assert np.abs(found - expected).max() < 0.05


def test_wrappers():
    module, x = trained("mlp")
    expected = answers(module, x)
    same(mest.from_torch(nn.DataParallel(module), x[:1], batch=7).predict(x.numpy()), expected)
    compiled = nn.Module()  # what torch.compile gives, without loading it, which takes seconds
    compiled._orig_mod = module
    same(mest.from_torch(compiled, x[:1], batch=7).predict(x.numpy()), expected)
    single = nn.Linear(20, 4)
    same(mest.from_torch(single, x[:1], batch=7).predict(x.numpy()), answers(single, x))


# --------------------------------------------------------------------------------------- sparse weights ---


def test_pruned_modules_keep_their_masks():
    module, x = trained("vgg")
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)][1:]
    for part in convolutions:
        prune.l1_unstructured(part, "weight", amount=0.7)
    prune.random_unstructured(module.classifier[0], "bias", amount=0.5)
    with torch.no_grad():  # the optimizer has been at work since the last call: `weight` is old
        convolutions[0].weight_orig.mul_(1.5)
    model = mest.from_torch(module, x[:1], batch=7, threads=1, learning_rate=0.01)
    same(model.predict(x.numpy()), answers(module, x))
    masks = {f"features.{i}": module.features[i].weight_mask.numpy() for i in (4, 8, 11)}
    for part, active in zip(model.plan().layers, model.connections()):
        assert part.sparse == (part.name in masks)
        if part.sparse:
            assert active == masks[part.name].sum()
    train_a_little(model, x)
    for name, mask in masks.items():
        trained_weight = model.state_dict()[f"{name}.weight"]
        assert not trained_weight[mask == 0].any()
    # Back with the masks: torch's training keeps the zeros.
    back = mest.to_torch(model, masks=True)
    assert torch.equal(back.get_submodule("features.4").weight_mask, module.features[4].weight_mask)
    assert not hasattr(back.get_submodule("features.0"), "weight_mask")
    back.train()
    optimizer = torch.optim.SGD(back.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(back(x), torch.arange(7)).backward()
        optimizer.step()
    back.eval()
    again = mest.from_torch(back, x[:1], batch=7, threads=1)
    same(again.predict(x.numpy()), answers(back, x))
    assert again.connections() == model.connections()


def test_masks_have_weights_that_are_zero():
    module, x = trained("mlp")
    mask = torch.rand(32, 20) < 0.3
    prune.custom_from_mask(module[1], "weight", mask)
    with torch.no_grad():
        module[1].weight_orig[:10] = 0
    model = mest.from_torch(module, x[:1], batch=7)
    assert model.connections()[1] == int(mask.sum())
    assert torch.equal(mest.to_torch(model, masks=True).get_submodule("1").weight_mask.bool(), mask)


@pytest.mark.parametrize("layout", ["csr", "coo"])
def test_sparse_tensors(layout):
    module, x = trained("mlp")
    with torch.no_grad():
        for place in (1, 5):
            weight = module[place].weight
            weight[torch.rand(weight.shape) < 0.7] = 0
        weight[torch.nonzero(weight)[0].unbind()] = 1e-9
        expected = answers(module, x)
        for place in (1, 5):
            weight = module[place].weight.detach()
            sparse = weight.to_sparse_csr() if layout == "csr" else weight.to_sparse().coalesce()
            module[place].weight = nn.Parameter(sparse)
        module[5].weight.values()[0] = 0  # a place of it, all the same
    model = mest.from_torch(module, x[:1], batch=7)
    same(model.predict(x.numpy()), expected)
    assert model.connections()[1] == module[1].weight._nnz() and model.connections()[5] == sparse._nnz()


def test_a_sparse_convolution():
    """torch cannot run it; the layers can."""
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(2, 2, 4, 4)
    with torch.no_grad():
        module[0].weight = nn.Parameter(prune.l1_unstructured(nn.Conv2d(2, 4, 3), "weight", 0.5).weight.detach())
        expected = answers(module, x)
        module[0].weight = nn.Parameter(module[0].weight.to_sparse())
    with pytest.raises((RuntimeError, NotImplementedError)):
        module(x)
    model = mest.from_torch(module, x, batch=2)
    same(model.predict(x.numpy()), expected)
    assert model.connections()[1] == 36


def test_density():
    module, x = trained("resnet20")
    model = mest.from_torch(module, x[:1], density={"layer*": 0.1, "layer*.shortcut.*": 1.0}, scheme="block4")
    parts = {part.name: part for part in model.plan().layers if part.rows}
    sparse = [name for name, part in parts.items() if part.sparse]
    assert len(sparse) == 18 + 2  # the first pattern that matches: shortcuts, too
    assert {parts[name].scheme for name in sparse} == {"block4"}
    weight = module.layer2[0].conv2.weight.detach()
    norms = weight.square().reshape(8, 4, -1).sum(1)
    kept = torch.from_numpy(model.state_dict()["layer2.0.conv2.weight"]).reshape(8, 4, -1).any(1)
    assert norms[kept].min() >= norms[~kept].max()
    everything = mest.from_torch(module, x[:1], density=0.1)
    assert everything.density() == pytest.approx(0.1, rel=0.01)
    assert everything.plan().layers[-1].sparse


# ----------------------------------------------------------------------------------------------- training ---


def small(rng_seed):
    torch.manual_seed(rng_seed)
    module = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2),
        nn.BatchNorm2d(8, momentum=0.3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return module, torch.randn(6, 8, 2, 7, 7), torch.randint(0, 4, (6, 8))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "theirs, ours",
    [
        (dict(momentum=0.9, weight_decay=1e-2), dict(momentum=0.9, weight_decay=1e-2)),
        (dict(momentum=0.8, nesterov=True), dict(momentum=0.8, nesterov=True, weight_decay=0.0)),
        (dict(smoothing=0.2), dict(momentum=0.0, weight_decay=0.0, label_smoothing=0.2 * 3 / 4)),
        (dict(clip=0.3, momentum=0.9), dict(clip_norm=0.3, weight_decay=0.0)),
        (dict(cosine=6), dict(momentum=0.0, weight_decay=0.0, schedule="cosine", learning_rate_min=0.01, epochs=6)),
        (dict(step=2), dict(momentum=0.0, weight_decay=0.0, schedule="step", schedule_every=2, epochs=6)),
    ],
)
def test_training_is_torchs(theirs, ours, masked):
    """The table of docs/pytorch.md: the same weights after six epochs of one update."""
    module, xs, ys = small(1)
    if masked:
        prune.l1_unstructured(module[3], "weight", amount=0.6)
    model = mest.from_torch(module, xs[0], batch=8, learning_rate=0.05, steps_per_epoch=1, threads=1, **ours)
    module.train()
    theirs = dict(theirs)
    clip, cosine, step = theirs.pop("clip", None), theirs.pop("cosine", None), theirs.pop("step", None)
    loss = nn.CrossEntropyLoss(label_smoothing=theirs.pop("smoothing", 0.0))
    optimizer = torch.optim.SGD(module.parameters(), 0.05, **theirs)
    scheduler = None
    if cosine:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=cosine, eta_min=0.01)
    if step:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=step, gamma=0.1)
    for x, y in zip(xs, ys):
        optimizer.zero_grad()
        value = loss(module(x), y)
        value.backward()
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        report = model.step(x.numpy(), y.numpy())
        assert report.loss == pytest.approx(value.item(), rel=1e-4)
        assert report.learning_rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-5)
        optimizer.step()
        if scheduler:
            scheduler.step()
    expected = mest.from_torch(module.eval(), xs[0], batch=8).state_dict()
    for key, array in model.state_dict().items():
        np.testing.assert_allclose(array, expected[key], atol=1e-4, err_msg=key)


@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(dim=-1)])
def test_sparse_tensors_before_a_softmax(layout, last):
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.randn(4, 6)
    with torch.no_grad():
        module[0].weight[torch.rand(5, 6) < 0.5] = 0
        expected = answers(module, x)
        weight = module[0].weight.detach()
        module[0].weight = nn.Parameter(weight.to_sparse_csr() if layout == "csr" else weight.to_sparse().coalesce())
    with pytest.warns(UserWarning, match="oftmax at the end of the module is left out"):
        model = mest.from_torch(nn.Sequential(module, last), x, batch=4)
    same(model.predict(x.numpy()), expected)
    assert model.connections()[1] == module[0].weight._nnz()
