/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that is replaced as a whole or not at all: written beside its place under another name, forced to the
 * disk, renamed, and the folder forced to the disk.  Builds without an operating system have no files: there
 * every function fails with MESTK_NO_FILES.
 *
 * Functions return 0 or the number of an error, errno's.
 */
#ifndef MESTK_FILES_H
#define MESTK_FILES_H
#include <stddef.h>
#include <stdint.h>

enum { MESTK_NO_FILES = -1 };

typedef struct mestk_file {
    int32_t handle;   /* -1: closed */
    int32_t writes;   /* to PATH.tmp */
    uint64_t bytes;   /* of a file that was opened */
    const char *path;
} mestk_file;

int32_t mestk_file_open(mestk_file *file, const char *path);   /* to read */
int32_t mestk_file_create(mestk_file *file, const char *path); /* to write, beside it */
int32_t mestk_file_replace(mestk_file *file);                  /* what was written takes its place; closes */
void mestk_file_close(mestk_file *file);                       /* what was written is given up */

/* mest_io's; user: the mestk_file. */
int32_t mestk_file_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user);
int32_t mestk_file_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user);
int32_t mestk_file_sync(uint32_t slot, void *user);

/* What an error number says, a few words; static. */
const char *mestk_file_error(int32_t error);
#endif
