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
#ifndef LEVEL_SCALAR
#define LEVEL_SCALAR 0
#endif
#define LEVEL_SUMS (LEVEL_SCALAR ? 4 : 8) /* 32 registers of one float */
/* What only batches need; without them it is left out of tables, and so of the object. */
#if MESTK_MOST_LANES == 1
#define LEVEL_MORE(kernel) NULL
#pragma clang diagnostic ignored "-Wunused-function"
#else
#define LEVEL_MORE(kernel) kernel
#endif
#include "flat.h"

static void LEVEL(strip_sums_16)(mestk_shape s, int32_t strip, int32_t c, int32_t count, const float *v, const float *other,
                                 double *sums);
static void LEVEL(strip_sums_16_bf16)(mestk_shape s, int32_t strip, int32_t c, int32_t count, const uint16_t *v,
                                      const uint16_t *other, double *sums);

#if LEVEL_VECTOR_LANES
/* By the widest vectors that rows are made of (conv.c). */
static void LEVEL(rows_forward)(const mestk_conv_job *job, const float *slab, float *chains);
static void LEVEL(rows_backward)(const mestk_conv_job *job, int32_t y0, int32_t top, int32_t left, const float *slab,
                                 const float *x, float *dx, float *partial);
static void LEVEL(depthwise_rows_forward)(const mestk_depthwise_job *job, int32_t c0, int32_t c1, const float *slab,
                                          float *chains);
static void LEVEL(depthwise_rows_backward)(const mestk_depthwise_job *job, int32_t c0, int32_t c1, int32_t y0, int32_t top,
                                           int32_t left, const float *slab, const float *x, float *dx, float *dots,
                                           float *partial);
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

#if LEVEL_VECTOR_LANES
#if LEVEL_WIDTH >= 16
#define LEVEL_16 16
#else
#define LEVEL_16 LEVEL_WIDTH
#endif
#if LEVEL_WIDTH >= 8
#define LEVEL_8 8
#else
#define LEVEL_8 LEVEL_WIDTH
#endif
#define LEVEL_ROWS_OF2(name, width) name##_##width
#define LEVEL_ROWS_OF1(name, width) LEVEL_ROWS_OF2(name, width)
#define LEVEL_ROWS_OF(name, width) LEVEL_ROWS_OF1(LEVEL(name), width)
#define LEVEL_ROWS_CALL(name, ...)                                                          \
    do {                                                                                    \
        if (job->row_floats % 16 == 0) LEVEL_ROWS_OF(name, LEVEL_16)(__VA_ARGS__);          \
        else if (job->row_floats % 8 == 0) LEVEL_ROWS_OF(name, LEVEL_8)(__VA_ARGS__);       \
        else LEVEL_ROWS_OF(name, 4)(__VA_ARGS__);                                           \
    } while (0)
static void LEVEL(rows_forward)(const mestk_conv_job *job, const float *slab, float *chains)
{
    LEVEL_ROWS_CALL(rows_forward, job, slab, chains);
}
static void LEVEL(rows_backward)(const mestk_conv_job *job, int32_t y0, int32_t top, int32_t left, const float *slab,
                                 const float *x, float *dx, float *partial)
{
    LEVEL_ROWS_CALL(rows_backward, job, y0, top, left, slab, x, dx, partial);
}
static void LEVEL(depthwise_rows_forward)(const mestk_depthwise_job *job, int32_t c0, int32_t c1, const float *slab,
                                          float *chains)
{
    LEVEL_ROWS_CALL(depthwise_rows_forward, job, c0, c1, slab, chains);
}
static void LEVEL(depthwise_rows_backward)(const mestk_depthwise_job *job, int32_t c0, int32_t c1, int32_t y0, int32_t top,
                                           int32_t left, const float *slab, const float *x, float *dx, float *dots,
                                           float *partial)
{
    LEVEL_ROWS_CALL(depthwise_rows_backward, job, c0, c1, y0, top, left, slab, x, dx, dots, partial);
}
#endif

/* A tile of few lanes may be a line of 16 values (mestk_tile_index).  Where floats are software, one sample's go
 * value by value in the same time. */
#if MESTK_MOST_LANES == 1 && !LEVEL_VECTOR_LANES
#define LEVEL_LINES(name, format) LEVEL(name##_1##format)
#else
#define LEVEL_LINES(name, format) LEVEL(name##_16##format)
#endif

