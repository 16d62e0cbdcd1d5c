/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node: what an agent does with commands and clients. Pure: no clock, no I/O, no libuv; the
 * outside is node_io. The daemon (agent_uv.c) and the tests wrap the same object.
 *
 * What is open here stands in `held` entries, and a copy of them on the LUN as the node's report.
 * The order of an attach is SAFETY 2: (1) the report says "opening V under term t" and that write
 * has completed, (2) the task outside reads the coordinator lease's lver and our grant from the LUN
 * and gives up unless both say t, (3) the stack is built.
 */
#ifndef LUNAR_AGENT_NODE_H
#define LUNAR_AGENT_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/stack.h"
#include "base/error.h"
#include "diskrpc/message.h"
#include "diskrpc/table.h"

#define NODE_PENDING_MAX 4096u /* relayed requests that wait for an answer */

enum node_task_kind {
    NODE_TASK_ATTACH,
    NODE_TASK_DETACH,
    NODE_TASK_FORMAT,
    NODE_TASK_RESTART,
    NODE_TASK_TEARDOWN, /* what an attach left half-built and could not take down itself */
    NODE_TASK_OVERLAY,  /* these three beside the open state of a volume */
    NODE_TASK_RESIZE,
    NODE_TASK_RELINK,
    NODE_TASK_GROW, /* and this one beside those three */
    NODE_TASK_MERGE,
    NODE_TASK_ZERO, /* behind a thick volume's size */
    NODE_TASK_HOLD, /* these two beside the open state, too */
    NODE_TASK_UNHOLD,
    NODE_TASK_MEASURE,
};

/* Work for a blocking thread; the node's memory until node_task_done. */
struct node_task {
    enum node_task_kind kind;
    uint64_t token;
    uint64_t term;             /* all that have a spec: under which it was granted; grow: under
                                  which it was answered */
    struct stack_spec *spec;   /* attach, format; overlay, resize, relink: as it is to be */
    struct stack *stack;       /* all others: in; attach: out */
    struct stack_layer *layer; /* grow: the longer map */
    struct qsd_job *job;       /* merge */
    uint32_t deadline_ms;      /* hold */
    bool freeze;               /* hold */
    uint64_t end;              /* measure: out */
    uint64_t threshold;        /* grow: the daemon is told it before, so far as it answers: what it
                                  has begun until then is drained by the growth, or lies behind it */
};

/* Every token is answered exactly once, later, never inline. */
struct node_io {
    void (*write_report)(void *data, uint64_t token, const struct table *report); /* copied */
    void (*run)(void *data, struct node_task *task);
    int (*send)(void *data, const uint8_t *bytes,
                uint32_t len); /* to the coordinator; as mailbox_send */
    void (*respond)(void *data, uint64_t client, const uint8_t *bytes, uint32_t len);
    void (*watch)(void *data, struct stack *stack,
                  bool on);                    /* tell node_qsd_exited about its QSD */
    void (*waiting)(void *data, bool waiting); /* answers are awaited: poll fast */
    /* Looks at what stands here and sends the result itself, later. NULL: it cannot. */
    void (*inspect)(void *data, const struct uuid *command_id);
    /* The same about LUNs of the pool. */
    void (*probe)(void *data, const struct uuid *command_id, const Lunar__ProbePv *m);
    /* From now on node_space_needed is called when writes to this layer of the stack have passed
     * the threshold, or may have: also for what was written before. 0: no more. NULL: it cannot. */
    void (*space)(void *data, struct stack *stack, uint64_t volume_short, uint32_t index,
                  uint64_t threshold);
};

struct node_config {
    struct uuid pool_id;
    const char *pool_name, *device, *node_name;
    struct incarnation self;
    const struct node_io *io;
    void *data;
};

struct node *node_new(const struct node_config *config);
void node_free(struct node *node);

/* Before anything else: a stack of a former run, found again. Taken over. */
void node_adopt(struct node *node, struct stack *stack);
/* Writes the first report; node_report_done follows with token 0. */
void node_start(struct node *node);

/* The report once more, so that what a late write or decay did to it heals: if `due`, or if one
 * could not be written and none that was begun later has been. Nothing while a report is out. */
void node_tend(struct node *node, bool due);

/* From the coordinator of `term`. */
void node_message(struct node *node, uint64_t term, const Lunar__Envelope *envelope);
/* A coordinator of a newer term: pending requests are sent again. */
void node_coordinator_changed(struct node *node);
/* From a local client: bytes are the envelope's. */
void node_request(struct node *node, uint64_t client, const Lunar__Envelope *envelope);
void node_client_gone(struct node *node, uint64_t client);

void node_report_done(struct node *node, uint64_t token, int rc, const struct error *err);
void node_task_done(struct node *node, struct node_task *task, int rc, const struct error *err);
void node_qsd_exited(struct node *node, const struct stack *stack);
/* The stack's leaf needs more space. */
void node_space_needed(struct node *node, const struct stack *stack, uint64_t now_ms);
/* About every second: what failed is tried again. */
void node_tick(struct node *node, uint64_t now_ms);

/* Refuses commands from now on; LUNAR_E_IN_USE with the name of what is open: it does not.
 * LUNAR_E_BUSY: it does, and merges that run here come to their end: ask again. */
int node_set_leaving(struct node *node, struct error *err);
void node_unset_leaving(struct node *node);

/* This life of the node is over: it acts on nothing any more. Who waits for an answer gets FENCED
 * with these words, commands, requests and ended QSDs are ignored or refused, and what is under way
 * outside comes to its end without a next step. For good: another node is made after the next join.
 */
void node_fence(struct node *node, const char *words);
/* What is still under way outside: its tasks; its reports. With neither it may be freed. */
uint32_t node_tasks(const struct node *node);
uint32_t node_reports(const struct node *node);
/* Of its tasks, those that freeze a file system: they may end only once its I/O fails. */
uint32_t node_freezes(const struct node *node);
/* Those whose consumers wait for a snapshot. */
void node_each_suspended(const struct node *node, void (*each)(const struct stack *stack));

/* For status: calls back for each held volume. */
struct node_volume {
    struct uuid volume_id, attachment_id;
    const char *name, *state, *device;
    uint32_t qsd_pid, qsd_restarts;
    uint64_t space, space_asked; /* of a leaf that grows, bytes; asked: 0 is none */
};
void node_each(const struct node *node, void (*each)(void *data, const struct node_volume *v),
               void *data);
/* Whose answers may come any moment. */
uint32_t node_pending(const struct node *node);

#endif
