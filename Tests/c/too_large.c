/* SPDX-License-Identifier: Apache-2.0
 * Random descriptions of networks as large as they may be: the plan counts their bytes without wrapping, and a model
 * larger than size_t is refused.  Where size_t has 32 bits most of them are. */
#include "check.h"
#include "networks.h"

static uint64_t state = 1;
static uint32_t below(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}
/* As often a small one as a large one, and one beside a power of two. */
static uint32_t up_to(uint32_t bits)
{
    uint32_t n = (1u << below(bits + 1)) - below(2) + below(2);
    return n > 1u << bits ? 1u << bits : n ? n : 1;
}

/* A multilayer perceptron, or convolutions; the bytes that its weights and their gradients take at least. */
static double large_network(network *n)
{
    static const int32_t methods[] = { MEST_METHOD_STATIC, MEST_METHOD_EM, MEST_METHOD_RIGL, MEST_METHOD_SNIP };
    int picture = (int)below(2);
    *n = (network){ .config = MEST_CONFIG_INIT };
    n->config.batch = up_to(16);
    n->config.threads = 1;
    n->config.epochs = 10;
    n->config.samples = up_to(30);
    n->config.mutation_every = 1;
    n->config.method = methods[below(4)];
    n->config.density = (float)(1 + below(100)) / 100;
    n->config.momentum = below(2) ? 0.9f : 0.0f;
    mest_layer *input = add(n, MEST_LAYER_INPUT);
    input->channels = up_to(16);
    if (picture) input->height = up_to(10), input->width = up_to(10);
    double channels = input->channels, bytes = 0;
    for (uint32_t i = 0, layers = 1 + below(4); i < layers; i++) {
        mest_layer *l = add(n, picture ? MEST_LAYER_CONV2D : MEST_LAYER_LINEAR);
        l->channels = up_to(16);
        if (picture) l->kernel_h = l->kernel_w = 1 + 2 * below(2), l->pad_h = l->pad_w = l->kernel_h / 2;
        bytes += channels * l->channels * (picture ? l->kernel_h * l->kernel_w : 1) * (double)n->config.density * 8 * 0.9;
        channels = l->channels;
        add(n, MEST_LAYER_RELU);
    }
    if (picture) add(n, MEST_LAYER_GLOBAL_AVG_POOL);
    add(n, MEST_LAYER_LINEAR)->channels = 2;
    return bytes;
}

typedef struct request {
    int calls;
    size_t bytes;
} request;

static void *note(size_t bytes, size_t alignment, void *user)
{
    request *r = user;
    (void)alignment;
    *r = (request){ r->calls + 1, bytes };
    return NULL;
}
static void nothing(void *block, size_t bytes, void *user) { (void)block, (void)bytes, (void)user; }

int main(void)
{
    /* Planning writes there, as far as it is told that there is room: for ten layers less than this. */
    static _Alignas(64) unsigned char block[64 << 10];
    int planned = 0, beyond = 0;
    for (int i = 0; i < 4000; i++) {
        network n;
        double least = large_network(&n);
        mest_plan_report plan = { .struct_size = sizeof plan };
        mest_status status = mest_plan(&n.config, n.layers, n.count, &plan, NULL);
        if (status != MEST_OK) {
            check((status == MEST_ERR_UNSUPPORTED || status == MEST_ERR_ARGUMENT || status == MEST_ERR_SHAPE)
                      && *mest_last_error(NULL),
                  "network %d: plan: %d %s", i, status, mest_last_error(NULL));
            continue;
        }
        planned++;
        check((double)plan.total_bytes >= least, "network %d: planned %llu bytes, weights alone are %.0f", i,
              (unsigned long long)plan.total_bytes, least);
        request r = { 0, 0 };
        mest_env env = { .struct_size = sizeof env, .user = &r, .allocate = note, .release = nothing };
        mest_model *model = NULL;
        status = mest_model_create(&n.config, n.layers, n.count, &env, &model);
        int fits = plan.total_bytes <= SIZE_MAX / 2;
        check(status == MEST_ERR_MEMORY && !model && r.calls == fits && (!fits || r.bytes == plan.total_bytes),
              "network %d of %llu bytes: create: %d %s", i, (unsigned long long)plan.total_bytes, status, mest_last_error(NULL));
        if (fits && plan.total_bytes <= sizeof block) continue;
        /* What would be left of the number, if it wrapped, is not enough. */
        size_t wrapped = fits ? sizeof block : (size_t)plan.total_bytes;
        status = mest_model_create_in(&n.config, n.layers, n.count, NULL, block, wrapped, &model);
        check(status == MEST_ERR_MEMORY && !model, "network %d of %llu bytes in %llu: create_in: %d", i,
              (unsigned long long)plan.total_bytes, (unsigned long long)wrapped, status);
        beyond += !fits;
    }
    check(planned > 1000, "only %d networks could be planned", planned);
    if (sizeof(size_t) == 4) check(beyond > 300, "only %d networks are larger than size_t", beyond);
    return finish("too_large");
}
