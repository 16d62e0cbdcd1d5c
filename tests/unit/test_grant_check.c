/* SPDX-License-Identifier: Apache-2.0 */
/* SAFETY 2, 3, 8: what the LUN must say before an agent maps a volume; each single thing that is
 * otherwise refuses it. */
#include "agent/grant_check.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "diskrpc/table.h"
#include "support/test.h"

#define TERM         7u
#define LEADER_MAGIC 0x06152010u /* of sanlock's leader record */

static struct superblock sb;
static struct incarnation self = {2, 3, 1};
static struct uuid attachment;
static int fd = -1;

/* A file with the few regions that are read; false where O_DIRECT is not to be had. */
static bool make_lun(void)
{
    char path[] = "lun-XXXXXX";
    struct error err = ERROR_INIT;

    if (fd >= 0)
        close(fd);
    int made = mkstemp(path);
    if (made < 0)
        return false;
    memset(&sb, 0, sizeof sb);
    sb.pool_id = uuid_random();
    attachment = uuid_random();
    bool ok = layout_compute(4, 512, &sb.layout, &err) == 0 &&
              ftruncate(made, (off_t)(sb.layout.area_start + sb.layout.area_size)) == 0;
    close(made);
    fd = ok ? io_open(path, 1, &err) : -1;
    unlink(path);
    return fd >= 0;
}

static void write_lver(uint64_t lver)
{
    uint8_t *sector = io_alloc(IO_ALIGN);
    char space[48];
    pool_lockspace(&sb.pool_id, space);
    le32_put(sector, LEADER_MAGIC);
    le64_put(sector + 48, lver);
    memcpy(sector + 56, space, strlen(space));
    /* sanlock's checksum: the CRC-32C register, started at ~1, not inverted at the end, over 168
     * bytes. */
    le32_put(sector + 168, ~crc32c_more(1, sector, 168));
    io_write(fd, sector, IO_ALIGN, layout_resource(&sb.layout, LAYOUT_RESOURCE_COORDINATOR), NULL);
    free(sector);
}

static void write_grant(uint64_t term, uint64_t generation, int copy, uint64_t dead_generation)
{
    struct table t;
    struct error err = ERROR_INIT;
    table_init(&t, TABLE_GRANTS, self.host_id, &sb.pool_id);
    t.writer = (struct incarnation){1, 1, term};
    t.term = term;
    t.seq = 1 + (uint64_t)copy;
    t.node_dead = dead_generation > 0;
    t.dead_generation = dead_generation;
    struct table_entry *e = table_add(&t);
    e->attachment_id = attachment;
    e->volume_id = uuid_random();
    e->generation = generation;
    e->term = term;
    e->mode = TABLE_MODE_ATTACH;
    e->state = TABLE_STATE_GRANTED;
    e->n_layers = 2;
    e->layers[0] = (struct table_layer){.volume_short = 7, .index = 1};
    e->layers[1] = (struct table_layer){.volume_short = 7, .index = 0};
    if (table_write(fd, &sb.layout, &t, copy, &err) < 0)
        printf("# %s\n", err.text);
    table_free(&t);
}

static int check(void)
{
    struct error err = ERROR_INIT;
    return grant_check(fd, &sb, &self, TERM, &attachment, NULL, &err);
}

static void a_grant_of_this_term_and_generation_is_enough(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    write_grant(TERM, 3, 0, 0);
    CHECK_EQ(check(), 0);
}

static void safety_2_a_raised_lease_version_refuses(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_grant(TERM, 3, 0, 0);
    write_lver(TERM + 1);
    CHECK_EQ(check(), LUNAR_E_STALE);
    write_lver(TERM - 1);
    CHECK_EQ(check(), LUNAR_E_STALE);
}

static void safety_2_no_grant_refuses(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    CHECK_EQ(check(), LUNAR_E_STALE);
    write_grant(TERM, 3, 0, 0);
    attachment = uuid_random();
    CHECK_EQ(check(), LUNAR_E_STALE);
}

static void safety_3_a_grant_of_another_generation_or_term_refuses(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    write_grant(TERM, 2, 0, 0);
    CHECK_EQ(check(), LUNAR_E_STALE);
    write_grant(TERM - 1, 3, 0, 0);
    CHECK_EQ(check(), LUNAR_E_STALE);
}

static void safety_3_the_newer_copy_counts(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    write_grant(TERM, 3, 0, 0);
    struct uuid wanted = attachment;
    attachment = uuid_random();
    write_grant(TERM, 3, 1, 0);
    attachment = wanted;
    CHECK_EQ(check(), LUNAR_E_STALE);
}

static void safety_8_a_death_mark_refuses(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    write_grant(TERM, 3, 0, 3);
    CHECK_EQ(check(), LUNAR_E_STALE);
    write_grant(TERM, 3, 0, 2);
    CHECK_EQ(check(), 0);
}

static int check_layer(uint64_t volume_short, uint32_t index)
{
    struct error err = ERROR_INIT;
    struct table_layer layer = {.volume_short = volume_short, .index = index};
    return grant_check(fd, &sb, &self, TERM, &attachment, &layer, &err);
}

static void safety_2_a_layer_that_the_grant_does_not_name_is_refused(void)
{
    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    write_grant(TERM, 3, 0, 0);
    CHECK_EQ(check_layer(7, 1), 0);
    CHECK_EQ(check_layer(7, 0), 0);
    CHECK_EQ(check_layer(7, 2), LUNAR_E_STALE);
    CHECK_EQ(check_layer(8, 1), LUNAR_E_STALE);
}

static void safety_2_what_a_former_coordinator_gave_is_not_mapped(void)
{
    struct error err = ERROR_INIT;

    if (!make_lun())
        SKIP("no O_DIRECT file here");
    write_lver(TERM);
    CHECK_EQ(grant_check_term(fd, &sb, TERM, &err), 0);
    write_lver(TERM + 1);
    CHECK_EQ(grant_check_term(fd, &sb, TERM, &err), LUNAR_E_STALE);
    CHECK_EQ(grant_check_term(fd, &sb, 0, &err), LUNAR_E_STALE);
}

TEST_MAIN(TEST(a_grant_of_this_term_and_generation_is_enough),
          TEST(safety_2_a_raised_lease_version_refuses), TEST(safety_2_no_grant_refuses),
          TEST(safety_3_a_grant_of_another_generation_or_term_refuses),
          TEST(safety_3_the_newer_copy_counts), TEST(safety_8_a_death_mark_refuses),
          TEST(safety_2_a_layer_that_the_grant_does_not_name_is_refused),
          TEST(safety_2_what_a_former_coordinator_gave_is_not_mapped))
