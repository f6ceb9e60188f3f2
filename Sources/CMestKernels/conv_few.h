/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution of one or four lanes (conv_rows.h): packing of slabs, and the epilogues, of one format.  Tiles
 * are gone through as lines of 16 values: four rows of a tile of one lane, one row of four lanes.  Tiles that
 * are no whole lines (of pictures less than four pixels wide or high) go value by value.
 */
#if LANES != 16
#error lines are 16 values
#endif

enum { V(FEW_VALUES) = 64 }; /* of a tile, at most */

/* ---- rows of a slab <-> lines of a tile ---- */

VEC_INLINE int32_t V(few_in_lines)(mestk_shape s) { return mestk_tile_w(s) == 4 && (mestk_tile_h(s) == 4 || s.lanes == 4); }

/* A line of a tile that lies in rows, `pitch` floats apart: four values of each of four, or 16 of one. */
VEC_INLINE void V(few_load)(const float *row, int64_t pitch, int32_t lanes, vec *line)
{
    if (lanes == 4) {
        UNROLL for (int h = 0; h < PARTS; h++) line[h] = vec_load(row + h * WIDTH);
        return;
    }
    typedef float four __attribute__((ext_vector_type(4), aligned(4)));
    float values[16];
    UNROLL for (int r = 0; r < 4; r++) *(four *)(values + 4 * r) = *(const four *)(row + r * pitch);
    UNROLL for (int h = 0; h < PARTS; h++) line[h] = vec_load(values + h * WIDTH);
}

/* Of a line of one lane, rows first .. first + rows - 1 only. */
VEC_INLINE void V(few_store)(float *row, int64_t pitch, int32_t lanes, const vec *line, int32_t first, int32_t rows)
{
    if (lanes == 4) {
        UNROLL for (int h = 0; h < PARTS; h++) vec_store(row + h * WIDTH, line[h]);
        return;
    }
    typedef float four __attribute__((ext_vector_type(4), aligned(4)));
    float values[16];
    UNROLL for (int h = 0; h < PARTS; h++) vec_store(values + h * WIDTH, line[h]);
    if (rows == 4) UNROLL for (int r = 0; r < 4; r++) *(four *)(row + r * pitch) = *(const four *)(values + 4 * r);
    else ROLLED for (int32_t r = 0; r < rows; r++) *(four *)(row + r * pitch) = *(const four *)(values + 4 * (first + r));
}

/* mestk_copy_line, without a call. */
VEC_INLINE void V(few_copy)(float *to, const float *from, int32_t lanes)
{
    typedef float four __attribute__((ext_vector_type(4), aligned(4)));
    if (lanes == 4) *(four *)to = *(const four *)from;
    else *to = *from;
}

/* Rows r0 .. r1 - 1 of a tile of the picture; its column c goes to to[c] of a slab's row, < 0: nowhere. */
static void V(few_pack_part)(const conv_slab *s, const mestk_operand *from, int32_t channel, int64_t tile, int32_t r0,
                             int32_t r1, const int32_t *to, int32_t slab_row, float *slab)
{
    int32_t tw = mestk_tile_w(s->picture), lanes = s->picture.lanes, n = mestk_tile_h(s->picture) * tw * lanes;
    float value[V(FEW_VALUES)];
    if (n % 16 == 0) {
        V(term) term = V(operand_term)(from, channel);
        for (int32_t i = r0 * tw * lanes / 16 * 16; i < r1 * tw * lanes; i += WIDTH)
            vec_store(value + i, V(operand_value)(&term, tile + i, term.kind));
    } else {
        for (int32_t i = 0; i < n; i++)
            value[i] = mestk_operand_value(from, STORED_BF16 ? MESTK_BF16 : MESTK_F32, channel, tile + i);
    }
    for (int32_t r = r0; r < r1; r++, slab_row++) {
        if (slab_row % s->row_stride >= s->row_phases) continue;
        float *row = slab + (int64_t)slab_row * s->phases * s->columns * lanes;
        const float *v = value + r * tw * lanes;
        ROLLED for (int32_t c = 0; c < tw; c++)
            if (to[c] >= 0) V(few_copy)(row + to[c], v + c * lanes, lanes);
    }
}

