/* SPDX-License-Identifier: Apache-2.0 */
/* Layout, dropout, flatten, ReLU, addition, updates. */
#ifndef KERNELS_VALUE_CASES_H
#define KERNELS_VALUE_CASES_H
#include "harness.h"

static void test_layout(void)
{
    for (int i = 0; i < SHAPES; i++) {
        char name[200];
        shape_case t = shapes[i];
        mestk_shape s = shape_of(t);
        name_shape(name, "layout", t);
        int64_t n = plain_size(s, t.count);
        float *x = random_floats(n), *packed = floats(mestk_floats(s)), *back = floats(n);
        for (int k = 0; k < ways; k++) {
            memset(packed, 0xff, (size_t)mestk_floats(s) * 4);
            mestk_gather(&way[k], s, x, t.count, packed);
            float *seen = plain_floats(s, packed, t.count);
            check(same(x, seen, n), "gather", name);
            check(padding_repeats(s, t.count, packed), "gather padding", name);
            memset(back, 0xff, (size_t)n * 4);
            mestk_scatter(&way[k], s, packed, t.count, back);
            check(same(x, back, n), "scatter", name);
            free(seen);
        }
        int64_t at = (int64_t)below((int)n);
        check(mestk_first_not_finite(x, n) == -1, "finite", name);
        x[at] = i % 2 ? NAN : -INFINITY;
        x[n - 1] = NAN;
        check(mestk_first_not_finite(x, n) == at, "not finite", name);
        free(x), free(packed), free(back);
    }
}

static uint32_t dropout_draw(uint64_t key, uint64_t index)
{
    uint64_t z = key + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static void test_dropout_and_flatten(shape_case t)
{
    char name[200];
    mestk_shape s = shape_of(t), flat = {s.blocks, t.lanes, t.channels * t.h * t.w, 1, 1};
    name_shape(name, "dropout and flatten", t);
    int64_t total = mestk_floats(s), n = plain_size(s, t.count);
    float *x = random_tensor(s, t.count, 0), *old = random_tensor(s, t.count, 1), *px = plain_floats(s, x, t.count);
    float rate = 0.3f;
    for (int k = 0; k < ways; k++) {
        float *out = floats(total), *added = copy_of(old, total), *y = floats(mestk_floats(flat)), *dx = floats(total);
        memset(out, 0xff, (size_t)total * 4), memset(dx, 0xff, (size_t)total * 4);
        mestk_dropout(&way[k], s, 77, rate, x, out, 0);
        mestk_dropout(&way[k], s, 77, rate, x, added, 1);
        float *fout = plain_floats(s, out, t.count), *fold = plain_floats(s, old, t.count), *fadded = plain_floats(s, added, t.count);
        int ok = 1;
        for (int64_t i = 0; i < n; i++) {
            float want = dropout_draw(77, (uint64_t)i) < rate * 4294967296.0 ? 0.0f : px[i] * (1.0f / (1.0f - rate));
            ok &= fout[i] == want && fadded[i] == fold[i] + want;
        }
        check(ok, "dropout", name);
        mestk_flatten_forward(&way[k], s, x, y);
        float *fy = plain_floats(flat, y, t.count);
        check(same(fy, px, n), "flatten", name);
        mestk_flatten_backward(&way[k], s, y, dx, 0);
        float *fdx = plain_floats(s, dx, t.count);
        check(same(fdx, px, n), "flatten backward", name);
        memcpy(dx, old, (size_t)total * 4);
        mestk_flatten_backward(&way[k], s, y, dx, 1);
        float *fdx2 = plain_floats(s, dx, t.count);
        ok = 1;
        for (int64_t i = 0; i < n; i++) ok &= fdx2[i] == fold[i] + px[i];
        check(ok, "flatten accumulated", name);
        free(out), free(added), free(y), free(dx), free(fout), free(fold), free(fadded), free(fy), free(fdx), free(fdx2);
    }
    free(x), free(old), free(px);
}

static void test_flat(int64_t n)
{
    char name[60];
    snprintf(name, sizeof name, "n %lld", (long long)n);
    float *a = random_floats(n), *b = random_floats(n), *c = random_floats(n), *first[9] = {0};
    mestk_sgd h = {0.1f, 0.9f, 5e-4f, 0.7f, 1}, plainly = {0.1f, 0.9f, 5e-4f, 0.7f, 0};
    for (int k = 0; k < ways; k++) {
        float *got[9];
        for (int i = 0; i < 9; i++) got[i] = copy_of(c, n);
        mestk_relu_forward(&way[k], n, a, got[0]);
        mestk_relu_backward(&way[k], n, a, b, got[1], 0);
        mestk_relu_backward(&way[k], n, a, b, got[2], 1);
        mestk_add(&way[k], n, a, b, got[3]);
        mestk_copy(&way[k], n, a, got[4], 1);
        mestk_sgd_update(&way[k], n, h, a, got[5], got[6]);
        mestk_gradient_average(&way[k], n, 0.9f, a, got[7]);
        mestk_copy(&way[k], n, a, got[8], 0);
        if (k == 0) {
            int ok = 1;
            for (int64_t i = 0; i < n; i++) {
                ok &= got[0][i] == (a[i] > 0 ? a[i] : 0) && got[1][i] == (a[i] > 0 ? b[i] : 0);
                ok &= got[2][i] == c[i] + (a[i] > 0 ? b[i] : 0) && got[3][i] == a[i] + b[i] && got[4][i] == c[i] + a[i];
                double d = (double)5e-4f * c[i] + 0.7 * a[i], m = 0.9 * c[i] + d, w = c[i] - 0.1 * (0.9 * m + d);
                ok &= fabs(got[5][i] - w) < 1e-6 && fabs(got[6][i] - m) < 1e-6;
                ok &= fabs(got[7][i] - (0.9 * c[i] + 0.1 * fabs(a[i]))) < 1e-6 && got[8][i] == a[i];
            }
            check(ok, "value by value", name);
            for (int i = 0; i < 9; i++) mark(got[i], n);
            float *w = copy_of(c, n), *m = copy_of(c, n);
            mestk_sgd_update(&way[k], n, plainly, a, w, m);
            for (int64_t i = 0; i < n; i++) ok &= w[i] == fmaf(-0.1f, m[i], c[i]) && m[i] == got[6][i];
            check(ok, "sgd without nesterov", name);
            free(w), free(m);
            memcpy(first, got, sizeof first);
            continue;
        }
        for (int i = 0; i < 9; i++) check(same(first[i], got[i], n), "value by value, bits", way_name[k]), free(got[i]);
    }
    double squares = 0, magnitudes = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)a[i] * a[i], magnitudes += fabs(a[i]);
    double sums[2] = {mestk_sum_of_squares(&way[0], n, a), mestk_sum_of_magnitudes(&way[0], n, a)};
    check(fabs(sums[0] - squares) <= 1e-6 * squares, "sum of squares", name);
    check(fabs(sums[1] - magnitudes) <= 1e-6 * magnitudes, "sum of magnitudes", name);
    for (int k = 1; k < ways; k++) {
        double got[2] = {mestk_sum_of_squares(&way[k], n, a), mestk_sum_of_magnitudes(&way[k], n, a)};
        check(memcmp(sums, got, sizeof got) == 0, "sums, bits", way_name[k]);
    }
    if (n) {
        a[n / 2] = INFINITY;
        for (int k = 0; k < ways; k++) check(!isfinite(mestk_sum_of_squares(&way[k], n, a)), "sum of squares, infinite", name);
    }
    for (int i = 0; i < 9; i++) free(first[i]);
    free(a), free(b), free(c);
}
#endif
