/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch normalisation over the valid samples and pixels of each channel (Ioffe & Szegedy 2015).
 *
 *   training    mean, var (biased) of the batch; y = scale * (x - mean) / sqrt(var + eps) + shift
 *   inference   the same with the running statistics
 *   backward    g' = scale * dy;  dx = inv_std * (g' - mean(g') - xhat * mean(g' * xhat))
 *               dscale += sum(dy * xhat);  dshift += sum(dy)
 *
 * Both directions are a x + b and a g + (c x + b) with constants per channel: operands (operand.h), which
 * whoever needs the values computes while reading.  Sums come per strip, from here or from the epilogue of
 * the convolution that made x (conv.h) or finished the gradient.
 *
 * Sums are shifted by `pivot` (the running mean: close to the mean, so nothing cancels):
 * var = E[(x-p)^2] - (E[x-p])^2, not below 0.  A convolution in front of a batch norm stores x - p itself
 * ("centred"): no shift is left to do, and bf16 rounds values around 0.
 */
#ifndef MESTK_NORM_H
#define MESTK_NORM_H
#include "operand.h"

/* sums[strip][channel] = sum of x - pivot and of its square, over the first `count` samples. */
void mestk_norm_moments(const mestk_context *k, mestk_shape s, int32_t count, const void *x, const float *pivot,
                        double *sums);

/* mean and var of the batch, from sums shifted by pivot. */
void mestk_norm_statistics(mestk_shape s, int32_t count, const double *sums, const float *pivot, float *mean,
                           float *var);

/* a = scale / sqrt(var + eps), b = shift - (mean - centre) a, so that a x + b normalises what is stored as
 * x = value - centre.  scale, shift, centre: or NULL (1, 0, 0). */
void mestk_norm_constants(int32_t channels, const float *mean, const float *var, float eps, const float *scale,
                          const float *shift, const float *centre, float *a, float *b);

/* From sums[strip][channel] of dy and dy * x, x stored as value - centre: dx = a dy + b + c x.
 * dscale, dshift: or NULL. */
void mestk_norm_gradient(mestk_shape s, int32_t count, const double *sums, const float *mean, const float *var,
                         float eps, const float *scale, const float *centre, float *a, float *b, float *c,
                         float *dscale, float *dshift);

/* dx (+)= v, the operand of that form; 0 in padding.  dx may be v->x when not accumulating. */
void mestk_norm_backward(const mestk_context *k, mestk_shape s, int32_t count, const mestk_operand *v, void *dx,
                         int32_t accumulate);
#endif
