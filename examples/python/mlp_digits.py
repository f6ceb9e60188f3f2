# SPDX-License-Identifier: Apache-2.0
"""A sparse two-layer network learns handwritten digits: the whole of libmest in one page.

python examples/python/mlp_digits.py
"""

import mest
from mest.datasets import digits

data = digits()  # 8x8 images, 1,347 to train and 450 to test
network = mest.mlp(inputs=(1, 8, 8), hidden=[256, 128], outputs=10)

config = mest.Config(
    batch=32,
    epochs=30,
    samples=len(data.x_train),  # the library counts how often each sample is forgotten
    learning_rate=0.05,
    schedule="cosine",
    density=0.1,  # one connection in ten exists; the last layer is dense
    method="em&s",  # connections move while the network trains
    mutation_every=2,
)
print(mest.plan(network, config))  # every byte, before anything is allocated

with mest.Model(network, config) as model:
    model.fit(data.x_train, data.y_train, validation=(data.x_test, data.y_test))
    test = model.evaluate(data.x_test, data.y_test)
    print(f"\ntest accuracy {test.accuracy:.1%} with {model.plan().active:,} parameters")
    print(model.forgetting())

    indptr, indices, values = model.csr(2)  # the weights as they lie in memory
    print(f"layer 2: {len(values):,} weights, inputs of its first unit: {indices[: indptr[1]]}")
