/* SPDX-License-Identifier: Apache-2.0 */
/* What all kernel tests share: random data, checks, the ways of running, tensors and weights. */
#ifndef KERNELS_HARNESS_H
#define KERNELS_HARNESS_H
#include <CMestKernels.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers ---- */

static int passed, failed;
static uint64_t seed_now, state;

static uint32_t random_u32(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}
static float uniform(void) { return (float)random_u32() / 2147483648.0f - 1.0f; }
static int below(int n) { return (int)(random_u32() % (uint32_t)n); }

static void *get(int64_t bytes)
{
    void *p = NULL; /* exact size: the sanitizer sees one float too many */
    if (posix_memalign(&p, 64, bytes > 0 ? (size_t)bytes : 1)) abort();
    return p;
}
static float *floats(int64_t n) { return get(n * 4); }
static float *random_floats(int64_t n)
{
    float *p = floats(n);
    for (int64_t i = 0; i < n; i++) p[i] = uniform();
    return p;
}
static float *copy_of(const float *p, int64_t n) { return memcpy(floats(n), p, (size_t)n * 4); }

static void check(int ok, const char *what, const char *where)
{
    if (ok) passed++;
    else failed++, printf("FAILED %s: %s, seed %llu\n", what, where, (unsigned long long)seed_now);
}

/* FNV-1a over the bits of the reference's results: equal for every target, compiler flag and level. */
static uint64_t fingerprint = 14695981039346656037u;
static void mark(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        fingerprint = (fingerprint ^ bits) * 1099511628211u;
    }
}

/* What storing adds: bf16 has 8 digits. */
static double step_of(int format) { return format == MESTK_BF16 ? 0x1p-8 : 0; }

/* Largest error relative to the size of the terms that were added; `step`: of the value itself. */
static int near_stored(const double *want, const double *size, const float *got, int64_t n, double step)
{
    for (int64_t i = 0; i < n; i++) {
        double bound = 4e-6 * (size ? size[i] : fabs(want[i])) + 1e-6;
        if (!(fabs((double)got[i] - want[i]) <= bound + step * (fabs(want[i]) + bound))) return 0;
    }
    return 1;
}
static int near(const double *want, const double *size, const float *got, int64_t n)
{
    return near_stored(want, size, got, n, 0);
}
static int same(const float *a, const float *b, int64_t n) { return memcmp(a, b, (size_t)n * 4) == 0; }
static int same_sums(const double *a, const double *b, int64_t n) { return memcmp(a, b, (size_t)n * 8) == 0; }

/* Scratch of exactly so many floats, of NaN; nothing behind them may be touched.  The sanitizer sees that
 * better when there is nothing behind them. */
#if __has_feature(address_sanitizer)
enum { GUARD = 0 };
#else
enum { GUARD = 64 };
#endif
static float *new_scratch(int64_t n)
{
    float *p = floats(n + GUARD);
    memset(p, 0xff, (size_t)(n + GUARD) * 4);
    return p;
}
/* Frees it; 0 when something was written behind its end. */
static int scratch_kept(float *p, int64_t n)
{
    int ok = 1;
    for (int64_t i = 0; i < GUARD * 4; i++) ok &= ((uint8_t *)(p + n))[i] == 0xff;
    free(p);
    return ok;
}

static void backwards(uint32_t count, mestk_body body, void *argument, void *user)
{
    for (uint32_t i = count; i-- > 0;) body(argument, i, i % (uint32_t) * (int32_t *)user);
}

/* The ways of running that must agree: [0] is the reference. */
static mestk_context way[16];
static char way_name[16][40];
static int ways;

static void list_ways(void)
{
    static int32_t three = 3;
    for (int32_t level = MESTK_REFERENCE; level <= 8; level++) {
        if (!mestk_has_level(level)) continue;
        for (int32_t threads = 1; threads <= 3; threads++) {
            way[ways] = (mestk_context){level, threads, NULL, NULL};
            snprintf(way_name[ways++], 40, "level %d, %d threads", level, threads);
        }
        way[ways] = (mestk_context){level, 3, backwards, &three};
        snprintf(way_name[ways++], 40, "level %d, parallel_for", level);
    }
}
/* Each level alone, and one of its other ways by turns: all of them are too many for the slow cases. */
static int takes_turn(int i, uint64_t turn) { return i % 4 == 0 || i % 4 == 1 + (int)((turn + (uint64_t)(i / 4)) % 3); }

