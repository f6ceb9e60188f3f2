/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution as its definition says: the oracle of the vector path and the path of every other CPU.
 * It is not fast.
 *
 * The order of roundings, which every level keeps to the last bit; all lanes alike:
 *
 *   y[o,p]    chain of fma from start[o] (or +0) over the connections of row o in order (of a pattern:
 *             taps ascending; of a run: channels ascending); a tap outside the picture reads +0.
 *   dx[i,q]   chain of fma from +0 over the entries of channel i in key order (within, the rows of a block or
 *             the taps of a pattern ascending) whose tap matches q, that is (q + pad - t) divisible by the
 *             stride; outputs outside the picture read +0.  When
 *             accumulating, the old dx is added to the finished chain.  Masked, rounded, summed (operand.h).
 *   dw[j]     A strip is (lane block, tile row of x); strips are numbered block by block and cut into
 *             groups = min(gradient_chunks, strips) runs as equal as can be.  Within a strip the pixels
 *             that meet tap (ky, kx) are those rows and columns of x with (q + pad - k) divisible by
 *             the stride.
 *             8 and 16 lanes: a unit is up to 4 such rows of 8 lanes (stride 1: a tile) or 2 of 16 (half a
 *             tile), neighbours in that list, by up to 4 such columns.  Units go columns first to last, rows
 *             top to bottom within.  A line is 16 values: one pixel of 16 lanes, two columns of 8.  In a unit
 *             each value of a line is one chain of fma from +0, dy * x, over the unit's lines in
 *             row-major order; each octet is reduced by the lane tree and added to the group's partial
 *             sum, octet 0 first.
 *             1 and 4 lanes: a unit is all such rows of the strip (up to 4) by up to 4 such columns
 *             (stride 1: a tile).  Units go columns first to last.  In a unit each lane of each column
 *             is one chain of fma from +0, dy * x, from row to row; of the values side by side in a row
 *             (4 columns of one lane; 4 times 4 lanes), each quad is reduced by the lane tree and added
 *             to the group's partial sum, from left to right.
 *             Partials are added in group order, from the first; the sum is added to dw[j].
 *   db[o]     per tile a chain of plain adds from +0 over its pixels, lane tree, then double over
 *             blocks and tiles in order; rounded to float and added to db[o].  (conv.c, every level.)
 */
#include "conv_job.h"
#include "scalar_inline.h"

void mestk_sum_strip_reference(mestk_shape s, int32_t strip, int32_t channel, const void *v, const void *other,
                               int32_t lanes, double *sums)
{
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), y0 = strip % ty * th;
    float sum[16] = {0}, dot[16] = {0}, out[2] = {0};
    for (int32_t t = 0; t < mestk_tiles_x(s); t++) {
        for (int32_t p = 0; p < th * tw; p++) {
            int32_t y = y0 + p / tw, x = t * tw + p % tw;
            if (y >= s.height || x >= s.width) continue;
            int64_t at = mestk_line(s, strip / ty, channel, y, x);
            for (int32_t l = 0; l < lanes; l++) {
                int32_t i = (p * s.lanes + l) % 16;
                float a = mestk_get(v, s.format, at + l);
                sum[i] += a;
                dot[i] = mestk_fma_inline(a, mestk_get(other, s.format, at + l), dot[i]);
            }
        }
    }
    mestk_add_line(&out[0], sum, 16);
    mestk_add_line(&out[1], dot, 16);
    sums[0] = (double)out[0];
    sums[1] = (double)out[1];
}

/* Values of a unit that belong to one row: the taps of a pattern, the channels of a run, else 1; and to one channel. */
static int32_t of_row(const mestk_weights *w) { return w->form == MESTK_FORM_PATTERN ? 4 : mestk_unit_channels(w); }
static int32_t of_channel(const mestk_weights *w) { return w->form == MESTK_FORM_PATTERN ? 4 : mestk_unit_rows(w); }

