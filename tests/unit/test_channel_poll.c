/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a channel reads: how often idle, waiting, failing and hinted, and how late an answer is
 * noticed. Over the disk of support/channel_pair.h.
 */
#include <stdlib.h>

#include "support/channel_pair.h"
#include "support/test.h"

#define SECOND 1000u

#define DONE(p)                                                                                    \
    do {                                                                                           \
        CHECK_STR((p)->breach, "");                                                                \
        pair_free(p);                                                                              \
    } while (0)

static void polling_slows_down_to_a_second_and_is_bounded_while_waiting(void)
{
    struct pair *p = pair_joined(true);
    struct pair_side *agent = &p->side[PAIR_AGENT];
    pair_run(p, 5 * SECOND);
    uint32_t before = agent->counts[PAIR_PAGE_READ];
    pair_run(p, 10 * SECOND);
    CHECK(agent->counts[PAIR_PAGE_READ] - before >= 9);
    CHECK(agent->counts[PAIR_PAGE_READ] - before <= 11);

    channel_set_waiting(agent->channel, true);
    pair_tick(p, PAIR_AGENT);
    pair_run(p, 5);
    agent->read_gap_max_us = 0;
    before = agent->counts[PAIR_PAGE_READ];
    pair_run(p, 10 * SECOND);
    CHECK(agent->read_gap_max_us <= CHANNEL_POLL_WAITING_MAX_US);
    CHECK(agent->counts[PAIR_PAGE_READ] - before < 10 * SECOND / 45 + 20);
    channel_set_waiting(agent->channel, false);
    pair_run(p, 3 * SECOND);
    before = agent->counts[PAIR_PAGE_READ];
    pair_run(p, 10 * SECOND);
    CHECK(agent->counts[PAIR_PAGE_READ] - before <= 11);
    DONE(p);
}

static void an_idle_coordinator_reads_nothing_but_the_scan(void)
{
    struct pair *p = pair_joined(true);
    pair_run(p, 5 * SECOND);
    uint32_t before = p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_READ];
    uint32_t writes = p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_WRITE];
    pair_run(p, 10 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_READ], before);
    CHECK_EQ(p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_WRITE], writes);
    DONE(p);
}

static void a_silent_node_gets_no_reads_of_its_own(void)
{
    struct pair *p = pair_joined(true);
    CHECK_EQ(pair_send(p, PAIR_COORDINATOR, 16), 0);
    p->side[PAIR_AGENT].deadline_us = UINT64_MAX; /* the agent hangs */
    for (int i = 0; i < PAIR_OPS; i++)
        p->side[PAIR_AGENT].ops[i].out = false;
    pair_run(p, 10 * SECOND);
    uint32_t before = p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_READ];
    pair_run(p, 10 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_READ], before);
    DONE(p);
}

static void a_hint_makes_an_idle_side_look_at_once(void)
{
    struct pair *p = pair_joined(true);
    pair_run(p, 5 * SECOND);
    CHECK_EQ(pair_send(p, PAIR_COORDINATOR, 16), 0);
    pair_run(p, 1);
    struct channel_update update;
    struct channel_event event = {.type = CHANNEL_EVENT_HINT, .now_us = p->now_us};
    p->side[PAIR_AGENT].ops[PAIR_PAGE_READ].out = false;
    channel_step(p->side[PAIR_AGENT].channel, &event, &update);
    CHECK(update.read_page);
    DONE(p);
}

static void a_hint_makes_the_coordinator_look_at_an_idle_node(void)
{
    struct pair *p = pair_joined(true);
    pair_run(p, 5 * SECOND);
    CHECK(pair_step_alone(p, PAIR_COORDINATOR, CHANNEL_EVENT_HINT, 0, NULL).read_page);
    const uint8_t *page = p->page[PAIR_AGENT];
    CHECK(!pair_step_alone(p, PAIR_COORDINATOR, CHANNEL_EVENT_PAGE_READ, 0, page).read_page);
    DONE(p);
}

static void a_hint_during_a_read_costs_exactly_one_read_more(void)
{
    for (int side = 0; side < 2; side++) {
        struct pair *p = pair_joined(true);
        const uint8_t *page = p->page[!side];
        pair_run(p, 5 * SECOND);
        while (p->side[side].ops[PAIR_PAGE_READ].out)
            pair_run_us(p, 1);
        CHECK(pair_step_alone(p, side, CHANNEL_EVENT_HINT, 0, NULL).read_page);
        CHECK(!pair_step_alone(p, side, CHANNEL_EVENT_HINT, 0, NULL).read_page);
        CHECK(!pair_step_alone(p, side, CHANNEL_EVENT_HINT, 0, NULL).read_page);
        CHECK(pair_step_alone(p, side, CHANNEL_EVENT_PAGE_READ, 0, page).read_page);
        CHECK(!pair_step_alone(p, side, CHANNEL_EVENT_PAGE_READ, 0, page).read_page);
        DONE(p);
    }
}

