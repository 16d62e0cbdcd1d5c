/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the local sanlock knows about hosts: all of them for takeover decisions, this one for
 * candidates and the CLI.
 *
 * sanlock judges others by watching their timestamps on its own clock, so for the first seconds
 * after a join everybody is UNKNOWN, and a lease that started to move again turns DEAD back into
 * LIVE: callers latch DEAD per (host id, generation). Its list of all hosts leaves out those whose
 * lease is free (3.9.5), so that a clean leave is seen only by whoever asks for that host id.
 * Failure modes: the daemon is gone, or the lockspace is not joined; both answers come as ENOENT
 * and are told apart here.
 */
#include "fencing/membership.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "fencing/leases.h"
#include "fencing/sanlock_calls.h"

const char *host_state_name(enum host_state state)
{
    switch (state) {
    case HOST_STATE_UNKNOWN:
        return "UNKNOWN";
    case HOST_STATE_FREE:
        return "FREE";
    case HOST_STATE_LIVE:
        return "LIVE";
    case HOST_STATE_FAIL:
        return "FAIL";
    case HOST_STATE_DEAD:
        return "DEAD";
    }
    return "?";
}

/* Host id 0: all. */
static int get_hosts(const char *lockspace, uint32_t host_id, struct sanlk_host **ret, int *ret_n,
                     struct error *err)
{
    *ret = NULL;
    *ret_n = 0;
    int rv = sanlock_get_hosts(lockspace, host_id, ret, ret_n, 0);
    if (rv >= 0)
        return 0;
    uint32_t version = 0, proto = 0;
    int alive = sanlock_version(0, &version, &proto);
    if (alive < 0)
        return sanlock_fail(err, alive, "cannot ask sanlock for hosts");
    if (rv == -ENOENT)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node has not joined the pool");
    if (rv == -EAGAIN)
        return error_set(err, -EAGAIN,
                         "sanlock has just joined and not looked at the hosts yet; try again");
    return sanlock_fail(err, rv, "cannot ask sanlock for hosts");
}

static enum host_state state_of(uint32_t flags)
{
    uint32_t state = flags & SANLK_HOST_MASK;
    /* A state that a newer sanlock may invent proves nothing. */
    return state >= HOST_STATE_UNKNOWN && state <= HOST_STATE_DEAD ? (enum host_state)state
                                                                   : HOST_STATE_UNKNOWN;
}

static struct host_status status_of(const struct sanlk_host *host)
{
    return (struct host_status){
        .host_id = (uint32_t)host->host_id,
        .generation = host->generation,
        .state = state_of(host->flags),
        .timestamp = host->timestamp,
    };
}

static bool has(const struct host_status *list, int n, uint32_t host_id)
{
    for (int i = 0; i < n; i++)
        if (list[i].host_id == host_id)
            return true;
    return false;
}

/* Appends that host if sanlock knows it; the new count, or an error. */
static int add_one(const char *lockspace, uint32_t host_id, struct host_status *list, int n,
                   struct error *err)
{
    struct sanlk_host *host;
    int count;
    int rv = get_hosts(lockspace, host_id, &host, &count, err);
    if (rv < 0)
        return rv;
    if (count == 1 && host->host_id == host_id && host->generation > 0)
        list[n++] = status_of(host);
    free(host);
    return n;
}

int membership_hosts(const struct uuid *pool_id, const uint32_t *also, uint32_t n_also,
                     struct host_status **ret, struct error *err)
{
    char lockspace[48];
    struct sanlk_host *hosts;
    int n;
    pool_lockspace(pool_id, lockspace);
    int rv = get_hosts(lockspace, 0, &hosts, &n, err);
    if (rv < 0)
        return rv;

    struct host_status *list = calloc((size_t)n + n_also + 1, sizeof *list);
    if (!list)
        abort();
    for (int i = 0; i < n; i++)
        list[i] = status_of(&hosts[i]);
    free(hosts);
    for (uint32_t i = 0; n >= 0 && i < n_also; i++)
        if (!has(list, n, also[i]))
            n = add_one(lockspace, also[i], list, n, err);
    if (n < 0)
        free(list);
    else
        *ret = list;
    return n;
}

/*
 * sanlock_get_hosts answers EAGAIN for one's own host until the daemon's first look at all leases,
 * some seconds after the join, so the lease itself is read.
 */
static int read_own(const struct sanlk_lockspace *ls, const char *lockspace,
                    const struct uuid *pool_id, struct delta_lease *ret, struct error *err)
{
    struct superblock sb;
    int fd = io_open(ls->host_id_disk.path, 0, err);
    if (fd < 0)
        return fd;
    int rv = superblock_read(fd, &sb, err);
    if (rv == 0 &&
        (!uuid_equal(&sb.pool_id, pool_id) || ls->host_id > sb.layout.max_nodes || ls->host_id < 1))
        rv = error_set(err, LUNAR_E_FOREIGN, "%s carries another pool now", ls->host_id_disk.path);
    if (rv == 0)
        rv = lease_read(fd, &sb.layout, lockspace, (uint32_t)ls->host_id, ret, err);
    close(fd);
    return rv;
}

int membership_find(const struct uuid *pool_id, uint32_t *ret_host_id, uint64_t *ret_generation,
                    struct error *err)
{
    char lockspace[48];
    struct sanlk_lockspace ls;
    pool_lockspace(pool_id, lockspace);
    int rv = sanlock_find_lockspace(lockspace, &ls, err);
    if (rv < 0)
        return rv;
    if (rv == 0 || ls.flags & (SANLK_LSF_ADD | SANLK_LSF_REM))
        return error_set(err, LUNAR_E_NOT_JOINED, "this node has not joined the pool");

    struct delta_lease own;
    rv = read_own(&ls, lockspace, pool_id, &own, err);
    if (rv < 0)
        return rv;
    if (own.owner_id != ls.host_id || own.timestamp == 0)
        return error_set(err, LUNAR_E_NOT_JOINED,
                         "on the LUN host id %" PRIu32 " is not this node's any more", own.host_id);
    *ret_host_id = own.host_id;
    *ret_generation = own.generation;
    return 0;
}
