/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution, all geometries, formats, operands and epilogues: against its definition in double,
 * and every way against the first, bit for bit. */
#ifndef KERNELS_DEPTHWISE_CASES_H
#define KERNELS_DEPTHWISE_CASES_H
#include "harness.h"

typedef struct depthwise_case {
    int lanes, count, channels, h, w, kh, kw, sh, sw, ph, pw, format;
} depthwise_case;

/* Operands that networks are made of: bits are scaled, second, second scaled, relu. */
static const int depthwise_kinds[] = {0, 8, 1, 1 | 8, 1 | 2 | 8, 1 | 2 | 4, 1 | 2 | 4 | 8, 2};
enum { DEPTHWISE_GRADIENT = 1 | 2 | 4 }; /* of a batch norm */

static float depthwise_get(const void *p, int format, int64_t i)
{
    uint32_t bits;
    float v;
    if (format == MESTK_F32) return ((const float *)p)[i];
    bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    memcpy(&v, &bits, 4);
    return v;
}

/* garbage: in the padding; otherwise +0 there. */
static void *depthwise_tensor(mestk_shape s, int count, int garbage)
{
    void *t = get(mestk_bytes(s));
    memset(t, 0, (size_t)mestk_bytes(s));
    for (int b = 0; b < s.blocks; b++)
        for (int c = 0; c < s.channels; c++)
            for (int y = 0; y < mestk_tiles_y(s) * mestk_tile_h(s); y++)
                for (int x = 0; x < mestk_tiles_x(s) * mestk_tile_w(s); x++)
                    for (int l = 0; l < s.lanes; l++) {
                        int valid = y < s.height && x < s.width && b * s.lanes + l < count;
                        int64_t at = mestk_line(s, b, c, y, x) + l;
                        float v = valid ? uniform() : garbage ? 100.0f * uniform() : 0.0f;
                        uint32_t bits;
                        memcpy(&bits, &v, 4);
                        if (s.format == MESTK_F32) ((float *)t)[at] = v;
                        else ((uint16_t *)t)[at] = (uint16_t)(bits >> 16);
                    }
    return t;
}

static mestk_operand depthwise_operand(mestk_shape s, int count, int kind, int gradient, void **owned)
{
    mestk_operand v = {0};
    v.x = owned[0] = depthwise_tensor(s, count, !gradient);
    if (kind & 1) v.a = owned[1] = random_floats(s.channels), v.b = owned[2] = random_floats(s.channels);
    if (kind & 2) v.r = owned[3] = depthwise_tensor(s, count, 1);
    if (kind & 4) v.c = owned[4] = random_floats(s.channels);
    v.relu = (kind & 8) != 0;
    return v;
}

/* As the kernels have to round it. */
static float depthwise_value(const mestk_operand *o, mestk_shape s, int n, int c, int y, int x)
{
    int64_t at = mestk_line(s, n / s.lanes, c, y, x) + n % s.lanes;
    float v = depthwise_get(o->x, s.format, at);
    if (o->a) v = fmaf(o->a[c], v, o->b[c]);
    if (o->r) {
        float r = depthwise_get(o->r, s.format, at);
        v = o->c ? fmaf(o->c[c], r, v) : v + r;
    }
    return o->relu && v <= 0 ? 0 : v;
}

typedef struct depthwise_result {
    void *y, *dx;
    double *sums, *normed[2];
    float *dw, *db;
} depthwise_result;

typedef struct depthwise_inputs {
    mestk_conv g;
    int count, chunks, wants_sums, wants_dx, accumulate, masked, norms, wants_db;
    float *w, *start, *old_dw;
    mestk_operand x, dy;
    void *old_dx, *normed[2];
} depthwise_inputs;

static int64_t depthwise_taps(const mestk_conv *g) { return (int64_t)g->in.channels * g->kernel_h * g->kernel_w; }
static int64_t depthwise_sum_bytes(mestk_shape s) { return (int64_t)mestk_strips(s) * s.channels * 16; }

