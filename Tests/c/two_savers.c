/* SPDX-License-Identifier: Apache-2.0
 * Two processes save to one file while a third one loads: it always finds a whole checkpoint, of one or the other.
 * Who comes while the other saves is told so. */
#define _GNU_SOURCE /* usleep, flock */
#include "checkpoints.h"
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOADS = 500, MOST_LOADS = 100 * LOADS };

/* A model that has trained `steps` steps. */
static mest_model *trained(const network *n, const dataset *d, uint32_t steps)
{
    mest_model *model = create(n);
    for (uint32_t i = 0; i < steps; i++) step(model, n, d, i);
    return model;
}

static int told(const mest_model *model, mest_status status)
{
    return status == MEST_ERR_IO && strstr(mest_last_error(model), "another save") != NULL;
}

/* Saves until it is told to stop; exits with 1 if a save fails for another reason than the other saver. */
static pid_t start_saver(mest_model *model, const char *path, const volatile int *stop)
{
    pid_t child = fork();
    if (child) return child;
    while (!*stop) {
        mest_status status = mest_model_save_file(model, path, NULL);
        if (status != MEST_OK && !told(model, status)) {
            printf("FAILED: save: %s\n", mest_last_error(model));
            _exit(1);
        }
        usleep(100);
    }
    _exit(0);
}

static void savers_and_loader(const network *n, const dataset *d, const char *path)
{
    volatile int *stop = mmap(NULL, sizeof *stop, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!check((void *)stop != MAP_FAILED, "no memory to share with the savers")) return;
    mest_model *one = trained(n, d, 5), *other = trained(n, d, 9), *reader = create(n);
    uint64_t hash[2] = { whole_hash(one), whole_hash(other) };
    check(mest_model_save_file(one, path, NULL) == MEST_OK, "the first save: %s", mest_last_error(one));
    pid_t savers[2] = { start_saver(one, path, stop), start_saver(other, path, stop) };
    int loads = 0, torn = 0, ended = 0, found[2] = { 0, 0 };
    while ((loads < LOADS || ((!found[0] || !found[1]) && loads < MOST_LOADS)) && waitpid(-1, &ended, WNOHANG) == 0) {
        mest_status status = mest_model_load_file(reader, path, 0, NULL);
        uint64_t now = whole_hash(reader);
        torn = !check(status == MEST_OK && (now == hash[0] || now == hash[1]), "load %d: %s: %s", loads,
                      mest_status_string(status), mest_last_error(reader));
        if (torn) break;
        loads++;
        found[now == hash[1]]++;
    }
    check(ended == 0, "a saver ended with %d", ended);
    *stop = 1;
    for (int i = 0; i < 2; i++)
        if (waitpid(savers[i], &ended, 0) == savers[i])
            check(WIFEXITED(ended) && WEXITSTATUS(ended) == 0, "saver %d ended with %d", i, ended);
    if (!torn) check(found[0] && found[1], "%d loads: %d of one process, %d of the other", loads, found[0], found[1]);
    munmap((void *)stop, sizeof *stop);
    mest_model_destroy(one), mest_model_destroy(other), mest_model_destroy(reader);
}

/* A save that goes on elsewhere is in nobody's way for longer than it lasts. */
static void while_another_saves(const network *n, const dataset *d, const char *path, const char *temporary)
{
    mest_model *model = trained(n, d, 3);
    int held = open(temporary, O_WRONLY | O_CREAT, 0666);
    check(held >= 0 && flock(held, LOCK_EX) == 0, "no lock for the test");
    mest_status status = mest_model_save_file(model, path, NULL);
    check(told(model, status), "while another saves: %s: %s", mest_status_string(status), mest_last_error(model));
    check(access(temporary, F_OK) == 0, "the other's file is gone");
    close(held);
    check(mest_model_save_file(model, path, NULL) == MEST_OK, "when it has ended: %s", mest_last_error(model));
    check(access(temporary, F_OK) != 0, "a file is left behind");
    mest_model_destroy(model);
}

int main(void)
{
    network n = residual();
    n.config.threads = 1;
    dataset d = make_data(64, 216, 10);
    char folder[] = "/tmp/mest-savers-XXXXXX", path[64], temporary[64];
    if (!check(mkdtemp(folder) != NULL, "no folder for the test")) return finish("two_savers");
    snprintf(path, sizeof path, "%s/training", folder);
    snprintf(temporary, sizeof temporary, "%s/training.tmp", folder);
    savers_and_loader(&n, &d, path);
    while_another_saves(&n, &d, path, temporary);
    remove(path);
    remove(temporary);
    rmdir(folder);
    free_data(&d);
    return finish("two_savers");
}
