/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence itself: T, L and J maps to error tables, drained, proved (SAFETY 10); see guard_dm.h.
 *
 * Happy path of a round: list the pool's maps by their uuids and look at each; into one that is not
 * clear yet load an error table, which waits for nothing, and hand it to one of the threads, which
 * resumes it without a flush: the kernel stops new I/O, waits for what is in flight, puts the table
 * in and lets go. That call is the swap and the drain in one: when it has returned, no I/O of that
 * device is on its way to the LUN. When no thread has one in hand any more, list and look again:
 * the proof is that each of ours has nothing but `error` targets, no inactive table behind them,
 * and is not suspended.
 *
 * Tails that wait come first, alone: I/O of an L map may be held up in one, and with it the swap of
 * that L map and the thread that is at it. Swapping the table of a suspended map waits for nothing,
 * so whatever the threads take up later comes to its end; then the other tails, then L and J.
 *
 * Why the second list counts: no permit is held by anybody and none is given any more, so nobody
 * loads a table or creates a device behind it, and nobody is in the middle of a resume that could
 * still put one in.
 *
 * guard_dm_stop is the first half of a round alone, for the time in which somebody may hold a
 * permit. What the threads have in hand of it when the round comes goes on and is waited for; what
 * they have not begun is forgotten, for the round meets it again.
 *
 * Failure modes: I/O that hangs holds its resume, and so the round, for as long as it hangs:
 * no proof, which is true. A device that vanishes meanwhile is none of ours any more. One that was
 * suspended is swapped and let go; one that somebody suspends again, or whose loaded table somebody
 * swaps in between, fails the proof of this round and is met by the next. A suspend of somebody
 * else's that waits for I/O holds ours, too. A list that does not fit is no proof, and neither is a
 * round that met more maps than its queue holds: what it left out is not clear in the second look.
 */
#include "fencing/guard_dm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "diskrpc/table.h"
#include "fencing/guard_threads.h"

static_assert(GUARD_DM_QUEUE >= GUARD_DM_LAYERS_MAX + TABLE_ENTRIES_MAX * 4,
              "what a grant table names fits, with its tails, some of them twice");

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

/* Offers the kernel `size` bytes, and more as long as it asks for more, up to `max`. */
static int call_growing(struct guard_dm *dm, unsigned long request, struct dm_ioctl *io,
                        const char *uuid, uint32_t flags, uint32_t size, uint32_t max)
{
    for (;;) {
        prepare(io, size, uuid, flags);
        int rv = dm->call(dm->data, request, io);
        if (rv < 0 || !(io->flags & DM_BUFFER_FULL_FLAG))
            return rv;
        if (size == max)
            return -ENOBUFS;
        size = size < max / 4 ? size * 4 : max;
    }
}

/* --- one device --- */

struct device {
    const char *uuid;
    uint64_t sectors;
    bool clear; /* error targets alone, nothing inactive, not suspended */
    bool suspended;
};

