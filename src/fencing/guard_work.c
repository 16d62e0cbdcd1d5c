/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's blocking work; see guard_work.h.
 *
 * Lease thread: register -> RESTRICT_SIGKILL -> killpath -> USED -> SHARED acquire, in this order:
 * sanlock copies restriction and killpath at the acquire, and USED stands before anything could be
 * mapped (SAFETY 9, 11). SIGKILL alone is restricted: with SIGTERM, too, sanlock 3.9.5 was measured
 * to send SIGKILL at once. Later: USED cleared, lease released.
 *
 * Renewal thread: asks the local daemon, not the LUN, for the timestamp of our own lease. What it
 * shows is what the last renewal has *read*, so that it is one renewal behind, measured; but that
 * it changes means that a renewal has just been made, at most a second before (sanlock's loop). So
 * a change counts as a renewal at the time when the look *before* the one that saw it began, which
 * did not show it yet: not when it was seen, because this thread may have slept in between. That is
 * from RENEWAL_LOOK_MS before the renewal was made to a second after (timeouts.c). The first one
 * has no look before it, and counts as the second of the monotonic clock that it says. A daemon
 * that is stopped holds this thread, not the guard.
 *
 * Device-mapper thread: rounds of guard_dm.c, which wait for I/O in flight.
 *
 * Failure modes: the daemon is gone, or the lockspace lost: START_FAILED with `lost`; USED cannot
 * be cleared: RELEASE_FAILED, and the watchdog decides if it stays so. A lockspace or a daemon that
 * is not there any more has nothing to clear: RELEASED.
 */
#include "fencing/guard_work.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/log.h"
#include "fencing/guard_lease.h"
#include "fencing/guard_threads.h"
#include "fencing/lockspace.h"
#include "fencing/sanlock_calls.h"

/* A quarter of the shortest time between two renewals: 2N with N = 1. */
#define RENEWAL_LOOK_MS 500

static void post(struct guard_work *work, const struct guard_result *result)
{
    ssize_t n = write(work->results[1], result, sizeof *result);
    (void)n; /* less than PIPE_BUF: whole, and the pipe is never full */
}

static void post_type(struct guard_work *work, enum guard_event_type type)
{
    post(work, &(struct guard_result){.type = type});
}

static void order(const int jobs[2], char job)
{
    ssize_t n = write(jobs[1], &job, 1);
    (void)n;
}

static char next_job(const int jobs[2])
{
    char job = 0;
    while (read(jobs[0], &job, 1) != 1)
        if (errno != EINTR)
            abort(); /* nobody closes it */
    return job;
}

/* --- the lease --- */

/* sanlock splits the arguments at blanks and knows backslashes. */
static int killpath_text(const struct guard_options *o, char path[SANLK_HELPER_PATH_LEN],
                         char args[SANLK_HELPER_ARGS_LEN], struct error *err)
{
    char own[4096];
    ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    own[n < 0 ? 0 : n] = '\0';
    const char *use = o->killpath ? o->killpath : own;
    int len = snprintf(path, SANLK_HELPER_PATH_LEN, "%s", use);
    if (len >= SANLK_HELPER_PATH_LEN || use[0] != '/')
        return error_set(err, LUNAR_E_INVALID,
                         "sanlock cannot run '%s' when it loses the lease: an absolute path of at "
                         "most %d bytes is needed",
                         use, SANLK_HELPER_PATH_LEN - 1);
    len = snprintf(args, SANLK_HELPER_ARGS_LEN, "--wake %s %" PRIu32 " %" PRIu64, o->socket,
                   o->host_id, o->generation);
    if (len >= SANLK_HELPER_ARGS_LEN || strpbrk(o->socket, " \t\\"))
        return error_set(err, LUNAR_E_INVALID,
                         "the socket's path %s is too long for sanlock's killpath, or has blanks: "
                         "choose another run directory",
                         o->socket);
    return 0;
}

static int register_with_sanlock(struct guard_work *work, struct error *err)
{
    char path[SANLK_HELPER_PATH_LEN], args[SANLK_HELPER_ARGS_LEN];
    int rv = killpath_text(work->options, path, args, err);
    if (rv < 0)
        return rv;
    int fd = sanlock_open_socket(err);
    if (fd < 0)
        return fd;
    rv = sanlock_restrict(fd, SANLK_RESTRICT_SIGKILL);
    if (rv >= 0)
        rv = sanlock_killpath(fd, 0, path, args);
    if (rv < 0) {
        close(fd);
        return sanlock_fail(err, rv, "cannot tell sanlock how to wake the guard");
    }
    work->sanlock_fd = fd;
    return 0;
}

static int get_lease(struct guard_work *work, struct error *err)
{
    const struct guard_options *o = work->options;
    int rv = register_with_sanlock(work, err);
    if (rv == 0)
        rv = member_set_used(&o->sb.pool_id, true, err);
    if (rv == 0)
        rv = member_acquire(work->sanlock_fd, &o->sb, o->device, err);
    return rv;
}

/* ENOENT: no such lockspace; ENOSPC: it is there and dead (measured). */
static bool is_lost(int rv)
{
    return rv == -ECONNREFUSED || rv == -ENOENT || rv == -ENOSPC;
}

static void start(struct guard_work *work)
{
    struct error err = ERROR_INIT;
    struct guard_result result = {.type = GUARD_EVENT_ACQUIRED};
    int rv = get_lease(work, &err);
    if (rv < 0) {
        result.type = GUARD_EVENT_START_FAILED;
        result.code = rv;
        result.lost = is_lost(rv);
        snprintf(result.reason, sizeof result.reason, "%s", err.text);
        /* The first guard of its generation: nothing can be mapped under it. After one that was
         * killed, whatever it said last, maps may stand, and USED is what watches over them. */
        if (work->resumed == GUARD_PERMIT_NONE)
            member_set_used(&work->options->sb.pool_id, false, NULL);
    }
    post(work, &result);
}

static void release(struct guard_work *work)
{
    struct error err = ERROR_INIT;
    int rv = member_set_used(&work->options->sb.pool_id, false, &err);
    if (rv < 0 && !is_lost(rv)) {
        log_error("used_not_cleared code=%s reason=\"%s\"", error_name(rv), err.text);
        post_type(work, GUARD_EVENT_RELEASE_FAILED);
        return;
    }
    if (work->sanlock_fd >= 0) {
        rv = sanlock_release(work->sanlock_fd, -1, SANLK_REL_ALL, 0, NULL);
        if (rv < 0) /* the exit closes the socket, which releases it as well */
            log_warn("lease_not_released sanlock=%d", rv);
    }
    post_type(work, GUARD_EVENT_RELEASED);
}

static void *lease_thread(void *data)
{
    struct guard_work *work = data;
    if (work->resumed != GUARD_PERMIT_FENCED)
        start(work);
    for (;;) {
        next_job(work->lease_jobs);
        release(work);
    }
    return NULL;
}

/* --- the renewals --- */

static uint64_t own_timestamp(const struct guard_work *work)
{
    struct sanlk_host *hosts = NULL;
    uint64_t timestamp = 0;
    int n = 0;
    int rv = sanlock_get_hosts(work->lockspace, work->options->host_id, &hosts, &n, 0);
    for (int i = 0; rv >= 0 && i < n; i++)
        if (hosts[i].host_id == work->options->host_id &&
            hosts[i].generation == work->options->generation)
            timestamp = hosts[i].timestamp;
    free(hosts);
    return timestamp;
}

static void *renewal_thread(void *data)
{
    struct guard_work *work = data;
    uint64_t last = 0;
    int64_t before = clock_ms(); /* when the look before began: a change came no earlier */
    for (;;) {
        int64_t begin = clock_ms();
        uint64_t timestamp = own_timestamp(work);
        int64_t says = (int64_t)timestamp * 1000;
        /* Not when the change was seen: this thread may have slept between the two looks. */
        if (timestamp > last)
            post(work, &(struct guard_result){.type = GUARD_EVENT_RENEWED,
                                              .renewed_ms = last || says > before ? before : says});
        before = begin;
        last = timestamp > last ? timestamp : last;
        lockspace_pause(RENEWAL_LOOK_MS);
    }
    return NULL;
}

/* --- device-mapper --- */

static void wipe(struct guard_work *work)
{
    int64_t begin = clock_ms();
    bool proven = guard_dm_wipe(&work->dm);
    log_line(proven ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
             "wiped proven=%d maps=%u ms=%d reason=\"%s\"", proven, work->dm.n,
             (int)(clock_ms() - begin), work->dm.reason);
    post_type(work, proven ? GUARD_EVENT_PROVEN : GUARD_EVENT_NOT_PROVEN);
}

static void stop(struct guard_work *work)
{
    int64_t begin = clock_ms();
    guard_dm_stop(&work->dm);
    log_info("stopped maps=%u ms=%d", work->dm.n, (int)(clock_ms() - begin));
}

static void count(struct guard_work *work)
{
    post_type(work, guard_dm_count(&work->dm) == 0 ? GUARD_EVENT_EMPTY : GUARD_EVENT_NOT_EMPTY);
}

static void *dm_thread(void *data)
{
    struct guard_work *work = data;
    for (;;) {
        char job = next_job(work->dm_jobs);
        if (job == 's')
            stop(work);
        else if (job == 'w')
            wipe(work);
        else
            count(work);
    }
    return NULL;
}

int guard_work_start(struct guard_work *work, const struct guard_options *options,
                     struct error *err)
{
    work->options = options;
    work->sanlock_fd = -1;
    pool_lockspace(&options->sb.pool_id, work->lockspace);
    if (pipe2(work->results, O_CLOEXEC) < 0 || pipe2(work->lease_jobs, O_CLOEXEC) < 0 ||
        pipe2(work->dm_jobs, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    bool without_dm = options->sb.flags & SUPERBLOCK_FLAG_TEST;
    int rv = guard_dm_open(&work->dm, &options->sb.pool_id, without_dm, err);
    if (rv == 0)
        rv = guard_thread_start(dm_thread, work, err);
    if (rv == 0)
        rv = guard_thread_start(renewal_thread, work, err);
    if (rv == 0)
        rv = guard_thread_start(lease_thread, work, err);
    return rv;
}

void guard_work_stop(struct guard_work *work)
{
    order(work->dm_jobs, 's');
}

void guard_work_wipe(struct guard_work *work)
{
    order(work->dm_jobs, 'w');
}

void guard_work_count(struct guard_work *work)
{
    order(work->dm_jobs, 'c');
}

void guard_work_release(struct guard_work *work)
{
    order(work->lease_jobs, 'r');
}
