/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's membership of a pool: join, watch, leave; see membership.h.
 *
 * Happy path of a join: ask the daemon who it is -> lockspace (lockspace.c) -> the watchdog is
 * armed -> the membership is (host id, generation), read from the delta lease on the LUN, not from
 * a cache. USED and the member lease, which make sanlock and the watchdog act on this node, are the
 * guard's (SAFETY 9, 11); until it has them nothing is mapped.
 *
 * Failure modes: every check that fails before the lockspace is added leaves nothing; after it, the
 * lockspace is removed again unless it was joined before us. A leave that sanlock refuses (a
 * coordinator on this node still holds its lease) leaves the lockspace joined and nothing mapped.
 */
#include "fencing/membership.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "fencing/guard_lease.h"
#include "fencing/leases.h"
#include "fencing/lockspace.h"
#include "fencing/sanlock_calls.h"
#include "fencing/sanlock_daemon.h"
#include "fencing/timeouts.h"

struct membership {
    int fd; /* registered with sanlock, to see it go */
    uint32_t host_id;
    uint64_t generation;
    struct superblock sb;
    char *device;
    char lockspace[48];
    char host_name[LEASES_NAME_SIZE];
};

/* The identity that sanlock must carry. Several daemons on one machine are several machines only in
 * a test pool. */
static int expected_host_name(const struct membership_config *config, char ret[LEASES_NAME_SIZE],
                              struct error *err)
{
    char id[128];
    const char *override = getenv("LUNAR_MACHINE_ID");
    if (override && (config->superblock->flags & SUPERBLOCK_FLAG_TEST)) {
        leases_host_name(config->node_name, override, ret);
        return 0;
    }
    int rv = leases_machine_id(id, sizeof id, err);
    if (rv == 0)
        leases_host_name(config->node_name, id, ret);
    return rv;
}

/* SAFETY 7 and 12, as far as they can be seen before the join. */
static int check_daemon(const struct membership_config *config, char ret_name[LEASES_NAME_SIZE],
                        struct error *err)
{
    const struct superblock *sb = config->superblock;
    struct sanlock_daemon daemon;
    int rv = expected_host_name(config, ret_name, err);
    if (rv == 0)
        rv = sanlock_daemon_read(&daemon, err);
    if (rv < 0)
        return rv;

    if (strcmp(daemon.host_name, ret_name) != 0)
        return error_set(err, LUNAR_E_INVALID,
                         "sanlock runs as host '%s', but node %s on this machine must be '%s': put "
                         "our_host_name = %s into /etc/sanlock/sanlock.conf, or start it with "
                         "`sanlock daemon -e $(lunarctl node identity)`",
                         daemon.host_name, config->node_name, ret_name, ret_name);
    if ((uint32_t)daemon.watchdog_fire_timeout_s != sb->watchdog_fire_timeout_s)
        return error_set(err, LUNAR_E_INVALID,
                         "sanlock's watchdog_fire_timeout is %d s, the pool's is %" PRIu32
                         ": others would take this node for dead at the wrong time. Set "
                         "watchdog_fire_timeout = %" PRIu32 " in /etc/sanlock/sanlock.conf and "
                         "restart sanlock%s",
                         daemon.watchdog_fire_timeout_s, sb->watchdog_fire_timeout_s,
                         sb->watchdog_fire_timeout_s,
                         strncmp(daemon.version, "3.8", 3) == 0
                             ? " (version 3.8 knows 60 only; 3.9 is needed)"
                             : "");
    if (sb->flags & SUPERBLOCK_FLAG_TEST)
        return 0;
    if (!daemon.use_watchdog)
        return error_set(err, LUNAR_E_NO_WATCHDOG,
                         "sanlock runs without a watchdog (-w 0), so nothing would reset this node "
                         "when it must die: remove `-w 0` from its command line (Debian: "
                         "/etc/default/sanlock) and restart it");
    return watchdog_check(false, (int)sb->watchdog_fire_timeout_s, err);
}

/* Our own delta lease, from the LUN: the generation, and once more that the id is ours. */
static int read_generation(struct membership *m, struct error *err)
{
    struct delta_lease own;
    int fd = io_open(m->device, 0, err);
    if (fd < 0)
        return fd;
    int rv = lease_read(fd, &m->sb.layout, m->lockspace, m->host_id, &own, err);
    close(fd);
    if (rv < 0)
        return rv;
    if (own.owner_id != m->host_id || own.timestamp == 0 ||
        strcmp(own.owner_name, m->host_name) != 0)
        return error_set(err, LUNAR_E_ALIVE,
                         "host id %" PRIu32
                         " was joined, but on the LUN it belongs to '%s': another "
                         "host took it",
                         m->host_id, own.owner_name);
    m->generation = own.generation;
    return 0;
}

