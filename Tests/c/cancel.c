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

        uint64_t before = hash_model(model);
        watch(s, 0, stage, 0);
        mest_status status = call(model, stage, d, c, out);
        check(status == MEST_ERR_CALLBACK, "%s stopped by the callback: %s", stages[stage], mest_status_string(status));
        check(*mest_last_error(model), "%s stopped by the callback: no message", stages[stage]);
        check(hash_model(model) == before, "%s stopped by the callback: the model has changed", stages[stage]);

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
    while (!atomic_load(&c->over)) {
        mest_model_cancel(c->model);
        nanosleep(&(struct timespec){ .tv_nsec = 300000 }, NULL);
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

/* ---------------------------------------------------------------- two calls from two threads --- */

typedef struct other_call {
    mest_model *model;
    const dataset *d;
    const mest_config *c;
    mest_status status;
} other_call;

static void *step_from_a_thread(void *pointer)
{
    other_call *o = pointer;
    mest_batch batch = batch_at(o->d, o->c, 0, o->c->batch);
    o->status = mest_model_step(o->model, &batch, NULL);
    return NULL;
}

static int32_t call_from_a_thread(const mest_progress *now, void *user)
{
    (void)now;
    other_call *o = user;
    if (o->status != MEST_OK) return 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, step_from_a_thread, o) == 0) pthread_join(thread, NULL);
    return 0;
}

static void overlapping(const network *n, const dataset *d, float *out)
{
    other_call o = { NULL, d, &n->config, MEST_OK };
    mest_env env = { .struct_size = sizeof env, .user = &o, .progress = call_from_a_thread };
    if (!check(mest_model_create(&n->config, n->layers, n->count, &env, &o.model) == MEST_OK, "create")) return;
    uint64_t before = hash_model(o.model);
    check(mest_model_predict(o.model, d->x, d->samples, 0, out, (uint64_t)d->samples * d->outputs) == MEST_OK, "predict");
    check(o.status == MEST_ERR_STATE, "a step during a predict: %s", mest_status_string(o.status));
    check(hash_model(o.model) == before, "the refused step has changed the model");
    mest_model_destroy(o.model);
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
    overlapping(&n, &d, out);
    free(out);
    free_data(&d);
    return finish("cancel");
}
