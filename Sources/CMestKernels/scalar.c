/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scalar mathematics from additions, multiplications and divisions alone, so that IEEE 754 fixes every
 * bit.  Not fast: it serves losses, schedules and random numbers, and fma where there is no hardware.
 */
#include "scalar_inline.h"

float mestk_fma(float a, float b, float c)
{
#if MESTK_HARDWARE_FMA
    return mestk_fma_inline(a, b, c);
#else
    return mestk_fma_exact(a, b, c);
#endif
}

static double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 2^k, -1022 <= k <= 1023. */
static double power_of_two(int32_t k) { return from_bits((uint64_t)(k + 1023) << 52); }

/* Nearest integer, |x| < 2^31; which way halves go does not matter here. */
static int32_t nearest(double x) { return (int32_t)(x < 0 ? x - 0.5 : x + 0.5); }

static const double log2e = 0x1.71547652b82fep+0;
static const double ln2_high = 0x1.62e42ff000000p-1; /* 32 bits: times a small integer it is exact */
static const double ln2_low = -0x1.718432a1b0e26p-35;

float mestk_exp(float x)
{
    static const double inverse_factorial[9] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720,
                                                1.0 / 5040, 1.0 / 40320};
    if (!(x > -104.0f)) return x <= -104.0f ? 0.0f : x; /* NaN stays */
    if (x > 88.8f) return __builtin_inff();
    int32_t k = nearest(x * log2e);
    double r = (x - k * ln2_high) - k * ln2_low;
    double sum = inverse_factorial[8]; /* remainder r^9/9! < 3e-10, a sixtieth of a float's half ulp */
    for (int32_t n = 7; n >= 0; n--) sum = sum * r + inverse_factorial[n];
    return (float)(sum * power_of_two(k));
}

/* log x = e ln2 + log m, m in [sqrt 1/2, sqrt 2), log m = 2 artanh s, s = (m-1)/(m+1), |s| < 0.172. */
double mestk_log_double(double x)
{
    if (!(x > 0.0)) return x == 0.0 ? -__builtin_inf() : __builtin_nan("");
    if (!(x < __builtin_inf())) return x;
    int32_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits = bits_of(x);
    e += (int32_t)(bits >> 52) - 1023;
    double m = from_bits((bits & 0xfffffffffffffu) | (uint64_t)1023 << 52);
    if (m > 0x1.6a09e667f3bcdp+0) {
        m *= 0.5;
        e += 1;
    }
    double s = (m - 1.0) / (m + 1.0), s2 = s * s, sum = 0.0;
    for (int32_t n = 21; n >= 3; n -= 2) sum = (sum + 1.0 / n) * s2;
    return e * ln2_high + (2.0 * s + (2.0 * s * sum + e * ln2_low));
}

/* pi/2 in three pieces; the first two have 33 bits, so quadrant * piece is exact up to 2^20. */
double mestk_cos_double(double x)
{
    int32_t quadrant = nearest(x * 0x1.45f306dc9c883p-1);
    double r = ((x - quadrant * 0x1.921fb54400000p+0) - quadrant * 0x1.0b4611a600000p-34)
               - quadrant * 0x1.3198a2e037073p-69;
    double r2 = r * r, sum = 1.0;
    int32_t odd = quadrant & 1; /* cos(r + pi/2) = -sin r */
    for (int32_t n = 18 + odd; n > 1; n -= 2) sum = 1.0 - sum * r2 / (n * (n - 1));
    if (odd) sum *= r;
    return ((quadrant + 1) & 2) ? -sum : sum;
}

#if !MESTK_SQRT_FLOAT || !MESTK_SQRT_DOUBLE
/* sqrt(mantissa * 2^exponent), exponent even, rounded to `digits` bits: school-book root, one bit a
 * step, then to nearest.  A root is never exactly between two numbers: it would need more digits than
 * its square has.  Returns the integer root; its weight is 2^*exponent. */
static uint64_t root(uint64_t mantissa, int32_t *exponent, int32_t digits)
{
    uint64_t result = 0, rest = 0;
    int32_t shift = 62; /* digit pairs of mantissa not yet used start here */
    while (shift > 0 && (mantissa >> shift) == 0) shift -= 2;
    int32_t used = 0;
    for (; used < digits + 1; used++, shift -= 2) {
        uint64_t pair = shift >= 0 ? (mantissa >> shift) & 3 : 0;
        rest = rest << 2 | pair;
        uint64_t trial = result << 2 | 1;
        result <<= 1;
        if (rest >= trial) {
            rest -= trial;
            result |= 1;
        }
    }
    *exponent = *exponent / 2 + (shift + 2) / 2;
    if (result & 1) result += 1; /* the extra digit decides */
    return result;
}
#endif

float mestk_sqrt(float x)
{
#if MESTK_SQRT_FLOAT
    return __builtin_elementwise_sqrt(x);
#else
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (!(x > 0.0f) || bits >= 0x7f800000u) return x < 0.0f ? __builtin_nanf("") : x;
    int32_t exponent = (int32_t)(bits >> 23) - 150;
    uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    if (bits < 0x800000u) {
        mantissa = bits;
        exponent = -149;
    }
    if (exponent & 1) {
        mantissa <<= 1;
        exponent -= 1;
    }
    mantissa = root(mantissa, &exponent, 24);
    return (float)mantissa * (float)power_of_two(exponent);
#endif
}

double mestk_sqrt_double(double x)
{
#if MESTK_SQRT_DOUBLE
    return __builtin_elementwise_sqrt(x);
#else
    uint64_t bits = bits_of(x);
    if (!(x > 0.0) || bits >= (uint64_t)2047 << 52) return x < 0.0 ? __builtin_nan("") : x;
    int32_t exponent = (int32_t)(bits >> 52) - 1075;
    uint64_t mantissa = (bits & 0xfffffffffffffu) | (uint64_t)1 << 52;
    if (bits >> 52 == 0) {
        mantissa = bits;
        exponent = -1074;
    }
    if (exponent & 1) {
        mantissa <<= 1;
        exponent -= 1;
    }
    mantissa = root(mantissa, &exponent, 53);
    return (double)mantissa * power_of_two(exponent);
#endif
}
