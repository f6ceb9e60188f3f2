/* SPDX-License-Identifier: Apache-2.0
 * The same bits for every number of threads, instruction set and way to run the chunks, and resumed at every step.
 *
 *   determinism          compares them with one another
 *   determinism --print  prints one hash a network, to be compared with another build's */
#include "check.h"
#include "devices.h"
#include "every_network.h"
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

/* --------------------------------------------------------------------------------- training --- */

/* Saved, destroyed, and loaded into a new model with another instruction set and number of threads. */
static mest_status resume(mest_model **model, network n, device *slots, uint32_t i)
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

/* Trains for some epochs; the hash of the model and of everything that was reported.  With slots it stops and resumes
 * before every step. */
static uint64_t train_in(device *slots, const network *n, const dataset *d, const mest_env *env, uint32_t epochs,
                         mest_status *out_status)
{
    mest_model *model = NULL;
    mest_status status = mest_model_create(&n->config, n->layers, n->count, env, &model);
    if (out_status) *out_status = status;
    if (status != MEST_OK) return 0;
    uint32_t micro = n->config.micro_batches ? n->config.micro_batches : 1;
    uint64_t hash = HASH_START;
    for (uint32_t i = 0; status == MEST_OK && i < epochs * 3 * micro; i++) {
        mest_batch batch = nth_batch(d, &n->config, i);
        mest_step_report report = { .struct_size = sizeof report };
        if (slots) status = resume(&model, *n, slots, i);
        if (status == MEST_OK) status = mest_model_step(model, &batch, &report);
        hash = hash_bytes(hash, &report, offsetof(mest_step_report, count) + sizeof report.count); /* no padding */
    }
    int32_t method = n->config.method;
    int moves_between = method != MEST_METHOD_STATIC && !by_gradient(method) && method != MEST_METHOD_LOTTERY
        && method != MEST_METHOD_SNIP && method != MEST_METHOD_GRASP;
    if (status == MEST_OK && moves_between) status = mest_model_mutate(model, NULL);
    float *out = malloc(sizeof(float) * d->samples * d->outputs);
    if (status == MEST_OK)
        status = mest_model_predict(model, d->x, d->samples, n->config.loss == MEST_LOSS_MSE ? 0 : MEST_PREDICT_PROBABILITIES,
                                    out, (uint64_t)d->samples * d->outputs);
    if (status == MEST_OK) hash = hash_bytes(hash, out, sizeof(float) * d->samples * d->outputs);
    free(out);
    mest_batch all = batch_at(d, &n->config, 0, d->samples);
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    if (status == MEST_OK) status = mest_model_evaluate(model, &all, &evaluation);
    hash = hash_bytes(hash, &evaluation, sizeof evaluation);
    uint64_t state = hash_model(model);
    check(status == MEST_OK && state, "%s: training: %s: %s", n->name, mest_status_string(status), mest_last_error(model));
    mest_model_destroy(model);
    return hash_bytes(hash, &state, sizeof state);
}

static uint64_t train(const network *n, const dataset *d, const mest_env *env, uint32_t epochs, mest_status *out_status)
{
    return train_in(NULL, n, d, env, epochs, out_status);
}

static void compare(network n, const dataset *d, uint32_t epochs)
{
    n.config.threads = 1;
    n.config.simd = MEST_SIMD_REFERENCE;
    uint64_t expected = train(&n, d, NULL, epochs, NULL), other;
    check(expected == train(&n, d, NULL, epochs, NULL), "%s: two runs differ", n.name);

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
    check(train_in(&slots, &n, d, NULL, epochs, NULL) == expected, "%s: resumed at every step", n.name);
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
        network *n = &networks[i];
        mest_plan_report plan = { .struct_size = sizeof plan };
        if (!check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name,
                   mest_last_error(NULL)))
            continue;
        dataset d = make_data(samples_for(n), plan.inputs, plan.outputs);
        uint32_t epochs = epochs_for(n);
        if (print) printf("%s %016llx\n", n->name, (unsigned long long)train(n, &d, NULL, epochs, NULL));
        else compare(*n, &d, epochs);
        free_data(&d);
    }
    return print ? checks.failed != 0 : finish("determinism");
}
