/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels share and the engine does not see: helpers, the lane tree, and the table of the
 * functions that exist once per instruction set.
 */
#ifndef MESTK_INTERNAL_H
#define MESTK_INTERNAL_H
#include "CMestKernels.h"

/* Every rounding is written down: no level, target or optimiser may fuse a*b + c on its own. */
#pragma STDC FP_CONTRACT OFF

#if __STDC_HOSTED__
#include <string.h>
#else
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
#endif

#if defined(__x86_64__) && !defined(MESTK_NO_SIMD)
#define MESTK_X86 1
#else
#define MESTK_X86 0
#endif

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__) \
    || (defined(__riscv_flen) && __riscv_flen >= 32)
#define MESTK_HARDWARE_FMA 1 /* of the build's own target */
#else
#define MESTK_HARDWARE_FMA 0
#endif
/* The level of the build's own target.  Not NEON of 32-bit ARM, which flushes subnormal
 * numbers to zero: build there with -mfpu=vfpv4-d16 or the like. */
#define MESTK_HAS_NATIVE (MESTK_HARDWARE_FMA && !MESTK_X86)
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(MESTK_NO_SIMD)
#define MESTK_NATIVE MESTK_NEON
#define MESTK_HAS_NEON MESTK_HAS_NATIVE
#else
#define MESTK_NATIVE MESTK_FPU
#define MESTK_HAS_NEON 0
#endif

/* The most lanes a batch may have: 16, or 1 for microcontrollers, which train sample by sample and have little flash:
 * the same bits of less code. */
#ifndef MESTK_MOST_LANES
#define MESTK_MOST_LANES 16
#endif

/* Functions of a vector level.  UndefinedBehaviorSanitizer checks all of them where nothing is optimised (part "checked"
 * of tools/run-tests.sh).  Optimised, bounds, shifts and overflows only: with every single pointer avx2.c takes twelve
 * minutes to compile instead of two. */
#ifdef __OPTIMIZE__
#define MESTK_VECTOR_LEVEL(instructions) __attribute__((target(instructions), \
    no_sanitize("alignment", "null", "object-size", "pointer-overflow")))
#else
#define MESTK_VECTOR_LEVEL(instructions) __attribute__((target(instructions)))
#endif

#define MESTK_INLINE static inline __attribute__((always_inline, unused))

/* Before a loop whose bounds are constants once inlined: arrays that it indexes become registers. */
#define UNROLL _Pragma("clang loop unroll(full)")
/* Before a loop whose body is long already: copies of it would only take space. */
#define ROLLED _Pragma("clang loop unroll(disable)")

/* Scratch is one block of floats; the words stored in parts of it are read and written as words. */
typedef int32_t __attribute__((may_alias)) mestk_word;

