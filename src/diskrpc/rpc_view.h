/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answers to RpcStatsGet and RpcTraceGet, which an agent and a coordinator give alike: a
 * channel's counters as rows, the ring's records behind a cursor. Loop thread.
 */
#ifndef LUNAR_DISKRPC_RPC_VIEW_H
#define LUNAR_DISKRPC_RPC_VIEW_H

#include "diskrpc/channel.h"
#include "diskrpc/message.h"
#include "diskrpc/trace.h"

/* Of one answer: with the longest names it stays below half of FRAME_MAX. */
#define RPC_VIEW_NODES_MAX   512u
#define RPC_VIEW_RECORDS_MAX 1024u

/* Who answers, and what there is to see. All borrowed during the call. */
struct rpc_view {
    const char *role; /* "agent", "coordinator", "standby" */
    const char *pool, *node;
    const char *condition; /* "": well */
    uint32_t host_id;
    uint64_t term;
    uint64_t now_us;  /* monotonic, the clock of the channels */
    uint64_t wall_us; /* since 1970 */
    const struct trace *trace;
    /* The channels of the slots first..last; NULL: there is none. */
    uint32_t first, last;
    const struct channel_stats *(*stats)(void *data, uint32_t slot);
    void *data;
};

/* True for a local request that rpc_view_answer answers. */
bool rpc_view_wants(const Lunar__Envelope *e);
/* Packs the whole envelope of the answer; *ret is malloc'ed. */
int rpc_view_answer(const struct rpc_view *view, const Lunar__LocalRequest *request, uint8_t **ret,
                    uint32_t *ret_len, struct error *err);
/* The view of a daemon on this machine: fills both clocks. */
void rpc_view_set_clocks(struct rpc_view *view);

#endif
