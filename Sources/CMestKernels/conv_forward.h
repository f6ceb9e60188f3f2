/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution forward of 8 or 16 lanes: see conv_lines.h for the parameters, conv_job.h for the slab,
 * conv_reference.c for the order of roundings, which is kept.
 * LEVEL_ROWS: rows of 4 accumulators that fit the registers.
 */

#if !STORED_BF16 && !LEVEL_SCALAR
#include "conv_pattern.h"
#endif
#define PATTERN_RUN PATTERN_JOIN(conv_pattern_run, SAMPLES)

/* Where rows x ACROSS accumulators of one tile, or of each of two, read and write; lines or parts of them.  Of
 * pictures one pixel high rows are those of neighbouring tiles. */
typedef struct C(window) {
    const float *slab;           /* line of the first pixel, tap 0, channel 0 */
    stored *y;                   /* the same pixel of output channel 0 */
    float *chains, *lines;       /* of this pixel and channel 0; of channel 0 (conv_job.h) */
    int64_t slab_step, y_step;   /* values from row to row */
    int64_t slab_next, y_next;   /* values to the second tile */
    int64_t y_channel;           /* values from channel to channel */
    int32_t rows, columns;       /* that exist in y */
    int32_t valid_rows, valid_columns; /* that exist in the picture: those that are summed */
    int32_t part;                /* of a line: the value that vectors begin with */
    int32_t first, last;         /* block of channels */
} C(window);

/* Of line i, rows of a tile. */
VEC_INLINE int64_t C(conv_line)(const int i, const int rows, int64_t step, int64_t next)
{
    return i / (rows * ACROSS) * next + i / ACROSS % rows * step + i % ACROSS * LANES;
}

/* How many values of line i exist, from the part in work on. */
VEC_INLINE int32_t C(conv_values)(const C(window) *a, const int i, const int rows, int32_t valid_rows, int32_t columns)
{
    return i / ACROSS % rows < valid_rows ? (columns - i % ACROSS * PIXELS) * SAMPLES - a->part : 0;
}

VEC_INLINE void C(conv_begin)(const mestk_conv_job *job, const C(window) *a, int32_t o, vec *sum, const int lines)
{
    vec start = (vec)(job->start ? job->start[o] : 0.0f);
    const float *chains = a->chains + (int64_t)o * 16 * LANES;
    UNROLL for (int i = 0; i < lines; i++) sum[i] = a->first ? start : vec_load(chains + i * LANES);
}

/* Of a line whose second octet is no pixel, the first one. */
VEC_INLINE void C(conv_put_octet)(stored *to, vec v)
{
    float line[WIDTH];
    vec_store(line, v);
    V_OF(put_line, 8)(to, line);
}
VEC_INLINE vec C(conv_keep_octet)(vec v)
{
    UNROLL for (int l = 8; l < WIDTH; l++) v[l] = 0.0f;
    return v;
}

/* Stores one filter's lines, or puts them aside until the next block of channels. */
VEC_INLINE void C(conv_end)(const C(window) *a, int32_t o, vec *sum, const int rows, const int tiles)
{
    const int lines = tiles * rows * ACROSS;
    if (!a->last) {
        float *chains = a->chains + (int64_t)o * 16 * LANES;
        UNROLL for (int i = 0; i < lines; i++) vec_store(chains + i * LANES, sum[i]);
        return;
    }
    stored *y = a->y + o * a->y_channel;
    UNROLL for (int i = 0; i < lines; i++)
        if (i * LANES * (int)sizeof(stored) % 64 == 0)
            __builtin_prefetch(y + FILTERS_AHEAD * a->y_channel + C(conv_line)(i, rows, a->y_step, a->y_next), 1);
    int32_t whole = a->valid_rows == rows && a->valid_columns == 4;
    UNROLL for (int i = 0; i < lines; i++) {
        stored *to = y + C(conv_line)(i, rows, a->y_step, a->y_next);
        int32_t values = whole ? WIDTH : C(conv_values)(a, i, rows, a->rows, a->columns);
        if (values >= WIDTH) put_stored(to, sum[i]);
        else if (values > 0) C(conv_put_octet)(to, sum[i]);
    }
    if (!a->lines) return;
    float *line = a->lines + (int64_t)o * 2 * LANES;
    vec s = vec_load(line), q = vec_load(line + LANES);
    UNROLL for (int i = 0; i < lines; i++) {
        int32_t values = whole ? WIDTH : C(conv_values)(a, i, rows, a->valid_rows, a->valid_columns);
        if (values <= 0) continue;
        vec v = round_stored(sum[i]);
        if (values < WIDTH) v = C(conv_keep_octet)(v);
        s += v;
        q = vec_fma(v, v, q);
    }
    vec_store(line, s);
    vec_store(line + LANES, q);
}

