/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch normalisation of one lane count on one instruction set: see vector.h, and norm.h for the
 * equations (Ioffe & Szegedy 2015).  Sums: per tile and lane one chain over its valid pixels in row-major
 * order; lanes beyond `count` become +0; mestk_add_line from +0; double over blocks and tiles in order.
 */

/* Two running sums of one tile, both reduced at once.  lanes: those that are samples. */
VEC_INLINE void V(norm_reduce)(vec *a, vec *b, int32_t lanes, double *sum_a, double *sum_b)
{
    float sum[4] = {0};
    if (lanes < LANES) {
        float line[2][LANES];
        for (int h = 0; h < PARTS; h++) {
            vec_store(line[0] + h * WIDTH, a[h]);
            vec_store(line[1] + h * WIDTH, b[h]);
        }
        for (int32_t l = lanes; l < LANES; l++) line[0][l] = line[1][l] = 0.0f;
        for (int h = 0; h < PARTS; h++) {
            a[h] = vec_load(line[0] + h * WIDTH);
            b[h] = vec_load(line[1] + h * WIDTH);
        }
    }
#if WIDTH == 4 && LANES >= 8 /* an octet is two vectors; i + (i+4) comes first */
    for (int h = 0; h < PARTS; h += 2) {
        vec d[4] = {a[h] + a[h + 1], b[h] + b[h + 1], vec_zero(), vec_zero()};
        vec_add_dots(d, sum);
    }
#else
    for (int h = 0; h < PARTS; h++) {
        vec d[4] = {a[h], b[h], vec_zero(), vec_zero()};
        vec_add_dots(d, sum);
    }
#endif
    *sum_a += (double)sum[0];
    *sum_b += (double)sum[1];
}

/* ---- forward ---- */

static void V(norm_statistics)(const mestk_norm_job *job, int32_t c)
{
    mestk_shape s = job->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), tx = mestk_tiles_x(s);
    float pivot = job->pivot[c];
    double sum = 0.0, squares = 0.0;
    for (int32_t b = 0; b < s.blocks; b++) {
        int32_t lanes = mestk_max(0, mestk_min(LANES, job->count - b * LANES));
        for (int32_t t = 0; t < ty * tx; t++) {
            const float *x = job->x + (((int64_t)b * ty * tx + t) * s.channels + c) * th * tw * LANES;
            int32_t rows = mestk_min(th, s.height - t / tx * th), columns = mestk_min(tw, s.width - t % tx * tw);
            vec a[PARTS], q[PARTS];
            for (int h = 0; h < PARTS; h++) a[h] = q[h] = vec_zero();
            for (int32_t r = 0; r < rows; r++) {
                for (int32_t i = 0; i < columns; i++) {
                    for (int h = 0; h < PARTS; h++) {
                        vec d = vec_load(x + (r * tw + i) * LANES + h * WIDTH) - (vec)(pivot);
                        a[h] += d;
                        q[h] = vec_fma(d, d, q[h]);
                    }
                }
            }
            V(norm_reduce)(a, q, lanes, &sum, &squares);
        }
    }
    double n = (double)job->count * s.height * s.width;
    double mean = sum / n, var = squares / n - mean * mean;
    job->out_mean[c] = (float)((double)pivot + mean);
    job->out_var[c] = var > 0.0 ? (float)var : var == var ? 0.0f : (float)var; /* NaN stays visible */
}

static void V(norm_apply)(const mestk_norm_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t tx = mestk_tiles_x(s), floats = mestk_tile_h(s) * mestk_tile_w(s) * LANES;
    int64_t step = (int64_t)s.channels * floats, base = strip * tx * step;
    for (int32_t c = 0; c < s.channels; c++) {
        float a = (job->scale ? job->scale[c] : 1.0f) / mestk_sqrt(job->var[c] + job->eps);
        float b = mestk_fma_inline(-job->mean[c], a, job->shift ? job->shift[c] : 0.0f);
        for (int32_t t = 0; t < tx; t++) {
            const float *x = job->x + base + t * step + (int64_t)c * floats;
            float *y = job->y + base + t * step + (int64_t)c * floats;
            for (int32_t i = 0; i < floats; i += WIDTH)
                vec_store(y + i, vec_fma(vec_load(x + i), (vec)(a), (vec)(b)));
        }
    }
}

