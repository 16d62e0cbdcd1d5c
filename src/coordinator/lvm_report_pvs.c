/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PVs of lvm's report: the pool's LUNs.
 *
 * Happy path: the one PV that has metadata areas is the first (index 0); each other one's uuid is
 * of lunar's making (diskrpc/pv.h). Failure modes: two with metadata areas, a uuid of somebody
 * else's, one uuid twice, places beyond all devices: LUNAR_E_CORRUPT. One that this machine does
 * not see: LUNAR_E_NOT_FOUND.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/lvm_report_private.h"
#include "coordinator/mem.h"

static int take_sizes(const struct parser *p, const json_t *row, struct lvm_pv *pv,
                      uint64_t *ret_areas)
{
    const struct lvm_report *r = p->report;
    int rc;

    if ((rc = report_number(p, row, "pe_start", &pv->pe_start)) < 0 ||
        (rc = report_number(p, row, "pv_size", &pv->size)) < 0 ||
        (rc = report_number(p, row, "pv_free", &pv->free)) < 0 ||
        (rc = report_number(p, row, "dev_size", &pv->device_size)) < 0 ||
        (rc = report_number(p, row, "pv_mda_count", ret_areas)) < 0)
        return rc;
    if (pv->size % r->extent_size || pv->free % r->extent_size || pv->free > pv->size)
        return report_bad(p, pv->uuid, "the PV's sizes contradict each other");
    if (pv->pe_start > INT64_MAX - pv->size)
        return report_bad(p, pv->uuid, "the PV's extents begin beyond all devices");
    return 0;
}

static int take_pv(struct parser *p, const json_t *row)
{
    struct lvm_report *r = p->report;
    const char *name = report_text(row, "pv_name"), *uuid = report_text(row, "pv_uuid");
    const char *missing = report_text(row, "pv_missing");
    uint64_t areas;

    if (!name || !*name || !uuid || strlen(uuid) != PV_UUID_SIZE - 1 || !missing)
        return report_bad(p, NULL, "a PV without name or uuid");
    r->pvs = mem_grow(r->pvs, r->n_pvs, sizeof *r->pvs);
    struct lvm_pv *pv = &r->pvs[r->n_pvs];
    *pv = (struct lvm_pv){.index = r->n_pvs};
    p->pv_names[r->n_pvs++] = name;
    strcpy(pv->uuid, uuid);
    if (*missing)
        return error_set(p->err, LUNAR_E_NOT_FOUND,
                         "the pool's LUN with the LVM uuid %s is not on this machine", uuid);
    int rc = take_sizes(p, row, pv, &areas);
    if (rc == 0 && (areas == 0) != pv_uuid_is_added(uuid))
        rc = report_bad(p, uuid,
                        areas ? "an added PV has metadata areas"
                              : "it has no metadata areas, and lunar has not made it");
    return rc;
}

static bool goes_before(const struct lvm_pv *a, const struct lvm_pv *b)
{
    bool a_added = pv_uuid_is_added(a->uuid), b_added = pv_uuid_is_added(b->uuid);
    return a_added != b_added ? b_added : strcmp(a->uuid, b->uuid) < 0;
}

static void swap(struct parser *p, uint32_t i, uint32_t k)
{
    struct lvm_pv *pvs = p->report->pvs, pv = pvs[i];
    const char *name = p->pv_names[i];
    pvs[i] = pvs[k];
    p->pv_names[i] = p->pv_names[k];
    pvs[k] = pv;
    p->pv_names[k] = name;
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
            return report_bad(p, NULL, "not just one PV has the metadata areas");
        if (i > 0 && strcmp(r->pvs[i - 1].uuid, r->pvs[i].uuid) == 0)
            return report_bad(p, r->pvs[i].uuid, "two PVs have this uuid");
    }
    return r->n_pvs > 0 ? 0 : report_bad(p, NULL, "it has no PV");
}

int report_pvs(struct parser *p, const json_t *section)
{
    const json_t *row;
    size_t i;

    if (!json_is_array(section) || json_array_size(section) != p->pv_count)
        return report_bad(p, NULL, "it does not list the PVs that the VG has");
    if (p->pv_count > LVM_PVS_MAX)
        return error_set(p->err, LUNAR_E_UNSUPPORTED, "the VG has %" PRIu64 " PVs, more than %u",
                         p->pv_count, LVM_PVS_MAX);
    json_array_foreach(section, i, row)
    {
        int rc = take_pv(p, row);
        if (rc < 0)
            return rc;
    }
    sort(p);
    return check_order(p);
}
