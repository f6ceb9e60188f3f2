/* SPDX-License-Identifier: Apache-2.0
 * The bytes of a fuzzer as a source of numbers. */
#ifndef INPUT_H
#define INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const uint8_t *input;
static size_t input_left;

/* From 0 to n - 1; 0 when there is nothing left. */
static uint32_t below(uint32_t n)
{
    uint32_t value = 0;
    for (uint32_t rest = n - 1; rest > 0 && input_left > 0; rest >>= 8) {
        value = value << 8 | *input++;
        input_left--;
    }
    return value % n;
}

/* What may never happen ends the process, which is how fuzzers are told. */
#define MUST(condition, ...)                                         \
    do {                                                             \
        if (!(condition)) {                                          \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                            \
            fputc('\n', stderr);                                     \
            abort();                                                 \
        }                                                            \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
