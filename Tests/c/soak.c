/* SPDX-License-Identifier: Apache-2.0
 * A million small steps with mutations, saves and loads, in models that come and go in one block: memory stays what it
 * was, every call goes on succeeding, and the last model has the bits of the first.
 *
 *   soak [STEPS] */
#include "checkpoints.h"
#include "process.h"
#include <unistd.h>

enum { LIFE = 20000, SAVE = 500 }; /* steps of a model, and between two saves */

/* Of its own, not of files: code is loaded when it is first called. */
static long resident_pages(void)
{
    long size, resident = -1, shared = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return -1;
    if (fscanf(file, "%ld %ld %ld", &size, &resident, &shared) != 3) resident = shared - 1;
    fclose(file);
    return resident - shared;
}

/* A short life for an endless schedule: epochs go on, connections move in each. */
static network endless(void)
{
    network n = small();
    n.config.method = MEST_METHOD_SET;
    n.config.micro_batches = 1;
    n.config.epochs = 0;
    n.config.phase1_epochs = 0;
    n.config.remove_rule = MEST_REMOVE_NONE;
    n.config.remove_number = 0;
    n.config.mutation_every = 1;
    n.config.schedule = MEST_SCHEDULE_CONSTANT;
    n.config.learning_rate = 0.01f;
    return n;
}

int main(int argc, char **argv)
{
    long steps = argc > 1 ? strtol(argv[1], NULL, 10) : 1000000;
    network n = endless();
    dataset d = small_data(&n);
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&n.config, n.layers, n.count, &plan, NULL) == MEST_OK, "plan: %s", mest_last_error(NULL))) return finish("soak");
    device slots = make_device(plan.checkpoint_bytes);
    mest_io io = device_io(&slots);
    void *block = NULL;
    if (posix_memalign(&block, plan.alignment, plan.total_bytes)) return 1;

    mest_model *model = NULL;
    long pages = -1, failed = 0, mutated = 0, saved = 0, other_bits = 0;
    int files = -1;
    uint64_t first = 0;
    for (long i = 0; i < steps && failed == 0; i++) {
        if (i % LIFE == 0) {
            mest_model_destroy(model);
            failed += mest_model_create_in(&n.config, n.layers, n.count, NULL, block, plan.total_bytes, &model) != MEST_OK;
            if (failed) break;
        }
        mest_batch batch = batch_at(&d, &n.config, (uint32_t)(i % LIFE) % 3 * 4, 4);
        mest_step_report report = { .struct_size = sizeof report };
        failed += mest_model_step(model, &batch, &report) != MEST_OK;
        mutated += (report.events & MEST_EVENT_MUTATED) != 0;
        if (i % SAVE == SAVE - 1) {
            failed += mest_model_save(model, &io, NULL) != MEST_OK;
            saved++;
            if (i % LIFE == LIFE / 2 - 1) failed += mest_model_load(model, &io, 0, NULL) != MEST_OK;
        }
        if (i % LIFE == LIFE - 1) {
            uint64_t hash = hash_model(model);
            if (first == 0) first = hash;
            else if (hash != first) other_bits++;
            if (i / LIFE == 1) pages = resident_pages(), files = open_files();
        }
    }
    check(failed == 0, "a call failed: %s", mest_last_error(model));
    check(other_bits == 0, "%ld of %ld models have other bits than the first", other_bits, steps / LIFE);
    check(mutated > steps / 10, "%ld mutations in %ld steps", mutated, steps);
    check(saved == steps / SAVE && slots.wrong == 0, "%ld saves", saved);
    if (SANITIZED) skip("memory", "the sanitizer keeps what was given back");
    else if (pages < 0) skip("memory", "no /proc, or fewer steps than two models have");
    else check(resident_pages() <= pages + 16 && open_files() == files, "%ld pages instead of %ld, %d files instead of %d",
               resident_pages(), pages, open_files(), files);
    mest_model_destroy(model);
    free(block);
    free_device(&slots);
    free_data(&d);
    return finish("soak");
}
