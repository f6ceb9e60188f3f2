/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution of 8 or 16 lanes, one format and instruction set: see vector.h for the parameters,
 * depthwise_job.h for the slab, depthwise_reference.c for the order of roundings, which is kept.  Four pixels
 * of a row side by side; kernels of 3 x 3 with stride 1 have their loops over taps unrolled.
 */

/* Eight lanes: the 16 chains of sums (operand.h) are those of two neighbouring pixels, where rows of tiles are pairs.
 * Rows that are none are summed afterwards. */
#define SIDE (LANES == 8 ? 2 : 1)
VEC_INLINE int32_t V(depthwise_sums_later)(mestk_shape s) { return mestk_tile_w(s) % SIDE != 0; }

static void V(depthwise_sum_later)(mestk_shape s, int32_t strip, int32_t c, int32_t count, const stored *v,
                                   const stored *other, double *sums)
{
#if LANES < 16
    if (mestk_tile_index(s) == 3) V_OF(strip_sums, 16)(s, strip, c, count, v, other, sums);
    else V(strip_sums)(s, strip, c, count, v, other, sums);
#else
    (void)s, (void)strip, (void)c, (void)count, (void)v, (void)other, (void)sums;
#endif
}

/* What one channel is copied to: lines [rows][columns], row 0 at picture row `top`, picture column x at
 * column x + shift. */
typedef struct V(depthwise_slab) {
    float *lines;
    int32_t rows, columns, top, shift;
} V(depthwise_slab);

/* What the next channel reads or writes of a row of a tile is prefetched, since its tiles lie too far apart for
 * the hardware to guess.  Of wide pictures it would be evicted again before it is used. */
VEC_INLINE int32_t V(depthwise_looks_ahead)(mestk_shape s) { return mestk_tiles_x(s) <= 16; }

VEC_INLINE void V(depthwise_prefetch)(const stored *p, const int write)
{
    UNROLL for (int i = 0; i < 4 * LANES; i += 64 / (int)sizeof(stored)) {
        if (write) __builtin_prefetch(p + i, 1);
        else __builtin_prefetch(p + i);
    }
}

VEC_INLINE void V(depthwise_pack_tiles)(mestk_shape p, const V(depthwise_slab) *s, const V(term) *term, int64_t at,
                                        int32_t r0, int32_t r1, const int32_t kind)
{
    int32_t tw = mestk_tile_w(p), tiles = mestk_tiles_x(p), end = mestk_min(p.width + s->shift, s->columns);
    int32_t ahead = V(depthwise_looks_ahead)(p);
    int64_t step = (int64_t)p.channels * mestk_tile_h(p) * tw * LANES;
    for (int32_t t = 0; t < tiles; t++, at += step) {
        int32_t u = t * tw + s->shift, u0 = mestk_max(u, 0), u1 = mestk_min(u + tw, end);
        const int32_t whole = u1 - u0 == 4;
        for (int32_t r = r0; r < r1; r++) {
            float *to = s->lines + ((int64_t)r * s->columns + u0) * LANES;
            int64_t from = at + ((r - r0) * tw + u0 - u) * LANES;
            if (whole) {
                if (ahead) V(depthwise_prefetch)(term->x + from + 16 * LANES, 0);
                if (ahead && kind & V(SECOND)) V(depthwise_prefetch)(term->r + from + 16 * LANES, 0);
                UNROLL for (int i = 0; i < 4 * LANES; i += WIDTH) vec_store(to + i, V(operand_value)(term, from + i, kind));
            } else {
                ROLLED for (int32_t i = 0; i < (u1 - u0) * LANES; i += WIDTH)
                    vec_store(to + i, V(operand_value)(term, from + i, kind));
            }
        }
    }
}

/* One channel of the operand; lines outside the picture are left alone. */
static void V(depthwise_pack)(mestk_shape p, const V(depthwise_slab) *s, const mestk_operand *from, int32_t block,
                              int32_t c)
{
    V(term) term = V(operand_term)(from, c);
    int32_t th = mestk_tile_h(p), last = mestk_min(s->rows, p.height - s->top);
    for (int32_t r = mestk_max(0, -s->top), end; r < last; r = end) {
        end = mestk_min(last, r + th - (s->top + r) % th);
        int64_t at = mestk_line(p, block, c, s->top + r, 0);
#define RUN(kind) V(depthwise_pack_tiles)(p, s, &term, at, r, end, kind)
        OPERAND_SWITCH(term.kind, RUN)
#undef RUN
    }
}

