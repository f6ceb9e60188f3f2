/* SPDX-License-Identifier: Apache-2.0
 * The debugger's console.  printf knows %c %s %d %i %u %x %%, with l, ll, z, 0, - and a width. */
#ifndef BOARD_STDIO_H
#define BOARD_STDIO_H
#include <stdarg.h>
#include <stddef.h>

typedef struct board_stream FILE;
#define stdout ((FILE *)0)

int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int vprintf(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));
int putchar(int character);
int puts(const char *text);
int fputs(const char *text, FILE *stream);
int fflush(FILE *stream);

#endif
