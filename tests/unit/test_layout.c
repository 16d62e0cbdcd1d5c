/* SPDX-License-Identifier: Apache-2.0 */
/* The reserved area's map: sizes, alignment, and what layout_check refuses. */
#include <stddef.h>

#include "diskrpc/layout.h"
#include "support/test.h"

static uint32_t align_of(uint32_t max_nodes, uint32_t sector_size)
{
    struct layout layout;
    return layout_compute(max_nodes, sector_size, &layout, NULL) == 0 ? layout.align_size : 0;
}

static void the_lease_size_follows_sanlocks_table(void)
{
    CHECK_EQ(align_of(2, 512), MIB);
    CHECK_EQ(align_of(2000, 512), MIB);
    CHECK_EQ(align_of(250, 4096), MIB);
    CHECK_EQ(align_of(251, 4096), 2 * MIB);
    CHECK_EQ(align_of(500, 4096), 2 * MIB);
    CHECK_EQ(align_of(501, 4096), 4 * MIB);
    CHECK_EQ(align_of(1000, 4096), 4 * MIB);
    CHECK_EQ(align_of(1001, 4096), 8 * MIB);
    CHECK_EQ(align_of(2000, 4096), 8 * MIB);
}

static void numbers_out_of_range_are_refused(void)
{
    struct layout layout;
    struct error err;
    CHECK_EQ(layout_compute(1, 512, &layout, &err), LUNAR_E_INVALID);
    CHECK_EQ(layout_compute(2001, 512, &layout, &err), LUNAR_E_INVALID);
    CHECK_EQ(layout_compute(16, 1024, &layout, &err), LUNAR_E_INVALID);
    CHECK(strstr(err.text, "1024") != NULL);
}

static void every_layout_passes_its_own_check_and_fits_exactly(void)
{
    for (uint32_t nodes = 2; nodes <= 2000; nodes++)
        for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
            struct layout l;
            CHECK_EQ(layout_compute(nodes, sector, &l, NULL), 0);
            CHECK_EQ(layout_check(&l, l.area_start + l.area_size, NULL), 0);
            CHECK_EQ(layout_check(&l, l.area_start + l.area_size - 1, NULL), LUNAR_E_CORRUPT);
            CHECK_EQ(l.area_size % MIB, 0);
            CHECK_EQ(l.lockspace % l.align_size, 0);
            CHECK_EQ(l.resources % l.align_size, 0);
        }
}

static void sixteen_nodes_lie_where_the_document_says(void)
{
    struct layout l;
    CHECK_EQ(layout_compute(16, 512, &l, NULL), 0);
    CHECK_EQ(l.area_start, 65 * MIB);
    CHECK_EQ(l.lockspace, 66 * MIB);
    CHECK_EQ(l.resources, 67 * MIB);
    CHECK_EQ(l.up_pages, 75 * MIB);
    CHECK_EQ(l.down_pages, 76 * MIB);
    CHECK_EQ(l.up_spill, 77 * MIB);
    CHECK_EQ(l.down_spill, 81 * MIB);
    CHECK_EQ(l.grants_a, 85 * MIB);
    CHECK_EQ(l.grants_b, 86 * MIB);
    CHECK_EQ(l.reports_a, 87 * MIB);
    CHECK_EQ(l.reports_b, 88 * MIB);
    CHECK_EQ(l.metadata_a, 89 * MIB);
    CHECK_EQ(l.metadata_b, 105 * MIB);
    CHECK_EQ(l.area_size, 56 * MIB);
}

