/* SPDX-License-Identifier: Apache-2.0
 * What Linux says of this process; -1 where it does not. */
#ifndef PROCESS_H
#define PROCESS_H

#include <dirent.h>

static int entries_of(const char *path)
{
    int n = 0;
    DIR *folder = opendir(path);
    if (!folder) return -1;
    for (struct dirent *entry; (entry = readdir(folder));) n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

__attribute__((unused)) static int open_files(void) { return entries_of("/proc/self/fd"); }
__attribute__((unused)) static int threads_here(void) { return entries_of("/proc/self/task"); }

#endif
