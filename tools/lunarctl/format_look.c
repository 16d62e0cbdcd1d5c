/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `lun format` looks at before it writes: size, use on this node, what the device carries,
 * life on its leases.
 *
 * Three grades of refusal: what --force may destroy (signatures, a dead pool, damaged superblocks);
 * what nothing overrides (a lockspace that somebody renews, SAFETY 22; a pool of a newer lunar,
 * whose leases we could not even find; a device in use); what needs no word at all (a blank device,
 * the debris of our own interrupted format). A device that cannot be read is never taken for a
 * blank one.
 */
#include "format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/size.h"
#include "cli.h"
#include "coordinator/mda.h"
#include "diskrpc/pv.h"
#include "fencing/membership.h"

#define EXTENTS_MIN 8u /* a pool with less room than this is a mistake in the device's name */

static void progress(void *data, const char *text)
{
    (void)data;
    cli_progress("%s", text);
}

/* LVM keeps a second metadata area at the device's end, of the same size as the first. */
static int check_size(const struct format *f, struct error *err)
{
    const struct layout *l = &f->sb.layout;
    char have[SIZE_TEXT_SIZE], need_text[SIZE_TEXT_SIZE];
    uint64_t need = l->area_start + l->area_size + LAYOUT_LVM_METADATA_SIZE +
                    (uint64_t)EXTENTS_MIN * f->sb.extent_size;
    need = (need + MIB - 1) / MIB * MIB;
    if (f->device.bytes >= need)
        return 0;
    return error_set(
        err, LUNAR_E_INVALID,
        "%s has %s; a pool for %u nodes needs at least %s (less with a smaller --max-nodes "
        "or --extent-size)",
        f->device.path, size_format(f->device.bytes, have), l->max_nodes,
        size_format(need, need_text));
}

/* What an interrupted format may have left besides its superblock; see the head of this file. */
static bool is_our_debris(const struct format *f, const struct signatures *found)
{
    struct mda_state state;
    char *text = NULL;
    size_t len;

    if (found->n == 0)
        return true;
    if (!found->only_lvm)
        return false;
    int rc = mda_read(f->device.fd, &state, &text, &len, NULL);
    bool ours = rc == LUNAR_E_NOT_FOUND || (rc == 0 && strstr(text, "system_id = \"lunar-"));
    free(text);
    return ours;
}

static int refuse_interrupted(const struct format *f, const struct superblock *old,
                              const struct signatures *found, struct error *err)
{
    if (strcmp(old->wwid, f->device.wwid) != 0)
        return error_set(
            err, LUNAR_E_EXISTS,
            "%s carries an interrupted format of another device (WWID '%s', this is '%s'): it "
            "looks like a copy. Use --force if it may be overwritten",
            f->device.path, old->wwid, f->device.wwid);
    if (!is_our_debris(f, found))
        return error_set(
            err, LUNAR_E_EXISTS,
            "%s carries %s besides a lunar format that was interrupted: somebody has used it "
            "since. Use --force if that may be destroyed",
            f->device.path, found->text);
    return 0;
}

static int refuse_pool(const struct format *f, const struct superblock *old, struct error *err)
{
    char id[UUID_TEXT_SIZE], date[32] = "?";
    time_t created = (time_t)old->created_s;
    struct tm tm;
    if (gmtime_r(&created, &tm))
        strftime(date, sizeof date, "%Y-%m-%d", &tm);
    return error_set(
        err, LUNAR_E_EXISTS,
        "%s carries the lunar pool '%s' (%s, made on %s). Use --force if it and all its "
        "volumes may be destroyed",
        f->device.path, old->pool_name, uuid_format(&old->pool_id, id), date);
}

/* An added LUN has no leases by which to tell whether its pool lives. */
static int refuse_added(const struct format *f, struct error *err)
{
    struct pv_label label;
    int rc = pv_label_read(f->device.fd, &label, NULL);
    if (rc < 0 || !label.used || !pv_uuid_is_added(label.uuid))
        return 0;
    return error_set(err, LUNAR_E_IN_USE,
                     "%s belongs to a lunar pool, to which it was added (LVM uuid %s), and --force "
                     "does not override that. If that pool is no more: pvremove -ff %s",
                     f->device.path, label.uuid, f->device.path);
}

