/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guard decides, without a clock and without I/O: an event with its time in, the things to
 * do out (guard_core.c has the argument). lunar-guard runs it with real ioctls and a real sanlock,
 * the simulator with modelled ones.
 *
 * All times are milliseconds of one monotonic clock. One thread; nothing allocates.
 */
#ifndef LUNAR_FENCING_GUARD_CORE_H
#define LUNAR_FENCING_GUARD_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "fencing/guard.h"
#include "fencing/timeouts.h"

enum guard_event_type {
    /* The guard runs; `resumed` says what the permit file of this generation told. */
    GUARD_EVENT_STARTED = 1,
    GUARD_EVENT_ACQUIRED, /* USED is set and the member lease held */
    /* The lease cannot be had; `flag`: because the lockspace is lost, not for the moment. */
    GUARD_EVENT_START_FAILED,
    GUARD_EVENT_RENEWED, /* sanlock renewed the host's lease at `renewed_ms` */
    GUARD_EVENT_TICK,    /* guard_core_deadline has passed; at any other time it does no harm */
    GUARD_EVENT_AGENT_CONNECTED,
    GUARD_EVENT_AGENT_GONE, /* its connection has closed */

    /* What makes it fence. */
    GUARD_EVENT_KILLPATH, /* sanlock's, with host_id and generation; another's is ignored */
    GUARD_EVENT_SIGTERM,
    GUARD_EVENT_AGENT_FENCE, /* with `reason` */
    GUARD_EVENT_SANLOCK_GONE,

    /* Results of GUARD_DO_... */
    GUARD_EVENT_PERMITS_FREE,
    GUARD_EVENT_PROVEN,
    GUARD_EVENT_NOT_PROVEN,
    GUARD_EVENT_RELEASED,
    GUARD_EVENT_RELEASE_FAILED,
    GUARD_EVENT_EMPTY,
    GUARD_EVENT_NOT_EMPTY,

    GUARD_EVENT_DRAINED, /* the agent: what it had to end has ended */
    GUARD_EVENT_LEAVE,   /* the agent: a clean leave is asked for */
};

/* What the permit file says: one byte, which outlives a guard that was killed. */
enum guard_permit_byte {
    GUARD_PERMIT_NONE = 0,     /* no file, or nothing in it: this generation had no guard yet */
    GUARD_PERMIT_CLOSED = 'C', /* starting, leaving, left */
    GUARD_PERMIT_OPEN = 'O',   /* guarding: the only one under which a permit is valid */
    GUARD_PERMIT_FENCED = 'F', /* irrevocable */
    GUARD_PERMIT_OVER = 'X',   /* fenced, proved and released: that life has no guard any more */
};

struct guard_event {
    enum guard_event_type type;
    int64_t now_ms;
    int64_t renewed_ms;             /* RENEWED */
    uint32_t host_id;               /* KILLPATH */
    uint64_t generation;            /* KILLPATH */
    bool flag;                      /* START_FAILED: the lockspace is lost */
    enum guard_permit_byte resumed; /* STARTED */
    const char *reason;             /* AGENT_FENCE, START_FAILED; copied */
};

/* What is to be done; what the permit file says changes before anybody is told, otherwise the order
 * does not matter. Each answers with the events named, later, once. */
enum guard_action {
    /* The permit file says FENCED from now on, and is locked exclusively: PERMITS_FREE if that
     * succeeded, otherwise nothing, and it is asked for again with the next ticks. */
    GUARD_DO_LOCK_PERMITS = 1 << 0,
    GUARD_DO_KILL_AGENT = 1 << 1, /* SIGKILL to the agent seen last, also if its connection went */
    /* Error tables into every map that stands, as soon as may be and without waiting for any drain:
     * no answer, and no proof of anything. */
    GUARD_DO_STOP = 1 << 2,
    /* The same, then the drain and the look that is the proof: PROVEN or NOT_PROVEN. Asked for only
     * after PERMITS_FREE, one at a time: so each answer is of a round that began after it. */
    GUARD_DO_WIPE = 1 << 3,
    /* Leaving: permits CLOSED and locked, no L, T or J map stands: EMPTY or NOT_EMPTY. */
    GUARD_DO_CHECK_EMPTY = 1 << 4,
    GUARD_DO_OPEN_PERMITS = 1 << 5, /* the file says OPEN and is unlocked */
    GUARD_DO_RELEASE = 1 << 6,      /* USED cleared, then the lease released: RELEASED or _FAILED */
    GUARD_DO_REFUSE_LEAVE = 1 << 7, /* LUNAR_E_IN_USE to whoever asked */
    GUARD_DO_TELL = 1 << 8,         /* state and reason to the agent */
    GUARD_DO_EXIT = 1 << 9,
    /* This machine, now, without a sync: no answer if it works; if it does not, it is asked for
     * again while there is no proof. */
    GUARD_DO_RESET = 1 << 10,
};

struct guard_core_config {
    uint32_t host_id;
    uint64_t generation;
    struct timeouts timeouts;
};

/* Between two steps; read `state`, `reason` and `agent_killed`, leave the rest to guard_core.c. */
struct guard_core {
    struct guard_core_config config;
    enum guard_state state;
    char reason[GUARD_REASON_SIZE]; /* why it fences; "" before */
    bool agent_killed;
    /* private */
    int phase;
    int64_t renewed_ms; /* the last renewal that sanlock confirmed */
    bool renewal_seen;  /* before: renewed_ms is when the guard started */
    int64_t retry_ms;   /* of what the phase waits for; INT64_MAX: nothing to retry */
    int64_t kill_ms;    /* LOCKING: when the agent's time with its permits is over */
    int64_t reset_ms;   /* LOCKING, WIPING: when the time for the proof is over */
    bool reset_put_off; /* once: the guard had stood still */
    bool agent_connected;
    bool adopted; /* a predecessor of this generation was guarding */
};

void guard_core_init(struct guard_core *core, const struct guard_core_config *config);
/* Returns the GUARD_DO_... bits. */
unsigned guard_core_step(struct guard_core *core, const struct guard_event *event);
/* When the next GUARD_EVENT_TICK is due. */
int64_t guard_core_deadline(const struct guard_core *core);

#endif
