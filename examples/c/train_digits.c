/* SPDX-License-Identifier: Apache-2.0
 * Trains a small sparse convolutional network to read handwritten digits (8 x 8 pixels), one tenth of
 * its connections at a time, and lets it forget what it need not learn again.
 *
 *     cc -O2 train_digits.c -o train_digits $(pkg-config --cflags --libs mest)
 *     gzip -dc ../data/digits.csv.gz | ./train_digits
 *     ./train_digits digits.csv
 *
 * Input: lines of 64 pixels 0..16 and the digit, separated by commas. */
#include <mest.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIXELS = 64, CLASSES = 10, MOST = 4000, BATCH = 32, EPOCHS = 24, TEST = 297 };

static float x[MOST][PIXELS], batch_x[BATCH][PIXELS];
static int32_t digit[MOST], batch_label[BATCH];
static uint32_t ids[MOST];
static uint8_t forgotten[MOST];

/* The number of digits; 0 when a line is not whole. */
static uint32_t read_digits(FILE *file)
{
    uint32_t count = 0;
    for (; count < MOST; count++) {
        int value = 0;
        for (int i = 0; i < PIXELS; i++) {
            int found = fscanf(file, "%d ,", &value);
            if (found == EOF && i == 0) return count;
            if (found != 1) return 0;
            x[count][i] = (float)value / 8 - 1;
        }
        if (fscanf(file, "%d", &value) != 1 || value < 0 || value >= CLASSES) return 0;
        digit[count] = value;
    }
    return count;
}

static void check(mest_status status, const mest_model *model)
{
    if (status == MEST_OK) return;
    fprintf(stderr, "%s: %s\n", mest_status_string(status), mest_last_error(model));
    exit(1);
}

static void shuffle(uint32_t *list, uint64_t count)
{
    static uint64_t state = 1;
    for (uint64_t i = count; i > 1; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t j = (state >> 33) % i;
        uint32_t other = list[j];
        list[j] = list[i - 1];
        list[i - 1] = other;
    }
}

static const mest_layer layers[] = {
    { MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = 1, .height = 8, .width = 8 },
    { MEST_LAYER_HEAD(MEST_LAYER_CONV2D), .channels = 32, .kernel_h = 3, .pad_h = 1, .pad_w = 1,
      .flags = MEST_FLAG_NO_BIAS, .density = 1 },
    { MEST_LAYER_HEAD(MEST_LAYER_BATCH_NORM) },
    { MEST_LAYER_HEAD(MEST_LAYER_RELU) },
    { MEST_LAYER_HEAD(MEST_LAYER_CONV2D), .channels = 64, .kernel_h = 3, .stride_h = 2, .pad_h = 1, .pad_w = 1,
      .flags = MEST_FLAG_NO_BIAS },
    { MEST_LAYER_HEAD(MEST_LAYER_BATCH_NORM) },
    { MEST_LAYER_HEAD(MEST_LAYER_RELU) },
    { MEST_LAYER_HEAD(MEST_LAYER_FLATTEN) },
    { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = CLASSES },
};

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "r") : stdin;
    if (!file) return perror(argv[1]), 1;
    uint32_t samples = read_digits(file);
    if (samples <= TEST) return fprintf(stderr, "usage: train_digits [digits.csv], lines of 64 pixels and a digit\n"), 1;
    uint32_t training = samples - TEST;

    mest_config config = MEST_CONFIG_INIT;
    config.seed = 1;
    config.batch = BATCH;
    config.learning_rate = 0.05f;
    config.momentum = 0.9f;
    config.weight_decay = 5e-4f;
    config.epochs = EPOCHS;
    config.schedule = MEST_SCHEDULE_COSINE;
    config.density = 0.1f;                     /* one tenth of the connections exist ... */
    config.method = MEST_METHOD_EMS;       /* ... and move while it trains           */
    config.mutation_every = 2;
    config.importance_lambda = 0.01f;
    config.samples = training;
    config.phase1_epochs = EPOCHS / 2;         /* then those never forgotten leave ...   */
    config.remove_rule = MEST_REMOVE_COUNT;
    config.keep_lowest = training / 2;         /* ... but half of all stay               */

    uint32_t count = sizeof layers / sizeof *layers;
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_plan(&config, layers, count, &plan, NULL), NULL);
    printf("%s\n", mest_build_info());
    printf("plan: %llu of %llu weights, %llu bytes in all; weights, gradients and state of the dense network: %llu bytes\n",
           (unsigned long long)plan.active, (unsigned long long)plan.parameters,
           (unsigned long long)plan.total_bytes, (unsigned long long)plan.dense_bytes);

    mest_model *model;
    check(mest_model_create(&config, layers, count, NULL, &model), NULL);
    for (uint32_t e = 0; e < EPOCHS; e++) {
        mest_epoch_report epoch = { .struct_size = sizeof epoch };
        mest_selection remaining = { .struct_size = sizeof remaining, .rule = MEST_REMOVE_NONE };
        uint64_t number = 0;
        check(mest_model_begin_epoch(model, &epoch), model);
        check(mest_model_select(model, &remaining, ids, MOST, &number), model);
        shuffle(ids, number);

        double loss = 0;
        uint32_t correct = 0;
        for (uint32_t first = 0; first < number; first += BATCH) {
            uint32_t n = number - first < BATCH ? (uint32_t)number - first : BATCH;
            for (uint32_t i = 0; i < n; i++) {
                for (int p = 0; p < PIXELS; p++) batch_x[i][p] = x[ids[first + i]][p];
                batch_label[i] = digit[ids[first + i]];
            }
            mest_batch batch = { sizeof batch, n, batch_x[0], batch_label, NULL, ids + first };
            mest_step_report step = { .struct_size = sizeof step };
            check(mest_model_step(model, &batch, &step), model);
            loss += step.loss * n;
            correct += step.correct;
        }
        printf("epoch %2u  loss %.4f  correct %5.1f %% of %4u", e, loss / number, 100.0 * correct / number,
               (unsigned)number);
        if (epoch.events & MEST_EVENT_MUTATED) printf("  moved: %u dropped, %u grown", epoch.dropped, epoch.grown);
        if (epoch.events & MEST_EVENT_REMOVED) printf("  phase 2: %u samples left", training - epoch.samples);
        putchar('\n');
    }

    mest_batch test = { sizeof test, TEST, x[training], digit + training, NULL, NULL };
    mest_evaluation result = { .struct_size = sizeof result };
    check(mest_model_evaluate(model, &test, &result), model);
    printf("test, the last %d of the file (harder than a random choice): loss %.4f, %.1f %% correct\n", TEST,
           result.loss, 100.0 * result.correct / TEST);

    mest_mutation_report moved = { .struct_size = sizeof moved };
    check(mest_model_mutation(model, &moved, NULL, 0), model);
    printf("mutation: %u times; density %.3f, %.0f %% of the positions were tried\n", moved.mutations,
           moved.density, 100 * moved.explored);
    mest_forgetting_report memory = { .struct_size = sizeof memory };
    check(mest_model_forgetting(model, &memory, forgotten, MOST), model);
    printf("forgetting, phase %u: %llu times; %u samples never forgotten, %u never learned\n", memory.phase,
           (unsigned long long)memory.events, memory.unforgettable, memory.never_learned);
    mest_model_destroy(model);
    return 100 * result.correct < 90 * TEST;
}
