# SPDX-License-Identifier: Apache-2.0
"""How modules of PyTorch are written: forms that are understood, and clear words for those that are not."""

import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch_networks import answers, same, trained  # noqa: E402

import mest  # noqa: E402

torch.set_num_threads(1)


# ----------------------------------------------------------------------------------------- how it is written ---


class Written(nn.Module):
    """A small network whose middle is `middle`."""

    def __init__(self, middle, channels=4, **parts):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(channels, 3)
        for name, part in parts.items():
            setattr(self, name, part)
        self.middle = middle

    def forward(self, x):
        x = self.middle(self, self.conv(x))
        if x.ndim == 4:
            x = x.mean((2, 3))
        return self.fc(x)


class Fixed(Written):
    """Without the question, which torch.fx cannot ask."""

    def forward(self, x):
        return self.fc(self.middle(self, self.conv(x)))


GOOD = {
    "view of a shape": (lambda m, x: F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1), 4),
    "view with -1": (lambda m, x: x.view(-1, 4 * 48), 192),
    "reshape": (lambda m, x: torch.reshape(x, (x.size(0), 192)), 192),
    "arithmetic on shapes": (lambda m, x: x.reshape(x.shape[0], x.shape[1] * x.size(2) * x.size()[3]), 192),
    "flatten by keyword": (lambda m, x: x.flatten(start_dim=1), 192),
    "squeeze": (lambda m, x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(), 4),
    "squeeze twice": (lambda m, x: x.mean([-2, -1], keepdim=True).squeeze(-1).squeeze(-1), 4),
    "pools": (lambda m, x: F.avg_pool2d(F.max_pool2d(x, 2), (3, 4)).flatten(1), 4),
    "pools by keyword": (
        lambda m, x: F.avg_pool2d(F.max_pool2d(input=x, kernel_size=3, stride=2, padding=1), kernel_size=3).flatten(1), 4,
    ),
    "pool to one pixel": (lambda m, x: F.max_pool2d(x, (6, 8)).flatten(1), 4),
    "adaptive": (lambda m, x: F.adaptive_max_pool2d(F.adaptive_avg_pool2d(x, (3, 4)), 1).flatten(1), 4),
    "adaptive that changes nothing": (lambda m, x: F.adaptive_avg_pool2d(x, (6, 8)).flatten(1), 192),
    "ceil_mode that changes nothing": (lambda m, x: F.max_pool2d(x, 2, ceil_mode=True).flatten(1), 48),
    "relu in many ways": (lambda m, x: torch.relu_(F.relu(torch.relu(x.relu()), inplace=True)).flatten(1), 192),
    "twice the same": (lambda m, x: (x + x).flatten(1), 192),
    "three of them": (lambda m, x: torch.add(x + F.relu(x), other=x).add(x).flatten(1), 192),
    "in place, then both": (lambda m, x: (F.relu(x, inplace=True) + x).flatten(1), 192),
    "in place, unnamed": (lambda m, x: (torch.relu_(x), x)[1].flatten(1), 192),
    "added in place": (lambda m, x: (x.add_(F.relu(x)) + x).flatten(1), 192),
    "unused": (lambda m, x: (torch.sigmoid(x), x.flatten(1))[1], 192),
    "dropout": (lambda m, x: F.dropout(F.dropout(x, 0.0), p=0.3, training=m.training).flatten(1), 192),
    "parametrized": (lambda m, x: m.part(x).flatten(1), 192),
    "shared without parameters": (lambda m, x: m.relu(m.relu(x) + x).flatten(1), 192),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_good_ways_to_write_it(case):
    middle, channels = GOOD[case]
    torch.manual_seed(0)
    part = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    module = Fixed(middle, channels, relu=nn.ReLU(), part=part).eval()
    x = torch.randn(5, 3, 6, 8)
    model = mest.from_torch(module, x[:1], batch=5)
    same(model.predict(x.numpy()), answers(module, x))


