/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Was this process awake of late? Pure; the times are the caller's monotonic clock.
 *
 * sanlock calls a host dead by subtracting from now, so one that has just been thawed calls the
 * living dead. A coordinator therefore looks at its clock every second, and believes no verdict of
 * DEAD unless its looks came regularly: timeouts.c has the argument for the two bounds. A process
 * that has just started does not know how it slept before, and waits as after a sleep.
 */
#ifndef LUNAR_FENCING_AWAKE_H
#define LUNAR_FENCING_AWAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "fencing/timeouts.h"

/* A verdict that comes with a late look waits for the next one: after a sleep too short for
 * awake_gap_s a victim whose reset fell into it is reset within a second of waking (0.3 s
 * measured), not before. Looks come every second; a second more is a busy machine. */
#define AWAKE_LATE_MS 2000u

struct awake {
    uint64_t last_ms;  /* of the last look; 0: none yet */
    uint64_t gap_ms;   /* before it */
    uint64_t since_ms; /* when the last sleep ended, or the first look was */
};

/* Each second, or more often. */
void awake_look(struct awake *a, const struct timeouts *times, uint64_t now_ms);
/* True if what is learnt now about others may be believed. */
bool awake_is(const struct awake *a, const struct timeouts *times, uint64_t now_ms);

/* For how long awake_is will be false yet, if no sleep comes; milliseconds. */
uint64_t awake_in_ms(const struct awake *a, const struct timeouts *times, uint64_t now_ms);

#endif
