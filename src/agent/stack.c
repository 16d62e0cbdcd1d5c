/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attach, and the restart of a daemon that died. See stack.h for the picture and the order.
 *
 * Attach is a table of steps, each timed in the log. It looks first: if anything of this volume
 * stands on the node, under whatever attachment, it touches nothing. From the state file on, every
 * failure ends in stack_teardown, which goes by what stands in the kernel, so that it does not
 * matter how far the steps came.
 *
 * Detach removes H first: that is one atomic ioctl which fails while anybody has it open, so there
 * is no window in which a consumer could come back. What follows can be repeated from any point.
 */
#include "agent/stack.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/stack_internal.h"
#include "agent/stack_pv.h"
#include "base/log.h"
#include "fencing/guard.h"

void stack_free(struct stack *stack)
{
    if (!stack)
        return;
    if (stack->qsd.pidfd >= 0)
        close(stack->qsd.pidfd);
    stack_spec_free(&stack->spec);
    free(stack);
}

/* ---- shared pieces ---- */

void stack_qsd_config(const char *root, const struct stack_spec *spec, struct stack_qsd_config *ret)
{
    stack_run_dir(root, &spec->attachment_id, ret->run_dir);
    stack_vduse_name(spec, ret->name);
    ret->config =
        (struct qsd_config){.run_dir = ret->run_dir, .name = ret->name, .size = spec->size};
}

int stack_device_number(const char *path, char *ret, size_t size, struct error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISBLK(st.st_mode))
        return error_set(err, LUNAR_E_INVALID, "%s is no block device", path);
    snprintf(ret, size, "%u:%u", major(st.st_rdev), minor(st.st_rdev));
    return 0;
}

/* The permit covers the ioctl alone: once the guard has it for good, no table is under way any
 * more (SAFETY 11). */
int stack_create_permitted(const struct stack_life *life, const char *pool, const char *name,
                           const char *uuid, const struct dm_segment *segments, uint32_t n,
                           bool read_only, struct error *err)
{
    int permit;
    int rc = guard_permit_take(life->run_dir, pool, life->host_id, life->generation, &permit, err);

    if (rc < 0)
        return rc;
    rc = dm_create(name, uuid, segments, n, read_only, err);
    guard_permit_give_back(permit);
    return rc;
}

/* The rest of one segment, behind its first `skip` bytes, as a line of the table. */
static int segment_line(const struct stack_segment *s, uint64_t skip,
                        const struct stack_pv_device *device, struct dm_segment *ret,
                        struct error *err)
{
    ret->length = s->length - skip;
    ret->device_offset = s->lun_offset + skip;
    snprintf(ret->device, sizeof ret->device, "%s", device->number);
    return stack_pv_check_end(device, s->lun_offset + s->length, err);
}

int stack_layer_table(const struct stack_spec *spec, const struct stack_layer *layer, uint64_t from,
                      struct dm_segment **ret, uint32_t *ret_n, struct error *err)
{
    struct stack_pv_device device = {.bytes = 0};
    uint32_t n = 0, pv = UINT32_MAX; /* of `device` */
    struct dm_segment *table = calloc(layer->n_segments + 1, sizeof *table);
    int rc = 0;

    if (!table)
        abort();
    for (uint32_t k = 0; rc == 0 && k < layer->n_segments; k++) {
        const struct stack_segment *s = &layer->segments[k];
        uint64_t skip = from < s->length ? from : s->length;
        from -= skip;
        if (skip == s->length)
            continue;
        if (s->pv != pv)
            rc = stack_pv_find(s->pv, spec->device, &device, err);
        pv = s->pv;
        if (rc == 0)
            rc = segment_line(s, skip, &device, &table[n++], err);
    }
    if (rc < 0) {
        free(table);
        return rc;
    }
    *ret = table;
    *ret_n = n;
    return 0;
}

