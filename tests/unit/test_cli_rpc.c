/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `rpc top` and `rpc trace` against a fake daemon that answers with the real daemons' code
 * (rpc_view) over a ring of this test.
 */
#include "support/test.h"

#include <signal.h>

#include "diskrpc/rpc_view.h"

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/request.c"
#include "../../tools/lunarctl/rpc_ask.c"
#include "../../tools/lunarctl/rpc_trace.c"
#include "../../tools/lunarctl/watch.c"
#include "../../tools/lunarctl/rpc_top.c"

#include "support/fake_agent.h"

#define NOW_US 90000000u

static struct trace *ring;
static struct channel_stats channels[8];
static struct rpc_view view;

static const struct channel_stats *stats_of(void *data, uint32_t slot)
{
    (void)data;
    return channels[slot].pages_read ? &channels[slot] : NULL;
}

/* Nodes 1 to 3 of a coordinator: 2 has been silent for 20 s. */
static void make_view(void)
{
    trace_free(ring);
    ring = trace_new(16, 8);
    memset(channels, 0, sizeof channels);
    for (uint32_t i = 1; i <= 3; i++) {
        channels[i].pages_read = 10;
        channels[i].peer = (struct incarnation){i, 2, 5};
        channels[i].peer_term = 14;
        channels[i].last_heard_ms = NOW_US / 1000 - 500;
        channels[i].messages_sent = 100;
        snprintf(channels[i].peer_name, PAGE_NAME_SIZE, "node%u", i);
    }
    channels[2].last_heard_ms = NOW_US / 1000 - 20000;
    channels[2].queued = 4;
    channels[2].resends = 9;
    trace_times_add(&channels[3].ack, 1250);
    view = (struct rpc_view){.role = "coordinator",
                             .pool = "demo",
                             .condition = "",
                             .host_id = 1,
                             .term = 14,
                             .now_us = NOW_US,
                             .wall_us = 1700000000000000,
                             .trace = ring,
                             .first = 1,
                             .last = 7,
                             .stats = stats_of};
}

static void note(uint32_t slot, enum trace_event event, uint64_t seq)
{
    struct trace_record r = {.event = (uint8_t)event,
                             .slot = slot,
                             .time_us = NOW_US - 1000000 + seq,
                             .peer = {slot, 2, 5},
                             .page_seq = 70,
                             .seq = seq};
    trace_note(ring, &r);
}

static void note_ping(uint32_t slot, enum trace_event event, uint64_t time_us, bool answer)
{
    static const struct uuid id = {{0xab, 0xcd, 0xef, 0x01}};
    Lunar__Ping ping = LUNAR__PING__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct trace_record r = {
        .event = (uint8_t)event, .slot = slot, .time_us = time_us, .page_seq = 71, .seq = 31};
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
    trace_note_message(ring, &r, bytes, len);
    free(bytes);
}

/* --- the fake daemon: the real answers --- */

static bool answer_view(struct agent *a, int fd, const Lunar__Envelope *e)
{
    uint8_t *bytes;
    uint32_t len;
    (void)a;
    if (!rpc_view_wants(e) || rpc_view_answer(&view, e->local_request, &bytes, &len, NULL) < 0)
        abort();
    send_frame(fd, bytes, len);
    free(bytes);
    return true;
}

/* The third request is followed by Ctrl-C; each look has some more traffic. */
static bool answer_three_looks(struct agent *a, int fd, const Lunar__Envelope *e)
{
    if (a->requests == 3)
        kill(getpid(), SIGINT);
    channels[3].messages_sent += 50;
    return answer_view(a, fd, e);
}

static bool answer_with_a_ring_that_runs_over(struct agent *a, int fd, const Lunar__Envelope *e)
{
    if (a->requests == 2)
        for (uint64_t i = 0; i < 53; i++)
            note(3, TRACE_ACKED, 100 + i); /* 16 fit */
    return answer_three_looks(a, fd, e);
}

/* Hangs up at the second request and is a new daemon at the third. */
static bool answer_restarted(struct agent *a, int fd, const Lunar__Envelope *e)
{
    if (a->requests == 2) {
        make_view();
        note(3, TRACE_SESSION, 0);
        return false;
    }
    return answer_three_looks(a, fd, e);
}

static bool answer_unsupported(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char text[] = "this agent does not know the local request";
    static const struct uuid zero;
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    (void)e;
    error.code = LUNAR_E_UNSUPPORTED;
    error.text = text;
    r.error = &error;
    respond(fd, uuid_to_pb(&zero), &r);
    return true;
}

#define SERVED(handler, rc, ...)                                                                   \
    struct agent a;                                                                                \
    agent_start(&a, handler);                                                                      \
    int rc = RUN(&a, "5", __VA_ARGS__);                                                            \
    agent_stop(&a);                                                                                \
    agent_free(&a)

