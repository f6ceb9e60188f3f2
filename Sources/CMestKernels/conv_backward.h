/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution backward of 8 or 16 lanes on one instruction set: see conv_forward.h.
 * LEVEL_DOTS: dot products that fit beside a unit's dx.
 */

/* One unit: rows x 4 pixels of one class, in one strip. */
typedef struct V(unit) {
    const float *slab;    /* line of the first pixel, last taps of the class */
    float *chains, *lines; /* of channel 0 (conv_job.h) */
    int64_t slab_row;     /* floats from row to row */
    int64_t base;         /* values before the picture's channel 0 tile */
    int64_t at[8];        /* values from there to the pixel; < 0: no such pixel */
    int32_t inside[8];    /* a pixel of the picture, not padding */
    int32_t section;      /* segment of a channel */
    int32_t run;          /* all pixels inside, their lines one after the other */
    int32_t first, last;  /* block of output channels */
} V(unit);

VEC_INLINE int32_t V(conv_inside)(const V(unit) *u, int p, const int run) { return run || u->inside[p]; }

VEC_INLINE int64_t V(conv_at)(const V(unit) *u, int p, const int run) { return run ? u->at[0] + p * LANES : u->at[p]; }

/* `entries` of one channel on one unit, as many at a time as `step`. */
VEC_INLINE void V(conv_entries)(const V(unit) *u, const mestk_word *offset, const float *weight, float *partial,
                                const vec *x, vec *chain, const int pixels, const int step, const int need_dx)
{
    const float *at[4];
    vec dot[4];
    UNROLL for (int i = 0; i < 4; i++) dot[i] = vec_zero();
    UNROLL for (int i = 0; i < step; i++) at[i] = u->slab + offset[i];
    UNROLL for (int s = 0; s < step; s += LEVEL_DOTS) {
        const int end = s + LEVEL_DOTS < step ? s + LEVEL_DOTS : step;
        UNROLL for (int p = 0; p < pixels; p++) {
            UNROLL for (int i = s; i < end; i++) {
                vec dy = vec_load(at[i] + p / 4 * u->slab_row + p % 4 * LANES);
                if (need_dx) chain[p] = vec_fma((vec)(weight[i]), dy, chain[p]);
                dot[i] = vec_fma(dy, x[p], dot[i]);
            }
        }
    }
    if (step == 4) {
        vec_add_dots(dot, partial);
    } else {
        float d[WIDTH];
        vec_store(d, dot[0]);
        mestk_add_line(partial, d, WIDTH);
    }
}

/* Stores dx of one channel: the old one added, masked, summed. */
VEC_INLINE void V(conv_store_dx)(const mestk_conv_job *job, const V(unit) *u, int64_t at, const vec *x, vec *chain,
                                 float *lines, const int pixels, const int run)
{
    const mestk_gradient *to = job->gradient;
    stored *dx = (stored *)to->dx + at;
    if (to->accumulate)
        UNROLL for (int p = 0; p < pixels; p++)
            if (V(conv_inside)(u, p, run)) chain[p] += get_stored(dx + V(conv_at)(u, p, run));
    if (to->masked) UNROLL for (int p = 0; p < pixels; p++) chain[p] = vec_where(x[p] > vec_zero(), chain[p]);
    UNROLL for (int p = 0; p < pixels; p++) {
        if (!V(conv_inside)(u, p, run)) chain[p] = vec_zero();
        if (run || u->at[p] >= 0) put_stored(dx + V(conv_at)(u, p, run), chain[p]);
    }
    if (!to->normed[0]) return;
    vec sum = vec_load(lines);
    UNROLL for (int p = 0; p < pixels; p++) {
        chain[p] = round_stored(chain[p]);
        if (V(conv_inside)(u, p, run)) sum += chain[p];
    }
    vec_store(lines, sum);
    for (int n = 0; n < 2; n++) {
        if (!to->normed[n]) break;
        const stored *normed = (const stored *)to->normed[n] + at;
        vec dot = vec_load(lines + (n + 1) * LANES);
        UNROLL for (int p = 0; p < pixels; p++)
            if (V(conv_inside)(u, p, run)) dot = vec_fma(chain[p], get_stored(normed + V(conv_at)(u, p, run)), dot);
        vec_store(lines + (n + 1) * LANES, dot);
    }
}

