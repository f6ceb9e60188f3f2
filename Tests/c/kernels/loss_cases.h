/* SPDX-License-Identifier: Apache-2.0 */
/* Losses, scalar functions, and the host's few. */
#ifndef KERNELS_LOSS_CASES_H
#define KERNELS_LOSS_CASES_H
#include "harness.h"

static void test_loss(int lanes, int count, int outputs, float smoothing)
{
    char name[100];
    snprintf(name, sizeof name, "loss lanes %d count %d outputs %d smoothing %g", lanes, count, outputs, smoothing);
    mestk_outputs o = {(count + lanes - 1) / lanes, lanes, outputs, count};
    mestk_shape s = {o.blocks, lanes, outputs, 1, 1, MESTK_F32};
    float *y = random_tensor(s, count, 0), *dy = floats(mestk_values(s)), *loss = floats(count), *target = random_floats((int64_t)count * outputs);
    float *probability = floats((int64_t)count * outputs);
    for (int64_t i = 0; i < mestk_values(s); i++) y[i] *= 5;
    float *margin = floats(count);
    int32_t *label = get(count * 4);
    uint8_t *correct = get(count);
    for (int i = 0; i < count; i++) label[i] = below(outputs);
    float *py = plain_floats(s, y, count);
    double total = mestk_cross_entropy(o, y, label, smoothing, 0.5f, loss, correct, margin, dy), want_total = 0;
    mestk_softmax(o, y, probability);
    float *pdy = plain_floats(s, dy, count);
    int ok = padding_is_zero(s, count, dy), ok_soft = 1, ok_correct = 1, ok_margin = 1;
    for (int i = 0; i < count; i++) {
        const float *v = py + i * outputs;
        double sum = 0, one = 0;
        int best = 0;
        float other = -INFINITY;
        for (int k = 0; k < outputs; k++) {
            sum += exp(v[k]);
            if (v[k] > v[best]) best = k;
            if (k != label[i] && v[k] > other) other = v[k];
        }
        for (int k = 0; k < outputs; k++) {
            double on = outputs == 1 ? 1 : k == label[i] ? 1 - smoothing : smoothing / (outputs - 1);
            double p = exp(v[k]) / sum;
            one -= on * log(p);
            ok &= fabs(pdy[i * outputs + k] - 0.5 / count * (p - on)) < 1e-6;
            ok_soft &= fabs(probability[i * outputs + k] - p) < 1e-6;
        }
        ok &= fabs(loss[i] - one) < 1e-5;
        ok_correct &= correct[i] == (best == label[i]);
        ok_margin &= margin[i] == (outputs == 1 ? 0 : v[label[i]] - other);
        want_total += one;
    }
    check(ok && fabs(total - want_total) < 1e-5 * count, "cross-entropy", name);
    mark(loss, count), mark(pdy, (int64_t)count * outputs), mark(probability, (int64_t)count * outputs);
    check(ok_soft, "softmax", name);
    check(ok_correct, "correct", name);
    check(ok_margin, "margin", name);
    check(mestk_cross_entropy(o, y, label, smoothing, 0.5f, loss, NULL, NULL, NULL) == total, "cross-entropy alone", name);
    total = mestk_mean_squared_error(o, y, target, 0.5f, loss, dy);
    free(pdy);
    pdy = plain_floats(s, dy, count);
    ok = padding_is_zero(s, count, dy), want_total = 0;
    for (int i = 0; i < count; i++) {
        double one = 0;
        for (int k = 0; k < outputs; k++) {
            double d = (double)py[i * outputs + k] - target[i * outputs + k];
            one += d * d / outputs;
            ok &= fabs(pdy[i * outputs + k] - 0.5 * 2 * d / outputs / count) < 1e-6;
        }
        ok &= fabs(loss[i] - one) < 1e-5 * (1 + one);
        want_total += one;
    }
    check(ok && fabs(total - want_total) < 1e-4 * count, "mean squared error", name);
    free(y), free(dy), free(loss), free(target), free(probability), free(label), free(margin), free(correct), free(py), free(pdy);
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static int same_float(float a, float b) { return (isnan(a) && isnan(b)) || memcmp(&a, &b, 4) == 0; }

static void test_scalar(void)
{
    state = seed_now = 9;
    int ok_fma = 1, ok_sqrt = 1, ok_sqrt_double = 1;
    double exp_error = 0, log_double = 0, cosine = 0;
    for (int i = 0; i < 3000000; i++) {
        float a = float_of(random_u32()), b = float_of(random_u32()), c = float_of(random_u32());
        if (i % 3 == 1) c = -(a * b) * (1.0f + 1e-7f * uniform()); /* cancel */
        if (i % 3 == 2) a = ldexpf(uniform(), -70 - below(8)), b = ldexpf(uniform(), -70), c = ldexpf(uniform(), -126 - below(24));
        ok_fma &= same_float(mestk_fma(a, b, c), fmaf(a, b, c));
        ok_sqrt &= same_float(mestk_sqrt(fabsf(a)), sqrtf(fabsf(a)));
        uint64_t bits = (uint64_t)random_u32() << 31 ^ random_u32();
        double d;
        memcpy(&d, &bits, 8);
        if (d == d) ok_sqrt_double &= mestk_sqrt_double(d) == sqrt(d);
        float x = 100.0f * uniform(), results[3] = {mestk_exp(x), (float)mestk_log_double(fabsf(x)), (float)mestk_cos_double(x)};
        if (i % 64 == 0) mark(results, 3);
        if (x > -87 && x < 88.7f) {
            double want = exp((double)x);
            exp_error = fmax(exp_error, fabs(mestk_exp(x) - want) / (want * 0x1p-24));
        }
        if (fabsf(a) < INFINITY && a != 0 && fabsf(a) != 1) {
            double want = log(fabs((double)a));
            log_double = fmax(log_double, fabs(mestk_log_double(fabs((double)a)) - want) / fabs(want));
        }
        double angle = (i % 2 ? 1e6 : 10.0) * uniform();
        cosine = fmax(cosine, fabs(mestk_cos_double(angle) - cos(angle)));
    }
    check(ok_fma, "fma", "random bits");
    check(ok_sqrt && ok_sqrt_double, "sqrt", "random bits");
    check(exp_error < 4, "exp, 2 ulp", "random");
    check(log_double < 2e-15 && cosine < 2e-15, "double log, cos", "random");
    check(mestk_exp(-104.5f) == 0 && isinf(mestk_exp(89.0f)) && mestk_exp(0) == 1 && isnan(mestk_exp(NAN)), "exp", "ends");
    check(mestk_exp(-INFINITY) == 0 && isinf(mestk_exp(INFINITY)) && mestk_exp(-100.0f) > 0, "exp", "far ends");
    check(mestk_log_double(1) == 0 && isinf(mestk_log_double(0)), "log", "ends");
    check(fabs(mestk_log_double(1 + 0x1p-40) - 0x1p-40) < 1e-24, "log double", "near 1");
    check(mestk_cos_double(0) == 1 && fabs(mestk_cos_double(3.141592653589793) + 1) < 1e-15, "cos", "ends");
    check(same_float(mestk_fma(3e38f, 2, -INFINITY), -INFINITY) && isinf(mestk_fma(3e38f, 3e38f, -3e38f)), "fma", "overflow");
}

static int32_t stack_body(void *scratch, void *context)
{
    memset(scratch, 1, 1000);
    return (uintptr_t)scratch % 16 == 0 ? *(int32_t *)context : -1;
}

static void test_host(void)
{
    int32_t flag = 5, seven = 7;
    check(mestk_exchange(&flag, 6) == 5 && mestk_load(&flag) == 6, "exchange", "");
    mestk_store(&flag, 9);
    check(mestk_load(&flag) == 9, "store", "");
    void *block = mestk_allocate(1000, 64);
    check(block && (uintptr_t)block % 64 == 0, "allocate", "");
    mestk_release(block);
    check(mestk_with_stack(1000, stack_body, &seven) == 7, "stack", "");
    strcpy(mestk_thread_message(), "text");
    check(strcmp(mestk_thread_message(), "text") == 0 && strlen(mestk_build_info()) > 0 && mestk_cores() >= 1, "host", "");
}
#endif
