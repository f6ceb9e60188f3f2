/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation. */
#ifndef KERNELS_NORM_CASES_H
#define KERNELS_NORM_CASES_H
#include "harness.h"

static void test_norm(shape_case t)
{
    char name[200];
    mestk_shape s = shape_of(t);
    name_shape(name, "norm", t);
    int C = t.channels, plane = t.h * t.w;
    int64_t total = mestk_floats(s), n = plain_size(s, t.count);
    float eps = 1e-5f;
    float *x = random_tensor(s, t.count, 0), *dy = random_tensor(s, t.count, 1), *old = random_tensor(s, t.count, 1);
    float *pivot = random_floats(C), *scale = random_floats(C), *shift = random_floats(C);
    double *px = plain(s, x, t.count), *pdy = plain(s, dy, t.count);
    double *mean = get(C * 8), *var = get(C * 8), *y = get(n * 8), *dx = get(n * 8), *dscale = get(C * 8), *dshift = get(C * 8);
    double *unit = get(n * 8);
    double N = (double)t.count * plane;
    for (int c = 0; c < C; c++) {
        double sum = 0, squares = 0, g = 0, gx = 0;
        for (int64_t i = 0; i < n; i++)
            if (i / plane % C == c) sum += px[i];
        mean[c] = sum / N;
        for (int64_t i = 0; i < n; i++)
            if (i / plane % C == c) squares += (px[i] - mean[c]) * (px[i] - mean[c]);
        var[c] = squares / N;
        double inverse = 1 / sqrt(var[c] + eps);
        for (int64_t i = 0; i < n; i++)
            if (i / plane % C == c) g += pdy[i], gx += pdy[i] * (px[i] - mean[c]) * inverse;
        dscale[c] = gx, dshift[c] = g;
        for (int64_t i = 0; i < n; i++) {
            if (i / plane % C != c) continue;
            double hat = (px[i] - mean[c]) * inverse;
            y[i] = hat * scale[c] + shift[c];
            dx[i] = scale[c] * inverse * (pdy[i] - g / N - hat * gx / N);
            unit[i] = 3 + 3 * fabs(scale[c] * inverse);
        }
    }
    float *first[7];
    for (int k = 0; k < ways; k++) {
        float *got[7] = {floats(C), floats(C), floats(total), floats(total), copy_of(old, total), floats(C), floats(C)};
        int64_t sizes[7] = {C, C, 0, total, total, C, C};
        memset(got[3], 0xff, (size_t)total * 4);
        memset(got[5], 0, (size_t)C * 4), memset(got[6], 0, (size_t)C * 4);
        mestk_norm_statistics(&way[k], s, t.count, x, pivot, got[0], got[1]);
        mestk_norm_apply(&way[k], s, x, got[0], got[1], eps, scale, shift, got[2]);
        mestk_norm_backward(&way[k], s, t.count, x, got[0], got[1], eps, scale, dy, got[3], 0, got[5], got[6]);
        mestk_norm_backward(&way[k], s, t.count, x, got[0], got[1], eps, scale, dy, got[4], 1, NULL, NULL);
        float *in_place = copy_of(dy, total);
        mestk_norm_backward(&way[k], s, t.count, x, got[0], got[1], eps, scale, in_place, in_place, 0, NULL, NULL);
        check(same(in_place, got[3], total), "norm dx in place", name);
        free(in_place);
        if (k == 0) {
            float *fy = plain_floats(s, got[2], t.count), *fdx = plain_floats(s, got[3], t.count);
            check(near(mean, NULL, got[0], C), "norm mean", name);
            mark(fy, n);
            for (int p = 0; p < 7; p++) mark(got[p], sizes[p]);
            check(near(var, NULL, got[1], C), "norm var", name);
            if (N > 2) check(near(y, unit, fy, n), "norm y", name);
            if (N > 2) check(near(dx, unit, fdx, n), "norm dx", name);
            for (int c = 0; c < C; c++) unit[c] = 20 * sqrt(N) + fabs(dscale[c]);
            check(near(dscale, unit, got[5], C), "norm dscale", name);
            check(near(dshift, unit, got[6], C), "norm dshift", name);
            check(padding_is_zero(s, t.count, got[3]), "norm padding of dx", name);
            check(padding_is_zero(s, t.count, got[4]), "norm padding of accumulated dx", name);
            check(all_finite(s, got[2]), "norm padding of y", name);
            int ok = 1;
            for (int64_t i = 0; i < total; i++) ok &= got[4][i] == old[i] + got[3][i];
            check(ok, "norm accumulated", name);
            free(fy), free(fdx);
            memcpy(first, got, sizeof first);
            continue;
        }
        float *a = plain_floats(s, first[2], t.count), *b = plain_floats(s, got[2], t.count);
        check(same(a, b, n), "norm y, bits", name);
        free(a), free(b);
        for (int p = 0; p < 7; p++) {
            char what[60];
            snprintf(what, sizeof what, "norm, bits of result %d, %s", p, way_name[k]);
            check(same(first[p], got[p], sizes[p]), what, name);
            free(got[p]);
        }
    }
    for (int p = 0; p < 7; p++) free(first[p]);
    free(x), free(dy), free(old), free(pivot), free(scale), free(shift), free(px), free(pdy), free(mean), free(var);
    free(y), free(dx), free(dscale), free(dshift), free(unit);
}
#endif