/* A pattern's kernels, tap by tap. */
VEC_INLINE void C(conv_taps)(const mestk_conv_job *job, const C(window) *a, int32_t first, int32_t count, vec *sum,
                             const int rows, const int tiles)
{
    const mestk_weights *w = job->w;
    const float *value = w->value + (int64_t)first * 4;
    ROLLED for (int32_t j = first; j < first + count; j++) {
        const mestk_word *offset = job->offset + w->column[j] * 9;
        ROLLED for (int t = 0; t < 4; t++) {
            const float *x = a->slab + offset[w->pattern_taps[w->pattern[j]][t]];
            vec weight = (vec)(*value++);
            UNROLL for (int i = 0; i < tiles * rows * ACROSS; i++)
                sum[i] = vec_fma(weight, vec_load(x + C(conv_line)(i, rows, a->slab_step, a->slab_next)), sum[i]);
        }
    }
}

VEC_INLINE void C(conv_kernels)(const mestk_conv_job *job, const C(window) *a, int32_t b, const int rows, const int tiles)
{
    const mestk_conv *g = job->g;
    const mestk_word *segment = job->segment + b;
    int64_t row = (int64_t)job->slab.columns * SAMPLES; /* of the slab, at stride 1 */
    int32_t shares = rows == TILE_ROWS && tiles == TILES && g->stride_h == 1 && g->stride_w == 1 && a->slab_step == row;
    for (int32_t o = 0; o < job->w->rows; o++, segment += job->blocks + 1) {
        vec sum[16];
        C(conv_begin)(job, a, o, sum, tiles * rows * ACROSS);
#if LEVEL_SCALAR
        shares = 0;
#else
        if (shares) PATTERN_RUN(job->w, job->offset, a->slab, row, segment[0], segment[1], (void *)sum);
#endif
        if (!shares) C(conv_taps)(job, a, segment[0], segment[1] - segment[0], sum, rows, tiles);
        C(conv_end)(a, o, sum, rows, tiles);
    }
}

/* `filters` on some rows of one tile, 4 lines at most: every line of x is loaded once for all of them. */
VEC_INLINE void C(conv_shared_lines)(const mestk_conv_job *job, const C(window) *a, int32_t o, conv_list w,
                                     const int filters, const int rows, const int dense)
{
    vec sum[4][4];
    UNROLL for (int k = 0; k < filters; k++) C(conv_begin)(job, a, o + k, sum[k], rows * ACROSS);
    ROLLED for (int32_t j = 0; j < w.count; j++, w.value += w.step) {
        const float *x = a->slab + w.offset[dense ? j : w.column[j]];
        UNROLL for (int i = 0; i < rows * ACROSS; i++) {
            vec v = vec_load(x + C(conv_line)(i, rows, a->slab_step, 0));
            UNROLL for (int k = 0; k < filters; k++) sum[k][i] = vec_fma((vec)(w.value[k * w.filter]), v, sum[k][i]);
        }
    }
    UNROLL for (int k = 0; k < filters; k++) C(conv_end)(a, o + k, sum[k], rows, 1);
}

VEC_INLINE void C(conv_shared_rows)(const mestk_conv_job *job, const C(window) *a, int32_t o, int32_t n, conv_list w,
                                    const int rows, const int dense)
{
    int32_t i = 0;
    for (; i + LEVEL_ROWS <= n; i += LEVEL_ROWS, w.value += LEVEL_ROWS * w.filter)
        C(conv_shared_lines)(job, a, o + i, w, LEVEL_ROWS, rows, dense);
    for (; i < n; i++, w.value += w.filter) C(conv_shared_lines)(job, a, o + i, w, 1, rows, dense);
}

