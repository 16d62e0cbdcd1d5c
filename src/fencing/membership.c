/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's membership of a pool: join, watch, leave; see membership.h.
 *
 * Happy path of a join: ask the daemon who it is -> lockspace (lockspace.c) -> the watchdog is
 * armed -> USED -> member lease. USED comes before the lease and stays through a crash of this
 * process (SAFETY 9): from then on a node that loses the LUN is reset by its watchdog, whatever
 * became of us. The lease is what makes sanlock act on this process at all. The membership is (host
 * id, generation), read from the delta lease on the LUN, not from a cache.
 *
 * Failure modes: every check that fails before the lockspace is added leaves nothing; after it, the
 * lockspace is removed again unless it was joined before us. A leave that sanlock refuses (a
 * coordinator on this node still holds its lease) puts USED and the member lease back, so that the
 * node stays guarded. killpath is not set here: until the guard (SAFETY 11) exists, a node that
 * loses the LUN is reset.
 */
#include "fencing/membership.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/io.h"
#include "fencing/leases.h"
#include "fencing/lockspace.h"
#include "fencing/sanlock_calls.h"
#include "fencing/sanlock_daemon.h"
#include "fencing/timeouts.h"

/*
 * A shared acquire goes through a short exclusive hold, so simultaneous ones refuse each other.
 * Twenty hosts at once were measured to have it after 3.1 s with these pauses; 30 s cover a rack
 * that boots together.
 */
#define ACQUIRE_LIMIT_S      30
#define ACQUIRE_PAUSE_MIN_MS 50
#define ACQUIRE_PAUSE_MAX_MS 500

struct membership {
    int fd; /* registered with sanlock; the member lease hangs on it */
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

static int64_t random_pause_ms(void)
{
    uint16_t r = 0;
    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
        r = (uint16_t)getpid();
    return ACQUIRE_PAUSE_MIN_MS + r % (ACQUIRE_PAUSE_MAX_MS - ACQUIRE_PAUSE_MIN_MS + 1);
}

/*
 * -243..-247: another host is in the middle of its own acquire. EAGAIN, EBUSY, EEXIST: our
 * predecessor's socket is closed, but the daemon is still releasing its lease.
 */
static bool worth_retrying(int rv)
{
    return (rv <= SANLK_ACQUIRE_IDLIVE && rv >= SANLK_ACQUIRE_OWNED_RETRY) || rv == -EAGAIN ||
           rv == -EBUSY || rv == -EEXIST;
}

static int acquire_member(struct membership *m, struct error *err)
{
    struct sanlk_resource *res =
        sanlock_make_resource(&m->sb, m->device, LAYOUT_RESOURCE_MEMBER, SANLK_RES_SHARED);
    int64_t end = lockspace_now_s() + ACQUIRE_LIMIT_S;
    int rv;
    for (;;) {
        rv = sanlock_acquire(m->fd, -1, SANLK_ACQUIRE_OWNER_NOWAIT, 1, &res, NULL);
        if (rv >= 0 || !worth_retrying(rv) || lockspace_now_s() >= end)
            break;
        lockspace_pause((int)random_pause_ms());
    }
    free(res);
    return rv < 0 ? sanlock_fail(err, rv, "cannot get the member lease") : 0;
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

static int set_used(const struct membership *m, bool used, struct error *err)
{
    int rv =
        sanlock_set_config(m->lockspace, 0, used ? SANLK_CONFIG_USED : SANLK_CONFIG_UNUSED, NULL);
    return rv < 0 ? sanlock_fail(err, rv,
                                 used ? "cannot mark the lockspace as used"
                                      : "cannot mark the lockspace as unused")
                  : 0;
}

/* What follows the lockspace, in the order that SAFETY 9 and 12 demand. */
static int finish_join(struct membership *m, struct error *err)
{
    int rv = 0;
    if (!(m->sb.flags & SUPERBLOCK_FLAG_TEST))
        rv = watchdog_check(true, (int)m->sb.watchdog_fire_timeout_s, err);
    if (rv == 0)
        rv = read_generation(m, err);
    if (rv == 0)
        rv = set_used(m, true, err);
    if (rv == 0)
        rv = acquire_member(m, err);
    return rv;
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
    sanlock_release(m->fd, -1, SANLK_REL_ALL, 0, NULL);
    set_used(m, false, NULL);
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
    uint64_t lver = 0;
    int rv = sanlock_find_lockspace(m->lockspace, &ls, err);
    if (rv == -ECONNREFUSED)
        return error_set(err, LUNAR_E_NOT_JOINED, "the sanlock daemon is gone");
    if (rv < 0)
        return rv; /* it could not be asked: no answer is not "no" */
    if (rv > 0)
        rv = sanlock_inq_lockspace(&ls, 0) == 0 && ls.host_id == m->host_id;
    if (rv == 0)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node is not a member of the pool any more");
    rv = sanlock_holds(m->fd, m->lockspace, sanlock_resource_names[LAYOUT_RESOURCE_MEMBER], &lver,
                       err);
    if (rv < 0)
        return rv;
    return rv == 1 ? 0
                   : error_set(err, LUNAR_E_NOT_JOINED, "sanlock has taken the member lease away");
}

/* sanlock refused the leave: guard the node again before anybody can map anything. */
static int stay(struct membership *m, int rem_rv, struct error *err)
{
    struct error again = ERROR_INIT;
    int rv = set_used(m, true, &again);
    if (rv == 0)
        rv = acquire_member(m, &again);
    if (rv < 0)
        return error_set(err, rv, "the leave failed (sanlock %d), and so did staying: %s", rem_rv,
                         again.text);
    if (rem_rv == -EBUSY)
        return error_set(err, LUNAR_E_IN_USE,
                         "another process on this node still uses the pool (a coordinator?): stop "
                         "it, then leave again");
    return sanlock_fail(err, rem_rv, "sanlock did not leave the pool");
}

int membership_leave(struct membership *m, struct error *err)
{
    /* As the daemon knows it: it may have been joined through another path to the same device. */
    struct sanlk_lockspace ls;
    int found = sanlock_find_lockspace(m->lockspace, &ls, err);
    if (found < 0)
        return found;
    int rv = sanlock_release(m->fd, -1, SANLK_REL_ALL, 0, NULL);
    if (rv < 0)
        return sanlock_fail(err, rv, "cannot release the member lease");
    if (found == 1) {
        rv = set_used(m, false, err);
        if (rv < 0)
            return rv;
        ls.flags = 0;
        /* UNUSED: without it sanlock would kill whoever holds a lease here instead of refusing. */
        rv = sanlock_rem_lockspace(&ls, SANLK_REM_UNUSED);
        if (rv < 0 && rv != -ENOENT)
            return stay(m, rv, err);
    }
    membership_free(m);
    return 0;
}

void membership_abandon(struct membership *m)
{
    membership_free(m);
}