/* Rows r0 .. r1 of the slab, of one tile row of the picture; picture column x is at u = x + shift. */
VEC_INLINE void V(few_pack_tiles)(const conv_slab *s, const mestk_operand *from, int64_t at, int32_t first, int32_t r0,
                                  int32_t r1, int32_t shift, float *slab, const int32_t kind)
{
    mestk_shape p = s->picture;
    int32_t th = mestk_tile_h(p), tw = mestk_tile_w(p), n = th * tw * p.lanes, tiles = mestk_tiles_x(p);
    int32_t lines = p.lanes == 4 ? r1 - r0 : 1, width = s->stride * s->columns;
    int64_t pitch = (int64_t)s->phases * s->columns * p.lanes;
    for (int32_t t = 0; t < tiles; t++) {
        int32_t u = t * 4 + shift, c0 = mestk_max(0, -u), c1 = mestk_min(mestk_min(tw, p.width - t * tw), width - u);
        int32_t whole = c0 == 0 && c1 == 4 && s->stride == 1 && s->row_stride == 1 && (p.lanes == 4 || th == 4);
        int32_t column[4];
        for (int32_t c = 0; c < 4; c++) {
            int32_t inside = c >= c0 && c < c1 && (u + c) % s->stride < s->phases;
            column[c] = inside ? ((u + c) % s->stride * s->columns + (u + c) / s->stride) * p.lanes : -1;
        }
        for (int32_t c = 0; c < p.channels; c++, at += n) {
            float *to = slab + c * s->channel + r0 * pitch + (int64_t)u * p.lanes;
            if (!whole) {
                V(few_pack_part)(s, from, c, at, first, first + r1 - r0, column, r0, slab + c * s->channel);
                continue;
            }
            V(term) term = V(operand_term)(from, c);
            for (int32_t i = 0; i < lines; i++) {
                vec line[PARTS];
                UNROLL for (int h = 0; h < PARTS; h++)
                    line[h] = V(operand_value)(&term, at + (p.lanes == 4 ? (first + i) * 16 : 0) + h * WIDTH, kind);
                V(few_store)(to + i * pitch, pitch, p.lanes, line, first, r1 - r0);
            }
        }
    }
}

/* Picture rows from `top` on into the slab, +0 around; lanes from `count` on are +0 too. */
static void V(few_pack)(const conv_slab *s, int32_t block, int32_t top, int32_t shift, const mestk_operand *from,
                        float *slab)
{
    mestk_shape p = s->picture;
    int32_t th = mestk_tile_h(p), last = mestk_min(s->rows, p.height - top), kind = V(operand_term)(from, 0).kind;
    memset(slab, 0, (size_t)(s->channel * p.channels) * sizeof(float));
    for (int32_t r0 = mestk_max(0, -top), r1; r0 < last; r0 = r1) {
        int32_t first = (top + r0) % th;
        r1 = mestk_min(last, r0 + th - first);
        int64_t at = mestk_line(p, block, 0, top + r0 - first, 0);
#define RUN(kind) V(few_pack_tiles)(s, from, at, first, r0, r1, shift, slab, kind)
        OPERAND_SWITCH(kind, RUN)
#undef RUN
    }
}

/* Where a strip's values lie until they are stored: pixel (r, x), lane 0, at row r, column_of(x). */
typedef struct V(few_rows) {
    mestk_shape s;
    int64_t pitch;          /* floats from row to row */
    int32_t stride, columns; /* column u = x + shift of the picture is at phase u mod stride (conv_slab) */
    int32_t shift;
} V(few_rows);

/* Values of tile t, in the order in which a tile has them, from one channel's rows. */
VEC_INLINE void V(few_tile)(const V(few_rows) *k, const float *rows, int32_t t, float *value)
{
    int32_t th = mestk_tile_h(k->s), tw = mestk_tile_w(k->s), lanes = k->s.lanes;
    for (int32_t c = 0; c < tw; c++) {
        int32_t u = t * tw + c + k->shift, n = u / k->stride;
        const float *from = rows + ((int64_t)(u - n * k->stride) * k->columns + n) * lanes;
        for (int32_t r = 0; r < th; r++) V(few_copy)(value + (r * tw + c) * lanes, from + r * k->pitch, lanes);
    }
}

