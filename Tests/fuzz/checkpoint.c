/* SPDX-License-Identifier: Apache-2.0
 * Fuzzing of loading: any bytes in the slots, with right CRCs or as they are.  Refused, and the model is as it was; or
 * loaded, and the model trains and saves like any other. */
#include "input.h"
#include "../c/checkpoints.h"
#include "../c/sign.h"

enum { KINDS = 2 };

/* A model that has trained a little, its network, what it can be saved in. */
static mest_model *begin(const network *n, const dataset *d)
{
    mest_model *model = NULL;
    MUST(mest_model_create(&n->config, n->layers, n->count, NULL, &model) == MEST_OK, "%s", mest_last_error(NULL));
    mest_batch batch = batch_at(d, &n->config, 0, n->config.batch);
    MUST(mest_model_step(model, &batch, NULL) == MEST_OK, "%s", mest_last_error(model));
    return model;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    int is_sieve = data[0] & 1, signs = data[0] & 2, second = data[0] & 4, others = data[0] & 8;
    data++, size--;
    network n = is_sieve ? small_sieve() : small();
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    memcpy(slots.slot[second ? 1 : 0], data, size < slots.bytes ? size : slots.bytes);
    if (signs) sign(slots.slot[second ? 1 : 0], size < slots.bytes ? size : slots.bytes);

    mest_model *model = begin(&n, &d);
    uint64_t before = whole_hash(model);
    mest_status status = mest_model_load(model, &io, others ? MEST_LOAD_OTHER_SETTINGS : 0, NULL);
    if (status != MEST_OK) {
        MUST(status == MEST_ERR_CORRUPT || status == MEST_ERR_VERSION || status == MEST_ERR_ARGUMENT, "load: %d", status);
        MUST(*mest_last_error(model), "no message");
        MUST(whole_hash(model) == before, "a load that failed has changed the model");
    }
    for (uint32_t i = 0; i < 8; i++) { /* epochs begin, samples leave, connections move */
        mest_batch batch = batch_at(&d, &n.config, 4 * (i % 3), 4);
        status = mest_model_step(model, &batch, NULL);
        MUST(status == MEST_OK || status == MEST_ERR_DIVERGED, "step: %d: %s", status, mest_last_error(model));
        status = mest_model_save(model, &io, NULL);
        MUST(status == MEST_OK || status == MEST_ERR_STATE || status == MEST_ERR_IO, "save: %d: %s", status, mest_last_error(model));
    }
    MUST(whole_hash(model) != 0, "reading the model");
    MUST(slots.wrong == 0, "%d calls outside a slot", slots.wrong);
    mest_model_destroy(model);
    free_device(&slots);
    free_data(&d);
    return 0;
}
