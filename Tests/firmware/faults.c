/* SPDX-License-Identifier: Apache-2.0
 * What a board does when a program goes wrong: the argument names it.  Without one: what the simulated flash chip does. */
#include "../c/check.h"
#include "board.h"
#include "flash.h"
#include <stdlib.h>
#include <string.h>

static volatile int zero;

/* No two calls share a frame: each needs its own after the next has returned. */
static int deeper(volatile int *before)
{
    volatile int frame[64];
    frame[0] = *before + 1;
    return frame[0] == 0 ? 0 : deeper(frame) + frame[zero];
}

/* Bytes of a page: all the same? */
static int all(uint32_t offset, size_t count, unsigned char value)
{
    for (size_t i = 0; i < count; i++) {
        unsigned char byte;
        if (flash_read(offset + (uint32_t)i, &byte, 1) || byte != value) return 0;
    }
    return 1;
}

static int flash(void)
{
    static unsigned char bytes[FLASH_SECTOR];
    uint32_t end = (uint32_t)FLASH_SECTOR * FLASH_SECTORS, start = flash_start();
    if (start == 1) {
        check(all(0, end, 0xff), "a new chip is erased");
        memset(bytes, 0x5a, sizeof bytes);
        check(!flash_program(FLASH_SECTOR, bytes, sizeof bytes), "ones become zeros");
        printf("before the reset: %d failed\n", checks.failed);
        if (checks.failed == 0) board_reset();
    }
    check(start == 2, "start %u", (unsigned)start);
    check(all(FLASH_SECTOR, FLASH_SECTOR, 0x5a), "flash survives a reset");
    check(!bytes[0], "RAM does not");
    memset(bytes, 0x52, sizeof bytes);
    check(!flash_program(FLASH_SECTOR, bytes, sizeof bytes), "more ones become zeros");
    memset(bytes, 0xff, sizeof bytes);
    check(flash_program(FLASH_SECTOR, bytes, 1), "zeros do not become ones");
    check(!flash_erase(FLASH_SECTOR, FLASH_SECTOR) && all(FLASH_SECTOR, FLASH_SECTOR, 0xff), "erased");
    check(flash_erase(1, FLASH_SECTOR) && flash_erase(0, 1), "only whole sectors");
    check(flash_program(end, bytes, 1) && flash_read(end - 1, bytes, 2) && flash_erase(end, FLASH_SECTOR), "the chip ends");
    flash_counts counts = flash_counted();
    check(counts.erases == 1 && counts.most == 1 && counts.written == 2 * FLASH_SECTOR, "counts");
    return finish("flash");
}

int main(int argc, char **argv)
{
    if (argc < 2) return flash();
    if (!strcmp(argv[1], "stack")) return deeper(&zero);
    if (!strcmp(argv[1], "trap")) __builtin_trap();
    if (!strcmp(argv[1], "address")) return *(volatile int *)0x70000000u; /* nothing on mps2-an386 */
    return 42;
}
