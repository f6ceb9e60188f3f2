/* SPDX-License-Identifier: Apache-2.0
 * What the library's threads are to the process: no more of them than a model asked for, asleep when idle, started
 * anew in the child of a fork, deaf to signals, and not needed where the system gives none. */
#define _GNU_SOURCE /* RUSAGE_THREAD, sched */
#include "check.h"
#include "networks.h"
#include "process.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 12, THREADS = 3 };

static network net;
static dataset data;
static uint64_t expected; /* of STEPS steps */

static mest_model *make(uint32_t threads)
{
    mest_model *model = NULL;
    network n = net;
    n.config.threads = threads;
    (void)!mest_model_create(&n.config, n.layers, n.count, NULL, &model); /* without one nothing below succeeds */
    return model;
}

static int train(mest_model *model, int from, int to)
{
    for (int i = from; i < to; i++) {
        mest_batch batch = batch_at(&data, &net.config, (uint32_t)i % 4 * 16, 16);
        if (mest_model_step(model, &batch, NULL) != MEST_OK) return 0;
    }
    return 1;
}

static double processor_seconds(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + 1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

static void nap(long milliseconds)
{
    struct timespec t = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    nanosleep(&t, NULL);
}

/* --------------------------------------------------------------------------------------- forks --- */

/* What a child did: 0 if it trained to the same bits.  A child that hangs is killed. */
static int in_a_child(int (*body)(void *), void *argument)
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) {
        alarm(60);
        _exit(body(argument));
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void *nothing(void *unused) { return unused; }

static void *wait_until(void *over)
{
    while (!__atomic_load_n((int *)over, __ATOMIC_ACQUIRE)) nap(1);
    return NULL;
}

/* Where the child of a process with threads can have none (qemu-user, the thread sanitizer), there are no forks to test. */
static int starts_a_thread(void *unused)
{
    pthread_t thread;
    return !(pthread_create(&thread, NULL, nothing, unused) == 0 && pthread_join(thread, NULL) == 0);
}

static int trains_anew(void *unused)
{
    (void)unused;
    mest_model *model = make(THREADS);
    int ok = model && train(model, 0, STEPS) && hash_model(model) == expected;
    mest_model_destroy(model);
    return !ok;
}

static int goes_on(void *model) { return !(train(model, STEPS / 2, STEPS) && hash_model(model) == expected); }

static int forks_again(void *unused) { return in_a_child(trains_anew, unused); }

static void test_fork(void)
{
    check(in_a_child(trains_anew, NULL) == 0, "fork before threads: another model in the child");
    mest_model *model = make(THREADS);
    check(train(model, 0, STEPS / 2), "half of the training");
    check(in_a_child(trains_anew, NULL) == 0, "fork: a new model in the child");
    check(in_a_child(goes_on, model) == 0, "fork: the parent's model goes on in the child");
    check(in_a_child(forks_again, NULL) == 0, "fork of a fork");
    check(train(model, STEPS / 2, STEPS) && hash_model(model) == expected, "the parent goes on as if nothing were");
    mest_model_destroy(model);
}

static int stop_training;

static void *train_on(void *model)
{
    while (!__atomic_load_n(&stop_training, __ATOMIC_ACQUIRE)) train(model, 0, 4);
    return NULL;
}

/* The child sees the other thread's model in the middle of a step: it is busy for ever, and its own are not. */
static int trains_beside(void *model)
{
    mest_batch batch = batch_at(&data, &net.config, 0, 16);
    mest_status status = mest_model_step(model, &batch, NULL);
    if (status != MEST_OK && status != MEST_ERR_STATE) return 2;
    return trains_anew(NULL);
}

static void test_fork_beside(void)
{
    mest_model *model = make(THREADS);
    pthread_t thread;
    if (!check(pthread_create(&thread, NULL, train_on, model) == 0, "pthread_create")) return;
    int bad = 0;
    for (int i = 0; i < 20; i++) bad += in_a_child(trains_beside, model) != 0;
    __atomic_store_n(&stop_training, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    check(bad == 0, "%d of 20 children of a fork beside a running step failed", bad);
    mest_model_destroy(model);
}

/* ------------------------------------------------------------------------------------- threads --- */

static void *one_training(void *bad)
{
    mest_model *model = make(THREADS);
    if (!model || !train(model, 0, STEPS) || hash_model(model) != expected) __atomic_fetch_add((int *)bad, 1, __ATOMIC_RELAXED);
    mest_model_destroy(model);
    return NULL;
}

/* Models that run at the same time share the threads of the one that wants most. */
static void test_number_of_threads(int before)
{
    enum { MODELS = 6 };
    pthread_t threads[MODELS];
    int bad = 0;
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < MODELS; i++) check(pthread_create(&threads[i], NULL, one_training, &bad) == 0, "pthread_create");
        for (int i = 0; i < MODELS; i++) pthread_join(threads[i], NULL);
    }
    check(bad == 0, "%d of 60 trainings beside others have other bits", bad);
    int threaded = strstr(mest_build_info(), "serial") == NULL, own = strstr(mest_build_info(), "threads") != NULL;
    int expected_threads = own ? THREADS - 1 : 0, more = threads_here() - before; /* the library's stay */
    for (int i = 0; i < 100 && more > expected_threads; i++) { /* one that was joined is on its way out for a moment */
        nap(10);
        more = threads_here() - before;
    }
    if (before < 0) skip("number of threads", "no /proc");
    else if (own || !threaded) check(more == expected_threads, "%d threads of the library, %d expected", more, expected_threads);
}

static void test_idle(void)
{
    mest_model *model = make(THREADS);
    check(train(model, 0, 4), "train");
    nap(20);
    double before = processor_seconds();
    nap(500);
    double used = processor_seconds() - before;
    check(used < 0.05, "half a second of doing nothing took %.3f s of the processors", used);
    mest_model_destroy(model);
}

