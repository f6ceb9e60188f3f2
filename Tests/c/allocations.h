/* SPDX-License-Identifier: Apache-2.0
 * Counts what the process asks of the heap between watch() and unwatch(); nothing where a sanitizer has it. */
#ifndef ALLOCATIONS_H
#define ALLOCATIONS_H

#include "check.h"
#include <stdatomic.h>
#include <stdlib.h>

#define WATCHING (!SANITIZED)

static atomic_int watching;
static atomic_ulong calls, largest;

#if WATCHING
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void count_call(size_t size)
{
    if (!atomic_load(&watching)) return;
    atomic_fetch_add(&calls, 1);
    unsigned long seen = atomic_load(&largest);
    while (size > seen && !atomic_compare_exchange_weak(&largest, &seen, size)) { }
}

void *malloc(size_t size) { count_call(size); return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { count_call(count * size); return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { count_call(size); return __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { count_call(size); return __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { count_call(size); return __libc_memalign(alignment, size); }
void free(void *block) { if (block) count_call(0); __libc_free(block); }

int posix_memalign(void **out, size_t alignment, size_t size)
{
    count_call(size);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}
#endif

__attribute__((unused)) static void watch(void) { atomic_store(&calls, 0); atomic_store(&largest, 0); atomic_store(&watching, 1); }
__attribute__((unused)) static unsigned long unwatch(void) { atomic_store(&watching, 0); return atomic_load(&calls); }

#endif
