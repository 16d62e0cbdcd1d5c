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
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/le.h"
#include "base/log.h"

/* The leader may be in the middle of a commit: it waits for that up to COORDINATOR_RESIGN_MS. */
#define LEAVE_RESIGN_MS 8000
/* The page with the flag: one write. Without a LUN there is no clean leave. */
#define LEAVE_PAGE_MS 5000

static int send_resign(int fd)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    Lunar__Resign resign = LUNAR__RESIGN__INIT;
    uint8_t *bytes, frame[64];
    uint32_t len;

    request.op_case = LUNAR__LOCAL_REQUEST__OP_RESIGN;
    request.resign = &resign;
    e.body_case = LUNAR__ENVELOPE__BODY_LOCAL_REQUEST;
    e.local_request = &request;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return -1;
    le32_put(frame, len);
    memcpy(frame + 4, bytes, len);
    free(bytes);
    return write(fd, frame, 4 + len) == (ssize_t)(4 + len) ? 0 : -1;
}

/* Asks the node's coordinator, if one runs, to go, and waits until it has hung up. */
static void resign_coordinator(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0 &&
        send_resign(fd) == 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        log_info("leaving text=\"the coordinator on this node resigns\"");
        char answer[256];
        /* It answers, then it goes: gone is when it has hung up. */
        while (poll(&p, 1, LEAVE_RESIGN_MS) == 1 && read(fd, answer, sizeof answer) > 0)
            ;
    }
    if (fd >= 0)
        close(fd);
}

static void leave_run(struct worker_job *job)
{
    struct agent *a = job->data;
    resign_coordinator(a->coordinator_socket);
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
    exit(0);
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
    mailbox_close(a->mailbox, on_mailbox_closed, a);
    a->mailbox = NULL;
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
