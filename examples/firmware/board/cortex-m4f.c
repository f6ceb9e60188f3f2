/* SPDX-License-Identifier: Apache-2.0
 * ARM Cortex-M with a single-precision FPU, as QEMU's mps2-an386 has it.  Register addresses: ARMv7-M Architecture
 * Reference Manual, B3.2. */
#include "board.h"
#include "metal.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define AIRCR    REGISTER(0xe000ed0cu) /* bit 2 asks for a reset, key 0x05fa  */
#define CFSR     REGISTER(0xe000ed28u) /* what kind of fault                  */
#define ADDRESS  REGISTER(0xe000ed38u) /* where it happened, of some kinds    */
#define MPU_CTRL REGISTER(0xe000ed94u)
#define MPU_RBAR REGISTER(0xe000ed9cu)
#define MPU_RASR REGISTER(0xe000eda0u)

const char board_name[] = "cortex-m4f";
extern char guard[], stack_bottom[], stack_top[];

uintptr_t debugger(uintptr_t operation, const void *argument)
{
    register uintptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* Nobody may touch the 64 KB below the stack.  There may be nothing anyway, but not every bus says so. */
__attribute__((used)) static void start(void)
{
    MPU_RBAR = (uintptr_t)guard | 0x10;               /* region 0                                       */
    MPU_RASR = 1u << 28 | (16 - 1) << 1 | 1;          /* not to execute, no access, 2^16 bytes, enabled */
    MPU_CTRL = 5;                                     /* elsewhere as without it                        */
    __asm volatile("dsb\n isb" ::: "memory");
    metal_start();
}

/* First the FPU (CPACR, CP10 and CP11): compilers save its registers wherever they like.  The core has loaded sp. */
__attribute__((naked)) void reset(void)
{
    __asm volatile("ldr r0, =0xe000ed88\n"
                   "ldr r1, [r0]\n"
                   "orr r1, r1, #0xf00000\n"
                   "str r1, [r0]\n"
                   "dsb\n"
                   "isb\n"
                   "b start\n");
}

__attribute__((used)) static void report(const uint32_t *stack)
{
    int readable = (char *)stack >= stack_bottom && (char *)(stack + 8) <= stack_top; /* where the core has put pc */
    metal_fault("exception", CFSR, ADDRESS, readable ? stack[6] : 0, (uintptr_t)stack);
}

/* The stack may be what is wrong: it begins anew. */
__attribute__((naked, used)) static void fault(void)
{
    __asm volatile("mrs r0, msp\n"
                   "ldr r1, =stack_top\n"
                   "msr msp, r1\n"
                   "b report\n");
}

/* Stack pointer, reset, NMI, HardFault, which stands for all faults until others are enabled; no interrupt is. */
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};

_Noreturn void board_reset(void)
{
    __asm volatile("dsb" ::: "memory");
    AIRCR = 0x05fa0004u;
    for (;;) __asm volatile("dsb" ::: "memory");
}
