/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution of one lane count on one instruction set: see vector.h for the parameters,
 * conv_job.h for the slab, conv_reference.c for the order of roundings, which is kept.
 * LEVEL_ROWS: rows of 4 accumulators that fit the registers; LEVEL_DOTS: dot products that fit beside a
 * unit's dx.
 */

#if !STORED_BF16 && !LEVEL_SCALAR
#include "conv_pattern.h"
#endif
#define PATTERN_RUN PATTERN_JOIN(conv_pattern_run, LANES)

/* ---- packing ---- */

/* Lines of columns u0 .. u1-1 of one slab row: what the operand is from `at` on. */
static void V(conv_pack_row)(const conv_slab *s, int32_t u0, int32_t u1, const V(term) *from, int64_t at, float *row)
{
    if (u0 >= u1) return;
    int32_t phase = u0 % s->stride, column = u0 / s->stride;
    ROLLED for (int32_t u = u0; u < u1; u++, at += LANES) {
        if (phase < s->phases) {
            float *to = row + (phase * s->columns + column) * LANES;
            UNROLL for (int h = 0; h < LANES; h += WIDTH) vec_store(to + h, V(operand_value)(from, at + h, from->kind));
        }
        if (++phase == s->stride) phase = 0, column++;
    }
}

/* +0 in what lies around the picture: it has columns u = begin .. end - 1 of the slab. */
static void V(conv_pack_border)(const conv_slab *s, int32_t top, int32_t begin, int32_t end, float *slab)
{
    int32_t columns = s->phases * s->columns;
    for (int32_t c = 0; c < s->picture.channels; c++) {
        float *row = slab + c * s->channel;
        for (int32_t r = 0; r < s->rows; r++, row += (int64_t)columns * LANES) {
            int32_t inside = top + r >= 0 && top + r < s->picture.height;
            if (!inside || s->stride > 1) {
                vec_zero_lines(row, columns);
            } else {
                vec_zero_lines(row, begin);
                vec_zero_lines(row + (int64_t)end * LANES, columns - end);
            }
        }
    }
}

/* What conv_pack goes through: rows r0 .. r1 of the slab, of one tile row of the picture. */
typedef struct V(pack) {
    const conv_slab *s;
    const mestk_operand *from;
    float *slab;
    int64_t at;          /* value of row r0, tile 0, channel 0 */
    int32_t r0, r1;
    int32_t shift, begin, end; /* picture column x is at u = x + shift, begin <= u < end */
} V(pack);

VEC_INLINE void V(conv_pack_tiles)(const V(pack) *k, const int32_t kind)
{
    const conv_slab *s = k->s;
    int32_t tw = mestk_tile_w(s->picture), tile = mestk_tile_h(s->picture) * tw * LANES, tiles = mestk_tiles_x(s->picture);
    int64_t row_floats = (int64_t)s->phases * s->columns * LANES, at = k->at;
    for (int32_t t = 0; t < tiles; t++) {
        int32_t u = t * tw + k->shift, u0 = mestk_max(u, k->begin), u1 = mestk_min(u + tw, k->end);
        int32_t whole = s->stride == 1 && u1 - u0 == 4;
        float *row = k->slab + k->r0 * row_floats + (int64_t)u0 * LANES;
        for (int32_t c = 0; c < s->picture.channels; c++, at += tile, row += s->channel) {
            V(term) term = V(operand_term)(k->from, c);
            if (whole) {
                float *to = row;
                int64_t line = at;
                ROLLED for (int32_t r = k->r0; r < k->r1; r++, line += 4 * LANES, to += row_floats) {
                    UNROLL for (int i = 0; i < 4 * LANES; i += 64 / (int)sizeof(stored)) {
                        __builtin_prefetch(term.x + line + TILES_AHEAD * tile + i);
                        if (kind & V(SECOND)) __builtin_prefetch(term.r + line + TILES_AHEAD * tile + i);
                    }
                    UNROLL for (int i = 0; i < 4 * LANES; i += WIDTH)
                        vec_store(to + i, V(operand_value)(&term, line + i, kind));
                }
                continue;
            }
            for (int32_t r = k->r0; r < k->r1; r++)
                if (r % s->row_stride < s->row_phases)
                    V(conv_pack_row)(s, u0, u1, &term, at + ((r - k->r0) * tw + u0 - u) * LANES,
                                     k->slab + c * s->channel + r * row_floats);
        }
    }
}

