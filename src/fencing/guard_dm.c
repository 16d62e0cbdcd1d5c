/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence itself: L and J maps to error tables, drained, proved (SAFETY 10); see guard_dm.h.
 *
 * Happy path of a round: list all devices, tell ours by their uuids; load an error table into each,
 * which waits for nothing; then, all at once in threads of their own, resume each without a flush:
 * the kernel stops new I/O, waits for what is in flight, puts the table in and lets go. That call
 * is the swap and the drain in one: when it has returned, no I/O of that device is on its way to
 * the LUN. Then list again: the proof is that each of ours has nothing but `error` targets, no
 * inactive table behind them, and is not suspended.
 *
 * Why the second list counts: no permit is held by anybody and none is given any more, so nobody
 * loads a table or creates a device behind it, and nobody is in the middle of a resume that could
 * still put one in.
 *
 * Failure modes: I/O that hangs holds its resume, and so the round, for as long as it hangs:
 * no proof, which is true. A device that vanishes meanwhile is none of ours any more. One that was
 * suspended is swapped and let go; one that somebody suspends again, or whose loaded table somebody
 * swaps in between, fails the proof of this round and is met by the next. A suspend of somebody
 * else's that waits for I/O holds ours, too. A list that does not fit is no proof.
 */
#include "fencing/guard_dm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fencing/guard_threads.h"

#define CONTROL "/dev/mapper/control"

/* Of what is asked of the kernel: one device by its uuid, or all. */
static void prepare(struct dm_ioctl *io, uint32_t size, const char *uuid, uint32_t flags)
{
    memset(io, 0, sizeof *io);
    io->version[0] = DM_VERSION_MAJOR; /* the oldest minor will do */
    io->data_size = size;
    io->data_start = sizeof *io;
    io->flags = flags;
    if (uuid)
        snprintf(io->uuid, sizeof io->uuid, "%s", uuid);
}

static bool is_gone(int rv)
{
    return rv == -ENXIO || rv == -ENODEV;
}

/* Keeps the first reason; swapping threads complain, too. */
static void complain(struct guard_dm *dm, const char *what, const char *uuid, int rv)
{
    pthread_mutex_lock(&dm->lock);
    if (dm->reason[0] == '\0')
        snprintf(dm->reason, sizeof dm->reason, "%s %.100s: error %d", what, uuid, -rv);
    pthread_mutex_unlock(&dm->lock);
}

/* --- the list --- */

static bool is_ours(const struct guard_dm *dm, const char *uuid)
{
    return strncmp(uuid, dm->prefix[0], strlen(dm->prefix[0])) == 0 ||
           strncmp(uuid, dm->prefix[1], strlen(dm->prefix[1])) == 0;
}

/* By its number, since the list has no uuids. Absent: gone meanwhile. */
static int add_if_ours(struct guard_dm *dm, uint64_t dev)
{
    struct dm_ioctl io;
    prepare(&io, sizeof io, NULL, 0);
    io.dev = dev;
    int rv = dm->call(dm->data, DM_DEV_STATUS, &io);
    if (is_gone(rv))
        return 0;
    io.uuid[sizeof io.uuid - 1] = '\0';
    if (rv < 0 || !is_ours(dm, io.uuid))
        return rv;
    if (dm->n == GUARD_DM_DEVICES)
        return -E2BIG;
    struct guard_dm_device *device = &dm->devices[dm->n++];
    *device = (struct guard_dm_device){.sectors = 0};
    memcpy(device->uuid, io.uuid, sizeof device->uuid);
    return 0;
}

