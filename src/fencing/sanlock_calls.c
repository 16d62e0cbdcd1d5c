/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thin layer between lunar and libsanlock; see sanlock_calls.h.
 *
 * libsanlock returns -errno for what its socket or the daemon's bookkeeping refused, and numbers
 * from -201 down for what the disk protocols found. The table below puts the second kind into
 * lunar's codes; an I/O that sanlock gave up waiting for is indeterminate, never failed. A lost
 * daemon shows as a connection error in every call.
 */
#include "fencing/sanlock_calls.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const sanlock_resource_names[LAYOUT_RESOURCES] = {
    "coordinator", "member", "spare2", "spare3", "spare4", "spare5", "spare6", "spare7",
};

/* Half of sanlock's limit: each byte of a path may need an escape. */
#define DEVICE_PATH_MAX (SANLK_PATH_LEN / 2 - 1)

struct meaning {
    int first, last; /* sanlock's codes, first >= last */
    int code;
    const char *text;
};

static const struct meaning meanings[] = {
    {SANLK_AIO_TIMEOUT, SANLK_AIO_TIMEOUT, LUNAR_E_INDETERMINATE,
     "the LUN did not answer sanlock in time; check its paths"},
    {SANLK_WD_ERROR, SANLK_WD_ERROR, LUNAR_E_NO_WATCHDOG,
     "sanlock got no watchdog from wdmd; start wdmd (systemctl start wdmd) and see its log"},
    {SANLK_DBLOCK_READ, SANLK_DBLOCK_WRITE, -EIO, "sanlock cannot read or write the LUN"},
    {SANLK_DBLOCK_LVER, SANLK_DBLOCK_MBAL, LUNAR_E_BUSY, "another host was faster"},
    {SANLK_DBLOCK_CHECKSUM, SANLK_DBLOCK_CHECKSUM, LUNAR_E_CORRUPT, "the lease is damaged"},
    {SANLK_LEADER_READ, SANLK_LEADER_WRITE, -EIO, "sanlock cannot read or write the LUN"},
    {SANLK_LEADER_DIFF, SANLK_LEADER_DIFF, LUNAR_E_BUSY, "another host was faster"},
    {SANLK_LEADER_MAGIC, SANLK_LEADER_CHECKSUM, LUNAR_E_CORRUPT,
     "the lease is not lunar's or damaged; see lunarctl lun dump"},
    {SANLK_ADDLS_SIZES, SANLK_ADDLS_INVALID_HOSTID, LUNAR_E_INVALID,
     "the lockspace has another geometry than the superblock says"},
    {SANLK_ACQUIRE_LVER, SANLK_ACQUIRE_OWNED_RETRY, LUNAR_E_BUSY, "another host has the lease"},
    {SANLK_RELEASE_LVER, SANLK_RELEASE_OWNER, LUNAR_E_STALE, "the lease is not ours any more"},
    {SANLK_RENEW_OWNER, SANLK_HOSTID_BUSY, LUNAR_E_BUSY, "another host uses this host id"},
};

/* ENOENT is both a missing socket and a missing lockspace, so the daemon is asked for its version.
 */
static bool is_no_daemon(int rv)
{
    uint32_t version = 0, proto = 0;
    return rv == -ECONNREFUSED || rv == -EPIPE || rv == -ECONNRESET || rv == -ENOTCONN ||
           (rv == -ENOENT && sanlock_version(0, &version, &proto) < 0);
}

int sanlock_fail(struct error *err, int rv, const char *doing)
{
    assert(rv < 0);
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        const struct meaning *m = &meanings[i];
        if (rv <= m->first && rv >= m->last)
            return error_set(err, m->code, "%s: %s (sanlock %d)", doing, m->text, rv);
    }
    if (rv <= SANLK_ERROR)
        return error_set(err, LUNAR_E_EXEC, "%s: sanlock failed with %d", doing, rv);
    if (is_no_daemon(rv)) /* one code for all of them, and one that says: try again */
        return error_set(err, -ECONNREFUSED,
                         "%s: the sanlock daemon does not answer (%s); start it: systemctl start "
                         "sanlock",
                         doing, strerror(-rv));
    return error_set(err, rv, "%s: %s (sanlock %d)", doing, strerror(-rv), rv);
}

