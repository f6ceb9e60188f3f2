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

/* One line, in and out of floats. */
VEC_INLINE void V(operand_line)(const V(term) *t, int64_t at, const int32_t kind, float *to)
{
    UNROLL for (int h = 0; h < LANES; h += WIDTH) vec_store(to + h, V(operand_value)(t, at + h, kind));
}
VEC_INLINE void V(get_line)(const stored *from, float *to)
{
    UNROLL for (int h = 0; h < LANES; h += WIDTH) vec_store(to + h, get_stored(from + h));
}
VEC_INLINE void V(put_line)(stored *to, const float *from)
{
    UNROLL for (int h = 0; h < LANES; h += WIDTH) put_stored(to + h, vec_load(from + h));
}

/* Calls run(kind), with a constant for the kinds that networks are made of. */
#if MESTK_MOST_LANES == 1
#define OPERAND_SWITCH(kind, run) run(kind);
#else
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
#endif

/* Without constants of a channel a strip is one run of values, whatever its tiles.  Values at .. end-1 of
 * evaluate and relu_backward, as many as fill vectors; returns where the rest begins. */
static int64_t V(evaluate_run)(const mestk_strip_job *job, int64_t at, int64_t end)
{
    V(term) term = V(operand_term)(job->v, 0);
    stored *y = job->y;
#define RUN(kind) for (; at + WIDTH <= end; at += WIDTH) put_stored(y + at, V(operand_value)(&term, at, kind))
    OPERAND_SWITCH(term.kind, RUN)
#undef RUN
    return at;
}

static int64_t V(relu_backward_run)(const mestk_strip_job *job, int64_t at, int64_t end)
{
    V(term) term = V(operand_term)(job->v, 0);
    const stored *x = job->x;
    stored *y = job->y;
    for (; at + WIDTH <= end; at += WIDTH) {
        vec v = vec_where(V(operand_value)(&term, at, term.kind) > vec_zero(), get_stored(x + at));
        put_stored(y + at, job->accumulate ? get_stored(y + at) + v : v);
    }
    return at;
}

static void V(evaluate)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    int64_t at = (int64_t)strip * tx * s.channels * n, end = at + (int64_t)tx * s.channels * n;
    if (mestk_is_run(job->v)) {
        V_OF(evaluate_run, 1)(job, V(evaluate_run)(job, at, end), end);
        return;
    }
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
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    int64_t at = (int64_t)strip * tx * s.channels * n, end = at + (int64_t)tx * s.channels * n;
    if (mestk_is_run(job->v)) {
        V_OF(relu_backward_run, 1)(job, V(relu_backward_run)(job, at, end), end);
        return;
    }
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

/* ---- values that count ---- */

/* Which values of a tile are pixels of the picture and lanes that are samples: all, or a mask of them. */
typedef struct V(valid) {
    int32_t all;
    int32_t value[16 * LANES];
} V(valid);

static void V(find_valid)(mestk_shape s, int32_t rows, int32_t columns, int32_t lanes, V(valid) *valid)
{
    int32_t th = mestk_tile_h(s), tw = mestk_tile_w(s), *value = valid->value;
    valid->all = rows >= th && columns >= tw && lanes >= s.lanes;
    if (valid->all) return;
    for (int32_t r = 0; r < th; r++)
        for (int32_t c = 0; c < tw; c++)
            for (int32_t l = 0; l < s.lanes; l++) *value++ = r < rows && c < columns && l < lanes ? -1 : 0;
}

/* Of a strip: [0] its tiles, [1] the last of them. */
static void V(find_valid_of_strip)(mestk_shape s, int32_t strip, int32_t count, V(valid) *valid)
{
    int32_t ty = mestk_tiles_y(s), tx = mestk_tiles_x(s), tw = mestk_tile_w(s);
    int32_t rows = s.height - strip % ty * mestk_tile_h(s), lanes = count - strip / ty * s.lanes;
    V(find_valid)(s, rows, tw, lanes, valid);
    V(find_valid)(s, rows, s.width - (tx - 1) * tw, lanes, valid + 1);
}

VEC_INLINE vec V(keep_valid)(const V(valid) *valid, int32_t i, vec v)
{
    typedef int32_t unaligned __attribute__((ext_vector_type(WIDTH), aligned(4)));
    return valid->all ? v : vec_where(*(const unaligned *)(valid->value + i), v);
}

/* ---- sums per strip and channel ---- */

/* The 16 chains of a sum (operand.h) as vectors.  Vector h of the line at value i of a tile belongs to CHAIN(i, h):
 * where a line is fewer values than there are chains, that is not known before. */