int stack_map_layer(const struct stack_life *life, const struct stack_spec *spec, uint32_t i,
                    char kind, const char *name, bool read_only, struct error *err)
{
    const struct stack_layer *layer = &spec->layers[i];
    char uuid[DM_UUID_SIZE];
    struct dm_segment *table;
    uint32_t n;

    int rc = stack_layer_table(spec, layer, 0, &table, &n, err);
    if (rc < 0)
        return rc;
    uint64_t bytes = stack_layer_bytes(layer);
    if (kind == 'L' && layer->max_size > bytes)
        rc = stack_tail_make(spec, layer, bytes, &table[n++], err);
    stack_dm_uuid(spec, kind, name, uuid);
    if (rc == 0)
        rc = stack_create_permitted(life, spec->pool, name, uuid, table, n, read_only, err);
    free(table);
    return rc;
}

/* A linear map of the volume's size over one device. */
static int map_handle(const struct stack_spec *spec, char kind, const char *over, struct error *err)
{
    char name[DM_NAME_SIZE], uuid[DM_UUID_SIZE];
    struct dm_segment segment = {.length = spec->size};

    int rc = stack_device_number(over, segment.device, sizeof segment.device, err);
    if (rc < 0)
        return rc;
    stack_handle_name(spec, kind, name);
    stack_dm_uuid(spec, kind, name, uuid);
    return dm_create(name, uuid, &segment, 1, false, err);
}

/* ---- the link ---- */

static void link_target(const struct stack_spec *spec, char ret[DM_NAME_SIZE + 16])
{
    char name[DM_NAME_SIZE];

    stack_handle_name(spec, 'H', name);
    snprintf(ret, DM_NAME_SIZE + 16, "/dev/mapper/%s", name);
}

int stack_make_link(const struct stack *stack, struct error *err)
{
    char target[DM_NAME_SIZE + 16], tmp[STACK_LINK_SIZE + 32], folder[STACK_LINK_SIZE];
    char vduse[STACK_VDUSE_SIZE];

    link_target(&stack->spec, target);
    stack_vduse_name(&stack->spec, vduse);
    snprintf(folder, sizeof folder, "%s", stack->link);
    char *slash = strrchr(folder, '/');
    assert(slash);
    *slash = '\0';
    /* "." in front: no volume's link begins with it, so a left-over is never taken for one */
    snprintf(tmp, sizeof tmp, "%s/.%s", folder, vduse);
    mkdir("/dev/lunar", 0755);
    mkdir(folder, 0755);
    unlink(tmp);
    if (symlink(target, tmp) < 0 || rename(tmp, stack->link) < 0)
        return error_set(err, -errno, "cannot make %s: %s", stack->link, strerror(errno));
    return 0;
}

void stack_remove_link(const struct stack *stack)
{
    char want[DM_NAME_SIZE + 16], have[DM_NAME_SIZE + 16];

    link_target(&stack->spec, want);
    ssize_t n = readlink(stack->link, have, sizeof have - 1);
    if (n < 0)
        return;
    have[n] = '\0';
    if (strcmp(want, have) == 0)
        unlink(stack->link);
}

/* ---- attach ---- */

/* An attach on its way. */
struct building {
    const char *root;
    const struct stack_life *life;
    struct stack *stack;
};

static int step_maps(const struct building *b, struct error *err)
{
    const struct stack *stack = b->stack;
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < stack->spec.n_layers; i++) {
        stack_layer_name(&stack->spec, i, name);
        rc = stack_map_layer(b->life, &stack->spec, i, 'L', name, i > 0, err);
    }
    return rc;
}

/* The layers for the daemon. The device paths stand; they are told to it and not used again. */
int stack_qsd_layer(const struct stack_spec *spec, uint32_t i, struct qsd_layer *ret,
                    struct error *err)
{
    char name[DM_NAME_SIZE];

    ret->volume_short = spec->layers[i].volume_short;
    ret->index = spec->layers[i].index;
    ret->second = spec->layers[i].second;
    stack_layer_name(spec, i, name);
    return dm_path(name, ret->path, err);
}

