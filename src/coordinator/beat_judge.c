/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge of the leader's beats; see beat_judge.h.
 *
 * Happy path: each look shows another count, nothing happens. The leader falls silent: after three
 * seconds of good looks at the same term and count, the verdict is to force it out, once; again
 * after the time that sanlock may take for it. Failure modes: we cannot read, read slowly, or did
 * not look for a while: the watch begins anew, because then a silence is perhaps our own.
 */
#include "coordinator/beat_judge.h"

#include <assert.h>
#include <string.h>

#include "fencing/timeouts.h"

#define MS_PER_S 1000u

/*
 * A leader that has the lease and has not beaten yet. Between sanlock's write of the lease and the
 * first beat it asks its daemon and reads its own delta lease, the leader record and its up page:
 * on a LUN that is slow for it, each takes up to an I/O timeout before sanlock would call it
 * failed. Two of them are granted on top; longer would leave the pool without an answer for the
 * sake of a leader that can hardly lead.
 */
static uint64_t silence_ms(const struct beat_judge *j)
{
    return BEAT_SILENCE_MS + (j->count == 0 ? 2 * j->io_timeout_s * MS_PER_S : 0);
}

/* Our sanlock tells the leader's with its next renewal (2N), which looks with its own (2N) and then
 * kills; measured at N = 2: 7 to 10 s, 5N. One more second for the kill itself. */
static uint64_t patience_ms(const struct beat_judge *j)
{
    return timeouts_force_s(j->io_timeout_s) * MS_PER_S;
}

void beat_judge_init(struct beat_judge *judge, uint32_t io_timeout_s)
{
    memset(judge, 0, sizeof *judge);
    judge->io_timeout_s = io_timeout_s;
}

void beat_judge_refused(struct beat_judge *judge)
{
    judge->watching = judge->asked = false;
}

static void begin(struct beat_judge *j, const struct beat_look *look)
{
    if (look->term != j->term)
        j->asked = false;
    j->watching = look->readable && look->term != 0;
    j->term = look->term;
    j->count = look->count;
    j->since_ms = look->ended_ms;
}

/* Of one's own looking, not of the leader. */
static bool was_blind(const struct beat_judge *j, const struct beat_look *look)
{
    return !look->readable || look->ended_ms - look->began_ms > BEAT_SLOW_LOOK_MS ||
           look->began_ms - j->looked_ms > BEAT_BLIND_MS;
}

enum beat_verdict beat_judge_step(struct beat_judge *j, const struct beat_look *look)
{
    assert(look->ended_ms >= look->began_ms && look->began_ms >= j->looked_ms);
    /* A beat that is gone again was hit by a late write of a former leader: no news. */
    bool news = look->term != j->term || (look->count != 0 && look->count != j->count);
    if (!j->watching || news || was_blind(j, look)) {
        j->looked_ms = look->ended_ms;
        begin(j, look);
        return BEAT_WAIT;
    }
    j->looked_ms = look->ended_ms;
    if (look->began_ms - j->since_ms < silence_ms(j))
        return BEAT_WAIT;
    if (j->asked && look->began_ms - j->asked_ms < patience_ms(j))
        return BEAT_WAIT;
    j->asked = true;
    j->asked_ms = look->ended_ms;
    return BEAT_FORCE;
}
