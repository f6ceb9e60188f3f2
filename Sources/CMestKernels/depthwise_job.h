/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of a depthwise convolution as its tasks see it.  Forward: a task is a strip of y; backward: of x
 * (mestk_strips).  Within a task channels are worked on one after the other.
 *
 * The vector path of 8 and 16 lanes copies the rows of one channel that a strip meets into the worker's slab
 * [row][column] of lines, +0 around the picture, so that the inner loops have no conditions.  What they meet:
 *
 *   forward    slab of x.   Output (y, x), tap (ky, kx): row y*stride + ky, column x*stride + kx, from the
 *              strip's first row on.
 *   backward   slab of dy, from the first row (column) on that the strip's first row (column) meets (slab.h).
 */
#ifndef MESTK_DEPTHWISE_JOB_H
#define MESTK_DEPTHWISE_JOB_H
#include "slab.h"

struct mestk_depthwise_job {
    const mestk_conv *g;
    const float *w, *start;
    const mestk_operand *x, *dy;
    const mestk_gradient *gradient;
    void *y;
    double *sums;
    int32_t count;

    float *work;         /* of each worker: slab; backward also lines of x and dx of the strip, of dw */
    int64_t work_floats;
    int32_t slab_rows, slab_columns; /* 8 and 16 lanes */
    /* One and four lanes: slabs (slab.h) of `together` channels, so many floats; forward the slab of x and rows of
     * y, backward the slab of dy, rows of x, of dx, 16 chains of each tap.  rows, row_floats: as in conv_job.h. */
    conv_slab slab, inner;
    int64_t slab_floats, inner_floats;
    int32_t together, rows, row_floats;

    int32_t tasks, groups;
    float *partials; /* [group][channel][tap] */
    int64_t partial_stride;
};

MESTK_INLINE int32_t mestk_depthwise_is_three(const mestk_conv *g)
{
    return g->kernel_h == 3 && g->kernel_w == 3 && g->stride_h == 1 && g->stride_w == 1;
}

void mestk_depthwise_forward_reference(const mestk_depthwise_job *job, int32_t strip, int32_t worker);
void mestk_depthwise_backward_reference(const mestk_depthwise_job *job, int32_t strip, int32_t worker,
                                        float *partial);
#endif
