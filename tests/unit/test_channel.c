/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel: two of them over the unkind disk of support/channel_pair.h, which checks order,
 * exactly-once and the bytes of every message; the tests here drive it into each failure and say
 * what must come out.
 */
#include <stdlib.h>

#include "base/le.h"
#include "diskrpc/message.h"
#include "diskrpc/claim.h"
#include "support/channel_pair.h"
#include "support/test.h"

#define SECOND 1000u

#define DONE(p)                                                                                    \
    do {                                                                                           \
        CHECK_STR((p)->breach, "");                                                                \
        pair_free(p);                                                                              \
    } while (0)

static const struct channel_stats *stats(const struct pair *p, int side)
{
    return channel_stats(p->side[side].channel);
}

static void two_fresh_sides_meet_and_know_each_other(void)
{
    struct pair *p = pair_joined(true);
    CHECK_EQ(p->side[PAIR_AGENT].peers, 1);
    CHECK_EQ(p->side[PAIR_AGENT].terms_raised, 1);
    CHECK_EQ(p->side[PAIR_COORDINATOR].peers, 1);
    CHECK_EQ(stats(p, PAIR_AGENT)->term, 10);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->peer.run_or_term, 1);
    CHECK_STR(stats(p, PAIR_COORDINATOR)->peer_name, "node-3");
    DONE(p);
}

static void a_name_that_no_message_could_carry_is_cut(void)
{
    struct pair *p = pair_new(1, true);
    char name[PAGE_NAME_SIZE] = {0};
    memset(name, 'n', PAGE_NAME_SIZE - 1);
    p->side[PAIR_AGENT].config.node_name = name;
    pair_start(p, PAIR_AGENT, 1, 1);
    pair_start(p, PAIR_COORDINATOR, 4, 10);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(strlen(stats(p, PAIR_COORDINATOR)->peer_name), MESSAGE_NAME_MAX);
    DONE(p);
}

static void nothing_is_queued_for_nobody(void)
{
    struct pair *p = pair_new(1, false);
    pair_start(p, PAIR_AGENT, 1, 1);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), LUNAR_E_NOT_JOINED);
    DONE(p);
}

static void messages_arrive_in_order_and_the_queue_empties(void)
{
    struct pair *p = pair_joined(true);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 20, 5 * SECOND));
    pair_run(p, SECOND);
    CHECK(channel_idle(p->side[PAIR_AGENT].channel));
    CHECK_EQ(stats(p, PAIR_AGENT)->queued, 0);
    CHECK_EQ(stats(p, PAIR_AGENT)->queued_bytes, 0);
    DONE(p);
}

static void what_waits_behind_a_write_travels_in_one_batch(void)
{
    struct pair *p = pair_joined(false);
    p->latency_max_us = 20000;
    uint32_t before = p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE];
    for (int i = 0; i < 31; i++)
        CHECK_EQ(pair_send(p, PAIR_AGENT, 100), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 31, 5 * SECOND));
    CHECK(p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE] - before <= 4);
    DONE(p);
}

/* The owner answers each message at once, as a ping does. */
static void a_ping_costs_one_write_on_each_side(void)
{
    struct pair *p = pair_joined(true);
    uint32_t up = p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE];
    uint32_t down = p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_WRITE];
    for (uint32_t i = 1; i <= 100; i++) {
        CHECK_EQ(pair_send(p, PAIR_AGENT, 40), 0);
        CHECK(pair_run_until(p, PAIR_COORDINATOR, i, 2 * SECOND));
        CHECK_EQ(pair_send(p, PAIR_COORDINATOR, 40), 0);
        CHECK(pair_run_until(p, PAIR_AGENT, i, 2 * SECOND));
    }
    up = p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE] - up;
    down = p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_WRITE] - down;
    CHECK(up >= 100 && up <= 105);
    CHECK(down >= 100 && down <= 105);
    pair_run(p, 20); /* the last answer is acknowledged alone, soon */
    CHECK(channel_idle(p->side[PAIR_COORDINATOR].channel));
    DONE(p);
}

