/* SPDX-License-Identifier: Apache-2.0
 * One epoch of ResNet-20 on CIFAR-10 with a tenth of its connections (EM&S), in the order of the
 * files, and one hash of everything learnt: the same for every number of threads and instruction set.
 *
 *     cc -O2 train_cifar.c -o train_cifar $(pkg-config --cflags --libs mest)
 *     ./train_cifar [-t threads] [-s simd] [-n steps] data_batch_*.bin
 *
 * The hash: FNV-1a, 64 bits, over the bytes of every tensor but gradients, by layer, then by number
 * of the tensor (MEST_TENSOR_*). */
#include <mest.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIXELS = 3 * 32 * 32, RECORD = 1 + PIXELS, BATCH = 128, WIDTH = 16 };

static void check(mest_status status, const mest_model *model)
{
    if (status == MEST_OK) return;
    fprintf(stderr, "%s: %s\n", mest_status_string(status), mest_last_error(model));
    exit(1);
}

/* -------------------------------------------------------------------------------- ResNet-20 --- */

static mest_layer layers[96];
static uint32_t count;

static mest_layer *add(int32_t kind)
{
    layers[count] = (mest_layer){ MEST_LAYER_HEAD(kind) };
    return &layers[count++];
}

static void add_conv(int32_t from, uint32_t channels, uint32_t kernel, uint32_t stride)
{
    mest_layer *conv = add(MEST_LAYER_CONV2D);
    conv->from = from;
    conv->channels = channels;
    conv->kernel_h = kernel;
    conv->stride_h = stride;
    conv->pad_h = conv->pad_w = kernel / 2;
    conv->flags = MEST_FLAG_NO_BIAS;
    add(MEST_LAYER_BATCH_NORM);
}

/* Two convolutions and a way around them. */
static void add_block(uint32_t channels, uint32_t stride)
{
    int32_t from = (int32_t)count - 1, around = from;
    add_conv(0, channels, 3, stride);
    add(MEST_LAYER_RELU);
    add_conv(0, channels, 3, 1);
    int32_t through = (int32_t)count - 1;
    if (stride != 1) {
        add_conv(from, channels, 1, stride);
        around = (int32_t)count - 1;
    }
    mest_layer *sum = add(MEST_LAYER_ADD);
    sum->from = through;
    sum->with = around;
    add(MEST_LAYER_RELU);
}

static void describe(void)
{
    mest_layer *input = add(MEST_LAYER_INPUT);
    input->channels = 3;
    input->height = input->width = 32;
    add_conv(0, WIDTH, 3, 1);
    add(MEST_LAYER_RELU);
    for (uint32_t stage = 0; stage < 3; stage++)
        for (uint32_t block = 0; block < 3; block++) add_block(WIDTH << stage, stage && !block ? 2 : 1);
    add(MEST_LAYER_GLOBAL_AVG_POOL);
    mest_layer *out = add(MEST_LAYER_LINEAR);
    out->channels = 10;
    out->density = 1;
}

/* ------------------------------------------------------------------------------------- data --- */

static uint8_t record[RECORD];
static float x[BATCH][PIXELS];
static int32_t label[BATCH];

static int read_sample(FILE *file, uint32_t at)
{
    static const float mean[3] = { 0.4914f, 0.4822f, 0.4465f }, deviation[3] = { 0.2470f, 0.2435f, 0.2616f };
    size_t got = fread(record, 1, RECORD, file);
    if (got == 0 && !ferror(file)) return 0;
    if (got != RECORD || record[0] > 9) {
        fprintf(stderr, "train_cifar: not whole records of 1 + 3072 bytes with labels 0 to 9; is the file complete?\n");
        exit(1);
    }
    label[at] = record[0];
    for (int i = 0; i < PIXELS; i++)
        x[at][i] = ((float)record[1 + i] / 255.0f - mean[i / 1024]) / deviation[i / 1024];
    return 1;
}

/* ------------------------------------------------------------------------------------- hash --- */

