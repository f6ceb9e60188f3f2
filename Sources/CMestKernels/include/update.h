/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to packed parameters: gradients, SGD, importance.  n: parameters that exist. */
#ifndef MESTK_UPDATE_H
#define MESTK_UPDATE_H
#include "parallel.h"

typedef struct mestk_sgd {
    float learning_rate, momentum, weight_decay;
    float scale;      /* gradient factor: clipping */
    int32_t nesterov;
} mestk_sgd;

/* d = fma(weight_decay, w, scale * g); m = fma(momentum, m, d); w = fma(-learning_rate, nesterov ?
 * fma(momentum, m, d) : m, w). */
void mestk_sgd_update(const mestk_context *k, int64_t n, mestk_sgd h, const float *g, float *w, float *m);

/* a = beta * a + (1 - beta) * |g|. */
void mestk_gradient_average(const mestk_context *k, int64_t n, float beta, const float *g, float *a);

/* Sum of squares in double: chunks of 4096 values; inside a chunk 16 virtual lanes (value i to lane i
 * mod 16) of fp32 fma, lane tree; chunk sums added in double in order.  Not finite when a value is
 * not. */
double mestk_sum_of_squares(const mestk_context *k, int64_t n, const float *x);

/* Sum of |x|: the same decomposition. */
double mestk_sum_of_magnitudes(const mestk_context *k, int64_t n, const float *x);
#endif
