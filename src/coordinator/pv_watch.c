/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which nodes do not see all LUNs of the pool, for the pool's condition. Changes nothing and
 * decides nothing: an attach is refused by the node itself.
 *
 * Happy path: each life of an agent is asked once, when its page shows up, about all LUNs,
 * where there are several. Failure modes: one that does not see them is asked again every minute;
 * one that does not answer is shown as silent anyway.
 */
#include <stdio.h>

#include "coordinator/leader_internal.h"

#define ASK_AGAIN_MS (60u * 1000)

static void ask(struct leader *l, uint32_t host_id)
{
    struct node *n = &l->nodes[host_id];

    n->lun_asked_ms = l->now_ms;
    n->lun_question = uuid_random();
    (void)command_probe_added(l, host_id, &n->lun_question); /* not sent: nothing is known then */
}

void pv_watch_node(struct leader *l, uint32_t host_id)
{
    l->nodes[host_id].lun_trouble[0] = 0;
    if (l->catalogue->n_pvs > 1 && !l->nodes[host_id].leaving)
        ask(l, host_id);
}

bool pv_watch_result(struct leader *l, uint32_t host_id, const Lunar__Result *result)
{
    struct node *n = &l->nodes[host_id];
    struct uuid id = uuid_from_pb(result->id);

    if (uuid_is_zero(&id) || !uuid_equal(&id, &n->lun_question))
        return false;
    bool failed = result->error && result->error->code < 0;
    snprintf(n->lun_trouble, sizeof n->lun_trouble, "%s", failed ? result->error->text : "");
    return true;
}

void pv_watch_tick(struct leader *l)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        if (n->lun_trouble[0] && l->now_ms - n->lun_asked_ms >= ASK_AGAIN_MS && node_usable(l, h))
            ask(l, h);
    }
}

void pv_watch_condition(const struct leader *l, char *ret, size_t size)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        if (!l->nodes[h].lun_trouble[0] || !node_usable(l, h))
            continue;
        snprintf(ret, size, "node '%.200s' does not see all of the pool's LUNs: %s",
                 node_name(l, h), l->nodes[h].lun_trouble);
        return;
    }
}
