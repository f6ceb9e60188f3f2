/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the kernels are: GFLOP/s of convolution and linear layers, level by level.  Not a test.
 *
 *   clang -O2 -ffp-contract=off -DMESTK_THREADS Tests/c/kernels/kernels_speed.c Sources/CMestKernels/?*.c \
 *         -ISources/CMestKernels/include -lpthread -o kernels_speed
 *   ./kernels_speed [batch = 64] [slowest level = 2] [milliseconds a figure = 60]
 *
 * A figure is the best of many runs: processor time for one thread, wall clock for two.  FLOP: 2 per
 * connection and pixel forward, 4 backward (dx and dw), padding not counted.  A convolution as networks have
 * it: behind batch norm and ReLU, which it reads as an operand; in front of a batch norm, whose sums it
 * gathers and whose gradient it reads; dx masked by the ReLU and summed for the norm.  Linear 1024 -> 1024.
 * Norm and the like: GB/s of what must move.
 */
#include <CMestKernels.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double budget = 0.06;
static clockid_t meter;

static double now(void)
{
    struct timespec t;
    clock_gettime(meter, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *block(int64_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, (size_t)bytes)) abort();
    return p;
}
static float *values(int64_t n)
{
    float *p = block(n * 4);
    for (int64_t i = 0; i < n; i++) p[i] = (float)rand() / 1e9f - 1.0f;
    return p;
}
static void *tensor(mestk_shape s)
{
    int64_t n = mestk_values(s);
    float *x = values(n);
    if (s.format != MESTK_BF16) return x;
    uint16_t *halves = block(n * 2);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        halves[i] = (uint16_t)((bits + 0x8000u) >> 16);
    }
    free(x);
    return halves;
}

static mestk_weights connections(int rows, int channels, int taps, double sparsity, int64_t *count)
{
    mestk_weights w = {.rows = rows, .channels = channels, .taps = taps};
    int64_t most = (int64_t)rows * channels * taps, n = 0;
    if (sparsity > 0) {
        uint32_t *row_start = malloc((size_t)(rows + 1) * 4), *channel_start = malloc((size_t)(channels + 1) * 4);
        uint32_t *position = malloc((size_t)most * 4);
        uint16_t *column = malloc((size_t)most * 2), *key = malloc((size_t)most * 2);
        row_start[0] = 0;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < channels * taps; c++)
                if (rand() / (double)RAND_MAX >= sparsity) column[n++] = (uint16_t)c;
            row_start[r + 1] = (uint32_t)n;
        }
        mestk_index_by_channel(rows, channels, taps, row_start, column, channel_start, key, position);
        w.row_start = row_start, w.column = column, w.channel_start = channel_start, w.key = key, w.position = position;
    } else {
        n = most;
    }
    w.value = values(n);
    *count = n;
    return w;
}
static void release(mestk_weights *w)
{
    free((void *)w->row_start), free((void *)w->column), free((void *)w->channel_start), free((void *)w->key);
    free((void *)w->position), free((void *)w->value);
}

#define BEST(statement)                                                                                       \
    ({                                                                                                        \
        double best_ = 1e9, begin_ = now();                                                                   \
        do {                                                                                                  \
            double t_ = now();                                                                                \
            statement;                                                                                        \
            t_ = now() - t_;                                                                                  \
            if (t_ < best_) best_ = t_;                                                                       \
        } while (now() - begin_ < budget);                                                                    \
        best_;                                                                                                \
    })

static int lanes_of(int batch) { return batch > 8 ? 16 : batch > 4 ? 8 : batch > 1 ? 4 : 1; }

static void conv(int batch, int channels, int side, double sparsity, int stride, int format, const mestk_context *k)
{
    int lanes = lanes_of(batch), blocks = (batch + lanes - 1) / lanes, rows = channels * stride;
    mestk_conv g = {{blocks, lanes, channels, side, side, format}, {blocks, lanes, rows, side / stride, side / stride, format},
                    3, 3, stride, stride, 1, 1};
    int64_t n;
    mestk_weights w = connections(rows, channels, 9, sparsity, &n);
    void *x = tensor(g.in), *y = tensor(g.out), *dy = tensor(g.out), *dx = tensor(g.in);
    float *dw = values(n), *c[5] = {values(channels), values(channels), values(rows), values(rows), values(rows)};
    double *y_sums = block((int64_t)mestk_strips(g.out) * rows * 16), *dx_sums = block((int64_t)mestk_strips(g.in) * channels * 16);
    mestk_operand in = {.x = x, .a = c[0], .b = c[1], .relu = 1}, gradient = {.x = dy, .a = c[2], .b = c[3], .r = y, .c = c[4]};
    mestk_gradient out = {.dx = dx, .masked = 1, .normed = {x}, .sums = {dx_sums}};
    int64_t f = mestk_conv_forward_scratch(&g, k->threads, n), b = mestk_conv_backward_scratch(&g, k->threads, 16, n);
    float *scratch = values(f > b ? f : b);
    double forward = BEST(mestk_conv_forward(k, &g, &w, NULL, &in, y, batch, y_sums, scratch));
    double backward = BEST(mestk_conv_backward(k, &g, &w, &in, &gradient, batch, &out, dw, NULL, 16, scratch));
    double flop = 2e-9 * (double)n * g.out.height * g.out.width * batch;
    printf("  %5.1f %5.1f", flop / forward, 2 * flop / backward);
    fflush(stdout);
    free(x), free(y), free(dy), free(dx), free(dw), free(y_sums), free(dx_sums), free(scratch);
    for (int i = 0; i < 5; i++) free(c[i]);
    release(&w);
}

