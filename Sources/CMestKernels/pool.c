/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pooling.  Forward chunks are strips of tiles of y; backward chunks are the planes (lane block, channel)
 * of x, because windows may overlap.  One instance for all levels: lanes vectorise by themselves.
 * Backward adds to dx window by window, row-major over the outputs, in a window row-major over its pixels.
 */
#include "internal.h"

typedef struct pool {
    const mestk_conv *g;
    mestk_shape s; /* of x, global pooling */
    const void *x, *dy;
    void *y, *dx;
    int32_t accumulate, maximum;
} pool;

/* The part of a window that lies in the picture. */
typedef struct window {
    int32_t y0, y1, x0, x1;
} window;

static window window_of(const mestk_conv *g, int32_t y, int32_t x)
{
    int32_t top = y * g->stride_h - g->pad_h, left = x * g->stride_w - g->pad_w;
    window w = {mestk_max(0, top), mestk_min(g->in.height, top + g->kernel_h), mestk_max(0, left),
                mestk_min(g->in.width, left + g->kernel_w)};
    return w;
}

static float average_factor(const mestk_conv *g) { return 1.0f / (float)(g->kernel_h * g->kernel_w); }

/* ---- windows, forward ---- */

static void forward_strip(void *argument, uint32_t index, uint32_t worker)
{
    const pool *a = argument;
    const mestk_conv *g = a->g;
    mestk_shape s = g->out;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), L = s.lanes;
    int32_t block = (int32_t)index / ty, y0 = (int32_t)index % ty * th;
    float factor = average_factor(g);
    int64_t at = mestk_line(s, block, 0, y0, 0);
    (void)worker;
    for (int32_t t = 0; t < mestk_tiles_x(s); t++) {
        for (int32_t c = 0; c < s.channels; c++) {
            for (int32_t p = 0; p < th * tw; p++, at += L) {
                window w = window_of(g, y0 + p / tw, t * tw + p % tw);
                float line[16] = {0}, buffer[16];
                int32_t first = 1;
                for (int32_t iy = w.y0; iy < w.y1; iy++) {
                    for (int32_t ix = w.x0; ix < w.x1; ix++, first = 0) {
                        const float *x = mestk_read_line(a->x, g->in.format, mestk_line(g->in, block, c, iy, ix), L, buffer);
                        if (first) mestk_copy_line(line, x, L);
                        else if (a->maximum)
                            for (int32_t l = 0; l < L; l++) line[l] = x[l] > line[l] ? x[l] : line[l];
                        else
                            for (int32_t l = 0; l < L; l++) line[l] += x[l];
                    }
                }
                for (int32_t l = 0; l < L; l++) line[l] = a->maximum ? line[l] : line[l] * factor;
                mestk_write_line(a->y, s.format, at, L, line);
            }
        }
    }
}

void mestk_max_pool_forward(const mestk_context *k, const mestk_conv *g, const void *x, void *y)
{
    pool a = {.g = g, .x = x, .y = y, .maximum = 1};
    mestk_run(k, (uint32_t)(g->out.blocks * mestk_tiles_y(g->out)), forward_strip, &a);
}

void mestk_avg_pool_forward(const mestk_context *k, const mestk_conv *g, const void *x, void *y)
{
    pool a = {.g = g, .x = x, .y = y};
    mestk_run(k, (uint32_t)(g->out.blocks * mestk_tiles_y(g->out)), forward_strip, &a);
}

/* ---- windows, backward ---- */

static void zero_plane(mestk_shape s, int32_t block, int32_t c, void *dx)
{
    int64_t tiles = (int64_t)mestk_tiles_y(s) * mestk_tiles_x(s);
    int64_t values = (int64_t)mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    for (int64_t t = 0; t < tiles; t++)
        for (int64_t i = 0; i < values; i++) mestk_put(dx, s.format, ((block * tiles + t) * s.channels + c) * values + i, 0.0f);
}

static void add_to_line(void *dx, int32_t format, int64_t at, int32_t lanes, const float *v)
{
    for (int32_t l = 0; l < lanes; l++) mestk_put(dx, format, at + l, mestk_get(dx, format, at + l) + v[l]);
}

/* Per lane, which pixel of the window is the first largest: counted row-major from 0. */
static void find_largest(const pool *a, window w, int32_t block, int32_t c, int32_t *best)
{
    mestk_shape s = a->g->in;
    int32_t L = s.lanes, n = 0;
    float line[16], buffer[16];
    for (int32_t iy = w.y0; iy < w.y1; iy++) {
        for (int32_t ix = w.x0; ix < w.x1; ix++, n++) {
            const float *x = mestk_read_line(a->x, s.format, mestk_line(s, block, c, iy, ix), L, buffer);
            for (int32_t l = 0; l < L; l++) {
                int32_t larger = n == 0 || x[l] > line[l];
                line[l] = larger ? x[l] : line[l];
                best[l] = larger ? n : best[l];
            }
        }
    }
}

static void backward_plane(void *argument, uint32_t index, uint32_t worker)
{
    const pool *a = argument;
    const mestk_conv *g = a->g;
    int32_t channels = g->in.channels, L = g->in.lanes;
    int32_t block = (int32_t)index / channels, c = (int32_t)index % channels;
    float factor = average_factor(g);
    (void)worker;
    if (!a->accumulate) zero_plane(g->in, block, c, a->dx);
    for (int32_t y = 0; y < g->out.height; y++) {
        for (int32_t x = 0; x < g->out.width; x++) {
            float buffer[16];
            const float *dy = mestk_read_line(a->dy, g->out.format, mestk_line(g->out, block, c, y, x), L, buffer);
            window w = window_of(g, y, x);
            int32_t best[16] = {0}, n = 0;
            if (a->maximum) find_largest(a, w, block, c, best);
            for (int32_t iy = w.y0; iy < w.y1; iy++) {
                for (int32_t ix = w.x0; ix < w.x1; ix++, n++) {
                    float v[16];
                    for (int32_t l = 0; l < L; l++) v[l] = !a->maximum ? dy[l] * factor : best[l] == n ? dy[l] : 0.0f;
                    add_to_line(a->dx, g->in.format, mestk_line(g->in, block, c, iy, ix), L, v);
                }
            }
        }
    }
}

void mestk_max_pool_backward(const mestk_context *k, const mestk_conv *g, const void *x,
                             const void *dy, void *dx, int32_t accumulate)
{
    pool a = {.g = g, .x = x, .dy = dy, .dx = dx, .accumulate = accumulate, .maximum = 1};
    mestk_run(k, (uint32_t)(g->in.blocks * g->in.channels), backward_plane, &a);
}

void mestk_avg_pool_backward(const mestk_context *k, const mestk_conv *g, const void *dy, void *dx,
                             int32_t accumulate)
{
    pool a = {.g = g, .dy = dy, .dx = dx, .accumulate = accumulate};
    mestk_run(k, (uint32_t)(g->in.blocks * g->in.channels), backward_plane, &a);
}

/* ---- global average ---- */

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
    for (int32_t l = 0; l < L; l++) ((float *)a->y)[(int64_t)index * L + l] = sum[l] * factor;
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
    for (int32_t l = 0; l < L; l++) line[l] = ((const float *)a->dy)[(int64_t)index * L + l] * factor;
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
