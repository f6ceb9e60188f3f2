/* SPDX-License-Identifier: Apache-2.0
 * Descriptions, most of them wrong, from a source of numbers: `below(n)`, which the file that includes this has defined,
 * gives one from 0 to n - 1.  And what an accepted one must be able to do. */
#ifndef RANDOM_NETWORK_H
#define RANDOM_NETWORK_H
#include "networks.h"

/* Values that break things, and values that do not. */
static uint32_t some_number(void)
{
    static const uint32_t edges[] = { 0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 1000, 4096, 65535, 65536, 65537,
                                      0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff };
    return below(3) ? below(9) : below(4) ? edges[below(22)] : edges[below(sizeof edges / sizeof *edges)];
}

static float some_real(void)
{
    static const float edges[] = { 0, 1, -1, 0.5f, 0.9999999f, 1.0000001f, 1e-45f, 1e-38f, 1e-6f, -0.0f, 3.4e38f, -3.4e38f };
    uint32_t bits, kind = below(8);
    float value;
    if (kind < 5) return (float)below(1001) / 1000;
    if (kind < 7) return edges[below(sizeof edges / sizeof *edges)];
    bits = below(0x10000) << 16 | below(0x10000);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void random_layer(mest_layer *l)
{
    switch (below(20)) {
    case 0: l->kind = (int32_t)below(13); break;
    case 1: l->from = (int32_t)(some_number() - below(3)); break;
    case 2: l->with = (int32_t)(some_number() - below(3)); break;
    case 3: case 4: l->channels = some_number(); break;
    case 5: l->height = some_number(); break;
    case 6: l->width = some_number(); break;
    case 7: l->kernel_h = some_number(); break;
    case 8: l->kernel_w = some_number(); break;
    case 9: l->stride_h = some_number(); break;
    case 10: l->stride_w = some_number(); break;
    case 11: l->pad_h = some_number(); break;
    case 12: l->pad_w = some_number(); break;
    case 13: l->flags = below(4); break;
    case 14: l->density = some_real(); break;
    case 15: l->momentum = some_real(); break;
    case 16: l->epsilon = some_real(); break;
    case 17: l->groups = below(2) ? l->channels : some_number(); break;
    case 18: l->scheme = (int32_t)below(14); break;
    default: l->rate = some_real(); break;
    }
}

/* Any method, and what it needs. */
static void random_method(mest_config *c)
{
    c->method = (int32_t)below(MEST_METHOD_SRIGL + 1);
    c->mutation_updates = below(4);
    if (c->method == MEST_METHOD_RIGL || c->method == MEST_METHOD_GSE) c->importance_lambda = 0;
    if (c->method == MEST_METHOD_SRIGL) c->scheme = MEST_SCHEME_FAN_IN;
}

static void random_config(mest_config *c)
{
    switch (below(41)) {
    case 0: c->batch = below(2) ? below(40) : some_number(); break;
    case 1: c->micro_batches = below(2) ? below(4) : some_number(); break;
    case 2: c->threads = some_number(); break;
    case 3: c->simd = (int32_t)below(5); break;
    case 4: c->gradient_chunks = some_number(); break;
    case 5: c->inference_only = below(2); break;
    case 6: c->loss = (int32_t)below(2); break;
    case 7: c->label_smoothing = some_real(); break;
    case 8: c->learning_rate = some_real(); break;
    case 9: c->momentum = some_real(); break;
    case 10: c->weight_decay = some_real(); break;
    case 11: c->clip_norm = some_real(); break;
    case 12: c->optimizer_flags = below(8); break;
    case 13: c->epochs = some_number(); break;
    case 14: c->steps_per_epoch = some_number(); break;
    case 15: c->schedule = (int32_t)below(3); c->schedule_every = some_number(); break;
    case 16: c->schedule_gamma = some_real(); c->learning_rate_min = some_real(); break;
    case 17: c->warmup_epochs = some_number(); c->schedule_flags = below(2); break;
    case 18: case 19: c->density = some_real(); break;
    case 20: c->distribution = (int32_t)below(2); break;
    case 21: c->allow_empty_rows = below(2); c->initial = (int32_t)below(2); break;
    case 22: case 23: random_method(c); break;
    case 24: c->mutation_decay = (int32_t)below(2); break;
    case 25: c->mutation_every = some_number(); break;
    case 26: c->mutation_epochs[below(2)] = some_number(); break;
    case 27: c->mutation_rate = some_real(); break;
    case 28: c->mutation_extra = some_real(); c->initial_density = some_real(); break;
    case 29: c->mutation_flags = below(16); break;
    case 30: c->importance_gradient = (int32_t)below(3); c->importance_beta = some_real(); break;
    case 31: c->importance_lambda = some_real(); break;
    case 32: c->samples = some_number(); break;
    case 33: c->scheme = (int32_t)below(13); c->scheme_flags = below(2); break;
    case 34: c->freeze_share = some_real(); c->freeze_epochs[below(2)] = some_number(); break;
    case 35: c->sieve_absent = some_real(); c->sieve_every = some_number(); c->sieve_share = some_real(); break;
    case 36: c->recover_epochs = some_number(); c->recover_rate = some_real(); break;
    case 37: c->activations = (int32_t)below(3); break;
    case 38: c->recompute = (int32_t)below(4); break;
    case 39: c->forgetting_flags = below(8); c->remove_class_cap = some_real(); break;
    default:
        c->phase1_epochs = below(3);
        c->remove_rule = (int32_t)below(4);
        c->remove_count = below(3);
        c->remove_number = some_number();
        c->remove_fraction = some_real();
        c->keep_lowest = some_number();
    }
}

static network random_network(void)
{
    network n;
    switch (below(9)) {
    case 0: n = mlp(); break;
    case 1: n = schemes(); break;
    case 2: n = scheme_convolutions(); break;
    case 3: n = runs(); break;
    case 4: n = channels(); break;
    case 5: n = separable(); break;
    case 6: n = pools(); break;
    default: n = residual(); break;
    }
    for (uint32_t edits = below(6); edits > 0; edits--) {
        if (below(2)) random_config(&n.config);
        else random_layer(&n.layers[below(n.count)]);
    }
    if (below(12) == 0) { /* drop a layer */
        uint32_t at = below(n.count);
        memmove(&n.layers[at], &n.layers[at + 1], sizeof *n.layers * (n.count - at - 1));
        n.count--;
    }
    if (below(2)) n.config.batch = 1 + below(8);
    n.config.seed = below(1000);
    return n;
}

static int documented(mest_status status)
{
    return status == MEST_OK || (status <= MEST_ERR_ARGUMENT && status > MEST_ERR_INTERNAL
                                 && strncmp(mest_status_string(status), "MEST_ERR_", 9) == 0);
}

/* Whether connections move when they are told to. */
static int obeys(int32_t method)
{
    return method != MEST_METHOD_RIGL && method != MEST_METHOD_GSE && method != MEST_METHOD_LOTTERY
           && method != MEST_METHOD_SNIP && method != MEST_METHOD_GRASP;
}

/* Uses an accepted model; the first thing wrong, or NULL. */
static const char *use(mest_model *model, const network *n, const mest_plan_report *plan)
{
    uint32_t count = n->config.batch < 40 ? n->config.batch : 40;
    dataset d = make_data(count, plan->inputs, plan->outputs);
    for (uint32_t i = 0; i < count; i++) d.ids[i] = n->config.samples ? i % n->config.samples : 0;
    mest_batch batch = batch_at(&d, &n->config, 0, count);
    float *out = malloc(sizeof(float) * count * plan->outputs);
    const char *wrong = NULL;
    mest_status status = MEST_OK;
#define EXPECT(condition, message) if (!wrong && !(condition)) wrong = message
    for (int i = 0; i < 5 && !n->config.inference_only; i++) {
        status = mest_model_step(model, &batch, NULL);
        EXPECT(status == MEST_OK || status == MEST_ERR_DIVERGED, "step");
        if (n->config.method && i == 2) {
            status = mest_model_mutate(model, NULL);
            EXPECT(status == (obeys(n->config.method) ? MEST_OK : MEST_ERR_ARGUMENT) || status == MEST_ERR_STATE, "mutate");
        }
        if (i == 3) {
            status = mest_model_begin_epoch(model, NULL);
            /* It applies an unfinished update, which may turn out not to be finite. */
            EXPECT(status == MEST_OK || (status == MEST_ERR_DIVERGED && n->config.micro_batches > 1), "begin_epoch");
        }
    }
    status = mest_model_predict(model, d.x, count, 0, out, (uint64_t)count * plan->outputs);
    EXPECT(status == MEST_OK, "predict");
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    EXPECT(mest_model_evaluate(model, &batch, &evaluation) == MEST_OK, "evaluate");
    EXPECT(hash_model(model) != 0, "reading tensors");
    mest_mutation_report moved = { .struct_size = sizeof moved };
    EXPECT(mest_model_mutation(model, &moved, NULL, 0) == MEST_OK, "mutation");
    for (uint32_t layer = 0; layer < n->count; layer++) { /* the connections are a proper matrix */
        static uint32_t buffer[1 << 20];
        mest_csr csr = { .struct_size = sizeof csr, .buffer = buffer, .buffer_bytes = sizeof buffer };
        if (mest_model_csr_get(model, layer, &csr) != MEST_OK) continue;
        EXPECT(csr.count <= csr.capacity && csr.row_start[0] == 0 && csr.row_start[csr.rows] == csr.count, "row_start");
        for (uint32_t row = 0; row < csr.rows && !wrong; row++)
            for (uint32_t i = csr.row_start[row]; i < csr.row_start[row + 1]; i++)
                EXPECT(csr.column[i] < csr.columns && (i == csr.row_start[row] || csr.column[i - 1] < csr.column[i]), "columns");
    }
#undef EXPECT
    free(out);
    free_data(&d);
    return wrong;
}

#endif
