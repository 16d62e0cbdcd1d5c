/* SPDX-License-Identifier: Apache-2.0 */
/* How the local sanlock daemon was started, and whether a watchdog stands behind it (SAFETY 12).
 * Internal. */
#ifndef LUNAR_FENCING_SANLOCK_DAEMON_H
#define LUNAR_FENCING_SANLOCK_DAEMON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "fencing/leases.h"

struct sanlock_daemon {
    char host_name[LEASES_NAME_SIZE];
    bool use_watchdog;
    int watchdog_fire_timeout_s;
    int kill_grace_s; /* between the killpath and SIGTERM; 0: no killpath, SIGTERM at once (-1: it
                         does not say) */
    char version[16];
};

/* Parses what `sanlock client status -D` prints; LUNAR_E_EXEC if the lines it needs are not there.
 */
int sanlock_daemon_parse(const char *text, struct sanlock_daemon *ret, struct error *err);
/* Asks the running daemon; blocks up to ten seconds. */
int sanlock_daemon_read(struct sanlock_daemon *ret, struct error *err);

/*
 * LUNAR_E_NO_WATCHDOG unless wdmd answers and, when `joined`, its device is armed with
 * fire_timeout_s. (sanlock 3.9 lets wdmd open the device with the first lockspace, so before the
 * join there is nothing armed to be seen.)
 */
int watchdog_check(bool joined, int fire_timeout_s, struct error *err);

#endif
