/* SPDX-License-Identifier: Apache-2.0 */
/* What one or four lanes leave in rows of a strip becomes y or dx, of one format: see few_pack.h. */

/* Where values lie until they are stored: pixel (r, x) of channel c0, lane 0, at row r, column_of(x). */
typedef struct V(few_rows) {
    mestk_shape s;
    int32_t strip, c0, c1;   /* channels c0 .. c1 - 1 */
    int64_t channel, pitch;  /* floats from channel to channel, from row to row; 0: tiles lie as in memory */
    int32_t stride, columns; /* column u = x + shift of the picture is at phase u mod stride (conv_slab) */
    int32_t shift;
} V(few_rows);

/* Values of tile t, in the order in which a tile has them, from one channel's rows. */
VEC_INLINE void V(few_tile)(const V(few_rows) *k, const float *rows, int32_t t, float *value)
{
    int32_t th = mestk_tile_h(k->s), tw = mestk_tile_w(k->s), lanes = mestk_lanes(k->s);
    for (int32_t c = 0; c < tw; c++) {
        int32_t u = t * tw + c + k->shift, n = u / k->stride;
        const float *from = rows + ((int64_t)(u - n * k->stride) * k->columns + n) * lanes;
        for (int32_t r = 0; r < th; r++) V(few_copy)(value + (r * tw + c) * lanes, from + r * k->pitch, lanes);
    }
}

VEC_INLINE int32_t V(few_values)(const V(few_rows) *k) { return mestk_tile_h(k->s) * mestk_tile_w(k->s) * mestk_lanes(k->s); }

/* The value in memory with which tile t of channel c begins. */
VEC_INLINE int64_t V(few_at)(const V(few_rows) *k, int32_t t, int32_t c)
{
    return (((int64_t)k->strip * mestk_tiles_x(k->s) + t) * k->s.channels + c) * V(few_values)(k);
}

/* ---- y: stored, summed ---- */

VEC_INLINE void V(few_store_lines_y)(V(few_rows) k, const float *chains, stored *y, int32_t count, double *sums,
                                     const int32_t lanes)
{
    int32_t tx = mestk_tiles_x(k.s), flat = k.pitch == 0, lines = V(few_values)(&k) / 16;
    int64_t step = (int64_t)k.s.channels * lines * 16;
    V(valid) valid[2];
    if (sums) V(find_valid_of_strip)(k.s, k.strip, count, valid);
    for (int32_t c = k.c0; c < k.c1; c++, chains += k.channel) {
        stored *to = y + V(few_at)(&k, 0, c);
        vec sum[PARTS], squares[PARTS];
        V(zero_chains)(sum), V(zero_chains)(squares);
        for (int32_t t = 0; t < tx; t++, to += step) {
            for (int32_t i = 0; i < (lanes == 1 ? 1 : lines); i++) {
                vec line[PARTS];
                const float *from = chains + (t * lines + i) * 16;
                if (flat) UNROLL for (int h = 0; h < PARTS; h++) line[h] = vec_load(from + h * WIDTH);
                else V(few_load)(chains + i * k.pitch + t * 4 * lanes, k.pitch, lanes, line);
                UNROLL for (int h = 0; h < PARTS; h++) {
                    put_stored(to + i * 16 + h * WIDTH, line[h]);
                    if (!sums) continue;
                    vec v = V(keep_valid)(valid + (t + 1 == tx), i * 16 + h * WIDTH, round_stored(line[h]));
                    sum[h] += v;
                    squares[h] = vec_fma(v, v, squares[h]);
                }
            }
        }
        if (sums) V(reduce_sums)(sum, squares, sums + ((int64_t)k.strip * k.s.channels + c) * 2);
    }
}

/* The same of tiles that are no whole lines. */
static void V(few_store_small_y)(const V(few_rows) *k, const float *chains, void *y, int32_t count, double *sums)
{
    mestk_shape s = k->s;
    int32_t n = V(few_values)(k), tx = mestk_tiles_x(s), ty = mestk_tiles_y(s);
    int32_t lanes = mestk_max(0, mestk_min(s.lanes, count - k->strip / ty * s.lanes)); /* that are summed */
    for (int32_t c = k->c0; c < k->c1; c++, chains += k->channel) {
        for (int32_t t = 0; t < tx; t++) {
            float value[V(FEW_VALUES)];
            V(few_tile)(k, chains, t, value);
            mestk_write_line(y, s.format, V(few_at)(k, t, c), n, value);
        }
        if (sums) mestk_sum_strip_reference(s, k->strip, c, y, y, lanes, sums + ((int64_t)k->strip * s.channels + c) * 2);
    }
}

static void V(few_store_y)(const V(few_rows) *k, const float *chains, void *y, int32_t count, double *sums)
{
    if (!mestk_in_lines(k->s)) V(few_store_small_y)(k, chains, y, count, sums);
    else if (mestk_lanes(k->s) == 4) V(few_store_lines_y)(*k, chains, y, count, sums, 4);
    else if (sums) V(few_store_lines_y)(*k, chains, y, count, sums, 1);
    else V(few_store_lines_y)(*k, chains, y, count, NULL, 1);
}

