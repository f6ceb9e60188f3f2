# SPDX-License-Identifier: Apache-2.0
"""A sparse residual network on CIFAR-10 with the recipe of the MEST paper.

    python examples/python/cifar10_resnet.py --data FOLDER --depth 32 --width 32 --density 0.1

FOLDER holds data_batch_1 .. 5 and test_batch of the binary version, .bin or .bin.xz.  The paper
trains 160 epochs; the mutation schedule follows --epochs.
"""

import argparse

import mest
from mest.datasets import CIFAR10_MEAN, CIFAR10_STD, black, cifar10, pad_crop_flip

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--data", required=True, help="folder with the binary batches")
parser.add_argument("--depth", type=int, default=20, help="6 n + 2")
parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
parser.add_argument("--density", type=float, default=0.1, help="share of connections; 1 is dense")
parser.add_argument("--epochs", type=int, default=160)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--threads", type=int, default=None, help="default: one a core, at most 4")
parser.add_argument("--seed", type=int, default=914)
arguments = parser.parse_args()

data = cifar10(arguments.data)
network = mest.resnet(arguments.depth, arguments.width, classes=10, input=(3, 32, 32))
config = mest.Config(
    seed=arguments.seed,
    threads=arguments.threads,
    batch=arguments.batch,
    epochs=arguments.epochs,
    samples=len(data.x_train),
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="cosine",
    learning_rate_min=4e-8,
    density=arguments.density,
    method="em&s" if arguments.density < 1 else "static",
)
print(mest.plan(network, config))

augment = pad_crop_flip(4, fill=black(CIFAR10_MEAN, CIFAR10_STD))
with mest.Model(network, config) as model:
    history = model.fit(
        data.x_train, data.y_train, validation=(data.x_test, data.y_test), augment=augment
    )
    print(f"best test accuracy {history.column('validation_accuracy').max():.2%}")
    print(model.forgetting())
