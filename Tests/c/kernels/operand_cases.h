/* SPDX-License-Identifier: Apache-2.0 */
/* Operands where they are evaluated, masks and sums of gradients. */
#ifndef KERNELS_OPERAND_CASES_H
#define KERNELS_OPERAND_CASES_H
#include "harness.h"

static void test_evaluate(mestk_shape s, const mestk_operand *v, int finite, const char *name)
{
    void *want = get(mestk_bytes(s));
    mestk_shape whole = s; /* padding is evaluated like all else */
    whole.height = mestk_tiles_y(s) * mestk_tile_h(s), whole.width = mestk_tiles_x(s) * mestk_tile_w(s);
    EACH_VALUE(whole, s.blocks * s.lanes, at) put_value(s, want, at, operand_at(v, s, c_, at));
    for (int k = 0; k < ways; k++) {
        void *y = new_tensor(s);
        mestk_evaluate(&way[k], s, v, y);
        int ok = 1;
        for (int64_t i = 0; !finite && i < mestk_values(s); i++) { /* which NaN it is, nobody promises */
            float a = value_of(s, want, i), b = value_of(s, y, i);
            ok &= (isnan(a) && isnan(b)) || memcmp(&a, &b, 4) == 0;
        }
        check(finite ? same_tensor(s, want, y) : ok, finite ? "evaluate" : "evaluate, not finite", name);
        mestk_operand in_place = *v;
        in_place.x = y;
        memcpy(y, v->x, (size_t)mestk_bytes(s));
        mestk_evaluate(&way[k], s, &in_place, y);
        if (finite) check(same_tensor(s, want, y), "evaluate into x", name);
        if (finite && v->r) {
            in_place = *v;
            in_place.r = y;
            memcpy(y, v->r, (size_t)mestk_bytes(s));
            mestk_evaluate(&way[k], s, &in_place, y);
            check(same_tensor(s, want, y), "evaluate into r", name);
        }
        free(y);
    }
    free(want);
}

static void test_relu_backward(mestk_shape s, int count, const mestk_operand *v, const char *name)
{
    void *dy = random_tensor(s, count, 1), *old = random_tensor(s, count, 1);
    for (int k = 0; k < ways; k++) {
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            void *dx = accumulate ? tensor_copy(s, old) : new_tensor(s);
            mestk_relu_backward(&way[k], s, v, dy, dx, accumulate);
            int ok = 1;
            EACH_VALUE(s, count, at) {
                float want = operand_at(v, s, c_, at) > 0 ? value_of(s, dy, at) : 0.0f;
                ok &= value_of(s, dx, at) == round_to(s.format, accumulate ? value_of(s, old, at) + want : want);
            }
            check(ok, "relu backward", name);
            check(padding_is_zero(s, count, dx), "relu backward, padding", name);
            if (!accumulate) {
                void *in_place = tensor_copy(s, dy);
                mestk_relu_backward(&way[k], s, v, in_place, in_place, 0);
                check(same_tensor(s, in_place, dx), "relu backward in place", name);
                free(in_place);
            }
            free(dx);
        }
    }
    free(dy), free(old);
}

static void test_finish(mestk_shape s, int count, const mestk_operand *v, int masked, int normed, const char *name)
{
    void *g = random_tensor(s, count, 1), *x[2] = {random_tensor(s, count, 0), random_tensor(s, count, 0)};
    void *first = NULL;
    double *first_sums[2] = {NULL, NULL};
    for (int k = 0; k < ways; k++) {
        void *dx = tensor_copy(s, g);
        mestk_gradient to = {.dx = dx, .masked = masked, .accumulate = k % 2};
        for (int i = 0; i < normed; i++) to.normed[i] = x[i], to.sums[i] = new_sums(s);
        mestk_finish_gradient(&way[k], s, masked ? v : NULL, &to);
        if (k == 0) {
            int ok = 1;
            EACH_VALUE(s, count, at)
                ok &= value_of(s, dx, at) == (masked && !(operand_at(v, s, c_, at) > 0) ? 0.0f : value_of(s, g, at));
            check(ok, "finish gradient", name);
            check(padding_is_zero(s, count, dx), "finish gradient, padding", name);
            for (int i = 0; i < normed; i++)
                check(sums_are(s, count, to.sums[i], dx, x[i], NULL), "finish gradient, sums", name);
            first = dx;
            for (int i = 0; i < normed; i++) first_sums[i] = to.sums[i];
            continue;
        }
        check(same_tensor(s, first, dx), "finish gradient, bits", name);
        for (int i = 0; i < normed; i++) {
            check(same_sums(first_sums[i], to.sums[i], sums_size(s)), "finish gradient, bits of sums", name);
            free(to.sums[i]);
        }
        free(dx);
    }
    free(first), free(first_sums[0]), free(first_sums[1]), free(g), free(x[0]), free(x[1]);
}

static void test_operand(shape_case t, int format, int kind)
{
    char name[200], what[40];
    mestk_shape s = shape_of(t, format);
    snprintf(what, sizeof what, "operand %d", kind);
    name_shape(name, what, t, format);
    s.blocks += below(3) == 0;
    random_operand o = operand_of_kind(s, t.count, kind, 0);
    put_value(s, (void *)o.v.x, 0, -0.0f);
    test_evaluate(s, &o.v, 1, name);
    test_relu_backward(s, t.count, &o.v, name);
    test_finish(s, t.count, &o.v, kind % 3 != 0, kind % 4 == 3 ? 1 : kind % 3, name);
    put_value(s, (void *)o.v.x, below((int)mestk_values(s)), NAN);
    put_value(s, (void *)o.v.x, below((int)mestk_values(s)), INFINITY);
    put_value(s, (void *)o.v.x, below((int)mestk_values(s)), -INFINITY);
    test_evaluate(s, &o.v, 0, name);
    free_operand(&o);
}

static void test_operands(void)
{
    for (int i = 0; i < 2 * SHAPES * OPERANDS; i++) {
        state = seed_now = 9000 + (uint64_t)i;
        test_operand(shapes[i / 2 / OPERANDS], i % 2, i / 2 % OPERANDS);
    }
    check(round_to(MESTK_BF16, 1.00390625f) == 1.0078125f && round_to(MESTK_BF16, -1.00390625f) == -1.0078125f
              && round_to(MESTK_BF16, 1.0039f) == 1, "bf16", "halves go away from zero");
}
#endif
