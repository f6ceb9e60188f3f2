/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer for one sample, on one instruction set: what fills vectors when there are no lanes.
 * Dense, SINGLE and RUN: sixteen chains of a row; BLOCK: the rows of a block.  Order of roundings: linear.h.
 * Included where LANES is 16: the chains of a row are such a line.
 */
#define ONE_PARTS (16 / LEVEL_WIDTH)
typedef float LEVEL(f4) __attribute__((ext_vector_type(4), aligned(4)));
#if LEVEL_WIDTH >= 8
typedef float LEVEL(f8) __attribute__((ext_vector_type(8), aligned(4)));
#endif
#if LEVEL_WIDTH == 16
typedef float LEVEL(f16) __attribute__((ext_vector_type(16), aligned(4)));
#endif
#define ONE_JOIN2(width) LEVEL(f##width)
#define ONE_JOIN(width) ONE_JOIN2(width)
typedef ONE_JOIN(LEVEL_WIDTH) LEVEL(one); /* a register */
typedef struct LEVEL(sixteen) {
    LEVEL(one) part[ONE_PARTS];
} LEVEL(sixteen);

/* mestk_add_line of 4, 8 and 16 lanes. */
VEC_INLINE float LEVEL(one_add4)(float sum, const LEVEL(f4) *v)
{
    return sum + ((v[0][0] + v[0][2]) + (v[0][1] + v[0][3]));
}
#if LEVEL_WIDTH >= 8
VEC_INLINE float LEVEL(one_add8)(float sum, const LEVEL(f8) *v)
{
    LEVEL(f4) half = v->lo + v->hi;
    return LEVEL(one_add4)(sum, &half);
}
#else
VEC_INLINE float LEVEL(one_add8)(float sum, const LEVEL(f4) *v)
{
    LEVEL(f4) half = v[0] + v[1];
    return LEVEL(one_add4)(sum, &half);
}
#endif
VEC_INLINE float LEVEL(one_add16)(float sum, const LEVEL(one) *v)
{
#if LEVEL_WIDTH == 16
    LEVEL(f8) octet[2] = {v->lo, v->hi};
    return LEVEL(one_add8)(LEVEL(one_add8)(sum, octet), octet + 1);
#else
    return LEVEL(one_add8)(LEVEL(one_add8)(sum, v), v + ONE_PARTS / 2);
#endif
}

/* ---- dense and SINGLE ---- */

VEC_INLINE LEVEL(sixteen) LEVEL(one_load)(const float *p)
{
    LEVEL(sixteen) v;
    UNROLL for (int h = 0; h < ONE_PARTS; h++) v.part[h] = *(const LEVEL(one) *)(p + h * LEVEL_WIDTH);
    return v;
}

/* x at 16 columns. */
VEC_INLINE LEVEL(sixteen) LEVEL(one_gather)(const float *x, const uint16_t *column)
{
    LEVEL(sixteen) v;
    UNROLL for (int h = 0; h < ONE_PARTS; h++)
        UNROLL for (int i = 0; i < LEVEL_WIDTH; i++) v.part[h][i] = x[column[h * LEVEL_WIDTH + i]];
    return v;
}

VEC_INLINE void LEVEL(one_fma)(LEVEL(sixteen) *sum, LEVEL(sixteen) a, LEVEL(sixteen) b)
{
    UNROLL for (int h = 0; h < ONE_PARTS; h++)
        sum->part[h] = __builtin_elementwise_fma(a.part[h], b.part[h], sum->part[h]);
}

