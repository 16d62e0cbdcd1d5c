/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon shows of its disk RPC; see rpc_view.h.
 *
 * Happy path: messages are filled from the channel's counters and from the ring, packed, done;
 * both are bounded by a page, and the asker comes back with its cursor for the next. Failure modes:
 * a cursor of another ring (the daemon was restarted) starts at the oldest record; records that the
 * ring has overwritten are counted in `missed`.
 */
#include "diskrpc/rpc_view.h"

#include <stdlib.h>
#include <time.h>

bool rpc_view_wants(const Lunar__Envelope *e)
{
    return e->body_case == LUNAR__ENVELOPE__BODY_LOCAL_REQUEST &&
           (e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_RPC_STATS ||
            e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_RPC_TRACE);
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void rpc_view_set_clocks(struct rpc_view *view)
{
    view->now_us = clock_us(CLOCK_MONOTONIC);
    view->wall_us = clock_us(CLOCK_REALTIME);
}

_Static_assert(PAGE_NAME_MAX == MESSAGE_NAME_MAX, "a peer's name fits into a message");

static char *text(const char *s)
{
    return (char *)(uintptr_t)(s ? s : "");
}

/* An id that is none stays unset. */
static ProtobufCBinaryData id_or_nothing(const struct uuid *id)
{
    return uuid_is_zero(id) ? (ProtobufCBinaryData){0} : uuid_to_pb(id);
}

static void *must_calloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        abort();
    return p;
}

static int pack(Lunar__Response *response, uint8_t **ret, uint32_t *ret_len, struct error *err)
{
    static const struct uuid zero; /* local requests carry no id */
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;

    response->id = uuid_to_pb(&zero);
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = response;
    return envelope_pack(&e, ret, ret_len, err);
}

/* --- the counters --- */

struct row {
    Lunar__RpcNode node;
    Lunar__RpcTimes ack, answer;
};

static void fill_times(Lunar__RpcTimes *to, const struct trace_times *from)
{
    lunar__rpc_times__init(to);
    to->count = from->count;
    to->last_us = from->last_us;
    to->avg_us = from->avg_us;
    to->max_us = from->max_us;
}

static void fill_row(struct row *row, const struct rpc_view *view, uint32_t slot,
                     const struct channel_stats *s)
{
    struct trace_times answers = trace_times(view->trace, slot);
    uint64_t now_ms = view->now_us / 1000;
    Lunar__RpcNode *n = &row->node;

    lunar__rpc_node__init(n);
    n->host_id = slot;
    n->name = text(view->node && *view->node ? view->node : s->peer_name);
    n->peer_host_id = s->peer.host_id;
    n->peer_generation = s->peer.generation;
    n->peer_run_or_term = s->peer.run_or_term;
    n->peer_term = s->peer_term;
    n->queued = s->queued;
    n->queued_bytes = s->queued_bytes;
    n->last_heard_ms =
        s->last_heard_ms && s->last_heard_ms < now_ms ? now_ms - s->last_heard_ms : 0;
    n->resends = s->resends;
    n->sessions = s->sessions;
    n->bad_pages = s->bad_pages;
    n->stale_pages = s->stale_pages;
    n->read_errors = s->read_errors;
    n->write_errors = s->write_errors;
    n->pages_read = s->pages_read;
    n->pages_written = s->pages_written;
    n->messages_sent = s->messages_sent;
    n->messages_received = s->messages_received;
    fill_times(&row->ack, &s->ack);
    fill_times(&row->answer, &answers);
    n->ack = &row->ack;
    n->answer = &row->answer;
}

