/* SPDX-License-Identifier: Apache-2.0 */
/* The block device under `lun format`: claim, what it carries, wipe, zero. Blocking; one
 * thread. */
#ifndef LUNARCTL_DEVICE_H
#define LUNARCTL_DEVICE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

struct device {
    char path[PATH_MAX]; /* resolved */
    int lock_fd;         /* flock: one formatter per machine, and udev keeps away meanwhile */
    int fd;              /* O_DIRECT read-write, O_EXCL while claimed; -1 in between */
    uint64_t bytes;
    uint32_t sector;
    char wwid[WWID_SIZE]; /* "" if it has none */
};

/* Locks and measures. LUNAR_E_INVALID: not a block device; LUNAR_E_BUSY: somebody formats or probes
 * it. */
int device_open(const char *path, struct device *ret, struct error *err);
/* Opens device->fd exclusively: LUNAR_E_IN_USE, with who holds it, if it is mounted or part of
 * something. */
int device_claim(struct device *device, struct error *err);
void device_release(struct device *device);
void device_close(struct device *device);

#define SIGNATURES_TEXT_SIZE 512
struct signatures {
    unsigned n;
    bool only_lvm;                   /* all are LVM physical volume labels */
    char text[SIGNATURES_TEXT_SIZE]; /* "ext4 filesystem \"data\", gpt partition table" */
};
/* What libblkid recognises on the device. */
int device_probe(const struct device *device, struct signatures *ret, struct error *err);
/* Removes every signature that libblkid recognises, backup copies too. */
int device_wipe(const struct device *device, struct error *err);

/* Zeroes and reads back. `offset` and `len` are multiples of 4096. The device is claimed. */
int device_zero(const struct device *device, uint64_t offset, uint64_t len, struct error *err);

#endif
