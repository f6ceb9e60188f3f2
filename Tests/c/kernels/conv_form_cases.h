/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution over blocks, patterns and runs: against the same connections as single weights, and every level,
 * thread count and format against the reference. */
#ifndef KERNELS_CONV_FORM_CASES_H
#define KERNELS_CONV_FORM_CASES_H
#include "harness.h"

typedef struct form_result {
    float *y, *dx, *dw;
    double *sums;
} form_result;

static form_result run_form(const mestk_context *k, const mestk_conv *g, const matrix *m, const float *start,
                            const void *x, const void *dy, int count, int chunks, int bytes)
{
    mestk_operand ox = {.x = x, .relu = 1}, ody = {.x = dy};
    int64_t ny = (mestk_values(g->out) * bytes + 3) / 4, nx = (mestk_values(g->in) * bytes + 3) / 4;
    form_result r = {floats(ny), floats(nx), floats(m->count), get((int64_t)mestk_strips(g->out) * g->out.channels * 16)};
    memset(r.y, 0xff, (size_t)ny * 4), memset(r.dx, 0xff, (size_t)nx * 4);
    for (int64_t j = 0; j < m->count; j++) {
        int o, c, tap;
        r.dw[j] = connection(&m->w, j, &o, &c, &tap) ? 0.25f : 0.0f;
    }
    int64_t need = mestk_conv_forward_scratch(g, k->threads, m->count);
    float *scratch = floats(need);
    memset(scratch, 0xff, (size_t)need * 4);
    mestk_conv_forward(k, g, &m->w, start, &ox, r.y, count, r.sums, scratch);
    free(scratch);
    need = mestk_conv_backward_scratch(g, k->threads, chunks, m->count);
    scratch = floats(need);
    memset(scratch, 0xff, (size_t)need * 4);
    mestk_gradient to = {.dx = r.dx, .masked = 1};
    mestk_conv_backward(k, g, &m->w, &ox, &ody, count, &to, r.dw, NULL, chunks, scratch);
    free(scratch);
    return r;
}
static void free_form(form_result *r) { free(r->y), free(r->dx), free(r->dw), free(r->sums); }

/* group 0: patterns; below: runs. */
static void test_conv_form(int lanes, int count, int cin, int cout, int h, int w, int kernel, int stride, int pad, int group,
                           int code8, double density, int bf16)
{
    char name[240];
    int blocks = (count + lanes - 1) / lanes, oh = (h + 2 * pad - kernel) / stride + 1, ow = (w + 2 * pad - kernel) / stride + 1;
    if (oh < 1 || ow < 1 || h + 2 * pad < kernel || w + 2 * pad < kernel) return;
    snprintf(name, sizeof name, "conv of %s %d, lanes %d count %d %d->%d %dx%d kernel %d stride %d pad %d density %g format %d",
             group > 0 ? "blocks" : group ? "runs" : "patterns", group ? group : code8, lanes, count, cin, cout, h, w, kernel, stride, pad, density, bf16);
    mestk_conv g = {.in = {.blocks = blocks, .lanes = lanes, .channels = cin, .height = h, .width = w, .format = bf16},
                    .out = {.blocks = blocks, .lanes = lanes, .channels = cout, .height = oh, .width = ow, .format = bf16},
                    .kernel_h = kernel, .kernel_w = kernel, .stride_h = stride, .stride_w = stride, .pad_h = pad, .pad_w = pad};
    matrix m = group > 0   ? random_blocks(cout, cin, kernel * kernel, group, density)
               : group < 0 ? random_runs(cout, cin, kernel * kernel, -group, density)
                           : random_patterns(cout, cin, code8, density);
    int64_t *where = get((int64_t)cout * cin * kernel * kernel * 8);
    matrix single = as_single(&m, where);
    void *x = random_tensor(g.in, count, 0), *dy = random_tensor(g.out, count, 1);
    float *start = random_floats(cout);
    int64_t nx = mestk_values(g.in), ny = mestk_values(g.out);
    int chunks = 1 + below(5), bytes = bf16 ? 2 : 4;
    form_result known = run_form(&way[0], &g, &single, start, x, dy, count, chunks, bytes);
    form_result first = {0};
    for (int i = 0; i < ways; i++) {
        form_result r = run_form(&way[i], &g, &m, start, x, dy, count, chunks, bytes);
        char at[300];
        snprintf(at, sizeof at, "%s: %s", name, way_name[i]);
        /* Rows and taps in the same order as single weights: the same bits.  A channel's blocks have another order,
         * and so have a row's runs, unless their kernels have one place. */
        if (group >= 0 || kernel == 1) {
            check(memcmp(known.y, r.y, (size_t)(ny * bytes)) == 0, "y as of single weights", at);
            check(memcmp(known.sums, r.sums, (size_t)mestk_strips(g.out) * (size_t)cout * 16) == 0, "sums as of single weights", at);
        }
        if (group <= 0) check(memcmp(known.dx, r.dx, (size_t)(nx * bytes)) == 0, "dx as of single weights", at);
        int ok = 1;
        for (int64_t j = 0; j < single.count; j++) ok &= memcmp(known.dw + j, r.dw + where[j], 4) == 0;
        check(ok, "dw as of single weights", at);
        if (i == 0) {
            first = r;
            if (!bf16) {
                for (int64_t j = 0; j < nx; j++) ok &= fabsf(known.dx[j] - r.dx[j]) <= 1e-4f;
                check(ok, "dx near that of single weights", at);
                float near = 1e-4f + 2e-6f * (float)(cin * kernel * kernel);
                for (int64_t j = 0; j < ny; j++) ok &= known.y[j] == r.y[j] || fabsf(known.y[j] - r.y[j]) <= near;
                check(ok, "y near that of single weights", at);
            }
            continue;
        }
        check(memcmp(first.y, r.y, (size_t)(ny * bytes)) == 0, "y, bits", at);
        check(memcmp(first.sums, r.sums, (size_t)mestk_strips(g.out) * (size_t)cout * 16) == 0, "sums, bits", at);
        check(memcmp(first.dx, r.dx, (size_t)(nx * bytes)) == 0, "dx, bits", at);
        check(same(first.dw, r.dw, m.count), "dw, bits, what does not exist included", at);
        free_form(&r);
    }
    free_form(&known), free_form(&first);
    free(x), free(dy), free(start), free(where);
    free_matrix(&m), free_matrix(&single);
}