/* SAFETY 12: seen before anything may be mapped. */
static int finish_join(struct membership *m, struct error *err)
{
    int rv = 0;
    if (!(m->sb.flags & SUPERBLOCK_FLAG_TEST))
        rv = watchdog_check(true, (int)m->sb.watchdog_fire_timeout_s, err);
    return rv == 0 ? read_generation(m, err) : rv;
}

static void membership_free(struct membership *m)
{
    if (m->fd >= 0)
        close(m->fd);
    free(m->device);
    free(m);
}

/* Nothing of ours is mapped yet, so the node owes nobody a reset. */
static void undo_join(struct membership *m)
{
    struct sanlk_lockspace ls;
    sanlock_fill_lockspace(&ls, &m->sb, m->device, m->host_id);
    sanlock_rem_lockspace(&ls, SANLK_REM_UNUSED);
}

static struct membership *membership_new(const struct membership_config *config)
{
    struct membership *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->sb = *config->superblock;
    m->device = strdup(config->device);
    if (!m->device)
        abort();
    pool_lockspace(&m->sb.pool_id, m->lockspace);
    m->fd = -1;
    return m;
}

int membership_join(const struct membership_config *config, struct membership **ret,
                    struct error *err)
{
    const struct superblock *sb = config->superblock;
    struct lockspace_join join = {.config = config};
    int rv = timeouts_compute((int)sb->io_timeout_s, (int)sb->watchdog_fire_timeout_s,
                              &join.timeouts, err);
    if (rv == 0)
        rv = sanlock_check_device(config->device, err);
    if (rv == 0)
        rv = check_daemon(config, join.host_name, err);
    if (rv < 0)
        return rv;

    struct membership *m = membership_new(config);
    memcpy(m->host_name, join.host_name, sizeof m->host_name);
    rv = m->fd = sanlock_open_socket(err);
    if (rv >= 0)
        rv = lockspace_join(&join, err);
    if (rv >= 0) {
        m->host_id = join.host_id;
        rv = finish_join(m, err);
        if (rv < 0 && join.added)
            undo_join(m);
    }
    if (rv < 0) {
        membership_free(m);
        return rv;
    }
    *ret = m;
    return 0;
}

uint32_t membership_host_id(const struct membership *m)
{
    return m->host_id;
}

uint64_t membership_generation(const struct membership *m)
{
    return m->generation;
}

int membership_fd(const struct membership *m)
{
    return m->fd;
}

int membership_check(struct membership *m, struct error *err)
{
    struct sanlk_lockspace ls;
    int rv = sanlock_find_lockspace(m->lockspace, &ls, err);
    if (rv == -ECONNREFUSED)
        return error_set(err, LUNAR_E_NOT_JOINED, "the sanlock daemon is gone");
    if (rv < 0)
        return rv; /* it could not be asked: no answer is not "no" */
    if (rv > 0)
        rv = sanlock_inq_lockspace(&ls, 0) == 0 && ls.host_id == m->host_id;
    return rv ? 0
              : error_set(err, LUNAR_E_NOT_JOINED,
                          "this node is not a member of the pool any more");
}

int membership_leave(struct membership *m, struct error *err)
{
    /* As the daemon knows it: it may have been joined through another path to the same device. */
    struct sanlk_lockspace ls;
    int found = sanlock_find_lockspace(m->lockspace, &ls, err);
    if (found < 0)
        return found;
    if (found == 1) {
        ls.flags = 0;
        /* UNUSED: without it sanlock would kill whoever holds a lease here instead of refusing. */
        int rv = sanlock_rem_lockspace(&ls, SANLK_REM_UNUSED);
        if (rv == -EBUSY)
            return error_set(err, LUNAR_E_IN_USE,
                             "another process on this node still uses the pool (a coordinator?): "
                             "stop it, then leave again");
        if (rv < 0 && rv != -ENOENT)
            return sanlock_fail(err, rv, "sanlock did not leave the pool");
    }
    membership_free(m);
    return 0;
}

int membership_end(const struct uuid *pool_id, struct error *err)
{
    char lockspace[48];
    struct sanlk_lockspace ls;
    pool_lockspace(pool_id, lockspace);
    int found = sanlock_find_lockspace(lockspace, &ls, err);
    if (found <= 0)
        return found == -ECONNREFUSED ? 0 : found; /* no daemon: it holds nothing for us */
    if (ls.flags & (SANLK_LSF_ADD | SANLK_LSF_REM))
        return error_set(err, -EAGAIN, "sanlock is still giving up the lockspace");
    int rv = member_set_used(pool_id, false, err);
    if (rv < 0 && rv != -ENOENT)
        return rv;
    ls.flags = 0;
    rv = sanlock_rem_lockspace(&ls, 0);
    return rv < 0 && rv != -ENOENT ? sanlock_fail(err, rv, "sanlock does not give up the lockspace")
                                   : 0;
}

void membership_abandon(struct membership *m)
{
    membership_free(m);
}
