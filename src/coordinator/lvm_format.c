/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PV and VG of a new pool.
 *
 * Happy path: look what is there (nothing), pvcreate with two metadata areas and the reserved area
 * as its bootloader area, vgcreate with the pool's system id and without autoactivation, look again
 * and check every property. Failure modes: killed in between, the next run finds a PV without a VG,
 * or our empty VG, and goes on from there. A PV in any other VG, or a VG of ours that has LVs, is
 * refused: formatting is not how a pool is destroyed. A bootloader area that lies elsewhere than
 * LAYOUT_AREA_START (an lvm with other ideas of alignment) is refused too, since agents find their
 * mail at that offset without asking LVM.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/lvm.h"
#include "coordinator/mem.h"

struct pv_view {
    bool is_pv;
    char vg_name[128], system_id[128]; /* "" where there is none */
    unsigned long long area_start, area_size, extent_size, lvs, metadata_areas;
};

static unsigned long long number(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text ? strtoull(text, NULL, 10) : 0;
}

static void text(const json_t *row, const char *key, char *ret, size_t size)
{
    const char *value = json_string_value(json_object_get(row, key));
    snprintf(ret, size, "%s", value ? value : "");
}

static int parse_view(const char *json, struct pv_view *ret, struct error *err)
{
    json_t *root = json_loads(json, 0, NULL);
    const json_t *pvs = json_object_get(json_array_get(json_object_get(root, "report"), 0), "pv");
    const json_t *row = json_array_get(pvs, 0);
    size_t n = json_array_size(pvs);

    memset(ret, 0, sizeof *ret);
    if (!json_is_array(pvs) || n > 1) {
        json_decref(root);
        return error_set(err, LUNAR_E_CORRUPT, "lvm pvs gave no report of one device");
    }
    ret->is_pv = n == 1;
    text(row, "vg_name", ret->vg_name, sizeof ret->vg_name);
    text(row, "vg_systemid", ret->system_id, sizeof ret->system_id);
    ret->area_start = number(row, "pv_ba_start");
    ret->area_size = number(row, "pv_ba_size");
    ret->extent_size = number(row, "vg_extent_size");
    ret->lvs = number(row, "lv_count");
    ret->metadata_areas = number(row, "pv_mda_count");
    json_decref(root);
    return 0;
}

static int look(struct lvm *lvm, struct pv_view *ret, struct error *err)
{
    static const char *const args[] = {
        "pvs",
        "-qq",
        "--foreign",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "vg_name,vg_systemid,vg_extent_size,lv_count,pv_ba_start,pv_ba_size,pv_mda_count",
        NULL};
    char *json;
    int rc = lvm_run(lvm, args, &json, err);
    if (rc == 0)
        rc = parse_view(json, ret, err);
    free(json);
    return rc;
}

static bool area_fits(const struct pv_view *view, const struct superblock *sb)
{
    return view->area_start == sb->layout.area_start && view->area_size >= sb->layout.area_size;
}

static int create_pv(struct lvm *lvm, const char *device, const struct superblock *sb,
                     struct error *err)
{
    char metadata[32], area[32];
    const char *args[] = {"pvcreate",
                          "-qq",
                          "-y",
                          "--dataalignment",
                          "1m",
                          "--metadatasize",
                          metadata,
                          "--pvmetadatacopies",
                          LVM_METADATA_COPIES,
                          "--bootloaderareasize",
                          area,
                          device,
                          NULL};
    snprintf(metadata, sizeof metadata, "%llub", LAYOUT_LVM_METADATA_SIZE);
    snprintf(area, sizeof area, "%llub", (unsigned long long)sb->layout.area_size);
    return lvm_run(lvm, args, NULL, err);
}

static int create_vg(struct lvm *lvm, const char *device, const char *system_id,
                     const struct superblock *sb, struct error *err)
{
    char extent[32];
    const char *args[] = {"vgcreate", "-qq",
                          "-y",       "--setautoactivation",
                          "n",        "--systemid",
                          system_id,  "--physicalextentsize",
                          extent,     lvm_vg_name(lvm),
                          device,     NULL};
    snprintf(extent, sizeof extent, "%ub", sb->extent_size);
    return lvm_run(lvm, args, NULL, err);
}

