/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution of one or four lanes: vectors of neighbouring pixels.  The values of a slab's row lie side by
 * side, so what a tap meets at LANES / lanes neighbouring outputs is one load, whatever the tap.  Here are the
 * loops over connections; they know floats and distances only.  few_pack.h packs what they read,
 * few_store.h finishes what they leave in `chains`.
 */
#if WIDTH != LANES
#error a vector is one register here
#endif

/* ---- forward ---- */

VEC_INLINE void V(rows_begin)(const mestk_conv_job *job, int32_t o, int32_t b, const float *chains, vec *sum,
                              const int rows, const int columns)
{
    vec start = (vec)(job->start ? job->start[o] : 0.0f);
    chains += o * job->chain_channel;
    UNROLL for (int i = 0; i < rows * columns; i++)
        sum[i] = b ? vec_load(chains + i / columns * job->row_floats + i % columns * LANES) : start;
}

VEC_INLINE void V(rows_end)(const mestk_conv_job *job, int32_t o, float *chains, const vec *sum, const int rows,
                            const int columns)
{
    chains += o * job->chain_channel;
    UNROLL for (int i = 0; i < rows * columns; i++)
        vec_store(chains + i / columns * job->row_floats + i % columns * LANES, sum[i]);
}

/* One channel block of `filters` filters on rows x columns vectors: every one of x is loaded once for all. */
VEC_INLINE void V(rows_filters)(const mestk_conv_job *job, const float *slab, float *chains, int32_t o, int32_t b,
                                conv_list w, const int rows, const int columns, const int filters, const int dense)
{
    vec sum[4][8];
    UNROLL for (int k = 0; k < filters; k++) V(rows_begin)(job, o + k, b, chains, sum[k], rows, columns);
    ROLLED for (int32_t j = 0; j < w.count; j++, w.value += w.step) {
        const float *x = slab + w.offset[dense ? j : w.column[j]];
        UNROLL for (int i = 0; i < rows * columns; i++) {
            vec v = vec_load(x + i / columns * job->slab_down + i % columns * LANES);
            UNROLL for (int k = 0; k < filters; k++) sum[k][i] = vec_fma((vec)(w.value[k * w.filter]), v, sum[k][i]);
        }
    }
    UNROLL for (int k = 0; k < filters; k++) V(rows_end)(job, o + k, chains, sum[k], rows, columns);
}

/* Filters o .. o + n - 1, which have the same connections. */
VEC_INLINE void V(rows_shared)(const mestk_conv_job *job, const float *slab, float *chains, int32_t o, int32_t n, int32_t b,
                               conv_list w, const int rows, const int columns, const int dense)
{
    const int together = LEVEL_SCALAR ? 1 : LEVEL_ROWS;
    int32_t i = 0;
    for (; i + together <= n; i += together, w.value += together * w.filter)
        V(rows_filters)(job, slab, chains, o + i, b, w, rows, columns, together, dense);
    for (; i < n; i++, w.value += w.filter) V(rows_filters)(job, slab, chains, o + i, b, w, rows, columns, 1, dense);
}

/* Dense layers and blocks. */
VEC_INLINE void V(rows_of_shared)(const mestk_conv_job *job, const float *slab, float *chains, int32_t b, const int rows,
                                  const int columns)
{
    const mestk_weights *w = job->w;
    if (!w->row_start) {
        V(rows_shared)(job, slab, chains, 0, w->rows, b, mestk_conv_dense_list(job, 0, b), rows, columns, 1);
        return;
    }
    for (int32_t o = 0, r = 0; o < w->rows; o += w->group, r++)
        V(rows_shared)(job, slab, chains, o, mestk_min(w->group, w->rows - o), b, mestk_conv_list(job, r, b, w->group),
                       rows, columns, 0);
}

