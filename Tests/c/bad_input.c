/* SPDX-License-Identifier: Apache-2.0
 * Misuse of every function, by the table in bad_input_rows.h.  Each row: the status is the one
 * named, the message says what is wrong, the model is as it was, and its next step works. */
#define _GNU_SOURCE /* strcasestr */
#include "check.h"
#include "devices.h"
#include "networks.h"
#include <math.h>

enum { /* expected statuses, as bits: a row may allow several */
    ARGUMENT = 1, SHAPE = 2, UNSUPPORTED = 4, VERSION = 8, STATE = 16, CANCELLED = 32, CALLBACK = 64,
    DIVERGED = 128, MEMORY = 256, BUDGET = 512, INTERNAL = 1024, OK = 2048, CORRUPT = 4096, IO = 8192
};

static int bit_of(mest_status status)
{
    static const struct { mest_status status; int bit; } bits[] = {
        { MEST_OK, OK }, { MEST_ERR_ARGUMENT, ARGUMENT }, { MEST_ERR_SHAPE, SHAPE },
        { MEST_ERR_UNSUPPORTED, UNSUPPORTED }, { MEST_ERR_VERSION, VERSION }, { MEST_ERR_STATE, STATE },
        { MEST_ERR_CANCELLED, CANCELLED }, { MEST_ERR_CALLBACK, CALLBACK }, { MEST_ERR_DIVERGED, DIVERGED },
        { MEST_ERR_MEMORY, MEMORY }, { MEST_ERR_BUDGET, BUDGET }, { MEST_ERR_INTERNAL, INTERNAL },
        { MEST_ERR_CORRUPT, CORRUPT }, { MEST_ERR_IO, IO },
    };
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (bits[i].status == status) return bits[i].bit;
    return 0;
}

/* ---------------------------------------------------------------------------------- scene --- */

#define BATCH 16
#define INPUTS 216 /* of residual(): 3 x 9 x 8 */
#define FLOATS 4096

enum { /* which call a callback makes */
    INSIDE_NOTHING, INSIDE_STEP, INSIDE_BEGIN_EPOCH, INSIDE_MUTATE, INSIDE_PREDICT, INSIDE_EVALUATE,
    INSIDE_TENSOR_GET, INSIDE_TENSOR_SET, INSIDE_CSR_GET, INSIDE_CSR_SET, INSIDE_FORGETTING, INSIDE_SELECT,
    INSIDE_MUTATION, INSIDE_PLAN, INSIDE_SAVE, INSIDE_LOAD
};

typedef struct scene {
    /* Made once. */
    mest_model *model;     /* residual(): EM&S, 64 samples                      */
    mest_model *mse;       /* regression, no mutation, samples not counted      */
    mest_model *micro;     /* in the middle of an update of two micro-batches   */
    mest_model *inference; /* inference only                                    */
    network residual;
    char *block;           /* for create_in                                     */
    size_t bytes, alignment;
    mest_csr own;          /* layer 1 of model, copied                          */
    uint32_t own_start[16];
    uint16_t own_column[512];
    float own_value[512];
    device slots;           /* set back to: nothing in slot 0, a checkpoint of model in slot 1 */
    unsigned char *saved;

    /* Set back before every row. */
    mest_config config;
    mest_layer layers[sizeof ((network *)0)->layers / sizeof(mest_layer)];
    uint32_t count;
    mest_env env;
    mest_model *out;
    float x[BATCH * INPUTS], targets[BATCH * 10], floats[FLOATS];
    int32_t labels[BATCH];
    uint32_t ids[BATCH], ids_out[64];
    uint8_t bytes_out[64];
    uint64_t number;
    mest_batch batch;
    mest_selection selection;
    mest_csr csr;
    mest_plan_report plan;
    mest_layer_plan layer_plans[96];
    mest_step_report step;
    mest_epoch_report epoch;
    mest_mutation_report mutation;
    mest_mutation_layer mutation_layers[4];
    mest_forgetting_report forgetting;
    mest_evaluation evaluation;
    mest_io io;
    mest_checkpoint_report checkpoint;

    /* What the progress callback does and finds. */
    int32_t say_stop;
    int inside;
    mest_status inside_status;
    char inside_message[256];
} scene;

