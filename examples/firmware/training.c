/* SPDX-License-Identifier: Apache-2.0 */
#include "training.h"
#include "board.h"
#include "flash.h"
#include <stdio.h>
#include <stdlib.h>

static void check(mest_status status, const mest_model *model)
{
    if (status == MEST_OK) return;
    printf("%s: %s\n", mest_status_string(status), mest_last_error(model));
    exit(EXIT_FAILURE);
}

/* Which samples the epoch shows, and when: the same for every start in it. */
static uint32_t order(const training *t, mest_model *model, uint32_t epoch)
{
    mest_selection all = { .struct_size = sizeof all };
    uint64_t count = 0, state = epoch;
    check(mest_model_select(model, &all, t->scratch, t->config->samples, &count), model);
    for (uint32_t i = (uint32_t)count; i > 1; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t j = (uint32_t)(state >> 33) % i, other = t->scratch[j];
        t->scratch[j] = t->scratch[i - 1];
        t->scratch[i - 1] = other;
    }
    return (uint32_t)count;
}

static mest_batch show(const training *t, uint32_t sample, const uint32_t *id)
{
    mest_batch batch = { .struct_size = sizeof batch, .count = 1, .ids = id };
    t->show(sample, &batch);
    return batch;
}

static uint32_t correct_of_test(const training *t, mest_model *model)
{
    uint32_t correct = 0;
    for (uint32_t i = 0; i < t->test; i++) {
        mest_batch sample = show(t, t->config->samples + i, NULL);
        mest_evaluation result = { .struct_size = sizeof result };
        check(mest_model_evaluate(model, &sample, &result), model);
        correct += result.correct;
    }
    return correct;
}

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t value, const void *bytes, size_t count)
{
    for (const unsigned char *p = bytes; count > 0; count--) value = (value ^ *p++) * 0x100000001b3u;
    return value;
}

/* Of what the training leaves: values, momentum, statistics, connections, forgetting counts. */
static uint64_t hash_of(const training *t, const mest_model *model)
{
    static const int32_t tensors[] = {
        MEST_TENSOR_WEIGHT, MEST_TENSOR_WEIGHT_MOMENTUM, MEST_TENSOR_BIAS, MEST_TENSOR_BIAS_MOMENTUM, MEST_TENSOR_SCALE,
        MEST_TENSOR_SCALE_MOMENTUM, MEST_TENSOR_RUNNING_MEAN, MEST_TENSOR_RUNNING_VAR,
    };
    uint64_t value = 0xcbf29ce484222325u;
    for (uint32_t layer = 0; layer < t->count; layer++) {
        for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
            uint64_t count;
            if (mest_model_tensor_size(model, layer, tensors[i], &count) != MEST_OK) continue; /* it has none */
            if (count > t->scratch_words) exit(EXIT_FAILURE);
            check(mest_model_tensor_get(model, layer, tensors[i], (float *)t->scratch, count), model);
            value = hash(value, t->scratch, (size_t)count * sizeof(float));
        }
        mest_csr csr = { .struct_size = sizeof csr }; /* single weights: a view, no buffer */
        if (mest_model_csr_get(model, layer, &csr) != MEST_OK) continue; /* dense, or no weights */
        value = hash(value, csr.row_start, (csr.rows + 1) * sizeof *csr.row_start);
        value = hash(value, csr.column, csr.count * sizeof *csr.column);
    }
    check(mest_model_forgetting(model, NULL, (uint8_t *)t->scratch, t->config->samples), model);
    return hash(value, t->scratch, t->config->samples);
}

/* The update after which this start resets itself; 0: none. */
static uint64_t last_update(const training *t, uint32_t start, int argc, char **argv)
{
    if (argc < 2) return start == 1 ? t->reset_at : 0;
    return start < (uint32_t)argc ? strtoul(argv[start], NULL, 10) : 0;
}

int train(const training *t, int argc, char **argv)
{
    mest_model *model;
    check(mest_model_create_in(t->config, t->layers, t->count, NULL, t->block, (size_t)t->config->budget_bytes, &model), NULL);
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_model_plan(model, &plan, NULL), model);

    uint32_t start = flash_start();
    uint64_t reset_at = last_update(t, start, argc, argv);
    mest_io io = flash_slots((size_t)plan.checkpoint_bytes);
    io.minimum_updates = t->save_every;
    mest_checkpoint_report saved = { .struct_size = sizeof saved };
    mest_status status = mest_model_load(model, &io, 0, &saved);
    if (status == MEST_ERR_CORRUPT) { /* a new chip, or power went in the first save */
        printf("start %u: %u of %u connections in %u bytes, dense they would be %u\n", (unsigned)start, (unsigned)plan.active,
               (unsigned)plan.parameters, (unsigned)plan.total_bytes, (unsigned)plan.dense_bytes);
    } else {
        check(status, model);
        printf("start %u: resumed after update %u%s\n", (unsigned)start, (unsigned)saved.updates,
               saved.damaged ? ", a later save was interrupted" : "");
    }

    uint32_t next = saved.batches_in_epoch;
    for (uint32_t epoch = saved.epochs > 0 ? saved.epochs - 1 : 0; epoch < t->config->epochs; epoch++, next = 0) {
        if (next == 0) check(mest_model_begin_epoch(model, NULL), model);
        uint32_t number = order(t, model, epoch);
        for (; next < number; next++) {
            mest_batch sample = show(t, t->scratch[next], &t->scratch[next]);
            mest_step_report step = { .struct_size = sizeof step };
            check(mest_model_step(model, &sample, &step), model);
            check(mest_model_save(model, &io, NULL), model);
            if (reset_at > 0 && step.update == reset_at) board_reset();
        }
        uint32_t permille = correct_of_test(t, model) * 1000 / t->test;
        printf("epoch %2u, %4u %s: %u.%u %% of the test correct\n", (unsigned)epoch, (unsigned)number, t->samples,
               (unsigned)permille / 10, (unsigned)permille % 10);
    }

    io.minimum_updates = 0;
    check(mest_model_save(model, &io, NULL), model);
    mest_forgetting_report forgetting = { .struct_size = sizeof forgetting };
    check(mest_model_forgetting(model, &forgetting, NULL, 0), model);
    printf("%u %s have left the training, of the other %u %u were never forgotten\n",
           (unsigned)(t->config->samples - forgetting.training), t->samples, (unsigned)forgetting.training,
           (unsigned)forgetting.unforgettable);
    flash_counts wear = flash_counted();
    printf("flash: %u bytes written, no sector erased more than %u times\n", (unsigned)wear.written, (unsigned)wear.most);
    printf("model %u stack %u of %u\n", (unsigned)plan.total_bytes, (unsigned)board_stack_used(), (unsigned)board_stack_bytes());
    printf("hash %016llx\n", (unsigned long long)hash_of(t, model));
    return EXIT_SUCCESS;
}
