/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution, all geometries, formats and operands: against its definition, every way against the first,
 * what an epilogue does against the kernel that does it alone. */
#ifndef KERNELS_CONV_CASES_H
#define KERNELS_CONV_CASES_H
#include "harness.h"

typedef struct conv_case {
    int lanes, count, cin, cout, h, w, kh, kw, sh, sw, ph, pw;
    double density;
    int format, empty; /* empty: blocks of lanes without any sample (the last batch of an epoch) */
} conv_case;

static mestk_conv geometry(conv_case t)
{
    mestk_conv g = {.kernel_h = t.kh, .kernel_w = t.kw, .stride_h = t.sh, .stride_w = t.sw, .pad_h = t.ph, .pad_w = t.pw};
    int blocks = (t.count + t.lanes - 1) / t.lanes + t.empty;
    g.in = (mestk_shape){blocks, t.lanes, t.cin, t.h, t.w, t.format};
    g.out = (mestk_shape){blocks, t.lanes, t.cout, (t.h + 2 * t.ph - t.kh) / t.sh + 1, (t.w + 2 * t.pw - t.kw) / t.sw + 1, t.format};
    return g;
}
static int possible(conv_case t) { return t.h + 2 * t.ph >= t.kh && t.w + 2 * t.pw >= t.kw; }

typedef struct conv_naive {
    double *y, *y_size, *dx, *dx_size, *dw, *dw_size, *db, *db_size;
} conv_naive;