static uint64_t hash_tensors(const mest_model *model)
{
    uint64_t hash = 0xcbf29ce484222325u, floats;
    for (uint32_t layer = 0; layer < count; layer++) {
        for (int32_t tensor = MEST_TENSOR_WEIGHT; tensor <= MEST_TENSOR_RUNNING_VAR; tensor++) {
            if (tensor == MEST_TENSOR_WEIGHT_GRADIENT || tensor == MEST_TENSOR_BIAS_GRADIENT
                || tensor == MEST_TENSOR_SCALE_GRADIENT
                || mest_model_tensor_size(model, layer, tensor, &floats) != MEST_OK)
                continue;
            float *values = malloc(sizeof *values * floats);
            if (!values) exit(1);
            check(mest_model_tensor_get(model, layer, tensor, values, floats), model);
            const uint8_t *bytes = (const uint8_t *)values;
            for (uint64_t i = 0; i < sizeof *values * floats; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
            free(values);
        }
    }
    return hash;
}

int main(int argc, char **argv)
{
    mest_config config = MEST_CONFIG_INIT;
    unsigned long most = 0;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        unsigned long value = strtoul(argv[at + 1], NULL, 10);
        if (!strcmp(argv[at], "-t")) config.threads = (uint32_t)value;
        else if (!strcmp(argv[at], "-s")) config.simd = (int32_t)value;
        else if (!strcmp(argv[at], "-n")) most = value;
    }
    if (at >= argc) return fprintf(stderr, "usage: train_cifar [-t threads] [-s simd] [-n steps] data_batch_*.bin\n"), 1;

    config.seed = 1;
    config.batch = BATCH;
    config.learning_rate = 0.1f;
    config.momentum = 0.9f;
    config.weight_decay = 1e-4f;
    config.epochs = 160;
    config.samples = 50000;
    config.density = 0.1f;
    config.distribution = MEST_DISTRIBUTION_ERK;
    config.method = MEST_METHOD_EMS;
    config.importance_lambda = 0.01f;

    describe();
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_plan(&config, layers, count, &plan, NULL), NULL);
    printf("%s\n%llu of %llu weights, %llu bytes, %u threads\n", mest_build_info(), (unsigned long long)plan.active,
           (unsigned long long)plan.parameters, (unsigned long long)plan.total_bytes, plan.threads);
    mest_model *model;
    check(mest_model_create(&config, layers, count, NULL, &model), NULL);

    struct timespec began, now;
    timespec_get(&began, TIME_UTC);
    unsigned long steps = 0, samples = 0, correct = 0;
    double loss = 0;
    uint32_t filled = 0;
    for (FILE *file = NULL; at < argc && (!most || steps < most);) {
        if (!file && !(file = fopen(argv[at], "rb"))) return perror(argv[at]), 1;
        int more = read_sample(file, filled);
        if (more) filled++;
        else fclose(file), file = NULL, at++;
        if (filled < BATCH && (at < argc || !filled)) continue;

        mest_batch batch = { sizeof batch, filled, x[0], label, NULL, NULL };
        mest_step_report step = { .struct_size = sizeof step };
        check(mest_model_step(model, &batch, &step), model);
        steps++;
        samples += filled;
        correct += step.correct;
        loss += (double)step.loss * filled;
        filled = 0;
        if (steps % 50) continue;
        timespec_get(&now, TIME_UTC);
        double seconds = (double)(now.tv_sec - began.tv_sec) + 1e-9 * (double)(now.tv_nsec - began.tv_nsec);
        printf("step %4lu  loss %.4f  correct %4.1f %%  %.1f ms a step\n", steps, loss / (double)samples,
               100.0 * (double)correct / (double)samples, 1e3 * seconds / (double)steps);
    }
    printf("%lu steps, %lu samples, hash %016llx\n", steps, samples, (unsigned long long)hash_tensors(model));
    mest_model_destroy(model);
    return 0;
}