static void a_failed_read_is_not_repeated_at_once_whoever_asks(void)
{
    struct pair *p = pair_joined(true);
    pair_run(p, 5 * SECOND);
    channel_set_waiting(p->side[PAIR_AGENT].channel, true);
    p->blind[PAIR_AGENT] = true;
    uint32_t before = p->side[PAIR_AGENT].counts[PAIR_PAGE_READ];
    for (int i = 0; i < 1000; i++) {
        channel_set_waiting(p->side[PAIR_AGENT].channel, i % 2);
        pair_tick(p, PAIR_AGENT);
        pair_run(p, 1);
    }
    CHECK(p->side[PAIR_AGENT].counts[PAIR_PAGE_READ] - before <= 21);
    CHECK(p->side[PAIR_AGENT].counts[PAIR_PAGE_READ] - before >= 15);
    p->blind[PAIR_AGENT] = false;
    DONE(p);
}

static void an_answer_is_noticed_a_quarter_of_its_time_late_at_most(void)
{
    static const uint64_t takes_us[] = {100, 300, 1000, 10000, 100000, 190000};
    for (size_t i = 0; i < sizeof takes_us / sizeof *takes_us; i++) {
        struct pair *p = pair_joined(true);
        pair_run(p, 5 * SECOND);
        channel_set_waiting(p->side[PAIR_AGENT].channel, true);
        CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0); /* lands at once */
        uint64_t sent_us = p->now_us;
        pair_run_us(p, takes_us[i]);
        CHECK_EQ(pair_send(p, PAIR_COORDINATOR, 16), 0);
        CHECK(pair_run_until(p, PAIR_AGENT, 1, 2 * SECOND));
        uint64_t late_us = p->now_us - sent_us - takes_us[i];
        CHECK(late_us <= takes_us[i] / 4 + CHANNEL_POLL_FIRST_US);
        DONE(p);
    }
}

/* The agent has just taken a message and its next one is being written. */
static struct pair *writing(void)
{
    const uint8_t bytes[16] = {1};
    struct pair *p = pair_joined(true);

    if (pair_send(p, PAIR_COORDINATOR, 16) < 0 || !pair_run_until(p, PAIR_AGENT, 1, 2 * SECOND) ||
        channel_submit(p->side[PAIR_AGENT].channel, bytes, sizeof bytes) < 0)
        abort();
    struct channel_update u = pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_TICK, 0, NULL);
    if (!u.write_page || u.read_page)
        abort();
    return p;
}

static void a_read_waits_for_our_write_and_for_the_time_an_answer_takes(void)
{
    struct pair *p = writing();
    p->now_us += 500;
    struct channel_update u = pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_TICK, 0, NULL);
    CHECK(!u.read_page && u.deadline_us > p->now_us);
    u = pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_PAGE_WRITTEN, 0, NULL);
    CHECK(!u.read_page);
    CHECK_EQ(u.deadline_us, p->now_us + CHANNEL_POLL_FIRST_US);
    p->now_us += CHANNEL_POLL_FIRST_US;
    CHECK(pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_TICK, 0, NULL).read_page);
    DONE(p);
}

static void a_write_that_takes_long_holds_up_no_read(void)
{
    struct pair *p = writing();
    p->now_us += CHANNEL_POLL_HELD_US + CHANNEL_POLL_FIRST_US;
    CHECK(pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_TICK, 0, NULL).read_page);
    DONE(p);
}

static void writes_that_follow_each_other_hold_up_no_read_for_ever(void)
{
    struct pair *p = writing();
    const uint8_t bytes[16] = {1};
    bool read = false;
    for (uint32_t us = 0; us < CHANNEL_POLL_HELD_US + 500 && !read; us += 250) {
        p->now_us += 250;
        CHECK_EQ(channel_submit(p->side[PAIR_AGENT].channel, bytes, sizeof bytes), 0);
        struct channel_update u =
            pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_PAGE_WRITTEN, 0, NULL);
        CHECK(u.write_page || u.read_page);
        read = u.read_page;
    }
    CHECK(read);
    DONE(p);
}

TEST_MAIN(TEST(polling_slows_down_to_a_second_and_is_bounded_while_waiting),
          TEST(an_idle_coordinator_reads_nothing_but_the_scan),
          TEST(a_silent_node_gets_no_reads_of_its_own),
          TEST(a_hint_makes_an_idle_side_look_at_once),
          TEST(a_hint_makes_the_coordinator_look_at_an_idle_node),
          TEST(a_hint_during_a_read_costs_exactly_one_read_more),
          TEST(a_failed_read_is_not_repeated_at_once_whoever_asks),
          TEST(an_answer_is_noticed_a_quarter_of_its_time_late_at_most),
          TEST(a_read_waits_for_our_write_and_for_the_time_an_answer_takes),
          TEST(a_write_that_takes_long_holds_up_no_read),
          TEST(writes_that_follow_each_other_hold_up_no_read_for_ever))