/* ---- forward ---- */

typedef struct V(depthwise_out) {
    const float *slab;     /* line of the first output, tap 0; lanes in work */
    int64_t row;           /* slab floats from row to row */
    int64_t down, right;   /* from output to output */
    const float *w;
    stored *y;             /* of the tile's first pixel and the channel */
    int32_t ahead;
    vec start, sum[SIDE], squares[SIDE];
} V(depthwise_out);

VEC_INLINE void V(depthwise_tap)(const float *x, int64_t down, int64_t right, vec weight, vec *y, const int rows)
{
    UNROLL for (int i = 0; i < rows * 4; i++) y[i] = vec_fma(weight, vec_load(x + i / 4 * down + i % 4 * right), y[i]);
}

/* Outputs of `rows` rows from row r of a tile on, at slab line x. */
VEC_INLINE void V(depthwise_outputs)(const mestk_depthwise_job *job, V(depthwise_out) *a, const float *x, const vec *w,
                                     stored *to, int32_t valid_rows, int32_t valid_columns, const int rows,
                                     const int three)
{
    const mestk_conv *g = job->g;
    int32_t tw = mestk_tile_w(g->out), whole = valid_rows >= rows && valid_columns == 4;
    vec y[8];
    UNROLL for (int i = 0; i < rows * 4; i++) y[i] = a->start;
    if (three) {
        UNROLL for (int t = 0; t < 9; t++)
            V(depthwise_tap)(x + t / 3 * a->row + t % 3 * LANES, a->row, LANES, w[t], y, rows);
    } else {
        const float *weight = a->w;
        ROLLED for (int32_t ky = 0; ky < g->kernel_h; ky++)
            ROLLED for (int32_t kx = 0; kx < g->kernel_w; kx++)
                V(depthwise_tap)(x + ky * a->row + kx * LANES, a->down, a->right, (vec)(*weight++), y, rows);
    }
    UNROLL for (int i = 0; i < rows * 4; i++)
        if (whole || i % 4 < tw) put_stored(to + (i / 4 * tw + i % 4) * LANES, y[i]);
    UNROLL for (int i = 0; i < rows; i++)
        if (whole && a->ahead) V(depthwise_prefetch)(to + (16 + i * 4) * LANES, 1);
    if (!job->sums) return;
    UNROLL for (int i = 0; i < rows * 4; i++) {
        if (!whole && (i / 4 >= valid_rows || i % 4 >= valid_columns)) continue;
        vec v = round_stored(y[i]);
        a->sum[i % SIDE] += v;
        a->squares[i % SIDE] = vec_fma(v, v, a->squares[i % SIDE]);
    }
}

VEC_INLINE void V(depthwise_forward_channel)(const mestk_depthwise_job *job, V(depthwise_out) *a, int32_t y0,
                                             const int three)
{
    mestk_shape s = job->g->out;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), tx = mestk_tiles_x(s);
    int64_t tile = (int64_t)s.channels * th * tw * LANES;
    vec w[9];
    if (three) UNROLL for (int t = 0; t < 9; t++) w[t] = (vec)(a->w[t]);
    for (int32_t t = 0; t < tx; t++) {
        int32_t columns = mestk_min(tw, s.width - t * tw), r = 0;
        const float *x = a->slab + t * 4 * a->right;
        stored *y = a->y + t * tile;
        for (; r + 2 <= th; r += 2, x += 2 * a->down, y += 2 * tw * LANES)
            V(depthwise_outputs)(job, a, x, w, y, s.height - y0 - r, columns, 2, three);
        if (r < th) V(depthwise_outputs)(job, a, x, w, y, s.height - y0 - r, columns, 1, three);
    }
}

