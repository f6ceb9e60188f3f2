/* SPDX-License-Identifier: Apache-2.0
 * What the programs here ask of a board.  A program is ordinary C with a main(); its arguments come from the
 * debugger.  Of the C library it has what include/ declares. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

/* For big arrays that are neither zeroed nor part of the RAM that the program promises to fit in. */
#if defined(__ELF__) && !__STDC_HOSTED__
#  define BOARD_BULK __attribute__((section(".bulk")))
#else
#  define BOARD_BULK
#endif

/* "cortex-m4f", "rv32imac", "host". */
extern const char board_name[];

/* Everything begins anew but for board_chip(). */
_Noreturn void board_reset(void);

/* Memory that survives a reset, where flash.c simulates a flash chip; zero or anything else at first. */
void *board_chip(size_t bytes);

/* Of the stack, and the most that was in use so far; 0 where nobody counts. */
size_t board_stack_bytes(void);
size_t board_stack_used(void);

#endif
