/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sanlock says of the hosts, with a look at the leases of those whose death or leave it claims
 * (SAFETY 8).
 *
 * sanlock judges by now, not by its last look, so a verdict of DEAD counts only if the victim's
 * delta lease, read from the LUN after the verdict, still has the generation and timestamp that the
 * verdict is about. So does FREE: sanlock says it of every lease whose timestamp it has read as 0,
 * also of one that was overwritten with zeroes under a host that lives. Happy path: nobody is in
 * doubt, and nothing is read. Who holds grants and is not in sanlock's list is asked for by its id:
 * it may have left in order. The leases of hosts that have not moved for a while are read too, so
 * that an operator who wants to fence one gets a sure answer: seen through sanlock alone a living
 * host may seem to stand still for 4N. Failure modes: a lease that cannot be read proves nothing;
 * of more than PROOF_READS_MAX hosts in doubt the others have their turn at the next heartbeats.
 * Which leases stand still (still.c) is told in the beats.
 */
#include <stdlib.h>

#include "coordinator/coordinator_internal.h"
#include "coordinator/mem.h"
#include "coordinator/still.h"
#include "fencing/leases.h"

/* In one heartbeat: at 0.5 ms each they take 32 ms, and a rack that lost its power is judged in
 * one. */
#define PROOF_READS_MAX 64u

struct proof_doubt {
    uint64_t over; /* generations up to this one need no proof any more */
    bool suspect;  /* read it whatever sanlock says */
    bool wanted;   /* and ask for it by its id, should sanlock's list lack it */
};

void proof_open(struct coordinator *c)
{
    c->doubts = calloc(c->sb.layout.max_nodes + 1, sizeof *c->doubts);
    if (!c->doubts)
        abort();
    c->still = still_new(c->sb.layout.max_nodes);
    timeouts_of_pool(c->sb.io_timeout_s, c->sb.watchdog_fire_timeout_s, &c->times);
}

enum host_look proof_look_at(const struct coordinator *c, const struct host_status *host)
{
    char space[48];
    struct delta_lease lease;

    pool_lockspace(&c->sb.pool_id, space);
    int rc = lease_read(c->fd, &c->sb.layout, space, host->host_id, &lease, NULL);
    if (rc < 0)
        return rc == LUNAR_E_CORRUPT ? HOST_LOOK_DAMAGED : HOST_LOOK_NONE;
    bool same = lease.generation == host->generation && lease.timestamp == host->timestamp;
    return same ? HOST_LOOK_UNMOVED : HOST_LOOK_MOVED;
}

static bool is_in_doubt(const struct coordinator *c, const struct host_status *host)
{
    if (host->host_id < 1 || host->host_id > c->sb.layout.max_nodes)
        return false;
    const struct proof_doubt *d = &c->doubts[host->host_id];
    bool ended = host->state == HOST_STATE_DEAD || host->state == HOST_STATE_FREE;
    return host->generation > d->over && (ended || d->suspect);
}

void proof_look(struct coordinator *c, struct host_status *hosts, int n)
{
    uint32_t reads = 0, first = atomic_load(&c->doubt_at);

    for (int i = 0; i < n && reads < PROOF_READS_MAX; i++) {
        struct host_status *host = &hosts[(first + (uint32_t)i) % (uint32_t)n];
        if (!is_in_doubt(c, host))
            continue;
        host->look = proof_look_at(c, host);
        if (++reads == PROOF_READS_MAX)
            atomic_store(&c->doubt_at, first + (uint32_t)i + 1);
    }
}

int proof_hosts(struct coordinator *c, struct host_status **ret, struct error *err)
{
    uint32_t n_wanted = 0, *wanted = mem_array(c->sb.layout.max_nodes, sizeof *wanted);

    for (uint32_t h = 1; h <= c->sb.layout.max_nodes; h++)
        if (c->doubts[h].wanted)
            wanted[n_wanted++] = h;
    int n = membership_hosts(&c->sb.pool_id, wanted, n_wanted, ret, err);
    free(wanted);
    proof_look(c, *ret, n);
    return n;
}

void proof_judge(struct coordinator *c, const struct host_status *hosts, int n, uint64_t asked_ms)
{
    uint64_t now_ms = coordinator_now_ms(c);
    bool awake = awake_is(&c->awake, &c->times, now_ms);

    leader_hosts(c->leader, hosts, (uint32_t)n, awake, asked_ms, now_ms);
    if (c->lease_busy)
        return; /* the takeover's own hosts, while a job of the lease thread is out */
    for (uint32_t h = 1; h <= c->sb.layout.max_nodes; h++) {
        c->doubts[h].over = leader_over(c->leader, h);
        still_over(c->still, h, c->doubts[h].over);
        c->doubts[h].suspect = leader_suspects(c->leader, h, now_ms);
        c->doubts[h].wanted = c->doubts[h].suspect || leader_has_grants(c->leader, h);
    }
}

void proof_list_still(struct coordinator *c, const struct host_status *hosts, int n)
{
    uint64_t now_ms = uv_hrtime() / 1000000;

    still_look(c->still, hosts, n, now_ms);
    still_list(c->still, (uint64_t)c->times.same_name_watch_s * 1000, now_ms, &c->beat);
}
