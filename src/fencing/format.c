/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanlock's part of `lun format`: its lockspace and resources, and the refusal to overwrite a
 * living pool.
 *
 * libsanlock_client writes through the daemon; `sanlock direct init` writes by itself. The second
 * is used, because a LUN is formatted on whatever machine the operator sits at. N is stamped into
 * every delta lease: without it a join takes as long as with sanlock's default of 10 s.
 *
 * The coordinator resource holds the terms of the pool; formatting it again would count them from
 * 1, and old commands would look new. So the superblock must say FORMATTING, on the LUN and in
 * memory, and everything is read back. A format killed here leaves FORMATTING, and the next one
 * starts over.
 *
 * refuse_alive watches timestamps because nothing else proves life or death without being a member:
 * whoever lives renews every 2N and is reset 8N + W after the last renewal.
 */
#include "fencing/membership.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/helper.h"
#include "fencing/leases.h"
#include "fencing/lockspace.h"
#include "fencing/sanlock_calls.h"

/* Zeroing 8 MiB on a slow LUN; sanlock itself gives each write 60 s. */
#define INIT_LIMIT_MS 120000
#define WATCH_POLL_MS 500
#define WATCH_TELL_S  5

static int direct_init(const char *kind, const char *target, const struct superblock *sb,
                       struct error *err)
{
    char align[8], sector[8], timeout[8], output[4096];
    snprintf(align, sizeof align, "%uM", (unsigned)(sb->layout.align_size / MIB));
    snprintf(sector, sizeof sector, "%u", (unsigned)sb->layout.sector_size);
    snprintf(timeout, sizeof timeout, "%u", (unsigned)sb->io_timeout_s);
    const char *const argv[] = {"sanlock", "direct", "init", kind, target, "-o",
                                timeout,   "-Z",     sector, "-A", align,  NULL};
    return helper_run(argv, INIT_LIMIT_MS, output, sizeof output, err);
}

/* "NAME:MIDDLE:PATH:OFFSET" with the path's colons escaped, as sanlock's command reads it. */
static int init_one(const char *kind, const char *middle, const char *device, uint64_t offset,
                    const struct superblock *sb, struct error *err)
{
    char lockspace[48], path[SANLK_PATH_LEN], target[SANLK_PATH_LEN + 160];
    pool_lockspace(&sb->pool_id, lockspace);
    if (sanlock_path_export(path, device, sizeof path) == 0)
        return error_set(err, LUNAR_E_INVALID, "the device's path is too long for sanlock");
    snprintf(target, sizeof target, "%s:%s:%s:%" PRIu64, lockspace, middle, path, offset);
    int rv = direct_init(kind, target, sb, err);
    if (rv < 0)
        error_prefix(err, "cannot write sanlock's %s",
                     strcmp(kind, "-s") == 0 ? "lockspace" : middle);
    return rv;
}

/* Refuses a LUN that is a finished pool, and a caller that thinks it is. */
static int check_formatting(int fd, const struct superblock *sb, struct error *err)
{
    struct superblock on_disk;
    if (sb->state != SUPERBLOCK_FORMATTING)
        return error_set(err, LUNAR_E_INVALID, "leases are written only while a LUN is formatted");
    if (superblock_read(fd, &on_disk, NULL) == 0 && on_disk.state == SUPERBLOCK_READY)
        return error_set(err, LUNAR_E_IN_USE,
                         "the LUN carries the finished pool '%s'; its leases are not overwritten",
                         on_disk.pool_name);
    return 0;
}

static int verify(int fd, const struct superblock *sb, struct error *err)
{
    char lockspace[48];
    pool_lockspace(&sb->pool_id, lockspace);
    struct delta_lease *leases = calloc(sb->layout.max_nodes, sizeof *leases);
    if (!leases)
        abort();
    int rv = leases_read(fd, &sb->layout, lockspace, leases, err);
    for (uint32_t i = 0; rv == 0 && i < sb->layout.max_nodes; i++)
        if (leases[i].timestamp != 0 || leases[i].io_timeout_s != sb->io_timeout_s)
            rv = error_set(err, LUNAR_E_CORRUPT,
                           "the delta lease of host %" PRIu32 " is not as it was written", i + 1);
    free(leases);

    for (uint32_t i = 0; rv == 0 && i < LAYOUT_RESOURCES; i++) {
        struct leader_record leader;
        rv = leader_read(fd, &sb->layout, i, lockspace, &leader, err);
        if (rv == 0 &&
            (leader.lver != 0 || strcmp(leader.resource, sanlock_resource_names[i]) != 0))
            rv = error_set(err, LUNAR_E_CORRUPT, "the resource '%s' is not as it was written",
                           sanlock_resource_names[i]);
    }
    return rv;
}

