/* SPDX-License-Identifier: Apache-2.0 */
/* How large what meets a weight is: a bound of its gradient before there is one. */
#ifndef MESTK_MAGNITUDES_H
#define MESTK_MAGNITUDES_H
#include "conv.h"

/* sums[channel * kernel_h * kernel_w + tap] = sum over the first `count` samples and all outputs p of
 * |v[channel, p * stride - pad + tap]|: of every column of the convolution's matrix.  In double, from +0: over
 * the lanes of a pixel in order, these added over blocks, rows and columns in order.  What is no convolution
 * has a kernel of one pixel. */
void mestk_patch_magnitudes(const mestk_context *k, const mestk_conv *g, const mestk_operand *v, int32_t count,
                            double *sums);
#endif