static void *give_nothing(size_t size, size_t alignment, void *user)
{
    (void)size, (void)alignment, (void)user;
    return NULL;
}

static void take_nothing(void *block, size_t size, void *user) { (void)block, (void)size, (void)user; }

static void enormous(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) values[i] = values[i] < 0 ? -3e38f : 3e38f;
}

static void swap(uint16_t *column, uint32_t at)
{
    uint16_t first = column[at];
    column[at] = column[at + 1];
    column[at + 1] = first;
}

static int32_t fail_sync(uint32_t slot, void *user) { return (void)slot, (void)user, 5; }
static int32_t fail_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    return (void)slot, (void)offset, (void)bytes, (void)count, (void)user, 5;
}

/* Where the first weights of a checkpoint are: sections begin after 40 bytes; id 4, layer 4, size 8, content, CRC 4. */
static size_t weight_section(const unsigned char *bytes)
{
    size_t at = 40;
    while (bytes[at] != 20) at += 20 + bytes[at + 8] + 256u * bytes[at + 9];
    return at + 16;
}

static const char *long_path(void)
{
    static char path[8192];
    memset(path, 'x', sizeof path - 1);
    return path;
}

/* For MEST_SIMD_AUTO, until the next set_back. */
static void set_simd(const char *value) { setenv("MEST_SIMD", value, 1); }

/* No machine has both. */
#ifdef __aarch64__
#define SIMD_ELSEWHERE MEST_SIMD_AVX2
#define SIMD_ELSEWHERE_NAME "avx2"
#else
#define SIMD_ELSEWHERE MEST_SIMD_NEON
#define SIMD_ELSEWHERE_NAME "neon"
#endif

static int32_t progress(const mest_progress *now, void *user)
{
    scene *s = user;
    (void)now;
    int which = s->inside;
    s->inside = INSIDE_NOTHING;
    mest_status status;
    switch (which) {
    case INSIDE_STEP:        status = mest_model_step(s->model, &s->batch, NULL); break;
    case INSIDE_BEGIN_EPOCH: status = mest_model_begin_epoch(s->model, NULL); break;
    case INSIDE_MUTATE:      status = mest_model_mutate(s->model, NULL); break;
    case INSIDE_PREDICT:     status = mest_model_predict(s->model, s->x, 1, 0, s->floats, FLOATS); break;
    case INSIDE_EVALUATE:    status = mest_model_evaluate(s->model, &s->batch, &s->evaluation); break;
    case INSIDE_TENSOR_GET:  status = mest_model_tensor_get(s->model, 2, MEST_TENSOR_SCALE, s->floats, 8); break;
    case INSIDE_TENSOR_SET:  status = mest_model_tensor_set(s->model, 2, MEST_TENSOR_SCALE, s->floats, 8); break;
    case INSIDE_CSR_GET:     status = mest_model_csr_get(s->model, 1, &s->csr); break;
    case INSIDE_CSR_SET:     status = mest_model_csr_set(s->model, 1, &s->csr); break;
    case INSIDE_FORGETTING:  status = mest_model_forgetting(s->model, &s->forgetting, NULL, 0); break;
    case INSIDE_SELECT:      status = mest_model_select(s->model, &s->selection, NULL, 0, &s->number); break;
    case INSIDE_MUTATION:    status = mest_model_mutation(s->model, &s->mutation, NULL, 0); break;
    case INSIDE_SAVE:        status = mest_model_save(s->model, &s->io, NULL); break;
    case INSIDE_LOAD:        status = mest_model_load(s->model, &s->io, 0, NULL); break;
    case INSIDE_PLAN:        status = mest_model_plan(s->model, &s->plan, NULL); break;
    default:                 return s->say_stop;
    }
    s->inside_status = status;
    /* The model's own message belongs to the call that is running: this one is the thread's. */
    snprintf(s->inside_message, sizeof s->inside_message, "%s", mest_last_error(NULL));
    return 0;
}

