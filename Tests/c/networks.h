/* SPDX-License-Identifier: Apache-2.0
 * What several tests need: networks, made-up data, a hash of everything a model holds. */
#ifndef NETWORKS_H
#define NETWORKS_H

#include <mest.h>
#include <stdlib.h>
#include <string.h>

#define UNUSED __attribute__((unused))

/* ------------------------------------------------------------------------------- networks --- */

typedef struct network {
    const char *name;
    mest_config config;
    uint32_t count;
    mest_layer layers[96];
} network;

static mest_layer *add(network *n, int32_t kind)
{
    mest_layer *layer = &n->layers[n->count++];
    *layer = (mest_layer){ MEST_LAYER_HEAD(kind) };
    return layer;
}

static uint32_t last(const network *n) { return n->count - 1; }

static mest_layer *add_conv(network *n, uint32_t channels, uint32_t kernel, uint32_t stride)
{
    mest_layer *layer = add(n, MEST_LAYER_CONV2D);
    layer->channels = channels;
    layer->kernel_h = kernel;
    layer->stride_h = stride;
    layer->pad_h = layer->pad_w = kernel / 2;
    layer->flags = MEST_FLAG_NO_BIAS;
    return layer;
}

static mest_layer *add_linear(network *n, uint32_t channels)
{
    mest_layer *layer = add(n, MEST_LAYER_LINEAR);
    layer->channels = channels;
    return layer;
}

static network start(const char *name, uint32_t channels, uint32_t height, uint32_t width)
{
    network n = { .name = name, .config = MEST_CONFIG_INIT };
    n.config.seed = 1;
    n.config.batch = 16;
    n.config.learning_rate = 0.05f;
    n.config.momentum = 0.9f;
    n.config.weight_decay = 1e-4f;
    n.config.epochs = 6;
    n.config.samples = 64;
    n.config.density = 0.3f;
    n.config.method = MEST_METHOD_EMS;
    n.config.mutation_every = 1;
    n.config.importance_lambda = 0.01f;
    mest_layer *input = add(&n, MEST_LAYER_INPUT);
    input->channels = channels;
    input->height = height;
    input->width = width;
    return n;
}

UNUSED static network mlp(void)
{
    network n = start("mlp", 64, 1, 1);
    add_linear(&n, 48);
    add(&n, MEST_LAYER_RELU);
    add_linear(&n, 32);
    add(&n, MEST_LAYER_RELU);
    add_linear(&n, 10)->density = 1;
    return n;
}

/* A linear layer of every scheme; outputs that are no multiple of a block. */
UNUSED static network schemes(void)
{
    network n = start("schemes", 64, 1, 1);
    n.config.scheme = MEST_SCHEME_BLOCK4;
    for (int32_t scheme = 0; scheme <= MEST_SCHEME_FAN_IN; scheme++) {
        add_linear(&n, 46 - (uint32_t)scheme)->scheme = scheme;
        add(&n, MEST_LAYER_RELU);
    }
    add_linear(&n, 10)->density = 1;
    return n;
}

/* A convolution of every scheme that has kernels of its own. */
UNUSED static network scheme_convolutions(void)
{
    network n = start("scheme convolutions", 5, 9, 7);
    n.config.scheme = MEST_SCHEME_PATTERN;
    add_conv(&n, 13, 3, 1);
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_RELU);
    for (int32_t scheme = MEST_SCHEME_BLOCK4; scheme <= MEST_SCHEME_PATTERN; scheme++) {
        add_conv(&n, 17 + (uint32_t)scheme, 3, scheme == MEST_SCHEME_BLOCK8 ? 2 : 1)->scheme = scheme;
        add(&n, MEST_LAYER_BATCH_NORM);
        add(&n, MEST_LAYER_RELU);
    }
    add(&n, MEST_LAYER_GLOBAL_AVG_POOL);
    add_linear(&n, 10)->density = 1;
    return n;
}

