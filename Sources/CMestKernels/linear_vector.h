/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer of one lane count on one instruction set: see vector.h, and linear.h for the
 * order of roundings.  A chain of fma waits for itself: four or more independent ones, of lane blocks or
 * of rows, run beside each other.
 */

#if LANES == 1
#include "linear_one.h"
#endif

/* ---- forward ---- */

VEC_INLINE vec V(linear_term)(vec sum, float value, const float *x) { return vec_fma((vec)(value), vec_load(x), sum); }

/* rows x blocks chains: 1 x 4 or 4 x 1 or 1 x 1. */
VEC_INLINE void V(linear_rows)(const mestk_linear_job *job, int32_t r, int32_t b, const int rows, const int blocks)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    const float *x = job->x + b * x_block, *value[4];
    const uint16_t *column[4];
    int64_t count[4], shortest;
    vec sum[4][4 * PARTS];
    UNROLL for (int k = 0; k < rows; k++) {
        int64_t begin = w->row_start ? w->row_start[r + k] : (int64_t)(r + k) * w->channels;
        count[k] = w->row_start ? w->row_start[r + k + 1] - begin : w->channels;
        value[k] = w->value + begin;
        column[k] = w->row_start ? w->column + begin : NULL;
        shortest = k == 0 || count[k] < shortest ? count[k] : shortest;
        vec start = (vec)(job->bias ? job->bias[r + k] : 0.0f);
        UNROLL for (int i = 0; i < blocks * PARTS; i++) sum[k][i] = start;
    }
    ROLLED for (int64_t j = 0; j < shortest; j++) {
        UNROLL for (int k = 0; k < rows; k++) {
            const float *line = x + (w->row_start ? column[k][j] : j) * LANES;
            UNROLL for (int i = 0; i < blocks * PARTS; i++)
                sum[k][i] = V(linear_term)(sum[k][i], value[k][j], line + i / PARTS * x_block + i % PARTS * WIDTH);
        }
    }
    UNROLL for (int k = 0; k < rows; k++) {
        ROLLED for (int64_t j = shortest; rows > 1 && j < count[k]; j++) {
            const float *line = x + (w->row_start ? column[k][j] : j) * LANES;
            UNROLL for (int i = 0; i < blocks * PARTS; i++)
                sum[k][i] = V(linear_term)(sum[k][i], value[k][j], line + i / PARTS * x_block + i % PARTS * WIDTH);
        }
        float *y = job->y + b * y_block + (int64_t)(r + k) * LANES;
        UNROLL for (int i = 0; i < blocks * PARTS; i++) vec_store(y + i / PARTS * y_block + i % PARTS * WIDTH, sum[k][i]);
    }
}

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
#if LANES == 1 && LEVEL_SCALAR
    (void)group;
    mestk_linear_forward_reference(job, first, end);
#elif LANES == 1
    if (group == 4) LEVEL(one_forward4)(job, first, end);
    else if (group == 8) LEVEL(one_forward8)(job, first, end);
    else LEVEL(one_forward16)(job, first, end);
#else
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
#endif
}

static void V(linear_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t b = 0, r;
    if (job->w->form == MESTK_FORM_BLOCK) {
        V(linear_block_forward)(job, first, end);
        return;
    }
#if LANES == 1
    LEVEL(one_forward)(job, first, end);
    (void)b, (void)r;
#else
    for (; b + 4 <= job->blocks; b += 4)
        for (r = first; r < end; r++) V(linear_rows)(job, r, b, 1, 4);
    for (; b < job->blocks; b++) {
        for (r = first; r + 4 <= end; r += 4) V(linear_rows)(job, r, b, 4, 1);
        for (; r < end; r++) V(linear_rows)(job, r, b, 1, 1);
    }
#endif
}

/* ---- backward, sparse: one channel ---- */

/* Up to 4 connections of a channel: rows, and where the values lie. */
typedef struct V(some) {
    int64_t row[4], place[4];
} V(some);