/* The n-th line of the output, as JSON; NULL: there is none. */
static json_t *line_json(unsigned n)
{
    const char *line = out;
    for (; n > 0 && line; n--) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return line && *line ? json_loads(line, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
}

static unsigned count_lines(const char *containing)
{
    unsigned n = 0;
    for (const char *at = out; (at = strstr(at, containing)) != NULL; at++)
        n++;
    return n;
}

/* --- top --- */

static void top_once_shows_every_node_in_json(void)
{
    make_view();
    SERVED(answer_view, rc, cmd_rpc_top, "--once", "-o", "json");
    CHECK_EQ(rc, CLI_OK);
    json_t *doc = json_loads(out, 0, NULL);
    const json_t *nodes = json_object_get(doc, "nodes");
    CHECK_EQ(json_array_size(nodes), 3);
    CHECK_STR(js_get_text(doc, "role"), "coordinator");
    CHECK_EQ(js_get_u64(doc, "term"), 14);
    CHECK_STR(js_get_text(json_array_get(nodes, 0), "name"), "node1");
    CHECK_EQ(js_get_u64(json_array_get(nodes, 1), "resends"), 9);
    CHECK_EQ(js_get_u64(json_array_get(nodes, 1), "last_heard_ms"), 20000);
    CHECK_EQ(last_us(json_array_get(nodes, 2), "ack", "avg_us"), 1250);
    json_decref(doc);
}

static void top_shows_the_silent_node_first(void)
{
    make_view();
    SERVED(answer_view, rc, cmd_rpc_top, "--once");
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "pool demo, coordinator (host 1), term 14") != NULL);
    CHECK(strstr(out, "node2") < strstr(out, "node1"));
    CHECK(strstr(out, "node1") < strstr(out, "node3"));
    CHECK(strstr(out, "1.25 ms") != NULL);
    CHECK(strchr(out, '\033') == NULL); /* no terminal, no control characters */
}

static void a_small_screen_shows_the_silent_node_and_counts_the_rest(void)
{
    struct agent a;
    struct error err = ERROR_INIT;
    struct client *client;
    json_t *doc;
    FILE *file = tmpfile();
    int old = dup(1);

    make_view();
    agent_start(&a, answer_view);
    CHECK_EQ(client_open(a.path, 5000, &client, &err), 0);
    CHECK_EQ(rpc_ask_stats(client, &doc, &err), 0);
    client_close(client);
    agent_stop(&a);
    agent_free(&a);
    rows_max = 1;
    fflush(stdout);
    dup2(fileno(file), 1);
    print_top(doc);
    fflush(stdout);
    dup2(old, 1);
    close(old);
    rows_max = 0;
    rewind(file);
    out[fread(out, 1, sizeof out - 1, file)] = '\0';
    fclose(file);
    json_decref(doc);
    CHECK(strncmp(out, REDRAW, strlen(REDRAW)) == 0);
    CHECK(strstr(out, "node2") != NULL && strstr(out, "node1") == NULL);
    CHECK(strstr(out, "... 2 nodes more") != NULL);
}

static void top_of_a_standby_says_so(void)
{
    make_view();
    view.role = "standby";
    view.condition = "this coordinator stands by";
    view.stats = NULL;
    SERVED(answer_view, rc, cmd_rpc_top, "--once", "--coordinator");
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "stands by") != NULL);
    CHECK(strstr(out, "HEARD") == NULL);
}

static void top_goes_on_until_ctrl_c_and_counts_per_second(void)
{
    make_view();
    SERVED(answer_three_looks, rc, cmd_rpc_top, "-i", "1", "-o", "json");
    CHECK_EQ(rc, CLI_OK);
    json_t *first = line_json(0), *second = line_json(1);
    CHECK(first && second && line_json(3) == NULL);
    const json_t *node = json_array_get(json_object_get(second, "nodes"), 2);
    CHECK(json_object_get(json_array_get(json_object_get(first, "nodes"), 2), "messages_per_s") ==
          NULL);
    CHECK_EQ((long long)json_real_value(json_object_get(node, "messages_per_s")), 50);
    json_decref(first);
    json_decref(second);
}

/* --- trace --- */

static void trace_prints_the_newest_lines_decoded(void)
{
    make_view();
    note(3, TRACE_SESSION, 0);
    note_ping(3, TRACE_RECEIVED, NOW_US - 3000, false);
    note_ping(3, TRACE_SENT, NOW_US - 1500, true);
    SERVED(answer_view, rc, cmd_rpc_trace, "-n", "2");
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(count_lines("\n"), 2);
    CHECK(strstr(out, "node3") != NULL);
    CHECK(strstr(out, "< request ping") != NULL);
    CHECK(strstr(out, "> response ping") != NULL);
    CHECK_EQ(count_lines("id abcdef01"), 2);
    CHECK(strstr(out, "message 31 in page 71") != NULL);
    CHECK(strstr(out, "after 1.50 ms\n") != NULL);
    CHECK(strstr(out, "new session") == NULL);
}

