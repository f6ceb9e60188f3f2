/* SPDX-License-Identifier: Apache-2.0
 * Memory is a number known before: one block of exactly the planned size, nothing asked for after
 * it, nothing written outside it, nothing of the dense size. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "allocations.h"
#include "check.h"
#include "devices.h"
#include "networks.h"
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* --------------------------------------------------------------------- allocators of the caller --- */

typedef struct allocator {
    unsigned allocations, releases;
    size_t size, released_size;
    void *block, *released;
} allocator;

static void *allocate(size_t size, size_t alignment, void *user)
{
    allocator *a = user;
    a->allocations++;
    a->size = size;
    a->block = NULL;
    if (posix_memalign(&a->block, alignment, size)) return NULL;
    memset(a->block, 0xc5, size); /* nobody may rely on zeros */
    return a->block;
}

static void release(void *block, size_t size, void *user)
{
    allocator *a = user;
    a->releases++;
    a->released = block;
    a->released_size = size;
    free(block);
}

static void *allocate_nothing(size_t size, size_t alignment, void *user)
{
    (void)alignment;
    allocator *a = user;
    a->allocations++;
    a->size = size;
    return NULL;
}

/* The caller's threads: here, one. */
static void run_here(uint32_t count, void (*body)(void *, uint32_t, uint32_t), void *argument, void *user)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) body(argument, i, 0);
}

/* ------------------------------------------------------------------------------ all that is called --- */

/* Every function that works on a model, over two epochs. */
static mest_status use_everything(mest_model *model, const network *n, const dataset *d, float *out)
{
    mest_status status = MEST_OK;
#define TRY(call) if ((status = (call)) != MEST_OK) return status
    mest_plan_report plan = { .struct_size = sizeof plan };
    TRY(mest_model_plan(model, &plan, NULL));
    for (int epoch = 0; epoch < 2; epoch++) {
        mest_epoch_report began = { .struct_size = sizeof began };
        TRY(mest_model_begin_epoch(model, &began));
        uint32_t micro = n->config.micro_batches ? n->config.micro_batches : 1;
        for (uint32_t i = 0; i < 2 * micro; i++) {
            mest_batch batch = batch_at(d, &n->config, i % 2 * n->config.batch, n->config.batch);
            mest_step_report report = { .struct_size = sizeof report };
            TRY(mest_model_step(model, &batch, &report));
        }
        if (n->config.method) {
            mest_mutation_report mutation = { .struct_size = sizeof mutation };
            TRY(mest_model_mutate(model, &mutation));
            TRY(mest_model_mutation(model, &mutation, NULL, 0));
        }
    }
    mest_batch all = batch_at(d, &n->config, 0, d->samples);
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    TRY(mest_model_evaluate(model, &all, &evaluation));
    TRY(mest_model_predict(model, d->x, d->samples, 0, out, (uint64_t)d->samples * d->outputs));
    if (n->config.loss == MEST_LOSS_CROSS_ENTROPY)
        TRY(mest_model_predict(model, d->x, d->samples, MEST_PREDICT_PROBABILITIES, out, (uint64_t)d->samples * d->outputs));
    if (n->config.samples) {
        static uint8_t counts[64];
        static uint32_t ids[64];
        mest_forgetting_report forgetting = { .struct_size = sizeof forgetting };
        mest_selection selection = { .struct_size = sizeof selection, .rule = MEST_REMOVE_FRACTION, .remove_fraction = 0.25f };
        uint64_t kept;
        TRY(mest_model_forgetting(model, &forgetting, counts, sizeof counts));
        TRY(mest_model_select(model, &selection, ids, 64, &kept));
    }
    for (uint32_t layer = 0; layer < plan.layers; layer++) {
        static uint32_t buffer[65536];
        mest_csr csr = { .struct_size = sizeof csr, .buffer = buffer, .buffer_bytes = sizeof buffer };
        if (mest_model_csr_get(model, layer, &csr) != MEST_OK) continue;
        static uint32_t start[1024];
        static uint16_t column[65536];
        static float value[65536], momentum[65536];
        memcpy(start, csr.row_start, sizeof *start * (csr.rows + 1));
        memcpy(column, csr.column, sizeof *column * csr.count);
        memcpy(value, csr.value, sizeof *value * csr.count);
        memcpy(momentum, csr.momentum, sizeof *momentum * csr.count);
        csr.row_start = start, csr.column = column, csr.value = value, csr.momentum = momentum;
        TRY(mest_model_csr_set(model, layer, &csr));
        TRY(mest_model_tensor_get(model, layer, MEST_TENSOR_WEIGHT, value, csr.count));
        TRY(mest_model_tensor_set(model, layer, MEST_TENSOR_WEIGHT, value, csr.count));
    }
    static unsigned char slots[2][1 << 20];
    device device = { .slot = { slots[0], slots[1] }, .bytes = sizeof slots[0], .power = SIZE_MAX };
    mest_io io = device_io(&device);
    if (plan.checkpoint_bytes > device.bytes) return MEST_ERR_INTERNAL;
    TRY(mest_model_save(model, &io, NULL));
    TRY(mest_model_load(model, &io, 0, NULL));
    TRY(mest_model_save_file(model, "/dev/null/nowhere", NULL) == MEST_ERR_IO ? MEST_OK : MEST_ERR_INTERNAL);
#undef TRY
    return status;
}