/* Runs of inputs: convolutions and linear layers, with inputs that are no multiple of a run. */
UNUSED static network runs(void)
{
    network n = start("runs", 5, 9, 7);
    n.config.scheme = MEST_SCHEME_ROW4;
    for (int32_t scheme = MEST_SCHEME_ROW4; scheme <= MEST_SCHEME_ROW16; scheme++) {
        add_conv(&n, 17 + (uint32_t)scheme, 3, scheme == MEST_SCHEME_ROW8 ? 2 : 1)->scheme = scheme;
        add(&n, MEST_LAYER_BATCH_NORM);
        add(&n, MEST_LAYER_RELU);
    }
    add_conv(&n, 21, 1, 1)->scheme = MEST_SCHEME_ROW8;
    add(&n, MEST_LAYER_FLATTEN);
    for (int32_t scheme = MEST_SCHEME_ROW4; scheme <= MEST_SCHEME_ROW16; scheme++) {
        add_linear(&n, 40 + (uint32_t)scheme)->scheme = scheme;
        add(&n, MEST_LAYER_RELU);
    }
    add_linear(&n, 10)->density = 1;
    return n;
}

/* Convolutions, batch norm and one residual connection; a sparse and a dense linear layer. */
UNUSED static network residual(void)
{
    network n = start("residual", 3, 9, 8);
    add_conv(&n, 8, 3, 1);                                     /* 1 */
    add(&n, MEST_LAYER_BATCH_NORM);                            /* 2 */
    add(&n, MEST_LAYER_RELU);                                  /* 3 */
    add_conv(&n, 8, 3, 1)->flags = 0;                          /* 4 */
    add(&n, MEST_LAYER_BATCH_NORM)->flags = MEST_FLAG_NO_AFFINE; /* 5 */
    add(&n, MEST_LAYER_ADD)->with = 3;                         /* 6 */
    add(&n, MEST_LAYER_RELU);                                  /* 7 */
    add(&n, MEST_LAYER_GLOBAL_AVG_POOL);                       /* 8 */
    add_linear(&n, 12);                                        /* 9 */
    add(&n, MEST_LAYER_RELU);                                  /* 10 */
    add_linear(&n, 10)->density = 1;                           /* 11 */
    n.config.clip_norm = 1;
    return n;
}

/* Pools, dropout, flatten; regression; micro-batches; odd sizes. */
UNUSED static network pools(void)
{
    network n = start("pools", 2, 11, 9);
    add_conv(&n, 6, 3, 1)->flags = 0;
    add(&n, MEST_LAYER_RELU);
    mest_layer *pool = add(&n, MEST_LAYER_MAX_POOL);
    pool->kernel_h = 3;
    pool->stride_h = 2;
    pool->pad_h = pool->pad_w = 1;
    add(&n, MEST_LAYER_DROPOUT)->rate = 0.25f;
    add_conv(&n, 5, 3, 2);
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_AVG_POOL)->kernel_h = 2;
    add(&n, MEST_LAYER_FLATTEN);
    add_linear(&n, 9);
    add(&n, MEST_LAYER_RELU);
    add(&n, MEST_LAYER_DROPOUT)->rate = 0.5f;
    add_linear(&n, 3);
    n.config.loss = MEST_LOSS_MSE;
    n.config.micro_batches = 2;
    n.config.samples = 0;
    n.config.steps_per_epoch = 3;
    n.config.method = MEST_METHOD_EM;
    n.config.importance_gradient = MEST_GRADIENT_EMA;
    n.config.optimizer_flags = MEST_SGD_NESTEROV | MEST_NO_DECAY_BIAS | MEST_NO_DECAY_NORM;
    n.config.schedule = MEST_SCHEDULE_COSINE;
    n.config.learning_rate = 0.01f;
    return n;
}

/* ResNet-20 for 32 x 32 pictures; `width` channels in the first stage (the paper's: 16). */
UNUSED static network resnet20(uint32_t width)
{
    network n = start("resnet20", 3, 32, 32);
    add_conv(&n, width, 3, 1)->density = 1;
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_RELU);
    for (uint32_t stage = 0; stage < 3; stage++) {
        for (uint32_t block = 0; block < 3; block++) {
            uint32_t channels = width << stage, stride = stage > 0 && block == 0 ? 2 : 1;
            uint32_t from = last(&n), shortcut = from;
            add_conv(&n, channels, 3, stride);
            add(&n, MEST_LAYER_BATCH_NORM);
            add(&n, MEST_LAYER_RELU);
            add_conv(&n, channels, 3, 1);
            add(&n, MEST_LAYER_BATCH_NORM);
            uint32_t body = last(&n);
            if (stride == 2) {
                add_conv(&n, channels, 1, 2)->from = (int32_t)from;
                add(&n, MEST_LAYER_BATCH_NORM);
                shortcut = last(&n);
            }
            mest_layer *sum = add(&n, MEST_LAYER_ADD);
            sum->from = (int32_t)body;
            sum->with = (int32_t)shortcut;
            add(&n, MEST_LAYER_RELU);
        }
    }
    add(&n, MEST_LAYER_GLOBAL_AVG_POOL);
    add_linear(&n, 10)->density = 1;
    n.config.density = 0.1f;
    n.config.distribution = MEST_DISTRIBUTION_ERK;
    return n;
}