/* ---- stored values, written down once more ---- */

static float round_to(int format, float v)
{
    uint32_t bits;
    if (format != MESTK_BF16) return v;
    memcpy(&bits, &v, 4);
    bits = (bits + 0x8000u) & 0xffff0000u;
    memcpy(&v, &bits, 4);
    return v;
}
static float value_of(mestk_shape s, const void *x, int64_t i)
{
    if (s.format != MESTK_BF16) return ((const float *)x)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)x)[i] << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}
static void put_value(mestk_shape s, void *x, int64_t i, float v)
{
    uint32_t bits;
    v = round_to(s.format, v);
    memcpy(&bits, &v, 4);
    if (s.format == MESTK_BF16) ((uint16_t *)x)[i] = (uint16_t)(bits >> 16);
    else ((float *)x)[i] = v;
}

/* ---- tensors: double [sample][channel][y][x] <-> compute layout ---- */

static int64_t plain_size(mestk_shape s, int count) { return (int64_t)count * s.channels * s.height * s.width; }

/* Where the next value of [sample][channel][y][x] lies. */
#define EACH_VALUE(s, count, at)                                                                               \
    for (int n_ = 0; n_ < (count); n_++)                                                                       \
        for (int c_ = 0; c_ < (s).channels; c_++)                                                              \
            for (int y_ = 0; y_ < (s).height; y_++)                                                            \
                for (int64_t x_ = 0, at; x_ < (s).width                                                        \
                     && (at = mestk_line(s, n_ / (s).lanes, c_, y_, (int)x_) + n_ % (s).lanes, 1); x_++)

static void *new_tensor(mestk_shape s)
{
    return memset(get(mestk_bytes(s)), 0xff, (size_t)mestk_bytes(s)); /* NaN: whatever is not written shows */
}
static void *tensor_copy(mestk_shape s, const void *x) { return memcpy(get(mestk_bytes(s)), x, (size_t)mestk_bytes(s)); }

static double *plain(mestk_shape s, const void *x, int count)
{
    double *out = get(plain_size(s, count) * 8), *to = out;
    EACH_VALUE(s, count, at) *to++ = value_of(s, x, at);
    return out;
}
static float *plain_floats(mestk_shape s, const void *x, int count)
{
    float *out = floats(plain_size(s, count)), *to = out;
    EACH_VALUE(s, count, at) *to++ = value_of(s, x, at);
    return out;
}
static int same_tensor(mestk_shape s, const void *a, const void *b) { return memcmp(a, b, (size_t)mestk_bytes(s)) == 0; }
/* The same but for what padding holds. */
static int same_values(mestk_shape s, const void *a, const void *b, int count)
{
    int ok = 1;
    EACH_VALUE(s, count, at) ok &= s.format == MESTK_BF16 ? ((const uint16_t *)a)[at] == ((const uint16_t *)b)[at]
                                                          : memcmp((const float *)a + at, (const float *)b + at, 4) == 0;
    return ok;
}