/* The status of a call made while predict runs (which changes nothing itself). */
static mest_status inside(scene *s, int which)
{
    s->inside = which;
    s->inside_status = MEST_OK;
    float out[BATCH * 10];
    mest_status outer = mest_model_predict(s->model, s->x, BATCH, 0, out, BATCH * 10);
    return outer == MEST_OK ? s->inside_status : MEST_ERR_INTERNAL;
}

static void set_back(scene *s)
{
    unsetenv("MEST_SIMD");
    s->config = s->residual.config;
    memcpy(s->layers, s->residual.layers, sizeof s->layers);
    s->count = s->residual.count;
    s->env = (mest_env){ .struct_size = sizeof(mest_env), .user = s, .progress = progress };
    s->out = (mest_model *)s; /* must be NULL after a failure */
    fill(s->x, BATCH * INPUTS, 3);
    fill(s->targets, BATCH * 10, 4);
    fill(s->floats, FLOATS, 5);
    for (uint32_t i = 0; i < BATCH; i++) {
        s->labels[i] = (int32_t)(i % 10);
        s->ids[i] = i;
    }
    s->batch = (mest_batch){ sizeof(mest_batch), BATCH, s->x, s->labels, s->targets, NULL };
    s->selection = (mest_selection){ .struct_size = sizeof(mest_selection) };
    s->csr = (mest_csr){ .struct_size = sizeof(mest_csr) };
    s->plan = (mest_plan_report){ .struct_size = sizeof(mest_plan_report) };
    for (int i = 0; i < 96; i++) s->layer_plans[i] = (mest_layer_plan){ .struct_size = sizeof(mest_layer_plan) };
    s->step = (mest_step_report){ .struct_size = sizeof(mest_step_report) };
    s->epoch = (mest_epoch_report){ .struct_size = sizeof(mest_epoch_report) };
    s->mutation = (mest_mutation_report){ .struct_size = sizeof(mest_mutation_report) };
    for (int i = 0; i < 4; i++)
        s->mutation_layers[i] = (mest_mutation_layer){ .struct_size = sizeof(mest_mutation_layer) };
    s->forgetting = (mest_forgetting_report){ .struct_size = sizeof(mest_forgetting_report) };
    s->evaluation = (mest_evaluation){ .struct_size = sizeof(mest_evaluation) };
    s->io = device_io(&s->slots);
    s->checkpoint = (mest_checkpoint_report){ .struct_size = sizeof(mest_checkpoint_report) };
    if (s->saved) {
        memset(s->slots.slot[0], 0xff, s->slots.bytes);
        memcpy(s->slots.slot[1], s->saved, s->slots.bytes);
        s->slots.power = SIZE_MAX;
        s->slots.fail_read = 0;
    }
    s->say_stop = 0;
    s->inside = INSIDE_NOTHING;
    s->inside_message[0] = 0;
}

