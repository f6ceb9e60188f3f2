/* SPDX-License-Identifier: Apache-2.0
 * Counting checks: check() a condition, skip() what cannot run here, finish() with the totals. */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdio.h>

static struct { int passed, failed, skipped; } checks;

__attribute__((format(printf, 2, 3), unused))
static int check(int holds, const char *format, ...)
{
    if (holds) {
        checks.passed++;
        return 1;
    }
    checks.failed++;
    va_list arguments;
    va_start(arguments, format);
    fputs("FAILED: ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
    va_end(arguments);
    return 0;
}

__attribute__((unused))
static void skip(const char *what, const char *why)
{
    checks.skipped++;
    printf("skipped: %s: %s\n", what, why);
}

/* The exit status of the program. */
static int finish(const char *name)
{
    printf("%s: %d passed, %d failed, %d skipped\n", name, checks.passed, checks.failed, checks.skipped);
    return checks.failed != 0;
}

#endif