/* Picture rows top .. top + rows - 1 of the operand into the slab, picture column x to u = x + shift. */
static void V(conv_pack)(const conv_slab *s, int32_t block, int32_t top, int32_t shift, const mestk_operand *from,
                         float *slab)
{
    mestk_shape p = s->picture;
    int32_t th = mestk_tile_h(p), width = s->stride * s->columns;
    int32_t kind = V(operand_term)(from, 0).kind;
    V(pack) k = {.s = s, .from = from, .slab = slab, .shift = shift, .begin = mestk_min(mestk_max(0, shift), width)};
    k.end = mestk_max(k.begin, mestk_min(p.width + shift, width));
    V(conv_pack_border)(s, top, k.begin, k.end, slab);
    int32_t last = mestk_min(s->rows, p.height - top);
    for (k.r0 = mestk_max(0, -top); k.r0 < last; k.r0 = k.r1) {
        k.r1 = mestk_min(last, k.r0 + th - (top + k.r0) % th);
        k.at = mestk_line(p, block, 0, top + k.r0, 0);
#define RUN(kind) V(conv_pack_tiles)(&k, kind)
        OPERAND_SWITCH(kind, RUN)
#undef RUN
    }
}

/* ---- forward ---- */

/* Where a group of rows x 4 accumulators reads and writes.  A row is a row of the tile, or, of pictures
 * one pixel high, one of several neighbouring tiles. */
typedef struct V(window) {
    const float *slab;           /* line of the first pixel, tap 0, channel 0 */
    stored *y;                   /* the same pixel of output channel 0 */
    float *chains, *lines;       /* of this pixel and channel 0; of channel 0 (conv_job.h) */
    int64_t slab_step, y_step;   /* values from row to row */
    int64_t y_channel;           /* values from channel to channel */
    int32_t rows, columns;       /* that exist in y */
    int32_t valid_rows, valid_columns; /* that exist in the picture: those that are summed */
    int32_t first, last;         /* block of channels */
} V(window);

VEC_INLINE void V(conv_begin)(const mestk_conv_job *job, const V(window) *a, int32_t o, vec *sum, const int lines)
{
    vec start = (vec)(job->start ? job->start[o] : 0.0f);
    const float *chains = a->chains + (int64_t)o * 16 * LANES;
    UNROLL for (int i = 0; i < lines; i++) sum[i] = a->first ? start : vec_load(chains + i * LANES);
}

/* Stores one filter's lines, or puts them aside until the next block of channels. */
VEC_INLINE void V(conv_end)(const mestk_conv_job *job, const V(window) *a, int32_t o, vec *sum, const int lines)
{
    if (!a->last) {
        float *chains = a->chains + (int64_t)o * 16 * LANES;
        UNROLL for (int i = 0; i < lines; i++) vec_store(chains + i * LANES, sum[i]);
        return;
    }
    stored *y = a->y + o * a->y_channel;
    UNROLL for (int i = 0; i < lines; i++)
        if (i * LANES * (int)sizeof(stored) % 64 == 0)
            __builtin_prefetch(y + FILTERS_AHEAD * a->y_channel + i / 4 * a->y_step + i % 4 * LANES, 1);
    int32_t whole = a->valid_rows * 4 == lines && a->valid_columns == 4;
    if (whole) {
        UNROLL for (int i = 0; i < lines; i++) put_stored(y + i / 4 * a->y_step + i % 4 * LANES, sum[i]);
    } else {
        UNROLL for (int i = 0; i < lines; i++)
            if (i / 4 < a->rows && i % 4 < a->columns) put_stored(y + i / 4 * a->y_step + i % 4 * LANES, sum[i]);
    }
    if (!job->sums) return;
    float *line = a->lines + (int64_t)o * 2 * LANES;
    vec s = vec_load(line), q = vec_load(line + LANES);
    UNROLL for (int i = 0; i < lines; i++) {
        if (!whole && (i / 4 >= a->valid_rows || i % 4 >= a->valid_columns)) continue;
        vec v = round_stored(sum[i]);
        s += v;
        q = vec_fma(v, v, q);
    }
    vec_store(line, s);
    vec_store(line + LANES, q);
}

