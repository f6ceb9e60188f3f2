/* SPDX-License-Identifier: Apache-2.0
 * Whatever happens to a checkpoint, load returns a whole state and says which, or says why not, and nothing has
 * changed then: power that goes at any byte of a save, flipped bits, cut files, files made to do harm, devices
 * that fail. */
#include "allocations.h"
#include "checkpoints.h"
#include "sign.h"
#include <unistd.h>

/* --------------------------------------------------------------------------- power and decay --- */

/* The power goes at every byte of a save, the first or a later one: the state before it, or, at the last, after it.
 * erases, garbles: the device's ways. */
static void torn(int saves, int erases, int garbles)
{
    network n = small();
    dataset d = small_data(&n);
    device clean = make_device(slot_bytes(&n)), slots = make_device(clean.bytes);
    slots.erases = erases, slots.garbles = garbles;
    mest_io io = device_io(&clean);
    mest_model *model = create(&n);
    uint64_t before = whole_hash(model);
    for (int i = 0; i < saves; i++) before = save_after(&n, &d, &io, 3 + 4 * (uint32_t)i, NULL);
    for (uint32_t i = 0; i < 9; i++) step(model, &n, &d, i);
    uint64_t after = whole_hash(model);
    io.user = &slots;
    mest_checkpoint_report report = { .struct_size = sizeof report };
    for (int s = 0; s < 2; s++) memcpy(slots.slot[s], clean.slot[s], clean.bytes);
    check(mest_model_save(model, &io, &report) == MEST_OK && report.slot == saves % 2, "torn: save: %s", mest_last_error(model));
    const size_t bytes = (size_t)report.bytes, chunk = MEST_CHECKPOINT_CHUNK;
    check(slots.syncs == 2 && slots.writes == (bytes + chunk - 1) / chunk && bytes > 2 * chunk,
          "torn: %zu syncs, %zu writes for %zu bytes", slots.syncs, slots.writes, bytes);
    int wrong = 0, damaged = 0;
    for (size_t power = 0; power <= bytes; power++) {
        for (int s = 0; s < 2; s++) memcpy(slots.slot[s], clean.slot[s], clean.bytes);
        slots.power = power;
        mest_status saved = mest_model_save(model, &io, NULL), loaded;
        slots.power = SIZE_MAX;
        uint64_t state = load_new(&n, &io, &loaded, &report);
        damaged += report.damaged == 1;
        if (power == bytes) {
            check(saved == MEST_ERR_IO && loaded == MEST_OK && state == after && report.sequence == (uint64_t)saves + 1
                  && report.slot == saves % 2, "torn: all written, state before");
            continue;
        }
        wrong += saved != MEST_ERR_IO || state != before;
        if (saves) wrong += loaded != MEST_OK || report.sequence != (uint64_t)saves || report.slot != 1 - saves % 2;
        else wrong += loaded != MEST_ERR_CORRUPT;
    }
    check(wrong == 0, "torn after %d saves: %d times of %zu wrong", saves, wrong, bytes);
    /* From the first byte in which it differs from what was there: only a sequence number tells that a save was begun. */
    if (saves == 2) check(damaged > (int)bytes - 64 && damaged < (int)bytes, "torn: %d times reported", damaged);

    /* A device that lies about syncing keeps old chunks among new ones: never a mixture. */
    for (size_t lost = 0; saves == 2 && lost * chunk < bytes; lost++) {
        for (int s = 0; s < 2; s++) memcpy(slots.slot[s], clean.slot[s], clean.bytes);
        check(mest_model_save(model, &io, NULL) == MEST_OK, "lying: save");
        size_t at = lost * chunk, count = slots.bytes - at < chunk ? slots.bytes - at : chunk;
        memcpy(slots.slot[0] + at, clean.slot[0] + at, count);
        mest_status status;
        uint64_t state = load_new(&n, &io, &status, &report);
        check(status == MEST_OK && state == before && report.sequence == 2, "lying: chunk %zu: a mixture", lost);
    }
    check(slots.wrong == 0, "torn: calls that no device can serve");
    mest_model_destroy(model);
    free_device(&clean);
    free_device(&slots);
    free_data(&d);
}

