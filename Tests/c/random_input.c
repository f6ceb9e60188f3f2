/* SPDX-License-Identifier: Apache-2.0
 * Random descriptions, most of them wrong: none may trap, hang or answer INTERNAL; what is accepted
 * needs exactly the planned bytes, trains, mutates and predicts.
 *
 *   random_input [COUNT [FIRST]]     descriptions FIRST .. FIRST + COUNT - 1 */
#include "check.h"
#include "networks.h"
#include <signal.h>
#include <unistd.h>

static uint64_t state;
static uint32_t below(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

#include "random_network.h"

static volatile unsigned long now;

static void died(int number)
{
    char text[64];
    int length = snprintf(text, sizeof text, "FAILED: description %lu: signal %d\n", now, number);
    if (write(1, text, (size_t)length) < 0) { }
    _exit(1);
}

int main(int argc, char **argv)
{
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 5000, first = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    unsigned long accepted = 0;
    signal(SIGILL, died);
    signal(SIGSEGV, died);
    signal(SIGBUS, died);
    signal(SIGFPE, died);
    signal(SIGABRT, died);
    signal(SIGALRM, died);
    for (now = first; now < first + count; now++) {
        alarm(60);
        state = now * 0x9e3779b97f4a7c15u + 12345;
        for (int i = 0; i < 8; i++) below(2);
        network n = random_network();
        mest_plan_report plan = { .struct_size = sizeof plan };
        mest_layer_plan layers[96];
        for (uint32_t i = 0; i < n.count; i++) layers[i] = (mest_layer_plan){ .struct_size = sizeof *layers };
        mest_status status = mest_plan(&n.config, n.layers, n.count, &plan, layers);
        if (!check(documented(status) && (status == MEST_OK || *mest_last_error(NULL)), "description %lu: plan: %d %s", now, status,
                   mest_last_error(NULL)))
            continue;
        if (status != MEST_OK || plan.total_bytes > 4u << 20) continue;

        char *block = NULL;
        mest_model *model = NULL;
        if (posix_memalign((void **)&block, plan.alignment, plan.total_bytes + 64)) break;
        memset(block, 0xa5, plan.total_bytes + 64);
        status = mest_model_create_in(&n.config, n.layers, n.count, NULL, block, plan.total_bytes, &model);
        const char *wrong = "create_in";
        if (status == MEST_OK) wrong = use(model, &n, &plan);
        check(!wrong, "description %lu: %s: %s", now, wrong ? wrong : "", mest_last_error(model));
        mest_model_destroy(model);
        int outside = 0;
        for (int i = 0; i < 64; i++) outside += block[plan.total_bytes + (size_t)i] != (char)0xa5;
        check(!outside, "description %lu: written behind the block", now);
        free(block);
        accepted++;
    }
    check(count < 1000 || accepted > count / 10, "only %lu of %lu descriptions were accepted", accepted, count);
    return finish("random_input");
}