static void V(depthwise_forward)(const mestk_depthwise_job *job, int32_t strip, int32_t worker)
{
    const mestk_conv *g = job->g;
    mestk_shape s = g->out;
    int32_t th = mestk_tile_h(s), ty = mestk_tiles_y(s), block = strip / ty, y0 = strip % ty * th;
    int32_t taps = g->kernel_h * g->kernel_w, three = mestk_depthwise_is_three(g);
    V(depthwise_slab) slab = {.lines = job->work + worker * job->work_floats, .rows = job->slab_rows,
                              .columns = job->slab_columns, .top = y0 * g->stride_h - g->pad_h, .shift = g->pad_w};
    vec_zero_lines(slab.lines, (int64_t)slab.rows * slab.columns);
    for (int32_t c = 0; c < s.channels; c++) {
        vec sum[PARTS * SIDE], squares[PARTS * SIDE];
        V(depthwise_pack)(g->in, &slab, job->x, block, c);
        for (int h = 0; h < PARTS; h++) {
            V(depthwise_out) a = {.slab = slab.lines + h * WIDTH, .row = (int64_t)slab.columns * LANES,
                                  .w = job->w + (int64_t)c * taps,
                                  .y = (stored *)job->y + mestk_line(s, block, c, y0, 0) + h * WIDTH,
                                  .ahead = V(depthwise_looks_ahead)(s), .start = (vec)(job->start ? job->start[c] : 0.0f)};
            for (int i = 0; i < SIDE; i++) a.sum[i] = a.squares[i] = vec_zero();
            a.down = g->stride_h * a.row;
            a.right = g->stride_w * LANES;
            if (three) V(depthwise_forward_channel)(job, &a, y0, 1);
            else V(depthwise_forward_channel)(job, &a, y0, 0);
            for (int i = 0; i < SIDE; i++) sum[h + i] = a.sum[i], squares[h + i] = a.squares[i];
        }
        if (!job->sums) continue;
        if (V(depthwise_sums_later)(s)) {
            V(depthwise_sum_later)(s, strip, c, job->count, job->y, job->y, job->sums);
            continue;
        }
        V(reduce_samples)(sum, squares, LANES, mestk_max(0, mestk_min(LANES, job->count - block * LANES)),
                          job->sums + ((int64_t)strip * s.channels + c) * 2);
    }
}

/* ---- backward ---- */

typedef struct V(depthwise_in) {
    V(depthwise_slab) dy;
    const float *w;
    float *x, *dx, *dots;      /* lines of the strip [row][column]; of dw, WIDTH floats a tap */
    int32_t block, channel, y0;
    int32_t part;              /* first lane in work */
    int32_t ahead;
    vec sum[SIDE], dot[2][SIDE]; /* of dx, and of dx times what is normed */
} V(depthwise_in);

/* dx of four pixels of a row of a tile, or as many as there are: the old one added, masked, summed. */
VEC_INLINE void V(depthwise_store)(const mestk_gradient *to, V(depthwise_in) *a, int64_t at, const vec *x, vec *chain,
                                   int32_t columns, int32_t inside, const int whole)
{
    stored *dx = (stored *)to->dx + at;
    if (whole && a->ahead) V(depthwise_prefetch)(dx + 16 * LANES, 1);
    if (whole && a->ahead && to->normed[0]) V(depthwise_prefetch)((const stored *)to->normed[0] + at + 16 * LANES, 0);
    UNROLL for (int p = 0; p < 4; p++) {
        if (to->accumulate && (whole || p < inside)) chain[p] += get_stored(dx + p * LANES);
        if (to->masked) chain[p] = vec_where(x[p] > vec_zero(), chain[p]);
        if (!whole && p >= inside) chain[p] = vec_zero();
        if (whole || p < columns) put_stored(dx + p * LANES, chain[p]);
    }
    if (!to->normed[0]) return;
    UNROLL for (int p = 0; p < 4; p++) {
        if (!whole && p >= inside) continue;
        vec v = round_stored(chain[p]);
        a->sum[p % SIDE] += v;
        UNROLL for (int n = 0; n < 2; n++) {
            if (!to->normed[n]) continue;
            vec *dot = a->dot[n] + p % SIDE;
            *dot = vec_fma(v, get_stored((const stored *)to->normed[n] + at + p * LANES), *dot);
        }
    }
}

VEC_INLINE void V(depthwise_finish)(const mestk_depthwise_job *job, V(depthwise_in) *a, int32_t t, int32_t r, const vec *x,
                                    vec *chain)
{
    mestk_shape s = job->g->in;
    int32_t tw = mestk_tile_w(s), inside = a->y0 + r < s.height ? mestk_min(tw, s.width - t * tw) : 0;
    int64_t at = mestk_line(s, a->block, a->channel, a->y0 + r, t * tw) + a->part;
    if (inside == 4) V(depthwise_store)(job->gradient, a, at, x, chain, 4, 4, 1);
    else V(depthwise_store)(job->gradient, a, at, x, chain, tw, inside, 0);
}

/* A tap on four pixels: at[i] of dy. */
VEC_INLINE vec V(depthwise_back_tap)(const float *dy, vec weight, const vec *x, vec *chain, vec dot, const int need_dx)
{
    UNROLL for (int p = 0; p < 4; p++) {
        vec d = vec_load(dy + p * LANES);
        if (need_dx) chain[p] = vec_fma(weight, d, chain[p]);
        dot = vec_fma(d, x[p], dot);
    }
    return dot;
}

