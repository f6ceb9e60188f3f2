/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights of a linear or convolution layer, seen as a matrix [rows = output channels]
 * [columns = input channel * taps + tap], taps = kernel_h * kernel_w, tap = ky * kernel_w + kx.
 *
 * Dense (row_start == NULL): value[r * columns + c]; no index is read.  The products are then the same
 * sums in the same order over every column and every key.
 *
 * Sparse: two orders of one set of units.
 *   forward   compressed sparse rows: units row_start[q] .. row_start[q+1]-1 of index row q, columns
 *             ascending.
 *   backward  compressed by input channel, of RUN by run of channels: entries channel_start[c] ..
 *             channel_start[c+1]-1; entry e is unit position[e], keys ascending.
 *   Values, gradients and optimizer state lie in forward order only.
 *
 *   form     unit              index row          column               key              value
 *   SINGLE   a weight          row                channel*taps + tap   row*taps + tap   [j]
 *   BLOCK    a column of a     block of `group`   channel*taps + tap   block*taps+tap   [j*group + i]: row
 *            block             rows                                                     block*group + i
 *   PATTERN  4 taps of a 3x3   row                channel              row              [j*4 + t]: tap
 *            kernel                                                      pattern_taps[pattern[j]][t]
 *   RUN      a tap of `group`  row                run*taps + tap       row*taps + tap   [j*group + i]:
 *            neighbouring                                                               channel
 *            channels                                                                   run*group + i
 *
 * A last block with fewer rows is stored whole, as is a last run with fewer channels; the values of what it
 * lacks are 0, and so are their gradients: nothing writes them.
 */
#ifndef MESTK_WEIGHTS_H
#define MESTK_WEIGHTS_H
#include <stdint.h>

enum {
    MESTK_FORM_DENSE = 0,
    MESTK_FORM_SINGLE = 1,
    MESTK_FORM_BLOCK = 2,
    MESTK_FORM_PATTERN = 3,
    MESTK_FORM_RUN = 4
};

typedef struct mestk_weights {
    int32_t rows;
    int32_t channels; /* input channels */
    int32_t taps;     /* columns = channels * taps <= 65536, rows * taps <= 65536 */
    const uint32_t *row_start;     /* index rows + 1, or NULL: dense */
    const uint16_t *column;
    const uint32_t *channel_start; /* channels + 1, RUN: runs + 1 */
    const uint16_t *key;
    const uint32_t *position;
    const float *value;
    int32_t form;
    int32_t group;                 /* BLOCK: rows of a block, RUN: channels of a run, 4, 8 or 16; else 1 */
    const uint8_t *pattern;        /* PATTERN: of each unit */
    const uint8_t (*pattern_taps)[4]; /* PATTERN: a table of mestk_patterns */
} mestk_weights;

/* Rows of the index. */
static inline int32_t mestk_index_rows(const mestk_weights *w)
{
    return w->form == MESTK_FORM_BLOCK ? (w->rows + w->group - 1) / w->group : w->rows;
}

/* Rows, and channels, that a unit's values belong to. */
static inline int32_t mestk_unit_rows(const mestk_weights *w) { return w->form == MESTK_FORM_BLOCK ? w->group : 1; }
static inline int32_t mestk_unit_channels(const mestk_weights *w) { return w->form == MESTK_FORM_RUN ? w->group : 1; }

/* Values stored. */
static inline int64_t mestk_weight_count(const mestk_weights *w)
{
    if (!w->row_start) return (int64_t)w->rows * w->channels * w->taps;
    int64_t units = w->row_start[mestk_index_rows(w)];
    return units * (w->form == MESTK_FORM_PATTERN ? 4 : w->group);
}

/* Builds channel_start, key and position from row_start and column: a counting sort, O(units +
 * channels).  rows: of the index; channels: runs for RUN; taps: 1 for PATTERN, whose columns and keys have none. */
void mestk_index_by_channel(int32_t rows, int32_t channels, int32_t taps, const uint32_t *row_start,
                            const uint16_t *column, uint32_t *channel_start, uint16_t *key,
                            uint32_t *position);

/* The taps of the 8 patterns, ascending: four corners, then four T, all with the centre.  code8: the 8 of the
 * MEST authors' published code, whose fifth is 5 6 7 8. */
const uint8_t (*mestk_patterns(int32_t code8))[4];
#endif
