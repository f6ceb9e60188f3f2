/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of the library's own.  They are started for the first model that wants them, belong to the process and
 * sleep when nobody has work.  A kernel takes those that are free: models that run at the same time share them.
 *
 * Nothing here can fail: where a thread cannot be had, the caller does its work.  After a fork the child, which has
 * none of its parent's threads, starts its own.
 */
#ifndef MESTK_WORKERS_H
#define MESTK_WORKERS_H
#include "chunks.h"

#if defined(MESTK_THREADS) && !defined(_OPENMP) && __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__))
#define MESTK_HAS_WORKERS 1
#else
#define MESTK_HAS_WORKERS 0
#endif

/* Takes all chunks, on up to `threads` threads, the caller's included, and returns when they are done. */
void mestk_run_workers(uint32_t threads, mestk_chunks *chunks);
#endif
