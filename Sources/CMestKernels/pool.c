/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pooling.  Forward chunks are strips of tiles of y; backward chunks are the planes (lane block, channel)
 * of x, because windows may overlap.  Backward adds to dx window by window, row-major over the outputs, in a
 * window row-major over its pixels.  Windows are in pool_vector.h; global pooling is one instance for all levels.
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

typedef struct pool {
    mestk_shape s; /* of x */
    const void *x;
    const float *dy;
    float *y;
    void *dx;
    int32_t accumulate;
} pool;

static void add_to_line(void *dx, int32_t format, int64_t at, int32_t lanes, const float *v)
{
    for (int32_t l = 0; l < lanes; l++) mestk_put(dx, format, at + l, mestk_get(dx, format, at + l) + v[l]);
}

static void zero_plane(mestk_shape s, int32_t block, int32_t c, void *dx)
{
    int64_t tiles = (int64_t)mestk_tiles_y(s) * mestk_tiles_x(s);
    int64_t values = (int64_t)mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t at = ((block * tiles + t) * s.channels + c) * values;
        for (int64_t i = 0; i < values; i++) mestk_put(dx, s.format, at + i, 0.0f);
    }
}

static void global_forward_plane(void *argument, uint32_t index, uint32_t worker)
{
    const pool *a = argument;
    mestk_shape s = a->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), tx = mestk_tiles_x(s), ty = mestk_tiles_y(s), L = s.lanes;
    int32_t block = (int32_t)index / s.channels, c = (int32_t)index % s.channels;
    float sum[16] = {0}, factor = 1.0f / (float)(s.height * s.width);
    (void)worker;
    for (int32_t t = 0; t < ty * tx; t++) {
        float tile[16] = {0}, buffer[16];
        for (int32_t p = 0; p < th * tw; p++) {
            int32_t y = t / tx * th + p / tw, x = t % tx * tw + p % tw;
            if (y >= s.height || x >= s.width) continue;
            const float *line = mestk_read_line(a->x, s.format, mestk_line(s, block, c, y, x), L, buffer);
            for (int32_t l = 0; l < L; l++) tile[l] += line[l];
        }
        for (int32_t l = 0; l < L; l++) sum[l] += tile[l];
    }
    for (int32_t l = 0; l < L; l++) a->y[(int64_t)index * L + l] = sum[l] * factor;
}

void mestk_global_pool_forward(const mestk_context *k, mestk_shape s, const void *x, float *y)
{
    pool a = {.s = s, .x = x, .y = y};
    mestk_run(k, (uint32_t)(s.blocks * s.channels), global_forward_plane, &a);
}

static void global_backward_plane(void *argument, uint32_t index, uint32_t worker)
{
    const pool *a = argument;
    mestk_shape s = a->s;
    int32_t L = s.lanes, block = (int32_t)index / s.channels, c = (int32_t)index % s.channels;
    float line[16], factor = 1.0f / (float)(s.height * s.width);
    (void)worker;
    for (int32_t l = 0; l < L; l++) line[l] = a->dy[(int64_t)index * L + l] * factor;
    if (!a->accumulate) zero_plane(s, block, c, a->dx);
    for (int32_t y = 0; y < s.height; y++)
        for (int32_t x = 0; x < s.width; x++) add_to_line(a->dx, s.format, mestk_line(s, block, c, y, x), L, line);
}

void mestk_global_pool_backward(const mestk_context *k, mestk_shape s, const float *dy, void *dx,
                                int32_t accumulate)
{
    pool a = {.s = s, .dy = dy, .dx = dx, .accumulate = accumulate};
    mestk_run(k, (uint32_t)(s.blocks * s.channels), global_backward_plane, &a);
}
