/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How: every worker has a mailbox, which its caller fills and it empties.  Both look for a while before they sleep.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* pthread_setname_np */
#endif
#include "workers.h"

#if MESTK_HAS_WORKERS
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* How often to look before sleeping: 0.1 ms on x86.  The kernels of a step follow each other faster, and so do short steps;
 * a thread that must be woken costs them some percent (benchmarks/threads.py with 1000: 1.03 of OpenMP's time). */
enum { LOOKS = 4000 };

typedef struct bell {
    int32_t asleep; /* whoever it wakes */
    pthread_cond_t rings;
} bell;

/* Work goes to and fro: the caller hands a job over, the worker hands it back as NULL. */
typedef struct worker {
    _Alignas(64) mestk_chunks *work;
    int32_t claimed; /* by a caller */
    uint32_t number; /* in the job; the caller is 0 */
    bell worker, caller;
    pthread_mutex_t mutex; /* held to fall asleep and to ring */
} worker;

static worker workers[MESTK_MOST_THREADS - 1];
static uint32_t started, refused; /* how many there are; whether the system gave no more, the last time */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

enum { STACK_BYTES = 1 << 20 }; /* kernels need some KB; where all memory is locked, the system's 8 MB would count */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#endif
}

static mestk_chunks *look(worker *w) { return __atomic_load_n(&w->work, __ATOMIC_ACQUIRE); }

/* Between what this thread has stored and what it looks at, on both sides: either who hands over sees that the other
 * sleeps, or the other sees what was handed over.  A fence, since emulators let a later load overtake an ordered store
 * (qemu 7.2, AArch64). */
static void settle(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static void hand_over(worker *w, mestk_chunks *work)
{
    bell *other = work ? &w->worker : &w->caller;
    __atomic_store_n(&w->work, work, __ATOMIC_RELEASE);
    settle();
    if (!__atomic_load_n(&other->asleep, __ATOMIC_RELAXED)) return;
    pthread_mutex_lock(&w->mutex);
    pthread_cond_signal(&other->rings);
    pthread_mutex_unlock(&w->mutex);
}

/* The worker waits for work, the caller for its end. */
static mestk_chunks *wait_for(worker *w, int wants_work)
{
    bell *own = wants_work ? &w->worker : &w->caller;
    for (int i = 0; i < LOOKS; i++) {
        mestk_chunks *work = look(w);
        if (!work == !wants_work) return work;
        relax();
    }
    pthread_mutex_lock(&w->mutex);
    __atomic_store_n(&own->asleep, 1, __ATOMIC_RELAXED);
    settle();
    mestk_chunks *work;
    while (work = look(w), !work != !wants_work) pthread_cond_wait(&own->rings, &w->mutex);
    __atomic_store_n(&own->asleep, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&w->mutex);
    return work;
}

static void *live(void *pointer)
{
    worker *w = pointer;
    mestk_plain_mode(); /* not that of who has started it */
#ifdef __linux__
    pthread_setname_np(pthread_self(), "mest");
#endif
    for (;;) {
        mestk_chunks *work = wait_for(w, 1);
        mestk_take_chunks(work, w->number);
        hand_over(w, NULL);
    }
    return NULL;
}

/* In the child of a fork. */
static void forget_workers(void)
{
    memset(workers, 0, sizeof workers);
    started = refused = 0;
    starting = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static int start(worker *w)
{
    pthread_t thread;
    pthread_attr_t detached;
    sigset_t all, before;
    if (pthread_mutex_init(&w->mutex, NULL) || pthread_attr_init(&detached)) return 0;
    if (pthread_cond_init(&w->worker.rings, NULL) || pthread_cond_init(&w->caller.rings, NULL)) return 0;
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, STACK_BYTES);
    sigfillset(&all); /* signals are the host's, but what a thread does to itself must be told */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = pthread_create(&thread, &detached, live, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    return status == 0;
}

static void start_workers(uint32_t wanted)
{
    static int watches_forks; /* children inherit that, too; twice is once */
    if (!__atomic_load_n(&watches_forks, __ATOMIC_ACQUIRE)) { /* before the lock, which a fork would leave locked */
        if (pthread_atfork(NULL, NULL, forget_workers)) return;
        __atomic_store_n(&watches_forks, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_lock(&starting);
    while (started < wanted && !__atomic_load_n(&refused, __ATOMIC_RELAXED)) {
        if (start(&workers[started])) __atomic_store_n(&started, started + 1, __ATOMIC_RELEASE);
        else __atomic_store_n(&refused, 1u, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&starting);
}

/* Whether the caller, who is one of the threads, lacks others that could be had. */
static int lacks(uint32_t wanted)
{
    return __atomic_load_n(&started, __ATOMIC_ACQUIRE) < wanted && !__atomic_load_n(&refused, __ATOMIC_RELAXED);
}

void mestk_start_workers(uint32_t threads)
{
    __atomic_store_n(&refused, 0u, __ATOMIC_RELAXED); /* there may be some now */
    if (lacks(threads - 1)) start_workers(threads - 1);
}

void mestk_run_workers(uint32_t threads, mestk_chunks *chunks)
{
    /* In the child of a fork none has been started yet. */
    if (lacks(threads - 1)) start_workers(threads - 1);
    int cancels; /* who waits here could be cancelled, and workers would go on in a stack that is gone */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancels);
    uint32_t there = __atomic_load_n(&started, __ATOMIC_ACQUIRE), mine = 0;
    worker *claimed[MESTK_MOST_THREADS - 1];
    for (uint32_t i = 0; i < there && mine + 1 < threads; i++)
        if (!__atomic_exchange_n(&workers[i].claimed, 1, __ATOMIC_ACQUIRE)) claimed[mine++] = &workers[i];

    mestk_share_out(chunks, mine + 1);
    for (uint32_t n = 0; n < mine; n++) {
        claimed[n]->number = n + 1;
        hand_over(claimed[n], chunks);
    }
    mestk_take_chunks(chunks, 0);
    for (uint32_t n = 0; n < mine; n++) {
        wait_for(claimed[n], 0);
        __atomic_store_n(&claimed[n]->claimed, 0, __ATOMIC_RELEASE);
    }
    pthread_setcancelstate(cancels, &cancels);
}
#else
void mestk_start_workers(uint32_t threads) { (void)threads; }
#endif
