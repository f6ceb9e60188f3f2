/* SPDX-License-Identifier: Apache-2.0
 * What the tests of checkpoints share: training step by step, a small network, saving and loading. */
#ifndef CHECKPOINTS_H
#define CHECKPOINTS_H

#include "check.h"
#include "devices.h"
#include "networks.h"

UNUSED static mest_model *create(const network *n)
{
    mest_model *model = NULL;
    check(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK, "%s: create: %s", n->name,
          mest_last_error(NULL));
    return model;
}

UNUSED static size_t slot_bytes(const network *n)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name,
          mest_last_error(NULL));
    return plan.checkpoint_bytes;
}

/* Step number i of a training; the hash of its report. */
UNUSED static uint64_t step(mest_model *model, const network *n, const dataset *d, uint32_t i)
{
    mest_batch batch = nth_batch(d, &n->config, i);
    mest_step_report report = { .struct_size = sizeof report };
    mest_status status = mest_model_step(model, &batch, &report);
    check(status == MEST_OK, "%s: step %u: %s", n->name, i, mest_last_error(model));
    return hash_bytes(HASH_START, &report, offsetof(mest_step_report, count) + sizeof report.count);
}

UNUSED static uint64_t mutation_hash(const mest_model *model)
{
    mest_mutation_report report = { .struct_size = sizeof report };
    return mest_model_mutation(model, &report, NULL, 0) == MEST_OK ? hash_bytes(HASH_START, &report, sizeof report) : 0;
}

UNUSED static uint64_t whole_hash(const mest_model *model)
{
    uint64_t part = mutation_hash(model);
    mest_forgetting_report report = { .struct_size = sizeof report };
    if (mest_model_forgetting(model, &report, NULL, 0) == MEST_OK)
        part = hash_bytes(part, (char *)&report + sizeof report.struct_size, sizeof report - sizeof report.struct_size);
    uint64_t all = hash_model(model);
    return hash_bytes(all, &part, sizeof part);
}

/* Small, with everything that has a section. */
UNUSED static network small(void)
{
    network n = start("small", 5, 1, 1);
    n.config.batch = 4;
    n.config.samples = 12;
    n.config.phase1_epochs = 3;
    n.config.remove_rule = MEST_REMOVE_NUMBER;
    n.config.remove_number = 4;
    n.config.remove_class_cap = 0.5f;
    n.config.forgetting_flags = MEST_FORGETTING_MARGIN | MEST_FORGETTING_ORDER;
    n.config.importance_gradient = MEST_GRADIENT_EMA;
    n.config.micro_batches = 2;
    n.config.threads = 1;
    add_linear(&n, 6)->density = 0.5f;
    add(&n, MEST_LAYER_BATCH_NORM);
    add(&n, MEST_LAYER_RELU);
    add_linear(&n, 3)->density = 1;
    return n;
}

/* Connections that the first step chooses, layers that freeze, samples that take turns. */
UNUSED static network small_sieve(void)
{
    network n = small();
    n.name = "small, sieved";
    n.config.phase1_epochs = 0;
    n.config.remove_rule = MEST_REMOVE_NONE;
    n.config.remove_number = 0;
    n.config.remove_class_cap = 0;
    n.config.method = MEST_METHOD_GRASP;
    n.config.importance_gradient = MEST_GRADIENT_LAST;
    n.config.freeze_share = 0.7f;
    n.config.freeze_epochs[0] = 1;
    n.config.freeze_epochs[1] = 2;
    n.config.sieve_absent = 0.34f;
    n.config.sieve_every = 1;
    n.config.sieve_share = 0.3f;
    return n;
}

UNUSED static dataset small_data(const network *n)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: %s", n->name, mest_last_error(NULL));
    return make_data(12, plan.inputs, plan.outputs);
}

/* Saves after `count` steps; the state there. */
UNUSED static uint64_t save_after(const network *n, const dataset *d, mest_io *io, uint32_t count, size_t *out_bytes)
{
    mest_model *model = create(n);
    for (uint32_t i = 0; i < count; i++) step(model, n, d, i);
    mest_checkpoint_report report = { .struct_size = sizeof report };
    check(mest_model_save(model, io, &report) == MEST_OK, "%s: save: %s", n->name, mest_last_error(model));
    if (out_bytes) *out_bytes = (size_t)report.bytes;
    uint64_t hash = whole_hash(model);
    mest_model_destroy(model);
    return hash;
}

/* What a new model loads; its state. */
UNUSED static uint64_t load_new(const network *n, mest_io *io, mest_status *out_status, mest_checkpoint_report *out_report)
{
    mest_model *model = create(n);
    *out_report = (mest_checkpoint_report){ .struct_size = sizeof *out_report };
    *out_status = mest_model_load(model, io, 0, out_report);
    uint64_t hash = whole_hash(model);
    mest_model_destroy(model);
    return hash;
}

#endif