/* What was there before us may be completed only if it is ours and holds nothing. */
static int check_owner(const struct pv_view *view, const char *vg, const char *system_id,
                       struct error *err)
{
    if (view->vg_name[0] == 0)
        return 0;
    if (strcmp(view->vg_name, vg) != 0 || strcmp(view->system_id, system_id) != 0)
        return error_set(err, LUNAR_E_FOREIGN,
                         "the device belongs to the volume group '%s' (system id '%s'): remove "
                         "that or wipe the device",
                         view->vg_name, view->system_id);
    if (view->lvs > 0)
        return error_set(
            err, LUNAR_E_IN_USE,
            "the pool's volume group '%s' exists already and holds %llu logical volumes", vg,
            view->lvs);
    return 0;
}

static int check_made(const struct pv_view *view, const struct superblock *sb, struct error *err)
{
    if (!area_fits(view, sb))
        return error_set(
            err, LUNAR_E_UNSUPPORTED,
            "lvm put the reserved area at %llu (%llu bytes), lunar needs %llu (%llu bytes)",
            view->area_start, view->area_size, (unsigned long long)sb->layout.area_start,
            (unsigned long long)sb->layout.area_size);
    if (view->metadata_areas != 2)
        return error_set(err, LUNAR_E_UNSUPPORTED, "lvm made %llu metadata areas instead of 2",
                         view->metadata_areas);
    if (view->extent_size != sb->extent_size)
        return error_set(err, LUNAR_E_UNSUPPORTED,
                         "the volume group's extents have %llu bytes instead of %u",
                         view->extent_size, sb->extent_size);
    return 0;
}

static int format_steps(struct lvm *lvm, const char *device, const struct superblock *sb,
                        struct error *err)
{
    char system_id[48];
    struct pv_view view;
    pool_system_id(&sb->pool_id, system_id);

    int rc = look(lvm, &view, err);
    if (rc == 0)
        rc = check_owner(&view, lvm_vg_name(lvm), system_id, err);
    bool has_vg = rc == 0 && view.vg_name[0];
    if (rc == 0 && !has_vg && !(view.is_pv && area_fits(&view, sb) && view.metadata_areas == 2))
        rc = create_pv(lvm, device, sb, err);
    if (rc == 0 && !has_vg)
        rc = create_vg(lvm, device, system_id, sb, err);
    if (rc == 0)
        rc = look(lvm, &view, err);
    if (rc == 0)
        rc = check_owner(&view, lvm_vg_name(lvm), system_id, err);
    return rc == 0 ? check_made(&view, sb, err) : rc;
}

int lvm_format(const char *device, const char *state_dir, const struct superblock *superblock,
               struct error *err)
{
    const struct lvm_config config = {
        .device = device, .state_dir = state_dir, .superblock = superblock, .inherit_fd = -1};
    struct lvm *lvm;
    int rc = lvm_open(&config, &lvm, err);
    if (rc < 0)
        return rc;
    rc = format_steps(lvm, device, superblock, err);
    lvm_close(lvm);
    if (rc < 0)
        error_prefix(err, "cannot make the pool's volume group");
    return rc;
}

int lvm_make_pv(const char *device, const char *state_dir, const struct superblock *superblock,
                const char *uuid, struct error *err)
{
    const struct lvm_config config = {
        .device = device, .state_dir = state_dir, .superblock = superblock, .inherit_fd = -1};
    const char *args[] = {"pvcreate",
                          "-qq",
                          "-y",
                          "--uuid",
                          uuid,
                          "--norestorefile",
                          "--dataalignment",
                          "1m",
                          "--pvmetadatacopies",
                          "0",
                          device,
                          NULL};
    struct lvm *lvm;
    int rc = lvm_open(&config, &lvm, err);
    if (rc < 0)
        return rc;
    rc = lvm_run(lvm, args, NULL, err);
    lvm_close(lvm);
    return rc;
}