static depthwise_result run_depthwise(const mestk_context *k, const depthwise_inputs *in)
{
    const mestk_conv *g = &in->g;
    depthwise_result r = {get(mestk_bytes(g->out)), get(mestk_bytes(g->in)), get(depthwise_sum_bytes(g->out)),
                          {get(depthwise_sum_bytes(g->in)), get(depthwise_sum_bytes(g->in))},
                          floats(depthwise_taps(g)), floats(g->in.channels)};
    memset(r.y, 0xff, (size_t)mestk_bytes(g->out)); /* NaN: whatever is not written shows */
    memset(r.sums, 0, (size_t)depthwise_sum_bytes(g->out));
    for (int n = 0; n < 2; n++) memset(r.normed[n], 0, (size_t)depthwise_sum_bytes(g->in));
    if (in->accumulate) memcpy(r.dx, in->old_dx, (size_t)mestk_bytes(g->in));
    else memset(r.dx, 0xff, (size_t)mestk_bytes(g->in));
    memcpy(r.dw, in->old_dw, (size_t)depthwise_taps(g) * 4);
    memset(r.db, 0, (size_t)g->in.channels * 4);

    int64_t need = mestk_depthwise_forward_scratch(g, k->threads);
    float *scratch = floats(need);
    memset(scratch, 0xff, (size_t)need * 4);
    mestk_depthwise_forward(k, g, in->w, in->start, &in->x, r.y, in->count, in->wants_sums ? r.sums : NULL, scratch);
    free(scratch);
    need = mestk_depthwise_backward_scratch(g, k->threads, in->chunks);
    scratch = floats(need);
    memset(scratch, 0xff, (size_t)need * 4);
    mestk_gradient dx = {.dx = in->wants_dx ? r.dx : NULL, .accumulate = in->accumulate, .masked = in->masked};
    for (int n = 0; n < in->norms; n++) dx.normed[n] = in->normed[n], dx.sums[n] = r.normed[n];
    mestk_depthwise_backward(k, g, in->w, &in->x, &in->dy, in->count, &dx, r.dw, in->wants_db ? r.db : NULL, in->chunks, scratch);
    free(scratch);
    return r;
}
static void free_depthwise(depthwise_result *r)
{
    free(r->y), free(r->dx), free(r->sums), free(r->normed[0]), free(r->normed[1]), free(r->dw), free(r->db);
}

static int depthwise_close(double want, double size, double got, int format)
{
    return fabs(got - want) <= (format == MESTK_F32 ? 4e-6 : 8e-3) * size + 1e-6;
}

/* Sums of the stored v, and of v times `other`, against those in double. */
static int depthwise_sums_fit(mestk_shape s, int count, const void *v, const void *other, const double *sums)
{
    for (int strip = 0; strip < mestk_strips(s); strip++)
        for (int c = 0; c < s.channels; c++) {
            double want[2] = {0, 0}, size[2] = {0, 0};
            int th = mestk_tile_h(s), ty = mestk_tiles_y(s), y0 = strip % ty * th;
            for (int y = y0; y < s.height && y < y0 + th; y++)
                for (int x = 0; x < s.width; x++)
                    for (int l = 0; l < s.lanes && strip / ty * s.lanes + l < count; l++) {
                        int64_t at = mestk_line(s, strip / ty, c, y, x) + l;
                        double a = depthwise_get(v, s.format, at), b = depthwise_get(other, s.format, at);
                        want[0] += a, size[0] += fabs(a), want[1] += a * b, size[1] += fabs(a * b);
                    }
            for (int i = 0; i < 2; i++)
                if (!depthwise_close(want[i], size[i], sums[((int64_t)strip * s.channels + c) * 2 + i], MESTK_F32)) return 0;
        }
    return 1;
}

