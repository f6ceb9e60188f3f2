/* SPDX-License-Identifier: Apache-2.0
 * Trains a sparse network to read handwritten digits (8 x 8 pixels) where there is no heap: the digits are constants in
 * flash, the model lives in one static array, checkpoints go to two slots of a flash chip.  However often the power
 * goes, the training ends on the same bits, on every board.
 *
 *     digits [UPDATE ...]    resets itself after that update of the training: a number for each start */
#include "board.h"
#include "flash.h"
#include <mest.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIXELS = 64, CLASSES = 10, HIDDEN = 80, TRAINING = 1500, BATCH = 8, EPOCHS = 6, SAVE_EVERY = 50 };
enum { MODEL_BYTES = 34368 }; /* what the plan says; a little less where pointers have 4 bytes */

/* 64 pixels 0 .. 16 and the digit. */
static const uint8_t digits[][PIXELS + 1] = {
#include "digits.inc"
};
enum { TEST = sizeof digits / sizeof *digits - TRAINING };

static _Alignas(64) unsigned char block[MODEL_BYTES];
static float x[PIXELS];
static union { /* the digits of an epoch in the order in which they are shown; later what is hashed */
    uint32_t ids[TRAINING];
    float floats[TRAINING]; /* of a layer */
    uint8_t counts[TRAINING];
} scratch;

static const mest_layer layers[] = {
    { MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = PIXELS },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = HIDDEN },
    { MEST_LAYER_HEAD(MEST_LAYER_RELU) },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = CLASSES, .density = 0.5f },
};
enum { LAYERS = sizeof layers / sizeof *layers };

static const mest_config config = {
    .struct_size = sizeof config, .abi_version = MEST_ABI_VERSION,
    .seed = 1, .batch = 1, .micro_batches = BATCH, .threads = 1, .budget_bytes = MODEL_BYTES,
    .learning_rate = 0.03f, .momentum = 0.9f, .weight_decay = 0.001f, .epochs = EPOCHS, .schedule = MEST_SCHEDULE_COSINE,
    /* One connection in ten exists, and they move while it trains ... */
    .density = 0.1f, .method = MEST_METHOD_EMS, .mutation_every = 1, .importance_lambda = 0.01f,
    /* ... then the digits that were never forgotten leave, but half of all stay. */
    .samples = TRAINING, .phase1_epochs = EPOCHS / 2, .remove_rule = MEST_REMOVE_COUNT, .keep_lowest = TRAINING / 2,
};

static void check(mest_status status, const mest_model *model)
{
    if (status == MEST_OK) return;
    printf("%s: %s\n", mest_status_string(status), mest_last_error(model));
    exit(EXIT_FAILURE);
}

/* Which digits the epoch shows, and when: the same for every start in it. */
static uint32_t order(mest_model *model, uint32_t epoch)
{
    mest_selection all = { .struct_size = sizeof all };
    uint32_t *ids = scratch.ids;
    uint64_t count = 0, state = epoch;
    check(mest_model_select(model, &all, ids, TRAINING, &count), model);
    for (uint32_t i = (uint32_t)count; i > 1; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t j = (uint32_t)(state >> 33) % i, other = ids[j];
        ids[j] = ids[i - 1];
        ids[i - 1] = other;
    }
    return (uint32_t)count;
}

/* One digit, in x until the next. */
static mest_batch show(const uint8_t *digit, const uint32_t *id)
{
    static int32_t label;
    for (int p = 0; p < PIXELS; p++) x[p] = (float)digit[p] / 8 - 1;
    label = digit[PIXELS];
    return (mest_batch){ sizeof(mest_batch), 1, x, &label, NULL, id };
}