/* Exactly one block, of the planned size, released once; the parts add up. */
static void one_block(const network *n, const dataset *d, float *out)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    static mest_layer_plan layers[96];
    for (uint32_t i = 0; i < n->count; i++) layers[i] = (mest_layer_plan){ .struct_size = sizeof *layers };

    watch();
    mest_status status = mest_plan(&n->config, n->layers, n->count, &plan, layers);
    unsigned long asked = unwatch();
    if (!check(status == MEST_OK, "%s: plan: %s", n->name, mest_last_error(NULL))) return;
    check(asked == 0, "%s: plan allocated %lu times", n->name, asked);
    check(plan.table_bytes + plan.weight_bytes + plan.index_bytes + plan.gradient_bytes + plan.state_bytes
              + plan.forgetting_bytes + plan.batch_bytes + plan.workspace_bytes == plan.total_bytes,
          "%s: the eight parts are not the total", n->name);
    check(plan.activation_bytes <= plan.workspace_bytes && plan.mutation_bytes <= plan.workspace_bytes,
          "%s: activations or scratch of mutation exceed the workspace", n->name);
    check(plan.alignment && (plan.alignment & (plan.alignment - 1)) == 0, "%s: alignment %u", n->name, plan.alignment);
    check(plan.layers == n->count, "%s: %u layers planned", n->name, plan.layers);
    uint64_t active = 0, macs = 0;
    for (uint32_t i = 0; i < n->count; i++) {
        active += layers[i].active;
        macs += layers[i].macs;
        check(layers[i].active <= layers[i].capacity, "%s: layer %u: active above capacity", n->name, i);
        check(layers[i].capacity <= (uint64_t)layers[i].rows * layers[i].columns, "%s: layer %u: capacity above dense", n->name, i);
        check(layers[i].name[0] && memchr(layers[i].name, 0, MEST_NAME_BYTES), "%s: layer %u has no name", n->name, i);
    }
    check(active <= plan.active && macs == plan.macs, "%s: the layers do not add up to the plan", n->name);

    allocator a = { 0 };
    mest_env env = { .struct_size = sizeof env, .user = &a, .allocate = allocate, .release = release };
    mest_model *model = NULL;
    status = mest_model_create(&n->config, n->layers, n->count, &env, &model);
    if (!check(status == MEST_OK, "%s: create: %s", n->name, mest_last_error(NULL))) return;
    check(a.allocations == 1 && a.size == plan.total_bytes, "%s: %u allocations of %zu bytes, planned %llu", n->name,
          a.allocations, a.size, (unsigned long long)plan.total_bytes);
    mest_plan_report again = { .struct_size = sizeof again };
    check(mest_model_plan(model, &again, NULL) == MEST_OK && !memcmp(&again, &plan, sizeof plan),
          "%s: the model's plan differs from the plan", n->name);
    status = use_everything(model, n, d, out);
    check(status == MEST_OK, "%s: %s", n->name, mest_last_error(model));
    check(a.allocations == 1 && a.releases == 0, "%s: allocated again during use", n->name);
    mest_model_destroy(model);
    check(a.releases == 1 && a.released == a.block && a.released_size == a.size, "%s: destroy released %u blocks of %zu",
          n->name, a.releases, a.released_size);

    allocator none = { 0 };
    env.user = &none;
    env.allocate = allocate_nothing;
    model = (mest_model *)&none;
    status = mest_model_create(&n->config, n->layers, n->count, &env, &model);
    check(status == MEST_ERR_MEMORY && model == NULL && none.releases == 0, "%s: an allocator without memory: %s", n->name,
          mest_status_string(status));
}

