/* SPDX-License-Identifier: Apache-2.0 */
/* The policy of growing: its bounds, and writers of several speeds against answers that take their
 * time. */
#include "agent/growth.h"

#include "support/test.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define MAX (66ull << 40)

static struct growth layer(uint64_t size, uint64_t virtual_size)
{
    struct growth g;
    growth_begin(&g, size, MAX, virtual_size, 1000);
    return g;
}

static void a_layer_without_a_tail_never_asks(void)
{
    struct growth g;
    growth_begin(&g, 512 * MIB, 0, 8 * GIB, 0);
    CHECK_EQ(growth_threshold(&g), 0);
    CHECK_EQ(growth_ask(&g, 5), 0);
    growth_begin(&g, 512 * MIB, 512 * MIB, 8 * GIB, 0);
    CHECK_EQ(growth_threshold(&g), 0);
    CHECK_EQ(growth_ask(&g, 5), 0);
}

static void the_same_is_asked_for_until_it_has_grown(void)
{
    struct growth g = layer(128 * MIB, 100 * GIB);
    uint64_t size = growth_ask(&g, 31000);
    CHECK_EQ(size, 256 * MIB);
    CHECK_EQ(growth_ask(&g, 31001), size);
    CHECK_EQ(growth_ask(&g, 99000), size);
    growth_grown(&g, size, 99000);
    CHECK_EQ(growth_threshold(&g), size - 64 * MIB);
    CHECK_EQ(growth_ask(&g, 99000 + 20000), size + 128 * MIB);
}

static void a_chunk_lasts_for_ten_seconds_and_shrinks_again(void)
{
    struct growth g = layer(128 * MIB, 100 * GIB);
    uint64_t size = growth_ask(&g, 6000); /* after 5 s: it should be twice as much */
    CHECK_EQ(size, 128 * MIB + 256 * MIB);
    growth_grown(&g, size, 6000);
    CHECK_EQ(growth_threshold(&g), size - 128 * MIB);
    CHECK_EQ(growth_ask(&g, 6001) - size, 8 * 256 * MIB); /* no more than that at once */
    growth_grown(&g, size += 8 * 256 * MIB, 6001);
    CHECK_EQ(growth_ask(&g, 6002) - size, 4 * GIB);
    growth_grown(&g, size += 4 * GIB, 6002);
    CHECK_EQ(growth_ask(&g, 6002 + 30000) - size, 4 * GIB);
    growth_grown(&g, size += 4 * GIB, 40000);
    for (uint64_t chunk = 2 * GIB; chunk >= 128 * MIB; chunk /= 2) {
        CHECK_EQ(growth_ask(&g, 40000 + 61000) - size, chunk);
        growth_grown(&g, size += chunk, 40000);
    }
    CHECK_EQ(growth_ask(&g, 40000 + 61000) - size, 128 * MIB);
}

static void nothing_is_asked_beyond_what_a_full_volume_takes_unless_it_gets_there(void)
{
    struct growth g = layer(128 * MIB, 256 * MIB);
    uint64_t size = growth_ask(&g, 1001);
    CHECK(size > 256 * MIB && size < 262 * MIB);
    growth_grown(&g, size, 1002);
    CHECK(growth_threshold(&g) > 257 * MIB); /* its last cluster does not make it ask */
    CHECK(growth_threshold(&g) < size);
    CHECK_EQ(growth_ask(&g, 1003), size + 128 * MIB);
}

static void an_answer_that_gives_less_makes_the_next_write_ask_again(void)
{
    struct growth g = layer(GIB, 100 * GIB);
    growth_ask(&g, 31000);
    growth_grown(&g, GIB + 4 * MIB, 31000);
    CHECK(growth_threshold(&g) < GIB); /* which is written */
    CHECK(growth_ask(&g, 62000) > GIB + 4 * MIB);
}

static void a_layer_may_be_smaller_than_a_chunk_and_end_at_its_map(void)
{
    struct growth g;
    growth_begin(&g, 4 * MIB, 8 * MIB, GIB, 0);
    CHECK_EQ(growth_threshold(&g), 2 * MIB);
    CHECK_EQ(growth_ask(&g, 5), 8 * MIB);
    growth_grown(&g, 8 * MIB, 6);
    CHECK_EQ(growth_ask(&g, 7), 0);
}

