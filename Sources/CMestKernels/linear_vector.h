/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer of one lane count on one instruction set: see vector.h, and linear.h for the
 * order of roundings.  A chain of fma waits for itself: four or more independent ones, of lane blocks or
 * of rows, run beside each other.
 */

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

static void V(linear_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t b = 0, r;
    for (; b + 4 <= job->blocks; b += 4)
        for (r = first; r < end; r++) V(linear_rows)(job, r, b, 1, 4);
    for (; b < job->blocks; b++) {
        for (r = first; r + 4 <= end; r += 4) V(linear_rows)(job, r, b, 4, 1);
        for (; r < end; r++) V(linear_rows)(job, r, b, 1, 1);
    }
}

/* ---- backward, sparse: one channel ---- */

/* `step` entries, 4 or 1, over `blocks` lane blocks from x and dy on: dx chains and dot products. */
VEC_INLINE void V(linear_entries)(const mestk_linear_job *job, int64_t e, const float *x, const float *dy, vec *chain,
                                  vec dot[PARTS][4], const int blocks, const int step, const int need_dx,
                                  const int need_dw)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    UNROLL for (int k = 0; k < step; k++) {
        const float *line = dy + (int64_t)w->key[e + k] * LANES;
        vec weight = need_dx ? (vec)(w->value[w->position[e + k]]) : vec_zero();
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

VEC_INLINE void V(linear_dot_add)(const mestk_linear_job *job, int64_t e, vec dot[PARTS][4], const int step)
{
    float sum[4] = {0};
    UNROLL for (int h = 0; h < PARTS; h++) vec_add_dots(dot[h], sum);
    UNROLL for (int k = 0; k < step; k++) job->dw[job->w->position[e + k]] += sum[k];
}

/* dx, and dw when the dot products end here, that is when there are no further blocks. */
VEC_INLINE void V(linear_pass)(const mestk_linear_job *job, int32_t c, int32_t b, const int blocks, const int need_dw)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, e = w->channel_start[c], end = w->channel_start[c + 1];
    const float *x = job->x + b * x_block + (int64_t)c * LANES, *dy = job->dy + (int64_t)b * w->rows * LANES;
    vec chain[4 * PARTS], dot[PARTS][4];
    UNROLL for (int i = 0; i < blocks * PARTS; i++) chain[i] = vec_zero();
    ROLLED for (; e + 4 <= end; e += 4) {
        V(linear_dot_zero)(dot);
        V(linear_entries)(job, e, x, dy, chain, dot, blocks, 4, 1, need_dw);
        if (need_dw) V(linear_dot_add)(job, e, dot, 4);
    }
    ROLLED for (; e < end; e++) {
        V(linear_dot_zero)(dot);
        V(linear_entries)(job, e, x, dy, chain, dot, blocks, 1, 1, need_dw);
        if (need_dw) V(linear_dot_add)(job, e, dot, 1);
    }
    UNROLL for (int i = 0; i < blocks * PARTS; i++) {
        float *dx = job->dx + (b + i / PARTS) * x_block + (int64_t)c * LANES + i % PARTS * WIDTH;
        vec_store(dx, job->accumulate ? vec_load(dx) + chain[i] : chain[i]);
    }
}

/* dw alone, any number of blocks. */
static void V(linear_dw)(const mestk_linear_job *job, int32_t c)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    int64_t e = w->channel_start[c], end = w->channel_start[c + 1];
    vec dot[PARTS][4];
    for (; e < end; e += e + 4 <= end ? 4 : 1) {
        int32_t four = e + 4 <= end;
        const float *x = job->x + (int64_t)c * LANES, *dy = job->dy;
        V(linear_dot_zero)(dot);
        ROLLED for (int32_t b = 0; b < job->blocks; b++, x += x_block, dy += y_block) {
            if (four) V(linear_entries)(job, e, x, dy, NULL, dot, 1, 4, 0, 1);
            else V(linear_entries)(job, e, x, dy, NULL, dot, 1, 1, 0, 1);
        }
        if (four) V(linear_dot_add)(job, e, dot, 4);
        else V(linear_dot_add)(job, e, dot, 1);
    }
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
    }
}