/* The process allocates nothing between create and destroy. */
static void no_heap(network n, const dataset *d, float *out, uint32_t threads, int here)
{
    if (!WATCHING) return;
    n.config.threads = threads;
    mest_env env = { .struct_size = sizeof env, .parallel_for = here ? run_here : NULL };
    mest_model *model = NULL;
    /* The system allocates when threads start, for the first model that wants them. */
    if (threads > 1 && !here && mest_model_create(&n.config, n.layers, n.count, &env, &model) == MEST_OK) {
        check(use_everything(model, &n, d, out) == MEST_OK, "%s: the first model", n.name);
        mest_model_destroy(model);
    }
    watch();
    mest_status status = mest_model_create(&n.config, n.layers, n.count, &env, &model);
    unsigned long asked = unwatch();
    if (!check(status == MEST_OK, "%s: create: %s", n.name, mest_last_error(NULL))) return;
    check(asked == 1, "%s: create allocated %lu times", n.name, asked);
    mest_plan_report plan = { .struct_size = sizeof plan };
    check(mest_model_plan(model, &plan, NULL) == MEST_OK && atomic_load(&largest) <= plan.total_bytes + plan.alignment,
          "%s: create asked for %lu bytes", n.name, atomic_load(&largest));

    watch();
    if (status == MEST_OK) status = use_everything(model, &n, d, out);
    asked = unwatch();
    check(status == MEST_OK, "%s: %s", n.name, mest_last_error(model));
    check(asked == 0, "%s, %u threads: %lu allocations during use, the largest of %lu bytes", n.name, threads, asked,
          atomic_load(&largest));
    watch();
    mest_model_destroy(model);
    asked = unwatch();
    check(asked == 1, "%s: destroy released %lu blocks", n.name, asked);
}

/* Inside the caller's painted block: everything up to its end is used, nothing outside is touched. */
static void in_a_block(network n, const dataset *d, float *out)
{
    enum { PAINT = 0xa5, ZONE = 4096 };
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&n.config, n.layers, n.count, &plan, NULL) == MEST_OK, "%s: plan", n.name)) return;
    size_t bytes = plan.total_bytes, whole = ZONE + bytes + ZONE;
    unsigned char *zone = NULL;
    if (posix_memalign((void **)&zone, 4096, whole)) return;
    memset(zone, PAINT, whole);
    unsigned char *block = zone + ZONE;

    mest_model *model = NULL;
    watch();
    mest_status status = mest_model_create_in(&n.config, n.layers, n.count, NULL, block, bytes, &model);
    unsigned long asked = unwatch();
    check(status == MEST_OK, "%s: create_in: %s", n.name, mest_last_error(NULL));
    check(!WATCHING || asked == 0, "%s: create_in allocated %lu times", n.name, asked);
    if (status == MEST_OK) {
        status = use_everything(model, &n, d, out);
        check(status == MEST_OK, "%s: %s", n.name, mest_last_error(model));
        watch();
        mest_model_destroy(model);
        asked = unwatch();
        check(asked == 0, "%s: destroy of a model in the caller's block released %lu blocks", n.name, asked);
    }
    size_t outside = 0, end = bytes;
    for (size_t i = 0; i < ZONE; i++) outside += (zone[i] != PAINT) + (block[bytes + i] != PAINT);
    check(outside == 0, "%s: %zu bytes written outside the block", n.name, outside);
    while (end > 0 && block[end - 1] == PAINT) end--;
    check(end + 64 >= bytes, "%s: the last %zu of %zu bytes were never used", n.name, bytes - end, bytes);
    free(zone);
}

