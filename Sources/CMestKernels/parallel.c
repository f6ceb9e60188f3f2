/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the chunks of a kernel: a plain loop, OpenMP, or the caller's parallel_for.  It is not a
 * scheduler: which worker runs which chunk never changes a result, so they race for the next one.
 *
 * No schedule(dynamic): code of a new clang asks LLVM 14's libomp for an entry it does not have.  No
 * <omp.h>: Swift's clang ships none.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "internal.h"

#if __STDC_HOSTED__ && defined(__linux__)
#include <sched.h>
#endif
#if __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__))
#include <unistd.h>
#endif

#ifdef _OPENMP
extern int omp_in_parallel(void);
extern int omp_get_thread_num(void);

static void run_openmp(int32_t threads, uint32_t count, mestk_body body, void *argument)
{
    uint32_t next = 0;
#pragma omp parallel num_threads(threads)
    {
        uint32_t worker = (uint32_t)omp_get_thread_num();
        for (;;) {
            uint32_t i = __atomic_fetch_add(&next, 1u, __ATOMIC_RELAXED);
            if (i >= count) break;
            body(argument, i, worker);
        }
    }
}
#endif

void mestk_run(const mestk_context *k, uint32_t count, mestk_body body, void *argument)
{
    if (k->threads > 1 && count > 1) {
        if (k->parallel_for) {
            k->parallel_for(count, body, argument, k->user);
            return;
        }
#ifdef _OPENMP
        /* Inside somebody's region there are no threads to be had, only trouble with their ids. */
        if (!omp_in_parallel()) {
            uint32_t threads = (uint32_t)k->threads;
            run_openmp((int32_t)(threads < count ? threads : count), count, body, argument);
            return;
        }
#endif
    }
    for (uint32_t i = 0; i < count; i++) body(argument, i, 0);
}

int32_t mestk_cores(void)
{
#if __STDC_HOSTED__ && defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0) return n;
    }
#endif
#if __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__))
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n > 0) return (int32_t)n;
#endif
    return 1;
}
