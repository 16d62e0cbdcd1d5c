/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks a daemon for its counters and its ring; see rpc_ask.h.
 *
 * Happy path: pages are asked for until the last, and put together. Failure modes: those of
 * request.h; a daemon that is restarted between two pages has another ring, which is said. A daemon
 * that invents records for ever is left after one ring's worth of pages: the rest comes with the
 * next look.
 */
#include "rpc_ask.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "diskrpc/message.h"
#include "diskrpc/trace.h"
#include "output.h"

/* Per look: eight rings of records, more nodes than a pool can have. */
#define PAGES_MAX 32u

/* client.h speaks of requests that may still take effect; these only look. */
static int only_looked(int code, struct error *err)
{
    if (code == LUNAR_E_TIMEOUT)
        return error_set(err, code, "the daemon does not answer: is it stopped or stuck?");
    if (code == LUNAR_E_INDETERMINATE)
        return error_set(err, -ECONNRESET, "the daemon hung up, or is of another version");
    return code;
}

static int ask_stats_page(struct client *client, uint32_t after, Lunar__Envelope **ret,
                          struct error *err)
{
    Lunar__RpcStatsGet get = LUNAR__RPC_STATS_GET__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;

    get.after_host_id = after;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_RPC_STATS;
    request.rpc_stats = &get;
    return only_looked(
        request_local_quietly(client, &request, LUNAR__RESPONSE__OP_RPC_STATS, ret, err), err);
}

int rpc_ask_stats(struct client *client, json_t **ret, struct error *err)
{
    json_t *doc = NULL, *nodes = json_array();
    bool more = true;
    char now[40];
    int rc = 0;

    for (uint32_t page = 0, after = 0; more && page < PAGES_MAX; page++) {
        Lunar__Envelope *answer = NULL;
        rc = ask_stats_page(client, after, &answer, err);
        if (rc < 0)
            break;
        const Lunar__RpcStats *s = answer->response->rpc_stats;
        json_t *part = js_proto(&s->base);
        json_array_extend(nodes, json_object_get(part, "nodes"));
        more = s->more && s->n_nodes > 0;
        after = s->n_nodes ? s->nodes[s->n_nodes - 1]->host_id : 0;
        json_decref(doc);
        doc = part;
        envelope_free(answer);
    }
    if (rc < 0) {
        json_decref(doc);
        json_decref(nodes);
        return rc;
    }
    js_set(doc, "nodes", nodes);
    json_object_del(doc, "more");
    js_set(doc, "time", js_text(text_timestamp(wall_clock_us(), now)));
    *ret = doc;
    return 0;
}

static json_t *record_json(const Lunar__RpcTrace *trace, const Lunar__RpcTraceRecord *r)
{
    uint64_t wall_us = trace->wall_us - (trace->now_us - r->time_us);
    json_t *o = js_proto(&r->base);
    char time[40], kind[ENVELOPE_KIND_SIZE];

    json_object_del(o, "time_us");
    json_object_del(o, "body");
    json_object_del(o, "op");
    js_set(o, "time", js_text(text_timestamp(wall_us, time)));
    js_set(o, "wall_us", js_u64(wall_us));
    js_set(o, "event", js_text(trace_event_text(r->event)));
    if (r->event == TRACE_SENT || r->event == TRACE_RECEIVED)
        js_set(o, "kind", js_text(envelope_kind(r->body, r->op, kind)));
    if (r->error)
        js_set(o, "error_name", js_text(error_name(r->error)));
    return o;
}

static int ask_trace_page(struct client *client, const struct rpc_cursor *cursor,
                          Lunar__Envelope **ret, struct error *err)
{
    Lunar__RpcTraceGet get = LUNAR__RPC_TRACE_GET__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;

    get.ring_id = uuid_to_pb(&cursor->ring);
    get.after_number = cursor->number;
    request.op_case = LUNAR__LOCAL_REQUEST__OP_RPC_TRACE;
    request.rpc_trace = &get;
    return only_looked(
        request_local_quietly(client, &request, LUNAR__RESPONSE__OP_RPC_TRACE, ret, err), err);
}

struct gathered {
    json_t *records;
    uint64_t missed;
    bool restarted;
    char role[32];
};

/* Returns whether there is more to ask for. */
static bool gather(struct gathered *g, const Lunar__RpcTrace *trace, struct rpc_cursor *cursor)
{
    struct uuid ring = uuid_from_pb(trace->ring_id);
    bool first = uuid_is_zero(&cursor->ring), same = uuid_equal(&ring, &cursor->ring);

    if (!same)
        *cursor = (struct rpc_cursor){.ring = ring};
    g->restarted = g->restarted || (!first && !same);
    /* What a ring had overwritten before we first looked was never ours to miss. */
    g->missed += same ? trace->missed : 0;
    snprintf(g->role, sizeof g->role, "%s", trace->role);
    for (size_t i = 0; i < trace->n_records; i++)
        js_append(g->records, record_json(trace, trace->records[i]));
    if (trace->n_records == 0)
        return false;
    cursor->number = trace->records[trace->n_records - 1]->number;
    return cursor->number < trace->last_number;
}

int rpc_ask_trace(struct client *client, struct rpc_cursor *cursor, json_t **ret, struct error *err)
{
    struct gathered g = {.records = json_array()};
    struct rpc_cursor at = *cursor;
    bool more = true;

    for (uint32_t page = 0; more && page < PAGES_MAX; page++) {
        Lunar__Envelope *answer = NULL;
        int rc = ask_trace_page(client, &at, &answer, err);
        if (rc < 0) {
            json_decref(g.records);
            return rc;
        }
        more = gather(&g, answer->response->rpc_trace, &at);
        envelope_free(answer);
    }
    *cursor = at;
    *ret = json_object();
    js_set(*ret, "role", js_text(g.role));
    js_set(*ret, "missed", js_u64(g.missed));
    js_set(*ret, "restarted", json_boolean(g.restarted));
    js_set(*ret, "records", g.records);
    return 0;
}

int rpc_patience_failed(struct rpc_patience *patience, const struct cli *cli, int code,
                        const struct error *err)
{
    if (!patience->met)
        return cli_fail(cli, code, err);
    if (!patience->waiting)
        cli_progress("the daemon does not answer (%s); waiting for it", err->text);
    patience->waiting = true;
    return CLI_OK;
}

void rpc_patience_answered(struct rpc_patience *patience)
{
    if (patience->waiting)
        cli_progress("it answers again");
    patience->met = true;
    patience->waiting = false;
}
