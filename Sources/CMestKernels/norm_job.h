/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MESTK_NORM_JOB_H
#define MESTK_NORM_JOB_H
#include "internal.h"

struct mestk_norm_job {
    mestk_shape s;
    int32_t count, accumulate;
    float eps;
    const float *x, *pivot, *dy, *scale, *shift;
    const float *mean, *var; /* of apply and backward */
    float *out_mean, *out_var, *y, *dx, *dscale, *dshift;
    void (*run)(const mestk_norm_job *job, int32_t index);
};
#endif
