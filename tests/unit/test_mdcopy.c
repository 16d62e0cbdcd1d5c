/* SPDX-License-Identifier: Apache-2.0 */
/* The copy of the LVM metadata: header codec, two slots in turn, and a kill between any two writes.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "diskrpc/mdcopy.h"
#include "diskrpc/unit.h"
#include "support/golden.h"
#include "support/temp_lun.h"
#include "support/test.h"

static const struct uuid pool = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static struct mdcopy sample(void)
{
    return (struct mdcopy){
        .pool_id = pool,
        .term = 17,
        .seq = 9,
        .vg_seqno = 321,
        .text_crc = 0xcafef00d,
        .text_len = 54321,
    };
}

static void a_header_is_the_golden_file_and_back(void)
{
    uint8_t bytes[MDCOPY_HEADER_SIZE];
    struct mdcopy want = sample(), got;
    mdcopy_out(&want, bytes);
    CHECK(golden_matches("mdcopy-header", bytes, sizeof bytes));
    CHECK(golden_load("mdcopy-header", bytes, sizeof bytes));
    CHECK_EQ(mdcopy_in(bytes, &pool, &got, NULL), 0);
    CHECK_EQ(got.term, 17);
    CHECK_EQ(got.seq, 9);
    CHECK_EQ(got.vg_seqno, 321);
    CHECK_EQ(got.text_crc, 0xcafef00d);
    CHECK_EQ(got.text_len, 54321);
}

static void a_bad_header_is_told_apart(void)
{
    uint8_t bytes[MDCOPY_HEADER_SIZE] = {0};
    struct mdcopy copy = sample();
    const struct uuid other = {{9}};
    CHECK_EQ(mdcopy_in(bytes, &pool, &copy, NULL), LUNAR_E_NOT_FOUND);
    mdcopy_out(&copy, bytes);
    CHECK_EQ(mdcopy_in(bytes, &other, &copy, NULL), LUNAR_E_FOREIGN);
    for (uint32_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(mdcopy_in(bytes, &pool, &copy, NULL),
                 bit < 64 ? LUNAR_E_FOREIGN : LUNAR_E_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    le16_put(bytes + 8, UNIT_VERSION + 1);
    unit_seal(bytes);
    CHECK_EQ(mdcopy_in(bytes, &pool, &copy, NULL), LUNAR_E_VERSION);
    copy = sample();
    copy.text_len = (uint32_t)LAYOUT_METADATA_COPY_SIZE;
    mdcopy_out(&copy, bytes);
    CHECK_EQ(mdcopy_in(bytes, &pool, &copy, NULL), LUNAR_E_CORRUPT);
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

static int store(const struct lun *lun, const struct mdcopy *previous, const char *text,
                 struct mdcopy *ret)
{
    return mdcopy_store(lun->fd, &lun->layout, &pool, previous, 4, 100, text, strlen(text), ret,
                        NULL);
}

static void stores_go_to_the_slots_in_turn_and_the_last_is_read(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct mdcopy copy, got;
    char *text = NULL;
    CHECK_EQ(mdcopy_read(lun.fd, &lun.layout, &pool, &got, &text, NULL), LUNAR_E_NOT_FOUND);
    CHECK_EQ(store(&lun, NULL, "first", &copy), 0);
    CHECK_EQ(copy.slot, 0);
    CHECK_EQ(store(&lun, &copy, "second", &copy), 0);
    CHECK_EQ(copy.slot, 1);
    CHECK_EQ(store(&lun, &copy, "third", &copy), 0);
    CHECK_EQ(copy.slot, 0);
    CHECK_EQ(copy.seq, 3);
    CHECK_EQ(mdcopy_read(lun.fd, &lun.layout, &pool, &got, &text, NULL), 0);
    CHECK_STR(text, "third");
    CHECK_EQ(got.seq, 3);
    CHECK_EQ(got.slot, 0);
    CHECK_EQ(got.term, 4);
    CHECK_EQ(got.vg_seqno, 100);
    CHECK_EQ(got.text_crc, crc32c("third", 5));
    free(text);
    temp_lun_close(lun.fd, lun.path);
}

/* Killed after the text and before the header, and also in the middle of the text. */
static void a_kill_while_storing_leaves_the_last_copy(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct mdcopy first, second, got;
    char *text = NULL;
    CHECK_EQ(store(&lun, NULL, "first", &first), 0);
    CHECK_EQ(store(&lun, &first, "second", &second), 0);
    uint8_t *half = io_alloc(4096);
    memcpy(half, "thi", 3);
    CHECK_EQ(io_write(lun.fd, half, 4096, lun.layout.metadata_a + MDCOPY_HEADER_SIZE, NULL), 0);
    CHECK_EQ(mdcopy_read(lun.fd, &lun.layout, &pool, &got, &text, NULL), 0);
    CHECK_STR(text, "second");
    free(text);
    CHECK_EQ(io_write(lun.fd, half, 4096, lun.layout.metadata_b + MDCOPY_HEADER_SIZE, NULL), 0);
    struct error err;
    CHECK_EQ(mdcopy_read(lun.fd, &lun.layout, &pool, &got, &text, &err), LUNAR_E_CORRUPT);
    CHECK_STR(err.text, "metadata copy A: the text's checksum is wrong");
    free(half);
    temp_lun_close(lun.fd, lun.path);
}