/* One filter of patterns, tap by tap. */
VEC_INLINE void V(rows_taps)(const mestk_conv_job *job, const float *slab, float *chains, int32_t o, int32_t b,
                             int32_t first, int32_t end, const int rows, const int columns)
{
    const mestk_weights *w = job->w;
    const float *value = w->value + (int64_t)first * 4;
    vec sum[8];
    V(rows_begin)(job, o, b, chains, sum, rows, columns);
    ROLLED for (int32_t j = first; j < end; j++) {
        const mestk_word *offset = job->offset + w->column[j] * 9;
        ROLLED for (int t = 0; t < 4; t++) {
            const float *x = slab + offset[w->pattern_taps[w->pattern[j]][t]];
            vec weight = (vec)(*value++);
            UNROLL for (int i = 0; i < rows * columns; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / columns * job->slab_down + i % columns * LANES), sum[i]);
        }
    }
    V(rows_end)(job, o, chains, sum, rows, columns);
}

/* One filter of runs. */
VEC_INLINE void V(rows_runs)(const mestk_conv_job *job, const float *slab, float *chains, int32_t o, int32_t b,
                             int32_t first, int32_t end, const int rows, const int columns)
{
    const mestk_weights *w = job->w;
    const float *value = w->value + (int64_t)first * w->group;
    vec sum[8];
    V(rows_begin)(job, o, b, chains, sum, rows, columns);
    ROLLED for (int32_t j = first; j < end; j++, value += w->group) {
        const float *x = slab + job->offset[w->column[j]];
        int32_t n = mestk_unit_columns(w, w->column[j]);
        ROLLED for (int32_t k = 0; k < n; k++, x += job->slab.channel) {
            vec weight = (vec)(value[k]);
            UNROLL for (int i = 0; i < rows * columns; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / columns * job->slab_down + i % columns * LANES), sum[i]);
        }
    }
    V(rows_end)(job, o, chains, sum, rows, columns);
}

/* Single weights, runs and patterns: every filter has its own connections. */
VEC_INLINE void V(rows_of_single)(const mestk_conv_job *job, const float *slab, float *chains, int32_t b, const int rows,
                                  const int columns)
{
    const mestk_weights *w = job->w;
    const mestk_word *segment = job->segment + b;
    for (int32_t o = 0; o < w->rows; o++, segment += job->blocks + 1) {
        if (w->form == MESTK_FORM_PATTERN) V(rows_taps)(job, slab, chains, o, b, segment[0], segment[1], rows, columns);
        else if (w->form == MESTK_FORM_RUN) V(rows_runs)(job, slab, chains, o, b, segment[0], segment[1], rows, columns);
        else V(rows_filters)(job, slab, chains, o, b, mestk_conv_list(job, o, b, 1), rows, columns, 1, 0);
    }
}

/* Vectors of a row that a pass takes, of `left`: as many sums as fit the registers. */
VEC_INLINE int32_t V(rows_columns)(int32_t rows, int32_t shared, int32_t left)
{
    int32_t most = shared ? (rows == 1 ? 4 : 1) : LEVEL_SUMS / rows, columns = 1;
    while (2 * columns <= mestk_min(most, left)) columns *= 2;
    return columns;
}

/* y of a strip but for its epilogue. */
static void V(rows_forward)(const mestk_conv_job *job, const float *slab, float *chains)
{
    int32_t rows = job->rows, shared = !job->w->row_start || job->w->form == MESTK_FORM_BLOCK, n;
#define ROWS(rows, columns, run)                                        \
    case rows * 16 + columns: run(job, slab + x, chains + x, b, rows, columns); break;
    for (int32_t b = 0; b < job->blocks; b++) {
        for (int32_t x = 0; x < job->row_floats; x += n * LANES) {
            n = V(rows_columns)(rows, shared, (job->row_floats - x) / LANES);
            if (shared) {
                switch (rows * 16 + n) {
                    ROWS(4, 1, V(rows_of_shared))
                    ROWS(2, 1, V(rows_of_shared))
                    ROWS(1, 4, V(rows_of_shared))
                    ROWS(1, 2, V(rows_of_shared))
                    ROWS(1, 1, V(rows_of_shared))
                }
            } else {
                switch (rows * 16 + n) {
#if LEVEL_SUMS == 8
                    ROWS(4, 2, V(rows_of_single))
                    ROWS(2, 4, V(rows_of_single))
                    ROWS(1, 8, V(rows_of_single))
#endif
                    ROWS(4, 1, V(rows_of_single))
                    ROWS(2, 2, V(rows_of_single))
                    ROWS(2, 1, V(rows_of_single))
                    ROWS(1, 4, V(rows_of_single))
                    ROWS(1, 2, V(rows_of_single))
                    ROWS(1, 1, V(rows_of_single))
                }
            }
        }
    }
#undef ROWS
}