static int list(struct guard_dm *dm)
{
    struct dm_ioctl *io = &dm->list.io;
    dm->n = 0;
    if (dm->control_fd < 0 && !dm->data)
        return 0;
    prepare(io, sizeof dm->list, NULL, 0);
    int rv = dm->call(dm->data, DM_LIST_DEVICES, io);
    if (rv == 0 && (io->flags & DM_BUFFER_FULL_FLAG))
        rv = -ENOBUFS;
    uint64_t at = io->data_start, end = sizeof dm->list;
    while (rv == 0) {
        struct dm_name_list item;
        if (at + sizeof item > end)
            return -EPROTO;
        memcpy(&item, dm->list.bytes + at, sizeof item);
        if (item.dev == 0) /* the whole list is empty */
            break;
        rv = add_if_ours(dm, item.dev);
        if (item.next == 0)
            break;
        at += item.next;
    }
    return rv;
}

/* --- one device --- */

/* Fills sectors and clear from the live table. Gone: it is clear, whatever it was. */
static int look(struct guard_dm *dm, struct guard_dm_device *device)
{
    struct dm_ioctl *io = &dm->status.io;
    prepare(io, sizeof dm->status, device->uuid, DM_NOFLUSH_FLAG);
    int rv = dm->call(dm->data, DM_TABLE_STATUS, io);
    device->clear = is_gone(rv);
    device->sectors = 0;
    if (rv == 0 && (io->flags & DM_BUFFER_FULL_FLAG))
        rv = -ENOBUFS;
    if (rv < 0)
        return device->clear ? 0 : rv;

    device->clear = io->target_count > 0 && !(io->flags & DM_INACTIVE_PRESENT_FLAG) &&
                    !(io->flags & DM_SUSPEND_FLAG);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < io->target_count; i++) {
        struct dm_target_spec spec;
        uint64_t at = io->data_start + offset;
        if (at + sizeof spec > sizeof dm->status)
            return -EPROTO;
        memcpy(&spec, dm->status.bytes + at, sizeof spec);
        if (strncmp(spec.target_type, "error", sizeof spec.target_type) != 0)
            device->clear = false;
        device->sectors = spec.sector_start + spec.length;
        offset = spec.next; /* of the status: counted from the first one */
    }
    return 0;
}

/* Takes the place of whatever was loaded and not put in. A map without a live table has no size:
 * nothing can have been written through it, and one sector of error is enough. */
static int load_error(struct guard_dm *dm, const struct guard_dm_device *device)
{
    struct {
        struct dm_ioctl io;
        struct dm_target_spec spec;
        char parameters[8];
    } load;
    memset(&load, 0, sizeof load);
    prepare(&load.io, sizeof load, device->uuid, 0);
    load.io.data_start = (uint32_t)((char *)&load.spec - (char *)&load);
    load.io.target_count = 1;
    load.spec.length = device->sectors ? device->sectors : 1;
    load.spec.next = sizeof load.spec + sizeof load.parameters;
    strcpy(load.spec.target_type, "error");
    return dm->call(dm->data, DM_TABLE_LOAD, &load.io);
}

/* The swap and the drain. No lockfs: a filesystem above must not be waited for. */
static int swap(struct guard_dm *dm, const char *uuid)
{
    struct dm_ioctl io;
    prepare(&io, sizeof io, uuid, DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG);
    return dm->call(dm->data, DM_DEV_SUSPEND, &io); /* without DM_SUSPEND_FLAG: a resume */
}

static void *swapper(void *data)
{
    struct guard_dm *dm = data;
    pthread_mutex_lock(&dm->lock);
    for (;;) {
        while (dm->next == dm->end)
            pthread_cond_wait(&dm->changed, &dm->lock);
        struct guard_dm_device *device = &dm->devices[dm->next++];
        pthread_mutex_unlock(&dm->lock);
        /* Without a table to put in, a resume would only let a suspended map's I/O through. */
        int rv = device->loaded ? swap(dm, device->uuid) : 0;
        if (rv < 0 && !is_gone(rv))
            complain(dm, "cannot swap the table of", device->uuid, rv);
        pthread_mutex_lock(&dm->lock);
        if (--dm->left == 0)
            pthread_cond_broadcast(&dm->changed);
    }
    return NULL;
}

