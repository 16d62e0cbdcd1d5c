/* SPDX-License-Identifier: Apache-2.0 */
/* A node with one open volume that is changed in use, for its tests: reports, tasks and results end
 * when a test says so. Included by each test file, so everything is static inline. */
#ifndef LUNAR_TESTS_SUPPORT_CHANGE_WORLD_H
#define LUNAR_TESTS_SUPPORT_CHANGE_WORLD_H

#include <assert.h>
#include <stdlib.h>

#include "agent/node.h"
#include "agent/stack_internal.h"
#include "support/test.h"

#define TERM   5u
#define SHORT  0x1234u
#define N_TASK 4

static struct {
    struct node *node;
    uint64_t report_token;
    int n_reports;
    struct table_entry entry; /* the report's only one */
    struct node_task *tasks[N_TASK];
    int n_tasks;
    int n_results, code;
    struct uuid hold; /* of the last result that told one */
    uint64_t now;
    int watched;
    struct uuid volume, attachment;
} w;

static inline void io_write_report(void *data, uint64_t token, const struct table *report)
{
    (void)data;
    w.report_token = token;
    w.n_reports++;
    memset(&w.entry, 0, sizeof w.entry);
    if (report->n_entries)
        w.entry = report->entries[0];
}

static inline void io_run(void *data, struct node_task *task)
{
    (void)data;
    assert(w.n_tasks < N_TASK);
    w.tasks[w.n_tasks++] = task;
}

static inline int io_send(void *data, const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *e;
    (void)data;
    int rc = envelope_unpack(bytes, len, &e, NULL);
    assert(rc == 0 && e->body_case == LUNAR__ENVELOPE__BODY_RESULT);
    w.n_results++;
    w.code = e->result->error ? e->result->error->code : 0;
    if (e->result->hold.len > 0)
        w.hold = uuid_from_pb(e->result->hold);
    envelope_free(e);
    return 0;
}

static inline void io_respond(void *data, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    (void)client;
    (void)bytes;
    (void)len;
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
    (void)waiting;
}

static const struct node_io fake_io = {.write_report = io_write_report,
                                       .run = io_run,
                                       .send = io_send,
                                       .respond = io_respond,
                                       .watch = io_watch,
                                       .waiting = io_waiting};

static inline struct stack *new_stack(const struct stack_spec *spec)
{
    struct stack *stack = calloc(1, sizeof *stack);
    assert(stack);
    stack_spec_copy(&stack->spec, spec);
    stack->qsd.pidfd = -1;
    strcpy(stack->link, "/dev/lunar/test/disk");
    return stack;
}

static inline void report_ends(int rc)
{
    struct error err = ERROR_INIT;
    error_set(&err, rc, "the report fails");
    node_report_done(w.node, w.report_token, rc, &err);
}

static inline void task_ends(int rc)
{
    struct node_task *task = w.tasks[0];
    struct error err = ERROR_INIT;

    memmove(w.tasks, w.tasks + 1, (size_t)--w.n_tasks * sizeof *w.tasks);
    error_set(&err, rc, "the task fails");
    if (rc == 0 && task->kind == NODE_TASK_ATTACH)
        task->stack = new_stack(task->spec);
    else if (rc == 0 && task->kind == NODE_TASK_DETACH)
        stack_free(task->stack);
    node_task_done(w.node, task, rc, &err);
}

/* A chain of n layers, the leaf with the highest index, as messages. */
struct chain {
    Lunar__Layer layers[8], *layer_pointers[8];
    Lunar__Segment segments[8], *segment_pointers[8];
};

static inline void make_chain(struct chain *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        lunar__segment__init(&c->segments[i]);
        c->segments[i].start = (1 + i) * MIB;
        c->segments[i].length = MIB;
        c->segment_pointers[i] = &c->segments[i];
        lunar__layer__init(&c->layers[i]);
        c->layers[i].volume_short = SHORT;
        c->layers[i].index = n - 1 - i;
        c->layers[i].map_generation = 1;
        c->layers[i].n_segments = 1;
        c->layers[i].segments = &c->segment_pointers[i];
        c->layer_pointers[i] = &c->layers[i];
    }
}

