/* SPDX-License-Identifier: Apache-2.0 */
/* The message page's codec: what goes in comes out, and nothing that a liar or a torn write made
 * comes in. */
#include <stdlib.h>

#include "base/le.h"
#include "diskrpc/page.h"
#include "diskrpc/unit.h"
#include "support/golden.h"
#include "support/test.h"

static const struct uuid pool = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static struct page sample(void)
{
    struct page page = {
        .kind = PAGE_UP,
        .slot = 3,
        .flags = PAGE_FLAG_LEAVING,
        .pool_id = pool,
        .writer = {3, 0x1122334455667788, 5},
        .peer = {1, 4, 17},
        .term = 17,
        .page_seq = 1001,
        .ack_seq = 41,
        .first_seq = 7,
        .heartbeat_ms = 123456789,
        .hint = {.ip = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 7}, .port = 0x1f90},
        .node_name = "worker-3.example",
    };
    page_append(&page, (const uint8_t *)"hello", 5);
    page_append_spilled(&page, 200000, 0xdeadbeef);
    page_append(&page, (const uint8_t *)"four", 4);
    return page;
}

static struct page sample_down(void)
{
    struct page page = {
        .kind = PAGE_DOWN,
        .slot = 3,
        .pool_id = pool,
        .writer = {1, 9, 18},
        .peer = {3, 4, 2},
        .term = 18,
        .page_seq = 12,
        .first_seq = 1,
        .dead_generation = 4,
    };
    return page;
}

static bool same_writer(const struct incarnation *a, const struct incarnation *b)
{
    return a->host_id == b->host_id && a->generation == b->generation &&
           a->run_or_term == b->run_or_term;
}

static bool same(const struct page *a, const struct page *b)
{
    return a->kind == b->kind && a->slot == b->slot && a->flags == b->flags &&
           uuid_equal(&a->pool_id, &b->pool_id) && same_writer(&a->writer, &b->writer) &&
           same_writer(&a->peer, &b->peer) && a->term == b->term && a->page_seq == b->page_seq &&
           a->ack_seq == b->ack_seq && a->first_seq == b->first_seq &&
           a->heartbeat_ms == b->heartbeat_ms && memcmp(a->hint.ip, b->hint.ip, 16) == 0 &&
           a->hint.port == b->hint.port && a->dead_generation == b->dead_generation &&
           a->count == b->count && a->payload_len == b->payload_len &&
           memcmp(a->node_name, b->node_name, PAGE_NAME_SIZE) == 0 &&
           memcmp(a->payload, b->payload, PAGE_PAYLOAD_SIZE) == 0;
}

static int in(const uint8_t *bytes, struct page *ret)
{
    return page_in(bytes, PAGE_UP, 3, &pool, ret, NULL);
}

static void a_page_is_the_golden_file(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page page = sample();
    page_out(&page, bytes);
    CHECK(golden_matches("page-up", bytes, sizeof bytes));
}

static void the_golden_file_decodes_to_the_page(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page want = sample(), got;
    CHECK(golden_load("page-up", bytes, sizeof bytes));
    CHECK_EQ(in(bytes, &got), 0);
    CHECK(same(&want, &got));
}

static void safety_8_a_down_page_carries_the_mark_of_the_dead(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page want = sample_down(), got;
    page_out(&want, bytes);
    CHECK(golden_matches("page-down", bytes, sizeof bytes));
    CHECK(golden_load("page-down", bytes, sizeof bytes));
    CHECK_EQ(page_in(bytes, PAGE_DOWN, 3, &pool, &got, NULL), 0);
    CHECK_EQ(got.dead_generation, 4);
    CHECK(same(&want, &got));
}

static void the_messages_walk_out_as_they_went_in(void)
{
    struct page page = sample();
    struct page_message m;
    uint32_t at = 0;
    CHECK(page_next(&page, &at, &m));
    CHECK(!m.spilled && m.len == 5 && memcmp(m.data, "hello", 5) == 0);
    CHECK(page_next(&page, &at, &m));
    CHECK(m.spilled && m.len == 200000 && m.spill_crc == 0xdeadbeef && !m.data);
    CHECK(page_next(&page, &at, &m));
    CHECK(!m.spilled && m.len == 4 && memcmp(m.data, "four", 4) == 0);
    CHECK(!page_next(&page, &at, &m));
}

