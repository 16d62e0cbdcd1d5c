/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PVs of LVM's metadata: the pool's LUNs.
 *
 * Happy path: the one PV whose uuid is not of lunar's making is the first (index 0), which has the
 * metadata areas; each other one was added by lunar (diskrpc/pv.h). Failure modes: two first ones,
 * or none, one uuid twice, places beyond all devices: LUNAR_E_CORRUPT. One that LVM has marked as
 * missing: LUNAR_E_NOT_FOUND.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/lvm_report_private.h"
#include "coordinator/mem.h"

static int take_sizes(const struct parser *p, const struct dm_config_node *section,
                      struct lvm_pv *pv)
{
    const struct lvm_report *r = p->report;
    uint64_t count;
    int rc;

    if ((rc = report_sectors(p, section, "pe_start", &pv->pe_start)) < 0 ||
        (rc = report_sectors(p, section, "dev_size", &pv->device_size)) < 0 ||
        (rc = report_number(p, section, "pe_count", &count)) < 0)
        return rc;
    if (__builtin_mul_overflow(count, r->extent_size, &pv->size) ||
        pv->size > (uint64_t)INT64_MAX - pv->pe_start)
        return report_bad(p, pv->uuid, "the PV's extents end beyond all devices");
    pv->free = pv->size; /* until segments are found upon it */
    return 0;
}

static int take_pv(struct parser *p, const struct dm_config_node *section)
{
    struct lvm_report *r = p->report;
    const char *uuid = report_text(section, "id");

    if (section->v || !uuid || strlen(uuid) != PV_UUID_SIZE - 1)
        return report_bad(p, section->key, "a PV without uuid");
    if (r->n_pvs == LVM_PVS_MAX)
        return error_set(p->err, LUNAR_E_UNSUPPORTED, "the VG has more than %u PVs", LVM_PVS_MAX);
    r->pvs = mem_grow(r->pvs, r->n_pvs, sizeof *r->pvs);
    struct lvm_pv *pv = &r->pvs[r->n_pvs];
    *pv = (struct lvm_pv){.index = r->n_pvs};
    p->pv_keys[r->n_pvs++] = section->key;
    strcpy(pv->uuid, uuid);
    if (report_lists(section, "flags", "MISSING"))
        return error_set(p->err, LUNAR_E_NOT_FOUND,
                         "LVM has marked the pool's LUN with the uuid %s as missing: see "
                         "vgextend(8), --restoremissing",
                         uuid);
    return take_sizes(p, section, pv);
}

static bool goes_before(const struct lvm_pv *a, const struct lvm_pv *b)
{
    bool a_added = pv_uuid_is_added(a->uuid), b_added = pv_uuid_is_added(b->uuid);
    return a_added != b_added ? b_added : strcmp(a->uuid, b->uuid) < 0;
}

static void swap(struct parser *p, uint32_t i, uint32_t k)
{
    struct lvm_pv *pvs = p->report->pvs, pv = pvs[i];
    const char *key = p->pv_keys[i];
    pvs[i] = pvs[k];
    p->pv_keys[i] = p->pv_keys[k];
    pvs[k] = pv;
    p->pv_keys[k] = key;
}

/* The first one first, the others by uuid. */
static void sort(struct parser *p)
{
    const struct lvm_pv *pvs = p->report->pvs;
    for (uint32_t i = 1; i < p->report->n_pvs; i++)
        for (uint32_t k = i; k > 0 && goes_before(&pvs[k], &pvs[k - 1]); k--)
            swap(p, k, k - 1);
}

static int check_order(const struct parser *p)
{
    struct lvm_report *r = p->report;
    for (uint32_t i = 0; i < r->n_pvs; i++) {
        r->pvs[i].index = i;
        if ((i > 0) != pv_uuid_is_added(r->pvs[i].uuid))
            return report_bad(p, NULL, "not just one PV is not of lunar's making");
        if (i > 0 && strcmp(r->pvs[i - 1].uuid, r->pvs[i].uuid) == 0)
            return report_bad(p, r->pvs[i].uuid, "two PVs have this uuid");
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(p->pv_keys[k], p->pv_keys[i]) == 0)
                return report_bad(p, p->pv_keys[i], "two PVs have this name");
    }
    return r->n_pvs > 0 ? 0 : report_bad(p, NULL, "it has no PV");
}

int report_pvs(struct parser *p, const struct dm_config_node *section)
{
    if (!section || section->v)
        return report_bad(p, NULL, "it has no PVs");
    for (const struct dm_config_node *pv = section->child; pv; pv = pv->sib) {
        int rc = take_pv(p, pv);
        if (rc < 0)
            return rc;
    }
    sort(p);
    return check_order(p);
}
