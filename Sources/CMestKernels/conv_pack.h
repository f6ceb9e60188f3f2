/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution of 8 or 16 lanes (conv_lines.h): a strip of the picture is copied into the worker's slab (conv_job.h).
 * Rows of a slab are whole lines of 16 values.
 */

/* Pixels of columns u0 .. u1-1 of one slab row: what the operand is from `at` on. */
static void C(conv_pack_row)(const conv_slab *s, int32_t u0, int32_t u1, const C(term) *from, int64_t at, float *row)
{
    if (u0 >= u1) return;
    int32_t phase = u0 % s->stride, column = u0 / s->stride;
    ROLLED for (int32_t u = u0; u < u1; u++, at += SAMPLES) {
        if (phase < s->phases)
            C(operand_line)(from, at, from->kind, row + (phase * s->columns + column) * SAMPLES);
        if (++phase == s->stride) phase = 0, column++;
    }
}

VEC_INLINE void C(conv_pack_zeros)(float *to, int64_t pixels)
{
    ROLLED for (int64_t i = 0; i < pixels * SAMPLES; i += 8) *(octet *)(to + i) = (octet)(0.0f);
}

/* +0 in what lies around the picture, below the rows that are kept: it has columns u = begin .. end - 1 of the slab. */
static void C(conv_pack_border)(const conv_slab *s, int32_t top, int32_t kept, int32_t begin, int32_t end,
                                float *slab)
{
    int32_t columns = s->phases * s->columns;
    for (int32_t c = 0; c < s->picture.channels; c++) {
        float *row = slab + c * s->channel + kept * (int64_t)columns * SAMPLES;
        for (int32_t r = kept; r < s->rows; r++, row += (int64_t)columns * SAMPLES) {
            int32_t inside = top + r >= 0 && top + r < s->picture.height;
            if (!inside || s->stride > 1) {
                C(conv_pack_zeros)(row, columns);
            } else {
                C(conv_pack_zeros)(row, begin);
                C(conv_pack_zeros)(row + (int64_t)end * SAMPLES, columns - end);
            }
        }
    }
}

/* Of the strip before: its last rows are the first ones of this strip, which begins `step` rows below. */
static void C(conv_pack_keep)(const conv_slab *s, int32_t step, float *slab)
{
    int64_t row = (int64_t)s->phases * s->columns * SAMPLES, from = step * row, end = s->rows * row;
    for (int32_t c = 0; c < s->picture.channels; c++, slab += s->channel)
        for (int64_t i = from; i < end; i += LANES)
            UNROLL for (int h = 0; h < LANES; h += WIDTH) vec_store(slab + i - from + h, vec_load(slab + i + h));
}

/* What conv_pack goes through: rows r0 .. r1 of the slab, of one tile row of the picture. */
typedef struct C(pack) {
    const conv_slab *s;
    const mestk_operand *from;
    float *slab;
    int64_t at;          /* value of row r0, tile 0, channel 0 */
    int32_t r0, r1;
    int32_t shift, begin, end; /* picture column x is at u = x + shift, begin <= u < end */
} C(pack);

VEC_INLINE void C(conv_pack_tiles)(const C(pack) *k, const int32_t kind)
{
    const conv_slab *s = k->s;
    int32_t tw = mestk_tile_w(s->picture), tiles = mestk_tiles_x(s->picture);
    int32_t tile = mestk_tile_h(s->picture) * tw * SAMPLES;
    int64_t row_floats = (int64_t)s->phases * s->columns * SAMPLES, at = k->at;
    for (int32_t t = 0; t < tiles; t++) {
        int32_t u = t * tw + k->shift, u0 = mestk_max(u, k->begin), u1 = mestk_min(u + tw, k->end);
        int32_t whole = s->stride == 1 && u1 - u0 == 4;
        float *row = k->slab + k->r0 * row_floats + (int64_t)u0 * SAMPLES;
        for (int32_t c = 0; c < s->picture.channels; c++, at += tile, row += s->channel) {
            if (whole) {
                V(term) term = V(operand_term)(k->from, c);
                float *to = row;
                int64_t line = at;
                ROLLED for (int32_t r = k->r0; r < k->r1; r++, line += 4 * SAMPLES, to += row_floats) {
                    UNROLL for (int i = 0; i < 4 * SAMPLES; i += 64 / (int)sizeof(stored)) {
                        __builtin_prefetch(term.x + line + TILES_AHEAD * tile + i, 0, ONCE);
                        if (kind & V(SECOND)) __builtin_prefetch(term.r + line + TILES_AHEAD * tile + i, 0, ONCE);
                    }
                    UNROLL for (int i = 0; i < 4 * SAMPLES; i += WIDTH)
                        vec_store(to + i, V(operand_value)(&term, line + i, kind));
                }
                continue;
            }
            C(term) term = C(operand_term)(k->from, c);
            for (int32_t r = k->r0; r < k->r1; r++)
                if (r % s->row_stride < s->row_phases)
                    C(conv_pack_row)(s, u0, u1, &term, at + ((r - k->r0) * tw + u0 - u) * SAMPLES,
                                     k->slab + c * s->channel + r * row_floats);
        }
    }
}

/* Picture rows top .. top + rows - 1 of the operand into the slab, picture column x to u = x + shift.
 * step: rows from the strip to which the slab belongs to this one, or 0 if that is another picture. */
static void C(conv_pack)(const conv_slab *s, int32_t block, int32_t top, int32_t shift, const mestk_operand *from,
                         int32_t step, float *slab)
{
    int32_t kept = step > 0 && step < s->rows ? s->rows - step : 0;
    if (kept) C(conv_pack_keep)(s, step, slab);
    mestk_shape p = s->picture;
    int32_t th = mestk_tile_h(p), width = s->stride * s->columns;
    int32_t kind = V(operand_term)(from, 0).kind;
    C(pack) k = {.s = s, .from = from, .slab = slab, .shift = shift, .begin = mestk_min(mestk_max(0, shift), width)};
    k.end = mestk_max(k.begin, mestk_min(p.width + shift, width));
    C(conv_pack_border)(s, top, kept, k.begin, k.end, slab);
    int32_t last = mestk_min(s->rows, p.height - top);
    for (k.r0 = mestk_max(kept, -top); k.r0 < last; k.r0 = k.r1) {
        k.r1 = mestk_min(last, k.r0 + th - (top + k.r0) % th);
        k.at = mestk_line(p, block, 0, top + k.r0, 0);
#define RUN(kind) C(conv_pack_tiles)(&k, kind)
        OPERAND_SWITCH(kind, RUN)
#undef RUN
    }
}
