/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's LUNs behind the first one: LVM physical volumes, which each node finds among its block
 * devices by what LVM's label says, without LVM.
 */
#ifndef LUNAR_DISKRPC_PV_H
#define LUNAR_DISKRPC_PV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

#define PV_UUID_SIZE 39 /* 32 characters, 6 hyphens and the NUL */
#define PV_PATH_SIZE 288

struct pv_label {
    char uuid[PV_UUID_SIZE];
    bool used;        /* it is part of a volume group, as far as the label knows */
    uint32_t n_areas; /* metadata areas on it */
};
/* Reads 4 KiB of an O_DIRECT descriptor. LUNAR_E_CORRUPT: there is no sound LVM label. */
int pv_label_read(int fd, struct pv_label *ret, struct error *err);

/*
 * The uuid of a LUN that is added to a pool is lunar's choice, and ends with a hash of the LUN's
 * WWID. So where the uuid is known, which is wherever LVM's metadata is, it is known on which LUN
 * it may stand, and there is no moment at which the one is written and the other is not: an array's
 * copy of the LUN has the uuid in its label and another WWID (SAFETY 22). "" is the WWID of a
 * device that has none.
 */
void pv_uuid_make(const char *wwid, char ret[PV_UUID_SIZE]);
/* Such a one at all, and the one of that WWID. */
bool pv_uuid_is_added(const char *uuid);
bool pv_uuid_fits(const char *uuid, const char *wwid);

/*
 * The block device of this machine with that uuid in its label, on a LUN whose WWID fits: its path
 * goes to `ret`. LUNAR_E_NOT_FOUND with a sentence. Blocking, since it reads the labels of devices
 * with such a WWID. Nothing else is read, so no volume's content is ever taken for a LUN: the
 * devices that lunar itself makes have WWIDs of their own.
 */
int pv_find(const char *uuid, char ret[PV_PATH_SIZE], struct error *err);
/* Is that what stands at `path` now? */
bool pv_is_at(const char *path, const char *uuid);

/* LUNAR_E_NOT_FOUND, with what to do, unless the device behind `fd` has at least `bytes`. */
int pv_check_size(int fd, const char *path, uint64_t bytes, struct error *err);
/* That refusal. */
int pv_too_small(const char *path, uint64_t have, uint64_t want, struct error *err);

#endif