/* Marks what is no padding. */
static uint8_t *valid_map(mestk_shape s, int count)
{
    uint8_t *v = memset(get(mestk_values(s)), 0, (size_t)mestk_values(s));
    EACH_VALUE(s, count, at) v[at] = 1;
    return v;
}
/* An activation: garbage in its padding.  A gradient: +0 there. */
static void *random_tensor(mestk_shape s, int count, int gradient)
{
    uint8_t *v = valid_map(s, count);
    void *x = get(mestk_bytes(s));
    for (int64_t i = 0; i < mestk_values(s); i++)
        put_value(s, x, i, v[i] ? uniform() : gradient ? 0.0f : 100.0f * uniform());
    free(v);
    return x;
}
static int padding_is_zero(mestk_shape s, int count, const void *x)
{
    uint8_t *v = valid_map(s, count);
    int ok = 1;
    for (int64_t i = 0; i < mestk_values(s); i++)
        if (!v[i] && (s.format == MESTK_BF16 ? ((const uint16_t *)x)[i] : ((const uint32_t *)x)[i])) ok = 0;
    free(v);
    return ok;
}
/* Padding pixels 0, padding lanes as the last sample. */
static int padding_repeats(mestk_shape s, int count, const void *x)
{
    int last = (count - 1) / s.lanes, ok = 1;
    for (int b = 0; b < s.blocks; b++)
        for (int c = 0; c < s.channels; c++)
            for (int y = 0; y < mestk_tiles_y(s) * mestk_tile_h(s); y++)
                for (int p = 0; p < mestk_tiles_x(s) * mestk_tile_w(s); p++)
                    for (int l = 0; l < s.lanes; l++) {
                        float value = value_of(s, x, mestk_line(s, b, c, y, p) + l);
                        if (y >= s.height || p >= s.width) ok &= value == 0;
                        else if (b * s.lanes + l >= count)
                            ok &= value == value_of(s, x, mestk_line(s, last, c, y, p) + (count - 1) % s.lanes);
                    }
    return ok;
}
static int all_finite(mestk_shape s, const void *x)
{
    for (int64_t i = 0; i < mestk_values(s); i++)
        if (!isfinite(value_of(s, x, i))) return 0;
    return 1;
}

/* ---- operands ---- */

enum { OPERANDS = 12 }; /* a x + b or x; then no r, + r, + c r; then relu or not */

typedef struct random_operand {
    mestk_operand v;
    void *owned[5];
} random_operand;

static random_operand operand_of_kind(mestk_shape s, int count, int kind, int gradient)
{
    random_operand o = {0};
    o.v.x = o.owned[0] = random_tensor(s, count, gradient);
    if (kind % 2) {
        o.v.a = o.owned[1] = random_floats(s.channels);
        o.v.b = o.owned[2] = random_floats(s.channels);
    }
    if (kind / 2 % 3) o.v.r = o.owned[3] = random_tensor(s, count, 0);
    if (kind / 2 % 3 == 2) o.v.c = o.owned[4] = random_floats(s.channels);
    o.v.relu = kind / 6;
    return o;
}
static void free_operand(random_operand *o)
{
    for (int i = 0; i < 5; i++) free(o->owned[i]);
}
/* operand.h, with libm's fma. */
static float operand_at(const mestk_operand *o, mestk_shape s, int channel, int64_t at)
{
    float v = value_of(s, o->x, at);
    if (o->a) v = fmaf(o->a[channel], v, o->b[channel]);
    if (o->r) v = o->c ? fmaf(o->c[channel], value_of(s, o->r, at), v) : v + value_of(s, o->r, at);
    return o->relu && v <= 0 ? 0.0f : v;
}
static double *plain_operand(mestk_shape s, const mestk_operand *o, int count)
{
    double *out = get(plain_size(s, count) * 8), *to = out;
    EACH_VALUE(s, count, at) *to++ = operand_at(o, s, c_, at);
    return out;
}

/* ---- sums per strip and channel ---- */

static int64_t sums_size(mestk_shape s) { return (int64_t)mestk_strips(s) * s.channels * 2; }
static double *new_sums(mestk_shape s) { return memset(get(sums_size(s) * 8), 0xff, (size_t)sums_size(s) * 8); }

/* sums are those of x - pivot and of its product with other (- pivot): by definition. */
static int sums_are(mestk_shape s, int count, const double *sums, const void *x, const void *other, const float *pivot)
{
    double *want = get(sums_size(s) * 8), *size = get(sums_size(s) * 8);
    int ok = 1;
    for (int64_t i = 0; i < sums_size(s); i++) want[i] = size[i] = 0;
    EACH_VALUE(s, count, at) {
        int strip = n_ / s.lanes * mestk_tiles_y(s) + y_ / mestk_tile_h(s);
        double *to = want + ((int64_t)strip * s.channels + c_) * 2, *to_size = size + (to - want);
        double p = pivot ? (double)pivot[c_] : 0, a = value_of(s, x, at) - p, b = value_of(s, other, at) - p;
        to[0] += a, to_size[0] += fabs(a);
        to[1] += a * b, to_size[1] += fabs(a * b);
    }
    for (int64_t i = 0; i < sums_size(s); i++) ok &= fabs(sums[i] - want[i]) <= 1e-5 * size[i] + 1e-6;
    free(want), free(size);
    return ok;
}

