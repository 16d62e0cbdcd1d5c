/* SPDX-License-Identifier: Apache-2.0 */
/* The first half of a join: choosing a host id and getting the lockspace joined under it. Internal
 * to src/fencing. */
#ifndef LUNAR_FENCING_LOCKSPACE_H
#define LUNAR_FENCING_LOCKSPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "fencing/leases.h"
#include "fencing/membership.h"
#include "fencing/timeouts.h"

struct lockspace_join {
    const struct membership_config *config;
    struct timeouts timeouts;
    char host_name[LEASES_NAME_SIZE]; /* the daemon's, already compared with ours */
    /* results */
    uint32_t host_id;
    bool added; /* by this call: to be removed again if a later step fails */
};

/* Blocks for 0 (joined already), 1 to 6 s (N = 2), or much longer if every choice is contested. */
int lockspace_join(struct lockspace_join *join, struct error *err);

/* Milliseconds; for waiting loops that ask sanlock or the LUN again. */
void lockspace_pause(int ms);
/* Seconds of a clock that stands still while the machine does. */
int64_t lockspace_now_s(void);
/* Tells config->progress, which may be NULL. */
void lockspace_tell(const struct membership_config *config, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