def test_pictures_of_one_pixel():
    """A Flatten behind those that torch flattens: bfloat16 asks for it."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    x = torch.randn(2, 3, 6, 6)
    model = mest.from_torch(module, x, batch=2, activations="bfloat16")
    assert np.abs(model.predict(x.numpy()) - answers(module, x)).max() < 0.02


def test_lazy_modules():
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2)).eval()
    x = torch.randn(2, 3, 5, 5)
    same(mest.from_torch(module, x, batch=2).predict(x.numpy()), answers(module, x))


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(dim=-1)])
def test_a_softmax_at_the_end(last):
    module, x = trained("mlp")
    with pytest.warns(UserWarning, match="Softmax at the end of the module is left out: predict gives what goes into"):
        model = mest.from_torch(nn.Sequential(module, last), x[:1], batch=7)
    same(model.predict(x.numpy()), answers(module, x))
    expected = answers(nn.Softmax(1), answers_tensor(module, x))
    same(model.predict_proba(x.numpy()), expected)


def answers_tensor(module, x):
    return torch.from_numpy(answers(module, x))


def test_no_warnings():
    module, x = trained("vgg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mest.to_torch(mest.from_torch(module, x[:1]))


# -------------------------------------------------------------------------------------------------- refusals ---


def convolution(*arguments, **named):
    return lambda: nn.Sequential(nn.Conv2d(4, *arguments, **named), nn.Flatten(), nn.LazyLinear(2))


def between(*modules):
    return lambda: nn.Sequential(nn.Conv2d(4, 4, 1), *modules, nn.Flatten(), nn.LazyLinear(2))


REFUSED = {
    "activation": (between(nn.ReLU6()), r"1 \(ReLU6\) has no layer here. Instead: the activation here is ReLU"),
    "norm": (between(nn.GroupNorm(2, 4)), r"1 \(GroupNorm\).*nn.BatchNorm2d"),
    "dropout2d": (between(nn.Dropout2d()), r"1 \(Dropout2d\).*Instead: nn.Dropout"),
    "padding": (between(nn.ZeroPad2d(1)), r"1 \(ZeroPad2d\).*padding of the convolution"),
    "upsampling": (between(nn.Upsample(scale_factor=2)), r"1 \(Upsample\).*do not enlarge pictures"),
    "transposed": (between(nn.ConvTranspose2d(4, 4, 2)), r"1 \(ConvTranspose2d\).*nn.Conv2d"),
    "unknown": (between(nn.PixelUnshuffle(2)), r"1 \(PixelUnshuffle\).*layers here are Linear, Conv2d"),
    "norm without statistics": (between(nn.BatchNorm2d(4, track_running_stats=False)), "track_running_stats=False"),
    "cumulative norm": (between(nn.BatchNorm2d(4, momentum=None)), "momentum=None. Instead: a momentum above 0"),
    "dilation": (convolution(4, 3, dilation=2), r"0 \(Conv2d\) has dilation=\(2, 2\)"),
    "groups": (convolution(8, 3, groups=2), "groups=2 for 4 and 8 channels. Instead: 1, or as many as both"),
    "multiplier": (convolution(8, 3, groups=4), "groups=4 for 4 and 8 channels"),
    "reflected": (convolution(4, 3, padding=1, padding_mode="reflect"), 'padding_mode=.reflect.. Instead: padding_m'),
    "even same": (convolution(4, 4, padding="same"), "even kernel. Instead: an odd kernel"),
    "ceil": (between(nn.MaxPool2d(2, ceil_mode=True)), "ceil_mode=True, which adds a window"),
    "pads that do not count": (between(nn.AvgPool2d(3, padding=1, count_include_pad=False)), "count_include_pad=F"),
    "divisor": (between(nn.AvgPool2d(3, divisor_override=2)), "divisor_override=2"),
    "indices": (between(nn.MaxPool2d(2, return_indices=True)), r"1 \(MaxPool2d\) gives no tensor"),
    "uneven": (between(nn.AdaptiveAvgPool2d(2)), r"\(2, 2\) pixels of \(5, 7\). Instead: a divisor"),
    "dropout of all": (between(nn.Dropout(1.0)), "p=1.0. Instead: from 0 on, below 1"),
    "linear over axes": (lambda: nn.Sequential(nn.Linear(7, 2)), r"\(Linear\) takes the shape.*torch.flatten"),
    "softmax inside": (between(nn.Softmax(1)), r"1 \(Softmax\) is inside the network"),
    "partial flatten": (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(35, 2)), "of shapes the one change"),
}

FUNCTIONS = {
    "multiplied": (lambda m, x: x * 2, r"mul \(mul\) has no layer here. Instead: a factor belongs into the weights"),
    "constant": (lambda m, x: x + 1, "adds a constant. Instead: put it into the bias"),
    "broadcast": (lambda m, x: x + x.mean((2, 3), keepdim=True), r"adds shapes .* without broadcasting"),
    "alpha": (lambda m, x: torch.add(x, x, alpha=2), "alpha=2. Instead: add without a factor"),
    "concatenated": (lambda m, x: torch.cat([x, x], 1), r"cat \(cat\).*a sum can be taken: x \+ y"),
    "part": (lambda m, x: x[:, :2], r"getitem \(getitem\).*part of a tensor is no layer"),
    "transposed": (lambda m, x: x.transpose(2, 3), r"transpose \(transpose\) has no layer here"),
    "mean of one axis": (lambda m, x: x.mean(3), "over the axes 3. Instead|over the axes"),
    "mixed samples": (lambda m, x: x.view(-1, 2 * 4 * 35), "of shapes the one change there is"),
    "sigmoid": (lambda m, x: torch.sigmoid(x), r"sigmoid \(sigmoid\).*ReLU"),
    "parameter": (lambda m, x: F.conv2d(x, m.conv.weight), r"is a parameter used by itself. Instead: a module"),
    "layer used twice": (lambda m, x: m.conv(m.conv(x)), "shares parameters with 'conv'"),
    "condition": (lambda m, x: x if x.sum() > 0 else -x, "torch.fx cannot trace Fixed.*may not depend on values"),
    "number of the data": (lambda m, x: x.softmax(1), r"softmax \(softmax\) is inside the network"),
    "unknown argument": (lambda m, x: F.relu(x, out=3), "cannot trace|fails on the example input"),
}


def refused(module, message, x=None):
    with pytest.raises(mest.UnsupportedError, match=f"(?s){message}"):
        mest.from_torch(module, torch.randn(2, 4, 5, 7) if x is None else x)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_modules(case):
    make, message = REFUSED[case]
    refused(make(), message)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_refused_functions(case):
    middle, message = FUNCTIONS[case]
    module = Fixed(middle, conv=nn.Conv2d(4, 4, 1))
    refused(module, message)
    with pytest.raises(mest.UnsupportedError) as caught:
        mest.from_torch(module, torch.randn(2, 4, 5, 7))
    if "torch.fx cannot" not in str(caught.value):
        assert Path(__file__).name in str(caught.value), "the line of the code is said"


def test_refused_networks():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x, mask=None):
            return self.fc(x), x

    x = torch.zeros(2, 4)
    refused(Two(), r"placeholder \(y\) is a second input", x)
    refused(Pair(), "returns more than one tensor", x)
    refused(torch.jit.trace(nn.Linear(4, 2), x), "cannot trace a ScriptModule", x)
    with pytest.raises(TypeError, match="a torch.nn.Module is wanted, not Model"):
        mest.from_torch(mest.Model([mest.Input(2), mest.Linear(2)]), x)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    refused(tied, r"1 \(Linear\) shares parameters with '0'", x)
    refused(nn.Sequential(nn.Conv1d(4, 2, 1)), "kernel .1, k. over", x[:, :, None, None])


def test_what_torch_fx_does_not_see():
    module, x = trained("mlp")
    module[1].register_forward_hook(lambda part, args, out: out * 3)
    refused(module, "other outputs than the module, by up to.*what hooks do", x)


def test_without_torch(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        mest.from_torch(nn.Linear(2, 2), np.zeros((1, 2)))
    with pytest.raises(ImportError, match="pip install torch"):
        mest.to_torch(mest.Model([mest.Input(2), mest.Linear(2)]))