#define CHAINS (16 / WIDTH)
#define CHAIN(i, h) (LANES < 16 ? ((i) / WIDTH + (h)) % CHAINS : (h))

VEC_INLINE void V(zero_chains)(vec *a)
{
    UNROLL for (int h = 0; h < CHAINS; h++) a[h] = vec_zero();
}

/* Two sums, each of them reduced: see operand.h. */
VEC_INLINE void V(reduce_sums)(vec *a, vec *b, double *sums)
{
    float sum[4] = {0};
#if LANES < 16
    float line[2][16];
    for (int h = 0; h < CHAINS; h++) {
        vec_store(line[0] + h * WIDTH, a[h]);
        vec_store(line[1] + h * WIDTH, b[h]);
    }
    for (int i = 0; i < 2; i++) mestk_add_line(&sum[i], line[i], 16);
#elif WIDTH == 4 /* an octet is two vectors; i + (i+4) comes first */
    for (int h = 0; h < CHAINS; h += 2) {
        vec d[4] = {a[h] + a[h + 1], b[h] + b[h + 1], vec_zero(), vec_zero()};
        vec_add_dots(d, sum);
    }
#else
    for (int h = 0; h < CHAINS; h++) {
        vec d[4] = {a[h], b[h], vec_zero(), vec_zero()};
        vec_add_dots(d, sum);
    }
#endif
    sums[0] = (double)sum[0];
    sums[1] = (double)sum[1];
}

/* The same of whole lines of `lanes` lanes, over those that are samples: the others are made +0. */
VEC_INLINE void V(reduce_samples)(vec *a, vec *b, int32_t lanes, int32_t samples, double *sums)
{
    if (samples < lanes) {
        for (int h = 0; h < CHAINS; h++) {
            vec_int mask;
            for (int l = 0; l < WIDTH; l++) mask[l] = (h * WIDTH + l) % lanes < samples ? -1 : 0;
            a[h] = vec_where(mask, a[h]);
            b[h] = vec_where(mask, b[h]);
        }
    }
    V(reduce_sums)(a, b, sums);
}

/* The sums of one channel of a stored tensor, and of its products with another. */
static __attribute__((unused)) void V(strip_sums)(mestk_shape s, int32_t strip, int32_t c, int32_t count,
                                                  const stored *v, const stored *other, double *sums)
{
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    V(valid) valid[2];
    V(find_valid_of_strip)(s, strip, count, valid);
    vec sum[CHAINS], dot[CHAINS];
    V(zero_chains)(sum), V(zero_chains)(dot);
    for (int32_t t = 0; t < tx; t++) {
        int64_t at = (((int64_t)strip * tx + t) * s.channels + c) * n;
        for (int32_t i = 0; i < n; i += LANES) {
            UNROLL for (int h = 0; h < PARTS; h++) {
                int32_t j = i + h * WIDTH;
                vec a = V(keep_valid)(valid + (t + 1 == tx), j, get_stored(v + at + j));
                sum[CHAIN(i, h)] += a;
                dot[CHAIN(i, h)] = vec_fma(a, get_stored(other + at + j), dot[CHAIN(i, h)]);
            }
        }
    }
    V(reduce_sums)(sum, dot, sums + ((int64_t)strip * s.channels + c) * 2);
}

static void V(finish_gradient)(const mestk_strip_job *job, int32_t strip)
{
    mestk_shape s = job->s;
    const mestk_gradient *g = job->gradient;
    int32_t tx = mestk_tiles_x(s), n = mestk_tile_h(s) * mestk_tile_w(s) * s.lanes;
    int64_t step = (int64_t)s.channels * n, base = strip * tx * step;
    for (int32_t c = 0; c < s.channels; c++) {
        V(term) term = {0};
        if (g->masked) term = V(operand_term)(job->v, c);
        vec sum[CHAINS], dot[2][CHAINS];
        V(zero_chains)(sum), V(zero_chains)(dot[0]), V(zero_chains)(dot[1]);
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
                    sum[CHAIN(i, h)] += v;
                    UNROLL for (int b = 0; b < 2; b++) {
                        if (!g->normed[b]) continue;
                        vec *chain = &dot[b][CHAIN(i, h)];
                        *chain = vec_fma(v, get_stored((const stored *)g->normed[b] + at + j), *chain);
                    }
                }
            }
        }
        for (int b = 0; b < 2; b++) {
            if (!g->normed[b]) continue;
            vec copy[CHAINS];
            for (int h = 0; h < CHAINS; h++) copy[h] = sum[h];
            V(reduce_sums)(copy, dot[b], g->sums[b] + ((int64_t)strip * s.channels + c) * 2);
        }
    }
}
