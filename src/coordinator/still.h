/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which leases stand still, for the list in the beat (diskrpc/beat.h): pure, stepped with each look
 * at the hosts.
 *
 * A life is listed when (generation, timestamp) of its lease were seen at least `limit_ms` ago for
 * the first time and nothing newer since. What sanlock shows of another host is up to one renewal
 * old, so a living host may be listed, with a timestamp that its lease has no more; the reader
 * compares. It needs no clock but ours, and none that runs while this process is stopped: what was
 * seen, and when, stays true.
 */
#ifndef LUNAR_COORDINATOR_STILL_H
#define LUNAR_COORDINATOR_STILL_H

#include "diskrpc/beat.h"
#include "fencing/membership.h"

struct still; /* one thread */

struct still *still_new(uint32_t max_nodes);
void still_free(struct still *still);
/* Times: milliseconds of one monotonic clock. */
void still_look(struct still *still, const struct host_status *hosts, int n, uint64_t now_ms);
/* Lives of that host up to this generation are proved over: the grants' mark says more than a list.
 */
void still_over(struct still *still, uint32_t host_id, uint64_t generation);
/* Fills beat->still and n_still: those that have stood still longest, where there are more than
 * fit. */
void still_list(const struct still *still, uint64_t limit_ms, uint64_t now_ms, struct beat *beat);

#endif
