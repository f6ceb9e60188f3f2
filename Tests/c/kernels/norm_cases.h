/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation: sums, constants and both directions as operands. */
#ifndef KERNELS_NORM_CASES_H
#define KERNELS_NORM_CASES_H
#include "harness.h"

typedef struct norm_naive {
    double *mean, *var, *y, *dx, *dx_unit, *dscale, *dshift;
} norm_naive;

/* x: what is stored, as value - centre. */
static norm_naive norm_by_definition(mestk_shape s, int count, const double *x, const double *dy, float eps,
                                     const float *scale, const float *shift, const float *centre)
{
    int C = s.channels, plane = s.height * s.width;
    int64_t n = plain_size(s, count);
    norm_naive r = {get(C * 8), get(C * 8), get(n * 8), get(n * 8), get(n * 8), get(C * 8), get(C * 8)};
    double N = (double)count * plane;
    for (int c = 0; c < C; c++) {
        double sum = 0, squares = 0, g = 0, gx = 0, weight = scale ? scale[c] : 1;
        for (int64_t i = 0; i < n; i++)
            if (i / plane % C == c) sum += x[i];
        double mean = sum / N;
        for (int64_t i = 0; i < n; i++)
            if (i / plane % C == c) squares += (x[i] - mean) * (x[i] - mean);
        r.mean[c] = mean + (centre ? (double)centre[c] : 0);
        r.var[c] = squares / N;
        double inverse = 1 / sqrt(r.var[c] + eps);
        for (int64_t i = 0; i < n; i++)
            if (i / plane % C == c) g += dy[i], gx += dy[i] * (x[i] - mean) * inverse;
        r.dscale[c] = gx, r.dshift[c] = g;
        for (int64_t i = 0; i < n; i++) {
            if (i / plane % C != c) continue;
            double hat = (x[i] - mean) * inverse;
            r.y[i] = hat * weight + (shift ? (double)shift[c] : 0);
            r.dx[i] = weight * inverse * (dy[i] - g / N - hat * gx / N);
            r.dx_unit[i] = 3 + 3 * fabs(weight * inverse);
        }
    }
    return r;
}

enum { NORM_CONSTANTS = 9 }; /* mean, var, a, b forward; a, b, c backward; dscale, dshift */

typedef struct norm_result {
    double *moments, *products;
    float *constant[NORM_CONSTANTS];
    void *y, *dx, *added;
} norm_result;

typedef struct norm_data {
    mestk_shape s;
    int count;
    float eps, *pivot, *scale, *shift, *centre;
    void *x, *dy, *old;
} norm_data;

static norm_result run_norm(const mestk_context *k, const norm_data *d, const char *name)
{
    mestk_shape s = d->s;
    norm_result r = {new_sums(s), new_sums(s), {0}, new_tensor(s), new_tensor(s), tensor_copy(s, d->old)};
    float **v = r.constant;
    for (int i = 0; i < NORM_CONSTANTS; i++) v[i] = memset(floats(s.channels), i < 7 ? 0xff : 0, (size_t)s.channels * 4);
    /* Stored centred, nothing is left to shift. */
    float *zero = memset(floats(s.channels), 0, (size_t)s.channels * 4);
    mestk_norm_moments(k, s, d->count, d->x, d->centre ? zero : d->pivot, r.moments);
    mestk_norm_statistics(s, d->count, r.moments, d->centre ? d->centre : d->pivot, v[0], v[1]);
    mestk_norm_constants(s.channels, v[0], v[1], d->eps, d->scale, d->shift, d->centre, v[2], v[3]);
    mestk_operand forward = {.x = d->x, .a = v[2], .b = v[3]};
    mestk_evaluate(k, s, &forward, r.y);
    mestk_gradient finish = {.dx = d->dy, .normed = {d->x}, .sums = {r.products}};
    mestk_finish_gradient(k, s, NULL, &finish);
    mestk_norm_gradient(s, d->count, r.products, v[0], v[1], d->eps, d->scale, d->centre, v[4], v[5], v[6], v[7], v[8]);
    mestk_operand back = {.x = d->dy, .a = v[4], .b = v[5], .r = d->x, .c = v[6]};
    mestk_norm_backward(k, s, d->count, &back, r.dx, 0);
    mestk_norm_backward(k, s, d->count, &back, r.added, 1);
    void *in_place = tensor_copy(s, d->dy);
    back.x = in_place;
    mestk_norm_backward(k, s, d->count, &back, in_place, 0);
    check(same_tensor(s, in_place, r.dx), "norm dx in place", name);
    /* Parameters that nobody has. */
    float *more[3] = {floats(s.channels), floats(s.channels), floats(s.channels)};
    mestk_norm_gradient(s, d->count, r.products, v[0], v[1], d->eps, d->scale, d->centre, more[0], more[1], more[2], NULL, NULL);
    for (int i = 0; i < 3; i++) check(same(more[i], v[4 + i], s.channels), "norm gradient alone", name), free(more[i]);
    free(zero), free(in_place);
    return r;
}
static void free_norm_result(norm_result *r)
{
    for (int i = 0; i < NORM_CONSTANTS; i++) free(r->constant[i]);
    free(r->moments), free(r->products), free(r->y), free(r->dx), free(r->added);
}

