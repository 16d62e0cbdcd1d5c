/* SPDX-License-Identifier: Apache-2.0 */
/* The ring keeps the newest, says what a reader missed, pairs answers with questions; and the
 * daemons' answers show it page by page. */
#include "diskrpc/trace.h"

#include <stdlib.h>

#include "diskrpc/rpc_view.h"
#include "support/test.h"

static struct trace_record record(enum trace_event event, uint32_t slot, uint64_t time_us)
{
    return (struct trace_record){.event = (uint8_t)event,
                                 .slot = slot,
                                 .time_us = time_us,
                                 .peer = {1, 2, 3},
                                 .page_seq = 40,
                                 .seq = time_us};
}

static void note(struct trace *t, enum trace_event event, uint32_t slot, uint64_t time_us)
{
    struct trace_record r = record(event, slot, time_us);
    trace_note(t, &r);
}

/* A request (or, with `answer`, its response) with this id. */
static void note_message(struct trace *t, enum trace_event event, uint32_t slot, uint64_t time_us,
                         uint8_t id_byte, bool answer)
{
    struct uuid id = {{id_byte, 1}};
    Lunar__Ping ping = LUNAR__PING__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct trace_record r = record(event, slot, time_us);
    uint8_t *bytes;
    uint32_t len;

    request.id = response.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_PING;
    response.op_case = LUNAR__RESPONSE__OP_PING;
    request.ping = response.ping = &ping;
    e.body_case = answer ? LUNAR__ENVELOPE__BODY_RESPONSE : LUNAR__ENVELOPE__BODY_REQUEST;
    if (answer)
        e.response = &response;
    else
        e.request = &request;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        abort();
    trace_note_message(t, &r, bytes, len);
    free(bytes);
}

static void records_come_back_in_order_and_once(void)
{
    struct trace *t = trace_new(8, 4);
    uint64_t cursor = 0, missed = 0;
    for (uint64_t i = 1; i <= 5; i++)
        note(t, TRACE_ACKED, 1, i * 10);
    for (uint64_t i = 1; i <= 5; i++) {
        const struct trace_record *r = trace_next(t, &cursor, &missed);
        CHECK(r != NULL);
        CHECK_EQ(r->number, i);
        CHECK_EQ(r->time_us, i * 10);
    }
    CHECK(trace_next(t, &cursor, &missed) == NULL);
    note(t, TRACE_ACKED, 1, 60);
    CHECK_EQ(trace_next(t, &cursor, &missed)->number, 6);
    CHECK_EQ(missed, 0);
    trace_free(t);
}

static void a_slow_reader_is_told_exactly_what_it_missed(void)
{
    struct trace *t = trace_new(8, 4);
    uint64_t cursor = 0, missed = 0;
    note(t, TRACE_ACKED, 1, 1);
    CHECK_EQ(trace_next(t, &cursor, &missed)->number, 1);
    for (uint64_t i = 2; i <= 20; i++)
        note(t, TRACE_ACKED, 1, i);
    CHECK_EQ(trace_next(t, &cursor, &missed)->number, 13); /* 13..20 fit, 2..12 are gone */
    CHECK_EQ(missed, 11);
    uint64_t n = 1;
    while (trace_next(t, &cursor, &missed))
        n++;
    CHECK_EQ(n, 8);
    CHECK_EQ(missed, 11);
    CHECK_EQ(trace_last(t), 20);
    trace_free(t);
}

static void a_cursor_of_the_future_gets_nothing(void)
{
    struct trace *t = trace_new(8, 4);
    uint64_t cursor = 99, missed = 0;
    note(t, TRACE_ACKED, 1, 1);
    CHECK(trace_next(t, &cursor, &missed) == NULL);
    CHECK_EQ(cursor, 99);
    trace_free(t);
}

