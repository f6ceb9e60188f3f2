/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout and flatten: a chunk is one strip of tiles. */
#include "internal.h"

typedef struct strip {
    mestk_shape s;
    uint64_t key, threshold;
    float factor;
    const void *in;
    void *out;
    int32_t accumulate;
} strip;

/* Steele, Lea & Flood 2014: the output function of splitmix64. */
MESTK_INLINE uint32_t upper_random(uint64_t state)
{
    state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    state = (state ^ state >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((state ^ state >> 31) >> 32);
}

static void dropout_strip(void *argument, uint32_t index, uint32_t worker)
{
    const strip *a = argument;
    mestk_shape s = a->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), L = s.lanes;
    int32_t block = (int32_t)index / ty, y0 = (int32_t)index % ty * th;
    uint64_t plane = (uint64_t)s.height * (uint64_t)s.width, sample = plane * (uint64_t)s.channels;
    int64_t at = mestk_line(s, block, 0, y0, 0);
    (void)worker;
    for (int32_t t = 0; t < mestk_tiles_x(s); t++) {
        for (int32_t c = 0; c < s.channels; c++) {
            for (int32_t p = 0; p < th * tw; p++, at += L) {
                int32_t y = y0 + p / tw, x = t * tw + p % tw;
                float line[16] = {0};
                if (y >= s.height || x >= s.width) {
                    if (!a->accumulate) mestk_write_line(a->out, s.format, at, L, line);
                    continue;
                }
                uint64_t first = (uint64_t)block * (uint64_t)L * sample + (uint64_t)c * plane
                                 + (uint64_t)y * (uint64_t)s.width + (uint64_t)x;
                for (int32_t l = 0; l < L; l++) {
                    uint64_t i = first + (uint64_t)l * sample;
                    int32_t drop = upper_random(a->key + (i + 1) * 0x9e3779b97f4a7c15u) < a->threshold;
                    float v = drop ? 0.0f : mestk_get(a->in, s.format, at + l) * a->factor;
                    line[l] = a->accumulate ? mestk_get(a->out, s.format, at + l) + v : v;
                }
                mestk_write_line(a->out, s.format, at, L, line);
            }
        }
    }
}

void mestk_dropout(const mestk_context *k, mestk_shape s, uint64_t key, float rate, const void *in, void *out,
                   int32_t accumulate)
{
    strip a = {.s = s, .key = key, .in = in, .out = out, .accumulate = accumulate};
    a.threshold = (uint64_t)((double)rate * 4294967296.0);
    a.factor = 1.0f / (1.0f - rate);
    mestk_run(k, (uint32_t)(s.blocks * mestk_tiles_y(s)), dropout_strip, &a);
}

/* Line of feature (c, y, x) in the flat tensor. */
MESTK_INLINE int64_t flat_line(mestk_shape s, int32_t block, int32_t c, int32_t y, int32_t x)
{
    return ((((int64_t)block * s.channels + c) * s.height + y) * s.width + x) * s.lanes;
}

static void flatten_strip(void *argument, uint32_t index, uint32_t worker)
{
    const strip *a = argument;
    mestk_shape s = a->s;
    int32_t th = mestk_tile_h(s), ty = mestk_tiles_y(s), L = s.lanes;
    int32_t block = (int32_t)index / ty, y0 = (int32_t)index % ty * th, y1 = mestk_min(y0 + th, s.height);
    (void)worker;
    for (int32_t c = 0; c < s.channels; c++)
        for (int32_t y = y0; y < y1; y++)
            for (int32_t x = 0; x < s.width; x++) {
                float line[16];
                mestk_copy_line((float *)a->out + flat_line(s, block, c, y, x),
                                mestk_read_line(a->in, s.format, mestk_line(s, block, c, y, x), L, line), L);
            }
}

void mestk_flatten_forward(const mestk_context *k, mestk_shape s, const void *x, float *y)
{
    strip a = {.s = s, .in = x, .out = y};
    mestk_run_light(k, (uint32_t)mestk_strips(s), mestk_values(s), flatten_strip, &a);
}

static void unflatten_strip(void *argument, uint32_t index, uint32_t worker)
{
    const strip *a = argument;
    mestk_shape s = a->s;
    int32_t th = mestk_tile_h(s), ty = mestk_tiles_y(s), L = s.lanes;
    int32_t block = (int32_t)index / ty, y0 = (int32_t)index % ty * th;
    int32_t width = mestk_tiles_x(s) * mestk_tile_w(s);
    (void)worker;
    for (int32_t c = 0; c < s.channels; c++) {
        for (int32_t y = y0; y < y0 + th; y++) {
            for (int32_t x = 0; x < width; x++) {
                int64_t at = mestk_line(s, block, c, y, x);
                int32_t inside = y < s.height && x < s.width;
                const float *dy = (const float *)a->in + (inside ? flat_line(s, block, c, y, x) : 0);
                float line[16];
                if (!inside && a->accumulate) continue;
                for (int32_t l = 0; l < L; l++)
                    line[l] = !inside ? 0.0f : a->accumulate ? mestk_get(a->out, s.format, at + l) + dy[l] : dy[l];
                mestk_write_line(a->out, s.format, at, L, line);
            }
        }
    }
}

void mestk_flatten_backward(const mestk_context *k, mestk_shape s, const float *dy, void *dx, int32_t accumulate)
{
    strip a = {.s = s, .in = dy, .out = dx, .accumulate = accumulate};
    mestk_run_light(k, (uint32_t)mestk_strips(s), mestk_values(s), unflatten_strip, &a);
}
