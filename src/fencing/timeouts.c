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
 *     8N + 2.5 .. + 4    18-20  82-84    the guard's own timer (below), if nobody woke it
 *     8N + W - look - 2  22     128      a guard that has its proof clears USED and releases,
 *                                        drained or not: the node lives on
 *     8N + W - look ..   24-26  130 ..   the watchdog resets a node that was not released
 *     8N + W             26     140      others see DEAD (by their own looks after 29 to 32 s)
 *        + 1             27     141      the coordinator asks for more (below), takes the grants
 *                                        away in both copies, marks them; attaches go on
 *     16N                32     160      a guard without a proof resets the node itself (below), if
 *                                        neither the proof nor the watchdog came before
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
 * begin of the look before the one that saw a renewal (guard_work.c), which is at most a second
 * after that was made (sanlock's loop), and may be as long before it as two looks are apart: half a
 * second. Earlier is the safe side; 8N + 2.5 s is still behind killpath's due time. If the LUN
 * fails between the read and the write of one renewal, the one that was seen was not made, and the
 * timer is a period (2N) late: with W = 10 that may be too late, and the watchdog resets the node,
 * as it would without the timer. Where the release comes early (W = 11 and 12: 8N + 4 s), it is up
 * 2 s before it.
 *
 * The release: wdmd feeds the watchdog only if the lease lasts to its next look, so the earliest
 * reset is one interval before 8N + W: measured 24 to 26 s. A node that was proved clean must be
 * released by then. Two seconds are kept: one because the renewal may count as made so much later
 * than it was, the other for the two calls and for sanlock to tell wdmd.
 *
 * The guard's reset (GUARD_DO_RESET), 8N after the *begin* of the fence, is for a fence that has no
 * proof. Why 8N: `lunarctl node check` demands transports that end or fail all I/O within 8N at the
 * latest (and warns from 6N on), counted from when it was sent. The fence lets no new I/O through,
 * so what is in flight 8N after its begin is older than that: it does not end by itself, or not in
 * a time that anybody has promised. Sooner would reset nodes whose transport was about to give up;
 * later leaves consumers hanging and, where the node had been declared dead, writes that may land
 * on a volume that others have.
 *
 * Beside a lease that is lost it is a second net. That fence begins at 8N after the last renewal at
 * the earliest, if nothing else made it begin before, so this reset is due at 16N or later, and the
 * watchdog's at 8N + W at the latest: where W <= 8N (10/60, 5/30, 2/10: all the recommended pairs)
 * the watchdog is always first. Where W > 8N (N = 2 with W = 60, for instance: 32 s against 76) the
 * guard is, and right as well: the lease is over, there is no proof, the watchdog would do the same
 * by 8N + W, so that nobody elsewhere waits longer or goes on sooner. What it costs is a node whose
 * LUN comes back between 16N and 8N + W and would have had its proof then: a reset more, no byte.
 * In no pair is it due before the guard's own timer has given the wipe a chance: 8N after the begin
 * is 8 s at least, and the proof took 0.4 to 1 s where it could be had.
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
        .guard_reset_s = 8 * n,
    };
    return 0;
}

void timeouts_of_pool(uint32_t io_timeout_s, uint32_t watchdog_fire_timeout_s, struct timeouts *ret)
{
    if (timeouts_compute((int)io_timeout_s, (int)watchdog_fire_timeout_s, ret, NULL) < 0)
        timeouts_compute(10, 60, ret, NULL);
}
