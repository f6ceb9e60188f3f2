/* SPDX-License-Identifier: Apache-2.0
 * Between the parts of a board without an operating system. */
#ifndef METAL_H
#define METAL_H
#include <stddef.h>
#include <stdint.h>

/* ---- what a processor has (cortex-m4f.c, rv32imac.c) ---- */

/* Calls the debugger: https://github.com/ARM-software/abi-aa/blob/main/semihosting/semihosting.rst, which RISC-V shares. */
uintptr_t debugger(uintptr_t operation, const void *argument);

/* ---- for them (metal.c, libc.c) ---- */

/* All after the processor can compute: memory, the program, its status to the debugger. */
_Noreturn void metal_start(void);

/* The program has failed in hardware: what and where.  stack: its stack pointer then. */
_Noreturn void metal_fault(const char *what, uint32_t cause, uint32_t address, uint32_t instruction, uintptr_t stack);

void debugger_print(const char *text);

#endif
