/* SPDX-License-Identifier: Apache-2.0 */
/* The member lease and the USED mark, for whoever holds a membership. Internal to src/fencing;
 * blocking. */
#ifndef LUNAR_FENCING_GUARD_LEASE_H
#define LUNAR_FENCING_GUARD_LEASE_H

#include <stdbool.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

/* SHARED, with a random back-off, for up to 30 s. */
int member_acquire(int sanlock_fd, const struct superblock *sb, const char *device,
                   struct error *err);
int member_set_used(const struct uuid *pool_id, bool used, struct error *err);

#endif
