/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that knows which instruction set does the work.  Every level gives the same bits. */
#include "internal.h"

int32_t mestk_has_level(int32_t level)
{
#if MESTK_X86
    if (level == MESTK_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
               && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
               && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (level == MESTK_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if MESTK_HAS_NATIVE
    if (level == MESTK_NATIVE) return 1;
#endif
    return level == MESTK_REFERENCE;
}

int32_t mestk_most_lanes(void) { return MESTK_MOST_LANES; }

int32_t mestk_best_level(void)
{
#if MESTK_HAS_NATIVE
    return MESTK_NATIVE;
#else
    for (int32_t level = MESTK_AVX512; level > MESTK_REFERENCE; level--)
        if (mestk_has_level(level)) return level;
    return MESTK_REFERENCE;
#endif
}

/* By MESTK_REFERENCE ...; what has no public number has no name in the environment. */
static const char *const names[] = {"auto", "reference", "avx2", "avx512", "neon", "fpu"};

static int32_t equal(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

int32_t mestk_forced_level(void)
{
    const char *value = mestk_environment("MEST_SIMD");
    if (!value || !*value) return 0;
    for (int32_t level = 0; level <= MESTK_NEON; level++)
        if (equal(value, names[level])) return level;
    return -1;
}

const char *mestk_level_name(int32_t level) { return level >= MESTK_REFERENCE && level <= MESTK_FPU ? names[level] : ""; }

const mestk_kernels *mestk_kernels_of(int32_t level)
{
#if MESTK_X86
    if (level == MESTK_AVX512) return &mestk_avx512_kernels;
    if (level == MESTK_AVX2) return &mestk_avx2_kernels;
#endif
#if MESTK_HAS_NATIVE
    if (level == MESTK_NATIVE) return &mestk_native_kernels;
#endif
    (void)level;
    return &mestk_reference_kernels;
}
