/* SPDX-License-Identifier: Apache-2.0 */
/* Layout, dropout, flatten, updates. */
#ifndef KERNELS_VALUE_CASES_H
#define KERNELS_VALUE_CASES_H
#include "harness.h"

static void test_layout(void)
{
    for (int i = 0; i < 2 * SHAPES; i++) {
        char name[200];
        shape_case t = shapes[i / 2];
        mestk_shape s = shape_of(t, i % 2);
        state = seed_now = 100 + (uint64_t)i;
        s.blocks += below(2); /* a batch that fills fewer */
        name_shape(name, "layout", t, s.format);
        int64_t n = plain_size(s, t.count);
        float *x = random_floats(n), *rounded = floats(n), *back = floats(n);
        for (int64_t p = 0; p < n; p++) rounded[p] = round_to(s.format, x[p]);
        for (int k = 0; k < ways; k++) {
            void *packed = new_tensor(s);
            mestk_gather(&way[k], s, x, t.count, packed);
            float *seen = plain_floats(s, packed, t.count);
            check(same(rounded, seen, n), "gather", name);
            check(padding_repeats(s, t.count, packed), "gather padding", name);
            memset(back, 0xff, (size_t)n * 4);
            mestk_scatter(&way[k], s, packed, t.count, back);
            check(same(rounded, back, n), "scatter", name);
            free(seen), free(packed);
        }
        int64_t at = (int64_t)below((int)n);
        check(mestk_first_not_finite(x, n) == -1, "finite", name);
        x[at] = i % 2 ? NAN : -INFINITY;
        x[n - 1] = NAN;
        check(mestk_first_not_finite(x, n) == at, "not finite", name);
        free(x), free(rounded), free(back);
    }
}

/* Some channels out of a tensor, and into another: these and no others, padding as it was. */
static void test_channels(void)
{
    for (int i = 0; i < 2 * SHAPES; i++) {
        char name[200];
        shape_case t = shapes[i / 2];
        mestk_shape s = shape_of(t, i % 2), some = s;
        state = seed_now = 300 + (uint64_t)i;
        name_shape(name, "channels", t, s.format);
        int32_t first = below(s.channels);
        some.channels = 1 + below(s.channels - first);
        void *x = random_tensor(s, t.count, 0), *y = random_tensor(s, t.count, 0);
        int64_t plane = (int64_t)s.height * s.width, sample = plane * s.channels, part = plane * some.channels;
        float *px = plain_floats(s, x, t.count), *py = plain_floats(s, y, t.count);
        for (int k = 0; k < ways; k++) {
            void *taken = new_tensor(some), *put = tensor_copy(s, y);
            mestk_take_channels(&way[k], s, x, first, some.channels, taken);
            mestk_put_channels(&way[k], s, put, first, some.channels, taken);
            float *seen = plain_floats(some, taken, t.count), *mixed = plain_floats(s, put, t.count);
            int ok = 1;
            for (int32_t n = 0; n < t.count; n++) {
                ok &= same(seen + n * part, px + n * sample + first * plane, part);
                for (int64_t p = 0; p < sample; p++) {
                    int inside = p >= first * plane && p < first * plane + part;
                    ok &= mixed[n * sample + p] == (inside ? px : py)[n * sample + p];
                }
            }
            check(ok, "channels", name);
            free(taken), free(put), free(seen), free(mixed);
        }
        free(x), free(y), free(px), free(py);
    }
}

