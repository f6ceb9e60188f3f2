/* SPDX-License-Identifier: Apache-2.0
 * Time and memory of training, dense against sparse, on the machine it runs on.
 *
 *     cc -O2 dense_against_sparse.c -o dense_against_sparse $(pkg-config --cflags --libs mest)
 *     ./dense_against_sparse [threads = 1]
 *
 * A small convolutional network on noise, whose values do not change the work.  The models take turns,
 * so that whatever else the machine does hits all of them; a figure is the median. */
#define _POSIX_C_SOURCE 200809L
#include <mest.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCH = 16, CHANNELS = 3, SIDE = 32, SAMPLE = CHANNELS * SIDE * SIDE, VARIANTS = 4, ROUNDS = 11 };

static const float density[VARIANTS] = { 1.0f, 0.2f, 0.1f, 0.05f };
static float x[BATCH * SAMPLE];
static int32_t labels[BATCH];

#define CONV(FEATURES, STRIDE)                                                                         \
    { MEST_LAYER_HEAD(MEST_LAYER_CONV2D), .channels = FEATURES, .kernel_h = 3, .stride_h = STRIDE,     \
      .pad_h = 1, .pad_w = 1, .flags = MEST_FLAG_NO_BIAS },                                            \
    { MEST_LAYER_HEAD(MEST_LAYER_BATCH_NORM) },                                                        \
    { MEST_LAYER_HEAD(MEST_LAYER_RELU) }

static const mest_layer layers[] = {
    { MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = CHANNELS, .height = SIDE, .width = SIDE },
    CONV(32, 1), CONV(32, 1), CONV(64, 2), CONV(64, 1), CONV(128, 2), CONV(128, 1),
    { MEST_LAYER_HEAD(MEST_LAYER_GLOBAL_AVG_POOL) },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = 10, .density = 1.0f },
};

static void check(mest_status status, const mest_model *model)
{
    if (status == MEST_OK) return;
    fprintf(stderr, "%s: %s\n", mest_status_string(status), mest_last_error(model));
    exit(1);
}

static double milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
    mest_batch batch = { .struct_size = sizeof batch, .count = BATCH, .x = x, .labels = labels };
    mest_model *model[VARIANTS];
    mest_plan_report plan[VARIANTS];
    double ms[VARIANTS][ROUNDS];
    uint32_t count = sizeof layers / sizeof *layers;

    for (int i = 0; i < BATCH * SAMPLE; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (int i = 0; i < BATCH; i++) labels[i] = i % 10;
    for (int v = 0; v < VARIANTS; v++) {
        mest_config config = MEST_CONFIG_INIT;
        config.batch = BATCH;
        config.threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 1;
        config.learning_rate = 0.01f;
        config.momentum = 0.9f;
        config.density = density[v];
        plan[v] = (mest_plan_report){ .struct_size = sizeof *plan };
        check(mest_plan(&config, layers, count, &plan[v], NULL), NULL);
        check(mest_model_create(&config, layers, count, NULL, &model[v]), NULL);
    }
    for (int round = -1; round < ROUNDS; round++) /* the first touches the memory and is not counted */
        for (int v = 0; v < VARIANTS; v++) {
            mest_step_report report = { .struct_size = sizeof report };
            double begin = milliseconds();
            check(mest_model_step(model[v], &batch, &report), model[v]);
            if (round >= 0) ms[v][round] = milliseconds() - begin;
        }

    printf("%s\nbatch %d, %u threads, a training step and its memory\n\n", mest_build_info(), BATCH, plan[0].threads);
    printf("sparsity   ms a step   than dense   model bytes   whole block\n");
    for (int v = 0; v < VARIANTS; v++) {
        uint64_t bytes = plan[v].weight_bytes + plan[v].index_bytes + plan[v].gradient_bytes + plan[v].state_bytes;
        qsort(ms[v], ROUNDS, sizeof(double), by_size);
        printf("%6.0f %% %11.2f %11.1fx %13llu %13llu\n", 100 * (1 - (double)density[v]), ms[v][ROUNDS / 2],
               ms[0][ROUNDS / 2] / ms[v][ROUNDS / 2], (unsigned long long)bytes,
               (unsigned long long)plan[v].total_bytes);
        mest_model_destroy(model[v]);
    }
    return 0;
}