/* Depthwise separable blocks: stride 1 and 2, with a bias, without; a residual around one. */
UNUSED static network separable(void)
{
    network n = start("separable", 1, 25, 10);
    add_conv(&n, 20, 5, 2)->density = 1;
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_RELU);
    for (uint32_t stride = 1; stride <= 2; stride++) {
        uint32_t from = last(&n);
        add_conv(&n, 20, stride == 1 ? 3 : 5, stride)->groups = 20;
        add(&n, MEST_LAYER_BATCH_NORM);
        add(&n, MEST_LAYER_RELU);
        add_conv(&n, 20, 1, 1);
        add(&n, MEST_LAYER_BATCH_NORM);
        if (stride == 1) add(&n, MEST_LAYER_ADD)->with = (int32_t)from;
        add(&n, MEST_LAYER_RELU);
    }
    mest_layer *conv = add_conv(&n, 20, 3, 1);
    conv->groups = 20;
    conv->flags = 0;
    add(&n, MEST_LAYER_GLOBAL_AVG_POOL);
    add_linear(&n, 10)->density = 1;
    return n;
}

/* Whole channels are missing: of filters and of inputs, through a residual connection, a depthwise
 * convolution, FLATTEN. */
UNUSED static network channels(void)
{
    network n = start("channels", 3, 9, 7);
    add_conv(&n, 13, 3, 1);
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_RELU);
    add_conv(&n, 13, 3, 1)->flags = 0;
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_ADD)->with = 3;
    add(&n, MEST_LAYER_RELU);
    add_conv(&n, 13, 3, 2)->groups = 13;
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_RELU);
    add_conv(&n, 11, 1, 1)->scheme = MEST_SCHEME_CHANNEL;
    add(&n, MEST_LAYER_MAX_POOL)->kernel_h = 2;
    add(&n, MEST_LAYER_FLATTEN);
    add_linear(&n, 17);
    add(&n, MEST_LAYER_BATCH_NORM);
    add_linear(&n, 10)->scheme = MEST_SCHEME_CHANNEL;
    n.config.scheme = MEST_SCHEME_FILTER;
    return n;
}

UNUSED static network in_batches(const char *name, network n, uint32_t batch)
{
    n.name = name;
    n.config.batch = batch;
    return n;
}

UNUSED static int by_gradient(int32_t method) { return method == MEST_METHOD_RIGL || method == MEST_METHOD_GSE; }

UNUSED static network by_method(const char *name, network n, int32_t method)
{
    n.name = name;
    n.config.method = method;
    n.config.mutation_updates = 3;
    if (by_gradient(method)) n.config.importance_lambda = 0;
    if (method == MEST_METHOD_SRIGL) n.config.scheme = MEST_SCHEME_FAN_IN;
    if (method == MEST_METHOD_DSR) n.config.epochs = 10;     /* its threshold begins at 1/1000 and doubles */
    if (method == MEST_METHOD_LOTTERY) n.config.mutation_rate = 0.4f; /* 3 rounds */
    return n;
}

/* Layers freeze, samples take turns. */
UNUSED static network spared(const char *name, network n)
{
    n.name = name;
    n.config.freeze_share = 0.992f; /* the convolutions */
    n.config.freeze_epochs[0] = 1;
    n.config.freeze_epochs[1] = 3;
    n.config.sieve_absent = 0.25f;
    n.config.sieve_every = 1;
    n.config.sieve_share = 0.2f;
    return n;
}

/* ----------------------------------------------------------------------------------- data --- */

/* Uniform in [-1, 1), the same everywhere. */
UNUSED static void fill(float *values, size_t count, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        values[i] = (float)(int32_t)(state >> 40) / 8388608.0f - 1.0f;
    }
}

/* A training set in memory, and the batch that begins at a sample. */
typedef struct dataset {
    uint32_t samples, inputs, outputs;
    float *x, *targets;
    int32_t *labels;
    uint32_t *ids;
} dataset;

