/* SPDX-License-Identifier: Apache-2.0
 * Runs a fuzzing target on files, without a fuzzer:  TARGET FILE... */
#include "input.h"

int main(int argc, char **argv)
{
    static uint8_t bytes[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) {
            printf("%s: cannot be read\n", argv[i]);
            return 1;
        }
        size_t size = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        uint8_t *exact = malloc(size ? size : 1); /* so that a read beyond it is seen */
        for (size_t k = 0; k < size; k++) exact[k] = bytes[k];
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%s: %d passed, 0 failed\n", argv[0], argc - 1);
    return 0;
}
