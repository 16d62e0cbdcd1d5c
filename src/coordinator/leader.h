/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leader: what a coordinator does with requests while it holds the lease. Pure: no clock, no
 * I/O, no libuv; what must be done outside goes through leader_io, what happened outside comes in
 * by the calls below, with the time in them. The daemon (coordinator_uv.c) and the tests wrap the
 * same object.
 *
 * It keeps three things in memory, all of which it can lose: the catalogue (LVM's truth), the grant
 * tables (the LUN's truth) and the operations under way (each healed by the next leader from the
 * first two).
 */
#ifndef LUNAR_COORDINATOR_LEADER_H
#define LUNAR_COORDINATOR_LEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "coordinator/catalogue.h"
#include "diskrpc/channel.h"
#include "diskrpc/message.h"
#include "diskrpc/superblock.h"
#include "diskrpc/table.h"
#include "fencing/membership.h"

/* A command unanswered this long is answered to the client as a time-out; the grant stands, nothing
 * is undone. mkfs-free work (map, QSD start) takes seconds at most; a thick volume's zeroing
 * reports no progress yet. */
#define LEADER_OP_DEADLINE_MS (120u * 1000)
/* How often half-made and half-deleted volumes without an operation are taken up again: rare, since
 * only a failed commit or grant write leaves one, and each attempt may fail the same way. */
#define LEADER_RECONCILE_MS (10u * 1000)
#define LEADER_OPS_MAX      4096u
/* With so many operations under way no orphaned grants are looked into: clients come first. */
#define LEADER_RECONCILE_OPS_MAX 1024u
#define LEADER_WAITERS_MAX       16u
/* Volumes of one group of snapshots. */
#define LEADER_GROUP_MAX 64u
/* A group's writers are suspended for so long at most, from when each node hears of it (SAFETY 21).
 * It takes two round trips and a switch, some 0.3 s on the test bed; consumers take a disk that is
 * silent for 30 s for broken. The nodes look each second. */
#define LEADER_HOLD_MS 5000u
/* MiB per second that the merging of layers may take from the LUN, unless told otherwise: guests
 * come first. */
#define LEADER_MERGE_SPEED     64u
#define LEADER_MERGE_SPEED_MAX (1u << 20)
/* Pairs that could not be merged come last, or are left alone by this leader; so many, then the
 * oldest is forgotten. */
#define LEADER_MERGE_FAILED_MAX 64u
/* Layers that leave an attached chain at a time: a daemon's nodes are told in one answer of at most
 * 1 MiB, and 256 layers with 16 opened twice come to 800 KB. */
#define LEADER_RELINK_LAYERS_MAX 16u
/* Reconciliations at which a new leader looks for those whose LV is gone. */
#define LEADER_RELINK_LOOKS 12u

/*
 * A layer that nobody has had for so long is looked into. What is moved, as a guest is from node to
 * node or over a reboot, is back within that; a volume that was just detached would be given its
 * space back, and ask for it again. Nothing hangs on it but work done for nothing.
 */
#define LEADER_TRIM_REST_MS (60u * 1000)

/* Who wants an answer. */
struct waiter {
    uint32_t host_id; /* the relaying node; 0: a client of our own socket */
    uint64_t client;  /* of our own socket */
    struct uuid request_id;
};

/* The outside. Every `token` is answered exactly once, later, never inline. */
struct leader_io {
    /* One LVM commit and a fresh catalogue; answered by leader_commit_done. `args` is copied.
     * Without any: the catalogue alone. */
    void (*commit)(void *data, uint64_t token, const struct catalogue_args *args);
    /* Both copies of one node's grants, written and read back; answered by leader_grants_done.
     * `table` is copied. */
    void (*write_grants)(void *data, uint64_t token, const struct table *table);
    int (*send)(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len);
    void (*respond)(void *data, const struct waiter *to, const uint8_t *bytes, uint32_t len);
    /* That node's lives up to this generation are over: let its down page say so (SAFETY 8). May be
     * NULL. */
    void (*declare_dead)(void *data, uint32_t host_id, uint64_t generation);
    /* Preempts the reservation keys of that life and older ones, on every PV (SAFETY 13); answered
     * by leader_preempted. NULL: the pool has no reservations. */
    void (*preempt)(void *data, uint32_t host_id, uint64_t generation);
    /* The time of day, in seconds since 1970: for people alone. NULL: 0. */
    uint64_t (*wall_s)(void *data);
};

struct leader_config {
    const struct superblock *superblock; /* borrowed */
    struct incarnation self;             /* run_or_term is the term */
    const struct leader_io *io;
    void *data;
    struct catalogue *catalogue; /* taken over */
    bool merges;                 /* layers that nobody needs alone are merged */
    uint64_t merge_speed;        /* MiB per second; 0: LEADER_MERGE_SPEED */
    uint32_t chain_max;          /* a volume of so many layers gets no snapshot and no clone;
                                    0: CATALOGUE_LAYERS_MAX */
    uint64_t trim_rest_ms;       /* nobody has had a layer for so long: what lies behind its end is
                                    given back, if that is worth it. 0: when asked to alone */
};

struct leader *leader_new(const struct leader_config *config);
void leader_free(struct leader *leader);

/* Before the first request: one node's grants, merged from copy A, copy B and its own report
 * (grants_merge). Taken over. */
void leader_set_grants(struct leader *leader, uint32_t host_id, struct table *grants);
/* After all grants are set: resumes what a predecessor left half-done. */
void leader_start(struct leader *leader, uint64_t now_ms);

void leader_request(struct leader *leader, const struct waiter *from, const Lunar__Request *request,
                    uint64_t now_ms);
void leader_result(struct leader *leader, uint32_t host_id, const Lunar__Result *result,
                   uint64_t now_ms);
/* How far a node is with a command: shown, and nothing follows from it. */
void leader_progress(struct leader *leader, uint32_t host_id, const Lunar__Progress *progress);
/* A node's up page was seen, or is of a new incarnation, or says that it leaves. */
void leader_node(struct leader *leader, uint32_t host_id, const struct channel_stats *stats,
                 uint64_t now_ms);
/* When that node's page was last news. */
void leader_heard(struct leader *leader, uint32_t host_id, uint64_t heard_ms);
/* What sanlock says of all hosts, each second; asked for, and the leases read, since `asked_ms`.
 * `awake`: this process has been awake for long enough to believe a verdict of DEAD
 * (fencing/awake.h). */
void leader_hosts(struct leader *leader, const struct host_status *hosts, uint32_t n, bool awake,
                  uint64_t asked_ms, uint64_t now_ms);
/* The answer to leader_io.preempt: 0 if no write of that life can reach any PV any more. */
void leader_preempted(struct leader *leader, uint32_t host_id, uint64_t generation, int rc,
                      const struct error *err, uint64_t now_ms);
/* Highest generation of that host that is proved over; 0: none. */
uint64_t leader_over(const struct leader *leader, uint32_t host_id);
/* True if that host's lease has not moved for so long that somebody may ask for its fence soon: it
 * should be read each second. */
bool leader_suspects(const struct leader *leader, uint32_t host_id, uint64_t now_ms);
/* True while something is granted to a life of that host which is not proved over. */
bool leader_has_grants(const struct leader *leader, uint32_t host_id);
/* `fresh` is a catalogue that was read after that commit; taken over. */
void leader_commit_done(struct leader *leader, uint64_t token, int rc, const struct error *err,
                        struct catalogue *fresh, uint64_t now_ms);
/* The catalogue has changed by itself: a commit that was taken for failed has landed. Taken over.
 */
void leader_catalogue(struct leader *leader, struct catalogue *fresh, uint64_t now_ms);
void leader_grants_done(struct leader *leader, uint64_t token, int rc, const struct error *err,
                        uint64_t now_ms);
void leader_tick(struct leader *leader, uint64_t now_ms);

/* The grants of a node as they should be on the LUN, for the heartbeat's re-check (SAFETY 3); NULL:
 * none were ever set. */
const struct table *leader_grants(const struct leader *leader, uint32_t host_id);
bool leader_grants_settled(const struct leader *leader,
                           uint32_t host_id); /* no write of them is out */

/* --- grants, pure (grants.c) --- */
/* What stands if any of copy A, copy B or the node's report says so (SAFETY 2). Any of the three
 * may be NULL. Entries of one attachment are united, those of a life that either copy marks as over
 * are left out, and the higher mark is kept; the result is initialised by this call.
 * LUNAR_E_TOO_BIG. */
int grants_merge(const struct table *a, const struct table *b, const struct table *report,
                 uint32_t host_id, const struct uuid *pool_id, struct table *ret,
                 struct error *err);

#endif
