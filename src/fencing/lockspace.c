/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting a host id and the lockspace joined under it; see lockspace.h.
 *
 * Happy path: read all delta leases, choose an id (leases_choose), claim it if it is free
 * (host_id.c), add the lockspace: 1 s under the id that this host left cleanly, 2N to 5N under one
 * never used or kept through a power cut. Joined already (the agent was restarted): the daemon's
 * list has the lockspace, and its host id is ours; nothing is read.
 *
 * Failure modes:
 *
 * Our name on a running lease. Usually our own, from before a power cut. But sanlock lets a second
 * host of that name take it over within seconds while the first one lives, so the lease is watched
 * for 3N, more than one renewal, and a timestamp that moves means another machine: refused. Only a
 * cloned machine identity can cause it. Two clones that start within the same seconds see no
 * movement yet; the one that loses the id is stopped by its own watchdog. Where a coordinator has
 * put on the LUN that this very life of the host id is proved over, there is nothing to watch for;
 * where its beat says that it has watched the lease as it is for 3N already (diskrpc/beat.h), one
 * look at the lease, after the beat, ends the watch.
 *
 * Another node claims the id that we chose: another one at once. The id was taken while we joined:
 * sanlock says busy after 8N + W; that id is avoided and another one chosen.
 *
 * The daemon is still removing the lockspace from a former life. Wait, bounded by the time after
 * which it is dead anyway.
 */
#include "fencing/lockspace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/io.h"
#include "diskrpc/beat.h"
#include "diskrpc/table.h"
#include "fencing/host_id.h"
#include "fencing/sanlock_calls.h"

/* A lost race costs up to 8N + W; whoever loses five has a pool in which ids are handed out
 * wrongly. */
#define JOIN_ATTEMPTS 5
#define POLL_MS       100
#define WATCH_MS      250

/* What one join goes through, however many ids it takes. */
struct joining {
    struct lockspace_join *join;
    struct host_id_claims claims;
    bool *avoid;         /* [host id - 1]: lost to another node */
    unsigned lost;       /* how many of them */
    unsigned races_lost; /* of which sanlock had to decide */
};

void lockspace_pause(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}

int64_t lockspace_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

void lockspace_tell(const struct membership_config *config, const char *format, ...)
{
    if (!config->progress)
        return;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    config->progress(config->data, text);
}

/* Two paths may name one device; which of them sanlock got is no matter. */
static bool same_device(const char *a, const char *b)
{
    struct stat sa, sb;
    if (strcmp(a, b) == 0)
        return true;
    if (stat(a, &sa) < 0 || stat(b, &sb) < 0)
        return false;
    if (S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode))
        return sa.st_rdev == sb.st_rdev;
    return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* sanlock's result when it has decided: 0 joined, -ENOENT it has given up, others as they come. */
static int wait_joined(struct sanlk_lockspace *ls, int limit_s)
{
    int64_t end = lockspace_now_s() + limit_s;
    for (;;) {
        int rv = sanlock_inq_lockspace(ls, 0);
        if (rv != -EINPROGRESS || lockspace_now_s() >= end)
            return rv;
        lockspace_pause(POLL_MS);
    }
}

/* An id whose owner must first be waited out takes 8N + W and up to 6N more, then it is decided. */
static int join_limit_s(const struct lockspace_join *join)
{
    return 2 * join->timeouts.dead_s + 10 * join->timeouts.io_timeout_s;
}

/* The daemon has it joined or is about to: 1 joined, 0 it came to nothing. */
static int adopt(struct lockspace_join *join, struct sanlk_lockspace *ls, struct error *err)
{
    if (!same_device(ls->host_id_disk.path, join->config->device))
        return error_set(err, LUNAR_E_INVALID,
                         "this node has joined the pool through %s, not %s: use that path, or "
                         "leave the pool first (lunarctl node leave)",
                         ls->host_id_disk.path, join->config->device);
    int rv = wait_joined(ls, join_limit_s(join));
    if (rv == -ENOENT)
        return 0;
    if (rv < 0)
        return sanlock_fail(err, rv, "cannot take over the lockspace that sanlock has joined");
    join->host_id = (uint32_t)ls->host_id;
    join->added = false;
    return 1;
}

