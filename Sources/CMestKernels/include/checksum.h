/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 as zlib, PNG and Ethernet have it (polynomial edb88320, reflected): any tool can check a file. */
#ifndef MESTK_CHECKSUM_H
#define MESTK_CHECKSUM_H
#include <stddef.h>
#include <stdint.h>

/* The CRC of what had `crc` (0: of nothing) and `count` bytes behind it. */
uint32_t mestk_crc32(uint32_t crc, const uint8_t *bytes, size_t count);
#endif
