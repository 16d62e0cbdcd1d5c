/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon around the pure leader, shared by its files alone: coordinator.c (process),
 * coordinator_life.c (candidate, election, resignation), takeover.c (what a new leader reads
 * first), truth.c (the catalogue that may be acted upon), leader_uv.c (the leader's outside),
 * recheck.c (the grants on the LUN, again and again), relay.c (a standby's clients),
 * coordinator_rpc.c (what passed, for `lunarctl rpc`), coordinator_end.c (exit).
 */
#ifndef LUNAR_COORDINATOR_INTERNAL_H
#define LUNAR_COORDINATOR_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/worker.h"
#include "coordinator/beat_judge.h"
#include "coordinator/commit.h"
#include "coordinator/coordinator.h"
#include "coordinator/leader.h"
#include "diskrpc/beat.h"
#include "diskrpc/hint.h"
#include "diskrpc/local.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/uv_disk.h"
#include "fencing/awake.h"

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
 * down page and of the lease that is at most 18 reads a second, and the look at the metadata every
 * 5 s adds less than one (14.7 in all were measured, idle); 2000 nodes with entries take 11
 * minutes, 256 take 90 s.
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

/*
 * A thread that works for the leader and has ended no job for that long is stuck; then the leader
 * stops to beat. One lvm is given 60 s and a grace of 2 s (lvm.c, lvm_child.c), and what a job does
 * beside it takes seconds: the bound is beyond whatever ends by itself. A leader whose LUN takes
 * minutes for a commit would be exchanged again and again; it answers nobody either.
 */
#define COORDINATOR_STUCK_MS 90000u

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

/* When a worker was last seen to get on. */
struct thread_watch {
    uint64_t ended, since_ms;
};

struct proof_doubt;
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
    struct worker *preempt_worker;  /* NULL until something was preempted */
    struct leadership_owner former; /* who had the lease before us; the lease thread's */
    struct leader_io io;            /* leader_uv.c's, without what the pool has not */
    struct worker_job lease_job, takeover_job, recheck_job, tend_job;
    bool lease_busy, recheck_busy, tend_busy;
    uint64_t tended_ms;
    int tend_rc;
    struct error tend_err;
    uint64_t tend_basis; /* of the leader's catalogue at first, then as the job left it */
    struct catalogue *tend_fresh;
    uint64_t catalogue_basis; /* of the leader's catalogue (committer_basis) */
    bool lease_trying;        /* what the lease job does, fixed when it is submitted */
    bool lease_beats;         /* it may write a beat, of that phase */
    enum beat_phase lease_phase;
    struct thread_watch lvm_watch, grants_watch;
    bool beats_withheld;
    struct beat beat;        /* the last one written; the lease thread's */
    struct beat_judge judge; /* the lease thread's */
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
    uint64_t lease_asked_ms; /* the loop's time when the last lease job was submitted */
    struct timeouts times;
    struct awake awake;            /* the loop's looks at its clock */
    uint64_t takeover_awake_in_ms; /* when elected: how long until sanlock's DEAD is believed */
    struct proof_doubt *doubts;    /* [host id], the job's while one is out */
    atomic_uint doubt_at;          /* of the hosts, which is looked at first */
    struct still *still;           /* likewise the job's while one is out */

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

/* beat.c */
/* Loop, once per heartbeat: true if the threads that work for the leader get on. */
bool beat_is_due(struct coordinator *c);
/* Blocking, lease thread. As the leader, with the lease just seen to be ours (c->lease_self). */
void beat_write_next(struct coordinator *c, enum beat_phase phase);
/* Blocking, lease thread. As a standby, after each attempt: may have a silent leader forced out. */
void beat_watch_leader(struct coordinator *c);

/* truth.c: blocking, LVM thread. The catalogue, malloc'ed, once it is certain that no late write
 * can undo or has changed what it was read from; NULL and *err: nothing may be acted upon. */
struct catalogue *truth_read(struct lvm *lvm, struct committer *committer, struct error *err);

/* preempt.c: persistent reservations, where the pool has them. */
bool preempt_is_used(const struct coordinator *c);
/* Answered by leader_preempted. */
void preempt_start(struct coordinator *c, uint32_t host_id, uint64_t generation);
/* Blocking, LVM thread. On failure nothing may be committed. */
int preempt_before_first_commit(struct coordinator *c, struct error *err);

/* takeover.c: blocking, LVM thread. On failure nothing is held. */
int takeover_run(struct coordinator *c, struct takeover *ret, struct error *err);

/* leader_uv.c */
int leader_uv_open(struct coordinator *c, struct error *err);
void leader_uv_request(struct coordinator *c, uint64_t client, const Lunar__Request *request);
void leader_uv_tend(struct coordinator *c);

/* proof.c. proof_hosts blocks, lease thread or the takeover: as membership_hosts, with looks
 * (proof_look) at the leases of hosts in doubt. proof_judge tells the leader, on the loop; all of
 * it was asked since `asked_ms`. */
void proof_open(struct coordinator *c);
void proof_look(struct coordinator *c, struct host_status *hosts, int n);
enum host_look proof_look_at(const struct coordinator *c, const struct host_status *host);
int proof_hosts(struct coordinator *c, struct host_status **ret, struct error *err);
void proof_judge(struct coordinator *c, const struct host_status *hosts, int n, uint64_t asked_ms);
/* Lease thread, after proof_hosts: what the next beat says of leases that stand still. */
void proof_list_still(struct coordinator *c, const struct host_status *hosts, int n);

/* recheck.c: one job in the grants thread; `recheck_busy` until it has ended. */
void recheck_start(struct coordinator *c);

/* coordinator_rpc.c: RpcStats and RpcTrace, also of a standby */
void coordinator_rpc_answer(struct coordinator *c, uint64_t client,
                            const Lunar__LocalRequest *request);

/* relay.c */
void relay_message(struct coordinator *c, uint64_t client, const uint8_t *bytes, uint32_t len);
void relay_gone(struct coordinator *c, uint64_t client);

#endif
