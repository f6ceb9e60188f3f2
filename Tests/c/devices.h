/* SPDX-License-Identifier: Apache-2.0
 * A simulated device with two slots: power that goes after so many bytes, reads that change. */
#ifndef DEVICES_H
#define DEVICES_H

#include <mest.h>
#include <stdlib.h>
#include <string.h>

typedef struct device {
    unsigned char *slot[2];
    size_t bytes;            /* of a slot */
    size_t power;            /* bytes that can still be written */
    int erases;              /* the slot, when a save begins, as flash must be */
    int garbles;             /* what the last write before the power went did not reach */
    size_t fail_read;        /* reads until one fails; 0: none does */
    size_t flip_read;        /* bytes read until one has another bit; 0: none has */
    size_t swap_read;        /* reads until the slots change places; 0: they do not */
    size_t reads, writes, syncs;
    uint64_t expected;       /* where the next write of a save begins */
    int wrong;               /* calls that a device could not serve */
} device;

static int32_t device_read(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user)
{
    device *d = user;
    d->reads++;
    if (slot > 1 || offset + count > d->bytes) {
        d->wrong++;
        return 1;
    }
    if (d->swap_read > 0 && --d->swap_read == 0) {
        unsigned char *first = d->slot[0];
        d->slot[0] = d->slot[1];
        d->slot[1] = first;
    }
    memcpy(bytes, d->slot[slot] + offset, count);
    if (d->flip_read > 0) {
        if (d->flip_read <= count) ((unsigned char *)bytes)[d->flip_read - 1] ^= 16;
        d->flip_read = d->flip_read > count ? d->flip_read - count : 0;
    }
    return d->fail_read > 0 && --d->fail_read == 0 ? 5 : 0;
}

static int32_t device_write(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user)
{
    device *d = user;
    d->writes++;
    if (offset == 0) d->expected = 0;
    if (slot > 1 || offset + count > d->bytes || offset != d->expected || count == 0 || offset % MEST_CHECKPOINT_CHUNK) {
        d->wrong++;
        return 1;
    }
    d->expected = offset + count;
    size_t lasts = count < d->power ? count : d->power;
    if (offset == 0 && d->erases) memset(d->slot[slot], 0xff, d->bytes);
    if (lasts < count && d->garbles && d->power > 0) memset(d->slot[slot] + offset, 0xa5, count);
    memcpy(d->slot[slot] + offset, bytes, lasts);
    d->power -= lasts;
    return lasts < count ? 5 : 0;
}

static int32_t device_sync(uint32_t slot, void *user)
{
    device *d = user;
    d->syncs++;
    return slot > 1 || d->power == 0 ? 5 : 0;
}

__attribute__((unused)) static device make_device(size_t bytes)
{
    device d = { .bytes = bytes, .power = SIZE_MAX };
    for (int i = 0; i < 2; i++) d.slot[i] = memset(malloc(bytes), 0xff, bytes);
    return d;
}

__attribute__((unused)) static void free_device(device *d)
{
    free(d->slot[0]);
    free(d->slot[1]);
}

__attribute__((unused)) static mest_io device_io(device *d)
{
    return (mest_io){ .struct_size = sizeof(mest_io), .user = d, .read = device_read, .write = device_write,
                      .sync = device_sync };
}

#endif
