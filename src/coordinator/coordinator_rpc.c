/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the coordinator shows of its hub: `lunarctl rpc top --coordinator` and `rpc trace
 * --coordinator`.
 *
 * Happy path: a row per node that was ever seen, and the ring. A process that does not lead has no
 * hub: no rows, and it says that it stands by.
 */
#include <stdlib.h>

#include "base/log.h"
#include "coordinator/coordinator_internal.h"
#include "diskrpc/rpc_view.h"

static const struct channel_stats *stats_of(void *data, uint32_t slot)
{
    const struct coordinator *c = data;
    return c->hub ? hub_stats(c->hub, slot) : NULL;
}

static const char *condition_of(const struct coordinator *c)
{
    switch (c->state) {
    case COORDINATOR_STATE_CANDIDATE:
        return "this coordinator stands by: another one leads, or none can";
    case COORDINATOR_STATE_TAKEOVER:
        return "this coordinator is taking over";
    case COORDINATOR_STATE_RESIGNING:
        return "this coordinator is resigning";
    case COORDINATOR_STATE_LEADING:
        break;
    }
    return "";
}

void coordinator_rpc_answer(struct coordinator *c, uint64_t client,
                            const Lunar__LocalRequest *request)
{
    struct rpc_view view = {
        .role = c->hub ? "coordinator" : "standby",
        .pool = c->sb.pool_name,
        .condition = condition_of(c),
        .host_id = c->self.host_id,
        .term = c->self.run_or_term,
        .trace = c->trace,
        .first = 1,
        .last = c->sb.layout.max_nodes,
        .stats = stats_of,
        .data = c,
    };
    struct error err = ERROR_INIT;
    uint8_t *bytes;
    uint32_t len;

    rpc_view_set_clocks(&view);
    if (rpc_view_answer(&view, request, &bytes, &len, &err) < 0) {
        log_error("rpc_view_failed code=%s text=\"%s\"", error_name(err.code), err.text);
        return;
    }
    local_send(c->local, client, bytes, len);
    free(bytes);
}
