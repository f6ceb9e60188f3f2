/* SPDX-License-Identifier: Apache-2.0
 * Steps in slices: the bits of whole steps whatever the quanta; between two slices nothing else changes the model; a
 * step that is dropped leaves it as it was. */
#include "check.h"
#include "every_network.h"

typedef struct trained {
    uint64_t hash;  /* of the reports and the model */
    uint64_t calls; /* of mest_model_step_slice */
    mest_status status;
} trained;

/* One step: whole, or in slices of `quantum`, or (vary) of other quanta each time. */
static mest_status step(mest_model *model, const mest_batch *batch, uint64_t quantum, int vary, mest_step_report *report,
                        uint64_t *calls)
{
    mest_status status = MEST_MORE;
    while (status == MEST_MORE) {
        status = mest_model_step_slice(model, batch, vary ? (*calls * 2654435761u) % 50000 : quantum, report);
        ++*calls;
    }
    return status;
}

static uint32_t steps_of(const network *n)
{
    return epochs_for(n) * 3 * (n->config.micro_batches ? n->config.micro_batches : 1);
}

static trained train(const network *n, const dataset *d, int whole, uint64_t quantum, int vary)
{
    trained t = { .hash = HASH_START };
    mest_model *model = NULL;
    t.status = mest_model_create(&n->config, n->layers, n->count, NULL, &model);
    for (uint32_t i = 0; t.status == MEST_OK && i < steps_of(n); i++) {
        mest_batch batch = nth_batch(d, &n->config, i);
        mest_step_report report = { .struct_size = sizeof report };
        t.status = whole ? mest_model_step(model, &batch, &report) : step(model, &batch, quantum, vary, &report, &t.calls);
        t.hash = hash_bytes(t.hash, &report, offsetof(mest_step_report, count) + sizeof report.count);
    }
    uint64_t state = hash_model(model);
    check(t.status == MEST_OK && state, "%s: %s: %s", n->name, mest_status_string(t.status), mest_last_error(model));
    t.hash = hash_bytes(t.hash, &state, sizeof state);
    mest_model_destroy(model);
    return t;
}

static void same_bits(const network *n, const dataset *d)
{
    trained whole = train(n, d, 1, 0, 0), layers = train(n, d, 0, 0, 0), one = train(n, d, 0, UINT64_MAX, 0);
    uint32_t steps = steps_of(n);
    check(layers.hash == whole.hash, "%s: layer by layer: other bits", n->name);
    check(one.hash == whole.hash && one.calls == steps, "%s: one slice a step: %llu calls", n->name,
          (unsigned long long)one.calls);
    /* Every layer forward, and those that train backward. */
    check(layers.calls >= (uint64_t)steps * (n->count + 2), "%s: %llu slices of one layer in %u steps", n->name,
          (unsigned long long)layers.calls, steps);
    trained some = train(n, d, 0, 20000, 0);
    check(some.hash == whole.hash && some.calls < layers.calls, "%s: 20000 multiply-adds: %llu calls", n->name,
          (unsigned long long)some.calls);
    check(train(n, d, 0, 0, 1).hash == whole.hash, "%s: changing quanta: other bits", n->name);
}

/* ------------------------------------------------------------------------- in the middle of a step --- */

