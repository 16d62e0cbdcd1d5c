/* SPDX-License-Identifier: Apache-2.0 */
/* What two channels note of their traffic: each message once on each side under the same number,
 * acknowledgments with their time, and every trouble by its name. */
#include <stdlib.h>

#include "support/channel_pair.h"
#include "support/test.h"

#define SECOND 1000u

static struct trace *rings[2];

/* An agent and a coordinator that know each other, each with a ring. */
static struct pair *joined(void)
{
    struct pair *p = pair_new(1, false);
    for (int side = 0; side < 2; side++) {
        trace_free(rings[side]);
        rings[side] = trace_new(1024, 8);
        p->side[side].config.trace = rings[side];
    }
    pair_start(p, PAIR_AGENT, 1, 1);
    pair_start(p, PAIR_COORDINATOR, 4, 10);
    pair_run(p, 3 * SECOND);
    return p;
}

#define DONE(p)                                                                                    \
    do {                                                                                           \
        CHECK_STR((p)->breach, "");                                                                \
        pair_free(p);                                                                              \
    } while (0)

/* How many records of an event there are; *ret_last is the last of them. */
static unsigned count(int side, enum trace_event event, struct trace_record *ret_last)
{
    uint64_t cursor = 0, missed = 0;
    const struct trace_record *r;
    unsigned n = 0;

    while ((r = trace_next(rings[side], &cursor, &missed)) != NULL)
        if (r->event == event) {
            *ret_last = *r;
            n++;
        }
    return n;
}

static void a_message_is_noted_once_on_each_side_under_one_number(void)
{
    struct pair *p = joined();
    struct trace_record sent, received;
    p->latency_max_us = 1000;
    for (int i = 0; i < 10; i++)
        CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 20000), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 11, 5 * SECOND));
    CHECK_EQ(count(PAIR_AGENT, TRACE_SENT, &sent), 11);
    CHECK_EQ(count(PAIR_COORDINATOR, TRACE_RECEIVED, &received), 11);
    CHECK_EQ(sent.seq, 11);
    CHECK_EQ(received.seq, 11);
    CHECK(sent.spilled && received.spilled);
    CHECK_EQ(received.len, 20000);
    CHECK_EQ(sent.page_seq, received.page_seq);
    CHECK_EQ(sent.slot, received.slot);
    CHECK_EQ(sent.peer.run_or_term, 10);    /* the coordinator's term */
    CHECK_EQ(received.peer.run_or_term, 1); /* the agent's run */
    CHECK(sent.time_us > 0 && sent.time_us < received.time_us);
    DONE(p);
}

static void a_message_sent_again_is_noted_once_and_the_resend_by_itself(void)
{
    struct pair *p = joined();
    struct trace_record r;
    p->blind[PAIR_COORDINATOR] = true;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    pair_run(p, 7 * SECOND);
    CHECK_EQ(count(PAIR_AGENT, TRACE_SENT, &r), 1);
    CHECK_EQ(count(PAIR_AGENT, TRACE_RESEND, &r), 3);
    CHECK_EQ(r.seq, 1);
    CHECK_EQ(count(PAIR_AGENT, TRACE_ACKED, &r), 0);
    CHECK_EQ(count(PAIR_COORDINATOR, TRACE_READ_ERROR, &r), 1); /* for all of them */
    CHECK(r.error < 0);
    CHECK(channel_stats(p->side[PAIR_COORDINATOR].channel)->read_errors > 3);
    DONE(p);
}

static void an_acknowledgment_knows_how_long_it_took(void)
{
    struct pair *p = joined();
    struct trace_record r;
    p->latency_max_us = 2000;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 5 * SECOND));
    pair_run(p, SECOND);
    const struct channel_stats *s = channel_stats(p->side[PAIR_AGENT].channel);
    CHECK_EQ(count(PAIR_AGENT, TRACE_ACKED, &r), 1);
    CHECK_EQ(r.seq, 1);
    CHECK(r.took_us > 0);
    CHECK_EQ(s->ack.count, 1);
    CHECK_EQ(s->ack.last_us, r.took_us);
    CHECK(s->ack.max_us < 100000);
    CHECK_EQ(s->peer_term, 10);
    DONE(p);
}

static void a_new_session_starts_no_acknowledgment_of_the_old_one(void)
{
    struct pair *p = joined();
    struct trace_record r;
    p->deaf[PAIR_COORDINATOR] = true;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    pair_run(p, SECOND);
    pair_start(p, PAIR_COORDINATOR, 4, 11);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(count(PAIR_AGENT, TRACE_SESSION, &r), 2);
    CHECK_EQ(r.peer.run_or_term, 11);
    CHECK(r.page_seq > 0);
    CHECK_EQ(channel_stats(p->side[PAIR_AGENT].channel)->ack.count, 0);
    p->deaf[PAIR_COORDINATOR] = false;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    pair_run(p, SECOND);
    CHECK_EQ(channel_stats(p->side[PAIR_AGENT].channel)->ack.count, 1);
    DONE(p);
}

static void damaged_and_old_pages_and_failed_writes_are_noted_by_name(void)
{
    struct pair *p = joined();
    uint8_t old[PAGE_SIZE_BYTES];
    struct trace_record r;
    memcpy(old, p->page[PAIR_AGENT], sizeof old);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 5 * SECOND));
    pair_run(p, 2 * SECOND);
    struct channel_event event = {.type = CHANNEL_EVENT_HINT, .now_us = p->now_us};
    struct channel_update update;
    channel_step(p->side[PAIR_COORDINATOR].channel, &event, &update);
    CHECK_EQ(count(PAIR_COORDINATOR, TRACE_HINT, &r), 1);
    event = (struct channel_event){
        .type = CHANNEL_EVENT_PAGE_READ, .now_us = p->now_us, .data = old, .len = sizeof old};
    channel_step(p->side[PAIR_COORDINATOR].channel, &event, &update);
    CHECK_EQ(count(PAIR_COORDINATOR, TRACE_STALE_PAGE, &r), 1);
    CHECK_EQ(r.peer.run_or_term, 1);
    old[300] ^= 1;
    channel_step(p->side[PAIR_COORDINATOR].channel, &event, &update);
    CHECK_EQ(count(PAIR_COORDINATOR, TRACE_BAD_PAGE, &r), 1);
    CHECK_EQ(r.error, LUNAR_E_CORRUPT);
    p->fail_writes = 3;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 2, 5 * SECOND));
    CHECK_EQ(count(PAIR_AGENT, TRACE_WRITE_ERROR, &r), 1);
    CHECK(r.error < 0);
    CHECK_EQ(channel_stats(p->side[PAIR_AGENT].channel)->write_errors, 3);
    pair_free(p); /* its books do not know the steps made here */
}

static void an_idle_hour_notes_nothing(void)
{
    struct pair *p = joined();
    uint64_t agent = trace_last(rings[PAIR_AGENT]), up = trace_last(rings[PAIR_COORDINATOR]);
    pair_run(p, 3600 * SECOND);
    CHECK_EQ(trace_last(rings[PAIR_AGENT]), agent);
    CHECK_EQ(trace_last(rings[PAIR_COORDINATOR]), up);
    DONE(p);
}

TEST_MAIN(TEST(a_message_is_noted_once_on_each_side_under_one_number),
          TEST(a_message_sent_again_is_noted_once_and_the_resend_by_itself),
          TEST(an_acknowledgment_knows_how_long_it_took),
          TEST(a_new_session_starts_no_acknowledgment_of_the_old_one),
          TEST(damaged_and_old_pages_and_failed_writes_are_noted_by_name),
          TEST(an_idle_hour_notes_nothing))
