/* SPDX-License-Identifier: Apache-2.0
 * Fuzzing of descriptions: plan and create of any layers and config.  What is accepted needs the planned bytes, trains,
 * mutates and predicts. */
#include "input.h"
#include "../c/check.h"
#include "../c/random_network.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data, input_left = size;
    network n = random_network();
    n.config.threads = 1;
    mest_plan_report plan = { .struct_size = sizeof plan };
    mest_status status = mest_plan(&n.config, n.layers, n.count, &plan, NULL);
    MUST(documented(status) && (status == MEST_OK || *mest_last_error(NULL)), "plan: %d", status);
    if (status != MEST_OK || plan.total_bytes > 1u << 20) return 0;

    enum { ZONE = 64 };
    char *block = NULL;
    mest_model *model = NULL;
    if (posix_memalign((void **)&block, plan.alignment, plan.total_bytes + ZONE)) return 0;
    memset(block, 0xa5, plan.total_bytes + ZONE);
    status = mest_model_create_in(&n.config, n.layers, n.count, NULL, block, plan.total_bytes, &model);
    MUST(status == MEST_OK, "create_in: %s", mest_last_error(NULL));
    /* Long trainings of wide networks find little: other inputs are faster. */
    const char *wrong = plan.macs * n.config.batch > 1u << 16 ? NULL : use(model, &n, &plan);
    MUST(!wrong, "%s: %s", wrong, mest_last_error(model));
    mest_model_destroy(model);
    for (int i = 0; i < ZONE; i++) MUST(block[plan.total_bytes + (size_t)i] == (char)0xa5, "written behind the block");
    free(block);
    return 0;
}
