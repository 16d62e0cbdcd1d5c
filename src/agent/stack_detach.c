/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Detach. It removes H first: that is one atomic ioctl which fails while anybody has it open, so
 * there is no window in which a consumer could come back. What follows, flush, disk, daemon, maps,
 * can be repeated from any point: after an error, whether refused or unknown, the caller asks
 * again. Failure modes: H is open: LUNAR_E_IN_USE, nothing was touched; the daemon died: it is
 * restarted first, because a disk that nobody serves cannot be removed (it would hang in the
 * kernel); the LUN hangs: the flush runs into its deadline, and the volume stays attached.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/stack_internal.h"
#include "base/log.h"

/* A flush reaches the LUN's cache: as long as a path failover may take. */
#define FLUSH_DEADLINE_MS 60000

int stack_flush_device(const char *path)
{
    int fd = open(path, O_RDWR);

    if (fd < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int remove_handles(struct stack *stack, bool *ret_gone, struct error *err)
{
    struct dm_info_short info;
    char name[DM_NAME_SIZE];

    *ret_gone = false;
    stack_handle_name(&stack->spec, 'H', name);
    int rc = dm_info(name, &info, err);
    if (rc < 0)
        return rc;
    if (info.open_count > 0)
        return error_set(err, LUNAR_E_IN_USE, "%s is open (%u times): unmount it first",
                         stack->link, info.open_count);
    rc = dm_remove(name, err);
    if (rc < 0)
        return rc;
    *ret_gone = true;
    stack_remove_link(stack);
    stack_handle_name(&stack->spec, 'P', name);
    return dm_remove(name, err);
}

/* The LUN refused the flush and would again: the stack is ended, so that the volume does not hang
 * here for ever, and the refusal is the answer once. The same detach again finds nothing and is
 * success. */
static int end_unflushed(const char *root, struct stack *stack, int flush_rc, struct error *err)
{
    struct error why = ERROR_INIT;
    if (err)
        why = *err;
    log_error("stack_flush_failed volume=%s code=%s reason=\"%s\"", stack->spec.name,
              error_name(flush_rc), why.text);
    int rc = stack_teardown(root, &stack->spec.pool_id, &stack->spec.attachment_id, stack, err);
    return rc < 0 ? rc
                  : error_set(
                        err, flush_rc,
                        "the LUN refused the last flush (%s): what was written last may be lost; "
                        "the disk was ended, detach again to finish",
                        why.text);
}

static int flush_thick(const char *root, struct stack *stack, struct error *err)
{
    char name[DM_NAME_SIZE], path[32];

    stack_layer_name(&stack->spec, 0, name);
    int rc = dm_path(name, path, err);
    if (rc == LUNAR_E_NOT_FOUND)
        return 0; /* an earlier detach came as far as its removal, after the flush */
    if (rc < 0)
        return rc;
    rc = helper_call(stack_flush_device, path, FLUSH_DEADLINE_MS, err);
    return rc < 0 && rc != LUNAR_E_INDETERMINATE ? end_unflushed(root, stack, rc, err) : rc;
}

/* Thin: the disk flushed, off the bus, the daemon ended. A dead daemon is restarted for it, else
 * the removal would hang. */
static int remove_disk(const char *root, struct stack *stack, struct error *err)
{
    char vduse[STACK_VDUSE_SIZE], disk[64];
    struct stack_qsd_config config;
    int rc = 0;

    stack_vduse_name(&stack->spec, vduse);
    if (vdpa_present(vduse) && !qsd_alive(&stack->qsd))
        rc = stack_restart_qsd(root, stack, err);
    if (rc < 0) {
        /* Nobody has it open, every answered write is on the LUN: one that fails everything will do
         * to end the disk. */
        log_warn("stack_daemon_missing volume=%s reason=\"%s\"", stack->spec.name,
                 err ? err->text : "");
        return stack_teardown(root, &stack->spec.pool_id, &stack->spec.attachment_id, stack, err);
    }
    if (rc == 0 && vdpa_find(vduse, disk, NULL) == 0)
        rc = helper_call(stack_flush_device, disk, FLUSH_DEADLINE_MS, err);
    if (rc < 0 && rc != LUNAR_E_INDETERMINATE)
        return end_unflushed(root, stack, rc, err);
    if (rc == 0)
        rc = vdpa_del(vduse, err);
    if (rc < 0)
        return rc;
    stack_qsd_config(root, &stack->spec, &config);
    return qsd_stop(&config.config, &stack->qsd, err);
}

static int remove_layers(const struct stack_spec *spec, struct error *err)
{
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < spec->n_layers; i++) {
        stack_layer_name(spec, i, name);
        rc = dm_remove(name, err);
    }
    return rc < 0 ? rc : stack_remove_strays(spec, err);
}

int stack_detach(const char *root, struct stack *stack, struct error *err)
{
    int64_t begin = clock_ms();
    bool gone;

    dm_setup();
    int rc = remove_handles(stack, &gone, err);
    if (rc == 0)
        rc = stack->spec.thick ? flush_thick(root, stack, err) : remove_disk(root, stack, err);
    if (rc == 0)
        rc = remove_layers(&stack->spec, err);
    if (rc == 0)
        rc = stack_tails_remove(&stack->spec.attachment_id, err);
    if (rc == 0)
        rc = stack_state_remove(root, &stack->spec.attachment_id, err);
    if (rc < 0) {
        error_prefix(err, "detach %s", stack->spec.name);
        /* IN_USE means "nothing was touched": below H it is somebody's passing look (udev), and
         * half a detach. */
        if (rc == LUNAR_E_IN_USE && gone)
            rc = err ? err->code = LUNAR_E_INDETERMINATE : LUNAR_E_INDETERMINATE;
        return rc;
    }
    log_info("stack_detached volume=%s ms=%d", stack->spec.name, (int)(clock_ms() - begin));
    stack_free(stack);
    return 0;
}
