/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling: windows and global. */
#ifndef KERNELS_POOL_CASES_H
#define KERNELS_POOL_CASES_H
#include "conv_cases.h"

static void test_pool(conv_case t, int maximum)
{
    char name[200];
    mestk_conv g = geometry(t);
    if (!possible(t)) return;
    snprintf(name, sizeof name, "%s pool %s lanes %d count %d %dx%dx%d kernel %dx%d stride %dx%d pad %dx%d",
             maximum ? "max" : "avg", t.format == MESTK_BF16 ? "bf16" : "f32", t.lanes, t.count, t.cin, t.h, t.w, t.kh, t.kw,
             t.sh, t.sw, t.ph, t.pw);
    int64_t nx = plain_size(g.in, t.count), ny = plain_size(g.out, t.count);
    void *x = random_tensor(g.in, t.count, 0), *dy = random_tensor(g.out, t.count, 1), *old = random_tensor(g.in, t.count, 1);
    for (int64_t i = 0; i < mestk_values(g.in); i++) put_value(g.in, x, i, floorf(value_of(g.in, x, i) * 4)); /* many equal values */
    double *px = plain(g.in, x, t.count), *pdy = plain(g.out, dy, t.count), *pold = plain(g.in, old, t.count);
    double *y = get(ny * 8), *dx = get(nx * 8), *size = get(nx * 8);
    for (int64_t i = 0; i < nx; i++) dx[i] = 0, size[i] = 4;
    for (int64_t i = 0; i < ny; i++) {
        int64_t plane = i / g.out.width / g.out.height * t.h * t.w, best = -1;
        int oy = (int)(i / g.out.width % g.out.height), ox = (int)(i % g.out.width);
        double sum = 0;
        for (int ky = 0; ky < t.kh; ky++) {
            for (int kx = 0; kx < t.kw; kx++) {
                int qy = oy * t.sh - t.ph + ky, qx = ox * t.sw - t.pw + kx;
                if (qy < 0 || qy >= t.h || qx < 0 || qx >= t.w) continue;
                int64_t q = plane + qy * t.w + qx;
                sum += px[q];
                if (best < 0 || px[q] > px[best]) best = q;
                if (!maximum) dx[q] += pdy[i] / (t.kh * t.kw);
            }
        }
        y[i] = maximum ? best < 0 ? 0 : px[best] : sum / (t.kh * t.kw);
        if (maximum && best >= 0) dx[best] += pdy[i];
    }
    /* dx is stored after every window: up to 9 roundings of up to 10. */
    double many = 9 * step_of(t.format) * 10;
    void *first[3] = {0};
    for (int k = 0; k < ways; k++) {
        void *got[3] = {new_tensor(g.out), new_tensor(g.in), tensor_copy(g.in, old)};
        (maximum ? mestk_max_pool_forward : mestk_avg_pool_forward)(&way[k], &g, x, got[0]);
        if (maximum) {
            mestk_max_pool_backward(&way[k], &g, x, dy, got[1], 0);
            mestk_max_pool_backward(&way[k], &g, x, dy, got[2], 1);
        } else {
            mestk_avg_pool_backward(&way[k], &g, dy, got[1], 0);
            mestk_avg_pool_backward(&way[k], &g, dy, got[2], 1);
        }
        if (k == 0) {
            float *fy = plain_floats(g.out, got[0], t.count), *fdx = plain_floats(g.in, got[1], t.count);
            float *added = plain_floats(g.in, got[2], t.count);
            check(near_stored(y, NULL, fy, ny, maximum ? 0 : step_of(t.format)), "y", name);
            mark(fy, ny), mark(fdx, nx), mark(added, nx);
            for (int64_t i = 0; i < nx; i++) size[i] = 4 + many / 4e-6;
            check(near(dx, size, fdx, nx), "dx", name);
            for (int64_t i = 0; i < nx; i++) dx[i] += pold[i];
            check(near(dx, size, added, nx), "dx accumulated", name);
            check(padding_is_zero(g.in, t.count, got[1]) && padding_is_zero(g.in, t.count, got[2]), "padding of dx", name);
            check(all_finite(g.out, got[0]), "padding of y", name);
            free(fy), free(fdx), free(added);
            memcpy(first, got, sizeof first);
            continue;
        }
        check(same_tensor(g.out, first[0], got[0]), "y, bits", name);
        check(same_tensor(g.in, first[1], got[1]), "dx, bits", name);
        check(same_tensor(g.in, first[2], got[2]), "dx accumulated, bits", name);
        for (int p = 0; p < 3; p++) free(got[p]);
    }
    for (int p = 0; p < 3; p++) free(first[p]);
    free(x), free(dy), free(old), free(px), free(pdy), free(pold), free(y), free(dx), free(size);
}

