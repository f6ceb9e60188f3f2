/* SPDX-License-Identifier: Apache-2.0
 * Checkpoints: stopping and resuming anywhere changes no bit; two slots in turn; files of earlier formats.
 *
 *   checkpoint                 the tests, in the repository's root
 *   checkpoint --write FILE    writes a file of today's format and prints what it continues to */
#include "checkpoints.h"

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
        by_method("residual, SNIP", residual(), MEST_METHOD_SNIP),
        by_method("residual, GraSP", residual(), MEST_METHOD_GRASP),
        by_method("residual, GSE", residual(), MEST_METHOD_GSE),
        by_method("residual, SRigL", residual(), MEST_METHOD_SRIGL),
        spared("residual, freezing and sieving", residual()), runs(),
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

/* A model that has trained on loads what it saved before, and trains to the same state again. */
static void load_back(network n, uint32_t saved, uint32_t steps)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&n.config, n.layers, n.count, &plan, NULL) == MEST_OK, "%s: %s", n.name, mest_last_error(NULL)))
        return;
    dataset d = make_data(64, plan.inputs, plan.outputs);
    device slots = make_device(plan.checkpoint_bytes);
    mest_io io = device_io(&slots);
    mest_model *model = create(&n);
    for (uint32_t i = 0; i < saved; i++) step(model, &n, &d, i);
    check(mest_model_save(model, &io, NULL) == MEST_OK, "%s: save: %s", n.name, mest_last_error(model));
    uint64_t then = whole_hash(model), hash[2];
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = saved; i < steps; i++) step(model, &n, &d, i);
        hash[round] = whole_hash(model);
        check(mest_model_load(model, &io, 0, NULL) == MEST_OK, "%s: load: %s", n.name, mest_last_error(model));
        check(whole_hash(model) == then, "%s: not as it was saved", n.name);
    }
    check(hash[0] == hash[1] && hash[0] != then, "%s: trained again to another state", n.name);
    mest_model_destroy(model);
    free_device(&slots);
    free_data(&d);
}

/* ---------------------------------------------------------------------------- the slots --- */

static void slots_in_turn(void)
{
    network n = small();
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    mest_model *model = create(&n);
    mest_checkpoint_report report = { .struct_size = sizeof report };
    check(mest_model_load(model, &io, 0, NULL) == MEST_ERR_CORRUPT && strstr(mest_last_error(model), "is empty"),
          "empty slots: %s", mest_last_error(model));
    io.minimum_updates = 2;
    /* Of the three batches of an epoch two make an update, and the last one. */
    static const int expected[] = { 0, -1, -1, 1, -1, -1, 0, -1, -1 };
    static const uint64_t updates[] = { 0, 0, 1, 2, 2, 3, 4, 4, 5 };
    uint64_t written = 0;
    for (int i = 0; i < 9; i++) {
        check(mest_model_save(model, &io, &report) == MEST_OK && report.slot == expected[i],
              "interval: save %d in slot %d", i, report.slot);
        written += report.bytes;
        check(report.bytes_written == written && report.updates == updates[i], "interval: %llu bytes written",
              (unsigned long long)report.bytes_written);
        step(model, &n, &d, (uint32_t)i);
    }
    /* Another model's checkpoints in both slots: not loaded, and made room in. */
    network other = small();
    other.config.learning_rate = 0.5f;
    mest_model *stranger = create(&other);
    io.minimum_updates = 0;
    check(mest_model_load(stranger, &io, 0, NULL) == MEST_ERR_ARGUMENT
          && strstr(mest_last_error(stranger), "learning_rate"), "a stranger's: %s", mest_last_error(stranger));
    check(mest_model_load(stranger, &io, MEST_LOAD_OTHER_SETTINGS, &report) == MEST_OK && report.sequence == 3,
          "a stranger's, wanted: %s", mest_last_error(stranger));
    check(mest_model_save(stranger, &io, &report) == MEST_OK && report.slot == 1 && report.sequence == 4,
          "a stranger saves: %s", mest_last_error(stranger));
    check(mest_model_load(model, &io, 0, &report) == MEST_OK && report.sequence == 3 && report.slot == 0,
          "the older, since the newer is a stranger's: %s", mest_last_error(model));
    mest_model_destroy(model);
    mest_model_destroy(stranger);
    free_device(&slots);
    free_data(&d);
}

/* Settings may differ if the caller says so, but gradients are gathered for a number of micro-batches. */
static void gathered_for_others(void)
{
    network n = small();
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    mest_model *model = create(&n);
    step(model, &n, &d, 0); /* the first of two */
    check(mest_model_save(model, &io, NULL) == MEST_OK, "gathered: save: %s", mest_last_error(model));
    for (uint32_t micro_batches = 1; micro_batches < 4; micro_batches++) {
        network other = n;
        other.config.micro_batches = micro_batches;
        /* A model of one micro-batch gathers nothing, so that its checkpoints are shorter: told first. */
        const char *reason = micro_batches == 1 ? "checkpoint of" : "config.micro_batches is";
        mest_model *stranger = create(&other);
        uint64_t fresh = whole_hash(stranger);
        mest_status status = mest_model_load(stranger, &io, MEST_LOAD_OTHER_SETTINGS, NULL);
        if (micro_batches == 2)
            check(status == MEST_OK, "gathered for 2: %s", mest_last_error(stranger));
        else
            check(status == MEST_ERR_ARGUMENT && strstr(mest_last_error(stranger), reason)
                  && whole_hash(stranger) == fresh, "gathered for 2, loaded for %u: %s: %s", micro_batches,
                  mest_status_string(status), mest_last_error(stranger));
        mest_model_destroy(stranger);
    }
    mest_model_destroy(model);
    free_device(&slots);
    free_data(&d);
}

/* ------------------------------------------------------------------------- earlier formats --- */

/* Saved by this program with --write; never written again. */
static void load_format(const char *path, uint64_t expected)
{
    network n = forgetful();
    mest_model *model = create(&n);
    dataset d = make_data(64, 216, 10);
    mest_checkpoint_report report = { .struct_size = sizeof report };
    if (check(mest_model_load_file(model, path, 0, &report) == MEST_OK, "%s: %s", path, mest_last_error(model))) {
        check(report.updates == 9 && report.epochs == 3 && report.step_in_epoch == 1, "%s: %llu updates", path,
              (unsigned long long)report.updates);
        for (uint32_t i = 9; i < 20; i++) step(model, &n, &d, i);
        uint64_t hash = hash_model(model);
        check(hash == expected, "%s: continued to %016llx", path, (unsigned long long)hash);
    }
    mest_model_destroy(model);
    free_data(&d);
}

static int write_format(const char *path)
{
    network n = forgetful();
    mest_model *model = create(&n);
    dataset d = make_data(64, 216, 10);
    for (uint32_t i = 0; i < 9; i++) step(model, &n, &d, i);
    check(mest_model_save_file(model, path, NULL) == MEST_OK, "%s: %s", path, mest_last_error(model));
    for (uint32_t i = 9; i < 20; i++) step(model, &n, &d, i);
    printf("%s %016llx\n", path, (unsigned long long)hash_model(model));
    return checks.failed != 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--write")) return write_format(argv[2]);
    resume();
    load_back(spared("loading back to fewer frozen layers", residual()), 6, 22);
    load_back(by_method("loading back to before SNIP", residual(), MEST_METHOD_SNIP), 0, 8);
    slots_in_turn();
    gathered_for_others();
    load_format("Tests/c/checkpoints/format1.mest", 0x79913cda85d73ee5);
    return finish("checkpoint");
}