/* ---- weights ---- */

typedef struct matrix {
    mestk_weights w;
    int64_t count;
    void *owned[7];
} matrix;

/* density 2: dense without an index; above 1 but not 2: full density with an index; below 0: one connection. */
static matrix random_matrix(int rows, int channels, int taps, double density)
{
    matrix m = {{.rows = rows, .channels = channels, .taps = taps, .group = 1}, 0, {0}};
    int columns = channels * taps, most = rows * columns;
    if (density == 2) {
        m.count = most;
    } else {
        uint32_t *row_start = get((rows + 1) * 4), *channel_start = get((channels + 1) * 4), *position = get(most * 4);
        uint16_t *column = get(most * 2), *key = get(most * 2);
        int empty_row = rows > 2 ? below(rows) : -1, empty_channel = channels > 2 ? below(channels) : -1;
        int only = below(most);
        row_start[0] = 0;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < columns; c++) {
                if (density < 0 && r * columns + c == only) column[m.count++] = (uint16_t)c;
                int drop = density < 1 && (r == empty_row || c / taps == empty_channel);
                if (!drop && (double)random_u32() / 4294967296.0 < density) column[m.count++] = (uint16_t)c;
            }
            row_start[r + 1] = (uint32_t)m.count;
        }
        mestk_index_by_channel(rows, channels, taps, row_start, column, channel_start, key, position);
        m.w.row_start = m.owned[1] = row_start, m.w.column = m.owned[2] = column;
        m.w.channel_start = m.owned[3] = channel_start, m.w.key = m.owned[4] = key;
        m.w.position = m.owned[5] = position;
        m.w.form = MESTK_FORM_SINGLE;
    }
    m.w.value = m.owned[0] = random_floats(m.count);
    return m;
}
/* Blocks of `group` rows; the values of rows that the last one lacks are 0. */
static matrix random_blocks(int rows, int channels, int taps, int group, double density)
{
    matrix m = random_matrix((rows + group - 1) / group, channels, taps, density);
    m.count *= group;
    m.w.rows = rows, m.w.form = MESTK_FORM_BLOCK, m.w.group = group;
    free(m.owned[0]);
    float *value = random_floats(m.count);
    for (int64_t j = m.w.row_start[rows / group] * group; rows % group && j < m.count; j++)
        if (j % group >= rows % group) value[j] = 0;
    m.w.value = m.owned[0] = value;
    return m;
}
/* Runs of `group` channels; the values of channels that the last one lacks are 0. */
static matrix random_runs(int rows, int channels, int taps, int group, double density)
{
    matrix m = random_matrix(rows, (channels + group - 1) / group, taps, density);
    m.count *= group;
    m.w.channels = channels, m.w.form = MESTK_FORM_RUN, m.w.group = group;
    free(m.owned[0]);
    float *value = random_floats(m.count);
    for (int64_t j = 0; j < m.count; j++)
        if (m.w.column[j / group] / taps * group + j % group >= channels) value[j] = 0;
    m.w.value = m.owned[0] = value;
    return m;
}
/* 3 x 3 kernels with 4 taps. */
static matrix random_patterns(int rows, int channels, int code8, double density)
{
    matrix m = random_matrix(rows, channels, 1, density);
    uint8_t *pattern = get(m.count);
    for (int64_t j = 0; j < m.count; j++) pattern[j] = (uint8_t)below(8);
    m.count *= 4;
    free(m.owned[0]);
    m.w.taps = 9, m.w.form = MESTK_FORM_PATTERN, m.w.pattern = m.owned[6] = pattern;
    m.w.pattern_taps = mestk_patterns(code8);
    m.w.value = m.owned[0] = random_floats(m.count);
    return m;
}
static void free_matrix(matrix *m)
{
    for (int i = 0; i < 7; i++) free(m->owned[i]);
}
/* Where value j belongs; 0: to a row that the last block lacks, or a channel that the last run does. */
static int connection(const mestk_weights *w, int64_t j, int *row, int *channel, int *tap)
{
    int columns = w->channels * w->taps, column;
    if (w->form == MESTK_FORM_PATTERN) {
        *row = 0;
        while (w->row_start[*row + 1] <= j / 4) ++*row;
        column = w->column[j / 4] * 9 + w->pattern_taps[w->pattern[j / 4]][j % 4];
    } else if (w->row_start) {
        int high = mestk_unit_rows(w), wide = mestk_unit_channels(w);
        *row = 0;
        while (w->row_start[*row + 1] <= j / w->group) ++*row;
        *row = *row * high + (int)(j % high);
        column = w->column[j / w->group];
        column += (column / w->taps * (wide - 1) + (int)(j % wide)) * w->taps;
    } else {
        *row = (int)(j / columns);
        column = (int)(j % columns);
    }
    *channel = column / w->taps;
    *tap = column % w->taps;
    return *row < w->rows && *channel < w->channels;
}