/* Four pixels of row r, from column q on, of one class: `stride` apart. */
VEC_INLINE void V(depthwise_inputs)(const mestk_depthwise_job *job, V(depthwise_in) *a, int32_t q, int32_t r, const vec *w,
                                    vec *dots, const int need_dx, const int three)
{
    const mestk_conv *g = job->g;
    int32_t sh = three ? 1 : g->stride_h, sw = three ? 1 : g->stride_w, kw = three ? 3 : g->kernel_w;
    int32_t width = mestk_tiles_x(g->in) * mestk_tile_w(g->in), v = a->y0 + r + g->pad_h, u = q + g->pad_w;
    int64_t row = (int64_t)a->dy.columns * LANES, first = ((int64_t)r * width + q) * LANES + a->part;
    /* The slab's line that the first tap of the class meets; the next taps are before it. */
    const float *dy = a->dy.lines + (v / sh - a->dy.top) * row + (u / sw + a->dy.shift) * LANES + a->part;
    int32_t whole = q + 3 * sw < width;
    vec x[4], chain[4];
    UNROLL for (int p = 0; p < 4; p++) {
        x[p] = whole || q + p * sw < width ? vec_load(a->x + first + p * sw * LANES) : vec_zero();
        chain[p] = vec_zero();
    }
    if (three) {
        UNROLL for (int t = 0; t < 9; t++)
            dots[t] = V(depthwise_back_tap)(dy - t / 3 * row - t % 3 * LANES, w[t], x, chain, dots[t], need_dx);
    } else {
        ROLLED for (int32_t ky = v % sh; ky < g->kernel_h; ky += sh, dy -= row) {
            const float *at = dy;
            ROLLED for (int32_t kx = u % sw; kx < kw; kx += sw, at -= LANES) {
                float *dot = a->dots + (ky * kw + kx) * WIDTH;
                vec_store(dot, V(depthwise_back_tap)(at, (vec)(a->w[ky * kw + kx]), x, chain, vec_load(dot), need_dx));
            }
        }
    }
    if (!need_dx) return;
    if (three) {
        V(depthwise_finish)(job, a, q / 4, r, x, chain);
    } else {
        UNROLL for (int p = 0; p < 4; p++)
            if (whole || q + p * sw < width) vec_store(a->dx + first + p * sw * LANES, chain[p]);
    }
}

/* partial += the sums of dw of the lanes in work. */
VEC_INLINE void V(depthwise_add_dots)(const vec *dot, float *partial)
{
    for (int t = 0; t < 2; t++) vec_add_dots(dot + 4 * t, partial + 4 * t);
    float d[WIDTH];
    vec_store(d, dot[8]);
    mestk_add_line(partial + 8, d, WIDTH);
}

/* One channel, 3 x 3 and stride 1: tile by tile, so that dx is finished at once. */
VEC_INLINE void V(depthwise_backward_three)(const mestk_depthwise_job *job, V(depthwise_in) *a, float *partial,
                                            const int need_dx)
{
    mestk_shape s = job->g->in;
    int32_t th = mestk_tile_h(s), tx = mestk_tiles_x(s), valid = mestk_min(th, s.height - a->y0);
    vec w[9], dots[9];
    UNROLL for (int t = 0; t < 9; t++) w[t] = (vec)(a->w[t]), dots[t] = vec_zero();
    for (int32_t t = 0; t < tx; t++) {
        for (int32_t r = 0; r < valid; r++) V(depthwise_inputs)(job, a, t * 4, r, w, dots, need_dx, 1);
        for (int32_t r = valid; need_dx && r < th; r++) {
            vec nothing[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
            V(depthwise_finish)(job, a, t, r, nothing, nothing);
        }
    }
    V(depthwise_add_dots)(dots, partial);
}

/* One channel, any kernel and stride: dx class by class, then finished tile by tile. */
VEC_INLINE void V(depthwise_backward_any)(const mestk_depthwise_job *job, V(depthwise_in) *a, float *partial,
                                          const int need_dx)
{
    const mestk_conv *g = job->g;
    mestk_shape s = g->in;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), tx = mestk_tiles_x(s), valid = mestk_min(th, s.height - a->y0);
    int32_t taps = g->kernel_h * g->kernel_w;
    ROLLED for (int32_t t = 0; t < taps; t++) vec_store(a->dots + t * WIDTH, vec_zero());
    for (int32_t class = 0; class < g->stride_w; class++)
        for (int32_t q = mestk_first_of_class(0, g->pad_w, g->stride_w, class); q < tx * tw; q += 4 * g->stride_w)
            for (int32_t r = 0; r < valid; r++) V(depthwise_inputs)(job, a, q, r, NULL, NULL, need_dx, 0);
    ROLLED for (int32_t t = 0; t < taps; t++) mestk_add_line(partial + t, a->dots + t * WIDTH, WIDTH);
    for (int32_t t = 0; need_dx && t < tx; t++) {
        for (int32_t r = 0; r < th; r++) {
            vec x[4], chain[4];
            UNROLL for (int p = 0; p < 4; p++) {
                int64_t line = ((int64_t)r * tx * tw + t * tw + p) * LANES + a->part;
                x[p] = r < valid && p < tw ? vec_load(a->x + line) : vec_zero();
                chain[p] = r < valid && p < tw ? vec_load(a->dx + line) : vec_zero();
            }
            V(depthwise_finish)(job, a, t, r, x, chain);
        }
    }
}

