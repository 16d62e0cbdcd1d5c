/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A merged layer may be a snapshot, the layer below it none: what the upper one shows the lower one
 * shows alone by now, so the snapshot's name goes there, and the upper one is garbage in the end.
 *
 * Happy path, after the upper layer Y was marked as merged: one commit gives the lower layer X all
 * of the snapshot's tags; one takes them from Y. Then op_merge.c goes on with what stands on Y.
 *
 * The snapshot is never gone and never there twice: until the first commit it is Y, from then on X,
 * for of two layers that have the same tags, one marked and upon the other, the lower one is it
 * (catalogue_chain.c). Either shows the same bytes, so whoever read which one a moment ago is
 * right: a clone or a rollback that is about to stand on Y keeps it (op_builds_upon), and is put
 * upon X like everything else.
 *
 * Failure modes: the leader is lost, or a commit fails: the next attempt goes by the tags. The
 * snapshot is being deleted: nothing is named until that has ended, or X would bring it back. It is
 * to be deleted while X gets its name: that waits for the commit. In between, both lose it, Y first
 * (op_unsnap.c).
 */
#include "coordinator/leader_internal.h"

bool merge_names(const struct leader *l, const struct catalogue_snapshot *s)
{
    const struct op *op = op_by_kind(l, OP_MERGE);

    return op && op->state == OP_STATE_COMMIT_NAME && uuid_equal(&op->snapshot_id, &s->id);
}

static const struct catalogue_snapshot *name_of(const struct leader *l,
                                                const struct catalogue_layer *y)
{
    const struct catalogue *c = l->catalogue;

    return catalogue_snapshot_of(c, y->sheds_name ? &c->layers[y->parent] : y);
}

static bool has_name(const struct catalogue_layer *y)
{
    return y->role == CATALOGUE_SNAPSHOT || y->sheds_name;
}

bool merge_is_left(const struct catalogue_layer *y)
{
    return y->merged && (y->users > 0 || has_name(y));
}

bool merge_name_waits(struct leader *l, const struct catalogue_layer *y)
{
    const struct catalogue_snapshot *s = has_name(y) ? name_of(l, y) : NULL;

    if (has_name(y) && !s)
        return true; /* its tags are broken: what stands on it stays until they are mended */
    return s && op_by_volume(l, &s->id); /* it is being deleted */
}

bool merge_move_name(struct leader *l, struct op *op, const struct catalogue_layer *y)
{
    const struct catalogue_snapshot *s = has_name(y) ? name_of(l, y) : NULL;
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (!s)
        return false;
    pool_vg_name(l->sb->pool_name, vg);
    if (y->sheds_name)
        catalogue_unsnap_args(vg, y, s, &args);
    else
        catalogue_snap_args(vg, &l->catalogue->layers[y->parent], s, &args);
    op->snapshot_id = s->id;
    op_commit(l, op, OP_STATE_COMMIT_NAME, &args);
    return true;
}
