/* SPDX-License-Identifier: Apache-2.0 */
/* Template: blocks of ONE_GROUP rows for one sample.  A unit's values are PARTS_ vectors over the rows. */
#if ONE_GROUP < LEVEL_WIDTH
#define WIDTH_ ONE_GROUP
#else
#define WIDTH_ LEVEL_WIDTH
#endif
#define PARTS_ (ONE_GROUP / WIDTH_)
#define G_JOIN2(name, group) LEVEL(name##group)
#define G_JOIN(name, group) G_JOIN2(name, group)
#define G(name) G_JOIN(name, ONE_GROUP)
#define part_ G_JOIN(f, WIDTH_)

typedef struct G(one_rows) {
    part_ part[PARTS_];
} G(one_rows);

/* Rows from p on, of which n exist; 0 for the others. */
VEC_INLINE G(one_rows) G(one_load_)(const float *p, int32_t n)
{
    G(one_rows) v;
    float rest[ONE_GROUP] = {0};
    if (n < ONE_GROUP) {
        for (int32_t i = 0; i < n; i++) rest[i] = p[i];
        p = rest;
    }
    UNROLL for (int h = 0; h < PARTS_; h++) v.part[h] = *(const part_ *)(p + h * WIDTH_);
    return v;
}

VEC_INLINE void G(one_store_)(float *p, G(one_rows) v, int32_t n)
{
    if (n >= ONE_GROUP) {
        UNROLL for (int h = 0; h < PARTS_; h++) *(part_ *)(p + h * WIDTH_) = v.part[h];
    } else {
        for (int32_t i = 0; i < n; i++) p[i] = v.part[i / WIDTH_][i % WIDTH_];
    }
}

VEC_INLINE void G(one_term_)(G(one_rows) *sum, const float *value, float x)
{
    UNROLL for (int h = 0; h < PARTS_; h++)
        sum->part[h] = __builtin_elementwise_fma(*(const part_ *)(value + h * WIDTH_), (part_)(x), sum->part[h]);
}

/* `some` neighbouring blocks, each a chain: a chain of fma waits for itself. */
VEC_INLINE void G(one_blocks_)(const mestk_linear_job *job, int32_t q, const int some)
{
    const mestk_weights *w = job->w;
    const float *value[4];
    const uint16_t *column[4];
    int64_t count[4], shortest = 0;
    G(one_rows) sum[4];
    UNROLL for (int k = 0; k < some; k++) {
        int64_t begin = w->row_start[q + k];
        int32_t row = (q + k) * ONE_GROUP;
        count[k] = w->row_start[q + k + 1] - begin;
        value[k] = w->value + begin * ONE_GROUP;
        column[k] = w->column + begin;
        shortest = k == 0 || count[k] < shortest ? count[k] : shortest;
        sum[k] = G(one_load_)(job->bias ? job->bias + row : NULL, job->bias ? w->rows - row : 0);
    }
    ROLLED for (int64_t j = 0; j < shortest; j++)
        UNROLL for (int k = 0; k < some; k++) G(one_term_)(&sum[k], value[k] + j * ONE_GROUP, job->x[column[k][j]]);
    UNROLL for (int k = 0; k < some; k++) {
        int32_t row = (q + k) * ONE_GROUP;
        ROLLED for (int64_t j = shortest; j < count[k]; j++)
            G(one_term_)(&sum[k], value[k] + j * ONE_GROUP, job->x[column[k][j]]);
        G(one_store_)(job->y + row, sum[k], w->rows - row);
    }
}

static void G(one_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t q = first / ONE_GROUP, last = mestk_ceil_div(end, ONE_GROUP);
    for (; q + 4 <= last; q += 4) G(one_blocks_)(job, q, 4);
    for (; q < last; q++) G(one_blocks_)(job, q, 1);
}

/* A channel: a chain for each row of a block. */
static void G(one_backward_x)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    for (int32_t c = first; c < end; c++) {
        G(one_rows) chain = {0};
        ROLLED for (uint32_t e = w->channel_start[c]; e < w->channel_start[c + 1]; e++) {
            int32_t row = w->key[e] * ONE_GROUP;
            const float *value = w->value + (int64_t)w->position[e] * ONE_GROUP;
            G(one_rows) dy = G(one_load_)(job->dy + row, w->rows - row);
            UNROLL for (int h = 0; h < PARTS_; h++)
                chain.part[h] = __builtin_elementwise_fma(*(const part_ *)(value + h * WIDTH_), dy.part[h], chain.part[h]);
        }
        float sum = G(one_add)(0.0f, chain.part);
        job->dx[c] = job->accumulate ? job->dx[c] + sum : sum;
    }
}

/* Block by block: dw in the order in which it lies. */
static void G(one_backward_w)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    part_ zero = 0;
    for (int32_t row = first; row < end; row += ONE_GROUP) {
        int32_t n = w->rows - row, q = row / ONE_GROUP;
        G(one_rows) dy = G(one_load_)(job->dy + row, n);
        ROLLED for (uint32_t j = w->row_start[q]; j < w->row_start[q + 1]; j++) {
            float *dw = job->dw + (int64_t)j * ONE_GROUP, x = job->x[w->column[j]];
            G(one_rows) sum;
            UNROLL for (int h = 0; h < PARTS_; h++) {
                sum.part[h] = zero + __builtin_elementwise_fma(dy.part[h], (part_)(x), zero);
                if (job->add) sum.part[h] += *(const part_ *)(dw + h * WIDTH_);
            }
            G(one_store_)(dw, sum, n);
        }
    }
}

#undef ONE_GROUP
#undef WIDTH_
#undef PARTS_
#undef G_JOIN2
#undef G_JOIN
#undef G
#undef part_
