/* SPDX-License-Identifier: Apache-2.0 */
/* Fully connected layer: chunks, and the reference.  Order of roundings: linear.h, and for a line's sum
 * mestk_add_line from +0, which is then added to dw or db. */
#include "linear_job.h"
#include "scalar_inline.h"

enum { CHUNK = 16 }; /* rows or channels */

/* ---- forward ---- */

void mestk_linear_forward_reference(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int32_t L = job->lanes;
    for (int32_t r = first; r < end; r++) {
        int64_t begin = w->row_start ? w->row_start[r] : (int64_t)r * w->channels;
        int64_t count = w->row_start ? w->row_start[r + 1] - begin : w->channels;
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *x = job->x + (int64_t)b * w->channels * L;
            float *y = job->y + ((int64_t)b * w->rows + r) * L;
            for (int32_t l = 0; l < L; l++) {
                float sum = job->bias ? job->bias[r] : 0.0f;
                for (int64_t i = 0; i < count; i++) {
                    int64_t c = w->row_start ? w->column[begin + i] : i;
                    sum = mestk_fma_inline(w->value[begin + i], x[c * L + l], sum);
                }
                y[l] = sum;
            }
        }
    }
}

static void chunk(void *argument, uint32_t index, uint32_t worker)
{
    const mestk_linear_job *job = argument;
    int32_t first = (int32_t)index * CHUNK;
    (void)worker;
    job->run(job, first, mestk_min(first + CHUNK, job->count));
}

void mestk_linear_forward(const mestk_context *k, int32_t blocks, int32_t lanes, const mestk_weights *w,
                          const float *bias, const float *x, float *y)
{
    mestk_linear_job job = {.blocks = blocks, .lanes = lanes, .w = w, .bias = bias, .x = x, .y = y,
                            .count = w->rows};
    job.run = mestk_kernels_of(k->level)->linear_forward[mestk_lane_index(lanes)];
    mestk_run(k, (uint32_t)mestk_ceil_div(w->rows, CHUNK), chunk, &job);
}

/* ---- backward ---- */

void mestk_linear_backward_reference(const mestk_linear_job *job, int32_t first, int32_t end)
{
    const mestk_weights *w = job->w;
    int32_t L = job->lanes;
    for (int32_t c = first; c < end; c++) {
        int64_t begin = w->row_start ? w->channel_start[c] : 0;
        int64_t count = w->row_start ? w->channel_start[c + 1] - begin : w->rows;
        for (int64_t i = 0; i < count; i++) {
            int64_t r = w->row_start ? w->key[begin + i] : i;
            int64_t j = w->row_start ? w->position[begin + i] : r * w->channels + c;
            float line[16] = {0}, sum = 0.0f;
            for (int32_t b = 0; b < job->blocks; b++) {
                const float *x = job->x + ((int64_t)b * w->channels + c) * L;
                const float *dy = job->dy + ((int64_t)b * w->rows + r) * L;
                for (int32_t l = 0; l < L; l++) line[l] = mestk_fma_inline(dy[l], x[l], line[l]);
            }
            mestk_add_line(&sum, line, L);
            job->dw[j] += sum;
        }
        if (!job->dx) continue;
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *dy = job->dy + (int64_t)b * w->rows * L;
            float *dx = job->dx + ((int64_t)b * w->channels + c) * L;
            for (int32_t l = 0; l < L; l++) {
                float sum = 0.0f;
                for (int64_t i = 0; i < count; i++) {
                    int64_t r = w->row_start ? w->key[begin + i] : i;
                    int64_t j = w->row_start ? w->position[begin + i] : r * w->channels + c;
                    sum = mestk_fma_inline(w->value[j], dy[r * L + l], sum);
                }
                dx[l] = job->accumulate ? dx[l] + sum : sum;
            }
        }
    }
}

static void bias_gradient(const mestk_linear_job *job, int32_t first, int32_t end)
{
    int32_t L = job->lanes, rows = job->w->rows;
    for (int32_t r = first; r < end; r++) {
        float line[16] = {0}, sum = 0.0f;
        for (int32_t b = 0; b < job->blocks; b++) {
            const float *dy = job->dy + ((int64_t)b * rows + r) * L;
            for (int32_t l = 0; l < L; l++) line[l] += dy[l];
        }
        mestk_add_line(&sum, line, L);
        job->db[r] += sum;
    }
}

void mestk_linear_backward(const mestk_context *k, int32_t blocks, int32_t lanes, const mestk_weights *w,
                           const float *x, const float *dy, float *dx, int32_t accumulate, float *dw,
                           float *db)
{
    mestk_linear_job job = {.blocks = blocks, .lanes = lanes, .w = w, .x = x, .dy = dy, .dx = dx, .dw = dw,
                            .db = db, .accumulate = accumulate, .count = w->channels};
    job.run = mestk_kernels_of(k->level)->linear_backward[mestk_lane_index(lanes)];
    mestk_run(k, (uint32_t)mestk_ceil_div(w->channels, CHUNK), chunk, &job);
    if (!db) return;
    job.run = bias_gradient;
    job.count = w->rows;
    mestk_run(k, (uint32_t)mestk_ceil_div(w->rows, CHUNK), chunk, &job);
}