/* Every bit of a checkpoint, and every length of a file. */
static void flipped(void)
{
    network n = small();
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    size_t bytes;
    uint64_t saved = save_after(&n, &d, &io, 5, &bytes);
    mest_model *model = create(&n);
    step(model, &n, &d, 0);
    uint64_t own = whole_hash(model);
    int wrong = 0;
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        slots.slot[0][bit / 8] ^= (unsigned char)(1 << bit % 8);
        mest_status status = mest_model_load(model, &io, 0, NULL);
        int refused = status == MEST_ERR_CORRUPT && *mest_last_error(model) && (bit % 8 || whole_hash(model) == own);
        if (!refused && wrong++ < 5)
            check(0, "flipped: bit %zu: %s: %s", bit, mest_status_string(status), mest_last_error(model));
        slots.slot[0][bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    check(wrong == 0, "flipped: %d of %zu bits", wrong, 8 * bytes);
    check(whole_hash(model) == own, "flipped: the model has changed");

    const char *path = "checkpoint-cut.tmp.mest";
    FILE *file = fopen(path, "wb");
    check(file && fwrite(slots.slot[0], 1, bytes, file) == bytes && fclose(file) == 0, "cut: cannot write %s", path);
    for (size_t length = bytes; length-- > 0;) {
        if (!check(truncate(path, (off_t)length) == 0, "cut: cannot cut %s", path)) break;
        mest_status status = mest_model_load_file(model, path, 0, NULL);
        if (status != MEST_ERR_CORRUPT)
            check(0, "cut to %zu: %s: %s", length, mest_status_string(status), mest_last_error(model));
    }
    remove(path);
    check(whole_hash(model) == own, "cut: the model has changed");
    check(mest_model_load(model, &io, 0, NULL) == MEST_OK && whole_hash(model) == saved, "flipped: the whole one: %s",
          mest_last_error(model));
    mest_model_destroy(model);
    free_device(&slots);
    free_data(&d);
}

/* ------------------------------------------------------------------------------- hostility --- */

/* The same with an index of every kind. */
static network small_schemes(void)
{
    network n = start("small, schemes", 3, 4, 4);
    n.config.batch = 4;
    n.config.samples = 12;
    n.config.threads = 1;
    n.config.density = 0.4f;
    add_conv(&n, 4, 3, 1)->scheme = MEST_SCHEME_PATTERN;
    add_conv(&n, 6, 1, 2)->scheme = MEST_SCHEME_BLOCK4;
    add(&n, MEST_LAYER_FLATTEN);
    add_linear(&n, 5)->scheme = MEST_SCHEME_NM24;
    add_linear(&n, 8)->scheme = MEST_SCHEME_FAN_IN;
    add_linear(&n, 3)->density = 1;
    return n;
}

/* Thin layers on all sides. */
static network small_channels(void)
{
    network n = start("small, channels", 3, 4, 4);
    n.config.batch = 4;
    n.config.samples = 12;
    n.config.threads = 1;
    n.config.density = 0.4f;
    n.config.scheme = MEST_SCHEME_FILTER;
    add_conv(&n, 6, 3, 2);
    add(&n, MEST_LAYER_BATCH_NORM);
    add_conv(&n, 6, 3, 1)->groups = 6;
    add(&n, MEST_LAYER_FLATTEN);
    add_linear(&n, 3)->density = 1;
    return n;
}

/* What a model does whose checkpoint was changed at one place and found right. */
static void use_loaded(mest_model *model, const network *n, dataset *d, mest_io *io, size_t at, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++) {
        mest_batch batch = batch_at(d, &n->config, 4 * (i % 3), 4);
        if (i == 2) (void)!mest_model_begin_epoch(model, NULL);
        mest_status stepped = mest_model_step(model, &batch, NULL);
        if (stepped != MEST_OK && stepped != MEST_ERR_DIVERGED)
            check(0, "%s: byte %zu is %x: step: %s", n->name, at, value, mest_last_error(model));
    }
    (void)!mest_model_mutate(model, NULL);
    mest_selection all = { .struct_size = sizeof all, .rule = MEST_REMOVE_FRACTION, .remove_fraction = 0.5f };
    uint64_t count;
    (void)!mest_model_select(model, &all, NULL, 0, &count);
    check(mest_model_save(model, io, NULL) == MEST_OK, "%s: byte %zu is %x: save: %s", n->name, at, value,
          mest_last_error(model));
}

