/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the kernels are: GFLOP/s of convolution and linear layers, level by level.  Not a test.
 *
 *   clang -O2 -ffp-contract=off -fopenmp Tests/c/kernels/kernels_speed.c Sources/CMestKernels/?*.c \
 *         -ISources/CMestKernels/include -L/usr/lib/llvm-14/lib -lomp5 -o kernels_speed
 *   ./kernels_speed [batch = 64] [slowest level = 2] [milliseconds a figure = 60]
 *
 * A figure is the best of many runs: processor time for one thread, wall clock for two.  FLOP: 2 per connection and pixel forward, 4 backward
 * (dx and dw), padding not counted.  Linear 1024 -> 1024.  Norm and the like: GB/s of what must move.
 */
#include <CMestKernels.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double budget = 0.06;
static clockid_t meter;

static double now(void)
{
    struct timespec t;
    clock_gettime(meter, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *values(int64_t n)
{
    float *p = NULL;
    if (posix_memalign((void **)&p, 64, (size_t)n * 4)) abort();
    for (int64_t i = 0; i < n; i++) p[i] = (float)rand() / 1e9f - 1.0f;
    return p;
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

static void conv(int batch, int channels, int side, double sparsity, int stride, const mestk_context *k)
{
    int lanes = batch >= 16 ? 16 : batch >= 8 ? 8 : batch >= 4 ? 4 : 1, blocks = (batch + lanes - 1) / lanes;
    mestk_conv g = {{blocks, lanes, channels, side, side}, {blocks, lanes, channels * stride, side / stride, side / stride},
                    3, 3, stride, stride, 1, 1};
    int64_t n;
    mestk_weights w = connections(g.out.channels, channels, 9, sparsity, &n);
    float *x = values(mestk_floats(g.in)), *y = values(mestk_floats(g.out)), *dx = values(mestk_floats(g.in)), *dw = values(n);
    int64_t f = mestk_conv_forward_scratch(&g, k->threads), b = mestk_conv_backward_scratch(&g, k->threads, 16, n);
    float *scratch = values(f > b ? f : b);
    double forward = BEST(mestk_conv_forward(k, &g, &w, NULL, x, y, scratch));
    double backward = BEST(mestk_conv_backward(k, &g, &w, x, y, dx, 0, dw, NULL, 16, scratch));
    double flop = 2e-9 * (double)n * g.out.height * g.out.width * batch;
    printf("  %5.1f %5.1f", flop / forward, 2 * flop / backward);
    free(x), free(y), free(dx), free(dw), free(scratch);
    release(&w);
}

static void linear(int batch, double sparsity, const mestk_context *k)
{
    int lanes = batch >= 16 ? 16 : batch >= 8 ? 8 : batch >= 4 ? 4 : 1, blocks = (batch + lanes - 1) / lanes;
    int64_t n, size = (int64_t)blocks * lanes * 1024;
    mestk_weights w = connections(1024, 1024, 1, sparsity, &n);
    float *x = values(size), *y = values(size), *dx = values(size), *dw = values(n);
    double forward = BEST(mestk_linear_forward(k, blocks, lanes, &w, NULL, x, y));
    double backward = BEST(mestk_linear_backward(k, blocks, lanes, &w, x, y, dx, 0, dw, NULL));
    double flop = 2e-9 * (double)n * batch;
    printf("  %5.1f %5.1f", flop / forward, 2 * flop / backward);
    free(x), free(y), free(dx), free(dw);
    release(&w);
}

static void rest(int batch, const mestk_context *k)
{
    int lanes = batch >= 16 ? 16 : batch >= 8 ? 8 : batch >= 4 ? 4 : 1, blocks = (batch + lanes - 1) / lanes;
    mestk_shape s = {blocks, lanes, 64, 16, 16};
    int64_t n = mestk_floats(s);
    float *x = values(n), *y = values(n), *dy = values(n), *c[4];
    for (int i = 0; i < 4; i++) c[i] = values(64);
    double giga = 4e-9 * (double)n;
    double statistics = BEST(mestk_norm_statistics(k, s, batch, x, c[0], c[1], c[2]));
    double apply = BEST(mestk_norm_apply(k, s, x, c[1], c[2], 1e-5f, c[0], c[3], y));
    double backward = BEST(mestk_norm_backward(k, s, batch, x, c[1], c[2], 1e-5f, c[0], dy, y, 0, NULL, NULL));
    double relu = BEST(mestk_relu_forward(k, n, x, y));
    double relu_back = BEST(mestk_relu_backward(k, n, y, dy, x, 0));
    double add = BEST(mestk_add(k, n, x, dy, y));
    mestk_sgd h = {0.01f, 0.9f, 1e-4f, 1.0f, 0};
    double sgd = BEST(mestk_sgd_update(k, n, h, dy, x, y));
    printf("  norm statistics %.1f  apply %.1f  backward %.1f | relu %.1f  backward %.1f | add %.1f | sgd %.1f GB/s\n", giga / statistics,
           2 * giga / apply, 3 * giga / backward, 2 * giga / relu, 3 * giga / relu_back, 3 * giga / add, 5 * giga / sgd);
    free(x), free(y), free(dy);
    for (int i = 0; i < 4; i++) free(c[i]);
}

int main(int argc, char **argv)
{
    static const double sparsities[4] = {0.8, 0.9, 0.95, 0};
    static const int shape[5][3] = {{32, 32, 1}, {64, 16, 1}, {128, 8, 1}, {32, 32, 2}, {64, 16, 2}};
    int batch = argc > 1 ? atoi(argv[1]) : 64, slowest = argc > 2 ? atoi(argv[2]) : 2;
    if (argc > 3) budget = atoi(argv[3]) * 1e-3;
    printf("%s\nbatch %d, GFLOP/s forward backward at 80 %% 90 %% 95 %% 0 %% (dense)\n", mestk_build_info(), batch);
    for (int level = 3; level >= slowest; level--) {
        if (!mestk_has_level(level)) continue;
        for (int threads = 1; threads <= 2; threads++) {
            mestk_context k = {level, threads, NULL, NULL};
            meter = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
            for (int i = 0; i < 5; i++) {
                printf("level %d, %d threads, conv %3dx%2dx%2d /%d", level, threads, shape[i][0], shape[i][1], shape[i][1], shape[i][2]);
                for (int d = 0; d < 4; d++) conv(batch, shape[i][0], shape[i][1], sparsities[d], shape[i][2], &k);
                printf("\n");
            }
            printf("level %d, %d threads, linear           ", level, threads);
            for (int d = 0; d < 4; d++) linear(batch, sparsities[d], &k);
            printf("\n");
            rest(batch, &k);
        }
    }
    return 0;
}
