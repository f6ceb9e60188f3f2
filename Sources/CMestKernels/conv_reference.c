/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution as its definition says: the oracle of the vector path and the path of every other CPU.
 * It is not fast.
 *
 * The order of roundings, which every level keeps to the last bit; all lanes alike:
 *
 *   y[o,p]    chain of fma from bias[o] (or +0) over the connections of row o in order; a tap outside
 *             the picture reads +0.
 *   dx[i,q]   chain of fma from +0 over the entries of channel i in key order whose tap matches q, that
 *             is (q + pad - t) divisible by the stride; outputs outside the picture read +0.  When
 *             accumulating, the old dx is added to the finished chain.
 *   dw[j]     A strip is (lane block, tile row of x); strips are numbered block by block and cut into
 *             groups = min(gradient_chunks, strips) runs as equal as can be.  Within a strip the pixels
 *             that meet tap (ky, kx) are those rows and columns of x with (q + pad - k) divisible by
 *             the stride.  A unit is up to 2 such rows, neighbours in that list, by up to 4 such
 *             columns (stride 1: half a tile).  Units go columns first to last, rows top to bottom
 *             within.  In a unit each lane is one chain of fma from +0, dy * x, over the unit's pixels
 *             in row-major order; each octet of lanes is reduced by the lane tree and added to the
 *             group's partial sum, octet 0 first.  Partials are added in group order, from the first;
 *             the sum is added to dw[j].
 *   db[o]     per tile a chain of plain adds from +0 over its pixels, lane tree, then double over
 *             blocks and tiles in order; rounded to float and added to db[o].  (conv.c, every level.)
 */
#include "conv_job.h"
#include "scalar_inline.h"

void mestk_conv_forward_reference(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    const mestk_conv *g = job->g;
    const mestk_weights *w = job->w;
    int32_t L = g->out.lanes, th = mestk_tile_h(g->out), rows_of_tiles = mestk_tiles_y(g->out);
    int32_t block = task / rows_of_tiles, y0 = task % rows_of_tiles * th;
    int32_t width = mestk_tiles_x(g->out) * mestk_tile_w(g->out);
    int64_t columns = (int64_t)w->channels * w->taps;
    (void)worker;
    for (int32_t o = 0; o < w->rows; o++) {
        for (int32_t p = 0; p < th * width; p++) {
            float *y = job->y + mestk_line(g->out, block, o, y0 + p / width, p % width);
            for (int32_t l = 0; l < L; l++) y[l] = job->bias ? job->bias[o] : 0.0f;
        }
        int64_t j = w->row_start ? w->row_start[o] : o * columns;
        int64_t end = w->row_start ? w->row_start[o + 1] : (o + 1) * columns;
        for (; j < end; j++) {
            int32_t column = w->row_start ? w->column[j] : (int32_t)(j - o * columns);
            int32_t c = column / w->taps, tap = column % w->taps;
            int32_t dy = tap / g->kernel_w - g->pad_h, dx = tap % g->kernel_w - g->pad_w;
            float value = w->value[j];
            for (int32_t r = y0; r < y0 + th; r++) {
                int32_t iy = r * g->stride_h + dy;
                for (int32_t q = 0; q < width; q++) {
                    int32_t ix = q * g->stride_w + dx;
                    int32_t inside = iy >= 0 && iy < g->in.height && ix >= 0 && ix < g->in.width;
                    const float *x = inside ? job->x + mestk_line(g->in, block, c, iy, ix) : NULL;
                    float *y = job->y + mestk_line(g->out, block, o, r, q);
                    for (int32_t l = 0; l < L; l++) y[l] = mestk_fma_inline(value, x ? x[l] : 0.0f, y[l]);
                }
            }
        }
    }
}

/* The pixels of a unit: where x has them, +0 lines for those that only fill up. */
typedef struct unit {
    int32_t rows, row[2], column[4];
} unit;

/* One channel of one unit: dx of its pixels and dw of the connections that meet them. */
static void backward_unit(const mestk_conv_job *job, int32_t block, int32_t c, const unit *u, float *partial)
{
    const mestk_conv *g = job->g;
    const mestk_weights *w = job->w;
    int32_t L = g->in.lanes, pixels = 4 * u->rows;
    float chain[8][16] = {{0}};
    const float *x[8];
    for (int32_t p = 0; p < pixels; p++) {
        int32_t inside = u->row[p / 4] < g->in.height && u->column[p % 4] < g->in.width;
        x[p] = inside ? job->x + mestk_line(g->in, block, c, u->row[p / 4], u->column[p % 4]) : NULL;
    }
    int64_t keys = (int64_t)w->rows * w->taps, columns = (int64_t)w->channels * w->taps;
    int64_t e = w->row_start ? w->channel_start[c] : 0, end = w->row_start ? w->channel_start[c + 1] : keys;
    for (; e < end; e++) {
        int32_t key = w->row_start ? w->key[e] : (int32_t)e;
        int32_t o = key / w->taps, tap = key % w->taps;
        int64_t j = w->row_start ? w->position[e] : o * columns + (int64_t)c * w->taps + tap;
        int32_t oy = u->row[0] + g->pad_h - tap / g->kernel_w, ox = u->column[0] + g->pad_w - tap % g->kernel_w;
        if (oy % g->stride_h != 0 || ox % g->stride_w != 0) continue;
        oy /= g->stride_h;
        ox /= g->stride_w;
        float dot[16] = {0};
        for (int32_t p = 0; p < pixels; p++) {
            int32_t py = oy + p / 4, px = ox + p % 4;
            int32_t inside = py >= 0 && py < g->out.height && px >= 0 && px < g->out.width;
            const float *dy = inside ? job->dy + mestk_line(g->out, block, o, py, px) : NULL;
            for (int32_t l = 0; l < L; l++) {
                float d = dy ? dy[l] : 0.0f;
                chain[p][l] = mestk_fma_inline(w->value[j], d, chain[p][l]);
                dot[l] = mestk_fma_inline(d, x[p] ? x[p][l] : 0.0f, dot[l]);
            }
        }
        mestk_add_line(partial + j, dot, L);
    }
    if (!job->dx) return;
    int32_t padded_w = mestk_tiles_x(g->in) * mestk_tile_w(g->in);
    for (int32_t p = 0; p < pixels; p++) {
        if (u->column[p % 4] >= padded_w) continue;
        float *dx = job->dx + mestk_line(g->in, block, c, u->row[p / 4], u->column[p % 4]);
        for (int32_t l = 0; l < L; l++) dx[l] = !x[p] ? 0.0f : job->accumulate ? dx[l] + chain[p][l] : chain[p][l];
    }
}

void mestk_conv_backward_reference(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    int32_t th = mestk_tile_h(g->in), rows_of_tiles = mestk_tiles_y(g->in);
    int32_t block = task / rows_of_tiles, y0 = task % rows_of_tiles * th;
    int32_t width = mestk_tiles_x(g->in) * mestk_tile_w(g->in), sh = g->stride_h, sw = g->stride_w;
    (void)worker;
    for (int32_t b = 0; b < sw; b++) {
        for (int32_t x = mestk_first_of_class(0, g->pad_w, sw, b); x < width; x += 4 * sw) {
            for (int32_t a = 0; a < sh; a++) {
                for (int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a); y < y0 + th; y += 2 * sh) {
                    unit u = {y + sh < y0 + th ? 2 : 1, {y, y + sh}, {x, x + sw, x + 2 * sw, x + 3 * sw}};
                    for (int32_t c = 0; c < g->in.channels; c++) backward_unit(job, block, c, &u, partial);
                }
            }
        }
    }
}