static void a_message_of_256_kib_travels_through_the_spill(void)
{
    struct pair *p = pair_joined(true);
    p->latency_max_us = 3000;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, LAYOUT_SPILL_SIZE), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 17), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 5000), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 3645), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 3644), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 6, 5 * SECOND));
    CHECK_EQ(p->side[PAIR_AGENT].counts[PAIR_SPILL_WRITE], 3);
    CHECK_EQ(p->side[PAIR_COORDINATOR].counts[PAIR_SPILL_READ], 3);
    CHECK_EQ(p->side[PAIR_COORDINATOR].last_len, 3644);
    DONE(p);
}

static void a_page_never_refers_to_a_spill_whose_write_has_not_ended_well(void)
{
    struct pair *p = pair_joined(true);
    p->fail_spill_writes = 3;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100000), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 10 * SECOND));
    CHECK_EQ(p->side[PAIR_AGENT].counts[PAIR_SPILL_WRITE], 4);
    CHECK_EQ(p->side[PAIR_COORDINATOR].counts[PAIR_SPILL_READ], 1); /* it never looked in vain */
    DONE(p);
}

static void an_overwritten_spill_is_not_delivered_and_is_written_again(void)
{
    struct pair *p = pair_joined(true);
    pair_run(p, 5 * SECOND);
    p->next_scan_us = p->now_us + 500000; /* the idle coordinator does not look before that */
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100000), 0);
    pair_run(p, 100);
    CHECK_EQ(p->side[PAIR_AGENT].counts[PAIR_SPILL_WRITE], 1);
    memset(p->spill[PAIR_AGENT], 0x55, 4096); /* a late write of a former life */
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 5 * SECOND));
    CHECK(p->side[PAIR_AGENT].counts[PAIR_SPILL_WRITE] >= 2);
    DONE(p);
}

static void a_failed_write_is_repeated_with_growing_waits(void)
{
    struct pair *p = pair_joined(true);
    p->fail_writes = 6;
    uint32_t before = p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE];
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    pair_run(p, 200);
    CHECK(p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE] - before <= 3); /* at 0, 50 and 150 ms */
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 8 * SECOND));
    CHECK(stats(p, PAIR_AGENT)->write_errors >= 5);
    DONE(p);
}

static void a_page_overwritten_by_a_former_life_is_healed(void)
{
    for (int side = 0; side < 2; side++) {
        struct pair *p = pair_joined(true);
        uint8_t old[PAGE_SIZE_BYTES];
        memcpy(old, p->page[side], sizeof old);
        p->deaf[!side] = true;
        CHECK_EQ(pair_send(p, side, 16), 0);
        p->side[!side].ops[PAIR_PAGE_READ].out = false; /* nobody reads meanwhile */
        memcpy(p->page[side], old, sizeof old);
        p->deaf[!side] = false;
        CHECK(pair_run_until(p, !side, 1, 5 * SECOND));
        DONE(p);
    }
}

/* Of a node whose write hung while another one took the id: the message under it comes all the
 * same, once, with the owner's next page. */
static void a_claim_that_lands_late_is_no_page_and_gone_within_a_second(void)
{
    struct pair *p = pair_joined(true);
    struct claim claim = {.slot = p->side[PAIR_AGENT].config.slot, .pool_id = p->pool}, again;
    claim.nonce = uuid_random();
    p->deaf[PAIR_COORDINATOR] = true;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    p->side[PAIR_COORDINATOR].ops[PAIR_PAGE_READ].out = false; /* nobody reads meanwhile */
    claim_out(&claim, p->page[PAIR_AGENT]);
    p->deaf[PAIR_COORDINATOR] = false;
    pair_step_alone(p, PAIR_COORDINATOR, CHANNEL_EVENT_PAGE_READ, 0, p->page[PAIR_AGENT]);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->bad_pages, 1);
    CHECK_EQ(p->side[PAIR_COORDINATOR].received_total, 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 1500));
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].received_total, 1);
    CHECK(claim_in(p->page[PAIR_AGENT], claim.slot, &p->pool, &again, NULL) < 0);
    DONE(p);
}

