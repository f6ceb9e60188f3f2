/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer of one lane count on one instruction set: see vector.h, and linear.h for the
 * order of roundings.  A chain of fma waits for itself: four or more independent ones, of lane blocks or
 * of rows, run beside each other.  dx and dw are computed together where registers allow it, else dw by rows and
 * dx by channels.  One lane: linear_one.h; of this file only dx that is added to, by channel.
 */

/* ---- chains of fma ---- */

/* The terms of an output line: value times line. */
typedef struct V(terms) {
    const uint16_t *index; /* sparse: column or key */
    const uint32_t *place; /* by channel: of the values */
    const float *value;
    int64_t stride;        /* dense: from value to value */
    int64_t count;
    int32_t shift;         /* by channel: an entry is 1 << shift rows, */
    int32_t unit;          /* of a unit of 1 << unit values */
} V(terms);

VEC_INLINE int64_t V(term_line)(const V(terms) * t, int64_t j, const int kind)
{
    int32_t rest = (int32_t)j & ((1 << t->shift) - 1);
    return kind == DENSE ? j : kind == BY_ROW ? t->index[j] : ((int64_t)t->index[j >> t->shift] << t->shift) + rest;
}
VEC_INLINE float V(term_value)(const V(terms) * t, int64_t j, const int kind)
{
    int32_t rest = (int32_t)j & ((1 << t->shift) - 1);
    return t->value[kind == DENSE    ? j * t->stride
                    : kind == BY_ROW ? j
                                     : ((int64_t)t->place[j >> t->shift] << t->unit) + rest];
}

/* `some` neighbouring output lines of `blocks` lane blocks; in dense matrices they share every load. */
VEC_INLINE void V(linear_chains)(const V(terms) * t, const float *bias, const float *in, int64_t in_block, float *out,
                                 int64_t out_block, int32_t accumulate, const int kind, const int some, const int blocks)
{
    int64_t shortest = t[0].count;
    vec sum[16][4 * PARTS];
    UNROLL for (int k = 0; k < some; k++) {
        shortest = mestk_min64(shortest, t[k].count);
        UNROLL for (int i = 0; i < blocks * PARTS; i++) sum[k][i] = (vec)(bias ? bias[k] : 0.0f);
    }
#define TERM(k)                                                                                               \
    {                                                                                                         \
        const float *line = in + V(term_line)(&t[k], j, kind) * LANES;                                        \
        vec value = (vec)(V(term_value)(&t[k], j, kind));                                                     \
        UNROLL for (int i = 0; i < blocks * PARTS; i++)                                                       \
            sum[k][i] = vec_fma(value, vec_load(line + i / PARTS * in_block + i % PARTS * WIDTH), sum[k][i]); \
    }
    ROLLED for (int64_t j = 0; j < shortest; j++)
        UNROLL for (int k = 0; k < some; k++) TERM(k)
    UNROLL for (int k = 0; k < some; k++) {
        ROLLED for (int64_t j = shortest; kind != DENSE && some > 1 && j < t[k].count; j++) TERM(k)
        UNROLL for (int i = 0; i < blocks * PARTS; i++) {
            float *to = out + i / PARTS * out_block + k * LANES + i % PARTS * WIDTH;
            vec_store(to, accumulate ? vec_load(to) + sum[k][i] : sum[k][i]);
        }
    }
#undef TERM
}

/* ---- forward ---- */

VEC_INLINE void V(linear_rows)(const mestk_linear_job *job, int32_t r, int32_t b, const int kind, const int rows,
                               const int blocks)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    V(terms) t[4];
    UNROLL for (int k = 0; k < rows; k++) {
        int64_t begin = kind == DENSE ? (int64_t)(r + k) * w->channels : w->row_start[r + k];
        int64_t count = kind == DENSE ? w->channels : w->row_start[r + k + 1] - begin;
        t[k] = (V(terms)){.value = w->value + begin, .stride = 1, .count = count};
        if (kind != DENSE) t[k].index = w->column + begin;
    }
    V(linear_chains)(t, job->bias ? job->bias + r : NULL, job->x + b * x_block, x_block,
                     job->y + b * y_block + (int64_t)r * LANES, y_block, 0, kind, rows, blocks);
}

#if LANES > 1
/* ---- forward, blocks: their rows share every load of x ---- */