int sanlock_check_device(const char *device, struct error *err)
{
    if (device[0] != '/')
        return error_set(err, LUNAR_E_INVALID,
                         "the device '%s' must be an absolute path: sanlock's daemon opens it too",
                         device);
    if (strlen(device) > DEVICE_PATH_MAX)
        return error_set(err, LUNAR_E_INVALID, "the device's path is longer than %d bytes",
                         DEVICE_PATH_MAX);
    return 0;
}

int sanlock_open_socket(struct error *err)
{
    /* libsanlock writes to its socket without MSG_NOSIGNAL: a daemon that died would take us with
     * it, instead of an error. */
    signal(SIGPIPE, SIG_IGN);
    int fd = sanlock_register();
    if (fd < 0)
        return sanlock_fail(err, fd, "cannot register with sanlock");
    /*
     * The lease lives as long as anybody has this socket open (SAFETY 1), so no child may get it by
     * accident. A fork of another thread between the two calls would: daemons register before they
     * start children, and helper_run closes all.
     */
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        int saved = errno;
        close(fd);
        return error_set(err, -saved, "cannot mark sanlock's socket: %s", strerror(saved));
    }
    return fd;
}

/* sanlock's names are 48 bytes and need no NUL; longer ones are cut by whoever made them, never
 * here. */
static void put_name(char ret[SANLK_NAME_LEN], const char *name)
{
    size_t len = strlen(name);
    assert(len <= SANLK_NAME_LEN);
    memcpy(ret, name, len);
}

static void put_disk(struct sanlk_disk *disk, const char *device, uint64_t offset)
{
    assert(strlen(device) <= DEVICE_PATH_MAX);
    snprintf(disk->path, sizeof disk->path, "%s", device);
    disk->offset = offset;
}

void sanlock_fill_lockspace(struct sanlk_lockspace *ret, const struct superblock *sb,
                            const char *device, uint32_t host_id)
{
    char name[SANLK_NAME_LEN];
    memset(ret, 0, sizeof *ret);
    pool_lockspace(&sb->pool_id, name);
    put_name(ret->name, name);
    ret->host_id = host_id;
    put_disk(&ret->host_id_disk, device, sb->layout.lockspace);
}

struct sanlk_resource *sanlock_make_resource(const struct superblock *sb, const char *device,
                                             uint32_t index, uint32_t flags)
{
    assert(index < LAYOUT_RESOURCES);
    struct sanlk_resource *res = calloc(1, sizeof *res + sizeof(struct sanlk_disk));
    if (!res)
        abort();
    char name[SANLK_NAME_LEN];
    pool_lockspace(&sb->pool_id, name);
    put_name(res->lockspace_name, name);
    put_name(res->name, sanlock_resource_names[index]);
    res->flags = flags;
    res->num_disks = 1;
    put_disk(&res->disks[0], device, layout_resource(&sb->layout, index));
    return res;
}

int sanlock_find_lockspace(const char *name, struct sanlk_lockspace *ret, struct error *err)
{
    struct sanlk_lockspace *list = NULL;
    int n = 0, found = 0;
    int rv = sanlock_get_lockspaces(&list, &n, 0);
    if (rv < 0)
        return sanlock_fail(err, rv, "cannot ask sanlock for its lockspaces");
    for (int i = 0; i < n && !found; i++)
        if (strncmp(list[i].name, name, SANLK_NAME_LEN) == 0) {
            *ret = list[i];
            found = 1;
        }
    free(list);
    return found;
}

int sanlock_holds(int fd, const char *lockspace, const char *resource, uint64_t *ret_lver,
                  struct error *err)
{
    char *state = NULL;
    int n = 0, found = 0;
    int rv = sanlock_inquire(fd, -1, 0, &n, &state);
    if (rv < 0)
        return sanlock_fail(err, rv, "cannot ask sanlock for our leases");
    struct sanlk_resource **list = NULL;
    n = 0;
    if (state && *state)
        rv = sanlock_state_to_args(state, &n, &list);
    free(state);
    if (rv < 0)
        return sanlock_fail(err, rv, "cannot read sanlock's list of our leases");
    for (int i = 0; i < n; i++) {
        if (strncmp(list[i]->lockspace_name, lockspace, SANLK_NAME_LEN) == 0 &&
            strncmp(list[i]->name, resource, SANLK_NAME_LEN) == 0) {
            *ret_lver = list[i]->lver;
            found = 1;
        }
        free(list[i]);
    }
    free(list);
    return found;
}