static void an_overwritten_answer_to_hello_is_healed_too(void)
{
    struct pair *p = pair_joined(true);
    uint8_t old[PAGE_SIZE_BYTES];
    memcpy(old, p->page[PAIR_COORDINATOR], sizeof old); /* of term 10 */
    pair_start(p, PAIR_COORDINATOR, 4, 11);
    pair_run(p, 3 * SECOND);
    p->blind[PAIR_AGENT] = true;
    pair_start(p, PAIR_AGENT, 1, 2);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->peer.run_or_term, 2); /* its hello was answered */
    memcpy(p->page[PAIR_COORDINATOR], old, sizeof old);        /* but the answer is overwritten */
    p->blind[PAIR_AGENT] = false;
    pair_run(p, 6 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].peers, 4); /* terms 10, 11 in its first life, then 10, 11 */
    CHECK_EQ(stats(p, PAIR_AGENT)->term, 11);
    DONE(p);
}

/* The first spill of a new session has the number of the one that is being read for the old
 * session. */
static void a_spill_read_for_an_old_session_serves_no_new_one(void)
{
    struct pair *p = pair_joined(true);
    struct pair_op *read = &p->side[PAIR_COORDINATOR].ops[PAIR_SPILL_READ];
    p->latency_max_us = 2000;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100000), 0);
    while (!read->out)
        pair_run_us(p, 1);
    read->done_us = p->now_us + 4000000;
    pair_start(p, PAIR_AGENT, 1, 2);
    pair_run(p, 2 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].peers, 2);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 90000), 0);
    pair_run(p, SECOND);
    CHECK(read->out);
    memset(read->bytes, 0, read->len); /* whatever it read, it is worth nothing now */
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 5 * SECOND));
    CHECK_EQ(p->side[PAIR_COORDINATOR].last_len, 90000);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->bad_pages, 0);
    DONE(p);
}

/* The new session's first spill has the number of the old one's, which still lies in the slot. */
static void an_old_sessions_spill_is_not_taken_for_a_new_ones(void)
{
    struct pair *p = pair_joined(true);
    p->deaf[PAIR_COORDINATOR] = true; /* not acknowledged when the session ends */
    CHECK_EQ(pair_send(p, PAIR_AGENT, 100000), 0);
    pair_run(p, 20);
    CHECK_EQ(p->side[PAIR_AGENT].counts[PAIR_SPILL_WRITE], 1);
    p->deaf[PAIR_COORDINATOR] = false;
    pair_start(p, PAIR_COORDINATOR, 4, 11);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 90000), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 5 * SECOND));
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->bad_pages, 0);
    DONE(p);
}

static void messages_of_a_former_life_that_were_not_taken_are_forgotten(void)
{
    struct pair *p = pair_joined(true);
    p->deaf[PAIR_COORDINATOR] = true;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    pair_run(p, 2 * SECOND);
    p->blind[PAIR_AGENT] = true; /* the new life gets no further than its hello */
    pair_start(p, PAIR_AGENT, 1, 2);
    pair_run(p, 2 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].peers, 2);
    p->deaf[PAIR_COORDINATOR] = false;
    pair_run(p, 2 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].received_total, 0);
    DONE(p);
}

static void a_failed_heartbeat_is_repeated_before_the_next_is_due(void)
{
    struct pair *p = pair_joined(true);
    p->fail_writes = 1;
    while (p->fail_writes)
        pair_run(p, 1);
    uint32_t before = p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE];
    pair_run(p, 100); /* what lies there is unknown meanwhile */
    CHECK_EQ(p->side[PAIR_AGENT].counts[PAIR_PAGE_WRITE], before + 1);
    DONE(p);
}