/* `bytes` bytes of `copy` are a checkpoint as this version saves it. */
static void other_versions(const network *n, device *slots, const unsigned char *copy, size_t bytes)
{
    mest_io io = device_io(slots);
    /* A later format, and a field that this version does not know, at the end of the section. */
    mest_checkpoint_report report;
    mest_status status;
    memcpy(slots->slot[0], copy, bytes);
    set_word(slots->slot[0] + 8, 2);
    sign(slots->slot[0], bytes);
    load_new(n, &io, &status, &report);
    check(status == MEST_ERR_VERSION, "%s: format 2: %s", n->name, mest_status_string(status));
    size_t config = 16 + word_at(copy + 48);
    if (bytes + 4 <= slots->bytes) {
        memcpy(slots->slot[0], copy, 40 + config);
        set_word(slots->slot[0] + 40 + config, 7);
        memcpy(slots->slot[0] + 44 + config, copy + 40 + config, bytes - 40 - config);
        set_word(slots->slot[0] + 48, (uint32_t)config - 12);
        set_word(slots->slot[0] + 24, (uint32_t)bytes + 4);
        sign(slots->slot[0], bytes + 4);
        load_new(n, &io, &status, &report);
        check(status == MEST_ERR_VERSION, "%s: a field more: %s", n->name, mest_status_string(status));
    }
    /* One less, as an earlier version saved it: the last of the config, sieve_share, is this model's. */
    memcpy(slots->slot[0], copy, 36 + config);
    memcpy(slots->slot[0] + 36 + config, copy + 40 + config, bytes - 40 - config);
    set_word(slots->slot[0] + 48, (uint32_t)config - 20);
    set_word(slots->slot[0] + 24, (uint32_t)bytes - 4);
    sign(slots->slot[0], bytes - 4);
    load_new(n, &io, &status, &report);
    check(status == MEST_OK, "%s: a field less: %s", n->name, mest_status_string(status));
}

/* Checkpoints with right CRCs and wrong contents: refused, or a state that trains like any other; no access outside
 * the model (part address). */
static void hostile(network n)
{
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    size_t bytes;
    save_after(&n, &d, &io, 5, &bytes);
    unsigned char *copy = malloc(bytes);
    memcpy(copy, slots.slot[0], bytes);
    check(sign(slots.slot[0], bytes) > 10 && !memcmp(copy, slots.slot[0], bytes), "%s: the format is not as documented",
          n.name);
    check(!memcmp(copy, "mestsava\1\0\0\0", 12), "%s: the header is not as documented", n.name);
    static const uint32_t values[] = { 0, 1, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7f800000 };
    int accepted = 0, refused = 0;
    unsigned long allocations = 0;
    for (size_t at = 8; at + 4 <= bytes; at++) {
        size_t v = at % (sizeof values / sizeof *values);
        memcpy(slots.slot[0], copy, bytes);
        memset(slots.slot[1], 0, slots.bytes);
        set_word(slots.slot[0] + at, values[v]);
        sign(slots.slot[0], bytes);
        mest_model *model = create(&n);
        uint64_t fresh = whole_hash(model);
        watch();
        mest_status status = mest_model_load(model, &io, 0, NULL);
        allocations += unwatch();
        if (status == MEST_OK) {
            accepted++;
            use_loaded(model, &n, &d, &io, at, values[v]);
        } else {
            refused++;
            int known = status == MEST_ERR_CORRUPT || status == MEST_ERR_VERSION || status == MEST_ERR_ARGUMENT;
            if (!known || whole_hash(model) != fresh)
                check(0, "%s: byte %zu is %x: %s, or the model has changed: %s", n.name, at, values[v],
                      mest_status_string(status), mest_last_error(model));
        }
        mest_model_destroy(model);
    }
    check(accepted > 100 && refused > 100, "%s: %d accepted, %d refused", n.name, accepted, refused);
    check(slots.wrong == 0, "%s: %d calls outside a slot", n.name, slots.wrong);
    check(allocations == 0, "%s: loads have asked for memory %lu times", n.name, allocations);
    memset(slots.slot[1], 0, slots.bytes);
    other_versions(&n, &slots, copy, bytes);
    free(copy);
    free_device(&slots);
    free_data(&d);
}

