/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's state machine; see guard_core.h for events and actions, guard.h for what it is for.
 *
 * Happy path: STARTED -> ACQUIRED -> guarding for days -> LEAVE -> EMPTY -> RELEASED -> exit.
 *
 * Fencing, from any state before PROVEN and out of it never back:
 *
 *     locking    permits FENCED, then locked: no thread of the agent is loading a table any more.
 *                After PERMIT_LIMIT_MS the agent is killed, because a thread that hangs in an ioctl
 *                holds its permit until it dies; the waiting goes on, once killed or not. Every map
 *                that stands gets its error table at once, and is not waited for (STOP).
 *     wiping     error tables and the drain, again and again until the proof is there. Without it
 *                nothing below happens; the watchdog resets the node, or the guard does.
 *     draining   the agent ends QSDs, P and H. Its time is bounded (drain_end).
 *     releasing  USED cleared, lease released: from here on sanlock takes this node's tables for
 *                clear and keeps the watchdog happy. Until it succeeds it is tried again.
 *     over       exit.
 *
 * Irrevocable: killpath runs once, and a LUN that comes back meanwhile makes sanlock neither take
 * it back nor run it again; so nothing but its end leads out of fencing, and a guard that was
 * killed in the middle of it goes on where the permit file says FENCED.
 *
 * Which wipe counts: a table may be loaded behind the back of a round that began before the permits
 * were free. So that early one, STOP, has no result at all, and WIPE, which has, is asked for by
 * PERMITS_FREE and by the retries after it alone: whatever answer comes, its round began when
 * nobody could load a table any more.
 *
 * The reset: a node that fences beside a lease that is well (a death mark, SIGTERM, the agent's
 * word) has no watchdog to fear, for sanlock goes on renewing. If I/O is stuck in flight it would
 * hang for ever, and may be writing to a volume that others have by now. So the guard resets the
 * machine itself guard_reset_s after the begin of the fence if it has no proof by then (timeouts.c
 * says why then). Never with the proof: PROVEN leaves the two phases in which it may. The same time
 * counts where the lease is lost, whoever is faster: what the watchdog may do, we may.
 *
 * A guard that is killed while it fences is succeeded by one whose guard_reset_s begin again: the
 * permit file says that the life is fenced, not since when. Counted from the first begin, a
 * successor that is started late, because its agent was dead as well, would reset a machine at once
 * that it had not yet tried to wipe. It costs at most guard_reset_s more for each kill -9 by root;
 * the OOM killer spares the guard (guard_files.c). Nothing is released meanwhile: USED stands, with
 * a guard or without. The agent starts the successor (agent_fence.c), or the next agent does; with
 * both killed and none started nobody resets, and the README says so.
 *
 * The timer: killpath may fail to run (a helper that is gone, a path that is not there). So the
 * guard fences when timeouts.guard_fence_s have passed since the last renewal that it has seen.
 *
 * Failure modes: killpath of another generation: ignored, its guard is no more. The lease cannot be
 * had: a fresh guard tells and exits, nothing was mapped under it; one that took over from a killed
 * guard fences if the lockspace is lost, and otherwise tries again by being started again. Nothing
 * asked in a phase where it has no place does anything.
 */
#include "fencing/guard_core.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Loading a table takes a millisecond, 33 at the worst that was measured; one that is put in behind
 * I/O waits for that. A second is long for the first and short against the 8 s and more that are
 * left until the reset. */
#define PERMIT_LIMIT_MS  1000
#define PERMIT_RETRY_MS  10
#define WIPE_RETRY_MS    50
#define RELEASE_RETRY_MS 100
#define RESET_RETRY_MS   1000
/* A tick that comes so much too late says that the guard stood still, stopped or paused with its
 * machine. Then the wipe has not had its time: it gets this, twice what it takes where it can be
 * had. */
#define RESET_LATE_MS  1000
#define RESET_GRACE_MS 2000
/* The measured teardown of a node's stacks took 0.7 to 1.3 s. It is no part of the proof: what is
 * not ended by then is ended by the agent all the same, only later. */
#define DRAIN_LIMIT_MS 3000

