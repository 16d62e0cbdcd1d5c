/* SPDX-License-Identifier: Apache-2.0 */
/* The times that follow from N and W, against the table that was measured (FENCING). */
#include "fencing/timeouts.h"

#include "support/test.h"

static void the_measured_table_comes_out(void)
{
    static const struct {
        int n, w, renew, warn, fail, dead;
    } rows[] = {
        {10, 60, 20, 60, 80, 140},
        {5, 30, 10, 30, 40, 70},
        {2, 10, 4, 12, 16, 26},
        {2, 60, 4, 12, 16, 76},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct timeouts t;
        CHECK_EQ(timeouts_compute(rows[i].n, rows[i].w, &t, NULL), 0);
        CHECK_EQ(t.io_timeout_s, rows[i].n);
        CHECK_EQ(t.watchdog_fire_timeout_s, rows[i].w);
        CHECK_EQ(t.renew_s, rows[i].renew);
        CHECK_EQ(t.warn_s, rows[i].warn);
        CHECK_EQ(t.fail_s, rows[i].fail);
        CHECK_EQ(t.dead_s, rows[i].dead);
        CHECK_EQ(t.same_name_watch_s, 3 * rows[i].n);
    }
}

static void a_same_name_is_watched_for_longer_than_a_renewal(void)
{
    struct timeouts t;
    for (int n = 2; n <= 60; n++) {
        CHECK_EQ(timeouts_compute(n, 60, &t, NULL), 0);
        CHECK(t.same_name_watch_s > t.renew_s);
    }
}

/* The timeline of timeouts.c, row by row, and that its rows are in that order for every pair. */
static void the_timeline_is_what_it_says(void)
{
    struct timeouts t;
    CHECK_EQ(timeouts_compute(2, 10, &t, NULL), 0);
    CHECK_EQ(t.guard_fence_s, 19);
    CHECK_EQ(t.guard_release_s, 22);
    CHECK_EQ(t.guard_reset_s, 16);
    CHECK_EQ(t.claim_wait_ms, 500);
    CHECK_EQ(timeouts_force_s(2), 11);
    CHECK_EQ(timeouts_compute(10, 60, &t, NULL), 0);
    CHECK_EQ(t.guard_fence_s, 83);
    CHECK_EQ(t.guard_release_s, 128);
    CHECK_EQ(t.guard_reset_s, 80);
    CHECK_EQ(t.claim_wait_ms, 2500);
    CHECK_EQ(timeouts_force_s(10), 51);
}

static void in_every_pair_the_guard_has_time_between_its_timer_and_its_release(void)
{
    for (int n = 1; n <= 60; n++)
        for (int w = 10; w <= 300; w++) {
            struct timeouts t;
            if (timeouts_compute(n, w, &t, NULL) < 0)
                continue;
            CHECK(t.warn_s < t.fail_s && t.fail_s < t.guard_fence_s);
            CHECK(t.guard_fence_s + 2 <= t.guard_release_s);
            CHECK(t.guard_release_s < t.dead_s);
            CHECK(t.awake_gap_s >= 2 && t.awake_s > t.renew_s);
        }
}

/* Beside a lost lease a fence begins 8N after the last renewal or later, unless something else made
 * it begin before; the watchdog comes 8N + W after it at the latest. */
static void in_every_pair_a_fence_without_a_proof_has_an_end(void)
{
    int later = 0, sooner = 0;
    for (int n = 1; n <= 60; n++)
        for (int w = 10; w <= 300; w++) {
            struct timeouts t;
            if (timeouts_compute(n, w, &t, NULL) < 0)
                continue;
            CHECK(t.guard_reset_s >=
                  t.fail_s);             /* no transport that is well is still about to fail */
            CHECK(t.guard_reset_s >= 8); /* and a proof that can be had is had */
            bool watchdog_first = t.fail_s + t.guard_reset_s >= t.dead_s;
            CHECK_EQ(watchdog_first, w <= 8 * n);
            later += watchdog_first;
            sooner += !watchdog_first;
            /* A node with its proof in time is released by its last moment, not reset before. */
            if (watchdog_first)
                CHECK(t.fail_s + t.guard_reset_s > t.guard_release_s);
        }
    CHECK(later > 0 && sooner > 0);
}

static void in_the_recommended_pairs_the_watchdog_comes_before_the_guards_reset(void)
{
    static const int pairs[][2] = {{10, 60}, {5, 30}, {2, 10}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct timeouts t;
        CHECK_EQ(timeouts_compute(pairs[i][0], pairs[i][1], &t, NULL), 0);
        CHECK(t.fail_s + t.guard_reset_s >= t.dead_s);
    }
}

static void a_pair_that_resets_healthy_nodes_is_refused(void)
{
    struct timeouts t;
    struct error err = ERROR_INIT;
    CHECK_EQ(timeouts_compute(1, 60, &t, &err), LUNAR_E_INVALID);
    CHECK(strstr(err.text, "reset itself") != NULL);
    CHECK_EQ(timeouts_compute(1, 30, &t, NULL), LUNAR_E_INVALID);
    CHECK_EQ(timeouts_compute(1, 10, &t, NULL), 0);
}

static void values_out_of_range_are_refused(void)
{
    struct timeouts t;
    CHECK_EQ(timeouts_compute(0, 10, &t, NULL), LUNAR_E_INVALID);
    CHECK_EQ(timeouts_compute(-5, 10, &t, NULL), LUNAR_E_INVALID);
    CHECK_EQ(timeouts_compute(61, 60, &t, NULL), LUNAR_E_INVALID);
    CHECK_EQ(timeouts_compute(2, 9, &t, NULL), LUNAR_E_INVALID);
    CHECK_EQ(timeouts_compute(10, 301, &t, NULL), LUNAR_E_INVALID);
    CHECK_EQ(timeouts_compute(2147483647, 10, &t, NULL), LUNAR_E_INVALID);
}

TEST_MAIN(TEST(the_measured_table_comes_out),
          TEST(a_same_name_is_watched_for_longer_than_a_renewal),
          TEST(the_timeline_is_what_it_says),
          TEST(in_every_pair_the_guard_has_time_between_its_timer_and_its_release),
          TEST(in_every_pair_a_fence_without_a_proof_has_an_end),
          TEST(in_the_recommended_pairs_the_watchdog_comes_before_the_guards_reset),
          TEST(a_pair_that_resets_healthy_nodes_is_refused), TEST(values_out_of_range_are_refused))
