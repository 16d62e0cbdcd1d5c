/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The times that follow from N (io_timeout) and W (watchdog_fire_timeout), and which pairs of them
 * work.
 *
 * A node that loses the LUN right after a renewal, in seconds after that renewal (N = 2, W = 10 in
 * the right column; measured on 3.9.5, FENCING.md):
 *
 *     0           last successful renewal                                        0
 *     2N          the next one is due and fails                                  4
 *     6N          sanlock warns                                                 12
 *     8N          killpath; the holder must regard its leases as lost           16
 *     8N .. 8N+W  the watchdog, no longer fed, resets the machine            24-26
 *     8N + W      others see DEAD and may take over (seen at 29-32)             26
 *     .. +7N      an acquire of the dead node's lease succeeds               26-40
 *
 * The whole safety of takeover is one inequality: the reset (at most W after the last feeding,
 * which ends at 8N) comes no later than DEAD (8N + W by the clock of another node, which cannot
 * have seen the last renewal before it happened).
 *
 * A healthy node must not reset itself. wdmd looks at each lockspace at a fixed interval (measured
 * on 3.9.5: W = 10: 2 s, 30 and 45: 5 s, 60, 100 and 300: 10 s) and stops feeding one look early if
 * the lease would run out before the next one. Renewals come every 2N, so at worst 8N - 2N = 6N are
 * left of the lease at a look, which must exceed the interval, and a renewal that takes its time
 * needs something on top. N = 1 with W = 60 has 6 against 10, and that node was measured to reset
 * itself; N = 2 with W = 60 has 12 and was measured to live. Hence: 6N must exceed the interval by
 * 2 s.
 */
#include "fencing/timeouts.h"

/* Longer ones are not wrong, but a takeover after eight minutes is a typing error: 8 * 60 s. */
#define IO_TIMEOUT_MAX_S 60
/* The softdog and the hardware ones behind wdmd take 10 s and more; below it a busy machine resets
 * itself. */
#define WATCHDOG_MIN_S 10
#define WATCHDOG_MAX_S 300

#define RENEWAL_SPARE_S 2

/* wdmd's own choice, see above; between the measured points the longer interval is assumed. */
static int wdmd_interval_s(int watchdog_fire_timeout_s)
{
    if (watchdog_fire_timeout_s > 45)
        return 10;
    return watchdog_fire_timeout_s > 10 ? 5 : 2;
}

int timeouts_compute(int io_timeout_s, int watchdog_fire_timeout_s, struct timeouts *ret,
                     struct error *err)
{
    int n = io_timeout_s, w = watchdog_fire_timeout_s;
    if (n < 1 || n > IO_TIMEOUT_MAX_S)
        return error_set(err, LUNAR_E_INVALID,
                         "an io_timeout of %d s does not work: choose 1 to %d (10 is sanlock's "
                         "default, 2 gives a takeover within half a minute)",
                         n, IO_TIMEOUT_MAX_S);
    if (w < WATCHDOG_MIN_S || w > WATCHDOG_MAX_S)
        return error_set(err, LUNAR_E_INVALID,
                         "a watchdog_fire_timeout of %d s does not work: choose %d to %d", w,
                         WATCHDOG_MIN_S, WATCHDOG_MAX_S);
    if (6 * n < wdmd_interval_s(w) + RENEWAL_SPARE_S)
        return error_set(err, LUNAR_E_INVALID,
                         "with an io_timeout of %d s and a watchdog_fire_timeout of %d s a healthy "
                         "node would reset itself: raise the first to 2 or lower the second to 10",
                         n, w);

    *ret = (struct timeouts){
        .io_timeout_s = n,
        .watchdog_fire_timeout_s = w,
        .renew_s = 2 * n,
        .warn_s = 6 * n,
        .fail_s = 8 * n,
        .dead_s = 8 * n + w,
        .same_name_watch_s = 3 * n,
    };
    return 0;
}
