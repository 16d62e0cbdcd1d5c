/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon around the pure leader, shared by its files alone: coordinator.c (process),
 * coordinator_life.c (candidate, election, resignation), takeover.c (what a new leader reads
 * first), leader_uv.c (the leader's outside), recheck.c (the grants on the LUN, again and again),
 * relay.c (a standby's clients), coordinator_end.c (exit).
 */
#ifndef LUNAR_COORDINATOR_INTERNAL_H
#define LUNAR_COORDINATOR_INTERNAL_H

#include <sys/queue.h>
#include <uv.h>

#include "base/worker.h"
#include "coordinator/commit.h"
#include "coordinator/coordinator.h"
#include "coordinator/leader.h"
#include "diskrpc/hint.h"
#include "diskrpc/local.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/uv_disk.h"

/* Half a second between attempts: a killed leader's lease is free at once, so the standby has it
 * within that and an acquire (FENCING.md: 0.83-0.88 s in all). */
#define COORDINATOR_TRY_MS 500
/* Lease check, host states, grants re-check. */
#define COORDINATOR_HEARTBEAT_MS 1000
/* How long a resigning leader waits for a commit that is under way. */
#define COORDINATOR_RESIGN_MS 5000
/*
 * Nodes whose grants are re-read per heartbeat (SAFETY 3), both copies, one read each: three that
 * have entries and one of any kind. With the scan of 2000 up pages (8 reads), the read-back of a
 * down page and of the lease, 18 reads a second; 2000 nodes with entries take 11 minutes, 256 take
 * 90 s.
 *
 * It may be that slow because no data hangs on it. A late write of a former leader gives nobody
 * anything: an agent wants the table to be of the term that the lease has (grant_check.c). And it
 * takes nothing from those who have a volume open: their reports say so, and a takeover unites both
 * copies and the report. What it can do is make an attach that is under way fail as STALE, or leave
 * an entry that nobody has any more to the next leader; both heal by asking again. For tables
 * without entries the first cannot happen, so they may wait longer still: 33 minutes for 2000.
 */
#define COORDINATOR_RECHECK_NODES 4u

/* How often the metadata on the LUN is looked at while nothing is committed (SAFETY 4): two areas
 * and the copy's two slots survive any one damage, so one is repaired before the next. Four small
 * reads, unless there are thousands of volumes. */
#define COORDINATOR_TEND_MS 5000

enum coordinator_state {
    COORDINATOR_STATE_CANDIDATE,
    COORDINATOR_STATE_TAKEOVER,
    COORDINATOR_STATE_LEADING,
    COORDINATOR_STATE_RESIGNING,
};

/* What takeover.c found, made in the LVM thread and handed to the loop. */
struct takeover {
    struct lvm *lvm;
    struct committer *committer;
    struct catalogue *catalogue;
    struct table **grants;     /* index is the host id; NULL: nothing granted or never joined */
    struct host_status *hosts; /* who lives, before the first request */
    int n_hosts;
    uint32_t n;
};

struct relay;
LIST_HEAD(relay_list, relay);

struct coordinator {
    uv_loop_t *loop;
    struct superblock sb;
    const char *device;
    char state_dir[300], socket[300], agent_socket[300];
    int fd; /* of the LUN */
    enum coordinator_state state;

    struct worker *lease_worker, *lvm_worker, *grants_worker;
    struct worker_job lease_job, takeover_job, recheck_job, tend_job;
    bool lease_busy, recheck_busy, tend_busy;
    uint64_t tended_ms;
    int tend_rc;
    struct error tend_err;
    uint64_t tend_basis; /* of the leader's catalogue at first, then as the job left it */
    struct catalogue *tend_fresh;
    uint64_t catalogue_basis; /* of the leader's catalogue (committer_basis) */
    bool lease_trying;        /* what the lease job does, fixed when it is submitted */
    uv_timer_t timer, resign_timer;
    int resign_waited_ms;
    uv_signal_t sigterm, sigint;
    uv_poll_t lease_poll; /* the sanlock daemon's socket */

    struct leadership *leadership;
    struct incarnation self; /* zero until elected; then it stays */
    int lease_rc; /* of the last lease job, like all up to n_hosts: the job's while lease_busy */
    struct incarnation lease_self; /* who we are, once elected */
    struct error lease_err;
    struct host_status *hosts;
    int n_hosts;

    struct takeover takeover;
    int takeover_rc;
    struct error takeover_err;
    struct hint_option hint_option;
    struct hint *hint; /* NULL: without */
    struct uv_disk *disk;
    struct hub *hub;
    struct trace *trace; /* of what passes the hub; NULL: without */
    struct leader *leader;
    uint32_t recheck_used_at, recheck_any_at; /* host ids looked at last */
    uint32_t commits_out;

    struct local_server *local;
    struct relay_list relays;
};

/* coordinator_life.c */
uint64_t coordinator_now_ms(const struct coordinator *c);
/* For local_open; `data` is the coordinator. */
extern const struct local_callbacks coordinator_local_callbacks;
/* loop, sb, device, folders, sockets, fd and local are set: becomes a candidate. */
void coordinator_begin(struct coordinator *c);
void coordinator_resign(struct coordinator *c);
/* coordinator_end.c */
/* The lease is gone or must be taken for gone: logs and ends the process. */
_Noreturn void coordinator_die(const char *why, const char *text);
/* Having resigned: the socket closes with the process, which frees the lease. */
_Noreturn void coordinator_exit(void);

/* truth.c: blocking, LVM thread. The catalogue, malloc'ed, once it is certain that no late write
 * can undo or has changed what it was read from; NULL and *err: nothing may be acted upon. */
struct catalogue *truth_read(struct lvm *lvm, struct committer *committer, struct error *err);

/* takeover.c: blocking, LVM thread. On failure nothing is held. */
int takeover_run(struct coordinator *c, struct takeover *ret, struct error *err);

/* leader_uv.c */
int leader_uv_open(struct coordinator *c, struct error *err);
void leader_uv_request(struct coordinator *c, uint64_t client, const Lunar__Request *request);
void leader_uv_tend(struct coordinator *c);

/* recheck.c: one job in the grants thread; `recheck_busy` until it has ended. */
void recheck_start(struct coordinator *c);

/* coordinator_rpc.c: RpcStats and RpcTrace, also of a standby */
void coordinator_rpc_answer(struct coordinator *c, uint64_t client,
                            const Lunar__LocalRequest *request);

/* relay.c */
void relay_message(struct coordinator *c, uint64_t client, const uint8_t *bytes, uint32_t len);
void relay_gone(struct coordinator *c, uint64_t client);

#endif