/* What lies in the block before does not matter: the same bits. */
static void from_dirt(network n, const dataset *d, float *out)
{
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (mest_plan(&n.config, n.layers, n.count, &plan, NULL) != MEST_OK) return;
    uint64_t hashes[2] = { 0, 0 };
    for (int dirt = 0; dirt < 2; dirt++) {
        void *block = NULL;
        if (posix_memalign(&block, plan.alignment, plan.total_bytes)) return;
        memset(block, dirt ? 0xff : 0, plan.total_bytes); /* 0xff: NaNs */
        mest_model *model = NULL;
        if (mest_model_create_in(&n.config, n.layers, n.count, NULL, block, plan.total_bytes, &model) == MEST_OK
            && use_everything(model, &n, d, out) == MEST_OK)
            hashes[dirt] = hash_model(model);
        mest_model_destroy(model);
        free(block);
    }
    check(hashes[0] && hashes[0] == hashes[1], "%s: what the block held before changes the result", n.name);
}

/* Planning in the block: a thread with less stack than that would need creates a model of 800 layers. */
typedef struct small_stack {
    const mest_config *config;
    const mest_layer *layers;
    uint32_t count;
    void *block;
    size_t bytes;
    mest_status status;
} small_stack;

static void *create_in_small_stack(void *pointer)
{
    small_stack *s = pointer;
    mest_model *model = NULL;
    s->status = mest_model_create_in(s->config, s->layers, s->count, NULL, s->block, s->bytes, &model);
    mest_model_destroy(model);
    return NULL;
}

static void little_stack(void)
{
    enum { LAYERS = 800, STACK = 256 << 10 };
    static mest_layer layers[LAYERS];
    for (int i = 0; i < LAYERS; i++) layers[i] = (mest_layer){ MEST_LAYER_HEAD(MEST_LAYER_RELU) };
    layers[0] = (mest_layer){ MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = 4 };
    layers[LAYERS - 1] = (mest_layer){ MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = 4 };
    mest_config config = MEST_CONFIG_INIT;
    config.batch = 4;
    config.learning_rate = 0.1f;
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&config, layers, LAYERS, &plan, NULL) == MEST_OK, "deep: %s", mest_last_error(NULL))) return;
    /* What planning needs, and the table. */
    size_t bytes = plan.total_bytes + 2048 * LAYERS;
    small_stack s = { .config = &config, .layers = layers, .count = LAYERS, .bytes = bytes, .status = 1 };
    if (posix_memalign(&s.block, plan.alignment, bytes)) return;
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    if (pthread_create(&thread, &attributes, create_in_small_stack, &s) == 0) pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    check(s.status == MEST_OK, "deep: create_in with %d KB of stack: %s", STACK >> 10, mest_status_string(s.status));
    free(s.block);
}