static conv_naive conv_by_definition(const mestk_conv *g, const matrix *m, const float *start, const double *x,
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
        r.y[i] = start ? start[o] : 0;
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
static void free_naive(conv_naive *n)
{
    free(n->y), free(n->y_size), free(n->dx), free(n->dx_size);
    free(n->dw), free(n->dw_size), free(n->db), free(n->db_size);
}

/* What all ways of one case are given. */
typedef struct conv_data {
    conv_case t;
    mestk_conv g;
    matrix m;
    random_operand x, dy;
    float *start, *old_dw, *old_db;
    void *old_dx, *normed[2];
    int chunks, stored_dy;
} conv_data;

/* What is to happen to dx. */
typedef struct conv_end {
    int dx, accumulate, masked, normed;
} conv_end;

typedef struct conv_result {
    void *y, *dx;
    float *dw, *db;
    double *sums, *normed[2];
} conv_result;

static void free_conv_result(conv_result *r)
{
    free(r->y), free(r->dx), free(r->dw), free(r->db), free(r->sums), free(r->normed[0]), free(r->normed[1]);
}

static void run_forward(const mestk_context *k, const conv_data *d, conv_result *r, int with_sums, const char *where)
{
    int64_t need = mestk_conv_forward_scratch(&d->g, k->threads, d->m.count);
    float *scratch = new_scratch(need);
    r->y = new_tensor(d->g.out);
    r->sums = with_sums ? new_sums(d->g.out) : NULL;
    mestk_conv_forward(k, &d->g, &d->m.w, d->start, &d->x.v, r->y, d->t.count, r->sums, scratch);
    check(scratch_kept(scratch, need), "forward scratch", where);
}

static void run_backward(const mestk_context *k, const conv_data *d, conv_end e, conv_result *r, const char *where)
{
    int64_t need = mestk_conv_backward_scratch(&d->g, k->threads, d->chunks, d->m.count);
    float *scratch = new_scratch(need);
    r->dx = e.accumulate ? tensor_copy(d->g.in, d->old_dx) : new_tensor(d->g.in);
    r->dw = copy_of(d->old_dw, d->m.count);
    r->db = copy_of(d->old_db, d->g.out.channels);
    mestk_gradient to = {.dx = e.dx ? r->dx : NULL, .accumulate = e.accumulate, .masked = e.masked};
    for (int i = 0; i < e.normed; i++) {
        to.normed[i] = d->normed[i];
        to.sums[i] = r->normed[i] = new_sums(d->g.in);
    }
    mestk_conv_backward(k, &d->g, &d->m.w, &d->x.v, &d->dy.v, d->t.count, &to, r->dw, d->stored_dy ? r->db : NULL,
                        d->chunks, scratch);
    check(scratch_kept(scratch, need), "backward scratch", where);
}

static void check_forward(const conv_data *d, const conv_naive *n, const conv_result *r, const char *name)
{
    const mestk_conv *g = &d->g;
    int count = d->t.count;
    int64_t ny = plain_size(g->out, count);
    float *y = plain_floats(g->out, r->y, count);
    check(near_stored(n->y, n->y_size, y, ny, step_of(g->out.format)), "y", name);
    check(all_finite(g->out, r->y), "padding of y", name);
    check(sums_are(g->out, count, r->sums, r->y, r->y, NULL), "sums of y", name);
    mark(y, ny);
    free(y);
    float *zero = memset(floats(g->out.channels), 0, (size_t)g->out.channels * 4);
    double *moments = new_sums(g->out);
    mestk_norm_moments(&way[0], g->out, count, r->y, zero, moments);
    check(same_sums(moments, r->sums, sums_size(g->out)), "sums of y as norm_moments has them", name);
    free(zero), free(moments);
}

static void check_backward(const conv_data *d, const conv_naive *n, conv_end e, const conv_result *r, const char *name)
{
    const mestk_conv *g = &d->g;
    int count = d->t.count;
    int64_t nx = plain_size(g->in, count);
    double *dw = get(d->m.count * 8), *size = get(d->m.count * 8), *db = get(g->out.channels * 8), *db_size = get(g->out.channels * 8);
    for (int64_t j = 0; j < d->m.count; j++) {
        dw[j] = n->dw[j] + (double)d->old_dw[j];
        size[j] = n->dw_size[j] + fabs((double)d->old_dw[j]);
    }
    for (int o = 0; o < g->out.channels; o++) {
        db[o] = (d->stored_dy ? n->db[o] : 0) + (double)d->old_db[o];
        db_size[o] = n->db_size[o] + fabs((double)d->old_db[o]);
    }
    check(near(dw, size, r->dw, d->m.count), "dw", name);
    check(near(db, db_size, r->db, g->out.channels), "db", name);
    mark(r->dw, d->m.count), mark(r->db, g->out.channels);
    free(dw), free(size), free(db), free(db_size);
    if (!e.dx) return;
    double *dx = get(nx * 8), *x = plain_operand(g->in, &d->x.v, count), *old = plain(g->in, d->old_dx, count);
    float *got = plain_floats(g->in, r->dx, count);
    for (int64_t i = 0; i < nx; i++) dx[i] = e.masked && !(x[i] > 0) ? 0 : n->dx[i] + (e.accumulate ? old[i] : 0);
    check(near_stored(dx, n->dx_size, got, nx, step_of(g->in.format)), "dx", name);
    check(padding_is_zero(g->in, count, r->dx), "padding of dx", name);
    for (int i = 0; i < e.normed; i++)
        check(sums_are(g->in, count, r->normed[i], r->dx, d->normed[i], NULL), "sums of dx", name);
    mark(got, nx);
    free(dx), free(x), free(old), free(got);
}

/* The epilogue against the kernel that does the same to a dx that is there. */
static void check_finish(const conv_data *d, conv_end e, const conv_result *r, const char *name)
{
    conv_result apart = {0};
    if (!e.dx || (!e.masked && !e.normed)) return;
    run_backward(&way[0], d, (conv_end){1, e.accumulate, 0, 0}, &apart, name);
    mestk_gradient to = {.dx = apart.dx, .accumulate = e.accumulate, .masked = e.masked};
    for (int i = 0; i < e.normed; i++) {
        to.normed[i] = d->normed[i];
        to.sums[i] = apart.normed[i] = new_sums(d->g.in);
    }
    mestk_finish_gradient(&way[0], d->g.in, &d->x.v, &to);
    check(same_tensor(d->g.in, apart.dx, r->dx), "dx as finish_gradient has it", name);
    for (int i = 0; i < e.normed; i++)
        check(same_sums(apart.normed[i], r->normed[i], sums_size(d->g.in)), "sums of dx as finish_gradient has them", name);
    check(same(apart.dw, r->dw, d->m.count), "dw with another epilogue", name);
    free_conv_result(&apart);
}

static void compare_conv(const conv_data *d, const conv_end *e, const conv_result *a, const conv_result *b, const char *where)
{
    const mestk_conv *g = &d->g;
    if (!e) {
        check(same_values(g->out, a->y, b->y, d->t.count), "y, bits", where);
        check(all_finite(g->out, b->y), "padding of y", where);
        if (b->sums) check(same_sums(a->sums, b->sums, sums_size(g->out)), "sums of y, bits", where);
        return;
    }
    check(same_tensor(g->in, a->dx, b->dx), "dx, bits", where);
    check(same(a->dw, b->dw, d->m.count), "dw, bits", where);
    check(same(a->db, b->db, g->out.channels), "db, bits", where);
    for (int i = 0; i < e->normed; i++)
        check(same_sums(a->normed[i], b->normed[i], sums_size(g->in)), "sums of dx, bits", where);
}

static void test_conv(conv_case t, int x_kind, int dy_kind, uint64_t turn)
{
    enum { ENDS = 3 };
    static const int some_chunks[3] = {1, 3, 16};
    char name[240], where[300];
    if (!possible(t)) return;
    conv_data d = {.t = t, .g = geometry(t), .m = random_matrix(t.cout, t.cin, t.kh * t.kw, t.density)};
    snprintf(name, sizeof name,
             "conv %s lanes %d count %d+%d %d->%d %dx%d kernel %dx%d stride %dx%d pad %dx%d density %g operands %d, %d",
             t.format == MESTK_BF16 ? "bf16" : "f32", t.lanes, t.count, t.empty, t.cin, t.cout, t.h, t.w, t.kh, t.kw, t.sh,
             t.sw, t.ph, t.pw, t.density, x_kind, dy_kind);
    d.x = operand_of_kind(d.g.in, t.count, x_kind, 0);
    d.dy = operand_of_kind(d.g.out, t.count, dy_kind, 1);
    d.stored_dy = dy_kind == 0;
    d.start = below(2) ? random_floats(t.cout) : NULL;
    d.old_dw = random_floats(d.m.count), d.old_db = random_floats(t.cout);
    d.old_dx = random_tensor(d.g.in, t.count, 1);
    for (int i = 0; i < 2; i++) d.normed[i] = random_tensor(d.g.in, t.count, 0);
    d.chunks = some_chunks[below(3)];
    conv_end end[ENDS] = {{1, below(2), 0, 0}, {1, below(2), below(4) > 0, below(3)}, {0, 0, below(2), 0}};

    double *x = plain_operand(d.g.in, &d.x.v, t.count), *dy = plain_operand(d.g.out, &d.dy.v, t.count);
    conv_naive n = conv_by_definition(&d.g, &d.m, d.start, x, dy, t.count);
    conv_result first[ENDS] = {0};
    run_forward(&way[0], &d, &first[0], 1, name);
    check_forward(&d, &n, &first[0], name);
    for (int i = 0; i < ENDS; i++) {
        run_backward(&way[0], &d, end[i], &first[i], name);
        check_backward(&d, &n, end[i], &first[i], name);
        check_finish(&d, end[i], &first[i], name);
    }
    check(same(first[0].dw, first[2].dw, d.m.count), "dw without dx", name);
    for (int k = 1; k < ways; k++) {
        if (!takes_turn(k, turn)) continue;
        snprintf(where, sizeof where, "%s: %s", name, way_name[k]);
        for (int with_sums = 0; with_sums < 2; with_sums++) {
            conv_result r = {0};
            run_forward(&way[k], &d, &r, with_sums, where);
            compare_conv(&d, NULL, &first[0], &r, where);
            free_conv_result(&r);
        }
        for (int i = 0; i < ENDS; i++) {
            conv_result r = {0};
            run_backward(&way[k], &d, end[i], &r, where);
            compare_conv(&d, &end[i], &first[i], &r, where);
            free_conv_result(&r);
        }
    }
    free_naive(&n);
    for (int i = 0; i < ENDS; i++) free_conv_result(&first[i]);
    free_operand(&d.x), free_operand(&d.dy);
    free(d.start), free(d.old_dw), free(d.old_db), free(d.old_dx), free(d.normed[0]), free(d.normed[1]), free(x), free(dy);
    free_matrix(&d.m);
}

/* Multiply-adds of all samples: the reference is slow. */
static double work_of(conv_case t)
{
    mestk_conv g = geometry(t);
    double connections = (double)t.cin * t.cout * t.kh * t.kw * fmin(fabs(t.density), 1);
    return connections * g.out.height * g.out.width * g.out.blocks * t.lanes;
}

static void test_convs(int cases)
{
    static const conv_case table[] = {
        /* lanes, count, cin, cout, h, w, kh, kw, sh, sw, ph, pw, density */
        {16, 32, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 0.2, 0, 0},   {16, 16, 40, 70, 8, 8, 3, 3, 1, 1, 1, 1, 0.02, 0, 0},
        {16, 19, 3, 5, 7, 9, 3, 3, 1, 1, 1, 1, 0.5, 0, 0},   {16, 16, 6, 7, 12, 12, 3, 3, 2, 2, 1, 1, 0.3, 0, 0},
        {16, 16, 4, 9, 9, 11, 1, 1, 2, 2, 0, 0, 0.5, 0, 0},  {16, 5, 2, 3, 1, 1, 1, 1, 1, 1, 0, 0, 2, 0, 0},
        {16, 16, 4, 6, 1, 40, 1, 5, 1, 1, 0, 2, 0.3, 0, 0},  {16, 16, 4, 6, 1, 27, 1, 9, 1, 3, 0, 4, 0.4, 0, 0},
        {8, 8, 5, 6, 5, 5, 3, 3, 1, 1, 1, 1, 0.4, 0, 0},     {8, 3, 1, 4, 2, 3, 3, 3, 1, 1, 1, 1, 1.5, 0, 0},
        {8, 16, 20, 30, 6, 10, 5, 5, 1, 1, 2, 2, 0.02, 0, 0}, {8, 8, 3, 4, 10, 10, 7, 7, 2, 2, 3, 3, 0.3, 0, 0},
        {4, 4, 6, 5, 8, 8, 3, 3, 1, 1, 1, 1, 0.3, 0, 0},     {4, 6, 4, 5, 3, 3, 2, 2, 1, 1, 0, 0, 2, 0, 0},
        {4, 4, 2, 2, 2, 2, 5, 5, 1, 1, 2, 2, 0.6, 0, 0},     {1, 1, 3, 4, 6, 6, 3, 3, 1, 1, 1, 1, 0.5, 0, 0},
        {1, 3, 1, 2, 5, 7, 3, 3, 3, 2, 1, 1, 2, 0, 0},       {1, 2, 4, 4, 1, 16, 1, 3, 1, 1, 0, 1, 0.4, 0, 0},
        {16, 16, 3, 3, 4, 4, 3, 3, 5, 5, 1, 1, 0.7, 0, 0},   {16, 17, 2, 3, 3, 5, 3, 3, 1, 1, 4, 4, 0.7, 0, 0},
        {8, 8, 4, 4, 13, 6, 3, 3, 3, 1, 0, 1, 0.4, 0, 0},    {16, 16, 4, 4, 6, 6, 3, 3, 1, 1, 1, 1, 0.0, 0, 0},
        {16, 16, 30, 40, 4, 4, 3, 3, 1, 1, 1, 1, 2, 0, 0},   {16, 16, 90, 40, 4, 4, 3, 3, 1, 1, 1, 1, 0.05, 0, 0},
        {16, 3, 30, 24, 5, 6, 3, 3, 1, 1, 1, 1, 0.1, 0, 2},  {8, 9, 6, 5, 5, 6, 3, 3, 2, 2, 1, 1, 0.5, 0, 1},
        {16, 7, 40, 40, 5, 3, 3, 3, 2, 1, 1, 1, 1.5, 0, 0},  {16, 1, 1, 2, 3, 2, 1, 1, 1, 1, 0, 0, 2, 0, 63},
    };
    static const int lanes[4] = {1, 4, 8, 16}, kernels[5] = {1, 2, 3, 5, 7};
    static const double densities[7] = {-1, 0.02, 0.1, 0.3, 0.7, 1.5, 2};
    uint64_t turn = 0;
    for (size_t i = 0; i < 2 * (sizeof table / sizeof *table); i++) {
        state = seed_now = 1000 + i;
        conv_case t = table[i / 2];
        t.format = i % 2 ? MESTK_BF16 : MESTK_F32;
        test_conv(t, below(OPERANDS), below(2) * 5, turn++);
    }
    for (int i = 0; i < cases;) {
        conv_case t;
        do {
            state = seed_now = 2000 + turn++;
            t = (conv_case){.lanes = lanes[below(4)], .format = i % 2 ? MESTK_BF16 : MESTK_F32, .empty = below(8) == 0};
            t.count = 1 + below(2 * t.lanes);
            t.cin = 1 + below(below(2) ? 40 : 9), t.cout = 1 + below(below(2) ? 40 : 9);
            t.h = below(4) ? 1 + below(13) : 1, t.w = 1 + below(13);
            t.kh = t.h == 1 && below(3) ? 1 : kernels[below(5)], t.kw = kernels[below(5)];
            t.sh = 1 + below(3), t.sw = 1 + below(3), t.ph = below(4), t.pw = below(4);
            if (below(2)) t.sh = t.sw = 1;
            t.density = densities[below(7)];
        } while (!possible(t) || work_of(t) > 100e3);
        /* dy as it is stored, or as batch norm passes it on: a, b, c; seldom anything else. */
        int dy_kind = below(8) ? below(2) * 5 : below(OPERANDS);
        test_conv(t, i / 2 % OPERANDS, dy_kind, turn);
        i++;
    }
}
#endif
