/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunarctl against a fake agent: a thread that listens on a Unix socket, reads frames and answers
 * as the test tells it. The commands' own sources are part of this program, so that their exit
 * codes, their output and what they send are tested without starting a process.
 */
#include "support/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/request.c"
#include "../../tools/lunarctl/rpc.c"
#include "../../tools/lunarctl/snapshot.c"
#include "../../tools/lunarctl/volume.c"

#include "support/fake_agent.h"

/* --- handlers --- */

static const struct uuid volume_id = {{0xaa, 1}}, attachment_id = {{0xbb, 2}};

static bool answer_volume(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char name[] = "disk", state[] = "ready", node[] = "node-b",
                device[] = "/dev/lunar/p/disk";
    Lunar__Attachment attachment = LUNAR__ATTACHMENT__INIT, *attachments[] = {&attachment};
    Lunar__Volume v = LUNAR__VOLUME__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    attachment.attachment_id = uuid_to_pb(&attachment_id);
    attachment.node = node;
    v.volume_id = uuid_to_pb(&volume_id);
    v.name = name;
    v.state = state;
    v.size = 10ull << 30;
    v.device = device;
    v.n_attachments = 1;
    v.attachments = attachments;
    r.op_case = LUNAR__RESPONSE__OP_VOLUME;
    r.volume = &v;
    respond(fd, e->request->id, &r);
    return true;
}

static bool answer_error(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char text[] = "volume 'disk' is attached to node-b";
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    error.code = LUNAR_E_IN_USE;
    error.text = text;
    r.error = &error;
    respond(fd, e->request->id, &r);
    return true;
}

static bool answer_indeterminate(struct agent *a, int fd, const Lunar__Envelope *e)
{
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    error.code = LUNAR_E_INDETERMINATE;
    r.error = &error;
    respond(fd, e->request->id, &r);
    return true;
}

static bool answer_never(struct agent *a, int fd, const Lunar__Envelope *e)
{
    (void)a, (void)fd, (void)e;
    return true;
}

/* The first connection breaks after the request, as when an agent restarts; the next one is
 * answered. */
static bool answer_second_time(struct agent *a, int fd, const Lunar__Envelope *e)
{
    return a->connections == 1 ? false : answer_volume(a, fd, e);
}

static bool answer_someone_else_first(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char text[] = "not yours";
    static const struct uuid other = {{0xcc}};
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    error.code = LUNAR_E_NOT_FOUND;
    error.text = text;
    r.error = &error;
    respond(fd, uuid_to_pb(&other), &r);
    return answer_volume(a, fd, e);
}

static bool answer_giant_frame(struct agent *a, int fd, const Lunar__Envelope *e)
{
    uint8_t head[4];
    (void)a, (void)e;
    le32_put(head, FRAME_MAX + 1);
    return send(fd, head, 4, MSG_NOSIGNAL) == 4;
}

static bool answer_garbage(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static const uint8_t frame[] = {8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    (void)a, (void)e;
    return send(fd, frame, sizeof frame, MSG_NOSIGNAL) == sizeof frame;
}

static bool answer_ping(struct agent *a, int fd, const Lunar__Envelope *e)
{
    Lunar__Ping ping = LUNAR__PING__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    ping.payload = e->request->ping->payload;
    r.op_case = LUNAR__RESPONSE__OP_PING;
    r.ping = &ping;
    respond(fd, e->request->id, &r);
    return true;
}

static bool answer_ping_changed(struct agent *a, int fd, const Lunar__Envelope *e)
{
    e->request->ping->payload.data[3] ^= 1;
    return answer_ping(a, fd, e);
}

/* Three volumes in pages of two. */
static bool answer_pages(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char one[] = "a", two[] = "b", three[] = "c";
    Lunar__Volume v[3] = {LUNAR__VOLUME__INIT, LUNAR__VOLUME__INIT, LUNAR__VOLUME__INIT};
    Lunar__Volume *pages[] = {&v[0], &v[1], &v[2]};
    Lunar__Volumes volumes = LUNAR__VOLUMES__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    bool first = *e->request->volume_list->after == '\0';
    (void)a;
    v[0].name = one;
    v[1].name = two;
    v[2].name = three;
    volumes.n_volumes = first ? 2 : 1;
    volumes.volumes = first ? pages : pages + 2;
    volumes.more = first;
    r.op_case = LUNAR__RESPONSE__OP_VOLUMES;
    r.volumes = &volumes;
    respond(fd, e->request->id, &r);
    return true;
}

/* --- tests --- */

static void create_sends_name_and_bytes_and_prints_the_volume(void)
{
    struct agent a;
    agent_start(&a, answer_volume);
    int rc = RUN(&a, "5", cmd_volume_create, "disk", "--size", "10GiB");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.last->request->op_case, LUNAR__REQUEST__OP_VOLUME_CREATE);
    CHECK_STR(a.last->request->volume_create->name, "disk");
    CHECK_EQ(a.last->request->volume_create->size, 10ll << 30);
    CHECK_EQ(a.last->request->volume_create->thick, 0);
    CHECK(strstr(out, "10 GiB") != NULL);
    agent_free(&a);
}

