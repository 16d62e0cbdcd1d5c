/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's hand on device-mapper: every map of a pool that reaches the LUN gets an error table,
 * and the proof that none is left (guard_dm.c). Those are layers (L), jobs (J), and tails (T),
 * which reach it while their layer grows (agent/stack_tail.c). Raw ioctls and buffers of its own:
 * nothing allocates after guard_dm_open. Internal to src/fencing.
 */
#ifndef LUNAR_FENCING_GUARD_DM_H
#define LUNAR_FENCING_GUARD_DM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <linux/dm-ioctl.h>

#include "base/error.h"
#include "base/uuid.h"

/*
 * Maps that one round can wipe. A node's grants name GUARD_DM_LAYERS_MAX layers at most, which the
 * coordinator sees to, in up to TABLE_ENTRIES_MAX (512) attachments; each has a tail or, while it
 * grows, two or three: 14,336. Should more stand, the rest is met by the next round, and there is
 * no proof before.
 */
#define GUARD_DM_LAYERS_MAX 12800u
#define GUARD_DM_QUEUE      16384u
/* The list of our maps alone: each with 24 bytes, a name and a uuid of up to 128, eight bytes
 * between them. A kernel before 5.13 lists all devices of the node; what does not fit then is no
 * proof. */
#define GUARD_DM_LIST_BYTES (GUARD_DM_QUEUE * 304)
/* One map's status: 48 bytes for each target, of which a map has one per stretch of its layer and a
 * few more, up to STACK_SEGMENTS_MAX (4096): 200 KB. */
#define GUARD_DM_STATUS_BYTES (256u << 10)
/* The kernel allocates and copies as much as we offer, in each call: a look begins with a page
 * (80 targets), a list with 64 KiB (some 350 maps), and what does not fit is offered more. */
#define GUARD_DM_STATUS_FIRST 4096u
#define GUARD_DM_LIST_FIRST   (64u << 10)
/* So many drains go on at once. Each waits for one map's I/O in a thread of its own, and while all
 * of them wait, the rest of the maps is not stopped: more than have anything in flight where a part
 * of a LUN hangs, and 8 MiB of stacks. */
#define GUARD_DM_SWAPPERS 64

#define GUARD_DM_KINDS 3

struct guard_dm;

struct guard_dm_swapper {
    struct guard_dm *dm;
    char uuid[DM_UUID_LEN]; /* of the map in hand; "": none */
};

struct guard_dm {
    /* One ioctl: 0 or -errno. The tests have a kernel of their own behind it; called by several
     * threads at once. */
    int (*call)(void *data, unsigned long request, struct dm_ioctl *io);
    void *data;
    int control_fd;                  /* -1: there is no device-mapper (test pools only) */
    char prefix[GUARD_DM_KINDS][32]; /* of the uuids: "LUNAR-T-<pool>-", then L and J */

    uint32_t n; /* maps of ours that the last look has seen */
    union {
        struct dm_ioctl io;
        uint8_t bytes[GUARD_DM_LIST_BYTES];
    } list;
    union {
        struct dm_ioctl io;
        uint8_t bytes[GUARD_DM_STATUS_BYTES];
    } status;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work, idle;
    char queue[GUARD_DM_QUEUE][DM_UUID_LEN]; /* an error table is loaded and waits to be put in */
    uint32_t next, end;
    uint32_t busy; /* swappers with a map in hand */
    struct guard_dm_swapper swappers[GUARD_DM_SWAPPERS];
    char reason[128]; /* the first thing that went wrong in this round */
};

/* Opens the control device and starts the swapping threads. `without` allows a kernel that has no
 * device-mapper at all: then nothing can be mapped. */
int guard_dm_open(struct guard_dm *dm, const struct uuid *pool_id, bool without, struct error *err);
/* The same with a `call` of the caller's, for tests. */
int guard_dm_start(struct guard_dm *dm, const struct uuid *pool_id, struct error *err);
/* Error tables for every map that stands now. Waits for no I/O: what has some in flight is stopped
 * and drained by the threads, later. No proof of anything. */
void guard_dm_stop(struct guard_dm *dm);
/* One round, waiting for whatever I/O is in flight: true is the proof; false: dm->reason says why
 * not, and nothing may be released. */
bool guard_dm_wipe(struct guard_dm *dm);
/* How many T, L and J maps of the pool stand; negative if that cannot be told, with dm->reason. */
int guard_dm_count(struct guard_dm *dm);

#endif
