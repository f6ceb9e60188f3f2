/* SPDX-License-Identifier: Apache-2.0
 * What the programs here do with their samples, which are constants in flash: train a sparse network where there is no
 * heap.  The model lives in one static array, checkpoints go to two slots of a flash chip.  However often the power goes,
 * the training ends on the same bits, on every board. */
#ifndef TRAINING_H
#define TRAINING_H

#include <mest.h>

typedef struct training {
    const char *samples;                /* what they are called                                     */
    const mest_config *config;          /* batch 1, samples: the size of the training set           */
    const mest_layer *layers;
    uint32_t count;
    void *block;                        /* for the model, 64-byte aligned: config->budget_bytes     */
    uint32_t *scratch;                  /* room for config->samples words, and for any tensor       */
    uint32_t scratch_words;
    uint32_t test;                      /* samples behind those of the training set                 */
    uint32_t save_every;                /* updates                                                  */
    uint32_t reset_at;                  /* update of the first start after which it resets itself   */
    /* A sample, which stays where it is until the next call. */
    void (*show)(uint32_t sample, mest_batch *out);
} training;

/* For main(): arguments are other updates to reset after, a number for each start. */
int train(const training *t, int argc, char **argv);

#endif
