/* SPDX-License-Identifier: Apache-2.0
 * The format of checkpoints as Archive.swift documents it, by hand: for tests that write what no save would. */
#ifndef SIGN_H
#define SIGN_H

#include <stddef.h>
#include <stdint.h>

/* Bit by bit: not the library's. */
static uint32_t crc32_of(uint32_t crc, const unsigned char *bytes, size_t count)
{
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static uint32_t word_at(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void set_word(unsigned char *p, uint32_t x)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(x >> 8 * i);
}

/* Puts right every CRC, as mest.h's format has them; how many sections there are. */
static int sign(unsigned char *bytes, size_t count)
{
    uint32_t crc = crc32_of(0, bytes, 36);
    set_word(bytes + 36, crc);
    size_t at = 40;
    int sections = 0;
    while (at + 20 <= count) {
        size_t content = word_at(bytes + at + 8);
        if (word_at(bytes + at + 12) || content > count - at - 20) break;
        crc = crc32_of(crc, bytes + at, 16 + content);
        set_word(bytes + at + 16 + content, crc);
        at += 20 + content;
        sections++;
    }
    return sections;
}

#endif