static void a_lost_acknowledgment_is_repeated(void)
{
    struct pair *p = pair_joined(true);
    uint8_t old[PAGE_SIZE_BYTES];
    memcpy(old, p->page[PAIR_COORDINATOR], sizeof old);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 2 * SECOND));
    uint32_t before = p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_WRITE];
    while (p->side[PAIR_COORDINATOR].counts[PAIR_PAGE_WRITE] == before)
        pair_run(p, 1);
    memcpy(p->page[PAIR_COORDINATOR], old, sizeof old);
    pair_run(p, 6 * SECOND);
    CHECK(channel_idle(p->side[PAIR_AGENT].channel));
    CHECK_EQ(p->side[PAIR_COORDINATOR].received_total, 1);
    DONE(p);
}

static void a_restarted_agent_starts_a_session_and_nothing_comes_twice(void)
{
    struct pair *p = pair_joined(true);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    CHECK_EQ(pair_send(p, PAIR_COORDINATOR, 16), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 1, 2 * SECOND));
    pair_start(p, PAIR_AGENT, 1, 2);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].peers, 2);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->queued, 0); /* dropped with the session */
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 2, 2 * SECOND));
    DONE(p);
}

static void a_higher_term_is_followed_and_a_lower_one_dropped(void)
{
    struct pair *p = pair_joined(true);
    uint8_t old[PAGE_SIZE_BYTES];
    memcpy(old, p->page[PAIR_COORDINATOR], sizeof old);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    pair_start(p, PAIR_COORDINATOR, 9, 11);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].peers, 2);
    CHECK_EQ(p->side[PAIR_AGENT].terms_raised, 2);
    CHECK_EQ(stats(p, PAIR_AGENT)->queued, 0);
    uint64_t stale = stats(p, PAIR_AGENT)->stale_pages;
    memcpy(p->page[PAIR_COORDINATOR], old, sizeof old);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].peers, 2);
    CHECK(stats(p, PAIR_AGENT)->stale_pages > stale);
    DONE(p);
}

static void an_agent_that_knows_the_term_follows_no_lower_one_from_the_start(void)
{
    struct pair *p = pair_new(1, true);
    p->side[PAIR_AGENT].config.term_min = 11;
    pair_start(p, PAIR_COORDINATOR, 4, 10);
    pair_start(p, PAIR_AGENT, 1, 1);
    pair_run(p, 4 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].peers, 0);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->term, 11); /* the coordinator learns that it is deposed */
    pair_start(p, PAIR_COORDINATOR, 4, 11);
    pair_run(p, 4 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].peers, 1);
    DONE(p);
}

static void a_page_of_another_host_in_the_slot_is_bad(void)
{
    struct pair *p = pair_joined(true);
    struct page page;
    CHECK_EQ(page_in(p->page[PAIR_AGENT], PAGE_UP, 3, &p->pool, &page, NULL), 0);
    page.writer.host_id = 4;
    page.writer.generation++;
    page_out(&page, p->page[PAIR_AGENT]);
    uint32_t peers = p->side[PAIR_COORDINATOR].peers;
    uint64_t bad = stats(p, PAIR_COORDINATOR)->bad_pages;
    struct channel_update update;
    struct channel_event event = {CHANNEL_EVENT_PAGE_READ, p->now_us, 0, p->page[PAIR_AGENT],
                                  PAGE_SIZE_BYTES};
    p->side[PAIR_COORDINATOR].ops[PAIR_PAGE_READ].out = false;
    channel_step(p->side[PAIR_COORDINATOR].channel, &event, &update);
    CHECK_EQ(p->side[PAIR_COORDINATOR].peers, peers);
    CHECK(!update.peer_changed);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->bad_pages, bad + 1);
    DONE(p);
}

/* Feeds a side the page of the other as that might have written it after `change`; returns
 * bad_pages' growth. */
static uint64_t feed_changed(struct pair *p, int side, void (*change)(struct page *page))
{
    struct page page;
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct channel_update update;
    struct channel *ch = p->side[side].channel;
    enum page_kind kind = side == PAIR_AGENT ? PAGE_DOWN : PAGE_UP;
    uint64_t before = channel_stats(ch)->bad_pages;

    if (page_in(p->page[!side], kind, 3, &p->pool, &page, NULL) < 0)
        return 99;
    page.page_seq += 100;
    change(&page);
    page_out(&page, bytes);
    p->side[side].ops[PAIR_PAGE_READ].out = false;
    struct channel_event event = {CHANNEL_EVENT_PAGE_READ, p->now_us, 0, bytes, sizeof bytes};
    channel_step(ch, &event, &update);
    return channel_stats(ch)->bad_pages - before;
}

