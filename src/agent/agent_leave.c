/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clean leave (`lunarctl node leave`): nothing open, no leader here, good-bye in our page,
 * lockspace left, exit.
 *
 * Order: commands are refused from now on -> a merge of layers that runs here is cancelled and
 * waited for -> the up page says LEAVING, the mailbox closes -> a coordinator on this node resigns
 * -> the guard sees that nothing is mapped, clears USED, releases the member lease and exits
 * (guard_leave) -> the lockspace is left (membership_leave), which frees the host id at once and
 * calms the watchdog. Failure modes: something is open: refused; the lockspace is still used: the
 * reason is told, and the agent joins again as a new run, guarded as before.
 *
 * With volumes (`--with-volumes`, before a reboot): the coordinator here resigns, what file systems
 * still hold is written out, and the node fences itself off (agent_fence.c), which ends in the
 * leave instead of the next join. Failure modes: it cannot be written within EVICT_SYNC_MS:
 * refused, nothing has changed.
 */
#include <string.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/helper.h"
#include "base/log.h"

/* The page with the flag: one write. Without a LUN there is no clean leave. */
#define LEAVE_PAGE_MS 5000
/* A merge that runs here is cancelled, and takes away its daemon and its maps; lunarctl waits for
 * 60 s. */
#define LEAVE_MERGE_MS 45000
#define LEAVE_TICK_MS  20

static void leave_run(struct worker_job *job)
{
    struct agent *a = job->data;
    agent_resign_coordinator(a->coordinator_socket);
    memset(&a->leave_err, 0, sizeof a->leave_err);
    a->leave_rc = guard_leave(a->join.guard, &a->leave_err);
    if (a->leave_rc == 0) {
        a->join.guard = NULL;
        a->leave_rc = membership_leave(a->join.membership, &a->leave_err);
    }
    if (a->leave_rc == 0)
        reserve_leave(&a->join); /* nothing of ours writes any more */
}

/* --- a leave that failed: the node joins again, as a new run --- */

static void on_poll_closed(uv_handle_t *handle)
{
    struct agent *a = handle->data;
    close(a->hangup_fd);
    agent_rejoin(a);
}

static void on_disk_closed(void *data)
{
    (void)data;
}

static void stay(struct agent *a)
{
    log_error("leave_failed code=%s text=\"%s\"", error_name(a->leave_rc), a->leave_err.text);
    agent_answer(a, a->leave_client, a->leave_rc, a->leave_err.text);
    /* Its page said good-bye, and an incarnation does not open its mailbox twice: a new run does.
     */
    membership_abandon(a->join.membership);
    a->join.membership = NULL;
    reserve_close(&a->join);
    if (a->join.guard)
        guard_close(a->join.guard);
    a->join.guard = NULL;
    node_free(a->node);
    a->node = NULL;
    uv_disk_close(a->disk, on_disk_closed, NULL);
    uv_close((uv_handle_t *)&a->sanlock_poll, on_poll_closed);
}

static void on_exit_timer(uv_timer_t *timer)
{
    (void)timer;
    agent_exit();
}

void agent_left(struct agent *a)
{
    log_info("left pool=%s host_id=%u", a->sb.pool_name, a->join.self.host_id);
    a->state = AGENT_STATE_LEFT;
    agent_answer(a, a->leave_client, 0, "");
    if (agent_was_last())
        uv_timer_start(&a->leave_timer, on_exit_timer, 200, 0); /* the answer goes out first */
}

static void leave_done(struct worker_job *job)
{
    struct agent *a = job->data;

    if (a->leave_rc < 0) {
        stay(a);
        return;
    }
    a->join.membership = NULL;
    agent_left(a);
}

/* Nothing of ours writes the page any more: the host id may be somebody else's from now on. */
static void on_mailbox_closed(void *data)
{
    struct agent *a = data;
    a->leave_job = (struct worker_job){.run = leave_run, .done = leave_done, .data = a};
    worker_submit(a->join_worker, &a->leave_job);
}

/* Waits for the page that says so; then the blocking part. */
static void on_leave_timer(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (a->reserve_busy || (!mailbox_idle(a->mailbox) && uv_now(a->loop) < a->leave_deadline_ms))
        return;
    uv_timer_stop(timer);
    agent_close_mailbox(a, on_mailbox_closed, a);
}

