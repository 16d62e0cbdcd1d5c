/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's outside: reports in a thread of their own, tasks in libuv's pool, messages through the
 * mailbox, QSD exits by pidfd. See node.h for what each must promise.
 *
 * Step (2) of SAFETY 2 is here, in the task, after the report was written: lver and grant are read
 * from the LUN itself.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "agent/grant_check.h"
#include "agent/inspect.h"
#include "agent/probe.h"
#include "base/log.h"

/* --- reports --- */

struct report_job {
    struct worker_job job;
    struct agent *a;
    struct node *node; /* that asked: a failed leave makes another */
    uint64_t token;
    struct table table;
    int rc;
    struct error err;
};

static void report_run(struct worker_job *job)
{
    struct report_job *j = job->data;
    /* In turn, so that the older one stays whole while the newer is written. */
    int copy = (int)(j->table.seq & 1);
    j->rc = table_write(j->a->fd, &j->a->sb.layout, &j->table, copy, &j->err);
}

static void report_done(struct worker_job *job)
{
    struct report_job *j = job->data;
    if (j->rc < 0)
        log_error("report_write_failed code=%s text=\"%s\"", error_name(j->rc), j->err.text);
    if (j->rc == -EBADE) /* the kernel's word for a reservation conflict */
        agent_fence(j->a, AGENT_REFUSED_TEXT);
    if (j->node == j->a->node)
        node_report_done(j->node, j->token, j->rc, &j->err);
    agent_fence_advance(j->a);
    table_free(&j->table);
    free(j);
}

static void io_write_report(void *data, uint64_t token, const struct table *report)
{
    struct agent *a = data;
    struct report_job *j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->job = (struct worker_job){.run = report_run, .done = report_done, .data = j};
    j->a = a;
    j->node = a->node;
    j->token = token;
    table_copy(&j->table, report);
    worker_submit(a->report_worker, &j->job);
}

/* --- tasks --- */

struct task_job {
    uv_work_t work;
    struct agent *a;
    struct node_task *task;
    struct incarnation self;
    int rc;
    struct error err;
};

/* SAFETY 2 (2): read after the report was written, before anything is mapped. */
static int check_granted(struct task_job *j)
{
    const struct stack_layer *leaf = &j->task->spec->layers[0];
    struct table_layer names = {.volume_short = leaf->volume_short, .index = leaf->index};

    /* An attach or a job is granted with its layers; an open volume's grant gets a new one. */
    return grant_check(j->a->fd, &j->a->sb, &j->self, j->task->term, &j->task->spec->attachment_id,
                       j->task->kind == NODE_TASK_OVERLAY ? &names : NULL, &j->err);
}

static int restart(struct task_job *j, const struct stack_life *life)
{
    stack_freeze_lower(j->a->root, life, j->task->stack);
    int rc = stack_restart_qsd(j->a->root, j->task->stack, &j->err);
    if (rc < 0)
        usleep(AGENT_RESTART_RETRY_MS * 1000);
    return rc;
}

static int change_chain(struct task_job *j, const struct stack_life *life)
{
    int (*change)(const char *, const struct stack_life *, struct stack *,
                  const struct stack_layer *, uint32_t, struct error *) =
        j->task->kind == NODE_TASK_OVERLAY ? stack_overlay : stack_relink;
    const struct stack_spec *spec = j->task->spec;
    int rc = check_granted(j);

    return rc < 0 ? rc
                  : change(j->a->root, life, j->task->stack, spec->layers, spec->n_layers, &j->err);
}

/* Of the 64 threads that all pools of this process share so many may be in a freeze, which ends
 * when its file system has written out what it has: the others are for the growths and restarts
 * that this may wait for. */
#define FREEZES_MAX 16

static int hold(const struct node_task *t, struct error *err)
{
    static atomic_int freezes;
    bool one_more = t->freeze && atomic_fetch_add(&freezes, 1) >= FREEZES_MAX;
    int rc = one_more ? error_set(err, LUNAR_E_FULL,
                                  "no more than %d file systems are frozen at a time", FREEZES_MAX)
                      : stack_hold(t->stack, t->freeze, (int)t->deadline_ms, err);

    if (t->freeze)
        atomic_fetch_sub(&freezes, 1);
    return rc;
}

