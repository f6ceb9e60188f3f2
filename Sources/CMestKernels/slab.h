/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slabs: the rows of a picture that a strip of convolution meets, copied into a worker's scratch with zeros
 * where the picture ends, so that the inner loops have no conditions:
 *
 *     slab [channel][row][phase][column][lane]
 *
 * Forward (slab of x), stride s: picture column x lies at phase (x + pad) mod s, column (x + pad) / s.
 * So the pixels a tap meets at neighbouring outputs are neighbours whatever the stride.
 *
 * Backward a slab holds rows of dy.  Input pixel q and tap t meet at output (q + pad - t) / s when that is
 * whole.  With q + pad = s*n + a and t = s*m + a, a the class of both, it is n - m.  So the pixels of one
 * class meet their taps as in a convolution of stride 1, and classes never mix.
 */
#ifndef MESTK_SLAB_H
#define MESTK_SLAB_H
#include "internal.h"

typedef struct conv_slab {
    mestk_shape picture;
    int32_t rows;    /* per channel */
    int32_t columns; /* lines per phase */
    int32_t stride;  /* column u = x + pad of the picture is at phase u mod stride, column u / stride */
    int32_t phases;  /* that taps meet: fewer than stride when the kernel is narrower */
    int32_t row_stride, row_phases; /* taps meet the rows r with r mod row_stride < row_phases */
    int64_t channel; /* floats of a channel */
    int64_t floats;  /* floats of all of them: whole cache lines */
} conv_slab;

/* Of x and of dy; for few lanes also of the rows of x, and of dx, of a strip, a phase for each class. */
conv_slab mestk_forward_slab(const mestk_conv *g);
conv_slab mestk_backward_slab(const mestk_conv *g);
conv_slab mestk_inner_slab(const mestk_conv *g);

/* Few lanes make vectors of neighbouring pixels, whatever their number (conv_rows.h); more are a line of 16 values, or
 * half of one (conv_lines.h). */
MESTK_INLINE int32_t mestk_few_lanes(mestk_shape s) { return s.lanes < 8; }

/* Few lanes: are the tiles whole lines of 16 values, a row of them or four? */
MESTK_INLINE int32_t mestk_in_lines(mestk_shape s)
{
    return mestk_few_lanes(s) && mestk_tile_w(s) == 4 && (mestk_tile_h(s) == 4 || s.lanes == 4);
}

/* Of a tile's rows those that are computed: vector paths know 1, 2 and 4. */
MESTK_INLINE int32_t mestk_computed_rows(int32_t rows) { return rows == 3 ? 4 : rows; }

/* Few lanes: floats of a row, whole vectors: of y; of a class of x. */
int32_t mestk_forward_row_floats(const mestk_conv *g);
int32_t mestk_backward_row_floats(const mestk_conv *g);

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