/* ----------------------------------------------------------------------------- the device --- */

/* A device that fails or answers otherwise at any moment of a load: the saved state, or the model's own, or, when
 * that is gone, a new model's. */
static void unreliable(network n, int flips)
{
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    size_t bytes;
    uint64_t saved = save_after(&n, &d, &io, 5, &bytes);
    mest_model *model = create(&n);
    uint64_t fresh = whole_hash(model);
    step(model, &n, &d, 0);
    step(model, &n, &d, 1);
    uint64_t first = whole_hash(model);
    mest_model_destroy(model);
    int ok = 0, corrupt = 0, anew = 0;
    size_t moments = flips ? 3 * bytes : 40;
    for (size_t at = 1; at < moments; at += flips ? 13 : 1) {
        model = create(&n);
        step(model, &n, &d, 0);
        step(model, &n, &d, 1);
        if (flips) slots.flip_read = at;
        else slots.fail_read = at;
        mest_status status = mest_model_load(model, &io, 0, NULL);
        slots.flip_read = slots.fail_read = 0;
        int says_anew = strstr(mest_last_error(model), "begins anew") != NULL;
        uint64_t now = whole_hash(model);
        if (status == MEST_OK) ok += now == saved;
        else if (now == first) corrupt += status == MEST_ERR_CORRUPT || status == MEST_ERR_IO;
        else if (check(status == MEST_ERR_IO && now == fresh && says_anew, "%s, unreliable: moment %zu: %s", n.name, at,
                       mest_status_string(status))) {
            anew++;
            step(model, &n, &d, 0);
            step(model, &n, &d, 1);
            check(whole_hash(model) == first, "%s: a model that begins anew trains otherwise", n.name);
        }
        mest_model_destroy(model);
    }
    int moments_tried = flips ? (int)(moments + 11) / 13 : (int)moments - 1;
    check(ok + corrupt + anew == moments_tried && ok > 0 && anew > 0, "%s, unreliable: %d loaded, %d refused, %d anew of %d",
          n.name, ok, corrupt, anew, moments_tried);
    free_device(&slots);
    free_data(&d);
}

/* While a load reads, its slot becomes another whole checkpoint: one of the two, or a new model, never a mixture. */
static void swapped(void)
{
    network n = small();
    dataset d = small_data(&n);
    device slots = make_device(slot_bytes(&n));
    mest_io io = device_io(&slots);
    uint64_t older = save_after(&n, &d, &io, 5, NULL), newer = save_after(&n, &d, &io, 9, NULL);
    mest_model *model = create(&n);
    uint64_t fresh = whole_hash(model);
    mest_model_destroy(model);
    int whole = 0, anew = 0;
    const int moments = 24;
    for (int at = 1; at <= moments; at++) {
        mest_checkpoint_report report;
        mest_status status;
        slots.swap_read = (size_t)at;
        uint64_t state = load_new(&n, &io, &status, &report);
        if (slots.swap_read == 0) slots.swap_read = 1; /* back */
        (void)!device_read(0, 0, &(char){ 0 }, 1, &slots);
        slots.swap_read = 0;
        whole += status == MEST_OK && state == (report.sequence == 2 ? newer : older);
        anew += status == MEST_ERR_IO && state == fresh;
    }
    check(whole + anew == moments && whole > 0 && anew > 0, "swapped: %d whole, %d anew of %d", whole, anew, moments);
    free_device(&slots);
    free_data(&d);
}

int main(void)
{
    torn(0, 0, 1);
    torn(2, 0, 0);
    torn(2, 1, 1);
    flipped();
    swapped();
    network networks[] = { small(), small_schemes(), small_channels(), small_sieve() };
    for (int i = 0; i < 4; i++) {
        hostile(networks[i]);
        unreliable(networks[i], 0);
        unreliable(networks[i], 1);
    }
    return finish("damage");
}
