/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2-D convolution (cross-correlation) in the compute layout.
 *
 *   forward    y[o,p]   = bias[o] + sum over connections (o,i,t) in row order: w * x[i, p*stride - pad + t]
 *   backward   dx[i,q] (+)= sum over connections of channel i in key order: w * dy[o, (q + pad - t) / stride]
 *              dw[j]    += sum over samples and pixels of dy[o,p] * x[i, p*stride - pad + t]
 *              db[o]    += sum over samples and pixels of dy[o,p]
 *
 * Order of rounding (every level the same): y and dx of one line are one chain of fma, from the bias
 * or +0, in the order named; an existing dx is added last.  dw: see conv_reference.c; partial sums per
 * chunk of strips, chunks = min(gradient_chunks, strips), lanes reduced by one fixed tree, partials
 * added in chunk order.  Out-of-picture taps contribute nothing.
 */
#ifndef MESTK_CONV_H
#define MESTK_CONV_H
#include "layout.h"
#include "parallel.h"
#include "weights.h"

typedef struct mestk_conv {
    mestk_shape in, out; /* equal blocks and lanes */
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
} mestk_conv;

/* Floats of scratch that forward / backward need; a function of shape, threads and chunks alone.
 * capacity: most connections the weights may have. */
int64_t mestk_conv_forward_scratch(const mestk_conv *g, int32_t threads);
int64_t mestk_conv_backward_scratch(const mestk_conv *g, int32_t threads, int32_t gradient_chunks,
                                    int64_t capacity);

/* bias: rows floats or NULL. */
void mestk_conv_forward(const mestk_context *k, const mestk_conv *g, const mestk_weights *w,
                        const float *bias, const float *x, float *y, float *scratch);

/* dx: or NULL when nobody needs it; accumulate: add to dx instead of writing it.  dw: in forward
 * order; db: or NULL. */
void mestk_conv_backward(const mestk_context *k, const mestk_conv *g, const mestk_weights *w,
                         const float *x, const float *dy, float *dx, int32_t accumulate, float *dw,
                         float *db, int32_t gradient_chunks, float *scratch);
#endif
