/* SPDX-License-Identifier: Apache-2.0 */
#include "flash.h"
#include "board.h"
#include <string.h>

/* ------------------------------------------------------------------------------ the chip --- */

enum { BYTES = FLASH_SECTOR * FLASH_SECTORS };
#define USED_BEFORE 0x6d657374666c6173u /* anything that memory is not by chance */

typedef struct chip {
    uint64_t mark;
    flash_counts counts;
    uint32_t erases[FLASH_SECTORS];
    unsigned char cells[BYTES];
} chip;

static chip *device(void) { return board_chip(sizeof(chip)); }
static int outside(uint32_t offset, size_t count) { return offset > BYTES || count > BYTES - offset; }

uint32_t flash_start(void)
{
    chip *c = device();
    if (c->mark != USED_BEFORE) {
        memset(c, 0, sizeof *c);
        memset(c->cells, 0xff, sizeof c->cells);
        c->mark = USED_BEFORE;
    }
    return ++c->counts.starts;
}

int32_t flash_erase(uint32_t offset, size_t count)
{
    chip *c = device();
    if (outside(offset, count) || offset % FLASH_SECTOR || count % FLASH_SECTOR) return 1;
    for (uint32_t sector = offset / FLASH_SECTOR; count > 0; sector++, count -= FLASH_SECTOR) {
        memset(c->cells + (size_t)sector * FLASH_SECTOR, 0xff, FLASH_SECTOR);
        c->counts.erases++;
        if (++c->erases[sector] > c->counts.most) c->counts.most = c->erases[sector];
    }
    return 0;
}

int32_t flash_program(uint32_t offset, const void *bytes, size_t count)
{
    chip *c = device();
    if (outside(offset, count)) return 1;
    const unsigned char *from = bytes;
    for (size_t i = 0; i < count; i++) {
        if (from[i] & ~c->cells[offset + i]) return 1;
        c->cells[offset + i] = from[i];
    }
    c->counts.written += count;
    return 0;
}

int32_t flash_read(uint32_t offset, void *bytes, size_t count)
{
    if (outside(offset, count)) return 1;
    memcpy(bytes, device()->cells + offset, count);
    return 0;
}

flash_counts flash_counted(void) { return device()->counts; }

/* --------------------------------------------------------------------------- checkpoints --- */

static uint32_t slot_bytes; /* whole sectors */

static int32_t slot_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    (void)user;
    return flash_read(slot * slot_bytes + (uint32_t)offset, bytes, count);
}

static int32_t slot_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user)
{
    (void)user;
    if (offset == 0 && flash_erase(slot * slot_bytes, slot_bytes)) return 1;
    return flash_program(slot * slot_bytes + (uint32_t)offset, bytes, count);
}

/* Programming returns when it is done. */
static int32_t slot_sync(uint32_t slot, void *user)
{
    (void)slot;
    (void)user;
    return 0;
}

mest_io flash_slots(size_t bytes)
{
    slot_bytes = (uint32_t)((bytes + FLASH_SECTOR - 1) / FLASH_SECTOR * FLASH_SECTOR);
    return (mest_io){ .struct_size = sizeof(mest_io), .read = slot_read, .write = slot_write, .sync = slot_sync };
}
