/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the slabs of convolutions (conv_job.h) and depthwise convolutions (depthwise_job.h) have in common.
 *
 * Backward a slab holds rows of dy.  Input pixel q and tap t meet at output (q + pad - t) / s when that is
 * whole.  With q + pad = s*n + a and t = s*m + a, a the class of both, it is n - m.  So the pixels of one
 * class meet their taps as in a convolution of stride 1, and classes never mix.
 */
#ifndef MESTK_SLAB_H
#define MESTK_SLAB_H
#include "internal.h"

/* Smallest pixel q >= from of a class: (q + pad) mod stride == class. */
MESTK_INLINE int32_t mestk_first_of_class(int32_t from, int32_t pad, int32_t stride, int32_t class)
{
    return from + (class - (from + pad) % stride + stride) % stride;
}

/* Backward: the first output row (column) that a tap meets at input row (column) `from`; it is row (column) 0
 * of the slab of a strip that begins there. */
MESTK_INLINE int32_t mestk_slab_origin(int32_t from, int32_t pad, int32_t stride, int32_t kernel)
{
    return (from + pad) / stride - (kernel - 1) / stride;
}

/* Backward: rows of dy that `rows` rows of the input meet, wherever these begin. */
MESTK_INLINE int32_t mestk_slab_rows(int32_t rows, int32_t stride, int32_t kernel)
{
    return mestk_ceil_div(rows - 1, stride) + 1 + (kernel - 1) / stride;
}

/* Backward: columns of dy that `pixels` columns of each class meet. */
MESTK_INLINE int32_t mestk_slab_columns(int32_t pixels, int32_t stride, int32_t kernel)
{
    return pixels + (stride > 1) + (kernel - 1) / stride;
}

/* Columns of one class in a row of tiles. */
MESTK_INLINE int32_t mestk_class_columns(mestk_shape s, int32_t stride)
{
    return mestk_ceil_div(mestk_tiles_x(s) * mestk_tile_w(s), stride);
}

/* Those that are worked on: four at a time. */
MESTK_INLINE int32_t mestk_class_fours(mestk_shape s, int32_t stride)
{
    return mestk_ceil_div(mestk_class_columns(s, stride), 4) * 4;
}

/* A gradient is +0 in lanes that are no samples, also where constants were added to it: lanes from `count` on. */
MESTK_INLINE void mestk_clear_lanes(float *slab, int64_t floats, int32_t lanes, int32_t count)
{
    if (count >= lanes) return;
    for (int64_t i = 0; i < floats; i += lanes)
        for (int32_t l = mestk_max(0, count); l < lanes; l++) slab[i + l] = 0.0f;
}
#endif
