/* SPDX-License-Identifier: Apache-2.0
 * No malloc: a program that wants one brings it. */
#ifndef BOARD_STDLIB_H
#define BOARD_STDLIB_H
#include <stddef.h>

#define EXIT_SUCCESS 0
#define EXIT_FAILURE 1

_Noreturn void exit(int status);
unsigned long strtoul(const char *text, char **end, int base); /* base 10 */
void *malloc(size_t bytes);
void free(void *block);

#endif
