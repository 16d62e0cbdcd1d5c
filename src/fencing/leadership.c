/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leadership of a pool: the exclusive coordinator lease and its version, the term; see
 * membership.h.
 *
 * Happy path: leadership_try acquires without waiting; sanlock raises lver with every acquire by
 * anybody, so lver is the term. What the daemon says is compared with the leader record on the LUN
 * before anyone is told of it. leadership_check reads that record again, before each commit: owner,
 * generation and lver must still be ours.
 *
 * Failure modes: the lease is somebody else's, or this node has not joined (0: try again later);
 * the LUN or the daemon fails (an error; a lease that may have been acquired is released). What
 * leadership_check cannot see is a holder that lost the LUN a moment ago: until 8N + W nobody else
 * may write, and by then the watchdog has reset this node. A child that inherits the socket keeps
 * the lease alive past our death: meant for children that write the LUN (SAFETY 1), for no others.
 */
#include "fencing/membership.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "fencing/leases.h"
#include "fencing/sanlock_calls.h"

struct leadership {
    int fd; /* registered with sanlock */
    int device_fd;
    struct superblock sb;
    char *device;
    char lockspace[48];
    uint64_t term; /* 0: not ours */
    uint64_t owner_id, owner_generation;
};

int leadership_open(const char *device, const struct superblock *superblock,
                    struct leadership **ret, struct error *err)
{
    int rv = sanlock_check_device(device, err);
    if (rv < 0)
        return rv;
    int device_fd = io_open(device, 0, err);
    if (device_fd < 0)
        return device_fd;
    int fd = sanlock_open_socket(err);
    if (fd < 0) {
        close(device_fd);
        return fd;
    }

    struct leadership *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->fd = fd;
    l->device_fd = device_fd;
    l->sb = *superblock;
    l->device = strdup(device);
    if (!l->device)
        abort();
    pool_lockspace(&l->sb.pool_id, l->lockspace);
    *ret = l;
    return 0;
}

/*
 * Everything that means "not now": the lease has an owner (-24x), another host won the ballot, a
 * process of this node has it or is just losing it, or the lockspace is not joined (ENOSPC).
 */
static bool is_not_now(int rv)
{
    return (rv <= SANLK_ACQUIRE_LOCKSPACE && rv >= SANLK_ACQUIRE_OWNED_RETRY) ||
           rv == SANLK_DBLOCK_LVER || rv == SANLK_DBLOCK_MBAL || rv == SANLK_LEADER_DIFF ||
           rv == -EEXIST || rv == -EBUSY || rv == -EAGAIN || rv == -ENOSPC;
}

/* Who we are: the local daemon's host id, and the generation that its lease has on the LUN. */
static int learn_host(struct leadership *l, struct delta_lease *ret, struct error *err)
{
    struct sanlk_lockspace ls;
    int rv = sanlock_find_lockspace(l->lockspace, &ls, err);
    if (rv < 0)
        return rv;
    if (rv == 0 || ls.host_id < 1 || ls.host_id > l->sb.layout.max_nodes)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node has just lost the pool");
    return lease_read(l->device_fd, &l->sb.layout, l->lockspace, (uint32_t)ls.host_id, ret, err);
}

/* The daemon and the LUN must tell the same story before anybody acts on it. */
static int learn_term(struct leadership *l, struct error *err)
{
    uint64_t lver = 0;
    struct delta_lease host;
    struct leader_record leader;
    int rv = sanlock_holds(l->fd, l->lockspace, sanlock_resource_names[LAYOUT_RESOURCE_COORDINATOR],
                           &lver, err);
    if (rv == 0)
        return error_set(err, LUNAR_E_STALE, "the coordinator lease was acquired and lost at once");
    if (rv == 1)
        rv = learn_host(l, &host, err);
    if (rv == 0)
        rv = leader_read(l->device_fd, &l->sb.layout, LAYOUT_RESOURCE_COORDINATOR, l->lockspace,
                         &leader, err);
    if (rv < 0)
        return rv;
    if (leader.lver != lver || leader.owner_id != host.host_id ||
        leader.owner_generation != host.generation || leader.timestamp == 0 || lver == 0)
        return error_set(err, LUNAR_E_STALE,
                         "sanlock says that we lead as host %" PRIu32 " generation %" PRIu64
                         " term %" PRIu64 ", but the LUN says host %" PRIu64 " generation %" PRIu64
                         " term %" PRIu64,
                         host.host_id, host.generation, lver, leader.owner_id,
                         leader.owner_generation, leader.lver);
    l->term = lver;
    l->owner_id = leader.owner_id;
    l->owner_generation = leader.owner_generation;
    return 0;
}