static int start_daemon(const char *root, struct stack *stack, struct error *err)
{
    struct stack_qsd_config config;
    struct qsd_layer layers[STACK_LAYERS_MAX];
    int rc = 0;

    if (stack->spec.thick)
        return 0;
    for (uint32_t i = 0; rc == 0 && i < stack->spec.n_layers; i++)
        rc = stack_qsd_layer(&stack->spec, i, &layers[i], err);
    if (rc < 0)
        return rc;
    stack_qsd_config(root, &stack->spec, &config);
    config.config.layers = layers;
    config.config.n_layers = stack->spec.n_layers;
    rc = qsd_start(&config.config, &stack->qsd, err);
    if (rc < 0)
        return rc;
    stack->switching = stack->relinking = false; /* this one has the spec's layers, and no others */
    return stack_state_save(root, stack, err);
}

static int step_daemon(const struct building *b, struct error *err)
{
    return start_daemon(b->root, b->stack, err);
}

static int step_pausable(const struct building *b, struct error *err)
{
    const struct stack *stack = b->stack;
    char name[DM_NAME_SIZE], disk[64], vduse[STACK_VDUSE_SIZE];

    if (stack->spec.thick) {
        stack_layer_name(&stack->spec, 0, name);
        int rc = dm_path(name, disk, err);
        return rc < 0 ? rc : map_handle(&stack->spec, 'P', disk, err);
    }
    stack_vduse_name(&stack->spec, vduse);
    int rc = vdpa_find(vduse, disk, err);
    return rc < 0 ? rc : map_handle(&stack->spec, 'P', disk, err);
}

static int step_disk(const struct building *b, struct error *err)
{
    const struct stack *stack = b->stack;
    char vduse[STACK_VDUSE_SIZE], disk[64];

    if (stack->spec.thick)
        return 0;
    stack_vduse_name(&stack->spec, vduse);
    return vdpa_add(vduse, disk, err);
}

static int step_handle(const struct building *b, struct error *err)
{
    const struct stack *stack = b->stack;
    char name[DM_NAME_SIZE], path[32];

    stack_handle_name(&stack->spec, 'P', name);
    int rc = dm_path(name, path, err);
    return rc < 0 ? rc : map_handle(&stack->spec, 'H', path, err);
}

static int step_link(const struct building *b, struct error *err)
{
    return stack_make_link(b->stack, err);
}

static const struct step {
    const char *name;
    int (*run)(const struct building *b, struct error *err);
} attach_steps[] = {
    {"mapping the layers", step_maps}, {"starting the storage daemon", step_daemon},
    {"making the disk", step_disk},    {"make P", step_pausable},
    {"make H", step_handle},           {"make the link", step_link},
};

static int run_steps(const struct building *b, struct error *err)
{
    for (size_t i = 0; i < sizeof attach_steps / sizeof *attach_steps; i++) {
        int64_t begin = clock_ms();
        int rc = attach_steps[i].run(b, err);
        log_debug("stack_step volume=%s step=\"%s\" ms=%d", b->stack->spec.name,
                  attach_steps[i].name, (int)(clock_ms() - begin));
        if (rc < 0) {
            error_prefix(err, "%s", attach_steps[i].name);
            return rc;
        }
    }
    return 0;
}

/* Nothing of this volume may stand on the node: names below are the volume's, so a second
 * attachment would meet the first. */
static int check_free(const char *root, const struct stack_spec *spec, struct error *err)
{
    char vduse[STACK_VDUSE_SIZE], prefix[DM_NAME_SIZE], job[DM_NAME_SIZE];
    char folder[STACK_PATH_SIZE];
    struct stack_device *devices;
    size_t n;

    stack_run_dir(root, &spec->attachment_id, folder);
    if (access(folder, F_OK) == 0)
        return error_set(err, LUNAR_E_EXISTS, "%s stands already", folder);
    stack_vduse_name(spec, vduse);
    if (vdpa_present(vduse) || vduse_served(vduse))
        return error_set(err, LUNAR_E_IN_USE, "%s has a disk %s on this node already", spec->name,
                         vduse);
    int rc = stack_scan(&devices, &n, err);
    if (rc < 0)
        return rc;
    snprintf(prefix, sizeof prefix, "lunar-%s-", vduse);
    snprintf(job, sizeof job, "lunar-job-%s-", vduse);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (strncmp(devices[i].name, prefix, strlen(prefix)) == 0 ||
            strncmp(devices[i].name, job, strlen(job)) == 0)
            rc = error_set(err, LUNAR_E_IN_USE, "%s is on this node already: %s stands", spec->name,
                           devices[i].name);
    free(devices);
    return rc;
}