static int set_up(scene *s)
{
    s->residual = residual();
    s->residual.config.threads = 2;
    set_back(s);
    mest_layer *l = s->layers;
    mest_config *c = &s->config;
    c->forgetting_flags = MEST_FORGETTING_ORDER;
    int made = mest_model_create(c, l, s->count, &s->env, &s->model) == MEST_OK;
    c->forgetting_flags = 0;
    c->inference_only = 1;
    made &= mest_model_create(c, l, s->count, &s->env, &s->inference) == MEST_OK;
    c->inference_only = 0;
    c->micro_batches = 2;
    made &= mest_model_create(c, l, s->count, &s->env, &s->micro) == MEST_OK;
    c->micro_batches = 0;
    c->loss = MEST_LOSS_MSE;
    c->method = MEST_METHOD_STATIC;
    c->samples = 0;
    made &= mest_model_create(c, l, s->count, &s->env, &s->mse) == MEST_OK;
    if (!check(made, "the scene: %s", mest_last_error(NULL))) return 0;

    set_back(s);
    check(mest_model_step(s->micro, &s->batch, NULL) == MEST_OK, "the first micro-batch: %s", mest_last_error(s->micro));
    check(mest_plan(&s->config, s->layers, s->count, &s->plan, NULL) == MEST_OK, "plan: %s", mest_last_error(NULL));
    s->bytes = s->plan.total_bytes;
    s->alignment = s->plan.alignment;
    s->block = aligned_alloc(s->alignment, (s->bytes / s->alignment + 2) * s->alignment);
    check(mest_model_csr_get(s->model, 1, &s->own) == MEST_ERR_VERSION, "csr_get without struct_size");
    s->slots = make_device(2 * s->plan.checkpoint_bytes); /* with gathered gradients there is more */
    check(mest_model_save(s->model, &s->io, NULL) == MEST_OK, "save: %s", mest_last_error(s->model));
    s->saved = memcpy(malloc(s->slots.bytes), s->slots.slot[0], s->slots.bytes);
    s->own.struct_size = sizeof s->own;
    if (!check(mest_model_csr_get(s->model, 1, &s->own) == MEST_OK && s->own.rows < 16 && s->own.count < 500,
               "csr_get: %s", mest_last_error(s->model)))
        return 0;
    return 1;
}

/* ----------------------------------------------------------------------------------- rows --- */

#define NOTHING(...)

#define CONFIG(what, expected, words, ...) case __LINE__: __VA_ARGS__; break;
#define LAYERS NOTHING
#define STEP NOTHING
#define EVALUATE NOTHING
#define CSR NOTHING
#define CALL NOTHING
static void edit_config(int row, mest_config *c)
{
    switch (row) {
#include "bad_input_rows.h"
    }
}

#undef CONFIG
#undef LAYERS
#define CONFIG NOTHING
#define LAYERS(what, expected, words, ...) case __LINE__: __VA_ARGS__; break;
static uint32_t edit_layers(int row, mest_layer *l, uint32_t n)
{
    switch (row) {
#include "bad_input_rows.h"
    }
    return n;
}

#undef LAYERS
#undef STEP
#undef EVALUATE
#define LAYERS NOTHING
#define STEP(what, expected, words, ...) case __LINE__: __VA_ARGS__; break;
#define EVALUATE STEP
static void edit_batch(int row, scene *s, mest_batch *b)
{
    switch (row) {
#include "bad_input_rows.h"
    }
}

#undef STEP
#undef EVALUATE
#undef CSR
#define STEP NOTHING
#define EVALUATE NOTHING
#define CSR(what, expected, words, ...) case __LINE__: __VA_ARGS__; break;
static void edit_csr(int row, mest_csr *v, uint32_t *start, uint16_t *column, float *value, float *momentum)
{
    switch (row) {
#include "bad_input_rows.h"
    }
}

#undef CSR
#undef CALL
#define CSR NOTHING
#define CALL(on, what, expected, words, ...) case __LINE__: *model = on; return __VA_ARGS__;
static mest_status make_call(int row, scene *s, mest_model **model)
{
    switch (row) {
#include "bad_input_rows.h"
    }
    return MEST_ERR_INTERNAL;
}

