/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully connected layer on 1 x 1 pixels: x [block][channel][lane], y [block][row][lane], taps == 1.
 *
 *   forward    y[r]    = bias[r] + sum over connections of row r in order: w * x[c]      (one fma chain)
 *   backward   dx[c] (+)= sum over connections of channel c in key order: w * dy[r]      (one fma chain
 *                        from +0; an existing dx is added last).  In a block: its rows in order.
 *              dw[j] (+)= tree over lanes of (sum over blocks in order: dy[r] * x[c])    (fma chain per lane)
 *              db[r] (+)= tree over lanes of (sum over blocks in order: dy[r])
 *
 * With one lane (blocks is 1 then) the vectors are filled otherwise, and two sums have several chains:
 *   all but BLOCK  y[r]   16 chains from +0, connection i of the row in chain i mod 16, the last 16 filled
 *                         up with terms 0 * 0; reduced like a line of 16 lanes onto bias[r].
 *   BLOCK          dx[c]  a chain from +0 for each row of a block, where a row that the last block lacks
 *                         gives 0 * 0; reduced like a line of that many lanes onto +0.
 *
 * PATTERN has no linear layers.  Chunks are ranges of rows or channels; no chunk shares an output, so no scratch is needed.
 */
#ifndef MESTK_LINEAR_H
#define MESTK_LINEAR_H
#include "parallel.h"
#include "weights.h"

void mestk_linear_forward(const mestk_context *k, int32_t blocks, int32_t lanes, const mestk_weights *w,
                          const float *bias, const float *x, float *y);

/* accumulate: dx is added to; add: dw and db are, else stored. */
void mestk_linear_backward(const mestk_context *k, int32_t blocks, int32_t lanes, const mestk_weights *w,
                           const float *x, const float *dy, float *dx, int32_t accumulate, float *dw,
                           float *db, int32_t add);
#endif
