/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's half of self-fencing; the guard's is fencing/guard.h.
 *
 * Happy path: the guard says FENCING, on its own or because agent_fence asked it to. From that
 * moment no command is taken: the mailbox closes, clients that wait are answered FENCED. Once the
 * guard says PROVEN (nothing of this node's reaches the LUN) and the tasks under way have ended,
 * one blocking job tears down whatever of the pool stands, so that consumers have their errors and
 * the daemons are gone, and the guard is told. When it is OVER (USED cleared, lease released, it
 * exits) and nothing of the old life is on its way to the LUN any more, what is left of the
 * lockspace is given up, and the agent joins again as a new generation, by itself, as often as it
 * takes.
 *
 * Failure modes. A task or a teardown that hangs: the loop goes on, the state says what it waits
 * for, the guard waits only so long; the proof does not depend on any of it. No proof (I/O stuck in
 * flight): nothing goes on here, and the watchdog or the guard resets the node. The guard is killed
 * while all is well: USED stands, so the node is still watched over; another is started under the
 * same generation. It is killed before it had its proof, or we are to fence while there is none:
 * another is started all the same, which fences at once, and is listened to as the first one was,
 * because only a guard resets the node if the proof cannot be had. Where none can be had our own
 * teardown, which puts the same error tables under the same maps and drains them, is the proof. All
 * on the loop thread but the jobs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/log.h"

/* How soon what failed (a teardown, another guard) is tried again, and how often what is waited
 * for is looked at. */
#define FENCE_TICK_MS 1000

static void advance(struct agent *a);
static void guard_again(struct agent *a);
static void start_again(struct agent *a);

static void set_words(struct agent *a, const char *next)
{
    snprintf(a->trouble, sizeof a->trouble, "fenced off: %s; %s", a->fence.why, next);
}

static int ms_since_begin(const struct agent *a)
{
    return (int)(uv_now(a->loop) - a->fence.began_ms);
}

/* --- closing what this life had, without waiting for it on the loop --- */

static void closed_one(struct agent *a)
{
    a->fence.closing--;
    advance(a);
}

static void on_disk_closed(void *data)
{
    closed_one(data);
}

/* Its last write has ended: the disk may go. */
static void on_mailbox_closed(void *data)
{
    struct agent *a = data;
    uv_disk_close(a->disk, on_disk_closed, a);
    a->disk = NULL;
}

static void on_sanlock_poll_closed(uv_handle_t *handle)
{
    struct agent *a = handle->data;
    close(a->hangup_fd);
    closed_one(a);
}

static void on_guard_poll_closed(uv_handle_t *handle)
{
    struct agent *a = handle->data;
    guard_close(a->join.guard);
    a->join.guard = NULL;
    a->fence.parting = false;
    closed_one(a);
}

/* The connection alone; whether the guard goes on is its own affair. */
static void close_guard(struct agent *a)
{
    a->fence.closing++;
    uv_close((uv_handle_t *)&a->guard_poll, on_guard_poll_closed);
    a->fence.connected = false;
    a->fence.parting = true;
}

/* --- the blocking jobs, one at a time --- */

static void job_done(struct worker_job *job)
{
    struct agent *a = job->data;
    struct fence *f = &a->fence;

    f->busy = false;
    if (f->rc == 0)
        f->said[0] = '\0';
    else if (strcmp(f->said, f->err.text) != 0) /* one line per change of reason, not per try */
        log_warn("fence_waits pool=%s code=%s text=\"%s\"", a->sb.pool_name, error_name(f->rc),
                 f->err.text);
    if (f->rc < 0)
        snprintf(f->said, sizeof f->said, "%s", f->err.text);
    f->after(a);
}

static void start_job(struct agent *a, void (*run)(struct worker_job *job),
                      void (*after)(struct agent *a))
{
    struct fence *f = &a->fence;

    f->busy = true;
    f->after = after;
    f->err = (struct error)ERROR_INIT;
    f->job = (struct worker_job){.run = run, .done = job_done, .data = a};
    worker_submit(a->join_worker, &f->job);
}

static void never_adopted(void *data, struct stack *stack)
{
    (void)data;
    (void)stack;
    abort(); /* stack_recover was told to adopt nothing */
}

static void teardown_run(struct worker_job *job)
{
    struct agent *a = job->data;
    a->fence.rc = stack_recover(a->root, &a->sb.pool_id, true, never_adopted, NULL, &a->fence.err);
}

static void teardown_after(struct agent *a)
{
    struct fence *f = &a->fence;
    struct error err = ERROR_INIT;

    if (f->rc < 0)
        return; /* the next tick tries again */
    f->torn_down = true;
    log_info("fence_torn_down pool=%s ms=%d", a->sb.pool_name, ms_since_begin(a));
    if (f->connected && guard_drained(a->join.guard, &err) < 0)
        log_warn("fence_guard_not_told text=\"%s\"", err.text); /* it waits its time out */
    advance(a);
}

static void end_run(struct worker_job *job)
{
    struct agent *a = job->data;
    a->fence.rc = membership_end(&a->sb.pool_id, &a->fence.err);
    if (a->fence.rc == 0 && a->evicting)
        reserve_leave(&a->join);
}

/* Nothing of the old life is left: the next one. */
static void end_after(struct agent *a)
{
    if (a->fence.rc < 0)
        return;
    log_info("fence_over pool=%s ms=%d", a->sb.pool_name, ms_since_begin(a));
    uv_timer_stop(&a->fence_timer);
    a->fence.ending = false; /* of the next life */
    set_words(a, "joining again");
    membership_abandon(a->join.membership);
    a->join.membership = NULL;
    reserve_close(&a->join);
    node_free(a->node);
    a->node = NULL;
    close(a->fd); /* a removed LUN gets its name back only when nobody has it open */
    a->fd = -1;
    if (a->evicting)
        agent_left(a);
    else
        agent_rejoin(a);
}

/* --- what comes next --- */

/* A task of ours may still be about to load a table, which the permit stops, or to end a daemon. */
static void start_teardown(struct agent *a)
{
    set_words(a, "ending what its volumes were made of");
    start_job(a, teardown_run, teardown_after);
}

static void advance(struct agent *a)
{
    struct fence *f = &a->fence;

    if (a->state != AGENT_STATE_FENCED || f->busy)
        return;
    if (!f->proven && f->connected)
        set_words(a, "waiting for the proof that nothing of it reaches the LUN any more; without "
                     "it the watchdog or the guard resets this node");
    else if (!f->proven)
        start_again(a); /* nobody guards */
    else if (!f->torn_down && node_tasks(a->node) > node_freezes(a->node))
        set_words(a, "waiting for operations on its volumes to end");
    else if (!f->torn_down)
        start_teardown(a);
    else if (node_tasks(a->node) > 0)
        set_words(a, "waiting for a file system to be frozen, whose I/O fails by now");
    else if (!f->over)
        set_words(a, "waiting for the guard to give the lease back");
    else if (node_reports(a->node) > 0 || a->check_busy || a->reserve_busy || f->closing > 0)
        set_words(a, "waiting for its last I/O on the LUN to end");
    else
        start_job(a, end_run, end_after);
}

static void on_fence_timer(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (a->state == AGENT_STATE_FENCED)
        advance(a);
    else
        guard_again(a);
}

void agent_fence_advance(struct agent *a)
{
    advance(a);
}

/* --- the beginning --- */

static void begin(struct agent *a, const char *why)
{
    struct fence *f = &a->fence;

    if (a->state != AGENT_STATE_JOINED)
        return;
    a->state = AGENT_STATE_FENCED;
    f->began_ms = uv_now(a->loop);
    snprintf(f->why, sizeof f->why, "%s", why);
    set_words(a, "no command is taken any more");
    log_error("fenced pool=%s host_id=%u generation=%llu text=\"%s\"", a->sb.pool_name,
              a->join.self.host_id, (unsigned long long)a->join.self.generation, why);
    node_fence(a->node, a->trouble);
    uv_timer_stop(&a->timer);
    f->closing += 2;
    agent_close_mailbox(a, on_mailbox_closed, a);
    uv_close((uv_handle_t *)&a->sanlock_poll, on_sanlock_poll_closed);
    uv_timer_start(&a->fence_timer, on_fence_timer, FENCE_TICK_MS, FENCE_TICK_MS);
}

void agent_fence(struct agent *a, const char *why)
{
    struct error err = ERROR_INIT;

    if (a->state != AGENT_STATE_JOINED)
        return;
    begin(a, why);
    if (a->fence.connected && guard_fence(a->join.guard, why, &err) < 0)
        log_warn("fence_guard_not_told text=\"%s\"", err.text); /* its hang-up will be seen */
    advance(a);
}

/* --- what the guard says --- */

static void guard_says(struct agent *a, enum guard_state state, const char *reason)
{
    struct fence *f = &a->fence;

    if (state == GUARD_STATE_STARTING || state == GUARD_STATE_GUARDING)
        return;
    begin(a, reason[0] ? reason : "the guard fences");
    if (state == GUARD_STATE_FENCING)
        return;
    if (!f->proven)
        log_info("fence_proven pool=%s ms=%d", a->sb.pool_name, ms_since_begin(a));
    f->proven = true;
    f->over |= state == GUARD_STATE_OVER;
}

static void guard_gone(struct agent *a)
{
    struct fence *f = &a->fence;

    close_guard(a);
    if (a->state == AGENT_STATE_FENCED) {
        if (!f->over)
            log_warn("guard_gone pool=%s text=\"before it was over: %s\"", a->sb.pool_name,
                     f->proven ? "our own teardown ends it" : "starting another, which goes on");
        f->over = f->proven; /* otherwise another one has it yet to do */
        return;
    }
    log_error("guard_gone pool=%s text=\"killed? the watchdog watches over this node; starting "
              "another\"",
              a->sb.pool_name);
    uv_timer_start(&a->fence_timer, on_fence_timer, 0, FENCE_TICK_MS);
}

static void hear_guard(struct agent *a)
{
    enum guard_state state;
    char reason[GUARD_REASON_SIZE] = "";
    int rc;

    while ((rc = guard_read(a->join.guard, &state, reason, NULL)) == 1)
        guard_says(a, state, reason);
    if (rc < 0)
        guard_gone(a);
    else if (a->fence.over)
        close_guard(a);
    advance(a);
}

static void on_guard(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    hear_guard(poll->data);
}

void agent_watch_guard(struct agent *a)
{
    if (uv_poll_init(a->loop, &a->guard_poll, guard_fd(a->join.guard)) != 0)
        abort();
    a->guard_poll.data = a;
    a->fence.proven = a->fence.torn_down = a->fence.over = false; /* of a former life */
    a->fence.connected = true;
    uv_poll_start(&a->guard_poll, UV_READABLE, on_guard);
}

void agent_unwatch_guard(struct agent *a, void (*closed)(uv_handle_t *handle))
{
    a->fence.connected = false;
    uv_close((uv_handle_t *)&a->guard_poll, closed);
}

/* --- a guard that was killed --- */

static void again_run(struct worker_job *job)
{
    struct agent *a = job->data;
    struct fence *f = &a->fence;

    f->rc = f->ending ? 0 : membership_check(a->join.membership, &f->err);
    if (f->rc == 0)
        f->rc = join_guard(a, &a->join, &f->err);
}

static void again_after(struct agent *a)
{
    struct fence *f = &a->fence;
    bool fenced = a->state == AGENT_STATE_FENCED;

    if (f->rc == 0) {
        log_info("guard_replaced pool=%s", a->sb.pool_name);
        agent_watch_guard(a);
        if (!fenced)
            uv_timer_stop(&a->fence_timer);
        else if (guard_fence(a->join.guard, f->why, NULL) < 0)
            log_warn("fence_guard_not_told text=\"its hang-up will be seen\"");
        hear_guard(a); /* what it said while it was looked for */
        return;
    }
    if (fenced) {
        /* No guard to be had, or its work is done: our own teardown is the proof. But one that
         * fences must have been asked for. */
        f->proven = f->over = f->ending;
    } else if (f->rc == LUNAR_E_NOT_JOINED || f->rc == LUNAR_E_FENCED || f->rc == LUNAR_E_ALIVE) {
        agent_fence(a, f->err.text);
    }
    advance(a);
}

/* Once nothing of the former connection is left. */
static void start_again(struct agent *a)
{
    a->fence.ending = a->state == AGENT_STATE_FENCED;
    if (!a->fence.parting)
        start_job(a, again_run, again_after);
}

static void guard_again(struct agent *a)
{
    if (a->state == AGENT_STATE_JOINED && !a->fence.busy)
        start_again(a);
}
