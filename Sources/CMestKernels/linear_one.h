/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer for one sample, on one instruction set: what fills vectors when there are no lanes.
 * Dense and SINGLE: sixteen chains of a row; BLOCK: the rows of a block.  Order of roundings: linear.h.
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

VEC_INLINE float LEVEL(one_row)(const float *value, const float *x, const uint16_t *column, int64_t count, float bias)
{
    LEVEL(sixteen) chain = {0};
    int64_t j = 0;
    ROLLED for (; j + 16 <= count; j += 16)
        LEVEL(one_fma)(&chain, LEVEL(one_load)(value + j), column ? LEVEL(one_gather)(x, column + j) : LEVEL(one_load)(x + j));
    if (j < count) {
        float rest[2][16] = {{0}};
        for (int64_t i = 0; i < count - j; i++)
            rest[0][i] = value[j + i], rest[1][i] = column ? x[column[j + i]] : x[j + i];
        LEVEL(one_fma)(&chain, LEVEL(one_load)(rest[0]), LEVEL(one_load)(rest[1]));
    }
    return LEVEL(one_add16)(bias, chain.part);
}

static void LEVEL(one_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    for (int32_t r = first; r < end; r++) {
        float bias = job->bias ? job->bias[r] : 0.0f;
        if (w->row_start) {
            int64_t j = w->row_start[r];
            job->y[r] = LEVEL(one_row)(w->value + j, job->x, w->column + j, w->row_start[r + 1] - j, bias);
        } else {
            job->y[r] = LEVEL(one_row)(w->value + (int64_t)r * w->channels, job->x, NULL, w->channels, bias);
        }
    }
}

/* dw of 16 neighbours.  0 + product: a sum of one line. */
VEC_INLINE void LEVEL(one_dw)(float *dw, float dy, LEVEL(sixteen) x)
{
    LEVEL(one) zero = 0;
    UNROLL for (int h = 0; h < ONE_PARTS; h++)
        *(LEVEL(one) *)(dw + h * LEVEL_WIDTH) += zero + __builtin_elementwise_fma((LEVEL(one))(dy), x.part[h], zero);
}
VEC_INLINE void LEVEL(one_dw1)(float *dw, float dy, float x) { *dw += 0.0f + mestk_fma_inline(dy, x, 0.0f); }

/* A row scatters its part of dx over its columns from `first` on, below `end`: row by row, every dx is the
 * chain in key order. */
VEC_INLINE void LEVEL(one_scatter)(const mestk_linear_job *job, int32_t first, int32_t end, const int need_dx)
{
    const mestk_weights *w = job->w;
    const float *x = job->x;
    float *dx = job->dx;
    for (int32_t r = 0; r < w->rows; r++) {
        int64_t j = w->row_start[r], stop = w->row_start[r + 1];
        float dy = job->dy[r];
        if (first > 0 || end < w->channels) {
            int64_t low = j, high = stop;
            while (low < high) {
                int64_t middle = low + (high - low) / 2;
                if (w->column[middle] < first) low = middle + 1;
                else high = middle;
            }
            for (j = low, high = stop; low < high;) {
                int64_t middle = low + (high - low) / 2;
                if (w->column[middle] < end) low = middle + 1;
                else high = middle;
            }
            stop = low;
        }
        /* Two stores a connection are the limit, vectors or not. */
        ROLLED for (; j + 4 <= stop; j += 4)
            UNROLL for (int i = 0; i < 4; i++) {
                int32_t c = w->column[j + i];
                LEVEL(one_dw1)(job->dw + j + i, dy, x[c]);
                if (need_dx) dx[c] = mestk_fma_inline(w->value[j + i], dy, dx[c]);
            }
        ROLLED for (; j < stop; j++) {
            int32_t c = w->column[j];
            LEVEL(one_dw1)(job->dw + j, dy, x[c]);
            if (need_dx) dx[c] = mestk_fma_inline(w->value[j], dy, dx[c]);
        }
    }
}

VEC_INLINE void LEVEL(one_dense)(const mestk_linear_job *job, int32_t first, int32_t end, const int need_dx)
{
    const mestk_weights *w = job->w;
    for (int32_t r = 0; r < w->rows; r++) {
        const float *value = w->value + (int64_t)r * w->channels, *x = job->x;
        float *dw = job->dw + (int64_t)r * w->channels, *dx = job->dx, dy = job->dy[r];
        int32_t c = first;
        ROLLED for (; c + 16 <= end; c += 16) {
            LEVEL(one_dw)(dw + c, dy, LEVEL(one_load)(x + c));
            UNROLL for (int h = 0; need_dx && h < 16; h += LEVEL_WIDTH) {
                LEVEL(one) *to = (LEVEL(one) *)(dx + c + h);
                *to = __builtin_elementwise_fma(*(const LEVEL(one) *)(value + c + h), (LEVEL(one))(dy), *to);
            }
        }
        ROLLED for (; c < end; c++) {
            LEVEL(one_dw1)(dw + c, dy, x[c]);
            if (need_dx) dx[c] = mestk_fma_inline(value[c], dy, dx[c]);
        }
    }
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

/* dx and dw of channels first .. end-1; not for a dense or SINGLE dx that is added to: the old one comes last. */
static void LEVEL(one_backward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    if (w->form == MESTK_FORM_BLOCK) {
#if LEVEL_SCALAR
        if (job->dx) mestk_linear_backward_x_reference(job, first, end);
        for (int32_t c = first; c < end; c++)
            for (uint32_t e = w->channel_start[c]; e < w->channel_start[c + 1]; e++)
                for (int32_t i = 0, r = w->key[e] * w->group; i < w->group && r + i < w->rows; i++)
                    LEVEL(one_dw1)(job->dw + (int64_t)w->position[e] * w->group + i, job->dy[r + i], job->x[c]);
#else
        if (w->group == 4) LEVEL(one_backward4)(job, first, end);
        else if (w->group == 8) LEVEL(one_backward8)(job, first, end);
        else LEVEL(one_backward16)(job, first, end);
#endif
        return;
    }
    if (job->dx) memset(job->dx + first, 0, (size_t)(end - first) * sizeof(float));
    if (w->row_start && job->dx) LEVEL(one_scatter)(job, first, end, 1);
    else if (w->row_start) LEVEL(one_scatter)(job, first, end, 0);
    else if (job->dx) LEVEL(one_dense)(job, first, end, 1);
    else LEVEL(one_dense)(job, first, end, 0);
}

#undef ONE_PARTS
#undef ONE_JOIN
#undef ONE_JOIN2
