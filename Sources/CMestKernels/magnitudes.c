/* SPDX-License-Identifier: Apache-2.0 */
/* Plain C at every level: asked for once in hundreds of updates, and less work than one row of a dense gradient. */
#include "scalar_inline.h"

typedef struct magnitudes {
    const mestk_conv *g;
    const mestk_operand *v;
    int32_t count;
    double *sums;
} magnitudes;

/* Whether the outputs of this length have one whose tap k meets position q. */
static int32_t meets(int32_t q, int32_t k, int32_t stride, int32_t pad, int32_t length)
{
    int32_t p = q + pad - k;
    return p >= 0 && p % stride == 0 && p / stride < length;
}

static void channel(void *argument, uint32_t index, uint32_t worker)
{
    const magnitudes *m = argument;
    const mestk_conv *g = m->g;
    mestk_shape s = g->in;
    int32_t c = (int32_t)index, taps = g->kernel_h * g->kernel_w;
    double *sums = m->sums + (int64_t)c * taps;
    (void)worker;
    for (int32_t t = 0; t < taps; t++) sums[t] = 0.0;
    for (int32_t block = 0; block < s.blocks; block++) {
        int32_t lanes = mestk_max(0, mestk_min(s.lanes, m->count - block * s.lanes));
        for (int32_t y = 0; y < s.height; y++) {
            for (int32_t x = 0; x < s.width; x++) {
                int64_t at = mestk_line(s, block, c, y, x);
                double sum = 0.0;
                for (int32_t l = 0; l < lanes; l++) {
                    float v = mestk_operand_value(m->v, s.format, c, at + l);
                    sum += (double)(v < 0.0f ? -v : v);
                }
                for (int32_t ky = 0; ky < g->kernel_h; ky++) {
                    if (!meets(y, ky, g->stride_h, g->pad_h, g->out.height)) continue;
                    for (int32_t kx = 0; kx < g->kernel_w; kx++)
                        if (meets(x, kx, g->stride_w, g->pad_w, g->out.width)) sums[ky * g->kernel_w + kx] += sum;
                }
            }
        }
    }
}

void mestk_patch_magnitudes(const mestk_context *k, const mestk_conv *g, const mestk_operand *v, int32_t count,
                            double *sums)
{
    magnitudes m = {g, v, count, sums};
    mestk_run_light(k, (uint32_t)g->in.channels, mestk_values(g->in), channel, &m);
}