VEC_INLINE void V(few_line)(const V(few_rows) *k, const float *rows, const float *value, int32_t t, int32_t i, vec *line)
{
    int32_t lanes = k->s.lanes;
    if (k->stride == 1) V(few_load)(rows + i * k->pitch + (int64_t)(t * 4 + k->shift) * lanes, k->pitch, lanes, line);
    else UNROLL for (int h = 0; h < PARTS; h++) line[h] = vec_load(value + i * 16 + h * WIDTH);
}

/* ---- forward ---- */

/* Stores the rows as y and sums them. */
static void V(few_store_y)(const mestk_conv_job *job, int32_t task, const float *chains)
{
    mestk_shape s = job->g->out;
    int32_t n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes, tx = mestk_tiles_x(s);
    V(few_rows) k = {.s = s, .pitch = job->row_floats, .stride = 1, .columns = job->row_floats / s.lanes};
    V(valid) valid[2];
    V(find_valid_of_strip)(s, task, job->count, valid);
    for (int32_t c = 0; c < s.channels; c++, chains += job->chain_channel) {
        vec sum[PARTS], squares[PARTS];
        V(zero_chains)(sum), V(zero_chains)(squares);
        for (int32_t t = 0; t < tx; t++) {
            stored *y = (stored *)job->y + (((int64_t)task * tx + t) * s.channels + c) * n;
            for (int32_t i = 0; i < n / 16; i++) {
                vec line[PARTS];
                V(few_line)(&k, chains, NULL, t, i, line);
                UNROLL for (int h = 0; h < PARTS; h++) {
                    put_stored(y + i * 16 + h * WIDTH, line[h]);
                    vec v = V(keep_valid)(valid + (t + 1 == tx), i * 16 + h * WIDTH, round_stored(line[h]));
                    sum[h] += v;
                    squares[h] = vec_fma(v, v, squares[h]);
                }
            }
        }
        if (job->sums) V(reduce_sums)(sum, squares, job->sums + ((int64_t)task * s.channels + c) * 2);
    }
}

/* The same of tiles that are no whole lines. */
static void V(few_store_small_y)(const mestk_conv_job *job, int32_t task, const float *chains)
{
    mestk_shape s = job->g->out;
    int32_t n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes, tx = mestk_tiles_x(s), ty = mestk_tiles_y(s);
    int32_t lanes = mestk_max(0, mestk_min(s.lanes, job->count - task / ty * s.lanes)); /* that are summed */
    V(few_rows) k = {.s = s, .pitch = job->row_floats, .stride = 1, .columns = job->row_floats / s.lanes};
    for (int32_t c = 0; c < s.channels; c++, chains += job->chain_channel) {
        for (int32_t t = 0; t < tx; t++) {
            float value[V(FEW_VALUES)];
            int64_t at = (((int64_t)task * tx + t) * s.channels + c) * n;
            V(few_tile)(&k, chains, t, value);
            mestk_write_line(job->y, s.format, at, n, value);
        }
        if (job->sums)
            mestk_sum_strip_reference(s, task, c, job->y, job->y, lanes,
                                      job->sums + ((int64_t)task * s.channels + c) * 2);
    }
}

static void V(few_forward)(const mestk_conv_job *job, int32_t task, int32_t worker)
{
    const mestk_conv *g = job->g;
    const conv_slab *s = &job->slab;
    int32_t th = mestk_tile_h(g->out), ty = mestk_tiles_y(g->out);
    float *slab = job->slabs + worker * s->floats, *chains = job->chains + worker * job->chain_floats;
    V(few_pack)(s, task / ty, task % ty * th * g->stride_h - g->pad_h, g->pad_w, job->x, slab);
    LEVEL(rows_forward)(job, slab, chains);
    if (V(few_in_lines)(g->out)) V(few_store_y)(job, task, chains);
    else V(few_store_small_y)(job, task, chains);
}

/* ---- backward ---- */

