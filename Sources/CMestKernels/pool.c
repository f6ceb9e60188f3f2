/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pooling.  Forward chunks are strips of tiles of y; backward chunks are the planes (lane block, channel)
 * of x, because windows may overlap.  Backward adds to dx window by window, row-major over the outputs, in a
 * window row-major over its pixels.  What they do is in pool_vector.h.
 */
#include "pool_job.h"

static void chunk(void *argument, uint32_t index, uint32_t worker)
{
    const mestk_pool_job *job = argument;
    (void)worker;
    job->run(job, (int32_t)index);
}

/* ---- windows ---- */

static void forward(const mestk_context *k, mestk_pool_job job)
{
    mestk_shape s = job.g->out;
    job.run = mestk_kernels_of(k->level)->pool_forward[s.format][mestk_lane_index(s.lanes)];
    mestk_run(k, (uint32_t)mestk_strips(s), chunk, &job);
}

static void backward(const mestk_context *k, mestk_pool_job job)
{
    mestk_shape s = job.g->in;
    job.run = mestk_kernels_of(k->level)->pool_backward[s.format][mestk_lane_index(s.lanes)];
    mestk_run(k, (uint32_t)(s.blocks * s.channels), chunk, &job);
}

void mestk_max_pool_forward(const mestk_context *k, const mestk_conv *g, const void *x, void *y)
{
    forward(k, (mestk_pool_job){.g = g, .x = x, .y = y, .maximum = 1});
}

void mestk_avg_pool_forward(const mestk_context *k, const mestk_conv *g, const void *x, void *y)
{
    forward(k, (mestk_pool_job){.g = g, .x = x, .y = y});
}

void mestk_max_pool_backward(const mestk_context *k, const mestk_conv *g, const void *x,
                             const void *dy, void *dx, int32_t accumulate)
{
    backward(k, (mestk_pool_job){.g = g, .x = x, .dy = dy, .dx = dx, .accumulate = accumulate, .maximum = 1});
}

void mestk_avg_pool_backward(const mestk_context *k, const mestk_conv *g, const void *dy, void *dx,
                             int32_t accumulate)
{
    backward(k, (mestk_pool_job){.g = g, .dy = dy, .dx = dx, .accumulate = accumulate});
}

/* ---- global average ---- */

/* A chunk is a lane block and MESTK_POOL_CHANNELS channels. */
static void run_global(const mestk_context *k, mestk_pool_job job,
                       void (*const kernel[2][4])(const mestk_pool_job *job, int32_t chunk))
{
    mestk_shape s = job.s;
    job.run = kernel[s.format][mestk_tile_index(s)];
    int32_t chunks = s.blocks * mestk_ceil_div(s.channels, MESTK_POOL_CHANNELS);
    mestk_run_light(k, (uint32_t)chunks, mestk_values(s), chunk, &job);
}

void mestk_global_pool_forward(const mestk_context *k, mestk_shape s, const void *x, float *y)
{
    run_global(k, (mestk_pool_job){.s = s, .x = x, .y = y}, mestk_kernels_of(k->level)->global_pool_forward);
}

void mestk_global_pool_backward(const mestk_context *k, mestk_shape s, const float *dy, void *dx,
                                int32_t accumulate)
{
    run_global(k, (mestk_pool_job){.s = s, .dy = dy, .dx = dx, .accumulate = accumulate},
               mestk_kernels_of(k->level)->global_pool_backward);
}
