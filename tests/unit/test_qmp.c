/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP client against a server that misbehaves in every way a daemon can. The server is a thread
 * on a Unix socket that plays one script; it waits for what the client sends, so that no test
 * depends on timing but those whose subject is silence.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/qsd.h"
#include "support/test.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define PATIENCE 20000 /* for what must come; never waited out when all is well */
#define SILENCE  60    /* for what must not */

struct server {
    int listener, fd;
    pthread_t thread;
    void (*script)(struct server *server);
    const char *greeting; /* NULL: none */
    char folder[64], path[96];
};

static void say(struct server *s, const char *text)
{
    size_t len = strlen(text);
    ssize_t n = send(s->fd, text, len, MSG_NOSIGNAL);
    (void)n; /* a client that has gone is the client's test to notice */
}

/* Reads one command; returns its id, or -1 when the client is gone. */
static long long hear(struct server *s)
{
    static char line[8 << 20];
    size_t len = 0;

    while (len < sizeof line - 1) {
        if (recv(s->fd, line + len, 1, 0) != 1)
            return -1;
        if (line[len++] == '\n')
            break;
    }
    line[len] = '\0';
    const char *id = strstr(line, "\"id\":");
    return id ? strtoll(id + 5, NULL, 10) : -1;
}

static void answer(struct server *s, long long id, const char *value)
{
    char text[512];

    snprintf(text, sizeof text, "{\"return\": %s, \"id\": %lld}\r\n", value, id);
    say(s, text);
}

static void *serve(void *data)
{
    struct server *s = data;

    s->fd = accept(s->listener, NULL, NULL);
    if (s->greeting)
        say(s, s->greeting);
    if (s->greeting && strcmp(s->greeting, GREETING) == 0)
        answer(s, hear(s), "{}");
    if (s->script)
        s->script(s);
    close(s->fd);
    return NULL;
}

static void server_start(struct server *s, const char *greeting,
                         void (*script)(struct server *server))
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *s = (struct server){.script = script, .greeting = greeting};
    strcpy(s->folder, "/tmp/test_qmp.XXXXXX");
    assert(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/qmp", s->folder);
    memcpy(address.sun_path, s->path, strlen(s->path) + 1);
    s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    int rc = bind(s->listener, (const struct sockaddr *)&address, sizeof address);
    assert(rc == 0 && listen(s->listener, 1) == 0);
    rc = pthread_create(&s->thread, NULL, serve, s);
    assert(rc == 0);
}

/* Closes both sides; the script sees the hang-up if it waits for anything. */
static void server_end(struct server *s, struct qmp *qmp)
{
    qmp_close(qmp);
    pthread_join(s->thread, NULL);
    close(s->listener);
    unlink(s->path);
    rmdir(s->folder);
}

static struct qmp *open_with(struct server *s, void (*script)(struct server *server))
{
    struct qmp *qmp = NULL;

    server_start(s, GREETING, script);
    int rc = qmp_open(s->path, PATIENCE, &qmp, NULL);
    assert(rc == 0);
    return qmp;
}

/* ---- when all is well ---- */

static void script_answers(struct server *s)
{
    answer(s, hear(s), "{\"running\": true}");
}

static void a_command_gets_its_return_value(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_answers);
    json_t *value = NULL;
    int rc = qmp_execute(qmp, "query-status", json_pack("{s:i}", "x", 1), &value, PATIENCE, NULL);
    bool running = json_is_true(json_object_get(value, "running"));

    json_decref(value);
    server_end(&s, qmp);
    CHECK_EQ(rc, 0);
    CHECK(running);
}

static void script_refuses(struct server *s)
{
    char text[200];

    snprintf(
        text, sizeof text,
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such node\"}, \"id\": %lld}\n",
        hear(s));
    say(s, text);
    answer(s, hear(s), "7");
}

static void a_refusal_carries_its_words_and_the_next_command_goes_on(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_refuses);
    struct error err = ERROR_INIT;
    json_t *value = NULL;
    int refused = qmp_execute(qmp, "blockdev-del", NULL, NULL, PATIENCE, &err);
    int next = qmp_execute(qmp, "query", NULL, &value, PATIENCE, NULL);
    long long seven = json_integer_value(value);

    json_decref(value);
    server_end(&s, qmp);
    CHECK_EQ(refused, LUNAR_E_QMP);
    CHECK(strstr(err.text, "blockdev-del") && strstr(err.text, "no such node"));
    CHECK_EQ(next, 0);
    CHECK_EQ(seven, 7);
}

static void script_interleaves_events(struct server *s)
{
    long long id = hear(s);

    say(s, "{\"event\": \"FIRST\"}\r\n{\"event\": \"SECOND\", \"data\": {\"id\": 1}}\r\n");
    answer(s, id, "{}");
    say(s, "{\"event\": \"THIRD\"}\r\n");
    hear(s); /* until the client closes */
}