/* Three quarters as many random cases as other convolutions have. */
static void test_conv_forms(int n)
{
    static const int lanes[4] = {1, 4, 8, 16};
    static const double densities[3] = {0.1, 0.4, 1.5};
    for (uint64_t i = 0; i < (uint64_t)n / 2; i++) {
        state = seed_now = 2500 + i;
        int L = lanes[i % 4], count = 1 + below(2 * L), cin = 1 + below(12), cout = 1 + below(24);
        int h = below(4) ? 1 + below(12) : 1, w = 1 + below(12), bf16 = i % 3 == 0;
        double density = densities[below(3)];
        if (i % 2) test_conv_form(L, count, cin, cout, h, w, 1 + below(4), 1 + below(2), below(3), 4 << below(3), 0, density, bf16);
        else test_conv_form(L, count, cin, cout, h, w, 3, below(4) ? 1 : 2, below(3), 0, below(2), density, bf16);
    }
    for (uint64_t i = 0; i < (uint64_t)n / 4; i++) {
        state = seed_now = 4500 + i;
        int L = lanes[i % 4], count = 1 + below(2 * L), cin = 1 + below(40), cout = 1 + below(16);
        int h = below(4) ? 1 + below(12) : 1, w = 1 + below(12), bf16 = i % 3 == 0;
        test_conv_form(L, count, cin, cout, h, w, 1 + below(4), 1 + below(2), below(3), -(4 << below(3)), 0, densities[below(3)], bf16);
    }
    state = seed_now = 2499; /* several blocks of channels */
    test_conv_form(16, 16, 70, 40, 8, 8, 3, 1, 1, 0, 0, 0.4, 0);
    test_conv_form(16, 16, 40, 70, 8, 8, 3, 1, 1, 8, 0, 0.3, 0);
    test_conv_form(8, 8, 64, 66, 8, 8, 3, 2, 1, 16, 0, 0.2, 1);
    test_conv_form(16, 16, 70, 40, 8, 8, 3, 1, 1, -4, 0, 0.2, 0);
    test_conv_form(1, 2, 70, 40, 8, 8, 3, 1, 1, -8, 0, 0.2, 0);
    test_conv_form(4, 3, 60, 20, 8, 8, 1, 1, 0, -16, 0, 0.5, 0);
}
#endif
