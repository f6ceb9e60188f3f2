/* SPDX-License-Identifier: Apache-2.0
 * Fuzzing of sequences: any call with any arguments at any moment, on a model of any description.  Every status is a
 * documented one, an error has a message, and at the end the model can be read. */
#include "input.h"
#include "../c/check.h"
#include "../c/devices.h"
#include "../c/random_network.h"

enum { MOST_SAMPLES = 40, BUFFER = 1 << 16 };

static union {
    float reals[BUFFER];
    uint32_t words[BUFFER];
    uint8_t bytes[4 * BUFFER];
} buffer, second;

static int documented_or_more(mest_status status) { return status == MEST_MORE || documented(status); }

/* An array of the library's, now and then none. */
static void *sometimes(void *pointer) { return below(16) ? pointer : NULL; }

static mest_batch any_batch(const network *n, const dataset *d)
{
    uint32_t count = 1 + below(d->samples);
    mest_batch batch = batch_at(d, &n->config, 0, below(8) ? count : some_number() % (d->samples + 1));
    if (below(16) == 0) batch.struct_size = some_number();
    batch.x = sometimes((void *)batch.x);
    batch.labels = sometimes((void *)batch.labels);
    batch.targets = sometimes((void *)batch.targets);
    batch.ids = sometimes((void *)batch.ids);
    return batch;
}

static mest_status tensor_call(mest_model *model)
{
    uint32_t layer = below(24);
    int32_t tensor = (int32_t)below(14) - 1;
    uint64_t count = 0;
    mest_status status = mest_model_tensor_size(model, layer, tensor, &count);
    if (status != MEST_OK || count > BUFFER) return status;
    if (below(8) == 0) count = some_number() % BUFFER;
    if (below(2)) return mest_model_tensor_get(model, layer, tensor, sometimes(buffer.reals), count);
    for (uint32_t i = 0; i < 8 && i < count; i++) buffer.reals[below((uint32_t)count)] = some_real();
    return mest_model_tensor_set(model, layer, tensor, buffer.reals, count);
}

static mest_status csr_call(mest_model *model)
{
    uint32_t layer = below(24);
    mest_csr csr = { .struct_size = sizeof csr, .buffer = second.words, .buffer_bytes = sizeof second };
    mest_status status = mest_model_csr_get(model, layer, &csr);
    if (status != MEST_OK || below(2)) return status;
    /* What it has, changed at some places. */
    static uint32_t starts[BUFFER];
    static uint16_t columns[BUFFER];
    if (csr.rows + 1 > BUFFER || csr.count > BUFFER) return MEST_OK;
    memcpy(starts, csr.row_start, sizeof *starts * (csr.rows + 1));
    memcpy(columns, csr.column, sizeof *columns * csr.count);
    memcpy(buffer.reals, csr.value, sizeof(float) * csr.count);
    csr.row_start = starts, csr.column = columns, csr.value = buffer.reals, csr.momentum = NULL;
    for (uint32_t edits = below(6); edits > 0; edits--) {
        switch (below(6)) {
        case 0: starts[below(csr.rows + 1)] = below(2) ? some_number() : below(csr.count + 2); break;
        case 1: if (csr.count) columns[below(csr.count)] = (uint16_t)below(csr.columns + 1); break;
        case 2: if (csr.count) buffer.reals[below(csr.count)] = some_real(); break;
        case 3: csr.rows = some_number() % BUFFER; break;
        case 4: csr.columns = some_number(); break;
        default: /* the last connections leave */
            csr.count -= below(csr.count + 1);
            for (uint32_t row = 0; row <= csr.rows && row < BUFFER; row++)
                if (starts[row] > csr.count) starts[row] = csr.count;
        }
    }
    return mest_model_csr_set(model, layer, &csr);
}

static mest_status forgetting_call(mest_model *model, const network *n)
{
    uint64_t count = below(4) ? BUFFER : some_number() % BUFFER, found = 0;
    mest_forgetting_report report = { .struct_size = sizeof report };
    mest_selection rule = { .struct_size = sizeof rule, .rule = (int32_t)below(5), .remove_count = some_number(),
                            .remove_number = some_number(), .remove_fraction = some_real(), .keep_lowest = some_number() };
    switch (below(4)) {
    case 0: return mest_model_forgetting(model, sometimes(&report), sometimes(buffer.bytes), count);
    case 1: return mest_model_select(model, sometimes(&rule), sometimes(buffer.words), count, sometimes(&found));
    case 2: return mest_model_order(model, sometimes(buffer.words), count, sometimes(&found));
    default:
        for (uint32_t i = 0; i < 16; i++) buffer.words[i] = below(8) ? below(n->config.samples + 1) : some_number();
        return mest_model_order_set(model, sometimes(buffer.words), below(17));
    }
}