/* `rows` of block q from its row i on, over `blocks` lane blocks. */
VEC_INLINE void V(block_rows)(const mestk_linear_job *job, int32_t q, int32_t i, int32_t b, const int rows,
                              const int blocks)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    int32_t group = w->group, r = q * group + i;
    const float *x = job->x + b * x_block, *value = w->value + (int64_t)w->row_start[q] * group + i;
    vec sum[8][4 * PARTS];
    UNROLL for (int k = 0; k < rows; k++)
        UNROLL for (int h = 0; h < blocks * PARTS; h++) sum[k][h] = (vec)(job->bias ? job->bias[r + k] : 0.0f);
    ROLLED for (uint32_t j = w->row_start[q], end = w->row_start[q + 1]; j < end; j++, value += group) {
        const float *line = x + (int64_t)w->column[j] * LANES;
        UNROLL for (int h = 0; h < blocks * PARTS; h++) {
            vec v = vec_load(line + h / PARTS * x_block + h % PARTS * WIDTH);
            UNROLL for (int k = 0; k < rows; k++) sum[k][h] = vec_fma((vec)(value[k]), v, sum[k][h]);
        }
    }
    UNROLL for (int k = 0; k < rows; k++)
        UNROLL for (int h = 0; h < blocks * PARTS; h++)
            vec_store(job->y + (b + h / PARTS) * y_block + (int64_t)(r + k) * LANES + h % PARTS * WIDTH, sum[k][h]);
}

static void V(linear_block_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t group = job->w->group;
    for (int32_t r = first; r < end; r += group) {
        int32_t q = r / group, n = mestk_min(group, end - r), i, b;
        /* As many accumulators as there are registers: rows x blocks. */
        for (b = 0; LEVEL_WIDTH == 16 && b + 4 <= job->blocks; b += 4) {
            for (i = 0; i + 4 <= n; i += 4) V(block_rows)(job, q, i, b, 4, 4);
            for (; i < n; i++) V(block_rows)(job, q, i, b, 1, 4);
        }
        for (; b < job->blocks; b++) {
            for (i = 0; PARTS == 1 && i + 8 <= n; i += 8) V(block_rows)(job, q, i, b, 8, 1);
            for (; i + 4 <= n; i += 4) V(block_rows)(job, q, i, b, 4, 1);
            for (; i < n; i++) V(block_rows)(job, q, i, b, 1, 1);
        }
    }
}

/* Dense: 4 rows and some lane blocks in a tile that fits the registers. */
static void V(linear_dense_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    enum { TILE = LEVEL_WIDTH == 16 ? 4 : PARTS == 1 ? 2 : 1 };
    int32_t b = 0, r, rest = end - (end - first) % 4;
    for (; b + TILE <= job->blocks; b += TILE)
        for (r = first; r < rest; r += 4) V(linear_rows)(job, r, b, DENSE, 4, TILE);
    for (; b < job->blocks; b++)
        for (r = first; r < rest; r += 4) V(linear_rows)(job, r, b, DENSE, 4, 1);
    for (b = 0; b < job->blocks; b++)
        for (r = rest; r < end; r++) V(linear_rows)(job, r, b, DENSE, 1, 1);
}

#endif

/* ---- backward, dx ---- */

VEC_INLINE void V(linear_channels)(const mestk_linear_job *job, int32_t c, int32_t b, const int kind, const int some,
                                   const int blocks)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    V(terms) t[16];
    UNROLL for (int k = 0; k < some; k++) {
        if (kind == DENSE) {
            t[k] = (V(terms)){.value = w->value + c + k, .stride = w->channels, .count = w->rows};
            continue;
        }
        int32_t rows = mestk_unit_rows(w), width = mestk_unit_channels(w), run = (c + k) / width;
        uint32_t e = w->channel_start[run], end = w->channel_start[run + 1];
        int32_t lacks = e == end ? 0 : mestk_max(0, (w->key[end - 1] + 1) * rows - w->rows);
        t[k] = (V(terms)){.index = w->key + e, .place = w->position + e, .value = w->value + (c + k) % width,
                          .count = (int64_t)(end - e) * rows - lacks, .shift = __builtin_ctz((uint32_t)rows),
                          .unit = __builtin_ctz((uint32_t)w->group)};
    }
    V(linear_chains)(t, NULL, job->dy + b * y_block, y_block, job->dx + b * x_block + (int64_t)c * LANES, x_block,
                     job->accumulate, kind, some, blocks);
}

