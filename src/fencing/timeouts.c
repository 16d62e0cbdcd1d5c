/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The times that follow from N (io_timeout) and W (watchdog_fire_timeout), and which pairs of them
 * work.
 *
 * A node loses the LUN right after a renewal that landed: second by second after that renewal, for
 * N = 2 with W = 10, as measured on 3.9.5, and for sanlock's own N = 10 with W = 60:
 *
 *                        2/10   10/60
 *     0                  0      0        the last renewal
 *     2N + 0.5           4.5    20.5     the next one is due (sanlock looks every 0.5 s), fails
 *     6N                 12     60       sanlock warns; a transport that `node check` finds well
 *                                        has failed what was in flight
 *     8N - look          14     70       wdmd has fed the watchdog for the last time (seen: 13):
 *                                        the lease will not last to its next look (2 s, 10 s)
 *     8N                 16     80       the lease is lost for its holder; sanlock wakes the
 *                                        guard (killpath or SIGTERM, below), which puts error
 *                                        tables in at once and waits for I/O in flight: the proof
 *     8N + 3 .. + 1.5    19-20  83-84    the guard's own timer (below), if nobody woke it
 *     8N + W - look - 2  22     128      a guard that has its proof clears USED and releases,
 *                                        drained or not: the node lives on
 *     8N + W - look ..   24-26  130 ..   the watchdog resets a node that was not released
 *     8N + W             26     140      others see DEAD (by their own looks after 29 to 32 s)
 *        + 1             27     141      the coordinator asks for more (below), takes the grants
 *                                        away in both copies, marks them; attaches go on
 *     8N + W .. + 7N     26-40  140-210  the dead node's coordinator lease can be acquired
 *
 * A coordinator stops while its node is well: 3.0 to 4.1 s after its last beat a standby has it
 * forced out, and leads 5N + 1 s after that at the latest (11 s, 51 s; beat_judge.c).
 *
 * A node joins: it claims a free host id for N/4, sanlock takes 2N and up to a second more: 4.5 to
 * 5.5 s (22.5 to 23.5 s). Under the id that it had before a power cut it watches that lease for 3N
 * first, because renewals come every 2N + 0.5 s: 11 s (51 s) in all, but 5 s (21 s) where a
 * coordinator has proved its death, which takes longer than most machines need to boot.
 *
 * The whole safety of takeover is one inequality: the reset (at most W after the last feeding,
 * which ends at 8N) comes no later than DEAD (8N + W by the clock of another node, which cannot
 * have seen the last renewal before it happened).
 *
 * DEAD is sanlock's subtraction: now, by its own clock, minus when it last saw the timestamp move.
 * It is only worth something if that clock ran for the victim, too, and if sanlock looked. Hence
 * what a coordinator asks in addition before it takes a node's grants (awake.h, proof.c):
 *
 *     the lease, read by itself after the verdict, still has the generation and timestamp that the
 *     verdict is about: whoever was thawed judges by now, but nobody who lives passes this;
 *     W - 2N - 1  the longest gap between two of its own looks (one a second) that may have been a
 *     sleep without harm. sanlock looks at all leases every 2N, so its last look before the verdict
 *     is at most 2N plus the gap old, and saw an age above 8N + W - 2N - (W - 2N - 1) = 8N + 1 even
 *     then: the victim's own daemon had given up by its own clock, and never takes it up again.
 *     Looks come a second apart and a little, so the bound is 2 s where W leaves no room for that;
 *     the lease read by ourselves alone stands for sanlock's look then;
 *     4N + 2      so long ago the last longer gap must have ended. Where everything stood still (an
 *     array that answered nobody, a hypervisor that slept) the living renew within 2N plus an I/O
 *     time-out of N of waking, and sanlock sees it N later at the latest, 4N in all; who was past
 *     8N + W is reset within a second of waking (0.3 s measured). Two seconds for the looks;
 *     3N + 2      after a renewal the next one comes within 2N, or N later if its I/O takes all of
 *     its time. Whoever is not seen to renew for longer by one who reads the lease itself is not
 *     well; an operator who says that he has switched it off may be right.
 *
 * A healthy node must not reset itself. wdmd looks at each lockspace at a fixed interval (measured
 * on 3.9.5: W = 10: 2 s, 30 and 45: 5 s, 60, 100 and 300: 10 s) and stops feeding one look early if
 * the lease would run out before the next one. Renewals come every 2N, so at worst 8N - 2N = 6N are
 * left of the lease at a look, which must exceed the interval, and a renewal that takes its time
 * needs something on top. N = 1 with W = 60 has 6 against 10, and that node was measured to reset
 * itself; N = 2 with W = 60 has 12 and was measured to live. Hence: 6N must exceed the interval by
 * 2 s.
 *
 * The guard (guard_core.c) fences at 8N by killpath or SIGTERM. Which of the two depends on the
 * daemon's kill grace, `-g`, whose default is 0 for W below 30. Measured with N = 2 and W = 10, for
 * a holder that restricts SIGKILL: grace 0: SIGTERM at 8N and no killpath, ever; grace 5: killpath
 * at 8N, SIGTERM 5 s later. For one that does not: SIGKILL in place of SIGTERM. The guard restricts
 * SIGKILL and takes either for the word, so that no grace need be asked for.
 *
 * Its own timer is for neither to come, so it comes a little later: they are due at 8N and were
 * seen at 17.5 to 18.5 s, because sanlock looks every second or two. It is up 8N + 3 s after the
 * guard has seen a renewal, which is 0 to 1.5 s after that was made (guard_work.c). If the LUN
 * fails between the read and the write of one renewal, the one that was seen was not made, and the
 * timer is a period (2N) late: with W = 10 that may be too late, and the watchdog resets the node,
 * as it would without the timer. Where the release comes early (W = 11 and 12: 8N + 4 s), it is up
 * 2 s before it.
 *
 * The release: wdmd feeds the watchdog only if the lease lasts to its next look, so the earliest
 * reset is one interval before 8N + W: measured 24 to 26 s. A node that was proved clean must be
 * released by then. Two seconds are kept: 1.5 s for when the renewal was seen, the rest for the two
 * calls and for sanlock to tell wdmd.
 */
#include "fencing/timeouts.h"

#include <stddef.h>

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

    int release = w - wdmd_interval_s(w) - 2; /* after 8N */
    *ret = (struct timeouts){
        .io_timeout_s = n,
        .watchdog_fire_timeout_s = w,
        .renew_s = 2 * n,
        .warn_s = 6 * n,
        .fail_s = (int)timeouts_fail_s((uint32_t)n),
        .dead_s = (int)timeouts_dead_s((uint32_t)n, (uint32_t)w),
        .claim_wait_ms = 250 * n,
        .awake_gap_s = w - 2 * n - 1 > 2 ? w - 2 * n - 1 : 2,
        .awake_s = 4 * n + 2,
        .fence_s = 3 * n + 2,
        .same_name_watch_s = 3 * n,
        .guard_fence_s = 8 * n + (release >= 5 ? 3 : release - 2),
        .guard_release_s = 8 * n + release,
    };
    return 0;
}

void timeouts_of_pool(uint32_t io_timeout_s, uint32_t watchdog_fire_timeout_s, struct timeouts *ret)
{
    if (timeouts_compute((int)io_timeout_s, (int)watchdog_fire_timeout_s, ret, NULL) < 0)
        timeouts_compute(10, 60, ret, NULL);
}
