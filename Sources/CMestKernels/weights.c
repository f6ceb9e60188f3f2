/* SPDX-License-Identifier: Apache-2.0 */
/* The second order of a connection set: by input channel.  A counting sort over rows in order, so
 * keys (row * taps + tap) come out ascending within each channel. */
#include "internal.h"
#include "patterns.h"

void mestk_index_by_channel(int32_t rows, int32_t channels, int32_t taps, const uint32_t *row_start,
                            const uint16_t *column, uint32_t *channel_start, uint16_t *key,
                            uint32_t *position)
{
    uint32_t count = row_start[rows], sum = 0;
    uint32_t t = (uint32_t)taps;
    for (int32_t c = 0; c <= channels; c++) channel_start[c] = 0;
    for (uint32_t j = 0; j < count; j++) channel_start[column[j] / t]++;
    /* channel_start[c] becomes the end of channel c, walks down to its start while filling ... */
    for (int32_t c = 0; c <= channels; c++) {
        sum += channel_start[c];
        channel_start[c] = sum;
    }
    /* ... which needs the connections last to first. */
    for (int32_t r = rows - 1; r >= 0; r--) {
        for (uint32_t j = row_start[r + 1]; j-- > row_start[r];) {
            uint32_t e = --channel_start[column[j] / t];
            key[e] = (uint16_t)((uint32_t)r * t + column[j] % t);
            position[e] = j;
        }
    }
}

#define ROW(number, t0, t1, t2, t3) [number] = {t0, t1, t2, t3},
const uint8_t mestk_centre8[8][4] = {MESTK_PATTERNS_SHARED(ROW) MESTK_PATTERNS_CENTRE8(ROW)};
const uint8_t mestk_code8[8][4] = {MESTK_PATTERNS_SHARED(ROW) MESTK_PATTERNS_CODE8(ROW)};
#undef ROW

const uint8_t (*mestk_patterns(int32_t code8))[4] { return code8 ? mestk_code8 : mestk_centre8; }