MESTK_INLINE int32_t mestk_min(int32_t a, int32_t b) { return a < b ? a : b; }
MESTK_INLINE int32_t mestk_max(int32_t a, int32_t b) { return a > b ? a : b; }
MESTK_INLINE int64_t mestk_min64(int64_t a, int64_t b) { return a < b ? a : b; }
MESTK_INLINE int32_t mestk_ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }
/* Parts of scratch begin on cache lines. */
MESTK_INLINE int64_t mestk_round16(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

/* Where there can be one only, the compiler knows. */
MESTK_INLINE int32_t mestk_lanes(mestk_shape s) { return MESTK_MOST_LANES == 1 ? 1 : s.lanes; }

/* 1, 4, 8, 16 lanes -> 0, 1, 2, 3. */
MESTK_INLINE int32_t mestk_lane_index(int32_t lanes) { return lanes == 16 ? 3 : lanes == 8 ? 2 : lanes == 4 ? 1 : 0; }

/* ---- stored values (layout.h) ---- */

MESTK_INLINE float mestk_widen(uint16_t v)
{
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
/* A NaN stays one unless all its payload is ones, which no CPU makes of finite inputs. */
MESTK_INLINE uint16_t mestk_narrow(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x8000u) >> 16);
}
MESTK_INLINE float mestk_get(const void *p, int32_t format, int64_t i)
{
    return format == MESTK_BF16 ? mestk_widen(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}
MESTK_INLINE void mestk_put(void *p, int32_t format, int64_t i, float v)
{
    if (format == MESTK_BF16) ((uint16_t *)p)[i] = mestk_narrow(v);
    else ((float *)p)[i] = v;
}
/* v as it will be read again. */
MESTK_INLINE float mestk_rounded(int32_t format, float v)
{
    return format == MESTK_BF16 ? mestk_widen(mestk_narrow(v)) : v;
}

/* Line `at` of p: where it lies, or a copy in `buffer`. */
MESTK_INLINE const float *mestk_read_line(const void *p, int32_t format, int64_t at, int32_t lanes, float *buffer)
{
    if (format != MESTK_BF16) return (const float *)p + at;
    for (int32_t l = 0; l < lanes; l++) buffer[l] = mestk_widen(((const uint16_t *)p)[at + l]);
    return buffer;
}
MESTK_INLINE void mestk_write_line(void *p, int32_t format, int64_t at, int32_t lanes, const float *v)
{
    for (int32_t l = 0; l < lanes; l++) mestk_put(p, format, at + l, v[l]);
}
/* p + i values. */
MESTK_INLINE void *mestk_at(const void *p, int32_t format, int64_t i)
{
    return (char *)(uintptr_t)p + i * (format == MESTK_BF16 ? 2 : 4);
}

MESTK_INLINE void mestk_copy_line(float *to, const float *from, int32_t lanes)
{
    for (int32_t l = 0; l < lanes; l++) to[l] = from[l];
}

/* The lane tree.  An octet is eight lanes: i + (i+4), then i + (i+2), then i + (i+1); four lanes begin
 * at i + (i+2).  Sixteen lanes are two octets, which are added to a sum one after the other, so that
 * 8-lane registers do them as two halves. */
MESTK_INLINE float mestk_sum4(const float *v) { return (v[0] + v[2]) + (v[1] + v[3]); }
MESTK_INLINE float mestk_sum8(const float *v)
{
    float a[4];
    for (int i = 0; i < 4; i++) a[i] = v[i] + v[i + 4];
    return mestk_sum4(a);
}
MESTK_INLINE void mestk_add_line(float *sum, const float *v, int32_t lanes)
{
    *sum += lanes >= 8 ? mestk_sum8(v) : lanes == 4 ? mestk_sum4(v) : v[0];
    if (lanes == 16) *sum += mestk_sum8(v + 8);
}

/* Which of the functions that exist by mestk_lane_index goes through the tiles of a tensor value by value.
 * Tiles of fewer lanes are as those of 16, if they are whole lines of those. */
MESTK_INLINE int32_t mestk_tile_index(mestk_shape s)
{
    int32_t values = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    return values % 16 == 0 ? 3 : mestk_lane_index(s.lanes);
}

/* Values of an elementwise or update kernel per chunk. */
enum { MESTK_CHUNK = 16384 };

typedef struct mestk_conv_job mestk_conv_job;
typedef struct mestk_depthwise_job mestk_depthwise_job;
typedef struct mestk_linear_job mestk_linear_job;
typedef struct mestk_strip_job mestk_strip_job;
typedef struct mestk_pool_job mestk_pool_job;

/* What one instruction set offers.  Arrays: by format, where there is one, and mestk_lane_index. */
typedef struct mestk_kernels {
    void (*conv_forward[2][4])(const mestk_conv_job *job, int32_t task, int32_t worker);
    void (*conv_backward[2][4])(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial);
    void (*depthwise_forward[2][4])(const mestk_depthwise_job *job, int32_t strip, int32_t worker);
    void (*depthwise_backward[2][4])(const mestk_depthwise_job *job, int32_t strip, int32_t worker, float *partial);
    void (*linear_forward[4])(const mestk_linear_job *job, int32_t first, int32_t end);
    void (*linear_backward_x[4])(const mestk_linear_job *job, int32_t first, int32_t end);
    void (*linear_backward_w[4])(const mestk_linear_job *job, int32_t first, int32_t end);
    void (*linear_bias[4])(const mestk_linear_job *job, int32_t first, int32_t end);
    /* dx and dw at once: sparse, a power of two of lane blocks; or one lane.  NULL where there is none. */
    void (*linear_backward_both[4])(const mestk_linear_job *job, int32_t first, int32_t end);
    int32_t linear_most_blocks; /* of linear_backward_both */
    void (*evaluate[2][4])(const mestk_strip_job *job, int32_t strip);
    void (*finish_gradient[2][4])(const mestk_strip_job *job, int32_t strip);
    void (*norm_moments[2][4])(const mestk_strip_job *job, int32_t strip);
    void (*norm_backward[2][4])(const mestk_strip_job *job, int32_t strip);
    void (*pool_forward[2][4])(const mestk_pool_job *job, int32_t strip);
    void (*pool_backward[2][4])(const mestk_pool_job *job, int32_t plane);
    void (*global_pool_forward[2][4])(const mestk_pool_job *job, int32_t chunk);
    void (*global_pool_backward[2][4])(const mestk_pool_job *job, int32_t chunk);
    void (*relu_backward[2][4])(const mestk_strip_job *job, int32_t strip);
    void (*sgd)(int64_t n, mestk_sgd h, const float *g, float *w, float *m);
    void (*gradient_average)(int64_t n, float beta, const float *g, float *a);
    double (*sum_of_squares)(int64_t n, const float *x);
    double (*sum_of_magnitudes)(int64_t n, const float *x);
} mestk_kernels;

extern const mestk_kernels mestk_reference_kernels;
#if MESTK_X86
extern const mestk_kernels mestk_avx2_kernels, mestk_avx512_kernels;
#endif
#if MESTK_HAS_NATIVE
extern const mestk_kernels mestk_native_kernels;
#endif
const mestk_kernels *mestk_kernels_of(int32_t level);

/* db[c] += sum over samples and pixels of dy[c] (conv_reference.c). */
void mestk_bias_gradient(const mestk_context *k, mestk_shape s, const void *dy, float *db);

/* Of one strip and channel of a stored tensor: its sum, and that of itself times `other`, as operand.h says;
 * rows and columns that exist, the first `lanes`. */
void mestk_sum_strip_reference(mestk_shape s, int32_t strip, int32_t channel, const void *v, const void *other,
                               int32_t lanes, double *sums);
#endif