int membership_format(const char *device, const struct superblock *superblock, struct error *err)
{
    int rv = sanlock_check_device(device, err);
    if (rv < 0)
        return rv;
    int fd = io_open(device, 0, err);
    if (fd < 0)
        return fd;

    const struct layout *layout = &superblock->layout;
    rv = check_formatting(fd, superblock, err);
    /* Resources first: a lockspace that is there can be joined. */
    for (uint32_t i = 0; rv == 0 && i < LAYOUT_RESOURCES; i++)
        rv = init_one("-r", sanlock_resource_names[i], device, layout_resource(layout, i),
                      superblock, err);
    if (rv == 0)
        rv = init_one("-s", "0", device, layout->lockspace, superblock, err);
    if (rv == 0)
        rv = verify(fd, superblock, err);
    close(fd);
    return rv;
}

/* One look at a lockspace of unknown state: sectors that are no delta leases count as free. */
struct look {
    uint32_t n;
    struct delta_lease *leases; /* owner_name is "" and timestamp 0 where nothing readable stands */
};

static int look_at(int fd, const struct layout *layout, struct look *look, struct error *err)
{
    size_t len = (size_t)layout->max_nodes * layout->sector_size;
    len = (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    uint8_t *buffer = io_alloc(len);
    int rv = io_read(fd, buffer, len, layout->lockspace, err);
    for (uint32_t i = 0; rv == 0 && i < look->n; i++) {
        memset(&look->leases[i], 0, sizeof look->leases[i]);
        delta_lease_in(buffer + (size_t)i * layout->sector_size, i + 1, NULL, &look->leases[i],
                       NULL);
    }
    free(buffer);
    return rv;
}

/* The window that covers the slowest owner: its own 8N counts if it is longer than the caller's. */
static int window_s(const struct look *look, int watch_s)
{
    int longest = 0;
    for (uint32_t i = 0; i < look->n; i++) {
        const struct delta_lease *l = &look->leases[i];
        int fail_s = (int)timeouts_fail_s(l->io_timeout_s); /* 16 bits on the LUN: fits */
        int own_s = fail_s > watch_s ? fail_s : watch_s;
        if (l->timestamp != 0 && own_s > longest)
            longest = own_s;
    }
    return longest;
}

static int compare(const struct look *then, const struct look *now, struct error *err)
{
    for (uint32_t i = 0; i < then->n; i++) {
        const struct delta_lease *a = &then->leases[i], *b = &now->leases[i];
        if (a->timestamp == b->timestamp && a->generation == b->generation)
            continue;
        const struct delta_lease *who = b->timestamp != 0 ? b : a;
        return error_set(err, LUNAR_E_ALIVE,
                         "host %" PRIu32
                         " (%s) of lockspace %s uses this LUN now; nothing overrides "
                         "that: have every node leave the pool first",
                         i + 1, who->owner_name, who->space);
    }
    return 0;
}

static void tell_left(void (*progress)(void *data, const char *text), void *data, int left_s)
{
    char text[128];
    if (!progress)
        return;
    snprintf(text, sizeof text,
             "the LUN carries leases; watching %d s more that nobody renews them", left_s);
    progress(data, text);
}

static int watch(int fd, const struct layout *layout, struct look *then, struct look *now,
                 int watch_s, void (*progress)(void *data, const char *text), void *data,
                 struct error *err)
{
    int rv = 0;
    int64_t end = lockspace_now_s() + watch_s + 1, next_tell = 0;
    while (rv == 0 && lockspace_now_s() < end) {
        if (lockspace_now_s() >= next_tell) {
            tell_left(progress, data, (int)(end - lockspace_now_s()));
            next_tell = lockspace_now_s() + WATCH_TELL_S;
        }
        lockspace_pause(WATCH_POLL_MS);
        rv = look_at(fd, layout, now, err);
        if (rv == 0)
            rv = compare(then, now, err);
    }
    return rv;
}

int membership_refuse_alive(int fd, const struct layout *layout, int watch_s,
                            void (*progress)(void *data, const char *text), void *data,
                            struct error *err)
{
    struct look then = {layout->max_nodes, calloc(layout->max_nodes, sizeof(struct delta_lease))};
    struct look now = {layout->max_nodes, calloc(layout->max_nodes, sizeof(struct delta_lease))};
    if (!then.leases || !now.leases)
        abort();
    int rv = look_at(fd, layout, &then, err);
    if (rv == 0) {
        int s = window_s(&then, watch_s);
        if (s > 0)
            rv = watch(fd, layout, &then, &now, s, progress, data, err);
    }
    free(then.leases);
    free(now.leases);
    return rv;
}
