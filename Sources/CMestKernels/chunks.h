/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunks of a kernel, shared out.  Every worker has a range of neighbouring chunks, whose data are then in its
 * caches from kernel to kernel; who is done takes from the others'.
 */
#ifndef MESTK_CHUNKS_H
#define MESTK_CHUNKS_H
#include "internal.h"

typedef struct mestk_chunks {
    mestk_body body;
    void *argument;
    uint32_t count, ranges;
    uint32_t next[MESTK_MOST_THREADS]; /* of each range the first chunk that nobody has taken */
} mestk_chunks;

MESTK_INLINE uint32_t mestk_range_start(const mestk_chunks *c, uint32_t range)
{
    return (uint32_t)((uint64_t)c->count * range / c->ranges);
}

/* For `workers` of them, 0 to workers - 1. */
MESTK_INLINE void mestk_share_out(mestk_chunks *c, uint32_t workers)
{
    c->ranges = workers;
    for (uint32_t range = 0; range < workers; range++) c->next[range] = mestk_range_start(c, range);
}

/* What one worker does. */
MESTK_INLINE void mestk_take_chunks(mestk_chunks *c, uint32_t worker)
{
    for (uint32_t n = 0; n < c->ranges; n++) {
        uint32_t range = (worker + n) % c->ranges, end = mestk_range_start(c, range + 1);
        for (;;) {
            uint32_t i = __atomic_fetch_add(&c->next[range], 1u, __ATOMIC_RELAXED);
            if (i >= end) break;
            c->body(c->argument, i, worker);
        }
    }
}
#endif
