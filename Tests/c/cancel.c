/* SPDX-License-Identifier: Apache-2.0
 * Cancelling: from another thread, from a callback, before a call; and stopping by a callback.  The
 * model is as before and stays usable. */
#include "check.h"
#include "networks.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

typedef struct surroundings {
    mest_model *model;
    int cancel_at_stage, stop_at_stage, after; /* after this many calls of progress for the stage */
    int seen[8];
    uint64_t done[8], total[8];
    int disorder;
} surroundings;

static int32_t progress(const mest_progress *now, void *user)
{
    surroundings *s = user;
    int stage = now->stage;
    if (now->struct_size != sizeof *now || stage < 1 || stage > 4) {
        s->disorder++;
        return 0;
    }
    if (now->total && now->done > now->total) s->disorder++;
    s->done[stage] = now->done;
    s->total[stage] = now->total;
    int reached = s->seen[stage]++ >= s->after;
    if (reached && s->cancel_at_stage == stage) mest_model_cancel(s->model);
    return reached && s->stop_at_stage == stage ? 7 : 0;
}

static void watch(surroundings *s, int cancel_at, int stop_at, int after)
{
    *s = (surroundings){ .model = s->model, .cancel_at_stage = cancel_at, .stop_at_stage = stop_at, .after = after };
}

static mest_status call(mest_model *model, int stage, const dataset *d, const mest_config *c, float *out)
{
    mest_batch batch = batch_at(d, c, 0, stage == MEST_STAGE_STEP ? c->batch : d->samples);
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    switch (stage) {
    case MEST_STAGE_STEP:    return mest_model_step(model, &batch, NULL);
    case MEST_STAGE_MUTATE:  return mest_model_mutate(model, NULL);
    case MEST_STAGE_PREDICT: return mest_model_predict(model, d->x, d->samples, 0, out, (uint64_t)d->samples * d->outputs);
    default:                 return mest_model_evaluate(model, &batch, &evaluation);
    }
}

static const char *const stages[] = { "", "step", "mutate", "predict", "evaluate" };

static void by_callback(mest_model *model, surroundings *s, const dataset *d, const mest_config *c, float *out)
{
    for (int stage = MEST_STAGE_STEP; stage <= MEST_STAGE_EVALUATE; stage++) {
        watch(s, 0, 0, 0);
        check(call(model, stage, d, c, out) == MEST_OK, "%s: %s", stages[stage], mest_last_error(model));
        check(s->seen[stage] > 0, "%s: no progress was reported", stages[stage]);
        check(s->disorder == 0, "%s: %d wrong reports of progress", stages[stage], s->disorder);

        /* The n-th time, for every n. */
        int times = s->seen[stage];
        uint64_t before = hash_model(model);
        mest_status status;
        for (int n = 0; n < times; n++) {
            watch(s, 0, stage, n);
            status = call(model, stage, d, c, out);
            check(status == MEST_ERR_CALLBACK && s->seen[stage] == n + 1, "%s stopped by the callback, time %d of %d: %s",
                  stages[stage], s->seen[stage], n + 1, mest_status_string(status));
            check(*mest_last_error(model), "%s stopped by the callback: no message", stages[stage]);
            check(hash_model(model) == before, "%s stopped by the callback: the model has changed", stages[stage]);
        }

        watch(s, stage, 0, 0);
        status = call(model, stage, d, c, out);
        if (status == MEST_OK) { /* asked when it was done: then it is the next call's */
            watch(s, 0, 0, 0);
            before = hash_model(model);
            status = call(model, stage, d, c, out);
        }
        check(status == MEST_ERR_CANCELLED, "%s cancelled in the callback: %s", stages[stage], mest_status_string(status));
        check(hash_model(model) == before, "%s cancelled in the callback: the model has changed", stages[stage]);
        watch(s, 0, 0, 0);
        status = call(model, stage, d, c, out);
        check(status == MEST_OK, "%s after a cancelled one: %s: %s", stages[stage], mest_status_string(status),
              mest_last_error(model));
    }
}

