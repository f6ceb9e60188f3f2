# SPDX-License-Identifier: Apache-2.0
"""Networks as they are usually written in PyTorch, small, and how their outputs are compared."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    """Of ResNet for CIFAR-10, as in akin code of many repositories: functional ReLU, shortcut as a Sequential."""

    def __init__(self, channels, wider, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wider)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != wider:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, wider, 1, stride=stride, bias=False), nn.BatchNorm2d(wider)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """depth = 6 n + 2."""

    def __init__(self, depth=20, width=16, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage in range(3):
            blocks = []
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


class VGG(nn.Module):
    """As torchvision's, narrower: features, adaptive pooling, a classifier of three layers with dropout."""

    def __init__(self, width=8, classes=10):
        super().__init__()
        layers, channels = [], 3
        for step in (width, "M", 2 * width, "M", 4 * width, 4 * width, "M"):
            if step == "M":
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
                continue
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.BatchNorm2d(step), nn.ReLU(inplace=True)]
            channels = step
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 4, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 20), nn.ReLU(True),
            nn.Dropout(p=0.3), nn.Linear(20, classes),
        )  # fmt: skip

    def forward(self, x):
        x = self.features(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.classifier(x)


class Separable(nn.Sequential):
    """MobileNet's: depthwise, then pointwise."""

    def __init__(self, channels, wider, stride):
        super().__init__(
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, wider, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(inplace=True),
        )


class MobileNet(nn.Module):
    """Depthwise separable convolutions, and an inverted residual."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, padding="valid", bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.blocks = nn.ModuleList([Separable(8, 12, 1), Separable(12, 16, 2)])
        self.expand = nn.Conv2d(16, 24, 1, bias=False)
        self.depthwise = nn.Conv2d(24, 24, 3, padding="same", groups=24)
        self.project = nn.Conv2d(24, 16, 1)
        self.norm = nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        y = torch.relu(self.depthwise(self.expand(x).relu()))
        x = torch.add(x, self.norm(self.project(y)))
        x = F.dropout(x.mean([2, 3]), 0.2, self.training)
        return self.fc(x)


def mlp(inputs=20, outputs=5):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 32), nn.BatchNorm1d(32, affine=False), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(32, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Identity(), nn.Linear(16, outputs),
    )  # fmt: skip


# Name -> (module, shape of a sample).
NETWORKS = {
    "resnet20": (lambda: ResNet(20), (3, 16, 16)),
    "vgg": (VGG, (3, 32, 32)),
    "mobilenet": (MobileNet, (3, 21, 15)),
    "mlp": (mlp, (20,)),
}


def trained(name, seed=0):
    """A network with weights and statistics that are not those of a new one, and some samples."""
    make, shape = NETWORKS[name]
    torch.manual_seed(seed)
    module = make()
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
    return module.eval(), torch.randn(7, *shape)


TOLERANCE = 1e-4


def answers(module, x):
    with torch.no_grad():
        return module(x).detach().numpy()


def same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max()))


def train_a_little(model, x, steps=3):
    for step in range(steps):
        model.step(x.numpy(), np.arange(len(x)) % model.plan().outputs)