/* What a channel to come reads. */
VEC_INLINE void V(conv_prefetch)(const mestk_conv_job *job, const V(unit) *u, int64_t at, const int pixels, const int run)
{
    const mestk_gradient *to = job->gradient;
    const stored *x = (const stored *)job->x->x + at, *dx = to->dx ? (const stored *)to->dx + at : NULL;
    const stored *r = to->normed[0] ? (const stored *)to->normed[0] + at : NULL;
    UNROLL for (int p = 0; p < pixels; p++) {
        if ((p * LANES * (int)sizeof(stored)) % 64) continue;
        int64_t line = V(conv_at)(u, p, run);
        __builtin_prefetch(x + line, 0, ONCE);
        if (u->last && to->normed[0]) __builtin_prefetch(r + line);
        if (u->last && to->dx) __builtin_prefetch(dx + line, 1);
    }
}

/* One block of output channels and every input channel on one unit; at: of the lanes in work. */
VEC_INLINE void V(conv_channels)(const mestk_conv_job *job, const V(unit) *u, int64_t at, float *partial,
                                 const int rows, const int need_dx, const int run)
{
    const int pixels = rows * 4;
    int32_t sections = job->blocks * job->classes, channels = job->g->in.channels;
    int64_t channel = (int64_t)mestk_tile_h(job->g->in) * mestk_tile_w(job->g->in) * LANES;
    const mestk_word *segment = job->segment + u->section;
    for (int32_t c = 0; c < channels; c++, segment += sections + 1, at += channel) {
        int32_t e = segment[0], end = segment[1];
        float *kept = u->chains + (int64_t)c * 8 * LANES;
        V(term) term = V(operand_term)(job->x, c);
        vec x[8], chain[8];
        V(conv_prefetch)(job, u, at + CHANNELS_AHEAD * channel, pixels, run);
#define RUN(kind)                                                                                               \
    UNROLL for (int p = 0; p < pixels; p++)                                                                     \
        x[p] = V(conv_inside)(u, p, run) ? V(operand_value)(&term, at + V(conv_at)(u, p, run), kind) : vec_zero()
        OPERAND_SWITCH(term.kind, RUN)
#undef RUN
        UNROLL for (int p = 0; p < pixels; p++)
            if (need_dx) chain[p] = u->first ? vec_zero() : vec_load(kept + p * LANES);
        ROLLED for (; e + 4 <= end; e += 4)
            V(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, pixels, 4, need_dx);
        ROLLED for (; e < end; e++)
            V(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, pixels, 1, need_dx);
        if (!need_dx) continue;
        if (u->last) V(conv_store_dx)(job, u, at, x, chain, u->lines + (int64_t)c * 3 * LANES, pixels, run);
        else UNROLL for (int p = 0; p < pixels; p++) vec_store(kept + p * LANES, chain[p]);
    }
}

static void V(conv_unit)(const mestk_conv_job *job, const V(unit) *unit, int32_t class, int32_t rows, float *partial)
{
    int32_t dx = job->gradient->dx != NULL;
    for (int32_t b = 0; b < job->blocks; b++) {
        V(unit) u = *unit;
        u.section = b * job->classes + class;
        u.first = b == 0;
        u.last = b + 1 == job->blocks;
        for (int32_t h = 0; h < LANES; h += WIDTH, u.slab += WIDTH, u.chains += WIDTH, u.lines += WIDTH) {
            if (rows == 2 && dx && u.run) V(conv_channels)(job, &u, u.base + h, partial, 2, 1, 1);
            else if (rows == 2 && dx) V(conv_channels)(job, &u, u.base + h, partial, 2, 1, 0);
            else if (rows == 2) V(conv_channels)(job, &u, u.base + h, partial, 2, 0, 0);
            else if (dx) V(conv_channels)(job, &u, u.base + h, partial, 1, 1, 0);
            else V(conv_channels)(job, &u, u.base + h, partial, 1, 0, 0);
        }
    }
}

