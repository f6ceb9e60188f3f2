/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the chunks of a kernel: a plain loop, threads of its own, OpenMP when built with it, or the caller's
 * parallel_for.  Which worker runs which chunk never changes a result.
 *
 * No <omp.h>: Swift's clang ships none.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "workers.h"

#if __STDC_HOSTED__ && defined(__linux__)
#include <sched.h>
#endif
#if __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__))
#include <unistd.h>
#endif

#ifdef _OPENMP
extern int omp_in_parallel(void);
extern int omp_get_thread_num(void);

static int run_threads(uint32_t threads, mestk_chunks *chunks)
{
    /* Inside somebody's region there are none, only trouble with their ids. */
    if (omp_in_parallel()) return 0;
    mestk_share_out(chunks, threads);
#pragma omp parallel num_threads((int)threads)
    mestk_take_chunks(chunks, (uint32_t)omp_get_thread_num());
    return 1;
}
#elif MESTK_HAS_WORKERS
static int run_threads(uint32_t threads, mestk_chunks *chunks)
{
    mestk_run_workers(threads, chunks);
    return 1;
}
#endif

void mestk_run(const mestk_context *k, uint32_t count, mestk_body body, void *argument)
{
    if (k->threads > 1 && count > 1) {
        if (k->parallel_for) {
            k->parallel_for(count, body, argument, k->user);
            return;
        }
#if MESTK_HAS_WORKERS || defined(_OPENMP)
        mestk_chunks chunks;
        uint32_t threads = (uint32_t)k->threads;
        chunks.body = body, chunks.argument = argument, chunks.count = count;
        if (run_threads(threads < count ? threads : count, &chunks)) return;
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
