/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector type of one lane count and one format of stored values.  Parameters: LANES, 1, 4, 8 or 16;
 * STORED_BF16, 0 or 1; LEVEL(name); LEVEL_WIDTH, floats in a register.  A line is PARTS vectors of WIDTH
 * lanes; V(name) names what exists once per lane count and format.
 */
#if LANES < LEVEL_WIDTH
#define WIDTH LANES
#else
#define WIDTH LEVEL_WIDTH
#endif
#define PARTS (LANES / WIDTH)
#if STORED_BF16
#define V_JOIN2(name, lanes) name##_##lanes##_bf16
#else
#define V_JOIN2(name, lanes) name##_##lanes
#endif
#define V_JOIN(name, lanes) V_JOIN2(name, lanes)
#define V(name) V_JOIN(LEVEL(name), LANES)
#define V_OF(name, lanes) V_JOIN(LEVEL(name), lanes) /* of another lane count */
#define stored V(stored)
#define get_stored V(get_stored)
#define put_stored V(put_stored)
#define round_stored V(round_stored)
#define vec_int V(vec_int)
#define vec_where V(vec_where)
#define vec_select V(vec_select)
#define vec_relu V(vec_relu)
#define vec V(vec)
#define vec_load V(vec_load)
#define vec_store V(vec_store)
#define vec_zero V(vec_zero)
#define vec_zero_lines V(vec_zero_lines)
#define vec_fma V(vec_fma)
#define vec_add_dots V(vec_add_dots)
#define vec_halves V(vec_halves)
#define vec_add_8_dots V(vec_add_8_dots)

typedef float vec __attribute__((ext_vector_type(WIDTH), aligned(4)));

#define VEC_INLINE static inline __attribute__((always_inline, unused))
VEC_INLINE vec vec_load(const float *p) { return *(const vec *)p; }
VEC_INLINE void vec_store(float *p, vec v) { *(vec *)p = v; }
VEC_INLINE vec vec_zero(void) { return (vec)(0.0f); }
VEC_INLINE void vec_zero_lines(float *to, int64_t lines)
{
    ROLLED for (int64_t i = 0; i < lines * LANES; i += WIDTH) vec_store(to + i, vec_zero());
}
VEC_INLINE vec vec_fma(vec a, vec b, vec c)
{
#if LEVEL_FMA
    return __builtin_elementwise_fma(a, b, c);
#elif WIDTH == 1
    return (vec)(mestk_fma_inline(a[0], b[0], c[0]));
#else
    for (int i = 0; i < WIDTH; i++) c[i] = mestk_fma_inline(a[i], b[i], c[i]);
    return c;
#endif
}

typedef int32_t vec_int __attribute__((ext_vector_type(WIDTH)));

/* v where the mask is set, else +0. */
VEC_INLINE vec vec_where(vec_int mask, vec v)
{
    union { vec_int i; vec f; } u = {.f = v};
    u.i &= mask;
    return u.f;
}
VEC_INLINE vec vec_select(vec_int mask, vec a, vec b)
{
    union { vec f; vec_int i; } u = {.f = a}, v = {.f = b};
    u.i = (u.i & mask) | (v.i & ~mask);
    return u.f;
}
VEC_INLINE vec vec_relu(vec v) { return vec_where(~(v <= vec_zero()), v); }

/* Stored values: mestk_widen, mestk_narrow, mestk_rounded of WIDTH values. */
#if STORED_BF16
typedef uint16_t stored;
typedef uint16_t V(halves) __attribute__((ext_vector_type(WIDTH), aligned(2)));
typedef uint32_t V(words) __attribute__((ext_vector_type(WIDTH), aligned(4)));
VEC_INLINE vec get_stored(const stored *p)
{
    union { V(words) w; vec f; } u = {.w = __builtin_convertvector(*(const V(halves) *)p, V(words)) << 16};
    return u.f;
}
VEC_INLINE void put_stored(stored *p, vec v)
{
    union { vec f; V(words) w; } u = {.f = v};
    *(V(halves) *)p = __builtin_convertvector((u.w + 0x8000u) >> 16, V(halves));
}
VEC_INLINE vec round_stored(vec v)
{
    union { vec f; V(words) w; } u = {.f = v};
    u.w = (u.w + 0x8000u) & 0xffff0000u;
    return u.f;
}
#else
typedef float stored;
VEC_INLINE vec get_stored(const stored *p) { return vec_load(p); }
VEC_INLINE void put_stored(stored *p, vec v) { vec_store(p, v); }
VEC_INLINE vec round_stored(vec v) { return v; }
#endif

