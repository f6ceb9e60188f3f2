/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: all kernels of one instruction set.  The file that includes this sets the target and defines
 *   LEVEL(name)          how its functions are called
 *   LEVEL_WIDTH          floats in a register
 *   LEVEL_FMA            1: the target has fused multiply-add
 *   LEVEL_VECTOR_LANES   most lanes for which convolution and linear have a vector path; 0: none, and
 *                        then there is no table LEVEL(kernels)
 *   LEVEL_SCALAR         1: its vectors are the compiler's: no code whose only point is to fill them
 *   LEVEL_ROWS           rows of 4 accumulators that fit the registers, 2 or 4
 *   LEVEL_DOTS           dot products that fit beside a unit's dx, 1, 2 or 4
 */
#include "flat.h"
#ifndef LEVEL_SCALAR
#define LEVEL_SCALAR 0
#endif

#define LANES 1
#define STORED_BF16 0
#include "lanes.h"
#define LANES 4
#define STORED_BF16 0
#include "lanes.h"
#define LANES 8
#define STORED_BF16 0
#include "lanes.h"
#define LANES 16
#define STORED_BF16 0
#include "lanes.h"
#define LANES 1
#define STORED_BF16 1
#include "lanes.h"
#define LANES 4
#define STORED_BF16 1
#include "lanes.h"
#define LANES 8
#define STORED_BF16 1
#include "lanes.h"
#define LANES 16
#define STORED_BF16 1
#include "lanes.h"

#define LEVEL_LANES(name) {LEVEL(name##_1), LEVEL(name##_4), LEVEL(name##_8), LEVEL(name##_16)}
#define LEVEL_FORMATS(name) \
    {LEVEL_LANES(name), {LEVEL(name##_1_bf16), LEVEL(name##_4_bf16), LEVEL(name##_8_bf16), LEVEL(name##_16_bf16)}}
#define LEVEL_REFERENCES(name) mestk_##name##_reference, mestk_##name##_reference, mestk_##name##_reference
#if LEVEL_VECTOR_LANES == 16
#define LEVEL_PRODUCT(name) LEVEL_LANES(name)
#define LEVEL_PRODUCTS(name) LEVEL_FORMATS(name)
#define LEVEL_BOTH                                                                                            \
    {LEVEL(one_backward), LEVEL(linear_backward_both_4), LEVEL(linear_backward_both_8),                       \
     LEVEL(linear_backward_both_16)}
#else
#define LEVEL_PRODUCT(name) {LEVEL(name##_1), LEVEL_REFERENCES(name)}
#define LEVEL_BOTH {LEVEL(one_backward)}
#define LEVEL_PRODUCTS(name) {LEVEL_PRODUCT(name), {LEVEL(name##_1_bf16), LEVEL_REFERENCES(name)}}
#endif

#define LEVEL_REST                                                                                            \
    .evaluate = LEVEL_FORMATS(evaluate), .finish_gradient = LEVEL_FORMATS(finish_gradient),                   \
    .norm_moments = LEVEL_FORMATS(norm_moments), .norm_backward = LEVEL_FORMATS(norm_backward),               \
    .relu_backward = LEVEL_FORMATS(relu_backward),                                                            \
    .sgd = LEVEL(sgd), .gradient_average = LEVEL(gradient_average),                                           \
    .sum_of_squares = LEVEL(sum_of_squares), .sum_of_magnitudes = LEVEL(sum_of_magnitudes)

#if LEVEL_VECTOR_LANES
const mestk_kernels LEVEL(kernels) = {
    .conv_forward = LEVEL_PRODUCTS(conv_forward),
    .conv_backward = LEVEL_PRODUCTS(conv_backward),
    .depthwise_forward = LEVEL_PRODUCTS(depthwise_forward),
    .depthwise_backward = LEVEL_PRODUCTS(depthwise_backward),
    .linear_forward = LEVEL_PRODUCT(linear_forward),
    .linear_backward_x = LEVEL_PRODUCT(linear_backward_x),
    .linear_backward_w = LEVEL_PRODUCT(linear_backward_w),
    .linear_backward_both = LEVEL_BOTH,
    .linear_most_blocks = LEVEL_WIDTH == 16 ? 8 : 4,
    LEVEL_REST,
};
#endif
