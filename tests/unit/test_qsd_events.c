/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor of events against a daemon that is played on the same loop: what it says is chosen by
 * each test, what it hears is kept. Every test closes everything and lets the loop run dry, so that
 * a leaked handle hangs it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/qsd_events.h"
#include "support/test.h"

#define GREETING    "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define PATIENCE_MS 20000u /* for what must come; never waited out when all is well */
#define NODE        "p-0123456789abcdef.7"

/* Of what was heard from the client, and of the client. */
static struct {
    uv_loop_t loop;
    char folder[64], path[96];
    int listener, fd;
    char heard[8192];
    struct qsd_events *events;
    int n[4]; /* by enum qsd_events_what */
    bool close_at_next;
} w;

static void on_event(void *data, enum qsd_events_what what)
{
    (void)data;
    w.n[what]++;
    if (w.close_at_next)
        qsd_events_close(w.events);
}

static void listen_again(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, w.path, strlen(w.path) + 1);
    unlink(w.path);
    w.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int rc = bind(w.listener, (const struct sockaddr *)&address, sizeof address);
    assert(rc == 0 && listen(w.listener, 4) == 0);
}

static void begin(void)
{
    memset(&w, 0, sizeof w);
    strcpy(w.folder, "/tmp/test_events.XXXXXX");
    assert(mkdtemp(w.folder));
    snprintf(w.path, sizeof w.path, "%s/events.sock", w.folder);
    w.fd = w.listener = -1;
    uv_loop_init(&w.loop);
    w.events = qsd_events_open(&w.loop, w.path, on_event, NULL);
}

static void end(void)
{
    if (!w.close_at_next)
        qsd_events_close(w.events);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&w.loop);
    assert(rc == 0);
    close(w.fd);
    close(w.listener);
    unlink(w.path);
    rmdir(w.folder);
}

