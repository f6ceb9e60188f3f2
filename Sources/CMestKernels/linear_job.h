/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MESTK_LINEAR_JOB_H
#define MESTK_LINEAR_JOB_H
#include "internal.h"

struct mestk_linear_job {
    int32_t blocks, lanes;
    const mestk_weights *w;
    const float *bias, *x, *dy;
    float *y, *dx, *dw, *db;
    int32_t accumulate;
    void (*run)(const mestk_linear_job *job, int32_t first, int32_t end);
    int32_t count; /* rows (forward) or channels (backward) */
    int32_t chunk; /* of them in a task */
};

void mestk_linear_forward_reference(const mestk_linear_job *job, int32_t first, int32_t end);
void mestk_linear_backward_reference(const mestk_linear_job *job, int32_t first, int32_t end);
#endif
