/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MESTK_LINEAR_JOB_H
#define MESTK_LINEAR_JOB_H
#include "internal.h"

struct mestk_linear_job {
    int32_t blocks, lanes;
    const mestk_weights *w;
    const float *bias, *x, *dy;
    float *y, *dx, *dw, *db;
    int32_t accumulate; /* dx is added to */
    int32_t add;        /* so are dw and db */
    const mestk_kernels *kernels; /* backward */
    void (*run)(const mestk_linear_job *job, int32_t first, int32_t end);
    int32_t count; /* rows (y, dw and db) or channels (dx) */
    int32_t chunk; /* of them in a task */
};

/* How the vector kernels find the terms of an output line. */
enum { BY_ROW, BY_CHANNEL, DENSE };

/* Else clang computes addresses in vectors and takes them out one by one, which is slower. */
#define SCALAR_ADDRESS(p) __asm__("" : "+r"(p))

/* Else clang loads a vector again, value by value. */
#if MESTK_X86
#define KEEP_VECTOR(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define KEEP_VECTOR(v) __asm__("" : "+w"(v))
#else
#define KEEP_VECTOR(v) (void)(v)
#endif

void mestk_linear_forward_reference(const mestk_linear_job *job, int32_t first, int32_t end);
void mestk_linear_backward_x_reference(const mestk_linear_job *job, int32_t first, int32_t end);
void mestk_linear_backward_w_reference(const mestk_linear_job *job, int32_t first, int32_t end);
void mestk_linear_bias_reference(const mestk_linear_job *job, int32_t first, int32_t end);
#endif
