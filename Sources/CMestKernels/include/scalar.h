/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scalar mathematics with the same bits on every target.  libm differs between machines, so exp, log
 * and cos are the library's own; fused multiply-add is exact everywhere, in hardware where there is
 * some, else through double with round-to-odd.
 */
#ifndef MESTK_SCALAR_H
#define MESTK_SCALAR_H
#include <stddef.h>
#include <stdint.h>

float mestk_fma(float a, float b, float c);  /* a*b + c, rounded once */
float mestk_exp(float x);                    /* <= 2 ulp; 0 below -104, +inf above 88.8 */
float mestk_sqrt(float x);                   /* correctly rounded; x >= 0 */
double mestk_log_double(double x);           /* x > 0 */
double mestk_cos_double(double x);           /* |x| <= 1e6 */
double mestk_sqrt_double(double x);          /* correctly rounded */

/* Conversions that Embedded Swift cannot do without an allocating type on 32-bit targets: widening to
 * 64 bits, and between 64-bit integers and floating point. */
static inline int64_t mestk_i64(ptrdiff_t x) { return (int64_t)x; }
static inline uint64_t mestk_u64(size_t x) { return (uint64_t)x; }
static inline double mestk_double_u64(uint64_t x) { return (double)x; }
static inline uint64_t mestk_u64_double(double x) { return (uint64_t)x; } /* 0 <= x < 2^64 */
static inline float mestk_float_double(double x) { return (float)x; }
#endif
