/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation: what happens once per channel.  Passes over values are in norm_vector.h. */
#include "strip_job.h"
#include "scalar_inline.h"

void mestk_norm_moments(const mestk_context *k, mestk_shape s, int32_t count, const void *x, const float *pivot,
                        double *sums)
{
    mestk_strip_job job = {.s = s, .count = count, .x = x, .pivot = pivot, .sums = sums};
    job.run = mestk_kernels_of(k->level)->norm_moments[s.format][mestk_tile_index(s)];
    mestk_run_strips(k, &job);
}

static void add_strips(mestk_shape s, const double *sums, int32_t channel, double *first, double *second)
{
    *first = *second = 0.0;
    for (int32_t i = 0; i < mestk_strips(s); i++) {
        const double *at = sums + ((int64_t)i * s.channels + channel) * 2;
        *first += at[0];
        *second += at[1];
    }
}

void mestk_norm_statistics(mestk_shape s, int32_t count, const double *sums, const float *pivot, float *mean,
                           float *var)
{
    double n = (double)count * s.height * s.width;
    for (int32_t c = 0; c < s.channels; c++) {
        double sum, squares;
        add_strips(s, sums, c, &sum, &squares);
        double m = sum / n, v = squares / n - m * m;
        mean[c] = (float)((double)pivot[c] + m);
        var[c] = v > 0.0 ? (float)v : v == v ? 0.0f : (float)v; /* NaN stays visible */
    }
}

void mestk_norm_constants(int32_t channels, const float *mean, const float *var, float eps, const float *scale,
                          const float *shift, const float *centre, float *a, float *b)
{
    for (int32_t c = 0; c < channels; c++) {
        a[c] = (scale ? scale[c] : 1.0f) / mestk_sqrt(var[c] + eps);
        b[c] = mestk_fma_inline(-(mean[c] - (centre ? centre[c] : 0.0f)), a[c], shift ? shift[c] : 0.0f);
    }
}

void mestk_norm_gradient(mestk_shape s, int32_t count, const double *sums, const float *mean, const float *var,
                         float eps, const float *scale, const float *centre, float *a, float *b, float *c,
                         float *dscale, float *dshift)
{
    double n = (double)count * s.height * s.width;
    for (int32_t i = 0; i < s.channels; i++) {
        double sum, dot;
        float inverse = 1.0f / mestk_sqrt(var[i] + eps), m = mean[i] - (centre ? centre[i] : 0.0f);
        add_strips(s, sums, i, &sum, &dot);
        dot -= (double)m * sum; /* of dy and value - mean */
        a[i] = (scale ? scale[i] : 1.0f) * inverse;
        c[i] = -a[i] * inverse * inverse * (float)(dot / n);
        b[i] = mestk_fma_inline(-c[i], m, -a[i] * (float)(sum / n));
        if (dshift) dshift[i] += (float)sum;
        if (dscale) dscale[i] += (float)(dot * (double)inverse);
    }
}

void mestk_norm_backward(const mestk_context *k, mestk_shape s, int32_t count, const mestk_operand *v, void *dx,
                         int32_t accumulate)
{
    mestk_strip_job job = {.s = s, .count = count, .v = v, .y = dx, .accumulate = accumulate};
    job.run = mestk_kernels_of(k->level)->norm_backward[s.format][mestk_tile_index(s)];
    mestk_run_strips(k, &job);
}
