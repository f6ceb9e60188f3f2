/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution of one lane count on one instruction set: see vector.h for the parameters,
 * conv_job.h for the slab, conv_reference.c for the order of roundings, which is kept.
 * LEVEL_ROWS: rows of 4 accumulators that fit the registers; LEVEL_DOTS: dot products that fit beside a
 * unit's dx.
 */

/* ---- packing ---- */

/* Lines of columns u0 .. u1-1 of one slab row: zeros, or what lies at `from`. */
VEC_INLINE void V(conv_pack_row)(const conv_slab *s, int32_t u0, int32_t u1, const float *from, float *row)
{
    if (u0 >= u1) return;
    int32_t phase = u0 % s->stride, column = u0 / s->stride;
    ROLLED for (int32_t u = u0; u < u1; u++) {
        if (phase < s->phases) {
            float *to = row + (phase * s->columns + column) * LANES;
            UNROLL for (int h = 0; h < LANES; h += WIDTH) vec_store(to + h, from ? vec_load(from + h) : vec_zero());
        }
        if (from) from += LANES;
        if (++phase == s->stride) phase = 0, column++;
    }
}

/* Picture rows top .. top + rows - 1 into the slab, picture column x to u = x + shift.  What is outside
 * the picture becomes +0. */
static void V(conv_pack)(const conv_slab *s, int32_t block, int32_t top, int32_t shift, const float *from,
                         float *slab)
{
    mestk_shape p = s->picture;
    int32_t th = mestk_tile_h(p), tw = mestk_tile_w(p), tiles = mestk_tiles_x(p), width = s->stride * s->columns;
    int64_t row_floats = (int64_t)s->phases * s->columns * LANES;
    int32_t begin = mestk_min(mestk_max(0, shift), width), end = mestk_max(begin, mestk_min(p.width + shift, width));
    for (int32_t c = 0; c < p.channels; c++) {
        for (int32_t r = 0; r < s->rows; r++) {
            float *row = slab + c * s->channel + r * row_floats;
            int32_t inside = top + r >= 0 && top + r < p.height;
            if (r % s->row_stride >= s->row_phases) continue;
            V(conv_pack_row)(s, 0, inside ? begin : width, NULL, row);
            if (inside) V(conv_pack_row)(s, end, width, NULL, row);
        }
    }
    int32_t first = mestk_max(0, -top), last = mestk_min(s->rows, p.height - top);
    for (int32_t r0 = first, r1; r0 < last; r0 = r1) { /* r0 .. r1: rows of one tile row */
        r1 = mestk_min(last, r0 + th - (top + r0) % th);
        for (int32_t t = 0; t < tiles; t++) {
            int32_t u = t * tw + shift, u0 = mestk_max(u, begin), u1 = mestk_min(u + tw, end);
            const float *in = from + mestk_line(p, block, 0, top + r0, t * tw);
            for (int32_t c = 0; c < p.channels; c++, in += th * tw * LANES) {
                for (int32_t r = r0; r < r1; r++) {
                    const float *line = in + ((r - r0) * tw + u0 - u) * LANES;
                    float *row = slab + c * s->channel + r * row_floats;
                    if (r % s->row_stride >= s->row_phases) continue;
                    if (s->stride == 1 && u1 - u0 == 4)
                        for (int32_t i = 0; i < 4 * LANES; i += WIDTH) vec_store(row + u0 * LANES + i, vec_load(line + i));
                    else V(conv_pack_row)(s, u0, u1, line, row);
                }
            }
        }
    }
}

/* ---- forward ---- */

/* Where a group of rows x 4 accumulators reads and writes.  A row is a row of the tile, or, of pictures
 * one pixel high, one of several neighbouring tiles. */
typedef struct V(window) {
    const float *slab;           /* line of the first pixel, tap 0, channel 0 */
    float *y;                    /* the same pixel of output channel 0 */
    int64_t slab_step, y_step;   /* floats from row to row */
    int32_t rows, columns;       /* that exist in y */
    int64_t y_channel;           /* floats from channel to channel */
} V(window);

/* One channel block of every filter on one window. */
VEC_INLINE void V(conv_filters)(const mestk_conv_job *job, const V(window) *a, int32_t b, const int rows)
{
    const mestk_weights *w = job->w;
    const mestk_word *offset = job->offset, *segment = job->segment + b;
    int64_t step = a->slab_step;
    int32_t whole = a->rows == rows && a->columns == 4, filters = w->rows;
    for (int32_t o = 0; o < filters; o++, segment += job->blocks + 1) {
        int32_t count = segment[1] - segment[0];
        const float *value = w->value + segment[0];
        const uint16_t *column = w->row_start ? w->column + segment[0]
                                              : job->identity + (segment[0] - o * w->channels * w->taps);
        float *y = a->y + o * a->y_channel;
        vec sum[16];
        if (b == 0) {
            vec start = (vec)(job->bias ? job->bias[o] : 0.0f);
            UNROLL for (int i = 0; i < rows * 4; i++) sum[i] = start;
        } else if (whole) {
            UNROLL for (int i = 0; i < rows * 4; i++) sum[i] = vec_load(y + i / 4 * a->y_step + i % 4 * LANES);
        } else {
            UNROLL for (int i = 0; i < rows * 4; i++)
                sum[i] = i / 4 < a->rows && i % 4 < a->columns ? vec_load(y + i / 4 * a->y_step + i % 4 * LANES)
                                                               : vec_zero();
        }
        ROLLED for (int32_t j = 0; j < count; j++) {
            const float *x = a->slab + offset[column[j]];
            vec weight = (vec)(value[j]);
            UNROLL for (int i = 0; i < rows * 4; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / 4 * step + i % 4 * LANES), sum[i]);
        }
        if (whole) {
            UNROLL for (int i = 0; i < rows * 4; i++) vec_store(y + i / 4 * a->y_step + i % 4 * LANES, sum[i]);
        } else {
            UNROLL for (int i = 0; i < rows * 4; i++)
                if (i / 4 < a->rows && i % 4 < a->columns) vec_store(y + i / 4 * a->y_step + i % 4 * LANES, sum[i]);
        }
    }
}