/*
 * What --force can override, is overridden here. *ret_old: a layout under which leases may live,
 * with its timeouts.
 */
static int examine(struct format *f, struct superblock *old, bool *ret_has_old, struct error *err)
{
    struct signatures found;
    struct error read_err = ERROR_INIT;

    int status = superblock_read(f->device.fd, old, &read_err);
    *ret_has_old = status == 0;
    if (status == LUNAR_E_VERSION)
        return error_set(
            err, status,
            "%s carries a pool of a newer lunar, whose nodes this version could not even see. "
            "Use that version, or make the device blank first",
            f->device.path);
    if (status < 0 && status > LUNAR_E_BASE)
        return error_set(err, status, "%s", read_err.text);
    int rc = device_probe(&f->device, &found, err);
    if (rc == 0)
        rc = refuse_added(f, err);
    if (rc < 0)
        return rc;
    if (status == 0 && old->state == SUPERBLOCK_FORMATTING)
        cli_progress("an earlier format of %s was interrupted; starting over", f->device.path);
    if (f->force) {
        if (found.n > 0)
            cli_progress("--force: destroying what %s carries: %s", f->device.path, found.text);
        return 0;
    }
    if (status == 0 && old->state == SUPERBLOCK_READY)
        return refuse_pool(f, old, err);
    if (status == 0)
        return refuse_interrupted(f, old, &found, err);
    if (status == LUNAR_E_CORRUPT)
        return error_set(
            err, LUNAR_E_EXISTS,
            "%s carries a damaged lunar superblock (%s). Use --force if it may be destroyed; "
            "look with 'lunarctl lun dump' first",
            f->device.path, read_err.text);
    if (found.n > 0)
        return error_set(err, LUNAR_E_EXISTS, "%s carries: %s. Use --force if it may be destroyed",
                         f->device.path, found.text);
    return 0;
}

static int refuse_alive(struct format *f, const struct layout *layout, uint32_t io_timeout_s,
                        uint32_t watchdog_s, struct error *err)
{
    /* How long a living node may be silent. */
    int watch_s = (int)timeouts_dead_s(io_timeout_s, watchdog_s);
    int rc = membership_refuse_alive(f->device.fd, layout, watch_s, progress, NULL, err);
    if (rc == LUNAR_E_ALIVE)
        error_prefix(err, "%s is in use by another node, which --force does not override",
                     f->device.path);
    return rc;
}

/* SAFETY 22. Also where no superblock is left, because a lockspace may be alive under somebody's
 * dd. */
static int refuse_all_alive(struct format *f, const struct superblock *old, bool has_old,
                            struct error *err)
{
    int rc = 0;
    if (has_old)
        rc = refuse_alive(f, &old->layout, old->io_timeout_s, old->watchdog_fire_timeout_s, err);
    /* Without a superblock nothing tells how many nodes the pool had: every place where a lockspace
     * can lie is watched for as many as fit there. Host ids are spread over the old count. */
    static const uint32_t classes[] = {250, 500, 1000, LAYOUT_NODES_MAX};
    for (size_t i = 0; rc == 0 && !has_old && i < sizeof classes / sizeof *classes; i++) {
        struct layout layout;
        rc = layout_compute(classes[i], f->device.sector, &layout, err);
        if (rc == 0)
            rc = refuse_alive(f, &layout, f->sb.io_timeout_s, f->sb.watchdog_fire_timeout_s, err);
    }
    return rc;
}

int format_look(struct format *format, struct error *err)
{
    struct superblock old;
    bool has_old;
    int rc = check_size(format, err);
    if (rc == 0)
        rc = device_claim(&format->device, err);
    if (rc == 0)
        rc = examine(format, &old, &has_old, err);
    if (rc == 0)
        rc = refuse_all_alive(format, &old, has_old, err);
    return rc == 0 ? format_look_reserve(format, err) : rc;
}
