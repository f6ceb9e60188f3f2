/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slabs of one or four lanes, of one format.  A row of a tile is four values of one lane or 16 of four; a whole
 * tile of one lane is one line of 16 values.  Tiles of pictures less than four pixels wide, or one lane and high,
 * are no whole lines and go value by value.
 */
#if LANES != 16
#error lines are 16 values
#endif

enum { V(FEW_VALUES) = 64 }; /* of a tile, at most */

typedef float V(four) __attribute__((ext_vector_type(4), aligned(4)));

/* ---- a line of one lane <-> its four rows ---- */

VEC_INLINE void V(few_join)(const V(four) *row, vec *line)
{
#if WIDTH == 16
    typedef float eight __attribute__((ext_vector_type(8), aligned(4)));
    eight a = __builtin_shufflevector(row[0], row[1], 0, 1, 2, 3, 4, 5, 6, 7);
    eight b = __builtin_shufflevector(row[2], row[3], 0, 1, 2, 3, 4, 5, 6, 7);
    line[0] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif WIDTH == 8
    line[0] = __builtin_shufflevector(row[0], row[1], 0, 1, 2, 3, 4, 5, 6, 7);
    line[1] = __builtin_shufflevector(row[2], row[3], 0, 1, 2, 3, 4, 5, 6, 7);
#else
    UNROLL for (int h = 0; h < 4; h++) line[h] = row[h];
#endif
}

VEC_INLINE void V(few_part)(const vec *line, V(four) *row)
{
#if WIDTH == 16
    row[0] = line[0].lo.lo, row[1] = line[0].lo.hi, row[2] = line[0].hi.lo, row[3] = line[0].hi.hi;
#elif WIDTH == 8
    row[0] = line[0].lo, row[1] = line[0].hi, row[2] = line[1].lo, row[3] = line[1].hi;
#else
    UNROLL for (int h = 0; h < 4; h++) row[h] = line[h];
#endif
}

/* Values of a tile that lie in rows, `pitch` floats apart: four values of each of four, or 16 of one. */
VEC_INLINE void V(few_load)(const float *row, int64_t pitch, int32_t lanes, vec *line)
{
    if (lanes == 4) {
        UNROLL for (int h = 0; h < PARTS; h++) line[h] = vec_load(row + h * WIDTH);
    } else {
        V(four) part[4];
        UNROLL for (int r = 0; r < 4; r++) part[r] = *(const V(four) *)(row + r * pitch);
        V(few_join)(part, line);
    }
}

/* mestk_copy_line, without a call. */
VEC_INLINE void V(few_copy)(float *to, const float *from, int32_t lanes)
{
    if (lanes == 4) *(V(four) *)to = *(const V(four) *)from;
    else *to = *from;
}

/* ---- operands -> slab ---- */

/* One column of tiles: which of its values go where in a channel of the slab. */
typedef struct V(few_column) {
    int32_t n;           /* values of a tile */
    int32_t rows;        /* of a tile, that are wanted */
    int32_t from[4];     /* each row's first value in the tile */
    int64_t to[4];       /* and what it is in the slab */
    int32_t pixel[4];    /* each pixel's place in the row of the slab, < 0: none */
    int32_t inside[16];  /* of a line: -1 where it is a pixel of the picture, else 0 */
    int64_t channel;     /* floats of a channel of the slab */
} V(few_column);

/* Rows r0 .. r1 - 1 of the slab, which are those from `first` on of the tiles. */
VEC_INLINE void V(few_column_rows)(V(few_column) *k, const conv_slab *s, int32_t first, int32_t r0, int32_t r1)
{
    int32_t lanes = mestk_lanes(s->picture), tw = mestk_tile_w(s->picture);
    int64_t pitch = (int64_t)s->phases * s->columns * lanes;
    for (int32_t r = r0; r < r1; r++) {
        if (s->row_stride > 1 && r % s->row_stride >= s->row_phases) continue;
        k->from[k->rows] = (first + r - r0) * tw * lanes;
        k->to[k->rows++] = r * pitch;
    }
}

