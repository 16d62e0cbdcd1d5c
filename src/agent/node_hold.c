/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suspensions: the consumers of an open volume wait, for a moment and never longer than a deadline
 * (SAFETY 21).
 *
 * Happy path: Suspend -> a task outside suspends the device -> the result tells the suspension's
 * own id -> an Overlay that names it is carried out -> its result says that the suspension stood
 * all the time -> the device is resumed. It is beside the volume's own step, which stays HELD_OPEN:
 * a detach and the restart of its daemon wait for its end, a growth does not. A freeze of a file
 * system that has begun cannot be interrupted and may need the daemon, or the fence's, to write out
 * what it has: a restart does not wait for it, nor does the fence's teardown; and there are never
 * so many of them that no thread is left for what they wait for (agent_io.c).
 *
 * Failure modes: no Overlay comes: Resume ends it, or the deadline, which counts from the command's
 * arrival, and an Overlay that comes later is refused; the device is suspended only after the
 * deadline or after Resume: the result is an error, and it is resumed; this agent dies: the next
 * one resumes what it adopts, and knows no suspension; the device cannot be resumed: tried until it
 * can; another coordinator's Suspend while one stands: refused as busy.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "base/log.h"

/* Of a command that tells none or a senseless one. */
#define HOLD_MAX_MS 30000u

bool hold_runs(const struct held *h)
{
    return h->hold.step != HOLD_NONE;
}

bool hold_freezes(const struct held *h)
{
    return h->hold.step == HOLD_BEGINS && h->hold.task.freeze;
}

uint32_t node_freezes(const struct node *node)
{
    const struct held *h;
    uint32_t n = 0;

    TAILQ_FOREACH (h, &node->held, link)
        n += hold_freezes(h);
    return n;
}

void node_each_suspended(const struct node *node, void (*each)(const struct stack *stack))
{
    const struct held *h;

    TAILQ_FOREACH (h, &node->held, link)
        if (h->hold.step == HOLD_STANDS)
            each(h->stack);
}

bool hold_stands(const struct held *h, const struct uuid *id)
{
    return h->hold.step == HOLD_STANDS && uuid_equal(&h->hold.id, id);
}

static void run(struct node *n, struct held *h, enum hold_step step, enum node_task_kind kind)
{
    struct hold *hold = &h->hold;

    hold->step = step;
    hold->token = n->next_token++;
    hold->task.kind = kind;
    hold->task.token = hold->token;
    hold->task.spec = &h->spec;
    hold->task.stack = h->stack;
    n->tasks_out++;
    n->io->run(n->data, &hold->task);
}

void hold_end(struct node *n, struct held *h)
{
    if (h->hold.step == HOLD_STANDS)
        run(n, h, HOLD_ENDS, NODE_TASK_UNHOLD);
}

static void begin(struct node *n, struct held *h, const struct uuid *command_id,
                  const Lunar__Suspend *m)
{
    uint32_t ms = m->deadline_ms > 0 && m->deadline_ms < HOLD_MAX_MS ? m->deadline_ms : HOLD_MAX_MS;

    h->hold = (struct hold){.id = uuid_random(),
                            .command_id = *command_id,
                            .until_ms = n->now_ms + ms,
                            .task = {.deadline_ms = ms, .freeze = m->freeze}};
    run(n, h, HOLD_BEGINS, NODE_TASK_HOLD);
}

void hold_command(struct node *n, const struct uuid *command_id, const Lunar__Suspend *m)
{
    struct uuid attachment_id = uuid_from_pb(m->attachment_id);
    struct held *h = held_by_attachment(n, &attachment_id);
    struct error err = ERROR_INIT;
    int rc = held_check_open(n, h, &err);

    if (rc == 0 && h->change.step != CHANGE_NONE) /* a new size resumes the device */
        rc = error_set(&err, LUNAR_E_BUSY, "a change of it is under way here");
    if (rc < 0)
        held_send_result(n, command_id, rc, err.text, "");
    else if (h->hold.step == HOLD_NONE)
        begin(n, h, command_id, m);
    else if (!uuid_equal(&h->hold.command_id, command_id))
        held_send_result(n, command_id, LUNAR_E_BUSY, "it is suspended for another snapshot", "");
    else if (h->hold.step == HOLD_STANDS)
        held_send_hold(n, command_id, &h->hold.id);
    else if (h->hold.step == HOLD_ENDS)
        held_send_result(n, command_id, LUNAR_E_STALE, "its suspension has ended", "");
    /* else: it is answered when it stands */
}

void hold_resume_command(struct node *n, const struct uuid *command_id, const Lunar__Resume *m)
{
    struct uuid attachment_id = uuid_from_pb(m->attachment_id);
    struct held *h = held_by_attachment(n, &attachment_id);

    if (h) {
        h->hold.end_wanted = true;
        hold_end(n, h);
    }
    held_send_result(n, command_id, 0, "", "");
}

static void begun(struct node *n, struct held *h, int rc, const struct error *err)
{
    struct hold *hold = &h->hold;

    if (rc < 0) {
        hold->step = HOLD_NONE;
        held_send_result(n, &hold->command_id, rc, err->text, "");
        held_go_on(n, h);
        return;
    }
    hold->step = HOLD_STANDS;
    if (!hold->end_wanted && n->now_ms < hold->until_ms) {
        held_send_hold(n, &hold->command_id, &hold->id);
        return;
    }
    held_send_result(n, &hold->command_id, LUNAR_E_STALE, "it was suspended too late", "");
    hold_end(n, h);
}

void hold_task_done(struct node *n, struct held *h, int rc, const struct error *err)
{
    struct hold *hold = &h->hold;

    hold->token = 0;
    if (n->fenced) {
        hold->step = HOLD_NONE;
    } else if (hold->step == HOLD_BEGINS) {
        begun(n, h, rc, err);
    } else if (rc < 0) {
        log_error("hold_stays name=\"%s\" text=\"%s\"", h->spec.name, err->text);
        run(n, h, HOLD_ENDS, NODE_TASK_UNHOLD); /* the glue delays it */
    } else {
        hold->step = HOLD_NONE;
        held_go_on(n, h);
    }
}

void hold_tick(struct node *n, struct held *h)
{
    if (h->hold.step != HOLD_STANDS || n->now_ms < h->hold.until_ms)
        return;
    log_warn("hold_expired name=\"%s\" text=\"nobody took the snapshot in time\"", h->spec.name);
    hold_end(n, h);
}
