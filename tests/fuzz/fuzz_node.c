/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's node against a hostile coordinator and hostile clients: the input is a script of
 * commands, responses, requests, raw messages and outcomes of what the node asked its outside for
 * (reports, tasks), with daemons that exit and clients that hang up in between. Messages are made
 * by fuzz/pb_writer.h and go the way of the daemon: envelope_unpack, then node_message.
 *
 * What must hold beyond "no assert is reachable": an attach or a format is begun only after a
 * report that names it has been written without an error (SAFETY 2); of one attachment there is one
 * task at a time; what was given out is in the newest report until it was taken down; everything
 * that the node sends passes envelope_unpack on the other side; memory is given back.
 */
#include "agent/node.h"
#include "fuzz/fuzz.h"
#include "fuzz/pb_writer.h"

#define REPORTS_MAX 64u
#define TASKS_MAX   64u
#define NAMED_MAX   TABLE_ENTRIES_MAX

struct report {
    uint64_t token;
    uint32_t n;
    struct uuid named[NAMED_MAX];
};

static struct {
    struct node *node;
    uint64_t term;
    struct report reports[REPORTS_MAX], landed; /* out, oldest first; the last that was written */
    uint32_t n_reports;
    struct node_task *tasks[TASKS_MAX];
    uint32_t n_tasks;
    int send_rc;
    bool waiting;
    struct stack *watched[TASKS_MAX]; /* whose daemons' exits the node wants to know */
    uint32_t n_watched;
    struct uuid last_request;
} w;

static struct feed *input;
static uint8_t wire[FRAME_MAX];

static bool names(const struct report *r, const struct uuid *id)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (uuid_equal(&r->named[i], id))
            return true;
    return false;
}

/* --- the outside --- */

static void io_write_report(void *data, uint64_t token, const struct table *report)
{
    (void)data;
    MUST(w.n_reports < REPORTS_MAX, "reports are bounded by what is open");
    struct report *r = &w.reports[w.n_reports++];
    r->token = token;
    r->n = report->n_entries;
    for (uint32_t i = 0; i < r->n; i++)
        r->named[i] = report->entries[i].attachment_id;
}

static void io_run(void *data, struct node_task *task)
{
    (void)data;
    const struct uuid *id = &task->spec->attachment_id;
    for (uint32_t i = 0; i < w.n_tasks; i++)
        MUST(!uuid_equal(&w.tasks[i]->spec->attachment_id, id), "one task of an attachment");
    if (task->kind == NODE_TASK_ATTACH || task->kind == NODE_TASK_FORMAT)
        MUST(names(&w.landed, id), "nothing is opened that the LUN's report does not name");
    MUST(w.n_tasks < TASKS_MAX, "tasks are bounded by what is open");
    w.tasks[w.n_tasks++] = task;
}

static void check_message(const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *e;
    struct error err = ERROR_INIT;
    int rc = envelope_unpack(bytes, len, &e, &err);
    MUST(rc == 0, "what it sends is accepted");
    envelope_free(e);
}

static int io_send(void *data, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    MUST(len <= MESSAGE_MAX, "it fits a spill slot");
    check_message(bytes, len);
    return w.send_rc;
}

static void io_respond(void *data, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    (void)client;
    check_message(bytes, len);
}

static bool unwatch(const struct stack *stack)
{
    for (uint32_t i = 0; i < w.n_watched; i++)
        if (w.watched[i] == stack) {
            w.watched[i] = w.watched[--w.n_watched];
            return true;
        }
    return false;
}

static void io_watch(void *data, struct stack *stack, bool on)
{
    (void)data;
    unwatch(stack);
    MUST(stack->qsd.pidfd == -1, "a stack that stands");
    MUST(w.n_watched < TASKS_MAX, "stacks are bounded by what is open");
    if (on)
        w.watched[w.n_watched++] = stack;
}

static void io_waiting(void *data, bool waiting)
{
    (void)data;
    MUST(waiting != w.waiting, "it is told when that changes");
    w.waiting = waiting;
}

static const struct node_io fake_io = {.write_report = io_write_report,
                                       .run = io_run,
                                       .send = io_send,
                                       .respond = io_respond,
                                       .watch = io_watch,
                                       .waiting = io_waiting};

/* --- answers of the outside --- */

