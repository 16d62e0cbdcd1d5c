/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clean leave (`lunarctl node leave`): nothing open, no leader here, good-bye in our page,
 * lockspace left, exit.
 *
 * Order: commands are refused from now on -> the up page says LEAVING, the mailbox closes -> a
 * coordinator on this node resigns -> the member lease is released, USED cleared, the lockspace
 * left (membership_leave), which frees the host id at once and calms the watchdog. Failure modes:
 * something is open: refused; the lockspace is still used: the reason is told, and the agent joins
 * again as a new run.
 */
#include <string.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/log.h"

/* The page with the flag: one write. Without a LUN there is no clean leave. */
#define LEAVE_PAGE_MS 5000

static void leave_run(struct worker_job *job)
{
    struct agent *a = job->data;
    agent_resign_coordinator(a->coordinator_socket);
    memset(&a->leave_err, 0, sizeof a->leave_err);
    a->leave_rc = membership_leave(a->join.membership, &a->leave_err);
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

static void leave_done(struct worker_job *job)
{
    struct agent *a = job->data;

    if (a->leave_rc < 0) {
        stay(a);
        return;
    }
    log_info("left pool=%s host_id=%u", a->sb.pool_name, a->join.self.host_id);
    a->join.membership = NULL;
    a->state = AGENT_STATE_LEFT;
    agent_answer(a, a->leave_client, 0, "");
    if (agent_was_last())
        uv_timer_start(&a->leave_timer, on_exit_timer, 200, 0); /* the answer goes out first */
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
    if (!mailbox_idle(a->mailbox) && uv_now(a->loop) < a->leave_deadline_ms)
        return;
    uv_timer_stop(timer);
    agent_close_mailbox(a, on_mailbox_closed, a);
}

void agent_leave(struct agent *a, uint64_t client)
{
    struct error err = ERROR_INIT;

    if (a->state != AGENT_STATE_JOINED) {
        agent_answer(a, client, LUNAR_E_NOT_JOINED, "this node has not joined the pool");
        return;
    }
    if (node_set_leaving(a->node, &err) < 0) {
        agent_answer(a, client, err.code, err.text);
        return;
    }
    a->state = AGENT_STATE_LEAVING;
    uv_poll_stop(&a->sanlock_poll);
    a->leave_client = client;
    a->leave_deadline_ms = uv_now(a->loop) + LEAVE_PAGE_MS;
    mailbox_set_leaving(a->mailbox);
    uv_timer_start(&a->leave_timer, on_leave_timer, 20, 20);
}
