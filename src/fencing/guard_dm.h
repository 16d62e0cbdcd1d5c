/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's hand on device-mapper: every map of a pool that reaches the LUN gets an error table,
 * and the proof that none is left (guard_dm.c). Raw ioctls and buffers of its own: nothing
 * allocates after guard_dm_open. Internal to src/fencing.
 */
#ifndef LUNAR_FENCING_GUARD_DM_H
#define LUNAR_FENCING_GUARD_DM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <linux/dm-ioctl.h>

#include "base/error.h"
#include "base/uuid.h"

/* A grant table holds some hundred attachments, each with up to ten layers. */
#define GUARD_DM_DEVICES 4096u
/* All devices of the node, ours or not: 24 bytes and a name of up to 127 each. */
#define GUARD_DM_BUFFER (1u << 20)
/* So many drains go on at once; each waits for one device's I/O. */
#define GUARD_DM_SWAPPERS 16

struct guard_dm_device {
    char uuid[DM_UUID_LEN];
    uint64_t sectors;
    bool clear;  /* error targets alone, nothing inactive, not suspended */
    bool loaded; /* an error table waits to be put in */
};

struct guard_dm {
    /* One ioctl: 0 or -errno. The tests have a kernel of their own behind it; called by several
     * threads at once. */
    int (*call)(void *data, unsigned long request, struct dm_ioctl *io);
    void *data;
    int control_fd;     /* -1: there is no device-mapper (test pools only) */
    char prefix[2][32]; /* of the uuids: "LUNAR-L-<pool>-", "LUNAR-J-<pool>-" */

    struct guard_dm_device devices[GUARD_DM_DEVICES];
    uint32_t n;
    union {
        struct dm_ioctl io;
        uint8_t bytes[GUARD_DM_BUFFER];
    } list, status;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t next, end,
        left;         /* of the devices to be swapped: the next to take, and those not done */
    char reason[128]; /* the first thing that went wrong in this round */
};

/* Opens the control device and starts the swapping threads. `without` allows a kernel that has no
 * device-mapper at all: then nothing can be mapped. */
int guard_dm_open(struct guard_dm *dm, const struct uuid *pool_id, bool without, struct error *err);
/* The same with a `call` of the caller's, for tests. */
int guard_dm_start(struct guard_dm *dm, const struct uuid *pool_id, struct error *err);
/* One round, waiting for whatever I/O is in flight: true is the proof; false: dm->reason says why
 * not, and nothing may be released. */
bool guard_dm_wipe(struct guard_dm *dm);
/* How many L and J maps of the pool stand; negative if that cannot be told, with dm->reason. */
int guard_dm_count(struct guard_dm *dm);

#endif