/* Filters o .. o + n - 1 on a whole window. */
VEC_INLINE void C(conv_shared)(const mestk_conv_job *job, const C(window) *a, int32_t tiles, int32_t o, int32_t n,
                               conv_list w, const int dense)
{
    C(window) some = *a;
    for (int32_t t = 0; t < tiles; t++) {
        some.slab = a->slab + t * a->slab_next;
        some.y = a->y + t * a->y_next;
        for (int32_t r = 0; r < a->rows; r += some.rows) {
            some.rows = mestk_min(PIXELS, a->rows - r);
            some.valid_rows = mestk_max(0, mestk_min(some.rows, a->valid_rows - r));
            if (PIXELS == 1 || some.rows == PIXELS) C(conv_shared_rows)(job, &some, o, n, w, PIXELS, dense);
            else C(conv_shared_rows)(job, &some, o, n, w, 1, dense);
            some.slab += some.rows * a->slab_step;
            some.y += some.rows * a->y_step;
            some.chains += some.rows * ACROSS * LANES;
        }
    }
}

static void C(conv_blocks)(const mestk_conv_job *job, const C(window) *a, int32_t b, int32_t tiles)
{
    const mestk_weights *w = job->w;
    for (int32_t o = 0, r = 0; o < w->rows; o += w->group, r++)
        C(conv_shared)(job, a, tiles, o, mestk_min(w->group, w->rows - o), mestk_conv_list(job, r, b, w->group), 0);
}

static void C(conv_dense)(const mestk_conv_job *job, const C(window) *a, int32_t b, int32_t tiles)
{
    int32_t filters = job->w->rows;
    for (int32_t o = 0; o < filters; o += LEVEL_ROWS)
        C(conv_shared)(job, a, tiles, o, mestk_min(LEVEL_ROWS, filters - o), mestk_conv_dense_list(job, o, b), 1);
}

/* One channel block of every filter on one window. */
VEC_INLINE void C(conv_filters)(const mestk_conv_job *job, const C(window) *a, int32_t b, const int rows, const int tiles)
{
    const mestk_weights *w = job->w;
    if (w->form == MESTK_FORM_PATTERN) {
        C(conv_kernels)(job, a, b, rows, tiles);
        return;
    }
    const mestk_word *segment = job->segment + (int64_t)b * (w->rows + 1);
    const conv_entry *stream = job->stream;
    int64_t step = a->slab_step, next = a->slab_next;
    int32_t filters = w->rows;
    for (int32_t o = 0; o < filters; o++) {
        const conv_entry *end = stream + segment[o + 1];
        vec sum[16];
        C(conv_begin)(job, a, o, sum, tiles * rows * ACROSS);
        ROLLED for (const conv_entry *e = stream + segment[o]; e < end; e++) {
            const float *x = a->slab + e->offset;
            vec weight = (vec)(e->weight);
            UNROLL for (int i = 0; i < tiles * rows * ACROSS; i++)
                sum[i] = vec_fma(weight, vec_load(x + C(conv_line)(i, rows, step, next)), sum[i]);
        }
        C(conv_end)(a, o, sum, rows, tiles);
    }
}

static void C(conv_window)(const mestk_conv_job *job, C(window) a, int32_t b, int32_t rows, int32_t tiles)
{
    a.first = b == 0;
    a.last = b + 1 == job->blocks;
    for (a.part = 0; a.part < LANES; a.part += WIDTH, a.slab += WIDTH, a.y += WIDTH, a.chains += WIDTH) {
        if (!job->w->row_start) C(conv_dense)(job, &a, b, tiles);
        else if (job->w->form == MESTK_FORM_BLOCK) C(conv_blocks)(job, &a, b, tiles);
        else if (TILES > 1 && tiles > 1) C(conv_filters)(job, &a, b, TILE_ROWS, TILES);
        else if (TILE_ROWS > 2 && rows > 2) C(conv_filters)(job, &a, b, TILE_ROWS, 1);
        else if (rows > 1) C(conv_filters)(job, &a, b, 2, 1);
        else C(conv_filters)(job, &a, b, 1, 1);
        if (a.lines) a.lines += WIDTH;
    }
}