static void V(linear_backward_x)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t b = 0, c;
    if (!job->w->row_start) {
        /* As many values of a row beside each other as there are registers: rows lie far apart. */
        enum { TILE = LEVEL_WIDTH == 16 ? 16 : PARTS == 1 ? 8 : 4 };
        for (; b < job->blocks; b++) {
            for (c = first; c + TILE <= end; c += TILE) V(linear_channels)(job, c, b, DENSE, TILE, 1);
            for (; c < end; c++) V(linear_channels)(job, c, b, DENSE, 1, 1);
        }
        return;
    }
    for (; b + 4 <= job->blocks; b += 4)
        for (c = first; c < end; c++) V(linear_channels)(job, c, b, BY_CHANNEL, 1, 4);
    for (; b < job->blocks; b++) {
        for (c = first; c + 4 <= end; c += 4) V(linear_channels)(job, c, b, BY_CHANNEL, 4, 1);
        for (; c < end; c++) V(linear_channels)(job, c, b, BY_CHANNEL, 1, 1);
    }
}

#if LANES > 1
/* ---- backward, dw: rows in order, a few dot products at a time: dw is then written side by side ---- */

#if WIDTH >= 8 && PARTS == 1
#define DOTS 8
#else
#define DOTS 4
#endif

/* mestk_add_line of `step` dot products. */
VEC_INLINE void V(linear_add_dots)(vec dot[PARTS][DOTS], float *sum, const int step)
{
#if DOTS == 8
    if (step == 8) {
        vec_add_8_dots(dot[0], sum);
        return;
    }
#endif
    (void)step;
    UNROLL for (int h = 0; h < PARTS; h++) vec_add_dots(dot[h], sum);
}

/* dw[0 .. count-1] (+)= the products of line `one` with the lines of `many` that begin at at[0 .. step-1], or
 * that follow each other when `at` is NULL. */
VEC_INLINE void V(linear_dots)(const mestk_linear_job *job, const float *one, int64_t one_block, const float *many,
                               int64_t many_block, const int64_t *at, int64_t place, int32_t count, const int step)
{
    float sum[DOTS] = {0}, *dw = job->dw + place;
    vec dot[PARTS][DOTS];
    const float *line[DOTS];
    UNROLL for (int h = 0; h < PARTS; h++)
        UNROLL for (int k = 0; k < DOTS; k++) dot[h][k] = vec_zero();
    UNROLL for (int k = 0; k < step; k++) {
        line[k] = many + (at ? at[k] : k * LANES);
        if (at) SCALAR_ADDRESS(line[k]);
    }
    ROLLED for (int64_t b = 0, i = 0; b < job->blocks; b++, i += many_block, one += one_block)
        UNROLL for (int h = 0; h < PARTS; h++)
            UNROLL for (int k = 0; k < step; k++)
                dot[h][k] = vec_fma(vec_load(one + h * WIDTH), vec_load(line[k] + i + h * WIDTH), dot[h][k]);
    V(linear_add_dots)(dot, sum, step);
    if (count == step) {
        UNROLL for (int k = 0; k < step; k++) dw[k] = job->add ? dw[k] + sum[k] : sum[k];
    } else {
        for (int32_t k = 0; k < count; k++) dw[k] = job->add ? dw[k] + sum[k] : sum[k];
    }
}

/* Connections begin .. end-1 of row r; places that a last group lacks are filled up with copies. */
static void V(linear_dw_row)(const mestk_linear_job *job, int32_t r, int64_t begin, int64_t end)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES, at[DOTS];
    const float *dy = job->dy + (int64_t)r * LANES;
    const uint16_t *column = w->column;
    for (; begin + DOTS <= end; begin += DOTS) {
        UNROLL for (int k = 0; k < DOTS; k++) at[k] = (int64_t)column[begin + k] * LANES;
        V(linear_dots)(job, dy, y_block, job->x, x_block, at, begin, DOTS, DOTS);
    }
    if (begin == end) return;
    UNROLL for (int k = 0; k < DOTS; k++) at[k] = (int64_t)column[mestk_min64(begin + k, end - 1)] * LANES;
    V(linear_dots)(job, dy, y_block, job->x, x_block, at, begin, (int32_t)(end - begin), DOTS);
}

/* Line `one` with `count` lines that follow each other. */
VEC_INLINE void V(linear_dw_run)(const mestk_linear_job *job, const float *one, int64_t one_block, const float *many,
                                 int64_t many_block, int64_t place, int32_t count)
{
    int32_t i = 0;
    ROLLED for (; i + DOTS <= count; i += DOTS)
        V(linear_dots)(job, one, one_block, many + i * LANES, many_block, NULL, place + i, DOTS, DOTS);
    ROLLED for (; DOTS > 4 && i + 4 <= count; i += 4)
        V(linear_dots)(job, one, one_block, many + i * LANES, many_block, NULL, place + i, 4, 4);
    ROLLED for (; i < count; i++)
        V(linear_dots)(job, one, one_block, many + i * LANES, many_block, NULL, place + i, 1, 1);
}

