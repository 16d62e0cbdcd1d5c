/* SPDX-License-Identifier: Apache-2.0 */
/* What every caller of libsanlock needs: its structs filled from a superblock, its result codes in
 * words. Internal. */
#ifndef LUNAR_FENCING_SANLOCK_CALLS_H
#define LUNAR_FENCING_SANLOCK_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The order matters: the later ones use what the first defines. */
#include <sanlock.h>
#include <sanlock_admin.h>
#include <sanlock_resource.h>
#include <sanlock_rv.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

extern const char *const sanlock_resource_names[LAYOUT_RESOURCES];

/* Sets the error for a negative result of libsanlock: "DOING: what it means, what to do". Returns
 * lunar's code. */
int sanlock_fail(struct error *err, int rv, const char *doing);

/* sanlock's daemon opens the path from its own directory and stores it in 1024 escaped bytes. */
int sanlock_check_device(const char *device, struct error *err);

/* Registers this process; the socket has close-on-exec. Returns it, or a negative code. Ignores
 * SIGPIPE from now on. */
int sanlock_open_socket(struct error *err);

void sanlock_fill_lockspace(struct sanlk_lockspace *ret, const struct superblock *sb,
                            const char *device, uint32_t host_id);
/* free() it. */
struct sanlk_resource *sanlock_make_resource(const struct superblock *sb, const char *device,
                                             uint32_t index, uint32_t flags);

/* 1 and *ret if the local daemon has the lockspace in its list (joined, joining or leaving: see
 * ret->flags); 0 if not. */
int sanlock_find_lockspace(const char *name, struct sanlk_lockspace *ret, struct error *err);

/* 1 and *ret_lver if the registered socket holds that lease; 0 if not; negative: the daemon could
 * not be asked. */
int sanlock_holds(int fd, const char *lockspace, const char *resource, uint64_t *ret_lver,
                  struct error *err);

#endif
