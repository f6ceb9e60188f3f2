/* SPDX-License-Identifier: Apache-2.0
 * This machine as a board: the program is a process, a reset ends it and begins it again; the chip is memory of its
 * parent. */
#define _DEFAULT_SOURCE
#include "board.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const char board_name[] = "host";

enum { CHIP_BYTES = 1 << 20, RESET = 113 }; /* RESET: a status that no program here ends with */
static void *chip;

/* Runs before main(), which returns in the child only. */
__attribute__((constructor)) static void power(void)
{
    chip = mmap(NULL, CHIP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (chip == MAP_FAILED) abort();
    for (int status = 0; ;) {
        pid_t child = fork();
        if (child == 0) return;
        if (child < 0 || waitpid(child, &status, 0) != child) abort();
        if (!WIFEXITED(status)) _exit(EXIT_FAILURE);
        if (WEXITSTATUS(status) != RESET) _exit(WEXITSTATUS(status));
    }
}

_Noreturn void board_reset(void)
{
    fflush(stdout);
    _exit(RESET);
}

void *board_chip(size_t bytes)
{
    if (bytes > CHIP_BYTES) abort();
    return chip;
}

size_t board_stack_bytes(void) { return 0; }
size_t board_stack_used(void) { return 0; }
