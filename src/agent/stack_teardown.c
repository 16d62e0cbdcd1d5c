/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The teardown that ends a stack whatever state it is in: after a failed attach, for what a dead
 * agent left half-built, and for everything when this node may not reach the LUN.
 *
 * The order is that of the fence, measured: T and L := error is the proof that nothing reaches the
 * LUN; only then is anything waited for. It loses no byte that was answered, because answered
 * writes are on the LUN (qsd_graph.c). What stands is taken from the names in the kernel, the state
 * file is not needed. Failure modes: a disk whose server is dead gets one that fails everything,
 * because requests to nobody never end and would hold every later step; a consumer keeps H open: it
 * has EIO for good, and H goes when it is closed; a step that fails or runs into its deadline: the
 * error names it, what was done stays done, the next call goes on from there.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/stack_internal.h"
#include "base/log.h"

#define UNMOUNT_DEADLINE_MS 10000
/* Its maps are errors: nothing holds up its end any more. */
#define DYING_DEADLINE_MS 5000

struct teardown {
    const char *root;
    const struct uuid *attachment;
    const struct stack *stack; /* may be NULL */
    char run_dir[STACK_PATH_SIZE];
    char vduse[STACK_VDUSE_SIZE]; /* "" if nothing tells it */
    struct stack_device *devices; /* of this attachment alone */
    size_t n;
};