/* A large sparse layer must not need the memory of a dense one, and is planned without any. */
static void nothing_dense(void)
{
    network n = start("wide", 8192, 1, 1);
    add_linear(&n, 8192);
    add(&n, MEST_LAYER_RELU);
    add_linear(&n, 10);
    n.config.density = 0.01f;
    n.config.batch = 1;
    n.config.threads = 1;
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_plan(&n.config, n.layers, n.count, &plan, NULL) == MEST_OK, "wide: %s", mest_last_error(NULL))) return;
    uint64_t dense = (uint64_t)8192 * 8192 * sizeof(float);
    check(plan.dense_bytes > 3 * dense, "wide: dense_bytes %llu", (unsigned long long)plan.dense_bytes);
    check(plan.total_bytes < dense / 4, "wide: %llu bytes at 1 %% density", (unsigned long long)plan.total_bytes);

    allocator a = { 0 };
    mest_env env = { .struct_size = sizeof env, .user = &a, .allocate = allocate, .release = release };
    mest_model *model = NULL;
    watch();
    mest_status status = mest_model_create(&n.config, n.layers, n.count, &env, &model);
    unwatch();
    check(status == MEST_OK, "wide: create: %s", mest_last_error(NULL));
    check(!WATCHING || atomic_load(&largest) < dense / 4, "wide: one allocation of %lu bytes", atomic_load(&largest));
    mest_model_destroy(model);

    /* Memory grows with the connections. */
    uint64_t before = plan.total_bytes;
    n.config.density = 0.02f;
    plan = (mest_plan_report){ .struct_size = sizeof plan };
    check(mest_plan(&n.config, n.layers, n.count, &plan, NULL) == MEST_OK && plan.total_bytes > before * 3 / 2
              && plan.total_bytes < before * 5 / 2,
          "wide: twice the connections need %llu bytes instead of %llu", (unsigned long long)plan.total_bytes,
          (unsigned long long)before);
}

/* Is the layer in `csr`, which one struct has held many of, the one that a fresh struct gets? */
static int same_csr(const mest_csr *csr, const mest_csr *fresh)
{
    return csr->rows == fresh->rows && csr->columns == fresh->columns && csr->count == fresh->count
           && !memcmp(csr->row_start, fresh->row_start, sizeof *csr->row_start * (csr->rows + 1u))
           && !memcmp(csr->column, fresh->column, sizeof *csr->column * csr->count)
           && !memcmp(csr->value, fresh->value, sizeof *csr->value * csr->count)
           && !memcmp(csr->momentum, fresh->momentum, sizeof *csr->momentum * csr->count);
}

static int inside(const void *p, size_t size, const unsigned char *buffer, uint64_t bytes)
{
    const unsigned char *q = p;
    return q >= buffer && q + size <= buffer + bytes;
}

/* One mest_csr over layers of different size, up and down: the buffer stays the caller's, is written where
 * the layer needs it and nowhere else, and a refusal leaves struct and buffer alone. */
