/* SPDX-License-Identifier: Apache-2.0
 * Checkpoints: stopping and resuming anywhere changes no bit; whatever happens to a slot, load returns a whole
 * state, says which, or says why not, and nothing has changed then. */
#include "check.h"
#include "devices.h"
#include "networks.h"

/* ------------------------------------------------------------------------------- training --- */

static mest_model *create(const network *n)
{
    mest_model *model = NULL;
    check(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK, "%s: create: %s", n->name,
          mest_last_error(NULL));
    return model;
}

static size_t slot_bytes(const network *n)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name,
          mest_last_error(NULL));
    return plan.checkpoint_bytes;
}

/* Step number i of a training; the hash of its report. */
static uint64_t step(mest_model *model, const network *n, const dataset *d, uint32_t i)
{
    uint32_t first = i * n->config.batch % d->samples, room = d->samples - first;
    mest_batch batch = batch_at(d, &n->config, first, room < n->config.batch ? room : n->config.batch);
    mest_step_report report = { .struct_size = sizeof report };
    mest_status status = mest_model_step(model, &batch, &report);
    check(status == MEST_OK, "%s: step %u: %s", n->name, i, mest_last_error(model));
    return hash_bytes(HASH_START, &report, offsetof(mest_step_report, count) + sizeof report.count);
}

static uint64_t mutation_hash(const mest_model *model)
{
    mest_mutation_report report = { .struct_size = sizeof report };
    return mest_model_mutation(model, &report, NULL, 0) == MEST_OK ? hash_bytes(HASH_START, &report, sizeof report) : 0;
}

static uint64_t whole_hash(const mest_model *model)
{
    uint64_t part = mutation_hash(model);
    mest_forgetting_report report = { .struct_size = sizeof report };
    if (mest_model_forgetting(model, &report, NULL, 0) == MEST_OK)
        part = hash_bytes(part, (char *)&report + sizeof report.struct_size, sizeof report - sizeof report.struct_size);
    uint64_t all = hash_model(model);
    return hash_bytes(all, &part, sizeof part);
}

/* After every step the model is saved, destroyed, and a new one loaded: with other threads and instruction sets in
 * turn.  Every report and every state must be that of the training that never stops. */
static void resume_always(network n, const dataset *d, uint32_t steps)
{
    static const int32_t levels[] = { MEST_SIMD_AUTO, MEST_SIMD_REFERENCE };
    mest_model *never = create(&n), *often = create(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    uint64_t fresh = whole_hash(never);
    for (uint32_t i = 0; i < steps; i++) {
        mest_checkpoint_report saved = { .struct_size = sizeof saved }, loaded = saved;
        if (!check(mest_model_save(often, &io, &saved) == MEST_OK, "%s: save before step %u: %s", n.name, i,
                   mest_last_error(often)))
            break;
        check(saved.slot == (int32_t)(i % 2) && saved.sequence == i + 1 && saved.bytes <= slots.bytes,
              "%s: save %u: slot %d, sequence %llu, %llu of %zu bytes", n.name, i, saved.slot,
              (unsigned long long)saved.sequence, (unsigned long long)saved.bytes, slots.bytes);
        mest_model_destroy(often);
        n.config.threads = 1 + i % 3;
        n.config.simd = levels[i % 2];
        often = create(&n);
        if (!check(mest_model_load(often, &io, 0, &loaded) == MEST_OK, "%s: load before step %u: %s", n.name, i,
                   mest_last_error(often)))
            break;
        check(loaded.slot == saved.slot && loaded.sequence == saved.sequence && loaded.updates == saved.updates
              && loaded.bytes_written == saved.bytes_written && loaded.damaged == 0,
              "%s: load %u reports otherwise", n.name, i);
        uint64_t a = step(never, &n, d, i), b = step(often, &n, d, i);
        if (!check(a == b, "%s: step %u reports otherwise after resuming", n.name, i)) break;
        if (!check(whole_hash(never) == whole_hash(often), "%s: step %u: another state after resuming", n.name, i)) break;
    }
    check(whole_hash(never) != fresh, "%s: nothing was trained", n.name);
    check(slots.wrong == 0, "%s: calls that no device can serve", n.name);
    free_device(&slots);
    mest_model_destroy(never);
    mest_model_destroy(often);
}

/* Two phases with margins, classes and a given order. */
static network forgetful(void)
{
    network n = residual();
    n.name = "two phases";
    n.config.phase1_epochs = 2;
    n.config.remove_rule = MEST_REMOVE_FRACTION;
    n.config.remove_fraction = 0.4f;
    n.config.remove_class_cap = 0.5f;
    n.config.forgetting_flags = MEST_FORGETTING_MARGIN | MEST_FORGETTING_ORDER;
    return n;
}

static network named(const char *name, network n)
{
    n.name = name;
    return n;
}

static void resume(void)
{
    network bf16 = named("residual, bf16", residual());
    bf16.config.activations = MEST_ACTIVATIONS_BF16;
    bf16.config.recompute = MEST_RECOMPUTE_BLOCK;
    network micro = named("residual, micro-batches", residual());
    micro.config.micro_batches = 3;
    network normalised = named("mlp, normalised", mlp());
    normalised.config.mutation_flags = MEST_MUTATION_NORMALISED | MEST_MUTATION_EXCLUDE_DROPPED;
    network global = named("mlp, global", mlp());
    global.config.mutation_flags = MEST_MUTATION_GLOBAL;
    global.config.importance_gradient = MEST_GRADIENT_MOMENTUM;
    network channel_ema = named("channels, averages", channels());
    channel_ema.config.importance_gradient = MEST_GRADIENT_EMA;
    channel_ema.config.micro_batches = 2;
    network networks[] = {
        mlp(), residual(), pools(), separable(), schemes(), scheme_convolutions(), channels(), forgetful(), bf16, micro,
        normalised, global, channel_ema, in_batches("schemes, one by one", schemes(), 1),
        by_method("residual, static", residual(), MEST_METHOD_STATIC),
        by_method("residual, vanilla", residual(), MEST_METHOD_VANILLA),
        by_method("residual, EM", residual(), MEST_METHOD_EM),
        by_method("mlp, SET", mlp(), MEST_METHOD_SET),
        by_method("mlp, GMP", mlp(), MEST_METHOD_GMP),
        by_method("residual, RigL", residual(), MEST_METHOD_RIGL),
        by_method("residual, DSR", residual(), MEST_METHOD_DSR),
        by_method("residual, lottery", residual(), MEST_METHOD_LOTTERY),
    };
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        const network *n = &networks[i];
        mest_plan_report plan = { .struct_size = sizeof plan };
        if (!check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name,
                   mest_last_error(NULL)))
            continue;
        dataset d = make_data(64, plan.inputs, plan.outputs);
        resume_always(*n, &d, n->config.batch == 1 ? 70 : 22);
        free_data(&d);
    }
}

int main(void)
{
    resume();
    return finish("checkpoint");
}