/* Its first pixel is at u = t * 4 + shift, picture column x at x + shift. */
VEC_INLINE void V(few_column_pixels)(V(few_column) *k, const conv_slab *s, int32_t t, int32_t shift)
{
    mestk_shape p = s->picture;
    int32_t columns = mestk_min(mestk_tile_w(p), p.width - t * 4), u = t * 4 + shift;
    int32_t column = u / s->stride, phase = u - column * s->stride;
    for (int32_t c = 0; c < 4; c++) {
        int32_t there = c < columns && phase < s->phases && column >= 0 && column < s->columns;
        k->pixel[c] = there ? (phase * s->columns + column) * mestk_lanes(p) : -1;
        if (++phase == s->stride) phase = 0, column++;
    }
    if (t > 0 && columns == 4) return; /* as of the tile before */
    for (int32_t i = 0; i < 16; i++) k->inside[i] = (mestk_lanes(p) == 4 ? i / 4 : i % 4) < columns ? -1 : 0;
}

/* Channels c0 .. c1 - 1, the first of which begins at `at`: a row of a tile is one run in the slab, from `to` on. */
VEC_INLINE void V(few_pack_runs)(V(few_column) k, mestk_operand from, int32_t c0, int32_t c1, int64_t at, float *to,
                                 const int32_t lanes, const int32_t kind)
{
    typedef int32_t four_int __attribute__((ext_vector_type(4)));
    typedef int32_t unaligned __attribute__((ext_vector_type(WIDTH), aligned(4)));
    four_int inside = {k.inside[0], k.inside[1], k.inside[2], k.inside[3]};
    vec_int mask[PARTS];
    UNROLL for (int h = 0; h < PARTS; h++) mask[h] = *(const unaligned *)(k.inside + h * WIDTH);
    if (lanes == 1 && k.rows == 4) {
        int64_t pitch = k.to[1] - k.to[0];
        for (to += k.to[0]; c0 < c1; c0++, at += 16, to += k.channel) {
            V(term) term = V(operand_term)(&from, c0);
            vec line[PARTS];
            V(four) row[4];
            UNROLL for (int h = 0; h < PARTS; h++)
                line[h] = vec_where(mask[h], V(operand_value)(&term, at + h * WIDTH, kind));
            V(few_part)(line, row);
            UNROLL for (int r = 0; r < 4; r++) *(V(four) *)(to + r * pitch) = row[r];
        }
        return;
    }
    for (int32_t i = 0; i < k.rows; i++) {
        float *row = to + k.to[i];
        int64_t value = at + k.from[i];
        for (int32_t c = c0; c < c1; c++, value += k.n, row += k.channel) {
            if (lanes == 1) {
                V_OF(term, 4) term = V_OF(operand_term, 4)(&from, c);
                *(V(four) *)row = (V(four))((four_int)V_OF(operand_value, 4)(&term, value, kind) & inside);
            } else {
                V(term) term = V(operand_term)(&from, c);
                UNROLL for (int h = 0; h < PARTS; h++)
                    vec_store(row + h * WIDTH, vec_where(mask[h], V(operand_value)(&term, value + h * WIDTH, kind)));
            }
        }
    }
}

/* The same of strided convolutions, whose columns and rows lie apart, and of tiles that are no whole lines. */
static void V(few_pack_pixels)(V(few_column) k, mestk_operand from, int32_t c0, int32_t c1, int64_t at, float *to,
                               const int32_t pixels, const int32_t lanes)
{
    for (; c0 < c1; c0++, at += k.n, to += k.channel) {
        V_OF(term, 4) term = V_OF(operand_term, 4)(&from, c0);
        for (int32_t i = 0; i < k.rows; i++) {
            float value[16], *row = to + k.to[i];
            int64_t first = at + k.from[i];
            if (pixels * lanes % 4 == 0)
                for (int32_t j = 0; j < pixels * lanes; j += 4)
                    *(V(four) *)(value + j) = V_OF(operand_value, 4)(&term, first + j, term.kind);
            else
                for (int32_t j = 0; j < pixels * lanes; j++)
                    value[j] = mestk_operand_value(&from, STORED_BF16 ? MESTK_BF16 : MESTK_F32, c0, first + j);
            UNROLL for (int j = 0; j < 4; j++)
                if (k.pixel[j] >= 0) V(few_copy)(row + k.pixel[j], value + j * lanes, lanes);
        }
    }
}

