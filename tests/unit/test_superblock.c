/* SPDX-License-Identifier: Apache-2.0 */
/* The superblock's codec, its two copies on a LUN, and the names derived from a pool. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "base/le.h"
#include "diskrpc/superblock.h"
#include "diskrpc/unit.h"
#include "support/golden.h"
#include "support/temp_lun.h"
#include "support/test.h"

static struct superblock sample(void)
{
    struct superblock sb;
    memset(&sb, 0, sizeof sb);
    sb.state = SUPERBLOCK_READY;
    sb.flags = SUPERBLOCK_FLAG_TEST;
    sb.write_count = 2;
    sb.pool_id = (struct uuid){{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
    strcpy(sb.pool_name, "pool-0123456789-0123456789-01234");
    sb.io_timeout_s = 10;
    sb.watchdog_fire_timeout_s = 60;
    sb.created_s = 1800000000;
    sb.extent_size = 4u << 20;
    strcpy(sb.wwid, "naa.600140512345678901234567890abcde");
    layout_compute(256, 512, &sb.layout, NULL);
    return sb;
}

static bool same_layout(const struct layout *a, const struct layout *b)
{
    return a->max_nodes == b->max_nodes && a->sector_size == b->sector_size &&
           a->align_size == b->align_size && a->area_start == b->area_start &&
           a->area_size == b->area_size && a->lockspace == b->lockspace &&
           a->resources == b->resources && a->up_pages == b->up_pages &&
           a->down_pages == b->down_pages && a->up_spill == b->up_spill &&
           a->down_spill == b->down_spill && a->grants_a == b->grants_a &&
           a->grants_b == b->grants_b && a->reports_a == b->reports_a &&
           a->reports_b == b->reports_b && a->metadata_a == b->metadata_a &&
           a->metadata_b == b->metadata_b;
}

static bool same(const struct superblock *a, const struct superblock *b)
{
    return a->state == b->state && a->flags == b->flags && a->write_count == b->write_count &&
           uuid_equal(&a->pool_id, &b->pool_id) && strcmp(a->pool_name, b->pool_name) == 0 &&
           a->io_timeout_s == b->io_timeout_s &&
           a->watchdog_fire_timeout_s == b->watchdog_fire_timeout_s &&
           a->created_s == b->created_s && a->extent_size == b->extent_size &&
           strcmp(a->wwid, b->wwid) == 0 && same_layout(&a->layout, &b->layout);
}

static void a_superblock_is_the_golden_file(void)
{
    uint8_t bytes[SUPERBLOCK_SIZE];
    struct superblock sb = sample();
    superblock_out(&sb, bytes);
    CHECK(golden_matches("superblock", bytes, sizeof bytes));
}

static void the_golden_file_decodes_to_the_superblock(void)
{
    uint8_t bytes[SUPERBLOCK_SIZE];
    struct superblock want = sample(), got;
    CHECK(golden_load("superblock", bytes, sizeof bytes));
    CHECK_EQ(superblock_in(bytes, &got, NULL), 0);
    CHECK(same(&want, &got));
}

static void what_is_not_ours_is_foreign_and_what_is_newer_says_so(void)
{
    uint8_t bytes[SUPERBLOCK_SIZE] = {0};
    struct superblock sb = sample();
    CHECK_EQ(superblock_in(bytes, &sb, NULL), LUNAR_E_FOREIGN);
    memset(bytes, 0xeb, sizeof bytes);
    CHECK_EQ(superblock_in(bytes, &sb, NULL), LUNAR_E_FOREIGN);
    sb = sample();
    superblock_out(&sb, bytes);
    le16_put(bytes + 8, UNIT_VERSION + 1);
    unit_seal(bytes);
    CHECK_EQ(superblock_in(bytes, &sb, NULL), LUNAR_E_VERSION);
}

static void a_flip_of_any_bit_is_noticed(void)
{
    uint8_t bytes[SUPERBLOCK_SIZE];
    struct superblock sb = sample();
    superblock_out(&sb, bytes);
    for (uint32_t bit = 0; bit < SUPERBLOCK_SIZE * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(superblock_in(bytes, &sb, NULL), bit < 64 ? LUNAR_E_FOREIGN : LUNAR_E_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static int lie(uint32_t at, uint32_t value)
{
    uint8_t bytes[SUPERBLOCK_SIZE];
    struct superblock sb = sample();
    superblock_out(&sb, bytes);
    le32_put(bytes + at, value);
    unit_seal(bytes);
    return superblock_in(bytes, &sb, NULL);
}

static void fields_that_make_no_sense_are_corrupt(void)
{
    CHECK_EQ(lie(48, SUPERBLOCK_FORMATTING), 0);
    CHECK_EQ(lie(48, 3), LUNAR_E_CORRUPT);           /* state */
    CHECK_EQ(lie(52, 0), LUNAR_E_CORRUPT);           /* I/O timeout */
    CHECK_EQ(lie(56, 0), LUNAR_E_CORRUPT);           /* watchdog */
    CHECK_EQ(lie(80, 0), LUNAR_E_CORRUPT);           /* no name */
    CHECK_EQ(lie(80, 0x61616141), LUNAR_E_CORRUPT);  /* a capital */
    CHECK_EQ(lie(112, 0x61616161), LUNAR_E_CORRUPT); /* a name without an end */
    CHECK_EQ(lie(256, 0), LUNAR_E_CORRUPT);          /* no nodes */
    CHECK_EQ(lie(288, 0), LUNAR_E_CORRUPT);          /* the lockspace */
}

