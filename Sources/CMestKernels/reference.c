/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The level every machine has: convolution and linear as defined, the rest for the build's own target.
 * Where that target is not x86-64 and has fused multiply-add, also its own level: NEON, the vector path by
 * the compiler's vectors; or FPU, that path for one lane (convolutions: also four, by the same code) only,
 * since on a microcontroller (Cortex-M4F) larger batches are rare and flash is dear.
 */
#include "conv_job.h"
#include "depthwise_job.h"
#include "linear_job.h"
#include "strip_job.h"
#include "pool_job.h"
#include "scalar_inline.h"

#define LEVEL(name) mestk_native_##name
#define LEVEL_FMA MESTK_HARDWARE_FMA
#if !MESTK_HAS_NATIVE
#define LEVEL_WIDTH 4
#define LEVEL_VECTOR_LANES 0
#elif MESTK_HAS_NEON
#define LEVEL_WIDTH 8 /* pairs of 128-bit registers */
#define LEVEL_VECTOR_LANES 16
#else
#define LEVEL_WIDTH 4
#define LEVEL_VECTOR_LANES 1
#define LEVEL_SCALAR 1
#endif
#define LEVEL_ROWS (WIDTH == 8 ? 2 : 4)
#define LEVEL_DOTS (WIDTH == 8 ? 1 : 4)
#include "level.h"

#define REFERENCES(name) \
    {mestk_##name##_reference, mestk_##name##_reference, mestk_##name##_reference, mestk_##name##_reference}

const mestk_kernels mestk_reference_kernels = {
    .conv_forward = {REFERENCES(conv_forward), REFERENCES(conv_forward)},
    .conv_backward = {REFERENCES(conv_backward), REFERENCES(conv_backward)},
    .depthwise_forward = {REFERENCES(depthwise_forward), REFERENCES(depthwise_forward)},
    .depthwise_backward = {REFERENCES(depthwise_backward), REFERENCES(depthwise_backward)},
    .linear_forward = REFERENCES(linear_forward),
    .linear_backward_x = REFERENCES(linear_backward_x),
    .linear_backward_w = REFERENCES(linear_backward_w),
    .linear_bias = REFERENCES(linear_bias),
    LEVEL_REST,
};