static void V(linear_backward_w)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    int32_t group = w->group;
    if (!w->row_start) {
        for (int32_t c = 0; c < w->channels; c += DOTS)
            for (int32_t r = first; r < end; r++)
                V(linear_dw_run)(job, job->dy + (int64_t)r * LANES, y_block, job->x + (int64_t)c * LANES, x_block,
                                 (int64_t)r * w->channels + c, mestk_min(DOTS, w->channels - c));
    } else if (w->form == MESTK_FORM_BLOCK) {
        for (int32_t r = first; r < end; r += group)
            for (int64_t j = w->row_start[r / group]; j < w->row_start[r / group + 1]; j++)
                V(linear_dw_run)(job, job->x + (int64_t)w->column[j] * LANES, x_block, job->dy + (int64_t)r * LANES,
                                 y_block, j * group, mestk_min(group, w->rows - r));
    } else if (w->form == MESTK_FORM_RUN) {
        for (int32_t r = first; r < end; r++)
            for (int64_t j = w->row_start[r]; j < w->row_start[r + 1]; j++) {
                int32_t c = w->column[j] * group;
                V(linear_dw_run)(job, job->dy + (int64_t)r * LANES, y_block, job->x + (int64_t)c * LANES, x_block,
                                 j * group, mestk_min(group, w->channels - c));
            }
    } else {
        for (int32_t r = first; r < end; r++) V(linear_dw_row)(job, r, w->row_start[r], w->row_start[r + 1]);
    }
}

static void V(linear_bias)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int64_t y_block = (int64_t)job->w->rows * LANES;
    for (int32_t r = first; r < end; r += DOTS) {
        int32_t n = mestk_min(DOTS, end - r);
        float sum[DOTS] = {0};
        vec line[PARTS][DOTS];
        UNROLL for (int h = 0; h < PARTS; h++)
            UNROLL for (int k = 0; k < DOTS; k++) line[h][k] = vec_zero();
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *dy = job->dy + b * y_block + (int64_t)r * LANES;
            UNROLL for (int h = 0; h < PARTS; h++)
                UNROLL for (int k = 0; k < DOTS; k++) line[h][k] += vec_load(dy + (k < n ? k : 0) * LANES + h * WIDTH);
        }
        V(linear_add_dots)(line, sum, DOTS);
        for (int32_t k = 0; k < n; k++) job->db[r + k] = job->add ? job->db[r + k] + sum[k] : sum[k];
    }
}

/* ---- backward, sparse: dx and dw of a channel in one go, for as many lane blocks as have room in registers ---- */

#if LEVEL_WIDTH == 16
#define MOST_BLOCKS 8
#else
#define MOST_BLOCKS 4
#endif

/* Up to DOTS connections of a channel: rows, and where the values lie. */
typedef struct V(some) {
    int64_t row[DOTS], place[DOTS];
} V(some);

/* SINGLE: entries e .. e+step-1. */
VEC_INLINE V(some) V(entries_at)(const mestk_weights *w, int64_t e, const int step)
{
    V(some) s;
    UNROLL for (int k = 0; k < step; k++) s.row[k] = w->key[e + k], s.place[k] = w->position[e + k];
    return s;
}

/* BLOCK: rows i .. i+step-1 of entry e. */
VEC_INLINE V(some) V(rows_at)(const mestk_weights *w, int64_t e, int32_t i, const int step)
{
    V(some) s;
    int64_t row = (int64_t)w->key[e] * w->group + i, place = (int64_t)w->position[e] * w->group + i;
    UNROLL for (int k = 0; k < step; k++) s.row[k] = row + k, s.place[k] = place + k;
    return s;
}

/* `step` of them: dx chains and dot products. */
VEC_INLINE void V(linear_entries)(const mestk_linear_job *job, V(some) s, const vec *x, vec *chain, const int blocks,
                                  const int step)
{
    const mestk_weights *w = job->w;
    int64_t y_block = (int64_t)w->rows * LANES;
    float sum[DOTS] = {0};
    vec dot[PARTS][DOTS];
    UNROLL for (int h = 0; h < PARTS; h++)
        UNROLL for (int k = 0; k < DOTS; k++) dot[h][k] = vec_zero();
    UNROLL for (int k = 0; k < step; k++) {
        const float *line = job->dy + s.row[k] * LANES;
        vec weight = (vec)(w->value[s.place[k]]);
        UNROLL for (int i = 0; i < blocks * PARTS; i++) {
            vec d = vec_load(line + i / PARTS * y_block + i % PARTS * WIDTH);
            chain[i] = vec_fma(weight, d, chain[i]);
            dot[i % PARTS][k] = vec_fma(d, x[i], dot[i % PARTS][k]);
        }
    }
    V(linear_add_dots)(dot, sum, step);
    UNROLL for (int k = 0; k < step; k++) {
        float *dw = job->dw + s.place[k];
        *dw = job->add ? *dw + sum[k] : sum[k];
    }
}

