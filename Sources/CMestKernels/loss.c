/* SPDX-License-Identifier: Apache-2.0 */
/* Losses: sample by sample, outputs in order; exponentials in float, sums in double. */
#include "internal.h"

/* The outputs of sample i are column[o * lanes]. */
MESTK_INLINE int64_t first_output(mestk_outputs o, int32_t i)
{
    return (int64_t)(i / o.lanes) * o.outputs * o.lanes + i % o.lanes;
}

static int32_t first_largest(mestk_outputs o, const float *y)
{
    int32_t best = 0;
    for (int32_t i = 1; i < o.outputs; i++)
        if (y[(int64_t)i * o.lanes] > y[(int64_t)best * o.lanes]) best = i;
    return best;
}

static float margin_of(mestk_outputs o, const float *y, int32_t label)
{
    int32_t other = -1;
    for (int32_t i = 0; i < o.outputs; i++)
        if (i != label && (other < 0 || y[(int64_t)i * o.lanes] > y[(int64_t)other * o.lanes])) other = i;
    return other < 0 ? 0.0f : y[(int64_t)label * o.lanes] - y[(int64_t)other * o.lanes];
}

static double sum_of_exponentials(mestk_outputs o, const float *y, float largest)
{
    double sum = 0.0;
    for (int32_t i = 0; i < o.outputs; i++) sum += (double)mestk_exp(y[(int64_t)i * o.lanes] - largest);
    return sum;
}

static void zero_padding_lanes(mestk_outputs o, float *dy)
{
    for (int32_t i = o.count; i < o.blocks * o.lanes; i++)
        for (int32_t k = 0; k < o.outputs; k++) dy[first_output(o, i) + (int64_t)k * o.lanes] = 0.0f;
}

double mestk_cross_entropy(mestk_outputs o, const float *y, const int32_t *label, float smoothing,
                           float scale, float *loss, uint8_t *correct, float *margin, float *dy)
{
    double total = 0.0, s = o.outputs > 1 ? (double)smoothing : 0.0;
    double elsewhere = o.outputs > 1 ? s / (o.outputs - 1) : 0.0, factor = (double)scale / o.count;
    if (dy) zero_padding_lanes(o, dy);
    for (int32_t i = 0; i < o.count; i++) {
        const float *out = y + first_output(o, i);
        int32_t best = first_largest(o, out);
        float largest = out[(int64_t)best * o.lanes];
        double sum = sum_of_exponentials(o, out, largest), mean = 0.0; /* of the outputs under the target */
        for (int32_t k = 0; k < o.outputs; k++) {
            float z = out[(int64_t)k * o.lanes] - largest;
            double target = k == label[i] ? 1.0 - s : elsewhere;
            if (target != 0.0) mean += target * (double)z;
            if (dy) dy[first_output(o, i) + (int64_t)k * o.lanes] = (float)(factor * ((double)mestk_exp(z) / sum - target));
        }
        double one = mestk_log_double(sum) - mean;
        loss[i] = (float)one;
        total += (double)loss[i];
        if (correct) correct[i] = best == label[i];
        if (margin) margin[i] = margin_of(o, out, label[i]);
    }
    return total;
}

double mestk_mean_squared_error(mestk_outputs o, const float *y, const float *target, float scale,
                                float *loss, float *dy)
{
    double total = 0.0, factor = 2.0 * (double)scale / ((double)o.count * o.outputs);
    if (dy) zero_padding_lanes(o, dy);
    for (int32_t i = 0; i < o.count; i++) {
        int64_t first = first_output(o, i);
        double sum = 0.0;
        for (int32_t k = 0; k < o.outputs; k++) {
            int64_t at = first + (int64_t)k * o.lanes;
            double d = (double)y[at] - (double)target[(int64_t)i * o.outputs + k];
            sum += d * d;
            if (dy) dy[at] = (float)(factor * d);
        }
        loss[i] = (float)(sum / o.outputs);
        total += (double)loss[i];
    }
    return total;
}

void mestk_softmax(mestk_outputs o, const float *y, float *out)
{
    for (int32_t i = 0; i < o.count; i++) {
        const float *column = y + first_output(o, i);
        float largest = column[(int64_t)first_largest(o, column) * o.lanes];
        double sum = sum_of_exponentials(o, column, largest);
        for (int32_t k = 0; k < o.outputs; k++)
            out[(int64_t)i * o.outputs + k] = (float)((double)mestk_exp(column[(int64_t)k * o.lanes] - largest) / sum);
    }
}
