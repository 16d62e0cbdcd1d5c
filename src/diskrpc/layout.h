/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything lies inside the reserved area (docs/DISK-FORMAT.md has the picture).
 *
 * All offsets are absolute byte offsets on the LUN. The area starts at LAYOUT_AREA_START on every
 * lunar LUN, because `lun format` always asks LVM for the same metadata size, so an agent needs no
 * LVM to find its mail. What follows the superblock region is recorded in the superblock and never
 * recomputed for an existing LUN.
 */
#ifndef LUNAR_DISKRPC_LAYOUT_H
#define LUNAR_DISKRPC_LAYOUT_H

#include <stdint.h>

#include "base/error.h"

#define MIB (1024ull * 1024)

/* pvcreate --metadatasize 64m puts the bootloader area at 65 MiB (1 MiB alignment); measured, and
 * checked by format. */
#define LAYOUT_AREA_START        (65 * MIB)
#define LAYOUT_LVM_METADATA_SIZE (64 * MIB)
/* The two superblocks lie half a region apart so that one bad spot does not take both. */
#define LAYOUT_SUPERBLOCK_REGION   MIB
#define LAYOUT_SUPERBLOCK_B_OFFSET (MIB / 2)
/* The coordinator's beat, between the two: in a place that was free, so that no layout changes. */
#define LAYOUT_BEAT_OFFSET (MIB / 4)

#define LAYOUT_PAGE_SIZE                                                                           \
    4096u /* up and down pages, and the unit of everything else but sanlock's */
/* A spill slot carries one message of up to 256 KiB; one slot per node and direction. */
#define LAYOUT_SPILL_SIZE (256u * 1024)
/* One copy of a node's grant or report table: 4 KiB to 64 KiB are written, as much as the entries
 * need. */
#define LAYOUT_TABLE_SIZE (64u * 1024)
/* Two slots of LVM metadata text; 16 MiB hold about 50,000 LVs at 320 bytes each (FACTS: measured).
 */
#define LAYOUT_METADATA_COPY_SIZE   (16 * MIB)
#define LAYOUT_RESOURCES            8u /* coordinator, member, six spares */
#define LAYOUT_RESOURCE_COORDINATOR 0u
#define LAYOUT_RESOURCE_MEMBER      1u

#define LAYOUT_NODES_MIN 2u
#define LAYOUT_NODES_MAX 2000u /* sanlock's own limit */

struct layout {
    uint32_t max_nodes;
    uint32_t sector_size; /* 512 or 4096: the LUN's logical sector */
    uint32_t align_size;  /* sanlock's lease area: 1, 2, 4 or 8 MiB, from the two above */
    uint64_t area_start, area_size;
    uint64_t lockspace; /* one align_size */
    uint64_t resources; /* LAYOUT_RESOURCES * align_size */
    uint64_t up_pages,
        down_pages; /* max_nodes * LAYOUT_PAGE_SIZE each; slot of host id h is h - 1 */
    uint64_t up_spill, down_spill; /* max_nodes * LAYOUT_SPILL_SIZE each */
    uint64_t grants_a,
        grants_b; /* max_nodes * LAYOUT_TABLE_SIZE each; the coordinator writes them */
    uint64_t reports_a,
        reports_b; /* the same; node h writes entry h: what it has open or is opening */
    uint64_t metadata_a, metadata_b; /* LAYOUT_METADATA_COPY_SIZE each */
};

/* Computes a new LUN's layout; LUNAR_E_INVALID if max_nodes or sector_size is out of range. */
int layout_compute(uint32_t max_nodes, uint32_t sector_size, struct layout *ret, struct error *err);
/* Checks a layout read from disk: regions in the area, aligned, not overlapping. LUNAR_E_CORRUPT if
 * not. */
int layout_check(const struct layout *layout, uint64_t device_size, struct error *err);

/* Host ids count from 1. The caller has checked 1 <= host_id <= max_nodes; asserted here. */
uint64_t layout_up_page(const struct layout *layout, uint32_t host_id);
uint64_t layout_down_page(const struct layout *layout, uint32_t host_id);
uint64_t layout_up_spill(const struct layout *layout, uint32_t host_id);
uint64_t layout_down_spill(const struct layout *layout, uint32_t host_id);
/* copy: 0 is A, 1 is B. */
uint64_t layout_grants(const struct layout *layout, uint32_t host_id, int copy);
uint64_t layout_reports(const struct layout *layout, uint32_t host_id, int copy);
uint64_t layout_resource(const struct layout *layout, uint32_t index);

#endif