static void the_slots_of_a_node_are_its_own(void)
{
    struct layout l;
    CHECK_EQ(layout_compute(16, 512, &l, NULL), 0);
    CHECK_EQ(layout_up_page(&l, 1), l.up_pages);
    CHECK_EQ(layout_up_page(&l, 16), l.up_pages + 15 * 4096);
    CHECK_EQ(layout_down_page(&l, 2), l.down_pages + 4096);
    CHECK_EQ(layout_up_spill(&l, 3), l.up_spill + 2 * 256 * 1024);
    CHECK_EQ(layout_down_spill(&l, 3), l.down_spill + 2 * 256 * 1024);
    CHECK_EQ(layout_grants(&l, 2, 0), l.grants_a + 65536);
    CHECK_EQ(layout_grants(&l, 2, 1), l.grants_b + 65536);
    CHECK_EQ(layout_reports(&l, 1, 0), l.reports_a);
    CHECK_EQ(layout_reports(&l, 1, 1), l.reports_b);
    CHECK_EQ(layout_resource(&l, LAYOUT_RESOURCE_MEMBER), l.resources + MIB);
}

static void a_region_out_of_place_is_corrupt(void)
{
    static const size_t fields[] = {
        offsetof(struct layout, lockspace),  offsetof(struct layout, resources),
        offsetof(struct layout, up_pages),   offsetof(struct layout, down_pages),
        offsetof(struct layout, up_spill),   offsetof(struct layout, down_spill),
        offsetof(struct layout, grants_a),   offsetof(struct layout, grants_b),
        offsetof(struct layout, reports_a),  offsetof(struct layout, reports_b),
        offsetof(struct layout, metadata_a), offsetof(struct layout, metadata_b),
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct layout good, l;
        CHECK_EQ(layout_compute(300, 4096, &good, NULL), 0);
        uint64_t *field = (uint64_t *)((char *)&l + fields[i]);
        uint64_t bad[] = {0, good.area_start,               /* over the superblocks */
                          good.area_start + good.area_size, /* behind the end */
                          UINT64_MAX - MIB + 1,             /* its end wraps around */
                          4096};                            /* added: misaligned */
        for (size_t n = 0; n < 5; n++) {
            l = good;
            *field = n == 4 ? *field + bad[n] : bad[n];
            CHECK_EQ(layout_check(&l, UINT64_MAX, NULL), LUNAR_E_CORRUPT);
        }
    }
}

static void overlapping_regions_are_named(void)
{
    struct layout l;
    struct error err;
    CHECK_EQ(layout_compute(300, 512, &l, NULL), 0);
    l.grants_b = l.grants_a + MIB;
    CHECK_EQ(layout_check(&l, UINT64_MAX, &err), LUNAR_E_CORRUPT);
    CHECK_STR(err.text, "grants A and grants B overlap");
}

static void a_layout_elsewhere_or_of_another_geometry_is_corrupt(void)
{
    struct layout good, l;
    CHECK_EQ(layout_compute(300, 4096, &good, NULL), 0);
    l = good, l.area_start = 64 * MIB;
    CHECK_EQ(layout_check(&l, UINT64_MAX, NULL), LUNAR_E_CORRUPT);
    l = good, l.align_size = MIB;
    CHECK_EQ(layout_check(&l, UINT64_MAX, NULL), LUNAR_E_CORRUPT);
    l = good, l.max_nodes = 0;
    CHECK_EQ(layout_check(&l, UINT64_MAX, NULL), LUNAR_E_CORRUPT);
    l = good, l.sector_size = 520;
    CHECK_EQ(layout_check(&l, UINT64_MAX, NULL), LUNAR_E_CORRUPT);
    l = good, l.area_size = UINT64_MAX;
    CHECK_EQ(layout_check(&l, UINT64_MAX, NULL), LUNAR_E_CORRUPT);
}

TEST_MAIN(TEST(the_lease_size_follows_sanlocks_table), TEST(numbers_out_of_range_are_refused),
          TEST(every_layout_passes_its_own_check_and_fits_exactly),
          TEST(sixteen_nodes_lie_where_the_document_says), TEST(the_slots_of_a_node_are_its_own),
          TEST(a_region_out_of_place_is_corrupt), TEST(overlapping_regions_are_named),
          TEST(a_layout_elsewhere_or_of_another_geometry_is_corrupt))
