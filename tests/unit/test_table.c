/* SPDX-License-Identifier: Apache-2.0 */
/* Grant and report tables: in memory, as bytes, as two copies on a LUN. */
#include <errno.h>
#include <stdlib.h>

#include "base/io.h"
#include "base/le.h"
#include "diskrpc/table.h"
#include "diskrpc/unit.h"
#include "support/golden.h"
#include "support/temp_lun.h"
#include "support/test.h"

static const struct uuid pool = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static void add(struct table *table, uint8_t number, uint16_t n_layers)
{
    struct table_entry *e = table_add(table);
    e->volume_id.b[0] = number;
    e->attachment_id.b[15] = number;
    e->generation = 6;
    e->term = 17;
    e->mode = number % 2 ? TABLE_MODE_ATTACH : TABLE_MODE_JOB;
    e->state = table->kind == TABLE_GRANTS ? TABLE_STATE_GRANTED : TABLE_STATE_OPENING;
    e->n_layers = n_layers;
    for (uint32_t i = 0; i < n_layers; i++)
        e->layers[i] = (struct table_layer){0x1000 + number, i, 100 + i};
}

static struct table sample(enum table_kind kind)
{
    struct table table;
    table_init(&table, kind, 3, &pool);
    table.writer = (struct incarnation){kind == TABLE_GRANTS ? 1u : 3u, 6, 17};
    table.term = 17;
    table.seq = 9;
    table.node_dead = kind == TABLE_GRANTS;
    table.dead_generation = kind == TABLE_GRANTS ? 5 : 0;
    add(&table, 1, 2);
    add(&table, 2, 0);
    return table;
}

static bool same(const struct table *a, const struct table *b)
{
    bool head = a->kind == b->kind && a->slot == b->slot && uuid_equal(&a->pool_id, &b->pool_id) &&
                a->writer.host_id == b->writer.host_id &&
                a->writer.generation == b->writer.generation &&
                a->writer.run_or_term == b->writer.run_or_term && a->term == b->term &&
                a->seq == b->seq && a->node_dead == b->node_dead &&
                a->dead_generation == b->dead_generation && a->n_entries == b->n_entries;
    return head && memcmp(a->entries, b->entries, a->n_entries * sizeof *a->entries) == 0;
}

static void tables_are_the_golden_files_and_back(void)
{
    static const char *const names[] = {"grant-table", "report-table"};
    for (int i = 0; i < 2; i++) {
        enum table_kind kind = i ? TABLE_REPORTS : TABLE_GRANTS;
        struct table want = sample(kind), got;
        uint8_t bytes[LAYOUT_PAGE_SIZE];
        CHECK_EQ(table_size(&want), sizeof bytes);
        CHECK_EQ(table_out(&want, bytes, sizeof bytes, NULL), 0);
        CHECK(golden_matches(names[i], bytes, sizeof bytes));
        CHECK(golden_load(names[i], bytes, sizeof bytes));
        CHECK_EQ(table_in(bytes, sizeof bytes, kind, 3, &pool, &got, NULL), 0);
        CHECK(same(&want, &got));
        table_free(&want);
        table_free(&got);
    }
}

static void entries_are_added_found_removed_and_copied(void)
{
    struct table table = sample(TABLE_GRANTS), copy;
    const struct uuid volume = {{2}}, nothing = {{77}};
    struct uuid attachment = {{0}};
    attachment.b[15] = 1;
    CHECK(table_find_volume(&table, &volume) == &table.entries[1]);
    CHECK(table_find_volume(&table, &nothing) == NULL);
    CHECK(table_find_attachment(&table, &attachment) == &table.entries[0]);
    CHECK(table_find_attachment(&table, &nothing) == NULL);
    table_init(&copy, TABLE_GRANTS, 3, &pool);
    CHECK_EQ(table_copy(&copy, &table), 0);
    CHECK(same(&copy, &table) && copy.entries != table.entries);
    table_remove(&table, 0);
    CHECK_EQ(table.n_entries, 1);
    CHECK(table_find_volume(&table, &volume) == &table.entries[0]);
    CHECK_EQ(copy.n_entries, 2);
    CHECK_EQ(table_copy(&copy, &table), 0); /* over a filled one: nothing leaks */
    CHECK(same(&copy, &table));
    table_free(&table);
    table_free(&copy);
}