static void trace_in_json_has_one_record_per_line(void)
{
    make_view();
    note_ping(3, TRACE_RECEIVED, NOW_US - 3000, false);
    note(2, TRACE_WRITE_ERROR, 0);
    SERVED(answer_view, rc, cmd_rpc_trace, "-o", "json");
    CHECK_EQ(rc, CLI_OK);
    json_t *ping = line_json(0), *error = line_json(1);
    CHECK_STR(js_get_text(ping, "event"), "received");
    CHECK_STR(js_get_text(ping, "kind"), "request ping");
    CHECK_STR(js_get_text(ping, "id"), "abcdef01-0000-0000-0000-000000000000");
    CHECK_STR(js_get_text(ping, "time"), "2023-11-14T22:13:19.997000Z");
    CHECK_EQ(js_get_u64(ping, "wall_us"), 1700000000000000 - 3000);
    CHECK_STR(js_get_text(error, "event"), "write error");
    CHECK(json_object_get(error, "kind") == NULL);
    json_decref(ping);
    json_decref(error);
}

static void trace_of_one_node_leaves_the_others_out(void)
{
    make_view();
    for (uint64_t i = 1; i <= 5; i++) {
        note(1, TRACE_ACKED, i);
        note(3, TRACE_ACKED, 10 + i);
    }
    {
        SERVED(answer_view, rc, cmd_rpc_trace, "--node", "node3", "-n", "3");
        CHECK_EQ(rc, CLI_OK);
    }
    CHECK_EQ(count_lines("\n"), 3);
    CHECK_EQ(count_lines("node3"), 3);
    CHECK(strstr(out, "message 15") != NULL);
    {
        SERVED(answer_view, rc, cmd_rpc_trace, "--node", "1");
        CHECK_EQ(rc, CLI_OK);
    }
    CHECK_EQ(count_lines("node1"), 5);
    CHECK_EQ(count_lines("\n"), 5);
}

static void an_agents_trace_names_the_coordinator_at_the_other_end(void)
{
    make_view();
    view.role = "agent";
    view.node = "node3";
    note(3, TRACE_ACKED, 7);
    SERVED(answer_view, rc, cmd_rpc_trace);
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "host 3 term 5") != NULL);
    CHECK(strstr(out, "- acknowledged up to message 7") != NULL);
}

static void what_a_ring_overwrote_before_the_first_look_is_not_missed(void)
{
    make_view();
    for (uint64_t i = 1; i <= 40; i++)
        note(1, TRACE_ACKED, i);
    SERVED(answer_view, rc, cmd_rpc_trace);
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "missed") == NULL);
    CHECK_EQ(count_lines("\n"), 16);
}

static void following_says_how_many_records_it_missed(void)
{
    make_view();
    note(3, TRACE_ACKED, 1);
    SERVED(answer_with_a_ring_that_runs_over, rc, cmd_rpc_trace, "-f", "-i", "10");
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "... 37 records missed ...\n") != NULL);
    CHECK_EQ(count_lines("acknowledged"), 1 + 16);
}

static void following_waits_for_a_daemon_that_is_restarted(void)
{
    make_view();
    note(3, TRACE_ACKED, 1);
    SERVED(answer_restarted, rc, cmd_rpc_trace, "-f", "-i", "10", "-o", "json");
    CHECK_EQ(rc, CLI_OK);
    json_t *second = line_json(1), *third = line_json(2);
    CHECK(json_object_get(second, "restarted") != NULL);
    CHECK_STR(js_get_text(third, "event"), "new session");
    CHECK_EQ(js_get_u64(third, "number"), 1);
    CHECK(line_json(3) == NULL);
    json_decref(second);
    json_decref(third);
}

static void without_a_daemon_all_of_them_fail_at_once(void)
{
    struct agent a;
    snprintf(a.path, sizeof a.path, "/tmp/lunar-test-nobody-%d.sock", (int)getpid());
    CHECK_EQ(RUN(&a, "5", cmd_rpc_top, "--once"), CLI_REFUSED);
    CHECK_EQ(RUN(&a, "5", cmd_rpc_top), CLI_REFUSED);
    CHECK_EQ(RUN(&a, "5", cmd_rpc_trace, "--follow"), CLI_REFUSED);
}

static void an_older_daemon_refuses_by_name(void)
{
    make_view();
    SERVED(answer_unsupported, rc, cmd_rpc_trace, "--follow", "-o", "json");
    CHECK_EQ(rc, CLI_REFUSED);
    CHECK(strstr(out, "UNSUPPORTED") != NULL);
}

TEST_MAIN(TEST(top_once_shows_every_node_in_json), TEST(top_shows_the_silent_node_first),
          TEST(a_small_screen_shows_the_silent_node_and_counts_the_rest),
          TEST(top_of_a_standby_says_so), TEST(top_goes_on_until_ctrl_c_and_counts_per_second),
          TEST(trace_prints_the_newest_lines_decoded), TEST(trace_in_json_has_one_record_per_line),
          TEST(trace_of_one_node_leaves_the_others_out),
          TEST(an_agents_trace_names_the_coordinator_at_the_other_end),
          TEST(what_a_ring_overwrote_before_the_first_look_is_not_missed),
          TEST(following_says_how_many_records_it_missed),
          TEST(following_waits_for_a_daemon_that_is_restarted),
          TEST(without_a_daemon_all_of_them_fail_at_once), TEST(an_older_daemon_refuses_by_name))
