/* SPDX-License-Identifier: Apache-2.0
 * Handwritten digits of 8 x 8 pixels, a sparse network of two layers: 64 KB of RAM all told (training.h). */
#include "training.h"

enum { PIXELS = 64, CLASSES = 10, HIDDEN = 80, TRAINING = 1500, BATCH = 8, EPOCHS = 6 };
enum { MODEL_BYTES = 34368 }; /* what the plan says; a little less where pointers have 4 bytes */

/* 64 pixels 0 .. 16 and the digit. */
static const uint8_t digits[][PIXELS + 1] = {
#include "digits.inc"
};

static _Alignas(64) unsigned char block[MODEL_BYTES];
static uint32_t scratch[TRAINING];

static const mest_layer layers[] = {
    { MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = PIXELS },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = HIDDEN },
    { MEST_LAYER_HEAD(MEST_LAYER_RELU) },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = CLASSES, .density = 0.5f },
};

static const mest_config config = {
    .struct_size = sizeof config, .abi_version = MEST_ABI_VERSION,
    .seed = 1, .batch = 1, .micro_batches = BATCH, .threads = 1, .budget_bytes = MODEL_BYTES,
    .learning_rate = 0.03f, .momentum = 0.9f, .weight_decay = 0.001f, .epochs = EPOCHS, .schedule = MEST_SCHEDULE_COSINE,
    /* One connection in ten exists, and they move while it trains ... */
    .density = 0.1f, .method = MEST_METHOD_EMS, .mutation_every = 1, .importance_lambda = 0.01f,
    /* ... then the digits that were never forgotten leave, but half of all stay. */
    .samples = TRAINING, .phase1_epochs = EPOCHS / 2, .remove_rule = MEST_REMOVE_COUNT, .keep_lowest = TRAINING / 2,
};

static void show(uint32_t sample, mest_batch *out)
{
    static float x[PIXELS];
    static int32_t label;
    for (int p = 0; p < PIXELS; p++) x[p] = (float)digits[sample][p] / 8 - 1;
    label = digits[sample][PIXELS];
    out->x = x;
    out->labels = &label;
}

int main(int argc, char **argv)
{
    const training t = { .samples = "digits", .config = &config, .layers = layers, .count = sizeof layers / sizeof *layers,
                         .block = block, .scratch = scratch, .scratch_words = TRAINING,
                         .test = sizeof digits / sizeof *digits - TRAINING, .save_every = 50,
                         .reset_at = 444, .show = show };
    return train(&t, argc, argv);
}
