/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a new leader believes about a node: the union of both grant copies and the node's own report
 * (SAFETY 2, 3).
 *
 * Happy path: all three say the same and the union is that. Failure modes: a predecessor died
 * between copy A and copy B, or between the grant and the attach: the entry stands, because the
 * node may have it open. A report alone also stands: the node wrote "opening" before it looked for
 * the grant. Too many entries for one table cannot happen, since each source has at most a table's
 * worth and the agent opens only what was granted; if it does, the leader must not lead: aborted.
 */
#include <stdlib.h>

#include "coordinator/leader.h"

static void unite(struct table *into, const struct table *from)
{
    for (uint32_t i = 0; from && i < from->n_entries; i++) {
        const struct table_entry *e = &from->entries[i];
        struct table_entry *mine = table_find_attachment(into, &e->attachment_id);
        if (mine && mine->n_layers >= e->n_layers)
            continue;
        if (!mine)
            mine = table_add(into);
        if (!mine)
            abort();
        *mine = *e;
        mine->state = TABLE_STATE_GRANTED;
    }
}

void grants_merge(const struct table *a, const struct table *b, const struct table *report,
                  uint32_t host_id, const struct uuid *pool_id, struct table *ret)
{
    table_init(ret, TABLE_GRANTS, host_id, pool_id);
    unite(ret, a);
    unite(ret, b);
    unite(ret, report);
}