static void json_output_has_sizes_in_bytes_and_ids_as_uuids(void)
{
    struct agent a;
    agent_start(&a, answer_volume);
    int rc = RUN(&a, "5", cmd_volume_show, "disk", "-o", "json");
    agent_stop(&a);
    agent_free(&a);
    json_t *doc = json_loads(out, 0, NULL);
    const json_t *first = json_array_get(json_object_get(doc, "attachments"), 0);
    CHECK_EQ(rc, CLI_OK);
    CHECK(doc != NULL);
    CHECK_EQ(js_get_u64(doc, "size"), 10ll << 30);
    CHECK_STR(js_get_text(doc, "volume_id"), "aa010000-0000-0000-0000-000000000000");
    CHECK_STR(js_get_text(first, "node"), "node-b");
    json_decref(doc);
}

static void detach_names_volume_and_attachment_by_id(void)
{
    struct agent a;
    agent_start(&a, answer_volume);
    int rc = RUN(&a, "5", cmd_volume_detach, "disk");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.last->request->op_case, LUNAR__REQUEST__OP_VOLUME_DETACH);
    struct uuid v = uuid_from_pb(a.last->request->volume_detach->volume_id);
    struct uuid at = uuid_from_pb(a.last->request->volume_detach->attachment_id);
    CHECK(uuid_equal(&v, &volume_id));
    CHECK(uuid_equal(&at, &attachment_id));
    agent_free(&a);
}

static void attach_resolves_the_name_and_prints_the_device_alone(void)
{
    struct agent a;
    agent_start(&a, answer_volume);
    int rc = RUN(&a, "5", cmd_volume_attach, "disk", "--node", "node-b");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.requests, 2);
    CHECK_STR(a.last->request->volume_attach->node, "node-b");
    CHECK_STR(out, "/dev/lunar/p/disk\n");
    agent_free(&a);
}

static void a_uuid_is_looked_up_as_an_id(void)
{
    struct agent a;
    agent_start(&a, answer_volume);
    int rc = RUN(&a, "5", cmd_volume_show, "aa010000-0000-0000-0000-000000000000");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    struct uuid id = uuid_from_pb(a.last->request->volume_get->volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    CHECK_STR(a.last->request->volume_get->name, "");
    agent_free(&a);
}

static void an_error_of_the_coordinator_is_exit_1_and_json_too(void)
{
    struct agent a;
    agent_start(&a, answer_error);
    int rc = RUN(&a, "5", cmd_volume_delete, "disk", "-o", "json");
    agent_stop(&a);
    agent_free(&a);
    json_t *doc = json_loads(out, 0, NULL);
    CHECK_EQ(rc, CLI_REFUSED);
    CHECK_STR(js_get_text(json_object_get(doc, "error"), "name"), "IN_USE");
    json_decref(doc);
}

static void an_indeterminate_answer_is_exit_3(void)
{
    struct agent a;
    agent_start(&a, answer_indeterminate);
    int rc = RUN(&a, "5", cmd_volume_create, "disk", "--size", "1GiB");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_UNKNOWN);
}

static void no_answer_in_time_is_exit_3(void)
{
    struct agent a;
    agent_start(&a, answer_never);
    int rc = RUN(&a, "1", cmd_volume_create, "disk", "--size", "1GiB");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_UNKNOWN);
}

static void no_agent_is_exit_1_at_once(void)
{
    struct agent a = {.path = "/tmp/lunar-test-cli-nobody.sock"};
    CHECK_EQ(RUN(&a, "60", cmd_volume_create, "disk", "--size", "1GiB"), CLI_REFUSED);
}

static void a_broken_connection_is_taken_up_again_with_the_same_id(void)
{
    struct agent a;
    agent_start(&a, answer_second_time);
    int rc = RUN(&a, "10", cmd_volume_create, "disk", "--size", "1GiB");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.requests, 2);
    struct uuid second = uuid_from_pb(a.last->request->id);
    CHECK(uuid_equal(&a.first_id, &second));
    agent_free(&a);
}

static void an_answer_to_another_request_is_skipped(void)
{
    struct agent a;
    agent_start(&a, answer_someone_else_first);
    int rc = RUN(&a, "5", cmd_volume_show, "disk");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_OK);
}

static void frames_that_are_too_long_or_not_ours_are_exit_3(void)
{
    struct agent a;
    agent_start(&a, answer_giant_frame);
    int rc = RUN(&a, "5", cmd_volume_show, "disk");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_UNKNOWN);
    agent_start(&a, answer_garbage);
    rc = RUN(&a, "5", cmd_volume_show, "disk");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_UNKNOWN);
}

static void list_asks_for_pages_until_the_last(void)
{
    struct agent a;
    agent_start(&a, answer_pages);
    int rc = RUN(&a, "5", cmd_volume_list, "-o", "json");
    agent_stop(&a);
    json_t *doc = json_loads(out, 0, NULL);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.requests, 2);
    CHECK_STR(a.last->request->volume_list->after, "b");
    CHECK_EQ(json_array_size(json_object_get(doc, "volumes")), 3);
    json_decref(doc);
    agent_free(&a);
}