static void ack_the_future(struct page *page)
{
    page->ack_seq = 1;
}

static void leave_a_gap(struct page *page)
{
    page->first_seq = 2;
}

static void change_nothing(struct page *page)
{
    page->ack_seq += 0;
}

static void lies_about_sequences_are_refused(void)
{
    struct pair *p = pair_joined(true);
    CHECK_EQ(feed_changed(p, PAIR_COORDINATOR, ack_the_future), 1);
    CHECK_EQ(feed_changed(p, PAIR_COORDINATOR, leave_a_gap), 1);
    CHECK_EQ(feed_changed(p, PAIR_COORDINATOR, change_nothing), 0);
    DONE(p);
}

static void an_acknowledgment_of_what_is_queued_but_was_never_sent_is_a_lie(void)
{
    struct pair *p = pair_joined(true);
    const uint8_t bytes[16] = {1};
    CHECK_EQ(channel_submit(p->side[PAIR_COORDINATOR].channel, bytes, sizeof bytes), 0);
    CHECK_EQ(feed_changed(p, PAIR_COORDINATOR, ack_the_future), 1);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->queued, 1);
    DONE(p);
}

static void come_from_another_host(struct page *page)
{
    page->writer.host_id++;
}

static void claim_another_term(struct page *page)
{
    page->term++;
}

static void two_coordinators_of_one_term_cannot_be(void)
{
    struct pair *p = pair_joined(true);
    CHECK_EQ(feed_changed(p, PAIR_AGENT, come_from_another_host), 1);
    CHECK_EQ(feed_changed(p, PAIR_AGENT, claim_another_term), 1);
    CHECK_EQ(stats(p, PAIR_AGENT)->term, 10);
    CHECK_EQ(stats(p, PAIR_AGENT)->peer.host_id, 1);
    CHECK_EQ(feed_changed(p, PAIR_AGENT, change_nothing), 0);
    DONE(p);
}

static void a_torn_or_foreign_page_is_counted_and_ignored(void)
{
    struct pair *p = pair_joined(true);
    uint64_t bad = stats(p, PAIR_AGENT)->bad_pages;
    uint8_t good[PAGE_SIZE_BYTES];
    memcpy(good, p->page[PAIR_COORDINATOR], sizeof good);
    memset(p->page[PAIR_COORDINATOR] + 2048, 0xaa, 512);
    pair_run(p, 2 * SECOND);
    CHECK(stats(p, PAIR_AGENT)->bad_pages > bad);
    memcpy(p->page[PAIR_COORDINATOR], good, sizeof good);
    CHECK_EQ(pair_send(p, PAIR_COORDINATOR, 16), 0);
    CHECK(pair_run_until(p, PAIR_AGENT, 1, 3 * SECOND));
    DONE(p);
}

static void safety_8_a_life_that_is_declared_dead_is_told_once_and_by_every_coordinator(void)
{
    struct pair *p = pair_joined(true);
    p->fail_writes = 2; /* of the next page writes: the mark is written until it stands */
    channel_set_dead(p->side[PAIR_COORDINATOR].channel, 1);
    pair_tick(p, PAIR_COORDINATOR);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].declared_dead, 1);
    CHECK_EQ(stats(p, PAIR_AGENT)->dead_generation, 1);
    pair_start(p, PAIR_COORDINATOR, 4, 11);
    channel_set_dead(p->side[PAIR_COORDINATOR].channel, 1);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].declared_dead, 1);
    pair_start(p, PAIR_AGENT, 1, 2); /* the same life: its next run is told, too */
    p->side[PAIR_AGENT].declared_dead = 0;
    pair_run(p, 3 * SECOND);
    CHECK_EQ(p->side[PAIR_AGENT].declared_dead, 1);
    DONE(p);
}

