/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's membership of a pool and a candidate's leadership, by libsanlock. All functions block
 * and run in worker threads; each context is used by one thread at a time.
 *
 * Joining (agent): register -> check the daemon (its host name, W, watchdog armed: SAFETY 7, 12) ->
 * read the lockspace, choose the host id -> add_lockspace_timeout, waiting -> the watchdog is armed
 * -> the generation. USED and the member lease follow at once; they are the guard's (guard.h). A
 * join that finds the lockspace joined already (agent restart) is a join. Leaving: after the guard,
 * rem_lockspace(UNUSED). Failure modes: the daemon is gone (the socket hangs
 * up: membership_fd turns readable), the lockspace is lost, a second machine of our name, no
 * watchdog, other timeouts than the pool's. A process that joins or leads ignores SIGPIPE from then
 * on, because libsanlock would be killed by a dead daemon.
 */
#ifndef LUNAR_FENCING_MEMBERSHIP_H
#define LUNAR_FENCING_MEMBERSHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

enum host_state {
    HOST_STATE_UNKNOWN = 1,
    HOST_STATE_FREE = 2,
    HOST_STATE_LIVE = 3,
    HOST_STATE_FAIL = 4,
    HOST_STATE_DEAD = 5,
};
const char *host_state_name(enum host_state state);

/* What a read of the delta lease itself has shown, begun after sanlock had said the rest. */
enum host_look {
    HOST_LOOK_NONE = 0, /* it was not read, or could not be */
    HOST_LOOK_MOVED,    /* another generation or timestamp than sanlock judges by */
    HOST_LOOK_UNMOVED,  /* the same */
    HOST_LOOK_DAMAGED,  /* what lies there is no lease: nobody can go on renewing it */
};

struct host_status {
    uint32_t host_id;
    uint64_t generation;
    enum host_state state;
    uint64_t timestamp;
    enum host_look look; /* filled by who reads it (coordinator/proof.c), NONE before */
};

struct membership_config {
    const char *device;
    const struct superblock *superblock;
    const char *node_name;
    /* Called from the joining thread with progress sentences; may be NULL. */
    void (*progress)(void *data, const char *text);
    /* Called before the first write under a host id, with the generation that a join under it would
     * be; again for each further choice. An error ends the join. May be NULL. */
    int (*candidate)(void *data, uint32_t host_id, uint64_t generation, struct error *err);
    void *data;
};

struct membership;

/* Joins; on success *ret is the membership, to be given to the calls below. On failure nothing is
 * left behind (a lockspace that this call added is removed again). */
int membership_join(const struct membership_config *config, struct membership **ret,
                    struct error *err);
uint32_t membership_host_id(const struct membership *m);
uint64_t membership_generation(const struct membership *m);
/* Readable or hung up when the sanlock daemon is gone; for uv_poll. */
int membership_fd(const struct membership *m);
/* 0 if the lockspace is still joined; LUNAR_E_NOT_JOINED if sanlock says
 * that it is not; other codes: sanlock could not be asked, ask again. */
int membership_check(struct membership *m, struct error *err);
/* Clean leave, after guard_leave. LUNAR_E_IN_USE: somebody still uses the pool (a coordinator).
 * Frees on success; on failure the lockspace stays joined. */
int membership_leave(struct membership *m, struct error *err);
/* After a fence, when the guard is gone, the proof had and nothing lunar mapped any more: clears
 * USED, should a killed guard have left it, and gives the lockspace up; sanlock kills whoever still
 * holds a lease in it, which can only be this life's coordinator. 0: this node is out; negative:
 * not yet, call it again. Blocking. */
int membership_end(const struct uuid *pool_id, struct error *err);
/* Process exit without leaving: closes the socket; the guard goes on. */
void membership_abandon(struct membership *m);

/* States of all hosts as this node's sanlock sees them; *ret is malloc'ed, returns the count. FREE
 * are only those of the `also` ids that are, for sanlock lists no others. Without a generation:
 * nobody has ever had that id, and it is left out. */
int membership_hosts(const struct uuid *pool_id, const uint32_t *also, uint32_t n_also,
                     struct host_status **ret, struct error *err);

/* The local daemon's view, for candidates and the CLI: host id and generation if the lockspace is
 * joined. */
int membership_find(const struct uuid *pool_id, uint32_t *ret_host_id, uint64_t *ret_generation,
                    struct error *err);

/* --- leadership --- */
struct leadership;

/* Registers this process. The descriptor gets close-on-exec; only children that can write the LUN
 * inherit it (SAFETY 1), by leadership_fd as their standard input. */
int leadership_open(const char *device, const struct superblock *superblock,
                    struct leadership **ret, struct error *err);
/* One attempt, no waiting: 1 is ours, *ret_term is lver; 0 somebody else's (or the node has not
 * joined yet); < 0 error. */
int leadership_try(struct leadership *l, uint64_t *ret_term, struct error *err);
int leadership_fd(const struct leadership *l);
/* 0 if the lease is on disk still ours under that term (the leader record itself is read);
 * LUNAR_E_STALE otherwise. */
int leadership_check(struct leadership *l, uint64_t term, struct error *err);
/* Who has the lease, as the LUN says; term 0: nobody. */
struct leadership_owner {
    uint32_t host_id;
    uint64_t generation, term;
};
int leadership_owner(struct leadership *l, struct leadership_owner *ret, struct error *err);
/*
 * Asks for the end of the leader of `term`, who has stopped to lead: its own sanlock sends SIGKILL
 * to its process. That may take 5N, and 0 says no more than that the request was written: go on
 * trying. A request that comes late, when another term has begun, is refused, LUNAR_E_STALE, or
 * without effect.
 */
int leadership_force(struct leadership *l, uint64_t term, struct error *err);
int leadership_release(struct leadership *l, struct error *err);
void leadership_close(struct leadership *l);

/* --- lun format --- */
/* Writes lockspace and all resources (needs the sanlock daemon, or `direct` writes through
 * libsanlock's direct calls). */
int membership_format(const char *device, const struct superblock *superblock, struct error *err);
/* LUNAR_E_ALIVE if any timestamp of a lockspace at `offset` moves within 8N + W, by watching it
 * that long (SAFETY 22). Returns at once, 0, if every lease there is free or no lockspace is there.
 */
int membership_refuse_alive(int fd, const struct layout *layout, int watch_s,
                            void (*progress)(void *data, const char *text), void *data,
                            struct error *err);

#endif