static void test_global_pool(shape_case t, int format)
{
    char name[200];
    mestk_shape s = shape_of(t, format), flat = {s.blocks, t.lanes, t.channels, 1, 1, MESTK_F32};
    name_shape(name, "global pool", t, format);
    int64_t ny = mestk_values(flat);
    void *x = random_tensor(s, t.count, 0), *old = random_tensor(s, t.count, 1);
    float *dy = random_tensor(flat, t.count, 1), *y = floats(ny), *first = NULL;
    double *px = plain(s, x, t.count);
    for (int k = 0; k < ways; k++) {
        void *dx = new_tensor(s), *added = tensor_copy(s, old);
        memset(y, 0xff, (size_t)ny * 4);
        mestk_global_pool_forward(&way[k], s, x, y);
        mestk_global_pool_backward(&way[k], s, dy, dx, 0);
        mestk_global_pool_backward(&way[k], s, dy, added, 1);
        int ok = 1, plane = t.h * t.w;
        float *fy = plain_floats(flat, y, t.count), *fdy = plain_floats(flat, dy, t.count);
        float *fdx = plain_floats(s, dx, t.count), *fold = plain_floats(s, old, t.count), *fadded = plain_floats(s, added, t.count);
        for (int64_t p = 0; p < (int64_t)t.count * t.channels; p++) {
            double sum = 0;
            float share = fdy[p] * (1.0f / (float)plane);
            for (int q = 0; q < plane; q++) {
                sum += px[p * plane + q];
                ok &= fdx[p * plane + q] == round_to(format, share);
                ok &= fadded[p * plane + q] == round_to(format, fold[p * plane + q] + share);
            }
            ok &= fabs(fy[p] - sum / plane) < 1e-5;
        }
        check(ok, "global pool", name);
        check(padding_is_zero(s, t.count, dx) && padding_is_zero(s, t.count, added), "global pool padding", name);
        if (first) check(same(first, fy, (int64_t)t.count * t.channels), "global pool, bits", name);
        else first = copy_of(fy, (int64_t)t.count * t.channels);
        free(dx), free(added), free(fy), free(fdy), free(fdx), free(fold), free(fadded);
    }
    free(x), free(old), free(dy), free(y), free(px), free(first);
}

static void test_pools(void)
{
    static const int lanes[4] = {1, 4, 8, 16};
    for (uint64_t i = 0; i < 80; i++) {
        state = seed_now = 5000 + i;
        conv_case t = {.lanes = lanes[below(4)], .format = i / 2 % 2 ? MESTK_BF16 : MESTK_F32};
        t.count = 1 + below(2 * t.lanes);
        t.cin = t.cout = 1 + below(5);
        t.h = 1 + below(11), t.w = 1 + below(11), t.kh = 1 + below(3), t.kw = 1 + below(3);
        t.sh = 1 + below(3), t.sw = 1 + below(3), t.ph = below(t.kh), t.pw = below(t.kw);
        test_pool(t, i % 2);
    }
    for (int i = 0; i < 2 * SHAPES; i++) {
        state = seed_now = 6000 + (uint64_t)i;
        test_global_pool(shapes[i / 2], i % 2);
    }
}
#endif
