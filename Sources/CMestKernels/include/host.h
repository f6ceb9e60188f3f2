/* SPDX-License-Identifier: Apache-2.0 */
/* The few things asked of the C world outside arithmetic.  Freestanding builds have no posix_memalign
 * and no threads: there allocation fails (create_in remains) and the per-thread text is one text. */
#ifndef MESTK_HOST_H
#define MESTK_HOST_H
#include <stddef.h>
#include <stdint.h>

void *mestk_allocate(size_t size, size_t alignment); /* NULL on failure */
void mestk_release(void *block);

/* 256 bytes, zero-terminated, one a thread: messages of calls that have no model. */
char *mestk_thread_message(void);

/* mest_io's three functions on a piece of memory, to which `user` points; they cannot fail. */
int32_t mestk_memory_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user);
int32_t mestk_memory_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user);
int32_t mestk_memory_sync(uint32_t slot, void *user);

/* The value of an environment variable, or NULL; NULL where there is no environment. */
const char *mestk_environment(const char *name);

/* Static text about this build: "threads|openmp|serial, avx512 avx2 reference, here: avx512"; after "here" what
 * MEST_SIMD_AUTO means, and whether MEST_SIMD says so. */
const char *mestk_build_info(void);

/* The floating-point mode that the bits are of: rounding to nearest, subnormal numbers kept, no traps. A host may have
 * set another for its threads.  Returns the mode there was, for mestk_set_mode(). */
uint64_t mestk_plain_mode(void);
void mestk_set_mode(uint64_t mode);

/* Atomics on a flag that another thread or a signal handler may touch. */
int32_t mestk_exchange(int32_t *flag, int32_t value); /* returns what it held; acquire-release */
int32_t mestk_load(const int32_t *flag);
void mestk_store(int32_t *flag, int32_t value);

/* Calls body(scratch, context) with `bytes` of stack aligned to 16, and returns what it returned. */
int32_t mestk_with_stack(size_t bytes, int32_t (*body)(void *scratch, void *context), void *context);
#endif
