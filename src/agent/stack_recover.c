/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent does with the stacks it finds, and the teardown that ends a stack whatever state it
 * is in.
 *
 * Happy path of recover: the attachments are collected from the folders below root and from the
 * names in the kernel; one that is complete (all maps live, its disk there) is adopted, its daemon
 * restarted if it died meanwhile; everything else is torn down, and so are the maps of jobs.
 * Failure modes: a damaged state file: the kernel's names are enough to tear down; a daemon that
 * cannot be restarted now: the stack is adopted without one, its I/O waits; a teardown that fails:
 * the others go on, the first error is returned, and the agent must not join, because this node may
 * still reach the LUN.
 *
 * The teardown's order is that of the fence (DATAPATH.md), measured: L := error is the proof that
 * nothing reaches the LUN; only then is anything waited for. A disk whose server is dead gets one
 * that fails everything, because requests to nobody never end and would hold every later step.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "agent/helper.h"
#include "agent/stack_internal.h"
#include "base/log.h"

#define UNMOUNT_DEADLINE_MS 10000

/* ---- teardown ---- */

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
        if (all[i].pool_short == pool_short && uuid_equal(&all[i].attachment, t->attachment) &&
            all[i].kind != 'J')
            all[t->n++] = all[i];
    t->devices = all;
    stack_run_dir(t->root, t->attachment, t->run_dir);
    if (t->stack)
        stack_vduse_name(&t->stack->spec, t->vduse);
    else if (t->n > 0) /* "lunar-v0123456789abcdef-..." */
        snprintf(t->vduse, sizeof t->vduse, "%.17s", t->devices[0].name + strlen("lunar-"));
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
        close(qsd.pidfd);
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
    int rc = each_of_kind(t, 'L', dm_wipe, err); /* the proof */

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

/* ---- adoption ---- */

/* Live, not suspended, no table left over: what a predecessor that died in mid-step left is put
 * straight. */
static int make_live(const char *name, bool *ret_complete, struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(name, &info, err);

    if (rc < 0)
        return rc;
    if (!info.exists || !info.live_table) {
        *ret_complete = false;
        return 0;
    }
    if (info.inactive_table)
        rc = dm_clear(name, err);
    if (rc == 0 && info.suspended)
        rc = dm_resume(name, err);
    return rc;
}

static int check_complete(const struct stack_spec *spec, bool *ret_complete, struct error *err)
{
    char name[DM_NAME_SIZE], disk[64];
    int rc = 0;

    *ret_complete = true;
    for (uint32_t i = 0; rc == 0 && i < spec->n_layers; i++) {
        stack_layer_name(spec, i, name);
        rc = make_live(name, ret_complete, err);
    }
    for (const char *kind = "PH"; rc == 0 && *kind; kind++) {
        stack_handle_name(spec, *kind, name);
        rc = make_live(name, ret_complete, err);
    }
    if (rc == 0 && !spec->thick) {
        stack_vduse_name(spec, name);
        *ret_complete &= vdpa_find(name, disk, NULL) == 0;
    }
    return rc;
}

/* A daemon that does not come up now does not undo the adoption: consumers wait, and the agent goes
 * on trying. */
static void adopt_daemon(const char *root, struct stack *stack)
{
    struct stack_qsd_config config;
    struct error err = ERROR_INIT;

    stack_qsd_config(root, &stack->spec, &config);
    int rc = qsd_adopt(&config.config, &stack->qsd, &err);
    if (rc == LUNAR_E_NOT_FOUND)
        rc = stack_restart_qsd(root, stack, &err);
    if (rc < 0)
        log_error("stack_daemon_missing volume=%s code=%s reason=\"%s\"", stack->spec.name,
                  error_name(rc), err.text);
}

struct recovery {
    const char *root;
    const struct uuid *pool_id;
    bool teardown_all;
    void (*adopted)(void *data, struct stack *stack);
    void *data;
    struct stack_device *devices;
    size_t n;
};

static void adopt(const struct recovery *r, struct stack *stack)
{
    struct error err = ERROR_INIT;

    if (!stack->spec.thick)
        adopt_daemon(r->root, stack);
    if (stack_make_link(stack, &err) < 0)
        log_error("stack_link_missing volume=%s reason=\"%s\"", stack->spec.name, err.text);
    log_info("stack_adopted volume=%s qsd=%d", stack->spec.name, (int)stack->qsd.pid);
    r->adopted(r->data, stack);
}