/* A pattern's kernels, tap by tap. */
VEC_INLINE void V(conv_taps)(const mestk_conv_job *job, const V(window) *a, int32_t first, int32_t count, vec *sum,
                             const int lines)
{
    const mestk_weights *w = job->w;
    const float *value = w->value + (int64_t)first * 4;
    ROLLED for (int32_t j = first; j < first + count; j++) {
        const mestk_word *offset = job->offset + w->column[j] * 9;
        ROLLED for (int t = 0; t < 4; t++) {
            const float *x = a->slab + offset[w->pattern_taps[w->pattern[j]][t]];
            vec weight = (vec)(*value++);
            UNROLL for (int i = 0; i < lines; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / 4 * a->slab_step + i % 4 * LANES), sum[i]);
        }
    }
}

VEC_INLINE void V(conv_kernels)(const mestk_conv_job *job, const V(window) *a, int32_t b, const int rows)
{
    const mestk_conv *g = job->g;
    const mestk_word *segment = job->segment + b;
    int64_t row = (int64_t)job->slab.columns * LANES; /* of the slab, at stride 1 */
    int32_t shares = rows == LEVEL_ROWS && g->stride_h == 1 && g->stride_w == 1 && a->slab_step == row;
    for (int32_t o = 0; o < job->w->rows; o++, segment += job->blocks + 1) {
        vec sum[16];
        V(conv_begin)(job, a, o, sum, rows * 4);
#if LEVEL_SCALAR
        shares = 0;
#else
        if (shares) PATTERN_RUN(job->w, job->offset, a->slab, row, segment[0], segment[1], (void *)sum);
#endif
        if (!shares) V(conv_taps)(job, a, segment[0], segment[1] - segment[0], sum, rows * 4);
        V(conv_end)(job, a, o, sum, rows * 4);
    }
}

/* `filters` on one row of a window: every line of x is loaded once for all of them. */
VEC_INLINE void V(conv_shared_line)(const mestk_conv_job *job, const V(window) *a, int32_t o, conv_list w,
                                    const int filters, const int dense)
{
    vec sum[4][4];
    UNROLL for (int k = 0; k < filters; k++) V(conv_begin)(job, a, o + k, sum[k], 4);
    ROLLED for (int32_t j = 0; j < w.count; j++, w.value += w.step) {
        const float *x = a->slab + w.offset[dense ? j : w.column[j]];
        UNROLL for (int i = 0; i < 4; i++) {
            vec v = vec_load(x + i * LANES);
            UNROLL for (int k = 0; k < filters; k++) sum[k][i] = vec_fma((vec)(w.value[k * w.filter]), v, sum[k][i]);
        }
    }
    UNROLL for (int k = 0; k < filters; k++) V(conv_end)(job, a, o + k, sum[k], 4);
}