static void ping_reports_ordered_figures(void)
{
    struct agent a;
    agent_start(&a, answer_ping);
    int rc = RUN(&a, "5", cmd_rpc_ping, "-c", "50", "-s", "100KiB", "-o", "json");
    agent_stop(&a);
    agent_free(&a);
    json_t *doc = json_loads(out, 0, NULL), *ms = json_object_get(doc, "ms");
    double min = json_number_value(json_object_get(ms, "min"));
    double median = json_number_value(json_object_get(ms, "median"));
    double p99 = json_number_value(json_object_get(ms, "p99"));
    double max = json_number_value(json_object_get(ms, "max"));
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(js_get_u64(doc, "count"), 50);
    CHECK(0 < min && min <= median && median <= p99 && p99 <= max);
    json_decref(doc);
}

static void percentiles_are_nearest_ranks(void)
{
    uint64_t ns[200];
    for (uint64_t i = 0; i < 200; i++)
        ns[i] = (i + 1) * 1000000;
    CHECK_EQ(percentile_ms(ns, 200, 50), 100);
    CHECK_EQ(percentile_ms(ns, 200, 99), 198);
    CHECK_EQ(percentile_ms(ns, 1, 99), 1);
}

static void a_ping_that_comes_back_changed_is_a_failure(void)
{
    struct agent a;
    agent_start(&a, answer_ping_changed);
    int rc = RUN(&a, "5", cmd_rpc_ping, "-c", "1");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_REFUSED);
}

static void wrong_usage_is_exit_2_and_sends_nothing(void)
{
    struct agent a;
    agent_start(&a, answer_volume);
    int no_size = RUN(&a, "5", cmd_volume_create, "disk");
    int bad_size = RUN(&a, "5", cmd_volume_create, "disk", "--size", "ten");
    int tiny = RUN(&a, "5", cmd_volume_create, "disk", "--size", "1KiB");
    int no_name = RUN(&a, "5", cmd_volume_show, "-o", "text");
    int two_names = RUN(&a, "5", cmd_volume_show, "a", "b");
    int unknown = RUN(&a, "5", cmd_volume_show, "a", "--colour");
    int bad_id = RUN(&a, "5", cmd_rpc_ping, "-c", "0");
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(a.requests, 0);
    CHECK_EQ(no_size, CLI_USAGE);
    CHECK_EQ(bad_size, CLI_USAGE);
    CHECK_EQ(tiny, CLI_USAGE);
    CHECK_EQ(no_name, CLI_USAGE);
    CHECK_EQ(two_names, CLI_USAGE);
    CHECK_EQ(unknown, CLI_USAGE);
    CHECK_EQ(bad_id, CLI_USAGE);
}

static void help_is_exit_0_and_names_every_option(void)
{
    struct agent a = {.path = "/nowhere"};
    CHECK_EQ(RUN(&a, "5", cmd_volume_create, "--help"), CLI_OK);
    CHECK(strstr(out, "--size SIZE") && strstr(out, "--thick") &&
          strstr(out, "--output text|json"));
}

static void text_from_outside_cannot_play_with_the_terminal(void)
{
    json_t *value = js_text("a\033[2Jb\n\xc2\x9b"
                            "c\xff");
    CHECK_STR(json_string_value(value), "a?[2Jb???c?");
    json_decref(value);
    value = js_text("gr\xc3\xbcn");
    CHECK_STR(json_string_value(value), "gr\xc3\xbcn");
    json_decref(value);
    value = js_u64(UINT64_MAX);
    CHECK_STR(json_string_value(value), "18446744073709551615");
    json_decref(value);
}

TEST_MAIN(TEST(create_sends_name_and_bytes_and_prints_the_volume),
          TEST(json_output_has_sizes_in_bytes_and_ids_as_uuids),
          TEST(detach_names_volume_and_attachment_by_id),
          TEST(attach_resolves_the_name_and_prints_the_device_alone),
          TEST(a_uuid_is_looked_up_as_an_id),
          TEST(an_error_of_the_coordinator_is_exit_1_and_json_too),
          TEST(an_indeterminate_answer_is_exit_3), TEST(no_answer_in_time_is_exit_3),
          TEST(no_agent_is_exit_1_at_once),
          TEST(a_broken_connection_is_taken_up_again_with_the_same_id),
          TEST(an_answer_to_another_request_is_skipped),
          TEST(frames_that_are_too_long_or_not_ours_are_exit_3),
          TEST(list_asks_for_pages_until_the_last), TEST(ping_reports_ordered_figures),
          TEST(percentiles_are_nearest_ranks), TEST(a_ping_that_comes_back_changed_is_a_failure),
          TEST(wrong_usage_is_exit_2_and_sends_nothing),
          TEST(help_is_exit_0_and_names_every_option),
          TEST(text_from_outside_cannot_play_with_the_terminal))