/* mestk_add_line for four lines and four sums. */
VEC_INLINE void vec_add_dots(const vec *d, float *partial)
{
#if WIDTH == 1
    for (int i = 0; i < 4; i++) partial[i] += d[i][0];
#else
    typedef float four __attribute__((ext_vector_type(4), aligned(4)));
    four p = *(four *)partial;
#if WIDTH == 16
    vec a = __builtin_shufflevector(d[0], d[1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
            + __builtin_shufflevector(d[0], d[1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    vec b = __builtin_shufflevector(d[2], d[3], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
            + __builtin_shufflevector(d[2], d[3], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    /* 128-bit parts now: dot 0 (2) octet 0, octet 1, dot 1 (3) octet 0, octet 1. */
    vec c = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
            + __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    vec e = c + __builtin_shufflevector(c, c, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    p += __builtin_shufflevector(e, e, 0, 8, 2, 10);
    p += __builtin_shufflevector(e, e, 4, 12, 6, 14);
#elif WIDTH == 8
    vec a = __builtin_shufflevector(d[0], d[1], 0, 1, 2, 3, 8, 9, 10, 11)
            + __builtin_shufflevector(d[0], d[1], 4, 5, 6, 7, 12, 13, 14, 15);
    vec b = __builtin_shufflevector(d[2], d[3], 0, 1, 2, 3, 8, 9, 10, 11)
            + __builtin_shufflevector(d[2], d[3], 4, 5, 6, 7, 12, 13, 14, 15);
    vec c = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
            + __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    vec e = c + __builtin_shufflevector(c, c, 1, 0, 3, 2, 5, 4, 7, 6);
    p += __builtin_shufflevector(e, e, 0, 4, 2, 6);
#else
    vec a = __builtin_shufflevector(d[0], d[1], 0, 1, 4, 5) + __builtin_shufflevector(d[0], d[1], 2, 3, 6, 7);
    vec b = __builtin_shufflevector(d[2], d[3], 0, 1, 4, 5) + __builtin_shufflevector(d[2], d[3], 2, 3, 6, 7);
    p += __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
    *(four *)partial = p;
#endif
}

#if WIDTH >= 8
/* Lane i: a[i] + a[i ^ distance], or that of b where i & distance. */
VEC_INLINE vec vec_halves(vec a, vec b, const int distance)
{
#if WIDTH == 16
    if (distance == 4)
        return __builtin_shufflevector(a, b, 0, 1, 2, 3, 20, 21, 22, 23, 8, 9, 10, 11, 28, 29, 30, 31)
               + __builtin_shufflevector(a, b, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    if (distance == 2)
        return __builtin_shufflevector(a, b, 0, 1, 18, 19, 4, 5, 22, 23, 8, 9, 26, 27, 12, 13, 30, 31)
               + __builtin_shufflevector(a, b, 2, 3, 16, 17, 6, 7, 20, 21, 10, 11, 24, 25, 14, 15, 28, 29);
    return __builtin_shufflevector(a, b, 0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31)
           + __builtin_shufflevector(a, b, 1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
#else
    if (distance == 4)
        return __builtin_shufflevector(a, b, 0, 1, 2, 3, 12, 13, 14, 15)
               + __builtin_shufflevector(a, b, 4, 5, 6, 7, 8, 9, 10, 11);
    if (distance == 2)
        return __builtin_shufflevector(a, b, 0, 1, 10, 11, 4, 5, 14, 15)
               + __builtin_shufflevector(a, b, 2, 3, 8, 9, 6, 7, 12, 13);
    return __builtin_shufflevector(a, b, 0, 9, 2, 11, 4, 13, 6, 15)
           + __builtin_shufflevector(a, b, 1, 8, 3, 10, 5, 12, 7, 14);
#endif
}

/* mestk_add_line for eight lines and eight sums. */
VEC_INLINE void vec_add_8_dots(const vec *d, float *partial)
{
    typedef float eight __attribute__((ext_vector_type(8), aligned(4)));
    vec s[4], t[2], v;
    UNROLL for (int k = 0; k < 4; k++) s[k] = vec_halves(d[k], d[k + 4], 4);
    UNROLL for (int k = 0; k < 2; k++) t[k] = vec_halves(s[k], s[k + 2], 2);
    v = vec_halves(t[0], t[1], 1);
    eight *p = (eight *)partial;
#if WIDTH == 16
    *p = (*p + v.lo) + v.hi;
#else
    *p += v;
#endif
}
#endif
