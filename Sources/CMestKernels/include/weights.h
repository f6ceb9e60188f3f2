/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights of a linear or convolution layer, seen as a matrix [rows = output channels]
 * [columns = input channel * taps + tap], taps = kernel_h * kernel_w, tap = ky * kernel_w + kx.
 *
 * Sparse (row_start != NULL): two orders of one set of connections.
 *   forward   compressed sparse rows: connections row_start[r] .. row_start[r+1]-1 of row r, columns
 *             ascending; value[j] belongs to connection j.
 *   backward  compressed by input channel: entries channel_start[c] .. channel_start[c+1]-1; entry e
 *             is connection position[e], at row key[e] / taps and tap key[e] % taps, keys ascending.
 *   Values, gradients and optimizer state lie in forward order only.
 * Dense (row_start == NULL): value[r * columns + c]; no index is read.  The products below are then
 * the same sums in the same order over every column and every key.
 */
#ifndef MESTK_WEIGHTS_H
#define MESTK_WEIGHTS_H
#include <stdint.h>

typedef struct mestk_weights {
    int32_t rows;
    int32_t channels; /* input channels */
    int32_t taps;     /* columns = channels * taps <= 65536, rows * taps <= 65536 */
    const uint32_t *row_start;     /* rows + 1, or NULL: dense */
    const uint16_t *column;
    const uint32_t *channel_start; /* channels + 1 */
    const uint16_t *key;
    const uint32_t *position;
    const float *value;
} mestk_weights;

static inline int64_t mestk_weight_count(const mestk_weights *w)
{
    return w->row_start ? (int64_t)w->row_start[w->rows] : (int64_t)w->rows * w->channels * w->taps;
}

/* Builds channel_start, key and position from row_start and column: a counting sort, O(connections +
 * channels). */
void mestk_index_by_channel(int32_t rows, int32_t channels, int32_t taps, const uint32_t *row_start,
                            const uint16_t *column, uint32_t *channel_start, uint16_t *key,
                            uint32_t *position);
#endif