static inline void command_with_id(Lunar__Command *c, const struct uuid *id)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    c->id = uuid_to_pb(id);
    e.body_case = LUNAR__ENVELOPE__BODY_COMMAND;
    e.command = c;
    node_message(w.node, TERM, &e);
}

static inline void command(Lunar__Command *c)
{
    struct uuid id = uuid_random();
    command_with_id(c, &id);
}

static inline void overlay_with(struct chain *chain, uint32_t n)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Overlay m = LUNAR__OVERLAY__INIT;
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    m.n_layers = n;
    m.layers = chain->layer_pointers;
    c.op_case = LUNAR__COMMAND__OP_OVERLAY;
    c.overlay = &m;
    command(&c);
}

static inline void overlay_under(const struct uuid *hold)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Overlay m = LUNAR__OVERLAY__INIT;
    struct chain chain;
    make_chain(&chain, 2);
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    m.n_layers = 2;
    m.layers = chain.layer_pointers;
    m.hold = uuid_to_pb(hold);
    c.op_case = LUNAR__COMMAND__OP_OVERLAY;
    c.overlay = &m;
    command(&c);
}

static inline struct uuid suspend_with_id(struct uuid id)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Suspend m = LUNAR__SUSPEND__INIT;
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    m.deadline_ms = 5000;
    m.freeze = true;
    c.op_case = LUNAR__COMMAND__OP_SUSPEND;
    c.suspend = &m;
    command_with_id(&c, &id);
    return id;
}

static inline struct uuid suspend(void)
{
    return suspend_with_id(uuid_random());
}

static inline void resume(void)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Resume m = LUNAR__RESUME__INIT;
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    c.op_case = LUNAR__COMMAND__OP_RESUME;
    c.resume = &m;
    command(&c);
}

static inline void time_passes(uint64_t ms)
{
    w.now += ms;
    node_tick(w.node, w.now);
}

static inline void overlay(uint32_t n)
{
    struct chain chain;
    make_chain(&chain, n);
    overlay_with(&chain, n);
}

static inline void resize_with(uint64_t size, uint64_t layer_bytes)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Resize m = LUNAR__RESIZE__INIT;
    struct chain chain;
    make_chain(&chain, 1);
    chain.segments[0].length = layer_bytes;
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    m.size = size;
    m.n_layers = 1;
    m.layers = chain.layer_pointers;
    c.op_case = LUNAR__COMMAND__OP_RESIZE;
    c.resize = &m;
    command(&c);
}

static inline void resize(uint64_t size)
{
    resize_with(size, MIB);
}

static inline void detach(void)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Detach m = LUNAR__DETACH__INIT;
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    c.op_case = LUNAR__COMMAND__OP_DETACH;
    c.detach = &m;
    command(&c);
}

static bool thick;

static inline void attach_command(void)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Attach m = LUNAR__ATTACH__INIT;
    struct chain chain;
    make_chain(&chain, 1);
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    m.name = (char *)(uintptr_t) "disk";
    m.size = MIB;
    m.thick = thick;
    m.n_layers = 1;
    m.layers = chain.layer_pointers;
    c.op_case = LUNAR__COMMAND__OP_ATTACH;
    c.attach = &m;
    command(&c);
}

/* A volume of one layer is open, and nothing was counted yet. */
static inline void begin(void)
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
    w.volume = uuid_random();
    w.attachment = uuid_random();
    w.node = node_new(&config);
    node_start(w.node);
    report_ends(0);
    attach_command();
    report_ends(0);
    task_ends(0);
    report_ends(0);
    w.n_reports = w.n_results = 0;
}

#endif