/* `step` of them, 4 or 1, over `blocks` lane blocks from x and dy on: dx chains and dot products. */
VEC_INLINE void V(linear_entries)(const mestk_linear_job *job, const V(some) * s, const float *x, const float *dy,
                                  vec *chain, vec dot[PARTS][4], const int blocks, const int step, const int need_dx,
                                  const int need_dw)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    UNROLL for (int k = 0; k < step; k++) {
        const float *line = dy + s->row[k] * LANES;
        vec weight = need_dx ? (vec)(w->value[s->place[k]]) : vec_zero();
        UNROLL for (int i = 0; i < blocks * PARTS; i++) {
            vec d = vec_load(line + i / PARTS * y_block + i % PARTS * WIDTH);
            if (need_dx) chain[i] = vec_fma(weight, d, chain[i]);
            if (need_dw)
                dot[i % PARTS][k] = vec_fma(d, vec_load(x + i / PARTS * x_block + i % PARTS * WIDTH), dot[i % PARTS][k]);
        }
    }
}

VEC_INLINE void V(linear_dot_zero)(vec dot[PARTS][4])
{
    UNROLL for (int h = 0; h < PARTS; h++)
        UNROLL for (int k = 0; k < 4; k++) dot[h][k] = vec_zero();
}

VEC_INLINE void V(linear_dot_add)(const mestk_linear_job *job, const V(some) * s, vec dot[PARTS][4], const int step)
{
    float sum[4] = {0};
    UNROLL for (int h = 0; h < PARTS; h++) vec_add_dots(dot[h], sum);
    UNROLL for (int k = 0; k < step; k++) job->dw[s->place[k]] += sum[k];
}

/* SINGLE: entries e .. e+step-1. */
VEC_INLINE V(some) V(entries_at)(const mestk_weights *w, int64_t e, const int step)
{
    V(some) s;
    UNROLL for (int k = 0; k < step; k++) s.row[k] = w->key[e + k], s.place[k] = w->position[e + k];
    return s;
}

/* BLOCK: rows i .. i+3 of entry e. */
VEC_INLINE V(some) V(rows_at)(const mestk_weights *w, int64_t e, int32_t i)
{
    V(some) s;
    int64_t row = (int64_t)w->key[e] * w->group + i, place = (int64_t)w->position[e] * w->group + i;
    UNROLL for (int k = 0; k < 4; k++) s.row[k] = row + k, s.place[k] = place + k;
    return s;
}

/* Calls `body`(s, step) for all connections of channel c, 4 at a time. */
#define FOR_CONNECTIONS(w, c, body)                                                                           \
    do {                                                                                                      \
        int64_t e_ = (w)->channel_start[c], end_ = (w)->channel_start[(c) + 1];                               \
        if ((w)->form == MESTK_FORM_BLOCK) {                                                                  \
            ROLLED for (; e_ < end_; e_++) {                                                                  \
                int32_t i_ = 0, n_ = mestk_min((w)->group, (w)->rows - (w)->key[e_] * (w)->group);            \
                ROLLED for (; i_ + 4 <= n_; i_ += 4) body(V(rows_at)(w, e_, i_), 4);                          \
                ROLLED for (; i_ < n_; i_++) body(V(rows_at)(w, e_, i_), 1);                                  \
            }                                                                                                 \
        } else {                                                                                              \
            ROLLED for (; e_ + 4 <= end_; e_ += 4) body(V(entries_at)(w, e_, 4), 4);                          \
            ROLLED for (; e_ < end_; e_++) body(V(entries_at)(w, e_, 1), 1);                                  \
        }                                                                                                     \
    } while (0)

/* dx, and dw when the dot products end here, that is when there are no further blocks. */
VEC_INLINE void V(linear_pass)(const mestk_linear_job *job, int32_t c, int32_t b, const int blocks, const int need_dw)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES;
    const float *x = job->x + b * x_block + (int64_t)c * LANES, *dy = job->dy + (int64_t)b * w->rows * LANES;
    vec chain[4 * PARTS], dot[PARTS][4];
    UNROLL for (int i = 0; i < blocks * PARTS; i++) chain[i] = vec_zero();
#define PASS(connections, step)                                                                               \
    {                                                                                                         \
        V(some) s = connections;                                                                              \
        V(linear_dot_zero)(dot);                                                                              \
        V(linear_entries)(job, &s, x, dy, chain, dot, blocks, step, 1, need_dw);                              \
        if (need_dw) V(linear_dot_add)(job, &s, dot, step);                                                   \
    }
    FOR_CONNECTIONS(w, c, PASS);
#undef PASS
    UNROLL for (int i = 0; i < blocks * PARTS; i++) {
        float *dx = job->dx + (b + i / PARTS) * x_block + (int64_t)c * LANES + i % PARTS * WIDTH;
        vec_store(dx, job->accumulate ? vec_load(dx) + chain[i] : chain[i]);
    }
}