static bool next_event_is(struct qmp *qmp, const char *name)
{
    json_t *event = NULL;
    int rc = qmp_event(qmp, PATIENCE, &event, NULL);
    const char *got = json_string_value(json_object_get(event, "event"));
    bool same = rc == 1 && got && strcmp(got, name) == 0;

    json_decref(event);
    return same;
}

static void events_before_an_answer_wait_in_order(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_interleaves_events);
    json_t *none = NULL;
    int rc = qmp_execute(qmp, "quit", NULL, NULL, PATIENCE, NULL);
    bool first = next_event_is(qmp, "FIRST"), second = next_event_is(qmp, "SECOND");
    bool third = next_event_is(qmp, "THIRD");
    int fourth = qmp_event(qmp, 0, &none, NULL);

    server_end(&s, qmp);
    CHECK_EQ(rc, 0);
    CHECK(first && second && third);
    CHECK_EQ(fourth, 0);
    CHECK(none == NULL);
}

static void script_drips(struct server *s)
{
    char text[100];

    snprintf(text, sizeof text, "{\"event\": \"E\"}\n{\"return\": \"whole\", \"id\": %lld}\n",
             hear(s));
    for (const char *p = text; *p; p++)
        say(s, (const char[2]){*p, '\0'});
}

static void an_answer_may_come_byte_by_byte(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_drips);
    json_t *value = NULL;
    int rc = qmp_execute(qmp, "x", NULL, &value, PATIENCE, NULL);
    bool whole = json_is_string(value) && strcmp(json_string_value(value), "whole") == 0;

    json_decref(value);
    server_end(&s, qmp);
    CHECK_EQ(rc, 0);
    CHECK(whole);
}

/* ---- what cannot be known ---- */

static void script_answers_late(struct server *s)
{
    long long first = hear(s), second = hear(s);

    answer(s, first, "\"old\"");
    answer(s, second, "\"new\"");
}

static void silence_is_indeterminate_and_the_late_answer_is_dropped(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_answers_late);
    json_t *value = NULL;
    int first = qmp_execute(qmp, "x", NULL, NULL, SILENCE, NULL);
    int second = qmp_execute(qmp, "y", NULL, &value, PATIENCE, NULL);
    bool fresh = json_is_string(value) && strcmp(json_string_value(value), "new") == 0;

    json_decref(value);
    server_end(&s, qmp);
    CHECK_EQ(first, LUNAR_E_INDETERMINATE);
    CHECK_EQ(second, 0);
    CHECK(fresh);
}

static void script_hangs_up_in_mid_line(struct server *s)
{
    hear(s);
    say(s, "{\"return\": {}, \"i");
}

static void a_hang_up_before_the_answer_is_indeterminate(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_hangs_up_in_mid_line);
    json_t *event = NULL;
    int first = qmp_execute(qmp, "quit", NULL, NULL, PATIENCE, NULL);
    int second = qmp_execute(qmp, "quit", NULL, NULL, PATIENCE, NULL);
    int third = qmp_event(qmp, PATIENCE, &event, NULL);

    server_end(&s, qmp);
    CHECK_EQ(first, LUNAR_E_INDETERMINATE);
    CHECK_EQ(second, -EPIPE); /* never sent: refused, not unknown */
    CHECK_EQ(third, -EPIPE);
}

/* Takes nothing out of the socket until the client has closed its end. */
static void script_reads_nothing(struct server *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};

    while (poll(&p, 1, -1) < 0)
        ;
}

static void a_command_that_is_not_taken_closes_the_connection(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_reads_nothing);
    char *big = malloc((4 << 20) + 1);

    memset(big, 'x', 4 << 20);
    big[4 << 20] = '\0';
    int first = qmp_execute(qmp, "x", json_pack("{s:s}", "big", big), NULL, SILENCE, NULL);
    int second = qmp_execute(qmp, "y", NULL, NULL, PATIENCE, NULL);

    free(big);
    server_end(&s, qmp);
    CHECK_EQ(first, LUNAR_E_TIMEOUT);
    CHECK_EQ(second, -EPIPE);
}

/* ---- damage ---- */

static const char *garbage_text;

static void script_garbage(struct server *s)
{
    hear(s);
    say(s, garbage_text);
    hear(s);
}

static void garbage_closes_the_stream_for_good(void)
{
    static const char *const texts[] = {"qemu: fatal\n",       "\n",        "[1]\n",
                                        "{\"return\": {}\n",   "{} {}\n",   "\"return\"\n",
                                        "{\"a\":1,\"a\":2}\n", "\xff\xfe\n"};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct server s;
        garbage_text = texts[i];
        struct qmp *qmp = open_with(&s, script_garbage);
        int first = qmp_execute(qmp, "x", NULL, NULL, PATIENCE, NULL);
        int second = qmp_execute(qmp, "x", NULL, NULL, PATIENCE, NULL);
        server_end(&s, qmp);
        CHECK_EQ(first, LUNAR_E_CORRUPT);
        CHECK_EQ(second, -EPIPE);
    }
}