enum phase {
    PHASE_STARTING = 1,
    PHASE_GUARDING,
    PHASE_LEAVE_CHECK,
    PHASE_LEAVE_RELEASE,
    PHASE_LOCKING,
    PHASE_WIPING,
    PHASE_DRAINING,
    PHASE_RELEASING,
    PHASE_OVER,
};

const char *guard_state_name(enum guard_state state)
{
    static const char *const names[] = {"?", "starting", "guarding", "fencing", "proven", "over"};
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "?";
}

void guard_core_init(struct guard_core *core, const struct guard_core_config *config)
{
    assert(config->generation != 0 && config->host_id != 0 && config->timeouts.guard_fence_s > 0 &&
           config->timeouts.guard_reset_s > 0);
    *core = (struct guard_core){.config = *config,
                                .state = GUARD_STATE_STARTING,
                                .phase = PHASE_STARTING,
                                .retry_ms = INT64_MAX};
}

static bool may_fence(const struct guard_core *core)
{
    return core->phase == PHASE_STARTING || core->phase == PHASE_GUARDING ||
           core->phase == PHASE_LEAVE_CHECK;
}

static unsigned fence(struct guard_core *core, int64_t now_ms, const char *reason)
{
    if (!may_fence(core))
        return 0;
    snprintf(core->reason, sizeof core->reason, "%s", reason);
    core->phase = PHASE_LOCKING;
    core->state = GUARD_STATE_FENCING;
    core->kill_ms = now_ms + PERMIT_LIMIT_MS;
    core->retry_ms = now_ms + PERMIT_RETRY_MS;
    core->reset_ms = now_ms + (int64_t)core->config.timeouts.guard_reset_s * 1000;
    return GUARD_DO_LOCK_PERMITS | GUARD_DO_STOP | GUARD_DO_TELL;
}

static int64_t fence_due_ms(const struct guard_core *core)
{
    return core->renewed_ms + (int64_t)core->config.timeouts.guard_fence_s * 1000;
}

static unsigned fence_if_overdue(struct guard_core *core, int64_t now_ms)
{
    char reason[GUARD_REASON_SIZE];
    if (!may_fence(core) || now_ms < fence_due_ms(core))
        return 0;
    snprintf(reason, sizeof reason, "sanlock has not renewed this node's lease for %" PRId64 " s",
             (now_ms - core->renewed_ms) / 1000);
    return fence(core, now_ms, reason);
}

/* --- starting --- */

static unsigned on_started(struct guard_core *core, const struct guard_event *e)
{
    core->renewed_ms = e->now_ms; /* until the first look at sanlock's own record */
    core->adopted = e->resumed == GUARD_PERMIT_OPEN || e->resumed == GUARD_PERMIT_FENCED;
    if (e->resumed == GUARD_PERMIT_FENCED)
        return fence(core, e->now_ms, "a guard of this generation was killed while it fenced");
    return 0;
}

static unsigned on_acquired(struct guard_core *core)
{
    if (core->phase != PHASE_STARTING)
        return 0; /* too late: it fences */
    core->phase = PHASE_GUARDING;
    core->state = GUARD_STATE_GUARDING;
    return GUARD_DO_OPEN_PERMITS | GUARD_DO_TELL;
}

static unsigned on_start_failed(struct guard_core *core, const struct guard_event *e)
{
    if (core->phase != PHASE_STARTING)
        return 0;
    if (core->adopted && e->flag)
        return fence(core, e->now_ms, e->reason);
    core->phase = PHASE_OVER;
    return GUARD_DO_EXIT;
}

/* --- fencing --- */

static unsigned on_permits_free(struct guard_core *core)
{
    if (core->phase != PHASE_LOCKING)
        return 0;
    core->phase = PHASE_WIPING;
    core->retry_ms = INT64_MAX;
    return GUARD_DO_WIPE;
}

static unsigned start_release(struct guard_core *core)
{
    core->phase = PHASE_RELEASING;
    core->retry_ms = INT64_MAX;
    return GUARD_DO_RELEASE;
}

