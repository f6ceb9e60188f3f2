/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution of one or four lanes: vectors of neighbouring values of a slab's row, as in conv_rows.h.
 * Here are the loops over taps; they know floats and distances only.  depthwise_few.h packs what they read and
 * finishes what they leave.  Kernels of 3 x 3 with stride 1 have their loops over taps unrolled.
 */
#if WIDTH != LANES
#error a vector is one register here
#endif

/* ---- forward ---- */

VEC_INLINE void V(depthwise_rows_of_y)(const mestk_depthwise_job *job, int32_t c, const float *x, float *y, const int rows,
                                       const int three)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    int32_t lanes = g->in.lanes, floats = job->row_floats, kh = g->kernel_h, kw = g->kernel_w;
    int64_t row = (int64_t)s->phases * s->columns * lanes, down = g->stride_h * row;
    const float *w = job->w + (int64_t)c * kh * kw;
    vec start = (vec)(job->start ? job->start[c] : 0.0f);
    for (int32_t i = 0; i < floats; i += LANES, x += LANES, y += LANES) {
        vec sum[4];
        UNROLL for (int r = 0; r < rows; r++) sum[r] = start;
        if (three) {
            UNROLL for (int t = 0; t < 9; t++)
                UNROLL for (int r = 0; r < rows; r++)
                    sum[r] = vec_fma((vec)(w[t]), vec_load(x + (r + t / 3) * row + t % 3 * lanes), sum[r]);
        } else {
            const float *weight = w;
            ROLLED for (int32_t ky = 0; ky < kh; ky++) {
                ROLLED for (int32_t kx = 0; kx < kw; kx++, weight++) {
                    const float *at = x + ky * row + (int64_t)(kx % s->stride * s->columns + kx / s->stride) * lanes;
                    UNROLL for (int r = 0; r < rows; r++) sum[r] = vec_fma((vec)(*weight), vec_load(at + r * down), sum[r]);
                }
            }
        }
        UNROLL for (int r = 0; r < rows; r++) vec_store(y + r * floats, sum[r]);
    }
}

/* y of channels c0 .. c1 - 1 of a strip but for its epilogue. */
static void V(depthwise_rows_forward)(const mestk_depthwise_job *job, int32_t c0, int32_t c1, const float *slab,
                                      float *chains)
{
    int32_t three = mestk_depthwise_is_three(job->g);
    for (int32_t c = c0; c < c1; c++, slab += job->slab.channel, chains += (int64_t)job->rows * job->row_floats) {
        if (job->rows == 4 && three) V(depthwise_rows_of_y)(job, c, slab, chains, 4, 1);
        else if (job->rows == 4) V(depthwise_rows_of_y)(job, c, slab, chains, 4, 0);
        else if (job->rows == 2) V(depthwise_rows_of_y)(job, c, slab, chains, 2, 0);
        else V(depthwise_rows_of_y)(job, c, slab, chains, 1, 0);
    }
}

/* ---- backward ---- */

/* A tap on `rows` vectors of one row each. */
VEC_INLINE vec V(depthwise_rows_tap)(const float *dy, int64_t down, vec weight, const vec *x, vec *chain, vec dot,
                                     const int rows, const int need_dx)
{
    UNROLL for (int r = 0; r < rows; r++) {
        vec d = vec_load(dy + r * down);
        if (need_dx) chain[r] = vec_fma(weight, d, chain[r]);
        dot = vec_fma(d, x[r], dot);
    }
    return dot;
}

/* partial += the sums of dw of nine taps: of an octet of chains, or of both. */
VEC_INLINE void V(depthwise_rows_add)(const vec *dot, float *partial)
{
    float d[LANES];
    UNROLL for (int t = 0; t < 8; t += 4) vec_add_dots(dot + t, partial + t);
    vec_store(d, dot[8]);
    mestk_add_line(partial + 8, d, LANES);
}

/* One channel, 3 x 3 and stride 1.  Of 16 chains (depthwise_reference.c) a vector is all, an octet, or a part of one. */
VEC_INLINE void V(depthwise_rows_three)(const mestk_depthwise_job *job, int32_t c, const float *dy, const float *x,
                                        float *dx, float *partial, const int rows, const int need_dx)
{
    int32_t lanes = job->g->in.lanes, floats = job->row_floats;
    int64_t down = (int64_t)job->slab.columns * lanes, x_down = (int64_t)job->inner.columns * lanes;
    float line[9][16] = {{0}};
    vec w[9];
    UNROLL for (int t = 0; t < 9; t++) w[t] = (vec)(job->w[(int64_t)c * 9 + t]);
    for (int32_t first = 0; first < 16 && first < floats; first += LANES) {
        vec dots[9];
        UNROLL for (int t = 0; t < 9; t++) dots[t] = vec_zero();
        for (int32_t i = first; i < floats; i += 16) {
            vec value[4], chain[4];
            UNROLL for (int r = 0; r < rows; r++) value[r] = vec_load(x + i + r * x_down), chain[r] = vec_zero();
            UNROLL for (int t = 0; t < 9; t++)
                dots[t] = V(depthwise_rows_tap)(dy + i + (2 - t / 3) * down + (2 - t % 3) * lanes, down, w[t], value, chain,
                                                dots[t], rows, need_dx);
            if (need_dx) UNROLL for (int r = 0; r < rows; r++) vec_store(dx + i + r * x_down, chain[r]);
        }
        if (LANES >= 8) V(depthwise_rows_add)(dots, partial);
        else UNROLL for (int t = 0; t < 9; t++) vec_store(line[t] + first, dots[t]);
    }
    if (LANES < 8)
        for (int t = 0; t < 9; t++) mestk_add_line(partial + t, line[t], 16);
}

