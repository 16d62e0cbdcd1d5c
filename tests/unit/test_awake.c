/* SPDX-License-Identifier: Apache-2.0 */
/* SAFETY 8: a verdict of DEAD is worth nothing to one who has just been thawed. */
#include "fencing/awake.h"

#include "support/test.h"

static struct timeouts t; /* N = 2, W = 10: gap 5 s, awake for 10 s */
static struct awake a;
static uint64_t now;

static void fresh(int n, int w)
{
    timeouts_compute(n, w, &t, NULL);
    a = (struct awake){0};
    now = 777;
}

static void looks(int n, uint64_t every_ms)
{
    for (int i = 0; i < n; i++) {
        now += every_ms;
        awake_look(&a, &t, now);
    }
}

static void safety_8_the_bounds_are_what_the_argument_says(void)
{
    static const struct {
        int n, w, gap, awake, fence;
    } rows[] = {{2, 10, 5, 10, 8}, {10, 60, 39, 42, 32}, {5, 30, 19, 22, 17}, {10, 10, 2, 42, 32}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fresh(rows[i].n, rows[i].w);
        CHECK_EQ(t.awake_gap_s, rows[i].gap);
        CHECK_EQ(t.awake_s, rows[i].awake);
        CHECK_EQ(t.fence_s, rows[i].fence);
        /* The victim was past 8N at sanlock's last look, unless W leaves no room for that: then
         * nothing but regular looks counts. */
        int seen_s = t.dead_s - t.renew_s - t.awake_gap_s;
        CHECK(seen_s > t.fail_s || t.awake_gap_s == 2);
        CHECK(t.fence_s > t.renew_s && t.fence_s < t.dead_s);
    }
}

static void safety_8_one_who_has_just_started_believes_nothing(void)
{
    fresh(2, 10);
    CHECK(!awake_is(&a, &t, now));
    looks(10, 1000); /* the first of them was 9 s ago */
    CHECK(!awake_is(&a, &t, now));
    looks(1, 1000);
    CHECK(awake_is(&a, &t, now));
}

static void safety_8_after_a_sleep_nothing_is_believed_for_4n_and_2_s(void)
{
    fresh(2, 10);
    looks(60, 1000);
    looks(1, 5001);
    CHECK(!awake_is(&a, &t, now));
    looks(9, 1000);
    CHECK(!awake_is(&a, &t, now));
    looks(1, 1000);
    CHECK(awake_is(&a, &t, now));
}

static void safety_8_a_verdict_in_the_first_moment_after_a_sleep_is_not_believed(void)
{
    fresh(2, 10);
    looks(60, 1000);
    CHECK(awake_is(&a, &t, now + 1900));
    CHECK(!awake_is(&a, &t, now + 5001)); /* the look that would show it has not come yet */
    CHECK(!awake_is(&a, &t, now + 2001));
}

static void safety_8_a_short_sleep_costs_the_one_look_that_was_late(void)
{
    fresh(2, 10);
    looks(60, 1000);
    looks(1, 4900);
    CHECK(!awake_is(&a, &t, now));
    looks(1, 1000);
    CHECK(awake_is(&a, &t, now));
}

static void a_busy_machine_is_not_asleep(void)
{
    fresh(2, 10);
    looks(60, 1900);
    CHECK(awake_is(&a, &t, now));
    fresh(10, 10); /* no room for any sleep: a gap above 2 s is one */
    looks(60, 1900);
    CHECK(awake_is(&a, &t, now));
    looks(60, 2100);
    CHECK(!awake_is(&a, &t, now));
}

static void how_long_it_takes_to_be_awake_is_told_ahead(void)
{
    fresh(2, 10);
    CHECK(awake_in_ms(&a, &t, now) >= (uint64_t)t.awake_s * 1000); /* no look yet */
    looks(60, 1000);
    CHECK(awake_in_ms(&a, &t, now) == 0);
    looks(1, 60000);
    uint64_t told = awake_in_ms(&a, &t, now);
    CHECK(told == (uint64_t)t.awake_s * 1000);
    looks((int)(told / 1000), 1000);
    CHECK(awake_in_ms(&a, &t, now) == 0);
}

TEST_MAIN(TEST(safety_8_the_bounds_are_what_the_argument_says),
          TEST(safety_8_one_who_has_just_started_believes_nothing),
          TEST(safety_8_after_a_sleep_nothing_is_believed_for_4n_and_2_s),
          TEST(safety_8_a_verdict_in_the_first_moment_after_a_sleep_is_not_believed),
          TEST(safety_8_a_short_sleep_costs_the_one_look_that_was_late),
          TEST(a_busy_machine_is_not_asleep), TEST(how_long_it_takes_to_be_awake_is_told_ahead))
