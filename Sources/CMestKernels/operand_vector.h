/* SPDX-License-Identifier: Apache-2.0 */
/* Operands and finished gradients of one lane count, format and instruction set: see operand.h. */

enum V(operand_kind) { V(SCALED) = 1, V(SECOND) = 2, V(SECOND_SCALED) = 4, V(RELU) = 8 };

/* An operand at one channel. */
typedef struct V(term) {
    const stored *x, *r;
    vec a, b, c;
    int32_t kind;
} V(term);

VEC_INLINE V(term) V(operand_term)(const mestk_operand *v, int32_t channel)
{
    V(term) t = {.x = v->x, .r = v->r, .a = vec_zero(), .b = vec_zero(), .c = vec_zero()};
    t.kind = (v->a ? V(SCALED) : 0) | (v->r ? V(SECOND) : 0) | (v->r && v->c ? V(SECOND_SCALED) : 0)
             | (v->relu ? V(RELU) : 0);
    if (v->a) t.a = (vec)(v->a[channel]), t.b = (vec)(v->b[channel]);
    if (v->r && v->c) t.c = (vec)(v->c[channel]);
    return t;
}

VEC_INLINE vec V(operand_value)(const V(term) *t, int64_t at, const int32_t kind)
{
    vec v = get_stored(t->x + at);
    if (kind & V(SCALED)) v = vec_fma(t->a, v, t->b);
    if (kind & V(SECOND)) {
        vec r = get_stored(t->r + at);
        v = kind & V(SECOND_SCALED) ? vec_fma(t->c, r, v) : v + r;
    }
    return kind & V(RELU) ? vec_relu(v) : v;
}

/* Calls run(kind) with a constant for the kinds that networks are made of. */
#define OPERAND_SWITCH(kind, run)                                                                              \
    switch (kind) {                                                                                            \
    case 0: run(0); break;                                                                                     \
    case V(RELU): run(V(RELU)); break;                                                                         \
    case V(SCALED): run(V(SCALED)); break;                                                                     \
    case V(SCALED) | V(RELU): run(V(SCALED) | V(RELU)); break;                                                 \
    case V(SCALED) | V(SECOND) | V(RELU): run(V(SCALED) | V(SECOND) | V(RELU)); break;                         \
    case V(SCALED) | V(SECOND) | V(SECOND_SCALED): run(V(SCALED) | V(SECOND) | V(SECOND_SCALED)); break;       \
    default: run(kind); break;                                                                                 \
    }

static void V(evaluate)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * LANES;
    int64_t at = (int64_t)strip * tx * s.channels * n;
    for (int32_t t = 0; t < tx; t++) {
        for (int32_t c = 0; c < s.channels; c++, at += n) {
            V(term) term = V(operand_term)(job->v, c);
            stored *y = (stored *)job->y + at;
#define RUN(kind) for (int32_t i = 0; i < n; i += WIDTH) put_stored(y + i, V(operand_value)(&term, at + i, kind))
            OPERAND_SWITCH(term.kind, RUN)
#undef RUN
        }
    }
}

/* y (+)= v > 0 ? x : +0 */
static void V(relu_backward)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * LANES;
    int64_t at = (int64_t)strip * tx * s.channels * n;
    for (int32_t t = 0; t < tx; t++) {
        for (int32_t c = 0; c < s.channels; c++, at += n) {
            V(term) term = V(operand_term)(job->v, c);
            const stored *x = (const stored *)job->x + at;
            stored *y = (stored *)job->y + at;
            for (int32_t i = 0; i < n; i += WIDTH) {
                vec v = vec_where(V(operand_value)(&term, at + i, term.kind) > vec_zero(), get_stored(x + i));
                put_stored(y + i, job->accumulate ? get_stored(y + i) + v : v);
            }
        }
    }
}

/* ---- sums per strip and channel ---- */

/* Two sums of lines, reduced over the first `lanes` of them: see operand.h. */
VEC_INLINE void V(reduce_sums)(vec *a, vec *b, int32_t lanes, double *sums)
{
    float sum[4] = {0};
    if (lanes < LANES) {
        float line[2][LANES];
        for (int h = 0; h < PARTS; h++) {
            vec_store(line[0] + h * WIDTH, a[h]);
            vec_store(line[1] + h * WIDTH, b[h]);
        }
        for (int32_t l = lanes; l < LANES; l++) line[0][l] = line[1][l] = 0.0f;
        for (int h = 0; h < PARTS; h++) {
            a[h] = vec_load(line[0] + h * WIDTH);
            b[h] = vec_load(line[1] + h * WIDTH);
        }
    }
#if WIDTH == 4 && LANES >= 8 /* an octet is two vectors; i + (i+4) comes first */
    for (int h = 0; h < PARTS; h += 2) {
        vec d[4] = {a[h] + a[h + 1], b[h] + b[h + 1], vec_zero(), vec_zero()};
        vec_add_dots(d, sum);
    }
#else
    for (int h = 0; h < PARTS; h++) {
        vec d[4] = {a[h], b[h], vec_zero(), vec_zero()};
        vec_add_dots(d, sum);
    }
#endif
    sums[0] = (double)sum[0];
    sums[1] = (double)sum[1];
}

static void V(finish_gradient)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    const mestk_gradient *g = job->gradient;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * LANES;
    int64_t step = (int64_t)s.channels * n, base = strip * tx * step;
    for (int32_t c = 0; c < s.channels; c++) {
        V(term) term = {0};
        if (g->masked) term = V(operand_term)(job->v, c);
        vec sum[PARTS], dot[2][PARTS];
        for (int h = 0; h < PARTS; h++) sum[h] = dot[0][h] = dot[1][h] = vec_zero();
        for (int32_t t = 0; t < tx; t++) {
            int64_t at = base + t * step + (int64_t)c * n;
            stored *dx = (stored *)g->dx + at;
            for (int32_t i = 0; i < n; i += LANES) {
                UNROLL for (int h = 0; h < PARTS; h++) {
                    int32_t j = i + h * WIDTH;
                    vec v = get_stored(dx + j);
                    if (g->masked) {
                        v = vec_where(V(operand_value)(&term, at + j, term.kind) > vec_zero(), v);
                        put_stored(dx + j, v);
                    }
                    sum[h] += v;
                    UNROLL for (int b = 0; b < 2; b++)
                        if (g->normed[b]) dot[b][h] = vec_fma(v, get_stored((const stored *)g->normed[b] + at + j), dot[b][h]);
                }
            }
        }
        for (int b = 0; b < 2; b++) {
            if (!g->normed[b]) continue;
            vec copy[PARTS];
            for (int h = 0; h < PARTS; h++) copy[h] = sum[h];
            V(reduce_sums)(copy, dot[b], LANES, g->sums[b] + ((int64_t)strip * s.channels + c) * 2);
        }
    }
}