/* ---- backward ---- */

/* Rows x columns vectors of one class of pixels. */
typedef struct V(rows_unit) {
    const float *slab;   /* of dy: of the first pixel, last taps of the class */
    const float *x;
    float *chains;       /* dx */
    int64_t down, x_down; /* from row to row: of the slab; of x and dx */
    int32_t section, first; /* of a channel's segments; is it the first block of output channels */
} V(rows_unit);

/* The dot products of four entries, quad by quad (conv_reference.c), added to four sums. */
VEC_INLINE void V(rows_add_dots)(const vec *d, float *partial)
{
#if WIDTH == 4
    vec_add_dots(d, partial);
#else
    typedef float four __attribute__((ext_vector_type(4), aligned(4)));
    four p = *(four *)partial;
#if WIDTH == 16
    vec a = __builtin_shufflevector(d[0], d[1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
            + __builtin_shufflevector(d[0], d[1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    vec b = __builtin_shufflevector(d[2], d[3], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
            + __builtin_shufflevector(d[2], d[3], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    vec c = __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
            + __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
    p += __builtin_shufflevector(c, c, 0, 1, 2, 3);
    p += __builtin_shufflevector(c, c, 4, 5, 6, 7);
    p += __builtin_shufflevector(c, c, 8, 9, 10, 11);
    p += __builtin_shufflevector(c, c, 12, 13, 14, 15);
#else
    vec a = __builtin_shufflevector(d[0], d[1], 0, 1, 8, 9, 4, 5, 12, 13)
            + __builtin_shufflevector(d[0], d[1], 2, 3, 10, 11, 6, 7, 14, 15);
    vec b = __builtin_shufflevector(d[2], d[3], 0, 1, 8, 9, 4, 5, 12, 13)
            + __builtin_shufflevector(d[2], d[3], 2, 3, 10, 11, 6, 7, 14, 15);
    vec c = __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14)
            + __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
    p += __builtin_shufflevector(c, c, 0, 1, 2, 3);
    p += __builtin_shufflevector(c, c, 4, 5, 6, 7);
#endif
    *(four *)partial = p;
#endif
}

/* `step` entries of one channel, 4 or 1. */
VEC_INLINE void V(rows_entries)(const V(rows_unit) *u, const mestk_word *offset, const float *weight, float *partial,
                                const vec *x, vec *chain, const int rows, const int columns, const int step,
                                const int need_dx)
{
    const float *at[4];
    UNROLL for (int i = 0; i < step; i++) at[i] = u->slab + offset[i];
    UNROLL for (int k = 0; k < columns; k++) {
        vec dot[4];
        UNROLL for (int i = 0; i < 4; i++) dot[i] = vec_zero();
        UNROLL for (int s = 0; s < step; s += LEVEL_DOTS) {
            const int end = s + LEVEL_DOTS < step ? s + LEVEL_DOTS : step;
            UNROLL for (int r = 0; r < rows; r++) {
                const int p = r * columns + k;
                UNROLL for (int i = s; i < end; i++) {
                    vec dy = vec_load(at[i] + r * u->down + k * LANES);
                    if (need_dx) chain[p] = vec_fma((vec)(weight[i]), dy, chain[p]);
                    dot[i] = vec_fma(dy, x[p], dot[i]);
                }
            }
        }
        if (step == 4) {
            V(rows_add_dots)(dot, partial);
        } else {
            float d[LANES];
            vec_store(d, dot[0]);
            UNROLL for (int q = 0; q < LANES; q += 4) *partial += mestk_sum4(d + q);
        }
    }
}

/* One block of output channels and every input channel on one unit. */
VEC_INLINE void V(rows_channels)(const mestk_conv_job *job, const V(rows_unit) *u, float *partial, const int rows,
                                 const int columns, const int need_dx)
{
    int32_t sections = job->blocks * job->classes, channels = job->g->in.channels;
    int64_t channel = job->inner.channel;
    const mestk_word *segment = job->segment + u->section;
    const float *from = u->x;
    float *chains = u->chains;
    for (int32_t c = 0; c < channels; c++, segment += sections + 1, from += channel, chains += channel) {
        int32_t e = segment[0], end = segment[1];
        vec x[8], chain[8];
        UNROLL for (int i = 0; i < rows * columns; i++) {
            int64_t at = i / columns * u->x_down + i % columns * LANES;
            x[i] = vec_load(from + at);
            if (need_dx) chain[i] = u->first ? vec_zero() : vec_load(chains + at);
        }
        ROLLED for (; e + 4 <= end; e += 4)
            V(rows_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, rows, columns, 4, need_dx);
        ROLLED for (; e < end; e++)
            V(rows_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, rows, columns, 1, need_dx);
        if (!need_dx) continue;
        UNROLL for (int i = 0; i < rows * columns; i++)
            vec_store(chains + i / columns * u->x_down + i % columns * LANES, chain[i]);
    }
}

static void V(rows_unit_of)(const mestk_conv_job *job, V(rows_unit) u, int32_t class, int32_t rows, int32_t wide,
                            float *partial)
{
    int32_t dx = job->gradient->dx != NULL;
    for (int32_t b = 0; b < job->blocks; b++) {
        u.section = b * job->classes + class;
        u.first = b == 0;
#define ROWS(rows, columns)                                                \
    do {                                                                   \
        if (dx) V(rows_channels)(job, &u, partial, rows, columns, 1);      \
        else V(rows_channels)(job, &u, partial, rows, columns, 0);         \
    } while (0)
        if (rows == 4 && wide) ROWS(4, 2);
        else if (rows == 4) ROWS(4, 1);
        else if (rows == 2 && wide) ROWS(2, 2);
        else if (rows == 2) ROWS(2, 1);
        else ROWS(1, 1);
#undef ROWS
    }
}

/* dw of a strip, and dx but for its epilogue.  y0: the strip's first row; top, left: what slab row 0 and
 * column 0 are in dy; x and dx as job->inner says. */
static void V(rows_backward)(const mestk_conv_job *job, int32_t y0, int32_t top, int32_t left, const float *slab,
                             const float *x, float *dx, float *partial)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab, *inner = &job->inner;
    int32_t sh = g->stride_h, sw = g->stride_w, lanes = g->in.lanes;
    int64_t x_row = (int64_t)inner->phases * inner->columns * lanes;
    for (int32_t b = 0; b < sw; b++) {
        int32_t q = mestk_first_of_class(0, g->pad_w, sw, b), u = q + g->pad_w % sw;
        int64_t column = mestk_slab_origin(q, g->pad_w, sw, g->kernel_w) - left;
        int64_t x_column = (int64_t)(u % sw) * inner->columns + u / sw;
        for (int32_t f = 0, n; f < job->row_floats; f += n) {
            n = LEVEL_SUMS == 8 && f + 2 * LANES <= job->row_floats ? 2 * LANES : LANES;
            for (int32_t a = 0; a < sh; a++) {
                int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a), rows = mestk_ceil_div(y0 + job->rows - y, sh);
                int64_t row = mestk_slab_origin(y, g->pad_h, sh, g->kernel_h) - top;
                int64_t at = (y - y0) * x_row + x_column * lanes + f;
                V(rows_unit) unit = {.slab = slab + (row * s->columns + column) * lanes + f, .x = x + at, .chains = dx + at,
                                     .down = (int64_t)s->columns * lanes, .x_down = sh * x_row};
                int32_t class = mestk_class_of(g, a, b);
                if (rows == 1 && n > LANES) { /* as two */
                    V(rows_unit_of)(job, unit, class, 1, 0, partial);
                    unit.slab += LANES, unit.x += LANES, unit.chains += LANES;
                }
                if (rows > 0) V(rows_unit_of)(job, unit, class, rows, n > LANES, partial);
            }
        }
    }
}
