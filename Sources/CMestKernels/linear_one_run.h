/* SPDX-License-Identifier: Apache-2.0 */
/* Template: runs of ONE_GROUP inputs for one sample.  The sums are those of single weights (linear_one.h); what these
 * gather and scatter is loaded and stored here. */
#if ONE_GROUP < LEVEL_WIDTH
#define WIDTH_ ONE_GROUP
#else
#define WIDTH_ LEVEL_WIDTH
#endif
#define G_JOIN2(name, group) LEVEL(name##group)
#define G_JOIN(name, group) G_JOIN2(name, group)
#define G(name) G_JOIN(name, ONE_GROUP)
#define part_ G_JOIN(f, WIDTH_)

/* x under the units from *column on that fill 16 values. */
VEC_INLINE LEVEL(sixteen) G(one_runs_)(const float *x, const uint16_t *column)
{
    LEVEL(sixteen) v;
#define AT(i) (*(const part_ *)(x + (int64_t)column[(i) / ONE_GROUP] * ONE_GROUP + (i) % ONE_GROUP))
    UNROLL for (int h = 0; h < ONE_PARTS; h++) {
#if WIDTH_ == LEVEL_WIDTH
        v.part[h] = AT(h * WIDTH_);
#elif WIDTH_ * 2 == LEVEL_WIDTH
        v.part[h].lo = AT(h * LEVEL_WIDTH), v.part[h].hi = AT(h * LEVEL_WIDTH + WIDTH_);
#else
        LEVEL(f8) half[2];
        UNROLL for (int i = 0; i < 2; i++)
            half[i].lo = AT(h * LEVEL_WIDTH + i * 8), half[i].hi = AT(h * LEVEL_WIDTH + i * 8 + 4);
        v.part[h].lo = half[0], v.part[h].hi = half[1];
#endif
    }
#undef AT
    return v;
}

/* The chains of a row. */
VEC_INLINE LEVEL(sixteen) G(one_run_row_)(const mestk_linear_job *job, int32_t r)
{
    enum { UNITS = 16 / ONE_GROUP };
    const mestk_weights *w = job->w;
    const uint16_t *column = w->column;
    int64_t j = w->row_start[r], end = w->row_start[r + 1], all = w->row_start[w->rows];
    LEVEL(sixteen) chain = {0};
    if (j == end) return chain;
    int32_t lacks = mestk_max(0, (column[end - 1] + 1) * ONE_GROUP - w->channels);
    int64_t whole = end - (lacks > 0);
    ROLLED for (; j + UNITS <= whole; j += UNITS)
        LEVEL(one_fma)(&chain, LEVEL(one_load)(w->value + j * ONE_GROUP), G(one_runs_)(job->x, column + j));
    if (j == end) return chain;
    int64_t n = (end - j) * ONE_GROUP - lacks;
    if (j + UNITS <= all && w->channels % ONE_GROUP == 0) {
        LEVEL(sixteen) v = LEVEL(one_load)(w->value + j * ONE_GROUP), at = G(one_runs_)(job->x, column + j);
        LEVEL(one_fma)(&chain, LEVEL(one_first)(v, n), LEVEL(one_first)(at, n));
        return chain;
    }
    float rest[2][16] = {{0}};
    for (int64_t i = 0; i < n; i++) {
        rest[0][i] = w->value[j * ONE_GROUP + i];
        rest[1][i] = job->x[column[j + i / ONE_GROUP] * ONE_GROUP + i % ONE_GROUP];
    }
    LEVEL(one_fma)(&chain, LEVEL(one_load)(rest[0]), LEVEL(one_load)(rest[1]));
    return chain;
}

static void G(one_run_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    for (int32_t r = first; r < end; r += 8) {
        int32_t n = mestk_min(8, end - r);
        LEVEL(sixteen) chain[8] = {0};
        float sum[8] = {0};
        for (int32_t k = 0; k < n; k++) {
            sum[k] = job->bias ? job->bias[r + k] : 0.0f;
            chain[k] = G(one_run_row_)(job, r + k);
        }
        LEVEL(one_add_rows)(chain, sum);
        for (int32_t k = 0; k < n; k++) job->y[r + k] = sum[k];
    }
}

/* dw of units j .. stop-1 of a row, and their parts of dx. */
VEC_INLINE void G(one_run_scatter_)(const mestk_linear_job *job, int64_t j, int64_t stop, float dy, const int need_dx)
{
    const mestk_weights *w = job->w;
    const part_ zero = 0;
    ROLLED for (; j < stop; j++) {
        int32_t c = w->column[j] * ONE_GROUP;
        const float *value = w->value + j * ONE_GROUP, *x = job->x + c;
        float *dw = job->dw + j * ONE_GROUP, *dx = need_dx ? job->dx + c : NULL;
        if (c + ONE_GROUP > w->channels) { /* the last one of the row */
            for (int32_t i = 0; i < w->channels - c; i++) {
                LEVEL(one_dw1)(job, j * ONE_GROUP + i, dy, x[i]);
                if (need_dx) dx[i] = mestk_fma_inline(value[i], dy, dx[i]);
            }
            return;
        }
        UNROLL for (int i = 0; i < ONE_GROUP; i += WIDTH_) {
            part_ sum = zero + __builtin_elementwise_fma((part_)(dy), *(const part_ *)(x + i), zero);
            *(part_ *)(dw + i) = job->add ? *(const part_ *)(dw + i) + sum : sum;
            if (need_dx)
                *(part_ *)(dx + i) =
                    __builtin_elementwise_fma(*(const part_ *)(value + i), (part_)(dy), *(const part_ *)(dx + i));
        }
    }
}

/* dx and dw of channels first .. end-1; first is a run's. */
static void G(one_run_backward_both)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int32_t from = first / ONE_GROUP, to = mestk_ceil_div(end, ONE_GROUP);
    for (int32_t r = 0; r < w->rows; r++) {
        int64_t j = w->row_start[r], stop = w->row_start[r + 1];
        if (first > 0) j = LEVEL(one_find)(w->column, j, stop, from);
        if (end < w->channels) stop = LEVEL(one_find)(w->column, j, stop, to);
        G(one_run_scatter_)(job, j, stop, job->dy[r], 1);
    }
}

static void G(one_run_backward_w)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    for (int32_t r = first; r < end; r++)
        G(one_run_scatter_)(job, w->row_start[r], w->row_start[r + 1], job->dy[r], 0);
}

#undef ONE_GROUP
#undef WIDTH_
#undef G_JOIN2
#undef G_JOIN
#undef G
#undef part_