static void a_flip_of_any_bit_is_noticed(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page page = sample();
    page_out(&page, bytes);
    for (uint32_t bit = 0; bit < PAGE_SIZE_BYTES * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = in(bytes, &page);
        CHECK_EQ(rc, bit < 64 ? LUNAR_E_FOREIGN
                              : LUNAR_E_CORRUPT); /* the first 8 bytes are the magic */
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_EQ(in(bytes, &page), 0);
}

static void a_page_torn_at_any_sector_is_corrupt(void)
{
    uint8_t old_bytes[PAGE_SIZE_BYTES], new_bytes[PAGE_SIZE_BYTES], torn[PAGE_SIZE_BYTES];
    struct page page = sample();
    page_out(&page, old_bytes);
    page.page_seq++;
    memset(page.payload + 500, 0, 1);
    page_append(&page, (const uint8_t[3000]){1}, 3000);
    strcpy(page.node_name, "another");
    page_out(&page, new_bytes);
    for (uint32_t cut = 512; cut < PAGE_SIZE_BYTES; cut += 512) {
        memcpy(torn, new_bytes, cut);
        memcpy(torn + cut, old_bytes + cut, PAGE_SIZE_BYTES - cut);
        CHECK_EQ(in(torn, &page), LUNAR_E_CORRUPT);
    }
}

static void zeroes_were_never_written_and_others_are_foreign(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES] = {0};
    struct page page = sample(), got;
    const struct uuid other = {{9}};
    CHECK_EQ(in(bytes, &got), LUNAR_E_NOT_FOUND);
    memset(bytes, 'x', sizeof bytes);
    CHECK_EQ(in(bytes, &got), LUNAR_E_FOREIGN);
    page_out(&page, bytes);
    CHECK_EQ(page_in(bytes, PAGE_UP, 3, &other, &got, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(page_in(bytes, PAGE_UP, 4, &pool, &got, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(page_in(bytes, PAGE_DOWN, 3, &pool, &got, NULL), LUNAR_E_FOREIGN);
}

static void another_version_is_told_from_damage(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page page = sample();
    page_out(&page, bytes);
    le16_put(bytes + 8, UNIT_VERSION + 1);
    CHECK_EQ(in(bytes, &page), LUNAR_E_CORRUPT);
    unit_seal(bytes);
    CHECK_EQ(in(bytes, &page), LUNAR_E_VERSION);
}

/* A hostile writer computes good checksums. Puts a value somewhere, seals, and says what page_in
 * thinks of it. */
static int lie(uint32_t at, uint32_t value)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page page = sample();
    page_out(&page, bytes);
    le32_put(bytes + at, value);
    unit_seal(bytes);
    return in(bytes, &page);
}

static void counts_and_lengths_that_lie_are_corrupt(void)
{
    const uint32_t payload = PAGE_HEADER_SIZE;
    CHECK_EQ(lie(48, 3), 0);                 /* the writer, unchanged: sealing works */
    CHECK_EQ(lie(48, 0), LUNAR_E_CORRUPT);   /* nobody wrote it */
    CHECK_EQ(lie(12, 191), LUNAR_E_CORRUPT); /* header length */
    CHECK_EQ(lie(112, 0), LUNAR_E_CORRUPT);  /* first_seq */
    CHECK_EQ(lie(128, 2), LUNAR_E_CORRUPT);  /* one message fewer than there are */
    CHECK_EQ(lie(128, 4), LUNAR_E_CORRUPT);  /* one more */
    CHECK_EQ(lie(128, UINT32_MAX), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(132, 24), LUNAR_E_CORRUPT); /* payload_len ends within a message */
    CHECK_EQ(lie(132, PAGE_PAYLOAD_SIZE + 1), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(132, UINT32_MAX), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(payload, 0), LUNAR_E_CORRUPT); /* an empty message */
    CHECK_EQ(lie(payload, 9), LUNAR_E_CORRUPT); /* runs into the next */
    CHECK_EQ(lie(payload, 0x7fffffff), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(payload + 12, PAGE_MESSAGE_SPILLED), LUNAR_E_CORRUPT); /* an empty spill */
    CHECK_EQ(lie(payload + 12, PAGE_MESSAGE_SPILLED | (LAYOUT_SPILL_SIZE + 1)), LUNAR_E_CORRUPT);
    CHECK_EQ(lie(payload + 12, PAGE_MESSAGE_SPILLED | LAYOUT_SPILL_SIZE), 0);
    CHECK_EQ(lie(payload + 20, PAGE_MESSAGE_SPILLED | 5), LUNAR_E_CORRUPT); /* a second spill */
    CHECK_EQ(lie(PAGE_SIZE_BYTES - 4, 0x61616161), LUNAR_E_CORRUPT); /* a name without an end */
}

static void any_hint_address_is_taken_and_none_is_none(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page page = sample();
    CHECK_EQ(lie(136, UINT32_MAX), 0);
    CHECK_EQ(lie(152, UINT32_MAX), 0);
    page.hint = (struct hint_address){.port = 0};
    page_out(&page, bytes);
    for (int i = 136; i < 192; i++) /* as every page was before there were hints */
        CHECK_EQ(bytes[i], 0);
    page.hint.port = 1;
    CHECK_EQ(in(bytes, &page), 0);
    CHECK(hint_address_is_none(&page.hint));
}

static void messages_for_nobody_are_corrupt(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page page = sample();
    page.peer = (struct incarnation){0, 0, 0};
    page_out(&page, bytes);
    CHECK_EQ(in(bytes, &page), LUNAR_E_CORRUPT);
}

static void random_bytes_under_a_good_checksum_never_crash(void)
{
    uint8_t bytes[PAGE_SIZE_BYTES];
    int accepted = 0;
    srand(5);
    for (int n = 0; n < 20000; n++) {
        struct page page = sample();
        page_out(&page, bytes);
        for (int i = 0; i < 1 + rand() % 6; i++)
            bytes[48 + rand() % 180] = (uint8_t)rand();
        unit_seal(bytes);
        if (in(bytes, &page) != 0)
            continue;
        struct page_message m;
        uint32_t at = 0, count = 0, sum = 0;
        while (page_next(&page, &at, &m)) {
            for (uint32_t i = 0; !m.spilled && i < m.len; i++)
                sum += m.data[i];
            count++;
        }
        CHECK_EQ(count, page.count);
        accepted += sum != 1;
    }
    CHECK(accepted > 1000);
}

static void a_page_takes_what_fits_and_says_when_it_is_full(void)
{
    static uint8_t bytes[PAGE_PAYLOAD_SIZE];
    struct page page = {.count = 0};
    CHECK(!page_append(&page, bytes, PAGE_PAYLOAD_SIZE - 3));
    CHECK(page_append(&page, bytes, PAGE_PAYLOAD_SIZE - 4));
    CHECK(!page_append(&page, bytes, 1));
    CHECK(!page_append_spilled(&page, 1, 0));
    page.count = page.payload_len = 0;
    for (uint32_t i = 0; i < PAGE_BATCH_MAX; i++)
        CHECK(page_append(&page, bytes, 1));
    CHECK(!page_append(&page, bytes, 1));
    CHECK(!page_append_spilled(&page, 1, 0));
}

TEST_MAIN(TEST(a_page_is_the_golden_file), TEST(the_golden_file_decodes_to_the_page),
          TEST(safety_8_a_down_page_carries_the_mark_of_the_dead),
          TEST(the_messages_walk_out_as_they_went_in), TEST(a_flip_of_any_bit_is_noticed),
          TEST(a_page_torn_at_any_sector_is_corrupt),
          TEST(zeroes_were_never_written_and_others_are_foreign),
          TEST(another_version_is_told_from_damage), TEST(counts_and_lengths_that_lie_are_corrupt),
          TEST(any_hint_address_is_taken_and_none_is_none), TEST(messages_for_nobody_are_corrupt),
          TEST(random_bytes_under_a_good_checksum_never_crash),
          TEST(a_page_takes_what_fits_and_says_when_it_is_full))