static int answer_stats(const struct rpc_view *view, const Lunar__RpcStatsGet *get, uint8_t **ret,
                        uint32_t *ret_len, struct error *err)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__RpcStats stats = LUNAR__RPC_STATS__INIT;
    struct row *rows = must_calloc(RPC_VIEW_NODES_MAX, sizeof *rows);
    Lunar__RpcNode **list = must_calloc(RPC_VIEW_NODES_MAX, sizeof(Lunar__RpcNode *));
    uint32_t n = 0;

    uint64_t slot =
        get->after_host_id >= view->first ? (uint64_t)get->after_host_id + 1 : view->first;
    for (; view->stats && slot <= view->last; slot++) {
        const struct channel_stats *s = view->stats(view->data, (uint32_t)slot);
        if (!s)
            continue;
        if (n == RPC_VIEW_NODES_MAX) {
            stats.more = true;
            break;
        }
        fill_row(&rows[n], view, (uint32_t)slot, s);
        list[n] = &rows[n].node;
        n++;
    }
    stats.role = text(view->role);
    stats.pool = text(view->pool);
    stats.node = text(view->node);
    stats.condition = text(view->condition);
    stats.host_id = view->host_id;
    stats.term = view->term;
    stats.nodes = list;
    stats.n_nodes = n;
    response.op_case = LUNAR__RESPONSE__OP_RPC_STATS;
    response.rpc_stats = &stats;
    int rc = pack(&response, ret, ret_len, err);
    free(list);
    free(rows);
    return rc;
}

/* --- the ring --- */

static const char *name_of(const struct rpc_view *view, uint32_t slot)
{
    if (view->node && *view->node)
        return view->node;
    bool ours = view->stats && slot >= view->first && slot <= view->last;
    const struct channel_stats *s = ours ? view->stats(view->data, slot) : NULL;
    return s ? s->peer_name : "";
}

static void fill_record(Lunar__RpcTraceRecord *to, const struct rpc_view *view,
                        const struct trace_record *from)
{
    lunar__rpc_trace_record__init(to);
    to->number = from->number;
    to->time_us = from->time_us;
    to->event = from->event;
    to->host_id = from->slot;
    to->name = text(name_of(view, from->slot));
    to->peer_host_id = from->peer.host_id;
    to->peer_generation = from->peer.generation;
    to->peer_run_or_term = from->peer.run_or_term;
    to->page_seq = from->page_seq;
    to->seq = from->seq;
    to->length = from->len;
    to->spilled = from->spilled;
    to->body = from->body;
    to->op = from->op;
    to->id = id_or_nothing(&from->id);
    to->volume_id = id_or_nothing(&from->volume);
    to->error = from->error;
    to->took_us = from->took_us;
}

static uint64_t start_at(const struct trace *trace, const Lunar__RpcTraceGet *get)
{
    struct uuid ring = uuid_from_pb(get->ring_id);
    return uuid_equal(&ring, trace_id(trace)) ? get->after_number : 0;
}

static int answer_trace(const struct rpc_view *view, const Lunar__RpcTraceGet *get, uint8_t **ret,
                        uint32_t *ret_len, struct error *err)
{
    uint32_t max = get->max && get->max < RPC_VIEW_RECORDS_MAX ? get->max : RPC_VIEW_RECORDS_MAX;
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__RpcTrace trace = LUNAR__RPC_TRACE__INIT;
    Lunar__RpcTraceRecord *records = must_calloc(max, sizeof *records);
    Lunar__RpcTraceRecord **list = must_calloc(max, sizeof(Lunar__RpcTraceRecord *));
    uint64_t cursor = start_at(view->trace, get);
    const struct trace_record *r;
    uint32_t n = 0;

    while (n < max && (r = trace_next(view->trace, &cursor, &trace.missed)) != NULL) {
        fill_record(&records[n], view, r);
        list[n] = &records[n];
        n++;
    }
    trace.ring_id = uuid_to_pb(trace_id(view->trace));
    trace.role = text(view->role);
    trace.now_us = view->now_us;
    trace.wall_us = view->wall_us;
    trace.last_number = trace_last(view->trace);
    trace.records = list;
    trace.n_records = n;
    response.op_case = LUNAR__RESPONSE__OP_RPC_TRACE;
    response.rpc_trace = &trace;
    int rc = pack(&response, ret, ret_len, err);
    free(list);
    free(records);
    return rc;
}

int rpc_view_answer(const struct rpc_view *view, const Lunar__LocalRequest *request, uint8_t **ret,
                    uint32_t *ret_len, struct error *err)
{
    if (request->op_case == LUNAR__LOCAL_REQUEST__OP_RPC_STATS)
        return answer_stats(view, request->rpc_stats, ret, ret_len, err);
    return answer_trace(view, request->rpc_trace, ret, ret_len, err);
}