static const char *refused_in_step(mest_model *model, const mest_batch *batch, const dataset *d)
{
    static float out[4096];
    static uint32_t ids[64];
    uint64_t count;
    mest_csr csr = { .struct_size = sizeof csr };
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    mest_selection selection = { .struct_size = sizeof selection };
    mest_forgetting_report forgetting = { .struct_size = sizeof forgetting };
    const struct { const char *name; mest_status status; } calls[] = {
        { "step", mest_model_step(model, batch, NULL) },
        { "begin_epoch", mest_model_begin_epoch(model, NULL) },
        { "mutate", mest_model_mutate(model, NULL) },
        { "mutation", mest_model_mutation(model, NULL, NULL, 0) },
        { "predict", mest_model_predict(model, d->x, 1, 0, out, 4096) },
        { "evaluate", mest_model_evaluate(model, batch, &evaluation) },
        { "tensor_size", mest_model_tensor_size(model, 1, MEST_TENSOR_WEIGHT, &count) },
        { "tensor_get", mest_model_tensor_get(model, 1, MEST_TENSOR_WEIGHT, out, 1) },
        { "tensor_set", mest_model_tensor_set(model, 1, MEST_TENSOR_WEIGHT, out, 1) },
        { "csr_get", mest_model_csr_get(model, 1, &csr) },
        { "csr_set", mest_model_csr_set(model, 1, &csr) },
        { "forgetting", mest_model_forgetting(model, &forgetting, NULL, 0) },
        { "select", mest_model_select(model, &selection, NULL, 0, &count) },
        { "order", mest_model_order(model, NULL, 0, &count) },
        { "order_set", mest_model_order_set(model, ids, 0) },
        { "save_file", mest_model_save_file(model, "slices.checkpoint", NULL) },
        { "load_file", mest_model_load_file(model, "slices.checkpoint", 0, NULL) },
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].status != MEST_ERR_STATE) return calls[i].name;
    return NULL;
}

/* The same samples elsewhere in memory. */
static mest_batch moved(mest_batch batch, const dataset *d)
{
    float *x = malloc(sizeof(float) * batch.count * d->inputs), *targets = malloc(sizeof(float) * batch.count * d->outputs);
    int32_t *labels = malloc(sizeof(int32_t) * batch.count);
    uint32_t *ids = batch.ids ? malloc(sizeof(uint32_t) * batch.count) : NULL;
    memcpy(x, batch.x, sizeof(float) * batch.count * d->inputs);
    memcpy(targets, batch.targets, sizeof(float) * batch.count * d->outputs);
    memcpy(labels, batch.labels, sizeof(int32_t) * batch.count);
    if (ids) memcpy(ids, batch.ids, sizeof(uint32_t) * batch.count);
    batch.x = x, batch.targets = targets, batch.labels = labels, batch.ids = ids;
    return batch;
}

static void release(mest_batch batch)
{
    free((void *)batch.x), free((void *)batch.targets), free((void *)batch.labels), free((void *)batch.ids);
}

