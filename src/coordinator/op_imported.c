/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of an import: one commit drops lunar.im from a volume that is attached nowhere, so all
 * that was written to it is on the LUN; from then on it is a volume like others.
 *
 * Failure modes: the leader is lost before the commit: the same request again; after it: the same
 * again is success. Who imported died: nobody asks, and the volume says so until it is deleted.
 */
#include "coordinator/leader_internal.h"

static int check(struct leader *l, const struct catalogue_volume *v, struct error *err)
{
    uint32_t host = 0;

    if (!v || catalogue_volume_is_deleting(v))
        return error_set(err, LUNAR_E_NOT_FOUND, "no such volume");
    if (catalogue_volume_is_new(v))
        return error_set(err, LUNAR_E_BUSY, "the volume is still being created; try again");
    if (v->importing && grant_find(l, &v->id, &host))
        return error_set(err, LUNAR_E_IN_USE,
                         "node '%s' has the volume: what it wrote may not be on the LUN yet",
                         node_name(l, host));
    return 0;
}

void imported_request(struct leader *l, const struct waiter *w, const Lunar__VolumeImported *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &id);
    struct op *op = op_by_volume(l, &id);
    struct error err = ERROR_INIT;
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (op && op->kind == OP_IMPORTED) {
        op_add_waiter(l, op, w);
    } else if (op) {
        reply_busy(l, w, op);
    } else if (check(l, v, &err) < 0) {
        reply_error(l, w, err.code, err.text);
    } else if (!v->importing) {
        reply_volume(l, w, v, "");
    } else {
        op = op_new(l, OP_IMPORTED, &id);
        op_add_waiter(l, op, w);
        pool_vg_name(l->sb->pool_name, vg);
        catalogue_imported_args(vg, v, &args);
        op_commit(l, op, OP_STATE_COMMIT_MADE, &args);
    }
}

void imported_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (!v || v->importing)
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the volume is in the metadata as before, or not at all");
    op_finish(l, op);
}
