/* SPDX-License-Identifier: Apache-2.0 */
/* When a standby has a silent leader forced out, and when it must not. */
#include "coordinator/beat_judge.h"

#include "support/test.h"

#define N 2u /* sanlock's I/O timeout, seconds */

/* A standby that looks every half second, and the leader that it sees. */
static struct beat_judge judge;
static uint64_t now_ms;
static uint64_t term, count;
static bool readable;
static uint64_t look_takes_ms, pause_ms;
static unsigned forced;

static void begin(void)
{
    beat_judge_init(&judge, N);
    now_ms = 1000000;
    term = 5;
    count = 0;
    readable = true;
    look_takes_ms = 2;
    pause_ms = 500;
    forced = 0;
}

static enum beat_verdict look(void)
{
    struct beat_look l = {.began_ms = now_ms,
                          .ended_ms = now_ms + look_takes_ms,
                          .readable = readable,
                          .term = term,
                          .count = count};
    enum beat_verdict v = beat_judge_step(&judge, &l);
    now_ms += look_takes_ms + pause_ms;
    forced += v == BEAT_FORCE;
    return v;
}

/* Looks for so long; a beat every second if `beats`. Returns after how many ms the first verdict to
 * force came, 0 if none did. */
static uint64_t watch(uint64_t ms, bool beats)
{
    uint64_t start = now_ms, first = 0, next_beat = now_ms;
    while (now_ms < start + ms) {
        if (beats && now_ms >= next_beat) {
            count++;
            next_beat += 1000;
        }
        uint64_t at = now_ms;
        if (look() == BEAT_FORCE && first == 0)
            first = at - start;
    }
    return first;
}

static void a_leader_that_beats_is_left_alone(void)
{
    begin();
    CHECK_EQ(watch(3600000, true), 0);
}

static void a_leader_that_falls_silent_is_forced_out_after_3_s(void)
{
    begin();
    watch(10000, true);
    uint64_t after = watch(20000, false);
    CHECK(after >= 2000 &&
          after <= 3600); /* since the last look, at most 1 s after its last beat */
}

static void it_is_asked_for_again_after_5n_and_a_second(void)
{
    begin();
    watch(5000, true);
    CHECK(watch(4000, false) > 0);
    CHECK_EQ(forced, 1);
    CHECK_EQ(watch((5 * N + 1) * 1000 - 2500, false), 0); /* some of it has passed */
    CHECK(watch(3000, false) > 0);
    CHECK_EQ(forced, 2);
}

static void a_leader_just_elected_has_7_s_for_its_first_beat(void)
{
    begin();
    uint64_t after = watch(20000, false); /* of that term no beat ever lay there */
    CHECK(after >= (3 + 2 * N) * 1000 && after <= (3 + 2 * N) * 1000 + 1000);
    begin();
    watch(6500, false);
    CHECK_EQ(watch(60000, true), 0);
}

static void the_successor_of_a_silent_leader_gets_its_own_time(void)
{
    begin();
    watch(5000, true);
    watch(2500, false);
    term++;
    count = 0;
    CHECK_EQ(watch(6500, false), 0);
    CHECK_EQ(watch(60000, true), 0);
}

static void a_free_lease_is_nobodys_silence(void)
{
    begin();
    term = 0;
    CHECK_EQ(watch(60000, false), 0);
}

static void a_lun_that_cannot_be_read_counts_for_nothing(void)
{
    begin();
    watch(5000, true);
    readable = false;
    CHECK_EQ(watch(60000, false), 0);
    readable = true;
    CHECK_EQ(watch(2500, false), 0); /* the three seconds begin when we see again */
    CHECK(watch(1500, false) > 0);
}

static void one_unreadable_look_in_between_begins_the_watch_anew(void)
{
    begin();
    watch(5000, true);
    watch(2000, false);
    readable = false;
    look();
    readable = true;
    CHECK_EQ(watch(2500, false), 0);
}

static void a_lun_that_is_slow_for_us_may_be_slow_for_the_leader(void)
{
    begin();
    watch(5000, true);
    look_takes_ms = BEAT_SLOW_LOOK_MS + 1;
    CHECK_EQ(watch(60000, false), 0);
}

static void a_standby_that_stood_still_looks_again_first(void)
{
    begin();
    watch(5000, true);
    now_ms += 60000; /* both were stopped, and the leader needs a moment */
    CHECK_EQ(watch(2500, false), 0);
    CHECK_EQ(watch(60000, true), 0);
}

static void a_late_write_of_a_former_leader_is_no_news(void)
{
    begin();
    watch(10000, true);
    watch(1000, false);
    count = 0; /* the beat of an older term lies there now: none of this one */
    uint64_t after = watch(20000, false);
    CHECK(after > 0 && after <= 2600);
}

static void a_living_leader_writes_over_a_late_beat_in_time(void)
{
    begin();
    watch(10000, true);
    uint64_t own = count;
    count = 0;
    CHECK_EQ(watch(1000, false), 0);
    count = own;
    CHECK_EQ(watch(60000, true), 0);
}

static void a_request_that_sanlock_did_not_take_is_made_again(void)
{
    begin();
    watch(5000, true);
    CHECK(watch(4000, false) > 0);
    beat_judge_refused(&judge);
    CHECK(watch(4000, false) > 0);
}

TEST_MAIN(TEST(a_leader_that_beats_is_left_alone),
          TEST(a_leader_that_falls_silent_is_forced_out_after_3_s),
          TEST(it_is_asked_for_again_after_5n_and_a_second),
          TEST(a_leader_just_elected_has_7_s_for_its_first_beat),
          TEST(the_successor_of_a_silent_leader_gets_its_own_time),
          TEST(a_free_lease_is_nobodys_silence), TEST(a_lun_that_cannot_be_read_counts_for_nothing),
          TEST(one_unreadable_look_in_between_begins_the_watch_anew),
          TEST(a_lun_that_is_slow_for_us_may_be_slow_for_the_leader),
          TEST(a_standby_that_stood_still_looks_again_first),
          TEST(a_late_write_of_a_former_leader_is_no_news),
          TEST(a_living_leader_writes_over_a_late_beat_in_time),
          TEST(a_request_that_sanlock_did_not_take_is_made_again))
