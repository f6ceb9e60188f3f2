/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution forward of 8 or 16 lanes on one instruction set: see vector.h for the parameters, conv_job.h for
 * the slab, conv_reference.c for the order of roundings, which is kept.
 * LEVEL_ROWS: rows of 4 accumulators that fit the registers.
 */

#if !STORED_BF16 && !LEVEL_SCALAR
#include "conv_pattern.h"
#endif
#define PATTERN_RUN PATTERN_JOIN(conv_pattern_run, LANES)

/* Where a group of rows x 4 accumulators reads and writes.  A row is a row of the tile, or, of pictures
 * one pixel high, one of several neighbouring tiles. */
typedef struct V(window) {
    const float *slab;           /* line of the first pixel, tap 0, channel 0 */
    stored *y;                   /* the same pixel of output channel 0 */
    float *chains, *lines;       /* of this pixel and channel 0; of channel 0 (conv_job.h) */
    int64_t slab_step, y_step;   /* values from row to row */
    int64_t y_channel;           /* values from channel to channel */
    int32_t rows, columns;       /* that exist in y */
    int32_t valid_rows, valid_columns; /* that exist in the picture: those that are summed */
    int32_t first, last;         /* block of channels */
} V(window);

VEC_INLINE void V(conv_begin)(const mestk_conv_job *job, const V(window) *a, int32_t o, vec *sum, const int lines)
{
    vec start = (vec)(job->start ? job->start[o] : 0.0f);
    const float *chains = a->chains + (int64_t)o * 16 * LANES;
    UNROLL for (int i = 0; i < lines; i++) sum[i] = a->first ? start : vec_load(chains + i * LANES);
}

/* Stores one filter's lines, or puts them aside until the next block of channels. */
VEC_INLINE void V(conv_end)(const mestk_conv_job *job, const V(window) *a, int32_t o, vec *sum, const int lines)
{
    if (!a->last) {
        float *chains = a->chains + (int64_t)o * 16 * LANES;
        UNROLL for (int i = 0; i < lines; i++) vec_store(chains + i * LANES, sum[i]);
        return;
    }
    stored *y = a->y + o * a->y_channel;
    UNROLL for (int i = 0; i < lines; i++)
        if (i * LANES * (int)sizeof(stored) % 64 == 0)
            __builtin_prefetch(y + FILTERS_AHEAD * a->y_channel + i / 4 * a->y_step + i % 4 * LANES, 1);
    int32_t whole = a->valid_rows * 4 == lines && a->valid_columns == 4;
    if (whole) {
        UNROLL for (int i = 0; i < lines; i++) put_stored(y + i / 4 * a->y_step + i % 4 * LANES, sum[i]);
    } else {
        UNROLL for (int i = 0; i < lines; i++)
            if (i / 4 < a->rows && i % 4 < a->columns) put_stored(y + i / 4 * a->y_step + i % 4 * LANES, sum[i]);
    }
    if (!job->sums) return;
    float *line = a->lines + (int64_t)o * 2 * LANES;
    vec s = vec_load(line), q = vec_load(line + LANES);
    UNROLL for (int i = 0; i < lines; i++) {
        if (!whole && (i / 4 >= a->valid_rows || i % 4 >= a->valid_columns)) continue;
        vec v = round_stored(sum[i]);
        s += v;
        q = vec_fma(v, v, q);
    }
    vec_store(line, s);
    vec_store(line + LANES, q);
}

/* A pattern's kernels, tap by tap. */
VEC_INLINE void V(conv_taps)(const mestk_conv_job *job, const V(window) *a, int32_t first, int32_t count, vec *sum,
                             const int lines)
{
    const mestk_weights *w = job->w;
    const float *value = w->value + (int64_t)first * 4;
    ROLLED for (int32_t j = first; j < first + count; j++) {
        const mestk_word *offset = job->offset + w->column[j] * 9;
        ROLLED for (int t = 0; t < 4; t++) {
            const float *x = a->slab + offset[w->pattern_taps[w->pattern[j]][t]];
            vec weight = (vec)(*value++);
            UNROLL for (int i = 0; i < lines; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / 4 * a->slab_step + i % 4 * LANES), sum[i]);
        }
    }
}

