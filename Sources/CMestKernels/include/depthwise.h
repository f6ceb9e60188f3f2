/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution (cross-correlation): every channel on its own, with weights [channels][taps],
 * tap = ky * kernel_w + kx.  All of them exist; no index is read.
 *
 *   forward    y[c,p]   = start[c] + sum over taps in order: w[c,t] * x[c, p*stride - pad + t]
 *   backward   dx[c,q] (+)= sum over taps in order: w[c,t] * dy[c, (q + pad - t) / stride]
 *              dw[c,t]  += sum over samples and pixels of dy[c,p] * x[c, p*stride - pad + t]
 *              db[c]    += sum over samples and pixels of dy[c,p]
 *
 * Operands, epilogues, chunks and partial sums: as conv.h has them.  Order of roundings:
 * depthwise_reference.c.
 */
#ifndef MESTK_DEPTHWISE_H
#define MESTK_DEPTHWISE_H
#include "conv.h"

/* Floats of scratch that forward / backward need; a function of shape, threads and chunks alone. */
int64_t mestk_depthwise_forward_scratch(const mestk_conv *g, int32_t threads);
int64_t mestk_depthwise_backward_scratch(const mestk_conv *g, int32_t threads, int32_t gradient_chunks);

/* g: in and out have the same channels.  start, sums: as in mestk_conv_forward. */
void mestk_depthwise_forward(const mestk_context *k, const mestk_conv *g, const float *w, const float *start,
                             const mestk_operand *x, void *y, int32_t count, double *sums, float *scratch);

/* dx, db: as in mestk_conv_backward. */
void mestk_depthwise_backward(const mestk_context *k, const mestk_conv *g, const float *w, const mestk_operand *x,
                              const mestk_operand *dy, int32_t count, const mestk_gradient *dx, float *dw,
                              float *db, int32_t gradient_chunks, float *scratch);
#endif