int leadership_try(struct leadership *l, uint64_t *ret_term, struct error *err)
{
    assert(l->term == 0);
    struct sanlk_resource *res =
        sanlock_make_resource(&l->sb, l->device, LAYOUT_RESOURCE_COORDINATOR, 0);
    int rv =
        sanlock_acquire(l->fd, -1, SANLK_ACQUIRE_OWNER_NOWAIT | SANLK_ACQUIRE_LVB, 1, &res, NULL);
    free(res);
    if (is_not_now(rv))
        return 0;
    if (rv < 0)
        return sanlock_fail(err, rv, "cannot get the coordinator lease");

    rv = learn_term(l, err);
    if (rv < 0) {
        sanlock_release(l->fd, -1, SANLK_REL_ALL, 0, NULL);
        return rv;
    }
    *ret_term = l->term;
    return 1;
}

int leadership_fd(const struct leadership *l)
{
    return l->fd;
}

int leadership_check(struct leadership *l, uint64_t term, struct error *err)
{
    struct leader_record leader;
    if (l->term == 0 || term != l->term)
        return error_set(err, LUNAR_E_STALE, "term %" PRIu64 " is not this process's", term);
    int rv = leader_read(l->device_fd, &l->sb.layout, LAYOUT_RESOURCE_COORDINATOR, l->lockspace,
                         &leader, err);
    if (rv < 0)
        return rv;
    if (leader.lver != term || leader.owner_id != l->owner_id ||
        leader.owner_generation != l->owner_generation || leader.timestamp == 0)
        return error_set(err, LUNAR_E_STALE,
                         "term %" PRIu64 " is over: the LUN names host %" PRIu64
                         " generation %" PRIu64 " term %" PRIu64 "%s",
                         term, leader.owner_id, leader.owner_generation, leader.lver,
                         leader.timestamp == 0 ? ", released" : "");
    return 0;
}

int leadership_owner(struct leadership *l, struct leadership_owner *ret, struct error *err)
{
    struct leader_record leader;
    int rv = leader_read(l->device_fd, &l->sb.layout, LAYOUT_RESOURCE_COORDINATOR, l->lockspace,
                         &leader, err);
    if (rv < 0)
        return rv;
    *ret = (struct leadership_owner){0};
    if (leader.timestamp != 0)
        *ret = (struct leadership_owner){.host_id = (uint32_t)leader.owner_id,
                                         .generation = leader.owner_generation,
                                         .term = leader.lver};
    return 0;
}

int leadership_force(struct leadership *l, uint64_t term, struct error *err)
{
    struct sanlk_resource *res =
        sanlock_make_resource(&l->sb, l->device, LAYOUT_RESOURCE_COORDINATOR, 0);
    /*
     * The next version by number, not by SANLK_REQUEST_NEXT_LVER: between the judge's look and this
     * call we may have been stopped for any time, and "the next one" would then be the end of a
     * healthy successor. sanlock refuses a version that is there already, and a daemon that finds
     * such a request later kills nobody for it.
     */
    res->lver = term + 1;
    int rv = sanlock_request(0, SANLK_REQ_FORCE, res);
    free(res);
    if (rv == SANLK_REQUEST_OLD || rv == SANLK_REQUEST_LVER)
        return error_set(err, LUNAR_E_STALE, "term %" PRIu64 " is over already", term);
    return rv < 0 ? sanlock_fail(err, rv, "cannot ask for the leader's end") : 0;
}

int leadership_release(struct leadership *l, struct error *err)
{
    l->term = 0; /* from here on nothing may be committed, whatever sanlock says */
    int rv = sanlock_release(l->fd, -1, SANLK_REL_ALL, 0, NULL);
    return rv < 0 ? sanlock_fail(err, rv, "cannot release the coordinator lease") : 0;
}

void leadership_close(struct leadership *l)
{
    if (!l)
        return;
    close(l->fd);
    close(l->device_fd);
    free(l->device);
    free(l);
}
