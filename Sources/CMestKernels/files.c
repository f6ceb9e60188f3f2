/* SPDX-License-Identifier: Apache-2.0 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* O_CLOEXEC, pread */
#endif
#define _FILE_OFFSET_BITS 64 /* on 32-bit machines too */
#include "files.h"

#if __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__))
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* PATH.tmp, in a buffer of PATH_BYTES. */
static int32_t name_temporary(const mestk_file *file, char *name)
{
    size_t length = strlen(file->path);
    if (length + sizeof ".tmp" > PATH_BYTES) return ENAMETOOLONG;
    memcpy(name, file->path, length);
    memcpy(name + length, ".tmp", sizeof ".tmp");
    return 0;
}

static int32_t open_as(mestk_file *file, const char *name, int flags)
{
    do file->handle = open(name, flags | O_CLOEXEC, 0666);
    while (file->handle < 0 && errno == EINTR);
    return file->handle < 0 ? errno : 0;
}

int32_t mestk_file_open(mestk_file *file, const char *path)
{
    *file = (mestk_file){ .path = path };
    int32_t error = open_as(file, path, O_RDONLY);
    if (error) return error;
    struct stat about;
    if (fstat(file->handle, &about) != 0) error = errno;
    else if (!S_ISREG(about.st_mode)) error = S_ISDIR(about.st_mode) ? EISDIR : EINVAL;
    if (error) mestk_file_close(file);
    else file->bytes = (uint64_t)about.st_size;
    return error;
}

/* Whether the file that is open is still the one of this name: who had the lock before has renamed or removed it. */
static int still_named(const mestk_file *file, const char *name)
{
    struct stat opened, named;
    return fstat(file->handle, &opened) == 0 && stat(name, &named) == 0 && opened.st_dev == named.st_dev
           && opened.st_ino == named.st_ino;
}

enum { TRIES = 100 }; /* each is lost to a whole save; a file system that numbers files anew would lose them all */

/* Opens it, for this process alone: the lock ends with the process, however that ends.  Where a file system has no
 * locks, two savers are not told apart. */
static int32_t open_alone(mestk_file *file, const char *name)
{
    for (int try = 1;; try++) {
        int32_t error = open_as(file, name, O_WRONLY | O_CREAT);
        if (error) return error;
        int busy = flock(file->handle, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        if (!busy && (try == TRIES || still_named(file, name))) return 0;
        mestk_file_close(file);
        if (busy) return EBUSY;
    }
}

int32_t mestk_file_create(mestk_file *file, const char *path)
{
    char name[PATH_BYTES];
    *file = (mestk_file){ .handle = -1, .path = path };
    int32_t error = name_temporary(file, name);
    if (!error) error = open_alone(file, name);
    file->writes = !error;
    if (!error && ftruncate(file->handle, 0) != 0) {
        error = errno;
        mestk_file_close(file);
    }
    return error;
}

/* A rename is on the disk when the folder is. name: of a file in it; overwritten. */
static int32_t sync_folder(mestk_file *file, char *name)
{
    char *slash = strrchr(name, '/');
    if (!slash) memcpy(name, ".", 2);
    else if (slash == name) slash[1] = 0;
    else *slash = 0;
    int32_t error = open_as(file, name, O_RDONLY);
    if (error) return error;
    error = fsync(file->handle) == 0 || errno == EINVAL ? 0 : errno; /* some file systems cannot, and need not */
    mestk_file_close(file);
    return error;
}

int32_t mestk_file_replace(mestk_file *file)
{
    char name[PATH_BYTES];
    int32_t error = name_temporary(file, name);
    if (!error && rename(name, file->path) != 0) error = errno; /* all has been synced, so that closing tells nothing */
    file->writes = error != 0;
    mestk_file_close(file);
    return error ? error : sync_folder(file, name);
}

void mestk_file_close(mestk_file *file)
{
    char name[PATH_BYTES];
    if (file->writes && name_temporary(file, name) == 0) unlink(name); /* while the lock is held */
    if (file->handle >= 0) close(file->handle);
    file->handle = -1;
    file->writes = 0;
}

int32_t mestk_file_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    (void)slot;
    const mestk_file *file = user;
    for (size_t done = 0; done < count;) {
        ssize_t n = pread(file->handle, (char *)bytes + done, count - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        done += (size_t)n;
    }
    return 0;
}

int32_t mestk_file_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user)
{
    (void)slot;
    const mestk_file *file = user;
    for (size_t done = 0; done < count;) {
        ssize_t n = pwrite(file->handle, (const char *)bytes + done, count - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        done += (size_t)n;
    }
    return 0;
}

int32_t mestk_file_sync(uint32_t slot, void *user)
{
    (void)slot;
    return fsync(((const mestk_file *)user)->handle) == 0 ? 0 : errno;
}

const char *mestk_file_error(int32_t error)
{
    switch (error) {
    case ENOENT: return "no such file or folder";
    case EACCES: case EPERM: return "not allowed";
    case EBUSY: return "another save to it is going on";
    case EISDIR: return "it is a folder";
    case ENOTDIR: return "a part of the path is no folder";
    case ENOSPC: case EDQUOT: return "no space left";
    case EROFS: return "the file system is read-only";
    case ENAMETOOLONG: return "the path is too long";
    case EINVAL: return "it is no ordinary file";
    default: return "input or output error";
    }
}
#else
int32_t mestk_file_open(mestk_file *file, const char *path) { return (void)file, (void)path, MESTK_NO_FILES; }
int32_t mestk_file_create(mestk_file *file, const char *path) { return (void)file, (void)path, MESTK_NO_FILES; }
int32_t mestk_file_replace(mestk_file *file) { return (void)file, MESTK_NO_FILES; }
void mestk_file_close(mestk_file *file) { (void)file; }

int32_t mestk_file_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    return (void)slot, (void)offset, (void)bytes, (void)count, (void)user, MESTK_NO_FILES;
}

int32_t mestk_file_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user)
{
    return (void)slot, (void)offset, (void)bytes, (void)count, (void)user, MESTK_NO_FILES;
}

int32_t mestk_file_sync(uint32_t slot, void *user) { return (void)slot, (void)user, MESTK_NO_FILES; }
const char *mestk_file_error(int32_t error) { return (void)error, "this build has no files: mest_io is for other memory"; }
#endif
