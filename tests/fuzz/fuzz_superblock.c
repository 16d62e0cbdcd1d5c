/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The superblock and the layout in it. The input is a shape byte (fuzz_unit) and the superblock's
 * bytes, of which all beyond the common header are the input's own in every shape.
 *
 * What must hold beyond "no crash": an accepted layout lies where lunar's area lies, passes
 * layout_check for a device that is large enough and fails it for one that ends before the area
 * does; every host's page, spill slot and tables lie inside the area, each computed without an
 * overflow; encoding it again gives the same superblock.
 */
#include "diskrpc/superblock.h"
#include "diskrpc/unit.h"
#include "fuzz/fuzz.h"

static void check_inside(const struct layout *l, uint64_t at, uint64_t len)
{
    uint64_t end = l->area_start + l->area_size;
    MUST(end > l->area_start, "the area does not wrap");
    MUST(at >= l->area_start + LAYOUT_SUPERBLOCK_REGION && at < end && end - at >= len,
         "a host's place lies in the area");
}

static void check_hosts(const struct layout *l)
{
    const uint32_t hosts[] = {1, l->max_nodes};
    for (int i = 0; i < 2; i++) {
        uint32_t h = hosts[i];
        check_inside(l, layout_up_page(l, h), LAYOUT_PAGE_SIZE);
        check_inside(l, layout_down_page(l, h), LAYOUT_PAGE_SIZE);
        check_inside(l, layout_up_spill(l, h), LAYOUT_SPILL_SIZE);
        check_inside(l, layout_down_spill(l, h), LAYOUT_SPILL_SIZE);
        for (int copy = 0; copy < 2; copy++) {
            check_inside(l, layout_grants(l, h, copy), LAYOUT_TABLE_SIZE);
            check_inside(l, layout_reports(l, h, copy), LAYOUT_TABLE_SIZE);
        }
    }
    for (uint32_t i = 0; i < LAYOUT_RESOURCES; i++)
        check_inside(l, layout_resource(l, i), l->align_size);
    check_inside(l, l->lockspace, (uint64_t)l->max_nodes * l->sector_size);
}

static void check_again(const struct superblock *sb)
{
    uint8_t buffer[SUPERBLOCK_SIZE];
    struct superblock again;

    superblock_out(sb, buffer);
    MUST(superblock_in(buffer, &again, NULL) == 0, "what was decoded encodes");
    MUST(again.state == sb->state && again.flags == sb->flags &&
             again.write_count == sb->write_count && again.io_timeout_s == sb->io_timeout_s &&
             again.watchdog_fire_timeout_s == sb->watchdog_fire_timeout_s &&
             again.created_s == sb->created_s && again.extent_size == sb->extent_size &&
             uuid_equal(&again.pool_id, &sb->pool_id),
         "every number survives");
    MUST(strcmp(again.pool_name, sb->pool_name) == 0 && strcmp(again.wwid, sb->wwid) == 0,
         "the names survive");
    MUST(memcmp(&again.layout, &sb->layout, sizeof sb->layout) == 0, "the layout survives");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buffer[SUPERBLOCK_SIZE];
    struct superblock sb;
    struct error err = ERROR_INIT;

    fuzz_unit(data, size, UNIT_SUPERBLOCK, 384, 0, buffer, sizeof buffer);
    int rc = superblock_in(buffer, &sb, &err);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0], "a refusal says why");
        return 0;
    }
    const struct layout *l = &sb.layout;
    MUST(pool_name_check(sb.pool_name, NULL) == 0, "the pool's name is one");
    MUST(layout_check(l, l->area_start + l->area_size, NULL) == 0, "it fits the area's own end");
    MUST(layout_check(l, l->area_start + l->area_size - 1, NULL) < 0, "it fits nothing smaller");
    check_hosts(l);
    check_again(&sb);
    return 0;
}
