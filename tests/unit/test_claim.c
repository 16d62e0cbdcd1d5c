/* SPDX-License-Identifier: Apache-2.0 */
/* The claim of a host id: its bytes, and that no reader of pages takes it for one. */
#include "diskrpc/claim.h"

#include "support/golden.h"
#include "support/test.h"

static const struct uuid pool = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static struct claim sample(void)
{
    struct claim claim = {.slot = 7, .pool_id = pool, .lease_generation = 0x1122334455667788};
    for (int i = 0; i < 16; i++)
        claim.nonce.b[i] = (uint8_t)(0xa0 + i);
    strcpy(claim.node_name, "worker-7.example.org");
    return claim;
}

static void a_claim_is_the_golden_file_and_comes_back(void)
{
    struct claim claim = sample(), again;
    uint8_t page[PAGE_SIZE_BYTES];
    claim_out(&claim, page);
    CHECK(golden_matches("claim", page, sizeof page));
    CHECK(golden_load("claim", page, sizeof page));
    CHECK_EQ(claim_in(page, 7, &pool, &again, NULL), 0);
    CHECK_EQ(again.slot, 7);
    CHECK(uuid_equal(&again.nonce, &claim.nonce));
    CHECK_EQ(again.lease_generation, claim.lease_generation);
    CHECK_STR(again.node_name, claim.node_name);
}

static void readers_of_pages_skip_a_claim(void)
{
    struct claim claim = sample();
    struct page page;
    uint8_t bytes[PAGE_SIZE_BYTES];
    claim_out(&claim, bytes);
    CHECK_EQ(page_in(bytes, PAGE_UP, 7, &pool, &page, NULL), LUNAR_E_FOREIGN);
}

static void what_is_no_claim_of_that_id_is_refused(void)
{
    static const struct uuid other = {{9}};
    struct claim claim = sample(), ret;
    struct page page = {.kind = PAGE_UP, .slot = 7, .pool_id = pool, .first_seq = 1};
    uint8_t bytes[PAGE_SIZE_BYTES] = {0};
    CHECK_EQ(claim_in(bytes, 7, &pool, &ret, NULL), LUNAR_E_NOT_FOUND);
    page.writer.host_id = 7;
    page_out(&page, bytes);
    CHECK_EQ(claim_in(bytes, 7, &pool, &ret, NULL), LUNAR_E_FOREIGN);
    claim_out(&claim, bytes);
    CHECK_EQ(claim_in(bytes, 8, &pool, &ret, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(claim_in(bytes, 7, &other, &ret, NULL), LUNAR_E_FOREIGN);
    bytes[50] ^= 1;
    CHECK_EQ(claim_in(bytes, 7, &pool, &ret, NULL), LUNAR_E_CORRUPT);
}

TEST_MAIN(TEST(a_claim_is_the_golden_file_and_comes_back), TEST(readers_of_pages_skip_a_claim),
          TEST(what_is_no_claim_of_that_id_is_refused))