static int each_of_kind(const struct teardown *t, char kind,
                        int (*run)(const char *name, struct error *err), struct error *err)
{
    for (size_t i = 0; i < t->n; i++) {
        int rc = t->devices[i].kind == kind ? run(t->devices[i].name, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int collect(struct teardown *t, uint64_t pool_short, struct error *err)
{
    struct stack_device *all;
    size_t n;
    int rc = stack_scan(&all, &n, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (all[i].pool_short == pool_short && uuid_equal(&all[i].attachment, t->attachment))
            all[t->n++] = all[i];
    t->devices = all;
    stack_run_dir(t->root, t->attachment, t->run_dir);
    if (t->stack)
        stack_vduse_name(&t->stack->spec, t->vduse);
    for (size_t i = 0; !t->stack && i < t->n; i++)
        if (t->devices[i].kind != 'J') /* "lunar-v0123456789abcdef-..." */
            snprintf(t->vduse, sizeof t->vduse, "%.17s", t->devices[i].name + strlen("lunar-"));
    return 0;
}

static uint64_t disk_size(const char *vduse)
{
    char disk[64], path[128], text[32] = "";
    uint64_t size = 1 << 20; /* no disk to ask: then nobody can notice */

    if (vdpa_find(vduse, disk, NULL) < 0)
        return size;
    snprintf(path, sizeof path, "/sys/block/%s/size", disk + strlen("/dev/"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
        size = strtoull(text, NULL, 10) * 512;
    if (fd >= 0)
        close(fd);
    return size;
}

/* Makes sure that somebody answers the disk: the daemon that lives (its layers are errors by now),
 * or one that fails all. */
static int ensure_served(const struct teardown *t, struct error *err)
{
    struct qsd_config config = {.run_dir = t->run_dir, .name = t->vduse};
    struct qsd qsd;

    if (t->vduse[0] == '\0' || !vdpa_present(t->vduse))
        return 0;
    if (qsd_adopt(&config, &qsd, NULL) == 0) {
        /* One that was just killed is still there and answers nobody. */
        bool ends = qsd_check_export(&config, NULL) < 0 &&
                    helper_wait_pidfd(qsd.pidfd, DYING_DEADLINE_MS) == 0;
        close(qsd.pidfd);
        if (!ends)
            return 0;
    }
    if (vduse_served(t->vduse))
        return error_set(err, LUNAR_E_IN_USE,
                         "%s is served by a daemon that has no folder in %s: end that "
                         "qemu-storage-daemon by hand, then start again",
                         t->vduse, t->root);
    config.size = disk_size(t->vduse);
    int rc = qsd_start_failing(&config, &qsd, err);
    if (rc == 0)
        close(qsd.pidfd);
    return rc;
}

/* Undoes the mount table's \ooo escapes in place. */
static void unescape(char *path)
{
    char *to = path;

    for (char *p = path; *p; p++) {
        unsigned c;
        if (p[0] == '\\' && sscanf(p + 1, "%3o", &c) == 1) {
            *to++ = (char)c;
            p += 3;
        } else {
            *to++ = *p;
        }
    }
    *to = '\0';
}

static int unmount(const char *path)
{
    return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

/* Detaches every mount of the device that this mount namespace has. */
static int unmount_handle(const char *name, struct error *err)
{
    struct dm_info_short info;
    char *line = NULL, path[4096];
    size_t room = 0;
    unsigned major_number, minor_number;
    int rc = dm_info(name, &info, err);

    FILE *mounts = rc == 0 && info.open_count > 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
    if (!mounts)
        return rc;
    while (rc == 0 && getline(&line, &room, mounts) > 0) {
        if (sscanf(line, "%*s %*s %u:%u %*s %4095s", &major_number, &minor_number, path) != 3 ||
            major_number != info.major || minor_number != info.minor)
            continue;
        unescape(path);
        log_warn("stack_unmounted device=%s path=\"%s\"", name, path);
        rc = helper_call(unmount, path, UNMOUNT_DEADLINE_MS, err);
    }
    free(line);
    fclose(mounts);
    return rc;
}

/* H may be open still: its users have EIO for good, and the kernel removes it with the last of
 * them. */
static int remove_handle(const char *name, struct error *err)
{
    int rc = dm_remove(name, err);

    if (rc != LUNAR_E_IN_USE)
        return rc;
    log_warn("stack_handle_held device=%s action=\"removed when closed\"", name);
    return dm_remove_deferred(name, err);
}

static int end_daemon(const struct teardown *t, struct error *err)
{
    struct qsd_config config = {.run_dir = t->run_dir, .name = t->vduse};
    struct qsd qsd;

    if (t->vduse[0] != '\0') {
        int rc = vdpa_del(t->vduse, err);
        if (rc < 0)
            return rc;
    }
    if (qsd_adopt(&config, &qsd, NULL) < 0)
        return t->vduse[0] != '\0' ? vduse_destroy(t->vduse, err) : 0;
    int rc = t->vduse[0] != '\0' ? qsd_stop(&config, &qsd, err) : qsd_kill(&qsd, err);
    if (rc < 0)
        close(qsd.pidfd);
    return rc;
}

/* Whatever of these was gone before us may have left its node in /dev/mapper. */
static int remove_nodes(const struct teardown *t, struct error *err)
{
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (const char *kind = "hp"; rc == 0 && t->vduse[0] && *kind; kind++) {
        snprintf(name, sizeof name, "lunar-%s-%c", t->vduse, *kind);
        struct dm_info_short info;
        rc = dm_info(name, &info, err);
        if (rc == 0 && !info.exists) /* one that does is held: removed when closed */
            rc = dm_remove(name, err);
    }
    for (uint32_t i = 0; rc == 0 && t->stack && i < t->stack->spec.n_layers; i++) {
        stack_layer_name(&t->stack->spec, i, name);
        rc = dm_remove(name, err);
    }
    return rc;
}

static int run_teardown(const struct teardown *t, struct error *err)
{
    /* What waits in a tail would hold up the maps above it. */
    int rc = stack_tails_wipe(t->devices, t->n, err);

    if (rc == 0)
        rc = each_of_kind(t, 'L', dm_wipe, err); /* with it: the proof */
    if (rc == 0)
        rc = each_of_kind(t, 'J', dm_wipe, err); /* the same for a job, which has nothing else */
    if (rc == 0)
        rc = ensure_served(t, err);
    if (rc == 0)
        rc = each_of_kind(t, 'P', dm_wipe, err);
    if (rc == 0)
        rc = each_of_kind(t, 'H', dm_wipe, err);
    if (rc == 0)
        rc = each_of_kind(t, 'H', unmount_handle, err);
    if (rc == 0)
        rc = each_of_kind(t, 'H', remove_handle, err);
    if (rc == 0)
        rc = each_of_kind(t, 'P', dm_remove, err);
    if (rc == 0)
        rc = end_daemon(t, err);
    if (rc == 0)
        rc = each_of_kind(t, 'L', dm_remove, err);
    if (rc == 0)
        rc = each_of_kind(t, 'J', dm_remove, err); /* its daemon held it open */
    if (rc == 0)
        rc = stack_tails_remove(t->attachment, err);
    if (rc == 0)
        rc = remove_nodes(t, err);
    return rc;
}

int stack_teardown(const char *root, const struct uuid *pool_id, const struct uuid *attachment,
                   const struct stack *stack, struct error *err)
{
    struct teardown t = {.root = root, .attachment = attachment, .stack = stack};
    char text[UUID_TEXT_SIZE];
    int64_t begin = clock_ms();

    int rc = collect(&t, uuid_short(pool_id), err);
    if (rc < 0)
        return rc;
    rc = run_teardown(&t, err);
    free(t.devices);
    if (rc == 0 && stack)
        stack_remove_link(stack);
    if (rc == 0)
        rc = stack_state_remove(root, attachment, err);
    uuid_format(attachment, text);
    if (rc < 0)
        error_prefix(err, "tear down attachment %s", text);
    else
        log_info("stack_torn_down attachment=%s ms=%d", text, (int)(clock_ms() - begin));
    return rc;
}
