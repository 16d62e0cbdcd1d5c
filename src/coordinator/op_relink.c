/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Relinking: layers that were merged leave the chains of attached volumes too, so that their space
 * comes back though nothing is ever detached. In the background, one attachment at a time.
 *
 * Happy path: a grant names a layer Y that the chain of its volume in the catalogue has not any
 * more, for it was merged. The node is told the grant's chain without Y (command Relink), makes its
 * stack so and says when nothing of it maps Y; only then is the grant written without it, both
 * copies (SAFETY 14). When no grant names Y any more, it goes as any garbage does.
 *
 * What is told and what is dropped is made of the grant's own chain, not of the catalogue's:
 * another merge may have shortened that meanwhile, and the node's answer is about what it was told.
 *
 * Failure modes: the leader is lost: the grant names Y as long as the node may have it, and the
 * next leader asks again; the node answers at once if all is done. The grant cannot be written: the
 * same. A node's report of before brings Y back into the grants at a takeover, when its LV is gone,
 * perhaps: it is dropped again. The node refuses or fails: other attachments have their turn, this
 * one after a pause. Anything else that is to be done with the volume goes first: the operation
 * ends, the node may end its part of it, and it is found again. The node knows nothing of the
 * attachment: nothing of it is mapped, and what is attached from now on has the chain of now. The
 * node is proved dead: nothing is left to do.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

/* After a failure; the next attempt is another attachment's, if one waits. */
#define RELINK_PAUSE_MS (30u * 1000)

static bool same(const struct table_layer *a, const struct table_layer *b)
{
    return a->volume_short == b->volume_short && a->index == b->index;
}

bool relink_drops(const struct op *op, const struct table_layer *layer)
{
    for (uint32_t i = 0; i < op->n_dropped_layers; i++)
        if (same(&op->dropped_layers[i], layer))
            return true;
    return false;
}

/* --- which --- */

static bool in_chain(const struct catalogue_volume *v, const struct table_layer *layer)
{
    for (uint32_t i = 0; i < v->n_layers; i++)
        if (v->layers[i].volume_short == layer->volume_short && v->layers[i].index == layer->index)
            return true;
    return false;
}

/* The volume stands on it no more, because the layer below holds it: or it is even gone. */
static bool is_merged(const struct leader *l, const struct catalogue_volume *v,
                      const struct table_layer *layer)
{
    const struct catalogue_layer *c =
        catalogue_layer_by_id(l->catalogue, layer->volume_short, layer->index);

    return (!c || c->merged) && !in_chain(v, layer);
}

static struct table_entry *entry_of(struct leader *l, const struct op *op)
{
    uint32_t host;

    return grant_by_attachment(l, &op->volume_id, &op->attachment_id, &host);
}

/* Is it this life of the node whose grant it is that answers? */
static bool is_of_this_life(const struct leader *l, uint32_t host, const struct table_entry *e)
{
    return l->nodes[host].self.generation == e->generation;
}

static bool may_be_asked(struct leader *l, uint32_t host, const struct table_entry *e,
                         const struct catalogue_volume *v)
{
    /* The node drains the disk for it: a write that waits for space would make that long. */
    return is_of_this_life(l, host, e) && !grow_is_awaited(l, &e->attachment_id) &&
           e->mode == TABLE_MODE_ATTACH && e->term != TABLE_TERM_LEFT_OVER && v &&
           !catalogue_volume_is_new(v) && !catalogue_volume_is_deleting(v) &&
           !catalogue_volume_is_changing(v) && !op_by_volume(l, &e->volume_id) &&
           !life_is_over(l, host, e->generation) && node_usable(l, host);
}

/* Up to so many, the uppermost first; whichever they are, what is below each of them holds it. */
static uint32_t find_merged(const struct leader *l, const struct table_entry *e,
                            const struct catalogue_volume *v,
                            struct table_layer ret[LEADER_RELINK_LAYERS_MAX])
{
    uint32_t n = 0;

    for (uint32_t i = 1; i + 1 < e->n_layers && n < LEADER_RELINK_LAYERS_MAX; i++)
        if (is_merged(l, v, &e->layers[i]))
            ret[n++] = e->layers[i];
    return n;
}

/* --- steps --- */

static void shorten(struct table_entry *e, const struct op *op)
{
    uint16_t kept = 0;

    for (uint32_t i = 0; i < e->n_layers; i++)
        if (!relink_drops(op, &e->layers[i]))
            e->layers[kept++] = e->layers[i];
    e->n_layers = kept;
}

static void fail(struct leader *l, struct op *op)
{
    l->relink_not_before_ms = l->now_ms + RELINK_PAUSE_MS;
    op_finish(l, op);
}