/* By format and lanes. */
#define LEVEL_FORMATS(name)                                                                                   \
    {{LEVEL(name##_1), LEVEL_MORE(LEVEL(name##_4)), LEVEL_MORE(LEVEL(name##_8)), LEVEL_LINES(name, )},            \
     {LEVEL(name##_1_bf16), LEVEL_MORE(LEVEL(name##_4_bf16)), LEVEL_MORE(LEVEL(name##_8_bf16)),                \
      LEVEL_LINES(name, _bf16)}}
#define LEVEL_WINDOWS(name)                                                                                   \
    {{LEVEL(name##_1), LEVEL_MORE(LEVEL(name##_4)), LEVEL_MORE(LEVEL(name##_8)), LEVEL_MORE(LEVEL(name##_16))}, \
     {LEVEL(name##_1_bf16), LEVEL_MORE(LEVEL(name##_4_bf16)), LEVEL_MORE(LEVEL(name##_8_bf16)),                \
      LEVEL_MORE(LEVEL(name##_16_bf16))}}
#define LEVEL_REFERENCES(name) mestk_##name##_reference, mestk_##name##_reference, mestk_##name##_reference
#if LEVEL_VECTOR_LANES == 16
#define LEVEL_LINEAR(name) \
    {LEVEL(one_##name), LEVEL_MORE(LEVEL(linear_##name##_4)), LEVEL_MORE(LEVEL(linear_##name##_8)),           \
     LEVEL_MORE(LEVEL(linear_##name##_16))}
#define LEVEL_BOTH                                                                                            \
    {LEVEL(one_backward_both), LEVEL_MORE(LEVEL(linear_backward_both_4)),                                     \
     LEVEL_MORE(LEVEL(linear_backward_both_8)), LEVEL_MORE(LEVEL(linear_backward_both_16))}
#else
#define LEVEL_LINEAR(name) {LEVEL(one_##name), LEVEL_REFERENCES(linear_##name)}
#define LEVEL_BOTH {LEVEL(one_backward_both)}
#endif

#define LEVEL_REST                                                                                            \
    .evaluate = LEVEL_FORMATS(evaluate), .finish_gradient = LEVEL_FORMATS(finish_gradient),                   \
    .norm_moments = LEVEL_FORMATS(norm_moments), .norm_backward = LEVEL_FORMATS(norm_backward),               \
    .pool_forward = LEVEL_WINDOWS(pool_forward), .pool_backward = LEVEL_WINDOWS(pool_backward),               \
    .global_pool_forward = LEVEL_FORMATS(global_pool_forward),                                                \
    .global_pool_backward = LEVEL_FORMATS(global_pool_backward),                                              \
    .relu_backward = LEVEL_FORMATS(relu_backward),                                                            \
    .sgd = LEVEL(sgd), .gradient_average = LEVEL(gradient_average),                                           \
    .sum_of_squares = LEVEL(sum_of_squares), .sum_of_magnitudes = LEVEL(sum_of_magnitudes)

/* Of few lanes, and of more. */
#define LEVEL_FEW(name) LEVEL(name##_16), LEVEL(name##_16)
#define LEVEL_FEW_BF16(name) LEVEL(name##_16_bf16), LEVEL(name##_16_bf16)
#if LEVEL_VECTOR_LANES == 16
#define LEVEL_CONVS(few, name)                           \
    {{LEVEL_FEW(few), LEVEL_MORE(LEVEL(name##_8)), LEVEL_MORE(LEVEL(name##_16))}, \
     {LEVEL_FEW_BF16(few), LEVEL_MORE(LEVEL(name##_8_bf16)), LEVEL_MORE(LEVEL(name##_16_bf16))}}
#else
#define LEVEL_CONVS(few, name)                                            \
    {{LEVEL_FEW(few), mestk_##name##_reference, mestk_##name##_reference}, \
     {LEVEL_FEW_BF16(few), mestk_##name##_reference, mestk_##name##_reference}}
#endif

#if LEVEL_VECTOR_LANES
const mestk_kernels LEVEL(kernels) = {
    .conv_forward = LEVEL_CONVS(few_forward, conv_forward),
    .conv_backward = LEVEL_CONVS(few_backward, conv_backward),
    .depthwise_forward = LEVEL_CONVS(few_depthwise_forward, depthwise_forward),
    .depthwise_backward = LEVEL_CONVS(few_depthwise_backward, depthwise_backward),
    .linear_forward = LEVEL_LINEAR(forward),
    .linear_backward_x = LEVEL_LINEAR(backward_x),
    .linear_backward_w = LEVEL_LINEAR(backward_w),
    .linear_bias = LEVEL_LINEAR(bias),
    .linear_backward_both = LEVEL_BOTH,
    .linear_most_blocks = LEVEL_WIDTH == 16 ? 8 : 4,
    LEVEL_REST,
};
#endif
