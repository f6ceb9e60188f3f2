/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products of one sparse linear layer by the library's kernels, for benchmarks/products.py, which loads
 * this file and the kernels as one shared library.
 */
#include <CMestKernels.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    mestk_context context;
    mestk_weights weights;
    int32_t blocks, lanes;
} products;

static void *copy(const void *from, size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes + 64)) abort();
    if (from) memcpy(p, from, bytes);
    return p;
}

/* Lanes as the engine chooses them: x, y and their gradients lie [block][channel][lane]. */
int32_t products_lanes(int32_t batch)
{
    return batch > 8 ? 16 : batch > 4 ? 8 : batch > 1 ? 4 : 1;
}

/* A matrix in compressed sparse rows, on one thread. */
products *products_new(int32_t batch, int32_t rows, int32_t channels, const uint32_t *row_start,
                       const uint16_t *column, const float *value)
{
    size_t count = row_start[rows];
    uint32_t *channel_start = copy(NULL, ((size_t)channels + 1) * 4), *position = copy(NULL, count * 4);
    uint16_t *key = copy(NULL, count * 2);
    products *p = copy(NULL, sizeof *p);
    mestk_index_by_channel(rows, channels, 1, row_start, column, channel_start, key, position);
    p->lanes = products_lanes(batch);
    p->blocks = (batch + p->lanes - 1) / p->lanes;
    p->context = (mestk_context){mestk_best_level(), 1, NULL, NULL};
    p->weights = (mestk_weights){
        .rows = rows, .channels = channels, .taps = 1, .row_start = copy(row_start, ((size_t)rows + 1) * 4),
        .column = copy(column, count * 2), .channel_start = channel_start, .key = key, .position = position,
        .value = copy(value, count * 4), .form = MESTK_FORM_SINGLE, .group = 1};
    return p;
}

/* y = W x */
void products_forward(const products *p, const float *x, float *y)
{
    mestk_linear_forward(&p->context, p->blocks, p->lanes, &p->weights, NULL, x, y);
}

/* dx = W^T dy, and dw += dy x^T where W has connections: in one pass over them. */
void products_backward(const products *p, const float *x, const float *dy, float *dx, float *dw)
{
    mestk_linear_backward(&p->context, p->blocks, p->lanes, &p->weights, x, dy, dx, 0, dw, NULL, 0);
}

void products_delete(products *p)
{
    free((void *)p->weights.row_start), free((void *)p->weights.column), free((void *)p->weights.channel_start);
    free((void *)p->weights.key), free((void *)p->weights.position), free((void *)p->weights.value), free(p);
}
