/* SPDX-License-Identifier: Apache-2.0 */
/* Value by value: ReLU, residual addition, dropout, flatten.  n: floats of the padded tensor. */
#ifndef MESTK_ELEMENTWISE_H
#define MESTK_ELEMENTWISE_H
#include "layout.h"
#include "parallel.h"

/* y = x <= 0 ? +0 : x: NaN passes through, so that a diverged network is seen at the loss.  y may be
 * x. */
void mestk_relu_forward(const mestk_context *k, int64_t n, const float *x, float *y);
/* dx (+)= y > 0 ? dy : +0, from the output y.  dx may be dy when not accumulating. */
void mestk_relu_backward(const mestk_context *k, int64_t n, const float *y, const float *dy, float *dx,
                         int32_t accumulate);
/* y = a + b.  y may be a or b. */
void mestk_add(const mestk_context *k, int64_t n, const float *a, const float *b, float *y);
/* to = from, or to += from. */
void mestk_copy(const mestk_context *k, int64_t n, const float *from, float *to, int32_t accumulate);

/* Dropout: out (+)= in * mask / (1 - rate), forward and backward alike.  The mask is a pure function
 * of (key, (((block*lanes + lane) * channels + c) * height + y) * width + x): a value is zeroed when
 * the upper 32 bits of splitmix64's output for state key + (index + 1) * 0x9e3779b97f4a7c15 are below
 * rate * 2^32.  out may be in when not accumulating.  Padding: 0. */
void mestk_dropout(const mestk_context *k, mestk_shape s, uint64_t key, float rate, const float *in,
                   float *out, int32_t accumulate);

/* [channels][height][width] -> features in that order: moves whole lines.  s: shape before. */
void mestk_flatten_forward(const mestk_context *k, mestk_shape s, const float *x, float *y);
/* The way back; padding pixels of dx get 0 (or keep what they have when accumulating). */
void mestk_flatten_backward(const mestk_context *k, mestk_shape s, const float *dy, float *dx,
                            int32_t accumulate);
#endif
