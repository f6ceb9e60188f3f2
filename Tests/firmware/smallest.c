/* SPDX-License-Identifier: Apache-2.0
 * The least that a firmware is made of: a sparse perceptron trained in one static block.  tools/check-firmware.sh
 * measures and links it; it says nothing and needs no C library. */
#include <mest.h>

static _Alignas(64) unsigned char block[16384];

void *memcpy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, size);
    while (size--) ((char *)to)[size] = ((const char *)from)[size];
    return to;
}

void *memset(void *to, int value, size_t size)
{
    for (size_t i = 0; i < size; i++) ((char *)to)[i] = (char)value;
    return to;
}

int main(void)
{
    static const mest_layer layers[] = {
        { MEST_LAYER_HEAD(MEST_LAYER_INPUT), .channels = 16 },
        { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = 32 },
        { MEST_LAYER_HEAD(MEST_LAYER_RELU) },
        { MEST_LAYER_HEAD(MEST_LAYER_LINEAR), .channels = 4, .density = 1.0f },
    };
    static const float x[16] = { 0.5f, 1.0f };
    static const int32_t label = 1;
    mest_config config = MEST_CONFIG_INIT;
    config.batch = 1;
    config.epochs = 10;
    config.density = 0.2f;
    config.learning_rate = 0.1f;
    mest_model *model;
    mest_status status = mest_model_create_in(&config, layers, 4, NULL, block, sizeof block, &model);
    mest_batch batch = { .struct_size = sizeof batch, .count = 1, .x = x, .labels = &label };
    for (int i = 0; i < 10 && status == MEST_OK; i++) status = mest_model_step(model, &batch, NULL);
    return status;
}
