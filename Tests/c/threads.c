/* SPDX-License-Identifier: Apache-2.0
 * Different models in different threads at the same time give the bits they give alone; messages of
 * failed calls do not mix. */
#include "check.h"
#include "networks.h"
#include <pthread.h>

enum { THREADS = 4 };

typedef struct job {
    network n;
    const dataset *d;
    uint64_t hash;
    int mixed; /* messages that were another thread's */
    mest_status status;
} job;

static void *run(void *pointer)
{
    job *j = pointer;
    mest_model *model = NULL;
    j->status = mest_model_create(&j->n.config, j->n.layers, j->n.count, NULL, &model);
    for (int i = 0; j->status == MEST_OK && i < 24; i++) {
        mest_batch batch = batch_at(j->d, &j->n.config, (uint32_t)i % 4 * 16, 16);
        j->status = mest_model_step(model, &batch, NULL);

        /* A call without a model fails for a reason of this thread's own. */
        mest_config wrong = j->n.config;
        mest_plan_report plan = { .struct_size = sizeof plan };
        int even = j->n.config.seed % 2 == 0;
        if (even) wrong.batch = 0;
        else wrong.momentum = 2;
        if (mest_plan(&wrong, j->n.layers, j->n.count, &plan, NULL) != MEST_ERR_ARGUMENT
            || !strstr(mest_last_error(NULL), even ? "batch" : "momentum"))
            j->mixed++;
    }
    if (j->status == MEST_OK) j->hash = hash_model(model);
    mest_model_destroy(model);
    return NULL;
}

int main(void)
{
    static job alone[THREADS], together[THREADS];
    network networks[] = { mlp(), residual() };
    dataset data[2];
    for (int i = 0; i < 2; i++) {
        mest_plan_report plan = { .struct_size = sizeof plan };
        if (!check(mest_plan(&networks[i].config, networks[i].layers, networks[i].count, &plan, NULL) == MEST_OK,
                   "plan: %s", mest_last_error(NULL)))
            return finish("threads");
        data[i] = make_data(64, plan.inputs, plan.outputs);
    }
    for (int i = 0; i < THREADS; i++) {
        alone[i] = (job){ .n = networks[i % 2], .d = &data[i % 2] };
        alone[i].n.config.seed = (uint64_t)i + 1;
        alone[i].n.config.threads = (uint32_t)i / 2 + 1;
        together[i] = alone[i];
        run(&alone[i]);
        check(alone[i].status == MEST_OK && alone[i].hash, "alone: %s", mest_status_string(alone[i].status));
        check(alone[i].mixed == 0, "alone: %d wrong messages", alone[i].mixed);
    }
    for (int round = 0; round < 3; round++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
            if (!check(pthread_create(&threads[i], NULL, run, &together[i]) == 0, "pthread_create")) return finish("threads");
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < THREADS; i++) {
            check(together[i].status == MEST_OK, "thread %d: %s", i, mest_status_string(together[i].status));
            check(together[i].hash == alone[i].hash, "thread %d: other bits than alone", i);
            check(together[i].mixed == 0, "thread %d: %d messages of other threads", i, together[i].mixed);
        }
    }
    free_data(&data[0]);
    free_data(&data[1]);
    return finish("threads");
}
