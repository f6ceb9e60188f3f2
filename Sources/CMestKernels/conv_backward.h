/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution backward of 8 or 16 lanes: see conv_lines.h and conv_forward.h.
 * LEVEL_DOTS: dot products that fit beside a unit's dx.
 */

enum { C(UNIT_ROWS) = 2 * PIXELS }; /* of 4 pixels: 8 lines */

/* One unit: rows x 4 pixels of one class, in one strip. */
typedef struct C(unit) {
    const float *slab;    /* line of the first pixel, last taps of the class */
    float *chains, *lines; /* of channel 0 (conv_job.h) */
    int64_t slab_row;     /* floats from row to row */
    int64_t base;         /* values before the picture's channel 0 tile */
    int64_t at[4 * C(UNIT_ROWS)];     /* values from there to the pixel; < 0: no such pixel */
    int32_t inside[4 * C(UNIT_ROWS)]; /* a pixel of the picture, not padding */
    int32_t part;         /* of a line: the value that vectors begin with */
    int32_t section;      /* segment of a channel */
    int32_t whole;        /* all pixels inside, those of a line side by side */
    int32_t run;          /* and line after line */
    int32_t first, last;  /* block of output channels */
} C(unit);

/* Of four rows clang loads all lines before it uses any, and keeps half of them on the stack: no load, and none of
 * these sums, passes this. */
VEC_INLINE void C(conv_in_order)(vec *dot, vec *chain)
{
#if WIDTH == 16
    __asm__ volatile("" : "+v"(dot[0]), "+v"(dot[1]), "+v"(dot[2]), "+v"(dot[3]), "+v"(chain[0]), "+v"(chain[1])::"memory");
#else
    (void)dot, (void)chain;
#endif
}

