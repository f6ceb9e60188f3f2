/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution, what all levels share: scratch, tasks and groups. */
#include "depthwise_job.h"

enum { L1_FLOATS = 6 << 10 }; /* of the work of one worker, if it can be */

/* Few lanes: the work is of channels that stay in L1; `floats` of each. */
static void take_channels(mestk_depthwise_job *job, int64_t floats)
{
    int64_t n = L1_FLOATS / floats;
    job->together = (int32_t)(n < 1 ? 1 : mestk_min64(n, job->g->in.channels));
    job->slab_floats = mestk_round16(job->together * job->slab.channel);
    job->inner_floats = mestk_round16(job->together * job->inner.channel);
}

static void plan_few_forward(mestk_depthwise_job *job)
{
    const mestk_conv *g = job->g;
    job->slab = mestk_forward_slab(g);
    job->rows = mestk_computed_rows(mestk_tile_h(g->out));
    job->row_floats = mestk_forward_row_floats(g);
    take_channels(job, job->slab.channel + job->rows * job->row_floats);
    job->work_floats = job->slab_floats + mestk_round16((int64_t)job->together * job->rows * job->row_floats);
}

static void plan_few_backward(mestk_depthwise_job *job)
{
    const mestk_conv *g = job->g;
    job->slab = mestk_backward_slab(g);
    job->inner = mestk_inner_slab(g);
    job->rows = mestk_computed_rows(mestk_tile_h(g->in));
    job->row_floats = mestk_backward_row_floats(g);
    take_channels(job, job->slab.channel + 2 * job->inner.channel);
    job->work_floats = job->slab_floats + 2 * job->inner_floats + (int64_t)g->kernel_h * g->kernel_w * 16;
}

static int64_t slab_floats(const mestk_depthwise_job *job)
{
    return mestk_round16((int64_t)job->slab_rows * job->slab_columns * job->g->in.lanes);
}

static void plan_forward(mestk_depthwise_job *job)
{
    const mestk_conv *g = job->g;
    int32_t width = mestk_tiles_x(g->out) * 4;
    job->tasks = mestk_strips(g->out);
    if (mestk_few_lanes(g->in)) {
        plan_few_forward(job);
        return;
    }
    job->slab_rows = (mestk_tile_h(g->out) - 1) * g->stride_h + g->kernel_h;
    job->slab_columns = (width - 1) * g->stride_w + g->kernel_w;
    job->work_floats = slab_floats(job);
}

static void plan_backward(mestk_depthwise_job *job, int32_t gradient_chunks)
{
    const mestk_conv *g = job->g;
    int32_t th = mestk_tile_h(g->in), width = mestk_tiles_x(g->in) * mestk_tile_w(g->in), L = g->in.lanes;
    int32_t taps = g->kernel_h * g->kernel_w;
    job->tasks = mestk_strips(g->in);
    job->groups = mestk_max(1, mestk_min(gradient_chunks, job->tasks));
    job->partial_stride = mestk_round16((int64_t)g->in.channels * taps);
    if (mestk_few_lanes(g->in)) {
        plan_few_backward(job);
        return;
    }
    job->slab_rows = mestk_slab_rows(th, g->stride_h, g->kernel_h);
    job->slab_columns = mestk_slab_columns(mestk_class_fours(g->in, g->stride_w), g->stride_w, g->kernel_w);
    job->work_floats = slab_floats(job) + 2 * mestk_round16((int64_t)th * width * L) + mestk_round16((int64_t)taps * L);
}

int64_t mestk_depthwise_forward_scratch(const mestk_conv *g, int32_t threads)
{
    mestk_depthwise_job job = {.g = g};
    plan_forward(&job);
    return threads * job.work_floats;
}

int64_t mestk_depthwise_backward_scratch(const mestk_conv *g, int32_t threads, int32_t gradient_chunks)
{
    mestk_depthwise_job job = {.g = g};
    plan_backward(&job, gradient_chunks);
    return threads * job.work_floats + job.groups * job.partial_stride;
}

typedef struct depthwise_run {
    const mestk_depthwise_job *job;
    void (*forward)(const mestk_depthwise_job *, int32_t, int32_t);
    void (*backward)(const mestk_depthwise_job *, int32_t, int32_t, float *);
} depthwise_run;

static void forward_strip(void *argument, uint32_t strip, uint32_t worker)
{
    const depthwise_run *run = argument;
    run->forward(run->job, (int32_t)strip, (int32_t)worker);
}

void mestk_depthwise_forward(const mestk_context *k, const mestk_conv *g, const float *w, const float *start,
                             const mestk_operand *x, void *y, int32_t count, double *sums, float *scratch)
{
    mestk_depthwise_job job = {.g = g, .w = w, .start = start, .x = x, .y = y, .count = count, .sums = sums,
                               .work = scratch};
    const mestk_kernels *kernels = mestk_kernels_of(k->level);
    depthwise_run run = {&job, kernels->depthwise_forward[g->in.format][mestk_lane_index(g->in.lanes)], 0};
    plan_forward(&job);
    mestk_run(k, (uint32_t)job.tasks, forward_strip, &run);
}

static void backward_group(void *argument, uint32_t group, uint32_t worker)
{
    const depthwise_run *run = argument;
    const mestk_depthwise_job *job = run->job;
    float *partial = job->partials + group * job->partial_stride;
    int32_t strip = (int32_t)((int64_t)job->tasks * group / job->groups);
    int32_t end = (int32_t)((int64_t)job->tasks * (group + 1) / job->groups);
    memset(partial, 0, (size_t)job->partial_stride * sizeof(float));
    for (; strip < end; strip++) run->backward(job, strip, (int32_t)worker, partial);
}

void mestk_depthwise_backward(const mestk_context *k, const mestk_conv *g, const float *w, const mestk_operand *x,
                              const mestk_operand *dy, int32_t count, const mestk_gradient *dx, float *dw,
                              float *db, int32_t gradient_chunks, float *scratch)
{
    mestk_depthwise_job job = {.g = g, .w = w, .x = x, .dy = dy, .count = count, .gradient = dx};
    const mestk_kernels *kernels = mestk_kernels_of(k->level);
    depthwise_run run = {&job, 0, kernels->depthwise_backward[g->in.format][mestk_lane_index(g->in.lanes)]};
    plan_backward(&job, gradient_chunks);
    job.partials = scratch;
    job.work = scratch + job.groups * job.partial_stride;
    mestk_run(k, (uint32_t)job.groups, backward_group, &run);
    for (int64_t i = 0; i < (int64_t)g->in.channels * g->kernel_h * g->kernel_w; i++) {
        float sum = job.partials[i];
        for (int32_t n = 1; n < job.groups; n++) sum += job.partials[n * job.partial_stride + i];
        dw[i] += sum;
    }
    if (db) mestk_bias_gradient(k, g->out, dy->x, db);
}
