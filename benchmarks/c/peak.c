/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do at best: multiply-adds from registers and with one operand from L1 or L2,
 * reading and copying memory.  The measure for "share of peak" in benchmarks/layers.py.
 *
 *     cc -O3 -pthread peak.c -o peak && ./peak [milliseconds a figure = 100]
 *
 * One line a figure: WHAT LEVEL THREADS VALUE UNIT, the best of many runs.  A multiply-add is 2 FLOP; a
 * copy counts what is read and what is written, not the line that a store may fetch first.  Levels are
 * those of mest_build_info; "vector" is what the compiler makes of 16 bytes on any other machine.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 2, L1 = 24 << 10, L2 = 256 << 10, DRAM = 192 << 20 };

typedef struct {
    float *memory; /* of this thread alone, DRAM bytes */
    long repeat;
} work;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Twelve independent sums: enough for a latency of 4 to 5 cycles on two ports, few enough for 16 registers. */
#define ALL(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define DECLARE(i) V s##i = {i}; /* all different, or a compiler makes one of them */
#define FROM_REGISTER(i) s##i = s##i * a + b;
#define FROM_MEMORY(i) s##i = p[i] * b + s##i;
#define LOAD(i) s##i += p[i];
#define GATHER(i) s0 += s##i;

/* Each returns the FLOP (or, for reading, bytes) of one thread. */
#define LEVEL(NAME, BYTES, TARGET)                                                                            \
    typedef float NAME##_v __attribute__((vector_size(BYTES), aligned(BYTES)));                               \
    TARGET static void NAME##_keep(work *w, NAME##_v v) { memcpy(w->memory, &v, sizeof v); }                  \
    TARGET static double NAME##_registers(work *w)                                                            \
    {                                                                                                         \
        typedef NAME##_v V;                                                                                   \
        V a, b;                                                                                               \
        memcpy(&a, w->memory, sizeof a), memcpy(&b, w->memory + 64, sizeof b);                                \
        ALL(DECLARE)                                                                                          \
        for (long i = 0; i < 1000 * w->repeat; i++) { ALL(FROM_REGISTER) }                                    \
        ALL(GATHER)                                                                                           \
        NAME##_keep(w, s0);                                                                                   \
        return 1000.0 * (double)w->repeat * 12 * 2 * (BYTES / 4);                                             \
    }                                                                                                         \
    TARGET static double NAME##_cache(work *w, long bytes)                                                    \
    {                                                                                                         \
        typedef NAME##_v V;                                                                                   \
        long n = bytes / BYTES / 12 * 12, rounds = w->repeat * 12000 / n + 1;                                 \
        V b;                                                                                                  \
        memcpy(&b, w->memory + 64, sizeof b);                                                                 \
        ALL(DECLARE)                                                                                          \
        for (long r = 0; r < rounds; r++) {                                                                   \
            for (const V *p = (const V *)w->memory, *end = p + n; p < end; p += 12) { ALL(FROM_MEMORY) }      \
            __asm__ volatile("" ::: "memory"); /* or the two loops may change places */                      \
        }                                                                                                     \
        ALL(GATHER)                                                                                           \
        NAME##_keep(w, s0);                                                                                   \
        return (double)rounds * (double)n * 2 * (BYTES / 4);                                                  \
    }                                                                                                         \
    TARGET static double NAME##_l1(work *w) { return NAME##_cache(w, L1); }                                   \
    TARGET static double NAME##_l2(work *w) { return NAME##_cache(w, L2); }                                   \
    TARGET static double NAME##_read(work *w)                                                                 \
    {                                                                                                         \
        typedef NAME##_v V;                                                                                   \
        long n = DRAM / BYTES / 12 * 12;                                                                      \
        ALL(DECLARE)                                                                                          \
        for (const V *p = (const V *)w->memory, *end = p + n; p < end; p += 12) { ALL(LOAD) }                 \
        ALL(GATHER)                                                                                           \
        NAME##_keep(w, s0);                                                                                   \
        return (double)n * BYTES;                                                                             \
    }

#if defined(__x86_64__)
LEVEL(avx512, 64, __attribute__((target("avx512f,fma"))))
LEVEL(avx2, 32, __attribute__((target("avx2,fma"))))
#endif
LEVEL(vector, 16, )

static double copy(work *w)
{
    memcpy((char *)w->memory + DRAM / 2, w->memory, DRAM / 2);
    return DRAM;
}

typedef struct {
    double (*run)(work *);
    work work;
    pthread_barrier_t *line; /* where all threads start at once */
    int index;
    double done, begin, end;
} job;

/* A core each: what lasts a millisecond is over before the system has moved one of two threads away. */
static void take_core(int index)
{
#ifdef __linux__
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all)) return;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all) || index-- > 0) continue;
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        return;
    }
#else
    (void)index;
#endif
}

static void *thread(void *argument)
{
    job *j = argument;
    take_core(j->index);
    pthread_barrier_wait(j->line);
    j->begin = now();
    j->done = j->run(&j->work);
    j->end = now();
    return NULL;
}

/* Work a second of all threads together. */
static double together(job *jobs, int threads)
{
    pthread_barrier_t line;
    pthread_t ids[MOST];
    double done = 0, begin = 1e99, end = 0;
    pthread_barrier_init(&line, NULL, (unsigned)threads);
    for (int t = 0; t < threads; t++) {
        jobs[t].line = &line;
        if (pthread_create(&ids[t], NULL, thread, &jobs[t])) abort();
    }
    for (int t = 0; t < threads; t++) {
        pthread_join(ids[t], NULL);
        done += jobs[t].done;
        if (jobs[t].begin < begin) begin = jobs[t].begin;
        if (jobs[t].end > end) end = jobs[t].end;
    }
    pthread_barrier_destroy(&line);
    return done / (end - begin);
}

static void figure(const char *what, const char *level, const char *unit, double (*run)(work *), float **memory,
                   double budget)
{
    for (int threads = 1; threads <= MOST; threads++) {
        job jobs[MOST];
        double best = 0, begin = now();
        for (int t = 0; t < threads; t++) jobs[t] = (job){.run = run, .work = {memory[t], 500}, .index = t};
        do {
            double found = together(jobs, threads);
            if (found > best) best = found;
        } while (now() - begin < budget);
        printf("%s %s %d %.1f %s\n", what, level, threads, best * 1e-9, unit);
        fflush(stdout);
    }
}

#define FIGURES(NAME)                                                          \
    figure("registers", #NAME, "GFLOP/s", NAME##_registers, memory, budget);   \
    figure("L1", #NAME, "GFLOP/s", NAME##_l1, memory, budget);                 \
    figure("L2", #NAME, "GFLOP/s", NAME##_l2, memory, budget);                 \
    figure("read", #NAME, "GB/s", NAME##_read, memory, budget);

int main(int argc, char **argv)
{
    double budget = (argc > 1 ? atoi(argv[1]) : 100) * 1e-3;
    float *memory[MOST];
    for (int t = 0; t < MOST; t++) {
        if (posix_memalign((void **)&memory[t], 64, DRAM)) return fprintf(stderr, "no memory\n"), 1;
        for (long i = 0; i < DRAM / 4; i++) memory[t][i] = 1e-6f * (float)(i % 1000);
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) { FIGURES(avx512) }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) { FIGURES(avx2) }
    if (!__builtin_cpu_supports("avx2"))
#endif
    { FIGURES(vector) }
    figure("copy", "memcpy", "GB/s", copy, memory, budget);
    for (int t = 0; t < MOST; t++) free(memory[t]);
    return 0;
}