/* ---- backward ---- */

/* dx = a dy + (k1 (x - mean) + k0), the three constants of a channel. */
typedef struct V(norm_constants) {
    float mean, a, k0, k1;
} V(norm_constants);

VEC_INLINE void V(norm_dx)(const float *x, const float *dy, float *dx, V(norm_constants) k, int32_t accumulate)
{
    vec v = vec_fma((vec)(k.a), vec_load(dy), vec_fma((vec)(k.k1), vec_load(x) - (vec)(k.mean), (vec)(k.k0)));
    vec_store(dx, accumulate ? vec_load(dx) + v : v);
}

static void V(norm_backward)(const mestk_norm_job *job, int32_t c)
{
    mestk_shape s = job->s;
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), ty = mestk_tiles_y(s), tx = mestk_tiles_x(s);
    int32_t floats = th * tw * LANES;
    float mean = job->mean[c], inverse = 1.0f / mestk_sqrt(job->var[c] + job->eps);
    double sum = 0.0, dot = 0.0; /* of dy and dy (x - mean); padding of dy is +0 and adds nothing */
    for (int64_t t = 0; t < (int64_t)s.blocks * ty * tx; t++) {
        const float *x = job->x + (t * s.channels + c) * floats, *dy = job->dy + (t * s.channels + c) * floats;
        vec a[PARTS], q[PARTS];
        for (int h = 0; h < PARTS; h++) a[h] = q[h] = vec_zero();
        for (int32_t i = 0; i < floats; i += LANES) {
            for (int h = 0; h < PARTS; h++) {
                vec d = vec_load(dy + i + h * WIDTH);
                a[h] += d;
                q[h] = vec_fma(d, vec_load(x + i + h * WIDTH) - (vec)(mean), q[h]);
            }
        }
        V(norm_reduce)(a, q, LANES, &sum, &dot);
    }
    if (job->dshift) job->dshift[c] += (float)sum;
    if (job->dscale) job->dscale[c] += (float)(dot * (double)inverse);
    if (!job->dx) return;
    double n = (double)job->count * s.height * s.width;
    V(norm_constants) k = {.mean = mean, .a = (job->scale ? job->scale[c] : 1.0f) * inverse};
    k.k0 = -k.a * (float)(sum / n);
    k.k1 = -k.a * inverse * inverse * (float)(dot / n);
    for (int32_t b = 0; b < s.blocks; b++) {
        int32_t lanes = mestk_max(0, mestk_min(LANES, job->count - b * LANES));
        for (int32_t t = 0; t < ty * tx; t++) {
            int64_t at = (((int64_t)b * ty * tx + t) * s.channels + c) * floats;
            const float *x = job->x + at, *dy = job->dy + at;
            float *dx = job->dx + at;
            int32_t rows = mestk_min(th, s.height - t / tx * th), columns = mestk_min(tw, s.width - t % tx * tw);
            if (rows * columns * LANES == floats) {
                for (int32_t i = 0; i < floats; i += WIDTH) V(norm_dx)(x + i, dy + i, dx + i, k, job->accumulate);
            } else {
                for (int32_t p = 0; p < th * tw; p++) {
                    int32_t inside = p / tw < rows && p % tw < columns;
                    for (int32_t i = p * LANES; i < (p + 1) * LANES; i += WIDTH) {
                        if (inside) V(norm_dx)(x + i, dy + i, dx + i, k, job->accumulate);
                        else vec_store(dx + i, vec_zero());
                    }
                }
            }
            if (lanes < LANES)
                for (int32_t i = 0; i < floats; i += LANES)
                    for (int32_t l = lanes; l < LANES; l++) dx[i + l] = 0.0f;
        }
    }
}