/* Does the kernel have anything of this attachment, and is it this pool's? */
static bool stands(const struct recovery *r, const struct uuid *attachment, bool *ret_ours)
{
    bool any = false;

    *ret_ours = false;
    for (size_t i = 0; i < r->n; i++) {
        if (!uuid_equal(&r->devices[i].attachment, attachment))
            continue;
        any = true;
        *ret_ours |= r->devices[i].pool_short == uuid_short(r->pool_id);
    }
    return any;
}

/* The state file is lost or damaged: whose it is, the kernel's names tell; of nobody's only a
 * folder is left. */
static int recover_damaged(const struct recovery *r, const struct uuid *attachment,
                           struct error *err)
{
    bool ours, any = stands(r, attachment, &ours);

    return any && !ours ? 0 : stack_teardown(r->root, r->pool_id, attachment, NULL, err);
}

static int recover_one(const struct recovery *r, const struct uuid *attachment, struct error *err)
{
    struct stack *stack = calloc(1, sizeof *stack);
    bool complete = false;

    if (!stack)
        abort();
    int rc = stack_state_load(r->root, attachment, stack, err);
    if (rc == LUNAR_E_NOT_FOUND || rc == LUNAR_E_CORRUPT) {
        log_warn("stack_state_lost reason=\"%s\"", err ? err->text : "");
        stack_free(stack);
        return recover_damaged(r, attachment, err);
    }
    bool ours = rc == 0 && uuid_equal(&stack->spec.pool_id, r->pool_id);
    if (rc == 0 && ours) {
        stack->qsd = (struct qsd){.pidfd = -1};
        stack_link_name(&stack->spec, stack->link);
        rc = r->teardown_all ? 0 : check_complete(&stack->spec, &complete, err);
    }
    if (rc == 0 && complete) {
        adopt(r, stack);
        return 0;
    }
    if (rc == 0 && ours)
        rc = stack_teardown(r->root, r->pool_id, attachment, stack, err);
    stack_free(stack);
    return rc;
}

/* ---- recover ---- */

struct uuid_list {
    struct uuid *ids;
    size_t n, room;
};

static void list_add(struct uuid_list *list, const struct uuid *id)
{
    for (size_t i = 0; i < list->n; i++)
        if (uuid_equal(&list->ids[i], id))
            return;
    if (list->n == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->ids = reallocarray(list->ids, list->room, sizeof *list->ids);
        if (!list->ids)
            abort();
    }
    list->ids[list->n++] = *id;
}

/* Folders of every pool, and this pool's devices, whose folder may be gone. */
static void list_attachments(const struct recovery *r, struct uuid_list *list)
{
    struct dirent *entry;
    struct uuid id;
    DIR *dir = opendir(r->root);

    while (dir && (entry = readdir(dir)))
        if (uuid_parse(entry->d_name, &id) == 0)
            list_add(list, &id);
    if (dir)
        closedir(dir);
    for (size_t i = 0; i < r->n; i++)
        if (r->devices[i].kind != 'J' && r->devices[i].pool_short == uuid_short(r->pool_id))
            list_add(list, &r->devices[i].attachment);
}

/* A job's worker died with its agent; error under the map ends what it still had on its way to the
 * LUN. */
static int remove_jobs(const struct recovery *r, struct error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < r->n; i++) {
        const struct stack_device *device = &r->devices[i];
        if (device->kind != 'J' || device->pool_short != uuid_short(r->pool_id))
            continue;
        rc = dm_wipe(device->name, err);
        if (rc == 0)
            rc = dm_remove(device->name, err);
    }
    return rc;
}

int stack_recover(const char *root, const struct uuid *pool_id, bool teardown_all,
                  void (*adopted)(void *data, struct stack *stack), void *data, struct error *err)
{
    struct recovery r = {root, pool_id, teardown_all, adopted, data, NULL, 0};
    struct uuid_list list = {0};

    dm_setup();
    int rc = stack_scan(&r.devices, &r.n, err);
    if (rc < 0)
        return rc;
    list_attachments(&r, &list);
    rc = remove_jobs(&r, err);
    for (size_t i = 0; i < list.n; i++) {
        struct error why = ERROR_INIT;
        int one = recover_one(&r, &list.ids[i], &why);
        if (one < 0)
            log_error("stack_recover_failed code=%s reason=\"%s\"", error_name(one), why.text);
        if (one < 0 && rc == 0)
            rc = error_set(err, one, "%s", why.text);
    }
    free(list.ids);
    free(r.devices);
    return rc;
}