static void check_norm(const norm_data *d, const norm_result *r, const char *name)
{
    mestk_shape s = d->s;
    int C = s.channels;
    int64_t n = plain_size(s, d->count);
    double N = (double)d->count * s.height * s.width, step = step_of(s.format);
    double *x = plain(s, d->x, d->count), *dy = plain(s, d->dy, d->count), *unit = get(C * 8);
    norm_naive w = norm_by_definition(s, d->count, x, dy, d->eps, d->scale, d->shift, d->centre);
    float *y = plain_floats(s, r->y, d->count), *dx = plain_floats(s, r->dx, d->count), *added = plain_floats(s, r->added, d->count);
    float *old = plain_floats(s, d->old, d->count), *const *v = r->constant;
    check(sums_are(s, d->count, r->moments, d->x, d->x, d->centre ? NULL : d->pivot), "norm moments", name);
    check(sums_are(s, d->count, r->products, d->dy, d->x, NULL), "norm products", name);
    for (int c = 0; c < C; c++) unit[c] = 4;
    check(near(w.mean, unit, v[0], C), "norm mean", name);
    check(near(w.var, unit, v[1], C), "norm var", name);
    if (N > 2) check(near_stored(w.y, w.dx_unit, y, n, step), "norm y", name);
    if (N > 2) check(near_stored(w.dx, w.dx_unit, dx, n, step), "norm dx", name);
    for (int c = 0; c < C; c++) unit[c] = 20 * sqrt(N) + fabs(w.dscale[c]);
    if (N > 2) check(near(w.dscale, unit, v[7], C), "norm dscale", name);
    check(near(w.dshift, unit, v[8], C), "norm dshift", name);
    check(padding_is_zero(s, d->count, r->dx), "norm padding of dx", name);
    check(padding_is_zero(s, d->count, r->added), "norm padding of accumulated dx", name);
    check(all_finite(s, r->y), "norm padding of y", name);
    int ok = 1;
    int64_t i = 0;
    EACH_VALUE(s, d->count, at) {
        float g = fmaf(v[4][c_], value_of(s, d->dy, at), v[5][c_]);
        g = fmaf(v[6][c_], value_of(s, d->x, at), g);
        ok &= dx[i] == round_to(s.format, g) && added[i] == round_to(s.format, old[i] + g);
        i++;
    }
    check(ok, "norm backward, value by value", name);
    mark(y, n), mark(dx, n), mark(added, n);
    for (int p = 0; p < NORM_CONSTANTS; p++) mark(v[p], C);
    free(w.mean), free(w.var), free(w.y), free(w.dx), free(w.dx_unit), free(w.dscale), free(w.dshift);
    free(x), free(dy), free(unit), free(y), free(dx), free(added), free(old);
}

/* centred: x is stored as value - centre. */
static void test_norm(shape_case t, int format, int centred)
{
    char name[200], where[300];
    mestk_shape s = shape_of(t, format);
    name_shape(name, centred ? "norm, centred" : "norm", t, format);
    s.blocks += below(3) == 0;
    norm_data d = {.s = s, .count = t.count, .eps = 1e-5f};
    d.pivot = random_floats(t.channels), d.centre = centred ? random_floats(t.channels) : NULL;
    d.scale = below(4) ? random_floats(t.channels) : NULL, d.shift = below(4) ? random_floats(t.channels) : NULL;
    d.x = random_tensor(s, t.count, 0), d.dy = random_tensor(s, t.count, 1), d.old = random_tensor(s, t.count, 1);
    norm_result first = run_norm(&way[0], &d, name);
    check_norm(&d, &first, name);
    for (int k = 1; k < ways; k++) {
        norm_result r = run_norm(&way[k], &d, name);
        snprintf(where, sizeof where, "%s: %s", name, way_name[k]);
        check(same_sums(first.moments, r.moments, sums_size(s)), "norm moments, bits", where);
        check(same_sums(first.products, r.products, sums_size(s)), "norm products, bits", where);
        int ok = 1;
        for (int i = 0; i < NORM_CONSTANTS; i++) ok &= same(first.constant[i], r.constant[i], s.channels);
        check(ok, "norm constants, bits", where);
        check(same_values(s, first.y, r.y, t.count), "norm y, bits", where);
        check(same_tensor(s, first.dx, r.dx) && same_tensor(s, first.added, r.added), "norm dx, bits", where);
        free_norm_result(&r);
    }
    free_norm_result(&first);
    free(d.pivot), free(d.centre), free(d.scale), free(d.shift), free(d.x), free(d.dy), free(d.old);
}
#endif
