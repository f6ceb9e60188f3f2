/* SPDX-License-Identifier: Apache-2.0
 * The least that a program here is. */
#include "board.h"
#include <mest.h>
#include <stdio.h>

int main(void)
{
    printf("hello from %s: libmest %s, %s\n", board_name, mest_version_string(), mest_build_info());
    printf("%u of %u bytes of stack\n", (unsigned)board_stack_used(), (unsigned)board_stack_bytes());
    return 0;
}