/* Each step is begun, dropped after some slices, and begun again; bad batches come in between; the batch moves. */
static void dropped(const network *n, const dataset *d)
{
    mest_model *model = NULL, *alone = NULL;
    if (!check(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK, "%s", mest_last_error(NULL))) return;
    uint32_t micro = n->config.micro_batches, in_update = 0;
    uint32_t slices = 1; /* of a step */
    const char *taken = NULL;
    int changed = 0, not_dropped = 0, bad_taken = 0, no_plan = 0;
    for (uint32_t i = 0; i < steps_of(n); i++) {
        mest_batch batch = nth_batch(d, &n->config, i);
        mest_step_report report = { .struct_size = sizeof report };
        mest_status status = MEST_MORE;
        /* What is gathered goes with a step that is dropped.  The first one may begin an epoch, which stays. */
        for (int drop = 0; drop < 2 && in_update == 0; drop++) {
            uint64_t before = hash_model(model);
            status = MEST_MORE;
            for (uint32_t slice = 0; slice < (drop ? 1 + i % slices : 1) && status == MEST_MORE; slice++)
                status = mest_model_step_slice(model, &batch, 0, &report);
            const char *name = refused_in_step(model, &batch, d);
            if (name) taken = name;
            mest_plan_report plan = { .struct_size = sizeof plan };
            if (mest_model_plan(model, &plan, NULL) != MEST_OK) no_plan++;
            mest_model_cancel(model);
            mest_batch none = { .struct_size = sizeof none }; /* it may be gone */
            if (status != MEST_MORE || mest_model_step_slice(model, drop ? &none : NULL, 0, &report) != MEST_ERR_CANCELLED) not_dropped++;
            if (drop && hash_model(model) != before) changed++;
        }
        status = mest_model_step_slice(model, &batch, 0, &report);
        mest_batch other = moved(batch, d);
        for (slices = 0; status == MEST_MORE; slices++) {
            mest_batch bad = other;
            bad.count--;
            if (mest_model_step_slice(model, &bad, 0, &report) != MEST_ERR_ARGUMENT) bad_taken++;
            ((int32_t *)other.labels)[0] += 1000;
            if (n->config.loss != MEST_LOSS_MSE && mest_model_step_slice(model, &other, 0, &report) != MEST_ERR_ARGUMENT)
                bad_taken++;
            ((int32_t *)other.labels)[0] -= 1000;
            status = mest_model_step_slice(model, &other, 0, &report);
            mest_batch next = moved(other, d);
            release(other);
            other = next;
        }
        release(other);
        if (!check(status == MEST_OK, "%s: step %u: %s", n->name, i, mest_last_error(model))) break;
        in_update = micro > 1 && !(report.events & MEST_EVENT_UPDATED) ? in_update + 1 : 0;
    }
    check(!taken, "%s: mest_model_%s is not refused while a step is in work", n->name, taken ? taken : "");
    check(!not_dropped, "%s: %d steps were not dropped", n->name, not_dropped);
    check(!changed, "%s: %d dropped steps changed the model", n->name, changed);
    check(!bad_taken, "%s: %d wrong batches were taken", n->name, bad_taken);
    check(!no_plan, "%s: %d times no plan", n->name, no_plan);
    if (check(mest_model_create(&n->config, n->layers, n->count, NULL, &alone) == MEST_OK, "%s", mest_last_error(NULL))) {
        for (uint32_t i = 0; i < steps_of(n); i++) {
            mest_batch batch = nth_batch(d, &n->config, i);
            if (mest_model_step(alone, &batch, NULL) != MEST_OK) break;
        }
        check(hash_model(alone) == hash_model(model), "%s: other bits after steps that were dropped", n->name);
    }
    mest_model_destroy(alone);
    mest_model_destroy(model);
}

/* What does not exist afterwards: a step that diverges in its slices. */
static void diverges(const network *n, const dataset *d)
{
    mest_model *model = NULL;
    if (!check(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK, "%s", mest_last_error(NULL))) return;
    mest_batch batch = nth_batch(d, &n->config, 0), huge = moved(batch, d);
    uint64_t calls = 0;
    for (uint32_t i = 0; i < batch.count * d->inputs; i++) ((float *)huge.x)[i] = 3e38f;
    for (int first = 1; first >= 0; first--) { /* the first step is where SNIP and GraSP choose */
        uint64_t before = hash_model(model);
        mest_status status = step(model, &huge, 0, 0, NULL, &calls);
        check(status == MEST_ERR_DIVERGED && (first || hash_model(model) == before), "%s: huge inputs: %s", n->name,
              mest_status_string(status));
        if (first) check(step(model, &batch, 0, 0, NULL, &calls) == MEST_OK, "%s: %s", n->name, mest_last_error(model));
    }
    check(step(model, &batch, 0, 0, NULL, &calls) == MEST_OK, "%s: after it: %s", n->name, mest_last_error(model));
    release(huge);
    mest_model_destroy(model);
}

static network recomputed(const char *name, network n)
{
    n.name = name;
    n.config.recompute = MEST_RECOMPUTE_BLOCK;
    return n;
}

int main(void)
{
    static network networks[MOST_NETWORKS + 2];
    size_t count = every_network(networks);
    networks[count++] = recomputed("residual, recomputed", residual());
    networks[count++] = recomputed("residual, recomputed, SNIP", by_method("", residual(), MEST_METHOD_SNIP));
    for (size_t i = 0; i < count; i++) {
        network *n = &networks[i];
        n->config.threads = 2;
        mest_plan_report plan = { .struct_size = sizeof plan };
        if (!check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name,
                   mest_last_error(NULL)))
            continue;
        dataset d = make_data(samples_for(n), plan.inputs, plan.outputs);
        same_bits(n, &d);
        dropped(n, &d);
        diverges(n, &d);
        free_data(&d);
    }
    return finish("slices");
}
