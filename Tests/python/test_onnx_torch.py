# SPDX-License-Identifier: Apache-2.0
"""`mest.from_onnx` on what PyTorch's two exporters write."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from onnx_graphs import agree, run

import mest
from mest import BatchNorm

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


def torch_networks():
    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            return functional.relu(y + self.shortcut(x))

    class ResNet20(nn.Module):
        def __init__(self, width=4):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
            blocks = [Block(i, o, 1 + (i != o)) for i, o in zip(widths, widths[1:])]
            self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(4 * width, 10)

        def forward(self, x):
            x = self.blocks(functional.relu(self.bn1(self.conv1(x))))
            return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))

    class Vgg(nn.Module):
        def __init__(self):
            super().__init__()
            layers, inputs = [], 3
            for outputs in (8, 0, 16, 0, 32, 32, 0):
                if not outputs:
                    layers.append(nn.MaxPool2d(2, 2))
                    continue
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True)]
                inputs = outputs
            self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((2, 2))
            self.classifier = nn.Sequential(
                nn.Linear(128, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 10)
            )

        def forward(self, x):
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    class Mobile(nn.Module):
        def __init__(self):
            super().__init__()

            def separable(inputs, outputs, stride):
                depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
                pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
                return (
                    depthwise, nn.BatchNorm2d(inputs), nn.ReLU(),
                    pointwise, nn.BatchNorm2d(outputs), nn.ReLU(),
                )  # fmt: skip

            first = (nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.model = nn.Sequential(*first, *separable(8, 16, 1), *separable(16, 32, 2), nn.AvgPool2d(4))
            self.fc = nn.Linear(32, 10)

        def forward(self, x):
            x = self.model(x)
            return self.fc(x.view(x.size(0), -1))

    mlp = nn.Sequential(
        nn.Flatten(), nn.Linear(768, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10, bias=False)
    )
    tiny = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip
    return {"mlp": mlp, "resnet20": ResNet20(), "vgg": Vgg(), "mobile": Mobile(), "tiny": tiny}


def trained(module):
    """In inference mode, with statistics as after a training."""
    draw = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            for values, positive in (
                (part.running_mean, 0),
                (part.running_var, 1),
                (part.weight, 1),
                (part.bias, 0),
            ):
                values.data.normal_(0, 0.2, generator=draw).abs_().add_(0.5 if positive else -0.1)
    return module.eval()


def exported(module, x, **how):
    content = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter from TorchScript is deprecated
        torch.onnx.export(module, (x,), content, **how)
    return content.getvalue()


@pytest.mark.parametrize("name", ["mlp", "resnet20", "vgg", "mobile"])
@pytest.mark.parametrize("how", ["folded", "unfolded", "a batch of 3"])
def test_pytorch_exports_torchscript(name, how):
    torch.manual_seed(0)
    module, x = trained(torch_networks()[name]), torch.randn(3, 3, 16, 16)
    options = {"dynamo": False}
    if how != "a batch of 3":
        options.update(input_names=["x"], dynamic_axes={"x": {0: "n"}})
    if how == "unfolded":
        options.update(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    content = exported(module, x, **options)
    model = agree(onnx.load_from_string(content), x.numpy())
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(model.predict(x.numpy()), expected, atol=1e-4)
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    assert bool(norms) == (how == "unfolded" or name == "mlp")
    named = {layer.name for layer in model.layers if layer.name}
    assert named <= {key.rpartition(".")[0] for key in module.state_dict()}


def test_pytorch_exports_dynamo(tmp_path):
    """The exporter that is torch's default; a small network, since it takes seconds."""
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module, x = trained(torch_networks()["tiny"]), torch.randn(3, 3, 16, 16)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},)
        )
        program.save(tmp_path / "model.onnx", external_data=True)
    assert (tmp_path / "model.onnx.data").exists()
    with torch.no_grad():
        expected = module(x).numpy()
    for source in (program, tmp_path / "model.onnx"):
        model = mest.from_onnx(source, batch=3)
        np.testing.assert_allclose(model.predict(x.numpy()), expected, atol=1e-4)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", x.numpy()), expected, atol=1e-4)
    assert {"0", "5"} <= {layer.name for layer in model.layers}