#undef CONFIG
#undef LAYERS
#undef STEP
#undef EVALUATE
#undef CSR
#undef CALL
enum kind { CONFIG_ROW, LAYERS_ROW, STEP_ROW, EVALUATE_ROW, CSR_ROW, CALL_ROW };
typedef struct row {
    enum kind kind;
    int line;
    const char *what;
    int expected;
    const char *words;
} row;
#define CONFIG(what, expected, words, ...) { CONFIG_ROW, __LINE__, "config: " what, expected, words },
#define LAYERS(what, expected, words, ...) { LAYERS_ROW, __LINE__, "layers: " what, expected, words },
#define STEP(what, expected, words, ...) { STEP_ROW, __LINE__, "step: " what, expected, words },
#define EVALUATE(what, expected, words, ...) { EVALUATE_ROW, __LINE__, "evaluate: " what, expected, words },
#define CSR(what, expected, words, ...) { CSR_ROW, __LINE__, "csr_set: " what, expected, words },
#define CALL(on, what, expected, words, ...) { CALL_ROW, __LINE__, what, expected, words },
static const row rows[] = {
#include "bad_input_rows.h"
};

/* -------------------------------------------------------------------------------- judging --- */

static int mentions(const char *message, const char *words)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%s", words);
    if (!*copy) return 1;
    for (char *word = strtok(copy, "|"); word; word = strtok(NULL, "|"))
        if (strcasestr(message, word)) return 1;
    return 0;
}

/* One check for status and message of one call. */
static void judge(const row *r, const char *function, mest_status status, const char *message)
{
    if (!(bit_of(status) & r->expected)) {
        check(0, "%s %s: returned %s: %s", r->what, function, mest_status_string(status), message);
    } else if (status != MEST_OK && (!*message || strlen(message) > 255 || strchr(message, '\n'))) {
        check(0, "%s %s: the message is not one line: \"%s\"", r->what, function, message);
    } else {
        check(status == MEST_OK || mentions(message, r->words), "%s %s: the message does not mention %s: \"%s\"",
              r->what, function, r->words, message);
    }
}

/* What was accepted must also train, or say why not. */
static void use(const row *r, scene *s, mest_model *model)
{
    if (s->plan.inputs == INPUTS && s->plan.outputs == 10) {
        mest_status status = mest_model_step(model, &s->batch, NULL);
        check(status == MEST_OK || status == MEST_ERR_DIVERGED || status == MEST_ERR_STATE,
              "%s: accepted, but then step returned %s: %s", r->what, mest_status_string(status), mest_last_error(model));
    }
    mest_model_destroy(model);
}

static void try_description(const row *r, scene *s)
{
    edit_config(r->line, &s->config);
    s->count = edit_layers(r->line, s->layers, s->count);

    mest_status planned = mest_plan(&s->config, s->layers, s->count, &s->plan, NULL);
    judge(r, "(plan)", planned, mest_last_error(NULL));
    if (planned == MEST_ERR_BUDGET)
        check(s->plan.total_bytes > s->config.budget_bytes, "%s: the plan is not reported", r->what);
    if (planned == MEST_OK && s->plan.total_bytes > 64u << 20) return;

    mest_status created = mest_model_create(&s->config, s->layers, s->count, &s->env, &s->out);
    judge(r, "(create)", created, mest_last_error(NULL));
    check(created == planned, "%s: plan says %s, create says %s", r->what, mest_status_string(planned),
          mest_status_string(created));
    check((created == MEST_OK) == (s->out != NULL), "%s: create: *out_model", r->what);
    if (created == MEST_OK) {
        use(r, s, s->out);
        return;
    }
    s->out = (mest_model *)s;
    mest_status placed = mest_model_create_in(&s->config, s->layers, s->count, &s->env, s->block, s->bytes, &s->out);
    judge(r, "(create_in)", placed, mest_last_error(NULL));
    check(s->out == NULL, "%s: create_in: *out_model is not NULL", r->what);
}

