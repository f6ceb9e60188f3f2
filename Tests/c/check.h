/* SPDX-License-Identifier: Apache-2.0
 * Counting checks: check() a condition, skip() what cannot run here, finish() with the totals. */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdio.h>

/* Such a build wants malloc and some requests to the system for itself, and keeps memory that was given back. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#  define SANITIZED 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#    define SANITIZED 1
#  endif
#endif
#ifndef SANITIZED
#  define SANITIZED 0
#endif

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
__attribute__((unused))
static int finish(const char *name)
{
    printf("%s: %d passed, %d failed, %d skipped\n", name, checks.passed, checks.failed, checks.skipped);
    return checks.failed != 0;
}

#endif
