/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an agent once its LUN is open and its lock held: join, serve, notice the loss.
 *
 * Happy path: join.c runs in a thread, the node is made with what was adopted, the first report is
 * written, the mailbox opens, guard and membership are looked after. Failure modes: a join that
 * fails is told in the status and tried again; the sanlock daemon or the lockspace is lost, the
 * coordinator has declared this life dead, the LUN refuses our writes: the node fences itself off
 * (agent_fence.c) and joins again.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/agent_internal.h"
#include "base/hangup.h"
#include "base/log.h"

static void start_join(struct agent *a);

/* --- serving --- */

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    struct error err = ERROR_INIT;
    Lunar__Envelope *e;

    if (a->state == AGENT_STATE_FENCED)
        return;
    if (envelope_unpack(bytes, len, &e, &err) < 0) {
        log_warn("message_refused text=\"%s\"", err.text);
        return;
    }
    node_message(a->node, mailbox_stats(a->mailbox)->peer.run_or_term, e);
    envelope_free(e);
}

static void on_peer_changed(void *data, const struct incarnation *peer)
{
    struct agent *a = data;
    log_info("coordinator_changed term=%llu host_id=%u", (unsigned long long)peer->run_or_term,
             peer->host_id);
    node_coordinator_changed(a->node);
}

static void on_dead(void *data, uint64_t generation)
{
    struct agent *a = data;
    if (generation >= a->join.self.generation)
        agent_fence(a, "the coordinator has declared this life of the node dead");
}

static void on_wrote(void *data)
{
    struct agent *a = data;
    hint_send(a->hint, &mailbox_stats(a->mailbox)->peer_hint, a->join.self.host_id);
}

static void on_hint(void *data, uint32_t slot)
{
    struct agent *a = data;
    (void)slot;
    mailbox_hint(a->mailbox);
}

void agent_close_mailbox(struct agent *a, void (*closed)(void *data), void *data)
{
    if (a->hint)
        hint_close(a->hint, NULL, NULL);
    a->hint = NULL;
    mailbox_close(a->mailbox, closed, data);
    a->mailbox = NULL;
}

static void on_sanlock(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    agent_fence(poll->data, "the sanlock daemon is gone");
}

static void check_run(struct worker_job *job)
{
    struct agent *a = job->data;
    a->check_rc = membership_check(a->join.membership, &a->check_err);
}

static void check_done(struct worker_job *job)
{
    struct agent *a = job->data;
    a->check_busy = false;
    if (a->check_rc == LUNAR_E_NOT_JOINED && a->state == AGENT_STATE_JOINED)
        agent_fence(a, a->check_err.text);
    else if (a->check_rc < 0)
        log_warn("membership_in_doubt pool=%s code=%s text=\"%s\"", a->sb.pool_name,
                 error_name(a->check_rc), a->check_err.text);
    agent_fence_advance(a);
}

