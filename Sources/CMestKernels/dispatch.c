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
#if MESTK_HAS_PORTABLE
    if (level == MESTK_PORTABLE) return 1;
#endif
    return level == MESTK_REFERENCE;
}

int32_t mestk_best_level(void)
{
#if MESTK_HAS_PORTABLE
    return MESTK_PORTABLE;
#else
    for (int32_t level = MESTK_AVX512; level > MESTK_REFERENCE; level--)
        if (mestk_has_level(level)) return level;
    return MESTK_REFERENCE;
#endif
}

const mestk_kernels *mestk_kernels_of(int32_t level)
{
#if MESTK_X86
    if (level == MESTK_AVX512) return &mestk_avx512_kernels;
    if (level == MESTK_AVX2) return &mestk_avx2_kernels;
#endif
#if MESTK_HAS_PORTABLE
    if (level == MESTK_PORTABLE) return &mestk_portable_kernels;
#endif
    (void)level;
    return &mestk_reference_kernels;
}
