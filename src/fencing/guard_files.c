/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's files, signals and memory; see guard_files.h.
 *
 * Happy path: take the pool's lock file, so that there is one guard; end the permits of former
 * lives; open this life's permit file and see what a predecessor left there; signals into a
 * descriptor; everything into memory; listen. Failure modes: another guard runs: whoever started us
 * finds it on the socket; a permit of a former life is still held: refused, that agent must end
 * first; this life was fenced and is over: refused, there is nothing to guard.
 *
 * Memory: libsanlock exists as a shared library only, so the program is dynamic, but everything is
 * mapped and locked before the lease is asked for, and what comes later (threads' stacks, small
 * buffers of libsanlock's) is locked as it comes: nothing of the fence needs a page from a disk.
 * The log is a file in the run directory, which is memory, too.
 */
#include "fencing/guard_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

/* Clients that may wait to be heard. */
#define BACKLOG 12

/* 1: we are the pool's guard; 0: another one is. */
static int take_lock(const struct guard_options *o, struct guard_files *f, struct error *err)
{
    char path[GUARD_PATH_SIZE];
    int rv = guard_path(o->run_dir, o->pool, "lock", path, err);
    if (rv < 0)
        return rv;
    f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->lock_fd < 0)
        return error_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
    return flock(f->lock_fd, LOCK_EX | LOCK_NB) == 0;
}

/* The permits of a former life: nobody gets one any more. Whoever still holds one could map
 * something under the new life's eyes. */
static int end_permit(const char *path, struct error *err)
{
    enum guard_permit_byte said;
    int fd = guard_permit_open(path, &said, err);
    if (fd < 0)
        return fd;
    int rv = guard_permit_say(fd, GUARD_PERMIT_FENCED);
    if (rv == 0 && guard_permit_lock(fd))
        unlink(path);
    else
        rv = error_set(err, LUNAR_E_BUSY,
                       "a permit of this node's former life is still held (%s): a thread of the "
                       "agent's hangs; restart lunar-agent",
                       path);
    close(fd);
    return rv;
}

/* 1: a permit file of this pool and of another life. */
static bool is_former(const struct guard_options *o, const char *name)
{
    char prefix[POOL_NAME_SIZE + 8];
    uint32_t host_id;
    uint64_t generation;
    int end = 0;
    int len = snprintf(prefix, sizeof prefix, "guard-%s-", o->pool);
    if (strncmp(name, prefix, (size_t)len) != 0)
        return false;
    if (sscanf(name + len, "%" SCNu32 "-%" SCNu64 ".permit%n", &host_id, &generation, &end) != 2)
        return false;
    if (end == 0 || name[len + end] != '\0')
        return false; /* of a pool whose name begins like ours */
    return host_id != o->host_id || generation != o->generation;
}

static int end_former_permits(const struct guard_options *o, struct error *err)
{
    char path[4096];
    struct dirent *entry;
    int rv = 0;
    DIR *dir = opendir(o->run_dir);
    if (!dir)
        return error_set(err, -errno, "cannot read %s: %s", o->run_dir, strerror(errno));
    while (rv == 0 && (entry = readdir(dir)))
        if (is_former(o, entry->d_name)) {
            snprintf(path, sizeof path, "%s/%s", o->run_dir, entry->d_name);
            rv = end_permit(path, err);
        }
    closedir(dir);
    return rv;
}

static int listen_on(struct guard_files *f, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, f->socket_path);
    unlink(f->socket_path); /* our predecessor's: we have the lock */
    f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (f->listen_fd < 0 || bind(f->listen_fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        chmod(f->socket_path, 0600) < 0 || listen(f->listen_fd, BACKLOG) < 0)
        return error_set(err, -errno, "cannot listen on %s: %s", f->socket_path, strerror(errno));
    return 0;
}

static int catch_signals(struct guard_files *f, struct error *err)
{
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    f->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return f->signal_fd < 0 ? error_set(err, -errno, "no signalfd: %s", strerror(errno)) : 0;
}

/* Of a guard the kernel must neither take pages nor, when memory is short, the life. */
static int stay_in_memory(const struct guard_options *o, struct error *err)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "-1000", 5) < 0)
        log_debug("oom_score_not_set errno=%d", errno);
    if (fd >= 0)
        close(fd);
    setpriority(PRIO_PROCESS, 0, -20);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0 || (o->sb.flags & SUPERBLOCK_FLAG_TEST))
        return 0;
    return error_set(err, -errno, "cannot lock the guard into memory: %s", strerror(errno));
}

int guard_files_open(struct guard_options *o, struct guard_files *f, struct error *err)
{
    char permit[GUARD_PATH_SIZE];
    int rv = guard_path(o->run_dir, o->pool, "sock", f->socket_path, err);
    if (rv == 0)
        rv = guard_permit_path(o->run_dir, o->pool, o->host_id, o->generation, permit, err);
    if (rv == 0)
        rv = take_lock(o, f, err);
    if (rv != 1)
        return rv;
    rv = end_former_permits(o, err);
    if (rv == 0)
        rv = f->permit_fd = guard_permit_open(permit, &f->said, err);
    /* What a predecessor said stays, until this one guards, or for good. */
    if (rv >= 0 && f->said == GUARD_PERMIT_NONE)
        rv = guard_permit_say(f->permit_fd, GUARD_PERMIT_CLOSED);
    if (rv >= 0 && f->said == GUARD_PERMIT_OVER)
        rv = error_set(err, LUNAR_E_FENCED,
                       "this life of the node (host id %" PRIu32 ", generation %" PRIu64
                       ") was fenced and is over: leave the lockspace and join again",
                       o->host_id, o->generation);
    if (rv >= 0 && o->fence) /* as if our predecessor had begun to */
        f->said = GUARD_PERMIT_FENCED;
    if (rv >= 0)
        rv = catch_signals(f, err);
    if (rv >= 0)
        rv = stay_in_memory(o, err);
    if (rv >= 0)
        rv = listen_on(f, err);
    o->socket = f->socket_path;
    return rv < 0 ? rv : 1;
}