/* Waits until sanlock has finished removing it. 0: gone; LUNAR_E_BUSY: not in time. */
static int wait_removed(struct lockspace_join *join, const char *name, struct error *err)
{
    int64_t end = lockspace_now_s() + join->timeouts.dead_s;
    lockspace_tell(join->config, "sanlock is still leaving the pool; waiting for it");
    while (lockspace_now_s() < end) {
        struct sanlk_lockspace ls;
        int rv = sanlock_find_lockspace(name, &ls, err);
        if (rv <= 0)
            return rv;
        lockspace_pause(POLL_MS);
    }
    return error_set(
        err, LUNAR_E_BUSY,
        "sanlock has been leaving the pool for %d s and is not done: an I/O to the LUN "
        "hangs; see sanlock's log",
        join->timeouts.dead_s);
}

/* 1: it was joined already; 0: it is not in the daemon's list any more. */
static int join_existing(struct lockspace_join *join, const char *name, struct error *err)
{
    struct sanlk_lockspace ls;
    int rv = sanlock_find_lockspace(name, &ls, err);
    if (rv <= 0)
        return rv;
    if (ls.flags & SANLK_LSF_REM)
        return wait_removed(join, name, err);
    return adopt(join, &ls, err);
}

/* A coordinator first saw the lease with these very values 3N ago or more. Of whatever term, and
 * however old the beat is: the caller sees that the lease still has them. */
static bool was_watched(const struct lockspace_join *join, int fd, const struct delta_lease *lease)
{
    const struct superblock *sb = join->config->superblock;
    struct beat beat;
    if (beat_read(fd, &sb->layout, &sb->pool_id, &beat, NULL) < 0)
        return false;
    for (uint32_t i = 0; i < beat.n_still; i++)
        if (beat.still[i].host_id == lease->host_id &&
            beat.still[i].generation == lease->generation &&
            beat.still[i].timestamp == lease->timestamp)
            return true;
    return false;
}

/* SAFETY 7: see the head of this file. */
static int watch_same_name(struct lockspace_join *join, int fd, const char *name,
                           const struct delta_lease *then, struct error *err)
{
    const struct superblock *sb = join->config->superblock;
    const struct layout *layout = &sb->layout;
    int watch_s = join->timeouts.same_name_watch_s;
    /* Who lived a life that a coordinator has proved over may not go on. */
    if (table_read_marks_dead(fd, layout, then->host_id, &sb->pool_id, then->generation))
        return 0;
    lockspace_tell(join->config,
                   "host id %" PRIu32 " carries this node's name; watching it for %d s",
                   then->host_id, watch_s);
    bool watched = false;
    for (int64_t end = clock_ms() + (int64_t)watch_s * 1000; !watched && clock_ms() < end;) {
        struct delta_lease now;
        lockspace_pause(WATCH_MS);
        watched = was_watched(join, fd, then); /* before the look at the lease */
        int rv = lease_read(fd, layout, name, then->host_id, &now, err);
        if (rv < 0)
            return rv;
        if (now.timestamp != then->timestamp || now.generation != then->generation)
            return error_set(err, LUNAR_E_ALIVE,
                             "another machine is alive as host id %" PRIu32 " under this node's "
                             "name %s: it has the same node name and the same machine identity "
                             "(a cloned DMI product UUID or /etc/machine-id?). Give this machine "
                             "an identity or a node name of its own",
                             then->host_id, join->host_name);
    }
    return 0;
}

/* Free ids that nobody claims come first. `avoid` has those that were lost already. */
static int choose_unclaimed(struct joining *j, const struct delta_lease *leases,
                            bool *ret_same_name, struct error *err)
{
    uint32_t n = j->claims.superblock->layout.max_nodes;
    bool *worse = malloc(n * sizeof *worse);
    if (!worse)
        abort();
    memcpy(worse, j->avoid, n * sizeof *worse);
    int rv = host_id_avoid_claimed(&j->claims, leases, worse, err);
    if (rv == 0)
        rv = leases_choose(leases, n, j->join->host_name, worse, &j->join->host_id, ret_same_name,
                           err);
    if (rv == LUNAR_E_FULL)
        rv = leases_choose(leases, n, j->join->host_name, j->avoid, &j->join->host_id,
                           ret_same_name, err);
    if (rv == LUNAR_E_FULL && j->lost > 0)
        rv = error_set(err, LUNAR_E_BUSY,
                       "other nodes that join at the same time were faster with the last free "
                       "host ids; it is tried again");
    free(worse);
    return rv;
}

