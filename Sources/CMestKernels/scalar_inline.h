/* SPDX-License-Identifier: Apache-2.0 */
/* Fused multiply-add as each translation unit's target has it, and which square roots are instructions. */
#ifndef MESTK_SCALAR_INLINE_H
#define MESTK_SCALAR_INLINE_H
#include "internal.h"

/* Bit 2 of __ARM_FP: single precision, bit 3: double. */
#if defined(__x86_64__) || defined(__aarch64__) || defined(__wasm__)
#define MESTK_SQRT_FLOAT 1
#define MESTK_SQRT_DOUBLE 1
#elif defined(__ARM_FP) && !defined(__SOFTFP__)
#define MESTK_SQRT_FLOAT ((__ARM_FP & 4) != 0)
#define MESTK_SQRT_DOUBLE ((__ARM_FP & 8) != 0)
#elif defined(__riscv_flen)
#define MESTK_SQRT_FLOAT (__riscv_flen >= 32)
#define MESTK_SQRT_DOUBLE (__riscv_flen >= 64)
#else
#define MESTK_SQRT_FLOAT 0
#define MESTK_SQRT_DOUBLE 0
#endif

/* Without hardware. */
MESTK_INLINE float mestk_fma_exact(float a, float b, float c)
{
    /* The product of two floats is exact in double; sum + error is the exact result (two-sum).  Rounding
     * it to odd keeps what the second rounding, to float, must know: 53 >= 24 + 2 digits. */
    double product = (double)a * (double)b;
    double sum = product + (double)c;
    double part = sum - product;
    double error = (product - (sum - part)) + ((double)c - part);
    if (error > 0.0 || error < 0.0) { /* not for NaN: sum is then NaN or infinite already */
        uint64_t bits;
        memcpy(&bits, &sum, sizeof bits);
        if ((bits & 1) == 0) bits = (error > 0.0) == (sum > 0.0) ? bits + 1 : bits - 1;
        memcpy(&sum, &bits, sizeof sum);
    }
    return (float)sum;
}

MESTK_INLINE float mestk_fma_inline(float a, float b, float c)
{
#if MESTK_HARDWARE_FMA || defined(MESTK_TARGET_FMA)
    return __builtin_elementwise_fma(a, b, c);
#elif defined(__SSE2__)
    return mestk_fma_exact(a, b, c); /* vectorises */
#else
    return mestk_fma(a, b, c); /* double is software: save space */
#endif
}

/* operand.h, at value `at` of channel `channel`. */
MESTK_INLINE float mestk_operand_value(const mestk_operand *o, int32_t format, int32_t channel, int64_t at)
{
    float v = mestk_get(o->x, format, at);
    if (o->a) v = mestk_fma_inline(o->a[channel], v, o->b[channel]);
    if (o->r) {
        float r = mestk_get(o->r, format, at);
        v = o->c ? mestk_fma_inline(o->c[channel], r, v) : v + r;
    }
    return o->relu && v <= 0.0f ? 0.0f : v;
}
#endif