VEC_INLINE void V(conv_kernels)(const mestk_conv_job *job, const V(window) *a, int32_t b, const int rows)
{
    const mestk_conv *g = job->g;
    const mestk_word *segment = job->segment + b;
    int64_t row = (int64_t)job->slab.columns * LANES; /* of the slab, at stride 1 */
    int32_t shares = rows == LEVEL_ROWS && g->stride_h == 1 && g->stride_w == 1 && a->slab_step == row;
    for (int32_t o = 0; o < job->w->rows; o++, segment += job->blocks + 1) {
        vec sum[16];
        V(conv_begin)(job, a, o, sum, rows * 4);
#if LEVEL_SCALAR
        shares = 0;
#else
        if (shares) PATTERN_RUN(job->w, job->offset, a->slab, row, segment[0], segment[1], (void *)sum);
#endif
        if (!shares) V(conv_taps)(job, a, segment[0], segment[1] - segment[0], sum, rows * 4);
        V(conv_end)(job, a, o, sum, rows * 4);
    }
}

/* `filters` on one row of a window: every line of x is loaded once for all of them. */
VEC_INLINE void V(conv_shared_line)(const mestk_conv_job *job, const V(window) *a, int32_t o, conv_list w,
                                    const int filters, const int dense)
{
    vec sum[4][4];
    UNROLL for (int k = 0; k < filters; k++) V(conv_begin)(job, a, o + k, sum[k], 4);
    ROLLED for (int32_t j = 0; j < w.count; j++, w.value += w.step) {
        const float *x = a->slab + w.offset[dense ? j : w.column[j]];
        UNROLL for (int i = 0; i < 4; i++) {
            vec v = vec_load(x + i * LANES);
            UNROLL for (int k = 0; k < filters; k++) sum[k][i] = vec_fma((vec)(w.value[k * w.filter]), v, sum[k][i]);
        }
    }
    UNROLL for (int k = 0; k < filters; k++) V(conv_end)(job, a, o + k, sum[k], 4);
}

/* Filters o .. o + n - 1 on every row of a window. */
VEC_INLINE void V(conv_shared)(const mestk_conv_job *job, const V(window) *a, int32_t o, int32_t n, conv_list w,
                               const int dense)
{
    for (int32_t r = 0; r < a->rows; r++) {
        V(window) line = *a;
        conv_list at = w;
        line.slab += r * a->slab_step;
        line.y += r * a->y_step;
        line.chains += r * 4 * LANES;
        line.rows = 1;
        line.valid_rows = r < a->valid_rows;
        int32_t i = 0;
        for (; i + LEVEL_ROWS <= n; i += LEVEL_ROWS, at.value += LEVEL_ROWS * w.filter)
            V(conv_shared_line)(job, &line, o + i, at, LEVEL_ROWS, dense);
        for (; i < n; i++, at.value += w.filter) V(conv_shared_line)(job, &line, o + i, at, 1, dense);
    }
}

static void V(conv_blocks)(const mestk_conv_job *job, const V(window) *a, int32_t b)
{
    const mestk_weights *w = job->w;
    for (int32_t o = 0, r = 0; o < w->rows; o += w->group, r++)
        V(conv_shared)(job, a, o, mestk_min(w->group, w->rows - o), mestk_conv_list(job, r, b, w->group), 0);
}

static void V(conv_dense)(const mestk_conv_job *job, const V(window) *a, int32_t b)
{
    int32_t filters = job->w->rows;
    for (int32_t o = 0; o < filters; o += LEVEL_ROWS)
        V(conv_shared)(job, a, o, mestk_min(LEVEL_ROWS, filters - o), mestk_conv_dense_list(job, o, b), 1);
}

/* One channel block of every filter on one window. */
VEC_INLINE void V(conv_filters)(const mestk_conv_job *job, const V(window) *a, int32_t b, const int rows)
{
    const mestk_weights *w = job->w;
    if (w->form == MESTK_FORM_PATTERN) {
        V(conv_kernels)(job, a, b, rows);
        return;
    }
    const mestk_word *segment = job->segment + (int64_t)b * (w->rows + 1);
    const conv_entry *stream = job->stream;
    int64_t step = a->slab_step;
    int32_t filters = w->rows;
    for (int32_t o = 0; o < filters; o++) {
        const conv_entry *end = stream + segment[o + 1];
        vec sum[16];
        V(conv_begin)(job, a, o, sum, rows * 4);
        ROLLED for (const conv_entry *e = stream + segment[o]; e < end; e++) {
            const float *x = a->slab + e->offset;
            vec weight = (vec)(e->weight);
            UNROLL for (int i = 0; i < rows * 4; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / 4 * step + i % 4 * LANES), sum[i]);
        }
        V(conv_end)(job, a, o, sum, rows * 4);
    }
}