static void after_node(struct leader *l, struct op *op, int rc, const struct error *err)
{
    struct table_entry *e = entry_of(l, op);

    /* Another life's says nothing of what the one before has mapped. */
    if (rc == LUNAR_E_NOT_FOUND && e && is_of_this_life(l, op->host_id, e))
        rc = 0;
    if (rc < 0 || !e) {
        op_fail(op, rc < 0 ? rc : LUNAR_E_NOT_FOUND, "node '%s': %s", node_name(l, op->host_id),
                rc < 0 ? err->text : "it is not attached there any more");
        fail(l, op);
        return;
    }
    op->dropped = malloc(sizeof *op->dropped);
    if (!op->dropped)
        abort();
    *op->dropped = *e; /* as the LUN may go on to say */
    shorten(e, op);
    op_write_grants(l, op, OP_STATE_CHAIN_GRANT);
}

static void after_grant(struct leader *l, struct op *op, int rc, const struct error *err)
{
    struct table_entry *e = entry_of(l, op);

    if (rc < 0) {
        if (e)
            *e = *op->dropped;
        op_fail(op, rc, "the grant could not be shortened: %s", err->text);
        fail(l, op);
        return;
    }
    op_finish(l, op);
    garbage_collect(l);
    relink_attached(l);
}

void relink_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (op->state == OP_STATE_RELINK)
        after_node(l, op, rc, err);
    else
        after_grant(l, op, rc, err);
}

void relink_gives_way(struct leader *l, const struct uuid *volume_id)
{
    struct op *op = op_by_volume(l, volume_id);

    if (!op || op->kind != OP_RELINK || op->state != OP_STATE_RELINK)
        return;
    op_fail(op, LUNAR_E_BUSY, "something else is to be done with the volume");
    op_finish(l, op);
}

/* --- beginnings --- */

static bool begin(struct leader *l, uint32_t host, const struct table_entry *e)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &e->volume_id);
    struct table_layer merged[LEADER_RELINK_LAYERS_MAX];

    if (e->n_layers < 3 || !may_be_asked(l, host, e, v))
        return false;
    uint32_t n = find_merged(l, e, v, merged);
    if (n == 0)
        return false;
    struct op *op = op_new(l, OP_RELINK, &e->volume_id);
    op->host_id = host;
    op->attachment_id = e->attachment_id;
    op->command_id = uuid_random();
    strcpy(op->name, v->name);
    memcpy(op->dropped_layers, merged, n * sizeof *merged);
    op->n_dropped_layers = n;
    log_info("relink_begins volume=\"%s\" node=%u layers=%u drops=%u", v->name, host, e->n_layers,
             n);
    op_move(op, OP_STATE_RELINK);
    op_send_command(l, op);
    return true;
}

/* One is, and stands in the others' way; not for long if its node has fallen silent. */
static bool is_at_it(struct leader *l)
{
    struct op *op = op_by_kind(l, OP_RELINK);

    if (!op || op->state != OP_STATE_RELINK || node_usable(l, op->host_id))
        return op != NULL;
    op_fail(op, LUNAR_E_NOT_JOINED, "node '%s' does not answer", node_name(l, op->host_id));
    fail(l, op);
    return true;
}

/* The node's entries from `from` on, up to `to`. */
static bool begin_at(struct leader *l, uint32_t host, uint32_t from, uint32_t to)
{
    const struct node *n = &l->nodes[host];

    for (uint32_t i = from; n->has_grants && i < n->grants.n_entries && i < to; i++) {
        if (!begin(l, host, &n->grants.entries[i]))
            continue;
        l->relink_host = host;
        l->relink_entry = i;
        return true;
    }
    return false;
}

/* Whether a look at all grants may find anything. */
static bool is_worth_it(const struct leader *l)
{
    if (l->relink_looks > 0)
        return true;
    for (uint32_t i = 0; i < l->catalogue->n_layers; i++)
        if (l->catalogue->layers[i].merged)
            return true;
    return false;
}

/* From behind the last one, once around, so that one that fails stands in nobody's way. */
void relink_attached(struct leader *l)
{
    uint32_t max = l->sb->layout.max_nodes;
    uint32_t host = l->relink_host ? l->relink_host : 1, last = l->relink_entry + 1;

    if (l->now_ms < l->relink_not_before_ms || is_at_it(l) || !is_worth_it(l))
        return;
    if (begin_at(l, host, l->relink_host ? last : 0, UINT32_MAX))
        return;
    for (uint32_t k = 1; k < max; k++)
        if (begin_at(l, (host - 1 + k) % max + 1, 0, UINT32_MAX))
            return;
    if (!begin_at(l, host, 0, l->relink_host ? last : 0) && l->relink_looks > 0)
        l->relink_looks--;
}
