/* SPDX-License-Identifier: Apache-2.0
 * The same bits for every number of threads, instruction set and way to run the chunks, and resumed at every step.
 *
 *   determinism          compares them with one another
 *   determinism --print  prints one hash a network, to be compared with another build's */
#include "devices.h"
#include "training.h"
#include <pthread.h>

/* --------------------------------------------------------------- ways to run the chunks --- */

typedef void chunk_body(void *argument, uint32_t index, uint32_t worker);

static void backwards(uint32_t count, chunk_body *body, void *argument, void *user)
{
    (void)user;
    for (uint32_t i = count; i-- > 0;) body(argument, i, i % 2);
}

typedef struct share {
    uint32_t count, worker;
    chunk_body *body;
    void *argument;
} share;

static void *run_share(void *pointer)
{
    share *s = pointer;
    for (uint32_t i = s->worker; i < s->count; i += 3) s->body(s->argument, i, s->worker);
    return NULL;
}

/* Three threads that take every third chunk. */
static void own_threads(uint32_t count, chunk_body *body, void *argument, void *user)
{
    (void)user;
    share shares[3];
    pthread_t threads[3];
    int started[3] = { 0 };
    for (uint32_t w = 0; w < 3; w++) {
        shares[w] = (share){ count, w, body, argument };
        if (w < 2) started[w] = pthread_create(&threads[w], NULL, run_share, &shares[w]) == 0;
        if (!started[w]) run_share(&shares[w]);
    }
    for (uint32_t w = 0; w < 3; w++)
        if (started[w]) pthread_join(threads[w], NULL);
}

/* --------------------------------------------------------------------------------- stopping --- */

/* Before a step: saved, destroyed, and loaded into a new model with another instruction set and number of threads. */
static mest_status resume(mest_model **model, network n, uint32_t i, void *slots)
{
    mest_io io = device_io(slots);
    mest_status status = mest_model_save(*model, &io, NULL);
    mest_model_destroy(*model);
    n.config.threads = 1 + i % 3;
    n.config.simd = MEST_SIMD_REFERENCE + (int32_t)(i % 4);
    if (mest_model_create(&n.config, n.layers, n.count, NULL, model) == MEST_ERR_UNSUPPORTED) {
        n.config.simd = MEST_SIMD_AUTO; /* not of this machine */
        if (mest_model_create(&n.config, n.layers, n.count, NULL, model) != MEST_OK) return MEST_ERR_INTERNAL;
    }
    return status == MEST_OK ? mest_model_load(*model, &io, 0, NULL) : status;
}

static void compare(network n, const dataset *d, uint32_t epochs)
{
    n.config.threads = 1;
    n.config.simd = MEST_SIMD_REFERENCE;
    uint64_t expected = train(&n, d, NULL, epochs, NULL), other;

    n.config.simd = MEST_SIMD_AUTO;
    for (uint32_t threads = 0; threads <= 4; threads++) {
        if (threads == 2) continue; /* with every level, the best one too, below */
        n.config.threads = threads;
        other = train(&n, d, NULL, epochs, NULL);
        check(other == expected, "%s: %u threads: %016llx instead of %016llx", n.name, threads,
              (unsigned long long)other, (unsigned long long)expected);
    }
    static const char *simd[] = { "", "reference", "AVX2", "AVX-512", "NEON" };
    n.config.threads = 2;
    for (int32_t level = MEST_SIMD_REFERENCE; level <= MEST_SIMD_NEON; level++) {
        mest_status status;
        n.config.simd = level;
        other = train(&n, d, NULL, epochs, &status);
        if (status == MEST_ERR_UNSUPPORTED) {
            skip(simd[level], mest_last_error(NULL));
            continue;
        }
        check(other == expected, "%s: %s: %016llx instead of %016llx", n.name, simd[level], (unsigned long long)other,
              (unsigned long long)expected);
    }
    n.config.simd = MEST_SIMD_AUTO;
    n.config.threads = 3;
    mest_env env = { .struct_size = sizeof env, .parallel_for = backwards };
    check(train(&n, d, &env, epochs, NULL) == expected, "%s: chunks run backwards", n.name);
    env.parallel_for = own_threads;
    check(train(&n, d, &env, epochs, NULL) == expected, "%s: chunks run in the caller's threads", n.name);

    mest_plan_report plan = { .struct_size = sizeof plan };
    (void)!mest_plan(&n.config, n.layers, n.count, &plan, NULL);
    device slots = make_device(plan.checkpoint_bytes);
    check(train_with(resume, &slots, &n, d, NULL, epochs, NULL) == expected, "%s: resumed at every step", n.name);
    check(slots.wrong == 0, "%s: calls that no device can serve", n.name);
    free_device(&slots);

    n.config.seed++;
    check(train(&n, d, NULL, epochs, NULL) != expected, "%s: another seed gives the same bits", n.name);
}

int main(int argc, char **argv)
{
    int print = argc > 1 && !strcmp(argv[1], "--print");
    static network networks[MOST_NETWORKS];
    size_t count = every_network(networks);
    for (size_t i = 0; i < count; i++) {
        dataset d;
        if (print) {
            print_hash(&networks[i], NULL);
        } else if (data_for(&networks[i], &d)) {
            compare(networks[i], &d, epochs_for(&networks[i]));
            free_data(&d);
        }
    }
    return print ? checks.failed != 0 : finish("determinism");
}
