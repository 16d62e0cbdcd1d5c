/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the virtual sanlock's three files share: its state (sanlock.c), its bytes on the LUN
 * (sanlock_bytes.c), and its clients' side, fencing/membership.h (sanlock_client.c).
 */
#ifndef LUNAR_TESTS_SIM_SANLOCK_MODEL_H
#define LUNAR_TESTS_SIM_SANLOCK_MODEL_H

#include "fencing/leases.h"
#include "fencing/membership.h"
#include "fencing/timeouts.h"
#include "sim/internal.h"

#define MODEL_LIVES 128u /* more generations than a run has */

/* The truth about a host id, as it stands on the LUN. */
struct model_host {
    uint64_t generation, timestamp; /* 0: free */
    uint32_t owner_id;
    char name[LEASES_NAME_SIZE];
    uint64_t proved_dead;                        /* generations up to this one */
    uint64_t written_us;                         /* true time of the last renewal */
    uint64_t renews_since_us;                    /* without a break */
    const struct machine *lived_by[MODEL_LIVES]; /* [generation] */
};

/* What one machine's daemon has seen of one host id; times of its own clock, 0: never. */
struct model_view {
    uint64_t generation, timestamp, first_check_us, last_live_us;
};

enum daemon_state { DAEMON_OUT, DAEMON_JOINING, DAEMON_JOINED };

struct model_daemon {
    enum daemon_state state;
    uint32_t host_id;
    uint64_t generation; /* while joining: the one that was met */
    char name[LEASES_NAME_SIZE];
    char host_name[LEASES_NAME_SIZE]; /* as it was started with */
    int join_rc; /* of the last attempt; LUNAR_E_BUSY: another host was faster */
    bool used;
    bool failed; /* 8N are over: it has ended its clients and does not come back */
    bool doomed; /* the watchdog's time is over already */
    bool dead;   /* killed; what it watched goes on being watched by nobody */
    bool looked; /* at the others, since it joined */
    uint64_t renewed_us, shown_us; /* the last renewal, and the last one that its lists show */
    struct process
        *leader; /* who has acquired the coordinator lease here, taken away since or not */
    struct process *guard; /* who holds the member lease: sanlock never kills it */
    struct sim_event *renew, *check, *watchdog, *join;
    struct model_view *views; /* [host id] */
};

/* The coordinator resource. */
struct model_lease {
    uint64_t lver, owner_generation, timestamp;
    uint32_t owner_id;
    struct process *holder; /* may be gone already */
};

extern struct superblock model_sb;
extern struct timeouts model_times;
extern struct model_host *model_hosts; /* [host id] */
extern struct model_lease model_lease;

struct model_daemon *model_daemon(const struct machine *m);
/* False: the LUN cannot be reached from there now, or takes no write from there. */
bool model_reaches(const struct machine *m);
/* Begins to join; the daemon's state and join_rc tell when it is over. */
void model_join(struct machine *m, uint32_t host_id, const char *name);
/* The daemon gives up the host id cleanly. Needs the LUN. */
void model_leave(struct machine *m);
/* The same by force: whoever else holds a lease is killed, and what is then free goes as it can. */
void model_remove(struct machine *m);
/* USED: watch from now on, or do not wait for it any more. */
void model_set_used(struct machine *m, bool used);
/* For the guard of that life of the host: the lockspace is joined and not lost. */
bool model_guard_may_acquire(const struct machine *m, uint32_t host_id, uint64_t generation);
/* One attempt at the member lease; false: not now. */
bool model_guard_acquire(struct process *guard);
bool model_guard_release(struct process *guard); /* works with a dead LUN, not a dead daemon */
/* The renewal that the daemon's lists show, by the machine's clock; 0: it is in no lockspace. */
uint64_t model_shown_renewal_us(const struct machine *m);
/* One attempt of `p`, all at once: true if it has the coordinator lease now. */
bool model_acquire(struct process *p);
/* A request of `p` for the end of the leader of `term`: false if that term is over. Its daemon
 * kills the leader within 5N, if both daemons reach the LUN meanwhile. */
bool model_force(const struct process *p, uint64_t term);
/* Lets the lease of `p` go as soon as the LUN can be reached. */
void model_release(struct process *p);
enum host_state model_state(const struct machine *m, uint32_t host_id);

/* --- sanlock_client.c --- */
/* The machine's clients see their sockets hang up. */
void model_hang_up(const struct machine *m);

/* --- sanlock_bytes.c --- */
void delta_lease_out(uint8_t sector[LUN_SECTOR], const char *space, const struct model_host *host,
                     uint32_t io_timeout_s);
void leader_record_out(uint8_t sector[LUN_SECTOR], const char *space, const char *resource,
                       const struct model_lease *lease, uint64_t written_s);
void model_write_host(uint32_t host_id);
void model_write_lease(uint64_t written_s);
void model_format(void);

#endif
