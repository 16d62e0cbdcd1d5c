/* SPDX-License-Identifier: Apache-2.0 */
/* The pure node's outside, played for its tests: what it asks for is kept in `w`, what it is told
 * is one call each. */
#ifndef LUNAR_TESTS_NODE_WORLD_H
#define LUNAR_TESTS_NODE_WORLD_H

#include "agent/node.h"

#include <assert.h>
#include <stdlib.h>

#include "support/test.h"

#define TAIL (66ull << 40)
static uint64_t max_size; /* of the layers that are attached */

static struct {
    struct node *node;
    uint64_t report_token;
    int n_reports, report_entries;
    enum table_state report_state; /* of the first entry */
    struct node_task *task;        /* the newest, not done yet */
    int n_tasks;
    int n_results, code;
    int n_progress;
    struct uuid progress_id;
    uint64_t progress_done, progress_total;
    char device[64];
    uint64_t end;
    int n_sent, n_responses, send_rc, response_code;
    bool waiting;
    int watched;
    struct stack *stack; /* the newest that was attached */
    /* growth */
    struct node_task *grow; /* not done yet */
    int n_grows, n_asks;
    uint64_t asked, threshold;
    uint32_t asked_index;
    struct uuid ask_id;
} w;

static inline void io_write_report(void *data, uint64_t token, const struct table *report)
{
    (void)data;
    w.report_token = token;
    w.n_reports++;
    w.report_entries = (int)report->n_entries;
    w.report_state = report->n_entries ? report->entries[0].state : 0;
}

static inline void io_run(void *data, struct node_task *task)
{
    (void)data;
    if (task->kind == NODE_TASK_GROW) {
        w.grow = task;
        w.n_grows++;
        return;
    }
    w.task = task;
    w.n_tasks++;
}

static inline int io_send(void *data, const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *e;
    (void)data;
    if (w.send_rc < 0)
        return w.send_rc;
    int rc = envelope_unpack(bytes, len, &e, NULL);
    assert(rc == 0);
    if (e->body_case == LUNAR__ENVELOPE__BODY_RESULT) {
        w.n_results++;
        w.code = e->result->error ? e->result->error->code : 0;
        snprintf(w.device, sizeof w.device, "%s", e->result->device);
        w.end = e->result->end;
    } else if (e->body_case == LUNAR__ENVELOPE__BODY_PROGRESS) {
        w.n_progress++;
        w.progress_id = uuid_from_pb(e->progress->id);
        w.progress_done = e->progress->done;
        w.progress_total = e->progress->total;
    } else if (e->request->op_case == LUNAR__REQUEST__OP_LAYER_GROW) {
        w.n_asks++;
        w.ask_id = uuid_from_pb(e->request->id);
        w.asked = e->request->layer_grow->size;
        w.asked_index = e->request->layer_grow->index;
    } else {
        w.n_sent++;
    }
    envelope_free(e);
    return 0;
}

static inline void io_respond(void *data, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *e;
    (void)data;
    (void)client;
    int rc = envelope_unpack(bytes, len, &e, NULL);
    assert(rc == 0);
    w.response_code = e->response->error ? e->response->error->code : 0;
    envelope_free(e);
    w.n_responses++;
}

static inline void io_watch(void *data, struct stack *stack, bool on)
{
    (void)data;
    (void)stack;
    w.watched += on ? 1 : -1;
}

static inline void io_waiting(void *data, bool waiting)
{
    (void)data;
    w.waiting = waiting;
}

static inline void io_space(void *data, struct stack *stack, uint64_t volume_short, uint32_t index,
                            uint64_t threshold)
{
    (void)data;
    (void)stack;
    (void)volume_short;
    (void)index;
    w.threshold = threshold;
}

static const struct node_io fake_io = {.write_report = io_write_report,
                                       .run = io_run,
                                       .send = io_send,
                                       .respond = io_respond,
                                       .watch = io_watch,
                                       .waiting = io_waiting,
                                       .space = io_space};

static inline void reset(void)
{
    struct node_config config = {.pool_id = uuid_random(),
                                 .pool_name = "test",
                                 .device = "/dev/lun",
                                 .node_name = "node1",
                                 .self = {1, 1, 1},
                                 .io = &fake_io};
    if (w.node)
        node_free(w.node);
    memset(&w, 0, sizeof w);
    max_size = 0;
    w.node = node_new(&config);
    node_start(w.node);
    node_report_done(w.node, w.report_token, 0, NULL);
    w.n_reports = 0;
}

struct ids {
    struct uuid volume, attachment;
};

static inline struct ids new_ids(void)
{
    struct ids ids = {uuid_random(), uuid_random()};
    return ids;
}

static inline void command(Lunar__Command *c)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct uuid id = uuid_random();
    c->id = uuid_to_pb(&id);
    e.body_case = LUNAR__ENVELOPE__BODY_COMMAND;
    e.command = c;
    node_message(w.node, 5, &e);
}

/* The LUN that segments lie on, and the one that commands name; 0: none. */
static uint32_t segment_pv, named_pv;

static inline void attach_with_map(const struct ids *ids, uint32_t map_generation,
                                   uint64_t segment_length)
{
    Lunar__Pv pv = LUNAR__PV__INIT, *pvs = &pv;
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Attach m = LUNAR__ATTACH__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT, *layers = &layer;
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;

    segment.start = 1 << 20;
    segment.length = segment_length;
    segment.pv = segment_pv;
    pv.index = named_pv;
    pv.uuid = (char *)(uintptr_t) "LUNAR1-bbbb-cccc-dddd-eeee-ffff-000009";
    m.pvs = &pvs;
    m.n_pvs = named_pv ? 1 : 0;
    layer.map_generation = map_generation;
    layer.max_size = max_size;
    layer.n_segments = 1;
    layer.segments = &segments;
    m.volume_id = uuid_to_pb(&ids->volume);
    m.attachment_id = uuid_to_pb(&ids->attachment);
    m.name = (char *)(uintptr_t) "disk";
    m.size = max_size ? 1ull << 40 : 1 << 20;
    m.n_layers = 1;
    m.layers = &layers;
    c.op_case = LUNAR__COMMAND__OP_ATTACH;
    c.attach = &m;
    command(&c);
}

static inline void attach(const struct ids *ids)
{
    attach_with_map(ids, 1, 1 << 20);
}

static inline void detach(const struct ids *ids)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Detach m = LUNAR__DETACH__INIT;
    m.volume_id = uuid_to_pb(&ids->volume);
    m.attachment_id = uuid_to_pb(&ids->attachment);
    c.op_case = LUNAR__COMMAND__OP_DETACH;
    c.detach = &m;
    command(&c);
}

static inline void report_ok(void)
{
    node_report_done(w.node, w.report_token, 0, NULL);
}

static inline void task_ends(int rc)
{
    struct node_task *task = w.task;
    struct error err = ERROR_INIT;
    error_set(&err, rc, "the task fails");
    if (rc == 0 && task->kind == NODE_TASK_ATTACH) {
        task->stack = calloc(1, sizeof *task->stack);
        task->stack->qsd.pidfd = -1;
        w.stack = task->stack;
        strcpy(task->stack->link, "/dev/lunar/test/disk");
    } else if (rc == 0 && task->kind == NODE_TASK_DETACH) {
        stack_free(task->stack);
    }
    w.task = NULL;
    node_task_done(w.node, task, rc, &err);
}

static inline void attached(const struct ids *ids)
{
    attach(ids);
    report_ok();
    task_ends(0);
    report_ok();
}

#endif