static void linear(int batch, double sparsity, const mestk_context *k)
{
    int lanes = lanes_of(batch), blocks = (batch + lanes - 1) / lanes;
    int64_t n, size = (int64_t)blocks * lanes * 1024;
    mestk_weights w = connections(1024, 1024, 1, sparsity, &n);
    float *x = values(size), *y = values(size), *dx = values(size), *dw = values(n);
    double forward = BEST(mestk_linear_forward(k, blocks, lanes, &w, NULL, x, y));
    double backward = BEST(mestk_linear_backward(k, blocks, lanes, &w, x, y, dx, 0, dw, NULL, 0));
    double flop = 2e-9 * (double)n * batch;
    printf("  %5.1f %5.1f", flop / forward, 2 * flop / backward);
    free(x), free(y), free(dx), free(dw);
    release(&w);
}

static void rest(int batch, int format, const mestk_context *k)
{
    int lanes = lanes_of(batch);
    mestk_shape s = {(batch + lanes - 1) / lanes, lanes, 64, 16, 16, format};
    void *x = tensor(s), *y = tensor(s), *dy = tensor(s);
    float *c[3] = {values(64), values(64), values(64)};
    double *sums = block((int64_t)mestk_strips(s) * 64 * 16), giga = 1e-9 * (double)mestk_bytes(s);
    mestk_operand normed = {.x = x, .a = c[0], .b = c[1], .relu = 1}, added = {.x = x, .a = c[0], .b = c[1], .r = y, .relu = 1};
    mestk_operand gradient = {.x = dy, .a = c[0], .b = c[1], .r = x, .c = c[2]};
    mestk_gradient finish = {.dx = dy, .masked = 1, .normed = {x}, .sums = {sums}};
    double moments = BEST(mestk_norm_moments(k, s, batch, x, c[0], sums));
    double evaluate = BEST(mestk_evaluate(k, s, &normed, y));
    double residual = BEST(mestk_evaluate(k, s, &added, y));
    double backward = BEST(mestk_norm_backward(k, s, batch, &gradient, y, 0));
    double relu = BEST(mestk_relu_backward(k, s, &normed, dy, y, 0));
    double masked = BEST(mestk_finish_gradient(k, s, &normed, &finish));
    printf("  %s: norm moments %.1f  evaluate %.1f  with residual %.1f  norm backward %.1f  relu backward %.1f  finish %.1f",
           format == MESTK_BF16 ? "bf16" : "f32", giga / moments, 2 * giga / evaluate, 3 * giga / residual, 3 * giga / backward,
           3 * giga / relu, 3 * giga / masked);
    if (format == MESTK_F32) {
        int64_t n = mestk_values(s);
        mestk_sgd h = {0.01f, 0.9f, 1e-4f, 1.0f, 0};
        printf("  sgd %.1f", 5 * giga / BEST(mestk_sgd_update(k, n, h, dy, x, y)));
    }
    printf(" GB/s\n");
    free(x), free(y), free(dy), free(c[0]), free(c[1]), free(c[2]), free(sums);
}

int main(int argc, char **argv)
{
    enum { SPARSITIES = 5 };
    static const double sparsities[SPARSITIES] = {0.8, 0.9, 0.95, 0.98, 0};
    static const int shape[5][3] = {{32, 32, 1}, {64, 16, 1}, {128, 8, 1}, {32, 32, 2}, {64, 16, 2}};
    int batch = argc > 1 ? atoi(argv[1]) : 64, slowest = argc > 2 ? atoi(argv[2]) : 2;
    if (argc > 3) budget = atoi(argv[3]) * 1e-3;
    printf("%s\nbatch %d, GFLOP/s forward backward at 80 %% 90 %% 95 %% 98 %% 0 %% (dense): f32 | bf16\n", mestk_build_info(), batch);
    for (int level = MESTK_FPU; level >= slowest; level--) {
        if (!mestk_has_level(level)) continue;
        for (int threads = 1; threads <= 2; threads++) {
            mestk_context k = {level, threads, NULL, NULL};
            meter = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
            for (int i = 0; i < 5; i++) {
                printf("level %d, %d threads, conv %3dx%2dx%2d /%d", level, threads, shape[i][0], shape[i][1], shape[i][1], shape[i][2]);
                for (int format = MESTK_F32; format <= MESTK_BF16; format++) {
                    for (int d = 0; d < SPARSITIES; d++) conv(batch, shape[i][0], shape[i][1], sparsities[d], shape[i][2], format, &k);
                    printf(format == MESTK_F32 ? "  |" : "\n");
                }
            }
            printf("level %d, %d threads, linear           ", level, threads);
            for (int d = 0; d < SPARSITIES; d++) linear(batch, sparsities[d], &k);
            printf("\n");
            rest(batch, MESTK_F32, &k);
            rest(batch, MESTK_BF16, &k);
        }
    }
    return 0;
}