/* 1: join->host_id is to be added; 0: another node claims it, choose again. */
static int choose(struct joining *j, struct error *err)
{
    struct lockspace_join *join = j->join;
    const struct superblock *sb = join->config->superblock;
    struct delta_lease *leases = calloc(sb->layout.max_nodes, sizeof *leases);
    if (!leases)
        abort();
    bool same_name = false;
    int rv = leases_read(j->claims.fd, &sb->layout, j->claims.lockspace, leases, err);
    if (rv == 0)
        rv = choose_unclaimed(j, leases, &same_name, err);
    if (rv == 0 && same_name)
        rv = watch_same_name(join, j->claims.fd, j->claims.lockspace, &leases[join->host_id - 1],
                             err);
    if (rv == 0 && join->config->candidate)
        rv = join->config->candidate(join->config->data, join->host_id,
                                     leases[join->host_id - 1].generation + 1, err);
    if (rv == 0)
        rv = same_name ? 1 : host_id_claim(&j->claims, &leases[join->host_id - 1], err);
    free(leases);
    return rv;
}

/*
 * One attempt under join->host_id: 1 joined, 0 lost to another host, or an error. The call waits
 * for the outcome: after an asynchronous add an inquiry says no more than ENOENT, whatever the
 * reason was.
 */
static int add(struct lockspace_join *join, struct error *err)
{
    const struct superblock *sb = join->config->superblock;
    struct sanlk_lockspace ls;
    sanlock_fill_lockspace(&ls, sb, join->config->device, join->host_id);
    lockspace_tell(join->config, "joining as host id %" PRIu32, join->host_id);
    int rv = sanlock_add_lockspace_timeout(&ls, 0, sb->io_timeout_s);
    if (rv == -EEXIST || rv == -EINPROGRESS) /* somebody else on this node is joining, too */
        rv = wait_joined(&ls, join_limit_s(join));
    if (rv == SANLK_HOSTID_BUSY || rv == SANLK_RENEW_DIFF || rv == SANLK_RENEW_OWNER)
        return 0;
    if (rv < 0)
        return sanlock_fail(err, rv, "sanlock could not join the pool's lockspace");
    join->added = true;
    return 1;
}

/* One choice and, if no other node claims it, one attempt: 1 joined, 0 again with another id. */
static int try_one(struct joining *j, struct error *err)
{
    int rv = choose(j, err);
    if (rv == 1) {
        rv = add(j->join, err);
        j->races_lost += rv == 0;
    }
    if (rv == 0) {
        j->avoid[j->join->host_id - 1] = true;
        j->lost++;
    }
    return rv;
}

static int join_new(struct joining *j, struct error *err)
{
    int rv = 0;
    while (rv == 0 && j->races_lost < JOIN_ATTEMPTS)
        rv = try_one(j, err); /* each loss leaves fewer ids, so this ends */
    if (rv == 0)
        return error_set(err, LUNAR_E_BUSY,
                         "other hosts took every one of the %d host ids that were tried; try again",
                         JOIN_ATTEMPTS);
    if (rv < 0)
        return rv;
    if (j->lost > 0)
        lockspace_tell(j->join->config, "%u host ids went to other nodes on the way", j->lost);
    /* Left there, it would only look like a damaged page to take_run. */
    host_id_clear_claim(&j->claims, j->join->host_id, NULL);
    return 0;
}

int lockspace_join(struct lockspace_join *join, struct error *err)
{
    char name[48];
    pool_lockspace(&join->config->superblock->pool_id, name);
    int rv = join_existing(join, name, err);
    if (rv != 0)
        return rv < 0 ? rv : 0;

    const struct superblock *sb = join->config->superblock;
    struct joining j = {.join = join,
                        .claims = {.superblock = sb,
                                   .lockspace = name,
                                   .node_name = join->config->node_name,
                                   .wait_ms = join->timeouts.claim_wait_ms},
                        .avoid = calloc(sb->layout.max_nodes, sizeof(bool))};
    if (!j.avoid)
        abort();
    rv = j.claims.fd = io_open(join->config->device, 1, err);
    if (rv >= 0)
        rv = join_new(&j, err);
    if (j.claims.fd >= 0)
        close(j.claims.fd);
    free(j.avoid);
    return rv;
}