VEC_INLINE void V(linear_channel)(const mestk_linear_job *job, int32_t c, const int blocks)
{
    /* Single connections of many blocks: eight at a time would be more than the CPU can look ahead. */
    const int wide = DOTS == 8 && blocks <= 2 ? 8 : 4;
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, e = w->channel_start[c], end = w->channel_start[c + 1];
    vec chain[MOST_BLOCKS * PARTS], x[MOST_BLOCKS * PARTS];
    UNROLL for (int i = 0; i < blocks * PARTS; i++) {
        chain[i] = vec_zero();
        x[i] = vec_load(job->x + i / PARTS * x_block + (int64_t)c * LANES + i % PARTS * WIDTH);
    }
    if (w->form == MESTK_FORM_BLOCK) {
        ROLLED for (; e < end; e++) {
            int32_t i = 0, n = mestk_min(w->group, w->rows - w->key[e] * w->group);
            ROLLED for (; i + DOTS <= n; i += DOTS)
                V(linear_entries)(job, V(rows_at)(w, e, i, DOTS), x, chain, blocks, DOTS);
            ROLLED for (; DOTS > 4 && i + 4 <= n; i += 4)
                V(linear_entries)(job, V(rows_at)(w, e, i, 4), x, chain, blocks, 4);
            ROLLED for (; i < n; i++) V(linear_entries)(job, V(rows_at)(w, e, i, 1), x, chain, blocks, 1);
        }
    } else {
        ROLLED for (; e + wide <= end; e += wide)
            V(linear_entries)(job, V(entries_at)(w, e, wide), x, chain, blocks, wide);
        ROLLED for (; wide > 4 && e + 4 <= end; e += 4)
            V(linear_entries)(job, V(entries_at)(w, e, 4), x, chain, blocks, 4);
        ROLLED for (; e < end; e++) V(linear_entries)(job, V(entries_at)(w, e, 1), x, chain, blocks, 1);
    }
    UNROLL for (int i = 0; i < blocks * PARTS; i++) {
        float *dx = job->dx + i / PARTS * x_block + (int64_t)c * LANES + i % PARTS * WIDTH;
        vec_store(dx, job->accumulate ? vec_load(dx) + chain[i] : chain[i]);
    }
}

#include "linear_run.h"

static void V(linear_backward_both)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    if (job->w->form == MESTK_FORM_RUN) {
        if (job->blocks == 1) V(linear_runs)(job, first, end, 1);
        else if (job->blocks == 2) V(linear_runs)(job, first, end, 2);
        else if (job->blocks == 4) V(linear_runs)(job, first, end, 4);
#if MOST_BLOCKS == 8
        else V(linear_runs)(job, first, end, 8);
#endif
        return;
    }
    for (int32_t c = first; c < end; c++) {
        if (job->blocks == 1) V(linear_channel)(job, c, 1);
        else if (job->blocks == 2) V(linear_channel)(job, c, 2);
        else if (job->blocks == 4) V(linear_channel)(job, c, 4);
#if MOST_BLOCKS == 8
        else V(linear_channel)(job, c, 8);
#endif
    }
}

/* ---- forward of every form ---- */

static void V(linear_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t b = 0, r;
    if (job->w->form == MESTK_FORM_BLOCK) {
        V(linear_block_forward)(job, first, end);
        return;
    }
    if (job->w->form == MESTK_FORM_RUN) {
        V(linear_run_forward)(job, first, end);
        return;
    }
    if (!job->w->row_start) {
        V(linear_dense_forward)(job, first, end);
        return;
    }
    for (; b + 4 <= job->blocks; b += 4)
        for (r = first; r < end; r++) V(linear_rows)(job, r, b, BY_ROW, 1, 4);
    for (; b < job->blocks; b++) {
        for (r = first; r + 4 <= end; r += 4) V(linear_rows)(job, r, b, BY_ROW, 4, 1);
        for (; r < end; r++) V(linear_rows)(job, r, b, BY_ROW, 1, 1);
    }
}
#undef MOST_BLOCKS
#undef DOTS
#endif
