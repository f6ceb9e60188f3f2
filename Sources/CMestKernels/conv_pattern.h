/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels with 4 of 9 taps on a whole window of a convolution of stride 1: for each pattern code of its
 * own, in which every line of x under the window is loaded once and used by all taps that meet it.  Lines
 * are visited row by row, so every pixel meets the taps in order.  Not of one format of stored values: once per
 * SAMPLES (conv_lines.h).  A line of two pixels meets every other tap of a row.
 */
#include "patterns.h"
#ifndef PATTERN_JOIN
#define PATTERN_JOIN2(name, samples) LEVEL(name##_##samples)
#define PATTERN_JOIN(name, samples) PATTERN_JOIN2(name, samples)
#endif

VEC_INLINE void C(conv_pattern)(const float *x, int64_t row, const float *value, vec *sum, const int t0, const int t1,
                                const int t2, const int t3)
{
    const int taps[4] = {t0, t1, t2, t3};
    vec w[4];
    UNROLL for (int t = 0; t < 4; t++) w[t] = (vec)(value[t]);
    UNROLL for (int r = 0; r < TILE_ROWS + 2; r++) {
        UNROLL for (int c = 0; c < TILES * 4 + 3 - PIXELS; c++) {
            vec v = vec_load(x + r * row + c * SAMPLES);
            UNROLL for (int t = 0; t < 4; t++) {
                int py = r - taps[t] / 3, px = c - taps[t] % 3, i = (px / 4 * TILE_ROWS + py) * ACROSS + px % 4 / PIXELS;
                if (py >= 0 && py < TILE_ROWS && px >= 0 && px < TILES * 4 && px % PIXELS == 0)
                    sum[i] = vec_fma(w[t], v, sum[i]);
            }
        }
    }
}

/* Kernels first .. end-1; sums: LEVEL_ROWS * 4 vectors. */
static __attribute__((noinline)) void PATTERN_JOIN(conv_pattern_run, SAMPLES)(
    const mestk_weights *w, const mestk_word *offset, const float *slab, int64_t row, int32_t first, int32_t end,
    void *sums)
{
    const float *value = w->value + (int64_t)first * 4;
    vec sum[LEVEL_ROWS * 4], *kept = sums;
    UNROLL for (int i = 0; i < LEVEL_ROWS * 4; i++) sum[i] = kept[i];
    int32_t code8 = w->pattern_taps == mestk_code8;
    ROLLED for (int32_t j = first; j < end; j++, value += 4) {
        const float *x = slab + offset[w->column[j] * 9];
#define PATTERN(number, t0, t1, t2, t3)                      \
    case number:                                             \
        C(conv_pattern)(x, row, value, sum, t0, t1, t2, t3); \
        break;
#define PATTERN_IN(number, t0, t1, t2, t3) C(conv_pattern)(x, row, value, sum, t0, t1, t2, t3);
        switch (w->pattern[j]) {
            MESTK_PATTERNS_SHARED(PATTERN)
        default: /* the number in which the sets differ */
            if (code8) MESTK_PATTERNS_CODE8(PATTERN_IN)
            else MESTK_PATTERNS_CENTRE8(PATTERN_IN)
        }
#undef PATTERN_IN
#undef PATTERN
    }
    UNROLL for (int i = 0; i < LEVEL_ROWS * 4; i++) kept[i] = sum[i];
}