static void task_run(uv_work_t *work)
{
    struct task_job *j = work->data;
    struct node_task *t = j->task;
    const struct stack_life life = {j->a->run_dir, j->self.host_id, j->self.generation};

    switch (t->kind) {
    case NODE_TASK_ATTACH:
        j->rc = check_granted(j);
        if (j->rc == 0)
            j->rc = stack_attach(j->a->root, &life, t->spec, &t->stack, &j->err);
        break;
    case NODE_TASK_FORMAT:
        j->rc = check_granted(j);
        if (j->rc == 0)
            j->rc = stack_format(j->a->root, &life, t->spec, &j->err);
        break;
    case NODE_TASK_DETACH:
        j->rc = stack_detach(j->a->root, t->stack, &j->err);
        break;
    case NODE_TASK_RESTART:
        j->rc = restart(j, &life);
        break;
    case NODE_TASK_OVERLAY:
    case NODE_TASK_RELINK:
        j->rc = change_chain(j, &life);
        break;
    case NODE_TASK_RESIZE:
        j->rc = check_granted(j);
        if (j->rc == 0)
            j->rc = stack_resize(j->a->root, &life, t->stack, t->spec, &j->err);
        break;
    case NODE_TASK_GROW:
        j->rc = grant_check_term(j->a->fd, &j->a->sb, t->term, &j->err);
        if (j->rc == 0)
            j->rc = stack_grow(j->a->root, &life, t->stack, t->layer, &j->err);
        break;
    case NODE_TASK_MERGE:
        j->rc = check_granted(j);
        if (j->rc == 0)
            j->rc = stack_merge(j->a->root, &life, t->spec, t->job, &j->err);
        break;
    case NODE_TASK_ZERO:
        j->rc = check_granted(j);
        if (j->rc == 0)
            j->rc = stack_zero_behind(&life, t->spec, &j->err);
        break;
    case NODE_TASK_HOLD:
        j->rc = hold(t, &j->err);
        break;
    case NODE_TASK_UNHOLD:
        j->rc = stack_unhold(t->stack, &j->err);
        if (j->rc < 0)
            usleep(AGENT_RESTART_RETRY_MS * 1000);
        break;
    case NODE_TASK_MEASURE:
        j->rc = check_granted(j);
        if (j->rc == 0)
            j->rc = stack_measure(&life, t->spec, &t->end, &j->err);
        break;
    case NODE_TASK_TEARDOWN:
        j->rc =
            stack_teardown(j->a->root, &t->spec->pool_id, &t->spec->attachment_id, NULL, &j->err);
        break;
    }
}

static void task_done(uv_work_t *work, int status)
{
    static const char *const names[] = {
        [NODE_TASK_ATTACH] = "attach",     [NODE_TASK_DETACH] = "detach",
        [NODE_TASK_FORMAT] = "format",     [NODE_TASK_RESTART] = "restart",
        [NODE_TASK_TEARDOWN] = "teardown", [NODE_TASK_OVERLAY] = "overlay",
        [NODE_TASK_RESIZE] = "resize",     [NODE_TASK_GROW] = "grow",
        [NODE_TASK_MERGE] = "merge",       [NODE_TASK_ZERO] = "zero",
        [NODE_TASK_HOLD] = "hold",         [NODE_TASK_UNHOLD] = "unhold",
        [NODE_TASK_MEASURE] = "measure",   [NODE_TASK_RELINK] = "relink",
    };
    struct task_job *j = work->data;
    char id[UUID_TEXT_SIZE];

    assert(status == 0); /* never cancelled */
    log_info("task kind=%s volume=%s code=%s%s%s%s", names[j->task->kind],
             uuid_format(&j->task->spec->volume_id, id), j->rc < 0 ? error_name(j->rc) : "OK",
             j->rc < 0 ? " text=\"" : "", j->rc < 0 ? j->err.text : "", j->rc < 0 ? "\"" : "");
    node_task_done(j->a->node, j->task, j->rc, &j->err);
    agent_fence_advance(j->a);
    free(j);
}

static void run_task(struct agent *a, struct node_task *task)
{
    struct task_job *j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->a = a;
    j->task = task;
    j->self = a->join.self;
    j->work.data = j;
    if (uv_queue_work(a->loop, &j->work, task_run, task_done) != 0)
        abort();
}

static void io_run(void *data, struct node_task *task)
{
    if (task->kind == NODE_TASK_GROW)
        agent_space_run(data, task, run_task);
    else
        run_task(data, task);
}

/* --- messages --- */

static int io_send(void *data, const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    return a->mailbox ? mailbox_send(a->mailbox, bytes, len) : LUNAR_E_NOT_JOINED;
}

static void io_respond(void *data, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    local_send(a->local, client, bytes, len);
}

static void io_waiting(void *data, bool waiting)
{
    struct agent *a = data;
    if (a->mailbox)
        mailbox_set_waiting(a->mailbox, waiting);
}

/* --- QSD exits --- */

struct watch {
    LIST_ENTRY(watch) link;
    struct agent *a;
    struct stack *stack;
    uv_poll_t poll;
};

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void unwatch(struct watch *w)
{
    LIST_REMOVE(w, link);
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

static void on_qsd_exit(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    struct agent *a = w->a;
    struct stack *stack = w->stack;
    (void)status;
    (void)events;
    unwatch(w);
    node_qsd_exited(a->node, stack);
}

static void io_watch(void *data, struct stack *stack, bool on)
{
    struct agent *a = data;
    struct watch *w;

    LIST_FOREACH(w, &a->watches, link)
    if (w->stack == stack)
        break;
    if (w)
        unwatch(w);
    if (!on || stack->qsd.pid == 0 || stack->qsd.pidfd < 0)
        return;
    w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->a = a;
    w->stack = stack;
    w->poll.data = w;
    if (uv_poll_init(a->loop, &w->poll, stack->qsd.pidfd) != 0 ||
        uv_poll_start(&w->poll, UV_READABLE, on_qsd_exit) != 0)
        abort();
    LIST_INSERT_HEAD(&a->watches, w, link);
}

static void io_space(void *data, struct stack *stack, uint64_t volume_short, uint32_t index,
                     uint64_t threshold)
{
    agent_space(data, stack, volume_short, index, threshold);
}

const struct node_io agent_io = {
    .write_report = io_write_report,
    .run = io_run,
    .send = io_send,
    .respond = io_respond,
    .watch = io_watch,
    .waiting = io_waiting,
    .inspect = inspect_command,
    .probe = probe_command,
    .space = io_space,
};