static void safety_8_a_mark_of_an_older_life_says_nothing_to_the_newer_one(void)
{
    struct pair *p = pair_new(1, true);
    pair_start(p, PAIR_AGENT, 5, 1);
    pair_start(p, PAIR_COORDINATOR, 4, 10);
    channel_set_dead(p->side[PAIR_COORDINATOR].channel, 4);
    pair_run(p, 3 * SECOND);
    CHECK_EQ(stats(p, PAIR_AGENT)->dead_generation, 4);
    CHECK_EQ(p->side[PAIR_AGENT].declared_dead, 0);
    channel_set_dead(p->side[PAIR_COORDINATOR].channel, 3); /* never back */
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->dead_generation, 4);
    DONE(p);
}

static void a_full_queue_says_so_and_loses_nothing(void)
{
    struct pair *p = pair_joined(true);
    uint32_t n = 0;
    p->deaf[PAIR_COORDINATOR] = true;
    while (pair_send(p, PAIR_AGENT, 16) == 0)
        n++;
    CHECK_EQ(n, CHANNEL_QUEUE_MAX);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), LUNAR_E_FULL);
    p->deaf[PAIR_COORDINATOR] = false;
    CHECK(pair_run_until(p, PAIR_COORDINATOR, n, 60 * SECOND));
    CHECK_EQ(pair_send(p, PAIR_AGENT, LAYOUT_SPILL_SIZE + 1), LUNAR_E_TOO_BIG);
    DONE(p);
}

static void the_queue_is_bounded_in_bytes_too(void)
{
    struct pair *p = pair_joined(true);
    p->deaf[PAIR_COORDINATOR] = true;
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pair_send(p, PAIR_AGENT, LAYOUT_SPILL_SIZE), 0);
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), LUNAR_E_FULL);
    p->deaf[PAIR_COORDINATOR] = false;
    CHECK(pair_run_until(p, PAIR_COORDINATOR, 4, 5 * SECOND));
    DONE(p);
}

static void messages_not_taken_are_not_acknowledged(void)
{
    struct pair *p = pair_joined(true);
    p->deaf[PAIR_COORDINATOR] = true;
    CHECK_EQ(pair_send(p, PAIR_AGENT, 16), 0);
    pair_run(p, 5 * SECOND);
    CHECK_EQ(stats(p, PAIR_AGENT)->queued, 1);
    CHECK(stats(p, PAIR_AGENT)->resends >= 1);
    p->deaf[PAIR_COORDINATOR] = false;
    pair_run(p, 2 * SECOND);
    CHECK_EQ(p->side[PAIR_COORDINATOR].received_total, 1);
    CHECK_EQ(stats(p, PAIR_AGENT)->queued, 0);
    DONE(p);
}

static void new_messages_that_landed_are_told_once(void)
{
    struct pair *p = pair_joined(true);
    pair_run(p, 5 * SECOND);
    const uint8_t bytes[16] = {1};
    CHECK_EQ(channel_submit(p->side[PAIR_AGENT].channel, bytes, sizeof bytes), 0);
    CHECK(pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_TICK, 0, NULL).write_page);
    CHECK(pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_PAGE_WRITTEN, 0, NULL).wrote_news);
    p->now_us += CHANNEL_RESEND_US; /* not acknowledged: repeated, which is no news */
    CHECK(pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_TICK, 0, NULL).write_page);
    CHECK(!pair_step_alone(p, PAIR_AGENT, CHANNEL_EVENT_PAGE_WRITTEN, 0, NULL).wrote_news);
    DONE(p);
}

static void the_heartbeat_shows_that_an_idle_agent_lives(void)
{
    struct pair *p = pair_joined(true);
    uint64_t heard = stats(p, PAIR_COORDINATOR)->last_heard_ms;
    pair_run(p, 10 * SECOND);
    CHECK(stats(p, PAIR_COORDINATOR)->last_heard_ms >= heard + 7 * SECOND);
    CHECK(stats(p, PAIR_COORDINATOR)->peer_heartbeat_ms + 3 * SECOND > p->now_us / 1000);
    DONE(p);
}

