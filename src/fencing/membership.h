/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's membership of a pool and a candidate's leadership, by libsanlock. All functions block
 * and run in worker threads; each context is used by one thread at a time.
 *
 * Joining (agent): register -> check the daemon (its host name, W, watchdog armed: SAFETY 7, 12) ->
 * read the lockspace, choose the host id -> add_lockspace_timeout, waiting -> the watchdog is armed
 * -> set_config(USED) (SAFETY 9) -> acquire member SHARED, with random back-off. A join that finds
 * the lockspace joined already (agent restart) is a join. Leaving: release member ->
 * set_config(UNUSED) -> rem_lockspace(UNUSED). Failure modes: the daemon is gone (the socket hangs
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

struct host_status {
    uint32_t host_id;
    uint64_t generation;
    enum host_state state;
    uint64_t timestamp;
};

struct membership_config {
    const char *device;
    const struct superblock *superblock;
    const char *node_name;
    /* Called from the joining thread with progress sentences; may be NULL. */
    void (*progress)(void *data, const char *text);
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
/* 0 if the lockspace is still joined and the member lease held; LUNAR_E_NOT_JOINED if sanlock says
 * that it is not; other codes: sanlock could not be asked, ask again. */
int membership_check(struct membership *m, struct error *err);
/* Clean leave; nothing lunar may be mapped any more. Frees on success; on failure the membership
 * stands. */
int membership_leave(struct membership *m, struct error *err);
/* Process exit without leaving: closes the socket (the member lease goes, USED stays and the
 * watchdog guards). */
void membership_abandon(struct membership *m);

/* States of all hosts as this node's sanlock sees them; *ret is malloc'ed, returns the count. */
int membership_hosts(const struct uuid *pool_id, struct host_status **ret, struct error *err);

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
