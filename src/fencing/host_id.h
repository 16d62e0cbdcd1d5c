/* SPDX-License-Identifier: Apache-2.0 */
/* Claiming a free host id before sanlock is asked for it, so that nodes that boot together do not
 * race for one. Internal to src/fencing. */
#ifndef LUNAR_FENCING_HOST_ID_H
#define LUNAR_FENCING_HOST_ID_H

#include <stdbool.h>

#include "base/error.h"
#include "diskrpc/superblock.h"
#include "fencing/leases.h"

struct host_id_claims {
    int fd; /* the LUN, for reading and writing */
    const struct superblock *superblock;
    const char *lockspace, *node_name;
    int wait_ms; /* timeouts.claim_wait_ms */
};

/*
 * Claims the id whose lease was just read as free. Blocks for wait_ms if nobody contends, less if
 * somebody does. 1: add the lockspace now; 0: another node claims or has it, choose another id;
 * negative: the LUN.
 */
int host_id_claim(const struct host_id_claims *claims, const struct delta_lease *free_lease,
                  struct error *err);
/* Adds to `avoid` the free ids that somebody claims already. They are only worse, not taken. */
int host_id_avoid_claimed(const struct host_id_claims *claims, const struct delta_lease *leases,
                          bool *avoid, struct error *err);
/* The id is ours now: a claim in its page goes, so that the page is as if never written. */
int host_id_clear_claim(const struct host_id_claims *claims, uint32_t host_id, struct error *err);

#endif
