/* SPDX-License-Identifier: Apache-2.0 */
/* mestk_run: every chunk once, by a worker that exists; who has none left helps. */
#ifndef KERNELS_RUN_CASES_H
#define KERNELS_RUN_CASES_H
#include "harness.h"
#include <time.h>

enum { MOST_CHUNKS = 100 };

typedef struct run_record {
    uint32_t runs[MOST_CHUNKS], threads;
    int strays;
    uint32_t waits_for; /* others, that chunk 0 waits for */
} run_record;

static uint32_t chunks_run(run_record *r)
{
    uint32_t sum = 0;
    for (int i = 0; i < MOST_CHUNKS; i++) sum += __atomic_load_n(&r->runs[i], __ATOMIC_RELAXED);
    return sum;
}

static void record_chunk(void *argument, uint32_t index, uint32_t worker)
{
    run_record *r = argument;
    if (index >= MOST_CHUNKS || worker >= r->threads) {
        __atomic_fetch_add(&r->strays, 1, __ATOMIC_RELAXED);
        return;
    }
    if (index == 0)
        for (time_t begin = time(NULL); chunks_run(r) < r->waits_for && time(NULL) - begin < 10;) {}
    __atomic_fetch_add(&r->runs[index], 1, __ATOMIC_RELAXED);
}

/* A parallel_for that counts how often it is called. */
static void count_call(uint32_t count, mestk_body body, void *argument, void *calls)
{
    ++*(char *)calls;
    for (uint32_t i = 0; i < count; i++) body(argument, i, 0);
}

static void test_run(void)
{
    static const uint32_t counts[] = {1, 2, 3, 7, MOST_CHUNKS};
    char where[80];
    for (int threads = 1; threads <= 5; threads++) {
        for (int i = 0; i < 5; i++) {
            mestk_context k = {MESTK_REFERENCE, threads, NULL, NULL};
            run_record r = {.threads = (uint32_t)threads};
            mestk_run(&k, counts[i], record_chunk, &r);
            int once = chunks_run(&r) == counts[i] && !r.strays;
            for (uint32_t c = 0; c < counts[i]; c++) once &= r.runs[c] == 1;
            snprintf(where, sizeof where, "%u chunks, %d threads", counts[i], threads);
            check(once, "run", where);
        }
    }
    for (int light = 0; light < 2; light++) {
        mestk_context k = {MESTK_REFERENCE, 2, count_call, &where};
        run_record r = {.threads = 2};
        where[0] = 0;
        mestk_run_light(&k, 7, MESTK_LIGHT - light, record_chunk, &r);
        check(chunks_run(&r) == 7 && where[0] == !light, "run light", light ? "a plain loop" : "the caller's threads");
    }
#ifdef MESTK_THREADS
    mestk_context k = {MESTK_REFERENCE, 2, NULL, NULL};
    run_record r = {.threads = 2, .waits_for = 7};
    time_t begin = time(NULL);
    mestk_run(&k, 8, record_chunk, &r);
    check(time(NULL) - begin < 9 && chunks_run(&r) == 8, "run", "one worker waits, the other takes its chunks");
#endif
}
#endif
