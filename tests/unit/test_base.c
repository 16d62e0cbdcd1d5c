/* SPDX-License-Identifier: Apache-2.0 */
/* The base library: checksums with known answers, sizes, ids and errors. */
#include "base/crc32c.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/size.h"
#include "base/uuid.h"

#include <errno.h>
#include <stdatomic.h>

#include "support/test.h"

static void note_call(void *data, int index)
{
    atomic_int *calls = data;
    atomic_fetch_add(&calls[index], 1);
}

static void parallel_work_is_done_once_each_before_the_call_returns(void)
{
    atomic_int calls[PARALLEL_MAX] = {0};
    for (int n = 1; n <= PARALLEL_MAX; n++) {
        parallel_run(n, note_call, calls);
        CHECK_EQ(calls[n - 1], 1);
        CHECK_EQ(calls[0], n);
    }
}

static void crc32c_gives_the_known_answers(void)
{
    uint8_t zeroes[32] = {0};
    /* RFC 3720, B.4: 32 bytes of zeroes; and the usual check string. */
    CHECK_EQ(crc32c(zeroes, sizeof zeroes), 0x8a9136aa);
    CHECK_EQ(crc32c("123456789", 9), 0xe3069283);
    CHECK_EQ(crc32c_more(crc32c("1234", 4), "56789", 5), 0xe3069283);
}

static void sizes_are_read_with_units_and_refused_without_sense(void)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } cases[] = {{"4096", 4096},
                 {"10GiB", 10ull << 30},
                 {"10g", 10ull << 30},
                 {"1T", 1ull << 40},
                 {"1.5G", 0},
                 {"-1", 0},
                 {"0", 0},
                 {"12 parsecs", 0},
                 {"", 0},
                 {"99999999999999999999", 0},
                 {"9000000P", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t got = 0;
        struct error err = ERROR_INIT;
        int rc = size_parse(cases[i].text, &got, &err);
        CHECK_EQ(rc, cases[i].bytes ? 0 : LUNAR_E_INVALID);
        CHECK_EQ(got, cases[i].bytes);
        CHECK(cases[i].bytes || err.text[0]);
    }
}

static void sizes_are_written_short_and_exact(void)
{
    char text[SIZE_TEXT_SIZE];
    CHECK_STR(size_format(10ull << 30, text), "10 GiB");
    CHECK_STR(size_format(512, text), "512 B");
    CHECK_STR(size_format(3ull << 29, text), "1.50 GiB");
}

static void a_uuid_survives_its_text_form(void)
{
    char text[UUID_TEXT_SIZE];
    struct uuid id = uuid_random(), back;
    CHECK_EQ(uuid_parse(uuid_format(&id, text), &back), 0);
    CHECK(uuid_equal(&id, &back));
    CHECK_EQ(uuid_parse("not a uuid", &back), LUNAR_E_INVALID);
    text[8] = 'x';
    CHECK_EQ(uuid_parse(text, &back), LUNAR_E_INVALID);
}

static void an_error_carries_its_story_from_the_bottom_up(void)
{
    struct error err = ERROR_INIT;
    CHECK_EQ(error_set(&err, LUNAR_E_NO_SPACE, "no extent left"), LUNAR_E_NO_SPACE);
    CHECK_EQ(error_prefix(&err, "volume %s", "x"), LUNAR_E_NO_SPACE);
    CHECK_STR(err.text, "volume x: no extent left");
    CHECK_EQ(error_grpc(LUNAR_E_NO_SPACE), 8);
    CHECK_STR(error_name(-EIO), "EIO");
    CHECK(error_retryable(LUNAR_E_INDETERMINATE));
}

TEST_MAIN(TEST(parallel_work_is_done_once_each_before_the_call_returns),
          TEST(crc32c_gives_the_known_answers),
          TEST(sizes_are_read_with_units_and_refused_without_sense),
          TEST(sizes_are_written_short_and_exact), TEST(a_uuid_survives_its_text_form),
          TEST(an_error_carries_its_story_from_the_bottom_up))