/* Filters o .. o + n - 1 on every row of a window. */
VEC_INLINE void V(conv_shared)(const mestk_conv_job *job, const V(window) *a, int32_t o, int32_t n, conv_list w,
                               const int dense)
{
    for (int32_t r = 0; r < a->rows; r++) {
        V(window) line = *a;
        conv_list at = w;
        line.slab += r * a->slab_step;
        line.y += r * a->y_step;
        line.chains += r * 4 * LANES;
        line.rows = 1;
        line.valid_rows = r < a->valid_rows;
        int32_t i = 0;
        for (; i + LEVEL_ROWS <= n; i += LEVEL_ROWS, at.value += LEVEL_ROWS * w.filter)
            V(conv_shared_line)(job, &line, o + i, at, LEVEL_ROWS, dense);
        for (; i < n; i++, at.value += w.filter) V(conv_shared_line)(job, &line, o + i, at, 1, dense);
    }
}

static void V(conv_blocks)(const mestk_conv_job *job, const V(window) *a, int32_t b)
{
    const mestk_weights *w = job->w;
    for (int32_t o = 0, r = 0; o < w->rows; o += w->group, r++)
        V(conv_shared)(job, a, o, mestk_min(w->group, w->rows - o), mestk_conv_list(job, r, b, w->group), 0);
}

static void V(conv_dense)(const mestk_conv_job *job, const V(window) *a, int32_t b)
{
    int32_t filters = job->w->rows;
    for (int32_t o = 0; o < filters; o += LEVEL_ROWS)
        V(conv_shared)(job, a, o, mestk_min(LEVEL_ROWS, filters - o), mestk_conv_dense_list(job, o, b), 1);
}

/* One channel block of every filter on one window. */
VEC_INLINE void V(conv_filters)(const mestk_conv_job *job, const V(window) *a, int32_t b, const int rows)
{
    const mestk_weights *w = job->w;
    if (w->form == MESTK_FORM_PATTERN) {
        V(conv_kernels)(job, a, b, rows);
        return;
    }
    int64_t step = a->slab_step;
    int32_t filters = w->rows;
    for (int32_t o = 0; o < filters; o++) {
        const conv_list list = mestk_conv_list(job, o, b, 1);
        vec sum[16];
        V(conv_begin)(job, a, o, sum, rows * 4);
        ROLLED for (int32_t j = 0; j < list.count; j++) {
            const float *x = a->slab + list.offset[list.column[j]];
            vec weight = (vec)(list.value[j]);
            UNROLL for (int i = 0; i < rows * 4; i++)
                sum[i] = vec_fma(weight, vec_load(x + i / 4 * step + i % 4 * LANES), sum[i]);
        }
        V(conv_end)(job, a, o, sum, rows * 4);
    }
}

static void V(conv_window)(const mestk_conv_job *job, V(window) a, int32_t b, int32_t rows)
{
    a.first = b == 0;
    a.last = b + 1 == job->blocks;
    for (int32_t h = 0; h < LANES; h += WIDTH, a.slab += WIDTH, a.y += WIDTH, a.chains += WIDTH, a.lines += WIDTH) {
        if (!job->w->row_start) {
            V(conv_dense)(job, &a, b);
            continue;
        }
        if (job->w->form == MESTK_FORM_BLOCK) {
            V(conv_blocks)(job, &a, b);
            continue;
        }
#if LEVEL_ROWS >= 4
        if (rows > 2) {
            V(conv_filters)(job, &a, b, 4);
            continue;
        }
#endif
        if (rows > 1) V(conv_filters)(job, &a, b, 2);
        else V(conv_filters)(job, &a, b, 1);
    }
}

