/* SPDX-License-Identifier: Apache-2.0
 * Spoken words, 49 frames of 10 MFCCs, and the network of the MLPerf Tiny benchmark for them, DS-CNN-S (Zhang et al.
 * 2017, "Hello Edge"): a convolution, four depthwise and pointwise ones, 64 channels, 12 words: 256 KB of RAM all told
 * (training.h).  Unlike there the first convolution does not reach over the edges of its input, so that pictures have
 * 20 x 4 pixels, which are whole tiles, instead of 25 x 5; and it is as sparse as the pointwise ones.
 *
 * BATCH_NORM: with batch norm, as the benchmark has it.  One sample has no statistics of a batch, and with those of its
 * own pixels it learns what prediction, by the running ones, does not know: biases are in its place by default. */
#include "training.h"

#ifndef BATCH_NORM
#define BATCH_NORM 0
#endif

enum { FRAMES = 49, COEFFICIENTS = 10, VALUES = FRAMES * COEFFICIENTS, CHANNELS = 64, WORDS = 12 };
enum { TRAINING = 128, BATCH = 8, EPOCHS = BATCH_NORM ? 4 : 8 };
enum { MODEL_BYTES = BATCH_NORM ? 238976 : 195008 }; /* what the plan says; a little less where pointers have 4 bytes */

/* -128 .. 127, frame by frame, and the number of the word. */
static const int8_t words[][VALUES + 1] = {
#include "keywords.inc"
};

static _Alignas(64) unsigned char block[MODEL_BYTES];
static uint32_t scratch[WORDS * CHANNELS]; /* the last layer, the largest tensor */

#define CONV(...)                                                                                                    \
    { MEST_LAYER_HEAD(MEST_LAYER_CONV2D), .channels = CHANNELS, .flags = BATCH_NORM ? MEST_FLAG_NO_BIAS : 0, __VA_ARGS__ }
#if BATCH_NORM
#define RELU { MEST_LAYER_HEAD(MEST_LAYER_BATCH_NORM) }, { MEST_LAYER_HEAD(MEST_LAYER_RELU) }
#else
#define RELU { MEST_LAYER_HEAD(MEST_LAYER_RELU) }
#endif
#define BLOCK                                                                                     \
    CONV(.kernel_h = 3, .pad_h = 1, .pad_w = 1, .groups = CHANNELS), RELU, CONV(.kernel_h = 1), RELU

static const mest_layer layers[] = {
    { MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = 1, .height = FRAMES, .width = COEFFICIENTS },
    CONV(.kernel_h = 10, .kernel_w = 4, .stride_h = 2), RELU,
    BLOCK, BLOCK, BLOCK, BLOCK,
    { MEST_LAYER_HEAD(MEST_LAYER_GLOBAL_AVG_POOL) },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = WORDS, .density = 1.0f },
};

static const mest_config config = {
    .struct_size = sizeof config, .abi_version = MEST_ABI_VERSION,
    .seed = 1, .batch = 1, .micro_batches = BATCH, .threads = 1, .gradient_chunks = 1, .budget_bytes = MODEL_BYTES,
    /* Pictures in half the memory, of nine the four that backward begins with. */
    .activations = MEST_ACTIVATIONS_BF16, .recompute = MEST_RECOMPUTE_BLOCK,
    .learning_rate = 0.1f, .momentum = 0.9f, .weight_decay = 0.001f, .clip_norm = 1, .epochs = EPOCHS,
    .schedule = MEST_SCHEDULE_COSINE,
    .density = 0.1f, .method = MEST_METHOD_EMS, .mutation_every = 1, .importance_lambda = 0.01f,
    .samples = TRAINING,
};

/* Mean and deviation of each coefficient over all recordings. */
static const float mean[COEFFICIENTS] = { 57.4f, 85.2f, 82.9f, 82.0f, 82.1f, 82.2f, 82.2f, 82.2f, 82.0f, 82.0f };
static const float deviation[COEFFICIENTS] = { 41.6f, 6.7f, 4.4f, 3.4f, 2.9f, 2.2f, 2.0f, 1.8f, 1.7f, 1.6f };

static void show(uint32_t sample, mest_batch *out)
{
    static float x[VALUES];
    static int32_t label;
    for (int i = 0; i < VALUES; i++) x[i] = ((float)words[sample][i] - mean[i % COEFFICIENTS]) / deviation[i % COEFFICIENTS];
    label = words[sample][VALUES];
    out->x = x;
    out->labels = &label;
}

int main(int argc, char **argv)
{
    const training t = { .samples = "words", .config = &config, .layers = layers, .count = sizeof layers / sizeof *layers,
                         .block = block, .scratch = scratch, .scratch_words = WORDS * CHANNELS,
                         .test = sizeof words / sizeof *words - TRAINING, .save_every = 10,
                         .reset_at = EPOCHS * 6 + 3, .show = show };
    return train(&t, argc, argv);
}
