/* SPDX-License-Identifier: Apache-2.0
 * Writes what fuzzing of checkpoints begins with: real ones, after more and more steps.  seeds FOLDER */
#include "../c/checkpoints.h"

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    for (int kind = 0; kind < 2; kind++) {
        network n = kind ? small_sieve() : small();
        dataset d = small_data(&n);
        for (uint32_t steps = 0; steps < 24; steps += 5) {
            device slots = make_device(slot_bytes(&n));
            mest_io io = device_io(&slots);
            size_t bytes;
            save_after(&n, &d, &io, steps, &bytes);
            char path[512];
            snprintf(path, sizeof path, "%s/%s-%u", argv[1], kind ? "sieve" : "small", steps);
            FILE *file = fopen(path, "wb");
            if (!file) return 1;
            fputc(kind | 2, file); /* checkpoint.c: which network; CRCs are put right */
            fwrite(slots.slot[0], 1, bytes, file);
            if (fclose(file)) return 1;
            free_device(&slots);
        }
        free_data(&d);
    }
    return checks.failed != 0;
}