static void try_call(const row *r, scene *s)
{
    /* The connections of layer 1, to be spoilt. */
    float momentum[512] = { 0 };
    uint32_t start[17];
    uint16_t column[513];
    float value[513];
    mest_csr copy = { .struct_size = sizeof copy };
    check(mest_model_csr_get(s->model, 1, &copy) == MEST_OK, "%s: csr_get", r->what);
    memcpy(start, copy.row_start, sizeof *start * (copy.rows + 1));
    memcpy(column, copy.column, sizeof *column * copy.count);
    memcpy(value, copy.value, sizeof *value * copy.count);
    copy.row_start = start;
    copy.column = column;
    copy.value = value;
    copy.momentum = momentum;

    mest_model *model = s->model, *models[] = { s->model, s->mse, s->micro, s->inference };
    uint64_t before[4];
    for (int i = 0; i < 4; i++) before[i] = hash_model(models[i]);
    mest_status status;
    switch (r->kind) {
    case STEP_ROW:
        s->batch.ids = s->ids;
        edit_batch(r->line, s, &s->batch);
        status = mest_model_step(model, &s->batch, &s->step);
        break;
    case EVALUATE_ROW:
        edit_batch(r->line, s, &s->batch);
        status = mest_model_evaluate(model, &s->batch, &s->evaluation);
        break;
    case CSR_ROW:
        edit_csr(r->line, &copy, start, column, value, momentum);
        status = mest_model_csr_set(model, 1, &copy);
        break;
    default:
        status = make_call(r->line, s, &model);
    }
    judge(r, "", status, *s->inside_message ? s->inside_message : mest_last_error(model));
    if (!model && s->out != (mest_model *)s)
        check(s->out == NULL, "%s: *out_model is not NULL", r->what);
    for (int i = 0; i < 4; i++) {
        if (status == MEST_OK && models[i] == model) continue;
        check(hash_model(models[i]) == before[i], "%s: a model has changed", r->what);
    }

    set_back(s);
    if (!model) model = s->model;
    if (model != s->inference && model != s->micro)
        check(mest_model_step(model, &s->batch, NULL) == MEST_OK, "%s: the next step: %s", r->what,
              mest_last_error(model));
    check(mest_model_predict(model, s->x, BATCH, 0, s->floats, FLOATS) == MEST_OK, "%s: the next predict: %s",
          r->what, mest_last_error(model));
}

/* What takes anything. */
static void harmless(void)
{
    mest_model_destroy(NULL);
    mest_model_cancel(NULL);
    check(mest_last_error(NULL) != NULL, "last_error");
    for (mest_status status = -200; status < 200; status++)
        check(mest_status_string(status) && *mest_status_string(status), "status_string of %d", status);
    check(!strcmp(mest_status_string(MEST_OK), "MEST_OK"), "status_string of MEST_OK");
    check(!strcmp(mest_status_string(MEST_ERR_SHAPE), "MEST_ERR_SHAPE"), "status_string of MEST_ERR_SHAPE");
    check(!strcmp(mest_status_string(MEST_ERR_INTERNAL), "MEST_ERR_INTERNAL"), "status_string of MEST_ERR_INTERNAL");
    check(mest_build_info() && *mest_build_info() && !strchr(mest_build_info(), '\n'), "build_info");
    check(mest_version() == MEST_VERSION_MAJOR * 1000000u + MEST_VERSION_MINOR * 1000u + MEST_VERSION_PATCH, "version");
    check(mest_abi_version() == MEST_ABI_VERSION, "abi_version");
    mest_config by_macro = MEST_CONFIG_INIT, by_function;
    memset(&by_function, 0xff, sizeof by_function);
    check(mest_config_init(&by_function, sizeof by_function) == MEST_OK, "config_init");
    check(!memcmp(&by_macro, &by_function, sizeof by_macro), "config_init and MEST_CONFIG_INIT differ");
}

int main(void)
{
    static scene s;
    harmless();
    if (set_up(&s)) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            set_back(&s);
            if (rows[i].kind <= LAYERS_ROW) try_description(&rows[i], &s);
            else try_call(&rows[i], &s);
        }
    }
    mest_model_destroy(s.model);
    mest_model_destroy(s.mse);
    mest_model_destroy(s.micro);
    mest_model_destroy(s.inference);
    free(s.block);
    free(s.saved);
    free_device(&s.slots);
    return finish("bad_input");
}
