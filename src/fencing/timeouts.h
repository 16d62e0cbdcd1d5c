/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every time that follows from sanlock's two settings, N (io_timeout) and W
 * (watchdog_fire_timeout), in one place, with the worked timeline beside it (timeouts.c). Seconds.
 */
#ifndef LUNAR_FENCING_TIMEOUTS_H
#define LUNAR_FENCING_TIMEOUTS_H

#include <stdint.h>

#include "base/error.h"

struct timeouts {
    int io_timeout_s;            /* N */
    int watchdog_fire_timeout_s; /* W */
    int renew_s;                 /* 2N: period of renewals */
    int warn_s;                  /* 6N */
    int fail_s;                  /* 8N: killpath, the lease is gone for its holder */
    int dead_s;                  /* 8N + W: others may take over */
    int claim_wait_ms;           /* N/4: a host id is claimed that long before sanlock is asked */
    int awake_gap_s; /* max(2, W - 2N - 1): a longer gap between two looks may be a sleep (awake.h)
                      */
    int awake_s;     /* 4N + 2: so long awake before a verdict of DEAD is believed */
    int fence_s; /* 3N + 2: a lease that did not move for so long may be fenced by an operator */
    int same_name_watch_s; /* 3N: how long a same-named lease is watched before joining under it */
    int guard_fence_s;   /* 8N + 3 at most: the guard's own timer, from the last renewal it has seen
                          */
    int guard_release_s; /* until then after that renewal a fenced node must be released */
    int guard_reset_s;   /* 8N: without a proof so long after the begin of a fence it resets */
};

/* Of numbers that stand somewhere, whether or not they are a pair that works: 8N, 8N + W. */
static inline uint64_t timeouts_fail_s(uint32_t io_timeout_s)
{
    return 8ull * io_timeout_s;
}
static inline uint64_t timeouts_dead_s(uint32_t io_timeout_s, uint32_t watchdog_fire_timeout_s)
{
    return timeouts_fail_s(io_timeout_s) + watchdog_fire_timeout_s;
}
/* 5N + 1: a forced lease is free by then. */
static inline uint64_t timeouts_force_s(uint32_t io_timeout_s)
{
    return 5ull * io_timeout_s + 1;
}

/* LUNAR_E_INVALID for combinations that sanlock was measured not to survive (N = 1 with W = 60, N <
 * 1, W < 10 ...). */
int timeouts_compute(int io_timeout_s, int watchdog_fire_timeout_s, struct timeouts *ret,
                     struct error *err);
/* The same for a pool that exists: numbers that do not go together give the times of sanlock's
 * defaults, N = 10 and W = 60. */
void timeouts_of_pool(uint32_t io_timeout_s, uint32_t watchdog_fire_timeout_s,
                      struct timeouts *ret);

#endif