static void V(conv_forward)(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    mestk_shape out = g->out;
    int32_t th = mestk_tile_h(out), tw = mestk_tile_w(out), ty = mestk_tiles_y(out), tx = mestk_tiles_x(out);
    int32_t block = task / ty, y0 = task % ty * th, valid = mestk_min(th, out.height - y0);
    int64_t row_floats = (int64_t)s->phases * s->columns * LANES, y_channel = (int64_t)th * tw * LANES;
    float *slab = job->slabs + worker * s->floats, *chains = job->chains + worker * job->chain_floats;
    float *lines = job->lines + worker * job->line_floats;
    stored *y = (stored *)job->y + mestk_line(out, block, 0, y0, 0);
    if (job->sums) memset(lines, 0, (size_t)out.channels * 2 * LANES * sizeof(float));
    V(conv_pack)(s, block, y0 * g->stride_h - g->pad_h, g->pad_w, job->x, slab);
    /* One row high: tiles side by side fill the accumulators. */
    int32_t beside = th == 1 ? mestk_min(LEVEL_ROWS, tx) : 1;
    if (beside == 3) beside = 2;
    for (int32_t t = 0, n; t < tx; t += n) {
        n = t + beside <= tx ? beside : 1;
        if (n > 1 && (t + n) * 4 > out.width) n = 1; /* the tile at the edge has columns that do not count */
        V(window) a = {.slab = slab + (int64_t)t * 4 * LANES, .y = y + t * y_channel * out.channels, .lines = lines,
                       .y_channel = y_channel, .columns = tw, .valid_columns = mestk_min(tw, out.width - t * tw)};
        for (int32_t b = 0; b < job->blocks; b++) {
            if (n > 1) {
                a.chains = chains;
                a.slab_step = 4 * LANES;
                a.y_step = y_channel * out.channels;
                a.rows = a.valid_rows = n;
                V(conv_window)(job, a, b, n);
                continue;
            }
            for (int32_t r = 0, rows; r < th; r += rows) {
                V(window) row = a;
                rows = mestk_min(LEVEL_ROWS, th - r);
                row.slab += r * g->stride_h * row_floats;
                row.y += (int64_t)r * tw * LANES;
                row.chains = chains + r * 4 * LANES;
                row.slab_step = g->stride_h * row_floats;
                row.y_step = (int64_t)tw * LANES;
                row.rows = rows;
                row.valid_rows = mestk_max(0, mestk_min(rows, valid - r));
                V(conv_window)(job, row, b, rows);
            }
        }
    }
    for (int32_t o = 0; job->sums && o < out.channels; o++) {
        vec sum[PARTS], squares[PARTS];
        for (int h = 0; h < PARTS; h++) {
            sum[h] = vec_load(lines + o * 2 * LANES + h * WIDTH);
            squares[h] = vec_load(lines + (o * 2 + 1) * LANES + h * WIDTH);
        }
        V(reduce_samples)(sum, squares, mestk_max(0, mestk_min(LANES, job->count - block * LANES)),
                          job->sums + ((int64_t)task * out.channels + o) * 2);
    }
}

/* ---- backward ---- */

/* One unit: rows x 4 pixels of one class, in one strip. */
typedef struct V(unit) {
    const float *slab;    /* line of the first pixel, last taps of the class */
    float *chains, *lines; /* of channel 0 (conv_job.h) */
    int64_t slab_row;     /* floats from row to row */
    int64_t base;         /* values before the picture's channel 0 tile */
    int64_t at[8];        /* values from there to the pixel; < 0: no such pixel */
    int32_t inside[8];    /* a pixel of the picture, not padding */
    int32_t section;      /* segment of a channel */
    int32_t whole;        /* all pixels inside */
    int32_t first, last;  /* block of output channels */
} V(unit);

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
                                 float *lines, const int pixels)
{
    const mestk_gradient *to = job->gradient;
    stored *dx = (stored *)to->dx + at;
    UNROLL for (int p = 0; p < pixels; p++) {
        int32_t inside = u->whole || u->inside[p];
        if (to->accumulate && inside) chain[p] += get_stored(dx + u->at[p]);
        if (to->masked) chain[p] = vec_where(x[p] > vec_zero(), chain[p]);
        if (!inside) chain[p] = vec_zero();
        if (u->whole || u->at[p] >= 0) put_stored(dx + u->at[p], chain[p]);
    }
    if (!to->normed[0]) return;
    vec sum = vec_load(lines);
    UNROLL for (int p = 0; p < pixels; p++) {
        chain[p] = round_stored(chain[p]);
        if (u->whole || u->inside[p]) sum += chain[p];
    }
    vec_store(lines, sum);
    for (int n = 0; n < 2; n++) {
        if (!to->normed[n]) break;
        const stored *normed = (const stored *)to->normed[n] + at;
        vec dot = vec_load(lines + (n + 1) * LANES);
        UNROLL for (int p = 0; p < pixels; p++)
            if (u->whole || u->inside[p]) dot = vec_fma(chain[p], get_stored(normed + u->at[p]), dot);
        vec_store(lines + (n + 1) * LANES, dot);
    }
}