static void the_number_of_entries_and_the_size_are_bounded(void)
{
    struct table table;
    struct error err;
    uint8_t *bytes = malloc(LAYOUT_TABLE_SIZE);
    table_init(&table, TABLE_GRANTS, 3, &pool);
    while (table.n_entries < TABLE_ENTRIES_MAX)
        add(&table, (uint8_t)table.n_entries, 4);
    CHECK(table_add(&table) == NULL);
    CHECK_EQ(table_size(&table), LAYOUT_TABLE_SIZE);
    CHECK_EQ(table_out(&table, bytes, LAYOUT_TABLE_SIZE, NULL), 0);
    struct table got;
    CHECK_EQ(table_in(bytes, LAYOUT_TABLE_SIZE, TABLE_GRANTS, 3, &pool, &got, NULL), 0);
    CHECK(same(&table, &got));
    table.entries[0].n_layers = TABLE_LAYERS_MAX;
    table.entries[1].n_layers = TABLE_LAYERS_MAX;
    CHECK_EQ(table_size(&table), 0);
    CHECK_EQ(table_out(&table, bytes, LAYOUT_TABLE_SIZE, &err), LUNAR_E_TOO_BIG);
    table_free(&table);
    table_free(&got);
    free(bytes);
}

static void a_flip_of_any_bit_is_noticed(void)
{
    struct table table = sample(TABLE_GRANTS), got;
    uint8_t bytes[LAYOUT_PAGE_SIZE];
    CHECK_EQ(table_out(&table, bytes, sizeof bytes, NULL), 0);
    for (uint32_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(table_in(bytes, sizeof bytes, TABLE_GRANTS, 3, &pool, &got, NULL),
                 bit < 64 ? LUNAR_E_FOREIGN : LUNAR_E_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    table_free(&table);
}

static void another_kind_slot_pool_or_version_is_told(void)
{
    struct table table = sample(TABLE_GRANTS), got;
    const struct uuid other = {{9}};
    uint8_t bytes[LAYOUT_PAGE_SIZE] = {0};
    CHECK_EQ(table_in(bytes, sizeof bytes, TABLE_GRANTS, 3, &pool, &got, NULL), LUNAR_E_NOT_FOUND);
    CHECK_EQ(table_out(&table, bytes, sizeof bytes, NULL), 0);
    CHECK_EQ(table_in(bytes, sizeof bytes, TABLE_REPORTS, 3, &pool, &got, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(table_in(bytes, sizeof bytes, TABLE_GRANTS, 4, &pool, &got, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(table_in(bytes, sizeof bytes, TABLE_GRANTS, 3, &other, &got, NULL), LUNAR_E_FOREIGN);
    le16_put(bytes + 8, UNIT_VERSION + 1);
    unit_seal(bytes);
    CHECK_EQ(table_in(bytes, sizeof bytes, TABLE_GRANTS, 3, &pool, &got, NULL), LUNAR_E_VERSION);
    table_free(&table);
}

static int lie(uint32_t at, uint16_t value)
{
    struct table table = sample(TABLE_GRANTS), got;
    uint8_t bytes[LAYOUT_PAGE_SIZE];
    table_out(&table, bytes, sizeof bytes, NULL);
    le16_put(bytes + at, value);
    unit_seal(bytes);
    int rc = table_in(bytes, sizeof bytes, TABLE_GRANTS, 3, &pool, &got, NULL);
    if (rc == 0)
        table_free(&got);
    table_free(&table);
    return rc;
}

static void counts_modes_and_states_that_lie_are_corrupt(void)
{
    CHECK_EQ(lie(52, 2), 0); /* unchanged */
    CHECK_EQ(lie(52, TABLE_ENTRIES_MAX + 1), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(52, TABLE_ENTRIES_MAX), LUNAR_E_CORRUPT); /* more than the bytes hold */
    CHECK_EQ(lie(12, 127), LUNAR_E_CORRUPT);               /* header length */
    CHECK_EQ(lie(128 + 48, 0), LUNAR_E_CORRUPT);           /* mode */
    CHECK_EQ(lie(128 + 48, 3), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(128 + 50, TABLE_STATE_OPEN), LUNAR_E_CORRUPT); /* a report's state in a grant */
    CHECK_EQ(lie(128 + 52, TABLE_LAYERS_MAX + 1), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(128 + 52, UINT16_MAX), LUNAR_E_CORRUPT);
}

static void grants_are_ordered_by_term_and_reports_by_incarnation(void)
{
    struct table a = {.kind = TABLE_GRANTS, .term = 5, .seq = 1, .writer.generation = 1};
    struct table b = {.kind = TABLE_GRANTS, .term = 4, .seq = 9, .writer.generation = 2};
    CHECK(table_newer(&a, &b) && !table_newer(&b, &a));
    b.term = 5;
    CHECK(table_newer(&b, &a));
    a.kind = b.kind = TABLE_REPORTS;
    a.writer = (struct incarnation){3, 2, 1}, b.writer = (struct incarnation){3, 1, 9};
    CHECK(table_newer(&a, &b) && !table_newer(&b, &a));
    b.writer = (struct incarnation){3, 2, 2};
    CHECK(table_newer(&b, &a));
    b.writer = a.writer, b.seq = a.seq;
    CHECK(!table_newer(&a, &b) && !table_newer(&b, &a));
}

struct lun {
    char path[TEMP_LUN_PATH_SIZE];
    int fd;
    struct layout layout;
};

static bool lun_open(struct lun *lun)
{
    layout_compute(8, 512, &lun->layout, NULL);
    lun->fd = temp_lun_open(lun->layout.area_start + lun->layout.area_size, lun->path);
    return lun->fd >= 0;
}

static int newest(const struct lun *lun, struct table *ret, struct error *err)
{
    return table_read_newest(lun->fd, &lun->layout, TABLE_GRANTS, 3, &pool, ret, err);
}

static void damage(const struct lun *lun, int copy)
{
    uint8_t *page = io_alloc(LAYOUT_PAGE_SIZE);
    uint64_t offset = layout_grants(&lun->layout, 3, copy);
    if (io_read(lun->fd, page, LAYOUT_PAGE_SIZE, offset, NULL) < 0)
        abort();
    page[1000] ^= 1;
    if (io_write(lun->fd, page, LAYOUT_PAGE_SIZE, offset, NULL) < 0)
        abort();
    free(page);
}

static void the_newer_valid_copy_is_read_and_a_damaged_one_passed_over(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct table table = sample(TABLE_GRANTS), got;
    CHECK_EQ(newest(&lun, &got, NULL), LUNAR_E_NOT_FOUND);
    CHECK_EQ(got.n_entries, 0);
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 0, NULL), 0);
    CHECK_EQ(newest(&lun, &got, NULL), 0);
    CHECK(same(&table, &got));
    table_free(&got);
    table.seq++;
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 1, NULL), 0);
    CHECK_EQ(newest(&lun, &got, NULL), 0);
    CHECK_EQ(got.seq, 10);
    table_free(&got);
    damage(&lun, 1);
    CHECK_EQ(newest(&lun, &got, NULL), 0);
    CHECK_EQ(got.seq, 9);
    table_free(&got);
    damage(&lun, 0);
    struct error err;
    CHECK_EQ(newest(&lun, &got, &err), LUNAR_E_CORRUPT);
    CHECK(strncmp(err.text, "grants of host 3, copy A: ", 26) == 0);
    table_free(&table);
    temp_lun_close(lun.fd, lun.path);
}

static void a_table_of_many_pages_comes_back_whole_and_may_shrink_again(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct table table = sample(TABLE_GRANTS), got;
    for (int i = 3; i < 200; i++)
        add(&table, (uint8_t)i, 12);
    CHECK(table_size(&table) > 40000);
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 0, NULL), 0);
    CHECK_EQ(newest(&lun, &got, NULL), 0);
    CHECK(same(&table, &got));
    table_free(&got);
    while (table.n_entries > 1)
        table_remove(&table, table.n_entries - 1);
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 0, NULL), 0);
    CHECK_EQ(newest(&lun, &got, NULL), 0);
    CHECK(same(&table, &got));
    table_free(&got);
    table_free(&table);
    temp_lun_close(lun.fd, lun.path);
}

