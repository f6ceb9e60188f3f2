/* SPDX-License-Identifier: Apache-2.0
 * What include/ declares.  Compiled with -fno-builtin, or the loops here would become calls of themselves. */
#include "metal.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------------------------- memory --- */

typedef uint32_t __attribute__((may_alias)) word;

/* Words where both sides have them; small, not fast.  Downwards it may overlap. */
static void *forward(unsigned char *to, const unsigned char *from, size_t count)
{
    unsigned char *t = to;
    if (((uintptr_t)t | (uintptr_t)from) % sizeof(word) == 0)
        for (; count >= sizeof(word); count -= sizeof(word), t += sizeof(word), from += sizeof(word)) *(word *)t = *(const word *)from;
    while (count-- > 0) *t++ = *from++;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count) { return forward(to, from, count); }

void *memmove(void *to, const void *from, size_t count)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t <= f || t >= f + count) return forward(t, f, count);
    while (count-- > 0) t[count] = f[count];
    return to;
}

void *memset(void *to, int value, size_t count)
{
    unsigned char *t = to;
    for (; count > 0 && (uintptr_t)t % sizeof(word); count--) *t++ = (unsigned char)value;
    for (; count >= sizeof(word); count -= sizeof(word), t += sizeof(word)) *(word *)t = (unsigned char)value * 0x01010101u;
    while (count-- > 0) *t++ = (unsigned char)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const unsigned char *p = a, *q = b;
    for (; count > 0; count--, p++, q++)
        if (*p != *q) return *p - *q;
    return 0;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

size_t strlen(const char *text)
{
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

#ifdef __ARM_EABI__ /* what its compilers call instead; of the EABI's run-time ABI, 4.3.4: memset's count comes before the value */
void __aeabi_memcpy(void *to, const void *from, size_t count) { memcpy(to, from, count); }
void __aeabi_memmove(void *to, const void *from, size_t count) { memmove(to, from, count); }
void __aeabi_memset(void *to, size_t count, int value) { memset(to, value, count); }
void __aeabi_memclr(void *to, size_t count) { memset(to, 0, count); }
#  define ALIGNED(name) extern __typeof__(name) name##4 __attribute__((alias(#name))), name##8 __attribute__((alias(#name)))
ALIGNED(__aeabi_memcpy);
ALIGNED(__aeabi_memmove);
ALIGNED(__aeabi_memset);
ALIGNED(__aeabi_memclr);
#endif

/* ------------------------------------------------------------------------------- numbers --- */

unsigned long strtoul(const char *text, char **end, int base)
{
    unsigned long value = 0;
    while (*text == ' ') text++;
    for (; *text >= '0' && *text <= '9'; text++) value = value * (unsigned)base + (unsigned long)(*text - '0');
    if (end) *end = (char *)text;
    return value;
}

/* ------------------------------------------------------------------------------- console --- */

/* A line at a time: each call stops the processor for the debugger. */
static char line[128];
static size_t in_line;

int fflush(FILE *stream)
{
    (void)stream;
    line[in_line] = 0;
    in_line = 0;
    if (line[0]) debugger_print(line);
    return 0;
}

int putchar(int character)
{
    line[in_line++] = (char)character;
    if (character == '\n' || in_line == sizeof line - 1) fflush(stdout);
    return character;
}

int fputs(const char *text, FILE *stream)
{
    (void)stream;
    while (*text) putchar(*text++);
    return 0;
}

int puts(const char *text)
{
    fputs(text, stdout);
    return putchar('\n');
}

static void pad(int count, char with)
{
    while (count-- > 0) putchar(with);
}

int vprintf(const char *format, va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            putchar(*format);
            continue;
        }
        int left = 0, longs = 0, width = 0, length = 0;
        char fill = ' ', digits[24];
        const char *text = digits;
        for (format++; *format == '-' || *format == '0'; format++) {
            if (*format == '-') left = 1;
            else fill = '0';
        }
        for (; *format >= '0' && *format <= '9'; format++) width = width * 10 + (*format - '0');
        for (; *format == 'l' || *format == 'z'; format++) longs += *format == 'l'; /* long and size_t are as wide as int */
        uint64_t value = 0;
        int negative = 0;
        switch (*format) {
        case 's':
            text = va_arg(arguments, const char *);
            length = (int)strlen(text);
            break;
        case 'c':
        case '%':
            digits[length++] = *format == 'c' ? (char)va_arg(arguments, int) : '%';
            break;
        default:
            if (longs == 2) value = va_arg(arguments, uint64_t);
            else value = *format == 'd' || *format == 'i' ? (uint64_t)va_arg(arguments, int) : va_arg(arguments, unsigned);
            if ((*format == 'd' || *format == 'i') && (int64_t)value < 0) {
                negative = 1;
                value = 0 - value;
            }
            char *p = digits + sizeof digits;
            unsigned base = *format == 'x' ? 16 : 10;
            do *--p = "0123456789abcdef"[value % base]; while (value /= base);
            length = (int)(digits + sizeof digits - p) + negative;
            text = p;
        }
        if (!left && fill == ' ') pad(width - length, ' ');
        if (negative) putchar('-');
        if (!left && fill == '0') pad(width - length, '0');
        for (int i = 0; i < length - negative; i++) putchar(text[i]);
        if (left) pad(width - length, ' ');
    }
    return 0;
}

int printf(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    return 0;
}
