/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers about snapshots and layers. Like reply.c; listings come in pages, by name, so that they
 * fit into messages whatever there is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/leader_internal.h"

/* Of the longest names, they stay below a spill slot. */
#define LIST_LIMIT 200u
#define TREE_LIMIT 400u

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

/* --- snapshots --- */

static void fill_snapshot(struct leader *l, const struct catalogue_snapshot *s, Lunar__Snapshot *m)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &s->volume_id);

    lunar__snapshot__init(m);
    m->snapshot_id = uuid_to_pb(&s->id);
    m->name = text(s->name);
    m->volume_id = uuid_to_pb(&s->volume_id);
    m->volume = text(v ? v->name : "");
    m->size = s->size;
    m->created_s = s->created_s;
    m->state = text(!s->ready ? "creating" : op_by_volume(l, &s->id) ? "deleting" : "ready");
    m->allocated = l->catalogue->layers[s->layer].size;
    if (!uuid_is_zero(&s->group))
        m->group = uuid_to_pb(&s->group);
}

void reply_snapshot(struct leader *l, const struct waiter *w, const struct catalogue_snapshot *s)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Snapshot m;

    fill_snapshot(l, s, &m);
    response.op_case = LUNAR__RESPONSE__OP_SNAPSHOT;
    response.snapshot = &m;
    reply_send(l, w, &response);
}

void reply_group(struct leader *l, const struct waiter *w, const struct uuid *group)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Snapshots snapshots = LUNAR__SNAPSHOTS__INIT;
    Lunar__Snapshot messages[LEADER_GROUP_MAX], *list[LEADER_GROUP_MAX];

    snapshots.snapshots = list;
    for (uint32_t i = 0; i < l->catalogue->n_snapshots; i++) {
        const struct catalogue_snapshot *s = &l->catalogue->snapshots[i];
        if (!uuid_equal(&s->group, group) || snapshots.n_snapshots == LEADER_GROUP_MAX)
            continue;
        list[snapshots.n_snapshots] = &messages[snapshots.n_snapshots];
        fill_snapshot(l, s, list[snapshots.n_snapshots++]);
    }
    response.op_case = LUNAR__RESPONSE__OP_SNAPSHOTS;
    response.snapshots = &snapshots;
    reply_send(l, w, &response);
}

static bool is_asked(const Lunar__SnapshotList *m, const struct catalogue_snapshot *s)
{
    struct uuid volume = uuid_from_pb(m->volume_id), id = uuid_from_pb(m->snapshot_id);

    return (!m->after[0] || strcmp(s->name, m->after) > 0) &&
           (uuid_is_zero(&volume) || uuid_equal(&s->volume_id, &volume)) &&
           (uuid_is_zero(&id) || uuid_equal(&s->id, &id)) &&
           (!m->name[0] || strcmp(s->name, m->name) == 0);
}

void reply_snapshots(struct leader *l, const struct waiter *w, const Lunar__SnapshotList *m)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Snapshots snapshots = LUNAR__SNAPSHOTS__INIT;
    Lunar__Snapshot messages[LIST_LIMIT], *list[LIST_LIMIT];
    uint32_t limit = m->limit && m->limit < LIST_LIMIT ? m->limit : LIST_LIMIT;

    snapshots.snapshots = list;
    for (uint32_t i = 0; i < l->catalogue->n_snapshots && !snapshots.more; i++) {
        const struct catalogue_snapshot *s = &l->catalogue->snapshots[i];
        if (!is_asked(m, s))
            continue;
        snapshots.more = snapshots.n_snapshots == limit;
        if (snapshots.more)
            break;
        list[snapshots.n_snapshots] = &messages[snapshots.n_snapshots];
        fill_snapshot(l, s, list[snapshots.n_snapshots++]);
    }
    response.op_case = LUNAR__RESPONSE__OP_SNAPSHOTS;
    response.snapshots = &snapshots;
    reply_send(l, w, &response);
}

/* --- the tree --- */

/* What the layers of one page are, by their place in the catalogue. */
struct names {
    const struct catalogue_volume **volumes;
    const struct catalogue_snapshot **snapshots;
};

