/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's events and its report; see node.h.
 *
 * Happy path: commands go to node_commands.c, clients' requests to node_relay.c, each change of
 * what is held is reported on the LUN before it is acted upon or answered. Failure modes: a report
 * that cannot be written stops an opening and makes the answer to a closing an error, so that the
 * coordinator asks again; a QSD that exits is started again under its consumers.
 */
#include "agent/node.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "base/log.h"

struct node *node_new(const struct node_config *config)
{
    struct node *n = calloc(1, sizeof *n);
    if (!n)
        abort();
    n->pool_id = config->pool_id;
    snprintf(n->pool_name, sizeof n->pool_name, "%s", config->pool_name);
    snprintf(n->device, sizeof n->device, "%s", config->device);
    snprintf(n->name, sizeof n->name, "%s", config->node_name);
    n->self = config->self;
    n->io = config->io;
    n->data = config->data;
    n->next_token = 1;
    TAILQ_INIT(&n->held);
    TAILQ_INIT(&n->pending);
    return n;
}

void node_free(struct node *node)
{
    struct held *h;
    struct pending *p;

    while ((h = TAILQ_FIRST(&node->held)))
        held_free(node, h);
    while ((p = TAILQ_FIRST(&node->pending))) {
        TAILQ_REMOVE(&node->pending, p, link);
        free(p->bytes);
        free(p);
    }
    free(node);
}

void node_adopt(struct node *node, struct stack *stack)
{
    struct held *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->step = HELD_OPEN;
    h->mode = TABLE_MODE_ATTACH;
    h->volume_id = stack->spec.volume_id;
    h->attachment_id = stack->spec.attachment_id;
    h->stack = stack;
    stack_spec_copy(&h->spec, &stack->spec);
    TAILQ_INSERT_TAIL(&node->held, h, link);
    node->n_held++;
    space_begin(node, h);
    if (!stack->spec.thick && stack->qsd.pidfd < 0)
        held_start_restart(node,
                           h); /* it died, and could not be started when the stack was found */
    else
        held_watch(node, h, true);
}

static enum table_state state_of(const struct held *h)
{
    switch (h->step) {
    case HELD_OPENING_REPORT:
    case HELD_OPENING_TASK:
        return TABLE_STATE_OPENING;
    case HELD_STUCK:
    case HELD_CLOSING_REPORT:
    case HELD_CLOSING_TASK:
    case HELD_GONE_REPORT:
        return TABLE_STATE_CLOSING;
    default:
        return TABLE_STATE_OPEN;
    }
}

static void report_entry(const struct node *n, const struct held *h, struct table_entry *e)
{
    e->volume_id = h->volume_id;
    e->attachment_id = h->attachment_id;
    e->generation = n->self.generation;
    e->term = h->term;
    e->mode = h->mode;
    e->state = state_of(h);
    const struct stack_spec *spec = change_reported(h);
    for (uint32_t i = 0; i < spec->n_layers && i < TABLE_LAYERS_MAX; i++) {
        e->layers[i].volume_short = spec->layers[i].volume_short;
        e->layers[i].index = spec->layers[i].index;
        e->layers[i].map_generation = spec->layers[i].map_generation;
        e->n_layers++;
    }
}

uint64_t node_write_report(struct node *n)
{
    struct table t;
    struct held *h;

    table_init(&t, TABLE_REPORTS, n->self.host_id, &n->pool_id);
    t.writer = n->self;
    t.term = n->term_seen;
    t.seq = ++n->report_seq;
    TAILQ_FOREACH (h, &n->held, link) {
        struct table_entry *e = h->step == HELD_GONE_REPORT ? NULL : table_add(&t);
        if (e)
            report_entry(n, h, e);
    }
    uint64_t token = n->next_token++;
    n->reports_out++;
    n->io->write_report(n->data, token, &t);
    table_free(&t);
    return token;
}

void node_start(struct node *node)
{
    node_write_report(node);
}

void node_tend(struct node *node, bool due)
{
    /* One at a time: a LUN that hangs would meet a longer queue at each beat. */
    if (!node->fenced && (due || node->report_failed) && node->reports_out == 0)
        node_write_report(node);
}

