/* SPDX-License-Identifier: Apache-2.0
 * A program of the first release: compiled with its header, first/mest.h, run with today's library.  Every struct is
 * given and got, in its size of that time, with bytes behind it that must stay. */
#include <mest.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad;
#define MUST(condition) ((condition) ? (void)0 : (void)(printf("line %d: %s\n", __LINE__, #condition), bad++))

/* A struct with something of the caller's behind it. */
typedef struct guarded {
    size_t size;
    unsigned char *bytes;
} guarded;

enum { GUARD = 64 };

static void *make(guarded *g, size_t size, size_t count)
{
    g->size = size * count;
    g->bytes = malloc(g->size + GUARD);
    memset(g->bytes, 0, g->size);
    memset(g->bytes + g->size, 0x5a, GUARD);
    for (size_t i = 0; i < count; i++) *(uint32_t *)(void *)(g->bytes + i * size) = (uint32_t)size;
    return g->bytes;
}

static void check(guarded *g, size_t size, size_t count)
{
    for (int i = 0; i < GUARD; i++) MUST(g->bytes[g->size + (size_t)i] == 0x5a);
    for (size_t i = 0; i < count; i++) MUST(*(uint32_t *)(void *)(g->bytes + i * size) == size);
    free(g->bytes);
}

#define MAKE(type, name, count) guarded guard_##name; type *name = make(&guard_##name, sizeof(type), count)
#define CHECK(type, name, count) check(&guard_##name, sizeof(type), count)

static unsigned char slots[2][1 << 16];
static int32_t read_slot(uint32_t slot, uint64_t at, void *bytes, size_t count, void *user)
{
    (void)user;
    memcpy(bytes, slots[slot] + at, count);
    return 0;
}
static int32_t write_slot(uint32_t slot, uint64_t at, const void *bytes, size_t count, void *user)
{
    (void)user;
    memcpy(slots[slot] + at, bytes, count);
    return 0;
}
static int32_t sync_slot(uint32_t slot, void *user) { return (void)slot, (void)user, 0; }
static int32_t progress(const mest_progress *now, void *user)
{
    ++*(int *)user;
    return now->struct_size < sizeof *now; /* it may have grown */
}

int main(void)
{
    enum { SAMPLES = 12, INPUTS = 6, CLASSES = 3, LAYERS = 5 };
    MUST(mest_abi_version() == MEST_ABI_VERSION);
    MAKE(mest_config, config, 1);
    MUST(mest_config_init(config, sizeof *config) == MEST_OK);
    config->batch = 4, config->samples = SAMPLES, config->epochs = 6, config->density = 0.5f, config->threads = 1;
    config->method = MEST_METHOD_EM, config->mutation_every = 1, config->learning_rate = 0.1f, config->momentum = 0.9f;
    MAKE(mest_layer, layers, LAYERS);
    layers[0].kind = MEST_LAYER_INPUT, layers[0].channels = INPUTS;
    layers[1].kind = MEST_LAYER_LINEAR, layers[1].channels = 8;
    layers[2].kind = MEST_LAYER_BATCH_NORM;
    layers[3].kind = MEST_LAYER_RELU;
    layers[4].kind = MEST_LAYER_LINEAR, layers[4].channels = CLASSES, layers[4].density = 1;
    MAKE(mest_plan_report, plan, 1);
    MAKE(mest_layer_plan, layer_plans, LAYERS);
    MUST(mest_plan(config, layers, LAYERS, plan, layer_plans) == MEST_OK);
    MUST(plan->layers == LAYERS && plan->total_bytes > 0 && layer_plans[4].columns == 8);
    int seen = 0;
    MAKE(mest_env, env, 1);
    env->progress = progress, env->user = &seen;
    mest_model *model = NULL;
    MUST(mest_model_create(config, layers, LAYERS, env, &model) == MEST_OK);

    float x[SAMPLES * INPUTS];
    int32_t labels[SAMPLES];
    uint32_t ids[SAMPLES];
    for (int i = 0; i < SAMPLES * INPUTS; i++) x[i] = (float)(i * 37 % 11) / 11 - 0.5f;
    for (int i = 0; i < SAMPLES; i++) labels[i] = i % CLASSES, ids[i] = (uint32_t)i;
    MAKE(mest_batch, batch, 1);
    batch->count = 4;
    MAKE(mest_step_report, step, 1);
    for (int i = 0; i < 9; i++) {
        batch->x = x + i % 3 * 4 * INPUTS, batch->labels = labels + i % 3 * 4, batch->ids = ids + i % 3 * 4;
        MUST(mest_model_step(model, batch, step) == MEST_OK && step->count == 4);
    }
    MUST(seen >= 9);
    mest_status status = MEST_MORE;
    while (status == MEST_MORE) status = mest_model_step_slice(model, batch, 10, step);
    MUST(status == MEST_OK && step->update == 10);
    MAKE(mest_mutation_report, mutation, 1);
    MUST(mest_model_mutate(model, mutation) == MEST_OK && mutation->layers == 1);
    MAKE(mest_mutation_layer, moved, 1);
    MUST(mest_model_mutation(model, mutation, moved, 1) == MEST_OK && moved->layer == 1);
    MAKE(mest_epoch_report, epoch, 1);
    MUST(mest_model_begin_epoch(model, epoch) == MEST_OK && epoch->samples == SAMPLES);
    MAKE(mest_forgetting_report, forgetting, 1);
    MUST(mest_model_forgetting(model, forgetting, NULL, 0) == MEST_OK && forgetting->seen == SAMPLES);
    MAKE(mest_selection, selection, 1);
    uint64_t count = 0;
    MUST(mest_model_select(model, selection, NULL, 0, &count) == MEST_OK && count == SAMPLES);
    MAKE(mest_evaluation, evaluation, 1);
    MUST(mest_model_evaluate(model, batch, evaluation) == MEST_OK && evaluation->count == 4);
    MAKE(mest_csr, csr, 1);
    MUST(mest_model_csr_get(model, 1, csr) == MEST_OK && csr->rows == 8 && csr->columns == INPUTS);
    MUST(mest_model_csr_set(model, 1, csr) == MEST_OK);
    MAKE(mest_io, io, 1);
    io->read = read_slot, io->write = write_slot, io->sync = sync_slot;
    MAKE(mest_checkpoint_report, checkpoint, 1);
    MUST(plan->checkpoint_bytes <= sizeof slots[0]);
    MUST(mest_model_save(model, io, checkpoint) == MEST_OK && checkpoint->updates == 10);
    MUST(mest_model_load(model, io, 0, checkpoint) == MEST_OK && checkpoint->slot == 0);
    mest_model_destroy(model);

    CHECK(mest_config, config, 1);
    CHECK(mest_layer, layers, LAYERS);
    CHECK(mest_plan_report, plan, 1);
    CHECK(mest_layer_plan, layer_plans, LAYERS);
    CHECK(mest_env, env, 1);
    CHECK(mest_batch, batch, 1);
    CHECK(mest_step_report, step, 1);
    CHECK(mest_mutation_report, mutation, 1);
    CHECK(mest_mutation_layer, moved, 1);
    CHECK(mest_epoch_report, epoch, 1);
    CHECK(mest_forgetting_report, forgetting, 1);
    CHECK(mest_selection, selection, 1);
    CHECK(mest_evaluation, evaluation, 1);
    CHECK(mest_csr, csr, 1);
    CHECK(mest_io, io, 1);
    CHECK(mest_checkpoint_report, checkpoint, 1);
    return bad != 0;
}
