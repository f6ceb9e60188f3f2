/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation: chunks.  The arithmetic, forward and backward, is in norm_vector.h. */
#include "norm_job.h"

static void chunk(void *argument, uint32_t index, uint32_t worker)
{
    const mestk_norm_job *job = argument;
    (void)worker;
    job->run(job, (int32_t)index);
}

void mestk_norm_statistics(const mestk_context *k, mestk_shape s, int32_t count, const float *x,
                           const float *pivot, float *mean, float *var)
{
    mestk_norm_job job = {.s = s, .count = count, .x = x, .pivot = pivot, .out_mean = mean, .out_var = var};
    job.run = mestk_kernels_of(k->level)->norm_statistics[mestk_lane_index(s.lanes)];
    mestk_run(k, (uint32_t)s.channels, chunk, &job);
}

/* A chunk is a strip of tiles: no sums here, and strips are contiguous. */
void mestk_norm_apply(const mestk_context *k, mestk_shape s, const float *x, const float *mean,
                      const float *var, float eps, const float *scale, const float *shift, float *y)
{
    mestk_norm_job job = {.s = s, .x = x, .mean = mean, .var = var, .eps = eps, .scale = scale, .shift = shift,
                          .y = y};
    job.run = mestk_kernels_of(k->level)->norm_apply[mestk_lane_index(s.lanes)];
    mestk_run(k, (uint32_t)(s.blocks * mestk_tiles_y(s)), chunk, &job);
}

void mestk_norm_backward(const mestk_context *k, mestk_shape s, int32_t count, const float *x,
                         const float *mean, const float *var, float eps, const float *scale,
                         const float *dy, float *dx, int32_t accumulate, float *dscale, float *dshift)
{
    mestk_norm_job job = {.s = s, .count = count, .x = x, .mean = mean, .var = var, .eps = eps, .scale = scale,
                          .dy = dy, .dx = dx, .accumulate = accumulate, .dscale = dscale, .dshift = dshift};
    job.run = mestk_kernels_of(k->level)->norm_backward[mestk_lane_index(s.lanes)];
    mestk_run(k, (uint32_t)s.channels, chunk, &job);
}
