/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks and who runs them.  A kernel cuts its work into chunks that depend on shapes alone, never
 * on the number of threads; chunks write disjoint memory or a buffer of their own that is summed in
 * chunk order.  So the bits do not depend on threads and any schedule is allowed.
 */
#ifndef MESTK_PARALLEL_H
#define MESTK_PARALLEL_H
#include <stdint.h>

typedef void (*mestk_body)(void *argument, uint32_t index, uint32_t worker);

/* Instruction set used by the kernels that have a vector path; the numbers of MEST_SIMD_*.  FPU: fused
 * multiply-add without vectors (Cortex-M4F, RV32F); no public number, where it exists it is the best. */
enum { MESTK_REFERENCE = 1, MESTK_AVX2 = 2, MESTK_AVX512 = 3, MESTK_NEON = 4, MESTK_FPU = 5 };

enum { MESTK_MOST_THREADS = 256 };

/* How one model computes: passed to every kernel. */
typedef struct mestk_context {
    int32_t level;   /* MESTK_REFERENCE ... */
    int32_t threads; /* workers 0 .. threads-1; 1 to MESTK_MOST_THREADS */
    void (*parallel_for)(uint32_t count, mestk_body body, void *argument, void *user); /* or NULL */
    void *user;
} mestk_context;

/* Runs body(argument, i, worker) for every i < count: by parallel_for when given, else on as many threads as can be
 * had, when threads > 1 and count > 1, else in a plain loop.  A worker takes neighbouring chunks, in order, and at
 * last what others have not come to. */
void mestk_run(const mestk_context *k, uint32_t count, mestk_body body, void *argument);

/* The same for chunks that go through `values` values in all and do little with each: when these are so few that
 * waking a thread takes longer, a plain loop. */
enum { MESTK_LIGHT = 16384 };
void mestk_run_light(const mestk_context *k, uint32_t count, int64_t values, mestk_body body, void *argument);

/* Starts the threads that a model with so many will want; else its first kernel does. */
void mestk_start_workers(uint32_t threads);

/* Cores this process may use, at least 1. */
int32_t mestk_cores(void);

/* Best level of this machine and build; honours nothing but the CPU. */
int32_t mestk_best_level(void);

/* The level that the environment variable MEST_SIMD names, whether this machine has it or not.
 * 0: none (not set, empty, "auto", or no environment); -1: its value is no level's name. */
int32_t mestk_forced_level(void);

/* "avx512"; "" for what is no level.  Static text. */
const char *mestk_level_name(int32_t level);

/* 1 when the machine and the build can run this level. */
int32_t mestk_has_level(int32_t level);

/* The most lanes of a batch that the build has kernels for, 16 or 1. */
int32_t mestk_most_lanes(void);
#endif
