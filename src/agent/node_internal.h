/* SPDX-License-Identifier: Apache-2.0 */
/* The node's insides: node.c (events, reports), node_commands.c (attach, detach, format),
 * node_change.c (what is changed in use), node_hold.c (suspensions), node_space.c (growth),
 * node_relay.c (clients), node_fence.c (its end). */
#ifndef LUNAR_AGENT_NODE_INTERNAL_H
#define LUNAR_AGENT_NODE_INTERNAL_H

#include <sys/queue.h>

#include "agent/growth.h"
#include "agent/node.h"

/* What a held volume is waiting for; one step at a time. */
enum held_step {
    HELD_OPENING_REPORT, /* the report with "opening" is being written */
    HELD_OPENING_TASK,   /* the stack is being built, or the layer formatted */
    HELD_OPEN_REPORT,    /* built; the report with "open" is being written */
    HELD_OPEN,           /* nothing: in use */
    HELD_RESTART_TASK,   /* its QSD is being started again */
    HELD_STUCK, /* nothing: half-built or half torn down, reported as closing; a detach goes on */
    HELD_CLOSING_REPORT,
    HELD_CLOSING_TASK,
    HELD_GONE_REPORT, /* torn down; the report without it is being written */
};

enum change_step {
    CHANGE_NONE,
    CHANGE_REPORT, /* the report that names the new chain is being written */
    CHANGE_TASK,   /* the stack is being changed */
};

/* Of an open volume, beside its step; node_change.c's. */
struct change {
    enum change_step step;
    enum node_task_kind kind;
    struct uuid command_id; /* the newest that wants an answer */
    uint64_t token, term;
    struct stack_spec spec; /* as it is to be; kept after a failure, for it may stand */
    struct uuid hold;       /* that must stand until it is done; zero: none */
    struct node_task task;
};

enum hold_step {
    HOLD_NONE,
    HOLD_BEGINS, /* the device is being suspended */
    HOLD_STANDS,
    HOLD_ENDS, /* it is being resumed */
};

/* Of an open volume's device; node_hold.c's. */
struct hold {
    enum hold_step step;
    struct uuid id;         /* another one for each */
    struct uuid command_id; /* that began it */
    uint64_t token, term;
    uint64_t until_ms;
    bool end_wanted; /* while it begins */
    struct node_task task;
};

/* Of the leaf of an open volume; node_space.c's. */
struct space {
    uint64_t volume_short;
    uint32_t index, map_generation;
    struct growth growth;
    bool leaf_changed; /* while a task was out */
    bool wanted;       /* to be asked for when nothing is under way */
    uint8_t *ask;      /* the request that waits for its answer; NULL: none */
    uint32_t ask_len;
    struct uuid ask_id;
    bool sent; /* to the coordinator of now */
    uint64_t asked_ms, retry_ms;
    uint32_t failures;
    struct stack_layer *grown; /* answered; not in the kernel yet */
    uint64_t term;             /* of the coordinator that answered it */
    uint64_t token;            /* of the task that is out; 0: none */
    struct node_task task;
};

struct held {
    TAILQ_ENTRY(held) link;
    enum held_step step;
    struct uuid volume_id, attachment_id;
    struct uuid command_id; /* the newest command that wants an answer; zero: none */
    enum table_mode mode;
    uint64_t term; /* under which it was opened */
    uint64_t token;
    struct stack_spec spec;
    struct stack *stack;
    struct node_task task;
    struct error error; /* of an opening that failed, told after the report */
    bool qsd_exited;    /* while a task was running */
    bool close_wanted; /* a detach came while its QSD was being restarted, it grew or was changed */
    struct change change;
    struct hold hold;
    struct space space;
    enum node_task_kind job_kind; /* of a job */
    struct qsd_job job;           /* a merge's order and progress */
    uint64_t told_ms;             /* its progress */
    bool may_stand;               /* a job: an attempt before this one may have left its map */
};

/* The LUNs that a message names beside the first one. */
struct named_pvs {
    Lunar__Pv *const *list;
    size_t n;
};

struct pending {
    TAILQ_ENTRY(pending) link;
    struct uuid id;
    uint64_t client;
    uint8_t *bytes;
    uint32_t len;
    bool sent; /* to the coordinator of now */
};

TAILQ_HEAD(held_list, held);
TAILQ_HEAD(pending_list, pending);