static void V(conv_window)(const mestk_conv_job *job, V(window) a, int32_t b, int32_t rows)
{
    for (int32_t h = 0; h < LANES; h += WIDTH, a.slab += WIDTH, a.y += WIDTH) {
#if LEVEL_ROWS >= 4
        if (rows > 2) {
            V(conv_filters)(job, &a, b, 4);
            continue;
        }
#endif
        if (rows > 1) V(conv_filters)(job, &a, b, 2);
        else V(conv_filters)(job, &a, b, 1);
    }
}

static void V(conv_forward)(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    int32_t th = mestk_tile_h(g->out), tw = mestk_tile_w(g->out);
    int32_t ty = mestk_tiles_y(g->out), tx = mestk_tiles_x(g->out);
    int32_t block = task / ty, y0 = task % ty * th;
    int64_t row_floats = (int64_t)s->phases * s->columns * LANES, y_channel = (int64_t)th * tw * LANES;
    float *slab = job->slabs + worker * s->floats, *y = job->y + mestk_line(g->out, block, 0, y0, 0);
    V(conv_pack)(s, block, y0 * g->stride_h - g->pad_h, g->pad_w, job->x, slab);
    /* One row high: tiles side by side fill the accumulators. */
    int32_t beside = th == 1 ? mestk_min(LEVEL_ROWS, tx) : 1;
    if (beside == 3) beside = 2;
    for (int32_t t = 0, n; t < tx; t += n) {
        n = t + beside <= tx ? beside : 1;
        for (int32_t b = 0; b < job->blocks; b++) {
            int64_t y_tile = t * y_channel * g->out.channels;
            if (n > 1) {
                V(window) a = {slab + (int64_t)t * 4 * LANES, y + y_tile, 4 * LANES,
                               y_channel * g->out.channels, n, tw, y_channel};
                V(conv_window)(job, a, b, n);
                continue;
            }
            for (int32_t r = 0, rows; r < th; r += rows) {
                rows = mestk_min(LEVEL_ROWS, th - r);
                V(window) a = {slab + r * g->stride_h * row_floats + (int64_t)t * 4 * LANES,
                               y + y_tile + (int64_t)r * tw * LANES, g->stride_h * row_floats,
                               (int64_t)tw * LANES, rows, tw, y_channel};
                V(conv_window)(job, a, b, rows);
            }
        }
    }
}

/* ---- backward ---- */

/* One unit: rows x 4 pixels of one class, in one strip. */
typedef struct V(unit) {
    const float *slab;    /* line of the first pixel, last taps of the class */
    int64_t slab_row;     /* floats from row to row */
    int64_t at[8];        /* floats from the picture's channel 0 tile to the pixel; < 0: no such pixel */
    int32_t inside[8];    /* a pixel of the picture, not padding */
    int32_t section;      /* segment of a channel */
    int32_t whole;        /* all pixels inside */
    int32_t first, last;  /* block of output channels */
} V(unit);

/* `entries` of one channel on one unit, as many at a time as `step`. */
VEC_INLINE void V(conv_entries)(const V(unit) *u, const mestk_word *offset, const float *weight, float *partial,
                                const vec *x, vec *chain, const int pixels, const int step, const int need_dx)
{
    const float *at[4];
    vec dot[4];
    UNROLL for (int i = 0; i < 4; i++) dot[i] = vec_zero();
    UNROLL for (int i = 0; i < step; i++) at[i] = u->slab + offset[i];
    UNROLL for (int s = 0; s < step; s += LEVEL_DOTS) {
        const int end = s + LEVEL_DOTS < step ? s + LEVEL_DOTS : step;
        UNROLL for (int p = 0; p < pixels; p++) {
            UNROLL for (int i = s; i < end; i++) {
                vec dy = vec_load(at[i] + p / 4 * u->slab_row + p % 4 * LANES);
                if (need_dx) chain[p] = vec_fma((vec)(weight[i]), dy, chain[p]);
                dot[i] = vec_fma(dy, x[p], dot[i]);
            }
        }
    }
    if (step == 4) {
        vec_add_dots(dot, partial);
    } else {
        float d[WIDTH];
        vec_store(d, dot[0]);
        mestk_add_line(partial, d, WIDTH);
    }
}