void node_report_done(struct node *node, uint64_t token, int rc, const struct error *err)
{
    struct held *h;

    assert(node->reports_out > 0);
    node->reports_out--;
    if (node->fenced)
        return;
    if (rc < 0) {
        node->report_failed = true;
        node->report_wanted = node->next_token;
    } else if (token >= node->report_wanted) {
        node->report_failed = false;
    }
    TAILQ_FOREACH (h, &node->held, link) {
        if (h->token == token) {
            h->token = 0;
            held_report_done(node, h, rc, err);
            return;
        }
        if (h->change.token == token) {
            change_report_done(node, h, rc, err);
            return;
        }
    }
}

void node_task_done(struct node *node, struct node_task *task, int rc, const struct error *err)
{
    struct held *h;

    assert(node->tasks_out > 0);
    node->tasks_out--;
    if (task->kind == NODE_TASK_GROW && space_task_done(node, task, rc))
        return;
    TAILQ_FOREACH (h, &node->held, link) {
        if (h->change.token == task->token) {
            change_task_done(node, h, rc, err);
            return;
        }
        if (h->hold.token == task->token) {
            hold_task_done(node, h, rc, err);
            return;
        }
        if (h->token != task->token)
            continue;
        h->token = 0;
        if (node->fenced)
            held_task_ended(h, task, rc);
        else
            held_task_done(node, h, rc, err);
        return;
    }
    assert(!"a task without its volume");
}

void node_qsd_exited(struct node *node, const struct stack *stack)
{
    struct held *h;

    if (node->fenced)
        return; /* it is being ended */
    TAILQ_FOREACH (h, &node->held, link) {
        if (h->stack != stack)
            continue;
        h->qsd_exited = true;
        held_go_on(node, h);
        return;
    }
}

void node_message(struct node *node, uint64_t term, const Lunar__Envelope *envelope)
{
    if (node->fenced)
        return;
    if (term > node->term_seen)
        node->term_seen = term;
    if (envelope->body_case == LUNAR__ENVELOPE__BODY_COMMAND)
        held_command(node, term, envelope->command);
    else if (envelope->body_case == LUNAR__ENVELOPE__BODY_RESPONSE)
        relay_answer(node, envelope);
    else
        log_warn("message_refused text=\"neither a command nor a response\"");
}

/* Work on layers that another node can do as well: nobody who uses a volume waits for it. */
static bool is_background(const struct held *h)
{
    return h->mode == TABLE_MODE_JOB &&
           (h->job_kind == NODE_TASK_MERGE || h->job_kind == NODE_TASK_MEASURE);
}

int node_set_leaving(struct node *node, struct error *err)
{
    struct held *h;
    TAILQ_FOREACH (h, &node->held, link)
        if (!is_background(h))
            return error_set(err, LUNAR_E_IN_USE, "volume '%s' is attached here; detach it first",
                             h->spec.name);
    node->leaving = true;
    TAILQ_FOREACH (h, &node->held, link)
        h->job.cancel = true; /* another node begins again */
    return TAILQ_EMPTY(&node->held)
               ? 0
               : error_set(err, LUNAR_E_BUSY, "the work on layers here does not end");
}

void node_unset_leaving(struct node *node)
{
    node->leaving = false;
}

void node_each(const struct node *node, void (*each)(void *data, const struct node_volume *v),
               void *data)
{
    static const char *const names[] = {
        [HELD_OPENING_REPORT] = "opening",  [HELD_OPENING_TASK] = "opening",
        [HELD_OPEN_REPORT] = "opening",     [HELD_OPEN] = "open",
        [HELD_RESTART_TASK] = "restarting", [HELD_CLOSING_REPORT] = "closing",
        [HELD_CLOSING_TASK] = "closing",    [HELD_STUCK] = "stuck",
        [HELD_GONE_REPORT] = "closing",
    };
    const struct held *h;

    TAILQ_FOREACH (h, &node->held, link) {
        struct node_volume v = {
            .volume_id = h->volume_id,
            .attachment_id = h->attachment_id,
            .name = h->spec.name,
            .state = h->mode == TABLE_MODE_JOB ? "job" : names[h->step],
            .device = h->stack ? h->stack->link : "",
            .qsd_pid = h->stack && h->step == HELD_OPEN ? (uint32_t)h->stack->qsd.pid : 0,
            .qsd_restarts = h->stack && h->step == HELD_OPEN ? h->stack->qsd_restarts : 0,
            .space = h->space.growth.max ? h->space.growth.size : 0,
            .space_asked = h->space.growth.asked,
        };
        each(data, &v);
    }
}

uint32_t node_pending(const struct node *node)
{
    return node->n_pending + (space_asks(node) ? 1 : 0);
}
