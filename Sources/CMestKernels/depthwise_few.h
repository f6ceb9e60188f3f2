/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution of one or four lanes, of one format: around the loops over taps of depthwise_rows.h.
 * As many channels at a time as stay in L1. */

static void V(few_depthwise_forward)(const mestk_depthwise_job *job, int32_t strip, int32_t worker)
{
    const mestk_conv *g = job->g;
    int32_t ty = mestk_tiles_y(g->out), top = strip % ty * mestk_tile_h(g->out) * g->stride_h - g->pad_h;
    float *slab = job->work + worker * job->work_floats, *chains = slab + job->slab_floats;
    V(few_rows) k = {.s = g->out, .strip = strip, .channel = (int64_t)job->rows * job->row_floats,
                     .pitch = job->row_floats, .stride = 1};
    for (; k.c0 < g->out.channels; k.c0 = k.c1) {
        k.c1 = mestk_min(k.c0 + job->together, g->out.channels);
        V(few_pack)(&job->slab, strip / ty, top, g->pad_w, job->x, k.c0, k.c1, slab);
        LEVEL(depthwise_rows_forward)(job, k.c0, k.c1, slab, chains);
        V(few_store_y)(&k, chains, job->y, job->count, job->sums);
    }
}

static void V(few_depthwise_backward)(const mestk_depthwise_job *job, int32_t strip, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab, *inner = &job->inner;
    int32_t ty = mestk_tiles_y(g->in), y0 = strip % ty * mestk_tile_h(g->in), L = g->in.lanes;
    int32_t top = mestk_slab_origin(y0, g->pad_h, g->stride_h, g->kernel_h);
    int32_t left = mestk_slab_origin(0, g->pad_w, g->stride_w, g->kernel_w);
    float *slab = job->work + worker * job->work_floats;
    float *x = slab + job->slab_floats, *dx = x + job->inner_floats, *dots = dx + job->inner_floats;
    V(few_rows) k = {.s = g->in, .strip = strip, .channel = inner->channel,
                     .pitch = (int64_t)inner->phases * inner->columns * L, .stride = inner->stride,
                     .columns = inner->columns, .shift = g->pad_w % g->stride_w};
    for (; k.c0 < g->in.channels; k.c0 = k.c1) {
        k.c1 = mestk_min(k.c0 + job->together, g->in.channels);
        V(few_pack)(s, strip / ty, top, -left, job->dy, k.c0, k.c1, slab);
        mestk_clear_lanes(slab, s->channel * (k.c1 - k.c0), L, job->count - strip / ty * L);
        V(few_pack)(inner, strip / ty, y0, k.shift, job->x, k.c0, k.c1, x);
        LEVEL(depthwise_rows_backward)(job, k.c0, k.c1, y0, top, left, slab, x, dx, dots, partial);
        if (job->gradient->dx) V(few_store_dx)(&k, dx, x, job->gradient);
    }
}
