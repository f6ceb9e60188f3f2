/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution as its definition says: the oracle of the vector path and the path of every other
 * CPU.  It is not fast.
 *
 * The order of roundings, which every level keeps to the last bit; all lanes alike:
 *
 *   y[c,p]    chain of fma from start[c] (or +0) over the taps in order; a tap outside the picture reads +0.
 *   dx[c,q]   chain of fma from +0 over the taps in order that match q, that is (q + pad - t) divisible by the
 *             stride; outputs outside the picture read +0.  When accumulating, the old dx is added to the
 *             finished chain.  Masked, rounded, summed (operand.h).
 *   dw[c,t]   A strip is (lane block, tile row of x); strips are numbered block by block and cut into
 *             groups = min(gradient_chunks, strips) runs as equal as can be.  Within a strip the pixels that
 *             meet tap (ky, kx) are those rows and columns of x with (q + pad - k) divisible by the stride.
 *             8 and 16 lanes: each lane is one chain of fma from +0, dy * x, over them: four columns, neighbours
 *             in that list, after the other, rows top to bottom within, left to right in a row; the last columns
 *             are filled up to four with pixels that are +0.
 *             1 and 4 lanes: 16 values side by side in a row (16 such columns of one lane, four of four) are 16
 *             chains: as many columns after the other, rows top to bottom within.
 *             Each octet of lanes, or chains, is reduced by the lane tree and added to the group's partial sum,
 *             octet 0 first.  Partials are added in group order, from the first; the
 *             sum is added to dw[c,t].
 *   db[c]     as in conv_reference.c.
 */
#include "depthwise_job.h"
#include "scalar_inline.h"

void mestk_depthwise_forward_reference(const mestk_depthwise_job *job, int32_t strip, int32_t worker)
{
    const mestk_conv *g = job->g;
    int32_t L = g->out.lanes, th = mestk_tile_h(g->out), ty = mestk_tiles_y(g->out), taps = g->kernel_h * g->kernel_w;
    int32_t block = strip / ty, y0 = strip % ty * th, width = mestk_tiles_x(g->out) * mestk_tile_w(g->out);
    (void)worker;
    for (int32_t c = 0; c < g->out.channels; c++) {
        const float *w = job->w + (int64_t)c * taps;
        for (int32_t p = 0; p < th * width; p++) {
            float y[16];
            for (int32_t l = 0; l < L; l++) y[l] = job->start ? job->start[c] : 0.0f;
            for (int32_t tap = 0; tap < taps; tap++) {
                int32_t iy = (y0 + p / width) * g->stride_h + tap / g->kernel_w - g->pad_h;
                int32_t ix = p % width * g->stride_w + tap % g->kernel_w - g->pad_w;
                int32_t inside = iy >= 0 && iy < g->in.height && ix >= 0 && ix < g->in.width;
                int64_t at = inside ? mestk_line(g->in, block, c, iy, ix) : 0;
                for (int32_t l = 0; l < L; l++) {
                    float x = inside ? mestk_operand_value(job->x, g->in.format, c, at + l) : 0.0f;
                    y[l] = mestk_fma_inline(w[tap], x, y[l]);
                }
            }
            mestk_write_line(job->y, g->out.format, mestk_line(g->out, block, c, y0 + p / width, p % width), L, y);
        }
        if (job->sums)
            mestk_sum_strip_reference(g->out, strip, c, job->y, job->y, mestk_max(0, mestk_min(L, job->count - block * L)),
                                      job->sums + ((int64_t)strip * g->out.channels + c) * 2);
    }
}

/* The line of dy that input pixel (qy, qx) meets at a tap, in `d`; 0 when the tap does not match. */
static int32_t gradient_line(const mestk_depthwise_job *job, int32_t block, int32_t c, int32_t qy, int32_t qx, int32_t tap,
                             float *d)
{
    const mestk_conv *g = job->g;
    int32_t y = qy + g->pad_h - tap / g->kernel_w, x = qx + g->pad_w - tap % g->kernel_w, L = g->out.lanes;
    if (y % g->stride_h != 0 || x % g->stride_w != 0) return 0;
    y /= g->stride_h;
    x /= g->stride_w;
    int32_t inside = y >= 0 && y < g->out.height && x >= 0 && x < g->out.width;
    int64_t at = inside ? mestk_line(g->out, block, c, y, x) : 0;
    for (int32_t l = 0; l < L; l++) /* nothing in lanes that are no samples */
        d[l] = inside && block * L + l < job->count ? mestk_operand_value(job->dy, g->out.format, c, at + l) : 0.0f;
    return 1;
}