/* As much of it as the client takes: one that has hung up takes no more. */
static void say(const char *text)
{
    size_t left = strlen(text);
    ssize_t n = 0;

    while (left > 0 && (n >= 0 || errno == EAGAIN)) {
        n = send(w.fd, text, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            text += n;
            left -= (size_t)n;
        }
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
}

static void hear(void)
{
    size_t len = strlen(w.heard);
    ssize_t n = recv(w.fd, w.heard + len, sizeof w.heard - 1 - len, MSG_DONTWAIT);
    if (n > 0)
        w.heard[len + (size_t)n] = '\0';
}

static void on_wake(uv_timer_t *timer)
{
    (void)timer;
}

/* Runs the loop until `done`, looking every few milliseconds. */
static bool run_until(bool (*done)(void))
{
    uv_timer_t wake;
    uint64_t give_up = uv_now(&w.loop) + PATIENCE_MS;
    bool came;

    uv_timer_init(&w.loop, &wake);
    uv_timer_start(&wake, on_wake, 2, 2);
    while (!(came = done()) && uv_now(&w.loop) < give_up)
        uv_run(&w.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&wake, NULL);
    uv_run(&w.loop, UV_RUN_NOWAIT);
    return came;
}

static bool accepted(void)
{
    w.fd = accept(w.listener, NULL, NULL);
    return w.fd >= 0;
}

static const char *expected;

static bool heard(void)
{
    hear();
    return strstr(w.heard, expected) != NULL;
}

static bool hears(const char *text)
{
    expected = text;
    return run_until(heard);
}

static bool is_armed(void)
{
    return w.n[QSD_EVENTS_ARMED] > 0;
}

static bool has_passed(void)
{
    return w.n[QSD_EVENTS_PASSED] > 0;
}

static bool is_lost(void)
{
    return w.n[QSD_EVENTS_LOST] > 0;
}

static bool is_silent(void)
{
    return w.n[QSD_EVENTS_SILENT] > 0;
}

/* The daemon comes up, and greets. */
static bool greeted(void)
{
    memset(w.heard, 0, sizeof w.heard);
    if (!run_until(accepted))
        return false;
    say(GREETING);
    if (!hears("qmp_capabilities"))
        return false;
    say("{\"return\": {}, \"id\": 1}\r\n");
    return true;
}

/* From the beginning to a threshold that is in force. */
static bool armed(uint64_t threshold)
{
    listen_again();
    qsd_events_arm(w.events, NODE, threshold);
    if (!greeted() || !hears("\"id\":2"))
        return false;
    say("{\"return\": {}, \"id\": 2}\r\n");
    return run_until(is_armed);
}

static void say_passed(const char *node, unsigned threshold)
{
    char text[300];
    snprintf(text, sizeof text,
             "{\"timestamp\": {\"seconds\": 1}, \"event\": \"BLOCK_WRITE_THRESHOLD\", \"data\": "
             "{\"node-name\": \"%s\", \"amount-exceeded\": 65536, \"write-threshold\": %u}}\r\n",
             node, threshold);
    say(text);
}

/* --- tests --- */

static void a_threshold_is_given_confirmed_and_its_event_is_heard_once(void)
{
    begin();
    bool came = armed(4096);
    bool asked = strstr(w.heard, "\"block-set-write-threshold\"") && strstr(w.heard, NODE) &&
                 strstr(w.heard, "\"write-threshold\":4096");
    bool connected = qsd_events_connected(w.events);
    say("{\"event\": \"OTHER\"}\r\n");
    say_passed("p-other.1", 4096);
    say_passed(NODE, 4000); /* one that was replaced */
    say_passed(NODE, 4096);
    bool passed = run_until(has_passed);
    say_passed(NODE, 4096);
    w.n[QSD_EVENTS_ARMED] = 0;
    qsd_events_arm(w.events, NODE, 8192);
    bool again = hears("\"write-threshold\":8192");
    say("{\"return\": {}, \"id\": 3}\r\n");
    again = again && run_until(is_armed);
    end();
    CHECK(came && asked && connected && passed && again);
    CHECK_EQ(w.n[QSD_EVENTS_PASSED], 1);
    CHECK_EQ(w.n[QSD_EVENTS_ARMED], 1);
    CHECK_EQ(w.n[QSD_EVENTS_LOST], 0);
}

static void what_was_written_before_is_found_in_the_statistics(void)
{
    char text[4000];

    begin();
    bool ok = armed(4096) && hears("query-blockstats") && hears("\"query-nodes\":true");
    say("{\"return\": [{\"node-name\": \"v-0123456789abcdef.7\", \"stats\": "
        "{\"wr_highest_offset\": 99999}}, {\"node-name\": \"" NODE
        "\", \"stats\": {\"wr_highest_offset\": 4096}}], \"id\": 3}\r\n");
    ok = ok && hears("\"id\":4");
    int early = w.n[QSD_EVENTS_PASSED];
    snprintf(text, sizeof text, /* as with many layers: more than a buffer */
             "{\"return\": [{\"node-name\": \"" NODE
             "\", \"stats\": {\"wr_highest_offset\": 4097}}, \"%03800d\"], \"id\": 4}\r\n",
             0);
    say(text);
    ok = ok && run_until(has_passed);
    end();
    CHECK(ok);
    CHECK_EQ(early, 0);
    CHECK_EQ(w.n[QSD_EVENTS_PASSED], 1);
}

static void the_answer_to_a_replaced_threshold_confirms_nothing(void)
{
    begin();
    listen_again();
    qsd_events_arm(w.events, NODE, 4096);
    bool ok = greeted() && hears("\"write-threshold\":4096");
    qsd_events_arm(w.events, NODE, 8192);
    ok = ok && hears("\"write-threshold\":8192");
    say("{\"return\": {}, \"id\": 2}\r\n{\"event\": \"OTHER\"}\r\n");
    for (int i = 0; i < 20; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    int early = w.n[QSD_EVENTS_ARMED];
    say("{\"return\": {}, \"id\": 3}\r\n");
    ok = ok && run_until(is_armed);
    end();
    CHECK(ok);
    CHECK_EQ(early, 0);
}

static void a_daemon_that_comes_later_or_again_is_given_the_threshold(void)
{
    begin();
    bool ok = armed(4096);
    close(w.fd);
    close(w.listener);
    unlink(w.path);
    ok = ok && run_until(is_lost);
    bool gone = !qsd_events_connected(w.events);
    w.n[QSD_EVENTS_ARMED] = 0;
    listen_again();
    ok = ok && greeted() && hears("\"write-threshold\":4096");
    say("{\"return\": {}, \"id\": 2}\r\n");
    ok = ok && run_until(is_armed);
    end();
    CHECK(ok && gone);
    CHECK_EQ(w.n[QSD_EVENTS_LOST], 1); /* attempts that find nobody lose nothing */
}

static void a_refused_threshold_is_given_again(void)
{
    begin();
    listen_again();
    qsd_events_arm(w.events, NODE, 4096);
    bool ok = greeted() && hears("\"id\":2");
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such node\"}, \"id\": 2}\r\n");
    ok = ok && hears("\"id\":3");
    say("{\"return\": {}, \"id\": 3}\r\n");
    ok = ok && run_until(is_armed);
    end();
    CHECK(ok);
}

static void a_daemon_that_does_not_answer_is_told_of_and_kept(void)
{
    begin();
    listen_again();
    qsd_events_arm(w.events, NODE, 4096);
    bool ok = run_until(accepted) && run_until(is_silent);
    say(GREETING); /* it does after all */
    ok = ok && hears("qmp_capabilities");
    say("{\"return\": {}, \"id\": 1}\r\n");
    ok = ok && hears("\"id\":2");
    say("{\"return\": {}, \"id\": 2}\r\n");
    ok = ok && run_until(is_armed);
    end();
    CHECK(ok);
    CHECK_EQ(w.n[QSD_EVENTS_LOST], 0);
}

static const char *garbage;

static bool lost_by_garbage(const char *text)
{
    garbage = text;
    begin();
    bool ok = armed(4096);
    say(garbage);
    ok = ok && run_until(is_lost);
    w.n[QSD_EVENTS_ARMED] = 0;
    close(w.fd);
    ok = ok && greeted() && hears("\"id\":2");
    say("{\"return\": {}, \"id\": 2}\r\n");
    ok = ok && run_until(is_armed); /* and nothing of it is left */
    end();
    return ok;
}

static void damage_ends_the_connection_and_not_the_watch(void)
{
    static const char *const texts[] = {"qemu: fatal\n",     "\n",         "[1]\n",
                                        "{\"return\": {}\n", "\xff\xfe\n", "{\"a\":1,\"a\":2}\n"};
    char *endless = malloc((3 << 20) + 1);

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        CHECK(lost_by_garbage(texts[i]));
    memset(endless, 'x', 3 << 20);
    endless[3 << 20] = '\0';
    CHECK(lost_by_garbage(endless));
    free(endless);
}

static void hostile_answers_are_no_events_and_no_confirmation(void)
{
    begin();
    bool ok = armed(4096);
    w.n[QSD_EVENTS_ARMED] = 0;
    say("{}\n{\"event\": 5}\n{\"event\": \"BLOCK_WRITE_THRESHOLD\"}\n"
        "{\"event\": \"BLOCK_WRITE_THRESHOLD\", \"data\": []}\n"
        "{\"event\": \"BLOCK_WRITE_THRESHOLD\", \"data\": {\"node-name\": 1}}\n"
        "{\"return\": {}, \"id\": \"2\"}\n{\"return\": {}, \"id\": -1}\n{\"return\": {}}\n"
        "{\"error\": 7, \"id\": 99}\n");
    say_passed(NODE, 0);
    say_passed(NODE, 4096);
    ok = ok && run_until(has_passed);
    end();
    CHECK(ok);
    CHECK_EQ(w.n[QSD_EVENTS_PASSED], 1);
    CHECK_EQ(w.n[QSD_EVENTS_ARMED], 0);
}

static void it_may_be_closed_in_its_callback_and_before_it_has_connected(void)
{
    begin();
    bool ok = armed(4096);
    w.close_at_next = true;
    say_passed(NODE, 4096);
    say_passed(NODE, 4096);
    ok = ok && run_until(has_passed);
    end();
    CHECK(ok);
    CHECK_EQ(w.n[QSD_EVENTS_PASSED], 1);
    begin();
    end();
}

TEST_MAIN(TEST(a_threshold_is_given_confirmed_and_its_event_is_heard_once),
          TEST(what_was_written_before_is_found_in_the_statistics),
          TEST(the_answer_to_a_replaced_threshold_confirms_nothing),
          TEST(a_daemon_that_comes_later_or_again_is_given_the_threshold),
          TEST(a_refused_threshold_is_given_again),
          TEST(a_daemon_that_does_not_answer_is_told_of_and_kept),
          TEST(damage_ends_the_connection_and_not_the_watch),
          TEST(hostile_answers_are_no_events_and_no_confirmation),
          TEST(it_may_be_closed_in_its_callback_and_before_it_has_connected))
