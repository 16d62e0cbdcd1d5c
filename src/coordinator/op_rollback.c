/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rolling a volume back to one of its snapshots: a new leaf on the snapshot's layer takes the place
 * of the leaf. Every snapshot stays; what was written since is lost. The volume keeps its size.
 *
 * Happy path: the volume is attached nowhere; one commit makes the new leaf Z, new, which names the
 * leaf L that it takes the place of; a node formats Z (op_job.c); one commit drops "new": Z is the
 * leaf; one more takes L's role away, and L is garbage. Failure modes: the leader is lost after any
 * step: the next one goes on. Formatting fails: Z is removed. The volume was attached by somebody
 * after an attempt that failed half-way: attaching takes up the rollback first, and nothing flips
 * under a grant. The same request again is done once: the leaf names the request.
 */
#include <string.h>

#include "coordinator/leader_internal.h"

/* --- requests --- */

static int check_volume(struct leader *l, const struct catalogue_volume *v, struct error *err)
{
    uint32_t host = 0;

    if (!v || catalogue_volume_is_deleting(v))
        return error_set(err, LUNAR_E_NOT_FOUND, "no such volume");
    relink_gives_way(l, &v->id);
    if (catalogue_volume_is_new(v) || op_by_volume(l, &v->id))
        return error_set(err, LUNAR_E_BUSY,
                         "another operation on the volume is under way; try again");
    if (catalogue_volume_is_changing(v)) {
        change_resume(l, v);
        return error_set(err, LUNAR_E_BUSY,
                         "an earlier snapshot or rollback is being completed; try again");
    }
    if (grant_find(l, &v->id, &host))
        return error_set(err, LUNAR_E_IN_USE,
                         "the volume is attached to node '%s'; detach it first",
                         node_name(l, host));
    return v->next_index == UINT32_MAX ? error_set(err, LUNAR_E_FULL, "no index is left") : 0;
}

static int check_snapshot(struct leader *l, const struct catalogue_volume *v,
                          const struct catalogue_snapshot *s, struct error *err)
{
    if (!s || !uuid_equal(&s->volume_id, &v->id))
        return error_set(err, LUNAR_E_NOT_FOUND, "the volume has no such snapshot");
    if (!s->ready || op_by_volume(l, &s->id))
        return error_set(err, LUNAR_E_BUSY, "the snapshot is being %s; try again",
                         s->ready ? "deleted" : "made");
    if (l->catalogue->layers[s->layer].depth >= CATALOGUE_LAYERS_MAX)
        return error_set(err, LUNAR_E_FULL, "the snapshot's chain has the most layers that work");
    return 0;
}

static void start(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                  const struct catalogue_snapshot *s)
{
    struct op *op = op_new(l, OP_ROLLBACK, &v->id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    op->request_id = w->request_id;
    op->prefers_host = w->host_id;
    op->size = v->size;
    strcpy(op->name, v->name);
    strcpy(op->parent_lv, l->catalogue->layers[s->layer].lv_name);
    const struct catalogue_leaf leaf = {.volume_id = &v->id,
                                        .index = v->next_index,
                                        .name = v->name,
                                        .size = v->size,
                                        .request_id = &v->request_id,
                                        .parent = op->parent_lv,
                                        .source_id = &v->source_id,
                                        .source_is_volume = v->source_is_volume,
                                        .replaces = v->layers[0].lv_name,
                                        .rollback_id = &op->request_id};
    op_add_waiter(l, op, w);
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_create_args(vg, &leaf, l->catalogue->extent_size, &args);
    op_commit(l, op, OP_STATE_COMMIT_CREATE, &args);
}

/* That very request has been carried out, or is being. True: answered, or joined. */
static bool is_done(struct leader *l, const struct waiter *w, const struct catalogue_volume *v)
{
    struct op *op = op_by_volume(l, &v->id);
    bool under_way = v->overlay && uuid_equal(&v->overlay->rollback_id, &w->request_id);

    if (op && op->kind == OP_ROLLBACK &&
        (under_way || uuid_equal(&op->request_id, &w->request_id))) {
        op_add_waiter(l, op, w);
        return true;
    }
    /* A relink is no news of the volume: an answer that was lost is given again beside it. */
    if ((op && op->kind != OP_RELINK) || !uuid_equal(&v->rollback_id, &w->request_id))
        return false;
    reply_volume(l, w, v, "");
    return true;
}

void rollback_request(struct leader *l, const struct waiter *w, const Lunar__VolumeRollback *m)
{
    struct uuid id = uuid_from_pb(m->volume_id), snapshot_id = uuid_from_pb(m->snapshot_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &id);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &snapshot_id);
    struct error err = ERROR_INIT;

    if (v && is_done(l, w, v))
        return;
    if (check_volume(l, v, &err) < 0 || check_snapshot(l, v, s, &err) < 0)
        reply_error(l, w, err.code, err.text);
    else
        start(l, w, v, s);
}

/* --- steps --- */

static void after_create(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                         const struct error *err)
{
    if (v->overlay && v->overlay->replaces) {
        op_move(op, OP_STATE_WAIT_NODE);
        job_start(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new layer is not in the metadata");
    op_finish(l, op);
}

static void after_job(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    uint32_t host = 0;

    if (grant_find(l, &op->volume_id, &host)) { /* nothing flips under a writer */
        op_fail(op, LUNAR_E_IN_USE, "the volume is attached to node '%s'", node_name(l, host));
        job_undo(l, op);
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_made_args(vg, &v->overlay->layer, &args);
    op_commit(l, op, OP_STATE_COMMIT_MADE, &args);
}

static void after_flip(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                       const struct error *err)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (v->former) {
        pool_vg_name(l->sb->pool_name, vg);
        catalogue_frozen_args(vg, v, &args);
        op_commit(l, op, OP_STATE_COMMIT_FROZEN, &args);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new leaf is not in the metadata");
    op_finish(l, op);
}

void rollback_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (op->state >= OP_STATE_WAIT_NODE && op->state <= OP_STATE_UNGRANT) {
        if (job_step(l, op, rc, err))
            after_job(l, op);
        return;
    }
    if (v && op->state == OP_STATE_COMMIT_CREATE) {
        after_create(l, op, v, rc, err);
        return;
    }
    if (v && op->state == OP_STATE_COMMIT_MADE) {
        after_flip(l, op, v, rc, err);
        return;
    }
    if (rc < 0)
        op_fail(op, rc, "%s", err->text);
    op_finish(l, op);
}
