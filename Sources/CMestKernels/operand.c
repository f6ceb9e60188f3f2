/* SPDX-License-Identifier: Apache-2.0 */
/* Operands: strips.  The arithmetic is in operand_vector.h. */
#include "strip_job.h"

static void chunk(void *argument, uint32_t strip, uint32_t worker)
{
    const mestk_strip_job *job = argument;
    (void)worker;
    job->run(job, (int32_t)strip);
}

void mestk_run_strips(const mestk_context *k, const mestk_strip_job *job)
{
    mestk_run_light(k, (uint32_t)mestk_strips(job->s), mestk_values(job->s), chunk, (void *)(uintptr_t)job);
}

/* Runs take the widest vectors. */
static int32_t tile_index(mestk_shape s, const mestk_operand *v) { return mestk_is_run(v) ? 3 : mestk_tile_index(s); }

void mestk_evaluate(const mestk_context *k, mestk_shape s, const mestk_operand *v, void *y)
{
    mestk_strip_job job = {.s = s, .v = v, .y = y};
    job.run = mestk_kernels_of(k->level)->evaluate[s.format][tile_index(s, v)];
    mestk_run_strips(k, &job);
}

void mestk_relu_backward(const mestk_context *k, mestk_shape s, const mestk_operand *y, const void *dy, void *dx,
                         int32_t accumulate)
{
    mestk_strip_job job = {.s = s, .v = y, .x = dy, .y = dx, .accumulate = accumulate};
    job.run = mestk_kernels_of(k->level)->relu_backward[s.format][tile_index(s, y)];
    mestk_run_strips(k, &job);
}

void mestk_finish_gradient(const mestk_context *k, mestk_shape s, const mestk_operand *y,
                           const mestk_gradient *gradient)
{
    if (!gradient->normed[0] && !gradient->normed[1]) {
        if (gradient->masked) mestk_relu_backward(k, s, y, gradient->dx, gradient->dx, 0);
        return;
    }
    mestk_strip_job job = {.s = s, .v = y, .gradient = gradient};
    job.run = mestk_kernels_of(k->level)->finish_gradient[s.format][mestk_tile_index(s)];
    mestk_run_strips(k, &job);
}
