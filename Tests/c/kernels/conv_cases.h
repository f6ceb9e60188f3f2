/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution, all geometries: against its definition, and every way against the first. */
#ifndef KERNELS_CONV_CASES_H
#define KERNELS_CONV_CASES_H
#include "harness.h"

typedef struct conv_case {
    int lanes, count, cin, cout, h, w, kh, kw, sh, sw, ph, pw;
    double density;
} conv_case;

static mestk_conv geometry(conv_case t)
{
    mestk_conv g = {.kernel_h = t.kh, .kernel_w = t.kw, .stride_h = t.sh, .stride_w = t.sw, .pad_h = t.ph, .pad_w = t.pw};
    int blocks = (t.count + t.lanes - 1) / t.lanes;
    g.in = (mestk_shape){blocks, t.lanes, t.cin, t.h, t.w};
    g.out = (mestk_shape){blocks, t.lanes, t.cout, (t.h + 2 * t.ph - t.kh) / t.sh + 1, (t.w + 2 * t.pw - t.kw) / t.sw + 1};
    return g;
}

typedef struct conv_naive {
    double *y, *y_size, *dx, *dx_size, *dw, *dw_size, *db, *db_size;
} conv_naive;

static conv_naive conv_by_definition(const mestk_conv *g, const matrix *m, const float *bias, const double *x,
                                     const double *dy, int count)
{
    int64_t ny = plain_size(g->out, count), nx = plain_size(g->in, count);
    conv_naive r;
    double **all[8] = {&r.y, &r.y_size, &r.dx, &r.dx_size, &r.dw, &r.dw_size, &r.db, &r.db_size};
    int64_t sizes[4] = {ny, nx, m->count, g->out.channels};
    for (int i = 0; i < 8; i++) *all[i] = memset(get(sizes[i / 2] * 8), 0, (size_t)sizes[i / 2] * 8);
    int64_t plane = (int64_t)g->out.height * g->out.width;
    for (int64_t i = 0; i < ny; i++) {
        int64_t o = i / plane % g->out.channels;
        r.y[i] = bias ? bias[o] : 0;
        r.y_size[i] = fabs(r.y[i]);
        r.db[o] += dy[i];
        r.db_size[o] += fabs(dy[i]);
    }
    for (int64_t j = 0; j < m->count; j++) {
        int o, c, tap;
        connection(&m->w, j, &o, &c, &tap);
        double v = m->w.value[j];
        for (int n = 0; n < count; n++) {
            for (int py = 0; py < g->out.height; py++) {
                for (int px = 0; px < g->out.width; px++) {
                    int qy = py * g->stride_h - g->pad_h + tap / g->kernel_w;
                    int qx = px * g->stride_w - g->pad_w + tap % g->kernel_w;
                    if (qy < 0 || qy >= g->in.height || qx < 0 || qx >= g->in.width) continue;
                    int64_t p = (((int64_t)n * g->out.channels + o) * g->out.height + py) * g->out.width + px;
                    int64_t q = (((int64_t)n * g->in.channels + c) * g->in.height + qy) * g->in.width + qx;
                    r.y[p] += v * x[q], r.y_size[p] += fabs(v * x[q]);
                    r.dx[q] += v * dy[p], r.dx_size[q] += fabs(v * dy[p]);
                    r.dw[j] += x[q] * dy[p], r.dw_size[j] += fabs(x[q] * dy[p]);
                }
            }
        }
    }
    return r;
}

typedef struct conv_result {
    float *y, *dx, *dx_added, *dw, *dw_alone, *db;
} conv_result;

