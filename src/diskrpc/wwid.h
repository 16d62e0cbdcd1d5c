/* SPDX-License-Identifier: Apache-2.0 */
/* The world-wide id of a LUN as this node's kernel tells it: what tells an array's copy of a LUN
 * from the LUN (SAFETY 22). */
#ifndef LUNAR_DISKRPC_WWID_H
#define LUNAR_DISKRPC_WWID_H

#include "diskrpc/superblock.h"

/* "" if `fd` is no block device or its device has no id. Reads sysfs alone. */
void wwid_read(int fd, char ret[WWID_SIZE]);
/* The same of a device that is not open: nothing of it is read. */
void wwid_of_device(unsigned int major_number, unsigned int minor_number, char ret[WWID_SIZE]);

/* LUNAR_E_FOREIGN, with what to do, if the LUN behind `fd` is not the one that the superblock was
 * made on. */
int wwid_check(int fd, const char *device, const struct superblock *sb, struct error *err);

#endif
