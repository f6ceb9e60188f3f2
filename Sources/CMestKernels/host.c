/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, a text per thread, atomics and stack.  Not arithmetic. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* posix_memalign */
#endif
#include "workers.h"

#if __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__))
#include <stdlib.h>

void *mestk_allocate(size_t size, size_t alignment)
{
    void *block = NULL;
    if (alignment < sizeof(void *)) alignment = sizeof(void *);
    return posix_memalign(&block, alignment, size ? size : 1) == 0 ? block : NULL;
}

void mestk_release(void *block) { free(block); }

const char *mestk_environment(const char *name) { return getenv(name); }

static _Thread_local char thread_message[256];
#else
void *mestk_allocate(size_t size, size_t alignment)
{
    (void)size, (void)alignment;
    return NULL;
}

void mestk_release(void *block) { (void)block; }

const char *mestk_environment(const char *name)
{
    (void)name;
    return NULL;
}

static char thread_message[256];
#endif

char *mestk_thread_message(void) { return thread_message; }

int32_t mestk_memory_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    (void)slot;
    memcpy(bytes, (const char *)user + offset, count);
    return 0;
}

int32_t mestk_memory_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user)
{
    (void)slot;
    memcpy((char *)user + offset, bytes, count);
    return 0;
}

int32_t mestk_memory_sync(uint32_t slot, void *user) { return (void)slot, (void)user, 0; }

#ifdef _OPENMP
#define RUNTIME "openmp"
#elif MESTK_HAS_WORKERS
#define RUNTIME "threads"
#else
#define RUNTIME "serial"
#endif
#if MESTK_X86
#define LEVELS ", avx512 avx2 reference, here: "
#elif MESTK_HAS_NEON
#define LEVELS ", neon reference, here: "
#elif MESTK_HAS_NATIVE
#define LEVELS ", fpu reference, here: "
#else
#define LEVELS ", reference, here: "
#endif

const char *mestk_build_info(void)
{
#define HERE(name) (forced ? RUNTIME LEVELS name ", as MEST_SIMD says" : RUNTIME LEVELS name)
    int32_t forced = mestk_forced_level();
    if (forced && !mestk_has_level(forced)) return RUNTIME LEVELS "nothing, MEST_SIMD is refused";
    switch (forced ? forced : mestk_best_level()) {
    case MESTK_AVX512: return HERE("avx512");
    case MESTK_AVX2: return HERE("avx2");
    case MESTK_NEON: return HERE("neon");
    case MESTK_FPU: return HERE("fpu");
    default: return HERE("reference");
    }
}

/* Elsewhere, on microcontrollers too, the mode is what the start code has set, for all. */
#if defined(__x86_64__)
static uint64_t mode(void) { return __builtin_ia32_stmxcsr(); }
void mestk_set_mode(uint64_t m) { __builtin_ia32_ldmxcsr((unsigned)m); }
enum { PLAIN = 0x1f80 };
#elif defined(__aarch64__)
static uint64_t mode(void)
{
    uint64_t m;
    __asm__ volatile("mrs %0, fpcr" : "=r"(m));
    return m;
}
void mestk_set_mode(uint64_t m) { __asm__ volatile("msr fpcr, %0" : : "r"(m)); }
enum { PLAIN = 0 };
#else
static uint64_t mode(void) { return 0; }
void mestk_set_mode(uint64_t m) { (void)m; }
enum { PLAIN = 0 };
#endif

uint64_t mestk_plain_mode(void)
{
    uint64_t before = mode();
    if (before != PLAIN) mestk_set_mode(PLAIN);
    return before;
}

/* Targets without atomic instructions (ARMv6-M, RV32I) would call libatomic.  They have one core:
 * what remains is that the compiler must not cache or split the access. */
#if __GCC_ATOMIC_INT_LOCK_FREE == 2
int32_t mestk_exchange(int32_t *flag, int32_t value) { return __atomic_exchange_n(flag, value, __ATOMIC_ACQ_REL); }
int32_t mestk_load(const int32_t *flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }
void mestk_store(int32_t *flag, int32_t value) { __atomic_store_n(flag, value, __ATOMIC_RELEASE); }
#else
int32_t mestk_exchange(int32_t *flag, int32_t value)
{
    int32_t old = *(volatile int32_t *)flag;
    *(volatile int32_t *)flag = value;
    return old;
}
int32_t mestk_load(const int32_t *flag) { return *(const volatile int32_t *)flag; }
void mestk_store(int32_t *flag, int32_t value) { *(volatile int32_t *)flag = value; }
#endif

/* The frame that owns the bytes must live while body runs: never inline. */
__attribute__((noinline)) int32_t mestk_with_stack(size_t bytes, int32_t (*body)(void *scratch, void *context),
                                                   void *context)
{
    char *raw = __builtin_alloca(bytes + 15);
    void *scratch = (void *)(((uintptr_t)raw + 15) & ~(uintptr_t)15);
    return body(scratch, context);
}

#if defined(__ARM_EABI__) && !__STDC_HOSTED__
/* What the compiler calls here by names of its own, which libgcc does not have: a port brings C's alone. */
#define ALSO(name) __attribute__((alias(name)))
void *memmove(void *to, const void *from, size_t size);
void __aeabi_memcpy(void *to, const void *from, size_t size) { memcpy(to, from, size); }
void __aeabi_memmove(void *to, const void *from, size_t size) { memmove(to, from, size); }
void __aeabi_memset(void *to, size_t size, int value) { memset(to, value, size); }
void __aeabi_memclr(void *to, size_t size) { memset(to, 0, size); }
ALSO("__aeabi_memcpy") void __aeabi_memcpy4(void *to, const void *from, size_t size);
ALSO("__aeabi_memcpy") void __aeabi_memcpy8(void *to, const void *from, size_t size);
ALSO("__aeabi_memmove") void __aeabi_memmove4(void *to, const void *from, size_t size);
ALSO("__aeabi_memmove") void __aeabi_memmove8(void *to, const void *from, size_t size);
ALSO("__aeabi_memset") void __aeabi_memset4(void *to, size_t size, int value);
ALSO("__aeabi_memset") void __aeabi_memset8(void *to, size_t size, int value);
ALSO("__aeabi_memclr") void __aeabi_memclr4(void *to, size_t size);
ALSO("__aeabi_memclr") void __aeabi_memclr8(void *to, size_t size);
#endif
