/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: all kernels of one instruction set.  The file that includes this sets the target and defines
 *   LEVEL(name)          how its functions are called
 *   LEVEL_WIDTH          floats in a register
 *   LEVEL_FMA            1: the target has fused multiply-add
 *   LEVEL_VECTOR_LANES   most lanes for which convolution and linear have a vector path; 0: none, and
 *                        then there is no table LEVEL(kernels)
 *   LEVEL_ROWS           rows of 4 accumulators that fit the registers, 2 or 4
 *   LEVEL_DOTS           dot products that fit beside a unit's dx, 1, 2 or 4
 */
#include "flat.h"

#define LANES 1
#include "lanes.h"
#define LANES 4
#include "lanes.h"
#define LANES 8
#include "lanes.h"
#define LANES 16
#include "lanes.h"

#define LEVEL_LANES(name) {LEVEL(name##_1), LEVEL(name##_4), LEVEL(name##_8), LEVEL(name##_16)}
#if LEVEL_VECTOR_LANES == 16
#define LEVEL_PRODUCT(name) LEVEL_LANES(name)
#else
#define LEVEL_PRODUCT(name) {LEVEL(name##_1), mestk_##name##_reference, mestk_##name##_reference, mestk_##name##_reference}
#endif

#define LEVEL_REST                                                                                            \
    .norm_statistics = LEVEL_LANES(norm_statistics), .norm_apply = LEVEL_LANES(norm_apply),                   \
    .norm_backward = LEVEL_LANES(norm_backward), .relu_forward = LEVEL(relu_forward),                         \
    .relu_backward = LEVEL(relu_backward), .add = LEVEL(add), .sgd = LEVEL(sgd),                              \
    .gradient_average = LEVEL(gradient_average), .sum_of_squares = LEVEL(sum_of_squares),                     \
    .sum_of_magnitudes = LEVEL(sum_of_magnitudes)

#if LEVEL_VECTOR_LANES
const mestk_kernels LEVEL(kernels) = {
    .conv_forward = LEVEL_PRODUCT(conv_forward),
    .conv_backward = LEVEL_PRODUCT(conv_backward),
    .linear_forward = LEVEL_PRODUCT(linear_forward),
    .linear_backward = LEVEL_PRODUCT(linear_backward),
    LEVEL_REST,
};
#endif