/* ---- dx: the old one added, masked by x, stored, summed ---- */

VEC_INLINE void V(few_store_lines_dx)(V(few_rows) k, const float *chains, const float *x, mestk_gradient to,
                                      const int32_t lanes, const int32_t runs)
{
    mestk_shape s = k.s;
    int32_t tx = mestk_tiles_x(s), lines = lanes == 1 ? 1 : V(few_values)(&k) / 16;
    V(valid) valid[2];
    V(find_valid_of_strip)(s, k.strip, INT32_MAX, valid);
    for (int32_t c = k.c0; c < k.c1; c++, chains += k.channel, x += k.channel) {
        int64_t at = V(few_at)(&k, 0, c);
        vec sum[PARTS], dot[2][PARTS];
        V(zero_chains)(sum), V(zero_chains)(dot[0]), V(zero_chains)(dot[1]);
        for (int32_t t = 0; t < tx; t++, at += (int64_t)s.channels * lines * 16) {
            const V(valid) *which = valid + (t + 1 == tx);
            float value[V(FEW_VALUES)], x_value[V(FEW_VALUES)] = {0};
            if (!runs) V(few_tile)(&k, chains, t, value);
            if (!runs && to.masked) V(few_tile)(&k, x, t, x_value);
            for (int32_t i = 0; i < lines; i++) {
                vec line[PARTS], mask[PARTS];
                int64_t first = i * k.pitch + (t * 4 + k.shift) * lanes;
                if (runs) V(few_load)(chains + first, k.pitch, lanes, line);
                else UNROLL for (int h = 0; h < PARTS; h++) line[h] = vec_load(value + i * 16 + h * WIDTH);
                if (runs && to.masked) V(few_load)(x + first, k.pitch, lanes, mask);
                else UNROLL for (int h = 0; h < PARTS; h++) mask[h] = vec_load(x_value + i * 16 + h * WIDTH);
                UNROLL for (int h = 0; h < PARTS; h++) {
                    int32_t j = i * 16 + h * WIDTH;
                    stored *dx = (stored *)to.dx + at + j;
                    vec v = to.accumulate ? get_stored(dx) + line[h] : line[h];
                    if (to.masked) v = vec_where(mask[h] > vec_zero(), v);
                    v = V(keep_valid)(which, j, v);
                    put_stored(dx, v);
                    v = round_stored(v);
                    sum[h] += v;
                    UNROLL for (int b = 0; b < 2; b++)
                        if (to.normed[b])
                            dot[b][h] = vec_fma(v, get_stored((const stored *)to.normed[b] + at + j), dot[b][h]);
                }
            }
        }
        for (int b = 0; b < 2 && to.normed[b]; b++) {
            vec copy[PARTS];
            for (int h = 0; h < PARTS; h++) copy[h] = sum[h];
            V(reduce_sums)(copy, dot[b], to.sums[b] + ((int64_t)k.strip * s.channels + c) * 2);
        }
    }
}

/* The same of tiles that are no whole lines. */
static void V(few_store_small_dx)(const V(few_rows) *k, const float *chains, const float *x, const mestk_gradient *to)
{
    mestk_shape s = k->s;
    int32_t n = V(few_values)(k), tx = mestk_tiles_x(s);
    V(valid) valid[2];
    V(find_valid_of_strip)(s, k->strip, INT32_MAX, valid);
    for (int32_t c = k->c0; c < k->c1; c++, chains += k->channel, x += k->channel) {
        for (int32_t t = 0; t < tx; t++) {
            const V(valid) *which = valid + (t + 1 == tx);
            int64_t at = V(few_at)(k, t, c);
            float value[V(FEW_VALUES)], mask[V(FEW_VALUES)];
            V(few_tile)(k, chains, t, value);
            V(few_tile)(k, x, t, mask);
            for (int32_t i = 0; i < n; i++) {
                float v = to->accumulate ? mestk_get(to->dx, s.format, at + i) + value[i] : value[i];
                if ((to->masked && !(mask[i] > 0.0f)) || !(which->all || which->value[i])) v = 0.0f;
                mestk_put(to->dx, s.format, at + i, v);
            }
        }
        for (int b = 0; b < 2 && to->normed[b]; b++)
            mestk_sum_strip_reference(s, k->strip, c, to->dx, to->normed[b], s.lanes,
                                      to->sums[b] + ((int64_t)k->strip * s.channels + c) * 2);
    }
}

static void V(few_store_dx)(const V(few_rows) *k, const float *chains, const float *x, const mestk_gradient *to)
{
    if (!mestk_in_lines(k->s)) V(few_store_small_dx)(k, chains, x, to);
    else if (mestk_lanes(k->s) == 4) V(few_store_lines_dx)(*k, chains, x, *to, 4, k->stride == 1);
    else if (MESTK_MOST_LANES == 1) V(few_store_lines_dx)(*k, chains, x, *to, 1, k->stride == 1);
    else if (k->stride == 1) V(few_store_lines_dx)(*k, chains, x, *to, 1, 1);
    else V(few_store_lines_dx)(*k, chains, x, *to, 1, 0);
}