/* Pixels of one class: vectors of `rows` of its rows, all taps of the class. */
typedef struct V(depthwise_class) {
    const float *dy, *x;  /* of the first pixel; of dy what the last taps of the class meet */
    float *dx;
    int64_t down, x_down; /* from row to row of the class */
    int32_t a, b;         /* of rows, of columns */
} V(depthwise_class);

VEC_INLINE void V(depthwise_rows_of_class)(const mestk_depthwise_job *job, const V(depthwise_class) *k, const float *w,
                                           float *dots, const int rows, const int need_dx)
{
    const mestk_conv *g = job->g;
    int32_t sh = g->stride_h, sw = g->stride_w, kh = g->kernel_h, kw = g->kernel_w, lanes = g->in.lanes;
    for (int32_t i = 0; i < job->row_floats; i += LANES) {
        vec x[4], chain[4];
        UNROLL for (int r = 0; r < rows; r++) x[r] = vec_load(k->x + i + r * k->x_down), chain[r] = vec_zero();
        ROLLED for (int32_t ky = k->a; ky < kh; ky += sh) {
            ROLLED for (int32_t kx = k->b; kx < kw; kx += sw) {
                const float *dy = k->dy + i + ((kh - 1) / sh - ky / sh) * k->down + ((kw - 1) / sw - kx / sw) * lanes;
                float *dot = dots + (ky * kw + kx) * 16 + i % 16;
                vec weight = (vec)(w[ky * kw + kx]);
                vec_store(dot, V(depthwise_rows_tap)(dy, k->down, weight, x, chain, vec_load(dot), rows, need_dx));
            }
        }
        if (need_dx) UNROLL for (int r = 0; r < rows; r++) vec_store(k->dx + i + r * k->x_down, chain[r]);
    }
}

/* One channel, any kernel and stride.  y0: the strip's first row; top, left: what slab row 0 and column 0 are in dy. */
VEC_INLINE void V(depthwise_rows_any)(const mestk_depthwise_job *job, int32_t c, int32_t y0, int32_t top, int32_t left,
                                      const float *dy, const float *x, float *dx, float *dots, float *partial,
                                      const int need_dx)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab, *inner = &job->inner;
    int32_t sh = g->stride_h, sw = g->stride_w, lanes = g->in.lanes, taps = g->kernel_h * g->kernel_w;
    int64_t x_row = (int64_t)inner->phases * inner->columns * lanes;
    const float *w = job->w + (int64_t)c * taps;
    memset(dots, 0, (size_t)taps * 16 * sizeof(float));
    for (int32_t b = 0; b < sw; b++) {
        int32_t q = mestk_first_of_class(0, g->pad_w, sw, b), u = q + g->pad_w % sw;
        int64_t column = mestk_slab_origin(q, g->pad_w, sw, g->kernel_w) - left;
        int64_t x_column = (int64_t)(u % sw) * inner->columns + u / sw;
        for (int32_t a = 0; a < sh; a++) {
            int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a), rows = mestk_ceil_div(y0 + job->rows - y, sh);
            int64_t row = mestk_slab_origin(y, g->pad_h, sh, g->kernel_h) - top;
            int64_t at = (y - y0) * x_row + x_column * lanes;
            V(depthwise_class) k = {.dy = dy + (row * s->columns + column) * lanes, .x = x + at, .dx = dx + at,
                                    .down = (int64_t)s->columns * lanes, .x_down = sh * x_row, .a = a, .b = b};
            if (rows == 4) V(depthwise_rows_of_class)(job, &k, w, dots, 4, need_dx);
            else if (rows == 2) V(depthwise_rows_of_class)(job, &k, w, dots, 2, need_dx);
            else if (rows == 1) V(depthwise_rows_of_class)(job, &k, w, dots, 1, need_dx);
        }
    }
    for (int32_t t = 0; t < taps; t++) mestk_add_line(partial + t, dots + t * 16, 16);
}

/* dw of channels c0 .. c1 - 1 of a strip, and dx but for its epilogue. */
static void V(depthwise_rows_backward)(const mestk_depthwise_job *job, int32_t c0, int32_t c1, int32_t y0, int32_t top,
                                       int32_t left, const float *slab, const float *x, float *dx, float *dots,
                                       float *partial)
{
    int32_t taps = job->g->kernel_h * job->g->kernel_w, need_dx = job->gradient->dx != NULL;
    int32_t three = mestk_depthwise_is_three(job->g) && job->rows == 4;
    int64_t inner = job->inner.channel;
    partial += (int64_t)c0 * taps;
    for (int32_t c = c0; c < c1; c++, slab += job->slab.channel, x += inner, dx += inner, partial += taps) {
        if (three && need_dx) V(depthwise_rows_three)(job, c, slab, x, dx, partial, 4, 1);
        else if (three) V(depthwise_rows_three)(job, c, slab, x, dx, partial, 4, 0);
        else if (need_dx) V(depthwise_rows_any)(job, c, y0, top, left, slab, x, dx, dots, partial, 1);
        else V(depthwise_rows_any)(job, c, y0, top, left, slab, x, dx, dots, partial, 0);
    }
}
