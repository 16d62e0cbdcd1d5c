/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PVs of lvm's report: the pool's LUNs.
 *
 * Happy path: the one PV that has metadata areas is the first (index 0); each other one carries its
 * index in the tag lunar.pv=N and its LUN's WWID in lunar.pw. Failure modes: one without a number,
 * because whoever added it was killed between two commits, gets the next free one for this report:
 * who maps it knows it by its uuid. Two of one number, two with metadata areas, a number that is
 * none, places beyond all devices: LUNAR_E_CORRUPT. One that this machine does not see:
 * LUNAR_E_NOT_FOUND.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue.h"
#include "coordinator/lvm_report_private.h"
#include "coordinator/mem.h"
#include "diskrpc/superblock.h"

/* The value of the first tag "lunar.KEY=" in a comma-separated list; malloc'ed, NULL: none. */
static char *tag_value(const char *tags, const char *key)
{
    char start[24];
    snprintf(start, sizeof start, "lunar.%s=", key);
    while (*tags) {
        size_t len = strcspn(tags, ",");
        if (len >= strlen(start) && strncmp(tags, start, strlen(start)) == 0)
            return mem_must(strndup(tags + strlen(start), len - strlen(start)));
        tags += len + (tags[len] == ',');
    }
    return NULL;
}

static int take_number(const struct parser *p, const char *tags, struct lvm_pv *pv)
{
    char *text = tag_value(tags, "pv"), *end;
    if (!text)
        return 0;
    unsigned long n = strtoul(text, &end, 10);
    bool good = text[0] >= '1' && text[0] <= '9' && *end == 0 && n < LVM_PVS_MAX;
    pv->index = (uint32_t)n;
    pv->numbered = good;
    free(text);
    return good ? 0 : report_bad(p, pv->uuid, "its tag of the PV's number is broken");
}

static int take_wwid(const struct parser *p, const char *tags, struct lvm_pv *pv)
{
    char *text = tag_value(tags, "pw");
    int rc = text ? tag_unescape(text, pv->wwid, sizeof pv->wwid) : 0;
    free(text);
    return rc < 0 ? report_bad(p, pv->uuid, "its tag of the LUN's WWID is broken") : 0;
}

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
    const char *tags = report_text(row, "pv_tags"), *missing = report_text(row, "pv_missing");
    uint64_t areas;

    if (!name || !*name || !uuid || strlen(uuid) != PV_UUID_SIZE - 1 || !tags || !missing)
        return report_bad(p, NULL, "a PV without name, uuid or tags");
    r->pvs = mem_grow(r->pvs, r->n_pvs, sizeof *r->pvs);
    struct lvm_pv *pv = &r->pvs[r->n_pvs];
    *pv = (struct lvm_pv){.numbered = false};
    p->pv_names[r->n_pvs++] = name;
    strcpy(pv->uuid, uuid);
    if (*missing)
        return error_set(p->err, LUNAR_E_NOT_FOUND,
                         "the pool's LUN with the LVM uuid %s is not on this machine", uuid);
    int rc = take_wwid(p, tags, pv);
    if (rc == 0)
        rc = take_sizes(p, row, pv, &areas);
    if (rc == 0 && areas > 0)
        pv->numbered = true; /* the first */
    else if (rc == 0)
        rc = take_number(p, tags, pv);
    return rc;
}

/* Numbers for those that have none, and each number once. */
static int check_numbers(const struct parser *p)
{
    struct lvm_report *r = p->report;
    bool taken[LVM_PVS_MAX] = {false};

    for (uint32_t i = 0; i < r->n_pvs; i++) {
        if (r->pvs[i].numbered && taken[r->pvs[i].index])
            return report_bad(p, r->pvs[i].uuid, "two PVs have its number");
        taken[r->pvs[i].index] |= r->pvs[i].numbered;
    }
    if (!taken[0])
        return report_bad(p, NULL, "no PV has the metadata areas");
    for (uint32_t i = 0, free_index = 0; i < r->n_pvs; i++) {
        while (!r->pvs[i].numbered && taken[free_index])
            free_index++;
        if (!r->pvs[i].numbered)
            r->pvs[i].index = free_index++;
    }
    return 0;
}

/* The first one first: it is what most look for. The others stay in lvm's order. */
static void put_first_first(struct parser *p)
{
    struct lvm_report *r = p->report;
    for (uint32_t i = 1; i < r->n_pvs; i++) {
        if (r->pvs[i].index != 0)
            continue;
        struct lvm_pv pv = r->pvs[0];
        const char *name = p->pv_names[0];
        r->pvs[0] = r->pvs[i];
        p->pv_names[0] = p->pv_names[i];
        r->pvs[i] = pv;
        p->pv_names[i] = name;
    }
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
    int rc = check_numbers(p);
    if (rc == 0)
        put_first_first(p);
    return rc;
}
