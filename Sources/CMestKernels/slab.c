/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of slabs: functions of the shape alone, the same on every level. */
#include "slab.h"

/* Few lanes: floats of a row of so many columns, as whole vectors. */
static int32_t row_floats(int32_t columns, int32_t lanes)
{
    int32_t n = columns * lanes, vector = n > 8 ? 16 : n > 4 ? 8 : 4;
    return mestk_ceil_div(n, vector) * vector;
}

int32_t mestk_forward_row_floats(const mestk_conv *g)
{
    return row_floats(mestk_tiles_x(g->out) * mestk_tile_w(g->out), g->out.lanes);
}

int32_t mestk_backward_row_floats(const mestk_conv *g)
{
    return row_floats(mestk_class_columns(g->in, g->stride_w), g->in.lanes);
}

static conv_slab finish(conv_slab s)
{
    s.channel = (int64_t)s.rows * s.phases * s.columns * s.picture.lanes;
    s.floats = mestk_round16(s.channel * s.picture.channels);
    return s;
}

/* Rows are whole lines of 16 values. */
static int32_t line_columns(int32_t columns, int32_t lanes) { return lanes == 8 ? columns + columns % 2 : columns; }

/* Few lanes: whole tiles are copied; picture column 0 is at column `shift`. */
static int32_t columns_for_tiles(int32_t columns, mestk_shape picture, int32_t shift)
{
    return mestk_few_lanes(picture) ? mestk_max(columns, mestk_tiles_x(picture) * mestk_tile_w(picture) + shift) : columns;
}

conv_slab mestk_forward_slab(const mestk_conv *g)
{
    int32_t computed = mestk_computed_rows(mestk_tile_h(g->out));
    conv_slab s = {.picture = g->in, .stride = g->stride_w, .phases = mestk_min(g->stride_w, g->kernel_w),
                   .row_stride = g->stride_h, .row_phases = mestk_min(g->stride_h, g->kernel_h)};
    s.rows = (computed - 1) * g->stride_h + g->kernel_h;
    s.columns = mestk_few_lanes(g->out) ? mestk_forward_row_floats(g) / g->out.lanes : mestk_tiles_x(g->out) * 4;
    s.columns = line_columns(s.columns + (g->kernel_w - 1) / g->stride_w, g->out.lanes);
    if (g->stride_w == 1) s.columns = columns_for_tiles(s.columns, s.picture, g->pad_w);
    return finish(s);
}

conv_slab mestk_backward_slab(const mestk_conv *g)
{
    int32_t few = mestk_few_lanes(g->in);
    int32_t columns = few ? mestk_backward_row_floats(g) / g->in.lanes : mestk_class_fours(g->in, g->stride_w);
    conv_slab s = {.picture = g->out, .stride = 1, .phases = 1, .row_stride = 1, .row_phases = 1};
    s.rows = mestk_slab_rows(mestk_computed_rows(mestk_tile_h(g->in)), g->stride_h, g->kernel_h);
    s.columns = line_columns(mestk_slab_columns(columns, g->stride_w, g->kernel_w), g->in.lanes);
    s.columns = columns_for_tiles(s.columns, s.picture, -mestk_slab_origin(0, g->pad_w, g->stride_w, g->kernel_w));
    return finish(s);
}

conv_slab mestk_inner_slab(const mestk_conv *g)
{
    conv_slab s = {.picture = g->in, .stride = g->stride_w, .phases = g->stride_w, .row_stride = 1, .row_phases = 1};
    s.rows = mestk_computed_rows(mestk_tile_h(g->in));
    s.columns = mestk_backward_row_floats(g) / g->in.lanes + (g->stride_w > 1);
    return finish(s);
}