static void V(depthwise_backward)(const mestk_depthwise_job *job, int32_t strip, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const mestk_gradient *to = job->gradient;
    mestk_shape s = g->in;
    int32_t th = mestk_tile_h(s), ty = mestk_tiles_y(s), width = mestk_tiles_x(s) * mestk_tile_w(s);
    int32_t taps = g->kernel_h * g->kernel_w, three = mestk_depthwise_is_three(g);
    int32_t block = strip / ty, y0 = strip % ty * th, lanes = job->count - block * LANES;
    V(depthwise_slab) dy = {.lines = job->work + worker * job->work_floats, .rows = job->slab_rows,
                            .columns = job->slab_columns};
    dy.top = mestk_slab_origin(y0, g->pad_h, g->stride_h, g->kernel_h);
    dy.shift = -mestk_slab_origin(0, g->pad_w, g->stride_w, g->kernel_w);
    V(depthwise_slab) x = {.lines = dy.lines + mestk_round16((int64_t)dy.rows * dy.columns * LANES), .rows = th,
                           .columns = width, .top = y0, .shift = 0};
    V(depthwise_in) a = {.dy = dy, .x = x.lines, .block = block, .y0 = y0, .ahead = V(depthwise_looks_ahead)(s)};
    a.dx = x.lines + mestk_round16((int64_t)th * width * LANES);
    a.dots = a.dx + mestk_round16((int64_t)th * width * LANES);
    vec_zero_lines(dy.lines, (int64_t)dy.rows * dy.columns);
    vec_zero_lines(x.lines, (int64_t)th * width);
    for (int32_t c = 0; c < s.channels; c++, partial += taps) {
        vec sum[PARTS * SIDE], dot[2][PARTS * SIDE];
        V(depthwise_pack)(g->out, &dy, job->dy, block, c);
        mestk_clear_lanes(dy.lines, (int64_t)dy.rows * dy.columns * LANES, LANES, lanes);
        V(depthwise_pack)(s, &x, job->x, block, c);
        a.w = job->w + (int64_t)c * taps;
        a.channel = c;
        for (int h = 0; h < PARTS; h++) {
            a.part = h * WIDTH;
            for (int i = 0; i < SIDE; i++) a.sum[i] = a.dot[0][i] = a.dot[1][i] = vec_zero();
            if (three && to->dx) V(depthwise_backward_three)(job, &a, partial, 1);
            else if (three) V(depthwise_backward_three)(job, &a, partial, 0);
            else if (to->dx) V(depthwise_backward_any)(job, &a, partial, 1);
            else V(depthwise_backward_any)(job, &a, partial, 0);
            for (int i = 0; i < SIDE; i++) sum[h + i] = a.sum[i], dot[0][h + i] = a.dot[0][i], dot[1][h + i] = a.dot[1][i];
        }
        for (int n = 0; n < 2 && to->dx && to->normed[n]; n++) {
            if (V(depthwise_sums_later)(s)) {
                V(depthwise_sum_later)(s, strip, c, job->count, to->dx, to->normed[n], to->sums[n]);
                continue;
            }
            vec copy[PARTS * SIDE];
            for (int h = 0; h < PARTS * SIDE; h++) copy[h] = sum[h];
            V(reduce_sums)(copy, dot[n], to->sums[n] + ((int64_t)strip * s.channels + c) * 2);
        }
    }
}
#undef SIDE