static void on_timer(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (a->state == AGENT_STATE_JOINING) {
        start_join(a);
        return;
    }
    if (a->state == AGENT_STATE_JOINED && mailbox_refused(a->mailbox))
        agent_fence(a, AGENT_REFUSED_TEXT);
    if (a->state != AGENT_STATE_JOINED)
        return;
    node_tend(a->node, ++a->checks % AGENT_TEND_CHECKS == 0);
    reserve_tend(a);
    if (!a->check_busy) {
        a->check_busy = true;
        a->check_job = (struct worker_job){.run = check_run, .done = check_done, .data = a};
        worker_submit(a->join_worker, &a->check_job);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (a->state == AGENT_STATE_JOINED)
        node_tick(a->node, uv_now(a->loop));
}

/* --- joining --- */

static void join_job_run(struct worker_job *job)
{
    struct agent *a = job->data;
    memset(&a->join_err, 0, sizeof a->join_err);
    a->join_rc = join_run(a, &a->join, &a->join_err);
}

static void open_mailbox(struct agent *a)
{
    const struct hint_config hint = {
        .loop = a->loop,
        .pool_id = a->sb.pool_id,
        .slot_min = a->join.self.host_id,
        .slot_max = a->join.self.host_id,
        .looked = on_hint,
        .data = a,
    };
    a->hint = hint_start(&a->hint_option, &hint);
    const struct mailbox_config mailbox = {
        .loop = a->loop,
        .disk = uv_disk_disk(a->disk),
        .layout = &a->sb.layout,
        .pool_id = a->sb.pool_id,
        .self = a->join.self,
        .node_name = a->node_name,
        .page_seq_min = a->join.page_seq,
        .hint = hint_address(a->hint),
        .trace = a->trace,
        .callbacks = {.message = on_message,
                      .peer_changed = on_peer_changed,
                      .dead = on_dead,
                      .wrote = on_wrote},
        .data = a,
    };
    a->mailbox = mailbox_open(&mailbox);
}

static int serve(struct agent *a, struct error *err)
{
    struct node_config node = {.pool_id = a->sb.pool_id,
                               .pool_name = a->sb.pool_name,
                               .device = a->device,
                               .node_name = a->node_name,
                               .self = a->join.self,
                               .io = &agent_io,
                               .data = a};
    int rc = uv_disk_open(a->loop, a->device, 2, &a->disk, err);
    if (rc < 0)
        return rc;
    a->node = node_new(&node);
    for (uint32_t i = 0; i < a->join.n_stacks; i++)
        node_adopt(a->node, a->join.stacks[i]);
    node_start(a->node);
    open_mailbox(a);
    a->hangup_fd = hangup_fd(membership_fd(a->join.membership));
    if (a->hangup_fd < 0 || uv_poll_init(a->loop, &a->sanlock_poll, a->hangup_fd) != 0)
        abort();
    a->sanlock_poll.data = a;
    uv_poll_start(&a->sanlock_poll, UV_READABLE, on_sanlock);
    agent_watch_guard(a);
    return 0;
}

/* Told in the status; one log line per change of reason, not one per try. */
static void join_failed(struct agent *a)
{
    struct fence *f = &a->fence;

    if (strcmp(f->said, a->join_err.text) != 0)
        log_error("join_failed pool=%s code=%s text=\"%s\"", a->sb.pool_name,
                  error_name(a->join_rc), a->join_err.text);
    snprintf(f->said, sizeof f->said, "%s", a->join_err.text);
    if (f->why[0])
        snprintf(a->trouble, sizeof a->trouble, "fenced off: %s; joining again: %s", f->why,
                 a->join_err.text);
    else
        snprintf(a->trouble, sizeof a->trouble, "%s", a->join_err.text);
}

static void join_job_done(struct worker_job *job)
{
    struct agent *a = job->data;

    if (a->join_rc == 0) {
        a->join_rc = serve(a, &a->join_err);
        if (a->join_rc < 0)
            join_undo(&a->join);
    }
    if (a->join_rc < 0) {
        join_failed(a);
        uv_timer_start(&a->timer, on_timer, AGENT_JOIN_RETRY_MS, 0);
        return;
    }
    a->state = AGENT_STATE_JOINED;
    a->trouble[0] = a->fence.why[0] = a->fence.said[0] = '\0';
    log_info("joined pool=%s host_id=%u generation=%llu run=%llu adopted=%u", a->sb.pool_name,
             a->join.self.host_id, (unsigned long long)a->join.self.generation,
             (unsigned long long)a->join.self.run_or_term, a->join.n_stacks);
    uv_timer_start(&a->timer, on_timer, AGENT_CHECK_MS, AGENT_CHECK_MS);
    uv_timer_start(&a->tick, on_tick, 0, AGENT_TICK_MS);
}

static void start_join(struct agent *a)
{
    a->join_job = (struct worker_job){.run = join_job_run, .done = join_job_done, .data = a};
    worker_submit(a->join_worker, &a->join_job);
}

void agent_rejoin(struct agent *a)
{
    uv_timer_stop(&a->timer); /* one join at a time: the next tick would begin another */
    a->state = AGENT_STATE_JOINING;
    start_join(a);
}

void agent_begin(struct agent *a)
{
    LIST_INIT(&a->watches);
    LIST_INIT(&a->spaces);
    a->join_worker = worker_open(a->loop, "join");
    a->report_worker = worker_open(a->loop, "report");
    uv_timer_init(a->loop, &a->timer);
    uv_timer_init(a->loop, &a->tick);
    uv_timer_init(a->loop, &a->leave_timer);
    uv_timer_init(a->loop, &a->fence_timer);
    a->timer.data = a->tick.data = a->leave_timer.data = a->fence_timer.data = a;
    start_join(a);
}
