/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a snapshot: one commit takes its name and id; the layer stays as long as a leaf or
 * another snapshot stands upon it, and is garbage else (op_garbage.c). In any order, whether the
 * volume is attached or gone.
 *
 * Failure modes: the same request again, also after it is gone, is success: it names the snapshot
 * by its id (SAFETY 6). A snapshot that is not ready yet is made first.
 */
#include "coordinator/leader_internal.h"

void unsnap_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotDelete *m)
{
    struct uuid id = uuid_from_pb(m->snapshot_id);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &id);
    struct op *op = uuid_is_zero(&id) ? NULL : op_by_volume(l, &id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

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
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_unsnap_args(vg, l->catalogue, s, &args);
    op_commit(l, op, OP_STATE_COMMIT_FROZEN, &args);
}

void unsnap_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (catalogue_snapshot_by_id(l->catalogue, &op->volume_id))
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the snapshot is still in the metadata");
    op_finish(l, op);
}
