/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch normalisation over the valid samples and pixels of each channel (Ioffe & Szegedy 2015).
 *
 *   training    mean, var (biased) of the batch; y = scale * (x - mean) / sqrt(var + eps) + shift
 *   inference   the same with the running statistics
 *   backward    g' = scale * dy;  dx = inv_std * (g' - mean(g') - xhat * mean(g' * xhat))
 *               dscale += sum(dy * xhat);  dshift += sum(dy)
 *
 * Variance is computed from sums shifted by `pivot` (the running mean: close to the mean, so nothing
 * cancels): var = E[(x-p)^2] - (E[x-p])^2, not below 0.  Sums: fp32 lines within a tile, reduced by
 * the lane tree, then double over tiles in order.  One chunk a channel.
 */
#ifndef MESTK_NORM_H
#define MESTK_NORM_H
#include "layout.h"
#include "parallel.h"

/* mean and var of the first `count` samples, out: channels floats each. */
void mestk_norm_statistics(const mestk_context *k, mestk_shape s, int32_t count, const float *x,
                           const float *pivot, float *mean, float *var);

/* y = x * a + b per channel with a = scale / sqrt(var + eps), b = shift - mean * a; scale and shift
 * may be NULL (1 and 0).  y may be x. */
void mestk_norm_apply(const mestk_context *k, mestk_shape s, const float *x, const float *mean,
                      const float *var, float eps, const float *scale, const float *shift, float *y);

/* dx (+)= as above; 0 in padding.  dx may be dy when not accumulating.  dscale, dshift: or NULL. */
void mestk_norm_backward(const mestk_context *k, mestk_shape s, int32_t count, const float *x,
                         const float *mean, const float *var, float eps, const float *scale,
                         const float *dy, float *dx, int32_t accumulate, float *dscale, float *dshift);
#endif
