/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a snapshot: one commit takes its name and id; the layer stays as long as a leaf or
 * another snapshot stands upon it, and is garbage else (op_garbage.c). In any order, whether the
 * volume is attached or gone. While a merge moves the name to the layer below (op_merge_name.c)
 * two layers may have it: the upper one loses it first, or it would be the snapshot once more. And
 * while a commit is out that gives it to one of them, the deletion waits in START.
 *
 * Failure modes: the same request again, also after it is gone, is success: it names the snapshot
 * by its id (SAFETY 6). A snapshot that is not ready yet is made first. The leader is lost between
 * two layers: it is a snapshot still, of one layer.
 */
#include <string.h>

#include "coordinator/leader_internal.h"

/* The layer that is to lose the name next. */
static const struct catalogue_layer *next_layer(const struct leader *l,
                                                const struct catalogue_snapshot *s)
{
    const struct catalogue_layer *left = catalogue_sheds_name(l->catalogue, s);
    return left ? left : &l->catalogue->layers[s->layer];
}

static void take_name(struct leader *l, struct op *op, const struct catalogue_snapshot *s)
{
    const struct catalogue_layer *layer = next_layer(l, s);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    strcpy(op->name, layer->lv_name);
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_unsnap_args(vg, layer, s, &args);
    op_commit(l, op, OP_STATE_COMMIT_FROZEN, &args);
}

void unsnap_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotDelete *m)
{
    struct uuid id = uuid_from_pb(m->snapshot_id);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &id);
    struct op *op = uuid_is_zero(&id) ? NULL : op_by_volume(l, &id);

    if (op && op->kind == OP_UNSNAP) {
        op_add_waiter(l, op, w);
        return;
    }
    if (!s) {
        reply_plain(l, w);
        return;
    }
    if (!s->ready) {
        reply_error(l, w, LUNAR_E_BUSY, "the snapshot is being made; try again");
        return;
    }
    op = op_new(l, OP_UNSNAP, &id);
    op_add_waiter(l, op, w);
    if (!merge_names(l, s))
        take_name(l, op, s);
}

void unsnap_wake(struct leader *l)
{
    struct op *op, *next;

    for (op = TAILQ_FIRST(&l->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->kind != OP_UNSNAP || op->state != OP_STATE_START)
            continue;
        const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &op->volume_id);
        if (!s)
            op_finish(l, op);
        else if (!merge_names(l, s))
            take_name(l, op, s);
    }
}

void unsnap_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &op->volume_id);

    if (s && rc == 0 && strcmp(next_layer(l, s)->lv_name, op->name) != 0) {
        take_name(l, op, s);
        return;
    }
    if (s)
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the snapshot is still in the metadata");
    op_finish(l, op);
}