static conv_result run_conv(const mestk_context *k, const mestk_conv *g, const matrix *m, const float *bias,
                            const float *x, const float *dy, const float *old_dx, const float *old_dw, int chunks)
{
    conv_result r = {floats(mestk_floats(g->out)), floats(mestk_floats(g->in)), copy_of(old_dx, mestk_floats(g->in)),
                     copy_of(old_dw, m->count), copy_of(old_dw, m->count), floats(g->out.channels)};
    memset(r.y, 0xff, (size_t)mestk_floats(g->out) * 4); /* NaN: whatever is not written shows */
    memset(r.dx, 0xff, (size_t)mestk_floats(g->in) * 4);
    memset(r.db, 0, (size_t)g->out.channels * 4);
    float *scratch = floats(mestk_conv_forward_scratch(g, k->threads));
    memset(scratch, 0xff, (size_t)mestk_conv_forward_scratch(g, k->threads) * 4);
    mestk_conv_forward(k, g, &m->w, bias, x, r.y, scratch);
    free(scratch);
    int64_t need = mestk_conv_backward_scratch(g, k->threads, chunks, m->count);
    scratch = floats(need);
    memset(scratch, 0xff, (size_t)need * 4);
    float *unused = copy_of(old_dw, m->count);
    mestk_conv_backward(k, g, &m->w, x, dy, r.dx, 0, r.dw, r.db, chunks, scratch);
    mestk_conv_backward(k, g, &m->w, x, dy, r.dx_added, 1, unused, NULL, chunks, scratch);
    mestk_conv_backward(k, g, &m->w, x, dy, NULL, 0, r.dw_alone, NULL, chunks, scratch);
    free(unused);
    free(scratch);
    return r;
}
static void free_conv_result(conv_result *r)
{
    free(r->y), free(r->dx), free(r->dx_added), free(r->dw), free(r->dw_alone), free(r->db);
}

static void test_conv(conv_case t)
{
    char name[200];
    mestk_conv g = geometry(t);
    if (g.out.height < 1 || g.out.width < 1 || t.h + 2 * t.ph < t.kh || t.w + 2 * t.pw < t.kw) return;
    snprintf(name, sizeof name, "conv lanes %d count %d %d->%d %dx%d kernel %dx%d stride %dx%d pad %dx%d density %g", t.lanes,
             t.count, t.cin, t.cout, t.h, t.w, t.kh, t.kw, t.sh, t.sw, t.ph, t.pw, t.density);
    matrix m = random_matrix(t.cout, t.cin, t.kh * t.kw, t.density);
    float *x = random_tensor(g.in, t.count, 0), *dy = random_tensor(g.out, t.count, 1);
    float *old_dx = random_tensor(g.in, t.count, 1), *old_dw = random_floats(m.count);
    float *bias = below(2) ? random_floats(t.cout) : NULL;
    int chunks = 1 + below(6);
    double *dx_plain = plain(g.in, x, t.count), *dy_plain = plain(g.out, dy, t.count);
    conv_naive n = conv_by_definition(&g, &m, bias, dx_plain, dy_plain, t.count);
    conv_result first = run_conv(&way[0], &g, &m, bias, x, dy, old_dx, old_dw, chunks);

    float *y = plain_floats(g.out, first.y, t.count), *dx = plain_floats(g.in, first.dx, t.count);
    float *old = plain_floats(g.in, old_dx, t.count), *added = plain_floats(g.in, first.dx_added, t.count);
    check(near(n.y, n.y_size, y, plain_size(g.out, t.count)), "y", name);
    check(near(n.dx, n.dx_size, dx, plain_size(g.in, t.count)), "dx", name);
    int ok = 1;
    for (int64_t i = 0; i < plain_size(g.in, t.count); i++) ok &= added[i] == old[i] + dx[i];
    check(ok, "dx accumulated", name);
    for (int64_t j = 0; j < m.count; j++) n.dw[j] += old_dw[j], n.dw_size[j] += fabs(old_dw[j]);
    check(near(n.dw, n.dw_size, first.dw, m.count), "dw", name);
    check(near(n.db, n.db_size, first.db, t.cout), "db", name);
    check(same(first.dw, first.dw_alone, m.count), "dw without dx", name);
    mark(y, plain_size(g.out, t.count)), mark(dx, plain_size(g.in, t.count)), mark(first.dw, m.count), mark(first.db, t.cout);
    check(all_finite(g.out, first.y), "padding of y", name);
    check(padding_is_zero(g.in, t.count, first.dx), "padding of dx", name);
    check(padding_is_zero(g.in, t.count, first.dx_added), "padding of accumulated dx", name);
    for (int i = 1; i < ways; i++) {
        char where[300];
        conv_result r = run_conv(&way[i], &g, &m, bias, x, dy, old_dx, old_dw, chunks);
        snprintf(where, sizeof where, "%s: %s", name, way_name[i]);
        float *yi = plain_floats(g.out, r.y, t.count);
        check(same(y, yi, plain_size(g.out, t.count)), "y, bits", where);
        free(yi);
        check(all_finite(g.out, r.y), "padding of y", where);
        check(same(first.dx, r.dx, mestk_floats(g.in)), "dx, bits", where);
        check(same(first.dx_added, r.dx_added, mestk_floats(g.in)), "dx accumulated, bits", where);
        check(same(first.dw, r.dw, m.count), "dw, bits", where);
        check(same(first.dw_alone, r.dw_alone, m.count), "dw without dx, bits", where);
        check(same(first.db, r.db, t.cout), "db, bits", where);
        free_conv_result(&r);
    }
    double *parts[8] = {n.y, n.y_size, n.dx, n.dx_size, n.dw, n.dw_size, n.db, n.db_size};
    for (int i = 0; i < 8; i++) free(parts[i]);
    free(x), free(dy), free(old_dx), free(old_dw), free(bias), free(dx_plain), free(dy_plain);
    free(y), free(dx), free(old), free(added);
    free_conv_result(&first);
    free_matrix(&m);
}