static void report_done(int rc)
{
    struct error err = ERROR_INIT;
    if (w.n_reports == 0)
        return;
    static struct report r;
    r = w.reports[0];
    memmove(w.reports, w.reports + 1, --w.n_reports * sizeof *w.reports);
    if (rc == 0)
        w.landed = r;
    error_set(&err, rc, "the LUN says no");
    node_report_done(w.node, r.token, rc, &err);
}

static void task_done(uint32_t which, int rc)
{
    struct error err = ERROR_INIT;
    if (w.n_tasks == 0)
        return;
    which %= w.n_tasks;
    struct node_task *task = w.tasks[which];
    w.tasks[which] = w.tasks[--w.n_tasks];
    error_set(&err, rc, "the task fails");
    if (rc == 0 && task->kind == NODE_TASK_ATTACH) {
        task->stack = calloc(1, sizeof *task->stack);
        if (!task->stack)
            abort();
        task->stack->qsd.pidfd = -1;
        stack_spec_copy(&task->stack->spec, task->spec);
        strcpy(task->stack->link, "/dev/lunar/test/disk");
    } else if (rc == 0 && task->kind == NODE_TASK_DETACH) {
        MUST(!unwatch(task->stack), "what goes away is not watched");
        stack_free(task->stack);
    }
    node_task_done(w.node, task, rc, &err);
}

/* Stacks that stand: those of the held volumes that are open. */
struct find {
    uint32_t skip;
    struct uuid found;
    bool any;
};

static void find_attachment(void *data, const struct node_volume *v)
{
    struct find *f = data;
    if (!f->any || f->skip > 0) {
        f->found = v->attachment_id;
        f->skip -= f->any && f->skip > 0;
        f->any = true;
    }
}

static struct uuid world_id(const char *field, uint8_t which)
{
    struct find f = {.skip = which % 4u};
    if (strcmp(field, "id") == 0)
        return which < 128 ? w.last_request : fuzz_uuid(which);
    if (which < 64 && strcmp(field, "attachment_id") == 0) {
        node_each(w.node, find_attachment, &f);
        if (f.any)
            return f.found;
    }
    return fuzz_uuid(2000u + which % 8u);
}

static void deliver(const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *e;
    if (envelope_unpack(bytes, len, &e, NULL) < 0)
        return;
    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST) {
        w.last_request = uuid_from_pb(e->request->id);
        node_request(w.node, feed_u8(input) % 4u, e);
    } else {
        node_message(w.node, w.term, e);
    }
    envelope_free(e);
}

static void message(const char *body)
{
    struct pb_writer pb = {.bytes = wire, .room = sizeof wire, .feed = input, .id = world_id};
    pb_write_body(&pb, &lunar__envelope__descriptor, body);
    deliver(wire, pb.len);
}

/* A sound attach or format of few ids, so that scripts get far. */
static void plain_open(uint8_t how)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Attach m = LUNAR__ATTACH__INIT;
    Lunar__FormatJob job = LUNAR__FORMAT_JOB__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT, *layers = &layer;
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;
    struct uuid volume = fuzz_uuid(how % 4u ^ (how >> 5 & 1)),
                attachment = fuzz_uuid(3000u + how % 4u);
    struct uuid command = fuzz_uuid(4000u + how);

    segment.length = segment.start = 1u << 20;
    layer.n_segments = 1;
    layer.segments = &segments;
    layer.map_generation = how >> 6;
    job.layer = &layer;
    m.layers = &layers;
    m.n_layers = 1;
    m.volume_id = job.volume_id = uuid_to_pb(&volume);
    m.attachment_id = job.attachment_id = uuid_to_pb(&attachment);
    m.name = job.name = (char *)(uintptr_t) "disk";
    m.size = job.size = 1u << 20;
    c.id = uuid_to_pb(&command);
    c.op_case = how & 16 ? LUNAR__COMMAND__OP_FORMAT_JOB : LUNAR__COMMAND__OP_ATTACH;
    if (how & 16)
        c.format_job = &job;
    else
        c.attach = &m;
    e.body_case = LUNAR__ENVELOPE__BODY_COMMAND;
    e.command = &c;
    node_message(w.node, w.term, &e);
}

