/* SPDX-License-Identifier: Apache-2.0
 * A short training whose hash tells whether two builds compute the same; on any machine with a malloc. */
#ifndef TRAINING_H
#define TRAINING_H

#include "check.h"
#include "every_network.h"

/* What a network can be trained on; 0 when its description is refused. */
UNUSED static int data_for(const network *n, dataset *out)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name, mest_last_error(NULL)))
        return 0;
    *out = make_data(samples_for(n), plan.inputs, plan.outputs);
    return 1;
}

/* What happens before a step; may put another model in place of this one. */
typedef mest_status before_step(mest_model **model, network n, uint32_t step, void *user);

/* Trains for some epochs; the hash of the model and of everything that was reported. */
UNUSED static uint64_t train_with(before_step *before, void *user, const network *n, const dataset *d, const mest_env *env,
                                  uint32_t epochs, mest_status *out_status)
{
    mest_model *model = NULL;
    mest_status status = mest_model_create(&n->config, n->layers, n->count, env, &model);
    if (out_status) *out_status = status;
    if (status != MEST_OK) return 0;
    uint32_t micro = n->config.micro_batches ? n->config.micro_batches : 1;
    uint64_t hash = HASH_START;
    for (uint32_t i = 0; status == MEST_OK && i < epochs * 3 * micro; i++) {
        mest_batch batch = nth_batch(d, &n->config, i);
        mest_step_report report = { .struct_size = sizeof report };
        if (before) status = before(&model, *n, i, user);
        if (status == MEST_OK) status = mest_model_step(model, &batch, &report);
        hash = hash_bytes(hash, &report, offsetof(mest_step_report, count) + sizeof report.count); /* no padding */
    }
    int32_t method = n->config.method;
    int moves_between = method != MEST_METHOD_STATIC && !by_gradient(method) && method != MEST_METHOD_LOTTERY
        && method != MEST_METHOD_SNIP && method != MEST_METHOD_GRASP;
    if (status == MEST_OK && moves_between) status = mest_model_mutate(model, NULL);
    float *out = malloc(sizeof(float) * d->samples * d->outputs);
    if (status == MEST_OK)
        status = mest_model_predict(model, d->x, d->samples, n->config.loss == MEST_LOSS_MSE ? 0 : MEST_PREDICT_PROBABILITIES,
                                    out, (uint64_t)d->samples * d->outputs);
    if (status == MEST_OK) hash = hash_bytes(hash, out, sizeof(float) * d->samples * d->outputs);
    free(out);
    mest_batch all = batch_at(d, &n->config, 0, d->samples);
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    if (status == MEST_OK) status = mest_model_evaluate(model, &all, &evaluation);
    hash = hash_bytes(hash, &evaluation, sizeof evaluation);
    uint64_t state = hash_model(model);
    check(status == MEST_OK && state, "%s: training: %s: %s", n->name, mest_status_string(status), mest_last_error(model));
    mest_model_destroy(model);
    return hash_bytes(hash, &state, sizeof state);
}

UNUSED static uint64_t train(const network *n, const dataset *d, const mest_env *env, uint32_t epochs, mest_status *out_status)
{
    return train_with(NULL, NULL, n, d, env, epochs, out_status);
}

/* A line of hashes.txt. */
UNUSED static void print_hash(const network *n, const mest_env *env)
{
    dataset d;
    if (!data_for(n, &d)) return;
    printf("%s %016llx\n", n->name, (unsigned long long)train(n, &d, env, epochs_for(n), NULL));
    free_data(&d);
}

#endif
