/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard of a pool on this node, seen from the agent (SAFETY 9-11).
 *
 * `lunar-guard` is a small process of its own, one per pool, without children. It registers with
 * sanlock under SANLK_RESTRICT_SIGKILL and a killpath that merely wakes it, sets USED, and holds
 * the SHARED member lease: while it lives, sanlock never takes this node's tables for cleared. On
 * the first killpath, SIGTERM, word of the agent, loss of the sanlock daemon, or its own timer from
 * the last confirmed renewal, it fences, irrevocably:
 *
 *   1. no map onto the LUN is made any more (permits, below);
 *   2. every L, T and J map of the pool gets an error table and is drained: the proof;
 *   3. the agent has a bounded time to end the rest (QSDs, P, H) and says "drained";
 *   4. USED is cleared, the lease released, the guard exits.
 *
 * Without the proof it does neither 4 nor anything else: the watchdog resets the node, or, where
 * none is due because the lease is well, the guard itself does (guard_core.c). Once it has begun it
 * finishes, even if the LUN is back: the node rejoins as a new generation.
 *
 * The agent finds the guard again after a restart of its own, by the socket. A guard that was
 * killed is started again under the same generation: USED stands meanwhile.
 */
#ifndef LUNAR_FENCING_GUARD_H
#define LUNAR_FENCING_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

enum guard_state {
    GUARD_STATE_STARTING = 1, /* the lease is not held yet: nothing may be mapped */
    GUARD_STATE_GUARDING = 2,
    GUARD_STATE_FENCING = 3, /* error tables are being put in; no permit is given any more */
    GUARD_STATE_PROVEN = 4,  /* nothing of this node's reaches the LUN any more */
    GUARD_STATE_OVER = 5,    /* USED cleared, lease released: the guard exits */
};
const char *guard_state_name(enum guard_state state);

#define GUARD_REASON_SIZE 160u

struct guard_config {
    const char *device, *pool_name, *run_dir;
    const struct superblock *superblock;
    uint32_t host_id;
    uint64_t generation;
    const char *program; /* NULL: lunar-guard beside the running program, else in PATH */
    /* This life is being fenced: a guard that fences is what is wanted, and one that is started
     * does so at once, without a lease. */
    bool ending;
};

struct guard; /* a connection to it */

/* Blocking, join thread, some hundred ms: connects to the guard of this host id and generation, or
 * starts one, and returns when it is GUARDING, or else, if that is wanted (`ending`), fencing or
 * proven, which guard_read says next. LUNAR_E_ALIVE: the guard of another generation is there still
 * and not over. LUNAR_E_FENCED: it fences and that is not wanted, or this life is over. Other
 * errors with what to do. */
int guard_open(const struct guard_config *config, struct guard **ret, struct error *err);
/* For uv_poll: readable when guard_read has something to say. */
int guard_fd(const struct guard *guard);
/* Never blocks. 1: *ret_state is news; 0: nothing; -EPIPE: the guard has gone (after OVER that is
 * its normal end; otherwise it was killed). */
int guard_read(struct guard *guard, enum guard_state *ret_state, char ret_reason[GUARD_REASON_SIZE],
               struct error *err);
/* Never block. "Fence now": why, for its log and status. "Drained": what the agent had to end has
 * ended. */
int guard_fence(struct guard *guard, const char *reason, struct error *err);
int guard_drained(struct guard *guard, struct error *err);
/* Blocking: a clean leave. The guard makes sure that no L, T or J map of the pool is there, clears
 * USED, releases the lease and exits; 0 then, and the connection is closed and freed.
 * LUNAR_E_IN_USE: maps stand; it goes on guarding. */
int guard_leave(struct guard *guard, struct error *err);
void guard_close(struct guard *guard); /* the guard goes on */

/*
 * The permit to load a table that reaches the LUN: a shared flock of a per-generation file, with a
 * byte in it that the guard changes for good when it fences. Taken before each dm_create or dm_load
 * of an L, T or J map and given back after it, in any thread; where the loaded table is put in by a
 * dm_resume of its own, after *that*, because the kernel may hold a table in its hand there that no
 * list shows. Children that are forked meanwhile hold it too, which is meant: the guard waits for
 * them, and after a second kills the agent. LUNAR_E_FENCED: no.
 */
int guard_permit_take(const char *run_dir, const char *pool_name, uint32_t host_id,
                      uint64_t generation, int *ret_permit, struct error *err);
void guard_permit_give_back(int permit);

#endif