static void the_same_trouble_again_is_noted_once_per_slot(void)
{
    struct trace *t = trace_new(16, 4);
    for (int i = 0; i < 1000; i++)
        note(t, TRACE_BAD_PAGE, 1, 1);
    CHECK_EQ(trace_last(t), 1);
    note(t, TRACE_BAD_PAGE, 2, 2); /* another slot */
    note(t, TRACE_ACKED, 1, 3);    /* something else in between */
    note(t, TRACE_BAD_PAGE, 1, 4);
    note(t, TRACE_RESEND, 1, 5); /* each resend is one */
    note(t, TRACE_RESEND, 1, 6);
    CHECK_EQ(trace_last(t), 6);
    trace_free(t);
}

static void an_answer_knows_how_long_it_took(void)
{
    struct trace *t = trace_new(16, 4);
    uint64_t cursor = 1, missed = 0;
    note_message(t, TRACE_SENT, 3, 1000, 7, false);
    note_message(t, TRACE_RECEIVED, 3, 3500, 7, true);
    note_message(t, TRACE_RECEIVED, 3, 9000, 7, true); /* once more: no time, no second count */
    const struct trace_record *r = trace_next(t, &cursor, &missed);
    CHECK_EQ(r->body, LUNAR__ENVELOPE__BODY_RESPONSE);
    CHECK_EQ(r->op, LUNAR__RESPONSE__OP_PING);
    CHECK_EQ(r->took_us, 2500);
    CHECK(r->id.b[0] == 7 && r->len > 0);
    CHECK_EQ(trace_next(t, &cursor, &missed)->took_us, 0);
    CHECK_EQ(trace_times(t, 3).count, 1);
    CHECK_EQ(trace_times(t, 3).last_us, 2500);
    CHECK_EQ(trace_times(t, 1).count, 0);
    CHECK_EQ(trace_times(t, 5).count, 0); /* beyond the ring's slots */
    trace_free(t);
}

static void what_others_asked_of_us_has_a_time_and_no_place_in_the_statistics(void)
{
    struct trace *t = trace_new(16, 4);
    uint64_t cursor = 1, missed = 0;
    note_message(t, TRACE_RECEIVED, 3, 1000, 7, false);
    note_message(t, TRACE_SENT, 3, 1400, 7, true);
    CHECK_EQ(trace_next(t, &cursor, &missed)->took_us, 400);
    CHECK_EQ(trace_times(t, 3).count, 0);
    trace_free(t);
}

static void a_question_asked_again_keeps_its_first_time(void)
{
    struct trace *t = trace_new(16, 4);
    note_message(t, TRACE_SENT, 3, 1000, 7, false);
    note_message(t, TRACE_SENT, 3, 8000, 7, false); /* to the next coordinator */
    note_message(t, TRACE_RECEIVED, 3, 9000, 7, true);
    CHECK_EQ(trace_times(t, 3).last_us, 8000);
    trace_free(t);
}

static void another_nodes_answer_is_not_ours(void)
{
    struct trace *t = trace_new(16, 4);
    note_message(t, TRACE_SENT, 3, 1000, 7, false);
    note_message(t, TRACE_RECEIVED, 2, 2000, 7, true);
    CHECK_EQ(trace_times(t, 3).count, 0);
    CHECK_EQ(trace_times(t, 2).count, 0);
    trace_free(t);
}

static void averages_follow_and_the_maximum_stays(void)
{
    struct trace_times times = {0};
    trace_times_add(&times, 800);
    CHECK_EQ(times.avg_us, 800);
    trace_times_add(&times, 1600);
    CHECK_EQ(times.avg_us, 900);
    trace_times_add(&times, 0);
    CHECK_EQ(times.max_us, 1600);
    CHECK_EQ(times.count, 3);
    CHECK_EQ(times.last_us, 0);
}

static void a_message_that_is_none_is_noted_as_unknown(void)
{
    struct trace *t = trace_new(16, 4);
    struct trace_record r = record(TRACE_RECEIVED, 1, 5);
    uint64_t cursor = 0, missed = 0;
    trace_note_message(t, &r, (const uint8_t *)"\xff\xff\xff", 3);
    const struct trace_record *got = trace_next(t, &cursor, &missed);
    CHECK_EQ(got->body, 0);
    CHECK_EQ(got->len, 3);
    trace_free(t);
    trace_note(NULL, &r); /* no ring: nothing happens */
    trace_note_message(NULL, &r, NULL, 0);
}