/* Stores the rows as dx: the old one added, masked, summed. */
static void V(few_store_dx)(const mestk_conv_job *job, const V(few_rows) *k, int32_t task, const float *chains,
                            const float *x)
{
    const mestk_gradient *to = job->gradient;
    mestk_shape s = k->s;
    int32_t n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes, tx = mestk_tiles_x(s);
    V(valid) valid[2];
    V(find_valid_of_strip)(s, task, INT32_MAX, valid);
    for (int32_t c = 0; c < s.channels; c++, chains += job->inner.channel, x += job->inner.channel) {
        vec sum[PARTS], dot[2][PARTS];
        V(zero_chains)(sum), V(zero_chains)(dot[0]), V(zero_chains)(dot[1]);
        for (int32_t t = 0; t < tx; t++) {
            int64_t at = (((int64_t)task * tx + t) * s.channels + c) * n;
            stored *dx = (stored *)to->dx + at;
            float value[V(FEW_VALUES)], x_value[V(FEW_VALUES)];
            if (k->stride > 1) V(few_tile)(k, chains, t, value);
            if (k->stride > 1 && to->masked) V(few_tile)(k, x, t, x_value);
            for (int32_t i = 0; i < n / 16; i++) {
                vec line[PARTS], mask[PARTS];
                V(few_line)(k, chains, value, t, i, line);
                if (to->masked) V(few_line)(k, x, x_value, t, i, mask);
                UNROLL for (int h = 0; h < PARTS; h++) {
                    int32_t j = i * 16 + h * WIDTH;
                    vec v = to->accumulate ? get_stored(dx + j) + line[h] : line[h];
                    if (to->masked) v = vec_where(mask[h] > vec_zero(), v);
                    v = V(keep_valid)(valid + (t + 1 == tx), j, v);
                    put_stored(dx + j, v);
                    v = round_stored(v);
                    sum[h] += v;
                    UNROLL for (int b = 0; b < 2; b++)
                        if (to->normed[b])
                            dot[b][h] = vec_fma(v, get_stored((const stored *)to->normed[b] + at + j), dot[b][h]);
                }
            }
        }
        for (int b = 0; b < 2 && to->normed[b]; b++) {
            vec copy[PARTS];
            for (int h = 0; h < PARTS; h++) copy[h] = sum[h];
            V(reduce_sums)(copy, dot[b], to->sums[b] + ((int64_t)task * s.channels + c) * 2);
        }
    }
}

/* The same of tiles that are no whole lines. */
static void V(few_store_small_dx)(const mestk_conv_job *job, const V(few_rows) *k, int32_t task, const float *chains,
                                  const float *x)
{
    const mestk_gradient *to = job->gradient;
    mestk_shape s = k->s;
    int32_t n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes, tx = mestk_tiles_x(s);
    V(valid) valid[2];
    V(find_valid_of_strip)(s, task, INT32_MAX, valid);
    for (int32_t c = 0; c < s.channels; c++, chains += job->inner.channel, x += job->inner.channel) {
        for (int32_t t = 0; t < tx; t++) {
            const V(valid) *which = valid + (t + 1 == tx);
            int64_t at = (((int64_t)task * tx + t) * s.channels + c) * n;
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
            mestk_sum_strip_reference(s, task, c, to->dx, to->normed[b], s.lanes,
                                      to->sums[b] + ((int64_t)task * s.channels + c) * 2);
    }
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
    V(few_rows) k = {.s = in, .pitch = (int64_t)inner->phases * inner->columns * in.lanes, .stride = inner->stride,
                     .columns = inner->columns, .shift = g->pad_w % g->stride_w};
    V(few_pack)(s, block, top, -left, job->dy, slab);
    mestk_clear_lanes(slab, s->channel * s->picture.channels, in.lanes, job->count - block * in.lanes);
    V(few_pack)(inner, block, y0, k.shift, job->x, x);
    LEVEL(rows_backward)(job, y0, top, left, slab, x, dx, partial);
    if (!job->gradient->dx) return;
    if (V(few_in_lines)(in)) V(few_store_dx)(job, &k, task, dx, x);
    else V(few_store_small_dx)(job, &k, task, dx, x);
}