static void a_text_of_any_length_fits_up_to_the_slot(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    size_t max = LAYOUT_METADATA_COPY_SIZE - MDCOPY_HEADER_SIZE;
    const size_t sizes[] = {1, 4095, 4096, 4097, max};
    char *text = malloc(max + 1), *back;
    struct mdcopy copy, got, *previous = NULL;
    memset(text, 'x', max + 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        text[sizes[i] - 1] = 'y';
        CHECK_EQ(
            mdcopy_store(lun.fd, &lun.layout, &pool, previous, 4, i, text, sizes[i], &copy, NULL),
            0);
        previous = &copy;
        CHECK_EQ(mdcopy_read(lun.fd, &lun.layout, &pool, &got, &back, NULL), 0);
        CHECK_EQ(strlen(back), sizes[i]);
        CHECK_EQ(memcmp(back, text, sizes[i]), 0);
        free(back);
    }
    CHECK_EQ(mdcopy_store(lun.fd, &lun.layout, &pool, previous, 4, 9, text, max + 1, &copy, NULL),
             LUNAR_E_TOO_BIG);
    CHECK_EQ(mdcopy_store(lun.fd, &lun.layout, &pool, previous, 4, 9, text, 0, &copy, NULL),
             LUNAR_E_INVALID);
    free(text);
    temp_lun_close(lun.fd, lun.path);
}

static void an_unreadable_slot_is_an_error_even_beside_a_good_one(void)
{
    struct lun lun;
    if (!lun_open(&lun))
        SKIP("no O_DIRECT here");
    struct mdcopy copy, got;
    char *text = NULL;
    CHECK_EQ(store(&lun, NULL, "first", &copy), 0);
    lun.layout.metadata_b = 4096 * MIB; /* behind the end */
    CHECK_EQ(mdcopy_read(lun.fd, &lun.layout, &pool, &got, &text, NULL), -EIO);
    CHECK(text == NULL);
    temp_lun_close(lun.fd, lun.path);
}

TEST_MAIN(TEST(a_header_is_the_golden_file_and_back), TEST(a_bad_header_is_told_apart),
          TEST(stores_go_to_the_slots_in_turn_and_the_last_is_read),
          TEST(a_kill_while_storing_leaves_the_last_copy),
          TEST(a_text_of_any_length_fits_up_to_the_slot),
          TEST(an_unreadable_slot_is_an_error_even_beside_a_good_one))