/*
 * USED must be cleared and the lease released before the watchdog fires, else the node is reset
 * although it was proved clean. sanlock feeds the watchdog up to 8N after the last renewal; wdmd
 * stops one look early; so that the reset comes no earlier than guard_release_s after that renewal
 * (timeouts.c). An agent that is not there, or gone, has nothing to say.
 */
static int64_t drain_end(const struct guard_core *core, int64_t now_ms)
{
    int64_t last = core->renewed_ms + (int64_t)core->config.timeouts.guard_release_s * 1000;
    int64_t end = now_ms + DRAIN_LIMIT_MS;
    return end < last ? end : last;
}

static unsigned on_proven(struct guard_core *core, int64_t now_ms)
{
    if (core->phase != PHASE_WIPING)
        return 0;
    core->state = GUARD_STATE_PROVEN;
    core->phase = PHASE_DRAINING;
    core->retry_ms = drain_end(core, now_ms);
    if (core->agent_connected && now_ms < core->retry_ms)
        return GUARD_DO_TELL;
    return GUARD_DO_TELL | start_release(core);
}

static unsigned on_released(struct guard_core *core)
{
    if (core->phase != PHASE_RELEASING && core->phase != PHASE_LEAVE_RELEASE)
        return 0;
    core->phase = PHASE_OVER;
    core->state = GUARD_STATE_OVER;
    core->retry_ms = INT64_MAX;
    return GUARD_DO_TELL | GUARD_DO_EXIT;
}

static void retry_after(struct guard_core *core, int64_t now_ms, int ms)
{
    core->retry_ms = now_ms + ms;
}

static unsigned on_tick_locking(struct guard_core *core, int64_t now_ms)
{
    unsigned kill = 0;
    if (now_ms >= core->kill_ms) { /* and again: it may have been started anew meanwhile */
        kill = GUARD_DO_KILL_AGENT | GUARD_DO_STOP; /* it may have loaded another one */
        core->agent_killed = true;
        core->kill_ms = now_ms + PERMIT_LIMIT_MS;
    }
    retry_after(core, now_ms, PERMIT_RETRY_MS);
    return kill | GUARD_DO_LOCK_PERMITS;
}

static bool is_without_proof(const struct guard_core *core)
{
    return core->phase == PHASE_LOCKING || core->phase == PHASE_WIPING;
}

static unsigned reset_if_due(struct guard_core *core, int64_t now_ms)
{
    if (!is_without_proof(core) || now_ms < core->reset_ms)
        return 0;
    if (now_ms - core->reset_ms > RESET_LATE_MS && !core->reset_put_off) {
        core->reset_put_off = true;
        core->reset_ms = now_ms + RESET_GRACE_MS;
        return 0;
    }
    core->reset_ms = now_ms + RESET_RETRY_MS;
    return GUARD_DO_RESET;
}

static unsigned retry(struct guard_core *core, int64_t now_ms)
{
    if (now_ms < core->retry_ms)
        return 0;
    switch (core->phase) {
    case PHASE_LOCKING:
        return on_tick_locking(core, now_ms);
    case PHASE_WIPING:
        core->retry_ms = INT64_MAX;
        return GUARD_DO_WIPE;
    case PHASE_DRAINING:
        return start_release(core);
    case PHASE_RELEASING:
    case PHASE_LEAVE_RELEASE:
        core->retry_ms = INT64_MAX;
        return GUARD_DO_RELEASE;
    default:
        return 0;
    }
}

static unsigned on_tick(struct guard_core *core, int64_t now_ms)
{
    if (may_fence(core))
        return fence_if_overdue(core, now_ms);
    return reset_if_due(core, now_ms) | retry(core, now_ms);
}

/* --- leaving --- */

static unsigned on_leave(struct guard_core *core)
{
    if (core->phase != PHASE_GUARDING)
        return GUARD_DO_TELL; /* whoever asked sees the state */
    core->phase = PHASE_LEAVE_CHECK;
    return GUARD_DO_CHECK_EMPTY;
}

