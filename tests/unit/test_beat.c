/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's beat on the LUN: its bytes, and what a reader tells apart. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "base/le.h"
#include "diskrpc/beat.h"
#include "diskrpc/superblock.h"
#include "diskrpc/unit.h"
#include "support/golden.h"
#include "support/test.h"

static const struct uuid pool = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static struct beat sample(void)
{
    return (struct beat){
        .pool_id = pool,
        .writer = {.host_id = 7, .generation = 3, .run_or_term = 42},
        .count = 1234,
        .phase = BEAT_PHASE_LEADING,
        .node_name = "node-7",
        .n_still = 2,
        .still = {{.host_id = 3, .generation = 5, .timestamp = 600},
                  {.host_id = 2000, .generation = 1, .timestamp = 0x1122334455}},
    };
}

static void a_beat_is_the_golden_file_and_back(void)
{
    uint8_t bytes[BEAT_SIZE];
    struct beat want = sample(), got;
    beat_out(&want, bytes);
    CHECK(golden_matches("beat", bytes, sizeof bytes));
    CHECK(golden_load("beat", bytes, sizeof bytes));
    CHECK_EQ(beat_in(bytes, &pool, &got, NULL), 0);
    CHECK_EQ(got.writer.host_id, 7);
    CHECK_EQ(got.writer.generation, 3);
    CHECK_EQ(got.writer.run_or_term, 42);
    CHECK_EQ(got.count, 1234);
    CHECK_EQ(got.phase, BEAT_PHASE_LEADING);
    CHECK_STR(got.node_name, "node-7");
    CHECK_EQ(got.n_still, 2);
    CHECK_EQ(got.still[0].host_id, 3);
    CHECK_EQ(got.still[0].generation, 5);
    CHECK_EQ(got.still[0].timestamp, 600);
    CHECK_EQ(got.still[1].host_id, 2000);
    CHECK_EQ(got.still[1].generation, 1);
    CHECK_EQ(got.still[1].timestamp, 0x1122334455);
}

static void a_full_list_of_still_leases_fits(void)
{
    uint8_t bytes[BEAT_SIZE];
    struct beat want = sample(), got;
    want.n_still = BEAT_STILL_MAX;
    for (uint32_t i = 0; i < BEAT_STILL_MAX; i++)
        want.still[i] = (struct beat_still){.host_id = i + 1, .generation = i, .timestamp = ~0ull};
    beat_out(&want, bytes);
    CHECK_EQ(beat_in(bytes, &pool, &got, NULL), 0);
    CHECK_EQ(memcmp(got.still, want.still, sizeof got.still), 0);
    CHECK_STR(got.node_name, "node-7");
}

static void a_bad_beat_is_told_apart(void)
{
    uint8_t bytes[BEAT_SIZE] = {0};
    struct beat beat = sample();
    const struct uuid other = {{9}};
    CHECK_EQ(beat_in(bytes, &pool, &beat, NULL), LUNAR_E_NOT_FOUND);
    beat_out(&beat, bytes);
    CHECK_EQ(beat_in(bytes, &other, &beat, NULL), LUNAR_E_FOREIGN);
    for (uint32_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(beat_in(bytes, &pool, &beat, NULL), bit < 64 ? LUNAR_E_FOREIGN : LUNAR_E_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    le16_put(bytes + 8, UNIT_VERSION + 1);
    unit_seal(bytes);
    CHECK_EQ(beat_in(bytes, &pool, &beat, NULL), LUNAR_E_VERSION);
}

/* Sealed by somebody who got it wrong. */
static int with_field(uint32_t at, uint64_t value, uint32_t size)
{
    uint8_t bytes[BEAT_SIZE];
    struct beat beat = sample();
    beat_out(&beat, bytes);
    if (size == 4)
        le32_put(bytes + at, (uint32_t)value);
    else
        le64_put(bytes + at, value);
    unit_seal(bytes);
    return beat_in(bytes, &pool, &beat, NULL);
}

static void fields_without_sense_are_refused(void)
{
    CHECK_EQ(with_field(48, 7, 4), 0);
    CHECK_EQ(with_field(48, 0, 4), LUNAR_E_CORRUPT); /* nobody */
    CHECK_EQ(with_field(52, 0, 4), LUNAR_E_CORRUPT); /* no phase */
    CHECK_EQ(with_field(52, 4, 4), LUNAR_E_CORRUPT);
    CHECK_EQ(with_field(64, 0, 8), LUNAR_E_CORRUPT); /* no term */
    CHECK_EQ(with_field(72, 0, 8), LUNAR_E_CORRUPT); /* no count */
    CHECK_EQ(with_field(80, BEAT_STILL_MAX + 1, 4), LUNAR_E_CORRUPT);
    CHECK_EQ(with_field(80, 3, 4), LUNAR_E_CORRUPT);                /* the third is of nobody */
    CHECK_EQ(with_field(88, 0, 4), LUNAR_E_CORRUPT);                /* the first is */
    CHECK_EQ(with_field(104, 0, 8), LUNAR_E_CORRUPT);               /* a lease that is free */
    CHECK_EQ(with_field(BEAT_SIZE - 8, ~0ull, 8), LUNAR_E_CORRUPT); /* a name without an end */
}

static void a_beat_lies_between_the_superblocks_and_is_read_back(void)
{
    struct layout layout;
    struct beat beat = sample(), got;
    char path[] = "/tmp/lunar-test-beat-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    unlink(path);
    CHECK_EQ(layout_compute(16, 512, &layout, NULL), 0);
    CHECK_EQ(ftruncate(fd, (off_t)layout.lockspace), 0);
    CHECK(beat_offset(&layout) >= layout.area_start + SUPERBLOCK_SIZE);
    CHECK(beat_offset(&layout) + BEAT_SIZE <= layout.area_start + LAYOUT_SUPERBLOCK_B_OFFSET);
    CHECK_EQ(beat_read(fd, &layout, &pool, &got, NULL), LUNAR_E_NOT_FOUND);
    CHECK_EQ(beat_write(fd, &layout, &beat, NULL), 0);
    CHECK_EQ(beat_read(fd, &layout, &pool, &got, NULL), 0);
    CHECK_EQ(got.count, 1234);
    close(fd);
}

TEST_MAIN(TEST(a_beat_is_the_golden_file_and_back), TEST(a_full_list_of_still_leases_fits),
          TEST(a_bad_beat_is_told_apart), TEST(fields_without_sense_are_refused),
          TEST(a_beat_lies_between_the_superblocks_and_is_read_back))
