/* SPDX-License-Identifier: Apache-2.0 */
/* Which leases a coordinator says have stood still. */
#include <stdlib.h>

#include "coordinator/still.h"
#include "support/test.h"

#define NODES    200u
#define LIMIT_MS 6000u

static struct beat beat;

static struct host_status host(uint32_t id, uint64_t generation, uint64_t timestamp)
{
    return (struct host_status){
        .host_id = id, .generation = generation, .state = HOST_STATE_LIVE, .timestamp = timestamp};
}

static void look(struct still *s, struct host_status h, uint64_t now_ms)
{
    still_look(s, &h, 1, now_ms);
}

static uint32_t list(const struct still *s, uint64_t now_ms)
{
    still_list(s, LIMIT_MS, now_ms, &beat);
    return beat.n_still;
}

static void a_lease_is_listed_once_it_has_stood_still_for_long_enough(void)
{
    struct still *s = still_new(NODES);
    CHECK_EQ(list(s, 1000000), 0); /* nobody was ever seen */
    look(s, host(7, 3, 100), 1000);
    look(s, host(7, 3, 100), 6999);
    CHECK_EQ(list(s, 6999), 0);
    look(s, host(7, 3, 100), 7000);
    CHECK_EQ(list(s, 7000), 1);
    CHECK_EQ(beat.still[0].host_id, 7);
    CHECK_EQ(beat.still[0].generation, 3);
    CHECK_EQ(beat.still[0].timestamp, 100);
    still_free(s);
}

static void whatever_changes_begins_anew(void)
{
    struct still *s = still_new(NODES);
    look(s, host(7, 3, 100), 0);
    look(s, host(7, 3, 104), 5000); /* renewed */
    CHECK_EQ(list(s, 7000), 0);
    look(s, host(7, 4, 104), 9000); /* another life, by chance with that timestamp */
    CHECK_EQ(list(s, 12000), 0);
    CHECK_EQ(list(s, 15000), 1);
    look(s, host(7, 4, 0), 16000); /* left */
    CHECK_EQ(list(s, 90000), 0);
    still_free(s);
}

static void a_life_that_is_proved_over_is_left_out_and_its_successor_is_not(void)
{
    struct still *s = still_new(NODES);
    look(s, host(7, 3, 100), 0);
    still_over(s, 7, 3);
    CHECK_EQ(list(s, 10000), 0);
    look(s, host(7, 4, 5), 10000);
    CHECK_EQ(list(s, 16000), 1);
    still_free(s);
}

static void of_too_many_those_that_stand_longest_are_listed(void)
{
    struct still *s = still_new(NODES);
    for (uint32_t h = 1; h <= NODES; h++) /* the even ones first, the highest of all earliest */
        look(s, host(h, 1, 50), h % 2 ? 5000 + h : 1000 - h);
    CHECK_EQ(list(s, 20000), BEAT_STILL_MAX);
    for (uint32_t i = 0; i < BEAT_STILL_MAX; i++)
        CHECK_EQ(beat.still[i].host_id, NODES - 2 * i);
    still_free(s);
}

static void hosts_that_cannot_be_are_passed_over(void)
{
    struct still *s = still_new(NODES);
    look(s, host(0, 1, 5), 0);
    look(s, host(NODES + 1, 1, 5), 0);
    CHECK_EQ(list(s, 10000), 0);
    still_free(s);
}

TEST_MAIN(TEST(a_lease_is_listed_once_it_has_stood_still_for_long_enough),
          TEST(whatever_changes_begins_anew),
          TEST(a_life_that_is_proved_over_is_left_out_and_its_successor_is_not),
          TEST(of_too_many_those_that_stand_longest_are_listed),
          TEST(hosts_that_cannot_be_are_passed_over))