/* dw alone, any number of blocks. */
static __attribute__((unused)) void V(linear_dw)(const mestk_linear_job *job, int32_t c)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    vec dot[PARTS][4];
#define DW(connections, step)                                                                                 \
    {                                                                                                         \
        V(some) s = connections;                                                                              \
        const float *x = job->x + (int64_t)c * LANES, *dy = job->dy;                                          \
        V(linear_dot_zero)(dot);                                                                              \
        ROLLED for (int32_t b = 0; b < job->blocks; b++, x += x_block, dy += y_block)                         \
            V(linear_entries)(job, &s, x, dy, NULL, dot, 1, step, 0, 1);                                      \
        V(linear_dot_add)(job, &s, dot, step);                                                                \
    }
    FOR_CONNECTIONS(w, c, DW);
#undef DW
#undef FOR_CONNECTIONS
}

/* ---- backward, dense: four channels at a time, rows in order ---- */

/* dw[r][c .. c+3], x of the four channels in registers when the blocks are few. */
static void V(linear_dense_dw)(const mestk_linear_job *job, int32_t c, int32_t channels)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    for (int32_t r = 0; r < w->rows; r++) {
        const float *x = job->x + (int64_t)c * LANES, *dy = job->dy + (int64_t)r * LANES;
        float sum[4] = {0}, *dw = job->dw + (int64_t)r * w->channels + c;
        vec dot[PARTS][4];
        V(linear_dot_zero)(dot);
        ROLLED for (int32_t b = 0; b < job->blocks; b++, x += x_block, dy += y_block)
            UNROLL for (int h = 0; h < PARTS; h++)
                UNROLL for (int k = 0; k < 4; k++)
                    if (k < channels)
                        dot[h][k] = vec_fma(vec_load(dy + h * WIDTH), vec_load(x + k * LANES + h * WIDTH), dot[h][k]);
        UNROLL for (int h = 0; h < PARTS; h++) vec_add_dots(dot[h], sum);
        for (int32_t k = 0; k < channels; k++) dw[k] += sum[k];
    }
}

VEC_INLINE void V(linear_dense_dx)(const mestk_linear_job *job, int32_t c, int32_t b, const int channels)
{
    const mestk_weights *w = job->w;
    const float *dy = job->dy + (int64_t)b * w->rows * LANES, *value = w->value + c;
    vec chain[4 * PARTS];
    UNROLL for (int i = 0; i < channels * PARTS; i++) chain[i] = vec_zero();
    ROLLED for (int32_t r = 0; r < w->rows; r++, dy += LANES, value += w->channels)
        UNROLL for (int i = 0; i < channels * PARTS; i++)
            chain[i] = V(linear_term)(chain[i], value[i / PARTS], dy + i % PARTS * WIDTH);
    UNROLL for (int i = 0; i < channels * PARTS; i++) {
        float *dx = job->dx + ((int64_t)b * w->channels + c) * LANES + i * WIDTH;
        vec_store(dx, job->accumulate ? vec_load(dx) + chain[i] : chain[i]);
    }
}

static void V(linear_backward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
#if LANES == 1
    if (LEVEL(one_backward)(job, first, end)) return;
#endif
    if (!job->w->row_start) {
        for (int32_t c = first, n; c < end; c += n) {
            n = mestk_min(4, end - c);
            V(linear_dense_dw)(job, c, n);
            for (int32_t b = 0; job->dx && b < job->blocks; b++) {
                if (n == 4) V(linear_dense_dx)(job, c, b, 4);
                else
                    for (int32_t k = 0; k < n; k++) V(linear_dense_dx)(job, c + k, b, 1);
            }
        }
        return;
    }
    for (int32_t c = first; c < end; c++) {
#if LANES == 1
        V(linear_pass)(job, c, 0, 1, 1); /* accumulates */
#else
        int32_t blocks = job->blocks, b = 0;
        if (job->dx && blocks == 4) {
            V(linear_pass)(job, c, 0, 4, 1);
        } else if (job->dx && blocks == 2) {
            V(linear_pass)(job, c, 0, 2, 1);
        } else if (job->dx && blocks == 1) {
            V(linear_pass)(job, c, 0, 1, 1);
        } else {
            V(linear_dw)(job, c);
            for (; job->dx && b + 4 <= blocks; b += 4) V(linear_pass)(job, c, b, 4, 0);
            for (; job->dx && b < blocks; b++) V(linear_pass)(job, c, b, 1, 0);
        }
#endif
    }
}
