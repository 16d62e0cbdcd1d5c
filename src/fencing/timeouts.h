/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every time that follows from sanlock's two settings, N (io_timeout) and W
 * (watchdog_fire_timeout), in one place, with the worked timeline beside it (timeouts.c). Seconds.
 */
#ifndef LUNAR_FENCING_TIMEOUTS_H
#define LUNAR_FENCING_TIMEOUTS_H

#include "base/error.h"

struct timeouts {
    int io_timeout_s;            /* N */
    int watchdog_fire_timeout_s; /* W */
    int renew_s;                 /* 2N: period of renewals */
    int warn_s;                  /* 6N */
    int fail_s;                  /* 8N: killpath, the lease is gone for its holder */
    int dead_s;                  /* 8N + W: others may take over */
    int same_name_watch_s; /* 3N: how long a same-named lease is watched before joining under it */
};

/* LUNAR_E_INVALID for combinations that sanlock was measured not to survive (N = 1 with W = 60, N <
 * 1, W < 10 ...). */
int timeouts_compute(int io_timeout_s, int watchdog_fire_timeout_s, struct timeouts *ret,
                     struct error *err);

#endif
