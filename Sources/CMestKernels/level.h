/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All kernels of one instruction set.  The file that includes this sets the target and defines
 *   LEVEL(name)          how its functions are called
 *   LEVEL_WIDTH          floats in a register
 *   LEVEL_FMA            1: the target has fused multiply-add
 *   LEVEL_ROWS           rows of 4 accumulators in the forward convolution
 *   LEVEL_DOTS           dot products beside a unit's dx in the backward convolution
 *   LEVEL_REFERENCE      1: convolution and linear are the reference
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

const mestk_kernels LEVEL(kernels) = {
#if LEVEL_REFERENCE
    .conv_forward = {mestk_conv_forward_reference, mestk_conv_forward_reference, mestk_conv_forward_reference,
                     mestk_conv_forward_reference},
    .conv_backward = {mestk_conv_backward_reference, mestk_conv_backward_reference, mestk_conv_backward_reference,
                      mestk_conv_backward_reference},
    .linear_forward = {mestk_linear_forward_reference, mestk_linear_forward_reference,
                       mestk_linear_forward_reference, mestk_linear_forward_reference},
    .linear_backward = {mestk_linear_backward_reference, mestk_linear_backward_reference,
                        mestk_linear_backward_reference, mestk_linear_backward_reference},
#else
    .conv_forward = LEVEL_LANES(conv_forward),
    .conv_backward = LEVEL_LANES(conv_backward),
    .linear_forward = LEVEL_LANES(linear_forward),
    .linear_backward = LEVEL_LANES(linear_backward),
#endif
    .norm_statistics = LEVEL_LANES(norm_statistics),
    .norm_apply = LEVEL_LANES(norm_apply),
    .norm_backward = LEVEL_LANES(norm_backward),
    .relu_forward = LEVEL(relu_forward),
    .relu_backward = LEVEL(relu_backward),
    .add = LEVEL(add),
    .sgd = LEVEL(sgd),
    .gradient_average = LEVEL(gradient_average),
    .sum_of_squares = LEVEL(sum_of_squares),
    .sum_of_magnitudes = LEVEL(sum_of_magnitudes),
};