static void before_the_call(mest_model *model, surroundings *s, const dataset *d, const mest_config *c, float *out)
{
    watch(s, 0, 0, 0);
    for (int stage = MEST_STAGE_STEP; stage <= MEST_STAGE_EVALUATE; stage++) {
        uint64_t before = hash_model(model);
        mest_model_cancel(model);
        mest_model_cancel(model); /* twice is once */
        mest_status status = call(model, stage, d, c, out);
        check(status == MEST_ERR_CANCELLED, "%s after cancel: %s", stages[stage], mest_status_string(status));
        check(hash_model(model) == before, "%s after cancel: the model has changed", stages[stage]);
        status = call(model, stage, d, c, out);
        check(status == MEST_OK, "%s: the request was not used up: %s", stages[stage], mest_status_string(status));
    }
    uint64_t before = hash_model(model);
    mest_model_cancel(model);
    mest_status status = mest_model_begin_epoch(model, NULL);
    check(status == MEST_ERR_CANCELLED && hash_model(model) == before, "begin_epoch after cancel: %s",
          mest_status_string(status));
    check(mest_model_begin_epoch(model, NULL) == MEST_OK, "begin_epoch: %s", mest_last_error(model));
}

/* ------------------------------------------------------------------------ from another thread --- */

typedef struct canceller {
    mest_model *model;
    atomic_int over;
} canceller;

static void *cancel_often(void *pointer)
{
    canceller *c = pointer;
    for (int i = 0; !atomic_load(&c->over); i++) {
        mest_model_cancel(c->model);
        nanosleep(&(struct timespec){ .tv_nsec = 100000 << i % 8 }, NULL); /* shorter and longer than a step takes */
    }
    return NULL;
}

/* Whatever moment the request comes: a step is done wholly or not at all.  So the number of steps
 * that succeeded alone decides the bits. */
static void from_a_thread(const network *n, const dataset *d)
{
    mest_model *model = NULL, *alone = NULL;
    if (!check(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK
                   && mest_model_create(&n->config, n->layers, n->count, NULL, &alone) == MEST_OK,
               "create: %s", mest_last_error(NULL)))
        return;
    canceller c = { .model = model };
    pthread_t thread;
    if (!check(pthread_create(&thread, NULL, cancel_often, &c) == 0, "pthread_create")) return;
    int cancelled = 0, done = 0, other = 0;
    mest_batch batch = batch_at(d, &n->config, 0, n->config.batch);
    time_t end = time(NULL) + 20;
    while ((cancelled < 20 || done < 20) && time(NULL) < end) {
        mest_status status = mest_model_step(model, &batch, NULL);
        if (status == MEST_OK) done++;
        else if (status == MEST_ERR_CANCELLED) cancelled++;
        else other++;
    }
    atomic_store(&c.over, 1);
    pthread_join(thread, NULL);
    check(other == 0, "cancelled from a thread: %d steps failed otherwise: %s", other, mest_last_error(model));
    check(cancelled > 0 && done > 0, "cancelled from a thread: %d steps cancelled, %d done", cancelled, done);
    mest_status last_step = MEST_ERR_CANCELLED;
    for (int i = 0; i < 2 && last_step == MEST_ERR_CANCELLED; i++) last_step = mest_model_step(model, &batch, NULL);
    check(last_step == MEST_OK, "the step after the last request: %s", mest_status_string(last_step));
    for (int i = 0; i < done + 1; i++)
        check(mest_model_step(alone, &batch, NULL) == MEST_OK, "step: %s", mest_last_error(alone));
    check(hash_model(model) == hash_model(alone), "a cancelled step left something behind");
    mest_model_destroy(model);
    mest_model_destroy(alone);
}

/* ------------------------------------------------------ while connections are being chosen --- */

typedef struct loops {
    mest_model *model;
    int left; /* parallel loops until the request */
} loops;

static void cancel_in_a_loop(uint32_t count, void (*body)(void *, uint32_t, uint32_t), void *argument, void *user)
{
    loops *l = user;
    if (l->left-- == 0) mest_model_cancel(l->model);
    for (uint32_t i = 0; i < count; i++) body(argument, i, 0);
}

/* In any of the loops of the first step: all is as before, or the connections are chosen and the rest is as
 * before; and they are the same ones. */