struct node {
    struct uuid pool_id;
    char pool_name[64], device[256], name[PAGE_NAME_SIZE];
    struct incarnation self;
    const struct node_io *io;
    void *data;
    struct held_list held;
    struct pending_list pending;
    /* Commands stop at TABLE_ENTRIES_MAX: what the report cannot name must not be opened (SAFETY
     * 2).
     */
    uint32_t n_held;
    uint32_t n_pending;
    uint64_t next_token, report_seq, term_seen;
    uint64_t now_ms; /* of the last event that told the time */
    bool waiting;    /* as told outside */
    bool leaving;
    bool fenced; /* nothing is acted upon any more */
    uint32_t tasks_out;
    bool report_failed;     /* the LUN's report may be behind what is true: written again before the
                               next answer */
    uint64_t report_wanted; /* failed: a report of this token or a later one makes up for it. Those
                               before were queued when what failed was still held, and name it */
    uint32_t reports_out;
};

/* node.c: writes the report of all held entries; returns the token. */
uint64_t node_write_report(struct node *n);
/* node_commands.c */
void held_command(struct node *n, uint64_t term, const Lunar__Command *command);
void held_report_done(struct node *n, struct held *h, int rc, const struct error *err);
void held_task_done(struct node *n, struct held *h, int rc, const struct error *err);
void held_free(struct node *n, struct held *h);
void held_start_restart(struct node *n, struct held *h);
/* A task beside the volume's step has ended: what waited for that. */
void held_go_on(struct node *n, struct held *h);
void held_send_result(struct node *n, const struct uuid *command_id, int code, const char *words,
                      const char *device);
/* Of a merge that copies; else nothing. */
void held_send_progress(struct node *n, const struct held *h);
void held_send_hold(struct node *n, const struct uuid *command_id, const struct uuid *hold);
/* LUNAR_E_NOT_FOUND, LUNAR_E_BUSY: not a volume that is open and stays so. */
int held_check_open(const struct node *n, const struct held *h, struct error *err);
int held_take_layer(const Lunar__Layer *m, const struct named_pvs *pvs, struct stack_layer *layer,
                    struct error *err);
struct held *held_by_attachment(struct node *n, const struct uuid *id);
/* node_change.c */
void change_command(struct node *n, uint64_t term, const struct uuid *command_id,
                    const Lunar__Command *command);
void change_report_done(struct node *n, struct held *h, int rc, const struct error *err);
void change_task_done(struct node *n, struct held *h, int rc, const struct error *err);
bool change_runs(const struct held *h);
const struct stack_spec *change_reported(const struct held *h);
void change_free(struct held *h);
/* node_hold.c */
void hold_command(struct node *n, const struct uuid *command_id, const Lunar__Suspend *m);
void hold_resume_command(struct node *n, const struct uuid *command_id, const Lunar__Resume *m);
/* From before the device is suspended until after it is resumed. */
bool hold_runs(const struct held *h);
bool hold_freezes(const struct held *h); /* that has begun, and cannot be interrupted */
bool hold_stands(const struct held *h, const struct uuid *id);
void hold_end(struct node *n, struct held *h); /* if it stands */
void hold_task_done(struct node *n, struct held *h, int rc, const struct error *err);
void hold_tick(struct node *n, struct held *h);
/* Its daemon's exit, and its writes' coming to an end. */
void held_watch(struct node *n, struct held *h, bool on);
/* node_space.c: from when the stack stands until it is taken down */
void space_begin(struct node *n, struct held *h);
void space_end(struct held *h);
/* A change has ended: another layer may be the leaf, and what was under way for the former one of
 * no use. */
void space_leaf(struct node *n, struct held *h);
/* Something has changed that it may have waited for. */
void space_advance(struct node *n, struct held *h);
void space_send(struct node *n, bool again); /* asks that are not sent yet; `again`: all of them */
bool space_asks(const struct node *n);       /* is an answer awaited that may come soon? */
/* False: it is not one of growth. */
bool space_answer(struct node *n, const struct uuid *id, const Lunar__Response *response);
/* Writes may be waiting for it: what drains the disk would wait for them, and hold up the rest. */
bool space_is_awaited(const struct held *h);
bool space_task_done(struct node *n, struct node_task *task, int rc);
/* node_relay.c */
void relay_answer(struct node *n, const Lunar__Envelope *envelope);
/* Answers all that wait with this error and forgets them. */
void relay_refuse_all(struct node *n, int code, const char *words);
void relay_set_waiting(struct node *n);
/* node_fence.c: a task of a node that is fenced has ended; what it had or made is the node's to
 * free. */
void held_task_ended(struct held *h, const struct node_task *task, int rc);

#endif
