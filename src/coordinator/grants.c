/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a new leader believes about a node: the union of both grant copies and the node's own report
 * (SAFETY 2, 3).
 *
 * Happy path: all three say the same and the union is that. Failure modes: a predecessor died
 * between copy A and copy B, or between the grant and the attach: the entry stands, because the
 * node may have it open. A report alone also stands: the node wrote "opening" before it looked for
 * the grant. One attachment id under two volumes, which no
 * honest writer leaves: both entries stand, since either volume may be open there. More entries
 * than one table holds, which no agent brings about: an error, and nobody leads until it is looked
 * into.
 */
#include <stdlib.h>

#include "coordinator/leader.h"

static struct table_entry *find(struct table *t, const struct table_entry *e)
{
    for (uint32_t i = 0; i < t->n_entries; i++)
        if (uuid_equal(&t->entries[i].attachment_id, &e->attachment_id) &&
            uuid_equal(&t->entries[i].volume_id, &e->volume_id))
            return &t->entries[i];
    return NULL;
}

static int unite(struct table *into, const struct table *from, struct error *err)
{
    for (uint32_t i = 0; from && i < from->n_entries; i++) {
        const struct table_entry *e = &from->entries[i];
        struct table_entry *mine = find(into, e);
        if (mine && mine->n_layers >= e->n_layers)
            continue;
        if (!mine)
            mine = table_add(into);
        if (!mine)
            return error_set(
                err, LUNAR_E_TOO_BIG,
                "the grants and the report of host %u name more attachments than a table holds",
                into->slot);
        *mine = *e;
        mine->state = TABLE_STATE_GRANTED;
    }
    return 0;
}

int grants_merge(const struct table *a, const struct table *b, const struct table *report,
                 uint32_t host_id, const struct uuid *pool_id, struct table *ret, struct error *err)
{
    table_init(ret, TABLE_GRANTS, host_id, pool_id);
    int rc = unite(ret, a, err);
    if (rc == 0)
        rc = unite(ret, b, err);
    return rc < 0 ? rc : unite(ret, report, err);
}
