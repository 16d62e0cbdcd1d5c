/* SPDX-License-Identifier: Apache-2.0 */
/* What `lunarctl status` says of the leader when nobody answers. */
#include "support/test.h"

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/request.c"
#include "../../tools/lunarctl/who_leads.c"

static struct leading first, second;
static char text[600];

static void reset(void)
{
    first = (struct leading){.lease = {.owner_id = 4, .lver = 9, .timestamp = 100},
                             .beat = {.writer = {4, 1, 9},
                                      .count = 20,
                                      .phase = BEAT_PHASE_LEADING,
                                      .node_name = "node-four"}};
    second = first;
    second.beat.count = 23;
}

static const char *said(void)
{
    who_leads_text(&first, &second, text, sizeof text);
    return text;
}

static void a_leader_that_beats_is_not_the_trouble(void)
{
    reset();
    CHECK(strstr(said(), "host 4 (node node-four) has the lease, term 9, and beats (leading)") !=
          NULL);
}

static void a_silent_leader_is_said_to_be_stopped(void)
{
    reset();
    second.beat.count = first.beat.count;
    CHECK(strstr(said(), "has not beaten for 3 s") != NULL);
}

static void a_beat_of_another_term_says_nothing_of_this_one(void)
{
    reset();
    second.lease.lver = first.lease.lver = 10;
    CHECK(strstr(said(), "has not beaten yet") != NULL);
    CHECK(strstr(said(), "node-four") == NULL);
    reset();
    second.beat_rc = LUNAR_E_CORRUPT;
    CHECK(strstr(said(), "has not beaten yet") != NULL);
}

static void a_lease_that_moved_or_is_free_is_said(void)
{
    reset();
    second.lease.lver = second.beat.writer.run_or_term = 10;
    CHECK(strstr(said(), "since a moment ago") != NULL);
    second.lease.timestamp = 0;
    CHECK(strstr(said(), "nobody leads") != NULL);
}

TEST_MAIN(TEST(a_leader_that_beats_is_not_the_trouble), TEST(a_silent_leader_is_said_to_be_stopped),
          TEST(a_beat_of_another_term_says_nothing_of_this_one),
          TEST(a_lease_that_moved_or_is_free_is_said))