static void V(conv_sum_strip)(const mestk_conv_job *job, int32_t task, const float *lines)
{
    const mestk_gradient *to = job->gradient;
    int32_t channels = job->g->in.channels;
    for (int32_t c = 0; c < channels; c++, lines += 3 * LANES) {
        for (int n = 0; n < 2 && to->normed[n]; n++) {
            vec sum[PARTS], dot[PARTS];
            for (int h = 0; h < PARTS; h++) {
                sum[h] = vec_load(lines + h * WIDTH);
                dot[h] = vec_load(lines + (n + 1) * LANES + h * WIDTH);
            }
            V(reduce_sums)(sum, dot, to->sums[n] + ((int64_t)task * channels + c) * 2);
        }
    }
}

static void V(conv_backward)(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    mestk_shape in = g->in;
    int32_t th = mestk_tile_h(in), ty = mestk_tiles_y(in), block = task / ty, y0 = task % ty * th;
    int32_t width = mestk_tiles_x(in) * mestk_tile_w(in), sh = g->stride_h, sw = g->stride_w;
    int32_t top = mestk_slab_origin(y0, g->pad_h, sh, g->kernel_h);
    int32_t left = mestk_slab_origin(0, g->pad_w, sw, g->kernel_w);
    int64_t base = mestk_line(in, block, 0, 0, 0);
    float *slab = job->slabs + worker * s->floats, *lines = job->lines + worker * job->line_floats;
    int32_t sums = job->gradient->dx && job->gradient->normed[0];
    if (sums) memset(lines, 0, (size_t)in.channels * 3 * LANES * sizeof(float));
    int32_t follows = mestk_take_strip(job, task, worker, ty);
    int32_t step = follows ? top - mestk_slab_origin(y0 - th, g->pad_h, sh, g->kernel_h) : 0;
    V(conv_pack)(s, block, top, -left, job->dy, step, slab);
    mestk_clear_lanes(slab, s->channel * s->picture.channels, LANES, job->count - block * LANES);
    for (int32_t b = 0; b < sw; b++) {
        for (int32_t x = mestk_first_of_class(0, g->pad_w, sw, b); x < width; x += 4 * sw) {
            for (int32_t a = 0; a < sh; a++) {
                for (int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a); y < y0 + th; y += 2 * sh) {
                    int32_t rows = y + sh < y0 + th ? 2 : 1;
                    /* Slab line of pixel (y, x) and the last tap of the class, which the index counts
                     * from: n - m with m at most (kernel - 1) / stride. */
                    int32_t row = mestk_slab_origin(y, g->pad_h, sh, g->kernel_h) - top;
                    int32_t column = mestk_slab_origin(x, g->pad_w, sw, g->kernel_w) - left;
                    V(unit) u = {.slab = slab + ((int64_t)row * s->columns + column) * LANES,
                                 .chains = job->chains + worker * job->chain_floats, .lines = lines, .base = base,
                                 .slab_row = (int64_t)s->columns * LANES, .run = 1};
                    for (int32_t p = 0; p < rows * 4; p++) {
                        int32_t qy = y + p / 4 * sh, qx = x + p % 4 * sw;
                        u.at[p] = qx < width ? mestk_line(in, block, 0, qy, qx) - base : -1;
                        u.inside[p] = qy < in.height && qx < in.width;
                        u.run &= u.inside[p] && u.at[p] == u.at[0] + p * LANES;
                    }
                    V(conv_unit)(job, &u, mestk_class_of(g, a, b), rows, partial);
                }
            }
        }
    }
    if (sums) V(conv_sum_strip)(job, task, lines);
}