static void an_unreadable_or_newer_copy_is_an_error_even_beside_a_good_one(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct table table = sample(TABLE_GRANTS), got;
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 0, NULL), 0);
    struct layout good = lun.layout;
    lun.layout.grants_b = 4096 * MIB; /* behind the end: reads fail */
    CHECK_EQ(newest(&lun, &got, NULL), -EIO);
    CHECK_EQ(got.n_entries, 0);
    lun.layout = good;
    uint8_t *page = io_alloc(LAYOUT_PAGE_SIZE);
    CHECK_EQ(table_out(&table, page, LAYOUT_PAGE_SIZE, NULL), 0);
    le16_put(page + 8, UNIT_VERSION + 1);
    unit_seal(page);
    CHECK_EQ(io_write(lun.fd, page, LAYOUT_PAGE_SIZE, layout_grants(&good, 3, 1), NULL), 0);
    CHECK_EQ(newest(&lun, &got, NULL), LUNAR_E_VERSION);
    free(page);
    table_free(&table);
    temp_lun_close(lun.fd, lun.path);
}

static void a_mark_covers_the_lives_up_to_its_generation_and_needs_its_flag(void)
{
    struct table table = sample(TABLE_GRANTS); /* marked up to 5 */
    CHECK(table_marks_dead(&table, 4));
    CHECK(table_marks_dead(&table, 5));
    CHECK(!table_marks_dead(&table, 6));
    table.node_dead = false; /* without the flag the number is none */
    CHECK(!table_marks_dead(&table, 4));
    table_free(&table);
}