UNUSED static dataset make_data(uint32_t samples, uint32_t inputs, uint32_t outputs)
{
    dataset d = { samples, inputs, outputs, malloc(sizeof(float) * samples * inputs),
                  malloc(sizeof(float) * samples * outputs), malloc(sizeof(int32_t) * samples),
                  malloc(sizeof(uint32_t) * samples) };
    fill(d.x, (size_t)samples * inputs, 7);
    fill(d.targets, (size_t)samples * outputs, 8);
    for (uint32_t i = 0; i < samples; i++) {
        d.ids[i] = i;
        d.labels[i] = (int32_t)(i * 7 % outputs);
        d.x[(size_t)i * inputs + (uint32_t)d.labels[i] % inputs] += 2; /* something to learn */
    }
    return d;
}

UNUSED static void free_data(dataset *d)
{
    free(d->x);
    free(d->targets);
    free(d->labels);
    free(d->ids);
}

UNUSED static mest_batch batch_at(const dataset *d, const mest_config *config, uint32_t first, uint32_t count)
{
    return (mest_batch){ sizeof(mest_batch), count, d->x + (size_t)first * d->inputs, d->labels + first,
                         d->targets + (size_t)first * d->outputs, config->samples ? d->ids + first : NULL };
}

/* Number i of a training that goes round and round; the last of a round may be smaller. */
UNUSED static mest_batch nth_batch(const dataset *d, const mest_config *config, uint32_t i)
{
    uint32_t first = i * config->batch % d->samples, room = d->samples - first;
    return batch_at(d, config, first, room < config->batch ? room : config->batch);
}

/* ----------------------------------------------------------------------------------- hash --- */

#define HASH_START 0xcbf29ce484222325u

/* FNV-1a, 64 bits. */
UNUSED static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < count; i++) hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

/* Everything a training leaves behind: weights, optimizer state, statistics, connections and
 * forgetting counts; not gradients.  Returns 0 when a getter fails. */
UNUSED static uint64_t hash_model(const mest_model *model)
{
    static const int32_t tensors[] = {
        MEST_TENSOR_WEIGHT, MEST_TENSOR_WEIGHT_MOMENTUM, MEST_TENSOR_BIAS, MEST_TENSOR_BIAS_MOMENTUM,
        MEST_TENSOR_SCALE, MEST_TENSOR_SCALE_MOMENTUM, MEST_TENSOR_RUNNING_MEAN, MEST_TENSOR_RUNNING_VAR
    };
    uint64_t hash = HASH_START;
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (mest_model_plan(model, &plan, NULL) != MEST_OK) return 0;
    for (uint32_t layer = 0; layer < plan.layers; layer++) {
        for (size_t t = 0; t < sizeof tensors / sizeof *tensors; t++) {
            uint64_t count;
            if (mest_model_tensor_size(model, layer, tensors[t], &count) != MEST_OK) continue;
            float *values = malloc(sizeof(float) * (count + 1));
            mest_status status = mest_model_tensor_get(model, layer, tensors[t], values, count);
            hash = hash_bytes(hash, values, sizeof(float) * count);
            free(values);
            if (status != MEST_OK) return 0;
        }
        mest_csr csr = { .struct_size = sizeof csr };
        if (mest_model_csr_get(model, layer, &csr) != MEST_OK) continue;
        if (csr.buffer_bytes > 0) {
            csr.buffer = malloc(csr.buffer_bytes);
            if (mest_model_csr_get(model, layer, &csr) != MEST_OK) return 0;
        }
        hash = hash_bytes(hash, csr.row_start, sizeof *csr.row_start * (csr.rows + 1u));
        hash = hash_bytes(hash, csr.column, sizeof *csr.column * csr.count);
        free(csr.buffer);
    }
    mest_forgetting_report counts = { .struct_size = sizeof counts };
    if (mest_model_forgetting(model, &counts, NULL, 0) == MEST_OK) {
        uint8_t *bytes = malloc(counts.samples);
        mest_status status = mest_model_forgetting(model, &counts, bytes, counts.samples);
        hash = hash_bytes(hash, bytes, counts.samples);
        free(bytes);
        if (status != MEST_OK) return 0;
        if (counts.training < counts.samples) { /* who is in the training set */
            mest_selection all = { .struct_size = sizeof all };
            uint32_t *ids = malloc(sizeof *ids * counts.samples);
            uint64_t count = 0;
            status = mest_model_select(model, &all, ids, counts.samples, &count);
            hash = hash_bytes(hash, ids, sizeof *ids * count);
            free(ids);
            if (status != MEST_OK) return 0;
        }
    }
    return hash;
}

#endif