static uint32_t dropout_draw(uint64_t key, uint64_t index)
{
    uint64_t z = key + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static void test_dropout_and_flatten(shape_case t, int format)
{
    char name[200];
    mestk_shape s = shape_of(t, format), flat = {s.blocks, t.lanes, t.channels * t.h * t.w, 1, 1, MESTK_F32};
    name_shape(name, "dropout and flatten", t, format);
    int64_t n = plain_size(s, t.count);
    void *x = random_tensor(s, t.count, 0), *old = random_tensor(s, t.count, 1), *gradient = random_tensor(s, t.count, 1);
    float *px = plain_floats(s, x, t.count), *fold = plain_floats(s, old, t.count), *pg = plain_floats(s, gradient, t.count);
    float *dy = random_tensor(flat, t.count, 1), *pdy = plain_floats(flat, dy, t.count);
    float rate = 0.3f;
    for (int k = 0; k < ways; k++) {
        void *out = new_tensor(s), *added = tensor_copy(s, old), *in_place = tensor_copy(s, x), *dx = new_tensor(s);
        void *dx_added = tensor_copy(s, old);
        float *y = new_tensor(flat);
        mestk_dropout(&way[k], s, 77, rate, x, out, 0);
        mestk_dropout(&way[k], s, 77, rate, in_place, in_place, 0);
        check(same_tensor(s, out, in_place), "dropout in place", name);
        mestk_dropout(&way[k], s, 77, rate, gradient, added, 1);
        float *fout = plain_floats(s, out, t.count), *fadded = plain_floats(s, added, t.count);
        int ok = 1;
        for (int64_t i = 0; i < n; i++) {
            int drop = dropout_draw(77, (uint64_t)i) < rate * 4294967296.0;
            float factor = 1.0f / (1.0f - rate);
            ok &= fout[i] == round_to(format, drop ? 0.0f : px[i] * factor);
            ok &= fadded[i] == round_to(format, fold[i] + (drop ? 0.0f : pg[i] * factor));
        }
        check(ok, "dropout", name);
        check(padding_is_zero(s, t.count, added), "dropout padding", name);
        check(all_finite(s, out), "dropout padding", name);
        mestk_flatten_forward(&way[k], s, x, y);
        float *fy = plain_floats(flat, y, t.count);
        check(same(fy, px, n), "flatten", name);
        mestk_flatten_backward(&way[k], s, dy, dx, 0);
        mestk_flatten_backward(&way[k], s, dy, dx_added, 1);
        float *fdx = plain_floats(s, dx, t.count), *fdx2 = plain_floats(s, dx_added, t.count);
        ok = 1;
        for (int64_t i = 0; i < n; i++) {
            ok &= fdx[i] == round_to(format, pdy[i]);
            ok &= fdx2[i] == round_to(format, fold[i] + pdy[i]);
        }
        check(ok, "flatten backward", name);
        check(padding_is_zero(s, t.count, dx) && padding_is_zero(s, t.count, dx_added), "flatten padding", name);
        free(out), free(added), free(in_place), free(dx), free(dx_added), free(y);
        free(fout), free(fadded), free(fy), free(fdx), free(fdx2);
    }
    free(x), free(old), free(gradient), free(px), free(fold), free(pg), free(dy), free(pdy);
}

static void test_flat(int64_t n)
{
    char name[60];
    enum { RESULTS = 3 };
    snprintf(name, sizeof name, "n %lld", (long long)n);
    float *a = random_floats(n), *c = random_floats(n), *first[RESULTS] = {0};
    mestk_sgd h = {0.1f, 0.9f, 5e-4f, 0.7f, 1}, plainly = {0.1f, 0.9f, 5e-4f, 0.7f, 0};
    for (int k = 0; k < ways; k++) {
        float *got[RESULTS];
        for (int i = 0; i < RESULTS; i++) got[i] = copy_of(c, n);
        mestk_sgd_update(&way[k], n, h, a, got[0], got[1]);
        mestk_gradient_average(&way[k], n, 0.9f, a, got[2]);
        if (k == 0) {
            int ok = 1;
            for (int64_t i = 0; i < n; i++) {
                double d = (double)5e-4f * c[i] + 0.7 * a[i], m = 0.9 * c[i] + d, w = c[i] - 0.1 * (0.9 * m + d);
                ok &= fabs(got[0][i] - w) < 1e-6 && fabs(got[1][i] - m) < 1e-6;
                ok &= fabs(got[2][i] - (0.9 * c[i] + 0.1 * fabs(a[i]))) < 1e-6;
            }
            check(ok, "value by value", name);
            for (int i = 0; i < RESULTS; i++) mark(got[i], n);
            float *w = copy_of(c, n), *m = copy_of(c, n);
            mestk_sgd_update(&way[k], n, plainly, a, w, m);
            for (int64_t i = 0; i < n; i++) ok &= w[i] == fmaf(-0.1f, m[i], c[i]) && m[i] == got[1][i];
            check(ok, "sgd without nesterov", name);
            free(w), free(m);
            memcpy(first, got, sizeof first);
            continue;
        }
        for (int i = 0; i < RESULTS; i++) check(same(first[i], got[i], n), "value by value, bits", way_name[k]), free(got[i]);
    }
    double squares = 0, magnitudes = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)a[i] * a[i], magnitudes += fabs(a[i]);
    check(fabs(mestk_sum_of_squares(&way[0], n, a) - squares) <= 1e-6 * squares, "sum of squares", name);
    check(fabs(mestk_sum_of_magnitudes(&way[0], n, a) - magnitudes) <= 1e-6 * magnitudes, "sum of magnitudes", name);
    if (n) {
        a[n / 2] = INFINITY;
        check(!isfinite(mestk_sum_of_squares(&way[0], n, a)), "sum of squares, infinite", name);
    }
    for (int i = 0; i < RESULTS; i++) free(first[i]);
    free(a), free(c);
}
#endif
