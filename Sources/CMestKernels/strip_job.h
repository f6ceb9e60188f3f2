/* SPDX-License-Identifier: Apache-2.0 */
/* One call of a kernel whose tasks are strips (mestk_strips) and which reads operands. */
#ifndef MESTK_STRIP_JOB_H
#define MESTK_STRIP_JOB_H
#include "internal.h"

struct mestk_strip_job {
    mestk_shape s;
    int32_t count; /* samples */
    const mestk_operand *v;
    const mestk_gradient *gradient;
    const void *x;
    const float *pivot;
    double *sums;
    void *y;
    int32_t accumulate;
    void (*run)(const mestk_strip_job *job, int32_t strip);
};

/* The same for every value: no constants of a channel. */
MESTK_INLINE int32_t mestk_is_run(const mestk_operand *v) { return !v->a && !(v->r && v->c); }

void mestk_run_strips(const mestk_context *k, const mestk_strip_job *job);
#endif
