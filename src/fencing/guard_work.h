/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guard does that may block, each in a thread of its own, so that its main thread always
 * hears killpath, the agent and the clock: sanlock's lease, the watch on its renewals,
 * device-mapper. Internal to src/fencing.
 */
#ifndef LUNAR_FENCING_GUARD_WORK_H
#define LUNAR_FENCING_GUARD_WORK_H

#include "fencing/guard_core.h"
#include "fencing/guard_dm.h"

struct guard_options {
    const char *device, *pool, *run_dir, *killpath; /* killpath: NULL is this very program */
    const char *socket;                             /* filled by guard_run */
    /* guard_reset_now, or NULL: this machine must not be reset, whatever happens (test pools). */
    void (*reset)(const char *why);
    struct superblock sb; /* pool id, N, W, flags and the place of the member lease; no more */
    uint32_t host_id;
    uint64_t generation;
    bool fence; /* at once: this life is over, and its guard was killed */
};

/* What a thread has to say; read from guard_work.results. */
struct guard_result {
    enum guard_event_type type;
    int code;  /* START_FAILED: lunar's */
    bool lost; /* START_FAILED */
    int64_t renewed_ms;
    char reason[400];
};

struct guard_work {
    const struct guard_options *options;
    enum guard_permit_byte resumed; /* what a predecessor left */
    int results[2];                 /* a pipe of whole struct guard_result */
    int lease_jobs[2], dm_jobs[2];
    int sanlock_fd; /* registered; valid after ACQUIRED, -1 before */
    char lockspace[48];
    struct guard_dm dm;
};

/* Opens device-mapper and starts the threads; the lease thread begins at once: ACQUIRED or
 * START_FAILED; but nothing if a predecessor was fencing, which needs no lease. */
int guard_work_start(struct guard_work *work, const struct guard_options *options,
                     struct error *err);
/* Wipe, count and release one at a time of each; results as guard_core.h says. Never block. */
void guard_work_stop(
    struct guard_work *work); /* no result; what is asked for next waits its turn */
void guard_work_wipe(struct guard_work *work);
void guard_work_count(struct guard_work *work);
void guard_work_release(struct guard_work *work);

#endif
