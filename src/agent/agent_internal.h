/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon around the pure node, shared by its files alone: agent.c (opening), agent_life.c
 * (join, serve, loss), join.c (blocking: everything before the first message), agent_io.c (the
 * node's outside), agent_space.c (when space is needed), agent_local.c (clients), agent_fence.c
 * (self-fencing), agent_leave.c (the clean leave), agent_end.c (its end).
 */
#ifndef LUNAR_AGENT_INTERNAL_H
#define LUNAR_AGENT_INTERNAL_H

#include <sys/queue.h>
#include <uv.h>

#include "agent/agent.h"
#include "agent/node.h"
#include "base/worker.h"
#include "diskrpc/hint.h"
#include "diskrpc/local.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/superblock.h"
#include "diskrpc/uv_disk.h"
#include "fencing/guard.h"
#include "fencing/membership.h"

/* A join that failed is tried again after this long; its reason stands in the status meanwhile. A
 * node that was fenced off is of use again that much later than it could be. */
#define AGENT_JOIN_RETRY_MS 2000
/* A QSD restart that failed is tried again after this long; its volume's I/O waits. */
#define AGENT_RESTART_RETRY_MS 1000
/* Whether the lockspace is still ours: sanlock renews every 2N seconds, N >= 2. */
#define AGENT_CHECK_MS 4000
/* The node's own clock: what failed is tried again, what has been asked for long is. */
#define AGENT_TICK_MS 1000

/* Every so many checks the report is written again (SAFETY 3): 16 s, so both copies within 32 s for
 * a sixteenth of a read and a write a second. After a write that failed, at each check. */
#define AGENT_TEND_CHECKS 4u

#define AGENT_REFUSED_TEXT "the LUN refuses this node's writes: its reservation was preempted"

enum agent_state {
    AGENT_STATE_JOINING,
    AGENT_STATE_JOINED,
    AGENT_STATE_LEAVING,
    AGENT_STATE_LEFT,
    AGENT_STATE_FENCED, /* until all of this life has ended; then it joins again */
};

#define JOIN_STACKS_MAX 512u

/* What join.c brings back from its thread. */
struct join {
    struct membership *membership;
    struct reservation *reservation; /* NULL: the pool has none */
    bool registered;                 /* by this join, rather than by one before it */
    struct guard *guard;
    struct incarnation self;
    uint64_t page_seq;
    struct stack *stacks[JOIN_STACKS_MAX];
    uint32_t n_stacks;
};

/* Self-fencing, and the watch over the guard; agent_fence.c's. */
struct fence {
    char why[GUARD_REASON_SIZE]; /* "" unless fenced or not joined again since */
    bool connected;              /* to the guard: join.guard, guard_poll */
    bool parting;                /* from one that has gone: guard_poll closes */
    bool ending;                 /* whoever is started as the next one is to fence at once */
    bool proven, torn_down, over;
    uint32_t closing; /* handles that have not told their end yet */
    uint64_t began_ms;
    bool busy; /* a job is out: */
    struct worker_job job;
    void (*after)(struct agent *a);
    int rc;
    struct error err;
    char said[sizeof((struct error *)0)->text]; /* why the last try failed, as logged */
};

struct watch;
LIST_HEAD(watch_list, watch);
struct space_watch;
LIST_HEAD(space_list, space_watch);

struct agent {
    uv_loop_t *loop;
    struct superblock sb;
    char device[256], node_name[PAGE_NAME_SIZE], run_dir[200], root[300], socket[300];
    char coordinator_socket[300];
    int fd; /* of the LUN; -1 between a fence and the next join */
    int lock_fd;
    enum agent_state state;
    char trouble[512]; /* why not joined; "" is well */

    struct worker *join_worker, *report_worker;
    struct worker_job join_job, check_job, leave_job;
    bool check_busy;
    uint32_t checks;
    struct worker *reserve_worker, *evict_worker; /* NULL until they are needed */
    struct worker_job reserve_job;
    bool reserve_busy; /* all below it are the job's */
    int reserve_rc;
    struct error reserve_err;
    struct join join;
    struct fence fence;
    uv_timer_t fence_timer;
    uv_poll_t guard_poll;
    struct incarnation tried; /* the last that a join of ours wrote, the joining thread's alone */
    int join_rc, check_rc, leave_rc;
    struct error join_err, check_err, leave_err;
    uv_timer_t timer;
    uv_poll_t sanlock_poll;
    int hangup_fd;

    struct hint_option hint_option;
    struct hint *hint; /* NULL: without */
    struct uv_disk *disk;
    struct mailbox *mailbox;
    struct node *node;
    struct trace *trace; /* of what passes the mailbox; NULL: without */
    struct local_server *local;
    struct watch_list watches;
    struct space_list spaces;
    uv_timer_t tick; /* the node's */
    uint64_t leave_client;
    bool evicting;    /* a leave with volumes: the fence ends in it */
    bool leave_waits; /* for a merge that ends */
    uv_timer_t leave_timer;
    uint64_t leave_deadline_ms;
};

/* join.c: blocking, join thread. */
int join_run(struct agent *a, struct join *ret, struct error *err);
/* Finds or starts the guard of ret->self. Blocking. */
int join_guard(struct agent *a, struct join *ret, struct error *err);
/* Lets go of what a join brought, without leaving or tearing down anything. */
void join_undo(struct join *join);
/* agent_reserve.c: persistent reservations, where the pool has them; nothing elsewhere. All but
 * reserve_tend block. */
int reserve_open(struct agent *a, struct join *j, struct error *err);
/* For membership_config; `data` is the agent. */
int reserve_candidate(void *data, uint32_t host_id, uint64_t generation, struct error *err);
/* LUNAR_E_FENCED: this life was preempted. */
int reserve_joined(struct join *j, struct error *err);
void reserve_close(struct join *j); /* the key stays */
void reserve_leave(struct join *j); /* and this gives it back */
void reserve_tend(struct agent *a); /* at each check */
/* agent_io.c */
extern const struct node_io agent_io;
/* agent_space.c: as node_io.space; and a task of growth, run when its threshold is in force. The
 * simulator has its own. */
void agent_space(struct agent *a, struct stack *stack, uint64_t volume_short, uint32_t index,
                 uint64_t threshold);
void agent_space_run(struct agent *a, struct node_task *task,
                     void (*run)(struct agent *a, struct node_task *task));
/* agent.c */
/* A process serves several pools: true for the last one that is left. Call it once for each that
 * left. */
bool agent_was_last(void);
/* agent_life.c */
/* loop, sb, device, names, folders, fd, lock_fd and local are set: joins in the background. */
void agent_begin(struct agent *a);
/* Joins again after a leave that failed. */
void agent_rejoin(struct agent *a);
/* Async; `closed` as mailbox_close. The mailbox and its hints are there together or not at all. */
void agent_close_mailbox(struct agent *a, void (*closed)(void *data), void *data);
/* agent_fence.c */
/* This life of the node must end, now: the guard is told, the state is FENCED until the next join.
 * Nothing unless JOINED. */
void agent_fence(struct agent *a, const char *why);
/* Something that a fence may wait for has ended. */
void agent_fence_advance(struct agent *a);
/* From the join on: whatever join.guard says is acted upon; and the end of that, for a leave. */
void agent_watch_guard(struct agent *a);
void agent_unwatch_guard(struct agent *a, void (*closed)(uv_handle_t *handle));
/* agent_local.c */
/* For local_open; `data` is the agent. */
extern const struct local_callbacks agent_local_callbacks;
void agent_answer(struct agent *a, uint64_t client, int code, const char *words);
/* agent_end.c */
/* Asks the node's coordinator, if one runs, to go, and waits until it has hung up. Blocking. */
void agent_resign_coordinator(const char *path);
_Noreturn void agent_exit(void);
/* agent_rpc.c: RpcStats and RpcTrace */
void agent_rpc_answer(struct agent *a, uint64_t client, const Lunar__LocalRequest *request);
/* agent_leave.c */
/* `with_volumes`: whatever is attached is fenced off. The client is answered when it is done. */
void agent_leave(struct agent *a, uint64_t client, bool with_volumes);
void agent_left(struct agent *a); /* it has: answers, and ends the process of the last pool */

#endif
