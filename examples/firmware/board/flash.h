/* SPDX-License-Identifier: Apache-2.0
 * A simulated NOR flash chip, and checkpoints in it.  What a product changes are the three functions of the chip. */
#ifndef FLASH_H
#define FLASH_H

#include <mest.h>

enum { FLASH_SECTOR = 4096, FLASH_SECTORS = 128 }; /* bytes; most small NOR chips erase 4 KB at once */

/* Since the chip was new. */
typedef struct flash_counts {
    uint32_t starts;     /* calls of flash_start(): power-ups                           */
    uint32_t erases;     /* sectors                                                     */
    uint32_t most;       /* of one sector: NOR flash lasts 10,000 to 100,000            */
    uint64_t written;    /* bytes                                                       */
} flash_counts;

/* Once, before the other calls; a new chip is erased.  Returns how often it was called for this chip. */
uint32_t flash_start(void);

/* Whole sectors become 0xff; programming only turns ones into zeros.  0, or 1: outside of the chip, or a bit that would
 * have to become one. */
int32_t flash_erase(uint32_t offset, size_t count);
int32_t flash_program(uint32_t offset, const void *bytes, size_t count);
int32_t flash_read(uint32_t offset, void *bytes, size_t count);
flash_counts flash_counted(void);

/* Two slots of so many bytes each at the beginning of the chip.  FLASH_SECTORS bounds them. */
mest_io flash_slots(size_t bytes);

#endif