/* Now and then it stops the call, or asks for its end. */
static int32_t any_progress(const mest_progress *now, void *user)
{
    (void)now;
    switch (below(16)) {
    case 1: return 1;
    case 2: mest_model_cancel(*(mest_model **)user); return 0;
    default: return 0;
    }
}

/* What the device does during the next call: most often its work. */
static void any_trouble(device *d)
{
    d->power = SIZE_MAX, d->fail_read = d->flip_read = 0;
    switch (below(8)) {
    case 1: d->power = some_number(); break;
    case 2: d->fail_read = below(64); break;
    case 3: d->flip_read = some_number(); break;
    default: break;
    }
}

static mest_status any_call(mest_model *model, const network *n, const dataset *d, device *slots, const mest_plan_report *plan)
{
    mest_batch batch = any_batch(n, d);
    mest_step_report step = { .struct_size = sizeof step };
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    switch (below(16)) {
    case 0: case 1: return mest_model_step(model, sometimes(&batch), sometimes(&step));
    case 2: case 3: return mest_model_step_slice(model, sometimes(&batch), some_number(), sometimes(&step));
    case 4: return mest_model_begin_epoch(model, NULL);
    case 5: return mest_model_mutate(model, NULL);
    case 6: {
        uint64_t count = below(8) ? 1 + below(d->samples) : some_number() % d->samples;
        return mest_model_predict(model, sometimes(d->x), count, below(3), sometimes(buffer.reals),
                                  below(8) ? count * plan->outputs : some_number() % BUFFER);
    }
    case 7: return mest_model_evaluate(model, sometimes(&batch), sometimes(&evaluation));
    case 8: case 9: return tensor_call(model);
    case 10: return csr_call(model);
    case 11: return forgetting_call(model, n);
    case 12: case 13: {
        mest_io io = device_io(slots);
        any_trouble(slots);
        io.minimum_updates = below(8) ? 0 : some_number();
        return below(2) ? mest_model_save(model, sometimes(&io), NULL) : mest_model_load(model, sometimes(&io), below(3), NULL);
    }
    case 14: mest_model_cancel(model); return MEST_OK;
    default: {
        mest_layer_plan layers[32];
        for (int i = 0; i < 32; i++) layers[i] = (mest_layer_plan){ .struct_size = sizeof *layers };
        mest_plan_report report = { .struct_size = sizeof report };
        return mest_model_plan(model, sometimes(&report), sometimes(layers));
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data, input_left = size;
    network n = random_network();
    n.config.threads = 1;
    mest_plan_report plan = { .struct_size = sizeof plan };
    if (n.count > 32 || mest_plan(&n.config, n.layers, n.count, &plan, NULL) != MEST_OK) return 0;
    if (plan.total_bytes > 1u << 20 || plan.macs > 1u << 16 || plan.checkpoint_bytes > 1u << 20) return 0;
    mest_model *model = NULL;
    mest_env env = { .struct_size = sizeof env, .user = &model, .progress = any_progress };
    MUST(mest_model_create(&n.config, n.layers, n.count, &env, &model) == MEST_OK, "create: %s", mest_last_error(NULL));
    dataset d = make_data(MOST_SAMPLES, plan.inputs, plan.outputs);
    for (uint32_t i = 0; i < d.samples; i++) d.ids[i] = n.config.samples ? i % n.config.samples : 0;
    device slots = make_device(plan.checkpoint_bytes);
    for (int calls = 0; calls < 64 && input_left > 0; calls++) {
        mest_status status = any_call(model, &n, &d, &slots, &plan);
        MUST(documented_or_more(status), "status %d: %s", status, mest_last_error(model));
        MUST(status >= 0 || *mest_last_error(model), "no message for %s", mest_status_string(status));
    }
    input_left = 0; /* from here on progress goes on */
    /* A step in work is dropped. */
    mest_model_cancel(model);
    mest_batch batch = batch_at(&d, &n.config, 0, 1);
    mest_evaluation evaluation = { .struct_size = sizeof evaluation };
    mest_status dropped = mest_model_step_slice(model, &batch, 0, NULL), used_up = mest_model_evaluate(model, &batch, &evaluation);
    MUST(documented(dropped) && documented(used_up), "%d %d", dropped, used_up);
    MUST(hash_model(model) != 0, "reading the model: %s", mest_last_error(model));
    MUST(slots.wrong == 0, "%d calls outside a slot", slots.wrong);
    mest_model_destroy(model);
    free_device(&slots);
    free_data(&d);
    return 0;
}
