/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel reads that is not stored as it is: batch norm, residual addition and ReLU are computed by
 * whoever reads them, while he reads, and cost no pass over memory of their own.
 *
 *     v = a[c] x + b[c]  (one fma; a NULL: v = x)
 *     v = c[c] r + v     (one fma; c NULL: v = v + r; r NULL: nothing)
 *     v = v <= 0 ? +0 : v when relu (NaN passes, so that a diverged network is seen at the loss)
 *
 * v is a float: it is rounded to the format of a tensor only by whoever stores it.  Batch norm backward is
 * an operand too: x = dy, r = what was normalised (norm.h).
 */
#ifndef MESTK_OPERAND_H
#define MESTK_OPERAND_H
#include "layout.h"
#include "parallel.h"

typedef struct mestk_operand {
    const void *x;
    const float *a, *b; /* per channel */
    const void *r;
    const float *c;
    int32_t relu;
} mestk_operand;

/* y = v, stored.  y may be x or r. */
void mestk_evaluate(const mestk_context *k, mestk_shape s, const mestk_operand *v, void *y);

/* dx (+)= y > 0 ? dy : +0: ReLU backward where dx is a tensor of its own.  y: its output or its input. */
void mestk_relu_backward(const mestk_context *k, mestk_shape s, const mestk_operand *y, const void *dy, void *dx,
                         int32_t accumulate);

/* What to do with the gradient of a tensor once it is complete. */
typedef struct mestk_gradient {
    void *dx;           /* or NULL: nobody needs it */
    int32_t accumulate; /* add to what lies there */
    int32_t masked;     /* the tensor is a ReLU's output: where it is not > 0 the gradient becomes +0 */
    /* Batch norms whose output's gradient it then is: sums of g and of g * normed, g as stored, over each
     * strip (mestk_strips) and channel: [strip][channel][2].  In float, 16 chains over the values of valid
     * pixels, tile by tile, in the order in which they lie in a tile: value n of it in chain n mod 16, whatever
     * the lanes are.  Then the lane tree; mestk_norm_* add the strips in order, in double.  The first is
     * used before the second. */
    const void *normed[2];
    double *sums[2];
} mestk_gradient;

/* Masks dx by the tensor y and sums; `accumulate` is not looked at.  Padding of dx is +0. */
void mestk_finish_gradient(const mestk_context *k, mestk_shape s, const mestk_operand *y,
                           const mestk_gradient *gradient);
#endif
