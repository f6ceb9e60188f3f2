# SPDX-License-Identifier: Apache-2.0
"""Names of PyTorch's modules and of layers: what each side makes of the other's, state_dicts, modules saved."""

import copy
import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from support import randomise  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch_networks import ResNet, answers, mlp, same, train_a_little, trained  # noqa: E402

import mest  # noqa: E402
from mest.exchange.pytorch.weights import short_names  # noqa: E402

torch.set_num_threads(1)


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a.weight", "b"), ("a.weight", "a", "b"), ("a", "a.in_features", "a.b"), ("a.b", "a", "a.b.c"),
        ("forward", "train", "graph"), ("x.forward", "x", "parameters"), ("_modules", "training", "code"),
        ("class", "block.for", "None"), ('a"b', "a\\", "a\nb"), ("0", "1.2", "a b/c:d~"), ("_parameters.x", "..", "a..b"),
        ("__class__", "meta", "add_module"), ("x", "self", "torch"), ("a", "b", "a_3"), ("\ufb01", "fi", "a\u2026b"), ("class", "class_", "class__1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("masks", [False, True])
def test_names_that_torch_cannot_have(names, masks):
    """What is taken is called otherwise, with its weights; the module runs, is copied and saved."""
    layers = [mest.Input(4), *(mest.Linear(4, name=name) for name in names)]
    model = mest.Model(layers, batch=4, density=0.5)
    randomise(model, np.random.default_rng(0))
    x = torch.randn(4, 4)
    module = mest.to_torch(model, masks=masks)
    same(answers(module, x), model.predict(x.numpy()))
    same(answers(copy.deepcopy(module), x), model.predict(x.numpy()))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    same(answers(torch.load(file, weights_only=False), x), model.predict(x.numpy()))
    assert sum(isinstance(part, nn.Linear) for part in module.modules()) == 3
    assert len(module.train().state_dict()) == 3 * (2 + masks)


def test_names_of_layers_without_weights():
    """They give way: the names of weights stay."""
    layers = [mest.Input(4), mest.ReLU(name="a"), mest.Linear(4, name="a"), mest.Dropout(0.5, name="b.weight"),
              mest.Linear(4, name="b"), mest.ReLU(name="forward"), mest.Linear(2, name="a_1")]  # fmt: skip
    model = mest.Model(layers, batch=4, density=1.0)
    randomise(model, np.random.default_rng(0))
    x = torch.randn(4, 4)
    module = mest.to_torch(model)
    same(answers(module, x), model.predict(x.numpy()))
    assert set(module.state_dict()) == set(model.state_dict())


def test_long_names():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            block = {"convolution": nn.Conv2d(2, 2, 1), "normalisation": nn.BatchNorm2d(2)}
            self.first_of_the_features = nn.ModuleDict({"block": nn.Sequential(*block.values())})
            self.other_of_the_features = nn.ModuleDict({"block": nn.Sequential(nn.Conv2d(2, 2, 1))})
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            x = self.first_of_the_features["block"](x)
            return self.head(self.other_of_the_features["block"](x).mean((2, 3)))

    module, x = Deep().eval(), torch.randn(3, 2, 4, 4)
    names = short_names(module)
    assert len(set(names.values())) == 4 and max(len(name.encode()) for name in names.values()) == 23
    assert names["head"] == "head" and names["first_of_the_features.block.0"] == "~f_the_features.block.0"
    assert names["other_of_the_features.block.0"].startswith("~2~")
    model = mest.from_torch(module, x, batch=3)
    assert [part.name for part in model.plan().layers if part.rows] == [
        names[path] for path in ("first_of_the_features.block.0", "other_of_the_features.block.0", "head")
    ]
    train_a_little(model, x)
    same(answers(mest.to_torch(model), x), model.predict(x.numpy()))
    same(answers(mest.to_torch(model, into=module), x), model.predict(x.numpy()))


def test_into_the_module_it_came_from():
    module, x = trained("resnet20")
    module.auxiliary = nn.Linear(3, 2)  # not of the network
    model = mest.from_torch(
        module, x[:1], density={"layer*": 0.2}, batch=7, method="vanilla", epochs=3, mutation_every=1, threads=1,
        learning_rate=0.01,
    )  # fmt: skip
    train_a_little(model, x, 2)
    for masks in (False, True, False):
        model.mutate()
        assert mest.to_torch(model, into=module, masks=masks) is module
        same(answers(module, x), model.predict(x.numpy()))
        assert hasattr(module.layer1[0].conv1, "weight_mask") == (masks or masks is False and model.mutation().mutations > 2)
    weight = module.layer1[0].conv1.weight  # before any call
    assert np.array_equal(weight.detach().numpy(), model.state_dict()["layer1.0.conv1.weight"])
    assert int(module.layer1[0].conv1.weight_mask.sum()) == np.count_nonzero(
        model.state_dict(masks=True)["layer1.0.conv1.weight_mask"]
    )


def test_into_another_module_changes_nothing():
    module, x = trained("resnet20")
    model = mest.from_torch(module, x[:1])
    narrow, deep = ResNet(20, 8), ResNet(14, 16)
    for other, message in [
        (narrow, r"conv1.weight of the module has shape \(8, 3, 3, 3\), the model's \(16, 3, 3, 3\)"),
        (deep, "the module has no layer 'layer1.2.conv1'; it has conv1, bn1,"),
    ]:
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(mest.MestArgumentError, match=message):
            mest.to_torch(model, into=other)
        assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def test_from_a_state_dict_alone():
    module, x = trained("mlp")
    layers = [
        mest.Input(20), mest.Linear(32, name="1"), mest.BatchNorm(affine=False, name="2"), mest.ReLU(),
        mest.Linear(16, bias=False, name="5"), mest.BatchNorm(name="6"), mest.ReLU(), mest.Linear(5, name="9"),
    ]  # fmt: skip
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    model = mest.Model(layers, batch=7)
    model.load_state_dict(torch.load(stored))
    same(model.predict(x.numpy()), answers(module, x))
    prune.l1_unstructured(module[1], "weight", amount=0.75)
    layers[1].density = 0.25
    model = mest.Model(layers, batch=7)
    model.load_state_dict(module.state_dict())  # weight_orig, weight_mask
    same(model.predict(x.numpy()), answers(module, x))
    # And back.
    twin = mlp().eval()
    twin.load_state_dict({k: torch.from_numpy(a) for k, a in model.state_dict().items()}, strict=False)
    same(answers(twin, x), model.predict(x.numpy()))


def test_a_module_can_be_saved(tmp_path):
    module, x = trained("mobilenet")
    back = mest.to_torch(mest.from_torch(module, x[:1]))
    torch.save(back, tmp_path / "module.pt")
    same(answers(torch.load(tmp_path / "module.pt", weights_only=False), x), answers(back, x))
    same(answers(copy.deepcopy(back), x), answers(back, x))