void mestk_conv_forward_reference(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    const mestk_conv *g = job->g;
    const mestk_weights *w = job->w;
    int32_t L = g->out.lanes, th = mestk_tile_h(g->out), ty = mestk_tiles_y(g->out);
    int32_t block = task / ty, y0 = task % ty * th, width = mestk_tiles_x(g->out) * mestk_tile_w(g->out);
    int32_t group = mestk_unit_rows(w), size = of_row(w);
    int64_t columns = (int64_t)w->channels * w->taps;
    (void)worker;
    for (int32_t o = 0; o < w->rows; o++) {
        int64_t first = (w->row_start ? w->row_start[o / group] : o * columns) * size;
        int64_t end = (w->row_start ? w->row_start[o / group + 1] : (o + 1) * columns) * size;
        for (int32_t p = 0; p < th * width; p++) {
            float y[16];
            for (int32_t l = 0; l < L; l++) y[l] = job->start ? job->start[o] : 0.0f;
            for (int64_t j = first; j < end; j++) {
                int32_t column = w->row_start ? w->column[j / size] : (int32_t)(j - first);
                int32_t c = column / w->taps, tap = column % w->taps;
                if (w->form == MESTK_FORM_PATTERN) c = column, tap = w->pattern_taps[w->pattern[j / 4]][j % 4];
                if (w->form == MESTK_FORM_RUN) c = c * size + (int32_t)(j % size);
                if (c >= w->channels) continue;
                float value = w->value[j * group + o % group];
                int32_t iy = (y0 + p / width) * g->stride_h + tap / g->kernel_w - g->pad_h;
                int32_t ix = p % width * g->stride_w + tap % g->kernel_w - g->pad_w;
                int32_t inside = iy >= 0 && iy < g->in.height && ix >= 0 && ix < g->in.width;
                int64_t at = inside ? mestk_line(g->in, block, c, iy, ix) : 0;
                for (int32_t l = 0; l < L; l++) {
                    float x = inside ? mestk_operand_value(job->x, g->in.format, c, at + l) : 0.0f;
                    y[l] = mestk_fma_inline(value, x, y[l]);
                }
            }
            mestk_write_line(job->y, g->out.format, mestk_line(g->out, block, o, y0 + p / width, p % width), L, y);
        }
        if (job->sums)
            mestk_sum_strip_reference(g->out, task, o, job->y, job->y, mestk_max(0, mestk_min(L, job->count - block * L)),
                      job->sums + ((int64_t)task * w->rows + o) * 2);
    }
}

/* The pixels of a unit: where x has them, +0 lines for those that only fill up. */
typedef struct unit {
    int32_t rows, row[4], column[4];
} unit;

/* What a dot product over a unit is made of: chains, each of them several pixels of one lane. */
static int32_t chain_of(int32_t pixel, int32_t lane, int32_t lanes)
{
    return lanes < 8 ? pixel % 4 * lanes + lane : pixel * lanes % 16 + lane;
}

static void add_dot(float *sum, const float *dot, int32_t lanes)
{
    if (lanes >= 8) mestk_add_line(sum, dot, 16);
    else for (int32_t i = 0; i < 4 * lanes; i += 4) *sum += mestk_sum4(dot + i);
}

/* dy at an output pixel; nothing in lanes that are no samples. */
static float gradient_at(const mestk_conv_job *job, int32_t block, int32_t o, int64_t at, int32_t lane)
{
    mestk_shape s = job->g->out;
    return block * s.lanes + lane < job->count ? mestk_operand_value(job->dy, s.format, o, at + lane) : 0.0f;
}

static void store_unit(const mestk_conv_job *job, int32_t block, int32_t c, const unit *u, float x[16][16],
                       float chain[16][16])
{
    const mestk_gradient *to = job->gradient;
    mestk_shape s = job->g->in;
    int32_t padded_w = mestk_tiles_x(s) * mestk_tile_w(s), padded_h = mestk_tiles_y(s) * mestk_tile_h(s);
    for (int32_t p = 0; p < 4 * u->rows; p++) {
        if (u->column[p % 4] >= padded_w || u->row[p / 4] >= padded_h) continue;
        int64_t at = mestk_line(s, block, c, u->row[p / 4], u->column[p % 4]);
        int32_t inside = u->row[p / 4] < s.height && u->column[p % 4] < s.width;
        for (int32_t l = 0; l < s.lanes; l++) {
            float v = inside ? chain[p][l] : 0.0f;
            if (inside && to->accumulate) v = mestk_get(to->dx, s.format, at + l) + v;
            if (to->masked && !(x[p][l] > 0.0f)) v = 0.0f;
            mestk_put(to->dx, s.format, at + l, v);
        }
    }
}

