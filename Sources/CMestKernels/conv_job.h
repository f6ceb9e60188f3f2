/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of a convolution as its tasks see it.  Forward: a task is (lane block, tile row of y).
 * Backward: (lane block, tile row of x).
 *
 * The vector path copies the strip of picture that a task needs into the worker's slab (slab.h).
 */
#ifndef MESTK_CONV_JOB_H
#define MESTK_CONV_JOB_H
#include "slab.h"

/* Of scratch, like mestk_word. */
typedef struct __attribute__((may_alias)) conv_entry {
    int32_t offset; /* floats from a tile's first pixel in the slab to the line that the tap meets */
    float weight;
} conv_entry;

struct mestk_conv_job {
    const mestk_conv *g;
    const mestk_weights *w;
    const float *start;
    const mestk_operand *x, *dy;
    const mestk_gradient *gradient;
    void *y;
    double *sums;
    int32_t count;

    conv_slab slab;
    float *slabs;

    /* Forward: offset[column], floats from a tile's first pixel in the slab to the line the tap meets;
     * segment[row * (blocks + 1) + b], first connection of the row in channel block b or later (the
     * channels of one block stay in L1 while the filters pass over them); of a dense layer, columns.
     * Blocks: a row is one of the index; patterns: offsets of channel * 9; runs: of their first channels.
     * Single connections and runs on 8 and 16 lanes (streamed) are copied out in the order in which they are met:
     * stream[entry], pass by pass and in each row by row; segment[pass * (rows + 1) + row], first entry.
     * Backward: the entries of a channel sorted by (block of output channels, class), keys ascending
     * within; offset[entry], position[entry], weight[entry];
     * segment[channel * (blocks * classes + 1) + b * classes + class], first entry; tap_class, tap_line:
     * a tap's class and its line in the slab. */
    mestk_word *offset, *segment, *position, *tap_class, *tap_line;
    float *weight;
    conv_entry *stream;
    int32_t streamed, block_channels, blocks, classes;
    /* Of each worker: what is unfinished between two blocks of channels (forward: a tile of y; backward: dx
     * of a unit), and a strip's sums as lines [channel][which][16]. */
    float *chains, *lines;
    mestk_word *packed; /* the strip that is in the slab, + 1 */
    int64_t chain_floats, line_floats;
    /* One and four lanes: chains are rows of y [channel][row][column][lane], or of dx and, behind them, of x,
     * like a slab.  rows: of a strip, 3 as 4; row_floats: of a class of pixels, whole vectors; chain_channel,
     * slab_down: floats from channel to channel of y, and of the slab from row to row of y. */
    conv_slab inner;
    int32_t rows, row_floats;
    int32_t flat_strips; /* forward, of a pointwise one: strips of a task, whose tiles are one row; 0: it has a strip */
    int64_t chain_channel, slab_down;

    int32_t tasks, groups;
    int64_t connections, partial_stride;
    float *partials, *dw; /* partials: [groups][partial_stride], by entry or by connection */
    int32_t by_entry;
};

/* Locality of prefetched data that is read once: it does not push the slab out of L2. */
enum { ONCE = 0 };

/* Prefetched, since the lines of channel after channel lie too far apart for the hardware to guess. */
enum { TILES_AHEAD = 8 /* packing */, FILTERS_AHEAD = 2 /* forward */, CHANNELS_AHEAD = 2 /* backward */ };

/* Notes that the worker's slab holds this strip from now on.  Did it hold the one before, of the same picture? */
MESTK_INLINE int32_t mestk_take_strip(const mestk_conv_job *job, int32_t task, int32_t worker, int32_t strips)
{
    int32_t before = job->packed[worker];
    job->packed[worker] = task + 1;
    return task % strips > 0 && before == task;
}

/* Backward: number of a class of pixels, a and b (slab.h) that of rows and that of columns.  Those that no tap
 * meets, where the stride is larger than the kernel, are one class without entries, the last. */
MESTK_INLINE int32_t mestk_class_of(const mestk_conv *g, int32_t a, int32_t b)
{
    int32_t high = mestk_min(g->stride_h, g->kernel_h), wide = mestk_min(g->stride_w, g->kernel_w);
    return a < high && b < wide ? a * wide + b : high * wide;
}

MESTK_INLINE int32_t mestk_classes(const mestk_conv *g) { return mestk_class_of(g, g->stride_h - 1, g->stride_w - 1) + 1; }

/* Forward: connections of one filter, or of neighbours that have the same ones: of a block, or of a dense layer. */
typedef struct conv_list {
    const float *value;       /* of the first connection and filter */
    int64_t filter, step;     /* values from filter to filter, from connection to connection */
    const uint16_t *column;   /* unless dense */
    const mestk_word *offset; /* by column; of a dense layer: of the first connection, the others follow */
    int32_t count;
} conv_list;

/* Those of row r of the index in channel block b; group: w->group, or 1, which is then a constant in the loops. */
MESTK_INLINE conv_list mestk_conv_list(const mestk_conv_job *job, int32_t r, int32_t b, int32_t group)
{
    const mestk_weights *w = job->w;
    const mestk_word *segment = job->segment + (int64_t)r * (job->blocks + 1) + b;
    return (conv_list){.value = w->value + (int64_t)segment[0] * group, .filter = 1, .step = group,
                       .column = w->column + segment[0], .offset = job->offset, .count = segment[1] - segment[0]};
}

/* SINGLE, RUN: columns of the unit at this column of the index: a last run has fewer than w->group. */
MESTK_INLINE int32_t mestk_unit_columns(const mestk_weights *w, int32_t column)
{
    return column < w->channels / w->group * w->taps ? w->group : w->channels % w->group;
}

/* Those of the filters from o on of a dense layer. */
MESTK_INLINE conv_list mestk_conv_dense_list(const mestk_conv_job *job, int32_t o, int32_t b)
{
    const mestk_weights *w = job->w;
    int32_t columns = w->channels * w->taps, first = job->segment[b];
    return (conv_list){.value = w->value + (int64_t)o * columns + first, .filter = columns, .step = 1,
                       .offset = job->offset + first, .count = job->segment[b + 1] - first};
}

/* Fill the index above (conv_index.c). */
void mestk_conv_index_forward(const mestk_context *k, mestk_conv_job *job);
void mestk_conv_index_backward(const mestk_context *k, mestk_conv_job *job);

void mestk_conv_forward_reference(const mestk_conv_job *job, int32_t task, int32_t worker);
void mestk_conv_backward_reference(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial);
#endif
