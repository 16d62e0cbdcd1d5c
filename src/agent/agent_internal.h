/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon around the pure node, shared by its files alone: agent.c (opening), agent_life.c
 * (join, serve, loss), join.c (blocking: everything before the first message), agent_io.c (the
 * node's outside), agent_local.c (clients), agent_leave.c (the clean leave), agent_end.c (its end).
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
#include "fencing/membership.h"

/* A join that failed is tried again after this long; its reason stands in the status meanwhile. */
#define AGENT_JOIN_RETRY_MS 5000
/* A QSD restart that failed is tried again after this long; its volume's I/O waits. */
#define AGENT_RESTART_RETRY_MS 1000
/* Whether the lockspace is still ours: sanlock renews every 2N seconds, N >= 2. */
#define AGENT_CHECK_MS 4000

/* Every so many checks the report is written again (SAFETY 3): 16 s, so both copies within 32 s for
 * a sixteenth of a read and a write a second. After a write that failed, at each check. */
#define AGENT_TEND_CHECKS 4u

enum agent_state {
    AGENT_STATE_JOINING,
    AGENT_STATE_JOINED,
    AGENT_STATE_LEAVING,
    AGENT_STATE_LEFT,
    AGENT_STATE_LOST,
};

#define JOIN_STACKS_MAX 512u

/* What join.c brings back from its thread. */
struct join {
    struct membership *membership;
    struct incarnation self;
    uint64_t page_seq;
    struct stack *stacks[JOIN_STACKS_MAX];
    uint32_t n_stacks;
};

struct watch;
LIST_HEAD(watch_list, watch);

struct agent {
    uv_loop_t *loop;
    struct superblock sb;
    char device[256], node_name[PAGE_NAME_SIZE], run_dir[200], root[300], socket[300];
    char coordinator_socket[300];
    int fd, lock_fd;
    enum agent_state state;
    char trouble[512]; /* why not joined; "" is well */

    struct worker *join_worker, *report_worker;
    struct worker_job join_job, check_job, leave_job;
    bool check_busy;
    uint32_t checks;
    struct join join;
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
    uint64_t leave_client;
    uv_timer_t leave_timer;
    uint64_t leave_deadline_ms;
};

/* join.c: blocking, join thread. */
int join_run(struct agent *a, struct join *ret, struct error *err);
/* Lets go of what a join brought, without leaving or tearing down anything. */
void join_undo(struct join *join);
/* agent_io.c */
extern const struct node_io agent_io;
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
void agent_leave(struct agent *a, uint64_t client);

#endif
