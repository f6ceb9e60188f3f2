/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation of one lane count, format and instruction set: see norm.h. */

static void V(norm_moments)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    V(valid) valid[2];
    V(find_valid_of_strip)(s, strip, job->count, valid);
    for (int32_t c = 0; c < s.channels; c++) {
        vec pivot = (vec)(job->pivot[c]), sum[CHAINS], squares[CHAINS];
        V(zero_chains)(sum), V(zero_chains)(squares);
        for (int32_t t = 0; t < tx; t++) {
            const stored *x = (const stored *)job->x + (((int64_t)strip * tx + t) * s.channels + c) * n;
            const V(valid) *which = valid + (t + 1 == tx);
            for (int32_t i = 0; i < n; i += LANES) {
                UNROLL for (int h = 0; h < PARTS; h++) {
                    int32_t j = i + h * WIDTH;
                    vec d = V(keep_valid)(which, j, get_stored(x + j) - pivot);
                    sum[CHAIN(i, h)] += d;
                    squares[CHAIN(i, h)] = vec_fma(d, d, squares[CHAIN(i, h)]);
                }
            }
        }
        V(reduce_sums)(sum, squares, job->sums + ((int64_t)strip * s.channels + c) * 2);
    }
}

static void V(norm_backward)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    int64_t at = (int64_t)strip * tx * s.channels * n;
    V(valid) valid[2];
    V(find_valid_of_strip)(s, strip, job->count, valid);
    for (int32_t t = 0; t < tx; t++) {
        const V(valid) *which = valid + (t + 1 == tx);
        for (int32_t c = 0; c < s.channels; c++, at += n) {
            V(term) term = V(operand_term)(job->v, c);
            stored *dx = (stored *)job->y + at;
            for (int32_t i = 0; i < n; i += WIDTH) {
                vec v = V(operand_value)(&term, at + i, V(SCALED) | V(SECOND) | V(SECOND_SCALED));
                put_stored(dx + i, V(keep_valid)(which, i, job->accumulate ? get_stored(dx + i) + v : v));
            }
        }
    }
}
