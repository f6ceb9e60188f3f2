/* SPDX-License-Identifier: Apache-2.0
 * A board without an operating system: start and end of a program, its stack, its arguments.  Memory: sections.ld. */
#include "metal.h"
#include "board.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv);

/* Of the linker: their addresses are what matters. */
extern char stack_bottom[], stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[], chip_start[], chip_end[];

/* ------------------------------------------------------------------------------ debugger --- */

enum { SYS_WRITE0 = 0x04, SYS_GET_CMDLINE = 0x15, SYS_EXIT_EXTENDED = 0x20 };
enum { STOPPED_APPLICATION_EXIT = 0x20026 };

void debugger_print(const char *text) { debugger(SYS_WRITE0, text); }

_Noreturn void exit(int status)
{
    fflush(stdout);
    const uintptr_t reason[2] = { STOPPED_APPLICATION_EXIT, (uintptr_t)status };
    for (;;) debugger(SYS_EXIT_EXTENDED, reason);
}

enum { MOST_WORDS = 15 };

/* Words of the command line; the first is the program. */
static int arguments(char **words)
{
    static char text[128];
    struct { char *buffer; size_t bytes; } line = { text, sizeof text };
    int count = 0;
    if (debugger(SYS_GET_CMDLINE, &line) != 0) text[0] = 0;
    for (char *p = text; count < MOST_WORDS;) {
        while (*p == ' ') *p++ = 0;
        if (!*p) break;
        words[count++] = p;
        while (*p && *p != ' ') p++;
    }
    return count;
}

/* --------------------------------------------------------------------------------- start --- */

#define PAINT 0xa5a5a5a5u /* a stack where nothing was yet */

_Noreturn void metal_start(void)
{
    memcpy(data_start, data_load, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    /* Up to here, less what the loop itself has below its frame. */
    for (volatile uint32_t *p = (void *)stack_bottom; (char *)p < (char *)__builtin_frame_address(0) - 128; p++) *p = PAINT;
    static char *words[MOST_WORDS + 1];
    exit(main(arguments(words), words));
}

_Noreturn void metal_fault(const char *what, uint32_t cause, uint32_t address, uint32_t instruction, uintptr_t stack)
{
    int overflow = stack < (uintptr_t)stack_bottom;
    printf("\nfault: %s, cause %08x, address %08x, instruction %08x%s\n", what, (unsigned)cause, (unsigned)address,
           (unsigned)instruction, overflow ? ": stack overflow" : "");
    exit(EXIT_FAILURE);
}

/* ------------------------------------------------------------------------------- board.h --- */

size_t board_stack_bytes(void) { return (size_t)(stack_top - stack_bottom); }

size_t board_stack_used(void)
{
    const uint32_t *p = (void *)stack_bottom;
    while ((char *)p < stack_top && *p == PAINT) p++;
    return (size_t)(stack_top - (char *)p);
}

void *board_chip(size_t bytes)
{
    if (bytes > (size_t)(chip_end - chip_start)) {
        puts("the chip is too large for this board");
        exit(EXIT_FAILURE);
    }
    return chip_start;
}