/* Nothing is mapped and nothing can be: from here on a killpath has nothing to ask for. */
static unsigned on_empty(struct guard_core *core)
{
    if (core->phase != PHASE_LEAVE_CHECK)
        return 0;
    core->phase = PHASE_LEAVE_RELEASE;
    return GUARD_DO_RELEASE;
}

static unsigned on_not_empty(struct guard_core *core)
{
    if (core->phase != PHASE_LEAVE_CHECK)
        return 0;
    core->phase = PHASE_GUARDING;
    return GUARD_DO_OPEN_PERMITS | GUARD_DO_REFUSE_LEAVE;
}

/* --- all of it --- */

static unsigned on_trigger(struct guard_core *core, const struct guard_event *e)
{
    switch (e->type) {
    case GUARD_EVENT_KILLPATH:
        if (e->host_id != core->config.host_id || e->generation != core->config.generation)
            return 0;
        return fence(core, e->now_ms, "sanlock has lost this node's lease (killpath)");
    case GUARD_EVENT_SIGTERM:
        return fence(core, e->now_ms, "the guard got SIGTERM");
    case GUARD_EVENT_AGENT_FENCE:
        return fence(core, e->now_ms, e->reason);
    default:
        return fence(core, e->now_ms, "the sanlock daemon is gone");
    }
}

static unsigned on_agent(struct guard_core *core, bool connected)
{
    core->agent_connected = connected;
    if (connected)
        return GUARD_DO_TELL;
    return core->phase == PHASE_DRAINING ? start_release(core) : 0;
}

static unsigned on_result(struct guard_core *core, const struct guard_event *e)
{
    switch (e->type) {
    case GUARD_EVENT_PERMITS_FREE:
        return on_permits_free(core);
    case GUARD_EVENT_PROVEN:
        return on_proven(core, e->now_ms);
    case GUARD_EVENT_NOT_PROVEN:
        if (core->phase == PHASE_WIPING)
            retry_after(core, e->now_ms, WIPE_RETRY_MS);
        return 0;
    case GUARD_EVENT_RELEASED:
        return on_released(core);
    case GUARD_EVENT_RELEASE_FAILED:
        if (core->phase == PHASE_RELEASING || core->phase == PHASE_LEAVE_RELEASE)
            retry_after(core, e->now_ms, RELEASE_RETRY_MS);
        return 0;
    case GUARD_EVENT_EMPTY:
        return on_empty(core);
    default:
        return on_not_empty(core);
    }
}

unsigned guard_core_step(struct guard_core *core, const struct guard_event *e)
{
    switch (e->type) {
    case GUARD_EVENT_STARTED:
        return on_started(core, e);
    case GUARD_EVENT_ACQUIRED:
        return on_acquired(core);
    case GUARD_EVENT_START_FAILED:
        return on_start_failed(core, e);
    case GUARD_EVENT_RENEWED:
        if (e->renewed_ms > core->renewed_ms || !core->renewal_seen)
            core->renewed_ms = e->renewed_ms;
        core->renewal_seen = true;
        return fence_if_overdue(core, e->now_ms); /* it may be news of long ago */
    case GUARD_EVENT_TICK:
        return on_tick(core, e->now_ms);
    case GUARD_EVENT_AGENT_CONNECTED:
    case GUARD_EVENT_AGENT_GONE:
        return on_agent(core, e->type == GUARD_EVENT_AGENT_CONNECTED);
    case GUARD_EVENT_KILLPATH:
    case GUARD_EVENT_SIGTERM:
    case GUARD_EVENT_AGENT_FENCE:
    case GUARD_EVENT_SANLOCK_GONE:
        return on_trigger(core, e);
    case GUARD_EVENT_DRAINED:
        return core->phase == PHASE_DRAINING ? start_release(core) : 0;
    case GUARD_EVENT_LEAVE:
        return on_leave(core);
    default:
        return on_result(core, e);
    }
}

int64_t guard_core_deadline(const struct guard_core *core)
{
    if (may_fence(core))
        return fence_due_ms(core);
    bool reset_first = is_without_proof(core) && core->reset_ms < core->retry_ms;
    return reset_first ? core->reset_ms : core->retry_ms;
}