static void swap_all(struct guard_dm *dm)
{
    pthread_mutex_lock(&dm->lock);
    dm->next = 0;
    dm->end = dm->left = dm->n;
    pthread_cond_broadcast(&dm->changed);
    while (dm->left > 0)
        pthread_cond_wait(&dm->changed, &dm->lock);
    pthread_mutex_unlock(&dm->lock);
}

/* --- rounds --- */

static int list_or_complain(struct guard_dm *dm)
{
    int rv = list(dm);
    if (rv < 0)
        complain(dm, "cannot list", "the device-mapper devices", rv);
    return rv;
}

static void load_all(struct guard_dm *dm)
{
    for (uint32_t i = 0; i < dm->n; i++) {
        struct guard_dm_device *device = &dm->devices[i];
        int rv = look(dm, device);
        if (rv == 0 && !device->clear)
            device->loaded = (rv = load_error(dm, device)) == 0;
        if (rv < 0 && !is_gone(rv))
            complain(dm, "cannot load an error table into", device->uuid, rv);
    }
}

static bool prove(struct guard_dm *dm)
{
    if (list_or_complain(dm) < 0)
        return false;
    for (uint32_t i = 0; i < dm->n; i++) {
        int rv = look(dm, &dm->devices[i]);
        if (rv < 0)
            complain(dm, "cannot read the table of", dm->devices[i].uuid, rv);
        else if (!dm->devices[i].clear)
            complain(dm, "not an error table alone:", dm->devices[i].uuid, -EBUSY);
        if (rv < 0 || !dm->devices[i].clear)
            return false;
    }
    return true;
}

bool guard_dm_wipe(struct guard_dm *dm)
{
    dm->reason[0] = '\0';
    if (list_or_complain(dm) < 0)
        return false;
    load_all(dm);
    swap_all(dm);
    return prove(dm);
}

int guard_dm_count(struct guard_dm *dm)
{
    dm->reason[0] = '\0';
    int rv = list_or_complain(dm);
    return rv < 0 ? rv : (int)dm->n;
}

/* --- opening --- */

static int real_call(void *data, unsigned long request, struct dm_ioctl *io)
{
    const struct guard_dm *dm = data;
    int rv;
    do
        rv = ioctl(dm->control_fd, request, io);
    while (rv < 0 && errno == EINTR);
    return rv < 0 ? -errno : 0;
}

/* The kernel itself has none: no driver of that name. */
static bool kernel_lacks_dm(void)
{
    char line[128];
    bool found = false;
    FILE *f = fopen("/proc/devices", "re");
    if (!f)
        return false;
    while (fgets(line, sizeof line, f))
        found = found || strstr(line, "device-mapper");
    fclose(f);
    return !found;
}

int guard_dm_start(struct guard_dm *dm, const struct uuid *pool_id, struct error *err)
{
    for (int i = 0; i < 2; i++)
        snprintf(dm->prefix[i], sizeof dm->prefix[i], "LUNAR-%c-%016" PRIx64 "-", "LJ"[i],
                 uuid_short(pool_id));
    dm->n = dm->next = dm->end = dm->left = 0;
    pthread_mutex_init(&dm->lock, NULL);
    pthread_cond_init(&dm->changed, NULL);
    for (int i = 0; i < GUARD_DM_SWAPPERS; i++) {
        int rv = guard_thread_start(swapper, dm, err);
        if (rv < 0)
            return rv;
    }
    return 0;
}

int guard_dm_open(struct guard_dm *dm, const struct uuid *pool_id, bool without, struct error *err)
{
    dm->control_fd = open(CONTROL, O_RDWR | O_CLOEXEC);
    dm->call = real_call;
    dm->data = dm->control_fd < 0 ? NULL : dm;
    if (dm->control_fd < 0 && !(without && kernel_lacks_dm()))
        return error_set(err, -errno,
                         "cannot open " CONTROL ": %s; the guard needs root and the dm_mod module",
                         strerror(errno));
    return guard_dm_start(dm, pool_id, err);
}