static void input_line(const mestk_depthwise_job *job, int32_t block, int32_t c, int32_t y, int32_t x, float *line)
{
    mestk_shape s = job->g->in;
    int32_t inside = y < s.height && x < s.width;
    int64_t at = inside ? mestk_line(s, block, c, y, x) : 0;
    for (int32_t l = 0; l < s.lanes; l++) line[l] = inside ? mestk_operand_value(job->x, s.format, c, at + l) : 0.0f;
}

static void backward_pixel(const mestk_depthwise_job *job, int32_t block, int32_t c, int32_t y, int32_t x, const float *w)
{
    const mestk_gradient *to = job->gradient;
    mestk_shape s = job->g->in;
    int64_t at = mestk_line(s, block, c, y, x);
    int32_t inside = y < s.height && x < s.width;
    float chain[16] = {0}, line[16], d[16];
    for (int32_t tap = 0; inside && tap < job->g->kernel_h * job->g->kernel_w; tap++) {
        if (!gradient_line(job, block, c, y, x, tap, d)) continue;
        for (int32_t l = 0; l < s.lanes; l++) chain[l] = mestk_fma_inline(w[tap], d[l], chain[l]);
    }
    input_line(job, block, c, y, x, line);
    for (int32_t l = 0; l < s.lanes; l++) {
        if (inside && to->accumulate) chain[l] = mestk_get(to->dx, s.format, at + l) + chain[l];
        if (to->masked && !(line[l] > 0.0f)) chain[l] = 0.0f;
    }
    mestk_write_line(to->dx, s.format, at, s.lanes, chain);
}

/* dw of one tap, over one strip. */
static void backward_tap(const mestk_depthwise_job *job, int32_t block, int32_t c, int32_t y0, int32_t tap, float *partial)
{
    const mestk_conv *g = job->g;
    int32_t sh = g->stride_h, sw = g->stride_w, width = mestk_tiles_x(g->in) * mestk_tile_w(g->in);
    int32_t end = mestk_min(y0 + mestk_tile_h(g->in), g->in.height);
    int32_t first_y = mestk_first_of_class(y0, g->pad_h, sh, tap / g->kernel_w % sh);
    int32_t L = g->in.lanes, chains = L < 8 ? 16 : L, columns = L < 8 ? 16 / L : 4;
    float dot[16] = {0}, line[16], d[16];
    for (int32_t x = mestk_first_of_class(0, g->pad_w, sw, tap % g->kernel_w % sw); x < width; x += columns * sw) {
        for (int32_t y = first_y; y < end; y += sh) {
            for (int32_t i = 0; i < columns; i++) {
                gradient_line(job, block, c, y, x + i * sw, tap, d);
                input_line(job, block, c, y, x + i * sw, line);
                for (int32_t l = 0; l < L; l++) {
                    float *chain = &dot[(i * L + l) % chains];
                    *chain = mestk_fma_inline(d[l], line[l], *chain);
                }
            }
        }
    }
    mestk_add_line(partial, dot, chains);
}

void mestk_depthwise_backward_reference(const mestk_depthwise_job *job, int32_t strip, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const mestk_gradient *to = job->gradient;
    int32_t th = mestk_tile_h(g->in), ty = mestk_tiles_y(g->in), taps = g->kernel_h * g->kernel_w;
    int32_t block = strip / ty, y0 = strip % ty * th, width = mestk_tiles_x(g->in) * mestk_tile_w(g->in);
    (void)worker;
    for (int32_t c = 0; c < g->in.channels; c++, partial += taps) {
        for (int32_t tap = 0; tap < taps; tap++) backward_tap(job, block, c, y0, tap, partial + tap);
        if (!to->dx) continue;
        for (int32_t p = 0; p < th * width; p++)
            backward_pixel(job, block, c, y0 + p / width, p % width, job->w + (int64_t)c * taps);
        for (int32_t n = 0; n < 2; n++)
            if (to->normed[n])
                mestk_sum_strip_reference(g->in, strip, c, to->dx, to->normed[n], g->in.lanes,
                                          to->sums[n] + ((int64_t)strip * g->in.channels + c) * 2);
    }
}
