/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent shows of its mailbox: `lunarctl rpc top` and `rpc trace`.
 *
 * Happy path: one row, this node's channel to its coordinator, and the ring. Before the join, and
 * after the lockspace was lost, there is no mailbox: no row, and the reason.
 */
#include <stdlib.h>

#include "agent/agent_internal.h"
#include "diskrpc/rpc_view.h"

static const struct channel_stats *stats_of(void *data, uint32_t slot)
{
    const struct agent *a = data;
    return a->mailbox && slot == a->join.self.host_id ? mailbox_stats(a->mailbox) : NULL;
}

void agent_rpc_answer(struct agent *a, uint64_t client, const Lunar__LocalRequest *request)
{
    uint32_t own = a->mailbox ? a->join.self.host_id : 0;
    struct rpc_view view = {
        .role = "agent",
        .pool = a->sb.pool_name,
        .node = a->node_name,
        .condition = a->mailbox      ? ""
                     : a->trouble[0] ? a->trouble
                                     : "not joined yet",
        .host_id = own,
        .term = a->mailbox ? mailbox_stats(a->mailbox)->term : 0,
        .trace = a->trace,
        .first = own,
        .last = own,
        .stats = stats_of,
        .data = a,
    };
    struct error err = ERROR_INIT;
    uint8_t *bytes;
    uint32_t len;

    rpc_view_set_clocks(&view);
    if (rpc_view_answer(&view, request, &bytes, &len, &err) < 0) {
        agent_answer(a, client, err.code, err.text);
        return;
    }
    local_send(a->local, client, bytes, len);
    free(bytes);
}
