/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels on flat arrays, one instance per level: every value on its own, or 16 virtual lanes, so that
 * the compiler may vectorise without changing a bit. */

/* Arrays are the same or apart, never shifted: in place, value i depends on value i alone. Without the
 * promise the compiler's own check sends every call in place down the scalar loop. */
#ifndef MESTK_IN_PLACE
#define MESTK_IN_PLACE _Pragma("clang loop vectorize(assume_safety)")
#endif

static void LEVEL(sgd)(int64_t n, mestk_sgd h, const float *g, float *w, float *m)
{
    MESTK_IN_PLACE for (int64_t i = 0; i < n; i++) {
        float d = mestk_fma_inline(h.weight_decay, w[i], h.scale * g[i]);
        float momentum = mestk_fma_inline(h.momentum, m[i], d);
        float step = h.nesterov ? mestk_fma_inline(h.momentum, momentum, d) : momentum;
        m[i] = momentum;
        w[i] = mestk_fma_inline(-h.learning_rate, step, w[i]);
    }
}

static void LEVEL(gradient_average)(int64_t n, float beta, const float *g, float *a)
{
    float rest = 1.0f - beta;
    MESTK_IN_PLACE for (int64_t i = 0; i < n; i++) a[i] = beta * a[i] + rest * __builtin_fabsf(g[i]);
}

/* Value i of a chunk of 4096 goes to lane i mod 16; lanes by mestk_add_line; chunks in double. */
#if LEVEL_FMA && !LEVEL_SCALAR
/* A chain of fma waits for itself: four chunks beside each other. */
static double LEVEL(sum_of_four_chunks)(double total, const float *x)
{
    typedef float sixteen __attribute__((ext_vector_type(16), aligned(4)));
    sixteen lane[4] = {0};
    ROLLED for (int64_t i = 0; i < 4096; i += 16)
        UNROLL for (int k = 0; k < 4; k++) {
            sixteen v = *(const sixteen *)(x + i + k * 4096);
            lane[k] = __builtin_elementwise_fma(v, v, lane[k]);
        }
    for (int k = 0; k < 4; k++) {
        float sum = 0.0f;
        mestk_add_line(&sum, (const float *)&lane[k], 16);
        total += (double)sum;
    }
    return total;
}
#endif

static double LEVEL(sum_of_squares)(int64_t n, const float *x)
{
    double total = 0.0;
    int64_t first = 0;
#if LEVEL_FMA && !LEVEL_SCALAR
    for (; first + 4 * 4096 <= n; first += 4 * 4096) total = LEVEL(sum_of_four_chunks)(total, x + first);
#endif
    for (; first < n; first += 4096) {
        int64_t end = mestk_min64(n, first + 4096), i = first;
        float lane[16] = {0}, sum = 0.0f;
        for (; i + 16 <= end; i += 16)
            for (int l = 0; l < 16; l++) lane[l] = mestk_fma_inline(x[i + l], x[i + l], lane[l]);
        for (int l = 0; i < end; i++, l++) lane[l] = mestk_fma_inline(x[i], x[i], lane[l]);
        mestk_add_line(&sum, lane, 16);
        total += (double)sum;
    }
    return total;
}

static double LEVEL(sum_of_magnitudes)(int64_t n, const float *x)
{
    double total = 0.0;
    for (int64_t first = 0; first < n; first += 4096) {
        int64_t end = mestk_min64(n, first + 4096), i = first;
        float lane[16] = {0}, sum = 0.0f;
        for (; i + 16 <= end; i += 16)
            for (int l = 0; l < 16; l++) lane[l] += __builtin_fabsf(x[i + l]);
        for (int l = 0; i < end; i++, l++) lane[l] += __builtin_fabsf(x[i]);
        mestk_add_line(&sum, lane, 16);
        total += (double)sum;
    }
    return total;
}
