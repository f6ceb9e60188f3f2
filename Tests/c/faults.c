/* SPDX-License-Identifier: Apache-2.0
 * The n-th request to the system, or to the caller's I/O, fails, for every n until none is left to fail: the right
 * status and a message, nothing lost that was saved, nothing leaked, and the model goes on. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "checkpoints.h"
#include "process.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* ------------------------------------------------------------------------- requests to the system --- */

enum fault { FAILS, SHORT, INTERRUPTED }; /* with an error; half of it done; as a signal would */

static struct {
    int on;
    enum fault kind;
    long left;         /* requests until one fails */
    const char *hit;   /* the function that did */
    char asked[256];   /* for what, in order; a request again and again once */
} faults;

/* Whether this request is the one. */
UNUSED static int fails(const char *function)
{
    if (!faults.on) return 0;
    const char *last = strrchr(faults.asked, ' ');
    size_t length = strlen(faults.asked);
    if (!last || strcmp(last + 1, function)) snprintf(faults.asked + length, sizeof faults.asked - length, " %s", function);
    if (faults.left < 0 || faults.left-- > 0) return 0;
    faults.hit = function;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WATCHING (!SANITIZED)
#if WATCHING
#pragma GCC diagnostic ignored "-Wpedantic" /* functions from dlsym */
extern int open64(const char *, int, ...);
extern ssize_t pread64(int, void *, size_t, off64_t), pwrite64(int, const void *, size_t, off64_t);

#define FAILING(result_type, name, parameters, arguments, may_be_interrupted)         \
    result_type name parameters                                                       \
    {                                                                                 \
        if ((faults.kind == FAILS || (may_be_interrupted && faults.kind == INTERRUPTED)) && fails(#name)) { \
            errno = faults.kind == FAILS ? ENOSPC : EINTR;                            \
            return -1;                                                                \
        }                                                                             \
        return REAL(name) arguments;                                                  \
    }
FAILING(int, flock, (int handle, int how), (handle, how), 0)
FAILING(int, ftruncate64, (int handle, off64_t size), (handle, size), 0)
FAILING(int, rename, (const char *from, const char *to), (from, to), 0)
FAILING(int, fstat64, (int handle, struct stat64 *about), (handle, about), 0)
FAILING(int, stat64, (const char *path, struct stat64 *about), (path, about), 0)

int fsync(int handle)
{
    struct stat64 about;
    int is_folder = REAL(fstat64)(handle, &about) == 0 && S_ISDIR(about.st_mode);
    if (faults.kind == FAILS && fails(is_folder ? "fsync-folder" : "fsync")) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(fsync)(handle);
}

int open64(const char *path, int flags, ...)
{
    if (faults.kind != SHORT && fails("open")) {
        errno = faults.kind == FAILS ? EMFILE : EINTR;
        return -1;
    }
    return REAL(open64)(path, flags, 0666);
}

#define TRANSFER(name, buffer_type)                                                   \
    ssize_t name(int handle, buffer_type buffer, size_t count, off64_t offset)        \
    {                                                                                 \
        if (fails(#name)) {                                                           \
            if (faults.kind == SHORT) return count > 1 ? REAL(name)(handle, buffer, count / 2, offset) : REAL(name)(handle, buffer, count, offset); \
            errno = faults.kind == FAILS ? EIO : EINTR;                               \
            return -1;                                                                \
        }                                                                             \
        return REAL(name)(handle, buffer, count, offset);                             \
    }
TRANSFER(pread64, void *)
TRANSFER(pwrite64, const void *)

int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (faults.kind == FAILS && fails("posix_memalign")) return ENOMEM;
    return REAL(posix_memalign)(out, alignment, size);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    if (faults.kind == FAILS && fails("pthread_create")) return EAGAIN;
    return REAL(pthread_create)(thread, attributes, run, argument);
}
#endif

/* --------------------------------------------------------------------------------- what may happen --- */

/* Before the next call clears it. */
typedef struct message {
    char text[256];
} message;

static message message_of(const mest_model *model)
{
    message m;
    snprintf(m.text, sizeof m.text, "%s", mest_last_error(model));
    return m;
}

/* The states of the training: when it begins, after 3 steps and after 5. */
static uint64_t states[3];

static void begin_faults(enum fault kind, long n)
{
    faults.kind = kind, faults.left = n, faults.hit = NULL, faults.asked[0] = 0, faults.on = 1;
}

/* Hashes of models ask for memory, too. */
static uint64_t quiet_hash(const mest_model *model)
{
    faults.on = 0;
    uint64_t hash = whole_hash(model);
    faults.on = 1;
    return hash;
}

static const char *describe(const char *what, long n)
{
    static char text[128];
    snprintf(text, sizeof text, "request %ld, %s: %s", n, faults.hit ? faults.hit : "none", what);
    return text;
}

/* What a new model loads from the file: the number of the state, or -1. */
static int state_in(const char *path, const network *n)
{
    mest_model *model = create(n);
    int found = -1;
    if (mest_model_load_file(model, path, 0, NULL) == MEST_OK) {
        uint64_t hash = whole_hash(model);
        for (int i = 0; i < 3; i++)
            if (hash == states[i]) found = i;
        check(found >= 0, "what was loaded is no state of the training");
    }
    mest_model_destroy(model);
    return found;
}

static void train(mest_model *model, const network *n, const dataset *d, uint32_t from, uint32_t to)
{
    faults.on = 0; /* a step asks for nothing: memory.c */
    for (uint32_t i = from; i < to; i++) step(model, n, d, i);
    faults.on = 1;
}

/* Trains, saves, trains on, saves, loads; the n-th request fails.  Whether one did. */
static int in_files(network n, const dataset *d, const char *path, enum fault kind, long number)
{
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    unlink(path);
    int files = open_files(), saved = -1;
    begin_faults(kind, number);
    mest_model *model = NULL;
    mest_status status = mest_model_create(&n.config, n.layers, n.count, NULL, &model);
    if (status != MEST_OK) {
        check(status == MEST_ERR_MEMORY && !model && *mest_last_error(NULL), "%s", describe("create", number));
        return faults.hit != NULL;
    }
    for (int half = 0; half < 2; half++) {
        train(model, &n, d, half ? 3 : 0, half ? 5 : 3);
        uint64_t before = quiet_hash(model);
        status = mest_model_save_file(model, path, NULL);
        check(status == MEST_OK || (status == MEST_ERR_IO && kind == FAILS && faults.hit && *mest_last_error(model)), "%s",
              describe("save", number));
        check(quiet_hash(model) == before, "%s", describe("a save has changed the model", number));
        faults.on = 0;
        int found = state_in(path, &n);
        check(status == MEST_OK ? found == half + 1 : found == saved || found == half + 1, "%s",
              describe("the file after a save", number));
        saved = found;
        faults.on = 1;
    }
    uint64_t before = quiet_hash(model);
    status = mest_model_load_file(model, path, 0, NULL);
    message said = message_of(model);
    uint64_t after = quiet_hash(model);
    faults.on = 0;
    if (status == MEST_OK) check(saved >= 0 && after == states[saved], "%s", describe("what was loaded", number));
    else if (strstr(said.text, "begins anew")) check(after == states[0], "%s", describe("a new model", number));
    else check((status == MEST_ERR_IO || saved < 0) && faults.hit && after == before, "%s", describe("load", number));
    step(model, &n, d, 5); /* it goes on */
    mest_model_destroy(model);
    check(open_files() == files, "%s", describe("files are open", number));
    check(access(temporary, F_OK) != 0, "%s", describe("PATH.tmp is left", number));
    return faults.hit != NULL;
}

/* What makes a save survive a loss of power is the order of its requests: the file is safe before it has the name, the
 * name before the call returns. */
static void in_order(const network *n, const dataset *d, const char *path)
{
    mest_model *model = create(n);
    train(model, n, d, 0, 3);
    begin_faults(FAILS, -1);
    mest_status status = mest_model_save_file(model, path, NULL);
    faults.on = 0;
    check(status == MEST_OK && !strcmp(faults.asked, " open flock fstat64 stat64 ftruncate64 pwrite64 fsync pwrite64 fsync rename open"
                                                     " fsync-folder"), "a save asks for%s", faults.asked);
    mest_model_destroy(model);
}

/* ----------------------------------------------------------------------------------- requests to the caller --- */

static struct {
    device slots;
    long left;
    int hit;
} caller;

static int caller_fails(void) { return caller.left >= 0 && caller.left-- == 0 ? (caller.hit = 1) : 0; }
static int32_t some_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    (void)user;
    return caller_fails() ? 7 : device_read(slot, offset, bytes, count, &caller.slots);
}
static int32_t some_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user)
{
    (void)user;
    return caller_fails() ? 7 : device_write(slot, offset, bytes, count, &caller.slots);
}
static int32_t some_sync(uint32_t slot, void *user)
{
    (void)user;
    return caller_fails() ? 7 : device_sync(slot, &caller.slots);
}