static void the_leaving_flag_arrives_and_idle_waits_for_it(void)
{
    struct pair *p = pair_joined(true);
    p->latency_max_us = 5000;
    channel_set_flags(p->side[PAIR_AGENT].channel, PAGE_FLAG_LEAVING);
    CHECK(!channel_idle(p->side[PAIR_AGENT].channel));
    pair_tick(p, PAIR_AGENT);
    pair_run(p, 2 * SECOND);
    CHECK_EQ(stats(p, PAIR_COORDINATOR)->peer_flags, PAGE_FLAG_LEAVING);
    DONE(p);
}

static void the_first_page_is_above_the_last_one_of_the_claim(void)
{
    struct pair *p = pair_new(1, true);
    struct page page;
    p->side[PAIR_AGENT].config.page_seq_min = 41;
    pair_start(p, PAIR_AGENT, 1, 1);
    pair_run(p, 10);
    CHECK_EQ(page_in(p->page[PAIR_AGENT], PAGE_UP, 3, &p->pool, &page, NULL), 0);
    CHECK_EQ(page.page_seq, 42);
    CHECK_EQ(page.peer.host_id, 0); /* a hello page is for nobody and carries nothing */
    CHECK_EQ(page.count, 0);
    DONE(p);
}

/* --- the seeded storm --- */

struct storm {
    struct pair *pair;
    uint64_t generation[2], run[2];
    uint8_t old_page[2][PAGE_SIZE_BYTES];
    uint8_t old_spill[2][LAYOUT_SPILL_SIZE];
};

static uint32_t some_length(struct pair *p)
{
    uint64_t kind = pair_random(p, 100);
    if (kind < 80)
        return 16 + (uint32_t)pair_random(p, 300);
    if (kind < 95)
        return 16 + (uint32_t)pair_random(p, 3640);
    return 16 + (uint32_t)pair_random(p, LAYOUT_SPILL_SIZE - 15);
}

static void storm_restart(struct storm *s, int side)
{
    bool generation = side == PAIR_AGENT && pair_random(s->pair, 2);
    s->generation[side] += generation;
    s->run[side] = generation ? 1 : s->run[side] + 1;
    pair_start(s->pair, side, s->generation[side], s->run[side]);
}

static void storm_step(struct storm *s)
{
    struct pair *p = s->pair;
    int side = (int)pair_random(p, 2);
    uint64_t what = pair_random(p, 1000);

    if (what < 500)
        pair_send(p, side, some_length(p)); /* full or unknown peer: fine */
    else if (what < 900)
        pair_run(p, pair_random(p, 60));
    else if (what < 940)
        pair_run(p, pair_random(p, 3 * SECOND));
    else if (what < 955)
        p->deaf[side] = !p->deaf[side];
    else if (what < 965)
        memcpy(s->old_page[side], p->page[side], PAGE_SIZE_BYTES);
    else if (what < 975)
        memcpy(p->page[side], s->old_page[side], PAGE_SIZE_BYTES); /* lands late */
    else if (what < 980)
        memcpy(s->old_spill[side], p->spill[side], LAYOUT_SPILL_SIZE);
    else if (what < 985)
        memcpy(p->spill[side], s->old_spill[side], LAYOUT_SPILL_SIZE);
    else if (what < 990)
        storm_restart(s, side);
}

/* The weather clears: within a minute everything that was sent in the sessions that stand has
 * arrived. */
static void storm_end(struct pair *p, uint64_t seed)
{
    p->fail_percent = 0;
    p->deaf[0] = p->deaf[1] = false;
    pair_run(p, 60 * SECOND);
    for (int ms = 0; ms < 100 && p->side[PAIR_AGENT].ops[PAIR_PAGE_WRITE].out; ms++)
        pair_run(p, 1); /* a heartbeat is under way just now */
    for (int side = 0; side < 2; side++) {
        const struct pair_side *writer = &p->side[side], *reader = &p->side[!side];
        if (reader->received[writer->life] != writer->sent || !channel_idle(writer->channel))
            snprintf(p->breach, sizeof p->breach, "seed %llu: %u of %u messages arrived",
                     (unsigned long long)seed, reader->received[writer->life], writer->sent);
    }
}

