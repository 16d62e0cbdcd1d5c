/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl rpc top`: the daemon's channels, one row per node, again and again.
 *
 * Happy path: ask, print, wait. On a terminal each table replaces the one before and is cut to the
 * screen, with the nodes that are in trouble first; elsewhere the tables follow each other. What is
 * counted per second is the difference to the look before. Failure modes: a daemon that does not
 * answer the first time is a failure; later it is waited for. A standby has no rows and says why.
 */
#include "rpc_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "output.h"
#include "watch.h"

#define INTERVAL_MAX_S 3600u
/* A live node's page changes every second (channel.h): three of them missed is news. */
#define NODE_SILENT_MS 3000u
/* Lines of the screen that are not nodes: title, header, "more", the cursor's. */
#define FRAME_LINES 5u
/* "Home, and clear what is below": a screen is redrawn without a flicker. */
#define REDRAW "\033[H\033[J"

static uint64_t last_us(const json_t *node, const char *times, const char *key)
{
    return js_get_u64(json_object_get(node, times), key);
}

static uint64_t errors_of(const json_t *node)
{
    return js_get_u64(node, "bad_pages") + js_get_u64(node, "stale_pages") +
           js_get_u64(node, "read_errors") + js_get_u64(node, "write_errors");
}

static uint64_t messages_of(const json_t *node)
{
    return js_get_u64(node, "messages_sent") + js_get_u64(node, "messages_received");
}

static bool in_trouble(const json_t *node)
{
    return js_get_u64(node, "peer_host_id") == 0 ||
           js_get_u64(node, "last_heard_ms") > NODE_SILENT_MS;
}

/* Adds "messages_per_s" to every node that was in the look before too. */
static void add_rates(json_t *doc, const json_t *before, double seconds)
{
    json_t *node, *old, *by_id = json_object();
    char key[24];
    size_t i;

    json_array_foreach(json_object_get(before, "nodes"), i, old)
    {
        snprintf(key, sizeof key, "%" PRIu64, js_get_u64(old, "host_id"));
        json_object_set(by_id, key, old);
    }
    json_array_foreach(json_object_get(doc, "nodes"), i, node)
    {
        snprintf(key, sizeof key, "%" PRIu64, js_get_u64(node, "host_id"));
        old = json_object_get(by_id, key);
        uint64_t now = messages_of(node), then = old ? messages_of(old) : 0;
        if (old && now >= then) /* fewer: the daemon was restarted */
            js_set(node, "messages_per_s", json_real((double)(now - then) / seconds));
    }
    json_decref(by_id);
}

/* A time of something that never happened is no time. */
static void times_text(const json_t *node, const char *times, const char *key, char ret[32])
{
    ret[0] = '\0';
    if (last_us(node, times, "count") > 0)
        text_us(last_us(node, times, key), ret);
}

static void add_row(struct text_table *t, const json_t *node, bool agent)
{
    const json_t *rate = json_object_get(node, "messages_per_s");
    char host[24], heard[32] = "never", term[24], queue[24], per_s[24] = "";
    char ack[32], answer[32], worst[32], resends[24], errors[24], sessions[24];
    const char *name = agent ? "(coordinator)" : js_get_text(node, "name");
    bool met = js_get_u64(node, "peer_host_id") != 0;

    snprintf(host, sizeof host, "%" PRIu64, js_get_u64(node, agent ? "peer_host_id" : "host_id"));
    if (met)
        text_age(js_get_u64(node, "last_heard_ms"), heard);
    snprintf(term, sizeof term, "%" PRIu64, js_get_u64(node, "peer_term"));
    snprintf(queue, sizeof queue, "%" PRIu64, js_get_u64(node, "queued"));
    if (rate)
        snprintf(per_s, sizeof per_s, "%.1f", json_real_value(rate));
    times_text(node, "ack", "avg_us", ack);
    times_text(node, "answer", "avg_us", answer);
    times_text(node, "answer", "max_us", worst);
    snprintf(resends, sizeof resends, "%" PRIu64, js_get_u64(node, "resends"));
    snprintf(errors, sizeof errors, "%" PRIu64, errors_of(node));
    snprintf(sessions, sizeof sessions, "%" PRIu64, js_get_u64(node, "sessions"));
    text_table_row(t, (const char *[]){host, name, heard, term, queue, per_s, ack, answer, worst,
                                       resends, errors, sessions});
}

static unsigned rows_max; /* of the screen; 0: no screen, all */

static void print_rows(const json_t *doc)
{
    static const char *const headers[] = {">HOST",  "NODE",    ">HEARD",    ">TERM",
                                          ">QUEUE", ">MSG/S",  ">ACK",      ">ANSWER",
                                          ">WORST", ">RESENT", ">TROUBLES", ">SESSIONS"};
    const json_t *nodes = json_object_get(doc, "nodes");
    bool agent = strcmp(js_get_text(doc, "role"), "agent") == 0;
    struct text_table *t = text_table_new(headers, 12);
    unsigned shown = 0;
    json_t *node;
    size_t i;

    for (int pass = 0; pass < 2; pass++)
        json_array_foreach(nodes, i, node)
        {
            if (in_trouble(node) != (pass == 0) || (rows_max && shown == rows_max))
                continue;
            add_row(t, node, agent);
            shown++;
        }
    text_table_print(t, 0);
    if (shown < json_array_size(nodes))
        printf("... %zu nodes more; -o json has all\n", json_array_size(nodes) - shown);
}

static void print_top(const json_t *doc)
{
    const char *role = js_get_text(doc, "role"), *condition = js_get_text(doc, "condition");
    uint64_t host = js_get_u64(doc, "host_id"), term = js_get_u64(doc, "term");
    char clock[40];

    printf("%spool %s, %s", rows_max ? REDRAW : "", js_get_text(doc, "pool"), role);
    if (*js_get_text(doc, "node"))
        printf(" of %s", js_get_text(doc, "node"));
    if (host)
        printf(" (host %" PRIu64 ")", host);
    if (term)
        printf(", term %" PRIu64, term);
    printf("  %.8s%s%s\n", text_clock(wall_clock_us(), clock), *condition ? "\n" : "", condition);
    if (json_array_size(json_object_get(doc, "nodes")) > 0)
        print_rows(doc);
    if (!rows_max)
        printf("\n");
}

static unsigned screen_rows(void)
{
    struct winsize size;

    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
        return 0;
    return size.ws_row > FRAME_LINES + 1 ? size.ws_row - FRAME_LINES : 1;
}

static int top_once(const struct cli *cli, struct client *client)
{
    struct error err = ERROR_INIT;
    json_t *doc;

    rows_max = 0;
    int rc = rpc_ask_stats(client, &doc, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : output_emit(cli, doc, print_top);
}

static int top_live(const struct cli *cli, struct client *client, uint64_t interval_s)
{
    struct rpc_patience patience = {0};
    json_t *before = NULL;
    int rc = CLI_OK;

    watch_start();
    do {
        struct error err = ERROR_INIT;
        json_t *doc;
        int code = rpc_ask_stats(client, &doc, &err);
        if (code < 0) {
            rc = rpc_patience_failed(&patience, cli, code, &err);
            continue;
        }
        rpc_patience_answered(&patience);
        add_rates(doc, before, (double)interval_s);
        json_decref(before);
        before = json_incref(doc);
        rows_max = cli_json(cli) ? 0 : screen_rows();
        rc = output_line(cli, doc, print_top);
    } while (rc == CLI_OK && watch_sleep(interval_s * 1000));
    json_decref(before);
    return rc;
}

int cmd_rpc_top(struct cli *cli, int argc, char **argv)
{
    uint64_t interval_s = 1;
    bool once = false, coordinator = false;
    const struct cli_option options[] = {
        {"interval", 'i', CLI_NUMBER, &interval_s, 1, INTERVAL_MAX_S, "SECONDS",
         "between two looks (default 1)"},
        {"once", '1', CLI_FLAG, &once, 0, 0, NULL, "one look, then exit"},
        {"coordinator", 'c', CLI_FLAG, &coordinator, 0, 0, NULL,
         "ask the coordinator on this node: all nodes"},
    };
    struct client *client;

    if (!cli_parse(cli, options, 3, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, coordinator ? "coordinator" : "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = once ? top_once(cli, client) : top_live(cli, client, interval_s);
    client_close(client);
    return rc;
}
