/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The permit to load a table that reaches the LUN; see guard.h, and guard_wire.h for the guard's
 * side.
 *
 * One file per pool, host id and generation, with one byte in it. A taker locks it shared and
 * *then* reads the byte; only OPEN counts, and only while the lock is held. The guard that fences
 * writes FENCED *first*, then waits for the exclusive lock. So:
 *
 *   taker locks, reads OPEN, guard writes FENCED:   the guard waits for the taker
 *   guard writes FENCED, taker locks:               the taker reads FENCED and gives back
 *   guard has had the exclusive lock once:          every later taker reads FENCED
 *
 * The third line needs no guard that lives: a permit asked for after its exit, or after it was
 * killed, is refused too. A file that was removed (a new generation's guard tidies up) is a
 * refusal; whoever opened it before finds the byte of the old file, which is CLOSED or FENCED,
 * because a generation's file is removed only when a newer generation exists, and the older one
 * said so first.
 *
 * The lock hangs on the open file, so a child forked between take and give-back holds it too, and
 * the guard waits for that child as well: the safe side.
 */
#include "fencing/guard_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int guard_path(const char *run_dir, const char *pool, const char *kind, char ret[GUARD_PATH_SIZE],
               struct error *err)
{
    int n = snprintf(ret, GUARD_PATH_SIZE, "%s/guard-%s.%s", run_dir, pool, kind);
    if (n < 0 || (size_t)n >= GUARD_PATH_SIZE)
        return error_set(err, LUNAR_E_TOO_BIG,
                         "the run directory %s is too long a path for the guard's socket: choose a "
                         "shorter one",
                         run_dir);
    return 0;
}

int guard_permit_path(const char *run_dir, const char *pool, uint32_t host_id, uint64_t generation,
                      char ret[GUARD_PATH_SIZE], struct error *err)
{
    char unique[POOL_NAME_SIZE + 48];
    snprintf(unique, sizeof unique, "%s-%" PRIu32 "-%" PRIu64, pool, host_id, generation);
    return guard_path(run_dir, unique, "permit", ret, err);
}

static enum guard_permit_byte said(int fd)
{
    char byte = GUARD_PERMIT_NONE;
    /* Of what cannot be read, or was never written by a guard, nothing is believed but "closed". */
    ssize_t n = pread(fd, &byte, 1, 0);
    if (n == 0)
        return GUARD_PERMIT_NONE;
    return n == 1 && memchr("OFX", byte, 3) ? (enum guard_permit_byte)byte : GUARD_PERMIT_CLOSED;
}

int guard_permit_open(const char *path, enum guard_permit_byte *ret_said, struct error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(err, -errno, "cannot make the permit file %s: %s", path, strerror(errno));
    *ret_said = said(fd);
    return fd;
}

int guard_permit_say(int fd, enum guard_permit_byte byte)
{
    char text = (char)byte;
    ssize_t n = pwrite(fd, &text, 1, 0);
    return n == 1 ? 0 : n < 0 ? -errno : -EIO;
}

int guard_permit_lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

void guard_permit_unlock(int fd)
{
    flock(fd, LOCK_UN);
}

int guard_permit_take(const char *run_dir, const char *pool_name, uint32_t host_id,
                      uint64_t generation, int *ret_permit, struct error *err)
{
    char path[GUARD_PATH_SIZE];
    int rv = guard_permit_path(run_dir, pool_name, host_id, generation, path, err);
    if (rv < 0)
        return rv;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return error_set(err, -errno, "cannot open the permit file %s: %s", path, strerror(errno));
    if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0 && said(fd) == GUARD_PERMIT_OPEN) {
        *ret_permit = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return error_set(err, LUNAR_E_FENCED,
                     "the guard of pool %s lets nothing be mapped: this node is being fenced off, "
                     "or has left or not yet joined",
                     pool_name);
}

void guard_permit_give_back(int permit)
{
    close(permit);
}