/* ---- writers ---- */

struct run {
    uint32_t asks, stalls;
    uint64_t stalled_ms, longest_ms, unused_max;
};

/* A writer that appends `rate` bytes a millisecond for `ms`, and waits where the space ends; each
 * answer takes `delay_ms`. */
static struct run write_at(uint64_t rate, uint64_t delay_ms, uint64_t ms)
{
    struct growth g = layer(128 * MIB, 64ull << 40);
    struct run r = {0};
    uint64_t end = 0, answer_ms = 0, stall = 0;

    for (uint64_t now = 1000; now < 1000 + ms; now++) {
        uint64_t next = end + rate < g.size ? end + rate : g.size;
        if (next - end < rate)
            stall++;
        else if (stall > 0)
            stall = 0;
        r.stalls += stall == 1;
        r.stalled_ms += stall > 0;
        r.longest_ms = stall > r.longest_ms ? stall : r.longest_ms;
        end = next;
        if (answer_ms == 0 && end > growth_threshold(&g)) {
            growth_ask(&g, now);
            r.asks++;
            answer_ms = now + delay_ms;
        }
        if (answer_ms && now >= answer_ms) {
            growth_grown(&g, g.asked, now);
            answer_ms = 0;
        }
        if (g.size - end > r.unused_max)
            r.unused_max = g.size - end;
    }
    return r;
}

static void a_writer_at_device_speed_waits_at_its_start_alone(void)
{
    struct run usual = write_at(200 * MIB / 1000, 300, 120000);
    CHECK_EQ(usual.stalls, 0);
    struct run fast = write_at(GIB / 1000, 300, 120000);
    CHECK(fast.stalls <= 2);
    CHECK(fast.stalled_ms < 400);
    struct run far = write_at(400 * MIB / 1000, 4000, 120000);
    CHECK(far.stalls <= 4);
    CHECK(far.stalled_ms < 15000);
}

static void in_a_steady_state_an_answer_may_take_almost_half_of_what_a_chunk_lasts(void)
{
    for (uint64_t mib = 1; mib <= 256; mib *= 2) {
        struct run before = write_at(mib * MIB / 1000, 4500, 100000);
        struct run after = write_at(mib * MIB / 1000, 4500, 400000);
        CHECK_EQ(after.stalls, before.stalls); /* none after the first 100 s */
    }
}

static void asks_are_few_and_a_slow_writer_holds_little(void)
{
    struct run fast = write_at(200 * MIB / 1000, 300, 120000);
    CHECK(fast.asks < 20);
    struct run slow = write_at(MIB / 1000, 300, 3600000);
    CHECK(slow.unused_max <= 192 * MIB + MIB);
    CHECK_EQ(slow.stalls, 0);
}

static void answers_of_ten_seconds_are_waited_for_and_fewer_with_time(void)
{
    struct run r = write_at(200 * MIB / 1000, 10000, 600000);
    CHECK(r.longest_ms <= 10000);
    CHECK(r.stalled_ms < 600000 / 2);
}

TEST_MAIN(TEST(a_layer_without_a_tail_never_asks), TEST(the_same_is_asked_for_until_it_has_grown),
          TEST(a_chunk_lasts_for_ten_seconds_and_shrinks_again),
          TEST(nothing_is_asked_beyond_what_a_full_volume_takes_unless_it_gets_there),
          TEST(an_answer_that_gives_less_makes_the_next_write_ask_again),
          TEST(a_layer_may_be_smaller_than_a_chunk_and_end_at_its_map),
          TEST(a_writer_at_device_speed_waits_at_its_start_alone),
          TEST(in_a_steady_state_an_answer_may_take_almost_half_of_what_a_chunk_lasts),
          TEST(asks_are_few_and_a_slow_writer_holds_little),
          TEST(answers_of_ten_seconds_are_waited_for_and_fewer_with_time))
