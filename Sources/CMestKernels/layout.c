/* SPDX-License-Identifier: Apache-2.0 */
/* In and out of the compute layout.  A chunk is one tile row of one block: contiguous memory. */
#include "internal.h"

typedef struct move {
    mestk_shape s;
    const void *from;
    void *to;
    int32_t count;
} move;

/* One pixel: samples side by side become lanes, 16 channels at a time, a line of the cache of each. */
static void gather_features(const move *m, int32_t block)
{
    int32_t channels = m->s.channels, L = m->s.lanes;
    float *out = (float *)m->to + (int64_t)block * channels * L;
    for (int32_t c = 0; c < channels; c += 16) {
        int32_t n = mestk_min(16, channels - c);
        for (int32_t l = 0; l < L; l++) {
            const float *in = (const float *)m->from + (int64_t)mestk_min(block * L + l, m->count - 1) * channels + c;
            for (int32_t i = 0; i < n; i++) out[(c + i) * L + l] = in[i];
        }
    }
}

static void gather_strip(void *argument, uint32_t index, uint32_t worker)
{
    const move *m = argument;
    mestk_shape s = m->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), tx = mestk_tiles_x(s), ty = mestk_tiles_y(s);
    int32_t block = (int32_t)index / ty, y0 = (int32_t)index % ty * th, L = s.lanes;
    int64_t plane = (int64_t)s.height * s.width, sample = plane * s.channels;
    int64_t at = mestk_line(s, block, 0, y0, 0);
    (void)worker;
    if (plane == 1 && th * tw == 1 && s.format == MESTK_F32) {
        gather_features(m, block);
        return;
    }
    for (int32_t t = 0; t < tx; t++) {
        int32_t x0 = t * tw, w = mestk_min(tw, s.width - x0);
        for (int32_t c = 0; c < s.channels; c++) {
            for (int32_t r = 0; r < th; r++, at += tw * L) {
                const float *in = (const float *)m->from + c * plane + (int64_t)(y0 + r) * s.width + x0;
                float line[4 * 16] = {0};
                for (int32_t l = 0; l < L && y0 + r < s.height; l++) {
                    int64_t from = mestk_min(block * L + l, m->count - 1) * sample;
                    for (int32_t x = 0; x < w; x++) line[x * L + l] = in[from + x];
                }
                mestk_write_line(m->to, s.format, at, tw * L, line);
            }
        }
    }
}

static void scatter_strip(void *argument, uint32_t index, uint32_t worker)
{
    const move *m = argument;
    mestk_shape s = m->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), tx = mestk_tiles_x(s), ty = mestk_tiles_y(s);
    int32_t block = (int32_t)index / ty, y0 = (int32_t)index % ty * th, L = s.lanes;
    int32_t lanes = mestk_max(0, mestk_min(L, m->count - block * L));
    int64_t plane = (int64_t)s.height * s.width, sample = plane * s.channels;
    int64_t at = mestk_line(s, block, 0, y0, 0);
    (void)worker;
    for (int32_t t = 0; t < tx; t++) {
        int32_t x0 = t * tw, w = mestk_min(tw, s.width - x0);
        for (int32_t c = 0; c < s.channels; c++) {
            for (int32_t r = 0; r < th; r++, at += tw * L) {
                if (y0 + r >= s.height) continue;
                float *out = (float *)m->to + block * L * sample + c * plane + (int64_t)(y0 + r) * s.width + x0;
                for (int32_t l = 0; l < lanes; l++)
                    for (int32_t x = 0; x < w; x++) out[l * sample + x] = mestk_get(m->from, s.format, at + x * L + l);
            }
        }
    }
}

void mestk_gather(const mestk_context *k, mestk_shape s, const float *x, int32_t count, void *out)
{
    move m = {s, x, out, count};
    mestk_run_light(k, (uint32_t)mestk_strips(s), mestk_values(s), gather_strip, &m);
}

void mestk_scatter(const mestk_context *k, mestk_shape s, const void *in, int32_t count, float *out)
{
    move m = {s, in, out, count};
    mestk_run_light(k, (uint32_t)mestk_strips(s), mestk_values(s), scatter_strip, &m);
}

/* ---- some channels of a tensor: they are contiguous in every tile ---- */

typedef struct part {
    mestk_shape s;
    int32_t first, channels;
    const void *from;
    void *to;
    int32_t puts; /* back into the whole */
} part;

static void part_strip(void *argument, uint32_t strip, uint32_t worker)
{
    const part *p = argument;
    int64_t channel = (int64_t)mestk_tile_h(p->s) * mestk_tile_w(p->s) * p->s.lanes * (p->s.format == MESTK_BF16 ? 2 : 4);
    int32_t tx = mestk_tiles_x(p->s);
    (void)worker;
    for (int64_t t = (int64_t)strip * tx; t < ((int64_t)strip + 1) * tx; t++) {
        int64_t whole = (t * p->s.channels + p->first) * channel, some = t * p->channels * channel;
        memcpy((char *)p->to + (p->puts ? whole : some), (const char *)p->from + (p->puts ? some : whole),
               (size_t)(p->channels * channel));
    }
}

static void run_part(const mestk_context *k, part p)
{
    mestk_shape s = p.s;
    s.channels = p.channels;
    mestk_run_light(k, (uint32_t)mestk_strips(s), mestk_values(s), part_strip, &p);
}

void mestk_take_channels(const mestk_context *k, mestk_shape s, const void *from, int32_t first, int32_t channels,
                         void *to)
{
    run_part(k, (part){s, first, channels, from, to, 0});
}

void mestk_put_channels(const mestk_context *k, mestk_shape s, void *to, int32_t first, int32_t channels,
                        const void *from)
{
    run_part(k, (part){s, first, channels, from, to, 1});
}

static int not_finite(const float *x)
{
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    return (bits & 0x7f800000u) == 0x7f800000u;
}

int64_t mestk_first_not_finite(const float *x, int64_t count)
{
    /* Groups without an early exit inside vectorise; almost always nothing is found. */
    for (int64_t i = 0; i < count; i += 256) {
        int64_t end = mestk_min64(count, i + 256);
        int any = 0;
        for (int64_t j = i; j < end; j++) any |= not_finite(x + j);
        if (any)
            for (int64_t j = i; j < end; j++)
                if (not_finite(x + j)) return j;
    }
    return -1;
}