/* v where i < n, else +0. */
VEC_INLINE LEVEL(sixteen) LEVEL(one_first)(LEVEL(sixteen) v, int64_t n)
{
    typedef int32_t unaligned __attribute__((ext_vector_type(LEVEL_WIDTH), aligned(4)));
    static const int32_t mask[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    UNROLL for (int h = 0; h < ONE_PARTS; h++)
        v.part[h] = vec_where(*(const unaligned *)(mask + 16 - n + h * LEVEL_WIDTH), v.part[h]);
    return v;
}

/* The chains of a row.  room: connections from `value` on, with those of later rows. */
VEC_INLINE LEVEL(sixteen) LEVEL(one_row)(const float *value, const float *x, const uint16_t *column, int64_t count,
                                         int64_t room)
{
    LEVEL(sixteen) chain = {0};
    int64_t j = 0;
    ROLLED for (; j + 16 <= count; j += 16)
        LEVEL(one_fma)(&chain, LEVEL(one_load)(value + j),
                       column ? LEVEL(one_gather)(x, column + j) : LEVEL(one_load)(x + j));
    if (j == count) return chain;
    if (column && j + 16 <= room) {
        LEVEL(sixteen) v = LEVEL(one_load)(value + j), at = LEVEL(one_gather)(x, column + j);
        LEVEL(one_fma)(&chain, LEVEL(one_first)(v, count - j), LEVEL(one_first)(at, count - j));
        return chain;
    }
    float rest[2][16] = {{0}};
    for (int64_t i = 0; i < count - j; i++)
        rest[0][i] = value[j + i], rest[1][i] = column ? x[column[j + i]] : x[j + i];
    LEVEL(one_fma)(&chain, LEVEL(one_load)(rest[0]), LEVEL(one_load)(rest[1]));
    return chain;
}

/* mestk_add_line for the chains of eight rows. */
VEC_INLINE void LEVEL(one_add_rows)(const LEVEL(sixteen) *chain, float *sum)
{
#if LEVEL_SCALAR
    for (int k = 0; k < 8; k++) sum[k] = LEVEL(one_add16)(sum[k], chain[k].part);
#else
    UNROLL for (int h = 0; h < ONE_PARTS; h++) {
        vec part[8];
        UNROLL for (int k = 0; k < 8; k++) part[k] = chain[k].part[h];
        vec_add_8_dots(part, sum);
    }
#endif
}

static void LEVEL(one_forward_rows)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int64_t all = w->row_start ? w->row_start[w->rows] : 0;
    for (int32_t r = first; r < end; r += 8) {
        int32_t n = mestk_min(8, end - r);
        LEVEL(sixteen) chain[8] = {0};
        float sum[8] = {0};
        for (int32_t k = 0; k < n; k++) {
            int64_t j = w->row_start ? w->row_start[r + k] : (int64_t)(r + k) * w->channels;
            sum[k] = job->bias ? job->bias[r + k] : 0.0f;
            if (w->row_start)
                chain[k] = LEVEL(one_row)(w->value + j, job->x, w->column + j, w->row_start[r + k + 1] - j, all - j);
            else
                chain[k] = LEVEL(one_row)(w->value + j, job->x, NULL, w->channels, 0);
        }
        LEVEL(one_add_rows)(chain, sum);
        for (int32_t k = 0; k < n; k++) job->y[r + k] = sum[k];
    }
}

/* dw of neighbours.  0 + product: a sum of one line. */
VEC_INLINE void LEVEL(one_dw)(const mestk_linear_job *job, int64_t j, float dy, LEVEL(sixteen) x)
{
    LEVEL(one) zero = 0;
    UNROLL for (int h = 0; h < ONE_PARTS; h++) {
        LEVEL(one) *dw = (LEVEL(one) *)(job->dw + j + h * LEVEL_WIDTH);
        LEVEL(one) sum = zero + __builtin_elementwise_fma((LEVEL(one))(dy), x.part[h], zero);
        *dw = job->add ? *dw + sum : sum;
    }
}
VEC_INLINE void LEVEL(one_dw1)(const mestk_linear_job *job, int64_t j, float dy, float x)
{
    float sum = 0.0f + mestk_fma_inline(dy, x, 0.0f);
    job->dw[j] = job->add ? job->dw[j] + sum : sum;
}

/* Connections j .. stop-1 of a row, and their parts of dx: row by row, every dx is the chain in key order.
 * Loads are the limit: values come four at a time and stay in their register. */
VEC_INLINE void LEVEL(one_scatter)(const mestk_linear_job *job, int64_t j, int64_t stop, float dy)
{
    const uint16_t *column = job->w->column;
    const float *value = job->w->value, *x = job->x;
    float *dx = job->dx, *dw = job->dw;
    const int32_t add = job->add;
    const LEVEL(f4) zero = 0;
    ROLLED for (; j + 4 <= stop; j += 4) {
        LEVEL(f4) v = *(const LEVEL(f4) *)(value + j), at;
        KEEP_VECTOR(v);
        UNROLL for (int i = 0; i < 4; i++) {
            int32_t c = column[j + i];
            at[i] = x[c];
            dx[c] = mestk_fma_inline(v[i], dy, dx[c]);
        }
        at = zero + __builtin_elementwise_fma((LEVEL(f4))(dy), at, zero);
        *(LEVEL(f4) *)(dw + j) = add ? *(const LEVEL(f4) *)(dw + j) + at : at;
    }
    ROLLED for (; j < stop; j++) {
        int32_t c = column[j];
        LEVEL(one_dw1)(job, j, dy, x[c]);
        dx[c] = mestk_fma_inline(value[j], dy, dx[c]);
    }
}

/* The first connection of j .. stop-1 whose column is not below c. */
VEC_INLINE int64_t LEVEL(one_find)(const uint16_t *column, int64_t j, int64_t stop, int32_t c)
{
    while (j < stop) {
        int64_t middle = j + (stop - j) / 2;
        if (column[middle] < c) j = middle + 1;
        else stop = middle;
    }
    return j;
}

static void LEVEL(one_scatter_rows)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    for (int32_t r = 0; r < w->rows; r++) {
        int64_t j = w->row_start[r], stop = w->row_start[r + 1];
        if (first > 0) j = LEVEL(one_find)(w->column, j, stop, first);
        if (end < w->channels) stop = LEVEL(one_find)(w->column, j, stop, end);
        LEVEL(one_scatter)(job, j, stop, job->dy[r]);
    }
}