/* One channel of one unit: dx of its pixels and dw of the connections that meet them. */
static void backward_unit(const mestk_conv_job *job, int32_t block, int32_t c, const unit *u, float *partial)
{
    const mestk_conv *g = job->g;
    const mestk_weights *w = job->w;
    int32_t L = g->in.lanes, pixels = 4 * u->rows;
    float chain[16][16] = {{0}}, x[16][16] = {{0}};
    for (int32_t p = 0; p < pixels; p++) {
        if (u->row[p / 4] >= g->in.height || u->column[p % 4] >= g->in.width) continue;
        int64_t at = mestk_line(g->in, block, c, u->row[p / 4], u->column[p % 4]);
        for (int32_t l = 0; l < L; l++) x[p][l] = mestk_operand_value(job->x, g->in.format, c, at + l);
    }
    int64_t keys = (int64_t)w->rows * w->taps, columns = (int64_t)w->channels * w->taps;
    int32_t width = mestk_unit_channels(w), size = of_channel(w), group = mestk_unit_rows(w);
    int64_t e = w->row_start ? w->channel_start[c / width] : 0, end = w->row_start ? w->channel_start[c / width + 1] : keys;
    for (int64_t i = e * size; i < end * size; i++) {
        int32_t key = w->row_start ? w->key[i / size] : (int32_t)i;
        int32_t o = key / w->taps * group + (int32_t)(i % group), tap = key % w->taps;
        int64_t j = o * columns + (int64_t)c * w->taps + tap;
        if (w->row_start) j = (int64_t)w->position[i / size] * size * width + i % size + c % width;
        if (size > group) o = key, tap = w->pattern_taps[w->pattern[j / 4]][i % 4];
        if (o >= w->rows) continue;
        int32_t oy = u->row[0] + g->pad_h - tap / g->kernel_w, ox = u->column[0] + g->pad_w - tap % g->kernel_w;
        if (oy % g->stride_h != 0 || ox % g->stride_w != 0) continue;
        oy /= g->stride_h;
        ox /= g->stride_w;
        float dot[16] = {0};
        for (int32_t p = 0; p < pixels; p++) {
            int32_t py = oy + p / 4, px = ox + p % 4;
            int32_t inside = py >= 0 && py < g->out.height && px >= 0 && px < g->out.width;
            int64_t at = inside ? mestk_line(g->out, block, o, py, px) : 0;
            for (int32_t l = 0; l < L; l++) {
                float d = inside ? gradient_at(job, block, o, at, l) : 0.0f;
                chain[p][l] = mestk_fma_inline(w->value[j], d, chain[p][l]);
                float *sum = dot + chain_of(p, l, L);
                *sum = mestk_fma_inline(d, x[p][l], *sum);
            }
        }
        add_dot(partial + j, dot, L);
    }
    if (job->gradient->dx) store_unit(job, block, c, u, x, chain);
}

void mestk_conv_backward_reference(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const mestk_gradient *to = job->gradient;
    int32_t th = mestk_tile_h(g->in), rows_of_tiles = mestk_tiles_y(g->in);
    int32_t block = task / rows_of_tiles, y0 = task % rows_of_tiles * th;
    int32_t width = mestk_tiles_x(g->in) * mestk_tile_w(g->in), sh = g->stride_h, sw = g->stride_w;
    int32_t high = g->in.lanes < 16 ? 4 : 2;
    (void)worker;
    for (int32_t b = 0; b < sw; b++) {
        for (int32_t x = mestk_first_of_class(0, g->pad_w, sw, b); x < width; x += 4 * sw) {
            for (int32_t a = 0; a < sh; a++) {
                for (int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a); y < y0 + th; y += high * sh) {
                    unit u = {mestk_min(high, mestk_ceil_div(y0 + th - y, sh)), {y, y + sh, y + 2 * sh, y + 3 * sh},
                              {x, x + sw, x + 2 * sw, x + 3 * sw}};
                    for (int32_t c = 0; c < g->in.channels; c++) backward_unit(job, block, c, &u, partial);
                }
            }
        }
    }
    for (int32_t c = 0; to->dx && c < g->in.channels; c++)
        for (int32_t n = 0; n < 2; n++)
            if (to->normed[n])
                mestk_sum_strip_reference(g->in, task, c, to->dx, to->normed[n], g->in.lanes,
                          to->sums[n] + ((int64_t)task * g->in.channels + c) * 2);
}