static struct stack *stack_new(const struct stack_spec *spec)
{
    struct stack *stack = calloc(1, sizeof *stack);

    if (!stack)
        abort();
    pthread_mutex_init(&stack->lock, NULL);
    pthread_mutex_init(&stack->maps, NULL);
    stack_spec_copy(&stack->spec, spec);
    stack->qsd.pidfd = -1;
    stack_link_name(spec, stack->link);
    return stack;
}

static int undo_attach(const char *root, struct stack *stack, int rc, struct error *err)
{
    struct error why = ERROR_INIT;

    if (stack->qsd.pidfd >= 0)
        close(stack->qsd.pidfd);
    stack->qsd.pidfd = -1;
    if (stack_teardown(root, &stack->spec.pool_id, &stack->spec.attachment_id, stack, &why) == 0) {
        /* Daemon and maps are gone: a step that was given up and ends late has nothing to open, and
         * no way to the LUN. */
        if (rc == LUNAR_E_INDETERMINATE && err)
            err->code = LUNAR_E_TIMEOUT;
        return rc == LUNAR_E_INDETERMINATE ? LUNAR_E_TIMEOUT : rc;
    }
    struct error first = err ? *err : (struct error)ERROR_INIT;
    return error_set(err, LUNAR_E_INDETERMINATE, "%.400s; and it could not be undone: %.400s",
                     first.text, why.text);
}

int stack_attach(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                 struct stack **ret, struct error *err)
{
    int64_t begin = clock_ms();

    *ret = NULL;
    dm_setup();
    int rc = stack_spec_check(spec, err);
    if (rc == 0)
        rc = check_free(root, spec, err);
    if (rc < 0)
        return rc;
    struct stack *stack = stack_new(spec);
    rc = stack_state_save(root, stack, err);
    if (rc == 0)
        rc = run_steps(&(struct building){root, life, stack}, err);
    if (rc < 0) {
        rc = undo_attach(root, stack, rc, err);
        stack_free(stack);
        return rc;
    }
    log_info("stack_attached volume=%s link=%s qsd=%d ms=%d", spec->name, stack->link,
             (int)stack->qsd.pid, (int)(clock_ms() - begin));
    *ret = stack;
    return 0;
}

/* ---- restart ---- */

/* In-flight requests of the dead daemon may still be on their way to the LUN; a suspend returns
 * only when they have ended, so that none of them can land on top of what the new daemon writes
 * (SAFETY 19). */
static int drain_layers(const struct stack_spec *spec, struct error *err)
{
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < spec->n_layers; i++) {
        stack_layer_name(spec, i, name);
        rc = dm_suspend(name, true, err);
        if (rc == 0)
            rc = dm_resume(name, err);
    }
    return rc;
}

int stack_restart_qsd(const char *root, struct stack *stack, struct error *err)
{
    int64_t begin = clock_ms();

    assert(!stack->spec.thick);
    if (stack->qsd.pidfd >= 0 && helper_wait_pidfd(stack->qsd.pidfd, 0) < 0)
        return stack_state_save(root, stack,
                                err); /* it runs: an earlier restart failed at its last step */
    if (stack->qsd.pidfd >= 0)
        close(stack->qsd.pidfd);
    stack->qsd = (struct qsd){.pidfd = -1};
    int rc = drain_layers(&stack->spec, err);
    if (rc == 0)
        rc = start_daemon(root, stack, err);
    if (rc < 0) {
        error_prefix(err, "restart the daemon of %s", stack->spec.name);
        return rc;
    }
    stack->qsd_restarts++;
    log_warn("stack_daemon_restarted volume=%s qsd=%d restarts=%u ms=%d", stack->spec.name,
             (int)stack->qsd.pid, stack->qsd_restarts, (int)(clock_ms() - begin));
    return stack_state_save(root, stack, err);
}
