/* SPDX-License-Identifier: Apache-2.0
 * A process that trains and saves is killed at random moments, again and again: what it leaves behind always
 * loads, and the training ends on the bits of one that nobody killed.
 *
 *   killed [KILLS]    300 */
#define _GNU_SOURCE /* kill, usleep */
#include "checkpoints.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 60, DAMAGED = 3 };

/* The process that is killed: resumes if it can, trains on, saves after every step. */
static int train(const network *n, const dataset *d, const char *path)
{
    mest_model *model = create(n);
    mest_checkpoint_report report = { .struct_size = sizeof report };
    if (access(path, F_OK) == 0 && mest_model_load_file(model, path, 0, &report) != MEST_OK) {
        printf("FAILED: what was left behind does not load: %s\n", mest_last_error(model));
        return DAMAGED;
    }
    for (uint32_t i = (uint32_t)report.updates; i < STEPS; i++) {
        step(model, n, d, i);
        if (mest_model_save_file(model, path, NULL) != MEST_OK) return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 300, kills = 0, inside = 0, rounds = 0;
    network n = residual();
    n.config.threads = 1;
    n.config.phase1_epochs = 2;
    n.config.remove_rule = MEST_REMOVE_FRACTION;
    n.config.remove_fraction = 0.4f;
    dataset d = make_data(64, 216, 10);
    mest_model *never = create(&n);
    for (uint32_t i = 0; i < STEPS; i++) step(never, &n, &d, i);
    uint64_t expected = whole_hash(never);
    mest_model_destroy(never);

    char folder[] = "/tmp/mest-killed-XXXXXX", path[64], temporary[64];
    if (!check(mkdtemp(folder) != NULL, "no folder for the test")) return finish("killed");
    snprintf(path, sizeof path, "%s/training", folder);
    snprintf(temporary, sizeof temporary, "%s/training.tmp", folder);
    uint64_t moments = 1;
    while ((kills < wanted || rounds == 0) && checks.failed == 0) {
        pid_t child = fork();
        if (child == 0) _exit(train(&n, &d, path));
        moments = moments * 6364136223846793005u + 1442695040888963407u;
        usleep((useconds_t)(moments >> 33) % 40000);
        if (kills < wanted) kill(child, SIGKILL); /* enough: this one may come to its end */
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) {
            kills++;
            inside += access(temporary, F_OK) == 0;
            continue;
        }
        /* It was faster: is what it ended with right? */
        check(WEXITSTATUS(status) == 0, "the process ended with %d", WEXITSTATUS(status));
        mest_model *ended = create(&n);
        check(mest_model_load_file(ended, path, 0, NULL) == MEST_OK && whole_hash(ended) == expected, "after %d kills: %s",
              kills, mest_last_error(ended));
        mest_model_destroy(ended);
        remove(path);
        rounds++;
    }
    check(inside > 0 || wanted < 100, "no process was killed while it saved");
    printf("%d kills, %d of them during a save; %d trainings came to their end\n", kills, inside, rounds);
    remove(path);
    remove(temporary);
    rmdir(folder);
    free_data(&d);
    return finish("killed");
}