/* The connections of m as single weights; where[j]: place of connection j among the values of m. */
static matrix as_single(const matrix *m, int64_t *where)
{
    const mestk_weights *w = &m->w;
    int columns = w->channels * w->taps, most = w->rows * columns;
    matrix s = {{.rows = w->rows, .channels = w->channels, .taps = w->taps, .group = 1, .form = MESTK_FORM_SINGLE}, 0, {0}};
    int64_t *at = get(most * 8);
    for (int i = 0; i < most; i++) at[i] = -1;
    for (int64_t j = 0; j < m->count; j++) {
        int r, c, tap;
        if (connection(w, j, &r, &c, &tap)) at[r * columns + c * w->taps + tap] = j;
    }
    uint32_t *row_start = get((w->rows + 1) * 4), *channel_start = get((w->channels + 1) * 4), *position = get(most * 4);
    uint16_t *column = get(most * 2), *key = get(most * 2);
    float *value = floats(most);
    for (int r = 0; r < w->rows; r++) {
        row_start[r] = (uint32_t)s.count;
        for (int c = 0; c < columns; c++) {
            if (at[r * columns + c] < 0) continue;
            where[s.count] = at[r * columns + c];
            column[s.count] = (uint16_t)c;
            value[s.count++] = w->value[at[r * columns + c]];
        }
    }
    row_start[w->rows] = (uint32_t)s.count;
    mestk_index_by_channel(w->rows, w->channels, w->taps, row_start, column, channel_start, key, position);
    s.w.value = s.owned[0] = value, s.w.row_start = s.owned[1] = row_start, s.w.column = s.owned[2] = column;
    s.w.channel_start = s.owned[3] = channel_start, s.w.key = s.owned[4] = key, s.w.position = s.owned[5] = position;
    free(at);
    return s;
}

/* ---- shapes for the rest ---- */

typedef struct shape_case {
    int lanes, count, channels, h, w;
} shape_case;
static const shape_case shapes[] = {
    {16, 32, 5, 8, 8}, {16, 19, 3, 7, 9}, {16, 2, 4, 1, 1},  {8, 8, 3, 4, 5}, {8, 11, 6, 3, 3}, {8, 5, 2, 1, 17},
    {4, 4, 3, 6, 2},   {4, 7, 5, 5, 4},   {1, 1, 3, 10, 10}, {1, 3, 2, 1, 9}, {1, 2, 7, 3, 2},  {16, 64, 2, 16, 4},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };
static mestk_shape shape_of(shape_case t, int format)
{
    return (mestk_shape){(t.count + t.lanes - 1) / t.lanes, t.lanes, t.channels, t.h, t.w, format};
}
static void name_shape(char *name, const char *what, shape_case t, int format)
{
    snprintf(name, 200, "%s %s lanes %d count %d channels %d %dx%d", what, format == MESTK_BF16 ? "bf16" : "f32", t.lanes,
             t.count, t.channels, t.h, t.w);
}
#endif