static void while_choosing(network n, int32_t method, const dataset *d)
{
    n.config.method = method;
    mest_batch batch = batch_at(d, &n.config, 0, n.config.batch);
    mest_model *alone = NULL;
    check(mest_model_create(&n.config, n.layers, n.count, NULL, &alone) == MEST_OK, "create: %s", mest_last_error(NULL));
    uint64_t untouched = hash_model(alone);
    check(mest_model_step(alone, &batch, NULL) == MEST_OK, "step: %s", mest_last_error(alone));
    int undone = 0, chosen = 0;
    for (int at = 0;; at++) {
        loops l = { .left = at };
        mest_env env = { .struct_size = sizeof env, .parallel_for = cancel_in_a_loop, .user = &l };
        if (mest_model_create(&n.config, n.layers, n.count, &env, &l.model) != MEST_OK) break;
        mest_status status = mest_model_step(l.model, &batch, NULL);
        mest_mutation_report report = { .struct_size = sizeof report };
        check(mest_model_mutation(l.model, &report, NULL, 0) == MEST_OK, "mutation: %s", mest_last_error(l.model));
        if (status == MEST_OK) { /* the request came too late, or not at all */
            check(hash_model(l.model) == hash_model(alone), "method %d: not as without cancelling", method);
            mest_model_destroy(l.model);
            break;
        }
        check(status == MEST_ERR_CANCELLED, "method %d, loop %d: %s", method, at, mest_status_string(status));
        if (report.mutations == 0) undone++;
        else chosen++;
        check(report.mutations > 0 || hash_model(l.model) == untouched, "method %d, loop %d left something", method, at);
        mest_step_report step = { .struct_size = sizeof step };
        check(mest_model_step(l.model, &batch, &step) == MEST_OK, "step: %s", mest_last_error(l.model));
        check((step.events & MEST_EVENT_MUTATED) && hash_model(l.model) == hash_model(alone),
              "method %d, cancelled in loop %d: another step", method, at);
        mest_model_destroy(l.model);
    }
    check(undone > 2 && chosen > 2, "method %d: cancelled %d times before and %d after the choice", method, undone, chosen);
    mest_model_destroy(alone);
}

/* ------------------------------------------------------------------------- within one layer --- */

enum { MOST_SLICES = 256 };

static mest_model *in_loops(const network *n, loops *l)
{
    mest_env env = { .struct_size = sizeof env, .parallel_for = cancel_in_a_loop, .user = l };
    l->model = NULL;
    l->left = -1;
    check(mest_model_create(&n->config, n->layers, n->count, &env, &l->model) == MEST_OK, "create: %s", mest_last_error(NULL));
    return l->model;
}

/* A call that is asked in any of its loops to stop begins no layer more.  Slices of one layer each tell which loops
 * are whose. */
static void within_a_layer(network n, float *out)
{
    n.config.threads = 2;
    n.config.batch = 64;
    n.config.steps_per_epoch = 1 << 20; /* so that none begins where the model is compared */
    loops l;
    mest_model *model = in_loops(&n, &l);
    dataset d = make_data(64, n.layers[0].channels * n.layers[0].height * n.layers[0].width, 10);
    mest_batch batch = batch_at(&d, &n.config, 0, 64);
    check(mest_model_step(model, &batch, NULL) == MEST_OK, "step: %s", mest_last_error(model)); /* begins the epoch */
    int ends[MOST_SLICES], slices = 0, most = 0;
    l.left = -1;
    for (mest_status status = MEST_MORE; status == MEST_MORE && slices < MOST_SLICES; slices++) {
        status = mest_model_step_slice(model, &batch, 0, NULL);
        ends[slices] = -1 - l.left;
        int own = ends[slices] - (slices ? ends[slices - 1] : 0);
        if (own > most) most = own;
        check(status == MEST_OK || status == MEST_MORE, "%s: slice: %s", n.name, mest_last_error(model));
    }
    int total = ends[slices - 1], update = ends[slices - 2], late = 0, changed = 0, finished = 0;
    check(most < total / 4, "%s: %d of a step's %d loops are one layer's", n.name, most, total);
    for (int at = 0, slice = 0; at < total; at++) {
        while (ends[slice] <= at) slice++;
        uint64_t before = hash_model(model);
        l.left = at;
        mest_status status = mest_model_step(model, &batch, NULL);
        int done = at - l.left;
        if (at >= update) { /* nothing of it is done by halves: the next call is stopped */
            finished += status == MEST_OK && mest_model_step(model, &batch, NULL) == MEST_ERR_CANCELLED;
            continue;
        }
        late += status != MEST_ERR_CANCELLED || done > ends[slice];
        changed += hash_model(model) != before;
    }
    check(late == 0 && finished == total - update, "%s: %d of %d requests were heeded late, %d of %d in the update", n.name,
          late, total, finished, total - update);
    check(changed == 0, "%s: %d cancelled steps have changed the model", n.name, changed);
    for (int stage = MEST_STAGE_PREDICT; stage <= MEST_STAGE_EVALUATE; stage++) {
        int longest = 0;
        mest_status status = MEST_ERR_CANCELLED;
        for (int at = 0; status == MEST_ERR_CANCELLED && at < 10000; at++) {
            l.left = at;
            status = call(model, stage, &d, &n.config, out);
            if (status == MEST_ERR_CANCELLED && -l.left > longest) longest = -l.left;
        }
        if (status == MEST_OK && l.left < 0) status = call(model, stage, &d, &n.config, out); /* asked in the last loop */
        check(longest > 0 && longest <= most, "%s, %s: %d loops after the request", n.name, stages[stage], longest);
    }
    mest_model_destroy(model);
    free_data(&d);
}