static void both_copies_are_written_and_the_count_rises(void)
{
    char path[TEMP_LUN_PATH_SIZE];
    int fd = temp_lun_open(130 * MIB, path);
    if (fd < 0)
        SKIP("no O_DIRECT here");
    struct superblock sb = sample(), got;
    CHECK_EQ(superblock_read(fd, &got, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(superblock_write(fd, &sb, NULL), 0);
    CHECK_EQ(sb.write_count, 3);
    CHECK_EQ(superblock_read(fd, &got, NULL), 0);
    CHECK(same(&sb, &got));
    temp_lun_close(fd, path);
}

static void put(int fd, int copy, const void *bytes, uint32_t len)
{
    uint8_t *buffer = io_alloc(SUPERBLOCK_SIZE);
    memcpy(buffer, bytes, len);
    if (io_write(fd, buffer, SUPERBLOCK_SIZE,
                 LAYOUT_AREA_START + (copy ? LAYOUT_SUPERBLOCK_B_OFFSET : 0), NULL) < 0)
        abort();
    free(buffer);
}

static void one_bad_copy_is_passed_over_and_the_higher_count_wins(void)
{
    char path[TEMP_LUN_PATH_SIZE];
    int fd = temp_lun_open(130 * MIB, path);
    if (fd < 0)
        SKIP("no O_DIRECT here");
    struct superblock sb = sample(), got;
    uint8_t bytes[SUPERBLOCK_SIZE];
    for (int bad = 0; bad < 2; bad++) {
        CHECK_EQ(superblock_write(fd, &sb, NULL), 0);
        put(fd, bad, "torn", 4);
        CHECK_EQ(superblock_read(fd, &got, NULL), 0);
        CHECK_EQ(got.write_count, sb.write_count);
    }
    for (int newer = 0; newer < 2; newer++) {
        CHECK_EQ(superblock_write(fd, &sb, NULL), 0);
        struct superblock next = sb;
        next.write_count++;
        next.state = SUPERBLOCK_FORMATTING;
        superblock_out(&next, bytes);
        put(fd, newer, bytes, sizeof bytes);
        CHECK_EQ(superblock_read(fd, &got, NULL), 0);
        CHECK_EQ(got.state, SUPERBLOCK_FORMATTING);
    }
    temp_lun_close(fd, path);
}

static void a_copy_of_a_newer_lunar_refuses_the_lun(void)
{
    char path[TEMP_LUN_PATH_SIZE];
    int fd = temp_lun_open(130 * MIB, path);
    if (fd < 0)
        SKIP("no O_DIRECT here");
    struct superblock sb = sample(), got;
    uint8_t bytes[SUPERBLOCK_SIZE];
    CHECK_EQ(superblock_write(fd, &sb, NULL), 0);
    superblock_out(&sb, bytes);
    le16_put(bytes + 8, UNIT_VERSION + 1);
    unit_seal(bytes);
    put(fd, 1, bytes, sizeof bytes);
    CHECK_EQ(superblock_read(fd, &got, NULL), LUNAR_E_VERSION);
    temp_lun_close(fd, path);
}

static void damage_is_not_taken_for_a_blank_lun_and_neither_is_an_error(void)
{
    char path[TEMP_LUN_PATH_SIZE];
    int fd = temp_lun_open(LAYOUT_AREA_START + LAYOUT_SUPERBLOCK_B_OFFSET, path);
    if (fd < 0)
        SKIP("no O_DIRECT here");
    struct superblock sb = sample(), got;
    struct error err = ERROR_INIT;
    CHECK_EQ(superblock_read(fd, &got, &err), -EIO); /* A is blank, B is behind the end */
    CHECK_EQ(ftruncate(fd, 130 * (off_t)MIB), 0);
    uint8_t bytes[SUPERBLOCK_SIZE];
    superblock_out(&sb, bytes);
    bytes[100] ^= 1;
    put(fd, 0, bytes, sizeof bytes);
    CHECK_EQ(superblock_read(fd, &got, &err), LUNAR_E_CORRUPT);
    temp_lun_close(fd, path);
}

/* A format over an old pool, killed after the first copy: the new pool's copy must be the better
 * one. */
static void a_new_pool_begins_above_the_old_ones_count(void)
{
    char path[TEMP_LUN_PATH_SIZE];
    int fd = temp_lun_open(130 * MIB, path);
    if (fd < 0)
        SKIP("no O_DIRECT here");
    struct superblock old = sample(), fresh = sample(), got;
    old.write_count = 50;
    CHECK_EQ(superblock_write(fd, &old, NULL), 0);
    fresh.write_count = 0;
    fresh.state = SUPERBLOCK_FORMATTING;
    CHECK_EQ(superblock_write(fd, &fresh, NULL), 0);
    CHECK_EQ(fresh.write_count, 52);
    uint8_t bytes[SUPERBLOCK_SIZE];
    superblock_out(&old, bytes);
    put(fd, 0, bytes, sizeof bytes); /* B is written first, so a kill leaves the old A */
    CHECK_EQ(superblock_read(fd, &got, NULL), 0);
    CHECK_EQ(got.state, SUPERBLOCK_FORMATTING);
    temp_lun_close(fd, path);
}

static void names_are_checked_and_derived(void)
{
    struct error err;
    CHECK_EQ(pool_name_check("a", NULL), 0);
    CHECK_EQ(pool_name_check("gold-1", NULL), 0);
    CHECK_EQ(pool_name_check("abcdefghijklmnopqrstuvwxyz012345", NULL), 0);
    CHECK_EQ(pool_name_check("abcdefghijklmnopqrstuvwxyz0123456", NULL), LUNAR_E_INVALID);
    CHECK_EQ(pool_name_check("", NULL), LUNAR_E_INVALID);
    CHECK_EQ(pool_name_check("1a", NULL), LUNAR_E_INVALID);
    CHECK_EQ(pool_name_check("-a", NULL), LUNAR_E_INVALID);
    CHECK_EQ(pool_name_check("a_b", &err), LUNAR_E_INVALID);
    CHECK_STR(err.text, "a pool's name consists of a-z, 0-9 and '-'");
    char vg[POOL_NAME_SIZE + 6], name[48];
    struct superblock sb = sample();
    pool_vg_name(sb.pool_name, vg);
    CHECK_STR(vg, "lunar-pool-0123456789-0123456789-01234");
    pool_lockspace(&sb.pool_id, name);
    CHECK_STR(name, "lunar-a001020304050607");
    pool_system_id(&sb.pool_id, name);
    CHECK_STR(name, "lunar-a001020304050607");
}

TEST_MAIN(TEST(a_superblock_is_the_golden_file), TEST(the_golden_file_decodes_to_the_superblock),
          TEST(what_is_not_ours_is_foreign_and_what_is_newer_says_so),
          TEST(a_flip_of_any_bit_is_noticed), TEST(fields_that_make_no_sense_are_corrupt),
          TEST(both_copies_are_written_and_the_count_rises),
          TEST(one_bad_copy_is_passed_over_and_the_higher_count_wins),
          TEST(a_copy_of_a_newer_lunar_refuses_the_lun),
          TEST(damage_is_not_taken_for_a_blank_lun_and_neither_is_an_error),
          TEST(a_new_pool_begins_above_the_old_ones_count), TEST(names_are_checked_and_derived))
