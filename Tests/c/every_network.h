/* SPDX-License-Identifier: Apache-2.0
 * The networks whose bits are compared: every kind of layer, scheme and method, every number of lanes. */
#ifndef EVERY_NETWORK_H
#define EVERY_NETWORK_H
#include "networks.h"

enum { MOST_NETWORKS = 64 };

static network from_largest(const char *name, network n)
{
    n.name = name;
    n.config.initial = MEST_INITIAL_MAGNITUDE;
    return n;
}

/* How many there are. */
UNUSED static size_t every_network(network *to)
{
    /* Other lanes: batches of 1, 4 and 8 samples a line; and odd ones.  Other methods. */
    const network networks[] = {
        mlp(), residual(), pools(), resnet20(4),
        in_batches("mlp, one by one", mlp(), 1),
        in_batches("residual, batches of 6", residual(), 6),
        in_batches("residual, batches of 23", residual(), 23),
        separable(), schemes(),
        in_batches("schemes, one by one", schemes(), 1),
        scheme_convolutions(),
        in_batches("residual, one by one", residual(), 1),
        in_batches("residual, batches of 3", residual(), 3),
        in_batches("scheme convolutions, one by one", scheme_convolutions(), 1),
        in_batches("separable, one by one", separable(), 1),
        in_batches("separable, batches of 3", separable(), 3),
        channels(),
        in_batches("channels, one by one", channels(), 1),
        by_method("residual, RigL", residual(), MEST_METHOD_RIGL),
        by_method("mlp, SET", mlp(), MEST_METHOD_SET),
        by_method("residual, DSR", residual(), MEST_METHOD_DSR),
        by_method("residual, lottery", residual(), MEST_METHOD_LOTTERY),
        by_method("residual, SNIP", residual(), MEST_METHOD_SNIP),
        by_method("pools, SNIP", pools(), MEST_METHOD_SNIP),
        by_method("mlp, one by one, SNIP", in_batches("", mlp(), 1), MEST_METHOD_SNIP),
        by_method("separable, batches of 3, GraSP", in_batches("", separable(), 3), MEST_METHOD_GRASP),
        by_method("residual, GraSP", residual(), MEST_METHOD_GRASP),
        from_largest("residual, from the largest values", residual()),
        by_method("residual, SRigL", residual(), MEST_METHOD_SRIGL),
        by_method("residual, GSE", residual(), MEST_METHOD_GSE),
        in_batches("mlp, GSE, one by one", by_method("", mlp(), MEST_METHOD_GSE), 1),
        spared("residual, freezing and sieving", residual()),
        runs(),
        in_batches("runs, one by one", runs(), 1),
        in_batches("runs, batches of 3", runs(), 3),
    };
    memcpy(to, networks, sizeof networks);
    return sizeof networks / sizeof *networks;
}

/* ResNet-20 has more work than all others together. */
UNUSED static uint32_t samples_for(const network *n) { return strcmp(n->name, "resnet20") ? 64 : 32; }
UNUSED static uint32_t epochs_for(const network *n)
{
    return !strcmp(n->name, "resnet20") ? 1 : n->config.method == MEST_METHOD_DSR ? n->config.epochs : 4;
}

#endif
