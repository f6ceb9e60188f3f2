/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the chunks of a kernel: a plain loop, OpenMP, or the caller's parallel_for.  Which worker runs which
 * chunk never changes a result.
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

static uint32_t range_start(uint32_t count, uint32_t range, uint32_t ranges)
{
    return (uint32_t)((uint64_t)count * range / ranges);
}

/* Every worker has a range of neighbouring chunks, whose data are then in its caches from kernel to kernel; who
 * is done takes from the others'. */
static void run_openmp(uint32_t threads, uint32_t count, mestk_body body, void *argument)
{
    uint32_t next[MESTK_MOST_THREADS];
    for (uint32_t range = 0; range < threads; range++) next[range] = range_start(count, range, threads);
#pragma omp parallel num_threads((int)threads)
    {
        uint32_t worker = (uint32_t)omp_get_thread_num();
        for (uint32_t n = 0; n < threads; n++) {
            uint32_t range = (worker + n) % threads, end = range_start(count, range + 1, threads);
            for (;;) {
                uint32_t i = __atomic_fetch_add(&next[range], 1u, __ATOMIC_RELAXED);
                if (i >= end) break;
                body(argument, i, worker);
            }
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
            run_openmp(threads < count ? threads : count, count, body, argument);
            return;
        }
#endif
    }
    for (uint32_t i = 0; i < count; i++) body(argument, i, 0);
}

void mestk_run_light(const mestk_context *k, uint32_t count, int64_t values, mestk_body body, void *argument)
{
    mestk_context alone = {.level = k->level, .threads = 1};
    mestk_run(values < MESTK_LIGHT ? &alone : k, count, body, argument);
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