static void whatever_the_disk_does_each_message_comes_once_and_in_order(void)
{
    uint64_t received = 0, peers = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct storm *s = calloc(1, sizeof *s);
        struct pair *p = s->pair = pair_new(seed, seed % 2);
        p->latency_max_us = pair_random(p, 3) * 10000;
        p->fail_percent = (uint32_t)pair_random(p, 3) * 10;
        storm_restart(s, PAIR_AGENT);
        storm_restart(s, PAIR_COORDINATOR);
        for (int i = 0; i < 1000 && !p->breach[0]; i++)
            storm_step(s);
        if (!p->breach[0])
            storm_end(p, seed);
        if (p->breach[0])
            printf("# seed %llu: %s\n", (unsigned long long)seed, p->breach);
        received += p->side[0].received_total + p->side[1].received_total;
        peers += p->side[0].peers + p->side[1].peers;
        CHECK_STR(p->breach, "");
        pair_free(p);
        free(s);
    }
    printf("# %llu messages in %llu sessions\n", (unsigned long long)received,
           (unsigned long long)peers);
    CHECK(received > 5000 && peers > 200);
}

TEST_MAIN(TEST(two_fresh_sides_meet_and_know_each_other),
          TEST(a_name_that_no_message_could_carry_is_cut), TEST(nothing_is_queued_for_nobody),
          TEST(messages_arrive_in_order_and_the_queue_empties),
          TEST(what_waits_behind_a_write_travels_in_one_batch),
          TEST(a_ping_costs_one_write_on_each_side),
          TEST(a_message_of_256_kib_travels_through_the_spill),
          TEST(a_page_never_refers_to_a_spill_whose_write_has_not_ended_well),
          TEST(an_overwritten_spill_is_not_delivered_and_is_written_again),
          TEST(a_failed_write_is_repeated_with_growing_waits),
          TEST(a_page_overwritten_by_a_former_life_is_healed),
          TEST(a_claim_that_lands_late_is_no_page_and_gone_within_a_second),
          TEST(an_overwritten_answer_to_hello_is_healed_too),
          TEST(a_spill_read_for_an_old_session_serves_no_new_one),
          TEST(an_old_sessions_spill_is_not_taken_for_a_new_ones),
          TEST(messages_of_a_former_life_that_were_not_taken_are_forgotten),
          TEST(a_failed_heartbeat_is_repeated_before_the_next_is_due),
          TEST(a_lost_acknowledgment_is_repeated),
          TEST(a_restarted_agent_starts_a_session_and_nothing_comes_twice),
          TEST(a_higher_term_is_followed_and_a_lower_one_dropped),
          TEST(an_agent_that_knows_the_term_follows_no_lower_one_from_the_start),
          TEST(a_page_of_another_host_in_the_slot_is_bad), TEST(lies_about_sequences_are_refused),
          TEST(an_acknowledgment_of_what_is_queued_but_was_never_sent_is_a_lie),
          TEST(two_coordinators_of_one_term_cannot_be),
          TEST(a_torn_or_foreign_page_is_counted_and_ignored),
          TEST(safety_8_a_life_that_is_declared_dead_is_told_once_and_by_every_coordinator),
          TEST(safety_8_a_mark_of_an_older_life_says_nothing_to_the_newer_one),
          TEST(a_full_queue_says_so_and_loses_nothing), TEST(the_queue_is_bounded_in_bytes_too),
          TEST(messages_not_taken_are_not_acknowledged),
          TEST(new_messages_that_landed_are_told_once),
          TEST(the_heartbeat_shows_that_an_idle_agent_lives),
          TEST(the_leaving_flag_arrives_and_idle_waits_for_it),
          TEST(the_first_page_is_above_the_last_one_of_the_claim),
          TEST(whatever_the_disk_does_each_message_comes_once_and_in_order))
