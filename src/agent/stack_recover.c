/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent that starts does with the stacks it finds.
 *
 * Happy path of recover: the attachments are collected from the folders below root and from the
 * names in the kernel; one that is complete (all maps live, its disk there) is adopted, its daemon
 * restarted if it died meanwhile; everything else is torn down, and so are the maps of jobs.
 * Failure modes: a damaged state file: the kernel's names are enough to tear down; a daemon that
 * cannot be restarted now: the stack is adopted without one, its I/O waits; a teardown that fails:
 * the others go on, the first error is returned, and the agent must not join, because this node may
 * still reach the LUN.
 */
#include <dirent.h>
#include <stdlib.h>

#include "agent/stack_internal.h"
#include "base/log.h"

/* ---- adoption ---- */

/* Live, not suspended, no table left over: what a predecessor that died in mid-step left is put
 * straight. */
static int make_live(const char *name, bool *ret_complete, struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(name, &info, err);

    if (rc < 0)
        return rc;
    if (!info.exists || !info.live_table ||
        !info.linear) { /* an error target: torn down half-way */
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
        bool sound = true;
        if (rc == 0 && *ret_complete)
            rc = stack_tail_is_sound(spec, i, &sound, err);
        *ret_complete &= sound;
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
    if (rc == 0 && qsd_check_export(&config.config, &err) == LUNAR_E_NOT_FOUND) {
        /* Our predecessor died while it was starting this one: it serves nobody. */
        rc = qsd_kill(&stack->qsd, &err);
        if (rc == 0)
            rc = LUNAR_E_NOT_FOUND;
    }
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

    /* While it is being relinked the daemon has strays open: asked again, the relink goes on. */
    if (!stack->relinking && stack_remove_strays(&stack->spec, &err) < 0)
        log_error("stack_stray_stands volume=%s reason=\"%s\"", stack->spec.name, err.text);
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
        pthread_mutex_init(&stack->lock, NULL);
        pthread_mutex_init(&stack->maps, NULL);
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

static int each_job(const struct recovery *r, int (*run)(const char *name, struct error *err),
                    struct error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < r->n; i++) {
        const struct stack_device *device = &r->devices[i];
        if (device->kind != 'J' || device->pool_short != uuid_short(r->pool_id))
            continue;
        rc = run(device->name, err);
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
    /* A job's worker died with its agent; error under the map ends what it still had on its way to
     * the LUN. A merge's daemon that lives yet has the maps open: it goes with its folder. */
    rc = each_job(&r, dm_wipe, err);
    for (size_t i = 0; i < list.n; i++) {
        struct error why = ERROR_INIT;
        int one = recover_one(&r, &list.ids[i], &why);
        if (one < 0)
            log_error("stack_recover_failed code=%s reason=\"%s\"", error_name(one), why.text);
        if (one < 0 && rc == 0)
            rc = error_set(err, one, "%s", why.text);
    }
    if (rc == 0)
        rc = each_job(&r, dm_remove, err);
    free(list.ids);
    free(r.devices);
    return rc;
}