static pthread_t main_thread;
static int signals, elsewhere;

static void count_signal(int number)
{
    (void)number;
    __atomic_fetch_add(pthread_equal(pthread_self(), main_thread) ? &signals : &elsewhere, 1, __ATOMIC_RELAXED);
}

/* Signals of the process are the host's threads' own. */
static void test_signals(void)
{
    main_thread = pthread_self();
    signal(SIGUSR1, count_signal);
    mest_model *model = make(THREADS);
    sigset_t one, old;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, &old); /* only others could take it */
    check(train(model, 0, 4) && kill(getpid(), SIGUSR1) == 0, "train and signal");
    nap(20);
    check(elsewhere == 0, "a thread of the library took the process's signal");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    check(signals == 1, "the signal waited for its thread");
    mest_model_destroy(model);
    signal(SIGUSR1, SIG_DFL);
}

/* Where the library's threads may run; what a child finds that may run on one processor alone. */
static int on_one_processor(void *unused)
{
    (void)unused;
    cpu_set_t own, other, one;
    if (sched_getaffinity(0, sizeof own, &own)) return 3;
    if (CPU_COUNT(&own) < 2) return 4;
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &own)) CPU_SET(i, &one);
    if (sched_setaffinity(0, sizeof one, &one)) return 5;
    mest_plan_report plan = { .struct_size = sizeof plan };
    network n = net;
    n.config.threads = 0;
    if (mest_plan(&n.config, n.layers, n.count, &plan, NULL) != MEST_OK || plan.threads != 1) return 6;
    mest_model *model = make(THREADS);
    if (!train(model, 0, 1)) return 7;
    DIR *tasks = opendir("/proc/self/task");
    int others = 0;
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        pid_t task = (pid_t)atoi(entry->d_name);
        if (task == 0 || task == getpid()) continue;
        if (sched_getaffinity(task, sizeof other, &other) || !CPU_EQUAL(&other, &one)) return 8;
        others++;
    }
    if (tasks) closedir(tasks);
    return strstr(mest_build_info(), "threads") && tasks && others != THREADS - 1 ? 9 : 0;
}

static void test_affinity(void)
{
    int status = in_a_child(on_one_processor, NULL);
    if (status >= 3 && status <= 5) skip("one processor", "there is but one, or it cannot be chosen here");
    else check(status == 0, "on one processor: %d", status);
}

/* In a child that may have no more threads. */
static int without_threads(void *unused)
{
    struct rlimit none = { 0, 0 };
    if (setrlimit(RLIMIT_NPROC, &none)) return 3;
    if (getuid() == 0 && setuid(65534)) return 4; /* root has no limit */
    pthread_t thread;
    if (pthread_create(&thread, NULL, train_on, NULL) == 0) return 5;
    return trains_anew(unused);
}

/* Cancelled from outside: not inside a call, and the model is free. */
static void *train_for_ever(void *model)
{
    for (int i = 0;; i = 1 - i) {
        if (!train(model, i, i + 1)) return model;
        pthread_testcancel();
    }
}

static void test_pthread_cancel(void)
{
    for (int round = 0; round < 10; round++) {
        mest_model *model = make(THREADS);
        pthread_t thread;
        if (!check(pthread_create(&thread, NULL, train_for_ever, model) == 0, "pthread_create")) return;
        nap(2 + round);
        void *result;
        check(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED, "pthread_cancel");
        check(train(model, 0, 1), "after a cancelled thread: %s", mest_last_error(model));
        mest_model_destroy(model);
    }
}

/* The host's floating-point mode, flushing subnormal numbers say, is neither used nor changed. */
static void test_floating_point_mode(void)
{
#if defined(__x86_64__)
    unsigned plain = __builtin_ia32_stmxcsr(), flushing = plain | 0x8040;
    __builtin_ia32_ldmxcsr(flushing);
    mest_model *model = make(THREADS);
    int ok = train(model, 0, STEPS);
    check((__builtin_ia32_stmxcsr() & 0xffc0) == (flushing & 0xffc0), "the caller's floating-point mode was changed");
    __builtin_ia32_ldmxcsr(plain);
    check(ok && hash_model(model) == expected, "other bits where the caller flushes subnormal numbers");
    mest_model_destroy(model);
#endif
}

int main(void)
{
    net = residual();
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&net.config, net.layers, net.count, &plan, NULL) == MEST_OK, "plan: %s", mest_last_error(NULL)))
        return finish("processes");
    data = make_data(64, plan.inputs, plan.outputs);
    mest_model *model = make(1);
    check(train(model, 0, STEPS), "train");
    expected = hash_model(model);
    mest_model_destroy(model);

    pthread_t thread;
    int over = 0;
    check(pthread_create(&thread, NULL, wait_until, &over) == 0, "pthread_create");
    /* That one is surely there: a thread that was joined may be seen for a moment longer, and the thread sanitizer has
     * one of its own as soon as the program has any. */
    int before = threads_here() - 1;
    int children = in_a_child(starts_a_thread, NULL) == 0;
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    if (children) test_fork();
    else skip("children", "they can have no threads here");
    test_number_of_threads(before);
    if (children) test_fork_beside();
    test_idle();
    test_signals();
    test_pthread_cancel();
    test_floating_point_mode();
    if (children) test_affinity();
    int status = children ? in_a_child(without_threads, NULL) : 3;
    if (status >= 3 && status <= 5) skip("without threads", "the limit cannot be set here");
    else check(status == 0, "where the system gives no thread: %d", status);
    free_data(&data);
    return finish("processes");
}
