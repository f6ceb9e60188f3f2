/* SPDX-License-Identifier: Apache-2.0
 * Stack of the calling thread: at most what mest.h says of 64-bit machines ("Stack"), on every network.  A thread runs
 * on painted memory; what is no longer painted was used. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "check.h"
#include "devices.h"
#include "every_network.h"
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STACK = 4 << 20, PAINT = 0xa5, KB = 1024 };

/* ------------------------------------------------------------------------------- measuring --- */

typedef struct work {
    const network *n;
    const dataset *d;
    mest_model *model;
    void *block;
    size_t bytes;
    float *out;
    device *slots;
    mest_status status;
} work;

/* Bytes below its start that `run` used on a stack of its own. */
static size_t stack_of(void *(*run)(void *), work *w)
{
    unsigned char *low = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (low == MAP_FAILED) return SIZE_MAX;
    memset(low, PAINT, STACK);
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    int ran = pthread_attr_setstack(&attributes, low, STACK) == 0 && pthread_create(&thread, &attributes, run, w) == 0
        && pthread_join(thread, NULL) == 0;
    size_t unused = 0;
    while (unused < STACK && low[unused] == PAINT) unused++;
    munmap(low, STACK);
    pthread_attr_destroy(&attributes);
    return ran ? STACK - unused : SIZE_MAX;
}

static void *nothing(void *argument) { return argument; }

/* ---------------------------------------------------------------------------------- calls --- */

static void *plan(void *argument)
{
    work *w = argument;
    mest_plan_report report = { .struct_size = sizeof report };
    w->status = mest_plan(&w->n->config, w->n->layers, w->n->count, &report, NULL);
    w->bytes = report.total_bytes;
    return NULL;
}

static void *create(void *argument)
{
    work *w = argument;
    w->status = mest_model_create(&w->n->config, w->n->layers, w->n->count, NULL, &w->model);
    return NULL;
}

static void *create_in(void *argument)
{
    work *w = argument;
    w->status = mest_model_create_in(&w->n->config, w->n->layers, w->n->count, NULL, w->block, w->bytes, &w->model);
    return NULL;
}

static char file[] = "/tmp/mest-stack-XXXXXX/c";

static void *save(void *argument)
{
    work *w = argument;
    w->status = mest_model_save_file(w->model, file, NULL);
    return NULL;
}

static void *load(void *argument)
{
    work *w = argument;
    w->status = mest_model_load_file(w->model, file, 0, NULL);
    return NULL;
}

static void *save_io(void *argument)
{
    work *w = argument;
    mest_io io = device_io(w->slots);
    w->status = mest_model_save(w->model, &io, NULL);
    return NULL;
}

static void *load_io(void *argument)
{
    work *w = argument;
    mest_io io = device_io(w->slots);
    w->status = mest_model_load(w->model, &io, 0, NULL);
    return NULL;
}

/* Of every layer what it has, and what samples have been forgotten. */
static void *look(void *argument)
{
    work *w = argument;
    w->status = hash_model(w->model) == 0 ? MEST_ERR_INTERNAL : MEST_OK;
    return NULL;
}

static void *use(void *argument)
{
    work *w = argument;
    uint32_t micro = w->n->config.micro_batches ? w->n->config.micro_batches : 1;
    w->status = MEST_OK;
    for (uint32_t i = 0; w->status == MEST_OK && i < epochs_for(w->n) * 3 * micro; i++) {
        mest_batch batch = nth_batch(w->d, &w->n->config, i);
        w->status = mest_model_step(w->model, &batch, NULL);
    }
    mest_batch all = batch_at(w->d, &w->n->config, 0, w->d->samples);
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    if (w->status == MEST_OK) w->status = mest_model_evaluate(w->model, &all, &evaluation);
    if (w->status == MEST_OK)
        w->status = mest_model_predict(w->model, w->d->x, w->d->samples, 0, w->out, (uint64_t)w->d->samples * w->d->outputs);
    return NULL;
}

/* --------------------------------------------------------------------------------- bounds --- */

static size_t base; /* of a thread that does nothing */

static void bounded(const char *what, void *(*run)(void *), work *w, size_t most, size_t *largest)
{
    size_t used = stack_of(run, w);
    used = used > base ? used - base : 0;
    if (used > *largest) *largest = used;
    check(w->status == MEST_OK, "%s: %s: %s", w->n->name, what, mest_last_error(w->model));
    check(used <= most, "%s: %s took %zu bytes of stack of %zu", w->n->name, what, used, most);
}

int main(void)
{
    static network networks[MOST_NETWORKS];
    size_t count = every_network(networks), most_plan = 0, most_in = 0, most_save = 0, most_load = 0, most_use = 0;
    char *name = strrchr(file, '/');
    *name = 0;
    if (!check(mkdtemp(file) != NULL, "no folder for the test")) return finish("stack");
    *name = '/';
    base = stack_of(nothing, NULL);
    for (size_t i = 0; i < count; i++) {
        network *n = &networks[i];
        n->config.threads = 1; /* all of the work is the calling thread's */
        work w = { .n = n };
        size_t layers = n->count * (size_t)KB;
        bounded("plan", plan, &w, 32 * KB + layers, &most_plan);
        bounded("create", create, &w, 32 * KB + layers, &most_plan);
        mest_model_destroy(w.model);
        if (w.bytes >= 2 * layers && posix_memalign(&w.block, 64, w.bytes) == 0) {
            bounded("create_in", create_in, &w, 32 * KB, &most_in);
            mest_plan_report report = { .struct_size = sizeof report };
            check(mest_model_plan(w.model, &report, NULL) == MEST_OK, "%s: its plan", n->name);
            dataset d = make_data(samples_for(n), report.inputs, report.outputs);
            w.d = &d;
            w.out = malloc(sizeof(float) * d.samples * d.outputs);
            bounded("use", use, &w, 24 * KB, &most_use);
            bounded("save", save, &w, 24 * KB, &most_save);
            bounded("load", load, &w, 24 * KB, &most_load);
            device slots = make_device(report.checkpoint_bytes);
            w.slots = &slots;
            bounded("save twice", save_io, &w, 24 * KB, &most_save);
            bounded("save twice", save_io, &w, 24 * KB, &most_save);
            bounded("load of two", load_io, &w, 24 * KB, &most_load);
            free_device(&slots);
            bounded("look", look, &w, 24 * KB, &most_use);
            mest_model_destroy(w.model);
            free(w.out);
            free(w.block);
            free_data(&d);
        } else {
            skip(n->name, "too small a block to plan in it");
        }
    }
    remove(file);
    *name = 0;
    rmdir(file);
    printf("at most: plan and create %zu, create_in %zu, save %zu, load %zu, other calls %zu\n", most_plan, most_in, most_save,
           most_load, most_use);
    return finish("stack");
}
