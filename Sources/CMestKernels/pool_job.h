/* SPDX-License-Identifier: Apache-2.0 */
/* One call of a pool as its chunks see it. */
#ifndef MESTK_POOL_JOB_H
#define MESTK_POOL_JOB_H
#include "internal.h"

struct mestk_pool_job {
    const mestk_conv *g; /* windows */
    mestk_shape s;       /* global: of x */
    const void *x, *dy;
    void *y, *dx;
    int32_t accumulate, maximum;
    void (*run)(const mestk_pool_job *job, int32_t index);
};

enum { MESTK_POOL_CHANNELS = 16 }; /* global: of a chunk */

/* The part of a window that lies in the picture. */
typedef struct pool_window {
    int32_t y0, y1, x0, x1;
} pool_window;

MESTK_INLINE pool_window mestk_pool_window(const mestk_conv *g, int32_t y, int32_t x)
{
    int32_t top = y * g->stride_h - g->pad_h, left = x * g->stride_w - g->pad_w;
    pool_window w = {mestk_max(0, top), mestk_min(g->in.height, top + g->kernel_h), mestk_max(0, left),
                     mestk_min(g->in.width, left + g->kernel_w)};
    return w;
}
#endif
