/* SPDX-License-Identifier: Apache-2.0 */
/* Value by value: dropout, flatten.  (ReLU, addition and copies are operands: operand.h.) */
#ifndef MESTK_ELEMENTWISE_H
#define MESTK_ELEMENTWISE_H
#include "layout.h"
#include "parallel.h"

/* Dropout: out (+)= in * mask / (1 - rate), forward and backward alike.  The mask is a pure function
 * of (key, (((block*lanes + lane) * channels + c) * height + y) * width + x): a value is zeroed when
 * the upper 32 bits of splitmix64's output for state key + (index + 1) * 0x9e3779b97f4a7c15 are below
 * rate * 2^32.  out may be in when not accumulating.  Padding: 0. */
void mestk_dropout(const mestk_context *k, mestk_shape s, uint64_t key, float rate, const void *in, void *out,
                   int32_t accumulate);

/* [channels][height][width] -> features in that order, floats: moves whole lines.  s: shape before. */
void mestk_flatten_forward(const mestk_context *k, mestk_shape s, const void *x, float *y);
/* The way back; padding pixels of dx get 0 (or keep what they have when accumulating). */
void mestk_flatten_backward(const mestk_context *k, mestk_shape s, const float *dy, void *dx, int32_t accumulate);
#endif