static void LEVEL(one_dense)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    for (int32_t r = 0; r < w->rows; r++) {
        int64_t at = (int64_t)r * w->channels;
        const float *value = w->value + at, *x = job->x;
        float *dx = job->dx, dy = job->dy[r];
        int32_t c = first;
        ROLLED for (; c + 16 <= end; c += 16) {
            LEVEL(one_dw)(job, at + c, dy, LEVEL(one_load)(x + c));
            UNROLL for (int h = 0; h < 16; h += LEVEL_WIDTH) {
                LEVEL(one) *to = (LEVEL(one) *)(dx + c + h);
                *to = __builtin_elementwise_fma(*(const LEVEL(one) *)(value + c + h), (LEVEL(one))(dy), *to);
            }
        }
        ROLLED for (; c < end; c++) {
            LEVEL(one_dw1)(job, at + c, dy, x[c]);
            dx[c] = mestk_fma_inline(value[c], dy, dx[c]);
        }
    }
}

/* dw of a row, alone. */
VEC_INLINE void LEVEL(one_dw_row)(const mestk_linear_job *job, int32_t r)
{
    const mestk_weights *w = job->w;
    const float *x = job->x;
    const uint16_t *column = w->column;
    int64_t j = w->row_start ? w->row_start[r] : (int64_t)r * w->channels, begin = j;
    int64_t stop = w->row_start ? w->row_start[r + 1] : j + w->channels;
    float dy = job->dy[r];
    ROLLED for (; j + 16 <= stop; j += 16)
        LEVEL(one_dw)(job, j, dy, w->row_start ? LEVEL(one_gather)(x, column + j) : LEVEL(one_load)(x + j - begin));
    ROLLED for (; j < stop; j++) LEVEL(one_dw1)(job, j, dy, x[w->row_start ? column[j] : j - begin]);
}

/* ---- BLOCK: vectors are the rows of a block ---- */

#if !LEVEL_SCALAR
#define ONE_GROUP 4
#include "linear_one_block.h"
#define ONE_GROUP 8
#include "linear_one_block.h"
#define ONE_GROUP 16
#include "linear_one_block.h"
#endif

/* ---- RUN: vectors are neighbouring inputs ---- */

#define ONE_GROUP 4
#include "linear_one_run.h"
#define ONE_GROUP 8
#include "linear_one_run.h"
#define ONE_GROUP 16
#include "linear_one_run.h"

/* ---- what the table has ---- */

#define ONE_UNITS(name)                                                  \
    do {                                                                 \
        if (job->w->group == 4) LEVEL(name##4)(job, first, end);         \
        else if (job->w->group == 8) LEVEL(name##8)(job, first, end);    \
        else LEVEL(name##16)(job, first, end);                           \
    } while (0)
#if LEVEL_SCALAR
#define ONE_BLOCKS(name, reference) reference(job, first, end)
#else
#define ONE_BLOCKS(name, reference) ONE_UNITS(name)
#endif

static void LEVEL(one_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    if (job->w->form == MESTK_FORM_BLOCK) ONE_BLOCKS(one_forward, mestk_linear_forward_reference);
    else if (job->w->form == MESTK_FORM_RUN) ONE_UNITS(one_run_forward);
    else LEVEL(one_forward_rows)(job, first, end);
}

static void LEVEL(one_backward_x)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    if (job->w->form == MESTK_FORM_BLOCK) ONE_BLOCKS(one_backward_x, mestk_linear_backward_x_reference);
    else LEVEL(linear_backward_x_1)(job, first, end);
}

static void LEVEL(one_backward_w)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    if (job->w->form == MESTK_FORM_BLOCK) ONE_BLOCKS(one_backward_w, mestk_linear_backward_w_reference);
    else if (job->w->form == MESTK_FORM_RUN) ONE_UNITS(one_run_backward_w);
    else for (int32_t r = first; r < end; r++) LEVEL(one_dw_row)(job, r);
}

/* dx and dw of channels first .. end-1, all but BLOCK; not for a dx that is added to: the old one comes last. */
static void LEVEL(one_backward_both)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    memset(job->dx + first, 0, (size_t)(end - first) * sizeof(float));
    if (job->w->form == MESTK_FORM_RUN) ONE_UNITS(one_run_backward_both);
    else if (job->w->row_start) LEVEL(one_scatter_rows)(job, first, end);
    else LEVEL(one_dense)(job, first, end);
}

static void LEVEL(one_bias)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    for (int32_t r = first; r < end; r++) {
        float sum = 0.0f + (0.0f + job->dy[r]);
        job->db[r] = job->add ? job->db[r] + sum : sum;
    }
}

#undef ONE_BLOCKS
#undef ONE_UNITS
#undef ONE_PARTS
#undef ONE_JOIN
#undef ONE_JOIN2
