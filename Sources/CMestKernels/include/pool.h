/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pooling windows.  Maximum: padding never wins; on equal values the first in row order takes the
 * gradient (found again from x in backward: nothing is stored).  Average: divides by kernel_h *
 * kernel_w, padding counts as zeros.  Global average: to 1 x 1.  Backward writes or adds to dx.
 */
#ifndef MESTK_POOL_H
#define MESTK_POOL_H
#include "conv.h"

void mestk_max_pool_forward(const mestk_context *k, const mestk_conv *g, const void *x, void *y);
void mestk_max_pool_backward(const mestk_context *k, const mestk_conv *g, const void *x,
                             const void *dy, void *dx, int32_t accumulate);
void mestk_avg_pool_forward(const mestk_context *k, const mestk_conv *g, const void *x, void *y);
void mestk_avg_pool_backward(const mestk_context *k, const mestk_conv *g, const void *dy, void *dx,
                             int32_t accumulate);
/* s: shape of x; y: [block][channel][lane], floats.  Forward sums tile by tile: a chain of plain adds from +0 over
 * its pixels, and these from +0 over the tiles.  Fewer than 16 lanes are 16 chains, value n of a tile in chain n mod 16;
 * those of a lane are reduced by the lane tree at the end, the two of eight lanes added. */
void mestk_global_pool_forward(const mestk_context *k, mestk_shape s, const void *x, float *y);
void mestk_global_pool_backward(const mestk_context *k, mestk_shape s, const float *dy, void *dx,
                                int32_t accumulate);
#endif
