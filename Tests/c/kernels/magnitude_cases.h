/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of magnitudes of what each weight of a row meets. */
#ifndef KERNELS_MAGNITUDE_CASES_H
#define KERNELS_MAGNITUDE_CASES_H
#include "conv_cases.h"

/* By the definition: every output and its taps, one sample after the other. */
static double *magnitudes_by_definition(const mestk_conv *g, const mestk_operand *v, conv_case t)
{
    int taps = t.kh * t.kw;
    double *sums = memset(get(t.cin * taps * 8), 0, (size_t)(t.cin * taps) * 8);
    for (int n = 0; n < t.count; n++)
        for (int c = 0; c < t.cin; c++)
            for (int y = 0; y < g->out.height; y++)
                for (int x = 0; x < g->out.width; x++)
                    for (int tap = 0; tap < taps; tap++) {
                        int iy = y * t.sh - t.ph + tap / t.kw, ix = x * t.sw - t.pw + tap % t.kw;
                        if (iy < 0 || iy >= t.h || ix < 0 || ix >= t.w) continue;
                        int64_t at = mestk_line(g->in, n / t.lanes, c, iy, ix) + n % t.lanes;
                        sums[c * taps + tap] += fabs((double)operand_at(v, g->in, c, at));
                    }
    return sums;
}

static void test_magnitudes(void)
{
    static const int lanes[4] = {1, 4, 8, 16};
    for (uint64_t i = 0; i < 120; i++) {
        state = seed_now = 10000 + i;
        conv_case t = {.lanes = lanes[below(4)], .format = i / 2 % 2 ? MESTK_BF16 : MESTK_F32};
        t.count = 1 + below(2 * t.lanes);
        t.cin = t.cout = 1 + below(5);
        t.h = 1 + below(11), t.w = 1 + below(11), t.kh = 1 + below(4), t.kw = 1 + below(4);
        t.sh = 1 + below(3), t.sw = 1 + below(3), t.ph = below(t.kh), t.pw = below(t.kw);
        if (!possible(t)) continue;
        char name[200];
        snprintf(name, sizeof name, "magnitudes lanes %d count %d %dx%dx%d kernel %dx%d stride %dx%d pad %dx%d", t.lanes, t.count,
                 t.cin, t.h, t.w, t.kh, t.kw, t.sh, t.sw, t.ph, t.pw);
        mestk_conv g = geometry(t);
        random_operand v = operand_of_kind(g.in, t.count, (int)(i % OPERANDS), 0);
        int64_t n = (int64_t)t.cin * t.kh * t.kw;
        double *want = magnitudes_by_definition(&g, &v.v, t), *first = NULL;
        for (int k = 0; k < ways; k++) {
            double *sums = memset(get(n * 8), 0xff, (size_t)n * 8);
            mestk_patch_magnitudes(&way[k], &g, &v.v, t.count, sums);
            int ok = 1;
            for (int64_t j = 0; j < n; j++) ok &= fabs(sums[j] - want[j]) <= 1e-12 * (1 + want[j]);
            check(ok, "sums", name);
            if (first) check(same_sums(first, sums, n), "sums, bits", name);
            if (!first) first = sums;
            else free(sums);
        }
        free(first), free(want), free_operand(&v);
    }
}
#endif