/* By the definition of depthwise.h, in double. */
static void check_depthwise(const depthwise_inputs *in, const depthwise_result *r, const char *name)
{
    const mestk_conv *g = &in->g;
    mestk_shape si = g->in, so = g->out;
    int taps = g->kernel_h * g->kernel_w, y_fits = 1, dx_fits = 1, dw_fits = 1, db_fits = 1, zeros = 1, finite = 1;
    double *dw = get(taps * 8), *size = get(taps * 8);
    for (int c = 0; c < si.channels; c++) {
        const float *w = in->w + (int64_t)c * taps;
        double db = 0, db_size = 0;
        for (int t = 0; t < taps; t++) dw[t] = in->old_dw[c * taps + t], size[t] = fabs(dw[t]);
        for (int n = 0; n < in->count; n++) {
            for (int y = 0; y < so.height; y++)
                for (int x = 0; x < so.width; x++) {
                    double v = in->start ? in->start[c] : 0, most = fabs(v), d = depthwise_value(&in->dy, so, n, c, y, x);
                    db += d, db_size += fabs(d);
                    for (int t = 0; t < taps; t++) {
                        int qy = y * g->stride_h + t / g->kernel_w - g->pad_h;
                        int qx = x * g->stride_w + t % g->kernel_w - g->pad_w;
                        if (qy < 0 || qy >= si.height || qx < 0 || qx >= si.width) continue;
                        double q = depthwise_value(&in->x, si, n, c, qy, qx);
                        v += w[t] * q, most += fabs(w[t] * q), dw[t] += d * q, size[t] += fabs(d * q);
                    }
                    int64_t at = mestk_line(so, n / so.lanes, c, y, x) + n % so.lanes;
                    y_fits &= depthwise_close(v, most, depthwise_get(r->y, so.format, at), so.format);
                }
            for (int y = 0; in->wants_dx && y < si.height; y++)
                for (int x = 0; x < si.width; x++) {
                    int64_t at = mestk_line(si, n / si.lanes, c, y, x) + n % si.lanes;
                    double v = in->accumulate ? depthwise_get(in->old_dx, si.format, at) : 0, most = fabs(v);
                    for (int t = 0; t < taps; t++) {
                        int py = y + g->pad_h - t / g->kernel_w, px = x + g->pad_w - t % g->kernel_w;
                        if (py < 0 || px < 0 || py % g->stride_h || px % g->stride_w) continue;
                        py /= g->stride_h, px /= g->stride_w;
                        if (py >= so.height || px >= so.width) continue;
                        double d = w[t] * (double)depthwise_value(&in->dy, so, n, c, py, px);
                        v += d, most += fabs(d);
                    }
                    if (in->masked && !(depthwise_value(&in->x, si, n, c, y, x) > 0)) v = most = 0;
                    dx_fits &= depthwise_close(v, most, depthwise_get(r->dx, si.format, at), si.format);
                }
        }
        for (int t = 0; t < taps; t++) dw_fits &= depthwise_close(dw[t], size[t], r->dw[c * taps + t], MESTK_F32);
        if (in->wants_db) db_fits &= depthwise_close(db, db_size, r->db[c], MESTK_F32);
    }
    for (int b = 0; b < si.blocks; b++) /* padding: +0 in gradients, finite in activations */
        for (int c = 0; c < si.channels; c++) {
            for (int y = 0; in->wants_dx && y < mestk_tiles_y(si) * mestk_tile_h(si); y++)
                for (int x = 0; x < mestk_tiles_x(si) * mestk_tile_w(si); x++)
                    for (int l = 0; l < si.lanes; l++) {
                        float v = depthwise_get(r->dx, si.format, mestk_line(si, b, c, y, x) + l);
                        int valid = y < si.height && x < si.width && b * si.lanes + l < in->count;
                        zeros &= valid || (v == 0 && !signbit(v));
                    }
            for (int y = 0; y < mestk_tiles_y(so) * mestk_tile_h(so); y++)
                for (int x = 0; x < mestk_tiles_x(so) * mestk_tile_w(so); x++)
                    for (int l = 0; l < so.lanes; l++)
                        finite &= isfinite(depthwise_get(r->y, so.format, mestk_line(so, b, c, y, x) + l)) != 0;
        }
    check(y_fits, "y", name);
    check(dx_fits, "dx", name);
    check(dw_fits, "dw", name);
    check(db_fits, "db", name);
    check(zeros, "padding of dx", name);
    check(finite, "padding of y", name);
    if (in->wants_sums) check(depthwise_sums_fit(so, in->count, r->y, r->y, r->sums), "sums of y", name);
    for (int n = 0; n < in->norms && in->wants_dx; n++)
        check(depthwise_sums_fit(si, in->count, r->dx, in->normed[n], r->normed[n]), "sums of dx", name);
    free(dw), free(size);
}

static void test_depthwise_case(depthwise_case t)
{
    if (t.h + 2 * t.ph < t.kh || t.w + 2 * t.pw < t.kw || t.ph >= t.kh || t.pw >= t.kw) return;
    int blocks = (t.count + t.lanes - 1) / t.lanes;
    depthwise_inputs in = {.count = t.count, .chunks = 1 + below(6), .wants_sums = below(2), .wants_dx = below(5) > 0};
    in.g = (mestk_conv){.kernel_h = t.kh, .kernel_w = t.kw, .stride_h = t.sh, .stride_w = t.sw, .pad_h = t.ph, .pad_w = t.pw};
    in.g.in = (mestk_shape){blocks, t.lanes, t.channels, t.h, t.w, t.format};
    in.g.out = in.g.in;
    in.g.out.height = (t.h + 2 * t.ph - t.kh) / t.sh + 1;
    in.g.out.width = (t.w + 2 * t.pw - t.kw) / t.sw + 1;
    void *owned[14] = {0};
    int normed = below(2);
    in.x = depthwise_operand(in.g.in, t.count, depthwise_kinds[below(8)], 0, owned);
    in.dy = depthwise_operand(in.g.out, t.count, normed ? DEPTHWISE_GRADIENT : 0, 1, owned + 5);
    in.accumulate = below(2), in.masked = below(2), in.norms = below(3), in.wants_db = !normed;
    in.w = owned[10] = random_floats(depthwise_taps(&in.g));
    in.old_dw = owned[11] = random_floats(depthwise_taps(&in.g));
    if (below(2)) in.start = owned[12] = random_floats(t.channels);
    in.old_dx = owned[13] = depthwise_tensor(in.g.in, t.count, 0);
    for (int n = 0; n < in.norms; n++) in.normed[n] = depthwise_tensor(in.g.in, t.count, 1);

    char name[200], where[300];
    snprintf(name, sizeof name, "depthwise lanes %d count %d channels %d %dx%d kernel %dx%d stride %dx%d pad %dx%d format %d", t.lanes,
             t.count, t.channels, t.h, t.w, t.kh, t.kw, t.sh, t.sw, t.ph, t.pw, t.format);
    depthwise_result first = run_depthwise(&way[0], &in);
    check_depthwise(&in, &first, name);
    for (int i = 1; i < ways; i++) {
        depthwise_result r = run_depthwise(&way[i], &in);
        snprintf(where, sizeof where, "%s: %s", name, way_name[i]);
        check(!memcmp(first.y, r.y, (size_t)mestk_bytes(in.g.out)), "y, bits", where);
        check(!memcmp(first.sums, r.sums, (size_t)depthwise_sum_bytes(in.g.out)), "sums of y, bits", where);
        check(!memcmp(first.dx, r.dx, (size_t)mestk_bytes(in.g.in)), "dx, bits", where);
        check(!memcmp(first.dw, r.dw, (size_t)depthwise_taps(&in.g) * 4), "dw, bits", where);
        check(!memcmp(first.db, r.db, (size_t)t.channels * 4), "db, bits", where);
        for (int n = 0; n < 2; n++)
            check(!memcmp(first.normed[n], r.normed[n], (size_t)depthwise_sum_bytes(in.g.in)), "sums of dx, bits", where);
        free_depthwise(&r);
    }
    free_depthwise(&first);
    for (int i = 0; i < 14; i++) free(owned[i]);
    for (int n = 0; n < in.norms; n++) free(in.normed[n]);
}