static void test_convs(void)
{
    static const conv_case table[] = {
        /* lanes, count, cin, cout, h, w, kh, kw, sh, sw, ph, pw, density */
        {16, 32, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 0.2},   {16, 16, 40, 70, 8, 8, 3, 3, 1, 1, 1, 1, 0.1},
        {16, 19, 3, 5, 7, 9, 3, 3, 1, 1, 1, 1, 0.5},   {16, 16, 6, 7, 12, 12, 3, 3, 2, 2, 1, 1, 0.3},
        {16, 16, 4, 9, 9, 11, 1, 1, 2, 2, 0, 0, 0.5},  {16, 5, 2, 3, 1, 1, 1, 1, 1, 1, 0, 0, 2},
        {16, 16, 4, 6, 1, 40, 1, 5, 1, 1, 0, 2, 0.3},  {16, 16, 4, 6, 1, 27, 1, 9, 1, 3, 0, 4, 0.4},
        {8, 8, 5, 6, 5, 5, 3, 3, 1, 1, 1, 1, 0.4},     {8, 3, 1, 4, 2, 3, 3, 3, 1, 1, 1, 1, 1.5},
        {8, 16, 20, 30, 6, 10, 5, 5, 1, 1, 2, 2, 0.1}, {8, 8, 3, 4, 10, 10, 7, 7, 2, 2, 3, 3, 0.3},
        {4, 4, 6, 5, 8, 8, 3, 3, 1, 1, 1, 1, 0.3},     {4, 6, 4, 5, 3, 3, 2, 2, 1, 1, 0, 0, 2},
        {4, 4, 2, 2, 2, 2, 5, 5, 1, 1, 2, 2, 0.6},     {1, 1, 3, 4, 6, 6, 3, 3, 1, 1, 1, 1, 0.5},
        {1, 3, 1, 2, 5, 7, 3, 3, 3, 2, 1, 1, 2},       {1, 2, 4, 4, 1, 16, 1, 3, 1, 1, 0, 1, 0.4},
        {16, 16, 3, 3, 4, 4, 3, 3, 5, 5, 1, 1, 0.7},   {16, 17, 2, 3, 3, 5, 3, 3, 1, 1, 4, 4, 0.7},
        {8, 8, 4, 4, 13, 6, 3, 3, 3, 1, 0, 1, 0.4},    {16, 16, 4, 4, 6, 6, 3, 3, 1, 1, 1, 1, 0.0},
        {16, 48, 3, 40, 6, 6, 3, 3, 1, 1, 1, 1, 2},    {16, 16, 90, 40, 4, 4, 3, 3, 1, 1, 1, 1, 0.05},
    };
    static const int lanes[4] = {1, 4, 8, 16};
    static const double densities[5] = {0.1, 0.3, 0.7, 1.5, 2};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        state = seed_now = 1000 + i;
        test_conv(table[i]);
    }
    for (uint64_t i = 0; i < 120; i++) {
        state = seed_now = 2000 + i;
        conv_case t = {.lanes = lanes[below(4)]};
        t.count = 1 + below(2 * t.lanes);
        t.cin = 1 + below(9), t.cout = 1 + below(9);
        t.h = below(4) ? 1 + below(13) : 1, t.w = 1 + below(13);
        t.kh = t.h == 1 && below(3) ? 1 : 1 + below(5), t.kw = 1 + below(5);
        t.sh = 1 + below(3), t.sw = 1 + below(3), t.ph = below(4), t.pw = below(4);
        t.density = densities[below(5)];
        test_conv(t);
    }
}
#endif
