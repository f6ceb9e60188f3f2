/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2-D convolution (cross-correlation) in the compute layout.
 *
 *   forward    y[o,p]   = start[o] + sum over connections (o,i,t) in row order: w * x[i, p*stride - pad + t]
 *   backward   dx[i,q] (+)= sum over connections of channel i in key order: w * dy[o, (q + pad - t) / stride]
 *              dw[j]    += sum over samples and pixels of dy[o,p] * x[i, p*stride - pad + t]
 *              db[o]    += sum over samples and pixels of dy[o,p]
 *
 * x is an operand (operand.h): what lies in front of the convolution is computed while it is read, and so
 * is batch norm backward, as the operand dy.  The epilogues gather the sums that a batch norm behind (forward)
 * or before (backward) needs, and pass the gradient through a ReLU.
 *
 * Order of rounding (every level the same): y and dx of one line are one chain of fma, from `start`
 * or +0, in the order named; an existing dx is added last; rounded when stored.  dw: see conv_reference.c;
 * partial sums per chunk of strips, chunks = min(gradient_chunks, strips), lanes reduced by one fixed tree,
 * partials added in chunk order.  Out-of-picture taps contribute nothing.
 */
#ifndef MESTK_CONV_H
#define MESTK_CONV_H
#include "operand.h"
#include "weights.h"

typedef struct mestk_conv {
    mestk_shape in, out; /* equal blocks, lanes and format */
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
} mestk_conv;

/* Floats of scratch that forward / backward need; a function of shape, threads and chunks alone.
 * capacity: most connections the weights may have; forward: 0 unless they are SINGLE or RUN. */
int64_t mestk_conv_forward_scratch(const mestk_conv *g, int32_t threads, int64_t capacity);
int64_t mestk_conv_backward_scratch(const mestk_conv *g, int32_t threads, int32_t gradient_chunks,
                                    int64_t capacity);

/* start: rows floats that every output begins with (bias, or bias - pivot before a batch norm), or NULL.
 * sums: NULL, or for each [strip][row] those of y and of its square over the first `count` samples. */
void mestk_conv_forward(const mestk_context *k, const mestk_conv *g, const mestk_weights *w, const float *start,
                        const mestk_operand *x, void *y, int32_t count, double *sums, float *scratch);

/* dx: what to do with the gradient of x; its mask is x > 0.  dw: in forward order; db: or NULL, only with a
 * dy that is stored. */
void mestk_conv_backward(const mestk_context *k, const mestk_conv *g, const mestk_weights *w,
                         const mestk_operand *x, const mestk_operand *dy, int32_t count,
                         const mestk_gradient *dx, float *dw, float *db, int32_t gradient_chunks,
                         float *scratch);
#endif
