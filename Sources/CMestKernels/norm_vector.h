/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation of one lane count, format and instruction set: see norm.h. */

static void V(norm_moments)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), tx = mestk_tiles_x(s);
    int32_t lanes = mestk_max(0, mestk_min(LANES, job->count - strip / ty * LANES));
    int32_t rows = mestk_min(th, s.height - strip % ty * th);
    for (int32_t c = 0; c < s.channels; c++) {
        vec pivot = (vec)(job->pivot[c]), sum[PARTS], squares[PARTS];
        for (int h = 0; h < PARTS; h++) sum[h] = squares[h] = vec_zero();
        for (int32_t t = 0; t < tx; t++) {
            const stored *x = (const stored *)job->x + (((int64_t)strip * tx + t) * s.channels + c) * th * tw * LANES;
            int32_t columns = mestk_min(tw, s.width - t * tw);
            for (int32_t r = 0; r < rows; r++) {
                for (int32_t i = 0; i < columns; i++) {
                    for (int h = 0; h < PARTS; h++) {
                        vec d = get_stored(x + (r * tw + i) * LANES + h * WIDTH) - pivot;
                        sum[h] += d;
                        squares[h] = vec_fma(d, d, squares[h]);
                    }
                }
            }
        }
        V(reduce_sums)(sum, squares, lanes, job->sums + ((int64_t)strip * s.channels + c) * 2);
    }
}

static void V(norm_backward)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), tx = mestk_tiles_x(s);
    int32_t lanes = mestk_max(0, mestk_min(LANES, job->count - strip / ty * LANES));
    int32_t rows = mestk_min(th, s.height - strip % ty * th), n = th * tw * LANES;
    int64_t at = (int64_t)strip * tx * s.channels * n;
    for (int32_t t = 0; t < tx; t++) {
        for (int32_t c = 0; c < s.channels; c++, at += n) {
            V(term) term = V(operand_term)(job->v, c);
            int32_t columns = mestk_min(tw, s.width - t * tw);
            stored *dx = (stored *)job->y + at;
            for (int32_t p = 0; p < th * tw; p++) {
                int32_t inside = p / tw < rows && p % tw < columns;
                for (int32_t i = p * LANES; i < (p + 1) * LANES; i += WIDTH) {
                    vec v = inside ? V(operand_value)(&term, at + i, V(SCALED) | V(SECOND) | V(SECOND_SCALED)) : vec_zero();
                    put_stored(dx + i, job->accumulate && inside ? get_stored(dx + i) + v : v);
                }
                if (lanes < LANES)
                    for (int32_t l = lanes; l < LANES; l++) dx[p * LANES + l] = 0;
            }
        }
    }
}
