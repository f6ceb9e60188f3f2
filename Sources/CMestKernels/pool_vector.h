/* SPDX-License-Identifier: Apache-2.0 */
/* Pools over windows of one lane count, format and instruction set: see pool.h. */

#define POOL_FACTOR(g) (1.0f / (float)((g)->kernel_h * (g)->kernel_w))

/* A chunk is a strip of tiles of y. */
static void V(pool_forward)(const mestk_pool_job *job, int32_t strip)
{
    const mestk_conv *g = job->g;
    mestk_shape s = g->out;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), block = strip / ty, y0 = strip % ty * th;
    stored *y = (stored *)job->y + mestk_line(s, block, 0, y0, 0);
    vec factor = (vec)(POOL_FACTOR(g));
    for (int32_t t = 0; t < mestk_tiles_x(s); t++) {
        for (int32_t c = 0; c < s.channels; c++) {
            const stored *x = (const stored *)job->x;
            for (int32_t p = 0; p < th * tw; p++, y += LANES) {
                pool_window w = mestk_pool_window(g, y0 + p / tw, t * tw + p % tw);
                vec sum[PARTS];
                int32_t first = 1;
                UNROLL for (int h = 0; h < PARTS; h++) sum[h] = vec_zero();
                for (int32_t iy = w.y0; iy < w.y1; iy++) {
                    for (int32_t ix = w.x0; ix < w.x1; ix++, first = 0) {
                        const stored *line = x + mestk_line(g->in, block, c, iy, ix);
                        UNROLL for (int h = 0; h < PARTS; h++) {
                            vec v = get_stored(line + h * WIDTH);
                            if (!job->maximum) sum[h] += v;
                            else sum[h] = first ? v : vec_select(v > sum[h], v, sum[h]);
                        }
                    }
                }
                UNROLL for (int h = 0; h < PARTS; h++)
                    put_stored(y + h * WIDTH, job->maximum ? sum[h] : sum[h] * factor);
            }
        }
    }
}

/* What pixel n of a window gets of the gradient: on equal values the first in row order takes it. */
typedef struct V(pool_share) {
    vec dy[PARTS];
    vec_int best[PARTS];
} V(pool_share);

VEC_INLINE void V(pool_largest)(const mestk_pool_job *job, pool_window w, int32_t block, int32_t c, V(pool_share) *share)
{
    vec top[PARTS];
    int32_t n = 0;
    for (int32_t iy = w.y0; iy < w.y1; iy++) {
        for (int32_t ix = w.x0; ix < w.x1; ix++, n++) {
            const stored *x = (const stored *)job->x + mestk_line(job->g->in, block, c, iy, ix);
            UNROLL for (int h = 0; h < PARTS; h++) {
                vec v = get_stored(x + h * WIDTH);
                vec_int larger = n == 0 ? (vec_int)(-1) : (vec_int)(v > top[h]);
                top[h] = n == 0 ? v : vec_select(larger, v, top[h]);
                share->best[h] = (larger & (vec_int)(n)) | (~larger & share->best[h]);
            }
        }
    }
}

/* A chunk is a plane (lane block, channel) of x, because windows may overlap. */
static void V(pool_backward)(const mestk_pool_job *job, int32_t plane)
{
    const mestk_conv *g = job->g;
    mestk_shape in = g->in;
    int32_t block = plane / in.channels, c = plane % in.channels;
    int32_t n = mestk_tile_h(in) * mestk_tile_w(in) * LANES, tiles = mestk_tiles_y(in) * mestk_tiles_x(in);
    stored *dx = (stored *)job->dx;
    vec factor = (vec)(POOL_FACTOR(g));
    for (int32_t t = 0; t < tiles && !job->accumulate; t++)
        for (int32_t i = 0; i < n; i += WIDTH)
            put_stored(dx + (((int64_t)block * tiles + t) * in.channels + c) * n + i, vec_zero());
    for (int32_t y = 0; y < g->out.height; y++) {
        for (int32_t x = 0; x < g->out.width; x++) {
            const stored *dy = (const stored *)job->dy + mestk_line(g->out, block, c, y, x);
            pool_window w = mestk_pool_window(g, y, x);
            V(pool_share) share;
            int32_t pixel = 0;
            UNROLL for (int h = 0; h < PARTS; h++) {
                vec v = get_stored(dy + h * WIDTH);
                share.dy[h] = job->maximum ? v : v * factor;
                share.best[h] = (vec_int)(0);
            }
            if (job->maximum) V(pool_largest)(job, w, block, c, &share);
            for (int32_t iy = w.y0; iy < w.y1; iy++) {
                for (int32_t ix = w.x0; ix < w.x1; ix++, pixel++) {
                    stored *to = dx + mestk_line(in, block, c, iy, ix);
                    UNROLL for (int h = 0; h < PARTS; h++) {
                        vec v = job->maximum ? vec_where(share.best[h] == (vec_int)(pixel), share.dy[h]) : share.dy[h];
                        put_stored(to + h * WIDTH, get_stored(to + h * WIDTH) + v);
                    }
                }
            }
        }
    }
}
#undef POOL_FACTOR
