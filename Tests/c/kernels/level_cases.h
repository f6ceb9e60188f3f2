/* SPDX-License-Identifier: Apache-2.0 */
/* Levels: what this build must have, and how the environment variable MEST_SIMD is read. */
#ifndef KERNELS_LEVEL_CASES_H
#define KERNELS_LEVEL_CASES_H
#include "harness.h"

static void test_levels(void)
{
    static const char *const words[] = {"auto", "reference", "avx2", "avx512", "neon"};
    static const char *const wrong[] = {"AVX2", "avx", "avx5120", " neon", "neon ", "4", "fpu", "reference,avx2"};
    char *before = getenv("MEST_SIMD"), *kept = before ? strdup(before) : NULL;

    check(mestk_has_level(MESTK_REFERENCE) && mestk_has_level(mestk_best_level()), "levels", "reference, best");
    check(!mestk_has_level(0) && !mestk_has_level(-1) && !mestk_has_level(99), "levels", "none such");
    /* A level that is lost leaves the tests of the others green: those of the target are named here. */
#if defined(MESTK_NO_SIMD)
    check(!mestk_has_level(MESTK_AVX2) && !mestk_has_level(MESTK_AVX512) && !mestk_has_level(MESTK_NEON), "levels", "no SIMD");
#if defined(__FMA__) || defined(__aarch64__)
    check(mestk_best_level() == MESTK_FPU, "levels", "FPU");
#endif
#elif defined(__aarch64__)
    check(mestk_best_level() == MESTK_NEON && !mestk_has_level(MESTK_AVX2) && !mestk_has_level(MESTK_FPU), "levels", "AArch64");
#elif defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    check(mestk_has_level(MESTK_AVX2) == avx2 && !mestk_has_level(MESTK_NEON), "levels", "x86-64");
#endif

    unsetenv("MEST_SIMD");
    check(mestk_forced_level() == 0, "MEST_SIMD", "not set");
    check(!strstr(mestk_build_info(), "MEST_SIMD"), "MEST_SIMD, build info", "not set");
    setenv("MEST_SIMD", "", 1);
    check(mestk_forced_level() == 0, "MEST_SIMD", "empty");
    for (int32_t level = 0; level <= MESTK_NEON; level++) {
        char here[64];
        setenv("MEST_SIMD", words[level], 1);
        check(mestk_forced_level() == level, "MEST_SIMD", words[level]);
        check(strcmp(mestk_level_name(level), level ? words[level] : "") == 0, "level name", words[level]);
        if (level == 0) continue;
        snprintf(here, sizeof here, "here: %s, as MEST_SIMD says", words[level]);
        check(strstr(mestk_build_info(), mestk_has_level(level) ? here : "here: nothing, MEST_SIMD is refused") != NULL,
              "MEST_SIMD, build info", words[level]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("MEST_SIMD", wrong[i], 1);
        check(mestk_forced_level() == -1, "MEST_SIMD", wrong[i]);
        check(strstr(mestk_build_info(), "refused") != NULL, "MEST_SIMD, build info", wrong[i]);
    }
    if (kept) setenv("MEST_SIMD", kept, 1);
    else unsetenv("MEST_SIMD");
    free(kept);
}
#endif