static int state_in_slots(const network *n)
{
    caller.left = -1;
    mest_io io = { .struct_size = sizeof io, .read = some_read, .write = some_write, .sync = some_sync };
    mest_model *model = create(n);
    int found = -1;
    if (mest_model_load(model, &io, 0, NULL) == MEST_OK)
        for (int i = 0; i < 3; i++)
            if (whole_hash(model) == states[i]) found = i;
    mest_model_destroy(model);
    return found;
}

static int in_slots(network n, const dataset *d, long number)
{
    mest_io io = { .struct_size = sizeof io, .read = some_read, .write = some_write, .sync = some_sync };
    caller.slots = make_device(slot_bytes(&n));
    caller.hit = 0;
    mest_model *model = create(&n);
    int saved = -1;
    long left = number;
    for (int half = 0; half < 2; half++) {
        train(model, &n, d, half ? 3 : 0, half ? 5 : 3);
        uint64_t before = whole_hash(model);
        caller.left = left;
        mest_status status = mest_model_save(model, &io, NULL);
        left = caller.left;
        check(status == MEST_OK || (status == MEST_ERR_IO && caller.hit && strstr(mest_last_error(model), "returned 7")),
              "I/O call %ld: save: %s", number, mest_last_error(model));
        check(whole_hash(model) == before, "I/O call %ld: a save has changed the model", number);
        int found = state_in_slots(&n);
        check(status == MEST_OK ? found == half + 1 : found == saved || found == half + 1, "I/O call %ld: the slots: state %d, status %d, before %d", number, found, status, saved);
        saved = found;
    }
    uint64_t before = whole_hash(model);
    caller.left = left;
    mest_status status = mest_model_load(model, &io, 0, NULL);
    message said = message_of(model);
    uint64_t after = whole_hash(model);
    int known = after == states[1] || after == states[2];
    if (status == MEST_OK) check(known, "I/O call %ld: what was loaded", number);
    else if (strstr(said.text, "begins anew")) check(after == states[0], "I/O call %ld: a new model", number);
    else check(after == before && caller.hit && *said.text, "I/O call %ld: load: %s", number, said.text);
    step(model, &n, d, 5);
    check(caller.slots.wrong == 0, "I/O call %ld: %d calls outside a slot", number, caller.slots.wrong);
    mest_model_destroy(model);
    free_device(&caller.slots);
    return caller.hit;
}

