/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Losses on outputs y [block][output][lane] of `count` samples.  dy is the gradient of `scale` * mean
 * loss over the samples; 0 in padding lanes.  loss[i], correct[i], margin[i]: per sample.  dy, correct,
 * margin: or NULL.
 * Returns the sum of the losses, added in double in sample order.
 */
#ifndef MESTK_LOSS_H
#define MESTK_LOSS_H
#include <stdint.h>

typedef struct mestk_outputs {
    int32_t blocks, lanes, outputs, count;
} mestk_outputs;

/* Softmax cross-entropy, label smoothing s: target 1-s on the label, s/(outputs-1) elsewhere (with
 * one output: s is 0).  Correct: the first largest output is the label.  Margin: the label's output minus
 * the largest of the others (with one output: 0). */
double mestk_cross_entropy(mestk_outputs o, const float *y, const int32_t *label, float smoothing,
                           float scale, float *loss, uint8_t *correct, float *margin, float *dy);

/* loss = mean over outputs of (y - target)^2; target [count][outputs]. */
double mestk_mean_squared_error(mestk_outputs o, const float *y, const float *target, float scale,
                                float *loss, float *dy);

/* Softmax over the outputs -> out [count][outputs]. */
void mestk_softmax(mestk_outputs o, const float *y, float *out);
#endif