static void V(conv_window)(const mestk_conv_job *job, V(window) a, int32_t b, int32_t rows)
{
    a.first = b == 0;
    a.last = b + 1 == job->blocks;
    for (int32_t h = 0; h < LANES; h += WIDTH, a.slab += WIDTH, a.y += WIDTH, a.chains += WIDTH, a.lines += WIDTH) {
        if (!job->w->row_start) {
            V(conv_dense)(job, &a, b);
            continue;
        }
        if (job->w->form == MESTK_FORM_BLOCK) {
            V(conv_blocks)(job, &a, b);
            continue;
        }
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
    mestk_shape out = g->out;
    int32_t th = mestk_tile_h(out), tw = mestk_tile_w(out), ty = mestk_tiles_y(out), tx = mestk_tiles_x(out);
    int32_t block = task / ty, y0 = task % ty * th, valid = mestk_min(th, out.height - y0);
    int64_t row_floats = (int64_t)s->phases * s->columns * LANES, y_channel = (int64_t)th * tw * LANES;
    float *slab = job->slabs + worker * s->floats, *chains = job->chains + worker * job->chain_floats;
    float *lines = job->lines + worker * job->line_floats;
    stored *y = (stored *)job->y + mestk_line(out, block, 0, y0, 0);
    if (job->sums) memset(lines, 0, (size_t)out.channels * 2 * LANES * sizeof(float));
    int32_t step = mestk_take_strip(job, task, worker, ty) ? th * g->stride_h : 0;
    V(conv_pack)(s, block, y0 * g->stride_h - g->pad_h, g->pad_w, job->x, step, slab);
    /* One row high: tiles side by side fill the accumulators. */
    int32_t beside = th == 1 ? mestk_min(LEVEL_ROWS, tx) : 1;
    if (beside == 3) beside = 2;
    for (int32_t t = 0, n; t < tx; t += n) {
        n = t + beside <= tx ? beside : 1;
        if (n > 1 && (t + n) * 4 > out.width) n = 1; /* the tile at the edge has columns that do not count */
        V(window) a = {.slab = slab + (int64_t)t * 4 * LANES, .y = y + t * y_channel * out.channels, .lines = lines,
                       .y_channel = y_channel, .columns = tw, .valid_columns = mestk_min(tw, out.width - t * tw)};
        for (int32_t b = 0; b < job->blocks; b++) {
            if (n > 1) {
                a.chains = chains;
                a.slab_step = 4 * LANES;
                a.y_step = y_channel * out.channels;
                a.rows = a.valid_rows = n;
                V(conv_window)(job, a, b, n);
                continue;
            }
            for (int32_t r = 0, rows; r < th; r += rows) {
                V(window) row = a;
                rows = mestk_min(LEVEL_ROWS, th - r);
                row.slab += r * g->stride_h * row_floats;
                row.y += (int64_t)r * tw * LANES;
                row.chains = chains + r * 4 * LANES;
                row.slab_step = g->stride_h * row_floats;
                row.y_step = (int64_t)tw * LANES;
                row.rows = rows;
                row.valid_rows = mestk_max(0, mestk_min(rows, valid - r));
                V(conv_window)(job, row, b, rows);
            }
        }
    }
    for (int32_t o = 0; job->sums && o < out.channels; o++) {
        vec sum[PARTS], squares[PARTS];
        for (int h = 0; h < PARTS; h++) {
            sum[h] = vec_load(lines + o * 2 * LANES + h * WIDTH);
            squares[h] = vec_load(lines + (o * 2 + 1) * LANES + h * WIDTH);
        }
        V(reduce_samples)(sum, squares, mestk_max(0, mestk_min(LANES, job->count - block * LANES)),
                          job->sums + ((int64_t)task * out.channels + o) * 2);
    }
}
#undef PATTERN_RUN
