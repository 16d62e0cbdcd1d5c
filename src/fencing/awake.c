/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See awake.h. Failure modes: none; a clock that goes back, which no monotonic one does, counts as
 * a sleep.
 */
#include "fencing/awake.h"

static bool is_sleep(const struct timeouts *times, uint64_t gap_ms)
{
    return gap_ms > (uint64_t)times->awake_gap_s * 1000;
}

void awake_look(struct awake *a, const struct timeouts *times, uint64_t now_ms)
{
    a->gap_ms = now_ms - a->last_ms; /* backwards: huge */
    if (a->last_ms == 0 || is_sleep(times, a->gap_ms))
        a->since_ms = now_ms;
    a->last_ms = now_ms;
}

bool awake_is(const struct awake *a, const struct timeouts *times, uint64_t now_ms)
{
    uint64_t gap_ms = now_ms - a->last_ms; /* the look that is due may not have come yet */

    if (a->last_ms == 0 || gap_ms > AWAKE_LATE_MS || a->gap_ms > AWAKE_LATE_MS)
        return false;
    return now_ms - a->since_ms >= (uint64_t)times->awake_s * 1000;
}

uint64_t awake_in_ms(const struct awake *a, const struct timeouts *times, uint64_t now_ms)
{
    uint64_t wanted_ms = (uint64_t)times->awake_s * 1000;

    if (awake_is(a, times, now_ms))
        return 0;
    /* A late look, with no sleep before it: the next ones tell within seconds. */
    uint64_t since_ms = a->last_ms == 0 ? now_ms : a->since_ms;
    uint64_t left_ms = now_ms - since_ms < wanted_ms ? wanted_ms - (now_ms - since_ms) : 0;
    return left_ms > 2 * AWAKE_LATE_MS ? left_ms : 2 * AWAKE_LATE_MS;
}
