/* SPDX-License-Identifier: Apache-2.0
 * The hashes of Tests/c/hashes.txt where there is no operating system.
 *
 *   golden [LINE ...]    counted from 1; without one all */
#include "../c/training.h"
#include "board.h"

/* -------------------------------------------------------------------------------- malloc --- */

/* One piece after the other; when the last that is left is freed, all of the room is there again. */
enum { HEAP = 14 << 20, ALIGNMENT = 64 };
BOARD_BULK static _Alignas(ALIGNMENT) unsigned char heap[HEAP];
static size_t used, living;

void *malloc(size_t bytes)
{
    if (bytes > HEAP - used) {
        puts("the heap is full");
        exit(EXIT_FAILURE);
    }
    void *block = heap + used;
    used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    living++;
    return block;
}

void free(void *block)
{
    if (block && --living == 0) used = 0;
}

static void *allocate(size_t bytes, size_t alignment, void *user)
{
    (void)user;
    return alignment <= ALIGNMENT ? malloc(bytes) : NULL;
}

static void release(void *block, size_t bytes, void *user)
{
    (void)bytes;
    (void)user;
    free(block);
}

/* ------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    static network networks[MOST_NETWORKS];
    size_t count = every_network(networks);
    mest_env env = { .struct_size = sizeof env, .allocate = allocate, .release = release };
    for (int i = 1; i < argc; i++) {
        size_t line = strtoul(argv[i], NULL, 10);
        if (line >= 1 && line <= count) print_hash(&networks[line - 1], &env);
    }
    for (size_t i = 0; argc < 2 && i < count; i++) print_hash(&networks[i], &env);
    return checks.failed != 0;
}