static uint32_t correct_of_test(mest_model *model)
{
    uint32_t correct = 0;
    for (uint32_t i = TRAINING; i < TRAINING + TEST; i++) {
        mest_batch digit = show(digits[i], NULL);
        mest_evaluation result = { .struct_size = sizeof result };
        check(mest_model_evaluate(model, &digit, &result), model);
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

/* Of what the training leaves: weights, momentum, connections, forgetting counts. */
static uint64_t hash_of(const mest_model *model)
{
    static const int32_t tensors[] = { MEST_TENSOR_WEIGHT, MEST_TENSOR_WEIGHT_MOMENTUM, MEST_TENSOR_BIAS, MEST_TENSOR_BIAS_MOMENTUM };
    uint64_t value = 0xcbf29ce484222325u;
    for (uint32_t layer = 1; layer < LAYERS; layer += 2) {
        for (int t = 0; t < 4; t++) {
            uint64_t count;
            check(mest_model_tensor_size(model, layer, tensors[t], &count), model);
            check(mest_model_tensor_get(model, layer, tensors[t], scratch.floats, count), model);
            value = hash(value, scratch.floats, (size_t)count * sizeof(float));
        }
        mest_csr csr = { .struct_size = sizeof csr }; /* single weights: a view, no buffer */
        check(mest_model_csr_get(model, layer, &csr), model);
        value = hash(value, csr.row_start, (csr.rows + 1) * sizeof *csr.row_start);
        value = hash(value, csr.column, (size_t)csr.count * sizeof *csr.column);
    }
    check(mest_model_forgetting(model, NULL, scratch.counts, TRAINING), model);
    return hash(value, scratch.counts, TRAINING);
}

/* The update after which this start resets itself; 0: none.  Without arguments the first does, in the middle. */
static uint64_t last_update(uint32_t start, int argc, char **argv)
{
    if (argc < 2) return start == 1 ? 444 : 0;
    return start < (uint32_t)argc ? strtoul(argv[start], NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_plan(&config, layers, LAYERS, &plan, NULL), NULL);
    mest_model *model;
    check(mest_model_create_in(&config, layers, LAYERS, NULL, block, sizeof block, &model), NULL);

    uint32_t start = flash_start();
    uint64_t reset_at = last_update(start, argc, argv);
    mest_io io = flash_slots((size_t)plan.checkpoint_bytes);
    io.minimum_updates = SAVE_EVERY;
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
    for (uint32_t epoch = saved.epochs > 0 ? saved.epochs - 1 : 0; epoch < EPOCHS; epoch++, next = 0) {
        if (next == 0) check(mest_model_begin_epoch(model, NULL), model);
        uint32_t number = order(model, epoch);
        for (; next < number; next++) {
            mest_batch digit = show(digits[scratch.ids[next]], &scratch.ids[next]);
            mest_step_report step = { .struct_size = sizeof step };
            check(mest_model_step(model, &digit, &step), model);
            check(mest_model_save(model, &io, NULL), model);
            if (reset_at > 0 && step.update == reset_at) board_reset();
        }
        uint32_t permille = correct_of_test(model) * 1000 / TEST;
        printf("epoch %2u, %4u digits: %u.%u %% of the test correct\n", (unsigned)epoch, (unsigned)number,
               (unsigned)permille / 10, (unsigned)permille % 10);
    }

    io.minimum_updates = 0;
    check(mest_model_save(model, &io, NULL), model);
    mest_forgetting_report forgetting = { .struct_size = sizeof forgetting };
    check(mest_model_forgetting(model, &forgetting, NULL, 0), model);
    printf("%u of %u digits never forgotten, %u of them left the training\n", (unsigned)forgetting.unforgettable, TRAINING,
           (unsigned)(TRAINING - forgetting.training));
    flash_counts wear = flash_counted();
    printf("flash: %u bytes written, no sector erased more than %u times\n", (unsigned)wear.written, (unsigned)wear.most);
    printf("model %u stack %u of %u\n", (unsigned)plan.total_bytes, (unsigned)board_stack_used(), (unsigned)board_stack_bytes());
    printf("hash %016llx\n", (unsigned long long)hash_of(model));
    return EXIT_SUCCESS;
}
