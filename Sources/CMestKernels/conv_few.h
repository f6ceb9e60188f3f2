/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution of one or four lanes, of one format: around the loops over connections of conv_rows.h. */

/* Pointwise: some strips at once. */
static void V(few_forward_flat)(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    mestk_shape in = job->g->in, out = job->g->out;
    int32_t first = task * job->flat_strips, end = mestk_min(first + job->flat_strips, mestk_strips(out));
    int32_t strip_floats = job->row_floats / job->flat_strips;
    float *slab = job->slabs + worker * job->slab.floats, *chains = job->chains + worker * job->chain_floats;
    V(few_rows) k = {.s = out, .c1 = out.channels, .channel = job->chain_channel};
    for (int32_t i = 0; i < end - first; i++) V(few_pack_flat)(&job->slab, first + i, *job->x, slab + i * strip_floats);
    for (int32_t c = 0; end - first < job->flat_strips && c < in.channels; c++) /* nobody's: but no slow numbers */
        memset(slab + c * job->slab.channel + (end - first) * strip_floats, 0,
               (size_t)((job->flat_strips - end + first) * strip_floats) * sizeof(float));
    LEVEL(rows_forward)(job, slab, chains);
    for (k.strip = first; k.strip < end; k.strip++, chains += strip_floats)
        V(few_store_y)(&k, chains, job->y, job->count, job->sums);
}

static void V(few_forward)(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    if (job->flat_strips) {
        V(few_forward_flat)(job, task, worker);
        return;
    }
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    int32_t th = mestk_tile_h(g->out), ty = mestk_tiles_y(g->out);
    float *slab = job->slabs + worker * s->floats, *chains = job->chains + worker * job->chain_floats;
    V(few_rows) k = {.s = g->out, .strip = task, .c1 = g->out.channels, .channel = job->chain_channel,
                     .pitch = job->row_floats, .stride = 1};
    V(few_pack)(s, task / ty, task % ty * th * g->stride_h - g->pad_h, g->pad_w, job->x, 0, g->in.channels, slab);
    LEVEL(rows_forward)(job, slab, chains);
    V(few_store_y)(&k, chains, job->y, job->count, job->sums);
}

static void V(few_backward)(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab, *inner = &job->inner;
    mestk_shape in = g->in;
    int32_t th = mestk_tile_h(in), ty = mestk_tiles_y(in), block = task / ty, y0 = task % ty * th;
    int32_t top = mestk_slab_origin(y0, g->pad_h, g->stride_h, g->kernel_h);
    int32_t left = mestk_slab_origin(0, g->pad_w, g->stride_w, g->kernel_w);
    float *slab = job->slabs + worker * s->floats, *dx = job->chains + worker * job->chain_floats, *x = dx + inner->floats;
    V(few_rows) k = {.s = in, .strip = task, .c1 = in.channels, .channel = inner->channel,
                     .pitch = (int64_t)inner->phases * inner->columns * in.lanes, .stride = inner->stride,
                     .columns = inner->columns, .shift = g->pad_w % g->stride_w};
    V(few_pack)(s, block, top, -left, job->dy, 0, g->out.channels, slab);
    mestk_clear_lanes(slab, s->channel * s->picture.channels, in.lanes, job->count - block * in.lanes);
    V(few_pack)(inner, block, y0, k.shift, job->x, 0, in.channels, x);
    LEVEL(rows_backward)(job, y0, top, left, slab, x, dx, partial);
    if (job->gradient->dx) V(few_store_dx)(&k, dx, x, job->gradient);
}
