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

/* ---- global average ---- */

/* Which values are pixels, in all strips but the last and in the last: see find_valid_of_strip. */
typedef struct V(pool_valid) {
    V(valid) strip[2][2];
} V(pool_valid);

VEC_INLINE void V(pool_find_valid)(mestk_shape s, V(pool_valid) *valid)
{
    V(find_valid_of_strip)(s, 0, INT32_MAX, valid->strip[0]);
    V(find_valid_of_strip)(s, mestk_tiles_y(s) - 1, INT32_MAX, valid->strip[1]);
}

VEC_INLINE const V(valid) *V(pool_valid_of)(mestk_shape s, const V(pool_valid) *valid, int32_t ty, int32_t tx)
{
    return &valid->strip[ty + 1 == mestk_tiles_y(s)][tx + 1 == mestk_tiles_x(s)];
}

static void V(global_pool_forward)(const mestk_pool_job *job, int32_t chunk)
{
    mestk_shape s = job->s;
    int32_t n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes, ty = mestk_tiles_y(s), tx = mestk_tiles_x(s);
    int32_t chunks = mestk_ceil_div(s.channels, MESTK_POOL_CHANNELS), block = chunk / chunks;
    int32_t c = chunk % chunks * MESTK_POOL_CHANNELS, end = mestk_min(c + MESTK_POOL_CHANNELS, s.channels);
    float factor = 1.0f / (float)(s.height * s.width);
    V(pool_valid) valid;
    V(pool_find_valid)(s, &valid);
    for (; c < end; c++) {
        vec sum[CHAINS];
        float line[16], *y = (float *)job->y + ((int64_t)block * s.channels + c) * s.lanes;
        V(zero_chains)(sum);
        for (int32_t t = 0; t < ty * tx; t++) {
            const stored *x = (const stored *)job->x + (((int64_t)block * ty * tx + t) * s.channels + c) * n;
            const V(valid) *which = V(pool_valid_of)(s, &valid, t / tx, t % tx);
            vec tile[CHAINS];
            V(zero_chains)(tile);
            for (int32_t i = 0; i < n; i += LANES)
                UNROLL for (int h = 0; h < PARTS; h++)
                    tile[CHAIN(i, h)] += V(keep_valid)(which, i + h * WIDTH, get_stored(x + i + h * WIDTH));
            UNROLL for (int h = 0; h < CHAINS; h++) sum[h] += tile[h];
        }
        UNROLL for (int h = 0; h < CHAINS; h++) vec_store(line + h * WIDTH, sum[h]);
        for (int32_t l = 0; l < s.lanes; l++) {
            float total = line[l], of_four[4] = {line[l], line[(l + 4) % 16], line[(l + 8) % 16], line[(l + 12) % 16]};
            if (s.lanes == 1) total = 0.0f, mestk_add_line(&total, line, 16);
            else if (s.lanes == 4) total = mestk_sum4(of_four);
            else if (s.lanes == 8) total = line[l] + line[l + 8];
            y[l] = total * factor;
        }
    }
}

static void V(global_pool_backward)(const mestk_pool_job *job, int32_t chunk)
{
    mestk_shape s = job->s;
    int32_t n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes, ty = mestk_tiles_y(s), tx = mestk_tiles_x(s);
    int32_t chunks = mestk_ceil_div(s.channels, MESTK_POOL_CHANNELS), block = chunk / chunks;
    int32_t c = chunk % chunks * MESTK_POOL_CHANNELS, end = mestk_min(c + MESTK_POOL_CHANNELS, s.channels);
    float factor = 1.0f / (float)(s.height * s.width);
    V(pool_valid) valid;
    V(pool_find_valid)(s, &valid);
    for (; c < end; c++) {
        const float *dy = (const float *)job->dy + ((int64_t)block * s.channels + c) * s.lanes;
        float line[16];
        for (int32_t i = 0; i < LANES; i++) line[i] = dy[i % s.lanes] * factor;
        for (int32_t t = 0; t < ty * tx; t++) {
            stored *dx = (stored *)job->dx + (((int64_t)block * ty * tx + t) * s.channels + c) * n;
            const V(valid) *which = V(pool_valid_of)(s, &valid, t / tx, t % tx);
            for (int32_t i = 0; i < n; i += LANES)
                UNROLL for (int h = 0; h < PARTS; h++) {
                    vec v = vec_load(line + h * WIDTH);
                    if (job->accumulate) v = get_stored(dx + i + h * WIDTH) + v;
                    put_stored(dx + i + h * WIDTH, V(keep_valid)(which, i + h * WIDTH, v));
                }
        }
    }
}