/* Channels c0 .. c1 - 1; `at` is where tile column 0 of channel c0 begins. */
VEC_INLINE void V(few_pack_tiles)(const conv_slab *s, const mestk_operand *from, int64_t at, int32_t first, int32_t r0,
                                  int32_t r1, int32_t shift, int32_t c0, int32_t c1, float *slab, const int32_t kind)
{
    mestk_shape p = s->picture;
    int32_t tiles = mestk_tiles_x(p), runs = s->stride == 1 && shift >= 0 && mestk_in_lines(p);
    V(few_column) k = {.n = mestk_tile_h(p) * mestk_tile_w(p) * mestk_lanes(p), .channel = s->channel};
    V(few_column_rows)(&k, s, first, r0, r1);
    for (int32_t t = 0; t < tiles; t++) {
        V(few_column_pixels)(&k, s, t, shift);
        if (!runs) V(few_pack_pixels)(k, *from, c0, c1, at, slab, mestk_tile_w(p), mestk_lanes(p));
        else if (mestk_lanes(p) == 4) V(few_pack_runs)(k, *from, c0, c1, at, slab + (t * 4 + shift) * 4, 4, kind);
        else V(few_pack_runs)(k, *from, c0, c1, at, slab + t * 4 + shift, 1, kind);
        at += (int64_t)p.channels * k.n;
    }
}

/* Without neighbours: a strip's tiles as they are in memory, +0 around the picture. */
static void V(few_pack_flat)(const conv_slab *s, int32_t strip, mestk_operand from, float *slab)
{
    mestk_shape p = s->picture;
    int32_t tx = mestk_tiles_x(p), n = mestk_tile_h(p) * 4 * mestk_lanes(p), kind = V(operand_term)(&from, 0).kind;
    int64_t at = (int64_t)strip * tx * p.channels * n;
    V(valid) valid[2];
    V(find_valid_of_strip)(p, strip, INT32_MAX, valid);
    for (int32_t t = 0; t < tx; t++, slab += n) {
        const V(valid) *which = valid + (t + 1 == tx);
        float *to = slab;
#define RUN(kind)                                                                                              \
    for (int32_t c = 0; c < p.channels; c++, at += n, to += s->channel) {                                      \
        V(term) term = V(operand_term)(&from, c);                                                              \
        for (int32_t i = 0; i < n; i += WIDTH)                                                                 \
            vec_store(to + i, V(keep_valid)(which, i, V(operand_value)(&term, at + i, kind)));                 \
    }
        OPERAND_SWITCH(kind, RUN)
#undef RUN
    }
}

/* Picture rows from `top` on into the slab, +0 around: channels c0 .. c1 - 1. */
static void V(few_pack)(const conv_slab *s, int32_t block, int32_t top, int32_t shift, const mestk_operand *from,
                        int32_t c0, int32_t c1, float *slab)
{
    mestk_shape p = s->picture;
    int32_t th = mestk_tile_h(p), last = mestk_min(s->rows, p.height - top), kind = V(operand_term)(from, c0).kind;
    memset(slab, 0, (size_t)(s->channel * (c1 - c0)) * sizeof(float));
    for (int32_t r0 = mestk_max(0, -top), r1; r0 < last; r0 = r1) {
        int32_t first = (top + r0) % th;
        r1 = mestk_min(last, r0 + th - first);
        int64_t at = mestk_line(p, block, c0, top + r0 - first, 0);
#define RUN(kind) V(few_pack_tiles)(s, from, at, first, r0, r1, shift, c0, c1, slab, kind)
        OPERAND_SWITCH(kind, RUN)
#undef RUN
    }
}