/* --- the daemons' answers --- */

static struct channel_stats channels[RPC_VIEW_NODES_MAX + 10];

static const struct channel_stats *stats_of(void *data, uint32_t slot)
{
    (void)data;
    return slot == 2 ? NULL : &channels[slot];
}

static struct rpc_view view_of(struct trace *t, uint32_t last)
{
    return (struct rpc_view){.role = "coordinator",
                             .pool = "demo",
                             .condition = "",
                             .host_id = 1,
                             .term = 14,
                             .now_us = 9000000,
                             .wall_us = 1700000000000000,
                             .trace = t,
                             .first = 1,
                             .last = last,
                             .stats = stats_of};
}

/* Through bytes, as lunarctl gets it. */
static Lunar__Envelope *ask_stats(struct rpc_view view, uint32_t after)
{
    Lunar__RpcStatsGet get = LUNAR__RPC_STATS_GET__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    Lunar__Envelope *answer = NULL;
    uint8_t *bytes;
    uint32_t len;
    get.after_host_id = after;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_RPC_STATS;
    request.rpc_stats = &get;
    if (rpc_view_answer(&view, &request, &bytes, &len, NULL) < 0 ||
        envelope_unpack(bytes, len, &answer, NULL) < 0)
        abort();
    free(bytes);
    return answer;
}

static Lunar__Envelope *ask_trace(struct rpc_view view, const struct uuid *ring, uint64_t after,
                                  uint32_t max)
{
    Lunar__RpcTraceGet get = LUNAR__RPC_TRACE_GET__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    Lunar__Envelope *answer = NULL;
    uint8_t *bytes;
    uint32_t len;
    if (ring)
        get.ring_id = uuid_to_pb(ring);
    get.after_number = after;
    get.max = max;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_RPC_TRACE;
    request.rpc_trace = &get;
    if (rpc_view_answer(&view, &request, &bytes, &len, NULL) < 0 ||
        envelope_unpack(bytes, len, &answer, NULL) < 0)
        abort();
    free(bytes);
    return answer;
}

static void the_counters_of_every_channel_are_shown(void)
{
    struct trace *t = trace_new(16, 4);
    memset(channels, 0, sizeof channels);
    channels[3] = (struct channel_stats){.queued = 5,
                                         .resends = 6,
                                         .last_heard_ms = 8500,
                                         .peer = {3, 2, 7},
                                         .peer_term = 13,
                                         .peer_name = "node-c"};
    trace_times_add(&channels[3].ack, 1234);
    note_message(t, TRACE_SENT, 3, 1000, 7, false);
    note_message(t, TRACE_RECEIVED, 3, 3500, 7, true);
    Lunar__Envelope *e = ask_stats(view_of(t, 4), 0);
    const Lunar__RpcStats *s = e->response->rpc_stats;
    CHECK_EQ(s->n_nodes, 3); /* slot 2 has no channel */
    CHECK_EQ(s->term, 14);
    CHECK(!s->more);
    const Lunar__RpcNode *n = s->nodes[1];
    CHECK_EQ(n->host_id, 3);
    CHECK_STR(n->name, "node-c");
    CHECK_EQ(n->queued, 5);
    CHECK_EQ(n->resends, 6);
    CHECK_EQ(n->last_heard_ms, 500);
    CHECK_EQ(n->peer_run_or_term, 7);
    CHECK_EQ(n->peer_term, 13);
    CHECK_EQ(n->ack->last_us, 1234);
    CHECK_EQ(n->answer->avg_us, 2500);
    envelope_free(e);
    trace_free(t);
}

