/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels against (a) plain double-precision definitions on [sample][channel][y][x], within a
 * tolerance; (b) every level of this machine, (c) 1 to 3 threads and a parallel_for that runs its chunks
 * backwards, bit for bit; (d) the scalar functions against libm in double.
 *
 *   clang -O2 -ffp-contract=off -DMESTK_THREADS Tests/c/kernels/kernels_test.c Sources/CMestKernels/?*.c \
 *         -ISources/CMestKernels/include -lpthread -lm -o kernels_test && ./kernels_test
 *
 * Argument: how many random convolutions.  Prints a line per failed case and `kernels: N passed, N failed`; exit code 1 on failure.
 */
#include "conv_cases.h"
#include "conv_form_cases.h"
#include "depthwise_cases.h"
#include "level_cases.h"
#include "linear_cases.h"
#include "loss_cases.h"
#include "magnitude_cases.h"
#include "norm_cases.h"
#include "operand_cases.h"
#include "pool_cases.h"
#include "run_cases.h"
#include "value_cases.h"

int main(int argc, char **argv)
{
    static const int lanes[4] = {1, 4, 8, 16};
    list_ways();
    test_host();
    test_levels();
    test_run();
    test_scalar();
    test_index();
    test_layout();
    test_channels();
    test_operands();
    test_convs(argc > 1 ? atoi(argv[1]) : 240);
    test_conv_forms(argc > 1 ? atoi(argv[1]) : 240);
    test_depthwise();
    test_linears();
    for (int i = 0; i < 4 * SHAPES; i++) {
        state = seed_now = 4000 + (uint64_t)i;
        test_norm(shapes[i / 4], i % 2, i / 2 % 2);
        if (i / 2 % 2) test_dropout_and_flatten(shapes[i / 4], i % 2);
    }
    test_pools();
    test_magnitudes();
    static const int64_t sizes[] = {0, 1, 7, 16, 100, 4096, 5000, 16384, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) state = seed_now = 7000 + i, test_flat(sizes[i]);
    for (int i = 0; i < 24; i++) {
        state = seed_now = 8000 + (uint64_t)i;
        test_loss(lanes[i % 4], 1 + below(20), i == 5 ? 1 : 1 + below(20), i % 3 == 0 ? 0.1f : 0.0f);
    }
    printf("%s, fingerprint %016llx\nkernels: %d passed, %d failed\n", mestk_build_info(), (unsigned long long)fingerprint, passed, failed);
    return failed ? 1 : 0;
}
