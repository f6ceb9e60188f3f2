/* SPDX-License-Identifier: Apache-2.0 */
/* Fully connected layer: chunks, and the reference.  Order of roundings: linear.h, and for a line's sum
 * mestk_add_line from +0, which is then added to dw or db. */
#include "linear_job.h"
#include "scalar_inline.h"

/* A task: rows or channels in whole blocks, and multiply-adds for some microseconds. */
enum { GRAIN = 16, MIN_TERMS = 32768 };

/* ---- forward ---- */

/* The units of row r: the first one's column and value, those of a dense row being its connections.  A unit is
 * `width` neighbouring channels, of which a last run lacks some. */
typedef struct row_units {
    const uint16_t *column; /* NULL: dense */
    int64_t count, first;   /* values lie from `first` on, `step` from unit to unit */
    int32_t step, width;
} row_units;

static row_units units_of(const mestk_weights *w, int32_t r)
{
    if (!w->row_start) return (row_units){NULL, w->channels, (int64_t)r * w->channels, 1, 1};
    int32_t q = r / mestk_unit_rows(w);
    uint32_t j = w->row_start[q];
    return (row_units){w->column + j, (int64_t)w->row_start[q + 1] - j, (int64_t)j * w->group + r % mestk_unit_rows(w),
                       w->group, mestk_unit_channels(w)};
}

static float row_sum(const mestk_weights *w, int32_t r, const float *x, float bias, int32_t L, int32_t l)
{
    row_units u = units_of(w, r);
    int32_t chains = L == 1 && w->form != MESTK_FORM_BLOCK ? 16 : 1, n = 0;
    float chain[16] = {chains == 1 ? bias : 0.0f}, sum = bias;
    for (int64_t j = 0; j < u.count; j++) {
        int64_t c = u.column ? u.column[j] * u.width : j;
        for (int32_t i = 0; i < u.width && c + i < w->channels; i++, n++) {
            float *to = chain + n % chains;
            *to = mestk_fma_inline(w->value[u.first + j * u.step + i], x[(c + i) * L + l], *to);
        }
    }
    if (chains == 1) return chain[0];
    for (; n % 16; n++) chain[n % 16] = mestk_fma_inline(0.0f, 0.0f, chain[n % 16]);
    mestk_add_line(&sum, chain, 16);
    return sum;
}

void mestk_linear_forward_reference(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int32_t L = job->lanes;
    for (int32_t r = first; r < end; r++)
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *x = job->x + (int64_t)b * w->channels * L;
            float *y = job->y + ((int64_t)b * w->rows + r) * L;
            for (int32_t l = 0; l < L; l++) y[l] = row_sum(w, r, x, job->bias ? job->bias[r] : 0.0f, L, l);
        }
}

static void chunk(void *argument, uint32_t index, uint32_t worker)
{
    const mestk_linear_job *job = argument;
    int32_t first = (int32_t)index * job->chunk;
    (void)worker;
    job->run(job, first, mestk_min(first + job->chunk, job->count));
}

/* Runs over `count` rows or channels, so many at a time that it is worth a task: all have `terms`. */
static void run(const mestk_context *k, mestk_linear_job *job, int64_t terms, int32_t count, int32_t least,
                void (*function)(const mestk_linear_job *job, int32_t first, int32_t end))
{
    int64_t some = terms > 0 ? mestk_min64(MIN_TERMS * (int64_t)count / terms + 1, count) : count;
    job->run = function;
    job->count = count;
    job->chunk = mestk_ceil_div(mestk_max((int32_t)some, least), GRAIN) * GRAIN;
    mestk_run(k, (uint32_t)mestk_ceil_div(count, job->chunk), chunk, job);
}

static int64_t terms(const mestk_linear_job *job) { return mestk_weight_count(job->w) * job->blocks * job->lanes; }

void mestk_linear_forward(const mestk_context *k, int32_t blocks, int32_t lanes, const mestk_weights *w,
                          const float *bias, const float *x, float *y)
{
    mestk_linear_job job = {.blocks = blocks, .lanes = lanes, .w = w, .bias = bias, .x = x, .y = y};
    run(k, &job, terms(&job), w->rows, 1, mestk_kernels_of(k->level)->linear_forward[mestk_lane_index(lanes)]);
}

/* ---- backward ---- */

/* The n-th connection of a channel: its row and where its value lies.  0: there is none. */
static int32_t nth(const mestk_weights *w, int32_t c, int64_t n, int64_t *r, int64_t *j)
{
    if (!w->row_start) {
        *r = n, *j = n * w->channels + c;
        return n < w->rows;
    }
    int32_t rows = mestk_unit_rows(w), width = mestk_unit_channels(w);
    int64_t e = w->channel_start[c / width] + n / rows;
    if (e >= w->channel_start[c / width + 1]) return 0;
    *r = (int64_t)w->key[e] * rows + n % rows, *j = (int64_t)w->position[e] * w->group + n % rows + c % width;
    return 1;
}

