/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reserved area's map: computed once by `lun format`, checked by everybody who reads it from a
 * superblock.
 *
 * One table lists the regions with their sizes and alignments; computing walks it and hands out
 * offsets, checking walks it and looks for regions that are out of place or overlap. Failure modes:
 * numbers out of range when computing (INVALID, the operator's), anything else when checking
 * (CORRUPT, the disk's).
 */
#include "diskrpc/layout.h"

#include <assert.h>
#include <stddef.h>

struct region {
    const char *name;
    size_t field; /* offset of the uint64_t in struct layout */
    uint64_t size;
    uint64_t align; /* of the absolute offset on the LUN */
};

#define REGIONS 12

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/*
 * Sanlock keeps one sector per host in a lease area, behind a few sectors of its own; larger
 * sectors need a larger area. FACTS has the table: 512 B sectors: 1 MiB for 2000 hosts; 4 KiB: 250
 * hosts per MiB.
 */
static uint32_t align_size_for(uint32_t max_nodes, uint32_t sector_size)
{
    if (sector_size == 512 || max_nodes <= 250)
        return 1u << 20;
    return max_nodes <= 500 ? 2u << 20 : max_nodes <= 1000 ? 4u << 20 : 8u << 20;
}

/* In the order on the LUN. Everything of ours starts at a MiB, so that a hex dump is easy to
 * navigate. */
static void regions_of(const struct layout *l, struct region ret[REGIONS])
{
    uint64_t pages = (uint64_t)l->max_nodes * LAYOUT_PAGE_SIZE;
    uint64_t spill = (uint64_t)l->max_nodes * LAYOUT_SPILL_SIZE;
    uint64_t tables = (uint64_t)l->max_nodes * LAYOUT_TABLE_SIZE;
    uint64_t lease = l->align_size;
    const struct region all[REGIONS] = {
        /* Sanlock wants multiples of its align size, counted from the start of the LUN. */
        {"lockspace", offsetof(struct layout, lockspace), lease, lease},
        {"resources", offsetof(struct layout, resources), LAYOUT_RESOURCES * lease, lease},
        {"up pages", offsetof(struct layout, up_pages), pages, MIB},
        {"down pages", offsetof(struct layout, down_pages), pages, MIB},
        {"up spill", offsetof(struct layout, up_spill), spill, MIB},
        {"down spill", offsetof(struct layout, down_spill), spill, MIB},
        {"grants A", offsetof(struct layout, grants_a), tables, MIB},
        {"grants B", offsetof(struct layout, grants_b), tables, MIB},
        {"reports A", offsetof(struct layout, reports_a), tables, MIB},
        {"reports B", offsetof(struct layout, reports_b), tables, MIB},
        {"metadata A", offsetof(struct layout, metadata_a), LAYOUT_METADATA_COPY_SIZE, MIB},
        {"metadata B", offsetof(struct layout, metadata_b), LAYOUT_METADATA_COPY_SIZE, MIB},
    };
    for (int i = 0; i < REGIONS; i++)
        ret[i] = all[i];
}

static uint64_t *field_of(struct layout *layout, const struct region *region)
{
    return (uint64_t *)((char *)layout + region->field);
}

static uint64_t offset_of(const struct layout *layout, const struct region *region)
{
    return *(const uint64_t *)((const char *)layout + region->field);
}

static int check_geometry(const struct layout *l, int code, struct error *err)
{
    if (l->max_nodes < LAYOUT_NODES_MIN || l->max_nodes > LAYOUT_NODES_MAX)
        return error_set(err, code, "%u nodes: must be %u to %u", l->max_nodes, LAYOUT_NODES_MIN,
                         LAYOUT_NODES_MAX);
    if (l->sector_size != 512 && l->sector_size != 4096)
        return error_set(err, code, "sector size %u: must be 512 or 4096", l->sector_size);
    return 0;
}

int layout_compute(uint32_t max_nodes, uint32_t sector_size, struct layout *ret, struct error *err)
{
    struct layout l = {.max_nodes = max_nodes, .sector_size = sector_size};
    struct region regions[REGIONS];

    int rc = check_geometry(&l, LUNAR_E_INVALID, err);
    if (rc < 0)
        return rc;
    l.align_size = align_size_for(max_nodes, sector_size);
    l.area_start = LAYOUT_AREA_START;
    regions_of(&l, regions);

    uint64_t at = l.area_start + LAYOUT_SUPERBLOCK_REGION;
    for (int i = 0; i < REGIONS; i++) {
        at = round_up(at, regions[i].align);
        *field_of(&l, &regions[i]) = at;
        at += regions[i].size;
    }
    l.area_size = round_up(at - l.area_start, MIB);
    assert(layout_check(&l, UINT64_MAX, NULL) == 0);
    *ret = l;
    return 0;
}

static int check_region(const struct layout *l, const struct region *r, struct error *err)
{
    uint64_t at = offset_of(l, r), end = l->area_start + l->area_size;

    if (at % r->align != 0)
        return error_set(err, LUNAR_E_CORRUPT, "%s at %llu: not a multiple of %llu", r->name,
                         (unsigned long long)at, (unsigned long long)r->align);
    if (at < l->area_start + LAYOUT_SUPERBLOCK_REGION || at > end || end - at < r->size)
        return error_set(err, LUNAR_E_CORRUPT, "%s at %llu: outside the reserved area", r->name,
                         (unsigned long long)at);
    return 0;
}

static int check_overlap(const struct layout *l, const struct region *a, const struct region *b,
                         struct error *err)
{
    uint64_t at_a = offset_of(l, a), at_b = offset_of(l, b);

    if (at_a < at_b + b->size && at_b < at_a + a->size)
        return error_set(err, LUNAR_E_CORRUPT, "%s and %s overlap", a->name, b->name);
    return 0;
}

static int check_area(const struct layout *l, uint64_t device_size, struct error *err)
{
    int rc = check_geometry(l, LUNAR_E_CORRUPT, err);
    if (rc < 0)
        return rc;
    if (l->align_size != align_size_for(l->max_nodes, l->sector_size))
        return error_set(err, LUNAR_E_CORRUPT, "lease size %u does not fit %u nodes", l->align_size,
                         l->max_nodes);
    if (l->area_start != LAYOUT_AREA_START)
        return error_set(err, LUNAR_E_CORRUPT, "the area starts at %llu",
                         (unsigned long long)l->area_start);
    if (l->area_start > device_size || l->area_size > device_size - l->area_start)
        return error_set(err, LUNAR_E_CORRUPT,
                         "the reserved area ends behind the device's %llu bytes",
                         (unsigned long long)device_size);
    return 0;
}

int layout_check(const struct layout *layout, uint64_t device_size, struct error *err)
{
    struct region regions[REGIONS];

    int rc = check_area(layout, device_size, err);
    if (rc < 0)
        return rc;
    regions_of(layout, regions);
    for (int i = 0; i < REGIONS; i++) {
        rc = check_region(layout, &regions[i], err);
        for (int j = 0; j < i && rc == 0; j++)
            rc = check_overlap(layout, &regions[j], &regions[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static uint64_t slot_offset(const struct layout *layout, uint64_t region, uint32_t host_id,
                            uint32_t slot_size)
{
    assert(host_id >= 1 && host_id <= layout->max_nodes);
    return region + (uint64_t)(host_id - 1) * slot_size;
}

uint64_t layout_up_page(const struct layout *layout, uint32_t host_id)
{
    return slot_offset(layout, layout->up_pages, host_id, LAYOUT_PAGE_SIZE);
}

uint64_t layout_down_page(const struct layout *layout, uint32_t host_id)
{
    return slot_offset(layout, layout->down_pages, host_id, LAYOUT_PAGE_SIZE);
}

uint64_t layout_up_spill(const struct layout *layout, uint32_t host_id)
{
    return slot_offset(layout, layout->up_spill, host_id, LAYOUT_SPILL_SIZE);
}

uint64_t layout_down_spill(const struct layout *layout, uint32_t host_id)
{
    return slot_offset(layout, layout->down_spill, host_id, LAYOUT_SPILL_SIZE);
}

uint64_t layout_grants(const struct layout *layout, uint32_t host_id, int copy)
{
    assert(copy == 0 || copy == 1);
    return slot_offset(layout, copy ? layout->grants_b : layout->grants_a, host_id,
                       LAYOUT_TABLE_SIZE);
}

uint64_t layout_reports(const struct layout *layout, uint32_t host_id, int copy)
{
    assert(copy == 0 || copy == 1);
    return slot_offset(layout, copy ? layout->reports_b : layout->reports_a, host_id,
                       LAYOUT_TABLE_SIZE);
}

uint64_t layout_resource(const struct layout *layout, uint32_t index)
{
    assert(index < LAYOUT_RESOURCES);
    return layout->resources + (uint64_t)index * layout->align_size;
}