static void test_depthwise(void)
{
    static const depthwise_case table[] = {
        /* lanes, count, channels, h, w, kh, kw, sh, sw, ph, pw */
        {16, 32, 8, 8, 8, 3, 3, 1, 1, 1, 1, 0},   {16, 19, 5, 25, 5, 3, 3, 1, 1, 1, 1, 0}, {16, 17, 3, 7, 9, 3, 3, 1, 1, 1, 1, 0},
        {16, 16, 6, 12, 12, 3, 3, 2, 2, 1, 1, 0}, {16, 16, 4, 9, 11, 5, 5, 1, 1, 2, 2, 0}, {16, 5, 3, 1, 1, 1, 1, 1, 1, 0, 0, 0},
        {16, 16, 4, 1, 40, 1, 5, 1, 1, 0, 2, 0},  {16, 33, 4, 1, 27, 1, 9, 1, 3, 0, 4, 0}, {8, 8, 5, 5, 5, 3, 3, 1, 1, 1, 1, 0},
        {8, 3, 2, 2, 3, 3, 3, 1, 1, 1, 1, 0},     {8, 8, 3, 10, 10, 7, 7, 2, 2, 3, 3, 0},  {4, 4, 6, 8, 8, 3, 3, 1, 1, 1, 1, 0},
        {4, 6, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0},     {4, 4, 2, 2, 2, 5, 5, 1, 1, 2, 2, 0},    {1, 1, 7, 6, 6, 3, 3, 1, 1, 1, 1, 0},
        {1, 3, 3, 5, 7, 3, 3, 3, 2, 1, 1, 0},     {16, 16, 3, 4, 4, 3, 3, 5, 5, 1, 1, 0},  {8, 8, 4, 13, 6, 3, 3, 3, 1, 0, 1, 0},
        {16, 16, 2, 6, 6, 3, 3, 1, 1, 0, 0, 0},   {16, 16, 2, 3, 6, 3, 3, 1, 1, 2, 2, 0},  {16, 9, 3, 11, 3, 3, 3, 2, 2, 0, 1, 0},
    };
    static const int lanes[4] = {1, 4, 8, 16};
    for (size_t i = 0; i < 2 * sizeof table / sizeof *table; i++) {
        depthwise_case t = table[i / 2];
        t.format = i % 2;
        state = seed_now = 10000 + i;
        test_depthwise_case(t);
    }
    for (uint64_t i = 0; i < 240; i++) {
        state = seed_now = 11000 + i;
        depthwise_case t = {.lanes = lanes[below(4)], .format = below(2)};
        t.count = 1 + below(2 * t.lanes);
        t.channels = 1 + below(6);
        t.h = below(4) ? 1 + below(13) : 1, t.w = 1 + below(13);
        t.kh = t.h == 1 && below(3) ? 1 : 1 + below(5), t.kw = 1 + below(5);
        t.sh = 1 + below(3), t.sw = 1 + below(3), t.ph = below(4), t.pw = below(4);
        if (below(3) == 0) t.kh = t.kw = 3, t.sh = t.sw = 1;
        test_depthwise_case(t);
    }
}
#endif
