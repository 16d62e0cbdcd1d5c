/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a new leader believes about a node: the union of both grant copies and the node's own report
 * (SAFETY 2, 3).
 *
 * Happy path: all three say the same and the union is that. Failure modes: a predecessor died
 * between copy A and copy B, or between the grant and the attach: the entry stands, because the
 * node may have it open. A report alone also stands: the node wrote "opening" before it looked for
 * the grant. One attachment id under two volumes, which no honest writer leaves: both entries
 * stand, since either volume may be open there. Of one attachment the sources name different
 * chains, for it got a leaf or dropped a merged layer since: the entry names the layers of all of
 * them. An entry of the older copy alone was erased after the node had confirmed, and either the
 * erasure failed half-way or a late write brought it back: it still stands, but as left over: it is
 * not attached under any more (SAFETY 6: its detach may have been answered) and taken back as soon
 * as the node has confirmed once more. A copy that marks a life as over was written upon proof:
 * what any source says of that life is ignored, since the proof does not expire. More entries than
 * one table holds, which no agent brings about: an error, and nobody leads until it is looked into.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/leader.h"

static struct table_entry *find(struct table *t, const struct table_entry *e)
{
    for (uint32_t i = 0; i < t->n_entries; i++)
        if (uuid_equal(&t->entries[i].attachment_id, &e->attachment_id) &&
            uuid_equal(&t->entries[i].volume_id, &e->volume_id))
            return &t->entries[i];
    return NULL;
}

enum source { NEWER_COPY, REPORT, OLDER_COPY };

/* What the term of an entry says after `from` has named it, too. The node's word makes it stand by
 * right, whatever term it knows: a stack that was adopted has forgotten its own. */
static uint64_t term_of(const struct table *from, enum source source, const struct table_entry *e,
                        const struct table_entry *mine)
{
    if (source == REPORT && (!mine || mine->term == TABLE_TERM_LEFT_OVER))
        return e->term ? e->term : from->term + 1;
    if (mine)
        return mine->term;
    return source == OLDER_COPY ? TABLE_TERM_LEFT_OVER : e->term;
}

/* What the newer source does not name goes in front of what it stood upon, from the bottom on. More
 * than an entry holds no chain ever had. */
static void unite_layers(struct table_entry *mine, const struct table_entry *e)
{
    uint32_t at = mine->n_layers;

    for (uint32_t i = e->n_layers; i-- > 0;) {
        const struct table_layer *layer = &e->layers[i];
        uint32_t k = 0;
        while (k < mine->n_layers && (mine->layers[k].volume_short != layer->volume_short ||
                                      mine->layers[k].index != layer->index))
            k++;
        if (k < mine->n_layers) {
            at = k;
        } else if (mine->n_layers < TABLE_LAYERS_MAX) {
            memmove(mine->layers + at + 1, mine->layers + at,
                    (mine->n_layers - at) * sizeof *mine->layers);
            mine->layers[at] = *layer;
            mine->n_layers++;
        }
    }
}

static int unite(struct table *into, const struct table *from, enum source source,
                 struct error *err)
{
    for (uint32_t i = 0; from && i < from->n_entries; i++) {
        const struct table_entry *e = &from->entries[i];
        if (table_marks_dead(into, e->generation))
            continue;
        struct table_entry *mine = find(into, e);
        uint64_t term = term_of(from, source, e, mine);
        uint64_t generation =
            mine && mine->generation > e->generation ? mine->generation : e->generation;
        bool fresh = !mine;
        if (fresh)
            mine = table_add(into);
        if (!mine)
            return error_set(
                err, LUNAR_E_TOO_BIG,
                "the grants and the report of host %u name more attachments than a table holds",
                into->slot);
        if (fresh)
            *mine = *e;
        else
            unite_layers(mine, e);
        mine->generation = generation; /* the life that may have it now */
        mine->state = TABLE_STATE_GRANTED;
        mine->term = term;
    }
    return 0;
}

/* The higher mark of the two copies: one of them may be older, or brought back by a late write. */
static void unite_marks(struct table *into, const struct table *from)
{
    if (!from || !from->node_dead || from->dead_generation <= into->dead_generation)
        return;
    into->node_dead = true;
    into->dead_generation = from->dead_generation;
}

int grants_merge(const struct table *a, const struct table *b, const struct table *report,
                 uint32_t host_id, const struct uuid *pool_id, struct table *ret, struct error *err)
{
    bool a_is_older = !a || (b && table_newer(b, a));

    table_init(ret, TABLE_GRANTS, host_id, pool_id);
    unite_marks(ret, a);
    unite_marks(ret, b);
    int rc = unite(ret, a_is_older ? b : a, NEWER_COPY, err);
    if (rc == 0)
        rc = unite(ret, report, REPORT, err);
    return rc < 0 ? rc : unite(ret, a_is_older ? a : b, OLDER_COPY, err);
}