static void two_thousand_nodes_come_in_pages(void)
{
    struct trace *t = trace_new(16, 4);
    struct rpc_view view = view_of(t, RPC_VIEW_NODES_MAX + 9);
    memset(channels, 0, sizeof channels);
    Lunar__Envelope *first = ask_stats(view, 0);
    const Lunar__RpcStats *s = first->response->rpc_stats;
    CHECK_EQ(s->n_nodes, RPC_VIEW_NODES_MAX);
    CHECK(s->more);
    Lunar__Envelope *second = ask_stats(view, s->nodes[s->n_nodes - 1]->host_id);
    CHECK_EQ(second->response->rpc_stats->n_nodes, 8);
    CHECK_EQ(second->response->rpc_stats->nodes[0]->host_id, RPC_VIEW_NODES_MAX + 2);
    CHECK(!second->response->rpc_stats->more);
    Lunar__Envelope *third = ask_stats(view, UINT32_MAX);
    CHECK_EQ(third->response->rpc_stats->n_nodes, 0);
    envelope_free(first);
    envelope_free(second);
    envelope_free(third);
    trace_free(t);
}

static void without_channels_there_are_no_rows_and_a_reason(void)
{
    struct trace *t = trace_new(16, 4);
    struct rpc_view view = view_of(t, 4);
    view.stats = NULL;
    view.condition = "stands by";
    Lunar__Envelope *e = ask_stats(view, 0);
    CHECK_EQ(e->response->rpc_stats->n_nodes, 0);
    CHECK_STR(e->response->rpc_stats->condition, "stands by");
    envelope_free(e);
    trace_free(t);
}

static void a_cursor_goes_on_and_learns_what_it_missed(void)
{
    struct trace *t = trace_new(16, 4);
    const struct uuid *ring = trace_id(t);
    for (uint64_t i = 1; i <= 4; i++)
        note(t, TRACE_ACKED, 3, i);
    Lunar__Envelope *e = ask_trace(view_of(t, 4), ring, 1, 2);
    CHECK_EQ(e->response->rpc_trace->n_records, 2);
    CHECK_EQ(e->response->rpc_trace->last_number, 4);
    CHECK_EQ(e->response->rpc_trace->records[0]->peer_run_or_term, 3);
    CHECK_EQ(e->response->rpc_trace->records[0]->number, 2);
    envelope_free(e);
    for (uint64_t i = 5; i <= 30; i++)
        note(t, TRACE_ACKED, 3, i);
    e = ask_trace(view_of(t, 4), ring, 3, 0);
    CHECK_EQ(e->response->rpc_trace->missed, 11); /* 4..14 */
    CHECK_EQ(e->response->rpc_trace->records[0]->number, 15);
    envelope_free(e);
    trace_free(t);
}

static void a_cursor_of_another_ring_starts_at_the_oldest(void)
{
    struct trace *t = trace_new(16, 4);
    struct uuid other = {{1}};
    for (uint64_t i = 1; i <= 4; i++)
        note(t, TRACE_ACKED, 3, i);
    Lunar__Envelope *e = ask_trace(view_of(t, 4), &other, 3, 0);
    CHECK_EQ(e->response->rpc_trace->n_records, 4);
    envelope_free(e);
    trace_free(t);
}

TEST_MAIN(TEST(records_come_back_in_order_and_once),
          TEST(a_slow_reader_is_told_exactly_what_it_missed),
          TEST(a_cursor_of_the_future_gets_nothing),
          TEST(the_same_trouble_again_is_noted_once_per_slot),
          TEST(an_answer_knows_how_long_it_took),
          TEST(what_others_asked_of_us_has_a_time_and_no_place_in_the_statistics),
          TEST(a_question_asked_again_keeps_its_first_time), TEST(another_nodes_answer_is_not_ours),
          TEST(averages_follow_and_the_maximum_stays),
          TEST(a_message_that_is_none_is_noted_as_unknown),
          TEST(the_counters_of_every_channel_are_shown), TEST(two_thousand_nodes_come_in_pages),
          TEST(without_channels_there_are_no_rows_and_a_reason),
          TEST(a_cursor_goes_on_and_learns_what_it_missed),
          TEST(a_cursor_of_another_ring_starts_at_the_oldest))
