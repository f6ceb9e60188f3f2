/* SPDX-License-Identifier: Apache-2.0 */
/* Packed parameters: chunks.  The arithmetic is in flat.h. */
#include "internal.h"

typedef struct update {
    const mestk_kernels *kernels;
    int64_t n;
    mestk_sgd h;
    float beta;
    const float *g;
    float *w, *m;
} update;

static void sgd_chunk(void *argument, uint32_t index, uint32_t worker)
{
    const update *u = argument;
    int64_t i = (int64_t)index * MESTK_CHUNK;
    (void)worker;
    u->kernels->sgd(mestk_min64(MESTK_CHUNK, u->n - i), u->h, u->g + i, u->w + i, u->m + i);
}

void mestk_sgd_update(const mestk_context *k, int64_t n, mestk_sgd h, const float *g, float *w, float *m)
{
    update u = {.kernels = mestk_kernels_of(k->level), .n = n, .h = h, .g = g, .w = w, .m = m};
    mestk_run(k, (uint32_t)((n + MESTK_CHUNK - 1) / MESTK_CHUNK), sgd_chunk, &u);
}

static void average_chunk(void *argument, uint32_t index, uint32_t worker)
{
    const update *u = argument;
    int64_t i = (int64_t)index * MESTK_CHUNK;
    (void)worker;
    u->kernels->gradient_average(mestk_min64(MESTK_CHUNK, u->n - i), u->beta, u->g + i, u->m + i);
}

void mestk_gradient_average(const mestk_context *k, int64_t n, float beta, const float *g, float *a)
{
    update u = {.kernels = mestk_kernels_of(k->level), .n = n, .beta = beta, .g = g, .m = a};
    mestk_run(k, (uint32_t)((n + MESTK_CHUNK - 1) / MESTK_CHUNK), average_chunk, &u);
}

double mestk_sum_of_squares(const mestk_context *k, int64_t n, const float *x)
{
    return mestk_kernels_of(k->level)->sum_of_squares(n, x);
}

double mestk_sum_of_magnitudes(const mestk_context *k, int64_t n, const float *x)
{
    return mestk_kernels_of(k->level)->sum_of_magnitudes(n, x);
}