static bool is_marked(const struct lun *lun, uint64_t generation)
{
    return table_read_marks_dead(lun->fd, &lun->layout, 3, &pool, generation);
}

static void a_mark_on_the_lun_is_the_newest_copys_and_what_cannot_be_read_marks_nothing(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct table table = sample(TABLE_GRANTS); /* marked up to 5 */
    CHECK(!is_marked(&lun, 1));                /* never written */
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 0, NULL), 0);
    CHECK(is_marked(&lun, 5));
    CHECK(!is_marked(&lun, 6));
    table.seq++;
    table.dead_generation = 6;
    CHECK_EQ(table_write(lun.fd, &lun.layout, &table, 1, NULL), 0);
    CHECK(is_marked(&lun, 6));
    lun.layout.grants_b = 4096 * MIB; /* behind the end: reads fail */
    CHECK(!is_marked(&lun, 5));
    table_free(&table);
    temp_lun_close(lun.fd, lun.path);
}

static void the_wanted_length_never_trusts_a_damaged_page(void)
{
    struct table table = sample(TABLE_GRANTS);
    uint8_t bytes[LAYOUT_PAGE_SIZE];
    CHECK_EQ(table_out(&table, bytes, sizeof bytes, NULL), 0);
    CHECK_EQ(table_wanted(bytes), LAYOUT_PAGE_SIZE);
    le32_put(bytes + 32, LAYOUT_TABLE_SIZE);
    CHECK_EQ(table_wanted(bytes), LAYOUT_TABLE_SIZE);
    le32_put(bytes + 32, LAYOUT_TABLE_SIZE + LAYOUT_PAGE_SIZE);
    CHECK_EQ(table_wanted(bytes), LAYOUT_PAGE_SIZE);
    le32_put(bytes + 32, 5000);
    CHECK_EQ(table_wanted(bytes), LAYOUT_PAGE_SIZE);
    memset(bytes, 0, sizeof bytes);
    CHECK_EQ(table_wanted(bytes), LAYOUT_PAGE_SIZE);
    table_free(&table);
}

TEST_MAIN(TEST(tables_are_the_golden_files_and_back),
          TEST(entries_are_added_found_removed_and_copied),
          TEST(the_number_of_entries_and_the_size_are_bounded), TEST(a_flip_of_any_bit_is_noticed),
          TEST(another_kind_slot_pool_or_version_is_told),
          TEST(counts_modes_and_states_that_lie_are_corrupt),
          TEST(grants_are_ordered_by_term_and_reports_by_incarnation),
          TEST(the_newer_valid_copy_is_read_and_a_damaged_one_passed_over),
          TEST(a_table_of_many_pages_comes_back_whole_and_may_shrink_again),
          TEST(an_unreadable_or_newer_copy_is_an_error_even_beside_a_good_one),
          TEST(a_mark_covers_the_lives_up_to_its_generation_and_needs_its_flag),
          TEST(a_mark_on_the_lun_is_the_newest_copys_and_what_cannot_be_read_marks_nothing),
          TEST(the_wanted_length_never_trusts_a_damaged_page))