static void C(conv_forward)(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    mestk_shape out = g->out;
    int32_t th = mestk_tile_h(out), tw = mestk_tile_w(out), ty = mestk_tiles_y(out), tx = mestk_tiles_x(out);
    int32_t block = task / ty, y0 = task % ty * th, valid = mestk_min(th, out.height - y0);
    int64_t row_floats = (int64_t)s->phases * s->columns * SAMPLES;
    int64_t y_channel = (int64_t)th * tw * SAMPLES, y_tile = y_channel * out.channels;
    float *slab = job->slabs + worker * s->floats, *chains = job->chains + worker * job->chain_floats;
    /* Of two pixels of rows of 1 or 3 the chains of sums (operand.h) are not a line's. */
    int32_t sums = job->sums != NULL, later = sums && tw % PIXELS != 0;
    float *lines = sums && !later ? job->lines + worker * job->line_floats : NULL;
    stored *y = (stored *)job->y + mestk_line(out, block, 0, y0, 0);
    if (lines) memset(lines, 0, (size_t)out.channels * 2 * LANES * sizeof(float));
    int32_t step = mestk_take_strip(job, task, worker, ty) ? th * g->stride_h : 0;
    C(conv_pack)(s, block, y0 * g->stride_h - g->pad_h, g->pad_w, job->x, step, slab);
    /* One row high: tiles side by side fill the accumulators. */
    int32_t most_rows = th == 1 ? mestk_min(TILE_ROWS, tx) : th;
    if (th == 1 && most_rows == 3) most_rows = 2;
    for (int32_t t = 0, n; t < tx; t += n) {
        int32_t beside = th == 1 ? most_rows : th == 2 ? 1 : TILES;
        n = (t + beside) * 4 <= out.width ? beside : 1; /* the tile at the edge has columns that do not count */
        C(window) a = {.slab = slab + (int64_t)t * 4 * SAMPLES, .y = y + t * y_tile, .chains = chains, .lines = lines,
                       .slab_next = 4 * SAMPLES, .y_next = y_tile, .y_channel = y_channel, .columns = tw,
                       .valid_columns = mestk_min(tw, out.width - t * tw)};
        for (int32_t b = 0; b < job->blocks; b++) {
            if (th == 1) {
                a.slab_step = 4 * SAMPLES;
                a.y_step = y_tile;
                a.rows = a.valid_rows = n;
                C(conv_window)(job, a, b, n, 1);
                continue;
            }
            for (int32_t r = 0, rows; r < th; r += rows) {
                C(window) row = a;
                rows = mestk_min(TILE_ROWS, th - r);
                row.slab += r * g->stride_h * row_floats;
                row.y += (int64_t)r * tw * SAMPLES;
                row.chains = chains + r * ACROSS * LANES;
                row.slab_step = g->stride_h * row_floats;
                row.y_step = (int64_t)tw * SAMPLES;
                row.rows = rows;
                row.valid_rows = mestk_max(0, mestk_min(rows, valid - r));
                C(conv_window)(job, row, b, rows, n);
            }
        }
    }
    int32_t samples = mestk_max(0, mestk_min(SAMPLES, job->count - block * SAMPLES));
    for (int32_t o = 0; lines && o < out.channels; o++, lines += 2 * LANES) {
        vec sum[PARTS], squares[PARTS];
        for (int h = 0; h < PARTS; h++) {
            sum[h] = vec_load(lines + h * WIDTH);
            squares[h] = vec_load(lines + LANES + h * WIDTH);
        }
        V(reduce_samples)(sum, squares, SAMPLES, samples, job->sums + ((int64_t)task * out.channels + o) * 2);
    }
    for (int32_t o = 0; later && o < out.channels; o++)
        C(strip_sums)(out, task, o, job->count, job->y, job->y, job->sums);
}
#undef PATTERN_RUN