/* ---------------------------------------------------------------- two calls from two threads --- */

enum { OTHER_STEP, OTHER_SELECT, OTHER_CSR_GET, OTHER_FORGETTING, OTHER_MUTATION, OTHER_CALLS };
static const char *const others[] = { "step", "select", "csr_get", "forgetting", "mutation" };

static mest_status other(mest_model *model, int which, const dataset *d, const mest_config *c)
{
    mest_batch batch = batch_at(d, c, 0, c->batch);
    mest_selection selection = { .struct_size = sizeof selection };
    mest_csr csr = { .struct_size = sizeof csr };
    mest_forgetting_report forgetting = { .struct_size = sizeof forgetting };
    uint64_t count;
    switch (which) {
    case OTHER_STEP:       return mest_model_step(model, &batch, NULL);
    case OTHER_SELECT:     return mest_model_select(model, &selection, NULL, 0, &count);
    case OTHER_CSR_GET:    return mest_model_csr_get(model, 1, &csr);
    case OTHER_FORGETTING: return mest_model_forgetting(model, &forgetting, NULL, 0);
    default:               return mest_model_mutation(model, NULL, NULL, 0);
    }
}

typedef struct other_call {
    mest_model *model;
    const dataset *d;
    const mest_config *c;
    int calls;
} other_call;

static void *call_everything(void *pointer)
{
    other_call *o = pointer;
    for (int which = 0; which < OTHER_CALLS; which++) {
        mest_status status = other(o->model, which, o->d, o->c);
        check(status == MEST_ERR_STATE, "%s during another call: %s", others[which], mest_status_string(status));
        /* The model's message is the running call's. */
        check(strstr(mest_last_error(NULL), "another call") != NULL, "%s during another call: the thread's message: %s",
              others[which], mest_last_error(NULL));
        check(!*mest_last_error(o->model), "%s during another call: the model has its message", others[which]);
        o->calls++;
    }
    mest_model_destroy(o->model); /* ignored */
    return NULL;
}

static int32_t call_from_a_thread(const mest_progress *now, void *user)
{
    (void)now;
    other_call *o = user;
    if (o->calls > 0) return 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_everything, o) == 0) pthread_join(thread, NULL);
    mest_model_destroy(o->model); /* ignored, from the caller's own thread too */
    return 0;
}

