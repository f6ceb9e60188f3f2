/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels with 4 of 9 taps on LEVEL_ROWS x 4 pixels of a convolution of stride 1: for each pattern code of its
 * own, in which every line of x under the window is loaded once and used by all taps that meet it.  Lines
 * are visited row by row, so every pixel meets the taps in order.  Not of one format of stored values: once per
 * lane count.
 */
#define PATTERN_JOIN2(name, lanes) LEVEL(name##_##lanes)
#define PATTERN_JOIN(name, lanes) PATTERN_JOIN2(name, lanes)

VEC_INLINE void V(conv_pattern)(const float *x, int64_t row, const float *value, vec *sum, const int t0, const int t1,
                                const int t2, const int t3)
{
    const int taps[4] = {t0, t1, t2, t3};
    vec w[4];
    UNROLL for (int t = 0; t < 4; t++) w[t] = (vec)(value[t]);
    UNROLL for (int r = 0; r < LEVEL_ROWS + 2; r++) {
        UNROLL for (int c = 0; c < 6; c++) {
            vec v = vec_load(x + r * row + c * LANES);
            UNROLL for (int t = 0; t < 4; t++) {
                int py = r - taps[t] / 3, px = c - taps[t] % 3;
                if (py >= 0 && py < LEVEL_ROWS && px >= 0 && px < 4) sum[py * 4 + px] = vec_fma(w[t], v, sum[py * 4 + px]);
            }
        }
    }
}

/* Kernels first .. end-1; sums: LEVEL_ROWS * 4 vectors. */
static __attribute__((noinline)) void PATTERN_JOIN(conv_pattern_run, LANES)(
    const mestk_weights *w, const mestk_word *offset, const float *slab, int64_t row, int32_t first, int32_t end, void *sums)
{
    const float *value = w->value + (int64_t)first * 4;
    vec sum[LEVEL_ROWS * 4], *kept = sums;
    UNROLL for (int i = 0; i < LEVEL_ROWS * 4; i++) sum[i] = kept[i];
    int32_t corner = w->pattern_taps[4][0] == 5; /* CODE8 */
    ROLLED for (int32_t j = first; j < end; j++, value += 4) {
        const float *x = slab + offset[w->column[j] * 9];
#define PATTERN(t0, t1, t2, t3)                                                                                \
    V(conv_pattern)(x, row, value, sum, t0, t1, t2, t3);                                                       \
    break
        switch (w->pattern[j]) {
        case 0: PATTERN(4, 5, 7, 8);
        case 1: PATTERN(3, 4, 6, 7);
        case 2: PATTERN(1, 2, 4, 5);
        case 3: PATTERN(0, 1, 3, 4);
        case 4:
            if (corner) {
                PATTERN(5, 6, 7, 8);
            }
            PATTERN(1, 3, 4, 5);
        case 5: PATTERN(3, 4, 5, 7);
        case 6: PATTERN(1, 4, 5, 7);
        default: PATTERN(1, 3, 4, 7);
        }
#undef PATTERN
    }
    UNROLL for (int i = 0; i < LEVEL_ROWS * 4; i++) kept[i] = sum[i];
}