static void one_csr(const network *n)
{
    enum { BYTES = 1 << 17, DIRT = 0xa5 };
    static unsigned char buffer[BYTES], own[BYTES];
    mest_model *model = NULL;
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (!check(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK, "%s: create", n->name)) return;
    if (!check(mest_model_plan(model, &plan, NULL) == MEST_OK, "%s: plan", n->name)) return;

    mest_csr asked = { .struct_size = sizeof asked }, kept = { .struct_size = sizeof kept };
    kept.buffer = buffer, kept.buffer_bytes = BYTES;
    for (uint32_t turn = 0; turn < 2 * plan.layers; turn++) {
        uint32_t layer = turn < plan.layers ? turn : 2 * plan.layers - 1 - turn;
        if (mest_model_csr_get(model, layer, &asked) != MEST_OK) continue;
        uint64_t need = asked.buffer_bytes;
        check(!asked.buffer && (need > 0) == !asked.value, "%s %u: asked for %llu bytes", n->name, layer, (unsigned long long)need);
        mest_csr fresh = { .struct_size = sizeof fresh, .buffer = own, .buffer_bytes = sizeof own };
        memset(buffer, DIRT, BYTES);
        check(mest_model_csr_get(model, layer, &kept) == MEST_OK && mest_model_csr_get(model, layer, &fresh) == MEST_OK,
              "%s %u: %s", n->name, layer, mest_last_error(model));
        check(kept.buffer == buffer && kept.buffer_bytes == BYTES, "%s %u: the buffer changed", n->name, layer);
        check(same_csr(&kept, &fresh), "%s %u: not what a fresh struct gets", n->name, layer);
        uint64_t clean = BYTES;
        while (clean > 0 && buffer[clean - 1] == DIRT) clean--;
        check(clean <= need, "%s %u: %llu bytes written of %llu", n->name, layer, (unsigned long long)clean, (unsigned long long)need);
        size_t values = sizeof(float) * kept.count;
        int in = inside(kept.value, values, buffer, need) && inside(kept.momentum, values, buffer, need)
                 && inside(kept.row_start, sizeof(uint32_t) * (kept.rows + 1u), buffer, need)
                 && inside(kept.column, sizeof(uint16_t) * kept.count, buffer, need);
        check(in == (need > 0), "%s %u: pointers %s the buffer", n->name, layer, in ? "in" : "out of");
        if (need == 0) continue;

        mest_csr small = kept;
        memset(buffer, DIRT, BYTES);
        small.buffer_bytes = need - 1;
        mest_csr before = small;
        check(mest_model_csr_get(model, layer, &small) == MEST_ERR_ARGUMENT && !memcmp(&small, &before, sizeof small),
              "%s %u: a buffer one byte short", n->name, layer);
        for (clean = BYTES; clean > 0 && buffer[clean - 1] == DIRT;) clean--;
        check(clean == 0, "%s %u: the short buffer was written to", n->name, layer);
    }
    mest_model_destroy(model);
}

/* The budget is arithmetic: exactly the plan is enough, one byte less is refused and reported. */
static void budget(network n)
{
    mest_plan_report plan = { .struct_size = sizeof plan }, refused = plan;
    if (mest_plan(&n.config, n.layers, n.count, &plan, NULL) != MEST_OK) return;
    n.config.budget_bytes = plan.total_bytes;
    check(mest_plan(&n.config, n.layers, n.count, &refused, NULL) == MEST_OK, "%s: a budget of exactly the plan", n.name);
    n.config.budget_bytes--;
    check(mest_plan(&n.config, n.layers, n.count, &refused, NULL) == MEST_ERR_BUDGET, "%s: a budget of one byte less", n.name);
    check(refused.total_bytes == plan.total_bytes, "%s: the refused plan is not reported", n.name);
    mest_model *model = (mest_model *)&n;
    check(mest_model_create(&n.config, n.layers, n.count, NULL, &model) == MEST_ERR_BUDGET && !model, "%s: create", n.name);
}

int main(void)
{
    network networks[] = { mlp(), residual(), pools(), resnet20(4), schemes(), scheme_convolutions(), channels(), runs() };
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        network *n = &networks[i];
        mest_plan_report plan = { .struct_size = sizeof plan };
        if (!check(mest_plan(&n->config, n->layers, n->count, &plan, NULL) == MEST_OK, "%s: plan: %s", n->name,
                   mest_last_error(NULL)))
            continue;
        dataset d = make_data(64, plan.inputs, plan.outputs);
        float *out = malloc(sizeof(float) * d.samples * d.outputs);
        one_block(n, &d, out);
        no_heap(*n, &d, out, 1, 0);
        no_heap(*n, &d, out, 2, 0);
        no_heap(*n, &d, out, 2, 1);
        n->config.threads = 2;
        in_a_block(*n, &d, out);
        from_dirt(*n, &d, out);
        budget(*n);
        one_csr(n);
        free(out);
        free_data(&d);
    }
    nothing_dense();
    little_stack();
    if (!WATCHING) skip("allocations during use", "the sanitizer wants malloc for itself");
    return finish("memory");
}