/* --- with volumes --- */

/* As long as the slowest flush of an array; a LUN that does not answer is for the guard. */
#define EVICT_SYNC_MS 60000

static int sync_all(const char *unused)
{
    (void)unused;
    sync();
    return 0;
}

static void evict_run(struct worker_job *job)
{
    struct agent *a = job->data;
    agent_resign_coordinator(a->coordinator_socket);
    memset(&a->leave_err, 0, sizeof a->leave_err);
    a->leave_rc = helper_call(sync_all, "/", EVICT_SYNC_MS, &a->leave_err);
}

static void evict_done(struct worker_job *job)
{
    struct agent *a = job->data;

    if (a->state == AGENT_STATE_LEFT)
        return; /* fenced meanwhile for another reason, which ended in the leave */
    if (a->leave_rc < 0) {
        a->evicting = false;
        agent_answer(a, a->leave_client, a->leave_rc, a->leave_err.text);
        return;
    }
    agent_fence(a, "asked to leave with its volumes"); /* nothing if it is being fenced already */
}

static void evict(struct agent *a, uint64_t client)
{
    a->evicting = true;
    a->leave_client = client;
    a->leave_job = (struct worker_job){.run = evict_run, .done = evict_done, .data = a};
    /* Not behind anything, and nothing behind it: the node goes on attaching and detaching until it
     * is fenced, and a fence for another reason waits for its reports and for the join thread. */
    if (!a->evict_worker)
        a->evict_worker = worker_open(a->loop, "evict");
    worker_submit(a->evict_worker, &a->leave_job);
}

static void on_guard_unwatched(uv_handle_t *handle)
{
    (void)handle;
}

/* Nothing is open. */
static void begin(struct agent *a)
{
    a->state = AGENT_STATE_LEAVING;
    uv_poll_stop(&a->sanlock_poll);
    agent_unwatch_guard(a, on_guard_unwatched);
    a->leave_deadline_ms = uv_now(a->loop) + LEAVE_PAGE_MS;
    mailbox_set_leaving(a->mailbox);
    uv_timer_start(&a->leave_timer, on_leave_timer, LEAVE_TICK_MS, LEAVE_TICK_MS);
}

/* What was merged here is being taken away. */
static void on_merge_timer(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    struct error err = ERROR_INIT;
    bool joined = a->state == AGENT_STATE_JOINED && a->fence.connected;
    int rc = joined ? node_set_leaving(a->node, &err)
                    : error_set(&err, LUNAR_E_NOT_JOINED, "the node has been fenced meanwhile");

    if (rc == LUNAR_E_BUSY && uv_now(a->loop) < a->leave_deadline_ms)
        return;
    uv_timer_stop(timer);
    a->leave_waits = false;
    if (rc == 0) {
        begin(a);
        return;
    }
    if (joined)
        node_unset_leaving(a->node);
    agent_answer(a, a->leave_client, err.code, err.text);
}

void agent_leave(struct agent *a, uint64_t client, bool with_volumes)
{
    struct error err = ERROR_INIT;

    if (a->state != AGENT_STATE_JOINED) {
        agent_answer(a, client, LUNAR_E_NOT_JOINED, "this node has not joined the pool");
        return;
    }
    if (a->evicting || a->leave_waits || !a->fence.connected) {
        agent_answer(a, client, LUNAR_E_BUSY,
                     a->fence.connected ? "it is leaving already"
                                        : "its guard is being started again; try again");
        return;
    }
    if (with_volumes) {
        evict(a, client);
        return;
    }
    int rc = node_set_leaving(a->node, &err);
    if (rc < 0 && rc != LUNAR_E_BUSY) {
        agent_answer(a, client, err.code, err.text);
        return;
    }
    a->leave_client = client;
    if (rc == 0) {
        begin(a);
        return;
    }
    a->leave_waits = true;
    a->leave_deadline_ms = uv_now(a->loop) + LEAVE_MERGE_MS;
    uv_timer_start(&a->leave_timer, on_merge_timer, LEAVE_TICK_MS, LEAVE_TICK_MS);
}
