/* SPDX-License-Identifier: Apache-2.0
 * RV32IMAC in machine mode, as QEMU's virt has it.  Registers: RISC-V Privileged Architecture, 3.1 and 3.7. */
#include "board.h"
#include "metal.h"

const char board_name[] = "rv32imac";

/* The three instructions are the call: uncompressed, on one page. */
uintptr_t debugger(uintptr_t operation, const void *argument)
{
    register uintptr_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = argument;
    __asm volatile(".option push\n"
                   ".option norvc\n"
                   ".balign 16\n"
                   "slli x0, x0, 0x1f\n"
                   "ebreak\n"
                   "srai x0, x0, 7\n"
                   ".option pop\n"
                   : "+r"(a0) : "r"(a1) : "memory");
    return a0;
}

#define SET(name, value) __asm volatile("csrw " #name ", %0" :: "r"(value))
#define GET(name) ({ uint32_t value; __asm volatile("csrr %0, " #name : "=r"(value)); value; })

extern char guard[];

/* Nobody may touch the 64 KB below the stack, machine mode included: locked, a power of two, no access.  The address is
 * one over 4 with its lowest 13 bits set, which say the size. */
__attribute__((used)) static void start(void)
{
    SET(pmpaddr0, (uintptr_t)guard >> 2 | 0x1fff);
    SET(pmpcfg0, 0x98);
    metal_start();
}

__attribute__((naked, section(".vectors"))) void reset(void)
{
    __asm volatile("la sp, stack_top\n"
                   "la t0, fault\n"
                   "csrw mtvec, t0\n"
                   "j start\n");
}

__attribute__((used)) static void report(uintptr_t stack)
{
    metal_fault("trap", GET(mcause), GET(mtval), GET(mepc), stack);
}

/* The stack may be what is wrong: it begins anew. */
__attribute__((naked, used, aligned(4))) static void fault(void)
{
    __asm volatile("mv a0, sp\n"
                   "la sp, stack_top\n"
                   "j report\n");
}

/* The test device of SiFive boards, at 0x100000 of virt (QEMU: hw/misc/sifive_test.c). */
_Noreturn void board_reset(void)
{
    *(volatile uint32_t *)0x100000u = 0x7777u;
    for (;;) __asm volatile("wfi");
}