/* While a call runs, every other one from another thread is refused, and destroy does nothing. */
static void overlapping(const network *n, const dataset *d, float *out)
{
    for (int stage = MEST_STAGE_STEP; stage <= MEST_STAGE_EVALUATE; stage++) {
        other_call o = { NULL, d, &n->config, 0 };
        mest_env env = { .struct_size = sizeof env, .user = &o, .progress = call_from_a_thread };
        mest_model *alone;
        if (!check(mest_model_create(&n->config, n->layers, n->count, &env, &o.model) == MEST_OK
                       && mest_model_create(&n->config, n->layers, n->count, NULL, &alone) == MEST_OK,
                   "create: %s", mest_last_error(NULL)))
            return;
        for (int i = 0; i < 2; i++) { /* the model still works after the overlapping calls */
            check(call(o.model, stage, d, &n->config, out) == MEST_OK, "%s: %s", stages[stage], mest_last_error(o.model));
            check(call(alone, stage, d, &n->config, out) == MEST_OK, "%s: %s", stages[stage], mest_last_error(alone));
        }
        check(o.calls == OTHER_CALLS, "%s: the other thread called %d times", stages[stage], o.calls);
        check(hash_model(o.model) == hash_model(alone), "%s: refused calls have changed the model", stages[stage]);
        mest_model_destroy(o.model);
        mest_model_destroy(alone);
    }
}

typedef struct reader {
    other_call o;
    atomic_int over, refused;
    int failed;
} reader;

static void *read_often(void *pointer)
{
    reader *r = pointer;
    for (int which = OTHER_SELECT; !atomic_load(&r->over); which = which % OTHER_MUTATION + 1) {
        mest_status status = other(r->o.model, which, r->o.d, r->o.c);
        if (status == MEST_ERR_STATE) atomic_fetch_add(&r->refused, 1);
        else if (status != MEST_OK) r->failed++;
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    return NULL;
}

/* The same at any moment: each of two threads gets its result or STATE, the one that reads too. */
static void racing(network n, const dataset *d)
{
    n.config.samples = 1 << 17; /* so that reading takes a while */
    reader r = { .o = { NULL, d, &n.config, 0 } };
    mest_model *alone;
    pthread_t thread;
    if (!check(mest_model_create(&n.config, n.layers, n.count, NULL, &r.o.model) == MEST_OK
                   && mest_model_create(&n.config, n.layers, n.count, NULL, &alone) == MEST_OK,
               "create: %s", mest_last_error(NULL))
        || !check(pthread_create(&thread, NULL, read_often, &r) == 0, "pthread_create"))
        return;
    int done = 0, refused = 0, failed = 0;
    for (time_t end = time(NULL) + 20; (done < 60 || refused < 5 || !atomic_load(&r.refused)) && time(NULL) < end;) {
        mest_status status = other(r.o.model, OTHER_STEP, d, &n.config);
        if (status == MEST_OK) done++;
        else if (status == MEST_ERR_STATE) refused++;
        else failed++;
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    atomic_store(&r.over, 1);
    pthread_join(thread, NULL);
    check(!failed && !r.failed, "racing: %d steps and %d reads failed", failed, r.failed);
    check(done > 0 && refused > 0 && r.refused > 0, "racing: %d steps done, %d refused, %d reads refused", done, refused,
          r.refused);
    for (int i = 0; i < done; i++)
        check(other(alone, OTHER_STEP, d, &n.config) == MEST_OK, "step: %s", mest_last_error(alone));
    check(hash_model(r.o.model) == hash_model(alone), "racing: reads have changed the model");
    mest_model_destroy(r.o.model);
    mest_model_destroy(alone);
}

int main(void)
{
    network n = residual();
    n.config.threads = 2;
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&n.config, n.layers, n.count, &plan, NULL) == MEST_OK, "plan: %s", mest_last_error(NULL)))
        return finish("cancel");
    dataset d = make_data(64, plan.inputs, plan.outputs);
    float *out = malloc(sizeof(float) * d.samples * d.outputs);

    surroundings s = { 0 };
    mest_env env = { .struct_size = sizeof env, .user = &s, .progress = progress };
    if (check(mest_model_create(&n.config, n.layers, n.count, &env, &s.model) == MEST_OK, "create: %s", mest_last_error(NULL))) {
        by_callback(s.model, &s, &d, &n.config, out);
        before_the_call(s.model, &s, &d, &n.config, out);
    }
    mest_model_destroy(s.model);
    from_a_thread(&n, &d);
    within_a_layer(n, out);
    within_a_layer(separable(), out);
    while_choosing(n, MEST_METHOD_SNIP, &d);
    while_choosing(n, MEST_METHOD_GRASP, &d);
    overlapping(&n, &d, out);
    racing(n, &d);
    free(out);
    free_data(&d);
    return finish("cancel");
}