/* Fills sectors and clear from the live table. Gone: it is clear, whatever it was. */
static int look(struct guard_dm *dm, struct device *device)
{
    struct dm_ioctl *io = &dm->status.io;
    int rv = call_growing(dm, DM_TABLE_STATUS, io, device->uuid, DM_NOFLUSH_FLAG,
                          GUARD_DM_STATUS_FIRST, sizeof dm->status);
    device->clear = is_gone(rv);
    device->suspended = rv >= 0 && (io->flags & DM_SUSPEND_FLAG);
    device->sectors = 0;
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
static int load_error(struct guard_dm *dm, const struct device *device)
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

/* --- the threads that swap --- */

static void *swapper(void *data)
{
    struct guard_dm_swapper *self = data;
    struct guard_dm *dm = self->dm;
    pthread_mutex_lock(&dm->lock);
    for (;;) {
        while (dm->next == dm->end)
            pthread_cond_wait(&dm->work, &dm->lock);
        memcpy(self->uuid, dm->queue[dm->next++], sizeof self->uuid);
        dm->busy++;
        pthread_mutex_unlock(&dm->lock);
        int rv = swap(dm, self->uuid);
        if (rv < 0 && !is_gone(rv))
            complain(dm, "cannot swap the table of", self->uuid, rv);
        pthread_mutex_lock(&dm->lock);
        self->uuid[0] = '\0';
        if (--dm->busy == 0 && dm->next == dm->end)
            pthread_cond_broadcast(&dm->idle);
    }
    return NULL;
}

static bool is_in_hand(struct guard_dm *dm, const char *uuid)
{
    bool found = false;
    pthread_mutex_lock(&dm->lock);
    for (int i = 0; i < GUARD_DM_SWAPPERS && dm->busy > 0; i++)
        found = found || strcmp(dm->swappers[i].uuid, uuid) == 0;
    pthread_mutex_unlock(&dm->lock);
    return found;
}

/* Only what has its error table loaded: a resume without one would let a suspended map's I/O
 * through. */
static void enqueue(struct guard_dm *dm, const char *uuid)
{
    pthread_mutex_lock(&dm->lock);
    if (dm->end < GUARD_DM_QUEUE) {
        snprintf(dm->queue[dm->end++], DM_UUID_LEN, "%s", uuid);
        pthread_cond_signal(&dm->work);
    }
    pthread_mutex_unlock(&dm->lock);
}

static void forget_queue(struct guard_dm *dm)
{
    pthread_mutex_lock(&dm->lock);
    dm->next = dm->end = 0;
    dm->reason[0] = '\0';
    pthread_mutex_unlock(&dm->lock);
}

static void wait_idle(struct guard_dm *dm)
{
    pthread_mutex_lock(&dm->lock);
    while (dm->busy > 0 || dm->next < dm->end)
        pthread_cond_wait(&dm->idle, &dm->lock);
    pthread_mutex_unlock(&dm->lock);
}

/* --- what is done with each map of ours --- */

/* 0, or why there is no proof in this round. */
typedef int visit(struct guard_dm *dm, const char *uuid);

/* What a swapper has in hand has its error table, or gets it when its I/O ends. */
static int wipe_one(struct guard_dm *dm, const char *uuid)
{
    struct device device = {.uuid = uuid};
    int rv = look(dm, &device);
    if (rv == 0 && (device.clear || is_in_hand(dm, uuid)))
        return 0;
    if (rv == 0)
        rv = load_error(dm, &device);
    if (rv == 0)
        enqueue(dm, uuid);
    if (rv < 0 && !is_gone(rv))
        complain(dm, "cannot load an error table into", uuid, rv);
    return 0; /* the others all the same */
}

static int wipe_suspended_one(struct guard_dm *dm, const char *uuid)
{
    struct device device = {.uuid = uuid};
    bool waits = look(dm, &device) == 0 && device.suspended;
    return waits ? wipe_one(dm, uuid) : 0;
}

static int prove_one(struct guard_dm *dm, const char *uuid)
{
    struct device device = {.uuid = uuid};
    int rv = look(dm, &device);
    if (rv < 0)
        complain(dm, "cannot read the table of", uuid, rv);
    else if (!device.clear)
        complain(dm, "not an error table alone:", uuid, rv = -EBUSY);
    return rv;
}

static int count_one(struct guard_dm *dm, const char *uuid)
{
    (void)dm;
    (void)uuid;
    return 0;
}

/* --- the list --- */

#ifndef DM_NAME_LIST_FLAG_HAS_UUID
#define DM_NAME_LIST_FLAG_HAS_UUID         1
#define DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID 2
#endif
/* Since this minor the name is followed by two numbers, and since 5.13 the second one tells whether
 * a uuid comes next. */
#define MINOR_WITH_FLAGS 37u

static uint64_t align8(uint64_t at)
{
    return (at + 7) & ~(uint64_t)7;
}

/* By its number, where the list has no uuids. Absent: gone meanwhile. */
static int ask_uuid(struct guard_dm *dm, uint64_t dev, char ret[DM_UUID_LEN])
{
    struct dm_ioctl io;
    prepare(&io, sizeof io, NULL, 0);
    io.dev = dev;
    int rv = dm->call(dm->data, DM_DEV_STATUS, &io);
    snprintf(ret, DM_UUID_LEN, "%.*s", rv < 0 ? 0 : (int)sizeof io.uuid, io.uuid);
    return is_gone(rv) ? 0 : rv;
}

/* The uuid of the item that begins at `at` of the list; "": none. */
static int uuid_of(struct guard_dm *dm, uint64_t at, const struct dm_name_list *item,
                   char ret[DM_UUID_LEN])
{
    const char *bytes = (const char *)dm->list.bytes;
    uint64_t end = sizeof dm->list, name = at + offsetof(struct dm_name_list, name);
    uint32_t flags = 0;
    at = align8(name + strnlen(bytes + name, end - name) + 1);
    if (dm->list.io.version[1] >= MINOR_WITH_FLAGS && at + 8 <= end)
        memcpy(&flags, bytes + at + 4, sizeof flags);
    at += 8;
    ret[0] = '\0';
    if (flags & DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID)
        return 0;
    if (!(flags & DM_NAME_LIST_FLAG_HAS_UUID))
        return ask_uuid(dm, item->dev, ret);
    if (at >= end)
        return -EPROTO;
    snprintf(ret, DM_UUID_LEN, "%.*s", (int)(end - at < DM_UUID_LEN ? end - at : DM_UUID_LEN),
             bytes + at);
    return 0;
}

/* Every map whose uuid begins with `prefix`. A kernel since 5.13 lists no others; what an older one
 * lists is sorted out here. */
static int visit_prefix(struct guard_dm *dm, const char *prefix, visit *one)
{
    /* Of an empty list the kernel copies nothing back: what stands there must say so already. */
    memset((char *)&dm->list + sizeof(struct dm_ioctl), 0, sizeof(struct dm_name_list));
    int rv = call_growing(dm, DM_LIST_DEVICES, &dm->list.io, prefix, DM_UUID_FLAG,
                          GUARD_DM_LIST_FIRST, sizeof dm->list);
    uint64_t at = dm->list.io.data_start;
    while (rv == 0) {
        struct dm_name_list item;
        char uuid[DM_UUID_LEN];
        if (at + sizeof item > sizeof dm->list)
            return -EPROTO;
        memcpy(&item, dm->list.bytes + at, sizeof item);
        if (item.dev == 0) /* the whole list is empty */
            break;
        rv = uuid_of(dm, at, &item, uuid);
        if (rv == 0 && strncmp(uuid, prefix, strlen(prefix)) == 0) {
            dm->n++;
            rv = one(dm, uuid);
        }
        if (item.next == 0)
            break;
        at += item.next;
    }
    return rv;
}

static bool has_none(const struct guard_dm *dm)
{
    return dm->control_fd < 0 && !dm->data;
}

static int visit_all(struct guard_dm *dm, visit *one)
{
    int rv = 0;

    dm->n = 0;
    for (int i = 0; rv == 0 && i < GUARD_DM_KINDS && !has_none(dm); i++)
        rv = visit_prefix(dm, dm->prefix[i], one);
    if (rv < 0)
        complain(dm, "cannot list", "the device-mapper devices", rv); /* unless a map was named */
    return rv;
}

/* What cannot be listed in the first pass is complained of in the second. */
static int wipe_all(struct guard_dm *dm)
{
    if (!has_none(dm))
        visit_prefix(dm, dm->prefix[0], wipe_suspended_one);
    return visit_all(dm, wipe_one);
}

/* --- rounds --- */

void guard_dm_stop(struct guard_dm *dm)
{
    forget_queue(dm);
    wipe_all(dm);
}

bool guard_dm_wipe(struct guard_dm *dm)
{
    forget_queue(dm);
    int rv = wipe_all(dm);
    wait_idle(dm);
    return rv == 0 && visit_all(dm, prove_one) == 0;
}

int guard_dm_count(struct guard_dm *dm)
{
    forget_queue(dm);
    int rv = visit_all(dm, count_one);
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
    for (int i = 0; i < GUARD_DM_KINDS; i++)
        snprintf(dm->prefix[i], sizeof dm->prefix[i], "LUNAR-%c-%016" PRIx64 "-", "TLJ"[i],
                 uuid_short(pool_id));
    dm->n = dm->next = dm->end = dm->busy = 0;
    pthread_mutex_init(&dm->lock, NULL);
    pthread_cond_init(&dm->work, NULL);
    pthread_cond_init(&dm->idle, NULL);
    for (int i = 0; i < GUARD_DM_SWAPPERS; i++) {
        dm->swappers[i] = (struct guard_dm_swapper){.dm = dm};
        int rv = guard_thread_start(swapper, &dm->swappers[i], err);
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