int main(void)
{
    network n = small(); /* one thread: others are asked for below */
    dataset d = small_data(&n);
    mest_model *model = create(&n);
    states[0] = whole_hash(model);
    for (uint32_t i = 0; i < 5; i++) {
        step(model, &n, &d, i);
        if (i == 2) states[1] = whole_hash(model);
    }
    states[2] = whole_hash(model);
    mest_model_destroy(model);
    n.config.threads = 2;

    if (WATCHING) {
        char path[64];
        snprintf(path, sizeof path, "faults-%d.mest", (int)getpid());
        in_order(&n, &d, path);
        static const char *kinds[] = { "failing", "short", "interrupted" };
        for (int kind = FAILS; kind <= INTERRUPTED; kind++) {
            long requests = 0;
            while (in_files(n, &d, path, (enum fault)kind, requests) && requests < 10000) requests++;
            check(requests > 5 && requests < 10000, "%ld %s requests", requests, kinds[kind]);
        }
        unlink(path);
    } else {
        skip("requests to the system", "the sanitizer wants some of these functions for itself");
    }
    long calls = 0;
    while (in_slots(n, &d, calls) && calls < 10000) calls++;
    check(calls > 10 && calls < 10000, "%ld calls of the caller's I/O", calls);
    free_data(&d);
    return finish("faults");
}