void mestk_linear_backward_x_reference(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int32_t L = job->lanes, chains = L == 1 ? mestk_unit_rows(w) : 1;
    int64_t r, j;
    for (int32_t c = first; c < end; c++) {
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *dy = job->dy + (int64_t)b * w->rows * L;
            float *dx = job->dx + ((int64_t)b * w->channels + c) * L;
            for (int32_t l = 0; l < L; l++) {
                float chain[16] = {0}, sum = 0.0f;
                for (int64_t n = 0; nth(w, c, n, &r, &j); n++) {
                    float *to = chain + n % chains;
                    if (r < w->rows) *to = mestk_fma_inline(w->value[j], dy[r * L + l], *to);
                    else if (chains > 1) *to = mestk_fma_inline(0.0f, 0.0f, *to);
                }
                if (chains > 1) mestk_add_line(&sum, chain, chains);
                else sum = chain[0];
                dx[l] = job->accumulate ? dx[l] + sum : sum;
            }
        }
    }
}

void mestk_linear_backward_w_reference(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int32_t L = job->lanes;
    for (int32_t r = first; r < end; r++) {
        row_units u = units_of(w, r);
        for (int32_t n = 0; n < (int32_t)u.count * u.width; n++) {
            int32_t c = u.column ? u.column[n / u.width] * u.width + n % u.width : n;
            if (c >= w->channels) break;
            float line[16] = {0}, sum = 0.0f;
            for (int32_t b = 0; b < job->blocks; b++) {
                const float *x = job->x + ((int64_t)b * w->channels + c) * L;
                const float *dy = job->dy + ((int64_t)b * w->rows + r) * L;
                for (int32_t l = 0; l < L; l++) line[l] = mestk_fma_inline(dy[l], x[l], line[l]);
            }
            mestk_add_line(&sum, line, L);
            float *dw = job->dw + u.first + n / u.width * u.step + n % u.width;
            *dw = job->add ? *dw + sum : sum;
        }
    }
}

void mestk_linear_bias_reference(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t L = job->lanes, rows = job->w->rows;
    for (int32_t r = first; r < end; r++) {
        float line[16] = {0}, sum = 0.0f;
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *dy = job->dy + ((int64_t)b * rows + r) * L;
            for (int32_t l = 0; l < L; l++) line[l] += dy[l];
        }
        mestk_add_line(&sum, line, L);
        job->db[r] = job->add ? job->db[r] + sum : sum;
    }
}

static void rows_gradient(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t at = mestk_lane_index(job->lanes);
    job->kernels->linear_backward_w[at](job, first, end);
    if (job->db) job->kernels->linear_bias[at](job, first, end);
}

/* Is there a kernel for dx and dw in one go? */
static int32_t goes_at_once(const mestk_linear_job *job)
{
    if (!job->dx || !job->kernels->linear_backward_both[mestk_lane_index(job->lanes)]) return 0;
    if (job->lanes == 1) return job->w->form != MESTK_FORM_BLOCK && !job->accumulate;
    return job->w->row_start && job->blocks <= job->kernels->linear_most_blocks && !(job->blocks & (job->blocks - 1));
}

void mestk_linear_backward(const mestk_context *k, int32_t blocks, int32_t lanes, const mestk_weights *w,
                           const float *x, const float *dy, float *dx, int32_t accumulate, float *dw,
                           float *db, int32_t add)
{
    const mestk_kernels *kernels = mestk_kernels_of(k->level);
    mestk_linear_job job = {.blocks = blocks, .lanes = lanes, .w = w, .x = x, .dy = dy, .dx = dx, .dw = dw,
                            .db = db, .accumulate = accumulate, .add = add, .kernels = kernels};
    int32_t at = mestk_lane_index(lanes);
    if (goes_at_once(&job)) {
        /* One sample goes through the rows in order: few chunks, for each has to find its place in every row. */
        int32_t least = lanes == 1 ? mestk_ceil_div(w->channels, k->threads) : 1;
        run(k, &job, terms(&job), w->channels, least, kernels->linear_backward_both[at]);
        if (db) run(k, &job, (int64_t)w->rows * blocks * lanes, w->rows, 1, kernels->linear_bias[at]);
        return;
    }
    run(k, &job, terms(&job), w->rows, 1, rows_gradient);
    if (dx) run(k, &job, terms(&job), w->channels, 1, kernels->linear_backward_x[at]);
}
