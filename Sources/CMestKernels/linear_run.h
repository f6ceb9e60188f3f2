/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer whose units are runs of neighbouring inputs: part of linear_vector.h.  A run's lines of x lie
 * side by side, and its channels have the same entries.  The sums are those of single weights, in their order.
 */

/* ---- forward: a column is looked up once a run ---- */

/* `n` terms of a row. */
VEC_INLINE void V(run_terms)(const float *value, const float *line, int64_t x_block, int32_t n, vec *sum, const int blocks)
{
    ROLLED for (int32_t i = 0; i < n; i++, line += LANES)
        UNROLL for (int h = 0; h < blocks * PARTS; h++)
            sum[h] = vec_fma((vec)(value[i]), vec_load(line + h / PARTS * x_block + h % PARTS * WIDTH), sum[h]);
}

VEC_INLINE void V(run_rows)(const mestk_linear_job *job, int32_t r, int32_t b, const int group, const int rows,
                            const int blocks)
{
    const mestk_weights *w = job->w;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    int32_t count[4], shortest = 0;
    const float *x = job->x + b * x_block, *value[4];
    float *y = job->y + b * y_block + (int64_t)r * LANES;
    const uint16_t *column[4];
    vec sum[4][4 * PARTS];
    UNROLL for (int k = 0; k < rows; k++) {
        int64_t begin = w->row_start[r + k];
        count[k] = (int32_t)(w->row_start[r + k + 1] - begin);
        column[k] = w->column + begin;
        value[k] = w->value + begin * group;
        shortest = k == 0 ? count[k] - 1 : mestk_min(shortest, count[k] - 1); /* the last one may be short */
        UNROLL for (int h = 0; h < blocks * PARTS; h++) sum[k][h] = (vec)(job->bias ? job->bias[r + k] : 0.0f);
    }
    ROLLED for (int32_t j = 0; j < shortest; j++) {
        const float *line[4];
        UNROLL for (int k = 0; k < rows; k++) line[k] = x + (int64_t)column[k][j] * (group * LANES);
        UNROLL for (int i = 0; i < group; i++)
            UNROLL for (int k = 0; k < rows; k++)
                UNROLL for (int h = 0; h < blocks * PARTS; h++)
                    sum[k][h] = vec_fma((vec)(value[k][j * group + i]),
                                        vec_load(line[k] + h / PARTS * x_block + i * LANES + h % PARTS * WIDTH), sum[k][h]);
    }
    UNROLL for (int k = 0; k < rows; k++) {
        ROLLED for (int32_t j = mestk_max(shortest, 0); j < count[k]; j++) {
            int32_t c = column[k][j] * group;
            int32_t n = mestk_min(group, w->channels - c);
            V(run_terms)(value[k] + j * group, x + (int64_t)c * LANES, x_block, n, sum[k], blocks);
        }
        UNROLL for (int h = 0; h < blocks * PARTS; h++)
            vec_store(y + h / PARTS * y_block + k * LANES + h % PARTS * WIDTH, sum[k][h]);
    }
}

VEC_INLINE void V(linear_run_rows)(const mestk_linear_job *job, int32_t first, int32_t end, const int group)
{
    int32_t b = 0, r;
    for (; b + 4 <= job->blocks; b += 4)
        for (r = first; r < end; r++) V(run_rows)(job, r, b, group, 1, 4);
    for (; b < job->blocks; b++) {
        for (r = first; r + 4 <= end; r += 4) V(run_rows)(job, r, b, group, 4, 1);
        for (; r < end; r++) V(run_rows)(job, r, b, group, 1, 1);
    }
}

static void V(linear_run_forward)(const mestk_linear_job *job, int32_t first, int32_t end)
{
    if (job->w->group == 4) V(linear_run_rows)(job, first, end, 4);
    else if (job->w->group == 8) V(linear_run_rows)(job, first, end, 8);
    else V(linear_run_rows)(job, first, end, 16);
}

/* ---- backward, dx and dw ---- */

/* `some` channels from c on, which have the same entries: every line of dy is loaded once for all of them, and
 * their values, and gradients, lie side by side. */
VEC_INLINE void V(linear_run_channels)(const mestk_linear_job *job, int32_t c, const int blocks, const int some)
{
    const mestk_weights *w = job->w;
    int32_t group = w->group, run = c / group, in_run = c % group;
    int64_t x_block = (int64_t)w->channels * LANES, y_block = (int64_t)w->rows * LANES;
    const float *x = job->x + (int64_t)c * LANES, *values = w->value + in_run;
    vec chain[DOTS][MOST_BLOCKS * PARTS];
    UNROLL for (int k = 0; k < some; k++)
        UNROLL for (int i = 0; i < blocks * PARTS; i++) chain[k][i] = vec_zero();
    ROLLED for (uint32_t e = w->channel_start[run], end = w->channel_start[run + 1]; e < end; e++) {
        int64_t place = (int64_t)w->position[e] * group;
        const float *line = job->dy + (int64_t)w->key[e] * LANES, *value = values + place;
        float sum[DOTS] = {0}, *dw = job->dw + place + in_run;
        vec dot[PARTS][DOTS];
        UNROLL for (int h = 0; h < PARTS; h++)
            UNROLL for (int k = 0; k < DOTS; k++) dot[h][k] = vec_zero();
        UNROLL for (int i = 0; i < blocks * PARTS; i++) {
            vec d = vec_load(line + i / PARTS * y_block + i % PARTS * WIDTH);
            UNROLL for (int k = 0; k < some; k++) {
                chain[k][i] = vec_fma((vec)(value[k]), d, chain[k][i]);
                dot[i % PARTS][k] =
                    vec_fma(d, vec_load(x + i / PARTS * x_block + k * LANES + i % PARTS * WIDTH), dot[i % PARTS][k]);
            }
        }
        V(linear_add_dots)(dot, sum, some);
        UNROLL for (int k = 0; k < some; k++) dw[k] = job->add ? dw[k] + sum[k] : sum[k];
    }
    UNROLL for (int k = 0; k < some; k++) {
        UNROLL for (int i = 0; i < blocks * PARTS; i++) {
            float *dx = job->dx + i / PARTS * x_block + (int64_t)(c + k) * LANES + i % PARTS * WIDTH;
            vec_store(dx, job->accumulate ? vec_load(dx) + chain[k][i] : chain[k][i]);
        }
    }
}

/* Channels first .. end-1; first is a run's. */
VEC_INLINE void V(linear_runs)(const mestk_linear_job *job, int32_t first, int32_t end, const int blocks)
{
    /* What fits the registers beside the dot products. */
    const int wide = DOTS == 8 && blocks == 1 ? 8 : 4;
    int32_t c = first;
    ROLLED for (; wide <= job->w->group && c + wide <= end; c += wide) V(linear_run_channels)(job, c, blocks, wide);
    ROLLED for (; c + 4 <= end; c += 4) V(linear_run_channels)(job, c, blocks, 4);
    ROLLED for (; c < end; c++) V(linear_run_channels)(job, c, blocks, 1);
}
