/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl rpc trace`: what passed over a daemon's channels, from the ring that it always keeps.
 *
 * Happy path: all the ring holds is read, what is not wanted is left out, the last lines are
 * printed; --follow then asks for what came behind, several times a second. Failure modes: a ring
 * that ran over between two looks: a line says how many records are missing; a daemon that goes
 * away: it is waited for, and its new ring begins with a line; without --follow, and at the first
 * look, a failure.
 */
#include "rpc_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "diskrpc/trace.h"
#include "output.h"
#include "watch.h"

#define LINES_MAX 4096u
/* The ring of a coordinator at full load holds 0.4 s (trace.h): half of that. */
#define FOLLOW_MS       200u
#define INTERVAL_MAX_MS 60000u

/* The first block of a UUID tells two apart well enough on a screen; JSON has all of it. */
static void print_id(const json_t *r, const char *key, const char *word)
{
    if (*js_get_text(r, key))
        printf("  %s %.8s", word, js_get_text(r, key));
}

static void print_message(const json_t *r)
{
    const char *error = js_get_text(r, "error_name");
    bool sent = strcmp(js_get_text(r, "event"), "sent") == 0;
    char took[32];

    printf("%s %-24s", sent ? ">" : "<", js_get_text(r, "kind"));
    print_id(r, "id", "id");
    print_id(r, "volume_id", "volume");
    printf("  message %" PRIu64 " in page %" PRIu64 ", %" PRIu64 " bytes%s", js_get_u64(r, "seq"),
           js_get_u64(r, "page_seq"), js_get_u64(r, "length"),
           js_get_bool(r, "spilled") ? " in the spill" : "");
    if (*error)
        printf("  %s", error);
    if (js_get_u64(r, "took_us"))
        printf("  after %s", text_us(js_get_u64(r, "took_us"), took));
    printf("\n");
}

static void print_event(const json_t *r)
{
    const char *error = js_get_text(r, "error_name");
    char took[32];

    printf("- %s", js_get_text(r, "event"));
    if (js_get_u64(r, "seq"))
        printf(" up to message %" PRIu64, js_get_u64(r, "seq"));
    if (js_get_u64(r, "page_seq"))
        printf(", page %" PRIu64, js_get_u64(r, "page_seq"));
    if (*error)
        printf("  %s", error);
    if (js_get_u64(r, "took_us"))
        printf("  after %s", text_us(js_get_u64(r, "took_us"), took));
    printf("\n");
}

/* Also what is no record: a gap, or a new ring. */
static void print_record(const json_t *r)
{
    char clock[40], who[64];

    if (json_object_get(r, "missed")) {
        printf("... %" PRIu64 " records missed ...\n", js_get_u64(r, "missed"));
        return;
    }
    if (json_object_get(r, "restarted")) {
        printf("... the daemon was started anew ...\n");
        return;
    }
    if (strcmp(js_get_text(r, "role"), "agent") == 0)
        snprintf(who, sizeof who, "host %" PRIu64 " term %" PRIu64, js_get_u64(r, "peer_host_id"),
                 js_get_u64(r, "peer_run_or_term"));
    else if (*js_get_text(r, "name"))
        snprintf(who, sizeof who, "%s", js_get_text(r, "name"));
    else
        snprintf(who, sizeof who, "host %" PRIu64, js_get_u64(r, "host_id"));
    printf("%s  %-14s ", text_clock(js_get_u64(r, "wall_us"), clock), who);
    if (json_object_get(r, "kind"))
        print_message(r);
    else
        print_event(r);
}

static bool wanted(const json_t *r, const char *node)
{
    char host[24];

    snprintf(host, sizeof host, "%" PRIu64, js_get_u64(r, "host_id"));
    return !node || strcmp(node, js_get_text(r, "name")) == 0 || strcmp(node, host) == 0;
}

static int print_note(const struct cli *cli, const char *key, json_t *value)
{
    json_t *note = json_object();
    js_set(note, key, value);
    return output_line(cli, note, print_record);
}

/* What one look brought: its gaps, and the last `lines` of the records that are wanted. */
static int print_look(const struct cli *cli, const json_t *look, const char *node, uint64_t lines)
{
    const json_t *records = json_object_get(look, "records");
    uint64_t n = 0, at = 0;
    int rc = CLI_OK;
    json_t *r;
    size_t i;

    json_array_foreach(records, i, r) n += wanted(r, node);
    if (js_get_bool(look, "restarted"))
        rc = print_note(cli, "restarted", json_true());
    if (rc == CLI_OK && js_get_u64(look, "missed"))
        rc = print_note(cli, "missed", js_u64(js_get_u64(look, "missed")));
    json_array_foreach(records, i, r)
    {
        if (rc != CLI_OK || !wanted(r, node) || ++at + lines <= n)
            continue;
        js_set(r, "role", js_text(js_get_text(look, "role")));
        rc = output_line(cli, json_incref(r), print_record);
    }
    return rc;
}

static int trace_once(const struct cli *cli, struct client *client, const char *node,
                      uint64_t lines)
{
    struct rpc_cursor cursor = {0};
    struct error err = ERROR_INIT;
    json_t *look;

    int rc = rpc_ask_trace(client, &cursor, &look, &err);
    if (rc < 0)
        return cli_fail(cli, rc, &err);
    rc = print_look(cli, look, node, lines);
    json_decref(look);
    return rc;
}

static int trace_follow(const struct cli *cli, struct client *client, const char *node,
                        uint64_t lines, uint64_t interval_ms)
{
    struct rpc_patience patience = {0};
    struct rpc_cursor cursor = {0};
    int rc = CLI_OK;

    watch_start();
    do {
        struct error err = ERROR_INIT;
        json_t *look;
        int code = rpc_ask_trace(client, &cursor, &look, &err);
        if (code < 0) {
            rc = rpc_patience_failed(&patience, cli, code, &err);
            continue;
        }
        rc = print_look(cli, look, node, patience.met ? UINT32_MAX : lines);
        rpc_patience_answered(&patience);
        json_decref(look);
    } while (rc == CLI_OK && watch_sleep(interval_ms));
    return rc;
}

int cmd_rpc_trace(struct cli *cli, int argc, char **argv)
{
    uint64_t lines = 40, interval_ms = FOLLOW_MS;
    bool follow = false, coordinator = false;
    const char *node = NULL;
    const struct cli_option options[] = {
        {"follow", 'f', CLI_FLAG, &follow, 0, 0, NULL, "go on with what comes, until Ctrl-C"},
        {"lines", 'n', CLI_NUMBER, &lines, 0, LINES_MAX, "N",
         "of what is there already, the newest N (default 40)"},
        {"node", 0, CLI_TEXT, &node, 0, 0, "NODE", "this node's alone: its name or host id"},
        {"coordinator", 'c', CLI_FLAG, &coordinator, 0, 0, NULL,
         "ask the coordinator on this node: all nodes"},
        {"interval", 'i', CLI_NUMBER, &interval_ms, 10, INTERVAL_MAX_MS, "MS",
         "between two looks with --follow (default 200)"},
    };
    struct client *client;

    if (!cli_parse(cli, options, 5, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, coordinator ? "coordinator" : "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = follow ? trace_follow(cli, client, node, lines, interval_ms)
                : trace_once(cli, client, node, lines);
    client_close(client);
    return rc;
}