static void plain_detach(uint8_t how)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Detach m = LUNAR__DETACH__INIT;
    struct uuid attachment = fuzz_uuid(3000u + how % 4u), command = fuzz_uuid(5000u + how);

    m.attachment_id = uuid_to_pb(&attachment);
    c.id = uuid_to_pb(&command);
    c.op_case = LUNAR__COMMAND__OP_DETACH;
    c.detach = &m;
    e.body_case = LUNAR__ENVELOPE__BODY_COMMAND;
    e.command = &c;
    node_message(w.node, w.term, &e);
}

static int any_code(void)
{
    static const int codes[] = {
        0, -5, LUNAR_E_INDETERMINATE, LUNAR_E_IN_USE, LUNAR_E_STALE, LUNAR_E_EXISTS};
    uint8_t which = feed_u8(input);
    return codes[which % 2 ? 0 : which / 2 % 6];
}

/* As the daemon's watch does: it ends first. */
static void qsd_exits(uint8_t which)
{
    if (w.n_watched == 0)
        return;
    const struct stack *stack = w.watched[which % w.n_watched];
    unwatch(stack);
    node_qsd_exited(w.node, stack);
}

static void one(uint8_t what)
{
    struct error err = ERROR_INIT;

    switch (what % 16) {
    case 0:
        message("command");
        break;
    case 1:
        message("response");
        break;
    case 2:
        message("request");
        break;
    case 3:
        message("result");
        break;
    case 4:
    case 5:
        report_done(any_code());
        break;
    case 6:
    case 7:
        task_done(what >> 4, any_code());
        break;
    case 8:
    case 9:
        plain_open(feed_u8(input));
        break;
    case 10:
    case 11:
        plain_detach(feed_u8(input));
        break;
    case 12:
        w.term += what >> 6;
        node_coordinator_changed(w.node);
        break;
    case 13:
        w.send_rc = what & 16 ? LUNAR_E_FULL : 0;
        node_client_gone(w.node, what >> 5 & 3);
        break;
    case 14:
        qsd_exits(what >> 4);
        break;
    default:
        if (what & 16)
            node_unset_leaving(w.node);
        else
            (void)node_set_leaving(w.node, &err);
    }
}

/* What a former run of the agent left: a stack whose daemon died, or a thick one. */
static void adopt(bool thick)
{
    struct stack *stack = calloc(1, sizeof *stack);
    if (!stack)
        abort();
    stack->qsd.pidfd = -1;
    stack->spec.thick = thick;
    stack->spec.pool_id = fuzz_pool;
    stack->spec.volume_id = fuzz_uuid(0);
    stack->spec.attachment_id = fuzz_uuid(3000);
    stack->spec.layers = calloc(1, sizeof *stack->spec.layers);
    stack->spec.n_layers = 1;
    strcpy(stack->spec.name, "disk");
    strcpy(stack->link, "/dev/lunar/test/disk");
    node_adopt(w.node, stack);
}

/* Everything asked for is answered once, as the outside promises. */
static void settle(void)
{
    for (int i = 0; i < 1000 && (w.n_reports > 0 || w.n_tasks > 0); i++) {
        report_done(0);
        task_done(0, w.n_tasks > 0 && w.tasks[0]->kind == NODE_TASK_RESTART ? 0 : -5);
    }
    MUST(w.n_reports == 0 && w.n_tasks == 0, "it comes to rest");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    struct node_config config = {.pool_id = fuzz_pool,
                                 .pool_name = "test",
                                 .device = "/dev/lun",
                                 .node_name = "node1",
                                 .self = {1, 1, 1},
                                 .io = &fake_io};
    fuzz_uuid_reset();
    input = &f;
    w.n_reports = w.n_tasks = w.landed.n = w.n_watched = 0;
    w.send_rc = 0;
    w.waiting = false;
    w.term = 5;
    w.node = node_new(&config);
    uint8_t former = feed_u8(&f);
    if (former & 1)
        adopt((former & 2) != 0);
    node_start(w.node);
    while (f.left > 0) {
        one(feed_u8(&f));
        if (w.n_reports > REPORTS_MAX / 2 || w.n_tasks > TASKS_MAX / 2 ||
            w.n_watched > TASKS_MAX / 2)
            settle();
    }
    settle();
    node_free(w.node);
    return 0;
}