static size_t huge_len;

static void script_huge(struct server *s)
{
    long long id = hear(s);
    char *text = malloc(huge_len + 2), head[64];

    /* an object of exactly huge_len bytes */
    int n = snprintf(head, sizeof head, "{\"id\": %lld, \"return\": \"", id);
    memset(text, 'x', huge_len);
    memcpy(text, head, (size_t)n);
    memcpy(text + huge_len - 2, "\"}\n", 4);
    say(s, text);
    free(text);
    hear(s);
}

static int huge(size_t len)
{
    struct server s;

    huge_len = len;
    struct qmp *qmp = open_with(&s, script_huge);
    int rc = qmp_execute(qmp, "x", NULL, NULL, PATIENCE, NULL);
    server_end(&s, qmp);
    return rc;
}

static void a_line_of_one_mebibyte_is_read_and_a_longer_one_is_damage(void)
{
    CHECK_EQ(huge(QMP_LINE_MAX), 0);
    CHECK_EQ(huge(QMP_LINE_MAX + 1), LUNAR_E_CORRUPT);
    CHECK_EQ(huge(4 * QMP_LINE_MAX), LUNAR_E_CORRUPT);
}

static void script_flood(struct server *s)
{
    char text[64];
    long long id = hear(s);

    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "{\"event\": \"E%d\"}\n", i);
        say(s, text);
    }
    answer(s, id, "{}");
    hear(s);
}

static void a_flood_of_events_drops_the_oldest(void)
{
    struct server s;
    struct qmp *qmp = open_with(&s, script_flood);
    int n = 0, rc = qmp_execute(qmp, "x", NULL, NULL, PATIENCE, NULL);
    char last[16] = "";
    json_t *event;

    while (qmp_event(qmp, 0, &event, NULL) == 1) {
        snprintf(last, sizeof last, "%s", json_string_value(json_object_get(event, "event")));
        json_decref(event);
        n++;
    }
    server_end(&s, qmp);
    CHECK_EQ(rc, 0);
    CHECK_EQ(n, 256);
    CHECK_STR(last, "E999");
}

/* ---- opening ---- */

static void script_waits(struct server *s)
{
    hear(s);
}

static int open_greeted(const char *greeting, int deadline_ms)
{
    struct server s;
    struct qmp *qmp = NULL;

    server_start(&s, greeting, script_waits);
    int rc = qmp_open(s.path, deadline_ms, &qmp, NULL);
    server_end(&s, qmp);
    return rc;
}

static void only_a_greeting_opens_a_connection(void)
{
    CHECK_EQ(open_greeted(NULL, SILENCE), LUNAR_E_TIMEOUT);
    CHECK_EQ(open_greeted("{\"return\": {}}\n", PATIENCE), LUNAR_E_CORRUPT);
    CHECK_EQ(open_greeted("SSH-2.0\n", PATIENCE), LUNAR_E_CORRUPT);
}

static void without_a_server_the_kernels_reason_is_given(void)
{
    struct qmp *qmp = NULL;
    char path[200];

    CHECK_EQ(qmp_open("/tmp/test_qmp.none/qmp", PATIENCE, &qmp, NULL), -ENOENT);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    CHECK_EQ(qmp_open(path, PATIENCE, &qmp, NULL), LUNAR_E_INVALID);
    CHECK(qmp == NULL);
}

/* ---- the line parser alone ---- */

static void a_line_is_one_object_or_damage(void)
{
    static const char *const bad[] = {"",    " ",        "null",           "[]", "1", "{",
                                      "{}x", "{\"a\":}", "{\"\\u0000\":1}"};
    json_t *value = NULL;

    CHECK_EQ(qmp_parse_line("{\"event\": \"X\"}\r", 15, &value, NULL), 0);
    CHECK_STR(json_string_value(json_object_get(value, "event")), "X");
    json_decref(value);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_EQ(qmp_parse_line(bad[i], strlen(bad[i]), &value, NULL), LUNAR_E_CORRUPT);
        CHECK(value == NULL);
    }
}

TEST_MAIN(TEST(a_command_gets_its_return_value),
          TEST(a_refusal_carries_its_words_and_the_next_command_goes_on),
          TEST(events_before_an_answer_wait_in_order), TEST(an_answer_may_come_byte_by_byte),
          TEST(silence_is_indeterminate_and_the_late_answer_is_dropped),
          TEST(a_hang_up_before_the_answer_is_indeterminate),
          TEST(a_command_that_is_not_taken_closes_the_connection),
          TEST(garbage_closes_the_stream_for_good),
          TEST(a_line_of_one_mebibyte_is_read_and_a_longer_one_is_damage),
          TEST(a_flood_of_events_drops_the_oldest), TEST(only_a_greeting_opens_a_connection),
          TEST(without_a_server_the_kernels_reason_is_given), TEST(a_line_is_one_object_or_damage))