VEC_INLINE void V(conv_channels)(const mestk_conv_job *job, const V(unit) *u, const float *picture, float *dx_picture,
                                 float *chains, float *partial, const int rows, const int need_dx)
{
    const int pixels = rows * 4;
    int32_t sections = job->blocks * job->classes, channels = job->g->in.channels;
    int64_t channel = (int64_t)mestk_tile_h(job->g->in) * mestk_tile_w(job->g->in) * LANES;
    const mestk_word *segment = job->segment + u->section;
    for (int32_t c = 0; c < channels; c++, segment += sections + 1, picture += channel) {
        int32_t e = segment[0], end = segment[1];
        float *kept = chains + (int64_t)c * 8 * LANES;
        vec x[8], chain[8];
        UNROLL for (int p = 0; p < pixels; p++) {
            x[p] = u->whole || u->inside[p] ? vec_load(picture + u->at[p]) : vec_zero();
            if (need_dx) chain[p] = u->first ? vec_zero() : vec_load(kept + p * LANES);
        }
        ROLLED for (; e + 4 <= end; e += 4)
            V(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, pixels, 4, need_dx);
        ROLLED for (; e < end; e++)
            V(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, pixels, 1, need_dx);
        if (!need_dx) continue;
        float *dx = dx_picture + c * channel;
        UNROLL for (int p = 0; p < pixels; p++) {
            if (!u->last) vec_store(kept + p * LANES, chain[p]);
            else if (u->whole || u->inside[p])
                vec_store(dx + u->at[p], job->accumulate ? vec_load(dx + u->at[p]) + chain[p] : chain[p]);
            else if (u->at[p] >= 0) vec_store(dx + u->at[p], vec_zero());
        }
    }
}

static void V(conv_unit)(const mestk_conv_job *job, V(unit) *u, int32_t block, int32_t class, int32_t rows,
                         float *chains, float *partial)
{
    mestk_shape in = job->g->in;
    int64_t base = mestk_line(in, block, 0, 0, 0);
    for (int32_t b = 0; b < job->blocks; b++) {
        u->section = b * job->classes + class;
        u->first = b == 0;
        u->last = b + 1 == job->blocks;
        const float *slab = u->slab;
        for (int32_t h = 0; h < LANES; h += WIDTH) {
            const float *x = job->x + base + h;
            float *dx = job->dx ? job->dx + base + h : NULL, *kept = chains + h;
            if (rows == 2 && dx) V(conv_channels)(job, u, x, dx, kept, partial, 2, 1);
            else if (rows == 2) V(conv_channels)(job, u, x, dx, kept, partial, 2, 0);
            else if (dx) V(conv_channels)(job, u, x, dx, kept, partial, 1, 1);
            else V(conv_channels)(job, u, x, dx, kept, partial, 1, 0);
            u->slab += WIDTH;
        }
        u->slab = slab;
    }
}

static void V(conv_backward)(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    mestk_shape in = g->in;
    int32_t th = mestk_tile_h(in), ty = mestk_tiles_y(in), block = task / ty, y0 = task % ty * th;
    int32_t width = mestk_tiles_x(in) * mestk_tile_w(in), sh = g->stride_h, sw = g->stride_w;
    int32_t top = mestk_slab_origin(y0, g->pad_h, sh, g->kernel_h);
    int32_t left = mestk_slab_origin(0, g->pad_w, sw, g->kernel_w);
    int64_t base = mestk_line(in, block, 0, 0, 0);
    float *slab = job->slabs + worker * s->floats, *chains = job->chains + worker * job->chain_floats;
    V(conv_pack)(s, block, top, -left, job->dy, slab);
    for (int32_t b = 0; b < sw; b++) {
        for (int32_t x = mestk_first_of_class(0, g->pad_w, sw, b); x < width; x += 4 * sw) {
            for (int32_t a = 0; a < sh; a++) {
                for (int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a); y < y0 + th; y += 2 * sh) {
                    int32_t rows = y + sh < y0 + th ? 2 : 1;
                    /* Slab line of pixel (y, x) and the last tap of the class, which the index counts
                     * from: n - m with m at most (kernel - 1) / stride. */
                    int32_t row = (y + g->pad_h) / sh - (g->kernel_h - 1) / sh - top;
                    int32_t column = (x + g->pad_w) / sw - (g->kernel_w - 1) / sw - left;
                    V(unit) u = {.slab = slab + ((int64_t)row * s->columns + column) * LANES,
                                 .slab_row = (int64_t)s->columns * LANES, .whole = 1};
                    for (int32_t p = 0; p < rows * 4; p++) {
                        int32_t qy = y + p / 4 * sh, qx = x + p % 4 * sw;
                        u.at[p] = qx < width ? mestk_line(in, block, 0, qy, qx) - base : -1;
                        u.inside[p] = qy < in.height && qx < in.width;
                        u.whole &= u.inside[p];
                    }
                    V(conv_unit)(job, &u, block, a * sw + b, rows, chains, partial);
                }
            }
        }
    }
}