/* What a channel to come reads. */
VEC_INLINE void V(conv_prefetch)(const mestk_conv_job *job, const V(unit) *u, int64_t at, const int pixels)
{
    const mestk_gradient *to = job->gradient;
    const stored *x = (const stored *)job->x->x + at, *dx = to->dx ? (const stored *)to->dx + at : NULL;
    const stored *r = to->normed[0] ? (const stored *)to->normed[0] + at : NULL;
    UNROLL for (int p = 0; p < pixels; p++) {
        if ((p * LANES * (int)sizeof(stored)) % 64) continue;
        __builtin_prefetch(x + u->at[p]);
        if (u->last && to->normed[0]) __builtin_prefetch(r + u->at[p]);
        if (u->last && to->dx) __builtin_prefetch(dx + u->at[p], 1);
    }
}

/* One block of output channels and every input channel on one unit; at: of the lanes in work. */
VEC_INLINE void V(conv_channels)(const mestk_conv_job *job, const V(unit) *u, int64_t at, float *partial,
                                 const int rows, const int need_dx)
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
        V(conv_prefetch)(job, u, at + CHANNELS_AHEAD * channel, pixels);
#define RUN(kind)                                                                                               \
    UNROLL for (int p = 0; p < pixels; p++)                                                                     \
        x[p] = u->whole || u->inside[p] ? V(operand_value)(&term, at + u->at[p], kind) : vec_zero()
        OPERAND_SWITCH(term.kind, RUN)
#undef RUN
        UNROLL for (int p = 0; p < pixels; p++)
            if (need_dx) chain[p] = u->first ? vec_zero() : vec_load(kept + p * LANES);
        ROLLED for (; e + 4 <= end; e += 4)
            V(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, pixels, 4, need_dx);
        ROLLED for (; e < end; e++)
            V(conv_entries)(u, job->offset + e, job->weight + e, partial + e, x, chain, pixels, 1, need_dx);
        if (!need_dx) continue;
        if (u->last) V(conv_store_dx)(job, u, at, x, chain, u->lines + (int64_t)c * 3 * LANES, pixels);
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
            if (rows == 2 && dx) V(conv_channels)(job, &u, u.base + h, partial, 2, 1);
            else if (rows == 2) V(conv_channels)(job, &u, u.base + h, partial, 2, 0);
            else if (dx) V(conv_channels)(job, &u, u.base + h, partial, 1, 1);
            else V(conv_channels)(job, &u, u.base + h, partial, 1, 0);
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
    V(conv_pack)(s, block, top, -left, job->dy, slab);
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
                                 .slab_row = (int64_t)s->columns * LANES, .whole = 1};
                    for (int32_t p = 0; p < rows * 4; p++) {
                        int32_t qy = y + p / 4 * sh, qx = x + p % 4 * sw;
                        u.at[p] = qx < width ? mestk_line(in, block, 0, qy, qx) - base : -1;
                        u.inside[p] = qy < in.height && qx < in.width;
                        u.whole &= u.inside[p];
                    }
                    V(conv_unit)(job, &u, a * sw + b, rows, partial);
                }
            }
        }
    }
    if (sums) V(conv_sum_strip)(job, task, lines);
}
#undef PATTERN_RUN