/* `entries` of one channel on one unit, as many at a time as `step`. */
VEC_INLINE void C(conv_entries)(const C(unit) *u, const mestk_word *offset, const float *weight, float *partial,
                                const vec *x, vec *chain, const int lines, const int step, const int need_dx)
{
    const float *at[4];
    int64_t row = u->slab_row;
    vec dot[4];
    UNROLL for (int i = 0; i < 4; i++) dot[i] = vec_zero();
    UNROLL for (int i = 0; i < step; i++) at[i] = u->slab + offset[i];
    UNROLL for (int s = 0; s < step; s += LEVEL_DOTS) {
        const int end = s + LEVEL_DOTS < step ? s + LEVEL_DOTS : step;
        UNROLL for (int p = 0; p < lines; p++) {
            UNROLL for (int i = s; i < end; i++) {
                vec dy = vec_load(at[i] + p / ACROSS * row + p % ACROSS * LANES);
                if (need_dx) chain[p] = vec_fma((vec)(weight[i]), dy, chain[p]);
                dot[i] = vec_fma(dy, x[p], dot[i]);
            }
            if (need_dx && lines / ACROSS == 4 && step == 4 && p % 2) C(conv_in_order)(dot, chain + p - 1);
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

/* Line p of a unit that is whole; run: they follow each other. */
VEC_INLINE int64_t C(conv_at)(const C(unit) *u, int p, const int run)
{
    return (run ? u->at[0] + p * LANES : u->at[p * PIXELS]) + u->part;
}

/* Where octet i of a unit lies, counted over the part of its lines that is in work: 1, a pixel; 0, padding; -1, nowhere. */
VEC_INLINE int32_t C(conv_octet)(const C(unit) *u, int32_t i, int64_t *at)
{
    int32_t value = i / (WIDTH / 8) * LANES + u->part + i % (WIDTH / 8) * 8, pixel = value / SAMPLES;
    *at = u->at[pixel] + value % SAMPLES;
    return u->at[pixel] < 0 ? -1 : u->inside[pixel];
}

/* x of a unit that is not whole. */
static __attribute__((noinline)) void C(conv_load_edge)(const C(unit) *u, const mestk_operand *x, int32_t c, int64_t base,
                                                        int32_t lines, void *to)
{
    V_OF(term, 8) term = V_OF(operand_term, 8)(x, c);
    octet *at = to;
#define RUN(kind)                                                                                                   \
    ROLLED for (int32_t i = 0; i < lines * (WIDTH / 8); i++) {                                                      \
        int64_t value;                                                                                              \
        at[i] = C(conv_octet)(u, i, &value) > 0 ? V_OF(operand_value, 8)(&term, base + value, kind) : (octet)(0.0f); \
    }
    OPERAND_SWITCH(term.kind, RUN)
#undef RUN
}

/* Stores dx of one channel: the old one added, masked, summed. */
VEC_INLINE void C(conv_store_dx)(const mestk_conv_job *job, const C(unit) *u, int64_t at, const vec *x, vec *chain,
                                 float *sums, const int lines, const int run)
{
    const mestk_gradient *to = job->gradient;
    stored *dx = (stored *)to->dx + at;
    if (to->accumulate) UNROLL for (int p = 0; p < lines; p++) chain[p] += get_stored(dx + C(conv_at)(u, p, run));
    if (to->masked) UNROLL for (int p = 0; p < lines; p++) chain[p] = vec_where(x[p] > vec_zero(), chain[p]);
    UNROLL for (int p = 0; p < lines; p++) put_stored(dx + C(conv_at)(u, p, run), chain[p]);
    if (!to->normed[0]) return;
    vec sum = vec_load(sums);
    UNROLL for (int p = 0; p < lines; p++) {
        chain[p] = round_stored(chain[p]);
        sum += chain[p];
    }
    vec_store(sums, sum);
    for (int n = 0; n < 2; n++) {
        if (!to->normed[n]) break;
        const stored *normed = (const stored *)to->normed[n] + at;
        vec dot = vec_load(sums + (n + 1) * LANES);
        UNROLL for (int p = 0; p < lines; p++)
            dot = vec_fma(chain[p], get_stored(normed + C(conv_at)(u, p, run)), dot);
        vec_store(sums + (n + 1) * LANES, dot);
    }
}

/* The same of a unit that is not whole. */
static __attribute__((noinline)) void C(conv_store_edge)(const mestk_conv_job *job, const C(unit) *u, int64_t base,
                                                         const void *values, const void *gradients, float *sums,
                                                         int32_t lines)
{
    const mestk_gradient *to = job->gradient;
    const octet *x = values, *chain = gradients;
    octet *sum = (octet *)sums;
    for (int32_t i = 0; i < lines * (WIDTH / 8); i++) {
        int64_t at;
        int32_t inside = C(conv_octet)(u, i, &at), part = i % (WIDTH / 8);
        if (inside < 0) continue;
        stored *dx = (stored *)to->dx + base + at;
        octet v = inside ? chain[i] : (octet)(0.0f), old, normed;
        if (inside && to->accumulate) {
            V_OF(get_line, 8)(dx, (float *)&old);
            v = old + v;
        }
        if (to->masked) UNROLL for (int l = 0; l < 8; l++) v[l] = x[i][l] > 0.0f ? v[l] : 0.0f;
        V_OF(put_line, 8)(dx, (float *)&v);
        if (!inside || !sums) continue;
        V_OF(get_line, 8)(dx, (float *)&v); /* as rounded */
        sum[part] += v;
        for (int32_t n = 0; n < 2 && to->normed[n]; n++) {
            octet *dot = (octet *)(sums + (n + 1) * LANES) + part;
            V_OF(get_line, 8)((const stored *)to->normed[n] + base + at, (float *)&normed);
            UNROLL for (int l = 0; l < 8; l++) (*dot)[l] = mestk_fma_inline(v[l], normed[l], (*dot)[l]);
        }
    }
}

/* What a channel to come reads. */
VEC_INLINE void C(conv_prefetch)(const mestk_conv_job *job, const C(unit) *u, int64_t at, const int lines, const int run)
{
    const mestk_gradient *to = job->gradient;
    const stored *x = (const stored *)job->x->x + at, *dx = to->dx ? (const stored *)to->dx + at : NULL;
    const stored *r = to->normed[0] ? (const stored *)to->normed[0] + at : NULL;
    UNROLL for (int p = 0; p < lines; p++) {
        if ((p * LANES * (int)sizeof(stored)) % 64) continue;
        int64_t line = C(conv_at)(u, p, run);
        __builtin_prefetch(x + line, 0, ONCE);
        if (u->last && to->normed[0]) __builtin_prefetch(r + line);
        if (u->last && to->dx) __builtin_prefetch(dx + line, 1);
    }
}

/* One block of output channels and every input channel on one unit. */
VEC_INLINE void C(conv_channels)(const mestk_conv_job *job, const C(unit) *u, float *partial, const int lines,
                                 const int need_dx, const int run)
{
    int32_t sections = job->blocks * job->classes, channels = job->g->in.channels;
    int64_t channel = (int64_t)mestk_tile_h(job->g->in) * mestk_tile_w(job->g->in) * SAMPLES, at = u->base;
    const mestk_word *segment = job->segment + u->section;
    for (int32_t c = 0; c < channels; c++, segment += sections + 1, at += channel) {
        int32_t e = segment[0], end = segment[1];
        float *kept = u->chains + (int64_t)c * 8 * LANES, *sums = u->lines ? u->lines + (int64_t)c * 3 * LANES : NULL;
        vec x[8], chain[8];
        C(conv_prefetch)(job, u, at + CHANNELS_AHEAD * channel, lines, run);
        if (run || u->whole) {
            V(term) term = V(operand_term)(job->x, c);
#define RUN(kind) \
    UNROLL for (int p = 0; p < lines; p++) x[p] = V(operand_value)(&term, at + C(conv_at)(u, p, run), kind)
            OPERAND_SWITCH(term.kind, RUN)
#undef RUN
        } else {
            vec edge[8];
            C(conv_load_edge)(u, job->x, c, at, lines, edge);
            UNROLL for (int p = 0; p < lines; p++) x[p] = edge[p];
        }
        UNROLL for (int p = 0; p < lines; p++)
            if (need_dx) chain[p] = u->first ? vec_zero() : vec_load(kept + p * LANES);
        ROLLED for (; e + 4 <= end; e += 4)
            C(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, lines, 4, need_dx);
        ROLLED for (; e < end; e++)
            C(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, lines, 1, need_dx);
        if (!need_dx) continue;
        if (!u->last) {
            UNROLL for (int p = 0; p < lines; p++) vec_store(kept + p * LANES, chain[p]);
        } else if (run || u->whole) {
            C(conv_store_dx)(job, u, at, x, chain, sums, lines, run);
        } else {
            vec edge[2][8];
            UNROLL for (int p = 0; p < lines; p++) edge[0][p] = x[p], edge[1][p] = chain[p];
            C(conv_store_edge)(job, u, at, edge[0], edge[1], sums, lines);
        }
    }
}

static void C(conv_unit)(const mestk_conv_job *job, const C(unit) *unit, int32_t class, int32_t rows, float *partial)
{
    int32_t dx = job->gradient->dx != NULL;
    for (int32_t b = 0; b < job->blocks; b++) {
        C(unit) u = *unit;
        u.section = b * job->classes + class;
        u.first = b == 0;
        u.last = b + 1 == job->blocks;
        for (; u.part < LANES; u.part += WIDTH, u.slab += WIDTH, u.chains += WIDTH) {
#define ROWS(rows)                                                          \
    do {                                                                    \
        if (dx) C(conv_channels)(job, &u, partial, (rows) * ACROSS, 1, 0);  \
        else C(conv_channels)(job, &u, partial, (rows) * ACROSS, 0, 0);     \
    } while (0)
            if (dx && u.run) C(conv_channels)(job, &u, partial, C(UNIT_ROWS) * ACROSS, 1, 1);
            else if (rows == C(UNIT_ROWS)) ROWS(C(UNIT_ROWS));
            else if (rows == 2) ROWS(2);
            else ROWS(1);
#undef ROWS
            if (u.lines) u.lines += WIDTH;
        }
    }
}

static void C(conv_sum_strip)(const mestk_conv_job *job, int32_t task, const float *lines)
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

static void C(conv_sum_stored)(const mestk_conv_job *job, int32_t task)
{
    const mestk_gradient *to = job->gradient;
    for (int32_t c = 0; c < job->g->in.channels; c++)
        for (int n = 0; n < 2 && to->normed[n]; n++)
            C(strip_sums)(job->g->in, task, c, INT32_MAX, to->dx, to->normed[n], to->sums[n]);
}

static void C(conv_backward)(const mestk_conv_job *job, int32_t task, int32_t worker, float *partial)
{
    const mestk_conv *g = job->g;
    const mestk_gradient *to = job->gradient;
    const conv_slab *s = &job->slab;
    mestk_shape in = g->in;
    int32_t th = mestk_tile_h(in), tw = mestk_tile_w(in), ty = mestk_tiles_y(in), block = task / ty, y0 = task % ty * th;
    int32_t width = mestk_tiles_x(in) * tw, sh = g->stride_h, sw = g->stride_w;
    int32_t top = mestk_slab_origin(y0, g->pad_h, sh, g->kernel_h);
    int32_t left = mestk_slab_origin(0, g->pad_w, sw, g->kernel_w);
    int64_t base = mestk_line(in, block, 0, 0, 0);
    /* Of two pixels of rows of 1 or 3, or of a stride, lines do not lie side by side: their chains of sums
     * (operand.h) are others, and are gone through afterwards. */
    int32_t side_by_side = PIXELS == 1 || (sw == 1 && tw % PIXELS == 0), sums = to->dx && to->normed[0];
    float *slab = job->slabs + worker * s->floats;
    float *lines = sums && side_by_side ? job->lines + worker * job->line_floats : NULL;
    if (lines) memset(lines, 0, (size_t)in.channels * 3 * LANES * sizeof(float));
    int32_t follows = mestk_take_strip(job, task, worker, ty);
    int32_t step = follows ? top - mestk_slab_origin(y0 - th, g->pad_h, sh, g->kernel_h) : 0;
    C(conv_pack)(s, block, top, -left, job->dy, step, slab);
    mestk_clear_lanes(slab, s->channel * s->picture.channels, SAMPLES, job->count - block * SAMPLES);
    for (int32_t b = 0; b < sw; b++) {
        for (int32_t x = mestk_first_of_class(0, g->pad_w, sw, b); x < width; x += 4 * sw) {
            for (int32_t a = 0; a < sh; a++) {
                for (int32_t y = mestk_first_of_class(y0, g->pad_h, sh, a); y < y0 + th; y += C(UNIT_ROWS) * sh) {
                    int32_t rows = mestk_min(C(UNIT_ROWS), mestk_ceil_div(y0 + th - y, sh));
                    /* Slab line of pixel (y, x) and the last tap of the class, which the index counts
                     * from: n - m with m at most (kernel - 1) / stride. */
                    int32_t row = mestk_slab_origin(y, g->pad_h, sh, g->kernel_h) - top;
                    int32_t column = mestk_slab_origin(x, g->pad_w, sw, g->kernel_w) - left;
                    C(unit) u = {.slab = slab + ((int64_t)row * s->columns + column) * SAMPLES,
                                 .chains = job->chains + worker * job->chain_floats, .lines = lines, .base = base,
                                 .slab_row = (int64_t)s->columns * SAMPLES, .whole = rows != 3 && side_by_side,
                                 .run = rows == C(UNIT_ROWS)};
                    for (int32_t p = 0; p < mestk_computed_rows(rows) * 4; p++) {
                        int32_t qy = y + p / 4 * sh, qx = x + p % 4 * sw;
                        u.at[p] = qx < width && qy < y0 + th ? mestk_line(in, block, 0, qy, qx) - base : -1;
                        u.inside[p] = qy < in.height && qx < in.width;
                        u.whole &= u.inside[p];
                        u.run &= u.at[p] == u.at[0] + p * SAMPLES;
                    }
                    u.run &= u.whole;
                    C(conv_unit)(job, &u, mestk_class_of(g, a, b), mestk_computed_rows(rows), partial);
                }
            }
        }
    }
    if (lines) C(conv_sum_strip)(job, task, lines);
    else if (sums) C(conv_sum_stored)(job, task);
}