struct tree_message {
    Lunar__TreeLayer m;
    Lunar__Attachment attachment, *list[1];
};

static struct names names_new(struct leader *l)
{
    struct catalogue *c = l->catalogue;
    struct names names = {calloc(c->n_layers + 1u, sizeof *names.volumes),
                          calloc(c->n_layers + 1u, sizeof *names.snapshots)};

    if (!names.volumes || !names.snapshots)
        abort();
    for (uint32_t i = 0; i < c->n_volumes; i++)
        names.volumes[catalogue_layer_by_name(c, c->volumes[i].layers[0].lv_name) - c->layers] =
            &c->volumes[i];
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        names.snapshots[c->snapshots[i].layer] = &c->snapshots[i];
    return names;
}

static const char *role_text(const struct catalogue_layer *layer)
{
    switch (layer->role) {
    case CATALOGUE_LEAF:
    case CATALOGUE_OVERLAY:
        return "leaf";
    case CATALOGUE_SNAPSHOT:
        return "snapshot";
    default:
        return "frozen";
    }
}

/* A merged layer may be in the grant of a volume that was attached before; see verify_layers.c. */
static const char *state_text(const struct leader *l, const struct catalogue_layer *layer)
{
    bool named = layer->role == CATALOGUE_SNAPSHOT || layer->sheds_name;

    return layer->merged && !named                  ? "merged"
           : layer->merged || merge_takes(l, layer) ? "merging"
           : trim_measures(l, layer)                ? "measuring"
           : layer->garbage || layer->deleting      ? "deleting"
           : layer->is_new                          ? "new"
           : layer->role == CATALOGUE_FREEZING      ? "freezing"
                                                    : "";
}

static void fill_tree(struct leader *l, const struct names *names, uint32_t i,
                      struct tree_message *out)
{
    const struct catalogue_layer *layer = &l->catalogue->layers[i];
    const struct catalogue_volume *v = names->volumes[i];
    uint32_t host = 0;

    lunar__tree_layer__init(&out->m);
    out->m.lv_name = text(layer->lv_name);
    out->m.parent = text(
        layer->parent == CATALOGUE_NO_LAYER ? "" : l->catalogue->layers[layer->parent].lv_name);
    out->m.allocated = layer->size;
    out->m.role = text(role_text(layer));
    out->m.state = text(state_text(l, layer));
    if (merge_takes(l, layer)) {
        const struct op *op = op_by_kind(l, OP_MERGE);
        out->m.done = op->done;
        out->m.total = op->total;
    }
    out->m.volume = text(v ? v->name : "");
    out->m.snapshot = text(names->snapshots[i] ? names->snapshots[i]->name : "");
    const struct table_entry *e = v ? grant_find_attach(l, &v->id, &host) : NULL;
    if (!e)
        return;
    lunar__attachment__init(&out->attachment);
    out->attachment.attachment_id = uuid_to_pb(&e->attachment_id);
    out->attachment.host_id = host;
    out->attachment.node = text(node_name(l, host));
    out->attachment.state = text("granted");
    out->list[0] = &out->attachment;
    out->m.attachments = out->list;
    out->m.n_attachments = 1;
}

void reply_tree(struct leader *l, const struct waiter *w, const Lunar__TreeGet *m)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Tree tree = LUNAR__TREE__INIT;
    struct tree_message *messages = calloc(TREE_LIMIT, sizeof *messages);
    Lunar__TreeLayer *list[TREE_LIMIT];
    struct names names = names_new(l);

    if (!messages)
        abort();
    tree.layers = list;
    for (uint32_t i = 0; i < l->catalogue->n_layers; i++) {
        if (m->after[0] && strcmp(l->catalogue->layers[i].lv_name, m->after) <= 0)
            continue;
        tree.more = tree.n_layers == TREE_LIMIT;
        if (tree.more)
            break;
        fill_tree(l, &names, i, &messages[tree.n_layers]);
        list[tree.n_layers] = &messages[tree.n_layers].m;
        tree.n_layers++;
    }
    response.op_case = LUNAR__RESPONSE__OP_TREE;
    response.tree = &tree;
    reply_send(l, w, &response);
    free(messages);
    free(names.volumes);
    free(names.snapshots);
}
