/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute layout of activations and their gradients: batch lanes innermost, 4x4-pixel tiles.
 *
 *     [block][tile row][tile column][channel][pixel of the tile, row-major][lane]
 *
 * A "line" is the `lanes` floats of one channel at one pixel: one value of each of `lanes` samples.
 * A connection is then one broadcast weight and a run of multiply-adds over whole lines, whatever
 * its position, so unstructured sparsity vectorises like dense code.
 *
 * Tiles are min(4, height) x min(4, width).  Heights and widths that are no multiple are padded to
 * whole tiles, batches to whole blocks of lanes.  What the padding holds:
 *     activations: finite numbers.  Padding lanes compute a copy of the last sample (mestk_gather puts
 *                  it there), so they overflow only if it does; readers never let padding reach a
 *                  valid value.
 *     gradients:   +0 in every padding pixel and padding lane.  Whoever writes a gradient tensor
 *                  writes those zeros, so that weight gradients may sum over whole lines.
 *
 * A tensor stores floats, or bf16: the upper half of a float, rounded to the nearest, halfway cases away
 * from zero.  Arithmetic is in float all the same: a value is widened when read, rounded when written.
 */
#ifndef MESTK_LAYOUT_H
#define MESTK_LAYOUT_H
#include <stddef.h>
#include <stdint.h>
#include "parallel.h"

enum { MESTK_F32 = 0, MESTK_BF16 = 1 }; /* mestk_shape.format */

typedef struct mestk_shape {
    int32_t blocks;   /* lane blocks: ceil(batch / lanes) */
    int32_t lanes;    /* 1, 4, 8 or 16 */
    int32_t channels;
    int32_t height;
    int32_t width;
    int32_t format;   /* of the stored values */
} mestk_shape;

static inline int32_t mestk_tile_h(mestk_shape s) { return s.height < 4 ? s.height : 4; }
static inline int32_t mestk_tile_w(mestk_shape s) { return s.width < 4 ? s.width : 4; }
static inline int32_t mestk_tiles_y(mestk_shape s) { return (s.height + mestk_tile_h(s) - 1) / mestk_tile_h(s); }
static inline int32_t mestk_tiles_x(mestk_shape s) { return (s.width + mestk_tile_w(s) - 1) / mestk_tile_w(s); }

/* Values in a tensor of this shape, padding included. */
static inline int64_t mestk_values(mestk_shape s)
{
    return (int64_t)s.blocks * mestk_tiles_y(s) * mestk_tiles_x(s) * s.channels
           * mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
}

static inline int64_t mestk_bytes(mestk_shape s) { return mestk_values(s) * (s.format == MESTK_BF16 ? 2 : 4); }

/* Rows of tiles of all blocks: the pieces that most kernels work on, contiguous in memory. */
static inline int32_t mestk_strips(mestk_shape s) { return s.blocks * mestk_tiles_y(s); }

/* Offset in values of the line (block, channel, y, x). */
static inline int64_t mestk_line(mestk_shape s, int32_t block, int32_t channel, int32_t y, int32_t x)
{
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s);
    int64_t tile = ((int64_t)block * mestk_tiles_y(s) + y / th) * mestk_tiles_x(s) + x / tw;
    int64_t pixel = (tile * s.channels + channel) * (th * tw) + (y % th) * tw + x % tw;
    return pixel * s.lanes;
}

/* x: [count][channels][height][width], count <= blocks*lanes -> out in compute layout.  Padding
 * pixels get 0, padding lanes the last sample. */
void mestk_gather(const mestk_context *k, mestk_shape s, const float *x, int32_t count, void *out);

/* The way back: in -> out [count][channels][height][width]. */
void mestk_scatter(const mestk_context *k, mestk_shape s, const void *in, int32_t count, float *out);

/* The channels first ..< first + channels of a tensor of shape s into a tensor that has these alone, and back. */
void mestk_take_channels(const mestk_context *k, mestk_shape s, const void *from, int32_t first, int32_t channels,
                         void *to);
void mestk_put_channels(const mestk_context *k, mestk_shape s, void *to, int32_t first, int32_t channels,
                        const void *from);

/* Index of the first value that is NaN or infinite, or -1. */
int64_t mestk_first_not_finite(const float *x, int64_t count);
#endif
